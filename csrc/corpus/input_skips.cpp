// Skipping what has no text: arguments of commands that go, branches not taken, lengths.
#include <algorithm>

#include "input.h"

namespace megatron_astro {

// * an optional star, o [...], m {...} or \command, v {...} with % as a character, p (...)
void Input::skip_specified(std::string_view specification) {
  for (const char kind : specification) {
    if (kind == '*') {
      skip_star();
    } else if (kind == 'o') {
      read_bracketed();
    } else if (kind == 'v') {
      read_verbatim_group();
    } else if (kind == 'p') {
      if (skip_blank() && current() == '(') read_until(")");
    } else if (skip_blank() && (current() == '{' || current() == '\\')) {
      read_argument();
    }
  }
}

bool Input::skip_branch() {
  int64_t level = 0;
  while (!at_end()) {
    const std::string_view text = rest();
    const std::size_t next = text.find_first_of("\\%");
    spend(std::min(next, text.size()));
    if (next == std::string_view::npos) {
      advance(text.size());
      continue;
    }
    advance(next);
    if (current() == '%') {
      skip_comment();
      continue;
    }
    advance(1);
    const std::string name = read_name();
    if (name == "fi") {
      if (level-- > 0) continue;
      skip_space_after_name();
      return false;
    } else if (name == "else" && level == 0) {
      skip_space_after_name();
      return true;
    } else if (name == "newif" && !at_end() && current() == '\\') {
      advance(1);
      read_name();
    } else if (name.starts_with("if") && name != "iff" && name != "ifthenelse") {
      ++level;
    }
  }
  return false;
}

// A length as plain TeX writes it: = -1.5 true pt plus 1fil minus 2pt, or = \baselineskip.
void Input::skip_dimension() {
  if (!skip_blank()) return;
  const std::string_view text = rest();
  std::size_t i = 0;
  const auto skip = [&](std::string_view characters) { i = std::min(text.find_first_not_of(characters, i), text.size()); };
  skip("= \t");
  const std::size_t number = i;
  skip("+-.0123456789");
  if (i < text.size() && text[i] == '\\') {
    advance(i + 1);
    read_name();
    return;
  }
  if (i == number) return;
  for (const std::string_view word : {"true", "pt", "em", "ex", "in", "cm", "mm", "sp", "bp", "pc", "fill", "fil"}) {
    skip(" ");
    if (text.substr(i).starts_with(word)) i += word.size();
  }
  skip(" ");
  advance(i);
  for (const std::string_view word : {"plus", "minus"}) {
    if (rest().starts_with(word)) {
      advance(word.size());
      skip_dimension();
    }
  }
}

}  // namespace megatron_astro
