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

// Results above this size leave the cache before they are read again.
constexpr int64_t STREAMED_BYTES = 8 * 1024 * 1024;

constexpr float INFINITE = __builtin_inff();
constexpr float NOT_A_NUMBER = __builtin_nanf("");

inline Floats all(float value) { return Floats{} + value; }

// The compiler's own conversions of 16 numbers go through two vectors of 8. The masks change nothing: without, GCC 12 warns of its headers.
inline Words words_of(Halves halves) {
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)halves);
#else
  return __builtin_convertvector(halves, Words);
#endif
}

inline Floats widen(Halves halves) { return (Floats)(words_of(halves) << 16); }

// The low halves of words that fit them.
inline Halves low_halves(Words words) {
#if defined(__AVX512F__)
  return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)words);
#elif defined(__AVX2__)
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

// Twice as many consecutive numbers, in an order that suits the format: of bfloat16 those at even places, then those at odd ones.
struct Two {
  Floats first, second;
};

inline Two load_two(const float* from) { return {load(from), load(from + LANES)}; }

inline Two load_two(const BFloat16* from) {
  Words words;
  __builtin_memcpy(&words, from, sizeof words);
  return {(Floats)(words << 16), (Floats)(words & 0xffff0000)};
}

// As narrow, in the upper halves of words; for a NaN that a bfloat16 was or arithmetic made: its low bits are zero and carry nothing.
inline Words rounded(Floats values) {
  const Words bits = (Words)values;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

// Ask for the memory that load_two will read; a place past the end of the tensor does no harm.
template <typename T>
inline void prefetch_two(const T* from) {
  const char* bytes = reinterpret_cast<const char*>(from);
  for (unsigned long offset = 0; offset < 2 * LANES * sizeof(T); offset += 64) __builtin_prefetch(bytes + offset);
}

// What a number becomes when it is stored in T and loaded again, as store_two rounds it.
template <typename T>
inline Floats as_stored(Floats values) {
  return sizeof(T) == 4 ? values : (Floats)(rounded(values) & 0xffff0000);
}

// Past the caches, at an address that is a multiple of the vector's size: the line need not be read first.
template <bool STREAMED>
inline void put(float* to, Floats values) {
#if defined(__AVX512F__)
  if (STREAMED) return _mm512_stream_ps(to, (__m512)values);
#elif defined(__AVX2__)
  if (STREAMED) return _mm256_stream_ps(to, (__m256)values);
#endif
  store(to, values);
}

template <bool STREAMED>
inline void store_two(float* to, Two values) {
  put<STREAMED>(to, values.first);
  put<STREAMED>(to + LANES, values.second);
}

template <bool STREAMED>
inline void store_two(BFloat16* to, Two values) {
  const Words words = (rounded(values.first) >> 16) | (rounded(values.second) & 0xffff0000);
  put<STREAMED>(reinterpret_cast<float*>(to), (Floats)words);
}

// Make what this thread streamed visible to the others.
inline void end_streaming() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// Whether a result is too large to be still in the cache when it is read, and each of its rows can be streamed.
template <typename T>
inline bool streams(const void* result, int64_t rows, int64_t columns) {
  const int64_t row_bytes = columns * static_cast<int64_t>(sizeof(T));
  const uint64_t misplaced = (reinterpret_cast<uint64_t>(result) | static_cast<uint64_t>(row_bytes)) % sizeof(Floats);
  return misplaced == 0 && rows * row_bytes > STREAMED_BYTES;
}

inline float sum(Floats values) {
  float total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += values[lane];
  return total;
}

// The right one where either is NaN; the compiler finds the instruction itself but for AVX-512.
inline Floats maximum(Floats left, Floats right) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_max_ps(0xffff, (__m512)left, (__m512)right);
#else
  return left > right ? left : right;
#endif
}

inline Floats minimum(Floats left, Floats right) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_min_ps(0xffff, (__m512)left, (__m512)right);
#else
  return left < right ? left : right;
#endif
}

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

// Call pairs(index, slot) for every 2 * LANES of [0, size), slot 0 or 2 in turn, and rest(index, count, slot) for what is left, count at most LANES.
template <typename Pairs, typename Rest>
inline __attribute__((always_inline)) void for_each_two(int64_t size, Pairs pairs, Rest rest) {
  int64_t index = 0;
  for (; index + 4 * LANES <= size; index += 4 * LANES) {
    pairs(index, 0);
    pairs(index + 2 * LANES, 2);
  }
  for_each_vector(size - index, [&](int64_t i, int count, int slot) __attribute__((always_inline)) { rest(index + i, count, slot); });
}

inline Floats total(const Floats (&parts)[4]) { return (parts[0] + parts[1]) + (parts[2] + parts[3]); }

inline float square_root(float value) { return __builtin_sqrtf(value); }

// Work below this many elements is done by the calling thread: waking the others costs about 5 microseconds.
constexpr int64_t PARALLEL_ELEMENTS = 32768;

}  // namespace
}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
