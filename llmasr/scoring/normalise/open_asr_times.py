"""Times of day for `open-asr`: "half past ten" and "10:30" are one, and so are "ten o'clock", "10".

Source: huggingface/open_asr_leaderboard, `normalizer/normalizer.py` as of 2026-09, restated.
"""

import re
from collections.abc import Callable
from typing import Any

LAST_HOUR = 23
QUARTER, HALF, HOUR = 15, 30, 60

CLOCK = r"o\s*['\u2019]?\s*clock"
NOT_IN_WORD = r"(?<![\w.:])"
WRITTEN = re.compile(r"(?<![\w:./])([01]?[0-9]|2[0-3]):([0-5][0-9])(?![\w:]|\.[0-9])")


def times_rule(numbers: Any) -> Callable[[str], str]:
    """Return the function that writes the times of a lower-case text as h or h:mm.

    Args:
        numbers: Whisper's `EnglishNumberNormalizer`: its words, and a call that reads them.
    """
    number = _number_pattern(numbers.ones)
    relative = re.compile(
        rf"{NOT_IN_WORD}(half|(?:a\s+)?quarter|{number}\s+minutes?)"
        rf"\s+(past|after|to|before)\s+({number})(?:\s+{CLOCK})?\b"
    )
    full_hour = re.compile(rf"{NOT_IN_WORD}({number})\s+{CLOCK}\b")

    def read(text: str) -> int:
        digits = numbers(text.replace("-", " ")).strip()
        return 1 if digits == "one" else int(digits)

    def write_relative(match: re.Match[str]) -> str:
        amount, relation, hour = match.groups()
        return _shifted(_minutes(amount, read), relation, read(hour)) or match.group()

    def write_full(match: re.Match[str]) -> str:
        hour = read(match.group(1))
        return f"{hour}:00" if hour <= LAST_HOUR else match.group()

    def apply(text: str) -> str:
        text = full_hour.sub(write_full, relative.sub(write_relative, text))
        return WRITTEN.sub(_without_zero_minutes, text)

    return apply


def _number_pattern(ones: dict[str, int]) -> str:
    """Return a pattern of the numbers 0 to 59, in digits or words."""
    digits = "|".join(word for word, value in ones.items() if value < 10)
    tens = rf"(?:twenty|thirty|forty|fifty)(?:[\s-]+(?:{digits}))?"
    return rf"(?:[0-9]{{1,2}}|{tens}|{'|'.join(ones)}|zero)"


def _minutes(amount: str, read: Callable[[str], int]) -> int:
    if amount == "half":
        return HALF
    if amount.endswith("quarter"):
        return QUARTER
    return read(re.sub(r"\s+minutes?$", "", amount))


def _shifted(minutes: int, relation: str, hour: int) -> str | None:
    """Write the time that is `minutes` past or to `hour`; None if there is no such time."""
    if hour > LAST_HOUR or minutes >= HOUR:
        return None
    if relation in ("to", "before") and minutes:
        # One before 1 is 12 on a clock of twelve hours, and one before 0 is 23.
        hour = (hour - 2) % 12 + 1 if 1 <= hour <= 12 else (hour - 1) % 24
        minutes = HOUR - minutes
    return f"{hour}:{minutes:02d}"


def _without_zero_minutes(match: re.Match[str]) -> str:
    hour, minutes = int(match.group(1)), int(match.group(2))
    return f"{hour}:{minutes:02d}" if minutes else str(hour)
