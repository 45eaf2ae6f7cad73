"""The one place where lengths become masks."""

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Return [B, size] bool, True where a position is below its row's length ([B] int64)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
