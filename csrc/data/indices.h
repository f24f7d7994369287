// The index builders of megatron_astro._data, free of Python: they read spans, write spans or return vectors, and throw on bad input.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace megatron_astro {

using Index = std::vector<int64_t>;

// sample_index.cpp
template <typename Length>
int64_t count_tokens(std::span<const Length> lengths, std::span<const int64_t> documents);
template <typename Length>
Index build_sample_index(std::span<const Length> lengths, std::span<const int64_t> documents, int64_t seq_length);

// order.cpp
Index build_permutation(int64_t size, uint64_t seed, uint64_t stream);
Index build_document_index(std::span<const int64_t> documents, int64_t num_epochs, bool separate_final_epoch, uint32_t seed);
Index build_shuffle_index(int64_t num_samples, int64_t total_size, uint32_t seed);

struct ExactIndices {
  Index documents;
  Index samples;
  Index shuffle;
};
ExactIndices build_exact_indices(std::span<const int32_t> lengths, std::span<const int64_t> documents, int64_t num_samples,
                                 int64_t seq_length, uint32_t seed);

// blending.cpp
struct Blend {
  Index datasets;  // which dataset gives sample n
  Index samples;   // which of that dataset's samples it is
};
Blend build_blending_index(std::span<const double> weights, int64_t num_samples);
Blend build_exhaustive_blending_index(std::span<const int64_t> sizes);

}  // namespace megatron_astro
