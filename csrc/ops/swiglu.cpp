#include "swiglu.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

template <typename T>
inline Floats gated(Floats gate, Floats up) {
  return gate * sigmoid<T>(gate) * up;
}

template <typename T, bool STREAMED>
inline void forward_row(const T* gate, const T* up, T* output, int64_t columns) {
  int64_t i = 0;
  for (; i + 2 * LANES <= columns; i += 2 * LANES) {
    const Two x = load_two(gate + i), y = load_two(up + i);
    store_two<STREAMED>(output + i, {gated<T>(x.first, y.first), gated<T>(x.second, y.second)});
  }
  for_each_vector(columns - i, [&](int64_t j, int count, int) __attribute__((always_inline)) {
    store(output + i + j, gated<T>(load(gate + i + j, count, 0), load(up + i + j, count, 0)), count);
  });
}

struct Gradients {
  Floats gate, up;
};

template <typename T>
inline Gradients gradients(Floats gate, Floats up, Floats grad) {
  const Floats s = sigmoid<T>(gate), silu = gate * s;
  return {grad * up * (s + silu * (1.0f - s)), grad * silu};
}

template <typename T, bool STREAMED>
inline void backward_row(const T* gate, const T* up, const T* grad, T* grad_gate, T* grad_up, int64_t columns) {
  int64_t i = 0;
  for (; i + 2 * LANES <= columns; i += 2 * LANES) {
    const Two x = load_two(gate + i), y = load_two(up + i), g = load_two(grad + i);
    const Gradients first = gradients<T>(x.first, y.first, g.first), second = gradients<T>(x.second, y.second, g.second);
    store_two<STREAMED>(grad_gate + i, {first.gate, second.gate});
    store_two<STREAMED>(grad_up + i, {first.up, second.up});
  }
  for_each_vector(columns - i, [&](int64_t j, int count, int) __attribute__((always_inline)) {
    const int64_t k = i + j;
    const Gradients grads = gradients<T>(load(gate + k, count, 0), load(up + k, count, 0), load(grad + k, count, 0));
    store(grad_gate + k, grads.gate, count);
    store(grad_up + k, grads.up, count);
  });
}

template <typename T, bool STREAMED>
void forward(const SwigluForward& a) {
  const auto* gate_up = static_cast<const T*>(a.gate_up);
  auto* output = static_cast<T*>(a.output);
#pragma omp parallel if (a.rows * a.columns > PARALLEL_ELEMENTS)
  {
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < a.rows; ++row) {
      const T* gate = gate_up + row * 2 * a.columns;
      forward_row<T, STREAMED>(gate, gate + a.columns, output + row * a.columns, a.columns);
    }
    end_streaming();
  }
}

template <typename T, bool STREAMED>
void backward(const SwigluBackward& a) {
  const auto *gate_up = static_cast<const T*>(a.gate_up), *grad_output = static_cast<const T*>(a.grad_output);
  auto* grad_gate_up = static_cast<T*>(a.grad_gate_up);
#pragma omp parallel if (a.rows * a.columns > PARALLEL_ELEMENTS)
  {
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < a.rows; ++row) {
      const T* gate = gate_up + row * 2 * a.columns;
      T* grad_gate = grad_gate_up + row * 2 * a.columns;
      backward_row<T, STREAMED>(gate, gate + a.columns, grad_output + row * a.columns, grad_gate, grad_gate + a.columns, a.columns);
    }
    end_streaming();
  }
}

template <typename T>
void run(const SwigluForward& a) {
  streams<T>(a.output, a.rows, a.columns) ? forward<T, true>(a) : forward<T, false>(a);
}

template <typename T>
void run(const SwigluBackward& a) {
  streams<T>(a.grad_gate_up, 2 * a.rows, a.columns) ? backward<T, true>(a) : backward<T, false>(a);
}

}  // namespace

void swiglu_forward(const SwigluForward& arguments) {
  arguments.dtype == Dtype::float32 ? run<float>(arguments) : run<BFloat16>(arguments);
}

void swiglu_backward(const SwigluBackward& arguments) {
  arguments.dtype == Dtype::float32 ? run<float>(arguments) : run<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
