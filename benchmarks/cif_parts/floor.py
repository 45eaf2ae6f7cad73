"""The least time in which a machine can move the bytes of CIF: the floor of `benchmarks/cif.py`.

Forward reads the valid frames once and writes the tokens once. Backward reads the valid frames and
the gradient of the tokens, and writes the gradient of all frames (zeros on padding too). Weights
and lengths, a few bytes a frame, are left out, and so is all arithmetic.

On the CPU the bytes are moved in three ways: reading and writing apart from each other, by loops
that numba compiles or by torch (a sum, a fill), and together (a copy in torch, and a sum or a fill
of what is left over). Which is fastest depends on the size and on the machine, so all are timed
among the candidates, round by round, and the fastest counts. The buffers exist and were touched
before, which leaves out page faults; numpy makes them, because it asks for huge pages. Their
contents are as warm or as cold in the caches as those of the candidates, which work on as many
bytes.

On a GPU the floor is a copy on the device that moves as many bytes, half of them read, half of them
written, recorded as a CUDA graph.

Knows nothing of CIF but its traffic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from cif_parts.peers import Speech
from numba import njit, prange

BLOCK = 1 << 14  # values that one thread moves at a time


class Traffic(NamedTuple):
    """Values read and values written by one pass."""

    read: int
    written: int


def traffic(speech: Speech, with_gradient: bool) -> list[Traffic]:
    """Count what forward, or forward and backward, must move."""
    width = speech.hidden.shape[2]
    frames = int(speech.lengths.sum()) * width
    fired = int(speech.alpha.detach().double().sum(1).floor().sum()) * width
    forward = Traffic(frames, len(speech.lengths) * speech.max_tokens * width)
    backward = Traffic(frames + fired, speech.hidden.numel())
    return [forward, backward] if with_gradient else [forward]


def streams(passes: list[Traffic], like: torch.Tensor, threads: int) -> dict[str, Callable]:
    """Return the ways to move the bytes, on the device of `like` and in values of its size."""
    if like.is_cuda:
        sizes = [((read + written + 1) // 2,) * 2 for read, written in passes]
        tensors = [like.new_ones(max(sizes)[0]) for _ in range(2)]
        return {"copy": partial(_each, _torch_together, _cut(tensors, sizes))}
    values = torch.finfo(like.dtype).bits // 8  # counted in float32 from here on
    sizes = [(values * read // 4, values * written // 4) for read, written in passes]
    arrays = [np.ones(max(size), np.float32) for size in zip(*sizes, strict=True)]
    floats = [tuple(map(torch.from_numpy, pair)) for pair in _cut(arrays, sizes)]
    integers = _cut([array.view(np.int32) for array in arrays], sizes)
    return {
        "numba apart": partial(_each, _parallel if threads > 1 else _serial, integers),
        "torch apart": partial(_each, _torch_apart, floats),
        "torch together": partial(_each, _torch_together, floats),
    }


def _cut(whole: list[Any], sizes: list[tuple[int, int]]) -> list[tuple[Any, ...]]:
    """Return for each pass the beginning of the source and of the sink."""
    return [tuple(map(lambda buffer, size: buffer[:size], whole, size)) for size in sizes]


def _each(move: Callable, buffers: list[tuple[Any, ...]]) -> None:
    for source, sink in buffers:
        move(source, sink)


def _torch_apart(source: torch.Tensor, sink: torch.Tensor) -> None:
    source.sum()
    sink.fill_(1.0)


def _torch_together(source: torch.Tensor, sink: torch.Tensor) -> None:
    size = min(len(source), len(sink))
    sink[:size].copy_(source[:size])
    if len(source) > size:
        source[size:].sum()
    else:
        sink[size:].fill_(1.0)


@njit
def _read(source: Any) -> Any:
    bits = np.int32(0)  # whole numbers may be combined in any order, so the loop uses vectors
    for index in range(source.shape[0]):
        bits |= source[index]
    return bits


def _apart(source: Any, sink: Any) -> int:
    total = 0  # returned, lest the compiler leave the reading out
    for block in prange((len(source) + BLOCK - 1) // BLOCK):
        total += _read(source[block * BLOCK : (block + 1) * BLOCK])
    for block in prange((len(sink) + BLOCK - 1) // BLOCK):
        sink[block * BLOCK : (block + 1) * BLOCK] = np.int32(1)
    return total


_serial, _parallel = njit(_apart), njit(_apart, parallel=True)
