"""Stopwatches of `benchmarks/cif.py`: one call, calls in rounds, CUDA graphs.

Knows nothing of what it times.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Seconds = float

GRAPH_CALLS = 10
MAX_CALLS = 200  # of a run in a round
SLOW_CALL: Seconds = 1.0  # takes part in two rounds only


class Run(NamedTuple):
    """Something to time; it may do the same several times."""

    call: Callable[[], Any]
    times_inside: int = 1
    found: Any = None  # of a graph: where each replay leaves its results


def rounds(
    runs: dict[str, Run], number: int, turn: Seconds, device: str
) -> dict[str, list[Seconds]]:
    """Let all runs have their turn, round by round; return the times of their calls."""
    samples: dict[str, list[Seconds]] = {name: [] for name in runs}
    guesses = {name: clocked(run.call, device)[0] for name, run in runs.items()}
    timed = _times_on_gpu if device == "cuda" else _times_on_cpu
    for index in range(number):
        for name, run in runs.items():
            if index < 2 or guesses[name] < SLOW_CALL:
                calls = min(max(int(turn / guesses[name]), 1), MAX_CALLS)
                samples[name] += [took / run.times_inside for took in timed(run.call, calls)]
    return samples


def clocked(run: Callable, device: str) -> tuple[Seconds, Any]:
    began = time.perf_counter()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def _times_on_cpu(run: Callable, calls: int) -> list[Seconds]:
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def _times_on_gpu(run: Callable, calls: int) -> list[Seconds]:
    """Return the mean over calls in a row, once: an event costs as much as a small kernel."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(calls):
        run()
    last.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(last) / 1000 / calls]


def graph_of(run: Callable) -> Run:
    """Record calls as a CUDA graph and return its replay."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_CALLS):
            found = run()
    return Run(graph.replay, GRAPH_CALLS, found)
