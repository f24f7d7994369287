#include "reader.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "../checks.h"

namespace megatron_astro {

namespace {

constexpr std::size_t kDeepestInput = 500;  // open files and macros; TeX papers need a dozen
constexpr int kDeepestRender = 40;

constexpr std::array<bool, 256> special_characters(std::string_view characters) {
  std::array<bool, 256> special{};
  for (const char c : characters) special[static_cast<unsigned char>(c)] = true;
  return special;
}

constexpr auto kTextSpecials = special_characters("\\%{}$~&#`'- \t\n");

}  // namespace

LatexPaper read_latex(const std::string& main_name, LatexFiles files, const LatexOptions& options) {
  require(files.contains(main_name), "there is no file ", main_name, " among those given");
  for (auto& [name, text] : files) text = to_utf8(text);
  return LatexReader(files, options).read(main_name);
}

LatexPaper LatexReader::read(const std::string& main_name) {
  const std::string& main_text = files_.at(main_name);
  sections_.emplace_back();
  in_body_ = main_text.find("\\begin{document}") == std::string::npos;  // plain TeX has no preamble
  input_.push_file(main_name, main_text);
  run();
  if (maths()) close_maths();
  for (OpenSection& open : sections_) {
    LatexSection section{open.part, open.level, references_.resolve(open.heading), references_.resolve(open.writer.take())};
    if (!section.text.empty() || !section.heading.empty()) paper_.sections.push_back(std::move(section));
  }
  paper_.title = references_.resolve(paper_.title);
  paper_.num_macros = static_cast<int64_t>(macros_.size());
  return std::move(paper_);
}

void LatexReader::run() {
  while (!input_.at_end()) {
    if (maths()) {
      step_maths();
    } else {
      step_text();
    }
  }
}

void LatexReader::step_text() {
  const std::string_view text = input_.rest();
  std::size_t length = 0;
  while (length < text.size() && !kTextSpecials[static_cast<unsigned char>(text[length])]) ++length;
  if (length > 0) {
    put(text.substr(0, length));
    input_.advance(length);
  } else {
    step_special(text.front());
  }
}

void LatexReader::step_special(char c) {
  if (c == '\\') return command();
  if (c == '$') return dollar();
  if (c == '`' || c == '\'' || c == '-') return quote_or_dash(c);
  if (c == '%') {
    if (input_.skip_comment()) paragraph();
  } else if (c == '\n') {
    if (input_.skip_past_newline()) {
      paragraph();
    } else {
      space();
    }
  } else {
    if (c == ' ' || c == '\t' || c == '~' || c == '&') space();
    input_.advance(1);
  }
}

void LatexReader::quote_or_dash(char c) {
  std::size_t length = 1;
  while (input_.after(length) == c && length < 3) ++length;
  if (c != '-') length = std::min<std::size_t>(length, 2);
  const std::string_view dashes[] = {"-", "\u2013", "\u2014"};
  const std::string_view opening[] = {"\u2018", "\u201c"};
  const std::string_view closing[] = {"'", "\u201d"};
  put(c == '-' ? dashes[length - 1] : c == '`' ? opening[length - 1] : closing[length - 1]);
  input_.advance(length);
}

// At a backslash: a macro of the author, a command the reader knows, or one it does not.
void LatexReader::command() {
  input_.advance(1);
  std::string name = input_.read_name();
  if (name.empty()) return;
  if (name == "@" && !input_.at_end() && std::isalpha(static_cast<unsigned char>(input_.current())) != 0) name += input_.read_name();
  if (const Macro* macro = macros_.find(name); macro != nullptr) {
    if (macro->alias_of.empty()) return expand(*macro, name);
    const Command* original = find_command(macro->alias_of);
    return original != nullptr ? act(*original, macro->alias_of) : unknown_command(macro->alias_of);
  }
  const Command* known = find_command(name);
  return known != nullptr ? act(*known, name) : unknown_command(name);
}

void LatexReader::expand(const Macro& macro, const std::string& name) {
  const bool word = name.size() > 1 || std::isalpha(static_cast<unsigned char>(name.front())) != 0;
  if (word && !(maths() && macro.num_parameters == 0)) input_.skip_space_after_name();
  ++paper_.num_expansions;
  require(paper_.num_expansions <= options_.max_expansions, "its macros expand more than ", options_.max_expansions, " times");
  input_.at_end();  // a finished macro need not stay below the one that ends it
  if (input_.depth() > kDeepestInput) {
    ++paper_.num_refused_expansions;
    return;
  }
  const bool macro_at_is_letter = macro.at_is_letter;
  auto text = Macros::expand(macro, input_);
  if (!text) {
    ++paper_.num_refused_expansions;
    return;
  }
  input_.at_end();
  input_.push(std::move(*text), macro_at_is_letter);
}

void LatexReader::unknown_command(const std::string& name) {
  if (maths()) {
    if (!hidden()) writer().put_command(name);
    return;
  }
  input_.skip_space_after_name();
  if (!input_.at_end() && input_.current() == '[') input_.read_bracketed();
}

// Text of a piece of source, such as a heading, read with what is defined by now; empty where text does not count.
std::string LatexReader::render(std::string source) {
  if (render_depth_ >= kDeepestRender) return {};
  Writer piece;
  const Mode mode_outside = std::exchange(mode_, Mode::text);
  const int hidden_outside = std::exchange(num_hidden_, 0);
  const bool body_outside = std::exchange(in_body_, true);
  Writer* const redirected_outside = std::exchange(redirected_, &piece);
  std::string closing_outside = std::exchange(closing_, "");
  const std::size_t num_environments = environments_.size();
  ++render_depth_;
  input_.push_barrier(std::move(source));
  run();
  input_.pop_barrier();
  --render_depth_;
  if (maths()) close_maths();
  environments_.resize(std::min(num_environments, environments_.size()));
  closing_ = std::move(closing_outside);
  redirected_ = redirected_outside;
  in_body_ = body_outside;
  num_hidden_ = hidden_outside;
  mode_ = mode_outside;
  return piece.take();
}

void LatexReader::put(std::string_view piece) {
  if (!hidden()) writer().put(piece);
}

void LatexReader::space() {
  if (!hidden()) writer().space();
}

void LatexReader::paragraph() {
  if (!hidden()) writer().paragraph();
}

}  // namespace megatron_astro
