// Clean text being written: white space is collapsed as it comes in, and is only written when something follows it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace megatron_astro {

class Writer {
 public:
  void put(std::string_view piece) {
    if (piece.empty()) return;
    if (gap_ != Gap::none) {
      flush(piece.front());
    } else if (after_word_ && is_letter(piece.front())) {
      text_ += ' ';  // \alpha before x, where a macro brought them together
    }
    after_word_ = after_drop_ = false;
    text_ += piece;
  }

  // A command kept as it is, in mathematics.
  void put_command(std::string_view name) {
    put("\\");
    text_ += name;
    after_word_ = !name.empty() && is_letter(name.back());
  }

  // A `$` that begins inline mathematics; two formulas that touch become one, for `$$` would begin a displayed one.
  void open_inline() {
    if (gap_ == Gap::none && text_.size() > 1 && text_.size() == inline_end_) {
      text_.back() = ' ';
      return;
    }
    put("$");
  }

  void close_inline() {
    if (gap_ != Gap::none && text_.ends_with('$') && text_.size() != inline_end_) gap_ = Gap::none;
    put("$");
    inline_end_ = text_.size();
  }

  void space() { widen(Gap::space); }
  void line() { widen(Gap::line); }
  void paragraph() { widen(Gap::paragraph); }

  // Something was left out here: a space before it goes too if a stop or a closing bracket comes next.
  void dropped() { after_drop_ = true; }

  bool empty() const { return text_.empty(); }
  std::string take() { return std::move(text_); }

 private:
  enum class Gap { none, space, line, paragraph };

  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  void widen(Gap gap) {
    if (gap > gap_) gap_ = gap;
  }

  void flush(char next) {
    const bool closes = after_drop_ && gap_ == Gap::space && std::string_view(".,;:)]").find(next) != std::string_view::npos;
    if (!text_.empty() && !closes) text_ += gap_ == Gap::space ? " " : gap_ == Gap::line ? "\n" : "\n\n";
    gap_ = Gap::none;
  }

  std::string text_;
  std::size_t inline_end_ = std::string::npos;  // where the last inline formula ended
  Gap gap_ = Gap::none;
  bool after_word_ = false;
  bool after_drop_ = false;
};

}  // namespace megatron_astro
