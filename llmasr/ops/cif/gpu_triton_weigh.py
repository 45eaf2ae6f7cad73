"""Triton kernels that weigh frames: a linear layer to one number, and the sigmoid.

Letters: B rows, T frames, E width of a feature, P chunks of frames.
"""

# Arguments of kernels have the types that Triton gives them.
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_frames"])
def weigh_kernel(
    features,  # [B, T, E]
    weight,  # [E]
    bias,  # [1]
    lengths,  # [B] int64
    alpha,  # [B, T] float32
    num_frames,
    E: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per chunk of a row: alpha = sigmoid(features . weight + bias)."""
    chunks = tl.cdiv(num_frames, FRAMES)
    row = tl.program_id(0) // chunks
    frames = (tl.program_id(0) - row * chunks) * FRAMES + tl.arange(0, FRAMES)
    valid = frames < tl.minimum(tl.load(lengths + row), num_frames)
    places = row.to(tl.int64) * num_frames + frames
    products = tl.zeros([FRAMES, BLOCK], tl.float32)
    for first in range(0, E, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        known = valid[:, None] & (columns < E)[None, :]
        rows = tl.load(features + places[:, None] * E + columns[None, :], mask=known, other=0.0)
        line = tl.load(weight + columns, mask=columns < E, other=0.0).to(tl.float32)
        products = tl.fma(rows.to(tl.float32), line[None, :], products)
    logit = tl.sum(products, 1) + tl.load(bias).to(tl.float32)
    value = tl.where(valid, tl.sigmoid(logit), 0.0)
    tl.store(alpha + places, value, mask=frames < num_frames)


@triton.jit(do_not_specialize=["num_frames"])
def weigh_backward_kernel(
    d_alpha,  # [B, T]
    alpha,  # [B, T] float32
    features,  # [B, T, E]
    weight,  # [E]
    lengths,  # [B] int64
    d_features,  # [B, T, E]
    d_weight,  # [P, E] float32, share of each chunk
    d_bias,  # [P] float32
    num_frames,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per chunk of a row and block of columns."""
    item = tl.program_id(0) // tl.cdiv(E, BLOCK)
    columns = (tl.program_id(0) % tl.cdiv(E, BLOCK)) * BLOCK + tl.arange(0, BLOCK)
    row = item // tl.cdiv(num_frames, CHUNK)
    begin = (item - row * tl.cdiv(num_frames, CHUNK)) * CHUNK
    length = tl.minimum(tl.load(lengths + row), num_frames)
    line = tl.load(weight + columns, mask=columns < E, other=0.0).to(tl.float32)
    line_gradient = tl.zeros([BLOCK], tl.float32)
    bias_gradient = tl.zeros([FRAMES], tl.float32)
    for first in range(begin, tl.minimum(begin + CHUNK, num_frames), FRAMES):
        frames = first + tl.arange(0, FRAMES)
        places = row.to(tl.int64) * num_frames + frames
        share = tl.load(alpha + places, mask=frames < length, other=0.0)
        slope = tl.load(d_alpha + places, mask=frames < length, other=0.0).to(tl.float32)
        slope *= share * (1 - share)
        cells = places[:, None] * E + columns[None, :]
        known = (frames < length)[:, None] & (columns < E)[None, :]
        stored = (frames < num_frames)[:, None] & (columns < E)[None, :]
        rows = tl.load(features + cells, mask=known, other=0.0).to(tl.float32)
        value = slope[:, None] * line[None, :]
        tl.store(d_features + cells, value.to(d_features.dtype.element_ty), mask=stored)
        line_gradient += tl.sum(rows * slope[:, None], 0)
        bias_gradient += slope
    tl.store(d_weight + item.to(tl.int64) * E + columns, line_gradient, mask=columns < E)
    if tl.program_id(0) % tl.cdiv(E, BLOCK) == 0:
        tl.store(d_bias + item, tl.sum(bias_gradient))
