"""The prefix of ChatGLM-6B: where it ends, what may be seen, and how places are counted.

Knows no network: ids, lengths and masks in, positions and masks out.

Letters: B rows, L places read now, P places read before, D width of a head, F frequencies.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.masking_utils import create_causal_mask

from llmasr.models.language.base import count_places

ROTARY_BASE = 10_000.0


class Prefix(NamedTuple):
    """Where the prompt of each row ends, in real places from 0."""

    lengths: Tensor  # [B] int64, places before <sop>
    mask_positions: Tensor  # [B] int64, place of the mask token

    @classmethod
    def of(cls, lengths: Tensor, mask_positions: Tensor | None) -> "Prefix":
        """Take positions as given, or the last place of each prefix."""
        return cls(lengths, lengths - 1 if mask_positions is None else mask_positions)


class Rotation(NamedTuple):
    """Cosines and sines of both positions of each place."""

    cos: Tensor  # [B, L, 2, F]
    sin: Tensor  # [B, L, 2, F]


def find_prefix(ids: Tensor, real: Tensor, config: PreTrainedConfig) -> Prefix:
    """Find the first ``<sop>`` of each row and the mask token before it.

    Args:
        ids: [B, L] int64.
        real: [B, L] bool.
        config: tells the special ids.

    Raises:
        ValueError: a row has no ``<sop>``, or no mask token before it.
    """
    starts = (ids == config.bos_token_id) & real
    _require_each(starts, f"<sop> ({config.bos_token_id})")
    inside = real & (starts.cumsum(1) == 0)
    masks, gmasks = ((ids == i) & inside for i in (config.mask_token_id, config.gmask_token_id))
    chosen = torch.where(masks.any(1, keepdim=True), masks, gmasks)
    _require_each(
        chosen, f"[MASK] ({config.mask_token_id}) or [gMASK] ({config.gmask_token_id}) before <sop>"
    )
    places = count_places(real).gather(1, chosen.int().argmax(1, keepdim=True))
    return Prefix(inside.sum(1), places.squeeze(1))


def prefix_mask(
    config: PreTrainedConfig, vectors: Tensor, real: Tensor, cache: Cache | None, prefix: Prefix
) -> Tensor:
    """Return what may be seen, in the form that the attention of the configuration asks for.

    Padding sees the prefix too, or what is before it: no row of the mask is empty.

    Args:
        config: of the model.
        vectors: [B, L, any], for its shape, type and device.
        real: [B, P + L] bool.
        cache: what was read before.
        prefix: of each row.
    """
    blocks = torch.where(count_places(real) < prefix.lengths[:, None], 0, -1)  # [B, P + L]
    return create_causal_mask(config, vectors, real, cache, block_sequence_ids=blocks)


def two_positions(places: Tensor, prefix: Prefix) -> Tensor:
    """Return both positions [B, L, 2] of ordinary positions [B, L]."""
    lengths = prefix.lengths[:, None]
    first = torch.where(places < lengths, places, prefix.mask_positions[:, None])
    return torch.stack([first, (places - lengths + 1).clamp(min=0)], -1)


def rotary_tables(positions: Tensor, width: int, dtype: torch.dtype) -> Rotation:
    """Return cosines and sines of positions [..] for half a head of ``width``, [.., F].

    Frequencies are rounded to half precision, as in the published weights; computed anew each time,
    they survive a cast of the model. ``dtype`` float16 rounds the angles too.
    """
    powers = torch.arange(0, width, 2, device=positions.device).float() / width
    frequencies = (ROTARY_BASE**-powers).half().to(dtype)  # [F]
    angles = positions.to(dtype)[..., None] * frequencies
    return Rotation(angles.cos(), angles.sin())


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate heads [B, heads, L, D], each half by its own position; pairs are F apart."""
    cos, sin = (table.to(heads.dtype)[:, None] for table in rotation)  # [B, 1, L, 2, F]
    a, b = heads.unflatten(-1, (2, 2, -1)).unbind(-2)  # [B, heads, L, 2, F]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -2).flatten(-3)


def _require_each(found: Tensor, what: str) -> None:
    """Require that each row of found [B, L] has one."""
    missing = (~found.any(1)).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"rows {missing} have no {what}")
