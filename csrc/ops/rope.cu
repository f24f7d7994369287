// A block turns all heads of one token, queries and keys: sines and cosines are computed once and shared.
#include "rope.h"

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int THREADS = 128;
constexpr int ANGLES_AT_ONCE = 128;  // half of head size 256; longer heads take turns

constexpr double INVERSE_PI = 0.318309886183790671537767526745;

struct Turn {
  float cosine, sine;
};

// The angle in float32, as the reference has it; its sine exact to float32 whatever its size. (sincosf would need a stack.)
__device__ inline Turn turn_by(float angle, bool backward) {
  double half_turns = static_cast<double>(angle) * INVERSE_PI;
  half_turns -= 2.0 * rint(0.5 * half_turns);
  Turn turn;
  sincospif(static_cast<float>(half_turns), &turn.sine, &turn.cosine);
  if (backward) turn.sine = -turn.sine;
  return turn;
}

// Tokens since the beginning of the packed sequence that token t belongs to.
__device__ inline int64_t position_of(const Rope& a, int64_t token) {
  if (a.cu_seqlens == nullptr) return token + a.position_offset;
  int64_t low = 0, high = a.num_sequences;  // cu_seqlens[low] <= token < cu_seqlens[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (a.cu_seqlens[middle] <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return token - a.cu_seqlens[low] + a.position_offset;
}

template <typename T>
__device__ inline void turn_packed(const T* from, T* to, int64_t half, const Turn* turns) {
  float first[LANES<T>], second[LANES<T>], turned[LANES<T>];
  load(from, first);
  load(from + half, second);
#pragma unroll
  for (int k = 0; k < LANES<T>; ++k) turned[k] = first[k] * turns[k].cosine - second[k] * turns[k].sine;
#pragma unroll
  for (int k = 0; k < LANES<T>; ++k) second[k] = second[k] * turns[k].cosine + first[k] * turns[k].sine;
  store(to, turned);
  store(to + half, second);
}

template <typename T>
__device__ inline void turn_single(const T* from, T* to, int64_t half, const Turn& turn) {
  const float first = widen(from[0]), second = widen(from[half]);
  store_one(to, first * turn.cosine - second * turn.sine);
  store_one(to + half, second * turn.cosine + first * turn.sine);
}

// Dimensions [begin, begin + count) of the first half of every head, and their partners in the second.
template <typename T, bool PACKED>
__device__ inline void turn_heads(const RopeTensor& x, int64_t token, int64_t sample, int64_t half, int begin, int count,
                                  const Turn* turns) {
  constexpr int STEP = PACKED ? LANES<T> : 1;
  const int items = count / STEP;
  const T* from = static_cast<const T*>(x.input) + token * x.input_strides[0] + sample * x.input_strides[1] + begin;
  T* to = static_cast<T*>(x.output) + token * x.output_strides[0] + sample * x.output_strides[1] + begin;
  for (int64_t work = threadIdx.x; work < x.heads * items; work += THREADS) {
    const int64_t head = work / items;
    const int i = static_cast<int>(work - head * items) * STEP;
    const T* at = from + head * x.input_strides[2] + i;
    T* target = to + head * x.output_strides[2] + i;
    if constexpr (PACKED) {
      turn_packed(at, target, half, turns + i);
    } else {
      turn_single(at, target, half, turns[i]);
    }
  }
}

template <typename T, bool PACKED>
__global__ void __launch_bounds__(THREADS) rotate(const Rope a) {
  __shared__ Turn turns[ANGLES_AT_ONCE];
  const int64_t half = a.head_size / 2;
  for (int64_t token = blockIdx.x; token < a.sequence; token += gridDim.x) {
    const auto position = static_cast<float>(position_of(a, token));
    for (int64_t begin = 0; begin < half; begin += ANGLES_AT_ONCE) {
      const int count = static_cast<int>(half - begin < ANGLES_AT_ONCE ? half - begin : ANGLES_AT_ONCE);
      for (int i = static_cast<int>(threadIdx.x); i < count; i += THREADS) {
        turns[i] = turn_by(position * a.inverse_frequencies[begin + i], a.backward);
      }
      __syncthreads();
      for (int64_t sample = blockIdx.y; sample < a.batch; sample += gridDim.y) {
        turn_heads<T, PACKED>(a.query, token, sample, half, static_cast<int>(begin), count, turns);
        turn_heads<T, PACKED>(a.key, token, sample, half, static_cast<int>(begin), count, turns);
      }
      __syncthreads();  // the next angles take their place
    }
  }
}

template <typename T>
bool strides_fit(const RopeTensor& x) {
  bool fit = is_aligned(x.input) && is_aligned(x.output);
  for (int axis = 0; axis < 3; ++axis) fit = fit && x.input_strides[axis] % LANES<T> == 0 && x.output_strides[axis] % LANES<T> == 0;
  return fit;
}

template <typename T>
int run(const Rope& a, void* stream) {
  const bool packed = a.head_size / 2 % LANES<T> == 0 && strides_fit<T>(a.query) && strides_fit<T>(a.key);
  return launch(stream, blocks(a.sequence, a.batch), THREADS, packed ? rotate<T, true> : rotate<T, false>, a);
}

}  // namespace

int rope(const Rope& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? run<float>(arguments, stream) : run<BFloat16>(arguments, stream);
}

}  // namespace megatron_astro::ops::cuda
