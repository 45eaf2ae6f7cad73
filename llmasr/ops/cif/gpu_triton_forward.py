"""Triton kernels of the forward pass: sum the weights, find the ends of tokens, fire.

Letters: B rows, T frames, F all frames, U tokens, N all tokens, D width of a frame.
"""

# Arguments of kernels have the types that Triton gives them.
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from llmasr.ops.cif.gpu_triton_rows import (
    FRAME_LIMIT,
    ROW_LIMIT,
    TOKEN,
    edge,
    find_row,
    make_plan,
    row_frames,
    row_total,
    tokens_over,
)


@triton.jit
def integrate(alpha, prefix, length, THRESHOLD: tl.constexpr, TILE: tl.constexpr):
    """Write the saturating prefix sum C of a row and return its last value."""
    total = tl.full([], 0, tl.int64)
    for first in range(0, length, TILE):
        frames = first + tl.arange(0, TILE)
        valid = frames < length
        amount = tl.load(alpha + frames, mask=valid, other=0.0).to(tl.float64)
        amount *= tl.full([], TOKEN / THRESHOLD, tl.float64)
        amount = tl.where(amount > 0, amount, 0.0)
        amount = tl.minimum(amount, tl.full([], FRAME_LIMIT, tl.float64))
        # No frame counts more than 2^52, so a tile of at most 1024 frames cannot overflow.
        position = tl.cumsum((amount + 0.5).to(tl.int64), 0)
        position = total + tl.minimum(position, ROW_LIMIT - total)
        tl.store(prefix + frames, position, mask=valid)
        total = tl.max(position)
    return total


@triton.jit
def mark(
    prefix, length, plan, targets, outputs, edges, fire_frames, fire_times, TILE: tl.constexpr
):
    """Write the end, the firing frame and the firing time of the first ``outputs`` tokens."""
    for first in range(0, length, TILE):
        frames = first + tl.arange(0, TILE)
        valid = frames < length
        after = tl.load(prefix + frames, mask=valid, other=0)
        before = tl.load(prefix + frames - 1, mask=valid & (frames > 0), other=0)
        token = tl.where(frames > 0, tokens_over(before, plan, targets), 0)
        stop = tl.where(valid, tl.minimum(tokens_over(after, plan, targets), outputs), 0)
        for _ in range(tl.max(stop - token)):
            fires = token < stop
            end = edge(token + 1, plan, targets)
            part = (end - before).to(tl.float64) / tl.maximum(after - before, 1).to(tl.float64)
            tl.store(edges + token, end, mask=fires)
            tl.store(fire_frames + token, frames.to(tl.int64), mask=fires)
            tl.store(fire_times + token, (frames.to(tl.float64) + part).to(tl.float32), mask=fires)
            token += 1


@triton.jit
def clear(fire_frames, fire_times, outputs, width, TILE: tl.constexpr):
    """Write -1 and 0 for tokens that a row of a padded batch does not have."""
    for first in range(outputs, width, TILE):
        tokens = first + tl.arange(0, TILE)
        tl.store(fire_frames + tokens, tl.full([TILE], -1, tl.int64), mask=tokens < width)
        tl.store(fire_times + tokens, tl.zeros([TILE], tl.float32), mask=tokens < width)


