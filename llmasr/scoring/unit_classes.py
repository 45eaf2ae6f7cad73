"""What a unit or a text is written in: Han or Latin letters, digits, words for numbers.

Only the spelling is looked at. "one" in "no one" is called a number word, and so is the first
character of 一样: a table by these classes is a hint where to look, not a parse.
"""

import re

from llmasr.scoring.units import HAN

HAN_LETTER = re.compile(f"[{HAN}]")
LATIN_LETTER = re.compile(
    "[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]"
)
SCRIPTS = {"Han": HAN_LETTER, "Latin": LATIN_LETTER}

NUMBER_FORMS = ("digits", "number word", "Han numeral", "no number")
ENGLISH_NUMBERS = frozenset(
    [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
    ]
)
HAN_NUMBERS = frozenset("零〇一二三四五六七八九十百千万萬亿億两兩")


def script_of(text: str) -> str:
    """Return "Han", "Latin", "Han and Latin", or "other" if `text` has letters of neither."""
    found = [name for name, letters in SCRIPTS.items() if letters.search(text)]
    return " and ".join(found) or "other"


def number_form(unit: str) -> str:
    """Return how `unit` writes a number, one of `NUMBER_FORMS`."""
    if any(character.isdecimal() for character in unit):
        return "digits"
    if all(part in ENGLISH_NUMBERS for part in unit.casefold().split("-")):
        return "number word"
    if unit and all(character in HAN_NUMBERS for character in unit):
        return "Han numeral"
    return "no number"
