// Root-mean-square norm (Zhang and Sennrich 2019, eq. 4), alone or after adding a residual; columns is the hidden size.
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

// output = (hidden + residual) * inverse_rms * weight; sum = hidden + residual. Without a residual both pointers are null.
struct RmsNormForward {
  const void* hidden;    // [rows, columns]
  const void* residual;  // [rows, columns] or null
  const void* weight;    // [columns]
  void* output;          // [rows, columns]
  void* sum;             // [rows, columns] or null; rounded to dtype, and the norm is that of the rounded sum
  float* inverse_rms;    // [rows]: 1 / sqrt(mean square + epsilon)
  int64_t rows, columns;
  float epsilon;
  Dtype dtype;
};

// Rows whose contributions to the weight's gradient are added up before they join the others': the order of additions, and so the result,
// does not depend on the number of threads.
constexpr int64_t RMS_NORM_ROWS_A_PARTIAL = 64;

// On a GPU each block adds up the rows it is given: as many blocks as four for each of 132 multiprocessors, on every GPU the same.
constexpr int64_t RMS_NORM_CUDA_PARTIALS = 528;

inline int64_t rms_norm_cuda_partials(int64_t rows) { return rows < RMS_NORM_CUDA_PARTIALS ? rows : RMS_NORM_CUDA_PARTIALS; }

inline int64_t rms_norm_partials(int64_t rows) { return (rows + RMS_NORM_ROWS_A_PARTIAL - 1) / RMS_NORM_ROWS_A_PARTIAL; }

// grad_hidden = inverse_rms * (g - x * mean(g * x)) + grad_sum, where x = hidden * inverse_rms and g = grad_output * weight;
// grad_weight = sum over rows of grad_output * x.
struct RmsNormBackward {
  const void* grad_output;   // [rows, columns]
  const void* grad_sum;      // [rows, columns] or null: what reaches the sum by other ways
  const void* hidden;        // [rows, columns]: what was normalised
  const void* weight;        // [columns]
  const float* inverse_rms;  // [rows]
  void* grad_hidden;         // [rows, columns]
  void* grad_weight;         // [columns]
  float* partials;           // [rms_norm_partials(rows), or rms_norm_cuda_partials(rows) on a GPU; columns], scratch
  int64_t rows, columns;
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(rms_norm_forward, RmsNormForward)
MEGATRON_ASTRO_LAUNCHERS(rms_norm_backward, RmsNormBackward)

}  // namespace megatron_astro::ops
