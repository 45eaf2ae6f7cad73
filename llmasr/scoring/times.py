"""How far word times are off: shifts of starts and ends of the words that both sides have.

The mean of the absolute shifts of all starts and ends is the accumulated average shift by which
forced aligners are compared (Shi et al., "Achieving timestamp prediction while recognizing with
non-autoregressive end-to-end ASR model", arXiv 2301.12343; also the measure of the Qwen3-ASR
report). It is defined where the words are the same. A recogniser makes errors, so words are aligned
first, and only equal ones are compared; how many there are stands beside every figure, and the
share of words found within a tolerance is of all reference words.

Of the alignments with the least errors that one is taken which pairs the most equal words and, of
those, shifts them the least: of "no no" heard as one "no", the one that was heard is compared.

Letters: N reference words, M recognised words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from llmasr.scoring.intervals import CONFIDENCE, ratio_interval, sums_by_block
from llmasr.scoring.normalise import find_normalizer
from llmasr.scoring.utterances import TimedWord, Utterance

TOLERANCES = (50.0, 100.0, 200.0)
FARTHEST = 10_000  # ms; beyond it, a smaller shift no longer decides between equal alignments
PAIR, DELETE, INSERT = range(3)


@dataclass(frozen=True)
class Shifts:
    """Differences between recognised and true times, in ms.

    Attributes:
        mean: of the absolute differences.
        median: of the absolute differences.
        p90: percentile of the absolute differences; p95 and p99 likewise.
        bias: mean of the differences; above zero if the recognised times are late.
        within: share of the absolute differences up to each tolerance.
    """

    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    bias: float
    within: tuple[float, ...]


@dataclass(frozen=True)
class UtteranceTimes:
    """What was found about the times of one reference.

    Attributes:
        id: of the reference.
        group: speaker or session, if known.
        reference_words: words said, N.
        hypothesis_words: words recognised, M.
        starts: difference of the starts of each word that both have, in ms, in order of time.
        ends: the same for the ends.
    """

    id: str
    group: str | None
    reference_words: int
    hypothesis_words: int
    starts: tuple[float, ...]
    ends: tuple[float, ...]


@dataclass(frozen=True)
class TimeScore:
    """Quality of the word times of a set of hypotheses.

    Attributes:
        normalizer: label of the normaliser that words went through before they were compared.
        tolerances: in ms.
        starts: shifts of the starts of the words that both sides have; None if there are none.
        ends: shifts of their ends.
        both: shifts of starts and ends together.
        found_within: share of all reference words that were recognised with both times within
            each tolerance; nan if there are no reference words.
        interval: 95 % confidence interval of `both.mean`, by a bootstrap over groups where they are
            known, else over utterances; None below two.
        details: every reference, in order of id.
        missing: ids of references without hypothesis, sorted; their words are not found.
        extra: ids of hypotheses without reference, sorted.
        duplicates: ids of further hypotheses of one reference, sorted; the first one counts.
    """

    normalizer: str
    tolerances: tuple[float, ...]
    starts: Shifts | None
    ends: Shifts | None
    both: Shifts | None
    found_within: tuple[float, ...]
    interval: tuple[float, float] | None
    details: tuple[UtteranceTimes, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    duplicates: tuple[str, ...]

    @property
    def reference_words(self) -> int:
        """Number of words in all references."""
        return sum(each.reference_words for each in self.details)

    @property
    def hypothesis_words(self) -> int:
        """Number of words in all hypotheses of references."""
        return sum(each.hypothesis_words for each in self.details)

    @property
    def matched(self) -> int:
        """Number of words that both sides have: those whose times are compared."""
        return sum(len(each.starts) for each in self.details)

    @property
    def complete(self) -> bool:
        """Whether every id has one reference and one hypothesis."""
        return not self.missing and not self.extra and not self.duplicates

    def __str__(self) -> str:
        """Return the mean shift, its uncertainty and how it was made, and a table of shifts."""
        mean = "undefined" if self.both is None else f"{self.both.mean:.1f} ms"
        if self.interval is not None:
            low, high = self.interval
            mean += f" [{100 * CONFIDENCE:.0f} % CI {low:.1f}-{high:.1f}]"
        lines = [
            f"word shift {mean} norm={self.normalizer} n={len(self.details)} utt,"
            f" matched {self.matched} of {self.reference_words} reference words,"
            f" {self.hypothesis_words} recognised, missing {len(self.missing)},"
            f" extra {len(self.extra)}, duplicate {len(self.duplicates)}"
        ]
        within = [f"<={tolerance:g} ms" for tolerance in self.tolerances]
        lines.append(_row("ms", ["mean", "median", "p90", "p95", "p99", "bias", *within]))
        for name, shifts in (("starts", self.starts), ("ends", self.ends), ("both", self.both)):
            if shifts is not None:
                lines.append(_row(name, _cells(shifts)))
        found = [f"{100 * share:.1f} %" for share in self.found_within]
        lines.append(_row("found, of all reference words", ["", "", "", *found], width=38))
        return "\n".join(lines)


def score_times(
    references: Sequence[Utterance],
    hypotheses: Sequence[Utterance],
    *,
    normalizer: str = "raw",
    tolerances: Sequence[float] = TOLERANCES,
) -> TimeScore:
    """Compare the times of the words that references and hypotheses share, by utterance id.

    Args:
        references: with word times, in the same clock as the hypotheses; at least one. Those that
            are out of bounds are skipped.
        hypotheses: with word times.
        normalizer: applied to each word of both sides; what it makes nothing of is no word.
        tolerances: in ms, above zero.

    Raises:
        ValueError: an utterance has a text but no word times, a reference id occurs twice, there is
            no reference, or an option is wrong.
    """
    if not all(0 < tolerance < np.inf for tolerance in tolerances):
        raise ValueError(f"tolerances is {tuple(tolerances)}; expected finite values above 0 (ms)")
    ignored = {reference.id for reference in references if reference.is_ignored}
    expected = _by_id([reference for reference in references if not reference.is_ignored])
    actual: dict[str, Utterance] = {}
    duplicates = []
    for hypothesis in (each for each in hypotheses if each.id not in ignored):
        _check_timed("hypothesis", hypothesis)
        if hypothesis.id in actual:
            duplicates.append(hypothesis.id)
        actual.setdefault(hypothesis.id, hypothesis)
    rule = find_normalizer(normalizer)
    spell = cache(rule.apply)
    details = tuple(_compare(expected[i], actual.get(i), spell) for i in sorted(expected))
    starts = np.array([shift for each in details for shift in each.starts])
    ends = np.array([shift for each in details for shift in each.ends])
    return TimeScore(
        normalizer=rule.label,
        tolerances=tuple(tolerances),
        starts=_shifts(starts, tolerances),
        ends=_shifts(ends, tolerances),
        both=_shifts(np.concatenate([starts, ends]), tolerances),
        found_within=_found_within(details, starts, ends, tolerances),
        interval=_interval(details),
        details=details,
        missing=tuple(i for i in sorted(expected) if i not in actual),
        extra=tuple(i for i in sorted(actual) if i not in expected),
        duplicates=tuple(sorted(duplicates)),
    )


def match_words(
    reference: Sequence[TimedWord], hypothesis: Sequence[TimedWord]
) -> list[tuple[int, int]]:
    """Return the places of the equal words of an alignment, in order.

    The alignment has the least errors, then the most equal words, then the least sum of absolute
    shifts in whole ms, where `FARTHEST` bounds that of a word. Time and memory are of order N M; a
    byte for each pair of words is kept.
    """
    texts = [word.text for word in hypothesis]
    if [word.text for word in reference] == texts:
        return [(place, place) for place in range(len(texts))]
    moves = _moves(reference, hypothesis)
    pairs = []
    row, column = len(reference), len(hypothesis)
    while row and column:
        move = moves[row - 1, column - 1]
        row -= move != INSERT
        column -= move != DELETE
        if move == PAIR and reference[row].text == texts[column]:
            pairs.append((row, column))
    return pairs[::-1]


def _moves(reference: Sequence[TimedWord], hypothesis: Sequence[TimedWord]) -> np.ndarray:
    """Return the last step of the best alignment of the first n and m words: int8 [N, M].

    Costs are whole numbers of which the parts cannot reach one another: errors above substituted
    words above shifts. With as many errors, fewer substitutions mean more equal words. Insertions
    within a row are a running minimum of what is left when their price is taken off.
    """
    texts = np.array([word.text for word in hypothesis], dtype=object)
    times = _milliseconds(hypothesis)
    shortest = min(len(reference), len(hypothesis))
    substitution = FARTHEST * (shortest + 1)
    edit = (substitution + FARTHEST) * (shortest + 1)
    inserted = edit * np.arange(len(hypothesis) + 1, dtype=np.int64)  # [M + 1]
    moves = np.empty((len(reference), len(hypothesis)), dtype=np.int8)
    costs = inserted
    for row, (word, time) in enumerate(zip(reference, _milliseconds(reference), strict=True)):
        shifts = np.minimum(np.abs(times - time).sum(1), FARTHEST)
        paired = costs[:-1] + np.where(texts == word.text, shifts, edit + substitution)
        deleted = costs + edit
        best = np.concatenate([deleted[:1], np.minimum(paired, deleted[1:])])
        costs = np.minimum.accumulate(best - inserted) + inserted
        moves[row] = np.where(
            costs[1:] == paired, PAIR, np.where(costs[1:] == deleted[1:], DELETE, INSERT)
        )
    return moves


def _milliseconds(words: Sequence[TimedWord]) -> np.ndarray:
    """Return starts and ends, rounded: int64 [words, 2]."""
    seconds = np.array([(word.start, word.end) for word in words]).reshape(-1, 2)
    return np.rint(1000 * seconds).astype(np.int64)


def _by_id(references: Sequence[Utterance]) -> dict[str, Utterance]:
    if not references:
        raise ValueError("references is empty; at least one is needed")
    found: dict[str, Utterance] = {}
    for reference in references:
        _check_timed("reference", reference)
        if reference.id in found:
            raise ValueError(f"reference id {reference.id!r} occurs twice")
        found[reference.id] = reference
    return found


def _check_timed(name: str, utterance: Utterance) -> None:
    if utterance.text.split() and not utterance.words:
        raise ValueError(f"{name} {utterance.id!r} has a text but no word times")


def _compare(
    reference: Utterance, hypothesis: Utterance | None, spell: Callable[[str], str]
) -> UtteranceTimes:
    said = _spelt(reference, spell)
    heard = _spelt(hypothesis, spell) if hypothesis else []
    pairs = [(said[i], heard[j]) for i, j in match_words(said, heard)]
    return UtteranceTimes(
        reference.id,
        reference.group,
        len(said),
        len(heard),
        # Rounded to a microsecond, so that a shift of exactly a tolerance is within it.
        tuple(round(1000 * (other.start - word.start), 3) for word, other in pairs),
        tuple(round(1000 * (other.end - word.end), 3) for word, other in pairs),
    )


def _spelt(utterance: Utterance, spell: Callable[[str], str]) -> list[TimedWord]:
    words = [TimedWord(spell(word.text), word.start, word.end) for word in utterance.words]
    return [word for word in words if word.text.strip()]


def _shifts(differences: np.ndarray, tolerances: Sequence[float]) -> Shifts | None:
    if not len(differences):
        return None
    sizes = np.abs(differences)
    median, p90, p95, p99 = np.percentile(sizes, [50, 90, 95, 99]).tolist()
    within = tuple(float(np.mean(sizes <= tolerance)) for tolerance in tolerances)
    return Shifts(float(sizes.mean()), median, p90, p95, p99, float(differences.mean()), within)


def _found_within(
    details: Sequence[UtteranceTimes],
    starts: np.ndarray,
    ends: np.ndarray,
    tolerances: Sequence[float],
) -> tuple[float, ...]:
    words = sum(each.reference_words for each in details)
    worst = np.maximum(np.abs(starts), np.abs(ends))
    return tuple(
        float(np.count_nonzero(worst <= tolerance)) / words if words else float("nan")
        for tolerance in tolerances
    )


def _interval(details: Sequence[UtteranceTimes]) -> tuple[float, float] | None:
    """Bootstrap the mean absolute shift over groups, or over utterances whose group is unknown.

    Those without an equal word say nothing about shifts and are not drawn.
    """
    rows = np.array(
        [(np.abs([*each.starts, *each.ends]).sum(), 2 * len(each.starts)) for each in details]
    )
    blocks = [("group", each.group) if each.group else ("id", each.id) for each in details]
    sums = sums_by_block(rows, blocks)
    sums = sums[sums[:, 1] > 0]
    return ratio_interval(sums[:, 0], sums[:, 1])


def _cells(shifts: Shifts) -> list[str]:
    sizes = (shifts.mean, shifts.median, shifts.p90, shifts.p95, shifts.p99)
    shares = [f"{100 * share:.1f} %" for share in shifts.within]
    return [*(f"{size:.1f}" for size in sizes), f"{shifts.bias:+.1f}", *shares]


def _row(name: str, cells: Sequence[str], width: int = 8) -> str:
    return (name.ljust(width) + "".join(cell.rjust(10) for cell in cells)).rstrip()
