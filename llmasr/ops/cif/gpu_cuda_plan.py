"""How the kernels of gpu_cuda_*.cu are laid out over a GPU, and the structures that they read.

Letters: B rows, T frames, D width of a frame, F all frames of a packed batch.
"""

import ctypes
import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from llmasr.ops.cif.backend import TAILS, Batch, Rule

# Numbers that the kernels rely on.
BLOCK = 256
SCAN_THREADS = 512
MAX_WALK = 64
GROUP = 16
BLOCKS_PER_PROCESSOR = 3

WALKS = (MAX_WALK, 32, 16, 8)
START_FRAMES = 16  # what a block does before its walk takes as long as this many frames of a walker
SCAN_FIRST = 4096  # longer rows are scanned once, ahead, instead of by each block that needs them


class Task(ctypes.Structure):
    """``Task`` of gpu_cuda_rows.cuh."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "hidden", "d_tokens", "alpha", "d_quantity", "lengths", "starts", "targets",
            "token_starts", "tokens", "d_hidden", "token_lengths", "fire_frames", "prefix",
            "quantity", "fire_times", "d_alpha", "values", "sums", "tickets",
        )),
        *((name, ctypes.c_int64) for name in (
            "rows", "frames", "tokens_wide", "width", "tail_quanta",
        )),
        *((name, ctypes.c_double) for name in ("threshold", "quanta_per_weight")),
        *((name, ctypes.c_int32) for name in (
            "tail", "has_prefix", "walk", "columns", "chunk", "chunks",
        )),
    ]  # fmt: skip


class Linear(ctypes.Structure):
    """``Linear`` of gpu_cuda_weigh.cu."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "features", "weight", "bias", "lengths", "alpha", "prefix", "d_alpha", "d_features",
            "partials", "d_weight", "d_bias", "tickets",
        )),
        *((name, ctypes.c_int64) for name in ("rows", "frames", "width")),
        ("quanta_per_weight", ctypes.c_double),
        *((name, ctypes.c_int32) for name in ("weight_type", "columns", "chunk", "chunks")),
    ]  # fmt: skip


class Launch(NamedTuple):
    """One kernel launch, wherever it runs."""

    kernel: str
    dtype: torch.dtype  # of the elements, a key of ELEMENTS
    vector: int  # elements per load
    grid: tuple[int, int]
    threads: int
    parameters: Task | Linear
    device: torch.device


class Size(NamedTuple):
    """Size of a batch."""

    rows: int
    frames: int  # T, or F of a packed batch
    width: int
    is_packed: bool


class Layout(NamedTuple):
    """How the threads of a block share columns and frames."""

    columns: int  # threads side by side, a multiple of the warp
    walkers: int  # such groups in a block
    slices: int  # of the columns, where one group is not wide enough
    walk: int  # frames of a walker

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.columns * self.walkers

    @property
    def chunk(self) -> int:
        """Frames of a block."""
        return self.walkers * self.walk


def columns_for(width: int, vector: int) -> tuple[int, int, int]:
    """Return the threads side by side, how many such groups a block has, and slices of columns."""
    needed = max(1, -(-width // vector))
    slices = -(-needed // BLOCK)
    columns = -(-needed // (slices * 32)) * 32
    return columns, BLOCK // columns, slices


def size_of(batch: Batch) -> Size:
    """Return the size of a batch."""
    rows, frames = batch.lengths.shape[0], batch.alpha.shape[-1]
    return Size(rows, frames, batch.hidden.shape[-1], batch.starts is not None)


def count_blocks(size: Size, layout: Layout) -> int:
    """Return the number of chunks of frames; in a packed batch, an upper limit of it."""
    if size.is_packed:
        return size.frames // layout.chunk + size.rows
    return size.rows * max(1, -(-size.frames // layout.chunk))


@functools.lru_cache(maxsize=4096)
def best_layout(size: Size, vector: int, processors: int) -> Layout:
    """Choose the walk by the time that all blocks take, in frames of a walker."""
    columns, walkers, slices = columns_for(size.width, vector)

    def duration(layout: Layout) -> int:
        rounds = -(-count_blocks(size, layout) // (BLOCKS_PER_PROCESSOR * processors))
        return rounds * (layout.walk + START_FRAMES)

    # Twice as many frames as a block owns are described at a time, to follow tokens to their ends.
    walks = (walk for walk in WALKS if 2 * walk <= columns)
    return min((Layout(columns, walkers, slices, walk) for walk in walks), key=duration)


def describe(
    batch: Batch,
    rule: Rule,
    layout: Layout,
    tokens_wide: int,
    has_prefix: bool,
    buffers: Mapping[str, Tensor | None],
) -> Task:
    """Return the structure that the kernels read."""
    chunks = max(1, -(-batch.alpha.shape[-1] // layout.chunk))
    return Task(
        rows=len(batch.lengths),
        frames=batch.alpha.shape[-1],
        tokens_wide=tokens_wide,
        width=batch.hidden.shape[-1],
        tail_quanta=rule.tail_quanta,
        threshold=rule.threshold,
        quanta_per_weight=rule.quanta_per_weight,
        tail=TAILS.index(rule.tail),
        has_prefix=has_prefix,
        walk=layout.walk,
        columns=layout.columns,
        chunk=layout.chunk,
        chunks=chunks,
        **addresses({**batch._asdict(), **buffers}),
    )


def addresses(buffers: Mapping[str, Tensor | None]) -> dict[str, int]:
    """Return where the tensors lie, those that there are."""
    return {name: tensor.data_ptr() for name, tensor in buffers.items() if tensor is not None}
