"""Word times from Praat's TextGrid files, long and short.

What counts in such a file are free-standing numbers, texts in quotes (`""` stands for a quote) and
flags such as `<exists>`; labels like `xmin =` and comments after `!` do not (Praat manual,
"TextGrid file formats"). So one sequence of values is read from both layouts.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmasr.scoring.lines import read_text, stem, suffix
from llmasr.scoring.utterances import TimedWord, Utterance, check_number, check_span

TIER = "words"
SILENCE = {"", "<eps>", "sil", "sp"}

VALUE = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"'
    r"|(?<!\S)(?P<flag><[^>\s]*>)"
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)"
    r"|(?<!\S)![^\n]*"
)


def read_textgrid(path: Path, *, tier: str = TIER) -> list[Utterance]:
    """Read the words of one interval tier; the id is the stem of the file's name.

    Empty intervals and marks of silence (`<eps>`, `sil`, `sp`) are no words.

    Args:
        path: a TextGrid in a text format, or a folder of files `*.TextGrid`.
        tier: name of the tier, in any case; a name such as `anna - words` fits too, if it is the
            only one.

    Raises:
        ValueError: the file is no TextGrid, a time is wrong, or no single tier fits.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if suffix(file) == ".textgrid")
        return [utterance for file in files for utterance in read_textgrid(file, tier=tier)]
    values = _Values(read_text(path))
    try:
        duration, tiers = _tiers(values)
    except ValueError as error:
        raise ValueError(f"{path}, line {values.line}: {error}") from error
    fitting = [found for found in tiers if found.name.lower() == tier.lower()] or [
        found for found in tiers if found.name.lower().endswith(f" - {tier.lower()}")
    ]
    if len(fitting) != 1:
        names = ", ".join(repr(found.name) for found in tiers) or "none"
        raise ValueError(
            f"{path}: {len(fitting)} interval tiers are called {tier!r}, expected one;"
            f" the interval tiers are {names}"
        )
    words = fitting[0].words
    text = " ".join(word.text for word in words)
    return [Utterance(stem(path), text, duration=duration, words=words)]


class _Tier(NamedTuple):
    """An interval tier, without its silences."""

    name: str
    words: tuple[TimedWord, ...]


class _Values:
    """The values of a file, one after the other, and the line of the last one."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.position = 0
        self.matches: Iterator[re.Match[str]] = VALUE.finditer(content)

    @property
    def line(self) -> int:
        """Number of the line that was read last, from 1."""
        return self.content.count("\n", 0, self.position) + 1

    def read(self, kind: str, meaning: str) -> str:
        """Return the next value, which must be of this kind: "text", "number" or "flag"."""
        match = next((match for match in self.matches if match.lastgroup), None)
        self.position = match.start() if match else len(self.content)
        if match is None or match.lastgroup != kind:
            found = match.group() if match else "the end of the file"
            raise ValueError(f"{meaning} is {found}; expected a {kind}")
        return match[kind]

    def text(self, meaning: str) -> str:
        """Return the next value, a text."""
        return self.read("text", meaning).replace('""', '"')

    def number(self, meaning: str) -> float:
        """Return the next value, a finite number."""
        value = float(self.read("number", meaning))
        check_number(meaning, value)
        return value

    def span(self) -> tuple[float, float]:
        """Return the next two values, times in seconds."""
        start, end = self.number("xmin"), self.number("xmax")
        check_span(start, end)
        return start, end


def _tiers(values: _Values) -> tuple[float, list[_Tier]]:
    """Read a whole file: its duration in seconds and its interval tiers."""
    header = values.text("file type"), values.text("object class")
    if not header[0].lower().startswith("ootextfile") or header[1] != "TextGrid":
        raise ValueError(f"file type and object class are {header}; expected a text TextGrid")
    _, end = values.span()
    if values.read("flag", "tiers?") != "<exists>":
        return end, []
    tiers = []
    for _ in range(int(values.number("number of tiers"))):
        kind, name = values.text("class of a tier"), values.text("name of a tier")
        values.span()
        size = int(values.number("size of a tier"))
        if kind == "IntervalTier":
            tiers.append(_Tier(name, tuple(_words(values, size))))
        else:
            _skip_points(values, size)
    return end, tiers


def _words(values: _Values, size: int) -> Iterator[TimedWord]:
    for _ in range(size):
        start, end = values.span()
        text = values.text("text of an interval").strip()
        if text.lower() not in SILENCE:
            yield TimedWord(text, start, end)


def _skip_points(values: _Values, size: int) -> None:
    for _ in range(size):
        values.number("time of a point")
        values.text("mark of a point")
