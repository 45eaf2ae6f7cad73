"""What is counted: words, characters, or a mixture of both for speech that changes script.

A unit is whatever one error takes away, and its definition belongs to the metric:

- "wer", word error rate: what stands between white space.
- "cer", character error rate: every Unicode character that is not white space, so that spaces
  between Han characters make no difference.
- "mer", mixed error rate of Mandarin mixed with English: every Han character, and every word of
  another script. (It is not the "match error rate" of other tools.)
"""

import re

UNIT_NAMES = {"wer": "words", "cer": "characters", "mer": "units"}

# Ideographs with their extensions and compatibility forms, and the signs for "again" and zero.
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
MIXED = re.compile(rf"[{HAN}]|[^\s{HAN}]+")


def split_units(text: str, metric: str) -> list[str]:
    """Return the units of `text` in order; `metric` is a key of `UNIT_NAMES`."""
    if metric == "wer":
        return text.split()
    if metric == "cer":
        return list("".join(text.split()))
    if metric == "mer":
        return MIXED.findall(text)
    raise ValueError(f"metric is {metric!r}; allowed: {', '.join(UNIT_NAMES)}")
