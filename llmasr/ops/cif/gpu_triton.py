"""Back-end ``triton``: launches the kernels of gpu_triton_forward, _backward and _weigh.

Two launches forward and two backward. Nothing waits for the device if the width of a padded batch
is known; else the kernel that counts tokens runs first and one number is read back. Kernels are
compiled at first use for each dtype, width D and rule.

Letters: B rows, T frames, F all frames, U tokens, N all tokens, D width of a frame, E of a feature.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmasr.ops.cif.backend import Batch, Fired, Rule

SCAN_TILE = 1024  # frames of a row taken together; more could overflow, see `integrate`
SCAN_WARPS = 8
FIRE_FRAMES = 8  # frames of a token whose loads overlap
BACKWARD_FRAMES = 8  # frames of a program
BACKWARD_BLOCK = 1024  # columns of a frame that one warp holds
BACKWARD_REGISTERS = 136  # lets 15 warps share a multiprocessor, and nothing spills
WEIGH_FRAMES = 16  # frames of a program
WEIGH_CHUNK = 64  # frames of a program of the backward pass, and of one share of its sums
VECTOR = 16  # bytes of one load


class Scanned(NamedTuple):
    """What the first kernel writes; the last three are None when it only counts."""

    prefix: Tensor  # [B, T] or [F] int64
    token_lengths: Tensor  # [B] int64
    quantity: Tensor  # [B] float32
    scales: Tensor  # [B, 2] float64, weight of a quantum and factor of the last token
    edges: Tensor | None  # [B, U] or [N] int64, where each token ends
    fire_frames: Tensor | None  # [B, U] or [N] int64
    fire_times: Tensor | None  # [B, U] or [N] float32


def is_available() -> bool:
    """Say whether Triton is installed."""
    return find_spec("triton") is not None


def forward(batch: Batch, prefix: Tensor | None, rule: Rule, width: int) -> Fired:
    """Fire tokens; see :class:`llmasr.ops.cif.backend.Backend`."""
    with torch.cuda.device_of(batch.hidden):
        token_ends = None
        shape: tuple[int, ...] = (len(batch.lengths), width)
        if batch.starts is not None or width < 0:
            counted = _scan(batch, prefix, rule, None, None)
            prefix = counted.prefix
            if batch.starts is not None:
                token_ends = counted.token_lengths.cumsum(0)
                shape = (int(token_ends[-1]) if len(token_ends) else 0,)
            else:
                counts = counted.token_lengths
                shape = (len(counts), int(counts.max()) if len(counts) else 0)
        scanned = _scan(batch, prefix, rule, shape, token_ends)
        tokens = _fire(batch, scanned, shape, token_ends)
        assert scanned.fire_frames is not None
        assert scanned.fire_times is not None
        return Fired(
            tokens, scanned.token_lengths, scanned.quantity,
            scanned.fire_frames, scanned.fire_times, scanned.prefix,
        )  # fmt: skip


def backward(
    d_tokens: Tensor,
    d_quantity: Tensor,
    batch: Batch,
    fired: Fired,
    rule: Rule,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of hidden and alpha; see :class:`llmasr.ops.cif.backend.Backend`."""
    d_hidden = torch.empty_like(batch.hidden) if wanted[0] else None
    d_alpha = torch.empty_like(batch.alpha) if wanted[1] else None
    rows, frames = len(batch.lengths), batch.alpha.shape[-1]
    if rows == 0 or batch.alpha.numel() == 0 or wanted == (False, False):
        return d_hidden, d_alpha
    with torch.cuda.device_of(batch.hidden):
        token_ends, chunk_ends = None, None
        programs = rows * _ceil(frames, BACKWARD_FRAMES)
        if batch.starts is not None:
            token_ends = fired.token_lengths.cumsum(0)
            spans = torch.diff(batch.starts, append=batch.starts.new_full((1,), frames))
            chunk_ends = ((spans + BACKWARD_FRAMES - 1) // BACKWARD_FRAMES).cumsum(0)
            programs = _ceil(frames, BACKWARD_FRAMES) + rows  # at least as many as chunks
        direct = torch.empty_like(batch.alpha, dtype=torch.float32) if wanted[1] else None
        shift = torch.empty_like(batch.alpha, dtype=torch.float32) if wanted[1] else None
        sizes = (rows, frames, fired.tokens.shape[1], batch.hidden.shape[-1], *_constants(rule))
        _kernels("backward").backward_kernel[(programs,)](
            d_tokens, batch.hidden, fired.prefix, batch.lengths, batch.starts, chunk_ends,
            token_ends, fired.token_lengths, batch.targets, d_hidden, direct, shift, *sizes,
            FRAMES=BACKWARD_FRAMES, BLOCK=min(_power(batch.hidden.shape[-1]), BACKWARD_BLOCK),
            num_warps=1, maxnreg=BACKWARD_REGISTERS, enable_fp_fusion=False,
        )  # fmt: skip
        if d_alpha is not None:
            slope = torch.empty_like(batch.alpha, dtype=torch.float64)
            _kernels("backward").alpha_kernel[(rows,)](
                direct, shift, slope, batch.alpha, fired.prefix, batch.lengths, batch.starts,
                token_ends, fired.token_lengths, batch.targets, fired.tokens, d_tokens,
                d_quantity, d_alpha, *sizes,
                TILE=SCAN_TILE, num_warps=SCAN_WARPS, enable_fp_fusion=False,
            )  # fmt: skip
    return d_hidden, d_alpha


def weigh(
    features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Return alpha and its prefix; see :class:`llmasr.ops.cif.backend.Backend`."""
    rows, frames, columns = features.shape
    alpha = torch.empty(rows, frames, device=features.device)
    with torch.cuda.device_of(features):
        programs = rows * _ceil(frames, WEIGH_FRAMES)
        if programs:
            block = min(_power(columns), 32 * VECTOR // features.element_size())
            _kernels("weigh").weigh_kernel[(programs,)](
                features, weight, bias, lengths, alpha, frames, columns,
                FRAMES=WEIGH_FRAMES, BLOCK=block, num_warps=4, enable_fp_fusion=False,
            )  # fmt: skip
        batch = Batch(features, alpha, lengths, None, None)
        return alpha, _scan(batch, None, rule, None, None).prefix


def weigh_backward(
    d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of features, weight and bias; see `backend.Backend`."""
    rows, frames, columns = features.shape
    d_features = torch.empty_like(features)
    chunks = rows * _ceil(frames, WEIGH_CHUNK)
    d_weight = torch.empty(chunks, columns, device=features.device)
    d_bias = torch.empty(chunks, 1, device=features.device)
    block, warps = _columns(columns, features.element_size(), 32)
    if chunks and columns:
        with torch.cuda.device_of(features):
            _kernels("weigh").weigh_backward_kernel[(chunks * _ceil(columns, block),)](
                d_alpha, alpha, features, weight, lengths, d_features, d_weight, d_bias,
                frames, columns, CHUNK=WEIGH_CHUNK, FRAMES=8, BLOCK=block,
                num_warps=warps, enable_fp_fusion=False,
            )  # fmt: skip
    return d_features, d_weight.sum(0), d_bias.sum(0)


def _scan(
    batch: Batch,
    prefix: Tensor | None,
    rule: Rule,
    shape: tuple[int, ...] | None,
    token_ends: Tensor | None,
) -> Scanned:
    """Sum the weights unless ``prefix`` is given, and mark the tokens unless ``shape`` is None."""
    alpha, rows = batch.alpha, len(batch.lengths)
    alpha_or_none = alpha if prefix is None else None
    result = Scanned(
        torch.empty_like(alpha, dtype=torch.int64) if prefix is None else prefix,
        batch.lengths.new_empty(rows),
        alpha.new_empty(rows, dtype=torch.float32),
        alpha.new_empty(rows, 2, dtype=torch.float64),
        None if shape is None else batch.lengths.new_empty(shape),
        None if shape is None else batch.lengths.new_empty(shape),
        None if shape is None else alpha.new_empty(shape, dtype=torch.float32),
    )
    if rows:
        _kernels("forward").scan_kernel[(rows,)](
            alpha_or_none, result.prefix, batch.lengths, batch.starts, batch.targets, token_ends,
            *result[1:], rows, alpha.shape[-1], shape[-1] if shape else 0, *_constants(rule),
            TILE=SCAN_TILE, num_warps=SCAN_WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return result


def _fire(
    batch: Batch, scanned: Scanned, shape: tuple[int, ...], token_ends: Tensor | None
) -> Tensor:
    """Return the tokens, [B, U, D] or [N, D]."""
    columns = batch.hidden.shape[-1]
    tokens = batch.hidden.new_empty(*shape, columns)
    block, warps = _columns(columns, batch.hidden.element_size(), 64)
    if tokens.numel():
        _kernels("forward").fire_kernel[(tokens.numel() // columns * _ceil(columns, block),)](
            batch.hidden, scanned.prefix, batch.starts, token_ends, scanned.token_lengths,
            scanned.scales, scanned.edges, scanned.fire_frames, tokens,
            len(batch.lengths), batch.alpha.shape[-1], shape[-1], columns,
            BLOCK=block, FRAMES=FIRE_FRAMES, num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return tokens


@cache
def _kernels(name: str) -> Any:
    """Import the kernels ``gpu_triton_<name>`` at first use: Triton is an optional dependency."""
    if not is_available():
        raise ImportError("the CIF back-end 'triton' needs Triton: pip install triton")
    return import_module(f"llmasr.ops.cif.gpu_triton_{name}")


def _constants(rule: Rule) -> tuple[float, str, int]:
    return rule.threshold, rule.tail, rule.tail_quanta


def _columns(width: int, itemsize: int, threads: int) -> tuple[int, int]:
    """Return columns and warps of a program: ``threads`` loads of 16 bytes per row and warp."""
    per_warp = threads * VECTOR // itemsize
    warps = min(max(_power(width) // per_warp, 1), 4)
    return min(_power(width), warps * per_warp), warps


def _power(number: int) -> int:
    """Return the power of two that is at least ``number``."""
    return 1 << max(number - 1, 0).bit_length()


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
