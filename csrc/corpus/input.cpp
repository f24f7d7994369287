#include "input.h"

#include <algorithm>

#include "../checks.h"

namespace megatron_astro {

namespace {

constexpr std::string_view kBlank = " \t";

bool is_blank(char c) { return c == ' ' || c == '\t'; }

// Cut comments out: from % to the first character of the next line that is no white space.
std::string without_comments(std::string_view text) {
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      kept += text.substr(i++, 2);
    } else if (text[i] == '%') {
      while (i < text.size() && text[i] != '\n') ++i;
      while (i + 1 < text.size() && is_blank(text[i + 1])) ++i;
    } else {
      kept += text[i];
    }
  }
  return kept;
}

}  // namespace

void Input::spend(std::size_t bytes) {
  work_bytes_ = checked_add(work_bytes_, static_cast<int64_t>(bytes));
  require(work_bytes_ <= max_work_bytes_, "its macros and arguments need more than the ", max_work_bytes_, " bytes of work allowed");
}

void Input::push(std::string text, bool at_letter) {
  spend(text.size());
  if (text.empty()) return;
  frames_.emplace_back();
  frames_.back().at_is_letter = at_letter;
  frames_.back().owned = std::move(text);
  frames_.back().text = frames_.back().owned;
}

void Input::push_file(std::string_view name, std::string_view text) {
  spend(text.size());
  frames_.emplace_back();
  frames_.back().text = text;
  frames_.back().file = name;
}

void Input::push_barrier(std::string text) {
  spend(text.size());
  frames_.emplace_back();
  frames_.back().owned = std::move(text);
  frames_.back().text = frames_.back().owned;
  frames_.back().barrier = true;
}

void Input::pop_barrier() {
  while (!frames_.back().barrier) frames_.pop_back();
  frames_.pop_back();
}

void Input::pop_file() {
  while (!frames_.empty() && !frames_.back().barrier && frames_.back().file.empty()) frames_.pop_back();
  if (!frames_.empty()) frames_.back().position = frames_.back().text.size();
}

void Input::stop() {
  while (!frames_.empty() && !frames_.back().barrier) frames_.pop_back();
  if (!frames_.empty()) frames_.back().position = frames_.back().text.size();
}

bool Input::at_end() {
  while (!frames_.empty()) {
    const Frame& frame = frames_.back();
    if (frame.position < frame.text.size()) return false;
    if (frame.barrier) return true;
    frames_.pop_back();
  }
  return true;
}

char Input::after(std::size_t distance) const {
  const Frame& frame = frames_.back();
  return frame.position + distance < frame.text.size() ? frame.text[frame.position + distance] : '\0';
}

bool Input::in_nested_file() const {
  int64_t files = 0;
  for (const Frame& frame : frames_) files += frame.file.empty() ? 0 : 1;
  return files > 1;
}

bool Input::is_open(std::string_view file) const {
  for (const Frame& frame : frames_) {
    if (frame.file == file) return true;
  }
  return false;
}

bool Input::is_letter(char c) const {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c == '@' && (at_is_letter || frames_.back().at_is_letter));
}

std::string Input::read_name() {
  if (at_end()) return {};
  const std::string_view text = rest();
  std::size_t length = 0;
  while (length < text.size() && is_letter(text[length])) ++length;
  if (length == 0) length = 1;
  advance(length);
  return std::string(text.substr(0, length));
}

void Input::skip_space_after_name() {
  if (frames_.empty()) return;
  const std::string_view text = rest();
  std::size_t end = std::min(text.find_first_not_of(kBlank), text.size());
  if (end < text.size() && text[end] == '\n') {
    const std::size_t next = std::min(text.find_first_not_of(kBlank, end + 1), text.size());
    if (next < text.size() && text[next] != '\n') end = next;
  }
  advance(end);
}

bool Input::skip_comment() {
  const std::string_view text = rest();
  const std::size_t end = std::min(text.find('\n'), text.size() - 1);
  const std::size_t next = std::min(text.find_first_not_of(kBlank, end + 1), text.size());
  advance(next);
  return next < text.size() && text[next] == '\n';
}

bool Input::skip_past_newline() {
  const std::string_view text = rest();
  const std::size_t end = std::min(text.find_first_not_of(" \t\n", 1), text.size());
  advance(end);
  return text.substr(1, end - 1).find('\n') != std::string_view::npos;
}

bool Input::skip_blank() {
  while (!at_end()) {
    const char c = current();
    if (c == '%') {
      skip_comment();
    } else if (is_blank(c)) {
      advance(1);
    } else if (c == '\n') {
      const std::string_view text = rest();
      const std::size_t next = text.find_first_not_of(kBlank, 1);
      if (next != std::string_view::npos && text[next] == '\n') return false;
      advance(1);
    } else {
      return true;
    }
  }
  return false;
}

bool Input::skip_star() {
  if (!skip_blank() || current() != '*') return false;
  advance(1);
  return true;
}

bool Input::at_group() { return skip_blank() && current() == '{'; }

// From the opening character on; none, and only that character skipped, if it is never closed in this text.
std::optional<std::string> Input::read_balanced(char open, char close, bool comments) {
  const std::string_view text = rest();
  int64_t level = 0;
  bool commented = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\') {
      ++i;
    } else if (c == '%' && comments) {
      commented = true;
      i = std::min(text.find('\n', i), text.size());
    } else if (c == close && (level == 1 || (open == '[' && level <= 1))) {
      spend(i);
      advance(i + 1);
      const std::string_view inside = text.substr(1, i - 1);
      return commented ? without_comments(inside) : std::string(inside);
    } else if (c == '{' || (i == 0 && c == open)) {
      ++level;
    } else if (c == '}') {
      if (--level < 1) break;  // a bracket that its group does not close
    }
  }
  spend(text.size());
  advance(1);
  return std::nullopt;
}

std::optional<std::string> Input::read_group() { return at_group() ? read_balanced('{', '}', true) : std::nullopt; }

std::optional<std::string> Input::read_verbatim_group() { return at_group() ? read_balanced('{', '}', false) : std::nullopt; }

std::optional<std::string> Input::read_bracketed() {
  if (!skip_blank() || current() != '[') return std::nullopt;
  const Frame& frame = frames_.back();
  const std::size_t start = frame.position;
  auto inside = read_balanced('[', ']', true);
  if (!inside) frames_.back().position = start;  // it was only a bracket
  return inside;
}

std::string Input::read_argument() {
  if (!skip_blank()) return {};
  const char c = current();
  if (c == '{') return read_balanced('{', '}', true).value_or("");
  if (c == '}') return {};
  if (c == '\\') {
    advance(1);
    return "\\" + read_name();
  }
  const std::string_view text = rest();
  std::size_t length = 1;
  while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0U) == 0x80U) ++length;
  advance(length);
  return std::string(text.substr(0, length));
}

std::optional<std::string> Input::read_until(std::string_view delimiter) {
  if (at_end()) return std::nullopt;
  const std::string_view text = rest();
  int64_t level = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (level == 0 && text.substr(i).starts_with(delimiter)) {
      spend(i);
      advance(i + delimiter.size());
      std::string inside = without_comments(text.substr(0, i));
      const bool braced = inside.size() >= 2 && inside.front() == '{' && inside.find('}') == inside.size() - 1;
      return braced ? inside.substr(1, inside.size() - 2) : inside;
    }
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++level;
    } else if (text[i] == '}' && --level < 0) {
      break;
    }
  }
  spend(text.size());
  return std::nullopt;
}

}  // namespace megatron_astro
