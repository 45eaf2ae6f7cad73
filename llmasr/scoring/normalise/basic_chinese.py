"""`zh-basic`: width, case and punctuation, which no Chinese speaker can hear.

The steps are shared by all normalisers for Chinese.
"""

import re
import sys
import unicodedata

from llmasr.scoring.normalise.normalizer import Normalizer, content_hash

# A sign that is said is no punctuation: the point of 3.5, the share of 50%, the apostrophe of
# don't. Combining marks are kept: some letters have no composed form.
SIGN = re.compile(
    r"(?!(?<=[0-9])\.(?=[0-9]))(?!(?<=[0-9])[%‰])(?!(?<=[a-z])'(?=[a-z]))[^\w\u0300-\u036f]|_"
)
APOSTROPHES = str.maketrans("\u2018\u2019\u02bc", "'''")


def zh_basic() -> Normalizer:
    """Make `zh-basic`."""
    return Normalizer("zh-basic-1", content_hash(sys.modules[__name__]), normalise_basic)


def normalise_basic(text: str) -> str:
    """Make width and case one, and drop punctuation. Digits, script and all words stay."""
    return without_signs(one_width(text))


def one_width(text: str) -> str:
    """Make full-width and other compatible forms (NFKC) plain ones, and letters lower-case."""
    text = unicodedata.normalize("NFKC", text).lower().translate(APOSTROPHES)
    # Lower case may leave a letter and a mark that have one form together.
    return unicodedata.normalize("NFKC", text)


def without_signs(text: str) -> str:
    """Put one space in the place of punctuation, signs and spaces that follow one another."""
    return " ".join(SIGN.sub(" ", text).split())
