"""The tables of `benchmarks/cif.py`: columns, ratios, files.

Knows nothing of how the numbers came about.
"""

import csv
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch
from cif_parts.clock import Seconds
from cif_parts.peers import Candidate

Row = dict[str, Any]

TIME_COLUMNS = (
    *("series", "implementation", "version", "pass", "B", "T", "D", "dtype"),
    *("calls", "median_ms", "min_ms", "ratio_to_floor", "best_peer", "speedup_over_best_peer"),
    *("max_token_error", "max_dh_error", "rel_dalpha_error", "note"),
)
ACCURACY_COLUMNS = (
    *("test", "implementation", "version", "B", "T", "D", "dtype"),
    *("max_token_error", "max_dh_error", "rel_dalpha_error", "lost_rows", "max_mass_error"),
    "note",
)


def with_ratios(
    rows: list[Row],
    floors: dict[str, list[Seconds]],
    candidates: list[Candidate],
    wrong: dict[str, str],
) -> list[Row]:
    """Add the floor, the distances to it, and the speed-ups of back-ends that are not wrong."""
    way = min(floors, key=lambda name: statistics.median(floors[name]))
    floor = {"implementation": "floor", "version": way, "note": "", **summary(floors[way])}
    ours = {candidate.name for candidate in candidates if candidate.is_ours}
    others = [row for row in rows if row["implementation"] not in ours and "median_ms" in row]
    best = min(others, key=lambda row: row["median_ms"], default=None)
    for row in rows:
        if "median_ms" in row:
            row["ratio_to_floor"] = round(row["median_ms"] / floor["median_ms"], 2)
        if row["implementation"] in wrong:
            row["note"] = wrong[row["implementation"]]
        elif best and row["implementation"] in ours and "median_ms" in row:
            row["best_peer"] = best["implementation"]
            row["speedup_over_best_peer"] = round(best["median_ms"] / row["median_ms"], 2)
    return [floor | {"ratio_to_floor": 1.0}, *rows]


def summary(times: list[Seconds]) -> Row:
    median, least = (float(f"{1000 * f(times):.4g}") for f in (statistics.median, min))
    return {"calls": len(times), "median_ms": median, "min_ms": least}


def run_card(device: str, threads: int) -> Row:
    """Describe the run: what every line of the results repeats."""
    git = ["git", "describe", "--always", "--dirty"]
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    return {
        "device": device,
        "threads": threads,
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else processor,
        "torch": torch.__version__,
    }


def write(path: Path, columns: tuple[str, ...], rows: list[Row], card: Row) -> None:
    """Put the rows into a file in the place of those of the same device and threads."""
    kept: list[Row] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            mine = (str(card["device"]), str(card["threads"]))
            kept = [row for row in csv.DictReader(file) if (row["device"], row["threads"]) != mine]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *card], extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*kept, *(row | card for row in rows)])


def say(columns: tuple[str, ...], rows: list[Row]) -> None:
    """Print what is known in each row, one line a row."""
    unsaid = ("series", "version", "calls", "min_ms")
    plain = ("test", "implementation", "pass", "dtype", "note")
    for row in rows:
        known = [name for name in columns if row.get(name, "") != "" and name not in unsaid]
        cells = [row[name] if name in plain else f"{name} {row[name]}" for name in known]
        print(*cells, sep=", ", flush=True)
