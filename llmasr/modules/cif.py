"""The trained part of continuous integrate-and-fire: how much each frame weighs.

Letters: B batch, T frames, D width.
"""

import torch
from torch import Tensor, nn

from llmasr.modules.masks import valid_mask
from llmasr.ops.cif import CifOutput, cif, cif_linear

KERNEL = 3
TAIL_THRESHOLD = 0.5
# With places, a token takes in so many frames on either side of its own at most ...
REACH = 4
# ... and weights that are nearly 0 everywhere still add up to one token.
SMALLEST_WEIGHT = 1e-4


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
        self,
        hidden: Tensor,
        lengths: Tensor,
        target_lengths: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[CifOutput, Tensor]:
        """Integrate hidden [B, T, D].

        Args:
            hidden: [B, T, D].
            lengths: [B] int64 frames.
            target_lengths: [B] int64: exactly so many tokens fire (training).
            places: [B, N] int64, increasing, -1 beyond the last: a frame of each token. The weights
                are then scaled token by token instead of all together; see :func:`scale_tokens`.

        Returns:
            The tokens, and the weights [B, T] float32, before any scaling, 0 on padding.
        """
        valid = valid_mask(lengths, hidden.shape[1])
        local = self.convolution(hidden.masked_fill(~valid[..., None], 0.0).transpose(1, 2))
        fired, weights = cif_linear(
            hidden, self.dropout(local.transpose(1, 2).relu()), self.weight.weight[0],
            self.weight.bias, lengths, target_lengths=target_lengths,
            tail="normalize", tail_threshold=TAIL_THRESHOLD,
        )  # fmt: skip
        if places is None:
            return fired, weights
        counts = (places >= 0).sum(1) if target_lengths is None else target_lengths
        scaled = scale_tokens(weights, places, valid)
        fired = cif(hidden, scaled, lengths, target_lengths=counts)
        return fired._replace(quantity=weights.sum(1)), weights


def scale_tokens(weights: Tensor, places: Tensor, valid: Tensor) -> Tensor:
    """Scale CIF weights so that every token weighs one, by frames at which the tokens are known.

    CIF counts on from where it is: one uncertain frame shifts the boundaries of all later tokens by
    a part of a token. Scaled, the shift ends at the boundary to the next known token, which lies
    midway between the two. A token reaches `REACH` frames at most.

    Args:
        weights: [B, T] float32, 0 on padding.
        places: [B, N] int64, increasing, -1 beyond the last; a row without any is left as it is.
        valid: [B, T] bool.

    Returns:
        [B, T] float32.
    """
    known = places >= 0
    ends = (places[:, :-1] + places[:, 1:] + 1) // 2  # the first frame of the next token
    begins = torch.zeros_like(weights, dtype=torch.int64)
    begins.scatter_add_(1, ends.clamp(min=0), known[:, 1:].long())
    token = begins.cumsum(1)  # [B, T], of each frame
    frames = torch.arange(weights.shape[1], device=weights.device)
    near = (frames - places.gather(1, token)).abs() <= REACH
    inside = (weights + SMALLEST_WEIGHT) * (near & valid)
    sums = weights.new_zeros(places.shape).scatter_add(1, token, inside)
    scaled = inside / sums.gather(1, token).clamp(min=SMALLEST_WEIGHT)
    return torch.where(known.any(1, keepdim=True), scaled, weights)
