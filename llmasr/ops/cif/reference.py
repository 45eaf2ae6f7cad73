"""Continuous integrate-and-fire (Dong & Xu, arXiv 1905.11235): the definition.

Frame t of a row carries the weight a_t >= 0, so that it occupies the interval [C_(t-1), C_t] on the
axis of accumulated weight, C_t = a_1 + ... + a_t. Token u owns the part from u * threshold to
(u + 1) * threshold. The share of frame t in token u is the length of the overlap of the two. One
overlap matrix covers every case: no fire, one fire, or several fires inside a frame.

Differentiable by autograd, any device, any floating dtype; sums run in float64. Memory is
O(B * T * U), so it is meant for checking and for short inputs.

Letters: B batch, T frames, U tokens, D width.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Tail = Literal["drop", "fire", "normalize"]


class CifOutput(NamedTuple):
    """Tokens of a batch, zero beyond each row's length.

    ``quantity`` is differentiable; frames and times are not.
    """

    tokens: Tensor  # [B, U, D], dtype of the hidden vectors
    token_lengths: Tensor  # [B] int64
    quantity: Tensor  # [B] float32, sum of the valid weights, before any scaling
    fire_frames: Tensor  # [B, U] int64, frame in which a token ends; -1 beyond the length
    fire_times: Tensor  # [B, U] float32, end of a token in frames, in (0, T]; 0 beyond the length


def cif_reference(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    *,
    target_lengths: Tensor | None = None,
    threshold: float = 1.0,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
    max_tokens: int | None = None,
) -> CifOutput:
    """Integrate frames into tokens; see :func:`llmasr.ops.cif.cif` for the arguments."""
    num_frames = hidden.shape[1]
    valid = torch.arange(num_frames, device=hidden.device) < lengths[:, None]  # [B, T]
    positive = torch.nan_to_num(alpha.double(), nan=0.0, neginf=0.0).clamp(min=0)
    weight = torch.where(valid, positive, 0.0)
    end = weight.cumsum(1)  # [B, T]
    quantity = end[:, -1] if num_frames else weight.sum(1)
    start = torch.cat([torch.zeros_like(end[:, :1]), end[:, :-1]], 1)
    size, counts, last_edge = _layout(quantity, target_lengths, threshold, tail, tail_threshold)
    counts = counts if max_tokens is None else counts.clamp(max=max_tokens)
    width = int(counts.max()) if max_tokens is None and len(counts) else (max_tokens or 0)

    index = torch.arange(width, device=hidden.device)
    low = index * size[:, None]  # [B, U] edges of the tokens on the axis of accumulated weight
    high = torch.minimum((index + 1) * size[:, None], last_edge[:, None])
    exists = index < counts[:, None]
    overlap = torch.minimum(end[:, None], high[..., None]) - torch.maximum(
        start[:, None], low[..., None]
    )  # [B, U, T]
    overlap = torch.where(exists[..., None], overlap.clamp(min=0), 0.0)
    if tail == "normalize" and target_lengths is None:
        # Whole tokens keep their weight; the heavy last one is brought up to the threshold.
        mass = (high - low).clamp(min=torch.finfo(torch.float64).tiny)
        overlap = overlap * (threshold / mass)[..., None]
    else:
        overlap = overlap * (threshold / size)[:, None, None]
    finite = torch.where(valid[..., None], hidden, torch.zeros_like(hidden))
    tokens = (overlap @ finite.double()).to(hidden.dtype)
    frames, times = _firing(end.detach(), start.detach(), high.detach(), exists, lengths)
    return CifOutput(tokens, counts, quantity.float(), frames, times)


def _layout(
    quantity: Tensor,
    target_lengths: Tensor | None,
    threshold: float,
    tail: Tail,
    tail_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the width of a token, the number of tokens and the end of the last one, each [B]."""
    if target_lengths is not None:
        counts = torch.where(quantity > 0, target_lengths, 0)
        size = torch.where(counts > 0, quantity / counts.clamp(min=1), threshold)
        return size, counts, quantity
    size = torch.full_like(quantity, threshold)
    whole = (quantity.detach() / threshold).floor()
    residual = quantity.detach() - whole * threshold
    heavy = (residual >= tail_threshold * threshold) & (residual > 0) & (tail != "drop")
    counts = (whole + heavy).long()
    last_edge = torch.where(heavy, quantity, whole * threshold)
    return size, counts, last_edge


def _firing(
    end: Tensor, start: Tensor, high: Tensor, exists: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Find the frame in which each token ends and the position inside it."""
    last = (lengths - 1).clamp(min=0)[:, None]
    frames = torch.minimum(torch.searchsorted(end, high.contiguous()), last)  # [B, U]
    before, after = start.gather(1, frames), end.gather(1, frames)
    share = ((high - before) / (after - before).clamp(min=1e-12)).clamp(0, 1)
    times = torch.where(exists, frames + share, 0.0).float()
    return torch.where(exists, frames, -1), times
