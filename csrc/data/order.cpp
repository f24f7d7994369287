#include "order.h"

#include <algorithm>
#include <limits>

#include "../checks.h"

namespace megatron_astro {

Documents::Documents(std::span<const int64_t> bounds) : bounds_(bounds) {
  require(bounds.size() >= 2, "bounds has ", bounds.size(), " entries; one document takes two");
  require(bounds.front() == 0, "bounds[0] is ", bounds.front(), "; the first document starts at 0");
  require(bounds.back() > 0, "the documents end at token ", bounds.back(), ": they hold no tokens");
}

void Documents::refuse(int64_t first, int64_t last) const {
  require(false, "bounds[", first, "] is ", bounds_[as_size(first)], " and bounds[", last, "] is ", bounds_[as_size(last)],
          "; bounds rise from 0 to ", num_tokens());
  __builtin_unreachable();
}

int64_t Documents::append(Pieces& pieces, int64_t document, int64_t offset, int64_t count) const {
  require(0 <= document && document < size(), "document ", document, " was asked for, but there are ", size());
  const int64_t length = tokens_between(document, document + 1);
  require(0 <= offset && offset <= length, "offset ", offset, " leaves document ", document, " of ", length, " tokens");
  const int64_t taken = std::min(count, length - offset);
  if (taken > 0) pieces.push_back({document, bounds_[as_size(document)] + offset, taken});
  return taken;
}

int64_t Documents::holding(int64_t token) const {
  const auto after = std::upper_bound(bounds_.begin(), bounds_.end() - 1, token);
  return std::max<int64_t>(after - bounds_.begin() - 1, 0);
}

int64_t Order::num_samples() const { return std::numeric_limits<int64_t>::max(); }

FlatOrder::FlatOrder(Documents documents, int64_t seq_length) : documents_(documents), seq_length_(seq_length) {
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
}

void FlatOrder::locate(int64_t sample, Pieces& pieces) const {
  int64_t token = checked_product(sample, seq_length_) % documents_.num_tokens();
  int64_t left = checked_add(seq_length_, 1);
  int64_t document = documents_.holding(token);
  int64_t offset = token - documents_.tokens_between(0, document);
  while (left > 0) {
    left -= documents_.append(pieces, document, offset, left);
    offset = 0;
    document = document + 1 == documents_.size() ? 0 : document + 1;
  }
}

template <typename Row, typename Number>
ExactOrder<Row, Number>::ExactOrder(Documents documents, int64_t seq_length, std::span<const int32_t> order,
                                    std::span<const Row> rows, std::span<const Number> shuffle)
    : documents_(documents), seq_length_(seq_length), order_(order), rows_(rows), shuffle_(shuffle) {
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
  require(rows.size() == 2 * (shuffle.size() + 1), "rows has ", rows.size() / 2, " entries for ", shuffle.size(),
          " samples; there is one more than samples");
}

template <typename Row, typename Number>
void ExactOrder<Row, Number>::locate(int64_t sample, Pieces& pieces) const {
  require(sample < num_samples(), "sample ", sample, " was asked for, but there are ", num_samples());
  const auto row = static_cast<int64_t>(shuffle_[as_size(sample)]);
  require(0 <= row && row < num_samples(), "shuffle[", sample, "] is ", row, ", but there are ", num_samples(), " samples");
  int64_t position = rows_[as_size(2 * row)], offset = rows_[as_size(2 * row + 1)];
  int64_t left = checked_add(seq_length_, 1);
  for (; left > 0; ++position, offset = 0) {
    require(0 <= position && position < length_of(order_), "sample ", sample, " leaves the order of documents at ", position);
    left -= documents_.append(pieces, order_[as_size(position)], offset, left);
  }
}

template class ExactOrder<int32_t, uint32_t>;
template class ExactOrder<int32_t, int64_t>;
template class ExactOrder<int64_t, uint32_t>;
template class ExactOrder<int64_t, int64_t>;

}  // namespace megatron_astro
