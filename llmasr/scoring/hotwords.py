"""Were listed phrases (hotwords, names) recognised, and were they heard where nobody said them?

A phrase is looked for in the units of both sides, longest phrase first and without overlap, so a
unit belongs to at most one occurrence. The alignment decides what became of it:

- said: occurrences in references; *recognised* if all its units stand, next to one another.
- heard: occurrences in hypotheses; *correct* if the reference has all its units at that place,
  otherwise a false insertion, the price of biasing a system towards a list.

The table of units follows the split into biased and unbiased word error rate of Le et al.,
"Contextualized streaming end-to-end speech recognition with trie-based deep biasing and shallow
fusion" (Interspeech 2021): a unit of an occurrence is in one slice, every other in the second.

In a character error rate, letters have no word borders: "cat" is also found in "catalogue".
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmasr.scoring.alignment import ScoredUtterance
from llmasr.scoring.errors import Score
from llmasr.scoring.slices import Slice, Table

WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?:\u2026\"\u201c\u201d]")

Units = tuple[str, ...]


class _Occurrence(NamedTuple):
    phrase: Units
    is_said: bool  # else it was heard
    stands: bool  # all its units are equal on both sides, next to one another
    kinds: Sequence[str]  # what happened to its units


@dataclass(frozen=True, slots=True)
class PhraseCount:
    """What became of one phrase.

    Attributes:
        phrase: as it was given.
        said: occurrences in references.
        recognised: those of `said` whose units all stand in the hypothesis, next to one another.
        heard: occurrences in hypotheses.
        correct: those of `heard` that the reference has at that place.
    """

    phrase: str
    said: int
    recognised: int
    heard: int
    correct: int

    @property
    def recall(self) -> float:
        """Fraction of what was said that was recognised; nan if it was never said."""
        return self.recognised / self.said if self.said else math.nan

    @property
    def precision(self) -> float:
        """Fraction of what was heard that is correct; nan if it was never heard."""
        return self.correct / self.heard if self.heard else math.nan

    @property
    def false_insertions(self) -> int:
        """Occurrences that were heard and that the reference does not have there."""
        return self.heard - self.correct


@dataclass(frozen=True)
class PhraseCounts:
    """What became of a list of phrases.

    Attributes:
        counts: of each phrase, in the order given; phrases of the same units are one.
        units: reference units within occurrences that are in the rate.
        substitutions: those of them that were taken for another.
        deletions: those of them that are not in the hypothesis.
        insertions: inserted units that are in the rate and within an occurrence that was heard.
    """

    counts: tuple[PhraseCount, ...]
    units: int
    substitutions: int
    deletions: int
    insertions: int


def count_phrases(score: Score, phrases: Iterable[str]) -> PhraseCounts:
    """Look for `phrases` in all utterances of `score`.

    Phrases are normalised as the texts of the score were. What is heard on empty references is
    counted too: a hotword written there is the worst kind of false insertion.
    """
    spelling: dict[Units, str] = {}
    for phrase in phrases:
        spelling.setdefault(_units_of(phrase, score), phrase)
    by_first: dict[str, list[Units]] = {}
    for units in sorted(spelling, key=len, reverse=True):
        by_first.setdefault(units[0], []).append(units)
    rows = {units: [0, 0, 0, 0] for units in spelling}  # said, recognised, heard, correct
    kinds: Counter[tuple[bool, str]] = Counter()
    silent = [each for each in score.details if each.status == "empty_reference"]
    for utterance in (*score.counted, *silent):
        for found in _occurrences(utterance, by_first):
            first = 0 if found.is_said else 2
            rows[found.phrase][first] += 1
            rows[found.phrase][first + 1] += found.stands
            if utterance.status != "empty_reference":
                kinds.update((found.is_said, kind) for kind in found.kinds)
    return PhraseCounts(
        counts=tuple(PhraseCount(spelling[units], *row) for units, row in rows.items()),
        units=sum(count for (is_said, _), count in kinds.items() if is_said),
        substitutions=kinds[True, "substitute"],
        deletions=kinds[True, "delete"],
        insertions=kinds[False, "insert"],
    )


def phrase_table(name: str, found: PhraseCounts, score: Score) -> Table:
    """Cut `score` into the units of phrases and all others; `name` says what the phrases are."""
    within = Slice(
        f"in {name}", None, found.units, found.substitutions, found.deletions, found.insertions
    )
    others = Slice(
        name="other units",
        utterances=None,
        units=score.units - found.units,
        substitutions=score.substitutions - found.substitutions,
        deletions=score.deletions - found.deletions,
        insertions=score.insertions - found.insertions,
    )
    note = f"Units of listed {name} that were said, and insertions within {name} that were heard."
    return Table(name, (within, others) if found.units or found.insertions else (others,), note)


def capitalised_words(texts: Iterable[str]) -> list[str]:
    """Return words that are likely names: capitalised within sentences, and never in lower case.

    A guess from spelling for languages that capitalise names and little else (it takes every noun
    in German). Give it raw references; texts that are all capitals or have none say nothing. The
    first word of a sentence, "I" and its contractions are no evidence. Sorted.
    """
    names: set[str] = set()
    common: set[str] = set()
    for text in texts:
        end = None
        for match in () if text.isupper() else WORD.finditer(text):
            word = match.group()
            starts = end is None or SENTENCE_END.search(text[end : match.start()])
            end = match.end()
            if word[0].islower():
                common.add(word.casefold())
            elif word[0].isupper() and not starts:
                names.add(word)
    return sorted(name for name in names if name.casefold() not in common and not _is_i(name))


def _is_i(word: str) -> bool:
    return re.split("['\u2019]", word)[0] == "I"


def _units_of(phrase: str, score: Score) -> Units:
    units = score.units_of(phrase)
    if not units:
        raise ValueError(f"phrase {phrase!r} has no unit left after {score.normalizer}")
    return units


def _occurrences(
    utterance: ScoredUtterance, by_first: Mapping[str, Sequence[Units]]
) -> Iterator[_Occurrence]:
    """Yield the occurrences of phrases on both sides, with what the alignment says of them."""
    if by_first.keys().isdisjoint(utterance.reference + utterance.hypothesis):
        return
    spans_said = list(_find(utterance.reference, by_first))
    spans_heard = list(_find(utterance.hypothesis, by_first))
    steps = utterance.steps() if spans_said or spans_heard else []
    said = [place for place, step in enumerate(steps) if step.reference is not None]
    heard = [place for place, step in enumerate(steps) if step.hypothesis is not None]
    for is_said, places, spans in ((True, said, spans_said), (False, heard, spans_heard)):
        for start, phrase in spans:
            inside = places[start : start + len(phrase)]
            kinds = [steps[place].kind for place in inside]
            together = inside[-1] - inside[0] == len(inside) - 1
            stands = together and set(kinds) == {"equal"}
            yield _Occurrence(phrase, is_said, stands, kinds)


def _find(units: Units, by_first: Mapping[str, Sequence[Units]]) -> Iterator[tuple[int, Units]]:
    """Yield place and phrase of each occurrence: from left to right, the longest that fits."""
    start = 0
    while start < len(units):
        for phrase in by_first.get(units[start], ()):
            if units[start : start + len(phrase)] == phrase:
                yield start, phrase
                start += len(phrase)
                break
        else:
            start += 1
