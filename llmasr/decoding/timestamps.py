"""Word times and confidences: what the language model wrote, laid over the fires of CIF.

Every fire ends one token of the draft, so the draft has times. The text of the language model is
aligned to the draft by edit distance: a token with a counterpart takes the time of its fire, and
inserted tokens share the time up to the next fire. The result is monotone, without overlap and
inside the audio by construction.

Pure arithmetic over token ids and seconds: this file knows no audio and calls no network.
N tokens of the language model, M fires.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llmasr.decoding.drafts import Speller, spell
from llmasr.decoding.hypothesis import Hypothesis
from llmasr.text import has_han
from llmasr.transcript import Word

# A fire after a silence does not mean that its token lasted all the silence.
MAX_TOKEN_SECONDS = 1.0
MIN_TOKEN_SECONDS = 0.05


class Interval(NamedTuple):
    """Seconds."""

    start: float
    end: float


def times_at(ends: Sequence[float], fires: Sequence[float]) -> list[float]:
    """Turn places counted in fires into seconds; between two fires time runs evenly.

    Args:
        ends: places above 0, as in :class:`llmasr.decoding.drafts.Heard`.
        fires: seconds, not decreasing; at least one for every place.
    """
    seconds = []
    for end in ends:
        fire = max(math.ceil(end) - 1, 0)
        since = max(fires[fire - 1] if fire else 0.0, fires[fire] - MAX_TOKEN_SECONDS)
        seconds.append(fires[fire] - (fire + 1 - end) * (fires[fire] - since))
    return seconds


def words_from(hypothesis: Hypothesis, tokenizer: Speller, duration: float) -> list[Word]:
    """Join tokens into words at spaces and at Han pieces; times in [0, duration]."""
    ids = list(hypothesis.token_ids)
    fires = _inside(hypothesis.draft_times, duration)
    intervals = token_intervals(align(ids, hypothesis.draft_ids), fires, duration)
    words = []
    parts = spell(tokenizer, ids)
    for first, last in _word_bounds(parts):
        text = "".join(parts[first:last]).strip()
        if text:
            confidence = _confidence(hypothesis.log_probs[first:last])
            words.append(Word(text, intervals[first].start, intervals[last - 1].end, confidence))
    return words


def align(tokens: Sequence[int], draft: Sequence[int]) -> list[int | None]:
    """Return the index in the draft of each token's counterpart, None for an inserted token.

    The alignment has the fewest edits, and a substitution has a counterpart. Indices increase.
    """
    cost = [list(range(len(draft) + 1))]
    for row, token in enumerate(tokens, start=1):
        above, here = cost[-1], [row]
        for column, other in enumerate(draft, start=1):
            replaced = above[column - 1] + (token != other)
            here.append(min(replaced, above[column] + 1, here[-1] + 1))
        cost.append(here)
    return _walk_back(cost, tokens, draft)


def token_intervals(
    counterparts: Sequence[int | None], fires: Sequence[float], duration: float
) -> list[Interval]:
    """Give each token its seconds.

    Aligned tokens end at their fire; inserted ones share the time up to the next fire.

    Args:
        counterparts: indices into `fires`, increasing, or None; as from `align`.
        fires: seconds, not decreasing, in [0, duration].
        duration: seconds of audio.
    """
    intervals: list[Interval] = []
    waiting = 0  # inserted tokens that have no time yet
    for fire in counterparts:
        if fire is None:
            waiting += 1
            continue
        since = max(fires[fire - 1] if fire else 0.0, intervals[-1].end if intervals else 0.0)
        intervals += _share(since, fires[fire], waiting + 1)
        waiting = 0
    if waiting:
        intervals = _after_last_fire(intervals, waiting, duration)
    return intervals


def _after_last_fire(intervals: list[Interval], count: int, duration: float) -> list[Interval]:
    """Add tokens for which no fire is left, after the last or, if no time is left, inside it."""
    since = intervals[-1].end if intervals else 0.0
    if intervals and duration - since < MIN_TOKEN_SECONDS * count:
        return intervals[:-1] + _share(intervals[-1].start, duration, count + 1)
    until = min(duration, since + MAX_TOKEN_SECONDS * count)
    return intervals + _share(since, until, count)


def _share(since: float, until: float, count: int) -> list[Interval]:
    """Cut the time before `until` into equal parts, none longer than a token may be."""
    step = min((until - since) / count, MAX_TOKEN_SECONDS)
    edges = [max(until - step * left, since) for left in range(count, 0, -1)] + [until]
    return [Interval(*edge) for edge in pairwise(edges)]


def _walk_back(
    cost: list[list[int]], tokens: Sequence[int], draft: Sequence[int]
) -> list[int | None]:
    """Read one cheapest path from the table of costs; substitutions are preferred."""
    counterparts: list[int | None] = [None] * len(tokens)
    row, column = len(tokens), len(draft)
    while row and column:
        replaced = cost[row - 1][column - 1] + (tokens[row - 1] != draft[column - 1])
        if cost[row][column] == replaced:
            row, column = row - 1, column - 1
            counterparts[row] = column
        elif cost[row][column] == cost[row][column - 1] + 1:
            column -= 1
        else:
            row -= 1
    return counterparts


def _inside(times: Sequence[float], duration: float) -> list[float]:
    """Clip times to the audio and remove rounding steps backwards."""
    latest, result = 0.0, []
    for time in times:
        latest = max(latest, min(time, duration))
        result.append(latest)
    return result


def _word_bounds(parts: Sequence[str]) -> list[tuple[int, int]]:
    """Return first token and last, exclusive, of each word; Han has no spaces, so pieces count."""
    starts = [0] if parts else []
    for index, (before, part) in enumerate(pairwise(parts), start=1):
        if part[:1].isspace() or (part and (has_han(part) or has_han(before))):
            # Ids that hold the first bytes of a letter spell nothing, and belong to it.
            while not parts[index - 1] and index - 1 > starts[-1]:
                index -= 1
            starts.append(index)
    return list(zip(starts, [*starts[1:], len(parts)], strict=False))


def _confidence(log_probs: Sequence[float]) -> float:
    return min(math.exp(sum(log_probs) / len(log_probs)), 1.0)
