// The generators behind every order: one keyed by whatever distinguishes its draws, and numpy's, which Megatron's indices are made with.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <random>

namespace megatron_astro {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection of 64 bits.
inline uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  return bits ^ (bits >> 31);
}

inline constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

// What a stream of draws is keyed by: a seed, then one number after another (dataset, epoch, ...). From one key, different numbers
// lead to different keys.
struct Key {
  uint64_t bits;
  static Key of_seed(uint64_t seed) { return {mix(seed + kGolden)}; }
  Key with(uint64_t number) const { return {mix(bits + kGolden + mix(number))}; }
};

// SplitMix64 with Lemire's unbiased bounded draw (2019).
class SplitMix64 {
 public:
  explicit SplitMix64(Key key) : state_(key.bits) {}
  uint64_t next() { return mix(state_ += kGolden); }
  // Uniform in [0, bound), bound > 0.
  uint64_t below(uint64_t bound) {
    using Wide = unsigned __int128;
    Wide product = Wide{next()} * bound;
    if (static_cast<uint64_t>(product) < bound) {
      const uint64_t least = (0 - bound) % bound;
      while (static_cast<uint64_t>(product) < least) product = Wide{next()} * bound;
    }
    return static_cast<uint64_t>(product >> 64);
  }

 private:
  uint64_t state_;
};

// The draws of numpy.random.RandomState(seed).shuffle: MT19937 seeded with one 32-bit number, 32-bit draws while they suffice, two of
// them (high half first) beyond that; as many low bits as the largest wanted number has, drawn again while above it.
class NumpyLegacyRandom {
 public:
  explicit NumpyLegacyRandom(uint32_t seed) : engine_(seed) {}
  uint64_t next(uint64_t largest) {
    if (largest <= std::numeric_limits<uint32_t>::max()) return engine_();
    const uint64_t high = engine_();
    return high << 32 | engine_();
  }
  static uint64_t mask(uint64_t largest) { return largest == 0 ? 0 : ~uint64_t{0} >> std::countl_zero(largest); }

 private:
  std::mt19937 engine_;
};

}  // namespace megatron_astro
