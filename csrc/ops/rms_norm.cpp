// One pass over a row reads it from memory, the next finds it in the cache.
#include "rms_norm.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

// What is normalised: the row, or the rounded sum of the row and the residual's, which is stored.
template <typename T>
inline float sum_of_squares(const T* hidden, const T* residual, T* sum_out, int64_t columns) {
  Floats squares[4] = {};
  for_each_vector(columns, [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
    Floats x = load(hidden + i, count, 0);
    if (residual != nullptr) {
      x += load(residual + i, count, 0);
      store(sum_out + i, x, count);
      x = load(sum_out + i, count, 0);
    }
    squares[slot] += x * x;
  });
  return sum(total(squares));
}

template <typename T>
void forward(const RmsNormForward& a) {
  const auto* weight = static_cast<const T*>(a.weight);
  const int64_t columns = a.columns;
#pragma omp parallel for schedule(static) if (a.rows * columns > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* hidden = static_cast<const T*>(a.hidden) + row * columns;
    T* output = static_cast<T*>(a.output) + row * columns;
    const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * columns : nullptr;
    T* sum_out = a.sum ? static_cast<T*>(a.sum) + row * columns : nullptr;
    const float squares = sum_of_squares(hidden, residual, sum_out, columns);
    const float inverse = 1 / square_root(squares / static_cast<float>(columns) + a.epsilon);
    a.inverse_rms[row] = inverse;
    const T* normalised = sum_out != nullptr ? sum_out : hidden;
    for_each_vector(columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      store(output + i, load(normalised + i, count, 0) * inverse * load(weight + i, count, 0), count);
    });
  }
}

// ROWS rows at once: the weight is read once for all, and their contributions to its gradient are added up before they join the partial.
template <int ROWS, typename T>
inline void backward_rows(const RmsNormBackward& a, int64_t row, float* partial) {
  const int64_t columns = a.columns, first = row * columns;
  const T* hidden = static_cast<const T*>(a.hidden) + first;
  const T* grad_output = static_cast<const T*>(a.grad_output) + first;
  const T* grad_sum = a.grad_sum ? static_cast<const T*>(a.grad_sum) + first : nullptr;
  const T* weight = static_cast<const T*>(a.weight);
  T* grad_hidden = static_cast<T*>(a.grad_hidden) + first;
  const float* inverse = a.inverse_rms + row;
  static_assert(ROWS <= 4);
  Floats products[4] = {};
  for_each_vector(columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
    const Floats w = load(weight + i, count, 0);
    Floats contributions{};
    for (int r = 0; r < ROWS; ++r) {
      const Floats product = load(grad_output + r * columns + i, count, 0) * (load(hidden + r * columns + i, count, 0) * inverse[r]);
      contributions += product;
      products[r] += product * w;
    }
    store(partial + i, load(partial + i, count, 0) + contributions, count);
  });
  for (int r = 0; r < ROWS; ++r) {
    const int64_t offset = r * columns;
    const float mean = sum(products[r]) / static_cast<float>(columns);
    for_each_vector(columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      const Floats x = load(hidden + offset + i, count, 0) * inverse[r];
      Floats grad = (load(grad_output + offset + i, count, 0) * load(weight + i, count, 0) - x * mean) * inverse[r];
      if (grad_sum != nullptr) grad += load(grad_sum + offset + i, count, 0);
      store(grad_hidden + offset + i, grad, count);
    });
  }
}

template <typename T>
void backward(const RmsNormBackward& a) {
  const int64_t columns = a.columns;
  const int64_t num_partials = rms_norm_partials(a.rows);
#pragma omp parallel for schedule(static) if (a.rows * columns > PARALLEL_ELEMENTS)
  for (int64_t index = 0; index < num_partials; ++index) {
    float* partial = a.partials + index * columns;
    __builtin_memset(partial, 0, static_cast<unsigned long>(columns) * sizeof(float));
    const int64_t first = index * RMS_NORM_ROWS_A_PARTIAL;
    const int64_t last = first + RMS_NORM_ROWS_A_PARTIAL < a.rows ? first + RMS_NORM_ROWS_A_PARTIAL : a.rows;
    int64_t row = first;
    for (; row + 4 <= last; row += 4) backward_rows<4, T>(a, row, partial);
    for (; row < last; ++row) backward_rows<1, T>(a, row, partial);
  }
  for_each_vector(columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
    Doubles grad{};
    for (int64_t index = 0; index < num_partials; ++index) {
      grad += __builtin_convertvector(load(a.partials + index * columns + i, count, 0), Doubles);
    }
    store(static_cast<T*>(a.grad_weight) + i, __builtin_convertvector(grad, Floats), count);
  });
}

}  // namespace

void rms_norm_forward(const RmsNormForward& arguments) {
  arguments.dtype == Dtype::float32 ? forward<float>(arguments) : forward<BFloat16>(arguments);
}

void rms_norm_backward(const RmsNormBackward& arguments) {
  arguments.dtype == Dtype::float32 ? backward<float>(arguments) : backward<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
