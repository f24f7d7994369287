// Words and their ids, up to a fixed number; then the cache starts afresh.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "merges.h"

namespace megatron_astro {

// What a word is found by. One of up to 15 bytes is its key, padded with zeros, its length in the last byte; a longer one is known by
// its length and a hash, and its text is compared.
struct WordKey {
  uint64_t low;
  uint64_t high;
  std::size_t slot;  // where the search begins
};

class WordCache {
 public:
  static constexpr std::size_t kLongestWord = 64;  // bytes: longer ones seldom come again, and have no key

  WordCache();
  // `end` is the end of the memory that `word` lies in.
  static WordKey key_of(std::string_view word, const char* end);
  // Have a word's slot on its way: looking it up at once would wait for memory, longer than all else takes.
  void prefetch(const WordKey& key) const { __builtin_prefetch(&slots_[key.slot]); }
  // Append a word's ids, or return false.
  bool append(std::string_view word, const WordKey& key, Symbols& ids) const;
  void insert(std::string_view word, const WordKey& key, const Symbols& ids);

 private:
  static constexpr std::size_t kInSlot = 3;

  // Two to a cache line. Ids that fit are in `data`; else it says where they and the text of a long word are.
  struct alignas(32) Slot {
    uint64_t low;
    uint64_t high;
    uint32_t num_ids;  // 0: the slot is free
    std::array<int32_t, kInSlot> data;
  };
  static_assert(sizeof(Slot) == 32);

  void clear();
  bool holds(const Slot& slot, std::string_view word, const WordKey& key) const;

  std::vector<Slot> slots_;
  std::string text_;
  Symbols ids_;
  std::size_t num_words_ = 0;
};

}  // namespace megatron_astro
