"""Whisper's English and basic rules, as the implementation in transformers applies them.

Source: Radford et al. 2022 (arXiv 2212.04356), appendix C. transformers keeps the rules but not the
table of British and American spellings, which is read from the package whisper-normalizer. The
rules of that package are not used: those of 0.1.15 go beyond Whisper's ("cause" is "because").

What the English rules do that a reader may not expect; the tests hold each:

- Text in (), [] and <> is deleted, so an error inside them does not count.
- "o" is a zero: "O'Neil" is "0 neil", "o'clock" is "0 clock".
- "a hundred and one" is "a 101"; "U.S.A." is "u s a"; "dog's" is "dog is", also when it owns.
- The table has two broken rows: "archaeology" becomes "archeology" with a left-over HTML tag, and
  "flyer / flier" is a row that no single word can match.

Neither adds a space between Han characters, except `whisper-basic-letters`.
"""

import inspect
import json
import sys
from collections.abc import Callable
from importlib import resources

from llmasr.scoring.normalise.normalizer import Normalizer, content_hash, needed


def whisper_en() -> Normalizer:
    """Make `whisper-en`."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    table = spelling_table()
    parts = (rules_source(), json.dumps(table, sort_keys=True))
    return _normalizer("whisper-en-1", EnglishTextNormalizer(table), *parts)


def whisper_basic() -> Normalizer:
    """Make `whisper-basic`: lower case, no signs, nothing in brackets; diacritics stay."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return _normalizer("whisper-basic-1", BasicTextNormalizer(), rules_source())


def whisper_basic_letters() -> Normalizer:
    """Make `whisper-basic-letters`, by which Whisper scores languages that write no spaces."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    rule = BasicTextNormalizer(split_letters=True)
    return _normalizer("whisper-basic-letters-1", rule, rules_source())


def spelling_table() -> dict[str, str]:
    """Return Whisper's table of British spellings and their American ones."""
    with needed("whisper-normalizer"):
        folder = resources.files("whisper_normalizer")
    text = (folder / "normalizers" / "english.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    return table


def rules_source() -> str:
    """Return the source of Whisper's rules, for a hash: versions change more often than rules."""
    from transformers.models.whisper import english_normalizer

    return inspect.getsource(english_normalizer)


def _normalizer(identifier: str, rule: Callable[[str], str], *parts: str) -> Normalizer:
    return Normalizer(identifier, content_hash(sys.modules[__name__], identifier, *parts), rule)
