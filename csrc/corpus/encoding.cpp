#include <array>

#include "latex.h"

namespace megatron_astro {

namespace {

// Code points of bytes 0x80 to 0x9f in Windows-1252; the five unassigned ones become a space.
constexpr std::array<uint16_t, 32> kWindows1252 = {
    0x20AC, 0x0020, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x0020, 0x017D, 0x0020,
    0x0020, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x0020, 0x017E, 0x0178};

unsigned byte_at(std::string_view text, std::size_t position) { return static_cast<unsigned char>(text[position]); }

bool continues(std::string_view text, std::size_t position) { return position < text.size() && (byte_at(text, position) & 0xC0U) == 0x80U; }

// The length of the UTF-8 sequence that starts there, 0 where none does: overlong forms, surrogates and what lies above U+10FFFF are none.
std::size_t sequence_length(std::string_view text, std::size_t position) {
  const unsigned lead = byte_at(text, position);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !continues(text, position + 1)) return 0;
  if (lead < 0xE0) return 2;
  const unsigned second = byte_at(text, position + 1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || !continues(text, position + 2)) return 0;
  if (lead < 0xF0) return 3;
  const bool in_range = (lead != 0xF0 || second >= 0x90) && (lead != 0xF4 || second <= 0x8F);
  return in_range && continues(text, position + 3) ? 4 : 0;
}

bool is_utf8(std::string_view text) {
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t length = sequence_length(text, position);
    if (length == 0) return false;
    position += length;
  }
  return true;
}

void append_code_point(std::string& text, unsigned code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0U | (code_point >> 6U));
    text += static_cast<char>(0x80U | (code_point & 0x3FU));
  } else {
    text += static_cast<char>(0xE0U | (code_point >> 12U));
    text += static_cast<char>(0x80U | ((code_point >> 6U) & 0x3FU));
    text += static_cast<char>(0x80U | (code_point & 0x3FU));
  }
}

}  // namespace

std::string to_utf8(std::string_view bytes) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
  const bool unicode = is_utf8(bytes);
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t position = 0; position < bytes.size(); ++position) {
    const unsigned byte = byte_at(bytes, position);
    if (byte == '\r') {
      if (position + 1 == bytes.size() || bytes[position + 1] != '\n') text += '\n';
    } else if (byte >= 0x80 && !unicode) {
      append_code_point(text, byte < 0xA0 ? kWindows1252[byte - 0x80] : byte);
    } else if ((byte >= 0x20 && byte != 0x7F) || byte == '\n' || byte == '\t') {
      text += static_cast<char>(byte);
    }
  }
  return text;
}

}  // namespace megatron_astro
