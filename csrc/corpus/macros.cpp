#include "macros.h"

#include "commands.h"

namespace megatron_astro {

namespace {

constexpr int kMostParameters = 9;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool ends_with_control_word(std::string_view text) {
  std::size_t i = text.size();
  while (i > 0 && is_letter(text[i - 1])) --i;
  return i < text.size() && i > 0 && text[i - 1] == '\\';
}

bool holds_command(std::string_view text, const std::string& name) {
  const std::string command = "\\" + name;
  for (std::size_t i = text.find(command); i != std::string_view::npos; i = text.find(command, i + 1)) {
    const std::size_t end = i + command.size();
    if (end == text.size() || !is_letter(text[end])) return true;
  }
  return false;
}

// Where the parameters of \def\name#1,#2. stand: the texts before, between and after them.
std::vector<std::string> parse_delimiters(std::string_view parameters) {
  std::vector<std::string> delimiters(1);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i] == '#' && i + 1 < parameters.size()) {
      delimiters.emplace_back();
      ++i;
    } else {
      delimiters.back() += parameters[i];
    }
  }
  return delimiters;
}

std::string substitute(std::string_view body, const std::vector<std::string>& arguments, Input& input) {
  std::string text;
  text.reserve(body.size());
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '#' || i + 1 == body.size()) {
      text += body[i];
      continue;
    }
    const char next = body[++i];
    const auto number = static_cast<std::size_t>(next - '1');
    if (next == '#') {
      text += '#';
    } else if (next >= '1' && number < arguments.size()) {
      const std::string& argument = arguments[number];
      input.spend(argument.size());
      if (!argument.empty() && is_letter(argument.front()) && ends_with_control_word(text)) text += ' ';
      text += argument;
    }
  }
  return text;
}

// The name in \newcommand{\name} or \newcommand\name; empty if there is none.
std::string read_defined_name(Input& input) {
  std::string name = input.read_argument();
  const std::size_t start = name.find('\\');
  if (start == std::string::npos) return {};
  name.erase(0, start + 1);
  while (name.size() > 1 && (name.back() == ' ' || name.back() == '\n')) name.pop_back();
  return name;
}

int read_num_parameters(Input& input) {
  const auto digits = input.read_bracketed();
  return digits && digits->size() == 1 && digits->front() >= '0' && digits->front() <= '0' + kMostParameters ? digits->front() - '0' : 0;
}

}  // namespace

const Macro* Macros::find(const std::string& name) const {
  const auto found = macros_.find(name);
  return found == macros_.end() ? nullptr : &found->second;
}

// What the reader handles itself is not redefined: a document's own \section still begins a section.
void Macros::set(const std::string& name, Macro macro) {
  const Command* known = find_command(name);
  if (name.empty() || (known != nullptr && !known->author_may_redefine)) return;
  macros_[name] = std::move(macro);
}

void Macros::read_new_command(Input& input, bool keep_existing) {
  input.skip_star();
  const std::string name = read_defined_name(input);
  Macro macro;
  macro.num_parameters = read_num_parameters(input);
  if (macro.num_parameters > 0) macro.first_default = input.read_bracketed();
  macro.body = input.read_argument();
  macro.at_is_letter = input.at_is_letter;
  if (!keep_existing || (find(name) == nullptr && find_command(name) == nullptr)) set(name, std::move(macro));
}

void Macros::read_definition(Input& input) {
  if (!input.skip_blank() || input.current() != '\\') return;
  input.advance(1);
  const std::string name = input.read_name();
  const std::size_t end = input.at_end() ? std::string_view::npos : input.rest().find_first_of("{}");
  if (end == std::string_view::npos || end > 200) return;
  Macro macro;
  macro.delimiters = parse_delimiters(input.rest().substr(0, end));
  macro.num_parameters = static_cast<int>(macro.delimiters.size()) - 1;
  input.advance(end);
  auto body = input.read_group();
  const bool calls_itself = body && macro.num_parameters == 0 && holds_command(*body, name);  // an \edef
  if (!body || calls_itself || macro.num_parameters > kMostParameters) return;
  macro.body = std::move(*body);
  macro.at_is_letter = input.at_is_letter;
  set(name, std::move(macro));
}

void Macros::read_let(Input& input) {
  if (!input.skip_blank() || input.current() != '\\') return;
  input.advance(1);
  const std::string name = input.read_name();
  input.skip_space_after_name();
  if (!input.at_end() && input.current() == '=') input.advance(1);
  Macro macro;
  const std::string target = input.read_argument();
  if (!target.starts_with('\\')) {
    macro.body = target;
  } else if (const Macro* existing = find(target.substr(1)); existing != nullptr) {
    macro = *existing;
  } else {
    macro.alias_of = target.substr(1);
  }
  input.spend(macro.body.size());
  if (macro.alias_of != name) set(name, std::move(macro));
}

void Macros::read_operator_name(Input& input) {
  const bool star = input.skip_star();
  const std::string name = read_defined_name(input);
  Macro macro;
  macro.body = std::string(star ? "\\operatorname*{" : "\\operatorname{") + input.read_argument() + "}";
  set(name, std::move(macro));
}

std::string Macros::read_environment(Input& input) {
  input.skip_star();
  const std::string name = input.read_argument();
  Macro begin;
  Macro end;
  begin.num_parameters = read_num_parameters(input);
  if (begin.num_parameters > 0) begin.first_default = input.read_bracketed();
  begin.body = input.read_argument();
  end.body = input.read_argument();
  if (!is_known_environment(name)) {
    set("begin " + name, std::move(begin));  // a name with a space: no author can write it
    set("end " + name, std::move(end));
  }
  return name;
}

std::optional<std::string> Macros::expand(const Macro& macro, Input& input) {
  std::vector<std::string> arguments;
  arguments.reserve(static_cast<std::size_t>(macro.num_parameters));
  if (!macro.delimiters.empty() && !macro.delimiters.front().empty()) {
    if (!input.read_until(macro.delimiters.front())) return std::nullopt;
  }
  for (int i = 0; i < macro.num_parameters; ++i) {
    const std::string* delimiter = macro.delimiters.empty() ? nullptr : &macro.delimiters[static_cast<std::size_t>(i) + 1];
    if (i == 0 && macro.first_default) {
      arguments.push_back(input.read_bracketed().value_or(*macro.first_default));
    } else if (delimiter != nullptr && !delimiter->empty()) {
      auto argument = input.read_until(*delimiter);
      if (!argument) return std::nullopt;
      arguments.push_back(std::move(*argument));
    } else {
      arguments.push_back(input.read_argument());
    }
  }
  input.spend(macro.body.size());
  return substitute(macro.body, arguments, input);
}

}  // namespace megatron_astro
