// Cross entropy over a vocabulary that may be split over ranks: this rank holds the columns first_label .. first_label + columns - 1.
// Statistics of the rank's slice; ranks combine them; then the logits are replaced by their gradient.
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

// maximum = max over the slice; sum = sum of exp(logit - maximum); target = the label's logit, 0 where another rank holds it.
// A row whose label is ignored gives 0, 1, 0 (and so a loss of 0) and is not read.
struct CrossEntropyStatistics {
  const void* logits;     // [rows, columns]
  const int64_t* labels;  // [rows]
  float* statistics;      // [3, rows]: maximum, sum, target
  int64_t rows, columns;
  int64_t first_label, ignored_label;
  Dtype dtype;
};

// logits <- (exp(logit - maximum) / sum - (1 at the label)) * grad_losses; rows whose label is ignored become 0.
struct CrossEntropyGradient {
  void* logits;              // [rows, columns], in and out
  const int64_t* labels;     // [rows]
  const float* maximum;      // [rows], over all ranks
  const float* sum;          // [rows], over all ranks
  const float* grad_losses;  // [rows]
  int64_t rows, columns;
  int64_t first_label, ignored_label;
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(cross_entropy_statistics, CrossEntropyStatistics)
MEGATRON_ASTRO_LAUNCHERS(cross_entropy_gradient, CrossEntropyGradient)

}  // namespace megatron_astro::ops
