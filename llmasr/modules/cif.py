"""The trained part of continuous integrate-and-fire: how much each frame weighs.

Letters: B batch, T frames, D width.
"""

from torch import Tensor, nn

from llmasr.modules.masks import valid_mask
from llmasr.ops.cif import CifOutput, cif_linear

KERNEL = 3
TAIL_THRESHOLD = 0.5


class CifPredictor(nn.Module):
    """Weigh frames with a small convolution and integrate them into tokens.

    The weight is sigmoid(linear(relu(conv(h)))) in float32, 0 on padding. At inference a last token
    that has at least half of its weight is completed, so the number of tokens is the rounded sum.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2)
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Linear(width, 1)

    def forward(
        self, hidden: Tensor, lengths: Tensor, target_lengths: Tensor | None = None
    ) -> tuple[CifOutput, Tensor]:
        """Integrate hidden [B, T, D]; with targets [B] (training) exactly so many tokens fire.

        Returns also the weights [B, T] float32, before any scaling, 0 on padding.
        """
        valid = valid_mask(lengths, hidden.shape[1])
        local = self.convolution(hidden.masked_fill(~valid[..., None], 0.0).transpose(1, 2))
        return cif_linear(
            hidden, self.dropout(local.transpose(1, 2).relu()), self.weight.weight[0],
            self.weight.bias, lengths, target_lengths=target_lengths,
            tail="normalize", tail_threshold=TAIL_THRESHOLD,
        )  # fmt: skip
