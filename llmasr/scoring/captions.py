"""Scores of answers and captions: exact match, CIDEr-D, and image words that nobody said.

    from llmasr.scoring.captions import cider
    print(cider({"1": ["a red pear", "one pear"], "2": ["two suns"]}, {"1": "a pear", "2": "suns"}))

As in the error rates, every reference counts: a missing hypothesis scores zero and is listed. Texts
go through a named normaliser and are split into words, or into characters where words are not
separated by spaces (Chinese).
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmasr.scoring.intervals import bracket, ratio_interval
from llmasr.scoring.normalise import Normalizer, find_normalizer
from llmasr.scoring.units import split_units

LONGEST_NGRAM = 4
LENGTH_SIGMA = 6.0  # words
CIDER_SCALE = 10.0

# What captions are made of, and the error rate that counts the same.
UNITS = {"words": "wer", "characters": "cer"}
Ngrams = Counter[tuple[str, ...]]


@dataclass(frozen=True)
class MeanScore:
    """A score that is the mean over items.

    Attributes:
        metric: "exact match" (0 or 1 an item) or "CIDEr-D" (0 to 10 an item).
        normalizer: id and hash of the normaliser that both sides went through.
        scores: score of every reference's id.
        interval: 95 % bootstrap interval of the mean over items; None below two items.
        missing: ids of references without hypothesis, sorted; they score zero.
        extra: ids of hypotheses without reference, sorted; they are not scored.
    """

    metric: str
    normalizer: str
    scores: Mapping[str, float]
    interval: tuple[float, float] | None
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean over all references."""
        return sum(self.scores.values()) / len(self.scores)

    def __str__(self) -> str:
        """Return one line that says the score, its uncertainty, and how it was made."""
        return (
            f"{self.metric} {self.mean:.4f}{bracket(self.interval, 4)} norm={self.normalizer}"
            f" n={len(self.scores)}, missing {len(self.missing)}, extra {len(self.extra)}"
        )


def exact_match(
    references: Mapping[str, str | Sequence[str]],
    hypotheses: Mapping[str, str],
    *,
    normalizer: str = "llmasr-en",
) -> MeanScore:
    """Score 1 where an answer equals a reference after normalisation, else 0.

    Args:
        references: the right answer of each id, or several that are right; at least one id.
        hypotheses: what was answered.
        normalizer: one of `NORMALIZERS`, applied to both sides.

    Raises:
        ValueError: an argument is empty, not text, or not allowed.
    """
    right = _alternatives(references)
    _check_texts(hypotheses)
    rule = find_normalizer(normalizer)
    scores = {
        item: float(
            item in hypotheses
            and rule.apply(hypotheses[item]) in {rule.apply(answer) for answer in answers}
        )
        for item, answers in right.items()
    }
    return _mean_score("exact match", rule.label, scores, hypotheses)


def cider(
    references: Mapping[str, str | Sequence[str]],
    hypotheses: Mapping[str, str],
    *,
    normalizer: str = "llmasr-en",
    units: str = "words",
) -> MeanScore:
    """Score captions by CIDEr-D, from 0 to 10 (Vedantam et al. 2015, section 8).

    N-grams of 1 to 4 units are weighted by tf-idf, idf over the items' references. For each length,
    the weights of the hypothesis are cut to those of a reference, and the cosine is damped by a
    Gaussian of the difference in length (sigma 6); then the mean over lengths and references is
    taken, times 10. Equals the authors' scorer as packaged in pycocoevalcap 1.2 on the same tokens;
    that scorer tokenises with a Java program, so published figures may differ in the last digits.

    Args:
        references: the captions of each id, one or several; at least two ids, because idf is zero
            everywhere with one.
        hypotheses: one caption an id.
        normalizer: one of `NORMALIZERS`, applied to both sides.
        units: "words", or "characters" for text without spaces.

    Raises:
        ValueError: an argument is too small, not text, or not allowed.
    """
    captions = _alternatives(references)
    _check_texts(hypotheses)
    _check_units(units)
    if len(captions) < 2:
        raise ValueError("references has one id; CIDEr needs two at least, for its idf")
    rule = find_normalizer(normalizer)
    expected = {
        item: [_ngrams(_split(text, rule, units)) for text in texts]
        for item, texts in captions.items()
    }
    seen_in = Counter(
        gram for counts in expected.values() for gram in {g for count in counts for g in count}
    )
    scores = {}
    for item, counts in expected.items():
        actual = _ngrams(_split(hypotheses.get(item, ""), rule, units))
        similar = [_similarity(actual, one, seen_in, len(expected)) for one in counts]
        scores[item] = CIDER_SCALE * sum(similar) / len(similar)
    return _mean_score("CIDEr-D", rule.label, scores, hypotheses)


