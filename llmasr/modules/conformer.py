"""Conformer encoder (Gulati et al., arXiv 2005.08100), exact under padding.

Every operation that looks at neighbours is masked by length, and normalisation is per position, so
an utterance gives the same hidden states alone and in any padded batch.

Letters: B batch, T frames, M mel bins, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from llmasr.modules.attention import SelfAttention
from llmasr.modules.masks import valid_mask


class Subsampling(nn.Module):
    """Strided 3 x 3 convolutions over time and frequency; each halves both, rounding up.

    Args:
        num_bins: M.
        width: D of the result.
        channels: width of the convolutions.
        num_layers: time is divided by 2 ** num_layers.
    """

    def __init__(self, num_bins: int, width: int, channels: int, num_layers: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else channels, channels, 3, stride=2, padding=1)
            for i in range(num_layers)
        )
        for _ in range(num_layers):
            num_bins = (num_bins + 1) // 2
        self.projection = nn.Linear(channels * num_bins, width)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, T, M] and lengths [B] to [B, ceil(T / 2^n), D] and their lengths."""
        maps = features[:, None]  # [B, 1, T, M]
        for convolution in self.convolutions:
            maps = maps.masked_fill(~valid_mask(lengths, maps.shape[2])[:, None, :, None], 0.0)
            maps = silu(convolution(maps))
            lengths = (lengths + 1) // 2
        return self.projection(maps.transpose(1, 2).flatten(2)), lengths


class FeedForward(nn.Sequential):
    """Normalise, expand, SiLU, contract: [..., D] to [..., D]."""

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
            nn.Dropout(dropout),
        )


class ConvolutionModule(nn.Module):
    """Gated depthwise convolution over time, centred, zero beyond the ends of each row.

    Normalisation inside is per position (LayerNorm); batch statistics would couple neighbours.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.inner_norm = nn.LayerNorm(width)
        self.contract = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]; ``valid`` is [B, T] bool."""
        gated = glu(self.expand(self.norm(hidden)), dim=-1)
        gated = gated.masked_fill(~valid[..., None], 0.0)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.contract(silu(self.inner_norm(mixed))))


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, each with a residual."""

    def __init__(
        self, width: int, num_heads: int, kernel: int, expansion: int, dropout: float
    ) -> None:
        super().__init__()
        self.before = FeedForward(width, expansion, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, dropout)
        self.attention_dropout = nn.Dropout(dropout)
        self.convolution = ConvolutionModule(width, kernel, dropout)
        self.after = FeedForward(width, expansion, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]; ``valid`` is [B, T] bool."""
        hidden = hidden + 0.5 * self.before(hidden)
        mixed = self.attention(self.attention_norm(hidden), valid)
        hidden = hidden + self.attention_dropout(mixed)
        hidden = hidden + self.convolution(hidden, valid)
        hidden = hidden + 0.5 * self.after(hidden)
        return self.norm(hidden)


class Conformer(nn.Module):
    """Subsample log-mel features and encode them.

    Args:
        subsampling: maps [B, T, M] and lengths to [B, T / r, D] and lengths.
        blocks: conformer blocks of width D.
    """

    def __init__(self, subsampling: Subsampling, blocks: list[ConformerBlock]) -> None:
        super().__init__()
        self.subsampling = subsampling
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Encode [B, T, M] with lengths [B] int64.

        Returns:
            hidden [B, T / r, D], lengths [B], and the output of every block, first to last.
        """
        hidden, lengths = self.subsampling(features, lengths)
        valid = valid_mask(lengths, hidden.shape[1])
        outputs: list[Tensor] = []
        for block in self.blocks:
            hidden = block(hidden, valid)
            outputs.append(hidden)
        return torch.where(valid[..., None], hidden, 0.0), lengths, outputs
