"""Losses of the CIF acoustic model (Dong & Xu, arXiv 1905.11235, section 3).

Scaled to the transcript, CIF makes as many tokens as there are, but nothing says where: the token
loss only reaches the weights next to a boundary. CTC finds each token by itself, so it shows the
way: in the frame in which it says a token, CIF must be in the middle of it.

All are sums over the batch, divided once by the number of target tokens. Letters: B batch,
T frames, N tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, ctc_loss
from torchaudio.functional import forced_align

from llmasr.models.speech import SpeechInterface, SpeechTokens
from llmasr.modules.masks import valid_mask

IGNORED = -100
LABEL_SMOOTHING = 0.1
PLACE_WEIGHT, CTC_WEIGHT, PHONE_WEIGHT = 0.3, 0.5, 0.3
# CTC may say a token anywhere in the middle half of it.
PLACE_SLACK = 0.25


class AcousticLosses(NamedTuple):
    """Each a scalar per target token; ``total`` is the weighted sum."""

    total: Tensor
    token: Tensor
    quantity: Tensor
    place: Tensor
    ctc: Tensor
    phone: Tensor


def token_loss(logits: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Sum the cross entropy of [B, N, V] logits against [B, N] tokens within ``lengths`` [B]."""
    labels = tokens.masked_fill(~valid_mask(lengths, tokens.shape[1]), IGNORED)
    return cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(),
        ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING, reduction="sum",
    )  # fmt: skip


def quantity_loss(quantity: Tensor, target_lengths: Tensor) -> Tensor:
    """Sum | accumulated weight - number of tokens | over [B]."""
    return (quantity - target_lengths).abs().sum()


def ctc(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Sum the CTC loss of [B, T, V + 1] logits, blank last; rows that are too short give 0."""
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return ctc_loss(
        log_probs, targets, lengths, target_lengths,
        blank=logits.shape[-1] - 1, reduction="sum", zero_infinity=True,
    )  # fmt: skip


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


def place_loss(weights: Tensor, places: Tensor) -> Tensor:
    """Sum over tokens how far CIF is from the middle of the token where CTC says it.

    Args:
        weights: [B, T] float32, before any scaling: token n (from 0) lies between the running sums
            n and n + 1.
        places: [B, N] as of :func:`ctc_places`.

    Returns:
        A scalar in tokens; a distance of less than ``PLACE_SLACK`` is none.
    """
    reached = weights.cumsum(1) - weights / 2
    middle = torch.arange(places.shape[1], device=places.device) + 0.5
    distance = (reached.gather(1, places.clamp(min=0)) - middle).abs()
    return (distance - PLACE_SLACK).clamp(min=0).masked_fill(places < 0, 0.0).sum()


def acoustic_losses(
    speech: SpeechInterface,
    heard: SpeechTokens,
    tokens: Tensor,
    lengths: Tensor,
    *,
    phones: tuple[Tensor, Tensor] | None = None,
    cif_weight: float = 1.0,
) -> AcousticLosses:
    """Return the losses of a speech interface, per token of the transcripts.

    Args:
        speech: the interface.
        heard: what it heard, with CIF scaled to the transcripts.
        tokens: [B, N] transcripts.
        lengths: [B] int64.
        phones: [B, P] and lengths [B], for an interface with a phone block.
        cif_weight: of the token, the quantity and the place loss.
    """
    # A row without any weight fires nothing; the batch may then be narrower than its targets.
    width = heard.token_logits.shape[1]
    ctc_logits, num_frames = speech.ctc_logits(heard.frames)
    places = ctc_places(ctc_logits, num_frames, tokens, lengths)
    sums = (
        token_loss(heard.token_logits, tokens[:, :width], lengths),
        quantity_loss(heard.cif.quantity, lengths),
        place_loss(heard.weights, places),
        ctc(ctc_logits, num_frames, tokens, lengths),
        ctc(*speech.phone_logits(heard.frames), *phones) if phones else heard.tokens.new_zeros(()),
    )
    return weighted(sums, lengths.sum(), cif_weight)


def weighted(sums: tuple[Tensor, ...], num_tokens: Tensor, cif_weight: float) -> AcousticLosses:
    """Divide the sums (in the order of the fields) by the number of tokens and weigh them."""
    parts = [part / num_tokens.clamp(min=1) for part in sums]
    weights = parts[0].new_tensor(
        [cif_weight, cif_weight, cif_weight * PLACE_WEIGHT, CTC_WEIGHT, PHONE_WEIGHT]
    )
    return AcousticLosses(torch.stack(parts) @ weights, *parts)
