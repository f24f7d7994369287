// Cutting text into the words that byte-level BPE merges within, as the regular expressions of GPT-2 and of GPT-4 / LLaMA-3 do.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace megatron_astro {

// What a code point is, as bits. `unknown` code points make a text unfit: nobody has said what they are.
enum CharacterClass : uint8_t { kLetter = 1, kNumber = 2, kSpace = 4, kDigit = 8, kUnknown = 128 };

struct Character {
  uint32_t code;
  const char* next;
};

// The character at `at`, in valid UTF-8.
inline Character read_character(const char* at) {
  const auto byte = [&](int offset) { return static_cast<uint32_t>(static_cast<unsigned char>(at[offset])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, at + 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), at + 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), at + 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), at + 4};
}

enum class SplitFamily { gpt2, gpt4 };

class Splitter {
 public:
  // `classes` has a byte of CharacterClass bits for each code point. `longest_number` is for gpt4: digits in a piece at most.
  Splitter(SplitFamily family, bool digits_apart, int64_t longest_number, std::vector<uint8_t> classes);

  bool knows_all(std::string_view text) const;
  // Call `use` with every piece, in order; together they are the text.
  template <typename Use>
  void split(std::string_view text, Use use) const {
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end) {
      const char* const stop = digits_apart_ ? end_of_segment(at, end) : end;
      while (at < stop) {
        const char* const next = family_ == SplitFamily::gpt4 ? gpt4_piece(at, stop) : gpt2_piece(at, stop);
        use(std::string_view(at, static_cast<std::size_t>(next - at)));
        at = next;
      }
    }
  }

 private:
  uint8_t class_of(uint32_t code) const { return code < classes_.size() ? classes_[code] : uint8_t{kUnknown}; }
  bool is(uint32_t code, uint8_t bits) const { return (class_of(code) & bits) != 0; }
  const char* skip(const char* at, const char* end, uint8_t bits) const;
  const char* skip_other(const char* at, const char* end) const;
  const char* end_of_segment(const char* at, const char* end) const;
  const char* whitespace(const char* at, const char* end, bool up_to_break) const;
  const char* gpt2_piece(const char* at, const char* end) const;
  const char* gpt4_piece(const char* at, const char* end) const;

  SplitFamily family_;
  bool digits_apart_;
  int64_t longest_number_;
  std::vector<uint8_t> classes_;
};

}  // namespace megatron_astro
