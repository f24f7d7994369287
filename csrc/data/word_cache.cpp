#include "word_cache.h"

#include <cstring>

namespace megatron_astro {

namespace {

constexpr std::size_t kSlots = std::size_t{1} << 19;  // half of them are used
constexpr std::size_t kLongestInKey = 15;             // bytes
constexpr uint64_t kLong = uint64_t{1} << 63;

struct Mask {
  uint64_t low;
  uint64_t high;
};

// The first `size` of 16 bytes, little-endian.
constexpr std::array<Mask, kLongestInKey + 1> masks() {
  std::array<Mask, kLongestInKey + 1> all{};
  for (std::size_t size = 0; size <= kLongestInKey; ++size) {
    all[size].low = size < 8 ? (uint64_t{1} << 8 * size) - 1 : ~uint64_t{0};
    all[size].high = size < 8 ? 0 : (uint64_t{1} << 8 * (size - 8)) - 1;
  }
  return all;
}

constexpr auto kMasks = masks();

uint64_t mix(uint64_t hash, uint64_t bits) {
  hash = (hash ^ bits) * 0xBF58476D1CE4E5B9;
  return hash ^ hash >> 32;
}

uint64_t hash_of(std::string_view word) {
  uint64_t hash = word.size() * 0x9E3779B97F4A7C15;
  std::size_t at = 0;
  for (; at + 8 <= word.size(); at += 8) {
    uint64_t bits = 0;
    std::memcpy(&bits, word.data() + at, 8);
    hash = mix(hash, bits);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, word.data() + at, word.size() - at);
  return mix(hash, rest);
}

}  // namespace

WordCache::WordCache() { clear(); }

void WordCache::clear() {
  slots_.assign(kSlots, Slot{});
  text_.clear();
  ids_.clear();
  num_words_ = 0;
}

WordKey WordCache::key_of(std::string_view word, const char* end) {
  std::array<uint64_t, 2> bytes{};
  if (word.size() > kLongestInKey) {
    bytes = {hash_of(word), kLong | word.size()};
  } else if (end - word.data() >= 16) {  // two loads, where a copy of a few bytes is a call
    std::memcpy(bytes.data(), word.data(), 16);
    const Mask& mask = kMasks[word.size()];
    bytes = {bytes[0] & mask.low, (bytes[1] & mask.high) | word.size() << 56};
  } else {
    std::memcpy(bytes.data(), word.data(), word.size());
    bytes[1] |= word.size() << 56;
  }
  return {bytes[0], bytes[1], mix(mix(0x9E3779B97F4A7C15, bytes[0]), bytes[1]) & (kSlots - 1)};
}

bool WordCache::holds(const Slot& slot, std::string_view word, const WordKey& key) const {
  if (slot.low != key.low || slot.high != key.high) return false;
  return (key.high & kLong) == 0 || std::string_view(text_).substr(static_cast<std::size_t>(slot.data[1]), word.size()) == word;
}

bool WordCache::append(std::string_view word, const WordKey& key, Symbols& ids) const {
  for (std::size_t at = key.slot;; at = (at + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[at];
    if (slot.num_ids == 0) return false;
    if (!holds(slot, word, key)) continue;
    if (slot.num_ids <= kInSlot && (key.high & kLong) == 0) {
      for (std::size_t number = 0; number < slot.num_ids; ++number) ids.push_back(slot.data[number]);
    } else {
      const auto first = ids_.begin() + slot.data[0];
      ids.insert(ids.end(), first, first + slot.num_ids);
    }
    return true;
  }
}

void WordCache::insert(std::string_view word, const WordKey& key, const Symbols& ids) {
  if (ids.empty()) return;
  if (num_words_ == kSlots / 2) clear();
  std::size_t at = key.slot;
  while (slots_[at].num_ids != 0) at = (at + 1) & (kSlots - 1);
  // 2^18 words of at most 64 bytes and 64 ids: all of it fits the types.
  Slot slot{key.low, key.high, static_cast<uint32_t>(ids.size()), {}};
  const bool is_long = (key.high & kLong) != 0;
  if (ids.size() <= kInSlot && !is_long) {
    std::copy(ids.begin(), ids.end(), slot.data.begin());
  } else {
    slot.data = {static_cast<int32_t>(ids_.size()), static_cast<int32_t>(text_.size()), 0};
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    if (is_long) text_.append(word);
  }
  slots_[at] = slot;
  ++num_words_;
}

}  // namespace megatron_astro
