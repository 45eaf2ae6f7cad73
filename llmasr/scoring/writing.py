r"""Write what was compared: alignments for people, and trn and ctm files for NIST's sclite.

sclite reads some signs as commands: `{ a / b }` are alternates, `@` is the null word, `;` starts a
comment, `\` quotes, a last `*` is an attribute, and an id ends at the next bracket (SCTK, "Input
file formats"; tried with version 2.4.10). Such signs are written as `%` and two hexadecimal digits
of each UTF-8 byte, as in a URL; so are white space inside an id or a word and a `%` that would look
like such a code. Different texts stay different, so sclite counts the same units.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llmasr.scoring.alignment import ScoredUtterance, Step
from llmasr.scoring.utterances import Utterance

WORD_SIGNS = re.compile(r"[*;\\{}\s]|%(?=[0-9A-Fa-f]{2})")
ID_SIGNS = re.compile(r"[*;\\{}()\s]|%(?=[0-9A-Fa-f]{2})")
MARKS = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
# Yellow, red and cyan on a terminal.
COLOURS = {"substitute": "\x1b[33m", "delete": "\x1b[31m", "insert": "\x1b[36m"}
COLOUR_END = "\x1b[0m"
ROWS = ("REF: ", "HYP: ", "Eval:")
DEFAULT_CHANNEL = "1"


def format_alignment(utterance: ScoredUtterance, *, width: int = 100, colour: bool = False) -> str:
    """Return the alignment as lines REF, HYP and Eval under a line with id and counts.

    Args:
        utterance: from `Score.details`.
        width: columns of a line; Han characters take two. A longer unit has a line of its own.
        colour: mark errors with the colour codes of terminals.
    """
    counts = f"{utterance.substitutions}/{utterance.deletions}/{utterance.insertions}"
    status = utterance.status.replace("_", " ")
    head = f"{_printable(utterance.id)}: {status}, {len(utterance.reference)} units, S/D/I {counts}"
    blocks = [_block(steps, colour) for steps in _wrapped(utterance.steps(), width)]
    return "\n".join([head, *("\n".join(block) for block in blocks)])


def write_trn(path: str | Path, utterances: Iterable[ScoredUtterance], side: str) -> None:
    """Write one side of a score as sclite's trn, one line `unit unit ... (id)` an utterance.

    sclite takes what stands before the first `-` or `_` of an id for the speaker. An id without
    such a sign gets the group before it, or "speaker".

    Args:
        path: of the file; replaced if it exists.
        utterances: references, that is none of status "duplicate" or "extra", which sclite refuses.
        side: "reference" or "hypothesis".
    """
    if side not in ("reference", "hypothesis"):
        raise ValueError(f"side is {side!r}; allowed: reference, hypothesis")
    lines = []
    for each in utterances:
        if each.status in ("duplicate", "extra"):
            raise ValueError(f"utterance {each.id!r} is {each.status}: trn has no place for it")
        units: Sequence[str] = getattr(each, side)
        lines.append(" ".join([*map(_escaped_word, units), f"({_trn_id(each)})"]))
    _write(path, lines)


def write_ctm(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write word times as ctm: `recording channel start duration word [confidence]`, sorted.

    Args:
        path: of the file; replaced if it exists.
        utterances: with a time for every word. The recording is named after the utterance where
            that is all there is; a channel that is not known is 1.
    """
    rows = []
    for each in utterances:
        if each.text.strip() and not each.words:
            raise ValueError(f"utterance {each.id!r} has no word times; ctm needs them")
        recording = _escaped(each.recording or each.id, ID_SIGNS)
        channel = _escaped(each.channel or DEFAULT_CHANNEL, ID_SIGNS)
        for word in each.words:
            fields = [f"{word.start:.3f}", f"{word.end - word.start:.3f}", _escaped_word(word.text)]
            if word.confidence is not None:
                fields.append(f"{word.confidence:.4f}")
            rows.append((recording, channel, word.start, " ".join(fields)))
    rows.sort(key=lambda row: row[:3])
    _write(path, [f"{recording} {channel} {rest}" for recording, channel, _, rest in rows])


def _wrapped(steps: Sequence[Step], width: int) -> Iterator[list[Step]]:
    """Cut an alignment into lines of at most `width` columns."""
    line: list[Step] = []
    used = len(ROWS[0])
    for step in steps:
        columns = 1 + _cell_width(step)
        if line and used + columns > width:
            yield line
            line, used = [], len(ROWS[0])
        line.append(step)
        used += columns
    if line:
        yield line


def _block(steps: Sequence[Step], colour: bool) -> list[str]:
    cells = [[name] for name in ROWS]
    for step in steps:
        width = _cell_width(step)
        gap = "*" * width
        texts = (_shown(step.reference, gap), _shown(step.hypothesis, gap), MARKS[step.kind])
        for row, text in zip(cells, texts, strict=True):
            padded = text + " " * (width - _columns(text))
            is_marked = colour and step.kind in COLOURS
            row.append(COLOURS[step.kind] + padded + COLOUR_END if is_marked else padded)
    return [" ".join(row).rstrip() for row in cells]


def _cell_width(step: Step) -> int:
    return max(1, *(_columns(_shown(unit, "")) for unit in (step.reference, step.hypothesis)))


def _shown(unit: str | None, gap: str) -> str:
    return gap if unit is None else _printable(unit)


def _columns(text: str) -> int:
    """Count the columns that a terminal uses: two for wide characters, none for marks."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _printable(text: str) -> str:
    # What a recogniser wrote could otherwise steer the terminal.
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _trn_id(utterance: ScoredUtterance) -> str:
    identifier = utterance.id
    if not re.search("[-_]", identifier):
        identifier = f"{utterance.group or 'speaker'}-{identifier}"
    return _escaped(identifier, ID_SIGNS)


def _escaped_word(word: str) -> str:
    return "%40" if word == "@" else _escaped(word, WORD_SIGNS)


def _escaped(text: str, signs: re.Pattern[str]) -> str:
    def code(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match.group().encode())

    return signs.sub(code, text)


def _write(path: str | Path, lines: Iterable[str]) -> None:
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
