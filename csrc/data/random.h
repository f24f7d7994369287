// Two documented generators and the shuffle that both use (Fisher-Yates from the end, unbiased bounded draws).
#pragma once

#include <bit>
#include <cstdint>
#include <random>
#include <span>
#include <utility>

#include "../checks.h"

namespace megatron_astro {

// SplitMix64 (Steele, Lea, Flood 2014): the k-th draw is mix(state + k * golden). One generator per (seed, stream); for one seed
// the map from stream to first state is a bijection, so no two streams are the same.
class SplitMix64 {
 public:
  SplitMix64(uint64_t seed, uint64_t stream) : state_(mix(mix(seed) + stream)) {}
  uint64_t next() { return mix(state_ += kGolden); }
  // Uniform in [0, largest]: keep as many low bits as `largest` has, draw again while above it.
  uint64_t up_to(uint64_t largest) {
    const uint64_t mask = largest == 0 ? 0 : ~uint64_t{0} >> std::countl_zero(largest);
    for (;;) {
      const uint64_t value = next() & mask;
      if (value <= largest) return value;
    }
  }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;
  static uint64_t mix(uint64_t bits) {
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
    return bits ^ (bits >> 31);
  }
  uint64_t state_;
};

// The draws of numpy.random.RandomState(seed).shuffle, which Megatron's indices are made with: MT19937 seeded with one 32-bit
// number, 32-bit draws while they suffice, two of them (high half first) beyond that, masked rejection.
class NumpyLegacyRandom {
 public:
  explicit NumpyLegacyRandom(uint32_t seed) : engine_(seed) {}
  uint64_t up_to(uint64_t largest) {
    if (largest == 0) return 0;
    const uint64_t mask = ~uint64_t{0} >> std::countl_zero(largest);
    for (;;) {
      const uint64_t value = draw(largest) & mask;
      if (value <= largest) return value;
    }
  }

 private:
  uint64_t draw(uint64_t largest) {
    if (largest <= std::numeric_limits<uint32_t>::max()) return engine_();
    const uint64_t high = engine_();
    return high << 32 | engine_();
  }
  std::mt19937 engine_;
};

template <typename Random>
void shuffle(std::span<int64_t> values, Random& random) {
  for (std::size_t last = values.size(); last-- > 1;) std::swap(values[last], values[random.up_to(last)]);
}

}  // namespace megatron_astro
