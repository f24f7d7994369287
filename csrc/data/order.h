// The orders a dataset's samples can come in. Each is an endless stream of the dataset's documents, epoch after epoch, cut every
// seq_length tokens; an order says which pieces of which documents a sample is, and knows nothing of the tokens themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "permutation.h"

namespace megatron_astro {

// Tokens first .. first + count - 1 of the dataset, all of one document.
struct Piece {
  int64_t document;
  int64_t first;
  int64_t count;
};
using Pieces = std::vector<Piece>;

// Document d is tokens bounds[d] .. bounds[d + 1] - 1. Entries are checked where they are read: checking all of them first would read
// gigabytes before the first sample.
class Documents {
 public:
  explicit Documents(std::span<const int64_t> bounds);
  int64_t size() const { return static_cast<int64_t>(bounds_.size()) - 1; }
  int64_t num_tokens() const { return bounds_.back(); }
  // Tokens of documents first .. last - 1; inline, for every sample asks this of a hundred documents.
  int64_t tokens_between(int64_t first, int64_t last) const {
    const int64_t start = bounds_[static_cast<std::size_t>(first)], end = bounds_[static_cast<std::size_t>(last)];
    if (start < 0 || start > end || end > num_tokens()) refuse(first, last);
    return end - start;
  }
  // `count` tokens of a document, or all from `offset` on where there are fewer; appended to pieces. Returns how many.
  int64_t append(Pieces& pieces, int64_t document, int64_t offset, int64_t count) const;
  // Have the bounds of documents first .. last - 1 on their way.
  void prefetch(int64_t first, int64_t last) const {
    constexpr int64_t kLine = 64 / sizeof(int64_t);
    for (int64_t document = first; document < last; document += kLine) __builtin_prefetch(bounds_.data() + document);
  }
  // The document that holds a token.
  int64_t holding(int64_t token) const;

 private:
  [[noreturn]] void refuse(int64_t first, int64_t last) const;

  std::span<const int64_t> bounds_;
};

class Order {
 public:
  virtual ~Order() = default;
  // Append the pieces of one sample, seq_length + 1 tokens in all; sample >= 0.
  virtual void locate(int64_t sample, Pieces& pieces) const = 0;
  // How many samples there are; the largest int64 where they never end.
  virtual int64_t num_samples() const;
};

// File order: every sample is one contiguous read, two where the file begins again.
class FlatOrder : public Order {
 public:
  FlatOrder(Documents documents, int64_t seq_length);
  void locate(int64_t sample, Pieces& pieces) const override;

 private:
  Documents documents_;
  int64_t seq_length_;
};

// Each epoch permutes chunks of contiguous documents, the documents inside a chunk, and the samples that lie inside the epoch. The
// sample that reaches into the next epoch stays last, so that no document comes again before every other has come.
class ChunkedOrder : public Order {
 public:
  ChunkedOrder(Documents documents, int64_t seq_length, int64_t chunk_documents, uint64_t seed, uint64_t stream);
  void locate(int64_t sample, Pieces& pieces) const override;

 private:
  struct Epoch {
    int64_t number;
    Key key;
    KeyedPermutation chunks;
    KeyedPermutation samples;
    std::vector<int64_t> starts;  // the epoch's token at which the chunk in each place starts, and the end
  };
  using SharedEpoch = std::shared_ptr<const Epoch>;

  SharedEpoch epoch(int64_t number) const;
  SharedEpoch build_epoch(int64_t number) const;
  int64_t first_sample(int64_t epoch) const;
  int64_t append_from(const Epoch& epoch, int64_t token, int64_t count, Pieces& pieces) const;
  int64_t append_chunk(const Epoch& epoch, int64_t chunk, int64_t skip, int64_t count, Pieces& pieces) const;

  static constexpr std::size_t kKeptEpochs = 3;
  Documents documents_;
  int64_t seq_length_;
  int64_t chunk_documents_;
  int64_t num_chunks_;
  Key key_;
  mutable std::mutex mutex_;
  mutable std::vector<SharedEpoch> epochs_;  // the last ones asked for
};

// Megatron's own indices (exact.h), as they are.
template <typename Row, typename Number>
class ExactOrder : public Order {
 public:
  ExactOrder(Documents documents, int64_t seq_length, std::span<const int32_t> order, std::span<const Row> rows,
             std::span<const Number> shuffle);
  void locate(int64_t sample, Pieces& pieces) const override;
  int64_t num_samples() const override { return static_cast<int64_t>(shuffle_.size()); }

 private:
  Documents documents_;
  int64_t seq_length_;
  std::span<const int32_t> order_;
  std::span<const Row> rows_;
  std::span<const Number> shuffle_;
};

}  // namespace megatron_astro
