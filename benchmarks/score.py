"""How much time and memory does a score with intervals need, next to counting with jiwer alone?

    python benchmarks/score.py --utterances 100000

Texts are made of words as frequent as in English, with errors in a tenth of them, and belong to
speakers for one of the rows. Each task runs in a process of its own, so that the peak memory is its
own (that of making the texts is given apart), several runs in turn, of which the median counts. All
use one core; the ratio to jiwer is of CPU seconds, which other work on the machine disturbs least.
Adds lines to `benchmarks/results/score.csv`.
"""

import argparse
import csv
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np
import rapidfuzz

from llmasr.scoring import Utterance, compare, score
from llmasr.scoring.intervals import ratio_interval

RESULTS = Path(__file__).parent / "results/score.csv"
VOCABULARY = 50_000
REPLICATIONS, DRAWN = 10_000, 10_000

Sides = tuple[list[Utterance], list[Utterance]]
Row = tuple[float, float, float, float]


def make_sides(utterances: int, speakers: int | None, seed: int = 0) -> Sides:
    """Return references of 1 to 35 words, and hypotheses with every tenth word wrong."""
    generator = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    words = np.array([f"word{i}" for i in range(VOCABULARY)], dtype=object)
    lengths = generator.integers(1, 36, utterances)
    said = words[generator.choice(VOCABULARY, lengths.sum(), p=frequency / frequency.sum())]
    heard = np.where(generator.random(len(said)) < 0.06, "wrong", said)
    heard = np.where(generator.random(len(said)) < 0.03, "", heard)
    heard = np.where(generator.random(len(said)) < 0.01, heard + " more", heard)
    ends = lengths.cumsum()
    sides: Sides = ([], [])
    for number, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
        group = f"s{number % speakers}" if speakers else None
        for side, texts in zip(sides, (said, heard), strict=True):
            text = " ".join(" ".join(texts[start:end]).split())
            side.append(Utterance(f"u{number:07}", text, group=group))
    return sides


def count_with_jiwer(sides: Sides) -> None:
    """Align and count, without ids, intervals or details."""
    jiwer.process_words(*([each.text for each in side] for side in sides))


def score_alone(sides: Sides) -> None:
    """Score by id without asking for the interval."""
    assert score(*sides).errors


def score_with_interval(sides: Sides) -> None:
    """Score and print, as `llmasr score` does."""
    assert " CI " in str(score(*sides))


def score_and_compare(sides: Sides) -> None:
    """Score two systems and test their difference."""
    references, hypotheses = sides
    baseline = [Utterance(each.id, f"{each.text} more") for each in hypotheses]
    assert compare(score(references, hypotheses), score(references, baseline)).p_value


def bootstrap_alone(sides: Sides) -> None:
    """Draw 10,000 utterances 10,000 times, all of them distinct, which is the slowest case."""
    units = np.arange(1, DRAWN + 1)
    assert ratio_interval(units % 7, units, replications=REPLICATIONS)


# Name of the task, speakers of its texts or None, what is timed.
TASKS: dict[str, tuple[int | None, Callable[[Sides], None]]] = {
    "jiwer.process_words": (None, count_with_jiwer),
    "score": (None, score_alone),
    "score and interval": (None, score_with_interval),
    "score and interval by speaker": (500, score_with_interval),
    "two systems compared": (None, score_and_compare),
    "bootstrap 10,000 x 10,000": (None, bootstrap_alone),
}


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def run_task(name: str, utterances: int) -> Row:
    """Return seconds, seconds of CPU, peak memory in MiB, and that which was there before."""
    speakers, task = TASKS[name]
    sides = make_sides(utterances if task is not bootstrap_alone else 1, speakers)
    before = peak_mib()
    began, began_cpu = time.perf_counter(), time.process_time()
    task(sides)
    return time.perf_counter() - began, time.process_time() - began_cpu, peak_mib(), before


def measure(utterances: int, runs: int) -> dict[str, list[Row]]:
    """Run every task in turn, each in a fresh process."""
    measured: dict[str, list[Row]] = {name: [] for name in TASKS}
    context = multiprocessing.get_context("spawn")
    for _ in range(runs):
        for name in TASKS:
            with context.Pool(1) as pool:
                measured[name].append(pool.apply(run_task, (name, utterances)))
    return measured


def main(utterances: int, runs: int) -> None:
    """Measure, print and append to the results."""
    measured = measure(utterances, runs)
    git = ["git", "describe", "--always", "--dirty"]
    card = {
        "utterances": utterances,
        "runs": runs,
        "jiwer": importlib.metadata.version("jiwer"),
        "rapidfuzz": rapidfuzz.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    }
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in measured.items()
    }
    jiwer_seconds = medians["jiwer.process_words"][1]
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            heads = ["task", "seconds_median", "seconds_min", "seconds_max", "cpu_seconds_median"]
            writer.writerow([*heads, "cpu_to_jiwer", "peak_mib", "of_which_texts_mib", *card])
        for name, (seconds, cpu, peak, before) in medians.items():
            times = [row[0] for row in measured[name]]
            numbers = [seconds, min(times), max(times), cpu, cpu / jiwer_seconds]
            row = [name, *(round(number, 2) for number in numbers), round(peak), round(before)]
            writer.writerow([*row, *card.values()])
            print(*row, sep=", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.utterances, arguments.runs)
