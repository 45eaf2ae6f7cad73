"""What a scorer knows of one utterance: its text, who spoke it, when, and the times of its words.

Plain immutable values that refuse what cannot be: an empty id, a text that is no string, times
that are not finite, negative or reversed. This file knows no file format.
"""

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TimedWord:
    """One word and its times.

    Attributes:
        text: as the file writes it.
        start: seconds from the start of the recording.
        end: seconds, not before `start`.
        confidence: as the file gives it; what needs a probability checks that itself, since older
            recognisers write log-likelihoods here.

    Raises:
        ValueError: a field is not what it should be.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        check_text("text", self.text)
        check_span(self.start, self.end)
        if self.confidence is not None:
            check_number("confidence", self.confidence)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One reference or one hypothesis.

    Attributes:
        id: what pairs a hypothesis with its reference; not empty, spaces are allowed.
        text: what was said, or recognised.
        group: speaker or session, for intervals that draw whole groups.
        start: seconds in the recording.
        end: seconds in the recording.
        channel: name of the channel of the recording.
        audio: path of the audio, for reports.
        duration: seconds of audio.
        snr: signal-to-noise ratio in dB, if the file says it.
        words: the words with times, in order of time; empty where the file has none.
        recording: name of the recording that a segment is cut from.
        is_ignored: the reference declares this stretch of the recording out of bounds, so it and
            the words heard in it belong to no score; the text is empty.

    Raises:
        ValueError: a field is not what it should be.
    """

    id: str
    text: str
    group: str | None = None
    start: float | None = None
    end: float | None = None
    channel: str | None = None
    audio: str | None = None
    duration: float | None = None
    snr: float | None = None
    words: tuple[TimedWord, ...] = ()
    recording: str | None = None
    is_ignored: bool = False

    def __post_init__(self) -> None:
        check_text("id", self.id)
        check_text("text", self.text)
        if not self.id.strip():
            raise ValueError(f"id is {self.id!r}; it may not be empty")
        for name in ("group", "channel", "audio", "recording"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if self.start is not None or self.end is not None:
            start = self.start if self.start is not None else 0.0
            check_span(start, self.end if self.end is not None else start)
        if self.duration is not None:
            check_number("duration", self.duration, lowest=0)
        if self.snr is not None:
            check_number("snr", self.snr)


def check_text(name: str, value: Any) -> None:
    """Refuse what is no string, or a string that could not be written to a file again."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; expected a string")
    if not value.isascii():
        value.encode()  # a lone surrogate, which JSON can hold, is a UnicodeEncodeError


def check_number(name: str, value: Any, lowest: float = -sys.float_info.max) -> None:
    """Refuse what is no finite number of at least `lowest`; a bool is no number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= sys.float_info.max:
        bound = "" if lowest < 0 else f" of {lowest} or more"
        raise ValueError(f"{name} is {value!r}; expected a finite number{bound}")


def check_span(start: Any, end: Any) -> None:
    """Refuse times in seconds that are not finite, negative or reversed."""
    check_number("start", start, lowest=0)
    check_number("end", end, lowest=0)
    if end < start:
        raise ValueError(f"end is {end}, before start {start}; times may not run backwards")
