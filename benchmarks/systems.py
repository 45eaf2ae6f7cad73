"""How well and how fast do the bundled model and PocketSphinx recognise unseen English speakers?

    python benchmarks/systems.py --data ../shared/data --threads 1

Runs `llmasr bench` over the English test splits: sentences of second-language speakers, commands,
digits, hotwords and read sentences of Common Voice, every one scored as `llmasr-en`. With --limit,
at most so many utterances of each set, spread evenly; the tables say how many there were. Writes
`benchmarks/results/systems.csv`, `.json` and `.md`; a run that was interrupted goes on from
--keep.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

from llmasr.bench import (
    Dataset,
    Options,
    Result,
    Setup,
    bench,
    find_system,
    read_dataset,
    to_markdown,
    write_json,
)
from llmasr.bench.card import fingerprint

RESULTS = Path(__file__).parent / "results"
# PocketSphinx first: memory that others needed before it would count as its own.
SYSTEMS = ("pocketsphinx", "ours:tiny-en")
SETS = ("en_sentences_l2", "en_commands", "en_digits", "en_hotwords", "en_commonvoice")
# One batch warms up a processor; the leaderboard's ten are for GPUs.
OPTIONS = Options(batch_size=16, warmup=1, latency=20, normalizer="llmasr-en")
NOTE = (
    "tiny-en has learnt from the training splits of all sets but en_commonvoice;"
    " PocketSphinx has heard none of them. Times of a run with a"
    " load_average well above its threads are too long, for others were at work."
)


def row(result: Result) -> dict[str, object]:
    """Return a line of the table."""
    found, latency, memory = result.score, result.finish.latency, result.finish.memory
    low, high = found.interval or (None, None)
    numbers = {
        "wer": found.rate, "ci_low": low, "ci_high": high, "rtfx": result.rtfx,
        "latency_p50_s": latency and latency.p50, "latency_p95_s": latency and latency.p95,
        "rss_peak_mib": memory and memory.rss_peak / 2**20,
    }  # fmt: skip
    return {
        "system": result.system,
        "data": result.data,
        "utterances": found.utterances,
        **{name: None if value is None else round(value, 4) for name, value in numbers.items()},
        "failed": len(result.failures),
        "load_average": result.finish.load_average,
        "normalizer": found.normalizer,
        "threads": result.card["description"]["threads"],
        "machine": result.card["machine"]["cpu"],
        "commit": result.finish.commit,
        "data_hash": result.card["data_hash"],
        "fingerprint": fingerprint(result.card),
    }


def write(results: list[Result], datasets: list[Dataset], command: str) -> None:
    """Write the table in three forms."""
    rows = [row(result) for result in results]
    with (RESULTS / "systems.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    write_json(RESULTS / "systems.json", results)
    counts = ", ".join(f"{dataset.name}: {len(dataset.clips)}" for dataset in datasets)
    head = f"# Systems side by side\n\n`{command}`\n\n{NOTE}\n\nUtterances measured: {counts}.\n\n"
    (RESULTS / "systems.md").write_text(head + to_markdown(results), encoding="utf-8")


def main(data: Path, limit: int | None, threads: int, keep: Path, command: str) -> None:
    """Measure, print and write."""
    # torch reads this when a system imports it, not before: see SYSTEMS.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    datasets = [
        read_dataset(data / name / "manifest.jsonl", split="test", limit=limit) for name in SETS
    ]
    systems = [find_system(spec, Setup("cpu")) for spec in SYSTEMS]

    def show(*where: object) -> None:
        print(*where, file=sys.stderr)

    results = bench(systems, datasets, OPTIONS, folder=keep, on_progress=show)
    write(results, datasets, command)
    print(to_markdown(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("runs/systems"))
    arguments = parser.parse_args()
    shown = "python benchmarks/systems.py"
    if arguments.limit is not None:
        shown += f" --limit {arguments.limit}"
    shown += f" --threads {arguments.threads}"
    main(arguments.data, arguments.limit, arguments.threads, arguments.keep, shown)
