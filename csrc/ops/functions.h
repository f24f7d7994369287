// exp, sine and cosine of vectors of float32, within a few units in the last place.
#pragma once

#include "vector.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

// 0 below -87.3 and infinity above 88.3. Minimax polynomial of Cephes' expf (S. Moshier) on [-ln 2 / 2, ln 2 / 2].
inline Floats exponential(Floats x) {
  const Floats rounding = all(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Floats shifted = x * 1.44269504088896341f + rounding;
  const Floats n = shifted - rounding;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Floats power = (Floats)(((Words)shifted - (Words)rounding + 127) << 23);
  const Floats result = p * power;
  return x < -87.3f ? Floats{} : (x > 88.3f ? all(INFINITE) : result);
}

inline float exponential(float x) { return exponential(all(x))[0]; }

using Doubles = double __attribute__((vector_size(LANES * 8)));
using Longs = int64_t __attribute__((vector_size(LANES * 8)));

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
