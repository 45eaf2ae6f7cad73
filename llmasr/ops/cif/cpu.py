"""Back-end `numba`: the CIF operator on the CPU, one pass over the frames in each direction.

Forward: weights become an int64 prefix sum, then the frames of each token are added up in time
order with fused multiply-adds, so that a stream, a batch and a GPU give the same bits. Backward:
each frame is read once, for its own gradient and for the products that are then summed into the
gradient of the weights. Kernels: cpu_kernels.py. Formulas: README.md.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmasr.ops.cif import cpu_kernels as kernels
from llmasr.ops.cif.backend import TAILS, Batch, Fired, Rule
from llmasr.ops.cif.cpu_memory import vectors
from llmasr.ops.cif.cpu_threads import in_pieces, is_worth_threads

Array = NDArray[Any]
Rows = tuple[Array, Array, int]

# numba has no 16-bit floats on the CPU: see cpu_numbers.py
CODES = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
NONE = np.empty(0, np.int64)
SINGLE, DOUBLE = np.empty(0, np.float32), np.empty(0, np.float64)  # tell kernels the type of sums
SUMS = {torch.float64: DOUBLE}


def forward(batch: Batch, prefix: Tensor | None, rule: Rule, width: int) -> Fired:
    """Fire tokens; see :class:`llmasr.ops.cif.backend.Backend`."""
    is_small = batch.lengths.shape[0] and not is_worth_threads(batch.hidden.numel())
    if prefix is None and is_small:
        return _forward_at_once(batch, rule, width)
    hidden, rows = table(batch.hidden), _rows(batch)
    sums = _prefix(batch, rule, rows) if prefix is None else prefix.numpy().reshape(-1)
    plan, token_lengths, quantity, places = _plan(batch, sums, rule, width, rows)
    shape = _shape(batch, places, width)
    sum_type = torch.float64 if batch.hidden.dtype == torch.float64 else torch.float32
    tokens = vectors((*shape, hidden.shape[1]), sum_type)
    frames, times = np.empty(shape, np.int64), np.empty(shape, np.float32)
    in_pieces(
        kernels.fire, places, hidden.size,
        hidden, sums, plan, rule.threshold, _completes(batch, rule),
        table(tokens), frames.reshape(-1), times.reshape(-1),
    )  # fmt: skip
    return Fired(
        tokens.to(batch.hidden.dtype),
        torch.from_numpy(token_lengths),
        torch.from_numpy(quantity),
        torch.from_numpy(frames),
        torch.from_numpy(times),
        torch.from_numpy(sums.reshape(batch.alpha.shape)) if prefix is None else prefix,
    )


def _forward_at_once(batch: Batch, rule: Rule, width: int) -> Fired:
    """Do all of it in one call, because calls are what a short utterance spends its time on.

    The batch has rows.
    """
    hidden, targets = table(batch.hidden), batch.targets
    tokens, token_lengths, quantity, frames, times, sums = kernels.forward(
        hidden, batch.alpha.numpy().reshape(-1), *_rows(batch), rule.quanta_per_weight,
        NONE if targets is None else targets.numpy(), TAILS.index(rule.tail), rule.tail_quanta,
        rule.threshold, width, _completes(batch, rule), SUMS.get(batch.hidden.dtype, SINGLE),
    )  # fmt: skip
    if batch.starts is not None:
        tokens, frames, times, sums = tokens[0], frames[0], times[0], sums[0]
    sums_of_frames = torch.from_numpy(tokens)
    is_whole = sums_of_frames.dtype == batch.hidden.dtype
    return Fired(
        sums_of_frames if is_whole else sums_of_frames.to(batch.hidden.dtype),
        torch.from_numpy(token_lengths),
        torch.from_numpy(quantity),
        torch.from_numpy(frames),
        torch.from_numpy(times),
        torch.from_numpy(sums),
    )


def backward(
    d_tokens: Tensor,
    d_quantity: Tensor,
    batch: Batch,
    fired: Fired,
    rule: Rule,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden and alpha; see :class:`llmasr.ops.cif.backend.Backend`."""
    del wanted  # both come from one pass
    hidden, gradient = table(batch.hidden), table(d_tokens)
    prefix, completes = fired.prefix.numpy().reshape(-1), _completes(batch, rule)
    plan, *_ = _plan(batch, prefix, rule, fired.tokens.shape[1], _rows(batch))
    d_hidden = vectors(batch.hidden.shape, batch.hidden.dtype)
    products, jumps = np.empty(len(hidden)), np.empty(len(hidden))
    in_pieces(
        kernels.spread, len(hidden), 2 * hidden.size,
        hidden, prefix, plan, rule.threshold, completes,
        SUMS.get(batch.hidden.dtype, SINGLE), gradient,
        table(d_hidden), products, jumps,
    )  # fmt: skip
    weights = batch.alpha.numpy().reshape(-1)
    d_weights = np.zeros(weights.shape, weights.dtype)
    in_pieces(
        kernels.settle, len(plan), 32 * len(hidden),
        weights, prefix, plan, rule.threshold, batch.targets is not None, completes,
        d_quantity.numpy(), products, jumps, d_weights,
    )  # fmt: skip
    return d_hidden, torch.from_numpy(d_weights.reshape(batch.alpha.shape))


