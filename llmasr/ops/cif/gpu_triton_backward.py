"""Triton kernels of the backward pass: README.md has the formulas.

Letters: B rows, T frames, F all frames, U tokens, N all tokens, D width of a frame.
"""

# Arguments of kernels have the types that Triton gives them.
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from llmasr.ops.cif.gpu_triton_rows import (
    FRAME_LIMIT,
    TOKEN,
    edge,
    find_row,
    make_plan,
    row_frames,
    row_total,
    tokens_over,
)

COLUMNS = tl.constexpr(1024)  # of the last token, taken together


@triton.jit
def gradient_row(d_tokens, token, outputs, known, columns, plan, targets, D: tl.constexpr):
    """Load g of a token, 0 if it did not come out."""
    mask = (columns < D) & known & (token < outputs)
    row = tl.load(d_tokens + token * D + columns, mask=mask, other=0.0).to(tl.float32)
    if targets is not None:
        return row
    else:
        return row * tl.where(token + 1 == plan.count, plan.factor, 1.0).to(tl.float32)


@triton.jit
def inside(position, start, plan):
    """Return the weight of the part of a frame from ``start`` to ``position``."""
    return ((position - start).to(tl.float64) * plan.scale).to(tl.float32)


@triton.jit(do_not_specialize=["num_rows", "num_frames", "width"])
def backward_kernel(
    d_tokens,  # [B, U, D] or [N, D]
    hidden,  # [B, T, D] or [F, D]
    prefix,  # [B, T] or [F] int64
    lengths,  # [B] int64
    starts,  # [B] int64, None: padded
    chunk_ends,  # [B] int64, end of each row in the list of all programs; None: padded
    token_ends,  # [B] int64, None: padded
    token_lengths,  # [B] int64
    targets,  # [B] int64 or None
    d_hidden,  # [B, T, D] or [F, D], None: not wanted
    direct,  # [B, T] or [F] float32, p of the README; None: not wanted
    shift,  # [B, T] or [F] float32, d of the README
    num_rows,
    num_frames,
    width,
    D: tl.constexpr,
    THRESHOLD: tl.constexpr,
    TAIL: tl.constexpr,
    TAIL_QUANTA: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per chunk of a row: gradient of the frames, and their products with g."""
    item = tl.program_id(0)
    if starts is None:
        row = item // tl.cdiv(num_frames, FRAMES)
        chunk = item - row * tl.cdiv(num_frames, FRAMES)
        first_token = row.to(tl.int64) * width
    else:
        row = tl.minimum(find_row(chunk_ends, item, num_rows), num_rows - 1)
        chunk = item - tl.load(chunk_ends + row - 1, mask=row > 0, other=0)
        first_token = tl.load(token_ends + row) - tl.load(token_lengths + row)
    base, span, length = row_frames(row, lengths, starts, num_rows, num_frames)
    total = row_total(prefix, base, length)
    plan = make_plan(total, row, targets, THRESHOLD, TAIL, TAIL_QUANTA)
    outputs = tl.load(token_lengths + row)
    gradients = d_tokens + first_token * D
    begin = chunk.to(tl.int64) * FRAMES
    before = tl.load(prefix + base + begin - 1, mask=(begin > 0) & (begin <= length), other=0)
    old = tl.minimum(tokens_over(before, plan, targets), plan.last)
    end = edge(old + 1, plan, targets)
    for frame in range(begin, tl.minimum(begin + FRAMES, span)):
        valid = frame < length
        after = tl.load(prefix + base + frame, mask=valid, other=before)
        new = old
        start = before
        if after >= end:
            new = tl.minimum(tokens_over(after, plan, targets), plan.last)
            start = tl.maximum(before, edge(new, plan, targets))
            end = edge(new + 1, plan, targets)
        weight = inside(after, start, plan)
        product = 0.0
        old_product = 0.0
        for first in tl.static_range(0, D, BLOCK):
            columns = first + tl.arange(0, BLOCK)
            places = (base + frame) * D + columns
            g = gradient_row(gradients, new, outputs, valid, columns, plan, targets, D)
            value = weight * g
            if direct is not None:
                vector = tl.load(hidden + places, mask=(columns < D) & valid, other=0.0)
                vector = vector.to(tl.float32)
                product += tl.sum(vector * g)
            for token in range(old, new):  # the tokens that end in this frame
                g = gradient_row(gradients, token, outputs, valid, columns, plan, targets, D)
                part = inside(
                    edge(token + 1, plan, targets),
                    tl.maximum(before, edge(token, plan, targets)),
                    plan,
                )
                value = tl.fma(part, g, value)
                if direct is not None:
                    old_product += tl.where(token == old, tl.sum(vector * g), 0.0)
            if d_hidden is not None:
                value = value.to(d_hidden.dtype.element_ty)
                tl.store(d_hidden + places, value, mask=columns < D)
        if direct is not None:
            change = tl.where(old < new, product - old_product, 0.0)
            tl.store(direct + base + frame, product, mask=valid)
            tl.store(shift + base + frame, change, mask=valid)
        before = after
        old = new


@triton.jit
def tail_pull(tokens, d_tokens, token, plan, THRESHOLD: tl.constexpr, D: tl.constexpr):
    """Return <G, c> / r of the normalised token: what every frame of the row takes from it."""
    product = tl.zeros([COLUMNS], tl.float32)
    for first in range(0, D, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        value = tl.load(tokens + token * D + columns, mask=columns < D, other=0.0)
        gradient = tl.load(d_tokens + token * D + columns, mask=columns < D, other=0.0)
        product = tl.fma(value.to(tl.float32), gradient.to(tl.float32), product)
    weight = plan.rest.to(tl.float64) * tl.full([], THRESHOLD / TOKEN, tl.float64)
    return tl.sum(product.to(tl.float64)) / weight


@triton.jit
def slopes(direct, shift, prefix, slope, length, TILE: tl.constexpr):
    """Write A = p + sum of all later d per frame; return the sum of A times quanta."""
    later = tl.full([], 0, tl.float64)
    moment = tl.full([], 0, tl.float64)
    tiles = tl.cdiv(length, TILE)
    for back in range(0, tiles):
        frames = (tiles - 1 - back) * TILE + tl.arange(0, TILE)
        valid = frames < length
        change = tl.load(shift + frames, mask=valid, other=0.0).to(tl.float64)
        after = tl.load(prefix + frames, mask=valid, other=0)
        before = tl.load(prefix + frames - 1, mask=valid & (frames > 0), other=0)
        value = tl.load(direct + frames, mask=valid, other=0.0).to(tl.float64)
        value += later + (tl.cumsum(change, 0, reverse=True) - change)
        tl.store(slope + frames, value, mask=valid)
        moment += tl.sum(tl.where(valid, value * (after - before).to(tl.float64), 0.0))
        later += tl.sum(change)
    return moment


@triton.jit(do_not_specialize=["num_rows", "num_frames", "width"])
def alpha_kernel(
    direct,  # [B, T] or [F] float32
    shift,  # [B, T] or [F] float32
    slope,  # [B, T] or [F] float64, room for A of the README
    alpha,  # [B, T] or [F]
    prefix,  # [B, T] or [F] int64
    lengths,  # [B] int64
    starts,  # [B] int64, None: padded
    token_ends,  # [B] int64, None: padded
    token_lengths,  # [B] int64
    targets,  # [B] int64 or None
    tokens,  # [B, U, D] or [N, D]
    d_tokens,  # [B, U, D] or [N, D]
    d_quantity,  # [B] float32
    d_alpha,  # [B, T] or [F]
    num_rows,
    num_frames,
    width,
    D: tl.constexpr,
    THRESHOLD: tl.constexpr,
    TAIL: tl.constexpr,
    TAIL_QUANTA: tl.constexpr,
    TILE: tl.constexpr,
):
    """One program per row: gradient of the weights from the products of :func:`backward_kernel`."""
    row = tl.program_id(0)
    base, span, length = row_frames(row, lengths, starts, num_rows, num_frames)
    plan = make_plan(row_total(prefix, base, length), row, targets, THRESHOLD, TAIL, TAIL_QUANTA)
    moment = slopes(direct + base, shift + base, prefix + base, slope + base, length, TILE)
    pull = tl.load(d_quantity + row).to(tl.float64)
    factor = tl.full([], 1, tl.float64)
    if targets is not None:
        some = tl.maximum(plan.total, 1).to(tl.float64)
        factor = tl.where(
            plan.count > 0, plan.scale / tl.full([], THRESHOLD / TOKEN, tl.float64), factor
        )
        pull -= factor * (moment / some)
    elif TAIL == "normalize":
        outputs = tl.load(token_lengths + row)
        if (plan.count > plan.last) & (outputs == plan.count):
            if starts is None:
                first_token = row.to(tl.int64) * width
            else:
                first_token = tl.load(token_ends + row) - outputs
            last_token = first_token + plan.last
            pull -= tail_pull(tokens, d_tokens, last_token, plan, THRESHOLD, D)
    tl.debug_barrier()  # other threads of this program have written the slopes
    for first in range(0, span, TILE):
        frames = first + tl.arange(0, TILE)
        weight = tl.load(alpha + base + frames, mask=frames < length, other=-1.0).to(tl.float64)
        value = tl.load(slope + base + frames, mask=frames < length, other=0.0) * factor + pull
        limit = tl.full([], FRAME_LIMIT * THRESHOLD / TOKEN, tl.float64)
        value = tl.where((weight >= 0) & (weight <= limit), value, 0.0)
        tl.store(d_alpha + base + frames, value.to(d_alpha.dtype.element_ty), mask=frames < span)
