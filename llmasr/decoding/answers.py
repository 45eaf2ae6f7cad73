"""Answers of the language model to questions about what is seen and heard.

An answer is not bounded by fires, as a transcript is, but by a number of tokens.

Letters: n vectors of a modality, H LM width.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmasr.decoding.batching import Recording, batches, cut, pad
from llmasr.decoding.greedy import write
from llmasr.decoding.hypothesis import Answer, Request, Search, lack_of_room
from llmasr.decoding.search import SearchOptions, search_each
from llmasr.decoding.sight import Context
from llmasr.models.checkpoint import Bundle
from llmasr.models.splice import splice
from llmasr.models.xllm import speech_rows
from llmasr.prompts import History, PromptIds, lay_out
from llmasr.reply import Reply

# Questions that the language model answers at the same time.
TOGETHER = 16
# Seconds of audio that are listened to at once; bounds memory, changes no result.
LISTEN_SECONDS = 120.0


class Question(NamedTuple):
    """A question, and what it is about."""

    text: str
    context: Context = Context()
    history: History = ()
    error: str | None = None  # why it cannot be asked


@torch.inference_mode()
def listen(bundle: Bundle, recording: Recording, device: torch.device) -> Context:
    """Return what is heard in a recording under "speech", or the flag "silence".

    The spans of a long recording follow one another.
    """
    model = bundle.model
    heard: dict[int, Tensor] = {}
    for batch in batches(cut([recording]), LISTEN_SECONDS):
        waveforms, lengths = pad(batch)
        features = model.speech.features(waveforms.to(device), lengths.to(device))
        rows = speech_rows(*model.speech(*features))
        heard |= {piece.span.start: row["speech"] for piece, row in zip(batch, rows, strict=True)}
    if not any(map(len, heard.values())):
        return Context({}, (*recording.flags, "silence"))
    in_order = [heard[start] for start in sorted(heard)]
    return Context({"speech": torch.cat(in_order)}, recording.flags)


@torch.inference_mode()
def answer(
    bundle: Bundle,
    questions: Iterable[Question],
    max_new_tokens: int,
    options: SearchOptions | None,
    *,
    name: str = "",
) -> list[Reply]:
    """Answer any number of questions; one that cannot be asked or has no room fails alone.

    Args:
        bundle: model and tokenizer.
        questions: what is asked, and of what; taken as they are needed.
        max_new_tokens: bound of an answer.
        options: beams or samples; None for greedy.
        name: of the model.
    """
    remaining = iter(questions)
    replies: list[Reply] = []
    while batch := list(islice(remaining, TOGETHER)):
        replies += _answer(bundle, batch, max_new_tokens, options, name)
    return replies


def _answer(
    bundle: Bundle,
    questions: Sequence[Question],
    max_new_tokens: int,
    options: SearchOptions | None,
    name: str,
) -> list[Reply]:
    """Answer a batch."""
    began = time.perf_counter()
    model = bundle.model
    answers = [Answer(max_new_tokens, error=question.error) for question in questions]
    pieces = [
        _pieces(bundle, question, found) for question, found in zip(questions, answers, strict=True)
    ]
    asked = [index for index, found in enumerate(answers) if found.error is None]
    if asked:
        requests = [Request([], max_new_tokens)] * len(asked)
        search = _search(options, [questions[index] for index in asked])
        written = search(model.reader, *splice([pieces[index] for index in asked]), requests)
        for index, found in zip(asked, written, strict=True):
            answers[index] = found
    share = (time.perf_counter() - began) / max(len(asked), 1)
    return [
        _reply(bundle, question, found, share, name)
        for question, found in zip(questions, answers, strict=True)
    ]


def _pieces(bundle: Bundle, question: Question, answer: Answer) -> list[Tensor]:
    """Return the pieces of a prompt, or say in the answer why there is none."""
    if answer.error is not None:
        return []
    model = bundle.model
    try:
        prompt = _prompt(bundle, question)
    except ValueError as error:  # words that a layout does not allow
        answer.error = str(error)
        return []
    pieces = model.prompt_pieces([question.context.vectors], [prompt])[0]
    answer.error = lack_of_room(model.reader, sum(map(len, pieces)), answer.bound)
    return pieces


def _prompt(bundle: Bundle, question: Question) -> PromptIds:
    layout = bundle.model.config.prompt.layout
    return lay_out(bundle.tokenizer, question.text, layout, question.history)


def _search(options: SearchOptions | None, questions: Sequence[Question]) -> Search:
    if options is None:
        return write
    # Seeds do not depend on the order of calls, nor on what else is asked.
    digests = [hashlib.sha256(question.text.encode()).digest() for question in questions]
    seeds = [int.from_bytes(digest[:4], "little") for digest in digests]
    return partial(search_each, options=options, seeds=seeds)


def _reply(bundle: Bundle, question: Question, found: Answer, seconds: float, name: str) -> Reply:
    if found.error is not None:
        return Reply("", "failed", None, model=name, error=found.error)
    text = bundle.tokenizer.decode(found.ids).strip()
    confidence = round(math.exp(np.mean(found.log_probs)), 4) if found.log_probs else None
    status = "truncated" if found.finish_reason == "length" else "ok" if text else "empty"
    return Reply(
        text,
        status,
        found.finish_reason,
        tuple(question.context.vectors),
        (*question.context.flags, *found.flags),
        confidence,
        {"language_model": round(seconds, 6)},
        name,
    )
