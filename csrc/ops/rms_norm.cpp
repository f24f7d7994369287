// One pass over a row reads it from memory, the next finds it in the cache.
#include "rms_norm.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

template <typename T>
inline float sum_of_squares(const T* hidden, int64_t columns) {
  Floats squares[4] = {};
  for_each_two(
      columns,
      [&](int64_t i, int slot) __attribute__((always_inline)) {
        const Two x = load_two(hidden + i);
        squares[slot] += x.first * x.first;
        squares[slot + 1] += x.second * x.second;
      },
      [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
        const Floats x = load(hidden + i, count, 0);
        squares[slot] += x * x;
      });
  return sum(total(squares));
}

// Store the sum of a row and the residual's; the squares are those of the rounded sum.
template <typename T, bool STREAMED>
inline float add(const T* hidden, const T* residual, T* sum_out, int64_t columns) {
  Floats squares[4] = {};
  for_each_two(
      columns,
      [&](int64_t i, int slot) __attribute__((always_inline)) {
        const Two x = load_two(hidden + i), y = load_two(residual + i);
        const Two z{as_stored<T>(x.first + y.first), as_stored<T>(x.second + y.second)};
        store_two<STREAMED>(sum_out + i, z);
        squares[slot] += z.first * z.first;
        squares[slot + 1] += z.second * z.second;
      },
      [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
        const Floats z = as_stored<T>(load(hidden + i, count, 0) + load(residual + i, count, 0));
        store(sum_out + i, z, count);
        squares[slot] += z * z;
      });
  return sum(total(squares));
}

// Normalise a row, or its sum with the residual's, added once more: what add() streamed is not in the cache, its two summands are.
template <typename T, bool STREAMED>
inline void normalise(const T* hidden, const T* residual, const T* weight, float inverse, T* output, int64_t columns) {
  for_each_two(
      columns,
      [&](int64_t i, int) __attribute__((always_inline)) {
        prefetch_two(hidden + columns + i);
        Two x = load_two(hidden + i);
        const Two w = load_two(weight + i);
        if (residual != nullptr) {
          prefetch_two(residual + columns + i);
          const Two y = load_two(residual + i);
          x = {as_stored<T>(x.first + y.first), as_stored<T>(x.second + y.second)};
        }
        store_two<STREAMED>(output + i, {x.first * inverse * w.first, x.second * inverse * w.second});
      },
      [&](int64_t i, int count, int) __attribute__((always_inline)) {
        Floats x = load(hidden + i, count, 0);
        if (residual != nullptr) x = as_stored<T>(x + load(residual + i, count, 0));
        store(output + i, x * inverse * load(weight + i, count, 0), count);
      });
}

template <typename T, bool STREAMED>
void forward(const RmsNormForward& a) {
  const auto* weight = static_cast<const T*>(a.weight);
  const int64_t columns = a.columns;
#pragma omp parallel if (a.rows * columns > PARALLEL_ELEMENTS)
  {
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < a.rows; ++row) {
      const T* hidden = static_cast<const T*>(a.hidden) + row * columns;
      const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * columns : nullptr;
      T* sum_out = a.sum ? static_cast<T*>(a.sum) + row * columns : nullptr;
      const float squares = residual ? add<T, STREAMED>(hidden, residual, sum_out, columns) : sum_of_squares(hidden, columns);
      const float inverse = 1 / square_root(squares / static_cast<float>(columns) + a.epsilon);
      a.inverse_rms[row] = inverse;
      normalise<T, STREAMED>(hidden, residual, weight, inverse, static_cast<T*>(a.output) + row * columns, columns);
    }
    end_streaming();
  }
}

// The gradient of a row, from the mean of its products with the weight.
template <int ROWS, typename T, bool STREAMED>
inline void finish_row(const RmsNormBackward& a, int64_t row, float mean) {
  const int64_t first = row * a.columns;
  const T *hidden = static_cast<const T*>(a.hidden) + first, *grad_output = static_cast<const T*>(a.grad_output) + first;
  const T *grad_sum = a.grad_sum ? static_cast<const T*>(a.grad_sum) + first : nullptr, *weight = static_cast<const T*>(a.weight);
  T* grad_hidden = static_cast<T*>(a.grad_hidden) + first;
  const float inverse = a.inverse_rms[row];
  const auto gradient = [&](Floats grad, Floats x, Floats w) __attribute__((always_inline)) {
    return (grad * w - x * inverse * mean) * inverse;
  };
  for_each_two(
      a.columns,
      [&](int64_t i, int) __attribute__((always_inline)) {
        prefetch_two(grad_output + ROWS * a.columns + i);
        prefetch_two(hidden + ROWS * a.columns + i);
        const Two grad = load_two(grad_output + i), x = load_two(hidden + i), w = load_two(weight + i);
        Two result{gradient(grad.first, x.first, w.first), gradient(grad.second, x.second, w.second)};
        if (grad_sum != nullptr) {
          prefetch_two(grad_sum + a.columns + i);
          const Two more = load_two(grad_sum + i);
          result = {result.first + more.first, result.second + more.second};
        }
        store_two<STREAMED>(grad_hidden + i, result);
      },
      [&](int64_t i, int count, int) __attribute__((always_inline)) {
        Floats result = gradient(load(grad_output + i, count, 0), load(hidden + i, count, 0), load(weight + i, count, 0));
        if (grad_sum != nullptr) result += load(grad_sum + i, count, 0);
        store(grad_hidden + i, result, count);
      });
}

