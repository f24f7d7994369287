// Numbers of sections, equations, figures and tables, and the labels of a bibliography. A reference may come before what it names, so it is
// written as a mark (in control characters, which no source text holds) and resolved when the whole paper has been read.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>

namespace megatron_astro {

class References {
 public:
  static constexpr int kNumLevels = 4;

  void step_section(int level);
  void begin_appendix();
  void step(const std::string& kind);  // Figure, Table, Equation
  void set_label(const std::string& key);
  void add_bibitem(const std::string& key, const std::string& label);

  // Marks: style n number, e (number), k kind and number; t, p, b, a, y as the citations of commands.cpp.
  static std::string reference_mark(char style, std::string_view keys);
  static std::string citation_mark(char style, std::string_view keys, std::string_view before, std::string_view after);
  std::string resolve(std::string_view text) const;

 private:
  struct Label {
    std::string kind;
    std::string number;
  };
  struct Item {
    std::string authors;
    std::string year;
  };

  std::string reference(char style, std::string_view keys) const;
  std::string citation(char style, std::string_view keys, std::string_view before, std::string_view after) const;
  std::string cited(char style, std::string_view key) const;

  std::array<int, kNumLevels> section_{};
  std::unordered_map<std::string, int> counters_;
  bool in_appendix_ = false;
  Label current_;
  std::unordered_map<std::string, Label> labels_;
  std::unordered_map<std::string, Item> items_;
};

}  // namespace megatron_astro
