// A block computes one query's row: only the keys it sees are read.
#include "causal_softmax.h"

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int THREADS = 256;

// Keys that query number `row` (counted over all matrices) sees.
template <typename Arguments>
__device__ inline int64_t visible_to(const Arguments& a, int64_t row) {
  return row % a.queries + 1 + a.keys - a.queries;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) forward(const CausalSoftmaxForward a) {
  const int64_t num_rows = a.matrices * a.queries;
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const T* scores = static_cast<const T*>(a.scores) + row * a.keys;
    T* probabilities = static_cast<T*>(a.probabilities) + row * a.keys;
    const int64_t visible = visible_to(a, row);
    float maximum = -INFINITE;
    for_each_of_row(
        scores, visible, threadIdx.x, blockDim.x, [&](int64_t i) { maximum = fmaxf(maximum, widen(scores[i]) * a.scale); },
        [&](int64_t i) {
          float x[LANES<T>];
          load(scores + i, x);
#pragma unroll
          for (int k = 0; k < LANES<T>; ++k) maximum = fmaxf(maximum, x[k] * a.scale);
        });
    maximum = reduce_block<Largest>(maximum);
    float sum = 0;
    for_each_of_row(
        scores, visible, threadIdx.x, blockDim.x, [&](int64_t i) { sum += expf(widen(scores[i]) * a.scale - maximum); },
        [&](int64_t i) {
          float x[LANES<T>];
          load(scores + i, x);
#pragma unroll
          for (int k = 0; k < LANES<T>; ++k) sum += expf(x[k] * a.scale - maximum);
        });
    const float inverse = 1.0f / reduce_block<Add>(sum);
    const auto at = [&](int64_t i, float x) { return i < visible ? expf(x * a.scale - maximum) * inverse : 0.0f; };
    for_each_of_row(
        probabilities, a.keys, threadIdx.x, blockDim.x,
        [&](int64_t i) { store_one(probabilities + i, at(i, i < visible ? widen(scores[i]) : 0.0f)); },
        [&](int64_t i) {
          float x[LANES<T>];
#pragma unroll
          for (int k = 0; k < LANES<T>; ++k) x[k] = at(i + k, i + k < visible ? widen(scores[i + k]) : 0.0f);
          store(probabilities + i, x);
        });
  }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward(const CausalSoftmaxBackward a) {
  const int64_t num_rows = a.matrices * a.queries;
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const T* grads = static_cast<const T*>(a.grad_probabilities) + row * a.keys;
    const T* probabilities = static_cast<const T*>(a.probabilities) + row * a.keys;
    T* out = static_cast<T*>(a.grad_scores) + row * a.keys;
    const int64_t visible = visible_to(a, row);
    float dot = 0;
    for (int64_t i = threadIdx.x; i < visible; i += blockDim.x) dot += widen(grads[i]) * widen(probabilities[i]);
    dot = reduce_block<Add>(dot);
    const auto at = [&](int64_t i) {
      return i < visible ? a.scale * widen(probabilities[i]) * (widen(grads[i]) - dot) : 0.0f;
    };
    for_each_of_row(
        out, a.keys, threadIdx.x, blockDim.x, [&](int64_t i) { store_one(out + i, at(i)); },
        [&](int64_t i) {
          float x[LANES<T>];
#pragma unroll
          for (int k = 0; k < LANES<T>; ++k) x[k] = at(i + k);
          store(out + i, x);
        });
  }
}

template <typename Arguments>
int run(const Arguments& a, void* stream, void (*kernel)(Arguments)) {
  return launch(stream, blocks(a.matrices * a.queries), threads_for(divide_up(a.keys, 8), THREADS), kernel, a);
}

}  // namespace

int causal_softmax_forward(const CausalSoftmaxForward& arguments, void* stream) {
  return run(arguments, stream, arguments.dtype == Dtype::float32 ? forward<float> : forward<BFloat16>);
}

int causal_softmax_backward(const CausalSoftmaxBackward& arguments, void* stream) {
  return run(arguments, stream, arguments.dtype == Dtype::float32 ? backward<float> : backward<BFloat16>);
}

}  // namespace megatron_astro::ops::cuda
