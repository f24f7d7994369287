// Text to token ids for the two families of LLaMA tokenizers, word by word, with a cache of words seen.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "merges.h"
#include "splitter.h"

namespace megatron_astro {

// Words and their ids, up to a fixed number; then it starts afresh.
class WordCache {
 public:
  WordCache();
  // The ids of a word, or nothing; they stay valid until the next `insert`.
  std::optional<std::span<const int32_t>> find(std::string_view word, uint64_t hash) const;
  void insert(std::string_view word, uint64_t hash, std::span<const int32_t> ids);
  static uint64_t hash_of(std::string_view word);

 private:
  struct Slot {
    uint64_t hash;
    uint32_t text_at;
    uint32_t ids_at;
    uint16_t text_size;
    uint16_t num_ids;
  };
  void clear();

  std::vector<Slot> slots_;
  std::string text_;
  std::vector<int32_t> ids_;
  std::size_t num_words_ = 0;
};

using NamedIds = std::vector<std::pair<std::string, int32_t>>;

// Tokens cut out of the text before anything else, the longest at each place; and texts that make a document unfit for this encoder.
class AddedTokens {
 public:
  AddedTokens(const NamedIds& tokens, std::vector<std::string> refused);
  bool refuses(std::string_view text) const;
  // Where the next added token starts and its place in `tokens`; npos where there is none.
  std::pair<std::size_t, std::size_t> next(std::string_view text, std::size_t from) const;
  const std::pair<std::string, int32_t>& token(std::size_t place) const { return tokens_[place]; }

 private:
  NamedIds tokens_;  // longest first
  std::vector<std::string> refused_;
  std::array<std::vector<std::size_t>, 256> by_first_byte_;
};

// What a text, or a part of it between added tokens, gets before its first character (sentencepiece: U+2581).
enum class Prefix { always, unless_there, first_unless_there, never };

// Byte-level BPE: pieces of the splitter, bytes as symbols; a piece that is a token is that token where `whole_words` has it.
struct ByteLevel {
  Splitter splitter;
  std::array<int32_t, 256> byte_ids;
  std::unordered_map<std::string, int32_t> whole_words;
};

// sentencepiece's BPE: blanks become U+2581, characters are symbols, unknown ones their bytes. No token has U+2581 after another
// character, so words (U+2581s, then others) are merged each for itself.
struct Characters {
  Prefix prefix;
  std::vector<int32_t> character_ids;  // by code point; -1: not in the vocabulary
  std::array<int32_t, 256> byte_ids;
};

class Encoder {
 public:
  Encoder(Merges merges, AddedTokens added, std::optional<ByteLevel> byte_level, std::optional<Characters> characters);
  // Append the ids of a text (valid UTF-8) and return true, or return false: only the reference can encode it.
  bool encode(std::string_view text, Symbols& ids);

 private:
  void encode_part(std::string_view part, bool first, Symbols& ids);
  void encode_marked(std::string_view part, bool first, Symbols& ids);
  void encode_word(std::string_view word, Symbols& ids);
  void fill_symbols(std::string_view word);

  Merges merges_;
  AddedTokens added_;
  std::optional<ByteLevel> byte_level_;
  std::optional<Characters> characters_;
  WordCache cache_;
  Symbols symbols_;
  std::string marked_;
};

}  // namespace megatron_astro
