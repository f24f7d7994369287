// Sines and cosines are computed once a position and serve every head of every sample.
#include "rope.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

struct Turn {
  float sine[ROPE_LARGEST_HEAD / 2 + LANES], cosine[ROPE_LARGEST_HEAD / 2 + LANES];
};

inline int64_t position_of(const Rope& a, int64_t token) {
  int64_t first = 0;
  if (a.cu_seqlens != nullptr) {
    int64_t low = 0, high = a.num_sequences;  // cu_seqlens[low] <= token < cu_seqlens[high]
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (a.cu_seqlens[middle] <= token ? low : high) = middle;
    }
    first = a.cu_seqlens[low];
  }
  return token - first + a.position_offset;
}

inline void fill(const Rope& a, int64_t token, Turn& turn) {
  const float position = static_cast<float>(position_of(a, token));
  const int64_t half = a.head_size / 2;
  for (int64_t i = 0; i < half; i += LANES) {
    const int count = half - i < LANES ? static_cast<int>(half - i) : LANES;
    const SineCosine values = sine_cosine(load(a.inverse_frequencies + i, count, 0) * position);
    store(turn.sine + i, a.backward ? -values.sine : values.sine);
    store(turn.cosine + i, values.cosine);
  }
}

template <typename T>
inline void rotate(const Rope& a, const RopeTensor& tensor, int64_t token, const Turn& turn) {
  const int64_t half = a.head_size / 2;
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    for (int64_t head = 0; head < tensor.heads; ++head) {
      const T* input = static_cast<const T*>(tensor.input) + token * tensor.input_strides[0] + sample * tensor.input_strides[1] +
                       head * tensor.input_strides[2];
      T* output = static_cast<T*>(tensor.output) + token * tensor.output_strides[0] + sample * tensor.output_strides[1] +
                  head * tensor.output_strides[2];
      for_each_vector(half, [&](int64_t i, int count, int) __attribute__((always_inline)) {
        const Floats x = load(input + i, count, 0), y = load(input + half + i, count, 0);
        const Floats sine = load(turn.sine + i), cosine = load(turn.cosine + i);
        store(output + i, x * cosine - y * sine, count);
        store(output + half + i, y * cosine + x * sine, count);
      });
    }
  }
}

template <typename T>
void turn_all(const Rope& a) {
  const int64_t elements = a.sequence * a.batch * (a.query.heads + a.key.heads) * a.head_size;
#pragma omp parallel for schedule(static) if (elements > PARALLEL_ELEMENTS)
  for (int64_t token = 0; token < a.sequence; ++token) {
    Turn turn;
    fill(a, token, turn);
    rotate<T>(a, a.query, token, turn);
    rotate<T>(a, a.key, token, turn);
  }
}

}  // namespace

void rope(const Rope& arguments) {
  arguments.dtype == Dtype::float32 ? turn_all<float>(arguments) : turn_all<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
