#include <cstring>

#include "encoder.h"

namespace megatron_astro {

namespace {

constexpr std::size_t kSlots = std::size_t{1} << 19;  // of 24 bytes; half of them are used
constexpr std::size_t kLongestWord = 64;              // bytes: longer ones seldom come again

}  // namespace

WordCache::WordCache() { clear(); }

void WordCache::clear() {
  slots_.assign(kSlots, Slot{});
  text_.clear();
  ids_.clear();
  num_words_ = 0;
}

uint64_t WordCache::hash_of(std::string_view word) {
  uint64_t hash = word.size() * 0x9E3779B97F4A7C15;
  const auto mix = [&](uint64_t bits) {
    hash = (hash ^ bits) * 0xBF58476D1CE4E5B9;
    hash ^= hash >> 32;
  };
  std::size_t at = 0;
  for (; at + 8 <= word.size(); at += 8) {
    uint64_t bits = 0;
    std::memcpy(&bits, word.data() + at, 8);
    mix(bits);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, word.data() + at, word.size() - at);
  mix(rest);
  return hash;
}

std::optional<std::span<const int32_t>> WordCache::find(std::string_view word, uint64_t hash) const {
  for (std::size_t at = hash & (kSlots - 1);; at = (at + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[at];
    if (slot.num_ids == 0) return std::nullopt;
    if (slot.hash == hash && std::string_view(text_).substr(slot.text_at, slot.text_size) == word)
      return std::span<const int32_t>(ids_).subspan(slot.ids_at, slot.num_ids);
  }
}

void WordCache::insert(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
  if (word.size() > kLongestWord || ids.empty()) return;
  if (num_words_ == kSlots / 2) clear();
  std::size_t at = hash & (kSlots - 1);
  while (slots_[at].num_ids != 0) at = (at + 1) & (kSlots - 1);
  // 2^18 words of at most 64 bytes and 64 ids: all of it fits the types.
  slots_[at] = {hash, static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()), static_cast<uint16_t>(word.size()),
                static_cast<uint16_t>(ids.size())};
  text_.append(word);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++num_words_;
}

}  // namespace megatron_astro
