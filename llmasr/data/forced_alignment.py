"""Where the tokens of a transcript are, as CTC sees it.

Letters: B batch, T frames, N tokens, V vocabulary.
"""

import torch
from torch import Tensor
from torchaudio.functional import forced_align


def ctc_places(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Find the frame in which CTC says each token, on the best path through the transcript.

    Args:
        logits: [B, T, V + 1], blank last.
        lengths: [B] int64 frames.
        targets: [B, N].
        target_lengths: [B] int64.

    Returns:
        [B, N] int64 frames; -1 beyond the transcript, and in rows too short for theirs.
    """
    blank = logits.shape[-1] - 1
    log_probs = logits.detach().float().log_softmax(-1)
    places = torch.full_like(targets, -1)
    counts = zip(lengths.tolist(), target_lengths.tolist(), strict=True)
    for row, (frames, tokens) in enumerate(counts):
        target = targets[row, :tokens]
        if not tokens or frames < tokens + int((target[1:] == target[:-1]).sum()):
            continue
        path, _ = forced_align(log_probs[row : row + 1, :frames], target[None], blank=blank)
        before = torch.cat([path.new_tensor([blank]), path[0, :-1]])
        places[row, :tokens] = ((path[0] != blank) & (path[0] != before)).nonzero()[:, 0]
    return places
