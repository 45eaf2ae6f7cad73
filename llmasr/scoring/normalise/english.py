"""`llmasr-en`: our rule for English. Letters, digits and inner apostrophes; no rewriting.

Numbers, contractions and spellings stay as they are, so that no error can hide behind a rule.
"""

import re
import sys
import unicodedata

from llmasr.scoring.normalise.normalizer import Normalizer, content_hash

APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\uff07`\u00b4"), "'")
# Combining marks are kept: some lower-case letters have no composed form.
PUNCTUATION = re.compile(r"[^\w\u0300-\u036f' ]|_")
OUTER_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


def llmasr_en() -> Normalizer:
    """Make `llmasr-en`."""
    return Normalizer("llmasr-en-1", content_hash(sys.modules[__name__]), normalise_english)


def normalise_english(text: str) -> str:
    """Lower-case `text`, make apostrophes one kind, and drop punctuation.

    Apostrophes stay inside words ("don't") and go around them; every other sign becomes a space.
    """
    text = unicodedata.normalize("NFC", text).lower().translate(APOSTROPHES)
    text = OUTER_APOSTROPHE.sub(" ", PUNCTUATION.sub(" ", text))
    return " ".join(text.split())
