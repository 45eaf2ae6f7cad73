"""Sum up what was recognised in the spans of one input.

Plain arithmetic over hypotheses; this file knows no network.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmasr.decoding.batching import Recording
from llmasr.decoding.hypothesis import Hypothesis
from llmasr.decoding.segment import Span

# The first of these that a span has is the news.
REASONS = ("length", "repetition", "stop", "silence")


class Heard(NamedTuple):
    """What was recognised in a span."""

    span: Span
    hypothesis: Hypothesis
    share: float  # of the work on its batch


def finish_reason(heard: Iterable[Heard]) -> str:
    """Return why the text ends: one span that is cut off is the news, silence needs all of them."""
    found = {part.hypothesis.finish_reason for part in heard} or {"silence"}
    return next(reason for reason in REASONS if reason in found)


def flags(recording: Recording, reason: str, heard: Iterable[Heard]) -> tuple[str, ...]:
    """Join what there is to know about the audio, the end and the search, each once."""
    searched = (flag for part in heard for flag in part.hypothesis.flags)
    ended = () if reason == "stop" else (reason,)
    return tuple(dict.fromkeys((*recording.flags, *ended, *searched)))


def accepted_rate(heard: Iterable[Heard]) -> float | None:
    """Return the share of all tokens that a draft had foreseen."""
    found = [part.hypothesis for part in heard]
    tokens = sum(len(hypothesis.token_ids) for hypothesis in found)
    accepted = sum(hypothesis.accepted_tokens for hypothesis in found)
    return round(accepted / tokens, 4) if tokens else None


def timings(load: float, heard: Iterable[Heard]) -> dict[str, float]:
    """Return seconds of work by step; the work on a batch is shared by seconds of audio."""
    spent = {"load": load, "acoustic": 0.0, "language_model": 0.0}
    for part in heard:
        for step, seconds in part.hypothesis.timings.items():
            spent[step] += seconds * part.share
    return {name: round(seconds, 6) for name, seconds in spent.items()}


def status(text: str, reason: str, found: Sequence[str]) -> str:
    """Return the status of a transcript with this text, finish reason and flags."""
    if reason in ("length", "repetition") or "audio_truncated" in found:
        return "truncated"
    return "ok" if text else "empty"