def weigh(
    features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Weigh frames; see :class:`llmasr.ops.cif.backend.Backend`."""
    frames = table(features)
    alpha = np.empty(features.shape[:2], np.float32)
    in_pieces(
        kernels.weigh, alpha.size, frames.size,
        frames, table(weight.float()[None]), float(bias), lengths.numpy(), features.shape[1],
        alpha.reshape(-1),
    )  # fmt: skip
    tensor = torch.from_numpy(alpha)
    batch = Batch(features, tensor, lengths, None, None)
    prefix = _prefix(batch, rule, _rows(batch))
    return tensor, torch.from_numpy(prefix.reshape(alpha.shape))


def weigh_backward(
    d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients; see :class:`llmasr.ops.cif.backend.Backend`."""
    frames, rows = table(features), features.shape[0]
    d_features = vectors(features.shape, features.dtype)
    d_weight, d_bias = np.empty((rows, frames.shape[1]), np.float32), np.empty(rows)
    in_pieces(
        kernels.weigh_backward, rows, 2 * frames.size,
        d_alpha.numpy().reshape(-1), alpha.numpy().reshape(-1), frames,
        table(weight.float()[None]), lengths.numpy(), features.shape[1],
        table(d_features), d_weight, d_bias,
    )  # fmt: skip
    return (
        d_features,
        torch.from_numpy(d_weight.sum(0)),
        torch.from_numpy(d_bias.sum(0, keepdims=True).astype(np.float32)),
    )


def _prefix(batch: Batch, rule: Rule, rows: Rows) -> Array:
    """Return the running sum of the weights in quanta, [F] int64."""
    weights = batch.alpha.numpy().reshape(-1)
    sums = np.empty(weights.shape, np.int64)
    in_pieces(
        kernels.scan, batch.alpha.shape[0] if batch.starts is None else batch.starts.shape[0],
        32 * weights.size, weights, *rows, rule.quanta_per_weight, sums,
    )  # fmt: skip
    return sums


def _plan(
    batch: Batch, prefix: Array, rule: Rule, width: int, rows: Rows
) -> tuple[Array, Array, Array, int]:
    """Return the plan, the token lengths, the quantity and the number of places for tokens."""
    count = batch.lengths.shape[0]
    plan, token_lengths = np.empty((count, kernels.COLUMNS), np.int64), np.empty(count, np.int64)
    quantity = np.empty(count, np.float32)
    places = kernels.plan_rows(
        prefix, *rows, NONE if batch.targets is None else batch.targets.numpy(),
        TAILS.index(rule.tail), rule.tail_quanta, rule.threshold, width,
        plan, token_lengths, quantity,
    )  # fmt: skip
    return plan, token_lengths, quantity, places


def _rows(batch: Batch) -> Rows:
    """Return lengths, starts (none unless packed) and the distance of two rows."""
    if batch.starts is None:
        return batch.lengths.numpy(), NONE, batch.alpha.shape[1]
    return batch.lengths.numpy(), batch.starts.numpy(), 0


def _shape(batch: Batch, places: int, width: int) -> tuple[int, ...]:
    """Return [B, U], or [N] of a packed batch, for so many places."""
    if batch.starts is not None:
        return (places,)
    rows = batch.alpha.shape[0]
    return (rows, places // max(rows, 1) if width < 0 else width)


def _completes(batch: Batch, rule: Rule) -> bool:
    return rule.tail == "normalize" and batch.targets is None


def table(tensor: Tensor) -> Array:
    """Return vectors [..., D] as an array [all of them, D], 16-bit floats as integers."""
    code = CODES.get(tensor.dtype)
    array: Array = (tensor if code is None else tensor.view(code)).numpy()
    return array.reshape(-1, array.shape[-1])
