"""Numbers in digits, read aloud in Chinese characters.

Which runs of digits are read one by one ("2024年") and which as a quantity is for the caller to
say. cn2an turns quantities into characters; it is asked for whole numbers of at most 16 digits
only, because it cuts longer fractions and refuses longer numbers.
"""

import re
from collections.abc import Callable
from functools import lru_cache

SPELLED = str.maketrans("0123456789", "零一二三四五六七八九")
MOST_DIGITS = 16

THOUSANDS_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?([%‰]?)")
SHARES = {"%": "百分之", "‰": "千分之", "": ""}

# Takes the digits of a whole number and the text behind them, and gives what is said.
ReadInteger = Callable[[str, str], str]


def read_numbers(text: str, read_integer: ReadInteger) -> str:
    """Write the numbers of `text` as they are said: 3.5% is 百分之三点五.

    Args:
        text: digits are ASCII; commas between thousands are dropped.
        read_integer: how a number without a fraction is said; with one, it is a quantity.
    """

    def read(match: re.Match[str]) -> str:
        whole, fraction, share = match.groups()
        if fraction is not None:
            said = f"{quantity(whole)}点{spelled(fraction)}"
        elif share:
            said = quantity(whole)
        else:
            said = read_integer(whole, match.string[match.end() :])
        return SHARES[share] + said

    return NUMBER.sub(read, THOUSANDS_COMMA.sub("", text))


def spelled(digits: str) -> str:
    """Read `digits` one by one: 2024 is 二零二四."""
    return digits.translate(SPELLED)


@lru_cache(maxsize=4096)
def quantity(digits: str) -> str:
    """Read `digits` as a quantity: 105 is 一百零五. Above 16 digits they are read one by one."""
    import cn2an  # type: ignore[import-untyped]

    if len(digits) > MOST_DIGITS:
        return spelled(digits)
    said: str = cn2an.an2cn(digits, "low")
    return said
