"""Back-end `numba`: the CIF operator on the CPU, one pass over the frames in each direction.

Forward: weights become an int64 prefix sum, then the frames of each token are added up in time
order with fused multiply-adds, so that a stream, a batch and a GPU give the same bits. Backward:
each frame is read once, for its own gradient and for the products that are then summed into the
gradient of the weights. Kernels: cpu_kernels.py. Formulas: README.md.

Large arrays come from numpy, which asks for huge pages: PyTorch does not, and the page faults of a
fresh 64 MB result would cost more than the kernel.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmasr.ops.cif import cpu_kernels as kernels
from llmasr.ops.cif.backend import Batch, Fired, Rule
from llmasr.ops.cif.cpu_threads import in_pieces

Array = NDArray[Any]

TAIL_CODES = {"drop": kernels.DROP, "fire": 1, "normalize": 2}
# numba has no 16-bit floats on the CPU: see cpu_numbers.py
CODES = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
NONE = np.empty(0, np.int64)


def forward(batch: Batch, prefix: Tensor | None, rule: Rule, width: int) -> Fired:
    """Fire tokens; see :class:`llmasr.ops.cif.backend.Backend`."""
    hidden, dim = table(batch.hidden), batch.hidden.shape[-1]
    sums = _prefix(batch, rule) if prefix is None else prefix.numpy().reshape(-1)
    plan, token_lengths, quantity, places = _plan(batch, sums, rule, width)
    shape = (len(plan), places // max(len(plan), 1)) if batch.starts is None else (places,)
    tokens = np.empty((places, dim), np.float64 if hidden.dtype == np.float64 else np.float32)
    frames, times = np.empty(shape, np.int64), np.empty(shape, np.float32)
    in_pieces(
        kernels.fire, places, hidden.size,
        hidden, sums, plan, rule.threshold, _completes(batch, rule),
        tokens, frames.reshape(-1), times.reshape(-1),
    )  # fmt: skip
    tensor = torch.from_numpy(tokens.reshape(*shape, dim))
    return Fired(
        tensor if tensor.dtype == batch.hidden.dtype else tensor.to(batch.hidden.dtype),
        torch.from_numpy(token_lengths),
        torch.from_numpy(quantity),
        torch.from_numpy(frames),
        torch.from_numpy(times),
        torch.from_numpy(sums.reshape(batch.alpha.shape)) if prefix is None else prefix,
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
    plan, *_ = _plan(batch, prefix, rule, fired.tokens.shape[1])
    d_hidden = np.zeros(hidden.shape, hidden.dtype)
    products, jumps = np.empty(len(hidden)), np.empty(len(hidden))
    zero = np.float64(0) if hidden.dtype == np.float64 else np.float32(0)
    in_pieces(
        kernels.spread, len(hidden), 2 * hidden.size,
        hidden, prefix, plan, rule.threshold, completes, zero, gradient,
        d_hidden, products, jumps,
    )  # fmt: skip
    weights = batch.alpha.numpy().reshape(-1)
    d_weights = np.zeros(weights.shape, weights.dtype)
    in_pieces(
        kernels.settle, len(plan), 32 * len(hidden),
        weights, prefix, plan, rule.threshold, batch.targets is not None, completes,
        d_quantity.numpy(), products, jumps, d_weights,
    )  # fmt: skip
    d_table = torch.from_numpy(d_hidden.reshape(batch.hidden.shape))
    return (
        d_table.view(batch.hidden.dtype) if batch.hidden.dtype in CODES else d_table,
        torch.from_numpy(d_weights.reshape(batch.alpha.shape)),
    )


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
    prefix = _prefix(Batch(features, tensor, lengths, None, None), rule)
    return tensor, torch.from_numpy(prefix.reshape(alpha.shape))


def weigh_backward(
    d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients; see :class:`llmasr.ops.cif.backend.Backend`."""
    frames, rows = table(features), len(features)
    d_features = np.zeros(frames.shape, frames.dtype)
    d_weight, d_bias = np.empty((rows, frames.shape[1]), np.float32), np.empty(rows)
    in_pieces(
        kernels.weigh_backward, rows, 2 * frames.size,
        d_alpha.numpy().reshape(-1), alpha.numpy().reshape(-1), frames,
        table(weight.float()[None]), lengths.numpy(), features.shape[1],
        d_features, d_weight, d_bias,
    )  # fmt: skip
    d_table = torch.from_numpy(d_features.reshape(features.shape))
    return (
        d_table.view(features.dtype) if features.dtype in CODES else d_table,
        torch.from_numpy(d_weight.sum(0)),
        torch.from_numpy(d_bias.sum(0, keepdims=True).astype(np.float32)),
    )


def _prefix(batch: Batch, rule: Rule) -> Array:
    """Return the running sum of the weights in quanta, [F] int64."""
    weights = batch.alpha.numpy().reshape(-1)
    sums = np.empty(weights.shape, np.int64)
    in_pieces(
        kernels.scan, len(batch.lengths), 32 * weights.size,
        weights, *_rows(batch), rule.quanta_per_weight, sums,
    )  # fmt: skip
    return sums


def _plan(batch: Batch, prefix: Array, rule: Rule, width: int) -> tuple[Array, Array, Array, int]:
    """Return the plan, the token lengths, the quantity and the number of places for tokens."""
    rows = len(batch.lengths)
    plan, quantity = np.empty((rows, kernels.COLUMNS), np.int64), np.empty(rows, np.float32)
    token_lengths = np.empty(rows, np.int64)
    places = kernels.plan_rows(
        prefix, *_rows(batch), NONE if batch.targets is None else batch.targets.numpy(),
        TAIL_CODES[rule.tail], rule.tail_quanta, rule.threshold * kernels.WEIGHT, width,
        plan, token_lengths, quantity,
    )  # fmt: skip
    return plan, token_lengths, quantity, places


def _rows(batch: Batch) -> tuple[Array, Array, int]:
    """Return lengths, starts (none unless packed) and the distance of two rows."""
    if batch.starts is None:
        return batch.lengths.numpy(), NONE, batch.alpha.shape[1]
    return batch.lengths.numpy(), batch.starts.numpy(), 0


def _completes(batch: Batch, rule: Rule) -> bool:
    return rule.tail == "normalize" and batch.targets is None


def table(vectors: Tensor) -> Array:
    """Return vectors [..., D] as an array [all of them, D], 16-bit floats as integers."""
    code = CODES.get(vectors.dtype)
    array: Array = (vectors if code is None else vectors.view(code)).numpy()
    return array.reshape(-1, array.shape[-1])
