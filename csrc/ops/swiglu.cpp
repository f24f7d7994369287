#include "swiglu.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

template <typename T>
void forward(const SwigluForward& a) {
#pragma omp parallel for schedule(static) if (a.rows * a.columns > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* gate = static_cast<const T*>(a.gate_up) + row * 2 * a.columns;
    const T* up = gate + a.columns;
    T* output = static_cast<T*>(a.output) + row * a.columns;
    for_each_vector(a.columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      const Floats x = load(gate + i, count, 0);
      store(output + i, x * sigmoid(x) * load(up + i, count, 0), count);
    });
  }
}

template <typename T>
void backward(const SwigluBackward& a) {
#pragma omp parallel for schedule(static) if (a.rows * a.columns > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* gate = static_cast<const T*>(a.gate_up) + row * 2 * a.columns;
    const T* up = gate + a.columns;
    const T* grad_output = static_cast<const T*>(a.grad_output) + row * a.columns;
    T* grad_gate = static_cast<T*>(a.grad_gate_up) + row * 2 * a.columns;
    T* grad_up = grad_gate + a.columns;
    for_each_vector(a.columns, [&](int64_t i, int count, int) __attribute__((always_inline)) {
      const Floats x = load(gate + i, count, 0), grad = load(grad_output + i, count, 0);
      const Floats s = sigmoid(x), silu = x * s;
      store(grad_gate + i, grad * load(up + i, count, 0) * (s + silu * (1.0f - s)), count);
      store(grad_up + i, grad * silu, count);
    });
  }
}

}  // namespace

void swiglu_forward(const SwigluForward& arguments) {
  arguments.dtype == Dtype::float32 ? forward<float>(arguments) : forward<BFloat16>(arguments);
}

void swiglu_backward(const SwigluBackward& arguments) {
  arguments.dtype == Dtype::float32 ? backward<float>(arguments) : backward<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
