#include "encoder.h"

#include <algorithm>

#include "../checks.h"

namespace megatron_astro {

namespace {

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581, sentencepiece's blank

std::size_t byte_of(char character) { return static_cast<unsigned char>(character); }

// The end of the word at `at`: marks, then other characters up to the next mark.
std::size_t end_of_word(std::string_view text, std::size_t at) {
  while (text.substr(at, kMark.size()) == kMark) at += kMark.size();
  const std::size_t stop = text.find(kMark, at);
  return stop == std::string_view::npos ? text.size() : stop;
}

}  // namespace

AddedTokens::AddedTokens(const NamedIds& tokens, std::vector<std::string> refused) : tokens_(tokens), refused_(std::move(refused)) {
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const auto& one, const auto& other) { return one.first.size() > other.first.size(); });
  for (std::size_t place = 0; place < tokens_.size(); ++place) {
    require(!tokens_[place].first.empty(), "an added token is empty");
    by_first_byte_[byte_of(tokens_[place].first[0])].push_back(place);
    if (first_bytes_.find(tokens_[place].first[0]) == std::string::npos) first_bytes_.push_back(tokens_[place].first[0]);
  }
}

bool AddedTokens::refuses(std::string_view text) const {
  return std::any_of(refused_.begin(), refused_.end(), [&](const auto& part) { return text.find(part) != std::string_view::npos; });
}

std::pair<std::size_t, std::size_t> AddedTokens::next(std::string_view text, std::size_t from) const {
  if (tokens_.empty()) return {std::string_view::npos, 0};
  for (std::size_t at = from; at < text.size(); ++at) {
    if (first_bytes_.size() == 1) {  // most often all begin with '<', and a search for one byte is fast
      at = text.find(first_bytes_[0], at);
      if (at == std::string_view::npos) break;
    }
    for (const std::size_t place : by_first_byte_[byte_of(text[at])]) {
      if (text.compare(at, tokens_[place].first.size(), tokens_[place].first) == 0) return {at, place};
    }
  }
  return {std::string_view::npos, 0};
}

Encoder::Encoder(Merges merges, AddedTokens added, std::optional<ByteLevel> byte_level, std::optional<Characters> characters)
    : merges_(std::move(merges)), added_(std::move(added)), byte_level_(std::move(byte_level)), characters_(std::move(characters)) {
  require(byte_level_.has_value() != characters_.has_value(), "an encoder is of one kind: byte-level or of characters");
  if (byte_level_) lacks_bytes_ = std::count(byte_level_->byte_ids.begin(), byte_level_->byte_ids.end(), ByteLevel::kNoToken) > 0;
}

bool Encoder::knows_bytes(std::string_view text) const {
  if (!lacks_bytes_) return true;
  return std::none_of(text.begin(), text.end(), [&](char byte) { return byte_level_->byte_ids[byte_of(byte)] == ByteLevel::kNoToken; });
}

bool Encoder::encode(std::string_view text, Symbols& ids) {
  if (added_.refuses(text)) return false;
  if (byte_level_ && !(knows_bytes(text) && byte_level_->splitter.knows_all(text))) return false;
  for (std::size_t at = 0; at < text.size();) {
    const auto [start, place] = added_.next(text, at);
    const std::string_view part = text.substr(at, start == std::string_view::npos ? start : start - at);
    if (!part.empty()) encode_part(part, at == 0, ids);
    if (start == std::string_view::npos) break;
    ids.push_back(added_.token(place).second);
    at = start + added_.token(place).first.size();
  }
  return true;
}

void Encoder::encode_part(std::string_view part, bool first, Symbols& ids) {
  if (byte_level_) {
    byte_level_->splitter.split(part, [&](std::string_view piece) { take_word(piece, part.data() + part.size(), ids); });
  } else {
    encode_marked(part, first, ids);
  }
  encode_waiting(ids);
}

void Encoder::encode_marked(std::string_view part, bool first, Symbols& ids) {
  const Prefix prefix = characters_->prefix;
  const bool there = part.front() == ' ' || part.substr(0, kMark.size()) == kMark;
  marked_.clear();
  if (prefix == Prefix::always || (prefix == Prefix::unless_there && !there) || (prefix == Prefix::first_unless_there && first && !there))
    marked_.append(kMark);
  for (const char character : part) {
    if (character == ' ') {
      marked_.append(kMark);
    } else {
      marked_.push_back(character);
    }
  }
  const std::string_view text(marked_);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t stop = end_of_word(text, at);
    take_word(text.substr(at, stop - at), text.data() + text.size(), ids);
    at = stop;
  }
}

// A word of the memory that ends at `end`; its ids come with those of the words waiting.
void Encoder::take_word(std::string_view word, const char* end, Symbols& ids) {
  if (word.size() > WordCache::kLongestWord) {
    encode_waiting(ids);
    merge_word(word);
    ids.insert(ids.end(), symbols_.begin(), symbols_.end());
    return;
  }
  if (num_waiting_ == waiting_.size()) encode_waiting(ids);
  Waiting& waiting = waiting_[num_waiting_++];
  waiting = {word, WordCache::key_of(word, end)};
  cache_.prefetch(waiting.key);
}

void Encoder::encode_waiting(Symbols& ids) {
  for (std::size_t at = 0; at < num_waiting_; ++at) {
    const auto& [word, key] = waiting_[at];
    if (cache_.append(word, key, ids)) continue;
    merge_word(word);
    cache_.insert(word, key, symbols_);
    ids.insert(ids.end(), symbols_.begin(), symbols_.end());
  }
  num_waiting_ = 0;
}

// A word's ids, into symbols_.
void Encoder::merge_word(std::string_view word) {
  symbols_.clear();
  if (byte_level_) {
    const auto whole = byte_level_->whole_words.find(word);
    if (whole != byte_level_->whole_words.end()) return symbols_.push_back(whole->second);
  }
  fill_symbols(word);
  merges_.apply(symbols_);
}

void Encoder::fill_symbols(std::string_view word) {
  const auto add_bytes = [&](std::string_view bytes, const std::array<int32_t, 256>& byte_ids) {
    for (const char byte : bytes) symbols_.push_back(byte_ids[byte_of(byte)]);
  };
  if (byte_level_) return add_bytes(word, byte_level_->byte_ids);
  const auto& known = characters_->character_ids;
  for (const char* at = word.data(); at < word.data() + word.size();) {
    const Character character = read_character(at);
    const int32_t id = character.code < known.size() ? known[character.code] : -1;
    if (id >= 0) {
      symbols_.push_back(id);
    } else {
      add_bytes({at, static_cast<std::size_t>(character.next - at)}, characters_->byte_ids);
    }
    at = character.next;
  }
}

}  // namespace megatron_astro
