"""Compounds: words that two texts differ in only by where the spaces are.

"white paper" against "whitepaper" is two errors to a plain word error rate, and none to the Open
ASR leaderboard. This file only moves spaces in hypotheses; it counts nothing.

R words in a reference, H words in its hypothesis.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

# By the ends of both sides, how many words either side has in the compounds that end there.
Compounds = dict[tuple[int, int], list[tuple[int, int]]]


def respell(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[str, ...]:
    """Give the words of `hypothesis` the spaces of `reference` where nothing else differs.

    One word against several that read the same without spaces is free, in either direction;
    several against several is not. An alignment with the fewest errors decides where. The errors
    left are those of kaldialign's `merge_compounds=True` (up to 0.4 % of pairs, and never more, on
    random words of two letters), and the reference keeps its words, as it does there.

    Args:
        reference: words, not empty ones.
        hypothesis: likewise. Memory is 4 R H bytes if the pair has a compound.
    """
    compounds = _compounds(reference, hypothesis)
    if not compounds:
        return tuple(hypothesis)
    errors = _errors(reference, hypothesis, compounds)
    words: list[str] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        taken, heard = _last_step(errors, reference, hypothesis, compounds, i, j)
        chosen = reference[i - taken : i] if taken + heard > 2 else hypothesis[j - heard : j]
        words.extend(reversed(chosen))
        i, j = i - taken, j - heard
    return tuple(reversed(words))


def _compounds(reference: Sequence[str], hypothesis: Sequence[str]) -> Compounds:
    found: Compounds = defaultdict(list)
    for end, count, at in _matches(reference, hypothesis):
        found[end, at].append((count, 1))
    for end, count, at in _matches(hypothesis, reference):
        found[at, end].append((1, count))
    return dict(found)


def _matches(parts: Sequence[str], wholes: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Find every run of `parts` that is a word of `wholes`: end and length of run, end of word."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(wholes, start=1):
        places[word].append(place)
    longest = max(map(len, wholes), default=0)
    for start in range(len(parts)):
        run = parts[start]
        for end in range(start + 2, len(parts) + 1):
            run += parts[end - 1]
            if len(run) > longest:
                break
            for place in places.get(run, ()):
                yield end, end - start, place


def _errors(
    reference: Sequence[str], hypothesis: Sequence[str], compounds: Compounds
) -> np.ndarray:
    """Return the fewest errors between any two beginnings: int32 [R + 1, H + 1]."""
    numbers = {word: i for i, word in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    heard = np.array([numbers[word] for word in hypothesis])  # [H]
    steps = np.arange(len(hypothesis) + 1, dtype=np.int32)
    errors = np.empty((len(reference) + 1, len(hypothesis) + 1), dtype=np.int32)
    errors[0] = steps
    by_row: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for (i, j), sizes in compounds.items():
        by_row[i].extend((j, *size) for size in sizes)
    for i, word in enumerate(reference, start=1):
        row = errors[i]
        row[:] = errors[i - 1] + 1
        row[1:] = np.minimum(row[1:], errors[i - 1, :-1] + (heard != numbers[word]))
        for j, taken, joined in by_row[i]:
            row[j] = min(row[j], errors[i - taken, j - joined])
        # Insertions: the best cell to the left, one error a word away.
        row[:] = np.minimum.accumulate(row - steps) + steps
    return errors


def _last_step(
    errors: np.ndarray,
    reference: Sequence[str],
    hypothesis: Sequence[str],
    compounds: Compounds,
    i: int,
    j: int,
) -> tuple[int, int]:
    """Return how many words of either side the last step of a best alignment takes."""
    # A compound comes last: joining words without need would make insertions fewer.
    if i and j and errors[i, j] == errors[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
        return 1, 1
    if i and errors[i, j] == errors[i - 1, j] + 1:
        return 1, 0
    if j and errors[i, j] == errors[i, j - 1] + 1:
        return 0, 1
    return next(
        (taken, heard)
        for taken, heard in compounds[i, j]
        if errors[i, j] == errors[i - taken, j - heard]
    )