// ROWS rows at once: the weight is read once for all, and their contributions to its gradient are added up before they join the partial,
// whose columns lie in the order of load_two.
template <int ROWS, typename T, bool STREAMED>
inline void backward_rows(const RmsNormBackward& a, int64_t row, float* partial) {
  const int64_t columns = a.columns;
  const T *hidden = static_cast<const T*>(a.hidden) + row * columns, *grad_output = static_cast<const T*>(a.grad_output) + row * columns;
  const T* weight = static_cast<const T*>(a.weight);
  const float* inverse = a.inverse_rms + row;
  static_assert(ROWS <= 4);
  Floats products[4] = {};
  // A product is grad_output * x; products adds up those that the weight multiplied.
  const auto product = [&](Floats grad, Floats x, Floats w, int r) __attribute__((always_inline)) {
    const Floats value = grad * (x * inverse[r]);
    products[r] += value * w;
    return value;
  };
  for_each_two(
      columns,
      [&](int64_t i, int) __attribute__((always_inline)) {
        const Two w = load_two(weight + i);
        Two contributions{};
        for (int r = 0; r < ROWS; ++r) {
          const Two grad = load_two(grad_output + r * columns + i), x = load_two(hidden + r * columns + i);
          contributions.first += product(grad.first, x.first, w.first, r);
          contributions.second += product(grad.second, x.second, w.second, r);
        }
        store(partial + i, load(partial + i) + contributions.first);
        store(partial + i + LANES, load(partial + i + LANES) + contributions.second);
      },
      [&](int64_t i, int count, int) __attribute__((always_inline)) {
        Floats contributions{};
        for (int r = 0; r < ROWS; ++r) {
          const int64_t j = r * columns + i;
          contributions += product(load(grad_output + j, count, 0), load(hidden + j, count, 0), load(weight + i, count, 0), r);
        }
        store(partial + i, load(partial + i, count, 0) + contributions, count);
      });
  for (int r = 0; r < ROWS; ++r) {
    const float mean = sum(products[r]) / static_cast<float>(columns);
    finish_row<ROWS, T, STREAMED>(a, row + r, mean);
  }
}

template <typename T>
void add_partials(const RmsNormBackward& a, int64_t num_partials) {
  T* grad_weight = static_cast<T*>(a.grad_weight);
  const auto added = [&](int64_t i, int count) __attribute__((always_inline)) {
    Doubles grad{};
    for (int64_t index = 0; index < num_partials; ++index) {
      grad += __builtin_convertvector(load(a.partials + index * a.columns + i, count, 0), Doubles);
    }
    return __builtin_convertvector(grad, Floats);
  };
  for_each_two(
      a.columns,
      [&](int64_t i, int) __attribute__((always_inline)) {
        store_two<false>(grad_weight + i, {added(i, LANES), added(i + LANES, LANES)});
      },
      [&](int64_t i, int count, int) __attribute__((always_inline)) { store(grad_weight + i, added(i, count), count); });
}

template <typename T, bool STREAMED>
void backward(const RmsNormBackward& a) {
  const int64_t columns = a.columns;
  const int64_t num_partials = rms_norm_partials(a.rows);
#pragma omp parallel if (a.rows * columns > PARALLEL_ELEMENTS)
  {
#pragma omp for schedule(static) nowait
    for (int64_t index = 0; index < num_partials; ++index) {
      float* partial = a.partials + index * columns;
      __builtin_memset(partial, 0, static_cast<unsigned long>(columns) * sizeof(float));
      const int64_t first = index * RMS_NORM_ROWS_A_PARTIAL;
      const int64_t last = first + RMS_NORM_ROWS_A_PARTIAL < a.rows ? first + RMS_NORM_ROWS_A_PARTIAL : a.rows;
      int64_t row = first;
      for (; row + 4 <= last; row += 4) backward_rows<4, T, STREAMED>(a, row, partial);
      for (; row < last; ++row) backward_rows<1, T, STREAMED>(a, row, partial);
    }
    end_streaming();
  }
  add_partials<T>(a, num_partials);
}

template <typename T>
void run(const RmsNormForward& a) {
  const bool streamed = streams<T>(a.output, a.rows, a.columns) && streams<T>(a.sum, a.rows, a.columns);  // no sum: null, which is aligned
  streamed ? forward<T, true>(a) : forward<T, false>(a);
}

template <typename T>
void run(const RmsNormBackward& a) {
  streams<T>(a.grad_hidden, a.rows, a.columns) ? backward<T, true>(a) : backward<T, false>(a);
}

}  // namespace

void rms_norm_forward(const RmsNormForward& arguments) {
  arguments.dtype == Dtype::float32 ? run<float>(arguments) : run<BFloat16>(arguments);
}

void rms_norm_backward(const RmsNormBackward& arguments) {
  arguments.dtype == Dtype::float32 ? run<float>(arguments) : run<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
