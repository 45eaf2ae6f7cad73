// Integrate and fire: the forward pass. README.md has the formulas, gpu_cuda.py the grids.

#include "gpu_cuda_rows.cuh"

__device__ void write_sizes(const Task& p, int index, i64 count, i64 total) {
  p.token_lengths[index] = count;
  p.quantity[index] = __double2float_rn(__dmul_rn(double(total), p.threshold * (1.0 / TOKEN)));
}

// ---- scan: prefix, number of tokens and quantity of each row, one block a row ----

extern "C" __global__ void __launch_bounds__(MAX_THREADS) cif_scan(const Task p) {
  Place place;
  place.row = blockIdx.x;
  place.first = p.starts ? clamp(p.starts[place.row], 0, p.frames) : place.row * p.frames;
  place.frames = clamp(p.lengths[place.row], 0, p.starts ? p.frames - place.first : p.frames);
  i64* prefix = p.prefix + place.first;
  u64 total = 0;
  if (!p.has_prefix)
    total = scan_row(p.alpha + place.first, prefix, place.frames, p.starts ? 0 : p.frames,
                     p.quanta_per_weight);
  else if (place.frames)
    total = prefix[place.frames - 1];
  // A packed batch has no token_starts yet: they follow from the counts.
  if (threadIdx.x == 0) write_sizes(p, place.row, make_row(p, place, total).count, total);
}

// ---- forward ----

// Weight before the chunk and in the whole row: read, or summed up once more by every block.
__device__ void sum_row(const Task& p, const Place& place, u64* before, u64* total) {
  *before = *total = 0;
  if (p.has_prefix) {
    const i64* prefix = p.prefix + place.first;
    if (place.frames) *total = prefix[place.frames - 1];
    if (place.begin && place.begin <= place.frames) *before = prefix[place.begin - 1];
    return;
  }
  u64 left = 0, right = 0;
#pragma unroll 4
  for (int t = threadIdx.x; t < place.frames; t += blockDim.x) {
    const u64 x = quanta(__ldg(p.alpha + place.first + t), p.quanta_per_weight);
    (t < place.begin ? left : right) += x;  // a thread adds up fewer than 2^10 frames of 2^52
  }
  scan(left, quanta_slots, before);
  scan(right, quanta_slots, total);
  *total = add(*before, *total);
}

// First end of a token in this tile, `from` or later; the size of the tile if there is none.
__device__ int next_end(const unsigned* ends, int from) {
  for (int i = from / 32; i < int(blockDim.x) / 32; ++i) {
    const unsigned bits = ends[i] & (i == from / 32 ? FULL << from % 32 : FULL);
    if (bits) return i * 32 + __ffs(bits) - 1;
  }
  return blockDim.x;
}

__device__ void write_fires(const Task& p, const Row& row, int frame, const Step& step, i64 start,
                            i64 end) {
#pragma unroll 1
  for (int token = step.before; token < step.after; ++token) {
    const double part = double(end_of(row, token) - start);
    const double share = end > start ? __ddiv_rn(part, double(end - start)) : 0;
    p.fire_frames[row.first_token + token] = frame;
    p.fire_times[row.first_token + token] = __double2float_rn(__dadd_rn(double(frame), share));
  }
}

__device__ void clear_beyond(const Task& p, const Row& row, const Place& place, int column) {
  if (p.token_starts) return;            // a packed batch has no room to clear
  const int walkers = blockDim.x / p.columns, walker = threadIdx.x / p.columns;
  float zero[VEC];
  set(zero, 0);
  for (i64 u = row.emitted + place.chunk * walkers + walker; u < p.tokens_wide;
       u += p.chunks * walkers) {
    const i64 token = row.first_token + u;
    if (column < p.width) store(p.tokens + token * p.width + column, zero);
    if (column == 0) {
      p.fire_frames[token] = -1;
      p.fire_times[token] = 0;
    }
  }
}

// The frames that a block works on, one for each thread; in shared memory.
struct Tile {
  Step steps[BLOCK];
  i64 positions[BLOCK + 1];              // starts of the frames, and the end of the last one
  unsigned ends[BLOCK / 32];             // a bit for each frame in which a token ends
  u64 carry;                             // weight before the tile
};

// Fill the tile that starts at frame `begin`; `own`: also write what belongs to a frame.
__device__ void describe(const Task& p, const Place& place, const Row& row, int begin, bool own,
                         Tile& tile) {
  const int t = begin + threadIdx.x;
  const bool valid = t < place.frames;
  own &= valid && t < place.begin + p.chunk;
  u64 start = 0, end = 0, all = 0;
  if (p.has_prefix) {
    const i64* prefix = p.prefix + place.first + t;
    if (valid && t) start = prefix[-1];
    if (valid) end = prefix[0];
  } else {
    const u64 x = valid ? quanta(__ldg(p.alpha + place.first + t), p.quanta_per_weight) : 0;
    start = add(tile.carry, scan(x, quanta_slots, &all));
    end = add(start, x);
    if (own) p.prefix[place.first + t] = end;
    __syncthreads();                     // all have read the carry
    if (threadIdx.x == 0) tile.carry = add(tile.carry, all);
  }
  Step step = {0, 0, 0, 0};
  if (valid) {
    step = make_step(row, t, start, end, false);
    if (own) write_fires(p, row, t, step, start, end);
    tile.positions[threadIdx.x] = start;
    if (threadIdx.x == blockDim.x - 1 || t == place.frames - 1)
      tile.positions[threadIdx.x + 1] = end;
  }
  tile.steps[threadIdx.x] = step;
  const unsigned ends = __ballot_sync(FULL, step.after != step.before);
  if (threadIdx.x % 32 == 0) tile.ends[threadIdx.x / 32] = ends;
  __syncthreads();
}

