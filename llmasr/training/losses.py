"""Losses of the CIF acoustic model (Dong & Xu, arXiv 1905.11235, section 3).

Scaled to the transcript, CIF makes as many tokens as there are, but nothing says where: the token
loss only reaches the weights next to a boundary. CTC finds each token by itself, so it shows the
way: the frame in which it says a token is to weigh one token, all others nothing.

All are sums over the batch, divided once by the number of target tokens. Letters: B batch,
T frames, N tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, cross_entropy, ctc_loss

from llmasr.data.forced_alignment import ctc_places
from llmasr.models.speech import SpeechFrames, SpeechInterface, SpeechTokens
from llmasr.modules.masks import valid_mask

IGNORED = -100
LABEL_SMOOTHING = 0.1
PLACE_WEIGHT, CTC_WEIGHT, PHONE_WEIGHT = 0.3, 0.5, 0.3
SMALLEST_WEIGHT = 1e-6


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


def place_loss(weights: Tensor, places: Tensor) -> Tensor:
    """Sum the binary cross entropy of CIF weights: 1 where CTC says a token, else 0.

    Args:
        weights: [B, T] float32, before any scaling, 0 on padding.
        places: [B, N] as of :func:`ctc_places`; rows without any are left out.

    Returns:
        A scalar in nats.
    """
    is_token = torch.zeros_like(weights)
    is_token.scatter_reduce_(1, places.clamp(min=0), (places >= 0).to(weights.dtype), "amax")
    inside = weights.clamp(SMALLEST_WEIGHT, 1 - SMALLEST_WEIGHT)
    each = binary_cross_entropy(inside, is_token, reduction="none").sum(1)
    return each.masked_fill((places < 0).all(1), 0.0).sum()


def hear_transcript(
    speech: SpeechInterface, frames: SpeechFrames, tokens: Tensor, lengths: Tensor
) -> SpeechTokens:
    """Integrate frames to as many tokens as the transcripts have, [B, N] with lengths [B]."""
    if not speech.config.fires_with_ctc:
        return speech.integrate(frames, lengths)
    places = ctc_places(*speech.ctc_logits(frames), tokens, lengths)
    return speech.integrate(frames, lengths, places)


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
