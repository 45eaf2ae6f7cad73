"""Greedy transcription of a batch, bounded by what the acoustic model heard.

`write` is the definition: one token at a time. `recognise` uses a faster search that must agree
with it, unless told otherwise.

Letters: B batch, S samples, L positions, N fires, H LM width, V vocabulary.
"""

import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from llmasr.decoding import guards
from llmasr.decoding.drafts import DraftSource, same_ids
from llmasr.decoding.hypothesis import (
    Answer,
    Hypothesis,
    Request,
    Search,
    check_room,
    max_new_tokens,
)
from llmasr.decoding.search import SearchOptions, search_each, seed_of
from llmasr.decoding.search import search as beam_search
from llmasr.decoding.timestamps import align
from llmasr.decoding.verify import can_take_back, draft_and_verify
from llmasr.models.language.base import LanguageModel
from llmasr.models.speech import SpeechTokens
from llmasr.models.splice import splice
from llmasr.models.xllm import XLLM
from llmasr.prompts import PromptIds

RETRY = SearchOptions(beam_size=4)


@torch.inference_mode()
def recognise(
    model: XLLM,
    waveforms: Tensor,
    lengths: Tensor,
    *,
    search: Search | None = None,
    draft: DraftSource = same_ids,
    gate: float | None = None,
    prompt: PromptIds | None = None,
    options: SearchOptions | None = None,
) -> list[Hypothesis]:
    """Transcribe a batch.

    Where nothing fires, the language model is not asked and the answer is empty. An answer that
    begins to repeat itself beyond what was heard is stopped, tried once more with beams, and
    flagged.

    Args:
        model: in eval mode.
        waveforms: [B, S] float, 16 kHz, zero padded on the right, on the model's device.
        lengths: [B] int64 samples.
        search: how the language model answers; by default with drafts, or with `write` if it
            cannot take back what it has read.
        draft: turns the CIF hypothesis into a draft of the answer.
        gate: entropy in nats; a CIF hypothesis of which no token has more is the answer, flagged
            "gated", and the language model is not asked. None: it is always asked.
        prompt: another one than that of training.
        options: beams or samples instead of ``search``.

    Returns:
        One hypothesis per row, the same as if the row had been alone.

    Raises:
        ValueError: a prompt and its answer are longer than what the language model reads.
    """
    began = time.perf_counter()
    heard = model.speech.listen(*model.speech.features(waveforms, lengths))
    fires = heard.cif.token_lengths.tolist()
    drafts = _each(heard.token_logits.argmax(-1), fires)
    seconds = _each(heard.cif.fire_times * model.config.speech.encoder.frame_seconds, fires)
    requests = [
        Request(draft(ids), max_new_tokens(count), count)
        for ids, count in zip(drafts, fires, strict=True)
    ]
    listened = time.perf_counter()
    answers = _confident(heard, requests, gate)
    asked = [index for index, answer in enumerate(answers) if not answer.finish_reason]
    if asked:
        if options is not None:
            seeds = [seed_of(waveforms[index, : lengths[index]]) for index in asked]
            search = partial(search_each, options=options, seeds=seeds)
        search = search or (draft_and_verify if can_take_back(model.reader) else write)
        vectors = model.speech.adaptor(heard.tokens[asked])
        pieces = model.prompt_pieces(vectors, heard.cif.token_lengths[asked], prompt)
        found = search(model.reader, *splice(pieces), [requests[index] for index in asked])
        for index, answer, parts in zip(asked, found, pieces, strict=True):
            if answer.finish_reason == "repetition":
                answer = _second_attempt(model.reader, torch.cat(parts), answer)
            seen = guards.flags(answer.ids, align(answer.ids, drafts[index]), fires[index])
            answer.flags = tuple(dict.fromkeys((*answer.flags, *seen)))
            answers[index] = answer
    timings = {"acoustic": listened - began, "language_model": time.perf_counter() - listened}
    return [
        _hypothesis(answer, ids, times, timings)
        for answer, ids, times in zip(answers, drafts, seconds, strict=True)
    ]


