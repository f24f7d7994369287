// Rotary positions (Su et al. 2021) in the layout of Hugging Face and Megatron: element i turns with element i + head_size / 2.
#pragma once

#include <cstdint>

#include "launch.h"

namespace megatron_astro::ops {

constexpr int64_t ROPE_LARGEST_HEAD = 1024;

// [sequence, batch, heads, head_size], where only the last axis need be contiguous; strides count elements.
struct RopeTensor {
  const void* input;
  void* output;  // may be the input
  int64_t heads;
  int64_t input_strides[3];
  int64_t output_strides[3];
};

// With angle = position * inverse_frequencies[i] (rounded to float32):
//   output[i] = input[i] cos - input[i + d/2] sin,  output[i + d/2] = input[i + d/2] cos + input[i] sin;
// backward turns by minus the angle. Token t of packed sequence j stands at position t - cu_seqlens[j] + position_offset.
struct Rope {
  RopeTensor query, key;
  const float* inverse_frequencies;  // [head_size / 2]
  const int32_t* cu_seqlens;         // [num_sequences + 1], from 0 to sequence, or null: one sequence
  int64_t num_sequences;
  int64_t position_offset;
  int64_t sequence, batch, head_size;
  bool backward;
  Dtype dtype;
};

MEGATRON_ASTRO_LAUNCHERS(rope, Rope)

}  // namespace megatron_astro::ops
