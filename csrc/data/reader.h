// Samples of a blend of datasets, widened to 64 bits: one call a micro-batch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "blending.h"
#include "order.h"

namespace megatron_astro {

// All token ids of a dataset, in whichever number format its file has.
using Ids = std::variant<std::span<const uint8_t>, std::span<const int8_t>, std::span<const uint16_t>, std::span<const int16_t>,
                         std::span<const int32_t>, std::span<const int64_t>>;

struct Dataset {
  std::string name;
  Ids ids;
  const Order* order;
};

// Which tokens of which document a part of a sample is.
struct Origin {
  int64_t row;  // of the batch
  int64_t dataset;
  int64_t document;
  int64_t count;
};

class SampleReader {
 public:
  SampleReader(std::vector<Dataset> datasets, const Blend* blend, int64_t seq_length, int64_t vocabulary_size);
  // Write samples first .. first + rows - 1 to ids [rows, seq_length + 1]; throws std::out_of_range where an id is no word of the
  // vocabulary, which names dataset, document and place.
  std::vector<Origin> read(int64_t first, std::span<int64_t> ids) const;
  int64_t sample_tokens() const { return seq_length_ + 1; }

 private:
  void locate(const Draw& draw, Pieces& pieces) const;

  std::vector<Dataset> datasets_;
  const Blend* blend_;
  int64_t seq_length_;
  int64_t vocabulary_size_;
};

}  // namespace megatron_astro