@torch.inference_mode()
def write(
    reader: LanguageModel, embeddings: Tensor, mask: Tensor, requests: Sequence[Request]
) -> list[Answer]:
    """Answer a batch of prompts token by token, until every row has stopped or reached its bound.

    Args:
        reader: any language model.
        embeddings: [B, L, H] prompts, padded on the left.
        mask: [B, L] bool, True on real places.
        requests: a bound for each row; drafts are not looked at.

    Raises:
        ValueError: a prompt and its answer do not fit; see :func:`check_room`.
    """
    check_room(reader, mask, requests)
    answers = [Answer(request.bound, request.fires) for request in requests]
    prompt_lengths = mask.sum(1)
    logits, cache = reader.read(embeddings, mask, prompt_lengths, keep=1)
    while True:
        log_probs = logits[:, -1].float().log_softmax(-1)  # [B, V]
        best, tokens = log_probs.max(-1)
        for answer, token, log_prob in zip(answers, tokens.tolist(), best.tolist(), strict=True):
            answer.forwards += not answer.finish_reason
            answer.take(token, log_prob, reader.stop_ids)
        if all(answer.finish_reason for answer in answers):
            return answers
        mask = torch.cat([mask, mask.new_ones(len(answers), 1)], 1)
        vectors = reader.embed(tokens)[:, None]
        logits, cache = reader.read(vectors, mask, prompt_lengths, cache, keep=1)


def _second_attempt(reader: LanguageModel, prompt: Tensor, first: Answer) -> Answer:
    """Try an answer that ran into a loop once more, with beams; a loop again keeps the first."""
    first.flags = (*first.flags, guards.REPETITION)
    found = beam_search(reader, prompt, first.bound, RETRY)[0]
    second = Answer(first.bound, first.fires, forwards=first.forwards + len(found.log_probs) + 1)
    for token, log_prob in zip(found.token_ids, found.log_probs, strict=False):
        second.take(token, log_prob, reader.stop_ids)
    if second.finish_reason == "repetition":
        return first
    second.finish_reason = "stop" if found.is_complete else "length"
    second.flags = first.flags
    return second


def _confident(
    heard: SpeechTokens, requests: Sequence[Request], gate: float | None
) -> list[Answer]:
    """Return an answer per row, finished where the language model need not be asked."""
    answers = [Answer(request.bound, request.fires) for request in requests]
    fires = heard.cif.token_lengths.tolist()
    for answer, count in zip(answers, fires, strict=True):
        if not count:
            answer.finish_reason = "silence"
    if gate is None:
        return answers
    log_probs = heard.token_logits.float().log_softmax(-1)  # [B, N, V]
    entropies = _each(-(log_probs.exp() * log_probs).sum(-1), fires)
    for answer, request, row, entropy in zip(
        answers, requests, _each(log_probs.amax(-1), fires), entropies, strict=True
    ):
        if entropy and max(entropy) <= gate:
            _take_over(answer, request, row)
    return answers


def _take_over(answer: Answer, request: Request, log_probs: Sequence[float]) -> None:
    """Let the draft be the answer; the log-probabilities are those of the fires."""
    answer.ids = list(request.draft)
    # Ids of another vocabulary have no fire each.
    mean = sum(log_probs) / len(log_probs)
    per_fire = len(answer.ids) == len(log_probs)
    answer.log_probs = list(log_probs) if per_fire else [mean] * len(answer.ids)
    answer.accepted = len(answer.ids)
    answer.finish_reason, answer.flags = "stop", ("gated",)


def _hypothesis(
    answer: Answer, draft: list[int], times: list[float], timings: dict[str, float]
) -> Hypothesis:
    assert answer.finish_reason, "a search returns finished answers"
    return Hypothesis(
        answer.ids,
        answer.log_probs,
        draft,
        times,
        answer.finish_reason,
        timings,
        answer.forwards,
        answer.accepted,
        answer.flags,
        answer.alternatives,
    )


def _each(values: Tensor, lengths: Sequence[int]) -> list[list]:
    """Turn values [B, N] into a list per row, so long as it is."""
    return [row[:length] for row, length in zip(values.tolist(), lengths, strict=True)]
