// alpha = sigmoid(features . weight + bias) with its prefix sums, and the gradients: one pass each.

#include "gpu_cuda.cuh"

constexpr int WEIGHT_TILE = 2048;
constexpr int GROUP = 16;                // partial sums that one block adds up

struct Linear {
  const Element* features;               // [rows, frames, width]
  const void *weight, *bias;             // [width], [1] of weight_type: 0 float, 1 bfloat16, 2 half
  const i64* lengths;
  float* alpha;                          // [rows, frames]
  i64* prefix;
  const float* d_alpha;
  Element* d_features;
  float *partials, *d_weight, *d_bias;   // [blocks, width + 1], the bias last; [width], [1]
  unsigned* tickets;                     // [rows]; backward: [1 + groups]
  i64 rows, frames, width;
  double quanta_per_weight;
  int weight_type, columns, chunk, chunks;
};

__device__ float parameter(const void* from, int type, i64 i) {
  return to_float(type == 0 ? ((const unsigned*)from)[i] : ((const unsigned short*)from)[i], type);
}

extern "C" __global__ void __launch_bounds__(BLOCK) cif_weigh(const Linear p) {
  __shared__ __align__(16) float weight[WEIGHT_TILE];
  const i64 row = blockIdx.x / p.chunks, first = row * p.frames;
  const int frames = clamp(p.lengths[row], 0, p.frames);
  const int begin = blockIdx.x % p.chunks * p.chunk;
  const int end = clamp(begin + p.chunk, 0, p.frames), valid = end < frames ? end : frames;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int t = (begin > frames ? begin : frames) + threadIdx.x; t < end; t += blockDim.x)
    p.alpha[first + t] = 0;
  for (int round = begin; round < valid; round += warps * IN_FLIGHT) {
    const int t = round + warp * IN_FLIGHT;
    float sums[IN_FLIGHT] = {};
    for (i64 tile = 0; tile < p.width; tile += WEIGHT_TILE) {
      const int width = clamp(p.width - tile, 0, WEIGHT_TILE);
      if (round == begin || p.width > WEIGHT_TILE) {
        __syncthreads();
        for (int i = threadIdx.x; i < width; i += blockDim.x)
          weight[i] = parameter(p.weight, p.weight_type, tile + i);
        __syncthreads();
      }
#pragma unroll 2
      for (int column = lane * VEC; column < width; column += 32 * VEC) {
        Words words[IN_FLIGHT] = {};
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i)
          if (t + i < valid)
            words[i] = load(p.features + (first + t + i) * p.width + tile + column);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
          float x[VEC];
          unpack(words[i], x);
          sums[i] += dot(x, weight + column);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i) {
      const float logit = warp_sum(sums[i]) + parameter(p.bias, p.weight_type, 0);
      if (lane == 0 && t + i < valid) p.alpha[first + t + i] = 1 / (1 + expf(-logit));
    }
  }
  const int active = frames ? (frames - 1) / p.chunk + 1 : 1;
  if (begin < active * p.chunk && is_last(p.tickets + row, active))
    scan_row(p.alpha + first, p.prefix + first, frames, p.frames, p.quanta_per_weight);
}

// Sum of `count` rows of partial sums, `stride` rows apart, in order; d_bias is the last column.
__device__ void add_partials(const float* from, i64 width, int count, i64 stride, float* d_weight,
                             float* d_bias) {
  for (i64 column = threadIdx.x; column <= width; column += blockDim.x) {
    float sum = 0;
#pragma unroll 8
    for (int i = 0; i < count; ++i) sum += __ldcg(from + i * stride * (width + 1) + column);
    *(column < width ? d_weight + column : d_bias) = sum;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3) cif_weigh_backward(const Linear p) {
  __shared__ float slopes[BLOCK];        // d_alpha * alpha * (1 - alpha)
  __shared__ bool valid[BLOCK];
  __shared__ float shares[BLOCK][VEC];
  const i64 frames = p.rows * p.frames, span = (frames + gridDim.x - 1) / gridDim.x;
  const i64 begin = span * blockIdx.x, end = clamp(begin + span, 0, frames);
  const int walkers = blockDim.x / p.columns, walker = threadIdx.x / p.columns;
  float* partial = p.partials + blockIdx.x * (p.width + 1);
  float d_bias = 0;
  for (i64 slice = 0; slice < p.width; slice += p.columns * VEC) {
    const i64 column = slice + threadIdx.x % p.columns * VEC;
    const bool inside = column < p.width;
    float weight[VEC], sum[VEC];
    set(weight, 0);
    set(sum, 0);
    for (int i = 0; inside && i < VEC; ++i)
      weight[i] = parameter(p.weight, p.weight_type, column + i);
    for (i64 tile = begin; tile < end; tile += blockDim.x) {
      const i64 at = tile + threadIdx.x;
      const bool counts = at < end && at % p.frames < p.lengths[at / p.frames];
      const float alpha = counts ? p.alpha[at] : 0;
      __syncthreads();
      valid[threadIdx.x] = counts;
      slopes[threadIdx.x] = counts ? p.d_alpha[at] * alpha * (1 - alpha) : 0;
      __syncthreads();
      const int size = clamp(end - tile, 0, blockDim.x);
      for (int t = walker; inside && t < size; t += walkers * IN_FLIGHT) {
        Words words[IN_FLIGHT] = {};
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
          const int now = t + i * walkers;
          if (now < size && valid[now])
            words[i] = load(p.features + (tile + now) * p.width + column);
        }
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
          const int now = t + i * walkers;
          if (now >= size) break;
          float x[VEC], d_features[VEC];
          unpack(words[i], x);
          set(d_features, 0);
          add_scaled(d_features, slopes[now], weight);
          add_scaled(sum, slopes[now], x);
          store(p.d_features + (tile + now) * p.width + column, d_features);
          if (slice == 0) d_bias += slopes[now];
        }
      }
    }
    __syncthreads();
    for (int i = 0; i < VEC; ++i) shares[threadIdx.x][i] = sum[i];
    __syncthreads();
    if (walker == 0 && inside)
      for (int i = 0; i < VEC; ++i) {
        float all = 0;
        for (int w = 0; w < walkers; ++w) all += shares[threadIdx.x + w * p.columns][i];
        partial[column + i] = all;
      }
  }
  __syncthreads();
  if (threadIdx.x % p.columns == 0) slopes[walker] = d_bias;
  __syncthreads();
  if (threadIdx.x == 0) {
    float all = 0;
    for (int w = 0; w < walkers; ++w) all += slopes[w];
    partial[p.width] = all;
  }
  // Two rounds, so that no block has to add up more than a few rows: groups, then groups of groups.
  const int group = blockIdx.x / GROUP, groups = (gridDim.x - 1) / GROUP + 1;
  const int members = clamp(gridDim.x - group * GROUP, 0, GROUP);
  float* gathered = p.partials + i64(group) * GROUP * (p.width + 1);
  if (!is_last(p.tickets + 1 + group, members)) return;
  add_partials(gathered, p.width, members, 1, gathered, gathered + p.width);
  if (is_last(p.tickets, groups))
    add_partials(p.partials, p.width, groups, GROUP, p.d_weight, p.d_bias);
}
