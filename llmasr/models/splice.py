"""Join pieces of embeddings into padded rows: where speech meets the prompt.

Letters: B rows, L positions, H LM width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmasr.modules.masks import valid_mask


def splice(rows: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate the pieces of each row, in order, and pad on the left.

    Args:
        rows: for each row its pieces, each [n, H]; all of one width, dtype and device.

    Returns:
        embeddings [B, L, H], zero on padding, and mask [B, L] bool, True on real positions.
    """
    joined = [torch.cat(list(pieces)) for pieces in rows]
    lengths = torch.tensor([len(row) for row in joined], device=joined[0].device)
    longest = int(lengths.max())
    padded = torch.stack(
        [torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in joined]
    )
    return padded, valid_mask(lengths, longest).flip(1)
