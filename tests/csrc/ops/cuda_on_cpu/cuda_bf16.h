// Stands in for CUDA's header of the same name.
#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat162 {
  uint16_t x, y;
};

inline uint16_t rounded_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return 0x7fff;  // what the processor makes of NaN
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) { return {rounded_to_bfloat16(low), rounded_to_bfloat16(high)}; }
