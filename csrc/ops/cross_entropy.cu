// Statistics: a block reads a row once, with a running maximum in each thread. Gradient: every number on its own, in place.
#include "cross_entropy.h"

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int STATISTICS_THREADS = 512;
constexpr int GRADIENT_THREADS = 256;
constexpr int64_t PACKS_A_THREAD = 4;  // of the gradient: enough loads at once to hide their latency

// The exponentials are what bfloat16 waits for: there, the quick one.
template <typename T>
__device__ inline float exponential(float x) {
  if constexpr (sizeof(T) == 4) return expf(x);
  return __expf(x);
}

// A maximum so far and the sum of exp(x - maximum); -infinity and 0 before the first number.
template <typename T>
struct RunningSum {
  float maximum = -INFINITE;
  float sum = 0;

  __device__ void add(float x) {
    if (x > maximum) {
      sum = sum * exponential<T>(maximum - x) + 1;
      maximum = x;
    } else if (x != -INFINITE) {  // nothing to add, and -infinity less -infinity is no number
      sum += exponential<T>(x - maximum);  // NaN comes here too, and stays
    }
  }

  __device__ void add(const float (&x)[LANES<T>]) {
    float most = x[0];
#pragma unroll
    for (int k = 1; k < LANES<T>; ++k) most = fmaxf(most, x[k]);
    if (most > maximum) {
      sum *= exponential<T>(maximum - most);
      maximum = most;
    }
    if (maximum == -INFINITE) {  // nothing above -infinity so far; NaN, which fmaxf passes over, must not be lost
#pragma unroll
      for (int k = 0; k < LANES<T>; ++k) add(x[k]);
      return;
    }
#pragma unroll
    for (int k = 0; k < LANES<T>; ++k) sum += exponential<T>(x[k] - maximum);
  }
};

template <typename T>
__global__ void __launch_bounds__(STATISTICS_THREADS) statistics(const CrossEntropyStatistics a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t label = a.labels[row];
    if (label == a.ignored_label) {
      if (threadIdx.x < 3) a.statistics[threadIdx.x * a.rows + row] = threadIdx.x == 1 ? 1.0f : 0.0f;
      continue;
    }
    const T* logits = static_cast<const T*>(a.logits) + row * a.columns;
    RunningSum<T> running;
    for_each_of_row(
        logits, a.columns, threadIdx.x, blockDim.x, [&](int64_t i) { running.add(widen(logits[i])); },
        [&](int64_t i) {
          float x[LANES<T>];
          load(logits + i, x);
          running.add(x);
        });
    const float maximum = reduce_block<Largest>(running.maximum);
    const float scale = running.maximum == -INFINITE ? 1.0f : exponential<T>(running.maximum - maximum);
    const float sum = reduce_block<Add>(running.sum * scale);
    if (threadIdx.x == 0) {
      const int64_t column = label - a.first_label;
      a.statistics[row] = maximum;
      a.statistics[a.rows + row] = sum;
      a.statistics[2 * a.rows + row] = 0 <= column && column < a.columns ? widen(logits[column]) : 0.0f;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(GRADIENT_THREADS) gradient(const CrossEntropyGradient a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * GRADIENT_THREADS + threadIdx.x;
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * GRADIENT_THREADS;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    T* logits = static_cast<T*>(a.logits) + row * a.columns;
    const int64_t label = a.labels[row];
    const bool ignored = label == a.ignored_label;
    const int64_t column = label - a.first_label;  // another rank's where it is none of this row's columns
    const float maximum = a.maximum[row], grad = a.grad_losses[row];
    const float scale = grad / a.sum[row];
    const auto at = [&](int64_t i, float x) {
      if (ignored) return 0.0f;
      return exponential<T>(x - maximum) * scale - (i == column ? grad : 0.0f);
    };
    for_each_of_row(
        logits, a.columns, thread, num_threads, [&](int64_t i) { store_one(logits + i, at(i, widen(logits[i]))); },
        [&](int64_t i) {
          float x[LANES<T>];
          load(logits + i, x);
#pragma unroll
          for (int k = 0; k < LANES<T>; ++k) x[k] = at(i + k, x[k]);
          store(logits + i, x);
        });
  }
}

template <typename T>
int run(const CrossEntropyStatistics& a, void* stream) {
  return launch(stream, blocks(a.rows), threads_for(divide_up(a.columns, LANES<T>), STATISTICS_THREADS), statistics<T>, a);
}

template <typename T>
int run(const CrossEntropyGradient& a, void* stream) {
  const int64_t a_block = GRADIENT_THREADS * LANES<T> * PACKS_A_THREAD;
  return launch(stream, blocks(divide_up(a.columns, a_block), a.rows), GRADIENT_THREADS, gradient<T>, a);
}

}  // namespace

int cross_entropy_statistics(const CrossEntropyStatistics& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? run<float>(arguments, stream) : run<BFloat16>(arguments, stream);
}

int cross_entropy_gradient(const CrossEntropyGradient& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? run<float>(arguments, stream) : run<BFloat16>(arguments, stream);
}

}  // namespace megatron_astro::ops::cuda
