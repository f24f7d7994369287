#include "merges.h"

#include <array>
#include <bit>
#include <limits>
#include <queue>

#include "../checks.h"

namespace megatron_astro {

namespace {

constexpr uint64_t kEmpty = std::numeric_limits<uint64_t>::max();
constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
constexpr std::size_t kShort = 32;  // symbols

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::size_t spread(uint64_t key) {
  key *= 0x9E3779B97F4A7C15;
  return static_cast<std::size_t>(key ^ key >> 32);
}

}  // namespace

Merges::Merges(std::span<const int32_t> lefts, std::span<const int32_t> rights, std::span<const int32_t> ranks,
               std::span<const int32_t> results) {
  require(lefts.size() == rights.size() && lefts.size() == ranks.size() && lefts.size() == results.size(),
          "lefts, rights, ranks and results differ in length");
  slots_.assign(std::bit_ceil(2 * lefts.size() + 2), Slot{kEmpty, kNoRank, -1});
  for (std::size_t number = 0; number < lefts.size(); ++number) {
    require(lefts[number] >= 0 && rights[number] >= 0 && results[number] >= 0, "merge ", number, " has a negative id");
    const uint64_t key = pair_key(lefts[number], rights[number]);
    std::size_t at = spread(key) & (slots_.size() - 1);
    for (; slots_[at].key != kEmpty; at = (at + 1) & (slots_.size() - 1)) require(slots_[at].key != key, "merge ", number, " comes twice");
    slots_[at] = {key, ranks[number], results[number]};
  }
}

const Merges::Slot& Merges::find(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  std::size_t at = spread(key) & (slots_.size() - 1);
  while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
  return slots_[at];
}

void Merges::apply(Symbols& symbols) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    apply_short(symbols);
  } else {
    apply_long(symbols);
  }
}

void Merges::apply_short(Symbols& symbols) const {
  std::array<const Slot*, kShort> pairs{};
  std::size_t count = symbols.size();
  for (std::size_t at = 0; at + 1 < count; ++at) pairs[at] = &find(symbols[at], symbols[at + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t at = 1; at + 1 < count; ++at) {
      if (pairs[at]->rank < pairs[best]->rank) best = at;
    }
    if (pairs[best]->rank == kNoRank) break;
    symbols[best] = pairs[best]->result;
    --count;
    for (std::size_t at = best + 1; at < count; ++at) symbols[at] = symbols[at + 1];
    for (std::size_t at = best + 1; at + 1 < count; ++at) pairs[at] = pairs[at + 1];
    if (best > 0) pairs[best - 1] = &find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) pairs[best] = &find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

void Merges::apply_long(Symbols& symbols) const {
  struct Candidate {
    int32_t rank;
    int32_t result;
    std::size_t at;
    uint64_t key;
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  constexpr int32_t kGone = -1;
  const std::size_t end = symbols.size();
  std::vector<std::size_t> next(end), previous(end);
  for (std::size_t at = 0; at < end; ++at) next[at] = at + 1, previous[at] = at - 1;  // previous[0] wraps, and is not used
  std::priority_queue<Candidate> queue;
  const auto offer = [&](std::size_t at) {
    const Slot& slot = find(symbols[at], symbols[next[at]]);
    if (slot.rank != kNoRank) queue.push({slot.rank, slot.result, at, slot.key});
  };
  for (std::size_t at = 0; at + 1 < end; ++at) offer(at);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const std::size_t at = best.at, right = next[at];
    if (symbols[at] == kGone || right == end || pair_key(symbols[at], symbols[right]) != best.key) continue;
    symbols[at] = best.result;
    symbols[right] = kGone;
    next[at] = next[right];
    if (next[at] < end) previous[next[at]] = at, offer(at);
    if (at > 0) offer(previous[at]);
  }
  std::erase(symbols, kGone);
}

}  // namespace megatron_astro
