// SwiGLU (Shazeer 2020): silu(gate) * up, where silu(x) = x / (1 + exp(-x)).
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

struct SwigluForward {
  const void* gate_up;  // [rows, 2 columns]: a row's gates, then its ups
  void* output;         // [rows, columns]
  int64_t rows, columns;
  Dtype dtype;
};

struct SwigluBackward {
  const void* grad_output;  // [rows, columns]
  const void* gate_up;      // [rows, 2 columns]
  void* grad_gate_up;       // [rows, 2 columns]
  int64_t rows, columns;
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(swiglu_forward, SwigluForward)
MEGATRON_ASTRO_LAUNCHERS(swiglu_backward, SwigluBackward)

}  // namespace megatron_astro::ops
