// AdamW (Loshchilov and Hutter 2019, algorithm 2) over many tensors in one pass over memory, and the norm of their gradients.
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

struct AdamwTensor {
  float* parameter;
  const void* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  void* copy;  // bfloat16 copy of the parameter to write, or null
  int64_t size;
};

// With g = gradient * gradient_scale:
//   parameter *= 1 - learning_rate * weight_decay
//   exp_avg += (1 - beta1) (g - exp_avg);  exp_avg_sq = beta2 exp_avg_sq + (1 - beta2) g g
//   parameter -= learning_rate / (1 - beta1^step) * exp_avg / (sqrt(exp_avg_sq) / sqrt(1 - beta2^step) + epsilon)
// The three that change from step to step are read on the device, so that a captured graph can be replayed.
struct Adamw {
  const AdamwTensor* tensors;  // in host memory, valid during the call only
  int64_t num_tensors;
  const float* learning_rate;
  const float* step;  // the number of this update, from 1
  const float* gradient_scale;
  double beta1, beta2;
  float epsilon, weight_decay;
  Dtype gradient_dtype;
};

struct SquaredNormTensor {
  const void* data;
  int64_t size;
};

// Elements whose squares are added up before they join the others', so that the sum does not depend on the number of threads.
constexpr int64_t SQUARED_NORM_CHUNK = 65536;

// result = sum of squares over all tensors; the order of additions depends on the sizes alone.
struct SquaredNorm {
  const SquaredNormTensor* tensors;  // in host memory, valid during the call only
  int64_t num_tensors;
  double* result;
  double* partials;  // [number of chunks of SQUARED_NORM_CHUNK over all tensors], scratch
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(adamw, Adamw)
MEGATRON_ASTRO_LAUNCHERS(squared_norm, SquaredNorm)

}  // namespace megatron_astro::ops
