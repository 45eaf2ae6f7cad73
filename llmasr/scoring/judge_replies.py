"""Find the two scores in what a judge wrote, or say that they are not there.

Judges are asked for two numbers on the first line and often answer otherwise. A wrong number in a
mean is worse than a missing one, so text counts as scores only if it says nothing else:

1. The first line with two numbers and no words beyond those of scoring ("score", "and",
   "respectively", "assistant 1", their Chinese counterparts ...): "8 9", "Scores: 8/10, 9/10".
2. Else the first lines in a row, of such words alone, with two numbers together.
3. Else one number right behind each label: "Assistant 1: 8/10, since it ...".
4. Else two numbers of the form "8/10" or "8 out of 10", if the whole reply has no third and names
   no second answer before the first.

A number is a score from 1 to 10, decimals allowed; anything outside spoils its line. What comes
first belongs to the first answer, unless labels say otherwise. Taken away before: the reasoning of
models that print it (`<think>`), the "10" of "out of 10", scales ("1-10"), list numbers, markup.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

LOWEST, HIGHEST = 1.0, 10.0

# What stands for labels and for "out of 10" once they are found: private letters of Unicode.
FIRST, SECOND, OF_TEN = "\ue001", "\ue002", "\ue003"

SPACES, LINE_ENDS = re.compile(r"[^\S\n]+"), re.compile(r" ?\n[ \n]*")
THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
MARKUP = re.compile(r"[*`#>|]|(?<!\w)_+|_+(?!\w)")
SCALE = re.compile(
    r"\bon an? scale (?:of|from)?\s*1\s*(?:to|-|and)\s*10\b"
    r"|\b(?:from|between)\s+1\s*(?:to|-|and)\s*10\b"
    r"|\(\s*1\s*(?:to|[-~–到至])\s*10\s*分?\s*\)"
    r"|满分\s*[为是:]?\s*10\s*分?|10\s*分制",
    re.IGNORECASE,
)
OUT_OF_TEN = re.compile(
    r"(?<=\d)\s*分?\s*(?:/\s*10(?![\d.]*\d)"
    r"|out of (?:a (?:possible |maximum |total )?(?:of )?)?(?:10|ten)\b)\s*分?",
    re.IGNORECASE,
)
LIST_NUMBER = re.compile(r"^\s*\(?(\d+)[.):、](?!\d)(?=\s*\S)", re.MULTILINE)

NOUN = r"(?:(?:assistant|answer|response|candidate|model)s?|助手|助理|回答|答案|回复)"
BOTH = re.compile(
    rf"{NOUN}[\s_-]*(?:1\s*(?:and|&|vs\.?|,|和|与|、)\s*(?:{NOUN}\s*)?2(?!\.?\d)"
    rf"|(?-i:A)\s*(?:and|&|vs\.?|,|和|与|、)\s*(?:{NOUN}\s*)?(?-i:B)(?![A-Za-z]))",
    re.IGNORECASE,
)


def _label(digit: str, letter: str, ordinal: str, chinese: str) -> re.Pattern[str]:
    return re.compile(
        rf"{NOUN}[\s_-]*(?:{digit}(?!\.?\d)|(?-i:{letter})(?![A-Za-z])|{chinese})"
        rf"|\b(?:score|rating)_?{digit}(?!\.?\d)"
        rf"|\b{ordinal} (?:one\b|{NOUN})|第{chinese}个?(?:{NOUN})?"
        rf"|\b(?-i:{letter})(?=\s*[:=])",
        re.IGNORECASE,
    )


LABELS = {FIRST: _label("1", "A", "first", "一"), SECOND: _label("2", "B", "second", "二")}

# \w would take Han characters for the beginning of the number.
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?\d+(?:\.\d+)?(?!\d)")
SCORING_WORDS = re.compile(
    r"\b(?:scores?|scored|ratings?|rated?|points?|marks?|grades?|and|respectively|for|the|an?|of|to"
    r"|is|are|i|would|will|give|assign|my|gets?|receives?|vs|versus|while|it|overall|final|here"
    r"|these|below|as|follows|evaluations?|sure|json|both|two|assistants?|answers?|responses?)\b"
    r"|[’'](?:d|s|ll)\b"
    r"|最终|总体|综合|评分|得分|打分|分数|总分|分别|助手|助理|回答|答案|两位|两个|如下"
    r"|[我给的是为和与而得各分]",
    re.IGNORECASE,
)
WORD_OR_SHARE = re.compile(r"[^\W_]|%")
# What may follow a number behind a label; a noun or a second number may not.
CLOSED = re.compile(rf"\s*(?:{OF_TEN}|分|points?\b|(?!,\s*\d)[^\w\s]|\n|\Z)", re.IGNORECASE)


class Scores(NamedTuple):
    """The two numbers of a judge, 1 to 10 each."""

    first: float
    second: float


def parse_scores(reply: str) -> Scores | None:
    """Return the scores of the first and the second answer, or None if they are not found.

    The rule stands at the top of this file.
    """
    text = _clean(reply)
    lines = [line for line in text.splitlines() if line.strip()]
    candidates = [*lines, *_blocks(lines)]
    pairs = (_pair(candidate) for candidate in candidates if _is_scoring(candidate))
    return next((pair for pair in pairs if pair), None) or _behind_labels(text) or _of_ten(text)


def _clean(reply: str) -> str:
    """Take away what is no score, and put marks for labels and for "out of 10"."""
    # long runs of space would make the patterns slow
    text = LINE_ENDS.sub("\n", SPACES.sub(" ", unicodedata.normalize("NFKC", reply)))
    text = THOUGHT.sub("\n", text)
    text = SCALE.sub(" ", MARKUP.sub(" ", text))
    text = _without_list_numbers(OUT_OF_TEN.sub(f"{OF_TEN} ", text))
    text = BOTH.sub(f" {FIRST} {SECOND} ", text)
    for mark, label in LABELS.items():
        text = label.sub(f" {mark} ", text)
    return text


def _without_list_numbers(text: str) -> str:
    """Remove numbers that begin lines and count from 1; others that begin lines are scores."""
    expected = 1

    def replace(match: re.Match[str]) -> str:
        nonlocal expected
        if int(match[1]) != expected:
            return match[0]
        expected += 1
        return "\n"

    return LIST_NUMBER.sub(replace, text)


def _is_scoring(text: str) -> bool:
    """Whether `text` has no words but those of scoring."""
    remainder = SCORING_WORDS.sub(" ", NUMBER.sub(" ", text))
    return not WORD_OR_SHARE.search(remainder)


def _blocks(lines: list[str]) -> Iterator[str]:
    """Join the lines in a row that are of scoring words alone."""
    block: list[str] = []
    for line in [*lines, "end"]:
        if _is_scoring(line):
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []


def _pair(text: str) -> Scores | None:
    """Return the two numbers of `text` in the order of its labels, if it has exactly two."""
    numbers = [float(number) for number in NUMBER.findall(text)]
    # one label and two numbers: the parts of one score
    if len(numbers) != 2 or (FIRST in text) != (SECOND in text):
        return None
    if SECOND in text and text.index(SECOND) < text.index(FIRST):
        numbers.reverse()
    return _checked(numbers[0], numbers[1])


def _behind_labels(text: str) -> Scores | None:
    first, second = (_behind(mark, text) for mark in (FIRST, SECOND))
    return None if first is None or second is None else _checked(first, second)


def _behind(mark: str, text: str) -> float | None:
    """Return the first number that follows a label with only words of scoring in between."""
    for part in re.findall(f"{mark}([^{FIRST}{SECOND}]*.?)", text, re.DOTALL):
        number = NUMBER.search(part)
        if number and _is_scoring(part[: number.start()]) and CLOSED.match(part, number.end()):
            return float(number[0])
    return None


def _of_ten(text: str) -> Scores | None:
    found = re.findall(rf"({NUMBER.pattern}){OF_TEN}", text)
    if SECOND in text.partition(FIRST)[0]:
        return None
    return _checked(float(found[0]), float(found[1])) if len(found) == 2 else None


def _checked(first: float, second: float) -> Scores | None:
    in_range = all(LOWEST <= score <= HIGHEST for score in (first, second))
    return Scores(first, second) if in_range else None