@dataclass(frozen=True)
class FalseInsertions:
    """Words of a picture that were written though nobody said them.

    Attributes:
        normalizer: id and hash of the normaliser that all texts went through.
        units: "words" or "characters", what `hypothesis_units` counts.
        utterances: number of references.
        hypothesis_units: words (or characters) in all hypotheses.
        counts: how often each image word was inserted, most frequent first.
        affected: ids of utterances with an insertion, sorted.
        utterance_interval: 95 % bootstrap interval of `per_utterance`; None below two utterances.
        unit_interval: the same of `per_unit`.
        missing: ids of references without hypothesis, sorted; they hold no insertion.
        extra: ids of hypotheses without reference, sorted; they are not counted.
    """

    normalizer: str
    units: str
    utterances: int
    hypothesis_units: int
    counts: Mapping[str, int]
    affected: tuple[str, ...]
    utterance_interval: tuple[float, float] | None
    unit_interval: tuple[float, float] | None
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def insertions(self) -> int:
        """All insertions of image words."""
        return sum(self.counts.values())

    @property
    def per_utterance(self) -> float:
        """Insertions an utterance; may be above 1."""
        return self.insertions / self.utterances

    @property
    def per_unit(self) -> float:
        """Insertions a hypothesis word (or character); nan if nothing was written."""
        return self.insertions / self.hypothesis_units if self.hypothesis_units else float("nan")

    def __str__(self) -> str:
        """Return one line that says the rates, their uncertainty, and how they were made."""
        return (
            f"false insertions {self.insertions}: {self.per_utterance:.4f} an utterance"
            f"{bracket(self.utterance_interval, 4)}, {self.per_unit:.4f} of {self.units}"
            f"{bracket(self.unit_interval, 4)} norm={self.normalizer} n={self.utterances} utt /"
            f" {self.hypothesis_units} {self.units}, {len(self.affected)} utt affected,"
            f" missing {len(self.missing)}, extra {len(self.extra)}"
        )


def false_insertions(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    image_words: Mapping[str, Collection[str]],
    *,
    normalizer: str = "llmasr-en",
    units: str = "words",
) -> FalseInsertions:
    """Count words of the picture that stand in a hypothesis oftener than in its reference.

    Args:
        references: what was said, by utterance id; at least one.
        hypotheses: what was recognised.
        image_words: of every reference id, the words that the picture shown with it suggests, such
            as its objects' names; a name of several words counts where they stand together.
            To ask what the same words do without the picture, give the same mapping again.
        normalizer: one of `NORMALIZERS`, applied to all texts.
        units: "words", or "characters" for text without spaces.

    Raises:
        ValueError: an argument is empty, lacks ids, is not text, or is not allowed.
    """
    for item, text in references.items():
        if not isinstance(text, str):
            raise ValueError(f"references[{item!r}] is {text!r}; expected a string")
    expected = {item: text for item, (text,) in _alternatives(references).items()}
    _check_texts(hypotheses)
    _check_image_words(image_words, expected)
    _check_units(units)
    rule = find_normalizer(normalizer)
    counts: Counter[str] = Counter()
    inserted, written = [], []
    for item, text in expected.items():
        said, heard = (_split(each, rule, units) for each in (text, hypotheses.get(item, "")))
        words = {rule.apply(word) for word in image_words[item]}
        found = {word: _surplus(split_units(word, UNITS[units]), heard, said) for word in words}
        counts.update(found)
        inserted.append(sum(found.values()))
        written.append(len(heard))
    insertions, sizes = np.array(inserted), np.array(written)  # [utterances] each
    return FalseInsertions(
        normalizer=rule.label,
        units=units,
        utterances=len(expected),
        hypothesis_units=int(sizes.sum()),
        counts={word: n for word, n in sorted(counts.items(), key=_by_frequency) if n},
        affected=tuple(item for item, n in zip(expected, inserted, strict=True) if n),
        utterance_interval=ratio_interval(insertions, np.ones(len(insertions))),
        unit_interval=ratio_interval(insertions, sizes),
        missing=tuple(item for item in expected if item not in hypotheses),
        extra=tuple(sorted(set(hypotheses) - set(expected))),
    )


