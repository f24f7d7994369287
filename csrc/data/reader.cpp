#include "reader.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "../checks.h"

namespace megatron_astro {

namespace {

// Widen ids block by block, each while it is in the first-level cache, and hold its extremes against the vocabulary. Returns the place
// of the first id that is no word, or the number of ids.
template <typename Id>
std::size_t widen(std::span<const Id> ids, int64_t* widened, int64_t vocabulary_size) {
  constexpr std::size_t kBlock = 1024;
  for (std::size_t start = 0; start < ids.size(); start += kBlock) {
    const std::span<const Id> block = ids.subspan(start, std::min(kBlock, ids.size() - start));
    Id least = block[0], most = block[0];
    for (const Id id : block) {
      least = std::min(least, id);
      most = std::max(most, id);
    }
    if (int64_t{least} < 0 || int64_t{most} >= vocabulary_size) {
      const auto wrong = [&](Id id) { return int64_t{id} < 0 || int64_t{id} >= vocabulary_size; };
      return static_cast<std::size_t>(std::find_if(block.begin(), block.end(), wrong) - ids.begin());
    }
    for (std::size_t i = 0; i < block.size(); ++i) widened[start + i] = block[i];
  }
  return ids.size();
}

// Have the first cache lines of a piece on their way: each piece starts somewhere else in the file. The first is loaded, not prefetched:
// a prefetch is dropped where the page's address is not known yet, and loads of several pieces wait for theirs together.
void prefetch(const Dataset& dataset, const Piece& piece) {
  std::visit(
      [&](auto all) {
        if (piece.first < 0 || piece.first >= length_of(all)) return;
        const auto* start = reinterpret_cast<const volatile char*>(all.data() + piece.first);
        static_cast<void>(*start);
        for (int line = 1; line < 8; ++line) __builtin_prefetch(const_cast<const char*>(start) + 64 * line);
      },
      dataset.ids);
}

void widen_piece(const Dataset& dataset, const Piece& piece, int64_t* widened, int64_t vocabulary_size) {
  std::visit(
      [&](auto all) {
        require(0 <= piece.first && piece.count <= length_of(all) - piece.first, dataset.name, ", document ", piece.document, ": tokens ",
                piece.first, " to ", piece.first + piece.count - 1, " leave the ", all.size(), " of the dataset");
        const auto ids = all.subspan(as_size(piece.first), as_size(piece.count));
        const std::size_t wrong = widen(ids, widened, vocabulary_size);
        if (wrong == ids.size()) return;
        std::ostringstream message;
        message << dataset.name << ", document " << piece.document << ": token " << piece.first + static_cast<int64_t>(wrong)
                << " of the dataset has id " << int64_t{ids[wrong]} << ", outside the model's vocabulary of " << vocabulary_size;
        throw std::out_of_range(message.str());
      },
      dataset.ids);
}

}  // namespace

SampleReader::SampleReader(std::vector<Dataset> datasets, const Blend* blend, int64_t seq_length, int64_t vocabulary_size)
    : datasets_(std::move(datasets)), blend_(blend), seq_length_(seq_length), vocabulary_size_(vocabulary_size) {
  require(!datasets_.empty(), "datasets is empty; give at least one");
  require(blend->num_datasets() == length_of(datasets_), "the blend is of ", blend->num_datasets(), " datasets, not ",
          datasets_.size());
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
  require(vocabulary_size > 0, "vocabulary_size is ", vocabulary_size, "; it must be positive");
  checked_add(seq_length, 1);
}

std::vector<Origin> SampleReader::read(int64_t first, std::span<int64_t> ids) const {
  const int64_t num_rows = length_of(ids) / sample_tokens();
  std::vector<Draw> draws;
  draws.reserve(as_size(num_rows));
  blend_->locate(first, num_rows, draws);
  std::vector<Origin> origins;
  Pieces pieces, next;
  if (num_rows > 0) locate(draws[0], next);
  for (int64_t row = 0; row < num_rows; ++row) {
    std::swap(pieces, next);
    if (row + 1 < num_rows) locate(draws[as_size(row + 1)], next);  // its tokens are on their way while this row's are widened
    const Draw draw = draws[as_size(row)];
    const Dataset& dataset = datasets_[as_size(draw.dataset)];
    int64_t filled = 0;
    for (const Piece& piece : pieces) {
      require(piece.count <= sample_tokens() - filled, dataset.name, ": its order gives samples of more than ", sample_tokens());
      widen_piece(dataset, piece, ids.data() + row * sample_tokens() + filled, vocabulary_size_);
      filled += piece.count;
      origins.push_back({row, draw.dataset, piece.document, piece.count});
    }
    require(filled == sample_tokens(), dataset.name, ": its order gives samples of ", filled, " tokens, not ", sample_tokens());
  }
  return origins;
}

// The pieces of a drawn sample, their tokens asked for.
void SampleReader::locate(const Draw& draw, Pieces& pieces) const {
  require(0 <= draw.dataset && draw.dataset < length_of(datasets_), "the blend draws from dataset ", draw.dataset);
  const Dataset& dataset = datasets_[as_size(draw.dataset)];
  require(0 <= draw.sample, "the blend draws sample ", draw.sample, " from ", dataset.name);
  pieces.clear();
  dataset.order->locate(draw.sample, pieces);
  for (const Piece& piece : pieces) prefetch(dataset, piece);
}

}  // namespace megatron_astro
