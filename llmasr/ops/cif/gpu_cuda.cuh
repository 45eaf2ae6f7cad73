// What all CUDA kernels of CIF share: numbers, 16-byte loads, sums over threads, quanta.
//
// Compiled at run time for one element type (ELEMENT: 0 float, 1 bfloat16, 2 half) and one number
// of elements per load (VEC: 16 bytes' worth, or 1). No header of CUDA is included, so that none
// has to be found.
#pragma once

typedef long long i64;
typedef unsigned long long u64;

#define FULL 0xffffffffu
constexpr int MAX_THREADS = 512;         // of cif_scan; the others have up to BLOCK
constexpr int BLOCK = 256;
constexpr int MAX_WALK = 64;             // frames of a walker
constexpr int IN_FLIGHT = 4;             // frames that a thread has on their way
constexpr int QUANTUM_BITS = 44;
constexpr i64 TOKEN = 1ll << QUANTUM_BITS;
constexpr u64 ROW_LIMIT = u64(TOKEN) << 18;
constexpr double FRAME_LIMIT = 256.0 * double(TOKEN);
constexpr int NORMALIZE = 2;             // the tails: 0 drop, 1 fire

// ---- elements ----

#if ELEMENT == 0
typedef float Element;
#else
typedef unsigned short Element;          // the bits
#endif
#if VEC == 1
typedef Element Words;
#else
typedef uint4 Words;
#endif

#ifndef EMULATED
__device__ float half_to_float(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

__device__ unsigned short float_to_half(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
#endif

__device__ unsigned short float_to_bfloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  const unsigned bits = __float_as_uint(x);
  return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
#endif
}

__device__ float to_float(unsigned bits, int type) {
  return type == 0   ? __uint_as_float(bits)
         : type == 1 ? __uint_as_float(bits << 16)
                     : half_to_float((unsigned short)bits);
}

__device__ unsigned from_float(float x) {
#if ELEMENT == 0
  return __float_as_uint(x);
#else
  return ELEMENT == 1 ? float_to_bfloat16(x) : float_to_half(x);
#endif
}

__device__ Words load(const Element* from) { return __ldg((const Words*)from); }

__device__ void unpack(const Words& words, float* x) {
#if VEC == 1
  x[0] = to_float(ELEMENT == 0 ? __float_as_uint(words) : (unsigned)words, ELEMENT);
#else
  const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < VEC; ++i)
    x[i] = to_float(VEC == 4 ? word[i] : i & 1 ? word[i / 2] >> 16 : word[i / 2] & 0xffff, ELEMENT);
#endif
}

// By __stwb, since the compiler takes the plain store of a vector apart.
__device__ void store(Element* to, const float* x) {
#if VEC == 1
  *to = ELEMENT == 0 ? (Element)x[0] : (Element)from_float(x[0]);
#else
  unsigned word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    word[i] = VEC == 4 ? from_float(x[i]) : from_float(x[2 * i]) | from_float(x[2 * i + 1]) << 16;
  __stwb((uint4*)to, uint4{word[0], word[1], word[2], word[3]});
#endif
}

__device__ void set(float* x, float value) {
#pragma unroll
  for (int i = 0; i < VEC; ++i) x[i] = value;
}

__device__ void add_scaled(float* sum, float weight, const float* x) {
#pragma unroll
  for (int i = 0; i < VEC; ++i) sum[i] = __fmaf_rn(weight, x[i], sum[i]);
}

__device__ float dot(const float* x, const float* y) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < VEC; ++i) sum = __fmaf_rn(x[i], y[i], sum);
  return sum;
}

// ---- meeting of threads and blocks ----

__shared__ u64 quanta_slots[MAX_THREADS / 32];
__shared__ double value_slots[MAX_THREADS / 32];

__device__ u64 add(u64 a, u64 b) { return a + b < ROW_LIMIT ? a + b : ROW_LIMIT; }
__device__ double add(double a, double b) { return a + b; }

// Sum over the threads before this one; `total` is that over all. Fixed order.
template <typename T>
__device__ T scan(T value, T* slots, T* total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T sum = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const T left = __shfl_up_sync(FULL, sum, distance);
    if (lane >= distance) sum = add(left, sum);
  }
  const T left = __shfl_up_sync(FULL, sum, 1);
  __syncthreads();                       // the last scan's slots have been read
  if (lane == 31) slots[warp] = sum;
  __syncthreads();
  T before = 0, all = 0;
#pragma unroll 1
  for (int i = 0; i < int(blockDim.x) / 32; ++i) {
    if (i == warp) before = all;
    all = add(all, slots[i]);
  }
  *total = all;
  return lane ? add(before, left) : before;
}

__device__ float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(FULL, value, distance);
  return value;
}

// Whether this block is the last of `expected`; it then sees what the others wrote (through L2).
__device__ bool is_last(unsigned* ticket, int expected) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(ticket, 1u) == unsigned(expected) - 1;
    if (last) *ticket = 0;               // ready for the next launch
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// ---- quanta ----

__device__ i64 clamp(i64 value, i64 low, i64 high) {
  return value < low ? low : value > high ? high : value;
}

__device__ u64 quanta(float alpha, double per_weight) {
  const double x = __dmul_rn(double(alpha), per_weight);
  return x > 0 ? u64(i64(__dadd_rn(fmin(x, FRAME_LIMIT), 0.5))) : 0;
}

// The prefix sums of a row, by one block, and their last one on the padding up to `room` frames.
__device__ u64 scan_row(const float* alpha, i64* prefix, int frames, int room,
                        double quanta_per_weight) {
  constexpr int per_thread = 4;
  u64 carry = 0;
  for (int tile = 0; tile < frames; tile += blockDim.x * per_thread) {
    const int t = tile + threadIdx.x * per_thread;
    u64 x[per_thread], sum = 0, all;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      x[i] = t + i < frames ? quanta(__ldcg(alpha + t + i), quanta_per_weight) : 0;
      sum += x[i];
    }
    u64 position = add(carry, scan(sum, quanta_slots, &all));
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      position = add(position, x[i]);
      if (t + i < frames) prefix[t + i] = position;
    }
    carry = add(carry, all);
  }
  for (int t = frames + threadIdx.x; t < room; t += blockDim.x) prefix[t] = carry;
  return carry;
}
