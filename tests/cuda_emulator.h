// The part of CUDA that our kernels use, on a CPU: one block at a time, its threads as fibers that
// switch at barriers and shuffles only. Shared memory starts as garbage, threads can run first to
// last or last to first, a wait without end and an access outside a buffer become errors.
#pragma once

#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sys/mman.h>
#include <ucontext.h>

#define EMULATED
#define __global__
#define __device__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One section, so that its content can be spoilt before each block.
#define __shared__ static __attribute__((section("emulated_shared")))

extern "C" char __start_emulated_shared[], __stop_emulated_shared[];

struct uint4 {
  unsigned x, y, z, w;
};

struct Index {
  unsigned x, y, z;
};

static Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr int MAX_THREADS = 1024, STACK = 64 << 10;

struct Meeting {
  int arrived;
  unsigned generation;
};

struct Fiber {
  jmp_buf state;
  bool started, done;
};

static Fiber fibers[MAX_THREADS];
static Meeting block_meeting, warp_meetings[MAX_THREADS / 32];
static unsigned long long slots[MAX_THREADS];
static int live, votes;
static bool progress, faulted;
static jmp_buf scheduler;
static char* stacks;
static const std::function<void()>* body;

inline void yield() {
  const unsigned self = threadIdx.x;
  if (!_setjmp(fibers[self].state)) _longjmp(scheduler, 1);
}

inline void release(Meeting& meeting) {
  meeting.arrived = 0;
  ++meeting.generation;
  progress = true;
}

inline void meet(Meeting& meeting, int members) {
  const unsigned generation = meeting.generation;
  if (++meeting.arrived == members) return release(meeting);
  while (meeting.generation == generation) yield();
}

// As `meet`, for all threads of the block that have not returned.
inline void meet_block() {
  const unsigned generation = block_meeting.generation;
  if (++block_meeting.arrived == live) return release(block_meeting);
  while (block_meeting.generation == generation) yield();
}

template <typename T>
T exchange(T value, int from) {
  Meeting& warp = warp_meetings[threadIdx.x / 32];
  std::memcpy(&slots[threadIdx.x], &value, sizeof value);
  meet(warp, 32);
  std::memcpy(&value, &slots[threadIdx.x / 32 * 32 + from], sizeof value);
  meet(warp, 32);
  return value;
}

inline void run_fiber() {
  (*body)();
  fibers[threadIdx.x].done = true;
  progress = true;
  if (--live && block_meeting.arrived == live) release(block_meeting);
  _longjmp(scheduler, 1);
}

inline void start(int index) {
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stacks + size_t(index) * STACK;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, run_fiber, 0);
  setcontext(&context);
}

inline void resume(int index) {
  if (_setjmp(scheduler)) return;        // the fiber yields, returns or faults
  threadIdx.x = index;
  if (fibers[index].started) _longjmp(fibers[index].state, 1);
  fibers[index].started = true;
  start(index);
}

inline void on_fault(int) {
  faulted = true;
  _longjmp(scheduler, 1);
}

inline const char* run_block(bool reverse) {
  const int threads = blockDim.x;
  std::memset(__start_emulated_shared, 0xa5, __stop_emulated_shared - __start_emulated_shared);
  std::memset(fibers, 0, sizeof fibers);
  std::memset(warp_meetings, 0, sizeof warp_meetings);
  block_meeting = {};
  votes = 0;
  live = threads;
  while (live) {
    progress = false;
    for (int i = 0; i < threads; ++i) {
      const int index = reverse ? threads - 1 - i : i;
      if (!fibers[index].done) resume(index);
      if (faulted) return "a thread left its buffers";
    }
    if (!progress) return "threads wait for each other without end";
  }
  return nullptr;
}

// Run a kernel; return what went wrong, or null.
inline const char* run(const std::function<void()>& kernel, unsigned x, unsigned y,
                       unsigned threads, bool reverse) {
  if (!stacks)
    stacks = (char*)mmap(nullptr, size_t(MAX_THREADS) * STACK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) return "no memory for the threads";
  struct sigaction fault = {}, before;
  fault.sa_handler = on_fault;
  fault.sa_flags = SA_NODEFER;
  sigaction(SIGSEGV, &fault, &before);
  body = &kernel;
  blockDim = {threads, 1, 1};
  gridDim = {x, y, 1};
  faulted = false;
  const char* problem = nullptr;
  for (unsigned i = 0; i < x * y && !problem; ++i) {
    const unsigned block = reverse ? x * y - 1 - i : i;
    blockIdx = {block % x, block / x, 0};
    problem = run_block(reverse);
  }
  sigaction(SIGSEGV, &before, nullptr);
  return problem;
}

}  // namespace emulator

inline void __syncthreads() { emulator::meet_block(); }

inline int __syncthreads_count(int predicate) {
  emulator::votes += predicate != 0;
  __syncthreads();
  const int count = emulator::votes;
  __syncthreads();
  emulator::votes = 0;                   // all have read it
  __syncthreads();                       // and none votes again before this
  return count;
}

inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) > 0; }

template <typename T>
T __shfl_up_sync(unsigned, T value, int distance) {
  const int lane = threadIdx.x % 32;
  return emulator::exchange(value, lane >= distance ? lane - distance : lane);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::exchange(value, threadIdx.x % 32 ^ mask);
}

inline unsigned __ballot_sync(unsigned, int predicate) {
  unsigned bits = (predicate != 0) << threadIdx.x % 32;
  for (int distance = 1; distance < 32; distance *= 2)
    bits |= __shfl_xor_sync(~0u, bits, distance);
  return bits;
}

inline void __threadfence() {}

inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at += value;
  return old;
}

template <typename T>
T __ldg(const T* from) { return *from; }

template <typename T>
T __ldcg(const T* from) { return *from; }

template <typename T>
void __stwb(T* to, T value) { *to = value; }

inline int __ffs(unsigned bits) { return __builtin_ffs(bits); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __double2float_rn(double x) { return float(x); }

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float half_to_float(unsigned short bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float x = exponent == 31  ? fraction ? NAN : INFINITY
            : exponent == 0 ? std::ldexp(float(fraction), -24)
                            : std::ldexp(float(fraction + 1024), exponent - 25);
  return bits >> 15 ? -x : x;
}

inline unsigned short float_to_half(float x) {
  const unsigned sign = __float_as_uint(x) >> 16 & 0x8000;
  const float size = std::fabs(x);
  if (size != size) return 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  // nearbyint rounds ties to even; a fraction of 2048 carries into the exponent by itself
  const unsigned fraction = std::nearbyint(std::ldexp(size, 10 - exponent));
  return sign | (size < 0x1p-14f ? fraction : fraction + ((exponent + 14) << 10));
}
