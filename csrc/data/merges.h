// Byte-pair merging: which two neighbouring symbols become one, and in which order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace megatron_astro {

using Symbols = std::vector<int32_t>;

class Merges {
 public:
  // Pair i, (lefts[i], rights[i]), becomes results[i]; lower ranks go first, of equal ranks the leftmost.
  Merges(std::span<const int32_t> lefts, std::span<const int32_t> rights, std::span<const int32_t> ranks,
         std::span<const int32_t> results);

  // Merge in place until no pair is left: quadratic for short words, which are almost all, n log n for long ones.
  void apply(Symbols& symbols) const;

 private:
  struct Slot {
    uint64_t key;
    int32_t rank;
    int32_t result;
  };

  const Slot& find(int32_t left, int32_t right) const;
  void apply_short(Symbols& symbols) const;
  void apply_long(Symbols& symbols) const;

  std::vector<Slot> slots_;
};

}  // namespace megatron_astro
