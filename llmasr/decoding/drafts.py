"""Drafts: guesses of an answer, and what is left of a guess once the answer has begun otherwise.

Pure arithmetic over token ids; this file calls no network.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol


class Heard(NamedTuple):
    """The CIF hypothesis in ids of the language model."""

    ids: list[int]
    # Where each id ends, counted in fires: 2.5 is in the middle of the third.
    ends: list[float]


# Turns the ids of the CIF hypothesis, one a fire, into ids of the language model.
DraftSource = Callable[[Sequence[int]], Heard]


class Speller(Protocol):
    """Ids to text."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``."""
        ...


class Encoder(Speller, Protocol):
    """Text to ids, and back."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special ids."""
        ...


def same_ids(hypothesis: Sequence[int]) -> Heard:
    """Return the CIF hypothesis itself: speech interface and language model share a vocabulary."""
    return Heard(list(hypothesis), [float(fire) for fire in range(1, len(hypothesis) + 1)])


def retokenised(speech: Speller, language: Encoder) -> DraftSource:
    """Return a source of drafts for a language model with a vocabulary of its own.

    The letters of a fire share its time equally.
    """

    def source(hypothesis: Sequence[int]) -> Heard:
        fire_letters = list(accumulate(map(len, spell(speech, hypothesis))))
        ids = language.encode(speech.decode(list(hypothesis)))
        token_letters = accumulate(map(len, spell(language, ids)))
        return Heard(ids, [_fires_at(letter, fire_letters) for letter in token_letters])

    return source


def spell(tokenizer: Speller, ids: Sequence[int]) -> list[str]:
    """Return what each id adds to the text of all, which these parts make up when joined.

    A space belongs to the word after it. Part of a letter, as one byte of several, adds nothing;
    the id that completes the letter adds it.
    """
    text = tokenizer.decode(list(ids))
    ends = [0]
    for count in range(1, len(ids)):
        begun = tokenizer.decode(list(ids[:count])).rstrip()
        ends.append(max(ends[-1], _num_shared(begun, text)))
    ends += [len(text)] * bool(ids)
    return [text[start:end] for start, end in pairwise(ends)]


def _num_shared(one: str, other: str) -> int:
    """Return how many letters two texts share at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _fires_at(letter: int, fire_letters: Sequence[int]) -> float:
    """Return how many fires it takes to say so many letters."""
    if not fire_letters or letter >= fire_letters[-1]:
        return float(len(fire_letters))
    fire = bisect_left(fire_letters, letter)
    before = fire_letters[fire - 1] if fire else 0
    return fire + (letter - before) / (fire_letters[fire] - before)


class Draft:
    """A guess of an answer that is realigned whenever the answer departs from it.

    The answer so far is compared by edit distance with every beginning of the guess; what follows
    the nearest beginning is the guess of the rest. So an error in the guess costs its own token,
    and a missing or superfluous token does not shift all that follow. What the language model said
    to the guess behind an error mends it.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._start = 0  # of the last rest
        self._forget()

    def rest(self, answer: Sequence[int]) -> list[int]:
        """Return the guess of what follows ``answer``, which extends that of the last call."""
        for token in answer[self._answered :]:
            self._follow(token)

        def distance(end: int) -> tuple[int, bool, int]:
            # Between equals: an end at the token that was just written, then a substitution.
            met = end > 0 and self.ids[end - 1] == answer[-1]
            return self._costs[end], not met, abs(end - len(answer))

        self._start = min(range(len(self._costs)), key=distance) if answer else 0
        return self.ids[self._start :]

    def mend(self, said: Sequence[int | None], error: int) -> None:
        """Replace what was guessed behind an error by what was said there.

        Args:
            said: what the language model would have written before each token of the last rest, as
                far as it was read; None where that is not to be trusted.
            error: the first place at which they differ.
        """
        for place in range(error + 1, len(said)):
            token = said[place]
            guessed = self.ids[self._start + place - 1]
            # Said again after something else was guessed: that was one token too many.
            is_said_again = token == said[place - 1] != guessed
            if token is not None and not is_said_again:
                self.ids[self._start + place] = token
        self._forget()

    def _forget(self) -> None:
        """Compare from the beginning of the answer, next time."""
        self._answered = 0
        # Edits between the first `_answered` tokens of the answer and each beginning of the guess.
        self._costs = list(range(len(self.ids) + 1))

    def _follow(self, token: int) -> None:
        self._answered += 1
        above, here = self._costs, [self._answered]
        for column, other in enumerate(self.ids, start=1):
            replaced = above[column - 1] + (token != other)
            here.append(min(replaced, above[column] + 1, here[-1] + 1))
        self._costs = here