@triton.jit(do_not_specialize=["num_rows", "num_frames", "width"])
def scan_kernel(
    alpha,  # [B, T] or [F], None: the prefix is given
    prefix,  # [B, T] or [F] int64
    lengths,  # [B] int64
    starts,  # [B] int64, None: padded
    targets,  # [B] int64 or None
    token_ends,  # [B] int64, end of each row in the list of all tokens; None: padded
    token_lengths,  # [B] int64
    quantity,  # [B] float32
    scales,  # [B, 2] float64: weight of a quantum, factor of the last token
    edges,  # [B, U] or [N] int64, None: count only
    fire_frames,  # [B, U] or [N] int64
    fire_times,  # [B, U] or [N] float32
    num_rows,
    num_frames,
    width,
    THRESHOLD: tl.constexpr,
    TAIL: tl.constexpr,
    TAIL_QUANTA: tl.constexpr,
    TILE: tl.constexpr,
):
    """One program per row: sum the weights, then find where tokens end."""
    row = tl.program_id(0)
    base, _, length = row_frames(row, lengths, starts, num_rows, num_frames)
    if alpha is None:
        total = row_total(prefix, base, length)
    else:
        total = integrate(alpha + base, prefix + base, length, THRESHOLD, TILE)
    plan = make_plan(total, row, targets, THRESHOLD, TAIL, TAIL_QUANTA)
    outputs = plan.count
    if edges is not None:
        if token_ends is None:
            first_token = row.to(tl.int64) * width
            outputs = tl.minimum(outputs, width)
            clear(fire_frames + first_token, fire_times + first_token, outputs, width, TILE)
        else:
            first_token = tl.load(token_ends + row) - outputs
        tl.debug_barrier()  # other threads of this program have written the prefix
        mark(
            prefix + base, length, plan, targets, outputs,
            edges + first_token, fire_frames + first_token, fire_times + first_token, TILE,
        )  # fmt: skip
    weight = total.to(tl.float64) * tl.full([], THRESHOLD / TOKEN, tl.float64)
    tl.store(quantity + row, weight.to(tl.float32))
    tl.store(token_lengths + row, outputs)
    tl.store(scales + 2 * row, plan.scale)
    tl.store(scales + 2 * row + 1, tl.where(outputs == plan.count, plan.factor, 1.0))


@triton.jit(do_not_specialize=["num_rows", "num_frames", "width"])
def fire_kernel(
    hidden,  # [B, T, D] or [F, D]
    prefix,  # [B, T] or [F] int64
    starts,  # [B] int64, None: padded
    token_ends,  # [B] int64, None: padded
    token_lengths,  # [B] int64
    scales,  # [B, 2] float64
    edges,  # [B, U] or [N] int64
    fire_frames,  # [B, U] or [N] int64
    tokens,  # [B, U, D] or [N, D]
    num_rows,
    num_frames,
    width,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    FRAMES: tl.constexpr,
):
    """One program per token and block of columns: add the frames up in time order."""
    item = tl.program_id(0) // tl.cdiv(D, BLOCK)
    columns = (tl.program_id(0) % tl.cdiv(D, BLOCK)) * BLOCK + tl.arange(0, BLOCK)
    if starts is None:
        row = item // width
        token = item - row * width
        base = row.to(tl.int64) * num_frames
    else:
        row = find_row(token_ends, item, num_rows)
        token = item - tl.load(token_ends + row) + tl.load(token_lengths + row)
        base = tl.load(starts + row)
    outputs = tl.load(token_lengths + row)
    value = tl.zeros([BLOCK], tl.float32)
    if token < outputs:
        scale = tl.load(scales + 2 * row)
        low = tl.load(edges + item - 1, mask=token > 0, other=0)
        high = tl.load(edges + item)
        begin = tl.load(fire_frames + item - 1, mask=token > 0, other=0)
        end = tl.load(fire_frames + item)
        before = tl.load(prefix + base + begin - 1, mask=begin > 0, other=0)
        for first in range(begin, end + 1, FRAMES):
            for step in tl.static_range(FRAMES):
                frame = first + step
                after = tl.load(prefix + base + frame, mask=frame <= end, other=high)
                vector = tl.load(
                    hidden + (base + frame) * D + columns,
                    mask=(columns < D) & (frame <= end),
                    other=0.0,
                )
                overlap = tl.maximum(tl.minimum(after, high) - tl.maximum(before, low), 0)
                weight = (overlap.to(tl.float64) * scale).to(tl.float32)
                value = tl.fma(weight, vector.to(tl.float32), value)
                before = after
        if token + 1 == outputs:
            value *= tl.load(scales + 2 * row + 1).to(tl.float32)
    tl.store(
        tokens + item.to(tl.int64) * D + columns,
        value.to(tokens.dtype.element_ty),
        mask=columns < D,
    )
