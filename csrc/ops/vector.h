// Vectors of float32 for the CPU kernels, as wide as the instruction set this file is compiled for (MEGATRON_ASTRO_ISA).
//
// A kernel's source is compiled once an instruction set, each into a namespace of its own. Nothing here or there may use a function of the
// standard library: its inline functions would be compiled for AVX-512 too, and the linker keeps one copy for all processors.
#pragma once

#include <cstdint>

#include "dtype.h"

#if defined(__AVX2__)
#include <immintrin.h>  // these functions have no copy to link
#endif

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

using Floats = float __attribute__((vector_size(LANES * 4)));
using Ints = int32_t __attribute__((vector_size(LANES * 4)));
using Words = uint32_t __attribute__((vector_size(LANES * 4)));
using Halves = uint16_t __attribute__((vector_size(LANES * 2)));

constexpr float INFINITE = __builtin_inff();

inline Floats all(float value) { return Floats{} + value; }

inline Floats widen(Halves halves) { return (Floats)(__builtin_convertvector(halves, Words) << 16); }

// The low halves of words that fit them.
inline Halves low_halves(Words words) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  return (Halves)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)words), _mm256_extracti128_si256((__m256i)words, 1));
#else
  return __builtin_convertvector(words, Halves);
#endif
}

// Round to the nearest bfloat16, ties to even; NaN stays NaN.
inline Halves narrow(Floats values) {
  const Words bits = (Words)values, kept = bits >> 16;
  const Words rounded = (bits + 0x7fff + (kept & 1)) >> 16;
  return low_halves(values == values ? rounded : kept | 0x40);
}

inline Floats load(const float* from) {
  Floats values;
  __builtin_memcpy(&values, from, sizeof values);
  return values;
}

inline Floats load(const BFloat16* from) {
  Halves values;
  __builtin_memcpy(&values, from, sizeof values);
  return widen(values);
}

inline void store(float* to, Floats values) { __builtin_memcpy(to, &values, sizeof values); }

inline void store(BFloat16* to, Floats values) {
  const Halves halves = narrow(values);
  __builtin_memcpy(to, &halves, sizeof halves);
}

inline Floats load(const float* from, int count, float rest) {
  if (count == LANES) return load(from);
  Floats values = all(rest);
  for (int lane = 0; lane < count; ++lane) values[lane] = from[lane];
  return values;
}

inline Floats load(const BFloat16* from, int count, float rest) {
  if (count == LANES) return load(from);
  Halves halves{};
  for (int lane = 0; lane < count; ++lane) halves[lane] = from[lane].bits;
  Floats values = widen(halves);
  for (int lane = count; lane < LANES; ++lane) values[lane] = rest;
  return values;
}

inline void store(float* to, Floats values, int count) {
  if (count == LANES) return store(to, values);
  for (int lane = 0; lane < count; ++lane) to[lane] = values[lane];
}

inline void store(BFloat16* to, Floats values, int count) {
  if (count == LANES) return store(to, values);
  const Halves halves = narrow(values);
  for (int lane = 0; lane < count; ++lane) to[lane].bits = halves[lane];
}

inline float sum(Floats values) {
  float total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += values[lane];
  return total;
}

inline Floats maximum(Floats left, Floats right) { return left > right ? left : right; }

inline float largest(Floats values) {
  float most = values[0];
  for (int lane = 1; lane < LANES; ++lane) most = values[lane] > most ? values[lane] : most;
  return most;
}

// Call body(index, count, slot) over [0, size): count is LANES but for the last; slot counts 0 to 3, for four independent accumulators.
template <typename Body>
inline __attribute__((always_inline)) void for_each_vector(int64_t size, Body body) {
  int64_t index = 0;
  for (; index + 4 * LANES <= size; index += 4 * LANES) {
    body(index, LANES, 0);
    body(index + LANES, LANES, 1);
    body(index + 2 * LANES, LANES, 2);
    body(index + 3 * LANES, LANES, 3);
  }
  for (; index + LANES <= size; index += LANES) body(index, LANES, 0);
  if (index < size) body(index, static_cast<int>(size - index), 1);
}

inline Floats total(const Floats (&parts)[4]) { return (parts[0] + parts[1]) + (parts[2] + parts[3]); }

inline float square_root(float value) { return __builtin_sqrtf(value); }

// Work below this many elements is done by the calling thread: waking the others costs about 5 microseconds.
constexpr int64_t PARALLEL_ELEMENTS = 32768;

}  // namespace
}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
