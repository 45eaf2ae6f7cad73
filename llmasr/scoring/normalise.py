"""Text normalisers for scoring, each with an id that is printed beside every number.

A change of what a normaliser does needs a new number in its id: two results with the same id were
made by the same rules. Nothing here is used in training or in decoding.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\uff07`\u00b4"), "'")
# Combining marks are kept: some lower-case letters have no composed form.
PUNCTUATION = re.compile(r"[^\w\u0300-\u036f' ]|_")
OUTER_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


@dataclass(frozen=True)
class Normalizer:
    """A rule for making two spellings of the same words equal.

    Attributes:
        id: name and version, printed with every score.
        apply: the rule itself; text in, text out.
    """

    id: str
    apply: Callable[[str], str]


def find_normalizer(name: str) -> Normalizer:
    """Return the normaliser called `name`, one of `NORMALIZERS`."""
    if name not in NORMALIZERS:
        raise ValueError(f"normalizer is {name!r}; allowed: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[name]


def _raw(text: str) -> str:
    return text


def _english(text: str) -> str:
    """Lower-case `text`, make apostrophes one kind, and drop punctuation.

    Apostrophes stay inside words ("don't") and go around them; every other sign becomes a space.
    """
    text = unicodedata.normalize("NFC", text).lower().translate(APOSTROPHES)
    text = OUTER_APOSTROPHE.sub(" ", PUNCTUATION.sub(" ", text))
    return " ".join(text.split())


NORMALIZERS = {
    "raw": Normalizer("raw", _raw),
    "llmasr-en": Normalizer("llmasr-en-1", _english),
}
