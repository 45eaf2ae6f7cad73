"""Transcript text: which script it is in, and how parts of it are joined."""

import re
from collections.abc import Iterable

# CJK ideographs of the basic planes, and what stands between them without spaces.
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
SPACELESS = re.compile(f"{HAN.pattern[:-1]}\u3000-\u303f\uff00-\uffef]")


def has_han(text: str) -> bool:
    """Say whether ``text`` has a Han character."""
    return HAN.search(text) is not None


def join(parts: Iterable[str]) -> str:
    """Join parts of a transcript: with a space, but not between Han characters."""
    text = ""
    for part in parts:
        is_tight = text and part and SPACELESS.match(text[-1]) and SPACELESS.match(part[0])
        text += part if is_tight or not text or not part else f" {part}"
    return text
