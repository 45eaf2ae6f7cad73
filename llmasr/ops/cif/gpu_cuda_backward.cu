// Gradients of integrate and fire, in one pass over the frames. README.md has the formulas.
//
// What needs the whole row, the sum over later frames, is left to the last block of the row: a
// ticket counter tells which one that is, and blocks leave their notes in `values` and `sums`.

#include "gpu_cuda_rows.cuh"

// What a thread knows while it walks through frames: its columns, and the token in progress.
struct Lane {
  i64 column;                            // the first of VEC
  bool inside;                           // of the row; threads outside still take part in the sums
  float gradient[VEC];                   // of the token in progress
  Words upcoming;                        // gradient of the next one, loaded long before its use
};

__device__ Words load_gradient(const Task& p, const Row& row, int token, const Lane& lane) {
  Words zero = {};
  if (token >= row.emitted || !lane.inside) return zero;
  return load(p.d_tokens + (row.first_token + token) * p.width + lane.column);
}

// Make `token`, whose gradient is given, the one in progress.
__device__ void begin_token(const Task& p, const Row& row, int token, const Words& gradient,
                            Lane& lane) {
  unpack(gradient, lane.gradient);
  if (token == row.scaled_token)
    for (int i = 0; i < VEC; ++i) lane.gradient[i] = __fmul_rn(lane.gradient[i], row.factor);
  lane.upcoming = load_gradient(p, row, token + 1, lane);
}

// <G, c> / r of a normalised tail that came out, 0 otherwise.
__device__ double tail_share(const Task& p, const Row& row) {
  if (row.scaled_token < 0 || row.scaled_token >= row.emitted) return 0;
  const i64 at = (row.first_token + row.scaled_token) * p.width;
  double sum = 0, all;
  for (i64 column = i64(threadIdx.x) * VEC; column < p.width; column += blockDim.x * VEC) {
    float value[VEC], gradient[VEC];
    unpack(load(p.tokens + at + column), value);
    unpack(load(p.d_tokens + at + column), gradient);
    sum += dot(value, gradient);
  }
  scan(sum, value_slots, &all);
  return all / (double(row.total & (TOKEN - 1)) * (p.threshold * (1.0 / TOKEN)));
}

// A = p + the sum of d over later frames of the chunk; threads take the frames last to first.
__device__ void note_chunk(const Task& p, const Place& place, const float (*notes)[MAX_WALK][2],
                           int frames) {
  const int mine = frames - 1 - int(threadIdx.x);
  double value = 0, jump = 0, moment = 0, jumps, moments;
  for (int i = 0; mine >= 0 && i < p.columns / 32; ++i) {
    const float* note = notes[mine / p.walk * (p.columns / 32) + i][mine % p.walk];
    value += note[0];
    jump += note[1];
  }
  value += scan(jump, value_slots, &jumps);
  if (mine >= 0) {
    const i64* prefix = p.prefix + place.first;
    const int now = place.begin + mine;
    p.values[place.first + now] = value;
    const i64 mass = prefix[now] - (now ? prefix[now - 1] : 0);
    moment = double(mass) * (p.threshold * (1.0 / TOKEN)) * value;
  }
  scan(moment, value_slots, &moments);
  if (threadIdx.x == 0) {
    p.sums[2 * i64(blockIdx.x)] = jumps;
    p.sums[2 * i64(blockIdx.x) + 1] = moments;
  }
}

// d_alpha of a row from the blocks' notes: values [frames] hold A without what later chunks add,
// sums [chunks, 2] the sum of d and that of a * A over a chunk.
__device__ void finish_row(const Task& p, const Row& row, const Place& place) {
  const double per_quantum = p.threshold * (1.0 / TOKEN);
  const int chunks = active_chunks(p, place.frames);
  const i64* prefix = p.prefix + place.first;
  double* sums = p.sums + 2 * first_block(p, place.row);
  double carry = 0, moment = 0, all;
  for (int done = 0; done < chunks; done += blockDim.x) {
    const int chunk = chunks - 1 - done - int(threadIdx.x);
    const double own = chunk >= 0 ? __ldcg(sums + 2 * chunk) : 0;
    const double later = carry + scan(own, value_slots, &all);
    carry += all;
    if (chunk < 0) continue;
    const int begin = chunk * p.chunk, end = clamp(begin + p.chunk, 0, place.frames);
    const i64 mass = prefix[end - 1] - (begin ? prefix[begin - 1] : 0);
    moment += __ldcg(sums + 2 * chunk + 1) + double(mass) * per_quantum * later;
    sums[2 * chunk] = later;
  }
  scan(moment, value_slots, &all);       // its barriers show `later` to all threads, too
  const double quantity = double(row.total) * per_quantum;
  const bool scaled = p.targets && row.count > 0;
  const double factor = scaled ? row.scale / per_quantum : 1;
  const double shift = scaled ? all / quantity : tail_share(p, row);
  const double d_quantity = p.d_quantity[place.row];
#pragma unroll 4
  for (int t = threadIdx.x; t < place.frames; t += blockDim.x) {
    const float alpha = __ldg(p.alpha + place.first + t);
    const double value = __ldcg(p.values + place.first + t) + __ldcg(sums + 2 * (t / p.chunk));
    const bool moves = alpha >= 0 && double(alpha) * p.quanta_per_weight <= FRAME_LIMIT;
    const double gradient = factor * (value - shift) + d_quantity;
    p.d_alpha[place.first + t] = moves ? __double2float_rn(gradient) : 0;
  }
}

