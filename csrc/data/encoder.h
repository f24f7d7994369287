// Text to token ids for the two families of LLaMA tokenizers, word by word, with a cache of words seen.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "merges.h"
#include "splitter.h"
#include "word_cache.h"

namespace megatron_astro {

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
  std::string first_bytes_;  // of any of them
};

// What a text, or a part of it between added tokens, gets before its first character (sentencepiece: U+2581).
enum class Prefix { always, unless_there, first_unless_there, never };

// Hash of strings and of views alike, to look up a view without making a string of it.
struct StringHash : std::hash<std::string_view> {
  using is_transparent = void;
};

using WholeWords = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

// Byte-level BPE: pieces of the splitter, bytes as symbols; a piece that is a token is that token where `whole_words` has it.
// Texts with a byte that is no token (real vocabularies lack some, such as control characters) are for the reference.
struct ByteLevel {
  static constexpr int32_t kNoToken = -1;
  Splitter splitter;
  std::array<int32_t, 256> byte_ids;
  WholeWords whole_words;
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
  bool knows_bytes(std::string_view text) const;
  void encode_part(std::string_view part, bool first, Symbols& ids);
  void encode_marked(std::string_view part, bool first, Symbols& ids);
  void take_word(std::string_view word, const char* end, Symbols& ids);
  void encode_waiting(Symbols& ids);
  void merge_word(std::string_view word);
  void fill_symbols(std::string_view word);

  Merges merges_;
  AddedTokens added_;
  bool lacks_bytes_ = false;
  std::optional<ByteLevel> byte_level_;
  std::optional<Characters> characters_;
  struct Waiting {
    std::string_view word;
    WordKey key;
  };

  WordCache cache_;
  std::array<Waiting, 32> waiting_;  // words found in the text, their slots on the way from memory
  std::size_t num_waiting_ = 0;
  Symbols symbols_;
  std::string marked_;
};

}  // namespace megatron_astro
