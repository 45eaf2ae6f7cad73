// Rows, tokens and frames of a batch, as README.md defines them, for the kernels in both
// directions.
//
// A block owns a chunk of consecutive frames of one row. Its threads form walkers: `columns`
// threads, side by side, that walk through the same frames, VEC columns each. Integer prefix sums
// agree whoever computes them, so that no block has to wait for another.
#pragma once

#include "gpu_cuda.cuh"

// gpu_cuda.py builds the same structure; sizes of a packed batch in brackets.
struct Task {
  const Element *hidden, *d_tokens;      // [rows, frames, width], [rows, tokens, width]
  const float *alpha, *d_quantity;       // [rows, frames], [rows]
  const i64 *lengths, *starts, *targets, *token_starts;  // [rows]; starts: packed only
  Element *tokens, *d_hidden;
  i64 *token_lengths, *fire_frames, *prefix;
  float *quantity, *fire_times, *d_alpha;
  double *values, *sums;                 // [rows, frames]; [blocks, 2]: backward's notes
  unsigned* tickets;                     // [rows], zero before and after
  i64 rows, frames, tokens_wide, width, tail_quanta;     // packed: all frames, all tokens
  double threshold, quanta_per_weight;
  int tail, has_prefix, walk, columns, chunk, chunks;
};

struct Place {
  int row, chunk, begin, frames;         // begin: first frame of the chunk, counted in the row
  i64 first;                             // first frame of the row, counted in the batch
};

struct Row {
  i64 total, count, parts, size, extra, first, first_token;
  double scale, per_quantum, per_part;
  int emitted, scaled_token;             // scaled_token: a normalised tail, or -1
  float factor;
  bool open;
};

// What a frame does: `first` goes to token `before`, `last` to token `after`, if that is another.
struct __align__(16) Step {
  float first, last;
  int before, after;
};

// Blocks before that of row r in a packed batch, enough whatever the lengths are.
__device__ i64 first_block(const Task& p, i64 r) {
  return p.starts ? clamp(p.starts[r], 0, p.frames) / p.chunk + r : r * p.chunks;
}

__device__ int active_chunks(const Task& p, int frames) {
  return frames > 0 ? (frames - 1) / p.chunk + 1 : 1;
}

// Find the chunk of this block, for all its threads; false if it has none. `place` is shared.
__device__ bool find_place(const Task& p, Place* place) {
  int row = blockIdx.x / p.chunks;
  if (p.starts) {
    row = -1;
    for (i64 tile = 0; tile < p.rows; tile += blockDim.x) {
      const i64 r = tile + threadIdx.x;
      row += __syncthreads_count(r < p.rows && first_block(p, r) <= blockIdx.x);
    }
    if (row < 0) return false;
  }
  if (threadIdx.x == 0) {
    place->row = row;
    place->chunk = blockIdx.x - first_block(p, row);
    place->begin = place->chunk * p.chunk;
    place->first = p.starts ? clamp(p.starts[row], 0, p.frames) : row * p.frames;
    place->frames = clamp(p.lengths[row], 0, p.starts ? p.frames - place->first : p.frames);
  }
  __syncthreads();
  return !p.starts || place->chunk < active_chunks(p, place->frames);
}

__device__ Row make_row(const Task& p, const Place& place, i64 total) {
  Row row;
  row.total = total;
  row.first = place.first;
  row.scaled_token = -1;
  row.factor = 1;
  if (p.targets) {
    row.count = total > 0 ? clamp(p.targets[place.row], 0, 0x7fffffff) : 0;
    row.parts = row.count > 0 ? row.count : 1;
    row.size = total / row.parts;
    row.extra = total % row.parts;
    row.open = row.count > 0;
    row.scale = __ddiv_rn(__dmul_rn(double(row.count), p.threshold), double(total > 0 ? total : 1));
    row.per_quantum = double(row.count) / double(total > 0 ? total : 1);
  } else {
    const i64 rest = total & (TOKEN - 1);
    row.open = p.tail != 0 && rest > 0 && rest >= p.tail_quanta;
    row.count = (total >> QUANTUM_BITS) + row.open;
    row.parts = 1;
    row.size = TOKEN;
    row.extra = 0;
    row.scale = p.threshold * (1.0 / TOKEN);
    row.per_quantum = 1.0 / TOKEN;
    if (row.open && p.tail == NORMALIZE) {
      row.scaled_token = row.count - 1;
      row.factor = __double2float_rn(__ddiv_rn(double(TOKEN), double(rest)));
    }
  }
  row.per_part = 1.0 / double(row.parts);
  row.first_token = p.token_starts ? p.token_starts[place.row] : place.row * p.tokens_wide;
  const i64 room = p.token_starts ? p.tokens_wide - row.first_token : p.tokens_wide;
  row.emitted = clamp(row.count, 0, room);
  return row;
}

// x / row.parts; the quotient is below 2^31, so that float64 is wrong by one at most.
__device__ i64 share(const Row& row, i64 x) {
  const i64 quotient = double(x) * row.per_part, rest = x - quotient * row.parts;
  return quotient + (rest >= row.parts) - (rest < 0);
}

__device__ i64 end_of(const Row& row, i64 token) {
  const i64 spread = row.extra ? share(row, (token + 1) * row.extra) : 0;
  const i64 end = (token + 1) * row.size + spread;
  return end < row.total ? end : row.total;
}

// Number of tokens that end at or before `position` on the axis of accumulated weight.
__device__ i64 tokens_done(const Row& row, i64 position) {
  if (row.count == 0) return 0;
  if (row.open && position >= row.total) return row.count;
  if (row.size == TOKEN && !row.extra) return clamp(position >> QUANTUM_BITS, 0, row.count);
  // The estimate is one or two off at most: tokens number less than 2^31, float64 has 53 bits.
  i64 token = clamp(i64((double(position) + 1) * row.per_quantum), 0, row.count);
  while (token > 0 && end_of(row, token - 1) > position) --token;
  while (token < row.count && end_of(row, token) <= position) ++token;
  return token;
}

__device__ float weight_of(const Row& row, i64 token, i64 start, i64 end) {
  const i64 low = token ? end_of(row, token - 1) : 0, high = end_of(row, token);
  const i64 overlap = (end < high ? end : high) - (start > low ? start : low);
  return __double2float_rn(__dmul_rn(double(overlap), row.scale));
}

// `last_stays`: an open row's last token is in progress to the end of the row, as gradients see it.
__device__ Step make_step(const Row& row, int frame, i64 start, i64 end, bool last_stays) {
  const i64 most = last_stays && row.open ? row.count - 1 : row.count;
  const i64 limit = most < row.emitted ? most : row.emitted;
  Step step;
  step.before = frame ? clamp(tokens_done(row, start), 0, limit) : 0;
  step.after = clamp(tokens_done(row, end), 0, limit);
  step.first = step.before < row.emitted ? weight_of(row, step.before, start, end) : 0;
  step.last = step.after > step.before && step.after < row.emitted
                  ? weight_of(row, step.after, start, end) : 0;
  return step;
}
