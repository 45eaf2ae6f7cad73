"""Count the errors of a whole test set, strictly by utterance id.

The rate is `(S + D + I) / units of all references`, never a mean of rates. What keeps it honest:

- Every reference counts. A missing or empty hypothesis is all deletions, and is listed. Only
  `allow_partial` leaves missing ones out, and then the rate says PARTIAL.
- What stands under an id that no reference has, or that had a hypothesis before, is all
  insertions, and is listed.
- A reference that normalises to nothing has no rate. Units heard there are counted apart.

Lines of the references that their file declares out of bounds are no part of the score.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from llmasr.scoring.alignment import ScoredUtterance, Status, count_errors
from llmasr.scoring.intervals import CONFIDENCE, ratio_interval, sums_by_block
from llmasr.scoring.normalise import Normalizer, find_normalizer
from llmasr.scoring.units import UNIT_NAMES, split_units
from llmasr.scoring.utterances import Utterance

Texts = Mapping[str, str] | Sequence[Utterance]
Units = tuple[str, ...]
# What is drawn as one: a speaker or session, or an utterance whose speaker is not known.
Block = tuple[str, str]


class Item(NamedTuple):
    """One reference that counts, as the bootstrap draws it."""

    errors: int
    units: int
    block: Block


@dataclass(frozen=True)
class Score:
    """Errors of a set of hypotheses against a set of references.

    Attributes:
        metric: "wer", "cer" or "mer".
        normalizer: `id@hash` of the normaliser that both sides went through.
        normalizer_name: the name it was asked for by.
        allow_partial: whether references without hypothesis are left out of the rate.
        details: every reference in order of id, then duplicates, then extras.
    """

    metric: str
    normalizer: str
    normalizer_name: str
    allow_partial: bool
    details: tuple[ScoredUtterance, ...] = field(repr=False)

    @cached_property
    def counted(self) -> tuple[ScoredUtterance, ...]:
        """The lines that make the rate: not empty references, nor what `allow_partial` excuses."""
        left_out = {"empty_reference", "missing"} if self.allow_partial else {"empty_reference"}
        return tuple(each for each in self.details if each.status not in left_out)

    @property
    def references(self) -> int:
        """Number of references, those without hypothesis and empty ones among them."""
        return len(self.details) - len(self.duplicates) - len(self.extra)

    @property
    def utterances(self) -> int:
        """Number of references, less those that `allow_partial` left out."""
        return self.references - (len(self.missing) if self.allow_partial else 0)

    @cached_property
    def units(self) -> int:
        """Units of all references that count."""
        return sum(len(each.reference) for each in self.counted)

    @cached_property
    def substitutions(self) -> int:
        """Units taken for another."""
        return sum(each.substitutions for each in self.counted)

    @cached_property
    def deletions(self) -> int:
        """Units that are not in the hypothesis."""
        return sum(each.deletions for each in self.counted)

    @cached_property
    def insertions(self) -> int:
        """Units that are only in a hypothesis, those of duplicates and extras among them."""
        return sum(each.insertions for each in self.counted)

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit, as a fraction; nan if the references hold no unit."""
        return self.errors / self.units if self.units else float("nan")

    @cached_property
    def insertions_on_empty(self) -> int:
        """Units heard where the reference is empty; not among `insertions`."""
        return sum(each.insertions for each in self.details if each.status == "empty_reference")

    @cached_property
    def sentence_errors(self) -> int:
        """References that count, empty ones too, whose hypothesis is not perfect."""
        excused = {"duplicate", "extra"} | ({"missing"} if self.allow_partial else set())
        return sum(each.errors > 0 for each in self.details if each.status not in excused)

    @property
    def sentence_error_rate(self) -> float:
        """Fraction of references whose hypothesis is not perfect; nan if none counts."""
        return self.sentence_errors / self.utterances if self.utterances else float("nan")

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Ids of references without hypothesis, sorted; empty references among them."""
        return self._ids("missing")

    @cached_property
    def empty_hypotheses(self) -> tuple[str, ...]:
        """Ids of hypotheses that normalise to nothing although the reference does not, sorted."""
        return self._ids("empty_hypothesis")

    @cached_property
    def empty_references(self) -> tuple[str, ...]:
        """Ids of references that normalise to nothing, whatever their hypothesis, sorted."""
        statuses = ("empty_reference", "missing")
        return tuple(e.id for e in self.details if e.status in statuses and not e.reference)

    @cached_property
    def duplicates(self) -> tuple[str, ...]:
        """Ids that have a hypothesis already, once for every further hypothesis, sorted."""
        return self._ids("duplicate")

    @cached_property
    def extra(self) -> tuple[str, ...]:
        """Ids of hypotheses without reference, sorted."""
        return self._ids("extra")

    @property
    def complete(self) -> bool:
        """Whether every id has one reference and one hypothesis, but for what is allowed."""
        missing = self.missing and not self.allow_partial
        return not missing and not self.duplicates and not self.extra

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of `rate`; None below two utterances (or groups).

        A percentile bootstrap over groups where they are known, else over utterances.
        """
        if not self.items:
            return None
        rows = np.array([(each.errors, each.units) for each in self.items.values()], dtype=np.int64)
        sums = sums_by_block(rows, [each.block for each in self.items.values()])
        return ratio_interval(sums[:, 0], sums[:, 1], constant=self.stray_errors)

    @cached_property
    def items(self) -> dict[str, Item]:
        """What can be drawn: the references that count, by id, with the duplicates of each."""
        items = {
            each.id: Item(each.errors, len(each.reference), _block(each))
            for each in self.counted
            if each.reference
        }
        for each in self.counted:
            if each.status == "duplicate" and each.id in items:
                first = items[each.id]
                items[each.id] = Item(first.errors + each.errors, first.units, first.block)
        return items

    @property
    def stray_errors(self) -> int:
        """Insertions that belong to no reference that counts; the same in every draw."""
        return self.errors - sum(each.errors for each in self.items.values())

    @cached_property
    def groups(self) -> int | None:
        """Number of groups that the interval draws; None where it draws utterances."""
        blocks = {each.block for each in self.items.values()}
        return len(blocks) if any(kind == "group" for kind, _ in blocks) else None

    def units_of(self, text: str) -> Units:
        """Return the units of any text, normalised and split as the texts of the score were."""
        rule = find_normalizer(self.normalizer_name)
        return tuple(split_units(rule.apply(text), self.metric))

    def __str__(self) -> str:
        """Return one line that says the rate, its uncertainty, and how it was made."""
        return self.line()

    def line(self, paired: str | None = None) -> str:
        """Return one line that says the rate, its uncertainty, and how it was made.

        Args:
            paired: of a comparison with another system, to stand beside the interval.
        """
        rate = f"{100 * self.rate:.2f} %" if self.units else "undefined"
        if self.allow_partial and self.missing:
            rate += f" PARTIAL {self.utterances}/{self.references}"
        uncertainty = ", ".join(filter(None, [self._interval_text(), paired]))
        ser = f"{100 * self.sentence_error_rate:.2f} %" if self.utterances else "undefined"
        line = (
            f"{self.metric.upper()} {rate} [{uncertainty}] norm={self.normalizer}"
            f" n={self.utterances} utt / {self.units:,} ref {UNIT_NAMES[self.metric]},"
            f" S/D/I {self.substitutions:,}/{self.deletions:,}/{self.insertions:,},"
            f" SER {ser},"
            f" missing {len(self.missing)}, empty {len(self.empty_hypotheses)},"
            f" duplicate {len(self.duplicates)}, extra {len(self.extra)}"
        )
        if self.empty_references:
            line += f", empty references {len(self.empty_references)}"
            line += f" with {self.insertions_on_empty} {UNIT_NAMES[self.metric]} heard there"
        return line

    def to_dict(self) -> dict[str, Any]:
        """Return what the line says, and the ids it counts, in types that JSON has."""
        counts = ("references", "utterances", "units", "substitutions", "deletions", "insertions")
        more = ("insertions_on_empty", "sentence_errors", "groups")
        lists = ("missing", "empty_hypotheses", "empty_references", "duplicates", "extra")
        return {
            "metric": self.metric,
            "rate": self.rate if self.units else None,
            "sentence_error_rate": self.sentence_error_rate if self.utterances else None,
            "interval": list(self.interval) if self.interval else None,
            "confidence": CONFIDENCE,
            "normalizer": self.normalizer,
            "partial": self.allow_partial and bool(self.missing),
            **{name: getattr(self, name) for name in (*counts, *more)},
            **{name: list(getattr(self, name)) for name in lists},
        }

    def _ids(self, status: Status) -> tuple[str, ...]:
        return tuple(each.id for each in self.details if each.status == status)

    def _interval_text(self) -> str:
        of = "utt" if self.groups is None else "groups"
        if self.interval is None:
            return f"no CI below 2 {of}"
        low, high = self.interval
        over = "" if self.groups is None else f" over {self.groups} {of}"
        return f"{100 * CONFIDENCE:.0f} % CI {100 * low:.2f}-{100 * high:.2f}{over}"


