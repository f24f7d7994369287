#include "exact.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

#include "../checks.h"
#include "random.h"

namespace megatron_astro {

namespace {

constexpr std::size_t kAhead = 64;  // how many random reads are under way at once

// numpy's shuffle of values[0..last], from the end. Draws do not depend on the values, so they are made first, a block at a time, and
// the places they name are on their way into the cache when the swaps come.
template <typename Value>
void shuffle(std::span<Value> values, NumpyLegacyRandom& random) {
  std::array<uint64_t, kAhead + 1> targets{};  // a refused draw is written one place further than is kept
  std::size_t last = values.empty() ? 0 : values.size() - 1;
  while (last > 0) {
    const uint64_t mask = NumpyLegacyRandom::mask(last);
    const std::size_t wanted = std::min<std::size_t>(kAhead, last - (mask >> 1));  // draws that share this mask
    for (std::size_t kept = 0; kept < wanted;) {
      const uint64_t target = random.next(last) & mask;
      targets[kept] = target;
      kept += target <= last - kept;  // no branch: a quarter of all draws is refused, at random
    }
    for (std::size_t i = 0; i < wanted; ++i) __builtin_prefetch(&values[targets[i]], 1);
    for (std::size_t i = 0; i < wanted; ++i) std::swap(values[last - i], values[targets[i]]);
    last -= wanted;
  }
}

// How GPTDataset lays epochs: as few as give num_samples; the last is shuffled apart when less than 80 % of it is wanted.
struct EpochPlan {
  int64_t num_epochs;
  int64_t samples_before_final_epoch;
  bool separate_final_epoch;
};

EpochPlan plan_epochs(int64_t tokens_per_epoch, int64_t num_samples, int64_t seq_length) {
  require(tokens_per_epoch > 0, "the documents hold no tokens");
  require(num_samples > 0, "num_samples is ", num_samples, "; it must be positive");
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
  const int64_t tokens_wanted = checked_add(checked_product(num_samples, seq_length), 1);
  const int64_t num_epochs = (tokens_wanted - 1) / tokens_per_epoch + 1;
  if (num_epochs == 1) return {1, 0, false};
  const int64_t before_final = (checked_product(num_epochs - 1, tokens_per_epoch) - 1) / seq_length;
  const int64_t per_epoch = (tokens_per_epoch - 1) / seq_length;
  const auto threshold = static_cast<int64_t>(0.80 * static_cast<double>(per_epoch));  // Megatron's own arithmetic
  return {num_epochs, before_final, num_samples - before_final < threshold};
}

std::vector<int32_t> shuffled_documents(int64_t num_documents, const EpochPlan& plan, NumpyLegacyRandom& random) {
  std::vector<int32_t> order(allocation(checked_product(plan.num_epochs, num_documents)));
  const std::size_t epoch = as_size(num_documents);
  for (std::size_t start = 0; start < order.size(); start += epoch) {
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(start);
    std::iota(first, first + static_cast<std::ptrdiff_t>(epoch), int32_t{0});
  }
  const std::size_t together = plan.separate_final_epoch ? order.size() - epoch : order.size();
  const std::span<int32_t> all(order);
  shuffle(all.first(together), random);
  shuffle(all.subspan(together), random);
  return order;
}

// Row i is the (position, offset) of token i * seq_length; row 0 is (0, 0) even where the first document is empty. The documents of the
// order exist and hold total_tokens, so that the walk ends inside them.
template <typename Number>
std::vector<Number> lay_samples(std::span<const int32_t> lengths, std::span<const int32_t> order, int64_t total_tokens,
                                int64_t seq_length) {
  const int64_t num_samples = (total_tokens - 1) / seq_length;  // integer maths: a float would round
  std::vector<Number> rows(allocation(checked_product(checked_add(num_samples, 1), 2)));
  std::size_t position = 0, row = 2;
  int64_t start = 0, wanted = seq_length;  // the token at which `position` starts, and the one that row / 2 is about
  while (row < rows.size()) {
    if (position + kAhead < order.size()) __builtin_prefetch(&lengths[static_cast<std::size_t>(order[position + kAhead])]);
    const int64_t end = start + lengths[static_cast<std::size_t>(order[position])];
    for (; wanted < end && row < rows.size(); row += 2, wanted += seq_length) {
      rows[row] = static_cast<Number>(position);
      rows[row + 1] = static_cast<Number>(wanted - start);
    }
    start = end;
    ++position;
  }
  return rows;
}

template <typename Number>
std::vector<Number> shuffled_samples(int64_t first, int64_t total, NumpyLegacyRandom& random) {
  std::vector<Number> order(allocation(total));
  std::iota(order.begin(), order.end(), Number{0});
  const std::span<Number> all(order);
  shuffle(all.first(as_size(first)), random);
  shuffle(all.subspan(as_size(first)), random);
  return order;
}

Shuffle shuffled_samples_of(int64_t first, int64_t total, NumpyLegacyRandom& random) {
  if (total >= int64_t{std::numeric_limits<uint32_t>::max()} - 1) return shuffled_samples<int64_t>(first, total, random);
  return shuffled_samples<uint32_t>(first, total, random);
}

// Tokens in all documents; throws where a length is negative or the sum does not fit.
int64_t count_tokens(std::span<const int32_t> lengths) {
  int64_t total = 0;  // fewer than 2^31 lengths below 2^31: no overflow
  int32_t shortest = 0;
  for (const int32_t length : lengths) {
    total += length;
    shortest = std::min(shortest, length);
  }
  if (shortest < 0) {
    const auto negative = std::find_if(lengths.begin(), lengths.end(), [](int32_t length) { return length < 0; });
    require(false, "lengths[", negative - lengths.begin(), "] is ", *negative, "; a length cannot be negative");
  }
  return total;
}

}  // namespace

ExactIndices build_exact_indices(std::span<const int32_t> lengths, int64_t num_samples, int64_t seq_length, uint32_t seed) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  require(length_of(lengths) <= kMost, "there are ", lengths.size(), " documents, and Megatron numbers them with 32 bits");
  const int64_t per_epoch = count_tokens(lengths);
  const EpochPlan plan = plan_epochs(per_epoch, num_samples, seq_length);
  const int64_t total_tokens = checked_product(plan.num_epochs, per_epoch);
  NumpyLegacyRandom random(seed);  // one stream of draws: first the documents, then the samples
  ExactIndices built{shuffled_documents(length_of(lengths), plan, random), {}, {}};
  if (length_of(built.documents) <= kMost)  // no length is above it
    built.rows = lay_samples<int32_t>(lengths, built.documents, total_tokens, seq_length);
  else
    built.rows = lay_samples<int64_t>(lengths, built.documents, total_tokens, seq_length);
  const int64_t total = (total_tokens - 1) / seq_length;
  built.shuffle = shuffled_samples_of(plan.separate_final_epoch ? plan.samples_before_final_epoch : total, total, random);
  return built;
}

}  // namespace megatron_astro
