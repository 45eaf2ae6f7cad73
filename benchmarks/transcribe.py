"""How much faster than real time is `transcribe`, and how much memory does it need?

    python benchmarks/transcribe.py --data ../shared/data --threads 2

Transcribes the sentences of unseen speakers one clip at a time and in batches by seconds of audio,
reading included, after a warm-up; several runs in turn, of which the median counts. Adds lines to
`benchmarks/results/transcribe.csv`.
"""

import argparse
import csv
import json
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path

import torch

from llmasr import Recognizer

RESULTS = Path(__file__).parent / "results/transcribe.csv"


def one_by_one(recognizer: Recognizer, paths: list[str]) -> float:
    """Return the seconds of audio that were transcribed."""
    return sum(recognizer.transcribe(path).duration for path in paths)


def in_batches(recognizer: Recognizer, paths: list[str]) -> float:
    """Return the seconds of audio that were transcribed."""
    return sum(transcript.duration for transcript in recognizer.transcribe(paths))


MODES = {"one clip at a time": one_by_one, "batches of 120 s": in_batches}


def measure(recognizer: Recognizer, paths: list[str], runs: int) -> dict[str, list[float]]:
    """Return for each mode the real-time factors (audio seconds a second) of all runs."""
    for mode in MODES.values():
        mode(recognizer, paths[:8])
    factors: dict[str, list[float]] = {name: [] for name in MODES}
    for _ in range(runs):
        for name, mode in MODES.items():
            began = time.perf_counter()
            seconds = mode(recognizer, paths)
            factors[name].append(seconds / (time.perf_counter() - began))
    return factors


def main(model: str, data: Path, clips: int, runs: int, threads: int) -> None:
    """Measure, print and append to the results."""
    torch.set_num_threads(threads)
    lines = (data / "en_sentences_l2/manifest.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["split"] == "test"]
    chosen = entries[:: max(len(entries) // clips, 1)][:clips]
    paths = [str(data / "en_sentences_l2" / entry["audio"]) for entry in chosen]
    recognizer = Recognizer.from_pretrained(model)
    factors = measure(recognizer, paths, runs)
    git = ["git", "describe", "--always", "--dirty"]
    card = {
        "model": model,
        "device": str(recognizer.device),
        "threads": threads,
        "clips": len(paths),
        "runs": runs,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    }
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["mode", "rtfx_median", "rtfx_min", "rtfx_max", *card])
        for mode, values in factors.items():
            numbers = [statistics.median(values), min(values), max(values)]
            row = [mode, *(round(number, 1) for number in numbers), *card.values()]
            writer.writerow(row)
            print(*row, sep=", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.model, arguments.data, arguments.clips, arguments.runs, arguments.threads)
