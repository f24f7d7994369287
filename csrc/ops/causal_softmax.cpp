#include "causal_softmax.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

template <typename T>
inline void clear(T* from, int64_t size) {
  __builtin_memset(from, 0, static_cast<unsigned long>(size) * sizeof(T));
}

// -infinity beyond `count`, whatever the scale.
template <typename T>
inline Floats load_scaled(const T* from, int count, float scale) {
  Floats values = load(from, count, 0) * scale;
  for (int lane = count; lane < LANES; ++lane) values[lane] = -INFINITE;
  return values;
}

template <typename T>
void forward(const CausalSoftmaxForward& a) {
  const int64_t rows = a.matrices * a.queries;
#pragma omp parallel for schedule(dynamic, 16) if (rows * a.keys > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t visible = row % a.queries + a.keys - a.queries + 1;
    const T* scores = static_cast<const T*>(a.scores) + row * a.keys;
    T* probabilities = static_cast<T*>(a.probabilities) + row * a.keys;
    Floats most[4] = {all(-INFINITE), all(-INFINITE), all(-INFINITE), all(-INFINITE)}, sums[4] = {};
    for_each_vector(visible, [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
      most[slot] = maximum(most[slot], load_scaled(scores + i, count, a.scale));
    });
    const float shift = largest(maximum(maximum(most[0], most[1]), maximum(most[2], most[3])));
    for_each_vector(visible, [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
      sums[slot] += exponential(load_scaled(scores + i, count, a.scale) - shift);
    });
    const Floats all_sum = all(sum(total(sums)));
    for_each_vector(visible, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      store(probabilities + i, exponential(load_scaled(scores + i, count, a.scale) - shift) / all_sum, count);
    });
    clear(probabilities + visible, a.keys - visible);
  }
}

template <typename T>
void backward(const CausalSoftmaxBackward& a) {
  const int64_t rows = a.matrices * a.queries;
#pragma omp parallel for schedule(dynamic, 16) if (rows * a.keys > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t visible = row % a.queries + a.keys - a.queries + 1;
    const T* grad = static_cast<const T*>(a.grad_probabilities) + row * a.keys;
    const T* probabilities = static_cast<const T*>(a.probabilities) + row * a.keys;
    T* grad_scores = static_cast<T*>(a.grad_scores) + row * a.keys;
    Floats products[4] = {};
    for_each_vector(visible, [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
      products[slot] += load(grad + i, count, 0) * load(probabilities + i, count, 0);
    });
    const float mean = sum(total(products));
    for_each_vector(visible, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      store(grad_scores + i, load(probabilities + i, count, 0) * (load(grad + i, count, 0) - mean) * a.scale, count);
    });
    clear(grad_scores + visible, a.keys - visible);
  }
}

}  // namespace

void causal_softmax_forward(const CausalSoftmaxForward& arguments) {
  arguments.dtype == Dtype::float32 ? forward<float>(arguments) : forward<BFloat16>(arguments);
}

void causal_softmax_backward(const CausalSoftmaxBackward& arguments) {
  arguments.dtype == Dtype::float32 ? backward<float>(arguments) : backward<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
