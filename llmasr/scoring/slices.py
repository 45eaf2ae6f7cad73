"""Tables of a score: slices that are disjoint and sum to it.

Two kinds. In a table of *utterances* (by speaker, length, duration, noise, script) an utterance is
in one slice with all its errors. In a table of *units* a unit is in one slice: a substituted or
deleted one by what was said, an inserted one by what was heard.

Hypotheses without reference (unknown and repeated ids) are a slice of their own.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmasr.scoring.alignment import ScoredUtterance
from llmasr.scoring.intervals import ratio_interval, sums_by_block
from llmasr.scoring.unit_classes import script_of
from llmasr.scoring.utterances import Utterance

# Fixed, so that the tables of two systems and of two sets can be laid side by side.
LENGTH_EDGES = (1, 3, 6, 11, 21, 41)  # reference units
DURATION_EDGES = (1, 2, 5, 10, 20, 30)  # seconds
SNR_EDGES = (0, 5, 10, 15, 20, 30)  # dB
RUN_EDGES = (1, 2, 5, 10)  # insertions in a row

# A tenth of those of the score: there are many slices, and they are read at a glance.
REPLICATIONS = 1000

NO_REFERENCE = "(no reference)"
UNKNOWN = "(unknown)"

Place = tuple[float, str]  # where a slice stands in its table, and its name
Pair = tuple[str | None, str | None]  # what was said and what was heard; None for nothing
Details = Sequence[ScoredUtterance]
Metadata = Mapping[str, Utterance]


@dataclass(frozen=True, slots=True)
class Slice:
    """Errors of a part of a score.

    Attributes:
        name: what the part has in common.
        utterances: references in it; None in a table of units, whose slices share utterances.
        units: reference units in it.
        substitutions: units taken for another.
        deletions: units that are not in the hypothesis.
        insertions: units that are only in the hypothesis.
        interval: 95 % confidence interval of `rate`, drawn as that of the score; None in a table of
            units and where there are fewer than two utterances (or groups) to draw.
    """

    name: str
    utterances: int | None
    units: int
    substitutions: int
    deletions: int
    insertions: int
    interval: tuple[float, float] | None = None

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit, as a fraction; nan for a part without reference units."""
        return self.errors / self.units if self.units else math.nan


@dataclass(frozen=True)
class Table:
    """A score cut by one question.

    Attributes:
        name: the question, e.g. "length"; `llmasr.scoring.breakdown.breakdown` lists them.
        slices: disjoint parts, in the order of the question (bins upwards, names by alphabet).
        note: how one slice is told from another, in a sentence.
    """

    name: str
    slices: tuple[Slice, ...]
    note: str

    @property
    def total(self) -> Slice:
        """The sum of all slices: the units and errors of the score."""
        utterances = [part.utterances for part in self.slices if part.utterances is not None]
        return Slice(
            name="total",
            utterances=sum(utterances) if len(utterances) == len(self.slices) else None,
            units=sum(part.units for part in self.slices),
            substitutions=sum(part.substitutions for part in self.slices),
            deletions=sum(part.deletions for part in self.slices),
            insertions=sum(part.insertions for part in self.slices),
        )


def by_group(details: Details, metadata: Metadata) -> Table:
    """Cut by speaker or session: that of the score, else that of the metadata."""

    def place(utterance: ScoredUtterance) -> Place:
        known = metadata.get(utterance.id)
        group = utterance.group or (known.group if known else None)
        return (0, group) if group else (1, UNKNOWN)

    note = "Speaker or session of the utterance. The intervals draw utterances."
    alone = [replace(each, group=None) for each in details]
    return _by_utterance("group", alone, map(place, details), note)


def by_length(details: Details) -> Table:
    """Cut by the number of reference units."""
    places = (_count_bin(len(each.reference), LENGTH_EDGES) for each in details)
    return _by_utterance("length", details, places, "Units of the normalised reference.")


def by_duration(details: Details, metadata: Metadata) -> Table:
    """Cut by seconds: the duration of the metadata, else its end minus its start."""

    def place(utterance: ScoredUtterance) -> Place:
        seconds = duration_of(metadata.get(utterance.id))
        return (math.inf, UNKNOWN) if seconds is None else _bin(seconds, DURATION_EDGES, "s")

    return _by_utterance(
        "duration", details, map(place, details), "Duration of the audio of the utterance."
    )