def _alternatives(references: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Check references and return them as lists, sorted by id."""
    if not references:
        raise ValueError("references is empty; at least one is needed")
    listed = {}
    for item in sorted(references):
        value = references[item]
        texts = [value] if isinstance(value, str) else list(value)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"references[{item!r}] is {value!r}; expected a string or several")
        listed[item] = texts
    return listed


def _check_texts(hypotheses: Mapping[str, str]) -> None:
    for item, text in hypotheses.items():
        if not isinstance(text, str):
            raise ValueError(f"hypotheses[{item!r}] is {text!r}; expected a string")


def _check_image_words(
    image_words: Mapping[str, Collection[str]], references: Mapping[str, str]
) -> None:
    lacking = sorted(set(references) - set(image_words))
    if lacking:
        raise ValueError(f"image_words lacks {len(lacking)} reference ids, first {lacking[0]!r}")
    for item, words in image_words.items():
        # a string is a collection of letters, which is never meant
        if isinstance(words, str):
            raise ValueError(f"image_words[{item!r}] is {words!r}; expected a list of words")


def _split(text: str, rule: Normalizer, units: str) -> list[str]:
    return split_units(rule.apply(text), UNITS[units])


def _check_units(units: str) -> None:
    if units not in UNITS:
        raise ValueError(f"units is {units!r}; allowed: {', '.join(UNITS)}")


def _mean_score(
    metric: str, normalizer: str, scores: Mapping[str, float], hypotheses: Mapping[str, str]
) -> MeanScore:
    values = np.array(list(scores.values()))  # [items]
    return MeanScore(
        metric=metric,
        normalizer=normalizer,
        scores=scores,
        interval=ratio_interval(values, np.ones(len(values))),
        missing=tuple(item for item in scores if item not in hypotheses),
        extra=tuple(sorted(set(hypotheses) - set(scores))),
    )


def _ngrams(units: Sequence[str]) -> Ngrams:
    return Counter(
        tuple(units[start : start + size])
        for size in range(1, LONGEST_NGRAM + 1)
        for start in range(len(units) - size + 1)
    )


def _similarity(actual: Ngrams, expected: Ngrams, seen_in: Ngrams, items: int) -> float:
    """Return the mean over n of the clipped, damped cosines of two captions: 0 to 1."""

    def weight(gram: tuple[str, ...], count: int) -> float:
        return count * (math.log(items) - math.log(max(1, seen_in[gram])))

    # bigrams stand for the length, as in the authors' scorer: one word is as long as none
    actual_length, expected_length = _bigrams(actual), _bigrams(expected)
    products, squares, expected_squares = ([0.0] * LONGEST_NGRAM for _ in range(3))
    for gram, count in actual.items():
        one, other = weight(gram, count), weight(gram, expected[gram])
        products[len(gram) - 1] += min(one, other) * other
        squares[len(gram) - 1] += one**2
    for gram, count in expected.items():
        expected_squares[len(gram) - 1] += weight(gram, count) ** 2
    cosines = [
        product / math.sqrt(a * b) if a and b else 0.0
        for product, a, b in zip(products, squares, expected_squares, strict=True)
    ]
    difference = actual_length - expected_length
    return sum(cosines) / LONGEST_NGRAM * math.exp(-(difference**2) / (2 * LENGTH_SIGMA**2))


def _bigrams(counts: Ngrams) -> int:
    return sum(count for gram, count in counts.items() if len(gram) == 2)


def _surplus(word: Sequence[str], heard: Sequence[str], said: Sequence[str]) -> int:
    """Count how much oftener `word` stands in what was heard than in what was said."""
    return max(0, _occurrences(word, heard) - _occurrences(word, said))


def _occurrences(word: Sequence[str], text: Sequence[str]) -> int:
    if not word:
        return 0
    starts = range(len(text) - len(word) + 1)
    return sum(list(text[start : start + len(word)]) == list(word) for start in starts)


def _by_frequency(entry: tuple[str, int]) -> tuple[int, str]:
    word, count = entry
    return -count, word
