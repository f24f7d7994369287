#include "adamw.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

constexpr int64_t CHUNK = 16384;  // elements a thread takes at a time

inline Floats square_roots(Floats values) {
  for (int lane = 0; lane < LANES; ++lane) values[lane] = square_root(values[lane]);  // one instruction after vectorising
  return values;
}

struct Update {
  Floats keep, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root, epsilon, gradient_scale;
};

Update update_of(const Adamw& a) {
  const double rate = *a.learning_rate, step = *a.step;
  return {
      .keep = all(static_cast<float>(1 - rate * static_cast<double>(a.weight_decay))),
      .one_minus_beta1 = all(static_cast<float>(1 - a.beta1)),
      .beta2 = all(static_cast<float>(a.beta2)),
      .one_minus_beta2 = all(static_cast<float>(1 - a.beta2)),
      .step_size = all(static_cast<float>(rate / (1 - __builtin_pow(a.beta1, step)))),
      .inverse_root = all(static_cast<float>(1 / __builtin_sqrt(1 - __builtin_pow(a.beta2, step)))),
      .epsilon = all(a.epsilon),
      .gradient_scale = all(*a.gradient_scale),
  };
}

template <typename T>
inline void update_chunk(const AdamwTensor& tensor, int64_t first, int64_t size, const Update& u) {
  float* parameter = tensor.parameter + first;
  float* exp_avg = tensor.exp_avg + first;
  float* exp_avg_sq = tensor.exp_avg_sq + first;
  const T* gradient = static_cast<const T*>(tensor.gradient) + first;
  BFloat16* copy = tensor.copy ? static_cast<BFloat16*>(tensor.copy) + first : nullptr;
  for_each_vector(size, [&](int64_t i, int count, int) __attribute__((always_inline)) {
    const Floats g = load(gradient + i, count, 0) * u.gradient_scale;
    Floats m = load(exp_avg + i, count, 0), v = load(exp_avg_sq + i, count, 0), p = load(parameter + i, count, 0);
    m += u.one_minus_beta1 * (g - m);
    v = u.beta2 * v + u.one_minus_beta2 * g * g;
    p = p * u.keep - u.step_size * m / (square_roots(v) * u.inverse_root + u.epsilon);
    store(exp_avg + i, m, count);
    store(exp_avg_sq + i, v, count);
    store(parameter + i, p, count);
    if (copy != nullptr) store(copy + i, p, count);
  });
}

template <typename T>
void update_all(const Adamw& a) {
  const Update update = update_of(a);
#pragma omp parallel
  for (int64_t index = 0; index < a.num_tensors; ++index) {
    const AdamwTensor& tensor = a.tensors[index];
#pragma omp for schedule(static) nowait
    for (int64_t chunk = 0; chunk < (tensor.size + CHUNK - 1) / CHUNK; ++chunk) {
      const int64_t first = chunk * CHUNK;
      update_chunk<T>(tensor, first, tensor.size - first < CHUNK ? tensor.size - first : CHUNK, update);
    }
  }
}

template <typename T>
inline double chunk_squares(const T* data, int64_t size) {
  Doubles squares[4] = {};
  for_each_vector(size, [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
    const Doubles x = __builtin_convertvector(load(data + i, count, 0), Doubles);
    squares[slot] += x * x;
  });
  const Doubles all_lanes = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  double result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += all_lanes[lane];
  return result;
}

template <typename T>
void sum_squares(const SquaredNorm& a) {
  int64_t num_partials = 0;
#pragma omp parallel
  {
    int64_t first_partial = 0;
    for (int64_t index = 0; index < a.num_tensors; ++index) {
      const SquaredNormTensor& tensor = a.tensors[index];
      const int64_t chunks = (tensor.size + SQUARED_NORM_CHUNK - 1) / SQUARED_NORM_CHUNK;
#pragma omp for schedule(static) nowait
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * SQUARED_NORM_CHUNK, left = tensor.size - first;
        const T* data = static_cast<const T*>(tensor.data) + first;
        a.partials[first_partial + chunk] = chunk_squares(data, left < SQUARED_NORM_CHUNK ? left : SQUARED_NORM_CHUNK);
      }
      first_partial += chunks;
    }
#pragma omp single
    num_partials = first_partial;
  }
  double result = 0;
  for (int64_t index = 0; index < num_partials; ++index) result += a.partials[index];
  *a.result = result;
}

}  // namespace

void adamw(const Adamw& arguments) {
  arguments.gradient_dtype == Dtype::float32 ? update_all<float>(arguments) : update_all<BFloat16>(arguments);
}

void squared_norm(const SquaredNorm& arguments) {
  arguments.dtype == Dtype::float32 ? sum_squares<float>(arguments) : sum_squares<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
