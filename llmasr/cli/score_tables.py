"""The breakdown of a score as tables of plain text."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmasr.scoring.breakdown import Breakdown, Confusion
    from llmasr.scoring.hotwords import PhraseCount
    from llmasr.scoring.slices import Slice, Table

# Lines of a list; the HTML report has more, and Python all.
SHOWN = 20
SHOWN_UNITS = 10


def format_tables(breakdown: "Breakdown", metric: str) -> str:
    """Return every table of a breakdown, one after the other."""
    blocks = [_table(table, metric) for table in breakdown.tables]
    confusions = breakdown.confusions
    for name, found in (
        ("substituted", confusions.substituted),
        ("deleted", confusions.deleted),
        ("inserted", confusions.inserted),
    ):
        if found:
            rows = [_confusion(each) for each in found[:SHOWN]]
            blocks.append(_aligned([f"most {name}", "count"], rows, len(found)))
    for name, phrases in (("hotwords", breakdown.hotwords), ("names", breakdown.names)):
        blocks += _phrases(name, phrases)
    if breakdown.bursts:
        rows = [
            [f"{each.id}: {' '.join(each.units[:SHOWN_UNITS])}", str(len(each.units))]
            for each in breakdown.bursts[:SHOWN]
        ]
        blocks.append(_aligned(["runs of insertions", "units"], rows, len(breakdown.bursts)))
    return "".join(f"\n{block}" for block in blocks)


def _table(table: "Table", metric: str) -> str:
    heads = [f"by {table.name}", "utt", "units", "S", "D", "I", metric.upper(), "95 % CI"]
    rows = [_slice(part) for part in (*table.slices[:SHOWN], table.total)]
    return _aligned(heads, rows, len(table.slices) + 1, note=table.note)


def _slice(part: "Slice") -> list[str]:
    utterances = "" if part.utterances is None else f"{part.utterances:,}"
    counts = (part.units, part.substitutions, part.deletions, part.insertions)
    interval = "-".join(f"{100 * end:.2f}" for end in part.interval) if part.interval else ""
    numbers = [f"{count:,}" for count in counts]
    return [part.name, utterances, *numbers, _per_cent(part.rate), interval]


def _confusion(confusion: "Confusion") -> list[str]:
    sides = (confusion.reference, confusion.hypothesis)
    return [" -> ".join(side for side in sides if side is not None), f"{confusion.count:,}"]


def _phrases(name: str, phrases: Sequence["PhraseCount"]) -> Iterable[str]:
    said = [each for each in phrases if each.said or each.heard]
    if said:
        said.sort(key=lambda each: (each.recall == 1, -each.said))
        rows = [
            [each.phrase, str(each.said), _per_cent(each.recall), str(each.false_insertions)]
            for each in said[:SHOWN]
        ]
        yield _aligned([name, "said", "recall", "false insertions"], rows, len(said))


def _per_cent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f} %"


def _aligned(heads: list[str], rows: list[list[str]], total: int, note: str = "") -> str:
    """Return lines: the first column to the left, numbers to the right."""
    rows = [heads, *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *numbers in rows:
        cells = [first + " " * (widths[0] - _columns(first))]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if total > len(rows) - 1:
        lines.append(f"... and {total - len(rows) + 1:,} more")
    return "\n".join([*lines, *([f"({note})"] if note else [])]) + "\n"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _columns(text: str) -> int:
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)
