// The two number formats of the fused operations. Arithmetic is float32 in both.
#pragma once

#include <cstdint>

namespace megatron_astro::ops {

enum class Dtype : int32_t { float32 = 0, bfloat16 = 1 };

// The upper half of a float32's bits.
struct BFloat16 {
  uint16_t bits;
};

}  // namespace megatron_astro::ops
