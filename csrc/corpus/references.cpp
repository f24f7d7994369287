#include "references.h"

#include <algorithm>
#include <vector>

namespace megatron_astro {

namespace {

constexpr char kReference = '\x01';
constexpr char kCitation = '\x02';
constexpr char kSeparator = '\x03';
constexpr char kEnd = '\x04';
constexpr std::size_t kLongestLabel = 200;  // so that a long label cited often cannot fill the memory

std::string_view trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\n");
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(" \t\n") - start + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(trimmed(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty() && !part.empty()) text += separator;
    text += part;
  }
  return text;
}

}  // namespace

void References::step_section(int level) {
  const auto position = static_cast<std::size_t>(level);
  ++section_[position];
  for (std::size_t lower = position + 1; lower < section_.size(); ++lower) section_[lower] = 0;
  current_ = {in_appendix_ ? "Appendix" : level == 0 ? "Chapter" : "Section", ""};
  for (std::size_t i = 0; i <= position; ++i) {
    if (section_[i] == 0 && current_.number.empty()) continue;
    const bool letter = in_appendix_ && current_.number.empty() && section_[i] >= 1 && section_[i] <= 26;
    if (!current_.number.empty()) current_.number += '.';
    current_.number += letter ? std::string(1, static_cast<char>('A' + section_[i] - 1)) : std::to_string(section_[i]);
  }
}

void References::begin_appendix() {
  section_.fill(0);
  in_appendix_ = true;
  current_ = {"Appendix", ""};
}

void References::step(const std::string& kind) { current_ = {kind, std::to_string(++counters_[kind])}; }

void References::set_label(const std::string& key) {
  if (!current_.number.empty()) labels_[std::string(trimmed(key))] = current_;
}

// natbib's label is Authors(Year)All authors; a bibliography without labels is numbered.
void References::add_bibitem(const std::string& key, const std::string& label) {
  const std::string number = std::to_string(items_.size() + 1);
  const std::size_t open = label.find('(');
  const std::size_t close = label.find(')', open == std::string::npos ? 0 : open);
  Item item;
  if (open != std::string::npos && close != std::string::npos && open > 0) {
    item = {std::string(trimmed(label.substr(0, open))), std::string(trimmed(label.substr(open + 1, close - open - 1)))};
  } else {
    item = {label.empty() ? "[" + number + "]" : label, ""};
  }
  if (item.authors.size() + item.year.size() <= kLongestLabel) items_[std::string(trimmed(key))] = item;
}

std::string References::reference_mark(char style, std::string_view keys) {
  return std::string{kReference, style} + std::string(keys) + kEnd;
}

std::string References::citation_mark(char style, std::string_view keys, std::string_view before, std::string_view after) {
  return std::string{kCitation, style} + std::string(keys) + kSeparator + std::string(before) + kSeparator + std::string(after) + kEnd;
}

std::string References::reference(char style, std::string_view keys) const {
  std::vector<std::string> numbers;
  std::string kind;
  for (const std::string_view key : split(keys, ',')) {
    const auto found = labels_.find(std::string(key));
    if (found == labels_.end()) continue;
    kind = found->second.kind;
    numbers.push_back(found->second.number);
  }
  if (numbers.empty()) return {};
  const std::string text = joined(numbers, ", ");
  return style == 'e' ? "(" + text + ")" : style == 'k' ? kind + " " + text : text;
}

std::string References::cited(char style, std::string_view key) const {
  const auto found = items_.find(std::string(key));
  const Item item = found == items_.end() ? Item{std::string(key), ""} : found->second;
  if (item.year.empty() || style == 'a') return item.authors;
  if (style == 'y') return item.year;
  return style == 't' ? item.authors + " (" + item.year + ")" : item.authors + " " + item.year;
}

std::string References::citation(char style, std::string_view keys, std::string_view before, std::string_view after) const {
  std::vector<std::string> works;
  for (const std::string_view key : split(keys, ',')) works.push_back(cited(style, key));
  std::string text = joined(works, style == 'p' ? "; " : ", ");
  if (!before.empty()) text = std::string(before) + " " + text;
  if (!after.empty()) text += ", " + std::string(after);
  return style == 'p' && !text.starts_with('[') ? "(" + text + ")" : text;
}

std::string References::resolve(std::string_view text) const {
  std::string resolved;
  resolved.reserve(text.size());
  for (;;) {
    const std::size_t mark = text.find_first_of(std::string_view("\x01\x02", 2));
    resolved += text.substr(0, mark);
    if (mark == std::string_view::npos) return resolved;
    const std::size_t end = std::min(text.find(kEnd, mark), text.size());
    const std::string_view inside = text.substr(mark + 2, end - mark - 2);
    const char style = text[mark + 1];
    if (text[mark] == kReference) {
      resolved += reference(style, inside);
    } else {
      const std::vector<std::string_view> parts = split(inside, kSeparator);
      if (parts.size() == 3) resolved += citation(style, parts[0], parts[1], parts[2]);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace megatron_astro
