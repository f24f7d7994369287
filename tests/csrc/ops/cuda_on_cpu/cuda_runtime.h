// Stands in for CUDA's header of the same name, so that a C++ compiler builds the .cu sources and a CPU runs them.
//
// A block's threads are fibers of one thread of the system: one runs until it waits at a barrier or a warp's exchange, then another, in
// the order of the schedule asked for. So whatever a missing barrier allows to happen, some schedule does. A block whose threads wait at
// different places, or where some have ended while others wait, is reported. Blocks run one after another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

namespace cuda_on_cpu {

// Wait until every thread of the block that has not ended is here; an error if one has ended.
void wait_for_block();

// Exchange 32 bits within the warp: the value that lane (own lane ^ mask) gave.
uint32_t exchange(uint32_t value, int mask);

// Run a kernel on every block; 0, or a number that stands for what the threads did wrong.
cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& thread);

}  // namespace cuda_on_cpu

// Of the fiber that runs now: set whenever one goes on.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { cuda_on_cpu::wait_for_block(); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = cuda_on_cpu::exchange(bits, mask);
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }

inline void sincospif(float x, float* sine, float* cosine) {
  const double angle = 3.14159265358979323846 * static_cast<double>(x);
  *sine = static_cast<float>(std::sin(angle));
  *cosine = static_cast<float>(std::cos(angle));
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), const Arguments&... arguments) {
  return cuda_on_cpu::run(*config, [&] { kernel(arguments...); });
}
