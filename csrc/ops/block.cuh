// What the CUDA kernels share: numbers read 16 bytes at a time, sums over a block, the launch. Blocks are whole warps.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "dtype.h"

namespace megatron_astro::ops::cuda {
namespace {

constexpr unsigned WHOLE_WARP = 0xffffffff;
constexpr int WARP = 32;
constexpr int MAX_THREADS = 1024;
constexpr int64_t MAX_BLOCKS_X = 2147483647, MAX_BLOCKS_Y = 65535;
constexpr float INFINITE = __builtin_inff();

// How many numbers 16 bytes hold.
template <typename T>
constexpr int LANES = 16 / static_cast<int>(sizeof(T));

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

// Two bfloat16, rounded to nearest even; the first in the lower half.
__device__ inline unsigned narrow_two(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  unsigned bits;
  __builtin_memcpy(&bits, &both, sizeof bits);
  return bits;
}

__device__ inline void store_one(float* to, float value) { *to = value; }
__device__ inline void store_one(BFloat16* to, float value) { to->bits = static_cast<uint16_t>(narrow_two(value, 0.0f)); }

__device__ inline void unpack(const uint4& raw, float (&values)[4]) {
  values[0] = __uint_as_float(raw.x);
  values[1] = __uint_as_float(raw.y);
  values[2] = __uint_as_float(raw.z);
  values[3] = __uint_as_float(raw.w);
}

__device__ inline void unpack(const uint4& raw, float (&values)[8]) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ inline uint4 pack(const float (&values)[4]) {
  return make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]), __float_as_uint(values[3]));
}

__device__ inline uint4 pack(const float (&values)[8]) {
  return make_uint4(narrow_two(values[0], values[1]), narrow_two(values[2], values[3]), narrow_two(values[4], values[5]),
                    narrow_two(values[6], values[7]));
}

// 16 bytes; the address must be a multiple of 16.
template <typename T>
__device__ inline uint4 load_raw(const T* from) {
  return *reinterpret_cast<const uint4*>(from);
}

template <typename T>
__device__ inline void load(const T* from, float (&values)[LANES<T>]) {
  unpack(load_raw(from), values);
}

// To global memory. Of an assignment nvcc 13 makes four stores of 4 bytes where another follows (SwiGLU, RoPE).
__device__ inline void store_raw(void* to, const uint4& raw) {
#if defined(__CUDA_ARCH__)
  const size_t address = __cvta_generic_to_global(to);
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(raw.x), "r"(raw.y), "r"(raw.z), "r"(raw.w) : "memory");
#else
  *static_cast<uint4*>(to) = raw;
#endif
}

template <typename T>
__device__ inline void store(T* to, const float (&values)[LANES<T>]) {
  store_raw(to, pack(values));
}

struct Add {
  static constexpr float IDENTITY = 0.0f;
  __device__ float operator()(float left, float right) const { return left + right; }
};

struct Largest {
  static constexpr float IDENTITY = -INFINITE;
  __device__ float operator()(float left, float right) const { return fmaxf(left, right); }
};

template <typename Combine>
__device__ inline float reduce_warp(float value) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    value = Combine()(value, __shfl_xor_sync(WHOLE_WARP, value, distance));
  }
  return value;
}

// The same result in every thread of the block. Every thread must call it.
template <typename Combine>
__device__ inline float reduce_block(float value) {
  __shared__ float of_warps[MAX_THREADS / WARP];
  const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
  value = reduce_warp<Combine>(value);
  if (lane == 0) of_warps[warp] = value;
  __syncthreads();
  const int num_warps = static_cast<int>(blockDim.x) / WARP;
  value = reduce_warp<Combine>(lane < num_warps ? of_warps[lane] : Combine::IDENTITY);
  __syncthreads();  // the next reduction writes there
  return value;
}

// A row whose address may be no multiple of 16: single numbers up to one that is, 16 bytes at a time, single numbers at the end.
// one(index) and pack(first index) are called over all the block's threads; each index belongs to exactly one call.
template <typename T, typename One, typename Packed>
__device__ inline void for_each_of_row(const T* row, int64_t size, int64_t thread, int64_t num_threads, One one, Packed packed) {
  const auto misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) / sizeof(T) % LANES<T>);
  int64_t head = misplaced == 0 ? 0 : LANES<T> - misplaced;
  head = head < size ? head : size;
  const int64_t num_packs = (size - head) / LANES<T>;
  if (thread < head) one(thread);
  for (int64_t index = thread; index < num_packs; index += num_threads) packed(head + index * LANES<T>);
  const int64_t tail = head + num_packs * LANES<T> + thread;
  if (tail < size) one(tail);
}

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Threads for `items` pieces of work: whole warps, at most `most`.
inline int threads_for(int64_t items, int most) {
  return static_cast<int>(std::min<int64_t>(divide_up(std::max<int64_t>(items, 1), WARP) * WARP, most));
}

inline bool is_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

// Whether rows of this many numbers, from these addresses, can be read 16 bytes at a time.
template <typename T, typename... Addresses>
bool fits_packs(int64_t columns, const Addresses*... addresses) {
  return columns % LANES<T> == 0 && (is_aligned(addresses) && ...);
}

inline dim3 blocks(int64_t x, int64_t y = 1) {
  return dim3(static_cast<unsigned>(std::min(x, MAX_BLOCKS_X)), static_cast<unsigned>(std::min(y, MAX_BLOCKS_Y)));
}

// Enqueue a kernel; returns a cudaError_t.
template <typename... Parameters, typename... Arguments>
int launch(void* stream, dim3 grid, int threads, void (*kernel)(Parameters...), const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(stream);
  return static_cast<int>(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace
}  // namespace megatron_astro::ops::cuda