def score(
    references: Texts,
    hypotheses: Texts,
    *,
    metric: str = "wer",
    normalizer: str = "raw",
    groups: Mapping[str, str] | None = None,
    allow_partial: bool = False,
) -> Score:
    """Score hypotheses against references, both by utterance id.

    Args:
        references: what was said, id to text or utterances; at least one, no id twice.
        hypotheses: what was recognised. Of utterances with the same id the first is the answer.
        metric: "wer" (words), "cer" (characters that are not white space) or "mer" (Han characters,
            and words of other scripts).
        normalizer: applied to both sides: a key of `NORMALIZERS`, or `package.module:function`.
        groups: speaker or session of every reference id; by default that of the references, where
            they have one. The confidence interval then allows for the utterances of one speaker
            being alike.
        allow_partial: leave references that have no hypothesis out of the rate.
    """
    splitter = _Splitter(find_normalizer(normalizer), metric)
    said = _references(references, groups)
    out_of_bounds = {each.id for each in said if each.is_ignored}
    heard = [each for each in _utterances("hypotheses", hypotheses) if each.id not in out_of_bounds]
    scored = [each for each in said if not each.is_ignored]
    return Score(
        metric=metric,
        normalizer=splitter.rule.label,
        normalizer_name=normalizer,
        allow_partial=allow_partial,
        details=tuple(_details(scored, heard, splitter)),
    )


