"""Plain pre-norm Transformer encoder over tokens: the contextual half of the C-Former.

Letters: B batch, N tokens, D width.
"""

from torch import Tensor, nn

from llmasr.modules.attention import SelfAttention
from llmasr.modules.conformer import FeedForward


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream."""

    def __init__(self, width: int, num_heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(width, expansion, dropout)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]; ``valid`` is [B, N] bool."""
        mixed = self.attention(self.attention_norm(hidden), valid)
        hidden = hidden + self.dropout(mixed)
        return hidden + self.feed_forward(hidden)


class TransformerEncoder(nn.Module):
    """A stack of blocks with a final norm: [B, N, D] to [B, N, D], every token sees every token."""

    def __init__(self, blocks: list[TransformerBlock], width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Encode [B, N, D]; ``valid`` is [B, N] bool. Vectors at invalid places are meaningless."""
        for block in self.blocks:
            hidden = block(hidden, valid)
        return self.norm(hidden)
