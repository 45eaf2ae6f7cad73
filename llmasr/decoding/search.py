"""Beams and samples: several answers to a prompt, and how sure the language model is of each token.

The search itself is that of transformers. Every prompt is searched alone, and samples are drawn
with a seed that comes from the audio, so that neither batches nor the order of calls change a
result. Greedy decoding is in greedy.py.

Letters: L places of a prompt, H LM width, N tokens of an answer, K candidates, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmasr.decoding.hypothesis import Answer, Candidate, Request, Token, check_room
from llmasr.decoding.verify import pad_ids
from llmasr.models.language.base import LanguageModel


@dataclass(frozen=True)
class SearchOptions:
    """How to look for answers; the default is greedy.

    Attributes:
        beam_size: hypotheses kept at each step, 1 or more.
        temperature: above 0 to draw samples; not together with beams.
        top_k: draw from so many of the likeliest tokens; 0 for all.
        top_p: draw from the likeliest tokens that have this probability together, in (0, 1].
        n_best: answers to return, at most ``beam_size`` of a beam search.
        seed: of samples, added to what the audio gives.
    """

    beam_size: int = 1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    n_best: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "beam_size": (self.beam_size >= 1, "1 or more"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "n_best": (self.n_best >= 1, "1 or more"),
        }
        for name, (is_right, allowed) in limits.items():
            if not is_right:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {allowed}")
        if self.temperature and self.beam_size > 1:
            raise ValueError(
                f"temperature is {self.temperature} and beam_size {self.beam_size}; "
                "allowed: samples or beams, not both"
            )
        if not self.temperature and self.n_best > self.beam_size:
            raise ValueError(
                f"n_best is {self.n_best}; allowed: at most beam_size, which is {self.beam_size}"
            )


@torch.inference_mode()
def search(
    reader: LanguageModel, prompt: Tensor, bound: int, options: SearchOptions, seed: int = 0
) -> list[Candidate]:
    """Return different answers to one prompt, best first, at most ``options.n_best`` of them.

    Args:
        reader: the language model.
        prompt: [L, H] vectors.
        bound: most tokens of an answer.
        options: how to search.
        seed: of samples, from :func:`seed_of`.
    """
    mask = torch.ones(1, len(prompt), dtype=torch.bool, device=prompt.device)
    with torch.random.fork_rng(devices=[prompt.device] if prompt.is_cuda else []):
        torch.manual_seed(seed + options.seed)
        sequences = reader.generate(
            prompt[None], mask, mask.sum(1), max_new_tokens=bound,
            num_return_sequences=options.n_best, **_generation(reader, options),
        )  # fmt: skip
    answers = dict.fromkeys(_until_end(ids, reader.stop_ids) for ids in sequences.tolist())
    return sorted(_scored(reader, prompt, list(answers)), key=lambda found: -found.score)


@torch.inference_mode()
def search_each(
    reader: LanguageModel,
    embeddings: Tensor,
    mask: Tensor,
    requests: Sequence[Request],
    options: SearchOptions,
    seeds: Sequence[int],
) -> list[Answer]:
    """Answer a batch of prompts, one after the other; a `Search` once the last two are bound.

    Args:
        reader: the language model.
        embeddings: [B, L, H] prompts, padded on the left.
        mask: [B, L] bool.
        requests: a bound for each row; drafts are not looked at.
        options: how to search.
        seeds: of samples, one for each row.
    """
    check_room(reader, mask, requests)
    answers = []
    for vectors, real, request, seed in zip(embeddings, mask, requests, seeds, strict=True):
        found = search(reader, vectors[real], request.bound, options, seed)
        best = found[0]
        answer = Answer(request.bound, request.heard, list(best.token_ids))
        answer.log_probs = list(best.log_probs[: len(best.token_ids)])
        answer.finish_reason = "stop" if best.is_complete else "length"
        # One call a step, and one that judges.
        answer.forwards = max(len(candidate.log_probs) for candidate in found) + 1
        answer.alternatives = tuple(found[1:])
        answers.append(answer)
    return answers


@torch.inference_mode()
def inspect(
    reader: LanguageModel, prompt: Tensor, token_ids: Sequence[int], alternatives: int = 5
) -> list[Token]:
    """Say how sure the language model is of each token of an answer; takes one forward pass.

    Args:
        reader: the language model.
        prompt: [L, H] vectors.
        token_ids: N ids, the end id included if it is of interest.
        alternatives: likeliest ids to name for each token.
    """
    if not token_ids:
        return []
    log_probs = _log_probs(reader, prompt, [tuple(token_ids)])[0, : len(token_ids)]  # [N, V]
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    best, ids = log_probs.topk(min(alternatives, log_probs.shape[-1]))
    return [
        Token(token, row[token].item(), doubt, tuple(zip(names, values, strict=True)))
        for token, row, doubt, names, values in zip(
            token_ids, log_probs, entropy.tolist(), ids.tolist(), best.tolist(), strict=True
        )
    ]


def seed_of(waveform: Tensor) -> int:
    """Return a seed that only the samples [S] decide."""
    samples = waveform.detach().float().cpu().contiguous().numpy()
    return int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:4], "little")


def _generation(reader: LanguageModel, options: SearchOptions) -> dict[str, Any]:
    """Return the options in the words of transformers."""
    stop_ids = sorted(reader.stop_ids)
    common = {"eos_token_id": stop_ids or None, "pad_token_id": stop_ids[0] if stop_ids else 0}
    if not options.temperature:
        return {"num_beams": options.beam_size, "do_sample": False, **common}
    drawn = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    return {"num_beams": 1, "do_sample": True, **drawn, **common}


def _until_end(ids: list[int], stop_ids: frozenset[int]) -> tuple[int, ...]:
    """Cut behind the first end id, which stays."""
    for place, token in enumerate(ids):
        if token in stop_ids:
            return tuple(ids[: place + 1])
    return tuple(ids)


def _scored(
    reader: LanguageModel, prompt: Tensor, answers: list[tuple[int, ...]]
) -> list[Candidate]:
    """Give every answer the probabilities of its tokens, as no search had touched them."""
    table = _log_probs(reader, prompt, answers)  # [K, N, V]
    found = []
    for row, answer in zip(table, answers, strict=True):
        ids = torch.tensor(answer, dtype=torch.int64, device=row.device)
        log_probs = row[: len(answer)].gather(1, ids[:, None])[:, 0]
        is_complete = bool(answer) and answer[-1] in reader.stop_ids
        words = answer[:-1] if is_complete else answer
        found.append(Candidate(words, tuple(log_probs.tolist()), is_complete))
    return found


def _log_probs(reader: LanguageModel, prompt: Tensor, answers: Sequence[tuple[int, ...]]) -> Tensor:
    """Return what the language model expects at each token of K answers, [K, N, V]."""
    ids, real = pad_ids(answers, prompt.device)  # [K, N]
    prompts = prompt.expand(len(answers), -1, -1)
    vectors = torch.cat([prompts, reader.embed(ids).to(prompt.dtype)], 1)
    mask = torch.cat([real.new_ones(len(answers), len(prompt)), real], 1)
    prompt_lengths = torch.full_like(ids[:, 0], len(prompt))
    logits, _ = reader.read(vectors, mask, prompt_lengths, keep=ids.shape[1] + 1)
    return logits[:, :-1].float().log_softmax(-1)
