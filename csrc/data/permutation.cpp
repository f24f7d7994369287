#include "permutation.h"

#include <bit>
#include <numeric>
#include <utility>

#include "../checks.h"

namespace megatron_astro {

KeyedPermutation::KeyedPermutation(int64_t size, Key key) : size_(size) {
  require(size >= 0, "size is ", size, "; it cannot be negative");
  SplitMix64 random(key);
  if (size < kSmallestNetwork) {
    table_.resize(as_size(size));
    std::iota(table_.begin(), table_.end(), uint16_t{0});
    for (std::size_t last = table_.size(); last-- > 1;) std::swap(table_[last], table_[random.below(last + 1)]);
    return;
  }
  const int bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1)));
  low_bits_ = bits / 2;
  low_mask_ = (uint64_t{1} << low_bits_) - 1;
  high_mask_ = (uint64_t{1} << (bits - low_bits_)) - 1;
  for (uint64_t& round_key : round_keys_) round_key = random.next();
}

}  // namespace megatron_astro
