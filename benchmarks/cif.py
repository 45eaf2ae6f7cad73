"""How fast and how exact is CIF, next to the implementations of others and to the machine?

    python benchmarks/cif.py                    # the GPU if there is one, else the CPU
    python benchmarks/cif.py --device cpu --threads 1
    python benchmarks/cif.py --quick            # a look at small shapes, writes nothing
    python benchmarks/cif.py --check            # only: do our back-ends equal the reference?

The peers are `pip install llmasr[bench]` and `pip install --no-deps funasr`: its predictor needs
nothing that llmasr does not bring, while its dependencies are many. A peer that is not installed is
named on the screen.

Time. Everything runs in one process on the same batches: a call to warm up, then rounds in which
every candidate has its turn. Median and minimum of all calls count; outputs are allocated anew in
each. A candidate whose call takes more than a second has two turns; if its previous shape predicts
more than 5 s a call it is called once, without warming up; beyond 20 s it is skipped. The rows say
so. The floor is the time in which the machine moves the bytes alone (cif_parts/floor.py). On a GPU,
events measure calls in a row, and our back-ends run a second time as CUDA graphs of ten calls;
whatever fits into the L2 cache stays there, for the floor too.

Exactness. All errors are against a float64 definition (cif_parts/accuracy.py), in the batches that
are timed and in rows of up to 120 000 frames; and rows of ones are scaled to targets to count lost
tokens. A back-end that differs from the reference gets no speed-up, and the command fails.

Writes `benchmarks/results/cif.csv` and `accuracy.csv`, replacing the rows of the same device
and number of threads, and draws `cif_<device>.png`. Letters: B rows, T frames, D width.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba
import torch
from cif_parts import accuracy, clock, floor, peers, plot
from cif_parts.clock import Run, Seconds
from cif_parts.peers import Candidate, Shape, Speech
from cif_parts.table import (
    ACCURACY_COLUMNS,
    TIME_COLUMNS,
    Row,
    run_card,
    say,
    summary,
    with_ratios,
    write,
)
from torch import Tensor
from torch.nn.functional import pad

RESULTS = Path(__file__).parent / "results"
PASSES = ("forward", "forward+backward")
VERY_SLOW_CALL: Seconds = 5.0  # one call
ENDLESS_CALL: Seconds = 20.0  # none


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    series: dict[str, tuple[Shape, ...]]  # shapes to time; predictions go from one to the next
    precise: tuple[Shape, ...]  # shapes for errors alone
    scaled_frames: tuple[int, ...]  # T of the rows that are scaled to targets
    scaled_rows: int = 512
    rounds: int = 5
    turn: Seconds = 0.06  # time of a candidate in a round


SWEEPS = {
    "frames": tuple(Shape(4, frames, 256) for frames in (125, 250, 500, 1000, 2000, 4000, 8000)),
    "width": tuple(Shape(4, 1000, width) for width in (32, 64, 128, 256, 512, 1024, 2048)),
}
PRECISE = (Shape(4, 3000, 64), Shape(1, 30_000, 8), Shape(1, 120_000, 8))
SCALED_FRAMES = (400, 1000, 3000, 30_000)
CPU_CASES = (Shape(1, 500, 256), Shape(8, 500, 256), Shape(32, 1000, 512), Shape(16, 3000, 512))
GPU_CASES = tuple(
    Shape(*sizes, dtype)
    for dtype in (torch.bfloat16, torch.float32)
    for sizes in ((32, 1000, 512), (64, 3000, 1024))
)
PLANS = {
    "cpu": Plan({"cases": CPU_CASES, **SWEEPS}, PRECISE, SCALED_FRAMES),
    "cuda": Plan({"cases": GPU_CASES, **SWEEPS}, PRECISE, SCALED_FRAMES),
}
QUICK = Plan({"cases": CPU_CASES[:2]}, (Shape(2, 400, 16),), (400,), rounds=2, turn=0.02)


@dataclass(frozen=True)
class Batch:
    """A shape, a random batch of it, and the exact result."""

    shape: Shape
    speech: Speech
    d_tokens: Tensor  # [B, U, D] incoming gradient
    truth: accuracy.Exact

    @classmethod
    def random(cls, shape: Shape, device: str) -> "Batch":
        """Draw a batch and compute what the candidates should."""
        speech = peers.random_speech(shape, device)
        d_tokens = accuracy.incoming(speech)
        return cls(shape, speech, d_tokens, accuracy.exact(speech, d_tokens))


class Bench:
    """A device, the candidates on it, and what is known about their speed and agreement."""

    def __init__(self, candidates: list[Candidate], plan: Plan, device: str, threads: int):
        self.candidates, self.plan, self.device, self.threads = candidates, plan, device, threads
        self.eager = [candidate for candidate in candidates if not candidate.is_graph]
        self.wrong = accuracy.disagreements(candidates, device)
        self.last_seen: dict[tuple[str, str], tuple[float, Seconds]] = {}  # cost and time

    def times(self, batch: Batch, which: str) -> list[Row]:
        """Time one pass of every candidate, and the floor."""
        runs: dict[str, Run] = {}
        rows: dict[str, Row] = {}
        for candidate in self.candidates:
            row, run = self._first_call(candidate, batch, which)
            if run and not row["calls"]:
                runs[candidate.name] = clock.graph_of(run) if candidate.is_graph else Run(run)
            rows[candidate.name] = row
        everything = runs | self._floors(batch.speech, which)
        samples = clock.rounds(everything, self.plan.rounds, self.plan.turn, self.device)
        for candidate in filter(lambda candidate: candidate.name in runs, self.candidates):
            name = candidate.name
            rows[name] |= summary(samples[name])
            self._remember(candidate, batch.shape, which, rows[name]["median_ms"] / 1000)
            if runs[name].found:
                rows[name] |= self._judged(candidate, runs[name].found, batch)
        floors = {name: samples[name] for name in samples.keys() - runs.keys()}
        finished = with_ratios(list(rows.values()), floors, self.candidates, self.wrong)
        return [_sizes(batch.shape) | {"pass": which} | row for row in finished]

    def precision(self, shape: Shape) -> list[Row]:
        """Return the errors of all candidates on one shape."""
        batch = Batch.random(shape, self.device)
        rows = []
        for candidate in self.eager:
            row: Row = {"test": "errors", "note": ""}
            for which in PASSES:
                found, _ = self._first_call(candidate, batch, which)
                was_called = found["calls"] or not found["note"]
                notes = [row["note"], "" if was_called else f"{which} {found['note']}"]
                row |= found | {"note": "; ".join(filter(None, notes))}
            rows.append(_sizes(shape) | row)
        return rows

    def scaling(self, frames: int) -> list[Row]:
        """Count the rows that lose a token when their weights are scaled to a target."""
        shape = Shape(self.plan.scaled_rows, frames, 1)
        speech = peers.random_speech(shape, self.device)
        rows = []
        for candidate in self.eager:
            row: Row = {"test": "scaled to targets", **_name(candidate), **_sizes(shape)}
            if accuracy.fits(candidate, speech):
                found = accuracy.lost_tokens(candidate, speech)
                row["lost_rows"] = found.lost_rows
                row["max_mass_error"] = f"{found.max_mass_error:.1e}"
            else:
                row["note"] = _too_large(speech)
            rows.append(row)
        return rows

    def _first_call(
        self, candidate: Candidate, batch: Batch, which: str
    ) -> tuple[Row, Callable[[], Any] | None]:
        """Call once for warmth and errors; return what to call again, if that is possible."""
        row: Row = _name(candidate) | {"calls": 0, "note": ""}
        cost = _cost(candidate, batch.shape, which)
        cost_before, before = self.last_seen.get((candidate.name, which), (cost, 0.0))
        expected = before * cost / cost_before
        if not accuracy.fits(candidate, batch.speech):
            return row | {"note": _too_large(batch.speech)}, None
        if expected > ENDLESS_CALL:
            return row | {"note": f"skipped: about {expected:.0f} s a call expected"}, None
        run = step(candidate, batch, which)
        try:
            seconds, found = clock.clocked(run, self.device)
        except RuntimeError as error:  # a peer may know fewer types of input than we do
            if candidate.is_ours:
                raise
            return row | {"note": f"fails: {str(error).splitlines()[0]}"}, None
        self._remember(candidate, batch.shape, which, seconds)
        row |= self._judged(candidate, found, batch)
        if expected > VERY_SLOW_CALL:
            row |= summary([seconds]) | {"note": "one call, without warming up"}
        return row, run

    def _remember(self, candidate: Candidate, shape: Shape, which: str, seconds: Seconds) -> None:
        self.last_seen[candidate.name, which] = _cost(candidate, shape, which), seconds

    def _judged(self, candidate: Candidate, found: tuple[Tensor, ...], batch: Batch) -> Row:
        """Return the errors; one of ours that is not exact enough is wrong from here on."""
        errors = accuracy.errors(found, batch.truth, batch.speech)
        if candidate.is_ours and not errors.is_close:
            self.wrong.setdefault(candidate.name, f"inexact at {batch.shape}")
        named = errors._asdict().items()
        return {name: f"{value:.1e}" for name, value in named if isinstance(value, float)}

    def _floors(self, speech: Speech, which: str) -> dict[str, Run]:
        passes = floor.traffic(speech, with_gradient=which != PASSES[0])
        ways = floor.streams(passes, speech.hidden.detach(), self.threads)
        for way in ways.values():
            way()
        if self.device == "cuda":
            return {name: clock.graph_of(way) for name, way in ways.items()}
        return {name: Run(way) for name, way in ways.items()}


def step(candidate: Candidate, batch: Batch, which: str) -> Callable[[], tuple[Tensor, ...]]:
    """Return what is timed: fire, or fire and differentiate, giving tokens or all three."""
    speech = batch.speech
    fitted: dict[tuple[int, torch.dtype], Tensor] = {}

    def like(tokens: Tensor) -> Tensor:
        """Give the incoming gradient the width and type of these tokens; once, outside the time."""
        key = tokens.shape[1], tokens.dtype
        if key not in fitted:
            extra = tokens.shape[1] - batch.d_tokens.shape[1]
            fitted[key] = pad(batch.d_tokens, (0, 0, 0, extra)).to(tokens.dtype)
        return fitted[key]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (candidate.fire(speech),)

    def forward_and_backward() -> tuple[Tensor, ...]:
        tokens = candidate.fire(speech)
        gradients = torch.autograd.grad(tokens, (speech.hidden, speech.alpha), like(tokens))
        return tokens, *gradients

    return forward if which == PASSES[0] else forward_and_backward


def _cost(candidate: Candidate, shape: Shape, which: str) -> float:
    """Return what the time of a call is proportional to."""
    return shape.size * (shape.frames if candidate.is_loop and which != PASSES[0] else 1)


def _name(candidate: Candidate) -> Row:
    return {"implementation": candidate.name, "version": candidate.version}


def _sizes(shape: Shape) -> Row:
    rows, frames, width, dtype = shape
    return {"B": rows, "T": frames, "D": width, "dtype": str(dtype).removeprefix("torch.")}


def _too_large(speech: Speech) -> str:
    return f"skipped: its overlap matrix takes {speech.overlap_bytes / 2**30:.1f} GiB"


def look_around(device: str) -> list[Candidate]:
    """Return all candidates on a device and name the peers that are not installed."""
    others, missing = peers.peers()
    print(*missing, sep="\n", end="\n" * bool(missing))
    return [*peers.our_backends(device), *others]


def measure(bench: Bench) -> tuple[list[Row], list[Row]]:
    """Run the plan, printing as it goes; return the rows of times and of accuracy."""
    times: list[Row] = []
    for series, shapes in bench.plan.series.items():
        for shape in shapes:
            batch = Batch.random(shape, bench.device)
            for which in PASSES:
                found = [{"series": series} | row for row in bench.times(batch, which)]
                say(TIME_COLUMNS, found)
                times += found
    precision: list[Row] = []
    tests = [partial(bench.precision, shape) for shape in bench.plan.precise]
    tests += [partial(bench.scaling, frames) for frames in bench.plan.scaled_frames]
    for test in tests:
        rows = test()
        say(ACCURACY_COLUMNS, rows)
        precision += rows
    return times, precision


def main(device: str, threads: int, plan: Plan | None, results: Path | None) -> int:
    """Check, measure the plan, if there is one, and write; return the exit status."""
    candidates = look_around(device)
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    bench = Bench(candidates, plan or QUICK, device, threads)
    if plan:
        times, precision = measure(bench)
        if results:
            results.mkdir(exist_ok=True)
            card = run_card(device, threads)
            write(results / "cif.csv", TIME_COLUMNS, times, card)
            write(results / "cif_accuracy.csv", ACCURACY_COLUMNS, precision, card)
            plot.draw(results, device)
    ours = [candidate.name for candidate in candidates if candidate.is_ours]
    for name in ours:
        print(f"{name}: {bench.wrong.get(name, 'equals the reference')}")
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small shapes; writes nothing")
    parser.add_argument("--check", action="store_true", help="only compare with the reference")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    chosen = arguments.device
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    todo = None if arguments.check else QUICK if arguments.quick else PLANS[chosen]
    where = None if arguments.quick else arguments.results
    sys.exit(main(chosen, arguments.threads, todo, where))
