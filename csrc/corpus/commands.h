// What the reader knows of LaTeX: commands, symbols, accents and environments. What is in no table is a formatting command: it goes and
// its arguments stay.
#pragma once

#include <string_view>

namespace megatron_astro {

enum class Action {
  skip,         // the command and the arguments of its specification (input.h) go
  skip_in_text, // the same, but in mathematics it is kept as written
  symbol,       // stands for the text of its specification; in mathematics kept as written
  accent,       // the combining character of its specification goes on the letter that follows
  section, appendix, back_matter, title, abstract, document_class, caption, item, paragraph_heading,
  begin, end, input, import, bibliography, package, endinput, bibitem, citation, reference, label,
  new_command, new_environment, define, let, operator_name, new_if, conditional, if_false, if_true, if_x, if_maths, if_then_else,
  if_next, if_star,
  else_branch, csname, at_letter, at_other, ensure_maths, xspace, text_in_maths, verb, url, paragraph, line_break, dimension,
  open_maths, close_maths, tex_or_pdf,
};

struct Command {
  Action action = Action::skip;
  std::string_view specification;  // see Action; the level of a section, the style of a citation or reference
  bool author_may_redefine = false;
};

enum class EnvironmentKind {
  text,      // its content stays; the specification is what to skip at its beginning
  dropped,   // its content goes; a section heading inside means that its end is missing
  hidden,    // its content goes whatever is in it
  raw,       // its content goes without being read as LaTeX
  maths, inline_maths, bullets, numbers, descriptions, abstract, appendix, document, bibliography,
};

struct EnvironmentRule {
  EnvironmentKind kind = EnvironmentKind::text;
  std::string_view specification;
};

const Command* find_command(std::string_view name);               // null: not known
EnvironmentRule find_environment(std::string_view name);          // a final * is looked through
bool is_known_environment(std::string_view name);

}  // namespace megatron_astro