def by_snr(details: Details, metadata: Metadata) -> Table:
    """Cut by the signal-to-noise ratio of the metadata, in dB."""

    def place(utterance: ScoredUtterance) -> Place:
        known = metadata.get(utterance.id)
        snr = known.snr if known else None
        return (math.inf, UNKNOWN) if snr is None else _bin(snr, SNR_EDGES, "dB")

    return _by_utterance(
        "snr", details, map(place, details), "Signal-to-noise ratio, as the metadata say it."
    )


def by_script(details: Details) -> Table:
    """Cut by the script of the reference: Han, Latin, both, or neither."""
    places = ((0, script_of("".join(each.reference))) for each in details)
    note = "Scripts in the normalised reference; digits and other signs decide nothing."
    return _by_utterance("script", details, places, note)


def by_longest_run(details: Details, longest: Sequence[int]) -> Table:
    """Cut by the most insertions in a row, given for each utterance."""
    places = (_count_bin(length, RUN_EDGES) for length in longest)
    note = "The most insertions in a row within the utterance: long runs are loops or inventions."
    return _by_utterance("longest run of insertions", details, places, note)


def by_unit(
    name: str, pairs: Mapping[Pair, int], place_of: Callable[[str], Place], note: str
) -> Table:
    """Cut by a property of the unit: of the one said, or of the one heard where none was said.

    Args:
        name: the question.
        pairs: how often a unit was said and another, the same, or none was heard.
        place_of: the slice of a unit.
        note: how slices are told apart.
    """
    counts: dict[Place, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (said, heard), count in pairs.items():
        row = counts[place_of(said if said is not None else heard or "")]
        row[0] += count if said is not None else 0
        row[1] += count if None not in (said, heard) and said != heard else 0
        row[2] += count if heard is None else 0
        row[3] += count if said is None else 0
    slices = tuple(
        Slice(place[1], None, units, substitutions, deletions, insertions)
        for place, (units, substitutions, deletions, insertions) in sorted(counts.items())
    )
    return Table(name, slices, note)


def duration_of(utterance: Utterance | None) -> float | None:
    """Return the seconds that `utterance` lasts, or None if that is not known."""
    if utterance is None:
        return None
    if utterance.duration is not None:
        return utterance.duration
    if utterance.start is None or utterance.end is None:
        return None
    return utterance.end - utterance.start


def _by_utterance(name: str, details: Details, places: Iterable[Place], note: str) -> Table:
    """Cut by the place of each utterance; those without reference come last, by themselves."""
    parts: dict[Place, list[ScoredUtterance]] = defaultdict(list)
    for utterance, place in zip(details, places, strict=True):
        parts[(math.inf, NO_REFERENCE) if _is_foreign(utterance) else place].append(utterance)
    slices = tuple(_slice(place[1], parts[place]) for place in sorted(parts))
    return Table(name, slices, note)


def _slice(name: str, utterances: Sequence[ScoredUtterance]) -> Slice:
    rows = np.array([(each.errors, len(each.reference)) for each in utterances], dtype=np.int64)
    blocks = [(each.group, None if each.group else each.id) for each in utterances]
    sums = sums_by_block(rows, blocks)  # [blocks, 2]
    return Slice(
        name=name,
        utterances=sum(not _is_foreign(each) for each in utterances),
        units=int(rows[:, 1].sum()),
        substitutions=sum(each.substitutions for each in utterances),
        deletions=sum(each.deletions for each in utterances),
        insertions=sum(each.insertions for each in utterances),
        interval=ratio_interval(sums[:, 0], sums[:, 1], replications=REPLICATIONS),
    )


def _is_foreign(utterance: ScoredUtterance) -> bool:
    return utterance.status in ("extra", "duplicate")


def _bin(value: float, edges: Sequence[int], unit: str) -> Place:
    """Place a measured `value` between `edges`, the lower of which belongs to the bin."""
    index = bisect_right(edges, value)
    if index == 0:
        return index, f"< {edges[0]} {unit}"
    if index == len(edges):
        return index, f"{edges[-1]}+ {unit}"
    return index, f"{edges[index - 1]}-{edges[index]} {unit}"


def _count_bin(count: int, edges: Sequence[int]) -> Place:
    """Place a whole number between `edges`; a bin is named by its first and last number."""
    index = bisect_right(edges, count)
    if index == len(edges):
        return index, f"{edges[-1]}+"
    first, last = edges[index - 1] if index else 0, edges[index] - 1
    return index, str(first) if first == last else f"{first}-{last}"
