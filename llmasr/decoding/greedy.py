"""Greedy transcription of a batch, bounded by what the acoustic model heard.

`write` is the definition: one token at a time. `recognise` uses a faster search that must agree
with it, unless told otherwise.

Letters: B batch, S samples, L positions, N fires, H LM width, V vocabulary.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from llmasr.decoding import guards
from llmasr.decoding.drafts import DraftSource, Heard, retokenised, same_ids
from llmasr.decoding.hypothesis import (
    Answer,
    Hypothesis,
    Request,
    Search,
    check_room,
    lack_of_room,
    max_new_tokens,
)
from llmasr.decoding.search import SearchOptions, inspect, search_each, seed_of
from llmasr.decoding.search import search as beam_search
from llmasr.decoding.timestamps import align, times_at
from llmasr.decoding.verify import EXACT, Acceptance, can_take_back, draft_and_verify
from llmasr.models.checkpoint import Bundle
from llmasr.models.language.base import LanguageModel
from llmasr.models.speech import SpeechTokens
from llmasr.models.splice import splice
from llmasr.models.xllm import XLLM, speech_rows
from llmasr.prompts import PromptIds

RETRY = SearchOptions(beam_size=4)


@dataclass(frozen=True)
class Decoding:
    """How answers are found; the defaults give those of greedy search.

    Attributes:
        prompt: another one than that of training.
        prompt_with_sight: the same, where speech comes with a picture or a video.
        search: beams or samples instead of drafts.
        acceptance: which tokens of a draft stand.
        alternatives: likeliest tokens to name for each token of an answer; 0 for no details.
        draft: turns the CIF hypothesis into ids of the language model.
    """

    prompt: PromptIds | None = None
    prompt_with_sight: PromptIds | None = None
    search: SearchOptions | None = None
    acceptance: Acceptance = EXACT
    alternatives: int = 0
    draft: DraftSource = same_ids

    def __post_init__(self) -> None:
        if self.alternatives < 0:
            raise ValueError(f"alternatives is {self.alternatives}; it must be 0 or more")
        if self.search is not None and self.acceptance != EXACT:
            raise ValueError("search and acceptance are both given; beams and samples use no draft")


@torch.inference_mode()
def recognise(
    model: XLLM,
    waveforms: Tensor,
    lengths: Tensor,
    how: Decoding = Decoding(),
    *,
    seen: Sequence[Mapping[str, Tensor]] | None = None,
    search: Search | None = None,
) -> list[Hypothesis]:
    """Transcribe a batch.

    Where nothing fires, the language model is not asked and the answer is empty. An answer that
    begins to repeat itself beyond what was heard is stopped, tried once more with beams, and
    flagged. One that might not fit into the language model fails before it is begun.

    Args:
        model: in eval mode.
        waveforms: [B, S] float, 16 kHz, zero padded on the right, on the model's device.
        lengths: [B] int64 samples.
        how: see :class:`Decoding`.
        seen: what each row looks at, by modality, vectors [n, H] from an interface; read first.
        search: a search to use instead of the one that ``how`` asks for.

    Returns:
        One hypothesis per row, the same as if the row had been alone.
    """
    began = time.perf_counter()
    heard = model.speech.listen(*model.speech.features(waveforms, lengths))
    fires = heard.cif.token_lengths.tolist()
    drafts = [how.draft(ids) for ids in _each(heard.token_logits.argmax(-1), fires)]
    seconds = _each(heard.cif.fire_times * model.config.speech.encoder.frame_seconds, fires)
    requests = [_request(draft, count) for draft, count in zip(drafts, fires, strict=True)]
    listened = time.perf_counter()
    answers = _confident(heard, requests, how.acceptance.gate)
    pieces = _prompts(model, heard, answers, seen or [{}] * len(answers), how)
    asked = [index for index, answer in enumerate(answers) if not answer.finish_reason]
    if asked:
        if how.search is not None and search is None:
            seeds = [seed_of(waveforms[index, : lengths[index]]) for index in asked]
            search = partial(search_each, options=how.search, seeds=seeds)
        search = search or _greedy(model, how.acceptance)
        prompts = [pieces[index] for index in asked]
        found = search(model.reader, *splice(prompts), [requests[index] for index in asked])
        for index, answer, parts in zip(asked, found, prompts, strict=True):
            if answer.finish_reason == "repetition":
                answer = _second_attempt(model.reader, torch.cat(parts), answer)
            places = align(answer.ids, drafts[index].ids)
            noticed = guards.flags(answer.ids, places, requests[index].heard or 0)
            answer.flags = tuple(dict.fromkeys((*answer.flags, *noticed)))
            if how.alternatives:
                prompt = torch.cat(parts)
                answer.tokens = tuple(inspect(model.reader, prompt, answer.ids, how.alternatives))
            answers[index] = answer
    timings = {"acoustic": listened - began, "language_model": time.perf_counter() - listened}
    return [
        _hypothesis(answer, draft, times, timings)
        for answer, draft, times in zip(answers, drafts, seconds, strict=True)
    ]


def draft_source(bundle: Bundle) -> DraftSource:
    """Return what turns the CIF hypotheses of a model into ids of its language model."""
    if bundle.speech_tokenizer is None:
        return same_ids
    return retokenised(bundle.speech_tokenizer, bundle.tokenizer)


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
    answers = [Answer(request.bound, request.heard) for request in requests]
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


def _request(draft: Heard, fires: int) -> Request:
    """Bound an answer by what was heard, in tokens of the vocabulary that has more of them."""
    heard = max(fires, len(draft.ids))
    return Request(draft.ids, max_new_tokens(heard), heard)


def _greedy(model: XLLM, acceptance: Acceptance) -> Search:
    """Return the search with drafts, or the plain one if what was read cannot be taken back."""
    if can_take_back(model.reader):
        return partial(draft_and_verify, acceptance=acceptance)
    if not acceptance.takes_best:
        raise ValueError(f"acceptance is {acceptance}; this language model cannot verify drafts")
    return write


def _prompts(
    model: XLLM,
    heard: SpeechTokens,
    answers: Sequence[Answer],
    seen: Sequence[Mapping[str, Tensor]],
    how: Decoding,
) -> list[list[Tensor]]:
    """Return the pieces of every row's prompt; a row whose answer might not fit fails."""
    said = speech_rows(model.speech.adaptor(heard.tokens), heard.cif.token_lengths)
    rows = [{**sight, **speech} for sight, speech in zip(seen, said, strict=True)]
    plain = how.prompt or model.prompt
    prompts = [(how.prompt_with_sight or plain) if sight else plain for sight in seen]
    pieces = model.prompt_pieces(rows, prompts)
    for answer, parts in zip(answers, pieces, strict=True):
        problem = lack_of_room(model.reader, sum(map(len, parts)), answer.bound)
        if problem and not answer.finish_reason:
            answer.finish_reason, answer.error = "failed", problem
    return pieces


def _second_attempt(reader: LanguageModel, prompt: Tensor, first: Answer) -> Answer:
    """Try an answer that ran into a loop once more, with beams; a loop again keeps the first."""
    first.flags = (*first.flags, guards.REPETITION)
    found = beam_search(reader, prompt, first.bound, RETRY)[0]
    second = Answer(first.bound, first.heard, forwards=first.forwards + len(found.log_probs) + 1)
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
    answers = [Answer(request.bound, request.heard) for request in requests]
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
    answer: Answer, draft: Heard, times: list[float], timings: dict[str, float]
) -> Hypothesis:
    assert answer.finish_reason, "a search returns finished answers"
    return Hypothesis(
        answer.ids,
        answer.log_probs,
        draft.ids,
        times_at(draft.ends, times),
        answer.finish_reason,
        timings,
        answer.forwards,
        answer.accepted,
        answer.flags,
        answer.alternatives,
        answer.tokens,
        answer.error,
    )


def _each(values: Tensor, lengths: Sequence[int]) -> list[list]:
    """Turn values [B, N] into a list per row, so long as it is."""
    return [row[:length] for row, length in zip(values.tolist(), lengths, strict=True)]
