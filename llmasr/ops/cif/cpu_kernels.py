"""Kernels of the back-end `numba`; what they compute stands in README.md.

Frames of all rows lie in one table [F, D], tokens of all rows in another [N, D]; a plan tells where
a row lies in both. Kernels with ``low`` and ``high`` do that part of their work only.

One file, long as it is: compiled kernels are kept on disk, and what makes them outdated is the age
of the file they stand in, not of the files they call.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from llmasr.ops.cif.backend import FRAME_LIMIT, ROW_LIMIT, TAILS, TOKEN
from llmasr.ops.cif.cpu_numbers import fma, narrow, widen

# Columns of a plan [B, COLUMNS] int64, one line a row of the batch.
START, FRAMES = 0, 1  # first frame in the table, number of frames
FIRST, WIDTH = 2, 3  # first token in the table, number of places for tokens
COUNT, LENGTH = 4, 5  # tokens of the row, those of them that have a place
SIZE, REMAINDER, PARTS, TOTAL = 6, 7, 8, 9  # boundary u: u * SIZE + u * REMAINDER // PARTS
IS_OPEN = 10  # the last token takes all that is left
COLUMNS = 11

DROP = TAILS.index("drop")
WEIGHT = 1.0 / TOKEN

kernel = njit(nogil=True, cache=True)
# Products may be added up in any order: it depends on the width alone.
summing_kernel = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


@kernel
def frames_of(lengths: Any, starts: Any, stride: int, row: int) -> tuple[int, int]:
    """Return the first frame and the number of frames of a row, never outside the table."""
    if len(starts) > 0:
        return starts[row], max(lengths[row], 0)
    return row * stride, min(max(lengths[row], 0), stride)


@kernel
def scan_run(
    weights: Any, begin: int, end: int, quanta_per_weight: float, total: int, prefix: Any
) -> int:
    """Sum the quanta of the frames begin..end on top of ``total``; return the last sum."""
    for frame in range(begin, end):
        scaled = np.float64(weights[frame]) * quanta_per_weight
        if scaled > 0.0:  # not for NaN
            total += int(min(scaled, FRAME_LIMIT) + 0.5)
            if total > ROW_LIMIT:
                total = ROW_LIMIT
        prefix[frame] = total
    return total


@kernel
def scan(
    low: int, high: int, weights: Any, lengths: Any, starts: Any, stride: int,
    quanta_per_weight: float, prefix: Any,
) -> None:  # fmt: skip
    """Sum the quanta of rows low..high: weights [F] float -> prefix [F] int64.

    Rows begin at ``starts`` [B] if the batch is packed, else (no starts) every ``stride`` frames.
    """
    for row in range(low, high):
        start, frames = frames_of(lengths, starts, stride, row)
        total = scan_run(weights, start, start + frames, quanta_per_weight, 0, prefix)
        prefix[start + frames : start + max(frames, stride)] = total


@kernel
def plan_rows(
    prefix: Any, lengths: Any, starts: Any, stride: int, targets: Any, tail: int,
    tail_quanta: int, threshold: float, width: int, plan: Any, token_lengths: Any, quantity: Any,
) -> int:  # fmt: skip
    """Find the tokens of every row and give them places; return the number of places.

    A padded row has ``width`` places, or as many as the longest needs if that is negative.
    Without targets these are empty.
    """
    most = 0
    for row in range(len(plan)):
        start, frames = frames_of(lengths, starts, stride, row)
        plan[row, START], plan[row, FRAMES] = start, frames
        total = prefix[start + frames - 1] if frames > 0 else 0
        plan[row, TOTAL] = total
        plan[row, SIZE], plan[row, REMAINDER], plan[row, PARTS] = TOKEN, 0, 1
        if len(targets) > 0:
            count = max(targets[row], 0) if total > 0 else 0
            is_open = count > 0
            if is_open:
                plan[row, SIZE], plan[row, REMAINDER] = total // count, total % count
                plan[row, PARTS] = count
        else:
            rest = total % TOKEN
            is_open = tail != DROP and rest > 0 and rest >= tail_quanta
            count = total // TOKEN + is_open
        plan[row, COUNT], plan[row, IS_OPEN] = count, is_open
        quantity[row] = np.float64(total) * (threshold * WEIGHT)
        most = max(most, count)
    first = 0
    for row in range(len(plan)):
        places = most if width < 0 else width
        if len(starts) > 0:
            places = plan[row, COUNT]
        plan[row, FIRST], plan[row, WIDTH] = first, places
        plan[row, LENGTH] = token_lengths[row] = min(plan[row, COUNT], places)
        first += places
    return first


@kernel
def boundary(plan: Any, row: int, index: int) -> int:
    """Return where token ``index - 1`` ends and ``index`` begins, in quanta."""
    edge = index * plan[row, SIZE] + index * plan[row, REMAINDER] // plan[row, PARTS]
    return min(edge, plan[row, TOTAL])


@kernel
def scale_of(plan: Any, row: int, threshold: float) -> float:
    """Return the weight of a quantum."""
    if plan[row, PARTS] == 1 and plan[row, SIZE] == TOKEN:
        return threshold * WEIGHT
    return plan[row, PARTS] * threshold / np.float64(plan[row, TOTAL])


@kernel
def row_of(plan: Any, column: int, place: int) -> int:
    """Return the last row whose frames (START) or tokens (FIRST) begin at ``place`` or before."""
    low, high = 0, len(plan)
    while high - low > 1:
        middle = (low + high) // 2
        if plan[middle, column] <= place:
            low = middle
        else:
            high = middle
    return low


@kernel
def first_reaching(prefix: Any, start: int, frames: int, quanta: int) -> int:
    """Return the first frame of a row whose prefix is at least ``quanta``."""
    low, high = 0, frames
    while low < high:
        middle = (low + high) // 2
        if prefix[start + middle] < quanta:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def fire(
    low: int, high: int, hidden: Any, prefix: Any, plan: Any, threshold: float, completes: bool,
    tokens: Any, fire_frames: Any, fire_times: Any,
) -> None:  # fmt: skip
    """Fill the places low..high of tokens [N, D], fire_frames [N] and fire_times [N]."""
    place = low
    row = row_of(plan, FIRST, low)
    while place < high:
        while place >= plan[row, FIRST] + plan[row, WIDTH]:
            row += 1
        last = min(high, plan[row, FIRST] + plan[row, LENGTH])
        fire_row(
            row, place, last, hidden, prefix, plan, threshold, completes,
            tokens, fire_frames, fire_times,
        )  # fmt: skip
        place = max(place, last)
        last = min(high, plan[row, FIRST] + plan[row, WIDTH])
        tokens[place:last] = 0
        fire_frames[place:last] = -1
        fire_times[place:last] = 0
        place = last


@kernel
def fire_row(
    row: int, place: int, last: int, hidden: Any, prefix: Any, plan: Any, threshold: float,
    completes: bool, tokens: Any, fire_frames: Any, fire_times: Any,
) -> None:  # fmt: skip
    """Fire the tokens of one row that belong in the places place..last."""
    start, scale = plan[row, START], scale_of(plan, row, threshold)
    low = boundary(plan, row, place - plan[row, FIRST])
    frame = first_reaching(prefix, start, plan[row, FRAMES], low) if low > 0 else 0
    for to in range(place, last):
        index = to - plan[row, FIRST]
        high = boundary(plan, row, index + 1)
        begin = frame + 1 if low > 0 and prefix[start + frame] == low else frame
        while prefix[start + frame] < high:
            frame += 1
        weight = share(prefix, start, begin, low, high, scale) if begin <= frame else 0.0
        put(tokens, to, weight, hidden, start + min(begin, frame))
        for current in range(begin + 1, frame + 1):
            weight = share(prefix, start, current, low, high, scale)
            add(tokens, to, weight, hidden, start + current)
        if completes and plan[row, IS_OPEN] and index == plan[row, COUNT] - 1:
            complete(tokens, to, TOKEN / np.float64(high - low))
        before = prefix[start + frame - 1] if frame > 0 else 0
        inside = np.float64(high - before) / np.float64(max(prefix[start + frame] - before, 1))
        fire_frames[to], fire_times[to] = frame, frame + inside
        low = high


@kernel
def forward(
    hidden: Any, weights: Any, lengths: Any, starts: Any, stride: int, quanta_per_weight: float,
    targets: Any, tail: int, tail_quanta: int, threshold: float, width: int, completes: bool,
    like: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Do all of a forward pass on one thread; ``like`` has the dtype of the sums."""
    prefix = np.empty(len(weights), np.int64)
    plan = np.empty((len(lengths), COLUMNS), np.int64)
    token_lengths = np.empty(len(lengths), np.int64)
    quantity = np.empty(len(lengths), np.float32)
    scan(0, len(lengths), weights, lengths, starts, stride, quanta_per_weight, prefix)
    places = plan_rows(
        prefix, lengths, starts, stride, targets, tail, tail_quanta, threshold, width,
        plan, token_lengths, quantity,
    )  # fmt: skip
    tokens = np.empty((places, hidden.shape[1]), like.dtype)
    fire_frames, fire_times = np.empty(places, np.int64), np.empty(places, np.float32)
    fire(
        0, places, hidden, prefix, plan, threshold, completes, tokens, fire_frames, fire_times
    )  # fmt: skip
    # Shaped here, where it costs nothing: [B, U] and [B, T], or [1, N] and [1, F] if packed.
    rows = 1 if len(starts) > 0 else len(lengths)
    shape = (rows, places // rows)
    return (
        tokens.reshape((*shape, hidden.shape[1])), token_lengths, quantity,
        fire_frames.reshape(shape), fire_times.reshape(shape),
        prefix.reshape((rows, len(prefix) // rows)),
    )  # fmt: skip


@kernel
def share(prefix: Any, start: int, frame: int, low: int, high: int, scale: float) -> float:
    """Return the weight of a frame inside [low, high)."""
    before = prefix[start + frame - 1] if frame > 0 else 0
    return np.float64(min(prefix[start + frame], high) - max(before, low)) * scale


@kernel
def put(table: Any, to: int, weight: float, source: Any, place: int) -> None:
    """Do as `add` to a line of zeros."""
    to_line, line = np.uint64(to), np.uint64(place)
    factor, zero = narrow(weight, table[0, 0]), narrow(0.0, table[0, 0])
    for column in range(np.uint64(table.shape[1])):
        table[to_line, column] = fma(factor, widen(source[line, column]), zero)


@kernel
def clear(table: Any, place: int) -> None:
    """Fill a line of a table [.., D] with zeros."""
    line = np.uint64(place)
    for column in range(np.uint64(table.shape[1])):
        table[line, column] = 0


@kernel
def add(table: Any, to: int, weight: float, source: Any, place: int) -> None:
    """Add a weighted line of source [.., D] to a line of a table [.., D] of float32 or float64.

    One line at a time, although several would save loads of the sums: the memory is what counts,
    and it streams best from one place.
    """
    to_line, line = np.uint64(to), np.uint64(place)
    factor = narrow(weight, table[0, 0])
    for column in range(np.uint64(table.shape[1])):
        table[to_line, column] = fma(factor, widen(source[line, column]), table[to_line, column])


@kernel
def complete(table: Any, place: int, factor: float) -> None:
    """Bring a token that has less weight than the threshold up to it."""
    line, factor_like = np.uint64(place), narrow(factor, table[0, 0])
    for column in range(np.uint64(table.shape[1])):
        table[line, column] *= factor_like


@kernel
def spread(
    low: int, high: int, hidden: Any, prefix: Any, plan: Any, threshold: float, completes: bool,
    like: Any, d_tokens: Any, d_hidden: Any, products: Any, jumps: Any,
) -> None:  # fmt: skip
    """Run backward over the frames low..high of the table.

    Fills d_hidden [F, D]; products [F] float64, the gradient of a frame's
    weight if no boundary moved; jumps [F] float64, what moving those inside the frame is worth.
    ``like`` has the dtype of the sums.
    """
    sums = np.empty((1, hidden.shape[1]), like.dtype)
    frame = low
    row = row_of(plan, START, low)
    while frame < high:
        while row + 1 < len(plan) and plan[row + 1, START] <= frame:
            row += 1
        end = min(high, plan[row, START] + plan[row, FRAMES])
        if frame < end:
            spread_row(
                row, frame, end, hidden, prefix, plan, threshold, completes, sums,
                d_tokens, d_hidden, products, jumps,
            )  # fmt: skip
            frame = end
        end = min(high, plan[row + 1, START]) if row + 1 < len(plan) else high
        for place in range(frame, end):  # padding
            clear(d_hidden, place)
        frame = max(frame, end)


@kernel
def spread_row(
    row: int, frame: int, end: int, hidden: Any, prefix: Any, plan: Any, threshold: float,
    completes: bool, sums: Any, d_tokens: Any, d_hidden: Any, products: Any, jumps: Any,
) -> None:  # fmt: skip
    """Run backward over the frames frame..end of the table, which belong to one row."""
    scale, limit = scale_of(plan, row, threshold), plan[row, COUNT] - plan[row, IS_OPEN]
    before = prefix[frame - 1] if frame > plan[row, START] else 0
    token = in_progress(plan, row, limit, before)
    high = boundary(plan, row, token + 1)
    for place in range(frame, end):
        after = prefix[place]
        line, has_place = plan[row, FIRST] + token, token < plan[row, LENGTH]
        products[place] = jumps[place] = 0.0
        if token == limit or after < high:
            if has_place:
                factor = factor_of(plan, row, token, completes)
                weight = np.float64(after - before) * scale * factor
                products[place] = factor * pull(weight, d_tokens, line, hidden, d_hidden, place)
            else:
                clear(d_hidden, place)
        elif token + 1 < plan[row, LENGTH] and (
            token + 1 == limit or after < boundary(plan, row, token + 2)
        ):
            factor = factor_of(plan, row, token + 1, completes)
            product, next_product = pull_two(
                np.float64(high - before) * scale, np.float64(after - high) * scale * factor,
                d_tokens, line, hidden, d_hidden, place,
            )  # fmt: skip
            products[place] = factor * next_product
            jumps[place] = factor * next_product - product
            token += 1
            high = boundary(plan, row, token + 1)
        else:
            low = before
            clear(sums, 0)
            while True:
                product = 0.0
                if token < plan[row, LENGTH]:
                    factor = factor_of(plan, row, token, completes)
                    edge = after if token == limit else min(after, high)
                    weight = np.float64(edge - low) * scale * factor
                    line = plan[row, FIRST] + token
                    add(sums, 0, weight, d_tokens, line)
                    product = factor * multiply(d_tokens, line, hidden, place)
                if low == before:
                    jumps[place] -= product
                if token == limit or after < high:
                    break
                low = high
                token += 1
                high = boundary(plan, row, token + 1)
            products[place] = product
            jumps[place] += product
            store(sums, d_hidden, place)
        before = after


@kernel
def store(sums: Any, table: Any, place: int) -> None:
    """Round sums [1, D] into a line of a table [.., D]."""
    line, first = np.uint64(place), np.uint64(0)
    for column in range(np.uint64(table.shape[1])):
        table[line, column] = narrow(sums[first, column], table[line, column])


@kernel
def in_progress(plan: Any, row: int, limit: int, quanta: int) -> int:
    """Return the token that takes the next weight after ``quanta`` of the row."""
    low, high = 0, limit
    while low < high:
        middle = (low + high) // 2
        if boundary(plan, row, middle + 1) <= quanta:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def factor_of(plan: Any, row: int, token: int, completes: bool) -> float:
    """Return by how much a token was brought up to the threshold."""
    if completes and plan[row, IS_OPEN] and token == plan[row, COUNT] - 1:
        return TOKEN / np.float64(plan[row, TOTAL] % TOKEN)
    return 1.0


@summing_kernel
def multiply(d_tokens: Any, token: int, hidden: Any, place: int) -> float:
    """Return the inner product of a line of d_tokens [N, D] and one of hidden [F, D]."""
    from_line, line = np.uint64(token), np.uint64(place)
    total = narrow(0.0, widen(hidden[0, 0]))
    for column in range(np.uint64(hidden.shape[1])):
        total += widen(d_tokens[from_line, column]) * widen(hidden[line, column])
    return np.float64(total)


@summing_kernel
def pull(weight: float, d_tokens: Any, token: int, hidden: Any, d_hidden: Any, place: int) -> float:
    """Store weight * d_tokens[token] in d_hidden[place]; return its product with hidden[place]."""
    from_line, line = np.uint64(token), np.uint64(place)
    total = narrow(0.0, widen(hidden[0, 0]))
    factor = narrow(weight, total)
    for column in range(np.uint64(hidden.shape[1])):
        gradient = widen(d_tokens[from_line, column])
        total += gradient * widen(hidden[line, column])
        d_hidden[line, column] = narrow(factor * gradient, d_hidden[line, column])
    return np.float64(total)


@summing_kernel
def pull_two(
    weight: float, next_weight: float, d_tokens: Any, token: int, hidden: Any, d_hidden: Any,
    place: int,
) -> tuple[float, float]:  # fmt: skip
    """Do as `pull` for a frame between two tokens; return the products with both."""
    from_line, line = np.uint64(token), np.uint64(place)
    next_line = from_line + np.uint64(1)
    total = next_total = narrow(0.0, widen(hidden[0, 0]))
    factor, next_factor = narrow(weight, total), narrow(next_weight, total)
    for column in range(np.uint64(hidden.shape[1])):
        gradient = widen(d_tokens[from_line, column])
        next_gradient = widen(d_tokens[next_line, column])
        value = widen(hidden[line, column])
        total += gradient * value
        next_total += next_gradient * value
        d_value = fma(next_factor, next_gradient, factor * gradient)
        d_hidden[line, column] = narrow(d_value, d_hidden[line, column])
    return np.float64(total), np.float64(next_total)


@kernel
def settle(
    low: int, high: int, weights: Any, prefix: Any, plan: Any, threshold: float, has_targets: bool,
    completes: bool, d_quantity: Any, products: Any, jumps: Any, d_weights: Any,
) -> None:  # fmt: skip
    """Turn products and jumps into the gradient d_weights [F], for rows low..high."""
    limit = 256.0 * threshold
    for row in range(low, high):
        start, end = plan[row, START], plan[row, START] + plan[row, FRAMES]
        last_token = boundary(plan, row, plan[row, COUNT] - 1)
        moved = weighted = last_product = 0.0
        for place in range(end - 1, start - 1, -1):
            before = prefix[place - 1] if place > start else 0
            if prefix[place] > last_token:
                inside = np.float64(prefix[place] - max(before, last_token))
                last_product += products[place] * inside
            products[place] += moved
            moved += jumps[place]
            weighted += products[place] * np.float64(prefix[place] - before)
        gain, shift = 1.0, 0.0
        if has_targets and plan[row, COUNT] > 0:
            gain = np.float64(plan[row, PARTS]) * TOKEN / np.float64(plan[row, TOTAL])
            shift = gain * weighted / np.float64(plan[row, TOTAL])
        elif completes and plan[row, IS_OPEN] and plan[row, COUNT] == plan[row, LENGTH]:
            shift = last_product / np.float64(plan[row, TOTAL] % TOKEN)
        shift -= np.float64(d_quantity[row])
        for place in range(start, end):
            weight = weights[place]
            slope = gain * products[place] - shift
            d_weights[place] = slope if 0 <= weight <= limit else 0.0


@kernel
def fire_on(
    hidden: Any, prefix: Any, phase: int, threshold: float, seen: int, partial: Any,
    tokens: Any, fire_frames: Any, fire_times: Any,
) -> None:  # fmt: skip
    """Fire the tokens that a chunk [t, D] completes, and leave the next one in partial [1, D].

    The first token goes on from ``partial`` and ``phase``; ``seen`` frames came before the chunk.
    """
    scale = threshold * WEIGHT
    token, before, high = 0, phase, TOKEN
    for frame in range(len(hidden)):
        after, low = prefix[frame], before
        while after >= high:
            add(partial, 0, np.float64(high - low) * scale, hidden, frame)
            for column in range(hidden.shape[1]):
                tokens[token, column] = partial[0, column]
            clear(partial, 0)
            inside = np.float64(high - before) / np.float64(max(after - before, 1))
            fire_frames[token], fire_times[token] = seen + frame, seen + frame + inside
            low = high
            high += TOKEN
            token += 1
        if after > low or low == before:
            add(partial, 0, np.float64(after - low) * scale, hidden, frame)
        before = after


@kernel
def weigh(
    low: int, high: int, features: Any, weight: Any, bias: Any, lengths: Any, stride: int,
    alpha: Any,
) -> None:  # fmt: skip
    """Fill alpha [F] for the frames low..high: sigmoid(features [F, E] . weight [1, E] + bias)."""
    for place in range(low, high):
        if place % stride < lengths[place // stride]:
            logit = multiply(weight, 0, features, place) + bias
            alpha[place] = 1.0 / (1.0 + math.exp(-logit))
        else:
            alpha[place] = 0.0


@kernel
def weigh_backward(
    low: int, high: int, d_alpha: Any, alpha: Any, features: Any, weight: Any, lengths: Any,
    stride: int, d_features: Any, d_weight: Any, d_bias: Any,
) -> None:  # fmt: skip
    """Run backward over rows low..high: fills d_features [F, E], d_weight [B, E], d_bias [B]."""
    for row in range(low, high):
        clear(d_weight, row)
        total = 0.0
        end = row * stride + min(max(lengths[row], 0), stride)
        for place in range(end, (row + 1) * stride):
            clear(d_features, place)
        for place in range(row * stride, end):
            slope = np.float64(d_alpha[place]) * alpha[place] * (1.0 - np.float64(alpha[place]))
            total += slope
            add(d_weight, row, slope, features, place)
            scale_line(slope, weight, d_features, place)
        d_bias[row] = total


@kernel
def scale_line(factor: float, line: Any, table: Any, place: int) -> None:
    """Store factor * line [1, E] in a line of a table [.., E]."""
    to_line, first = np.uint64(place), np.uint64(0)
    for column in range(np.uint64(table.shape[1])):
        value = np.float32(factor) * widen(line[first, column])
        table[to_line, column] = narrow(value, table[to_line, column])
