#include "../checks.h"
#include "indices.h"

namespace megatron_astro {

// Tokens in the documents, in all; throws unless every document exists, no length is negative and the sum fits 64 bits.
template <typename Length>
int64_t count_tokens(std::span<const Length> lengths, std::span<const int64_t> documents) {
  int64_t total = 0;
  for (std::size_t position = 0; position < documents.size(); ++position) {
    const int64_t document = documents[position];
    require(0 <= document && document < length_of(lengths), "documents[", position, "] is ", document, ", but there are ",
            lengths.size(), " lengths");
    const int64_t length = lengths[as_size(document)];
    require(length >= 0, "lengths[", document, "] is ", length, "; a length cannot be negative");
    total = checked_add(total, length);
  }
  return total;
}

// Row i of [num_samples + 1, 2] is the (position in documents, offset) of token i * seq_length, as in Megatron: sample i holds the
// seq_length + 1 tokens from row i to row i + 1 inclusive. Row 0 is (0, 0) even where the first document is empty.
template <typename Length>
Index build_sample_index(std::span<const Length> lengths, std::span<const int64_t> documents, int64_t seq_length) {
  const int64_t total = count_tokens(lengths, documents);
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
  require(seq_length < total, "seq_length is ", seq_length, ", but the documents hold only ", total,
          " tokens; one sample takes seq_length + 1");
  const int64_t num_samples = (total - 1) / seq_length;  // integer maths: a float would round
  Index rows(allocation(checked_product(checked_add(num_samples, 1), 2)));
  const auto length = [&](std::size_t position) { return static_cast<int64_t>(lengths[as_size(documents[position])]); };
  std::size_t position = 0;
  int64_t offset = 0;
  for (std::size_t row = 2; row < rows.size(); row += 2) {
    offset += seq_length;  // cannot overflow: offset <= (row / 2) * seq_length < total
    while (offset >= length(position)) offset -= length(position++);
    rows[row] = static_cast<int64_t>(position);
    rows[row + 1] = offset;
  }
  return rows;
}

template int64_t count_tokens(std::span<const int32_t>, std::span<const int64_t>);
template int64_t count_tokens(std::span<const int64_t>, std::span<const int64_t>);
template Index build_sample_index(std::span<const int32_t>, std::span<const int64_t>, int64_t);
template Index build_sample_index(std::span<const int64_t>, std::span<const int64_t>, int64_t);

}  // namespace megatron_astro
