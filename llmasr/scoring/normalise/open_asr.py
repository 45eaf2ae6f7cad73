"""`open-asr`: English as the Open ASR leaderboard normalises it, on Whisper's rules.

Source: huggingface/open_asr_leaderboard, `normalizer/normalizer.py` as of 2026-09, restated. The
number rules, the handling of symbols, the contractions and the table of spellings are Whisper's,
from the packages that `whisper-en` uses. Restated here, in the leaderboard's order: fillers, times
of day, "'s", compounds, "oh", spellings, names, acronyms, and signs of money and share.

What is not the same:

- Of the leaderboard's corrections to Whisper's spellings only those in `SPELLINGS` are here.
- Whether a number is open before "oh" is read off the word before, not off the state of the number
  rules.

With a checkout of the leaderboard on PYTHONPATH, `normalizer.data_utils:normalizer` is its very
own rule. Its score also forgives compounds: `open-asr-compounds`. Its averages are means of the
rates of its sets.
"""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from llmasr.scoring.normalise import compounds, open_asr_times, open_asr_words, whisper
from llmasr.scoring.normalise.normalizer import Normalizer, Respell, content_hash

NON_WORDS = re.compile(r"[<\[][^>\]]*[>\]]|\(([^)]+?)\)")
FILLER = re.compile(r"\b(?:" + "|".join(open_asr_words.FILLERS) + r")\b")
SPACE_BEFORE_APOSTROPHE = re.compile(r"\s+'")
COMMA_IN_NUMBER = re.compile(r"(\d),(\d)")
FULL_STOP = re.compile(r"\.(?![0-9])")
LONE_SIGN = re.compile(r"[.$¢€£](?![0-9])|(?<![0-9])%")
DIGITS = re.compile(r"\d+")
NUMERIC_SIGNS = ".%$¢€£"

COMPOUNDS = {
    re.compile(r"\b" + key.replace(" ", r"\s+") + r"\b"): value
    for key, value in open_asr_words.COMPOUNDS.items()
}
NAMES = {
    variant: group.split()[0]
    for group in re.split("[;\n]", open_asr_words.NAMES)
    for variant in group.split()[1:]
}
# A word that the number rules do not know, in the place of an "oh" that is no zero.
OH_AS_WORD = "\ue000"


def open_asr() -> Normalizer:
    """Make `open-asr`."""
    return _normalizer("open-asr-2026.09", None)


def open_asr_compounds() -> Normalizer:
    """Make `open-asr-compounds`."""
    return _normalizer("open-asr-compounds-2026.09", compounds.respell)


def _normalizer(identifier: str, respell: Respell | None) -> Normalizer:
    table = whisper.spelling_table()
    modules = [sys.modules[__name__], open_asr_words, open_asr_times]
    modules += [compounds] if respell else []
    parts = (whisper.rules_source(), json.dumps(table, sort_keys=True))
    identity = content_hash(identifier, *modules, *parts)
    return Normalizer(identifier, identity, _rule(table), respell)


def _rule(table: dict[str, str]) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import (
        EnglishNumberNormalizer,
        EnglishTextNormalizer,
        remove_symbols_and_diacritics,
    )

    numbers = EnglishNumberNormalizer()
    contractions = _contractions(EnglishTextNormalizer(table).replacers)
    spelling = {**table, **open_asr_words.SPELLINGS}
    times = open_asr_times.times_rule(numbers)

    def normalise(text: str) -> str:
        text = FILLER.sub("", NON_WORDS.sub("", text.lower()))
        text = times(SPACE_BEFORE_APOSTROPHE.sub("'", text))
        for pattern, replacement in contractions:
            text = pattern.sub(replacement, text)
        text = FULL_STOP.sub(" ", COMMA_IN_NUMBER.sub(r"\1\2", text))
        text = remove_symbols_and_diacritics(text, keep=NUMERIC_SIGNS)
        for pattern, replacement in COMPOUNDS.items():
            text = pattern.sub(replacement, text)
        text = _read_numbers(text, numbers)
        words = [spelling.get(word, word) for word in text.split()]
        words = _join_letters([NAMES.get(word, word) for word in words])
        return re.sub(r"\s+", " ", LONE_SIGN.sub(" ", " ".join(words)))

    return normalise


def _contractions(whispers: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """Return Whisper's rules with the one for "'s" narrowed, in the same place."""
    narrowed = (r"\b(" + open_asr_words.WITH_IS + r")'s\b", r"\1 is")
    rules = [narrowed if key == r"'s\b" else (key, value) for key, value in whispers.items()]
    return [(re.compile(key), value) for key, value in rules]


def _read_numbers(text: str, numbers: Any) -> str:
    """Write numbers in digits; "oh" is a zero only inside a number or before two digits."""
    words = text.split()
    digit_words = {*numbers.zeros, *numbers.ones, *numbers.tens}
    digits = [word in digit_words or DIGITS.fullmatch(word) is not None for word in words]
    digits += [False, False]
    for i, word in enumerate(words):
        opened = i > 0 and (digits[i - 1] or words[i - 1] in numbers.multipliers)
        if word == "oh" and not (digits[i + 1] and (opened or digits[i + 2])):
            words[i], digits[i] = OH_AS_WORD, False
    return numbers(" ".join(words)).replace(OH_AS_WORD, "oh")


def _join_letters(words: list[str]) -> list[str]:
    """Join single letters and digits that follow one another: "b b c" is "bbc".

    Two are enough, three where "a" or "i" is among them, for those are words.
    """
    joined: list[str] = []
    run: list[str] = []
    for word in [*words, ""]:
        if len(word) == 1 and word.isalnum():
            run.append(word)
            continue
        enough = 3 if {"a", "i"} & set(run) else 2
        joined += ["".join(run)] if len(run) >= enough else run
        joined += [word] if word else []
        run = []
    return joined
