"""Self-attention with rotary positions, masked by length.

Rotary positions (Su et al., arXiv 2104.09864) depend on distances alone, so a row gives the same
result wherever it stands in a batch. Letters: B batch, T positions, D width, H heads.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ROTARY_BASE = 10_000.0


class SelfAttention(nn.Module):
    """Multi-head attention of every valid position to every valid position.

    Args:
        width: D, divisible by ``num_heads``; the head width must be even.
        num_heads: H.
        dropout: probability on the attention weights, in training.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]; ``valid`` is [B, T] bool. Invalid rows are meaningless."""
        size = (*hidden.shape[:2], 3, self.num_heads, hidden.shape[2] // self.num_heads)
        query, key, value = self.query_key_value(hidden).view(size).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        # A row without any valid position would give NaN: it may look at everything instead.
        mask = (valid | ~valid.any(1, keepdim=True))[:, None, None]  # [B, 1, 1, T]
        mixed = scaled_dot_product_attention(
            rotate(query), rotate(key), value, attn_mask=mask, dropout_p=dropout
        )  # [B, H, T, D / H]
        return self.output(mixed.transpose(1, 2).flatten(2))


def rotate(heads: Tensor) -> Tensor:
    """Apply rotary positions 0..T-1 to [B, H, T, d], half-split pairs, d even."""
    half = heads.shape[-1] // 2
    exponent = torch.arange(half, device=heads.device, dtype=torch.float32) / half
    position = torch.arange(heads.shape[-2], device=heads.device, dtype=torch.float32)
    angle = position[:, None] * ROTARY_BASE**-exponent  # [T, d / 2]
    cos, sin = angle.cos().to(heads.dtype), angle.sin().to(heads.dtype)
    left, right = heads[..., :half], heads[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)
