"""Greedy transcription of a batch, bounded by what the acoustic model heard.

Letters: B batch, S samples, L positions, H LM width, V vocabulary.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from llmasr.models.splice import splice
from llmasr.models.xllm import XLLM

TOKENS_PER_FIRE, EXTRA_TOKENS = 1.5, 8

FinishReason = Literal["stop", "length", "silence"]


@dataclass(frozen=True)
class Hypothesis:
    """What one stretch of audio says, and how that was found."""

    token_ids: list[int]  # written by the language model, without the end id
    log_probs: list[float]  # natural log, one per token
    draft_ids: list[int]  # the CIF hypothesis, one id per fire
    fire_times: list[float]  # seconds from the start of the audio, the end of each fire's token
    finish_reason: FinishReason
    timings: dict[str, float] = field(default_factory=dict)  # seconds spent on the whole batch


@dataclass
class _Row:
    """The answer that is growing for one utterance."""

    bound: int
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def take(self, token: int, log_prob: float, stop_ids: frozenset[int]) -> None:
        if self.finish_reason:
            return
        if token in stop_ids:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        self.log_probs.append(log_prob)
        if len(self.ids) >= self.bound:
            self.finish_reason = "length"


def max_new_tokens(fires: int) -> int:
    """Return how many tokens an utterance with so many fires may have: 1.5 * fires + 8."""
    return int(TOKENS_PER_FIRE * fires) + EXTRA_TOKENS


@torch.inference_mode()
def recognise(model: XLLM, waveforms: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """Transcribe a batch.

    Where nothing fires, the language model is not asked and the answer is empty.

    Args:
        model: in eval mode.
        waveforms: [B, S] float, 16 kHz, zero padded on the right, on the model's device.
        lengths: [B] int64 samples.

    Returns:
        One hypothesis per row, the same as if the row had been alone.
    """
    began = time.perf_counter()
    features, frames = model.speech.features(waveforms, lengths)
    heard = model.speech.listen(features, frames)
    fires = heard.cif.token_lengths.tolist()
    drafts = heard.token_logits.argmax(-1).tolist()
    seconds = heard.cif.fire_times * model.config.speech.encoder.frame_seconds
    listened = time.perf_counter()
    rows = [_Row(max_new_tokens(count)) for count in fires]
    speaking = [index for index, count in enumerate(fires) if count]
    if speaking:
        vectors = model.speech.adaptor(heard.tokens[speaking])
        _write(model, vectors, heard.cif.token_lengths[speaking], [rows[i] for i in speaking])
    timings = {"acoustic": listened - began, "language_model": time.perf_counter() - listened}
    return [
        Hypothesis(
            row.ids,
            row.log_probs,
            drafts[i][: fires[i]],
            seconds[i, : fires[i]].tolist(),
            row.finish_reason or "silence",
            timings,
        )
        for i, row in enumerate(rows)
    ]


def _write(model: XLLM, speech: Tensor, lengths: Tensor, rows: list[_Row]) -> None:
    """Let the language model answer until every row has stopped or reached its bound."""
    reader = model.reader
    embeddings, mask = splice(model.prompt_pieces(speech, lengths))
    prompt_lengths = mask.sum(1)
    logits, cache = reader.read(embeddings, mask, prompt_lengths, keep=1)
    while True:
        log_probs = logits[:, -1].float().log_softmax(-1)  # [B, V]
        best, tokens = log_probs.max(-1)
        for row, token, log_prob in zip(rows, tokens.tolist(), best.tolist(), strict=True):
            row.take(token, log_prob, reader.stop_ids)
        if all(row.finish_reason for row in rows):
            return
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        vectors = reader.embed(tokens)[:, None]
        logits, cache = reader.read(vectors, mask, prompt_lengths, cache, keep=1)
