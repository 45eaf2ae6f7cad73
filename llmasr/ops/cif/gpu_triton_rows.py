"""Triton kernels of integrate-and-fire; README.md has the formulas, gpu_triton.py the launches.

Weight is counted in int64 quanta, so that every program sees the same boundaries. Constants of the
rule are compile-time numbers: as arguments they would arrive in float32. Results do not depend on
the neighbours of a row: no atomics, and tiles that follow from the width D alone.

Letters: B rows, T frames, U tokens, D width of a frame, E width of a feature. The span of a row is
the frames it owns, padding included: T, or up to the next row of a packed batch.
"""

# Arguments of kernels have the types that Triton gives them.
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import triton
import triton.language as tl

from llmasr.ops.cif import backend

BITS = tl.constexpr(backend.QUANTUM_BITS)
TOKEN = tl.constexpr(backend.TOKEN)
FRAME_LIMIT = tl.constexpr(backend.FRAME_LIMIT)
ROW_LIMIT = tl.constexpr(backend.ROW_LIMIT)
NEVER = tl.constexpr((1 << 63) - 1)
ROWS = tl.constexpr(128)  # ends of rows looked at together when a program searches for its row


class Plan(NamedTuple):
    """Where the tokens of a row end, all scalars."""

    total: tl.tensor  # int64, S
    count: tl.tensor  # int64, tokens
    last: tl.tensor  # int64, highest value of "token in progress"
    rest: tl.tensor  # int64, quanta of the last token if the tail fired, else one whole token
    size: tl.tensor  # int64, k
    spare: tl.tensor  # int64, r
    parts: tl.tensor  # int64, n
    part: tl.tensor  # float64, 1 / n
    pace: tl.tensor  # float64, slightly less than tokens per quantum
    scale: tl.tensor  # float64, weight of a quantum inside a token
    factor: tl.tensor  # float64, what completes the last token


@triton.jit
def find_row(ends, item, num_rows):
    """Return the row of an item, given the end of each row in the list of all items."""
    row = tl.full([], 0, tl.int32)
    for first in range(0, num_rows, ROWS):
        rows = first + tl.arange(0, ROWS)
        end = tl.load(ends + rows, mask=rows < num_rows, other=NEVER)
        row += tl.sum((end <= item).to(tl.int32))
    return row


@triton.jit
def row_frames(row, lengths, starts, num_rows, num_frames):
    """Return the first frame of a row, its span and its number of valid frames."""
    if starts is None:
        base = row.to(tl.int64) * num_frames
        span = tl.full([], 0, tl.int64) + num_frames
    else:
        base = tl.load(starts + row)
        span = tl.load(starts + row + 1, mask=row + 1 < num_rows, other=num_frames) - base
    return base, span, tl.minimum(tl.maximum(tl.load(lengths + row), 0), span)


@triton.jit
def row_total(prefix, base, length):
    """Return S of a row whose prefix is in memory."""
    return tl.load(prefix + base + length - 1, mask=length > 0, other=0)


@triton.jit
def divide(value, divisor, inverse):
    """Return ``value // divisor`` of int64 >= 0, exactly, without the slow integer division."""
    quotient = (value.to(tl.float64) * inverse).to(tl.int64)
    left = value - quotient * divisor
    more = (left.to(tl.float64) * inverse).to(tl.int64)
    left -= more * divisor
    return quotient + more + (left >= divisor).to(tl.int64) - (left < 0).to(tl.int64)


@triton.jit
def make_plan(
    total, row, targets, THRESHOLD: tl.constexpr, TAIL: tl.constexpr, TAIL_QUANTA: tl.constexpr
):
    """Lay out the tokens of a row with S = ``total``."""
    rest = tl.full([], TOKEN, tl.int64)
    zero = rest * 0
    step = tl.full([], THRESHOLD / TOKEN, tl.float64)
    if targets is None:
        whole = total >> BITS
        over = total - (whole << BITS)
        fired = (over > 0) & (over >= TAIL_QUANTA) & (TAIL != "drop")
        rest = tl.where(fired, over, rest)
        factor = tl.where(TAIL == "normalize", TOKEN / rest.to(tl.float64), 1.0)
        count = whole + fired.to(tl.int64)
        return Plan(total, count, whole, rest, rest, zero, rest, step, step, step, factor)
    else:
        count = tl.where(total > 0, tl.maximum(tl.load(targets + row), 0), 0)
        parts = tl.maximum(count, 1)
        part = 1.0 / parts.to(tl.float64)
        size = divide(total, parts, part)
        spare = total - size * parts
        some = tl.maximum(total, 1).to(tl.float64)
        scale = count.to(tl.float64) * tl.full([], THRESHOLD, tl.float64) / some
        # A little less than N / S, so that rounding never makes it more.
        pace = scale * tl.full([], (1 - 2.0**-49) / THRESHOLD, tl.float64)
        last = tl.maximum(count - 1, 0)
        return Plan(total, count, last, rest, size, spare, parts, part, pace, scale, step * 0 + 1)


@triton.jit
def edge(index, plan, targets):
    """Return where token ``index`` starts, which is hi(index - 1); both int64."""
    if targets is not None:
        position = index * plan.size + divide(index * plan.spare, plan.parts, plan.part)
    else:
        position = index * TOKEN
    return tl.minimum(position, plan.total)


@triton.jit
def tokens_over(position, plan, targets):
    """Return how many tokens end at ``position`` or before it; both int64."""
    if targets is not None:
        # Token m - 1 ends by C if m < (C + 1) N / S: the guess is right or one too low.
        guess = ((position + 1).to(tl.float64) * plan.pace).to(tl.int64)
        over = guess + (edge(guess + 1, plan, targets) <= position).to(tl.int64)
    else:
        at_end = (position == plan.total).to(tl.int64)  # where a fired tail ends
        over = (position >> BITS) + at_end * (plan.count - (plan.total >> BITS))
    return tl.minimum(over, plan.count)
