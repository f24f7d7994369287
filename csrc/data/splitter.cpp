#include "splitter.h"

#include <cstring>
#include <utility>

#include "../checks.h"

namespace megatron_astro {

namespace {

bool is_break(uint32_t code) { return code == '\r' || code == '\n'; }

// Lower case of what the contractions are made of; U+017F is the one other character that a caseless match takes for one of them.
uint32_t fold(uint32_t code) {
  if (code >= 'A' && code <= 'Z') return code + ('a' - 'A');
  return code == 0x17F ? uint32_t{'s'} : code;
}

// The end of 's 't 'm 'd 're 've 'll at an apostrophe, or null.
const char* contraction(const char* at, const char* end, bool caseless) {
  if (at + 1 >= end) return nullptr;
  const Character first = read_character(at + 1);
  const uint32_t one = caseless ? fold(first.code) : first.code;
  if (one == 's' || one == 't' || one == 'm' || one == 'd') return first.next;
  if (first.next >= end) return nullptr;
  const Character second = read_character(first.next);
  const uint32_t two = caseless ? fold(second.code) : second.code;
  const bool known = (one == 'r' && two == 'e') || (one == 'v' && two == 'e') || (one == 'l' && two == 'l');
  return known ? second.next : nullptr;
}

}  // namespace

Splitter::Splitter(SplitFamily family, bool digits_apart, int64_t longest_number, std::vector<uint8_t> classes)
    : family_(family), digits_apart_(digits_apart), longest_number_(longest_number), classes_(std::move(classes)) {
  require(longest_number_ > 0, "longest_number is ", longest_number_, "; it must be positive");
  require(classes_.size() >= 128, "classes has ", classes_.size(), " entries; it needs one a code point, ASCII at least");
  for (uint32_t code = 0; code < 128; ++code) require(!is(code, kUnknown), "classes says of ASCII character ", code, " that it is unknown");
}

bool Splitter::knows_all(std::string_view text) const {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    uint64_t bytes = 0;
    if (end - at >= 8) std::memcpy(&bytes, at, 8);
    if (end - at >= 8 && (bytes & 0x8080808080808080) == 0) {  // ASCII, all of it known
      at += 8;
      continue;
    }
    const Character character = read_character(at);
    if (is(character.code, kUnknown)) return false;
    at = character.next;
  }
  return true;
}

const char* Splitter::skip(const char* at, const char* end, uint8_t bits) const {
  while (at < end) {
    const Character character = read_character(at);
    if (!is(character.code, bits)) break;
    at = character.next;
  }
  return at;
}

const char* Splitter::skip_other(const char* at, const char* end) const {
  while (at < end) {
    const Character character = read_character(at);
    if (is(character.code, kLetter | kNumber | kSpace)) break;
    at = character.next;
  }
  return at;
}

// With digits apart: one digit, or all up to the next.
const char* Splitter::end_of_segment(const char* at, const char* end) const {
  const Character first = read_character(at);
  if (is(first.code, kDigit)) return first.next;
  for (at = first.next; at < end;) {
    const Character character = read_character(at);
    if (is(character.code, kDigit)) break;
    at = character.next;
  }
  return at;
}

// \s*[\r\n]+ (where asked for), \s+(?!\S), \s+ at white space: up to the run's last line break; else all of it, but for its last
// character where another piece follows that could take it.
const char* Splitter::whitespace(const char* at, const char* end, bool up_to_break) const {
  const char* const start = at;
  const char* last = at;
  const char* after_break = nullptr;
  while (at < end) {
    const Character character = read_character(at);
    if (!is(character.code, kSpace)) break;
    if (is_break(character.code)) after_break = character.next;
    last = at;
    at = character.next;
  }
  if (up_to_break && after_break != nullptr) return after_break;
  return at == end || last == start ? at : last;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
const char* Splitter::gpt2_piece(const char* at, const char* end) const {
  if (*at == '\'') {
    if (const char* stop = contraction(at, end, false)) return stop;
  }
  const char* const body = *at == ' ' ? at + 1 : at;
  if (body == end) return end;
  const uint8_t body_class = class_of(read_character(body).code);
  if ((body_class & kLetter) != 0) return skip(body, end, kLetter);
  if ((body_class & kNumber) != 0) return skip(body, end, kNumber);
  if ((body_class & kSpace) == 0) return skip_other(body, end);
  return whitespace(at, end, false);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
const char* Splitter::gpt4_piece(const char* at, const char* end) const {
  if (*at == '\'') {
    if (const char* stop = contraction(at, end, true)) return stop;
  }
  const Character first = read_character(at);
  const uint8_t first_class = class_of(first.code);
  if ((first_class & kLetter) != 0) return skip(first.next, end, kLetter);
  if ((first_class & kNumber) != 0) {
    const char* stop = first.next;
    for (int64_t count = 1; count < longest_number_ && stop < end; ++count) {
      const Character character = read_character(stop);
      if (!is(character.code, kNumber)) break;
      stop = character.next;
    }
    return stop;
  }
  if (!is_break(first.code) && first.next < end && is(read_character(first.next).code, kLetter)) return skip(first.next, end, kLetter);
  const char* const body = first.code == ' ' ? first.next : at;
  const char* stop = skip_other(body, end);
  if (stop == body) return whitespace(at, end, true);
  while (stop < end && is_break(static_cast<unsigned char>(*stop))) ++stop;
  return stop;
}

}  // namespace megatron_astro
