#include <algorithm>
#include <cctype>

#include "reader.h"

namespace megatron_astro {

namespace {

bool is_word(std::string_view name) { return std::isalpha(static_cast<unsigned char>(name.front())) != 0; }

// Citations may hold marks of other references, which must not nest.
std::string without_marks(std::string text) {
  std::erase_if(text, [](char c) { return c > '\0' && c < '\x05'; });
  return text;
}

}  // namespace

void LatexReader::act(const Command& known, const std::string& name) {
  const Action action = known.action;
  const bool kept_in_maths = action == Action::symbol || action == Action::accent || action == Action::skip_in_text ||
                             action == Action::item || action == Action::line_break;
  if (maths() && kept_in_maths) {
    if (!hidden()) writer().put_command(name == "\n" || name == "\t" ? " " : name);
    return;
  }
  if (is_word(name) && action != Action::verb) input_.skip_space_after_name();
  if (action == Action::skip || action == Action::skip_in_text) {
    input_.skip_specified(known.specification);
    if (known.specification.empty() || hidden()) return;
    return writer().dropped();
  }
  if (act_on_structure(action, known, name) || act_on_definitions(action, known) || act_on_conditionals(action)) return;
  act_on_text(action, known, name);
}

bool LatexReader::act_on_structure(Action action, const Command& known, const std::string& name) {
  switch (action) {
    case Action::section: section(known.specification.front() - '0'); return true;
    case Action::appendix: begin_part(LatexPart::appendix, 1, ""); in_appendix_ = true; references_.begin_appendix(); return true;
    case Action::back_matter: back_matter(known.specification); return true;
    case Action::paragraph_heading: heading_in_line(); return true;
    case Action::title: title(); return true;
    case Action::abstract: abstract_command(); return true;
    case Action::document_class: input_.read_bracketed(); paper_.document_class = render(input_.read_argument()); return true;
    case Action::caption: caption(); return true;
    case Action::begin: begin_environment(); return true;
    case Action::end: end_environment(); return true;
    case Action::input: input_file(); return true;
    case Action::import: import_file(); return true;
    case Action::bibliography: bibliography(); return true;
    case Action::package: package(); return true;
    case Action::endinput: input_.pop_file(); return true;
    case Action::bibitem: bibitem(); return true;
    case Action::item: item(); return true;
    case Action::label: if (auto key = input_.read_group()) references_.set_label(*key); return true;
    case Action::text_in_maths: if (maths()) text_in_maths(name); return true;
    default: return false;
  }
}

bool LatexReader::act_on_definitions(Action action, const Command& known) {
  switch (action) {
    case Action::new_command: macros_.read_new_command(input_, known.specification == "p"); return true;
    case Action::new_environment: macros_.read_environment(input_); return true;
    case Action::define: macros_.read_definition(input_); return true;
    case Action::let: macros_.read_let(input_); return true;
    case Action::operator_name: macros_.read_operator_name(input_); return true;
    case Action::new_if: new_if(); return true;
    case Action::at_letter: input_.at_is_letter = true; return true;
    case Action::at_other: input_.at_is_letter = false; return true;
    case Action::csname: input_.read_until("\\endcsname"); return true;
    case Action::dimension:
      input_.skip_dimension();
      if (known.specification == "s") space();
      return true;
    default: return false;
  }
}

// What only TeX could decide is taken as false.
bool LatexReader::act_on_conditionals(Action action) {
  switch (action) {
    case Action::conditional:
    case Action::if_false: input_.skip_branch(); return true;
    case Action::if_true: return true;
    case Action::if_maths: if (!maths()) input_.skip_branch(); return true;
    case Action::if_x: if_x(); return true;
    case Action::if_then_else: input_.skip_specified("mm"); return true;
    case Action::if_next: if_next(input_.read_argument()); return true;
    case Action::if_star: if_next("*"); return true;
    case Action::else_branch: while (input_.skip_branch()) {} return true;
    default: return false;
  }
}

bool LatexReader::act_on_text(Action action, const Command& known, const std::string& name) {
  switch (action) {
    case Action::symbol: if (known.specification == " ") { space(); } else { put(known.specification); } return true;
    case Action::accent: accent(known.specification); return true;
    case Action::citation: citation(known.specification.front()); return true;
    case Action::reference: {
      input_.skip_star();
      const std::string keys = input_.read_group().value_or("");
      put(References::reference_mark(known.specification.front(), without_marks(keys)));
      return true;
    }
    case Action::paragraph: if (!maths()) paragraph(); return true;
    case Action::line_break:
      input_.skip_star();
      if (!input_.at_end() && input_.current() == '[') input_.read_bracketed();
      space();
      return true;
    case Action::open_maths: if (!maths()) { name == "[" ? open_maths(true, "\\[", "\\]") : open_maths(false, "$", "\\)"); } return true;
    case Action::close_maths: if (closes_maths(name == "]" ? "\\]" : "\\)")) close_maths(); return true;
    case Action::ensure_maths: {
      std::string content = input_.read_argument();
      input_.push(maths() ? content : "$" + content + "$");
      return true;
    }
    case Action::tex_or_pdf: {
      std::string content = input_.read_argument();
      input_.read_argument();
      input_.push(std::move(content));
      return true;
    }
    case Action::xspace: xspace(); return true;
    case Action::verb: verb(); return true;
    case Action::url: url(); return true;
    default: return false;
  }
}

// \'e, \'{e}, \v{c}, {\'\i}: the letter, then the combining mark; Python composes the two.
void LatexReader::accent(std::string_view mark) {
  std::string letter = input_.read_argument();
  if (letter == "\\i" || letter == "\\i " || letter == "{\\i}") letter = "i";
  if (letter == "\\j" || letter == "{\\j}") letter = "j";
  if (letter.find('\\') != std::string::npos) letter = render(std::move(letter));
  if (letter.empty()) return;
  std::size_t length = 1;
  while (length < letter.size() && (static_cast<unsigned char>(letter[length]) & 0xC0U) == 0x80U) ++length;
  if (is_word(letter) || length > 1) letter.insert(length, mark);
  put(letter);
}

void LatexReader::item() {
  auto label = input_.read_bracketed();
  const auto list = std::find_if(environments_.rbegin(), environments_.rend(), [](const Environment& open) {
    return open.kind == EnvironmentKind::bullets || open.kind == EnvironmentKind::numbers || open.kind == EnvironmentKind::descriptions;
  });
  const std::string rendered = label && !hidden() ? render(std::move(*label)) : "";
  if (hidden()) return;
  writer().line();
  if (!rendered.empty()) {
    writer().put(rendered);
  } else if (list != environments_.rend() && list->kind == EnvironmentKind::numbers) {
    writer().put(std::to_string(++list->num_items) + ".");
  } else {
    writer().put("-");
  }
  writer().space();
}

void LatexReader::citation(char style) {
  input_.skip_star();
  auto first = input_.read_bracketed();
  auto second = first ? input_.read_bracketed() : std::nullopt;
  const std::string keys = input_.read_group().value_or("");
  if (hidden()) return;
  if (!options_.keep_citations) return writer().dropped();
  const std::string after = without_marks(render(second ? *second : first.value_or("")));
  const std::string before = second ? without_marks(render(*first)) : "";
  if (!keys.empty()) put(References::citation_mark(style, without_marks(keys), before, after));
}

// A URL is kept as written, but for macros an author built it with.
void LatexReader::url() {
  std::string address = input_.read_verbatim_group().value_or("");
  put(address.find('\\') == std::string::npos ? address : render(std::move(address)));
}

// A space unless what follows shows that none is wanted, as the package xspace decides.
void LatexReader::xspace() {
  if (maths() || input_.at_end()) return;
  if (std::string_view("{}~.!,:;?/'\")-]\\ \n\t").find(input_.current()) == std::string_view::npos) space();
}

void LatexReader::verb() {
  if (!input_.at_end() && input_.current() == '*') input_.advance(1);
  if (!input_.at_end() && input_.current() == '[') input_.read_bracketed();
  if (input_.at_end()) return;
  const char opening = input_.current();
  const std::string_view rest = input_.rest();
  const std::size_t end = rest.find(opening == '{' ? '}' : opening, 1);
  if (end == std::string_view::npos || rest.substr(0, end).find('\n') != std::string_view::npos) return;
  put(rest.substr(1, end - 1));
  input_.advance(end + 1);
}

// \ifx compares two tokens: equal here if neither is a macro of the author's, or both have the same text.
void LatexReader::if_x() {
  const std::string left = input_.read_argument();
  const std::string right = input_.read_argument();
  const auto meaning = [this](const std::string& token) -> std::string {
    if (!token.starts_with('\\')) return token;
    const Macro* macro = macros_.find(token.substr(1));
    if (macro != nullptr) return "=" + macro->body;
    return find_command(token.substr(1)) != nullptr ? token : "";
  };
  if (meaning(left) != meaning(right)) input_.skip_branch();
}

// \@ifnextchar X{then}{else}, with \bgroup for a brace.
void LatexReader::if_next(const std::string& wanted) {
  std::string then = input_.read_argument();
  std::string otherwise = input_.read_argument();
  const char next = input_.skip_blank() ? input_.current() : '\0';
  const bool holds = wanted == "\\bgroup" ? next == '{' : wanted.size() == 1 && wanted.front() == next;
  input_.push(holds ? std::move(then) : std::move(otherwise));
}

// \newif\ifdraft: \drafttrue and \draftfalse say from then on what \ifdraft does.
void LatexReader::new_if() {
  const std::string name = input_.read_argument();
  if (!name.starts_with("\\if") || name.size() < 4) return;
  const std::string stem = name.substr(3);
  const auto define = [this](const std::string& macro_name, std::string body) {
    Macro macro;
    macro.body = std::move(body);
    macros_.set(macro_name, std::move(macro));
  };
  define("if" + stem, "\\iffalse ");
  define(stem + "true", "\\def\\if" + stem + "{\\iftrue }");
  define(stem + "false", "\\def\\if" + stem + "{\\iffalse }");
}

void LatexReader::bibitem() {
  auto label = input_.read_bracketed();
  const std::string key = input_.read_group().value_or("");
  std::string text = label.value_or("");
  if (const std::size_t start = text.find("\\citeauthoryear"); start != std::string::npos) {
    text.replace(start, 15, "\\citeauthoryearlabel");
    Macro macro;  // {all authors}{short authors}{year}
    macro.num_parameters = 3;
    macro.body = "#2(#3)";
    macros_.set("citeauthoryearlabel", std::move(macro));
  }
  references_.add_bibitem(key, text.empty() ? "" : without_marks(render(std::move(text))));
}

}  // namespace megatron_astro
