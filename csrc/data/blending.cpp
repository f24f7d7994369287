#include "blending.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../checks.h"

namespace megatron_astro {

namespace {

__extension__ using Wide = unsigned __int128;

Wide wide(int64_t value) { return static_cast<Wide>(value); }

// Sums of weights that the caller divided by their own sum differ from 1 by rounding only.
constexpr double kLargestSumError = 1e-9;

void require_shares(std::span<const double> weights) {
  require(!weights.empty(), "weights is empty; give one weight per dataset");
  require(weights.size() <= std::numeric_limits<int16_t>::max(), "there are ", weights.size(),
          " weights, and Megatron numbers datasets with 16 bits");
  double sum = 0;
  for (std::size_t dataset = 0; dataset < weights.size(); ++dataset) {
    const double weight = weights[dataset];
    require(std::isfinite(weight) && weight > 0, "weights[", dataset, "] is ", weight, "; it must be a finite number above zero");
    sum += weight;
  }
  require(std::abs(sum - 1) <= kLargestSumError, "the weights sum to ", sum, "; divide them by their sum");
}

void require_range(int64_t first, int64_t count) {
  require(first >= 0, "first is ", first, "; it cannot be negative");
  require(count >= 0, "count is ", count, "; it cannot be negative");
}

}  // namespace

ProportionalBlend::ProportionalBlend(std::vector<int64_t> weights) : weights_(std::move(weights)) {
  require(!weights_.empty(), "weights is empty; give one weight per dataset");
  for (std::size_t dataset = 0; dataset < weights_.size(); ++dataset) {
    require(weights_[dataset] > 0, "weights[", dataset, "] is ", weights_[dataset], "; it must be positive");
    sum_ = checked_add(sum_, weights_[dataset]);
  }
  require(sum_ <= kLargestSum, "the weights sum to ", sum_, "; the largest sum is ", kLargestSum);
}

// (2 left_count + 1) / left weight < (2 right_count + 1) / right weight, or equal and left is the earlier dataset.
bool ProportionalBlend::due_before(std::size_t left, int64_t left_count, std::size_t right, int64_t right_count) const {
  const Wide left_due = (2 * wide(left_count) + 1) * wide(weights_[right]);
  const Wide right_due = (2 * wide(right_count) + 1) * wide(weights_[left]);
  return left_due < right_due || (left_due == right_due && left < right);
}

// How many samples each dataset has given when the blend has given `first`. With D datasets, rounding each share to the nearest whole
// number moves the sum by at most D / 2: the shares of `first - (D + 1) / 2` samples sum to no more than `first`, and at most D + 1
// samples are missing, which are then drawn one by one. `by_due` is left as a heap of the datasets, the next due on top.
std::vector<int64_t> ProportionalBlend::counts_before(int64_t first, std::vector<std::size_t>& by_due) const {
  const int64_t early = std::max<int64_t>(first - (num_datasets() + 1) / 2, 0);
  std::vector<int64_t> counts(weights_.size());
  for (std::size_t dataset = 0; dataset < counts.size(); ++dataset)  // floor(weight * early / sum + 1/2), a half rounded down
    counts[dataset] = static_cast<int64_t>((2 * wide(weights_[dataset]) * wide(early) + wide(sum_) - 1) / (2 * wide(sum_)));
  by_due.resize(weights_.size());
  std::iota(by_due.begin(), by_due.end(), std::size_t{0});
  const auto later = [&](std::size_t left, std::size_t right) { return due_before(right, counts[right], left, counts[left]); };
  std::make_heap(by_due.begin(), by_due.end(), later);
  return counts;
}

void ProportionalBlend::locate(int64_t first, int64_t count, std::vector<Draw>& draws) const {
  require_range(first, count);
  require(checked_add(first, count) <= kLargestSum, "first is ", first, "; a blend has ", kLargestSum, " samples");
  std::vector<std::size_t> by_due;
  std::vector<int64_t> counts = counts_before(first, by_due);
  const auto later = [&](std::size_t left, std::size_t right) { return due_before(right, counts[right], left, counts[left]); };
  int64_t given = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  for (; given < first + count; ++given) {
    std::pop_heap(by_due.begin(), by_due.end(), later);
    const std::size_t dataset = by_due.back();
    if (given >= first) draws.push_back({static_cast<int64_t>(dataset), counts[dataset]});
    ++counts[dataset];
    std::push_heap(by_due.begin(), by_due.end(), later);
  }
}

GreedyIndices build_greedy_blend(std::span<const double> weights, int64_t num_samples) {
  require_shares(weights);
  require(num_samples >= 0, "num_samples is ", num_samples, "; it cannot be negative");
  GreedyIndices blend;
  blend.datasets.resize(allocation(num_samples));
  blend.samples.resize(allocation(num_samples));
  std::vector<int64_t> counts(weights.size());
  for (std::size_t n = 0; n < blend.datasets.size(); ++n) {
    const double drawn = std::max(static_cast<double>(n), 1.0);
    std::size_t chosen = 0;
    double largest = weights[0] * drawn - static_cast<double>(counts[0]);
    for (std::size_t dataset = 1; dataset < weights.size(); ++dataset) {
      const double deficit = weights[dataset] * drawn - static_cast<double>(counts[dataset]);
      if (deficit > largest) {
        largest = deficit;
        chosen = dataset;
      }
    }
    blend.datasets[n] = static_cast<int16_t>(chosen);
    blend.samples[n] = counts[chosen]++;
  }
  return blend;
}

GreedyBlend::GreedyBlend(std::span<const int16_t> datasets, std::span<const int64_t> samples, int64_t num_datasets)
    : datasets_(datasets), samples_(samples), num_datasets_(num_datasets) {
  require(datasets.size() == samples.size(), "datasets has ", datasets.size(), " entries and samples ", samples.size());
}

void GreedyBlend::locate(int64_t first, int64_t count, std::vector<Draw>& draws) const {
  require_range(first, count);
  const int64_t end = checked_add(first, count);  // before the message below, whose words are worked out whether it is needed or not
  require(end <= length_of(datasets_), "samples ", first, " to ", end - 1, " leave the blend of ", datasets_.size());
  for (int64_t n = first; n < end; ++n) draws.push_back({datasets_[as_size(n)], samples_[as_size(n)]});
}

}  // namespace megatron_astro
