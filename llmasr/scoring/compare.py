"""Is one system better than another? Two tests on the same references.

Paired bootstrap: utterances, or groups where they are known, are drawn once for both systems, and
the difference of the rates is taken of each draw (Bisani and Ney, ICASSP 2004). A draw without
difference counts half for either side.

Matched pairs (MAPSSWE): the references are cut where both systems are right, and the numbers of
errors in each segment are compared, because errors inside a segment depend on one another (Gillick
and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989).
A segment ends at the end of an utterance, and at a run of two or more words that both systems have
right without an insertion between them: NIST's choice (Pallett et al., "Tools for the analysis of
benchmark speech recognition tests", ICASSP 1990), and that of its program `sc_stats`.

Both are approximations: few groups (below some 20) make the interval of the first too narrow, few
segments (below some 50) the p value of the second too small.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmasr.scoring.alignment import ScoredUtterance, error_places
from llmasr.scoring.errors import Score
from llmasr.scoring.intervals import (
    CONFIDENCE,
    REPLICATIONS,
    SEED,
    percentile_interval,
    resampled_sums,
    sums_by_block,
)

# Units in a row that both systems must have right between two segments.
RIGHT_BETWEEN_SEGMENTS = 2


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test of the errors in each segment.

    Attributes:
        segments: stretches in which at least one of the systems is wrong.
        mean: errors of the system less errors of the baseline, mean over segments.
        deviation: standard deviation of that difference, of a sample; nan below two segments.
        z: mean over its standard error, normal if the systems are equally good and the segments
            many (some 50 or more); nan where the segments tell nothing about their spread.
        p_value: two-sided; nan with `z`.
    """

    segments: int
    mean: float
    deviation: float
    z: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """A system against a baseline on the same references.

    Attributes:
        baseline: its name.
        utterances: references that count for both.
        difference: rate of the system less rate of the baseline; negative if the system is better.
        interval: 95 % confidence interval of `difference`; None below two utterances (or groups).
        improvement: share of draws in which the system is better, ties half; None with `interval`.
        p_value: of the paired bootstrap, two-sided: how probable such a share is for equal systems.
            Never 0: 10,000 draws cannot tell less than 0.0002. None with `interval`.
        matched_pairs: the other test. It knows no groups, and nothing of stray hypotheses.
    """

    baseline: str
    utterances: int
    difference: float
    interval: tuple[float, float] | None
    improvement: float | None
    p_value: float | None
    matched_pairs: MatchedPairs

    @property
    def paired(self) -> str:
        """What stands beside the interval of the system."""
        p = "undefined" if self.p_value is None else f"{self.p_value:.2g}"
        return f"paired p={p} vs {self.baseline}"

    def __str__(self) -> str:
        """Return one line with both tests."""
        line = f"{100 * self.difference:+.2f} points against {self.baseline}"
        if self.interval is not None and self.improvement is not None:
            low, high = (100 * end for end in self.interval)
            line += (
                f" [{100 * CONFIDENCE:.0f} % CI {low:+.2f} to {high:+.2f}],"
                f" paired bootstrap p={self.p_value:.2g}, better in {100 * self.improvement:.1f} %"
                " of draws"
            )
        pairs = self.matched_pairs
        line += f", MAPSSWE p={pairs.p_value:.2g} (z={pairs.z:.2f}, {pairs.segments} segments)"
        return f"{line}, n={self.utterances} utt"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in types that JSON has."""
        numbers = asdict(self)
        numbers["matched_pairs"] = {
            name: None if math.isnan(value) else value
            for name, value in numbers["matched_pairs"].items()
        }
        return numbers


def compare(
    system: Score,
    baseline: Score,
    *,
    name: str = "base",
    replications: int = REPLICATIONS,
    seed: int = SEED,
) -> Comparison:
    """Test whether two systems differ, on the references that count for both.

    Args:
        system: scored against the same references, metric and normaliser as `baseline`, and with
            the same `allow_partial`; of references left out of one score, neither system counts.
        baseline: the other system.
        name: of the baseline.
        replications: draws of the bootstrap.
        seed: of the draws.
    """
    _check_comparable(system, baseline)
    ours, theirs = system.items, baseline.items
    shared = [identifier for identifier in ours if identifier in theirs]
    if not shared:
        raise ValueError("system and baseline have no utterance in common that counts for both")
    rows = np.array(
        [(ours[i].errors - theirs[i].errors, ours[i].units) for i in shared], dtype=np.int64
    )
    blocks = sums_by_block(rows, [ours[i].block for i in shared])
    stray = system.stray_errors - baseline.stray_errors
    difference = float((rows[:, 0].sum() + stray) / rows[:, 1].sum())
    interval = improvement = p_value = None
    if len(blocks) > 1:
        more, units = resampled_sums(blocks, replications=replications, seed=seed).T
        interval = percentile_interval((more + stray) / units)
        improvement, p_value = _paired_test(more + stray)
    pairs = matched_pairs(list(_segments_of(system, baseline, set(shared))))
    return Comparison(name, len(shared), difference, interval, improvement, p_value, pairs)


def matched_pairs(segments: Sequence[tuple[int, int]]) -> MatchedPairs:
    """Test the errors (of the system, of the baseline) in each segment for a difference."""
    differences = np.array([a - b for a, b in segments], dtype=np.float64)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    deviation = float(differences.std(ddof=1)) if count > 1 else math.nan
    if not differences.any():
        return MatchedPairs(count, mean, deviation, 0.0, 1.0)
    z = mean / (deviation / math.sqrt(count)) if deviation > 0 else math.nan
    return MatchedPairs(count, mean, deviation, z, math.erfc(abs(z) / math.sqrt(2)))


def split_segments(system: ScoredUtterance, baseline: ScoredUtterance) -> Iterator[tuple[int, int]]:
    """Yield the errors of both systems in each segment of one utterance, in order."""
    ours, theirs = (
        Counter(error_places(each.reference, each.hypothesis)) for each in (system, baseline)
    )
    segment = (0, 0)
    last: int | None = None
    for place in sorted(ours | theirs):
        # Units between two places; both systems have them right.
        if last is not None and place // 2 - (last + 1) // 2 >= RIGHT_BETWEEN_SEGMENTS:
            yield segment
            segment = (0, 0)
        segment = (segment[0] + ours[place], segment[1] + theirs[place])
        last = place
    if last is not None:
        yield segment


def _segments_of(system: Score, baseline: Score, ids: set[str]) -> Iterator[tuple[int, int]]:
    for ours, theirs in _same_references(system, baseline):
        if ours.id in ids and (ours.errors or theirs.errors):
            yield from split_segments(ours, theirs)


def _paired_test(differences: np.ndarray) -> tuple[float, float]:
    """Return the share of draws [R] below zero, ties half, and the two-sided p value.

    The data are taken as one more draw (Davison and Hinkley, "Bootstrap methods and their
    application", 1997, equation 4.11), so that no number of draws claims a p value of 0.
    """
    draws = len(differences)
    better = float(np.sum(differences < 0) + np.sum(differences == 0) / 2)
    smaller = min(better, draws - better)
    return better / draws, min(1.0, 2 * (smaller + 1) / (draws + 1))


def _check_comparable(system: Score, baseline: Score) -> None:
    for name in ("metric", "normalizer", "allow_partial", "references"):
        ours, theirs = getattr(system, name), getattr(baseline, name)
        if ours != theirs:
            raise ValueError(f"{name} is {ours!r} for system and {theirs!r} for baseline")
    for a, b in _same_references(system, baseline):
        if (a.id, a.reference, a.group) != (b.id, b.reference, b.group):
            raise ValueError(
                f"system and baseline have different references: {a.id!r} and {b.id!r},"
                f" {' '.join(a.reference)!r} and {' '.join(b.reference)!r}"
            )


def _same_references(
    system: Score, baseline: Score
) -> Iterator[tuple[ScoredUtterance, ScoredUtterance]]:
    count = system.references
    return zip(system.details[:count], baseline.details[:count], strict=True)