class _Splitter:
    """Makes units of texts; equal units are one string in memory."""

    def __init__(self, rule: Normalizer, metric: str):
        self.rule = rule
        self._metric = metric
        self._known: dict[str, str] = {}

    def units(self, text: str) -> Units:
        return self._split(self.rule.apply(text))

    def pair(self, reference: str, hypothesis: str) -> tuple[Units, Units]:
        said, heard = self.rule.apply(reference), self.rule.apply(hypothesis)
        if self.rule.respell is not None:
            heard = " ".join(self.rule.respell(said.split(), heard.split()))
        units = self._split(said)
        return units, units if heard == said else self._split(heard)

    def _split(self, text: str) -> Units:
        return tuple([self._known.setdefault(u, u) for u in split_units(text, self._metric)])


def _details(
    references: Sequence[Utterance], hypotheses: Sequence[Utterance], splitter: _Splitter
) -> Iterator[ScoredUtterance]:
    known = {each.id: each.group for each in references}
    first: dict[str, str] = {}
    further: list[Utterance] = []
    strange: list[Utterance] = []
    for each in hypotheses:
        if each.id in first:
            further.append(each)
            continue
        first[each.id] = each.text
        if each.id not in known:
            strange.append(each)
    for each in sorted(references, key=_id):
        yield _scored(each, first.get(each.id), splitter)
    strays: tuple[tuple[Status, list[Utterance]], ...]
    strays = (("duplicate", further), ("extra", strange))
    for status, utterances in strays:
        for each in sorted(utterances, key=_id):
            units = splitter.units(each.text)
            group = known.get(each.id, each.group)
            yield ScoredUtterance(each.id, status, (), units, 0, 0, len(units), group)


def _scored(reference: Utterance, hypothesis: str | None, splitter: _Splitter) -> ScoredUtterance:
    said, heard = splitter.pair(reference.text, hypothesis or "")
    status: Status = "scored"
    if hypothesis is None:
        status = "missing"
    elif not said:
        status = "empty_reference"
    elif not heard:
        status = "empty_hypothesis"
    return ScoredUtterance(
        reference.id, status, said, heard, *count_errors(said, heard), reference.group
    )


def _references(references: Texts, groups: Mapping[str, str] | None) -> list[Utterance]:
    utterances = _utterances("references", references)
    if not utterances:
        raise ValueError("references is empty; at least one is needed")
    seen: set[str] = set()
    for each in utterances:
        if each.id in seen:
            raise ValueError(
                f"references holds the id {each.id!r} twice; an id names one utterance"
            )
        seen.add(each.id)
    if groups is None:
        return utterances
    ungrouped = sorted(seen - set(groups))
    if ungrouped:
        raise ValueError(f"groups lacks {len(ungrouped)} reference ids, first {ungrouped[0]!r}")
    return [replace(each, group=groups[each.id]) for each in utterances]


def _utterances(name: str, texts: Texts) -> list[Utterance]:
    if isinstance(texts, Mapping):
        for identifier, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{name}[{identifier!r}] is {text!r}; expected a string")
        return [Utterance(identifier, text) for identifier, text in texts.items()]
    for place, each in enumerate(texts):
        if not isinstance(each, Utterance):
            raise ValueError(
                f"{name}[{place}] is {each!r}; expected an Utterance, or {name} to map ids to texts"
            )
    return list(texts)


def _block(utterance: ScoredUtterance) -> Block:
    if utterance.group is None:
        return "utterance", utterance.id
    return "group", utterance.group


def _id(utterance: Utterance) -> str:
    return utterance.id
