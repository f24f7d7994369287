// The three indices of megatron-core's GPTDataset, number for number and in its number formats.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

namespace megatron_astro {

// Rows are 32-bit unless an order or a document is too long for that, shuffles are unless there are too many samples, as in Megatron.
using Rows = std::variant<std::vector<int32_t>, std::vector<int64_t>>;
using Shuffle = std::variant<std::vector<uint32_t>, std::vector<int64_t>>;

struct ExactIndices {
  std::vector<int32_t> documents;  // document numbers, all epochs
  Rows rows;                       // [samples + 1, 2]: position in `documents`, offset in that document
  Shuffle shuffle;                 // which row starts sample n
};

ExactIndices build_exact_indices(std::span<const int32_t> lengths, int64_t num_samples, int64_t seq_length, uint32_t seed);

}  // namespace megatron_astro
