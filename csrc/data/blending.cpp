#include <algorithm>
#include <cmath>

#include "../checks.h"
#include "indices.h"

namespace megatron_astro {

namespace {

// Which dataset is furthest behind its share after n samples: the first with the largest weight * max(n, 1) - count.
std::size_t furthest_behind(std::span<const double> weights, const Index& counts, std::span<const std::size_t> candidates, int64_t n) {
  const double drawn = std::max(static_cast<double>(n), 1.0);
  std::size_t chosen = candidates.front();
  double largest = -std::numeric_limits<double>::infinity();
  for (const std::size_t dataset : candidates) {
    const double deficit = weights[dataset] * drawn - static_cast<double>(counts[dataset]);
    if (deficit > largest) {
      largest = deficit;
      chosen = dataset;
    }
  }
  return chosen;
}

std::vector<std::size_t> all_of(std::size_t size) {
  std::vector<std::size_t> all(size);
  for (std::size_t item = 0; item < size; ++item) all[item] = item;
  return all;
}

void append(Blend& blend, Index& counts, std::size_t dataset) {
  blend.datasets.push_back(static_cast<int64_t>(dataset));
  blend.samples.push_back(counts[dataset]++);
}

Blend reserved_blend(int64_t size) {
  Blend blend;
  blend.datasets.reserve(allocation(size));
  blend.samples.reserve(allocation(size));
  return blend;
}

// Sums of weights that the caller divided by their own sum differ from 1 by rounding only.
constexpr double kLargestSumError = 1e-9;

void require_weights(std::span<const double> weights) {
  require(!weights.empty(), "weights is empty; give one weight per dataset");
  double sum = 0;
  for (std::size_t dataset = 0; dataset < weights.size(); ++dataset) {
    const double weight = weights[dataset];
    require(std::isfinite(weight) && weight > 0, "weights[", dataset, "] is ", weight, "; it must be a finite number above zero");
    sum += weight;
  }
  require(std::abs(sum - 1) <= kLargestSumError, "the weights sum to ", sum, "; divide them by their sum");
}

}  // namespace

Blend build_blending_index(std::span<const double> weights, int64_t num_samples) {
  require_weights(weights);
  require(num_samples >= 0, "num_samples is ", num_samples, "; it cannot be negative");
  Blend blend = reserved_blend(num_samples);
  Index counts(weights.size());
  const std::vector<std::size_t> candidates = all_of(weights.size());
  for (int64_t n = 0; n < num_samples; ++n) append(blend, counts, furthest_behind(weights, counts, candidates, n));
  return blend;
}

Blend build_exhaustive_blending_index(std::span<const int64_t> sizes) {
  require(!sizes.empty(), "sizes is empty; give one size per dataset");
  int64_t total = 0;
  for (std::size_t dataset = 0; dataset < sizes.size(); ++dataset) {
    require(sizes[dataset] > 0, "sizes[", dataset, "] is ", sizes[dataset], "; it must be positive");
    total = checked_add(total, sizes[dataset]);
  }
  std::vector<double> weights;
  for (const int64_t size : sizes) weights.push_back(static_cast<double>(size) / static_cast<double>(total));
  Blend blend = reserved_blend(total);
  Index counts(sizes.size());
  std::vector<std::size_t> candidates = all_of(sizes.size());
  for (int64_t n = 0; n < total; ++n) {
    const std::size_t dataset = furthest_behind(weights, counts, candidates, n);
    append(blend, counts, dataset);
    if (counts[dataset] == sizes[dataset]) std::erase(candidates, dataset);
  }
  return blend;
}

}  // namespace megatron_astro
