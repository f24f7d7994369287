// A keyed permutation of 0..size-1, asked for one place at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "random.h"

namespace megatron_astro {

// Below 65,536 a Fisher-Yates shuffle, kept as a table of 16-bit numbers. From there on nothing is kept: an alternating Feistel network
// over the next power of two, walked until it is back inside (Black and Rogaway 2002), which takes less than two steps on average.
// Small sizes are left to the shuffle because a Feistel network over few bits is visibly biased.
class KeyedPermutation {
 public:
  KeyedPermutation(int64_t size, Key key);
  int64_t size() const { return size_; }
  // The number at a place from 0 to size - 1.
  int64_t operator()(int64_t place) const {
    if (!table_.empty()) return table_[static_cast<std::size_t>(place)];
    uint64_t value = static_cast<uint64_t>(place);
    do value = network(value);
    while (value >= static_cast<uint64_t>(size_));
    return static_cast<int64_t>(value);
  }

 private:
  static constexpr int64_t kSmallestNetwork = 65536;
  static constexpr int kRounds = 6;
  uint64_t network(uint64_t value) const {
    uint64_t low = value & low_mask_, high = value >> low_bits_;
    for (int round = 0; round < kRounds; round += 2) {
      low ^= mix(high + round_keys_[round]) & low_mask_;
      high ^= mix(low + round_keys_[round + 1]) & high_mask_;
    }
    return high << low_bits_ | low;
  }

  int64_t size_;
  std::vector<uint16_t> table_;
  int low_bits_ = 0;
  uint64_t low_mask_ = 0;
  uint64_t high_mask_ = 0;
  uint64_t round_keys_[kRounds] = {};
};

}  // namespace megatron_astro
