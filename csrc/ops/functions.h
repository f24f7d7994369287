// exp, sine and cosine of vectors of float32, within a few units in the last place.
#pragma once

#include "vector.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

// e^x = 2^n 2^f with n whole and |f| <= 1/2, for arguments from -87.3 to 88.3.
struct Power {
  Floats fraction, scale;  // f, 2^n
};

inline Power power_of(Floats x) {
  const Floats rounding = all(12583039.0f);  // 1.5 * 2^23 + 127: adding it leaves the nearest integer, plus the exponent bias, in the low bits
  const Floats shifted = x * 1.44269504088896341f + rounding;
  const Floats n = shifted - rounding;
#if defined(__FMA__)
  const Floats f = x * 1.44269504088896341f - n;  // one rounding
#else
  const Floats f = ((x - n * 0.693359375f) - n * -2.12194440e-4f) * 1.44269504088896341f;
#endif
  return {f, (Floats)((Words)shifted << 23)};
}

// The polynomial was fitted to 2^f (error below 2e-9).
inline Floats power_of_e(Floats x) {
  const auto [f, scale] = power_of(x);
  Floats p = all(1.5474518295377493e-4f);
  p = p * f + 1.3400332536548376e-3f;
  p = p * f + 9.618010371923447e-3f;
  p = p * f + 5.5503275245428085e-2f;
  p = p * f + 2.4022650718688965e-1f;
  p = p * f + 6.931471824645996e-1f;
  p = p * f + 1.0f;
  return p * scale;
}

// Within 3e-6 of it, a thousandth of the rounding to bfloat16.
inline Floats rough_power_of_e(Floats x) {
  const auto [f, scale] = power_of(x);
  Floats p = all(9.58285509506361e-3f);
  p = p * f + 5.590643032865459e-2f;
  p = p * f + 2.4024098610206085e-1f;
  p = p * f + 6.931241927624274e-1f;
  p = p * f + 1.0f;
  return p * scale;
}

// For arguments up to 88.3; 0 below -87.3.
inline Floats exponential(Floats x) { return x < -87.3f ? Floats{} : power_of_e(x); }

// 1 / (1 + exp(-x)) to the precision that a result in T has; 1 above 80, 0 below -80, which keeps subnormal numbers away; NaN stays NaN.
template <typename T>
inline Floats sigmoid(Floats x) {
  const Floats negated = -minimum(all(80.0f), x);
  const Floats result = 1.0f / (1.0f + (sizeof(T) == 2 ? rough_power_of_e(negated) : power_of_e(negated)));
  return x < -80.0f ? Floats{} : result;
}

inline float exponential(float x) { return exponential(all(x))[0]; }

using Doubles = double __attribute__((vector_size(LANES * 8)));
using Longs = int64_t __attribute__((vector_size(LANES * 8)));

// The sum of all lanes in float64: where one summand outweighs the others, every rounding of a float32 sum would count.
inline double wide_sum(const Floats (&parts)[4]) {
  Doubles lanes{};
  for (const Floats& part : parts) lanes += __builtin_convertvector(part, Doubles);
  double result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += lanes[lane];
  return result;
}

struct SineCosine {
  Floats sine, cosine;
};

// The angle is reduced in float64, so that large positions lose nothing. Minimax polynomials of Cephes' sinf and cosf on [-pi/4, pi/4].
inline SineCosine sine_cosine(Floats angle) {
  const Doubles wide = __builtin_convertvector(angle, Doubles);
  const Doubles rounding = Doubles{} + 6755399441055744.0;  // 1.5 * 2^52
  const Doubles shifted = wide * 0.63661977236758134308 + rounding;
  const Doubles n = shifted - rounding;
  const Floats r = __builtin_convertvector((wide - n * 1.5707963267948966) - n * 6.123233995736766e-17, Floats);
  const Ints quadrant = __builtin_convertvector((Longs)shifted - (Longs)rounding, Ints);
  const Floats z = r * r;
  Floats s = all(-1.9515295891e-4f);
  s = s * z + 8.3321608736e-3f;
  s = s * z - 1.6666654611e-1f;
  s = s * z * r + r;
  Floats c = all(2.443315711809948e-5f);
  c = c * z - 1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  c = c * (z * z) - 0.5f * z + 1.0f;
  const Ints swap = (quadrant & 1) != 0;
  const Floats sine = swap ? c : s, cosine = swap ? s : c;
  return {(quadrant & 2) != 0 ? -sine : sine, ((quadrant + 1) & 2) != 0 ? -cosine : cosine};
}

}  // namespace
}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
