"""Signs that an answer is not what was said: loops, bursts of insertions, missing words.

A guard never edits text. It names what it saw, and decoding stops, tries again once, or passes the
name on as a flag. What was said is known from the fires of CIF: one a token. So "no no no no",
spoken, has its four fires and stays, while a loop of the language model has none.

Pure arithmetic over token ids: this file knows no network.
"""

from collections.abc import Sequence

REPETITION, INSERTIONS, DELETIONS = "repetition", "insertions", "deletions"

MAX_PERIOD = 16  # tokens of what a loop repeats
MIN_RUNS = 3  # times in a row, the first included
MIN_LOOP = 4  # tokens of all runs together
UNHEARD = 2  # tokens without a fire that a loop must have written
BURST = 5  # tokens in a row without a counterpart in the draft
MISSING_SHARE, MIN_FIRES = 0.5, 6  # fewer tokens than this share of so many fires


def looping(token_ids: Sequence[int], fires: int) -> int:
    """Return how many tokens at the end repeat each other beyond what was heard; 0 if none do.

    Args:
        token_ids: what was written so far.
        fires: tokens that CIF heard in all.
    """
    if len(token_ids) < fires + UNHEARD:
        return 0
    for period in range(1, min(MAX_PERIOD, len(token_ids) // MIN_RUNS) + 1):
        run = _run(token_ids, period)
        if run >= max(MIN_RUNS * period, MIN_LOOP):
            return run
    return 0


def flags(
    token_ids: Sequence[int], counterparts: Sequence[int | None], fires: int
) -> tuple[str, ...]:
    """Name what a reader of a finished answer should know.

    Args:
        token_ids: the answer.
        counterparts: of each token in the draft, None for an inserted one; see
            :func:`llmasr.decoding.timestamps.align`.
        fires: tokens that CIF heard.
    """
    found = {
        REPETITION: looping(token_ids, fires) > 0,
        INSERTIONS: _longest_gap(counterparts) >= BURST,
        DELETIONS: fires >= MIN_FIRES and len(token_ids) < MISSING_SHARE * fires,
    }
    return tuple(name for name, is_seen in found.items() if is_seen)


def _run(token_ids: Sequence[int], period: int) -> int:
    """Return the length of the end of a sequence that has this period."""
    place = len(token_ids) - 1
    while place >= period and token_ids[place] == token_ids[place - period]:
        place -= 1
    return len(token_ids) - 1 - place + period


def _longest_gap(counterparts: Sequence[int | None]) -> int:
    longest = current = 0
    for counterpart in counterparts:
        current = current + 1 if counterpart is None else 0
        longest = max(longest, current)
    return longest
