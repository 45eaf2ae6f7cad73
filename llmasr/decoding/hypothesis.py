"""What a search is asked, the answer that grows under it, and what recognition returns.

Every search follows the rules of `Answer.take`: when an answer stops, how long it may become and
how that is named. So a fast search differs from the plain one in work, not in result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from llmasr.decoding.guards import looping
from llmasr.models.language.base import LanguageModel

TOKENS_PER_HEARD, EXTRA_TOKENS = 1.5, 8

FinishReason = Literal["stop", "length", "repetition", "silence", "failed"]


@dataclass(frozen=True)
class Candidate:
    """One answer."""

    token_ids: tuple[int, ...]  # without the end id
    log_probs: tuple[float, ...]  # one per token, and one of the end if it was reached
    is_complete: bool  # an end id was reached within the bound

    @property
    def score(self) -> float:
        """Mean log-probability of the tokens, the end included; 0 for an empty answer cut short."""
        return sum(self.log_probs) / max(len(self.log_probs), 1)


class Token(NamedTuple):
    """What the language model thought when it wrote a token."""

    token_id: int
    log_prob: float  # natural
    entropy: float  # nats, of the whole distribution
    alternatives: tuple[tuple[int, float], ...]  # likeliest ids and their log-probabilities


@dataclass(frozen=True)
class Hypothesis:
    """What one stretch of audio says, and how that was found.

    Flags: "relaxed" (tokens of the draft stand that the language model ranks below another one),
    "gated" (the CIF hypothesis stands as it is; the language model was not asked), "repetition" (it
    began to repeat itself and was stopped; the answer is that of a second attempt unless the finish
    reason is "repetition" too), "insertions" and "deletions" (see guards.py).
    """

    token_ids: list[int]  # written by the language model, without the end id
    log_probs: list[float]  # natural log, one per token
    draft_ids: list[int]  # the CIF hypothesis, in ids of the language model
    draft_times: list[float]  # seconds from the start of the audio, the end of each of them
    finish_reason: FinishReason
    timings: dict[str, float] = field(default_factory=dict)  # seconds spent on the whole batch
    llm_forwards: int = 0  # calls of the language model in which this utterance took part
    accepted_tokens: int = 0  # of `token_ids`, those that a draft had foreseen
    flags: tuple[str, ...] = ()
    alternatives: tuple[Candidate, ...] = ()  # other answers, best first, if they were asked for
    tokens: tuple[Token, ...] = ()  # of `token_ids`, if they were asked for
    error: str | None = None  # why it failed


class Request(NamedTuple):
    """What a search needs besides the prompt."""

    draft: list[int]  # a guess of the answer; it may be wrong, too long or empty
    bound: int  # most tokens of the answer
    heard: int | None = None  # tokens that were heard, to tell loops; None lets them run


class Search(Protocol):
    """Lets a language model answer a batch of prompts."""

    def __call__(
        self,
        reader: LanguageModel,
        embeddings: Tensor,
        mask: Tensor,
        requests: Sequence[Request],
    ) -> list["Answer"]:
        """Return the finished answers to prompts [B, L, H], padded on the left, mask [B, L]."""
        ...


@dataclass
class Answer:
    """The answer that is growing for one utterance."""

    bound: int
    heard: int | None = None
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    forwards: int = 0
    accepted: int = 0
    flags: tuple[str, ...] = ()
    alternatives: tuple[Candidate, ...] = ()
    tokens: tuple[Token, ...] = ()
    error: str | None = None

    def take(self, token: int, log_prob: float, stop_ids: frozenset[int]) -> None:
        """Add the next token, or finish: at a stop id, in a loop, or at the bound."""
        if self.finish_reason:
            return
        if token in stop_ids:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        self.log_probs.append(log_prob)
        if self.heard is not None and looping(self.ids, self.heard):
            self.finish_reason = "repetition"
        elif len(self.ids) >= self.bound:
            self.finish_reason = "length"


def max_new_tokens(heard: int) -> int:
    """Return how many tokens an utterance may have in which so many were heard: 1.5 * heard + 8."""
    return int(TOKENS_PER_HEARD * heard) + EXTRA_TOKENS


def check_room(reader: LanguageModel, mask: Tensor, requests: Sequence[Request]) -> None:
    """Refuse prompts [B, L] whose answers could outgrow what the language model can read.

    Raises:
        ValueError: prompt and longest possible answer together exceed `reader.max_length`.
    """
    for row, (length, request) in enumerate(zip(mask.sum(1).tolist(), requests, strict=True)):
        if problem := lack_of_room(reader, length, request.bound):
            raise ValueError(f"utterance {row}: {problem}")


def lack_of_room(reader: LanguageModel, length: int, bound: int) -> str | None:
    """Say why a prompt of so many places and its longest answer do not fit; None if they do."""
    if reader.max_length is None or length + bound <= reader.max_length:
        return None
    return (
        f"a prompt of {length} places and an answer of up to {bound} make {length + bound}; "
        f"the language model reads at most {reader.max_length}"
    )
