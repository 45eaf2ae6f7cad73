"""Drafts: guesses of an answer, and what is left of a guess once the answer has begun otherwise.

Pure arithmetic over token ids; this file calls no network.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

# Turns the ids of the CIF hypothesis into ids of the language model.
DraftSource = Callable[[Sequence[int]], list[int]]


class Decoder(Protocol):
    """Ids to text."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``."""
        ...


class Encoder(Protocol):
    """Text to ids."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special ids."""
        ...


def same_ids(hypothesis: Sequence[int]) -> list[int]:
    """Return the CIF hypothesis itself: speech interface and language model share a vocabulary."""
    return list(hypothesis)


def retokenised(speech: Decoder, language: Encoder) -> DraftSource:
    """Return a source of drafts for a language model with a vocabulary of its own."""
    return lambda hypothesis: language.encode(speech.decode(list(hypothesis)))


class Draft:
    """A guess of an answer that is realigned whenever the answer departs from it.

    The answer so far is compared by edit distance with every beginning of the guess; what follows
    the nearest beginning is the guess of the rest. So an error in the guess costs its own token,
    and a missing or superfluous token does not shift all that follow.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._answered = 0
        # Edits between the first `_answered` tokens of the answer and each beginning of the guess.
        self._costs = list(range(len(self.ids) + 1))

    def rest(self, answer: Sequence[int]) -> list[int]:
        """Return the guess of what follows ``answer``, which extends that of the last call."""
        for token in answer[self._answered :]:
            self._follow(token)
        if not answer:
            return list(self.ids)

        def distance(end: int) -> tuple[int, bool, int]:
            # Between equals: an end at the token that was just written, then a substitution.
            met = end > 0 and self.ids[end - 1] == answer[-1]
            return self._costs[end], not met, abs(end - len(answer))

        return self.ids[min(range(len(self._costs)), key=distance) :]

    def _follow(self, token: int) -> None:
        self._answered += 1
        above, here = self._costs, [self._answered]
        for column, other in enumerate(self.ids, start=1):
            replaced = above[column - 1] + (token != other)
            here.append(min(replaced, above[column] + 1, here[-1] + 1))
        self._costs = here