// What a walker does: its tokens [low, high) start in its frames; it follows the last to its end.
struct Walk {
  int frame, low, high;
  bool goes, follows;
};

__device__ Walk start_walk(const Row& row, const Tile& tile, int from, int to, int begin) {
  Walk walk = {from, 0, 0, false, false};
  if (from >= to) return walk;
  const int reached = tile.steps[to - 1 - begin].after;
  walk.low = from ? tile.steps[from - begin].before + 1 : 0;
  walk.follows = reached < row.emitted;
  walk.high = walk.follows ? reached + 1 : row.emitted;
  walk.goes = walk.low < walk.high;
  if (walk.goes && from) walk.frame = begin + next_end(tile.ends, from - begin);
  return walk;
}

__device__ void emit(const Task& p, const Row& row, const Walk& walk, int token, float* sum,
                     Element* tokens) {
  if (token == row.scaled_token)
    for (int i = 0; i < VEC; ++i) sum[i] = __fmul_rn(sum[i], row.factor);
  if (token >= walk.low && token < walk.high) store(tokens + token * p.width, sum);
  set(sum, 0);
}

// Walk to frame `stop` of the tile that starts at `begin`. IN_FLIGHT frames are always on their
// way: one that has been used makes room for another.
__device__ void advance(const Task& p, const Row& row, const Tile& tile, int begin, int stop,
                        const Element* hidden, Element* tokens, Walk& walk, float* sum) {
  while (walk.frame < stop) {
    Words words[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i)
      if (walk.frame + i < stop) words[i] = load(hidden + (walk.frame + i) * p.width);
    bool is_rare = false;
    while (walk.frame < stop && !is_rare) {
#pragma unroll
      for (int i = 0; i < IN_FLIGHT; ++i) {
        if (walk.frame >= stop) break;
        const Step step = tile.steps[walk.frame - begin];
        is_rare = step.after > step.before + 1;
        if (is_rare) break;
        float x[VEC];
        unpack(words[i], x);
        if (walk.frame + IN_FLIGHT < stop)
          words[i] = load(hidden + (walk.frame + IN_FLIGHT) * p.width);
        add_scaled(sum, step.first, x);
        if (step.after > step.before) {
          emit(p, row, walk, step.before, sum, tokens);
          add_scaled(sum, step.last, x);
        }
        ++walk.frame;
      }
    }
    if (!is_rare) return;
    // A frame with several ends is kept out of the unrolled loop and its registers.
    const int at = walk.frame - begin;
    const Step step = tile.steps[at];
    float x[VEC];
    unpack(load(hidden + walk.frame * p.width), x);
    add_scaled(sum, step.first, x);
    emit(p, row, walk, step.before, sum, tokens);
#pragma unroll 1
    for (int token = step.before + 1; token < step.after; ++token) {
      add_scaled(sum, weight_of(row, token, tile.positions[at], tile.positions[at + 1]), x);
      emit(p, row, walk, token, sum, tokens);
    }
    add_scaled(sum, step.last, x);
    ++walk.frame;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3) cif_forward(const Task p) {
  __shared__ Place place;
  __shared__ Row row;
  __shared__ Tile tile;
  if (!find_place(p, &place)) return;
  u64 before, total;
  sum_row(p, place, &before, &total);
  const i64 column = i64(blockIdx.y * p.columns + threadIdx.x % p.columns) * VEC;
  const bool first_slice = blockIdx.y == 0;  // what has no columns is written with the first ones
  if (threadIdx.x == 0) {
    tile.carry = before;
    row = make_row(p, place, total);
    if (first_slice && place.chunk == 0) write_sizes(p, place.row, row.emitted, total);
  }
  __syncthreads();
  clear_beyond(p, row, place, column);
  if (first_slice && !p.has_prefix && !p.starts) {
    const int t = place.begin + threadIdx.x;
    const bool padding = t >= place.frames && t < p.frames && threadIdx.x < p.chunk;
    if (padding) p.prefix[place.first + t] = total;
  }

  Walk walk;
  float sum[VEC];
  set(sum, 0);
  for (int begin = place.begin; begin < place.frames; begin += blockDim.x) {
    describe(p, place, row, begin, first_slice, tile);
    const int from = place.begin + threadIdx.x / p.columns * p.walk;
    const int to = clamp(from + p.walk, 0, place.frames);
    if (begin == place.begin) {
      walk = start_walk(row, tile, from, to, begin);
      walk.goes &= column < p.width;
    }
    if (walk.goes) {
      int stop = to;
      const int last = next_end(tile.ends, to > begin ? to - begin : 0);
      walk.goes = walk.follows && last == blockDim.x;
      if (walk.follows) stop = clamp(begin + last + (last < blockDim.x), 0, place.frames);
      advance(p, row, tile, begin, stop, p.hidden + place.first * p.width + column,
              p.tokens + row.first_token * p.width + column, walk, sum);
    }
    if (!__syncthreads_or(walk.goes)) break;
  }
}
