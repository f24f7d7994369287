// Which dataset gives each sample of a blend, and which of that dataset's samples it is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace megatron_astro {

struct Draw {
  int64_t dataset;
  int64_t sample;
};

class Blend {
 public:
  virtual ~Blend() = default;
  virtual int64_t num_datasets() const = 0;
  // Append the draws of samples first .. first + count - 1 of the blend.
  virtual void locate(int64_t first, int64_t count, std::vector<Draw>& draws) const = 0;
};

// In closed form: the k-th sample (from 0) of dataset d is due at time (2 k + 1) / (2 weight d), and the blend takes samples as they fall
// due, of equals the first dataset's first (Webster 1832, Sainte-Lague 1910). Nothing is kept and nothing is rounded.
class ProportionalBlend : public Blend {
 public:
  explicit ProportionalBlend(std::vector<int64_t> weights);
  int64_t num_datasets() const override { return static_cast<int64_t>(weights_.size()); }
  void locate(int64_t first, int64_t count, std::vector<Draw>& draws) const override;
  static constexpr int64_t kLargestSum = int64_t{1} << 62;

 private:
  std::vector<int64_t> counts_before(int64_t first, std::vector<std::size_t>& by_due) const;
  bool due_before(std::size_t left, int64_t left_count, std::size_t right, int64_t right_count) const;

  std::vector<int64_t> weights_;
  int64_t sum_ = 0;
};

// Megatron's: the dataset furthest behind its weight gives the next sample. Equal to megatron-core's build_blending_indices.
struct GreedyIndices {
  std::vector<int16_t> datasets;
  std::vector<int64_t> samples;
};
GreedyIndices build_greedy_blend(std::span<const double> weights, int64_t num_samples);

// A blend read from arrays such as these.
class GreedyBlend : public Blend {
 public:
  GreedyBlend(std::span<const int16_t> datasets, std::span<const int64_t> samples, int64_t num_datasets);
  int64_t num_datasets() const override { return num_datasets_; }
  void locate(int64_t first, int64_t count, std::vector<Draw>& draws) const override;

 private:
  std::span<const int16_t> datasets_;
  std::span<const int64_t> samples_;
  int64_t num_datasets_;
};

}  // namespace megatron_astro
