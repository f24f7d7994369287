// Macros an author defined, and their expansion.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "input.h"

namespace megatron_astro {

struct Macro {
  int num_parameters = 0;
  std::optional<std::string> first_default;  // the first argument is optional
  std::vector<std::string> delimiters;       // num_parameters + 1 texts around the arguments; empty: none
  std::string body;
  bool at_is_letter = false;                 // in the body, as where it was defined
  std::string alias_of;                      // \let to a command of the reader
};

class Macros {
 public:
  const Macro* find(const std::string& name) const;
  std::size_t size() const { return macros_.size(); }

  void read_new_command(Input& input, bool keep_existing);
  void read_definition(Input& input);     // \def
  void read_let(Input& input);
  void read_operator_name(Input& input);
  std::string read_environment(Input& input);  // \newenvironment; its name
  void set(const std::string& name, Macro macro);

  // The macro's text with its arguments in place; none if the arguments are not there.
  static std::optional<std::string> expand(const Macro& macro, Input& input);

 private:
  std::unordered_map<std::string, Macro> macros_;
};

}  // namespace megatron_astro
