#include <algorithm>
#include <numeric>

#include "../checks.h"
#include "indices.h"
#include "random.h"

namespace megatron_astro {

namespace {

void require_epochs(std::span<const int64_t> documents, int64_t num_epochs) {
  require(!documents.empty(), "documents is empty; an order needs at least one document");
  require(num_epochs > 0, "num_epochs is ", num_epochs, "; it must be positive");
}

// Megatron shuffles all epochs together, or the last one apart from the others.
Index shuffled_documents(std::span<const int64_t> documents, int64_t num_epochs, bool separate_final_epoch,
                         NumpyLegacyRandom& random) {
  Index order(allocation(checked_product(num_epochs, length_of(documents))));
  for (std::size_t start = 0; start < order.size(); start += documents.size())
    std::copy(documents.begin(), documents.end(), order.begin() + static_cast<std::ptrdiff_t>(start));
  const std::size_t first = separate_final_epoch && num_epochs > 1 ? order.size() - documents.size() : order.size();
  const std::span<int64_t> all(order);
  shuffle(all.first(first), random);
  shuffle(all.subspan(first), random);
  return order;
}

Index shuffled_samples(int64_t num_samples, int64_t total_size, NumpyLegacyRandom& random) {
  Index order(allocation(total_size));
  std::iota(order.begin(), order.end(), int64_t{0});
  const std::span<int64_t> all(order);
  shuffle(all.first(as_size(num_samples)), random);
  shuffle(all.subspan(as_size(num_samples)), random);
  return order;
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

}  // namespace

Index build_permutation(int64_t size, uint64_t seed, uint64_t stream) {
  require(size >= 0, "size is ", size, "; it cannot be negative");
  Index order(allocation(size));
  std::iota(order.begin(), order.end(), int64_t{0});
  SplitMix64 random(seed, stream);
  shuffle(std::span<int64_t>(order), random);
  return order;
}

Index build_document_index(std::span<const int64_t> documents, int64_t num_epochs, bool separate_final_epoch, uint32_t seed) {
  require_epochs(documents, num_epochs);
  NumpyLegacyRandom random(seed);
  return shuffled_documents(documents, num_epochs, separate_final_epoch, random);
}

Index build_shuffle_index(int64_t num_samples, int64_t total_size, uint32_t seed) {
  require(num_samples >= 0 && num_samples <= total_size, "num_samples is ", num_samples, "; it must lie between 0 and total_size, ",
          total_size);
  NumpyLegacyRandom random(seed);
  return shuffled_samples(num_samples, total_size, random);
}

ExactIndices build_exact_indices(std::span<const int32_t> lengths, std::span<const int64_t> documents, int64_t num_samples,
                                 int64_t seq_length, uint32_t seed) {
  const EpochPlan plan = plan_epochs(count_tokens(lengths, documents), num_samples, seq_length);
  require_epochs(documents, plan.num_epochs);
  NumpyLegacyRandom random(seed);  // one stream of draws: first the documents, then the samples
  Index order = shuffled_documents(documents, plan.num_epochs, plan.separate_final_epoch, random);
  Index rows = build_sample_index<int32_t>(lengths, order, seq_length);
  const int64_t total_size = length_of(rows) / 2 - 1;
  const int64_t first = plan.separate_final_epoch ? plan.samples_before_final_epoch : total_size;
  Index shuffle = shuffled_samples(first, total_size, random);
  return {std::move(order), std::move(rows), std::move(shuffle)};
}

}  // namespace megatron_astro
