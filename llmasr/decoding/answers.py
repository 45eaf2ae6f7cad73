"""Answers of the language model to questions about what is seen and heard.

An answer is not bounded by fires, as a transcript is, but by a number of tokens.

Letters: n vectors of a modality, H LM width.
"""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmasr.decoding.batching import Recording, cut, pad
from llmasr.decoding.greedy import write
from llmasr.decoding.hypothesis import Answer, Request, Search, lack_of_room
from llmasr.decoding.search import SearchOptions, search_each
from llmasr.models.checkpoint import Bundle
from llmasr.models.splice import splice
from llmasr.models.xllm import speech_rows
from llmasr.prompts import History, lay_out
from llmasr.reply import Reply


class Question(NamedTuple):
    """A question, and what it is about."""

    text: str
    seen: Mapping[str, Tensor]  # by modality, vectors [n, H]
    history: History = ()


@torch.inference_mode()
def listen(bundle: Bundle, recording: Recording, device: torch.device) -> dict[str, Tensor]:
    """Return what is heard in a recording, [n, H] under "speech"; nothing if it is silent.

    The spans of a long recording follow one another.
    """
    pieces = cut([recording])
    if not pieces:
        return {}
    model = bundle.model
    waveforms, lengths = pad(pieces)
    features = model.speech.features(waveforms.to(device), lengths.to(device))
    rows = speech_rows(*model.speech(*features))
    return {"speech": torch.cat([row["speech"] for row in rows])}


@torch.inference_mode()
def answer(
    bundle: Bundle,
    questions: Sequence[Question],
    max_new_tokens: int,
    options: SearchOptions | None,
    *,
    name: str = "",
) -> list[Reply]:
    """Answer a batch of questions; one that does not fit into the language model fails.

    Args:
        bundle: model and tokenizer.
        questions: what is asked, and of what.
        max_new_tokens: bound of an answer.
        options: beams or samples; None for greedy.
        name: of the model.
    """
    began = time.perf_counter()
    model, layout = bundle.model, bundle.model.config.prompt.layout
    prompts = [
        lay_out(bundle.tokenizer, question.text, layout, question.history) for question in questions
    ]
    pieces = model.prompt_pieces([question.seen for question in questions], prompts)
    answers = [Answer(max_new_tokens) for _ in questions]
    for found, parts in zip(answers, pieces, strict=True):
        found.error = lack_of_room(model.reader, sum(map(len, parts)), max_new_tokens)
    asked = [index for index, found in enumerate(answers) if found.error is None]
    if asked:
        requests = [Request([], max_new_tokens)] * len(asked)
        search = _search(options, [questions[index] for index in asked])
        written = search(model.reader, *splice([pieces[index] for index in asked]), requests)
        for index, found in zip(asked, written, strict=True):
            answers[index] = found
    share = (time.perf_counter() - began) / len(questions)
    return [
        _reply(bundle, question, found, share, name)
        for question, found in zip(questions, answers, strict=True)
    ]


def _search(options: SearchOptions | None, questions: Sequence[Question]) -> Search:
    if options is None:
        return write
    # Seeds do not depend on the order of calls, nor on what else is asked.
    digests = [hashlib.sha256(question.text.encode()).digest() for question in questions]
    seeds = [int.from_bytes(digest[:4], "little") for digest in digests]
    return partial(search_each, options=options, seeds=seeds)


def _reply(bundle: Bundle, question: Question, found: Answer, seconds: float, name: str) -> Reply:
    context = tuple(question.seen)
    if found.error is not None:
        return Reply("", "failed", None, context, model=name, error=found.error)
    text = bundle.tokenizer.decode(found.ids).strip()
    confidence = math.exp(np.mean(found.log_probs)) if found.log_probs else None
    status = "truncated" if found.finish_reason == "length" else "ok" if text else "empty"
    return Reply(
        text,
        status,
        found.finish_reason,
        context,
        found.flags,
        None if confidence is None else round(confidence, 4),
        {"language_model": round(seconds, 6)},
        name,
    )
