#include <algorithm>
#include <utility>

#include "../checks.h"
#include "order.h"

namespace megatron_astro {

namespace {

// What a key made from an epoch's key is for. Chunks are numbered from kFirstChunk on.
enum Purpose : uint64_t { kChunks, kSamples, kFirstChunk };

}  // namespace

ChunkedOrder::ChunkedOrder(Documents documents, int64_t seq_length, int64_t chunk_documents, uint64_t seed, uint64_t stream)
    : documents_(documents), seq_length_(seq_length), chunk_documents_(chunk_documents), key_(Key::of_seed(seed).with(stream)) {
  require(seq_length > 0, "seq_length is ", seq_length, "; it must be positive");
  require(chunk_documents > 0, "chunk_documents is ", chunk_documents, "; it must be positive");
  num_chunks_ = (documents.size() - 1) / chunk_documents + 1;
}

// The first sample that starts in an epoch.
int64_t ChunkedOrder::first_sample(int64_t epoch) const {
  const int64_t start = checked_product(epoch, documents_.num_tokens());
  return start == 0 ? 0 : (start - 1) / seq_length_ + 1;
}

ChunkedOrder::SharedEpoch ChunkedOrder::build_epoch(int64_t number) const {
  const Key key = key_.with(static_cast<uint64_t>(number));
  const int64_t num_inside = std::max<int64_t>(first_sample(number + 1) - first_sample(number) - 1, 0);
  auto built = std::make_shared<Epoch>(Epoch{
      number, key, KeyedPermutation(num_chunks_, key.with(kChunks)), KeyedPermutation(num_inside, key.with(kSamples)), {}});
  built->starts.resize(allocation(num_chunks_ + 1));
  for (int64_t place = 0; place < num_chunks_; ++place) {
    const int64_t first = built->chunks(place) * chunk_documents_;
    const int64_t last = std::min(first + chunk_documents_, documents_.size());
    built->starts[as_size(place + 1)] = checked_add(built->starts[as_size(place)], documents_.tokens_between(first, last));
  }
  require(built->starts.back() == documents_.num_tokens(), "bounds do not rise: chunks hold ", built->starts.back(), " tokens, not ",
          documents_.num_tokens());
  return built;
}

ChunkedOrder::SharedEpoch ChunkedOrder::epoch(int64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto known = std::find_if(epochs_.begin(), epochs_.end(), [&](const SharedEpoch& kept) { return kept->number == number; });
  if (known != epochs_.end()) {
    std::rotate(epochs_.begin(), known, known + 1);
  } else {
    epochs_.insert(epochs_.begin(), build_epoch(number));
    if (epochs_.size() > kKeptEpochs) epochs_.pop_back();
  }
  return epochs_.front();
}

void ChunkedOrder::locate(int64_t sample, Pieces& pieces) const {
  const int64_t per_epoch = documents_.num_tokens();
  const int64_t number = checked_product(sample, seq_length_) / per_epoch;
  SharedEpoch current = epoch(number);
  const int64_t first = first_sample(number), place = sample - first;
  if (place < current->samples.size()) sample = first + current->samples(place);
  int64_t token = sample * seq_length_ - number * per_epoch;
  int64_t left = checked_add(seq_length_, 1);
  for (;;) {
    const int64_t taken = append_from(*current, token, left, pieces);
    require(taken > 0, "epoch ", current->number, " has no token ", token, "; the bounds changed while they were in use");
    left -= taken;
    if (left == 0) return;
    current = epoch(current->number + 1);
    token = 0;
  }
}

// Up to `count` tokens of an epoch from one token on; returns how many there were.
int64_t ChunkedOrder::append_from(const Epoch& epoch, int64_t token, int64_t count, Pieces& pieces) const {
  const auto after = std::upper_bound(epoch.starts.begin(), epoch.starts.end() - 1, token);
  int64_t place = after - epoch.starts.begin() - 1;
  int64_t skip = token - epoch.starts[as_size(place)], taken = 0;
  for (; place < num_chunks_ && taken < count; ++place, skip = 0)
    taken += append_chunk(epoch, epoch.chunks(place), skip, count - taken, pieces);
  return taken;
}

int64_t ChunkedOrder::append_chunk(const Epoch& epoch, int64_t chunk, int64_t skip, int64_t count, Pieces& pieces) const {
  const int64_t first = chunk * chunk_documents_;
  const int64_t size = std::min(chunk_documents_, documents_.size() - first);
  documents_.prefetch(first, first + std::min<int64_t>(size, 512));  // while the permutation is made
  const KeyedPermutation inside(size, epoch.key.with(kFirstChunk + static_cast<uint64_t>(chunk)));
  int64_t taken = 0;
  for (int64_t place = 0; place < size && taken < count; ++place) {
    const int64_t document = first + inside(place), length = documents_.tokens_between(document, document + 1);
    if (skip >= length)
      skip -= length;
    else
      taken += documents_.append(pieces, document, std::exchange(skip, 0), count - taken);
  }
  return taken;
}

}  // namespace megatron_astro
