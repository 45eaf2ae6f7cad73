"""Where the errors are: every table of a score that its data allow, confusions, bursts, hotwords.

    tables = breakdown(result, metadata={u.id: u for u in references}, hotwords=["Jarvis"])
    for part in tables.table("length").slices:
        print(part.name, part.rate)

The slices of a table are disjoint and sum exactly to the units, S, D and I of the score. Utterances
that are not in the rate are in no table: those whose reference normalises to nothing, and those
that a partial score leaves out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from llmasr.scoring import slices, unit_classes
from llmasr.scoring.alignment import ScoredUtterance, Step
from llmasr.scoring.errors import Score
from llmasr.scoring.hotwords import PhraseCount, count_phrases, phrase_table
from llmasr.scoring.slices import Pair, Place, Table
from llmasr.scoring.utterances import Utterance

BURST = 5

UNIT_SCRIPT_NOTE = "Script of the unit said, or of the one heard where none was said."
NUMBER_NOTE = (
    "Units written with digits or with words for numbers, whatever they mean: the one of"
    ' "no one" is among them.'
)


@dataclass(frozen=True, slots=True)
class Confusion:
    """One kind of error and how often it was made.

    Attributes:
        reference: what was said; None for an insertion.
        hypothesis: what was heard; None for a deletion.
        count: occurrences, at least one.
    """

    reference: str | None
    hypothesis: str | None
    count: int


@dataclass(frozen=True)
class Confusions:
    """All errors of a score by unit, the most frequent first, then by alphabet."""

    substituted: tuple[Confusion, ...]
    deleted: tuple[Confusion, ...]
    inserted: tuple[Confusion, ...]


@dataclass(frozen=True, slots=True)
class Burst:
    """A run of insertions: often a loop of the decoder, or words written where nobody spoke.

    Attributes:
        id: utterance.
        status: that of the utterance; see `ScoredUtterance`.
        start: place of the first inserted unit in the hypothesis, from 0.
        units: what was inserted.
    """

    id: str
    status: str
    start: int
    units: tuple[str, ...]


@dataclass(frozen=True)
class Breakdown:
    """Every cut of a score that its data allow.

    Attributes:
        tables: those with at least two slices; one slice would only repeat the total. By
            utterance: "group", "length", "duration", "snr", "script", "longest run of insertions".
            By unit: "script of the unit", "numbers", "hotwords", "names".
        confusions: substituted, deleted and inserted units.
        bursts: runs of insertions of at least the asked length, the longest first; those on empty
            references are among them, although they are not in the rate.
        hotwords: recall and false insertions of each hotword, in the order given.
        names: the same for names.
    """

    tables: tuple[Table, ...]
    confusions: Confusions
    bursts: tuple[Burst, ...]
    hotwords: tuple[PhraseCount, ...]
    names: tuple[PhraseCount, ...]

    def table(self, name: str) -> Table | None:
        """Return the table called `name`, or None where the data gave none."""
        return next((table for table in self.tables if table.name == name), None)


def breakdown(
    score: Score,
    *,
    metadata: Mapping[str, Utterance] | None = None,
    hotwords: Sequence[str] = (),
    names: Sequence[str] = (),
    burst: int = BURST,
) -> Breakdown:
    """Cut `score` into slices by every question that can be answered.

    Args:
        score: of one system.
        metadata: what is known of references, by id: group, duration or times, snr.
        hotwords: phrases that the system was told; normalised here as the texts were.
        names: phrases to look at in the same way, e.g. from `capitalised_words`; being guesses,
            those that normalise to nothing (a filler with a capital) are left out.
        burst: insertions in a row that make a burst; at least 2.

    Raises:
        ValueError: `burst` is too small, or a hotword normalises to nothing.
    """
    if burst < 2:
        raise ValueError(f"burst is {burst}; a burst is at least 2 insertions in a row")
    known = metadata or {}
    counted = score.counted
    pairs, longest = _read_alignments(counted)
    told = count_phrases(score, hotwords)
    named = count_phrases(score, [name for name in names if score.units_of(name)])
    tables = [
        slices.by_group(counted, known),
        slices.by_length(counted),
        slices.by_duration(counted, known),
        slices.by_snr(counted, known),
        slices.by_script(counted),
        slices.by_longest_run(counted, longest),
        slices.by_unit("script of the unit", pairs, _script_place, UNIT_SCRIPT_NOTE),
        slices.by_unit("numbers", pairs, _number_place, NUMBER_NOTE),
    ]
    tables += [phrase_table("hotwords", told, score), phrase_table("names", named, score)]
    return Breakdown(
        tables=tuple(table for table in tables if len(table.slices) > 1),
        confusions=_confusions(pairs),
        bursts=_bursts(score.details, burst),
        hotwords=told.counts,
        names=named.counts,
    )


def _read_alignments(
    details: Iterable[ScoredUtterance],
) -> tuple[Counter[Pair], list[int]]:
    """Return how often units were paired, and the longest run of insertions of each utterance."""
    pairs: Counter[Pair] = Counter()
    longest = []
    for utterance in details:
        steps = utterance.steps() if utterance.errors else []
        if steps:
            pairs.update((step.reference, step.hypothesis) for step in steps)
        else:
            pairs.update(zip(utterance.reference, utterance.reference, strict=True))
        longest.append(max((end - start for start, end in _insertion_runs(steps)), default=0))
    return pairs, longest


def _insertion_runs(steps: Sequence[Step]) -> Iterator[tuple[int, int]]:
    """Yield first place and end of each run of insertions, as places in the hypothesis."""
    place = 0
    for kind, run in groupby(steps, key=lambda step: step.kind):
        length = len(list(run))
        if kind == "insert":
            yield place, place + length
        place += 0 if kind == "delete" else length


def _bursts(details: Iterable[ScoredUtterance], shortest: int) -> tuple[Burst, ...]:
    found = [
        Burst(each.id, each.status, start, each.hypothesis[start:end])
        for each in details
        if len(each.hypothesis) >= shortest and each.hypothesis != each.reference
        for start, end in _insertion_runs(each.steps())
        if end - start >= shortest
    ]
    return tuple(sorted(found, key=lambda run: -len(run.units)))


def _confusions(pairs: Mapping[Pair, int]) -> Confusions:
    errors = [
        Confusion(said, heard, count) for (said, heard), count in pairs.items() if said != heard
    ]
    errors.sort(key=lambda each: (-each.count, each.reference or "", each.hypothesis or ""))
    return Confusions(
        substituted=tuple(each for each in errors if None not in (each.reference, each.hypothesis)),
        deleted=tuple(each for each in errors if each.hypothesis is None),
        inserted=tuple(each for each in errors if each.reference is None),
    )


def _script_place(unit: str) -> Place:
    return 0, unit_classes.script_of(unit)


def _number_place(unit: str) -> Place:
    form = unit_classes.number_form(unit)
    return unit_classes.NUMBER_FORMS.index(form), form
