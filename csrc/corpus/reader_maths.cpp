#include <utility>

#include "reader.h"

namespace megatron_astro {

void LatexReader::step_maths() {
  const std::string_view text = input_.rest();
  const std::size_t length = std::min(text.find_first_of("\\%$ \t\n"), text.size());
  if (length > 0) {
    put(text.substr(0, length));
    return input_.advance(length);
  }
  const char c = text.front();
  if (c == '\\') return command();
  if (c == '$') return dollar();
  if (c == '\n') return maths_newline();
  if (c == '%') {
    input_.skip_comment();
  } else {
    space();
    input_.advance(1);
  }
}

// An empty line cannot stand in a formula: where one does, the sign that ends the formula is missing.
void LatexReader::maths_newline() {
  const bool ends_paragraph = input_.skip_past_newline();
  if (ends_paragraph && mode_ == Mode::inline_maths) {
    close_maths();
    return paragraph();
  }
  if (hidden()) return;
  if (mode_ == Mode::display_maths) {
    writer().line();
  } else {
    writer().space();
  }
}

void LatexReader::dollar() {
  const bool twice = input_.after(1) == '$';
  if (mode_ == Mode::text_in_maths) {
    put("$");
    return input_.advance(1);
  }
  if (closes_maths("$")) {
    input_.advance(1);
    return close_maths();
  }
  input_.advance(twice ? 2 : 1);
  if (closes_maths("$$")) return close_maths();
  if (!maths()) open_maths(twice, twice ? "$$" : "$", twice ? "$$" : "$");
}

void LatexReader::open_maths(bool display, std::string_view opening, std::string_view closing) {
  mode_ = display ? Mode::display_maths : Mode::inline_maths;
  closing_ = closing;
  if (hidden()) return;
  if (!display) return writer().open_inline();
  writer().line();
  writer().put(opening);
}

void LatexReader::close_maths() {
  const bool display = mode_ == Mode::display_maths;
  mode_ = Mode::text;
  if (hidden()) return;
  if (!display) return writer().close_inline();
  writer().put(closing_);
  writer().line();
}

// \mbox{ at $r$} inside a formula: kept, with its own formulas.
void LatexReader::text_in_maths(const std::string& name) {
  const auto content = input_.read_group();
  if (!content) {
    if (!hidden()) writer().put_command(name);
    return;
  }
  if (hidden() || render_depth_ > 10) return;
  writer().put_command(name == "hbox" ? "mbox" : name);
  writer().put("{");
  if (content->starts_with(' ')) writer().space();
  const Mode outside = std::exchange(mode_, Mode::text_in_maths);
  ++render_depth_;
  input_.push_barrier(*content);
  run();
  input_.pop_barrier();
  --render_depth_;
  mode_ = outside;
  writer().put("}");
}

}  // namespace megatron_astro
