"""What a recogniser returns: a transcript of segments of words.

Plain immutable values, all times in seconds from the start of the audio. This file knows no audio,
no model and no file; text layouts are in `formats`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmasr import formats

SCHEMA = "llmasr.transcript/1"
STATUSES = ("ok", "empty", "failed", "truncated")


@dataclass(frozen=True)
class Word:
    """One word; `confidence` in [0, 1] is the geometric mean of the probabilities of its tokens."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Alternative:
    """Another text of a segment; `score` is the mean log-probability of its tokens."""

    text: str
    score: float


@dataclass(frozen=True)
class TextToken:
    """A token of the language model, and what else it might have written there.

    Attributes:
        text: what the token adds to the text of its segment.
        log_prob: natural logarithm of its probability.
        entropy: nats, of all that might have followed; 0 if the model was sure.
        alternatives: likeliest tokens and their log-probabilities, best first.
    """

    text: str
    log_prob: float
    entropy: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Segment:
    """A stretch of audio that was recognised in one piece."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    alternatives: tuple[Alternative, ...] = ()  # best first, if they were asked for
    tokens: tuple[TextToken, ...] = ()  # if they were asked for


@dataclass(frozen=True)
class Transcript:
    """The text of one audio input, and how far to trust it.

    Attributes:
        status: "ok"; "empty" (no speech was found); "failed" (see `error`); "truncated" (the text
            or the audio is incomplete).
        finish_reason: "stop"; "length" (a segment reached its token bound); "repetition" (one was
            stopped in a loop); "silence"; None when it failed.
        flags: what a reader should know: "length", "silence", "channels_differ",
            "audio_truncated", "rescaled", "video_damaged", "prompt_changed", and what the search
            saw: "repetition", "insertions", "deletions", "relaxed", "gated" (see
            `llmasr.decoding.hypothesis`).
        timings: seconds of work, by step.
        llm_forwards: calls of the language model, over all segments.
        context: what was looked at besides: "image", "video".
        accepted_rate: share of the tokens that a draft had foreseen; None if there are none.
    """

    text: str
    language: str | None = None
    status: str = "ok"
    finish_reason: str | None = "stop"
    flags: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    error: str | None = None
    llm_forwards: int = 0
    accepted_rate: float | None = None
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}; allowed: {', '.join(STATUSES)}")

    @property
    def words(self) -> tuple[Word, ...]:
        """All words of all segments, in order of time."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """Return the transcript as JSON-serialisable values, with the schema's name and version."""
        return {"schema": SCHEMA, **_without_tuples(asdict(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Transcript":
        """Rebuild what `to_dict` wrote."""
        if values.get("schema") != SCHEMA:
            raise ValueError(f"schema is {values.get('schema')!r}; this version reads {SCHEMA!r}")
        fields = {name: value for name, value in values.items() if name != "schema"}
        fields["flags"] = tuple(fields["flags"])
        fields["context"] = tuple(fields.get("context", ()))
        fields["segments"] = tuple(_segment(segment) for segment in fields["segments"])
        return cls(**fields)

    def to_txt(self) -> str:
        """Return the text and a newline."""
        return formats.txt(self)

    def to_srt(self) -> str:
        """Return SubRip subtitles."""
        return formats.srt(self)

    def to_vtt(self) -> str:
        """Return WebVTT subtitles."""
        return formats.vtt(self)


def _segment(values: Mapping[str, Any]) -> Segment:
    words = tuple(Word(**word) for word in values["words"])
    others = tuple(Alternative(**other) for other in values.get("alternatives", ()))
    tokens = tuple(_token(token) for token in values.get("tokens", ()))
    return Segment(**{**values, "words": words, "alternatives": others, "tokens": tokens})


def _token(values: Mapping[str, Any]) -> TextToken:
    alternatives = tuple((text, log_prob) for text, log_prob in values["alternatives"])
    return TextToken(**{**values, "alternatives": alternatives})


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tuples(item) for item in value]
    return value
