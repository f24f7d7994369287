// Softmax of scaled attention scores under a causal mask: query i sees keys 0 .. i + keys - queries; for use without flash attention.
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

struct CausalSoftmaxForward {
  const void* scores;   // [matrices, queries, keys], keys >= queries
  void* probabilities;  // [matrices, queries, keys]; 0 where masked
  int64_t matrices, queries, keys;
  float scale;
  Dtype dtype;
};

// grad_scores = scale * p * (grad - sum over keys of grad * p); 0 where masked.
struct CausalSoftmaxBackward {
  const void* grad_probabilities;  // [matrices, queries, keys]
  const void* probabilities;       // [matrices, queries, keys]
  void* grad_scores;               // [matrices, queries, keys]
  int64_t matrices, queries, keys;
  float scale;
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(causal_softmax_forward, CausalSoftmaxForward)
MEGATRON_ASTRO_LAUNCHERS(causal_softmax_backward, CausalSoftmaxBackward)

}  // namespace megatron_astro::ops
