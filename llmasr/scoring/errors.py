"""Count word or character errors over a whole test set, strictly by utterance id.

A unit is a word (WER) or a character that is not a space (CER, so that spaces between Han
characters make no difference). The rate is `(S + D + I) / units of all references`, never a mean
of rates. Rules that keep it honest:

- Every reference counts. A missing hypothesis is an empty one, all deletions, and is listed.
- Words under an id that no reference has are insertions, and the id is listed.
- A reference that normalises to nothing has no rate. Words heard there are counted apart.

The interval is a percentile bootstrap over utterances, or over speakers when they are given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jiwer
import numpy as np

from llmasr.scoring.normalise import find_normalizer

BOOTSTRAP_REPLICATIONS = 1000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95

UNIT_NAMES = {"wer": "words", "cer": "characters"}


@dataclass(frozen=True)
class Score:
    """Errors of a set of hypotheses against a set of references.

    Attributes:
        metric: "wer" or "cer".
        normalizer: id of the normaliser that both sides went through.
        utterances: number of references.
        units: words or characters in all references.
        substitutions: units taken for another.
        deletions: units that are not in the hypothesis.
        insertions: units that are only in the hypothesis; those of `extra` are among them.
        insertions_on_empty: units heard where the reference is empty; not in `insertions`.
        sentence_errors: references whose hypothesis is not perfect.
        interval: 95 % confidence interval of `rate`; None below two utterances (or speakers).
        missing: ids of references without hypothesis, sorted.
        extra: ids of hypotheses without reference, sorted.
        empty: ids of references that normalise to nothing, sorted.
    """

    metric: str
    normalizer: str
    utterances: int
    units: int
    substitutions: int
    deletions: int
    insertions: int
    insertions_on_empty: int
    sentence_errors: int
    interval: tuple[float, float] | None
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    empty: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit, as a fraction; nan if the references hold no unit."""
        return self.errors / self.units if self.units else float("nan")

    @property
    def sentence_error_rate(self) -> float:
        """Fraction of references whose hypothesis is not perfect."""
        return self.sentence_errors / self.utterances

    @property
    def complete(self) -> bool:
        """Whether references and hypotheses have the same ids."""
        return not self.missing and not self.extra

    def __str__(self) -> str:
        """Return one line that says the rate, its uncertainty, and how it was made."""
        rate = f"{100 * self.rate:.2f} %" if self.units else "undefined"
        if self.interval is not None:
            low, high = self.interval
            rate += f" [{100 * CONFIDENCE:.0f} % CI {100 * low:.1f}-{100 * high:.1f}]"
        line = (
            f"{self.metric.upper()} {rate} norm={self.normalizer}"
            f" n={self.utterances} utt / {self.units} {UNIT_NAMES[self.metric]},"
            f" S/D/I {self.substitutions}/{self.deletions}/{self.insertions},"
            f" missing {len(self.missing)}"
        )
        if self.extra:
            line += f", extra {len(self.extra)}"
        if self.empty:
            line += f", {self.insertions_on_empty} inserted on {len(self.empty)} empty references"
        return line


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    *,
    metric: str = "wer",
    normalizer: str = "raw",
    groups: Mapping[str, str] | None = None,
) -> Score:
    """Score hypotheses against references, both by utterance id.

    Args:
        references: what was said; at least one.
        hypotheses: what was recognised.
        metric: "wer" (words) or "cer" (characters, spaces not counted).
        normalizer: one of `NORMALIZERS`, applied to both sides.
        groups: speaker or session of every reference id; makes the confidence interval honest
            about utterances of one speaker not being independent.
    """
    _check(references, hypotheses, metric, groups)
    rule = find_normalizer(normalizer)
    expected = {i: _units(rule.apply(references[i]), metric) for i in sorted(references)}
    actual = {i: _units(rule.apply(hypotheses[i]), metric) for i in sorted(hypotheses)}
    spoken = [i for i in expected if expected[i]]
    empty = [i for i in expected if not expected[i]]
    missing = [i for i in expected if i not in actual]
    extra = [i for i in actual if i not in expected]

    counts = _align([expected[i] for i in spoken], [actual.get(i, []) for i in spoken])
    errors = counts.sum(1)  # [spoken]
    units = np.array([len(expected[i]) for i in spoken], dtype=np.int64)  # [spoken]
    on_empty = [len(actual.get(i, [])) for i in empty]
    invented = sum(len(actual[i]) for i in extra)
    substitutions, deletions, insertions = counts.sum(0).tolist()
    return Score(
        metric=metric,
        normalizer=rule.id,
        utterances=len(expected),
        units=int(units.sum()),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions + invented,
        insertions_on_empty=sum(on_empty),
        sentence_errors=int(np.count_nonzero(errors)) + int(np.count_nonzero(on_empty)),
        interval=_interval(errors, units, [groups[i] if groups else i for i in spoken], invented),
        missing=tuple(missing),
        extra=tuple(extra),
        empty=tuple(empty),
    )


