// One thread, 16 bytes of gates and of ups. Rows are the grid's second axis, so that no index is ever divided.
#include "swiglu.h"

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int THREADS = 256;

// With the exact functions bfloat16 would take as long as the memory does: there, the quick ones, good to 2^-21.
template <typename T>
__device__ inline float sigmoid(float x) {
  if constexpr (sizeof(T) == 4) return 1.0f / (1.0f + expf(-x));
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <typename T>
__device__ inline float swiglu_of(float gate, float up) {
  return gate * sigmoid<T>(gate) * up;
}

template <typename T>
__device__ inline void gradients_of(float grad, float gate, float up, float& grad_gate, float& grad_up) {
  const float share = sigmoid<T>(gate);
  grad_up = grad * gate * share;
  grad_gate = grad * up * share * (1.0f + gate * (1.0f - share));
}

template <typename T>
__global__ void __launch_bounds__(THREADS) forward_packed(const SwigluForward a) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * LANES<T>;
  if (i >= a.columns) return;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const T* from = static_cast<const T*>(a.gate_up) + row * 2 * a.columns + i;
    float gate[LANES<T>], up[LANES<T>];
    load(from, gate);
    load(from + a.columns, up);
#pragma unroll
    for (int k = 0; k < LANES<T>; ++k) gate[k] = swiglu_of<T>(gate[k], up[k]);
    store(static_cast<T*>(a.output) + row * a.columns + i, gate);
  }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) forward_single(const SwigluForward a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= a.columns) return;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const T* from = static_cast<const T*>(a.gate_up) + row * 2 * a.columns + i;
    store_one(static_cast<T*>(a.output) + row * a.columns + i, swiglu_of<T>(widen(from[0]), widen(from[a.columns])));
  }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward_packed(const SwigluBackward a) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * LANES<T>;
  if (i >= a.columns) return;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const int64_t first = row * 2 * a.columns + i;
    float grad[LANES<T>], gate[LANES<T>], up[LANES<T>];
    load(static_cast<const T*>(a.grad_output) + row * a.columns + i, grad);
    load(static_cast<const T*>(a.gate_up) + first, gate);
    load(static_cast<const T*>(a.gate_up) + first + a.columns, up);
#pragma unroll
    for (int k = 0; k < LANES<T>; ++k) gradients_of<T>(grad[k], gate[k], up[k], gate[k], up[k]);
    store(static_cast<T*>(a.grad_gate_up) + first, gate);
    store(static_cast<T*>(a.grad_gate_up) + first + a.columns, up);
  }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward_single(const SwigluBackward a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= a.columns) return;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const int64_t first = row * 2 * a.columns + i;
    const T* gate_up = static_cast<const T*>(a.gate_up) + first;
    float grad_gate, grad_up;
    const float grad = widen(static_cast<const T*>(a.grad_output)[row * a.columns + i]);
    gradients_of<T>(grad, widen(gate_up[0]), widen(gate_up[a.columns]), grad_gate, grad_up);
    store_one(static_cast<T*>(a.grad_gate_up) + first, grad_gate);
    store_one(static_cast<T*>(a.grad_gate_up) + first + a.columns, grad_up);
  }
}

template <typename T>
int forward(const SwigluForward& a, void* stream) {
  const bool packed = fits_packs<T>(a.columns, a.gate_up, a.output);
  const int64_t items = packed ? a.columns / LANES<T> : a.columns;
  return launch(stream, blocks(divide_up(items, THREADS), a.rows), THREADS, packed ? forward_packed<T> : forward_single<T>, a);
}

template <typename T>
int backward(const SwigluBackward& a, void* stream) {
  const bool packed = fits_packs<T>(a.columns, a.grad_output, a.gate_up, a.grad_gate_up);
  const int64_t items = packed ? a.columns / LANES<T> : a.columns;
  return launch(stream, blocks(divide_up(items, THREADS), a.rows), THREADS, packed ? backward_packed<T> : backward_single<T>, a);
}

}  // namespace

int swiglu_forward(const SwigluForward& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? forward<float>(arguments, stream) : forward<BFloat16>(arguments, stream);
}

int swiglu_backward(const SwigluBackward& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? backward<float>(arguments, stream) : backward<BFloat16>(arguments, stream);
}

}  // namespace megatron_astro::ops::cuda
