"""Text files made from a transcript: txt, json, srt, vtt.

A writer takes a transcript and returns the whole content of a file. Subtitles are laid out as cues
that a person can read: at most two lines of 42 characters and 7 seconds, broken at pauses and
sentence ends, in order and without overlap. Times are whole milliseconds here, because the file
formats have no finer ones.

A transcript is described by what is read from it, since `transcript` itself imports this file.
"""

import html
import json as jsonlib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

LINE_CHARACTERS = 42
LINES = 2
MAX_CUE_MS = 7000
READABLE_CUE_MS = 1000  # a shorter cue stays on screen longer when nothing follows
PAUSE_MS = 800  # a silence that ends a cue
SENTENCE_END = re.compile(r"[.!?。！？…]['\")\]’”]*$")


class TimedText(Protocol):
    """A word: text and seconds."""

    @property
    def text(self) -> str:
        """What was said."""

    @property
    def start(self) -> float:
        """Seconds."""

    @property
    def end(self) -> float:
        """Seconds."""


class TimedWords(TimedText, Protocol):
    """A segment: text, seconds and words."""

    @property
    def words(self) -> Sequence[TimedText]:
        """In order of time."""


class Document(Protocol):
    """A transcript."""

    @property
    def text(self) -> str:
        """All that was said."""

    @property
    def duration(self) -> float:
        """Seconds of audio."""

    @property
    def segments(self) -> Sequence[TimedWords]:
        """In order of time."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""


class Cue(NamedTuple):
    """One subtitle: milliseconds and one or two lines."""

    start: int
    end: int
    lines: tuple[str, ...]


def txt(transcript: Document) -> str:
    """Return the plain text."""
    return transcript.text + "\n"


def json(transcript: Document) -> str:
    """Return everything that is known, as indented JSON."""
    return jsonlib.dumps(transcript.to_dict(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def srt(transcript: Document) -> str:
    """Return SubRip subtitles."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines)
        for number, cue in enumerate(cues(transcript), start=1)
    ]
    return "".join(block + "\n\n" for block in blocks)


def vtt(transcript: Document) -> str:
    """Return WebVTT subtitles; `&`, `<` and `>` are escaped."""
    blocks = ["WEBVTT"]
    for cue in cues(transcript):
        text = html.escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}")
    return "\n\n".join(blocks) + "\n"


FORMATS: dict[str, Callable[[Document], str]] = {"txt": txt, "json": json, "srt": srt, "vtt": vtt}


def cues(transcript: Document) -> list[Cue]:
    """Lay the words of a transcript out as subtitles."""
    groups = list(_groups(piece for segment in transcript.segments for piece in _pieces(segment)))
    starts = [group[0].start for group in groups] + [round(transcript.duration * 1000)]
    laid_out: list[Cue] = []
    free_from = 0
    for group, next_start in zip(groups, starts[1:], strict=True):
        start = max(group[0].start, free_from)
        readable = min(start + READABLE_CUE_MS, next_start)
        end = max(min(max(group[-1].end, readable), start + MAX_CUE_MS), start + 1)
        laid_out.append(Cue(start, end, tuple(_lines(group))))
        free_from = end
    return laid_out


class _Piece(NamedTuple):
    """A word, or a part of a very long one, in milliseconds."""

    start: int
    end: int
    text: str


def _pieces(segment: TimedWords) -> Iterator[_Piece]:
    """Yield words, none longer than a line; a segment without words is cut at its spaces."""
    for word in segment.words or [segment]:
        parts = [part for text in word.text.split() for part in _cut(text)]
        start, end = word.start * 1000, word.end * 1000
        milliseconds_per_character = (end - start) / max(sum(map(len, parts)), 1)
        for part in parts:
            stop = start + milliseconds_per_character * len(part)
            yield _Piece(round(start), round(stop), part)
            start = stop


def _cut(text: str) -> list[str]:
    return [text[at : at + LINE_CHARACTERS] for at in range(0, len(text), LINE_CHARACTERS)]


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Collect pieces into cues."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and _ends_before(group, piece):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _ends_before(group: list[_Piece], piece: _Piece) -> bool:
    return (
        piece.start - group[-1].end > PAUSE_MS
        or piece.end - group[0].start > MAX_CUE_MS
        or SENTENCE_END.search(group[-1].text) is not None
        or len(_lines([*group, piece])) > LINES
    )


def _lines(group: Sequence[_Piece]) -> list[str]:
    # A part of a cut word fills its line, so that the space put after it becomes the line break.
    text = " ".join(piece.text for piece in group)
    return textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)


def _clock(milliseconds: int, mark: str) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{thousandths:03d}"