def _check(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    metric: str,
    groups: Mapping[str, str] | None,
) -> None:
    if metric not in UNIT_NAMES:
        raise ValueError(f"metric is {metric!r}; allowed: {', '.join(UNIT_NAMES)}")
    if not references:
        raise ValueError("references is empty; at least one is needed")
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        for identifier, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{name}[{identifier!r}] is {text!r}; expected a string")
    if groups is not None:
        ungrouped = sorted(set(references) - set(groups))
        if ungrouped:
            raise ValueError(f"groups lacks {len(ungrouped)} reference ids, first {ungrouped[0]!r}")


def _units(text: str, metric: str) -> list[str]:
    words = text.split()
    return words if metric == "wer" else list("".join(words))


def _align(expected: list[list[str]], actual: list[list[str]]) -> np.ndarray:
    """Count substitutions, deletions and insertions of each utterance: int64 [utterances, 3]."""
    column = {"substitute": 0, "delete": 1, "insert": 2}
    counts = np.zeros((len(expected), 3), dtype=np.int64)
    if not expected:  # jiwer would make one empty utterance of none
        return counts
    aligned = jiwer.process_words(_joined(expected), _joined(actual))
    for row, chunks in zip(counts, aligned.alignments, strict=True):
        for chunk in chunks:
            if chunk.type != "equal":
                length = max(
                    chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
                )
                row[column[chunk.type]] += length
    return counts


def _joined(sentences: Iterable[list[str]]) -> list[str]:
    return [" ".join(units) for units in sentences]


def _interval(
    errors: np.ndarray, units: np.ndarray, speakers: list[str], invented: int
) -> tuple[float, float] | None:
    """Bootstrap a percentile interval of the error rate by drawing speakers with replacement.

    Speakers with the same errors and units are the same to the rate, so one multinomial draw over
    the distinct pairs stands for drawing speakers one by one. It is fast, and it does not depend
    on the order of utterances.

    Args:
        errors: [utterances], of references with at least one unit.
        units: [utterances], all above zero.
        speakers: who spoke each utterance, or its id.
        invented: insertions under unknown ids; a constant, for they belong to no speaker.
    """
    _, speaker_of = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    totals = np.zeros((len(set(speakers)), 2), dtype=np.int64)  # [speakers, 2]
    np.add.at(totals, speaker_of, np.stack([errors, units], axis=1))
    if len(totals) < 2:
        return None
    pairs, occurrences = np.unique(totals, axis=0, return_counts=True)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    draws = generator.multinomial(
        len(totals), occurrences / len(totals), size=BOOTSTRAP_REPLICATIONS
    )  # [replications, pairs]
    drawn_errors, drawn_units = (draws @ pairs).T
    rates = (drawn_errors + invented) / drawn_units
    margin = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rates, [margin, 1 - margin])
    return float(low), float(high)
