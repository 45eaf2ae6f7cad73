"""Continuous integrate-and-fire (Dong & Xu, arXiv 1905.11235): the definition.

Frame t of a row carries the weight a_t >= 0, so that it occupies the interval [C_(t-1), C_t] on the
axis of accumulated weight, C_t = a_1 + ... + a_t. Token u owns the part from u * threshold to
(u + 1) * threshold. The share of frame t in token u is the length of the overlap of the two. One
overlap matrix covers every case: no fire, one fire, or several fires inside a frame.

Weights are counted in quanta (README.md), so that sums are exact and boundaries lie in the same
place in every back-end. Differentiable by autograd, any device, any floating dtype; values run in
float64. Memory is O(B * T * U), so it is meant for checking and for short inputs.

Letters: B batch, T frames, U tokens, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from llmasr.ops.cif.backend import FRAME_LIMIT, ROW_LIMIT, TOKEN, Rule


class CifOutput(NamedTuple):
    """Tokens of a batch, zero beyond each row's length.

    ``quantity`` is differentiable; frames and times are not.
    """

    tokens: Tensor  # [B, U, D], dtype of the hidden vectors
    token_lengths: Tensor  # [B] int64
    quantity: Tensor  # [B] float32, sum of the valid weights, before any scaling
    fire_frames: Tensor  # [B, U] int64, frame in which a token ends; -1 beyond the length
    fire_times: Tensor  # [B, U] float32, end of a token in frames, in (0, T]; 0 beyond the length


class Rows(NamedTuple):
    """Where the tokens of each row lie, in quanta; all [B] int64 but ``is_open``."""

    size: Tensor  # whole quanta of a token
    remainder: Tensor  # with `parts`: boundary u is u * size + u * remainder // parts
    parts: Tensor
    total: Tensor  # quanta of the row
    counts: Tensor  # tokens
    is_open: Tensor  # bool: the last token takes all that is left


def cif_reference(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    targets: Tensor | None,
    rule: Rule,
    max_tokens: int | None = None,
) -> CifOutput:
    """Integrate frames into tokens; see :func:`llmasr.ops.cif.cif` for the arguments."""
    num_frames = hidden.shape[1]
    valid = torch.arange(num_frames, device=hidden.device) < lengths[:, None]  # [B, T]
    weight = alpha.double() / rule.threshold  # [B, T] in tokens
    weight = torch.where(valid & (weight >= 0), weight, 0.0)
    weight = torch.where(weight <= FRAME_LIMIT / TOKEN, weight, FRAME_LIMIT / TOKEN)
    end_quanta = quanta(alpha, valid, rule).cumsum(1).clamp(max=ROW_LIMIT)  # [B, T]
    end = _with_value(weight.cumsum(1), end_quanta)
    start = torch.cat([torch.zeros_like(end[:, :1]), end[:, :-1]], 1)
    total = end_quanta[:, -1] if num_frames else lengths * 0
    mass = end[:, -1] if num_frames else weight.sum(1)  # [B]
    rows = layout(total, targets, rule)

    counts = rows.counts if max_tokens is None else rows.counts.clamp(max=max_tokens)
    width = int(counts.max()) if max_tokens is None and len(counts) else (max_tokens or 0)
    index = torch.arange(width, device=hidden.device)
    exists = index < counts[:, None]  # [B, U]
    high_quanta = boundary(rows, index + 1)  # [B, U]
    low_quanta = boundary(rows, index)
    size = torch.ones_like(mass) if targets is None else mass / rows.counts.clamp(min=1)
    low = _with_value(index * size[:, None], low_quanta)
    is_last = rows.is_open[:, None] & (index == rows.counts[:, None] - 1)
    high = _with_value((index + 1) * size[:, None], high_quanta)
    high = torch.where(is_last, torch.inf, high)

    overlap = torch.where(exists[..., None], _overlaps(start, end, low, high), 0.0)  # [B, U, T]
    gain = torch.where(rows.total > 0, rule.threshold / size.clamp(min=1 / TOKEN), 0.0)[:, None]
    if rule.tail == "normalize" and targets is None:
        rest = (mass - rows.counts + 1).clamp(min=1 / TOKEN)[:, None]  # of the last token
        gain = torch.where(is_last, rule.threshold / rest, gain)
    finite = torch.where(valid[..., None], hidden, torch.zeros_like(hidden))
    tokens = ((overlap * gain[..., None]) @ finite.double()).to(hidden.dtype)
    frames, times = _firing(end_quanta, high_quanta, exists)
    return CifOutput(tokens, counts, (mass * rule.threshold).float(), frames, times)


def quanta(alpha: Tensor, valid: Tensor, rule: Rule) -> Tensor:
    """Return the weights in quanta, int64, 0 where not valid (shapes alike)."""
    scaled = alpha.detach().double() * rule.quanta_per_weight
    scaled = torch.where(valid & (scaled > 0), scaled, 0.0)
    return (scaled.clamp(max=FRAME_LIMIT) + 0.5).long()


def layout(total: Tensor, targets: Tensor | None, rule: Rule) -> Rows:
    """Place the tokens of rows that weigh ``total`` quanta [B]."""
    if targets is not None:
        counts = torch.where(total > 0, targets.clamp(min=0), 0)
        parts = counts.clamp(min=1)
        return Rows(total // parts, total % parts, parts, total, counts, counts > 0)
    rest = total % TOKEN
    fires = (rest >= rule.tail_quanta) & (rest > 0) & (rule.tail != "drop")
    size = torch.full_like(total, TOKEN)
    return Rows(size, size * 0, size * 0 + 1, total, total // TOKEN + fires, fires)


def boundary(rows: Rows, index: Tensor) -> Tensor:
    """Return where token ``index - 1`` ends and ``index`` begins, [B, U] int64 quanta."""
    edge = index * rows.size[:, None] + index * rows.remainder[:, None] // rows.parts[:, None]
    return edge.minimum(rows.total[:, None])


def _with_value(differentiable: Tensor, value: Tensor) -> Tensor:
    """Keep the gradient of one tensor and the exact value of another, which is in quanta."""
    exact = value.double() / TOKEN
    return differentiable + (exact - differentiable).detach()


def _overlaps(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the length of every frame [B, T] inside every token [B, U], [B, U, T].

    Where a frame ends on a boundary, the derivative is the one for more weight, which goes to the
    next token; minimum and maximum would divide it between the two.
    """
    start, end, low, high = start[:, None], end[:, None], low[..., None], high[..., None]
    right = torch.where(end < high, end, high)
    left = torch.where(start >= low, start, low)
    return torch.where((end >= low) & (start < high), right - left, 0.0)


def _firing(end: Tensor, high: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Find the frame in which each token ends and the position inside it, from int64 quanta."""
    if not end.shape[1]:
        return high - 1, high.float()
    frames = torch.searchsorted(end, high.contiguous()).clamp(max=end.shape[1] - 1)  # [B, U]
    after = end.gather(1, frames)
    before = torch.where(frames > 0, end.gather(1, (frames - 1).clamp(min=0)), 0)
    share = (high - before).double() / (after - before).clamp(min=1).double()
    times = torch.where(exists, (frames + share), 0.0).float()
    return torch.where(exists, frames, -1), times
