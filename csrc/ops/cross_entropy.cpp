// A row is read in blocks that stay in the first-level cache: for each, its maximum, then the sum of exponentials against the largest so far,
// while the next block comes from memory.
#include "cross_entropy.h"

#include "functions.h"

namespace megatron_astro::ops {
namespace MEGATRON_ASTRO_ISA {
namespace {

constexpr int64_t BLOCK = 4096;

template <typename T>
inline float block_maximum(const T* logits, int64_t size) {
  Floats most[4] = {all(-INFINITE), all(-INFINITE), all(-INFINITE), all(-INFINITE)};
  for_each_two(
      size,
      [&](int64_t i, int slot) __attribute__((always_inline)) {
        const Two x = load_two(logits + i);
        most[slot] = maximum(most[slot], x.first);
        most[slot + 1] = maximum(most[slot + 1], x.second);
      },
      [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
        most[slot] = maximum(most[slot], load(logits + i, count, -INFINITE));
      });
  return largest(maximum(maximum(most[0], most[1]), maximum(most[2], most[3])));
}

template <typename T>
inline double block_sum(const T* logits, int64_t size, float shift) {
  Floats sums[4] = {};
  for_each_two(
      size,
      [&](int64_t i, int slot) __attribute__((always_inline)) {
        prefetch_two(logits + i + BLOCK);
        const Two x = load_two(logits + i);
        sums[slot] += exponential(x.first - shift);
        sums[slot + 1] += exponential(x.second - shift);
      },
      [&](int64_t i, int count, int slot) __attribute__((always_inline)) {
        sums[slot] += exponential(load(logits + i, count, -INFINITE) - shift);
      });
  return wide_sum(sums);
}

template <typename T>
inline float element(const T* logits, int64_t index) {
  return load(logits + index, 1, 0)[0];
}

template <typename T>
void statistics(const CrossEntropyStatistics& a) {
#pragma omp parallel for schedule(static) if (a.rows * a.columns > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < a.rows; ++row) {
    const bool ignored = a.labels[row] == a.ignored_label;
    const int64_t columns = ignored ? 0 : a.columns;
    const T* logits = static_cast<const T*>(a.logits) + row * a.columns;
    float most = -INFINITE;
    double exponentials = 0;
    for (int64_t first = 0; first < columns; first += BLOCK) {
      const int64_t size = columns - first < BLOCK ? columns - first : BLOCK;
      const float here = block_maximum(logits + first, size);
      if (here > most) {
        exponentials *= exponential(most - here);
        most = here;
      }
      exponentials += block_sum(logits + first, size, most == -INFINITE ? 0 : most);  // nothing but -infinity so far: 0, or NaN if one is there
    }
    const int64_t label = a.labels[row] - a.first_label;
    a.statistics[row] = ignored ? 0 : most;
    a.statistics[a.rows + row] = ignored ? 1 : static_cast<float>(exponentials);
    a.statistics[2 * a.rows + row] = 0 <= label && label < columns ? element(logits, label) : 0;
  }
}

template <typename T>
void gradient(const CrossEntropyGradient& a) {
#pragma omp parallel for schedule(static) if (a.rows * a.columns > PARALLEL_ELEMENTS)
  for (int64_t row = 0; row < a.rows; ++row) {
    T* logits = static_cast<T*>(a.logits) + row * a.columns;
    if (a.labels[row] == a.ignored_label) {
      __builtin_memset(logits, 0, static_cast<unsigned long>(a.columns) * sizeof(T));
      continue;
    }
    const float most = a.maximum[row], grad = a.grad_losses[row], share = grad / a.sum[row];
    const float scale = share == share ? share : NOT_A_NUMBER;  // one from elsewhere may have low bits, which store_two cannot have
    const int64_t label = a.labels[row] - a.first_label;
    const bool ours = 0 <= label && label < a.columns;
    const Floats at_label = all(ours ? exponential(element(logits, label) - most) * scale - grad : 0.0f);
    for_each_two(
        a.columns,
        [&](int64_t i, int) __attribute__((always_inline)) {
          const Two x = load_two(logits + i);
          store_two<false>(logits + i, {exponential(x.first - most) * scale, exponential(x.second - most) * scale});
        },
        [&](int64_t i, int count, int) __attribute__((always_inline)) {
          store(logits + i, exponential(load(logits + i, count, -INFINITE) - most) * scale, count);
        });
    if (ours) store(logits + label, at_label, 1);
  }
}

}  // namespace

void cross_entropy_statistics(const CrossEntropyStatistics& arguments) {
  arguments.dtype == Dtype::float32 ? statistics<float>(arguments) : statistics<BFloat16>(arguments);
}

void cross_entropy_gradient(const CrossEntropyGradient& arguments) {
  arguments.dtype == Dtype::float32 ? gradient<float>(arguments) : gradient<BFloat16>(arguments);
}

}  // namespace MEGATRON_ASTRO_ISA
}  // namespace megatron_astro::ops