__device__ void clear_padding(const Task& p, const Place& place) {
  if (p.starts) return;
  const int from = place.begin > place.frames ? place.begin : place.frames;
  const int to = clamp(i64(place.begin) + p.chunk, 0, p.frames);
  float zero[VEC];
  set(zero, 0);
  if (p.d_hidden)
    for (int t = from + threadIdx.x / p.columns; t < to; t += blockDim.x / p.columns)
      for (i64 column = threadIdx.x % p.columns * VEC; column < p.width; column += p.columns * VEC)
        store(p.d_hidden + (place.first + t) * p.width + column, zero);
  if (p.d_alpha)
    for (int t = from + threadIdx.x; t < to; t += blockDim.x) p.d_alpha[place.first + t] = 0;
}

// One frame. MANY: whole tokens may lie inside it.
template <bool MANY>
__device__ void differentiate(const Task& p, const Row& row, i64 frame, const Step& step,
                              const Words& hidden, float* note, bool adds, Lane& lane) {
  float x[VEC], d_hidden[VEC], p_t = 0, d_t = 0;
  unpack(hidden, x);
  set(d_hidden, 0);
  add_scaled(d_hidden, step.first, lane.gradient);
  if (p.d_alpha) p_t = warp_sum(dot(x, lane.gradient));
  if (step.after > step.before) {
    if (MANY)
#pragma unroll 1
      for (int token = step.before + 1; token < step.after; ++token) {
        begin_token(p, row, token, lane.upcoming, lane);
        const i64* end = p.prefix + frame;
        const i64 start = frame > row.first ? end[-1] : 0;
        add_scaled(d_hidden, weight_of(row, token, start, *end), lane.gradient);
      }
    begin_token(p, row, step.after, lane.upcoming, lane);
    add_scaled(d_hidden, step.last, lane.gradient);
    if (p.d_alpha) {
      d_t = -p_t;
      p_t = warp_sum(dot(x, lane.gradient));
      d_t += p_t;
    }
  }
  if (p.d_hidden && lane.inside) store(p.d_hidden + frame * p.width + lane.column, d_hidden);
  if (p.d_alpha && threadIdx.x % 32 == 0) {
    note[0] = (adds ? note[0] : 0) + p_t;
    note[1] = (adds ? note[1] : 0) + d_t;
  }
}

__device__ Words load_hidden(const Task& p, i64 frame, const Lane& lane) {
  Words zero = {};
  return p.d_alpha && lane.inside ? load(p.hidden + frame * p.width + lane.column) : zero;
}

// Walk through the frames [frame, to) of a chunk that begins at frame `first` of the batch.
__device__ void walk_back(const Task& p, const Row& row, i64 first, const Step* steps, int frame,
                          int to, float (*notes)[2], bool adds, Lane& lane) {
  while (frame < to) {
    Words words[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i)
      if (frame + i < to) words[i] = load_hidden(p, first + frame + i, lane);
    bool is_rare = false;
    while (frame < to && !is_rare) {
#pragma unroll
      for (int i = 0; i < IN_FLIGHT; ++i) {
        if (frame >= to) break;
        const Step step = steps[frame];
        is_rare = step.after > step.before + 1;
        if (is_rare) break;
        differentiate<false>(p, row, first + frame, step, words[i], notes[frame], adds, lane);
        if (frame + IN_FLIGHT < to) words[i] = load_hidden(p, first + frame + IN_FLIGHT, lane);
        ++frame;
      }
    }
    if (!is_rare) return;
    // A frame with several ends is kept out of the unrolled loop, as in advance().
    differentiate<true>(p, row, first + frame, steps[frame], load_hidden(p, first + frame, lane),
                        notes[frame], adds, lane);
    ++frame;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3) cif_backward(const Task p) {
  __shared__ Place place;
  __shared__ Row row;
  __shared__ Step steps[BLOCK];
  __shared__ float notes[BLOCK / 32][MAX_WALK][2];  // p and d by warp, for the frames of its walker
  if (!find_place(p, &place)) return;
  clear_padding(p, place);
  if (place.begin >= place.frames) return;
  const i64* prefix = p.prefix + place.first;
  if (threadIdx.x == 0) row = make_row(p, place, prefix[place.frames - 1]);
  __syncthreads();
  const int frames = clamp(place.frames - place.begin, 0, p.chunk);
  if (int(threadIdx.x) < frames) {
    const int t = place.begin + threadIdx.x;
    steps[threadIdx.x] = make_step(row, t, t ? prefix[t - 1] : 0, prefix[t], true);
  }
  __syncthreads();

  const int from = threadIdx.x / p.columns * p.walk, to = clamp(from + p.walk, 0, frames);
  const i64 first = place.first + place.begin;
  for (i64 slice = 0; from < to && (slice == 0 || slice < p.width); slice += p.columns * VEC) {
    Lane lane;
    lane.column = slice + threadIdx.x % p.columns * VEC;
    lane.inside = lane.column < p.width;
    const int token = steps[from].before;
    begin_token(p, row, token, load_gradient(p, row, token, lane), lane);
    walk_back(p, row, first, steps, from, to, notes[threadIdx.x / 32] - from, slice > 0, lane);
  }
  if (!p.d_alpha) return;
  __syncthreads();
  note_chunk(p, place, notes, frames);
  if (is_last(p.tickets + place.row, active_chunks(p, place.frames))) finish_row(p, row, place);
}
