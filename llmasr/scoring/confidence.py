"""Can the confidence of a word be believed? Reliability bins, calibration error, cross entropy.

A hypothesis word is correct if all its units stand in the alignment that made the score. Words are
judged wherever they were written, also under unknown ids and on empty references, where every word
is wrong. What cannot be judged is counted apart, never guessed:

- words without a confidence;
- words that normalisation removes or changes together with their neighbours ("twenty five" ->
  "25"), so that their units are not among those scored;
- utterances whose hypothesis has text but no list of words.

Sources: reliability diagram and expected calibration error of Guo et al., "On calibration of modern
neural networks" (2017), equation 3; normalised cross entropy of Siu and Gish, "Evaluation of word
confidence for speech recognition systems" (1999), which NIST used.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from llmasr.scoring.alignment import ScoredUtterance, align
from llmasr.scoring.errors import Score
from llmasr.scoring.utterances import TimedWord, Utterance

BINS = 10
# The logarithm of a wrong word of confidence 1 would be infinite.
CERTAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Bin:
    """Words whose confidence is in one interval.

    Attributes:
        low: lower end, included.
        high: upper end, included in the last bin only.
        words: number of words.
        mean_confidence: of these words; nan without words.
        accuracy: fraction of these words that is correct; nan without words.
    """

    low: float
    high: float
    words: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How well confidences tell correct words from wrong ones.

    Attributes:
        bins: ten bins of equal width, upwards.
        words: words that were judged.
        correct: those of them that are correct.
        without_confidence: words that carry none.
        unplaced: words that normalisation removed or merged, so that they cannot be judged.
        utterances_without_words: scored hypotheses with text that list no words.
        normalised_cross_entropy: 1 for perfect confidences, 0 for those that say no more than the
            average, below 0 for worse; nan if all words are correct or all are wrong.
    """

    bins: tuple[Bin, ...]
    words: int
    correct: int
    without_confidence: int
    unplaced: int
    utterances_without_words: int
    normalised_cross_entropy: float

    @property
    def expected_calibration_error(self) -> float:
        """Mean gap between confidence and accuracy over words, 0 to 1; nan without words."""
        if not self.words:
            return math.nan
        filled = [each for each in self.bins if each.words]
        gaps = [each.words * abs(each.mean_confidence - each.accuracy) for each in filled]
        return sum(gaps) / self.words


def calibration(score: Score, hypotheses: Sequence[Utterance]) -> Calibration:
    """Hold the confidences of the words of `hypotheses` against the alignments of `score`.

    Args:
        score: of these hypotheses.
        hypotheses: those that were scored, with `words`; confidences are probabilities, 0 to 1.
    """
    split = cache(score.units_of)  # words come again and again
    waiting: dict[str, deque[Utterance]] = defaultdict(deque)
    for hypothesis in hypotheses:
        waiting[hypothesis.id].append(hypothesis)
    judged: list[tuple[float, bool]] = []
    without_confidence = unplaced = without_words = 0
    for utterance in score.details:
        if not waiting[utterance.id]:
            if utterance.hypothesis:
                raise ValueError(f"hypotheses lacks id {utterance.id!r}, which is in the score")
            continue
        hypothesis = waiting[utterance.id].popleft()
        without_words += bool(utterance.hypothesis) and not hypothesis.words
        for word, correct in _judged_words(utterance, hypothesis.words, split):
            if word.confidence is None:
                without_confidence += 1
            elif correct is None:
                unplaced += 1
            else:
                judged.append((_probability(word, utterance.id), correct))
    confidences = np.array([confidence for confidence, _ in judged], dtype=np.float64)  # [words]
    corrects = np.array([correct for _, correct in judged], dtype=bool)  # [words]
    return Calibration(
        bins=_bins(confidences, corrects),
        words=len(judged),
        correct=int(corrects.sum()),
        without_confidence=without_confidence,
        unplaced=unplaced,
        utterances_without_words=without_words,
        normalised_cross_entropy=_normalised_cross_entropy(confidences, corrects),
    )


def _judged_words(
    utterance: ScoredUtterance,
    words: Sequence[TimedWord],
    split: Callable[[str], Sequence[str]],
) -> Iterator[tuple[TimedWord, bool | None]]:
    """Yield each word and whether it is correct; None if it is not among the scored units."""
    units = [tuple(split(word.text)) for word in words]
    flat = tuple(unit for some in units for unit in some)
    stands = [step.kind == "equal" for step in utterance.steps() if step.hypothesis is not None]
    place = _places(flat, utterance.hypothesis)
    first = 0
    for word, some in zip(words, units, strict=True):
        found = [place[i] for i in range(first, first + len(some))]
        first += len(some)
        judged = bool(found) and None not in found
        yield word, all(stands[i] for i in found if i is not None) if judged else None


def _places(flat: Sequence[str], scored: Sequence[str]) -> list[int | None]:
    """Return for every unit of the words its place among the scored units, if it has one."""
    if flat == scored:
        return list(range(len(flat)))
    places: list[int | None] = []
    following = 0
    for step in align(flat, scored):
        if step.reference is not None:
            places.append(following if step.kind == "equal" else None)
        following += step.hypothesis is not None
    return places


def _probability(word: TimedWord, identifier: str) -> float:
    confidence = word.confidence
    if confidence is None or not 0 <= confidence <= 1:
        raise ValueError(
            f"confidence of word {word.text!r} of {identifier!r} is {confidence};"
            " expected a probability, 0 to 1"
        )
    return float(confidence)


def _bins(confidences: np.ndarray, corrects: np.ndarray) -> tuple[Bin, ...]:
    index = np.minimum((confidences * BINS).astype(int), BINS - 1)  # [words]
    found = []
    for place in range(BINS):
        inside = index == place
        words = int(inside.sum())
        found.append(
            Bin(
                low=place / BINS,
                high=(place + 1) / BINS,
                words=words,
                mean_confidence=float(confidences[inside].mean()) if words else math.nan,
                accuracy=float(corrects[inside].mean()) if words else math.nan,
            )
        )
    return tuple(found)


def _normalised_cross_entropy(confidences: np.ndarray, corrects: np.ndarray) -> float:
    words, correct = len(corrects), int(corrects.sum())
    if correct in (0, words):
        return math.nan
    share = correct / words
    base = -correct * math.log2(share) - (words - correct) * math.log2(1 - share)
    sure = np.clip(confidences, CERTAIN, 1 - CERTAIN)
    return (base + float(np.log2(np.where(corrects, sure, 1 - sure)).sum())) / base
