// One pass over a paper: characters and commands in, sections of text out. reader.cpp has the loop and the text, reader_commands.cpp what
// commands do, reader_structure.cpp sections, environments and files, reader_maths.cpp mathematics.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "input.h"
#include "latex.h"
#include "macros.h"
#include "references.h"
#include "writer.h"

namespace megatron_astro {

class LatexReader {
 public:
  LatexReader(const LatexFiles& files, const LatexOptions& options) : files_(files), options_(options), input_(options.max_work_bytes) {}

  LatexPaper read(const std::string& main_name);

 private:
  enum class Mode { text, inline_maths, display_maths, text_in_maths };

  struct Environment {
    std::string name;
    EnvironmentKind kind = EnvironmentKind::text;
    int num_items = 0;
    std::size_t section = 0;  // where the text went on before an abstract
  };

  struct OpenSection {
    LatexPart part = LatexPart::front;
    int level = 1;
    std::string heading;
    Writer writer;
  };

  // reader.cpp
  void run();
  void step_text();
  void step_special(char c);
  void quote_or_dash(char c);
  void command();
  void expand(const Macro& macro, const std::string& name);
  void unknown_command(const std::string& name);
  std::string render(std::string source);
  bool maths() const { return mode_ != Mode::text; }
  bool hidden() const { return num_hidden_ > 0 || !in_body_; }
  void put(std::string_view piece);
  void space();
  void paragraph();
  Writer& writer() { return redirected_ != nullptr ? *redirected_ : sections_[current_].writer; }

  // reader_commands.cpp
  void act(const Command& known, const std::string& name);
  bool act_on_structure(Action action, const Command& known, const std::string& name);
  bool act_on_definitions(Action action, const Command& known);
  bool act_on_conditionals(Action action);
  bool act_on_text(Action action, const Command& known, const std::string& name);
  void accent(std::string_view mark);
  void item();
  void citation(char style);
  void url();
  void xspace();
  void verb();
  void if_x();
  void if_next(const std::string& wanted);
  void new_if();
  void bibitem();

  // reader_structure.cpp
  void section(int level);
  void heading_in_line();
  void begin_part(LatexPart part, int level, std::string heading);
  void back_matter(std::string_view heading);
  void title();
  void abstract_command();
  void begin_environment();
  void end_environment();
  void open_environment(const std::string& name);
  void close_environment(std::size_t position);
  void enter_environment(const std::string& name, const EnvironmentRule& rule);
  void skip_raw(const std::string& name);
  void leave_floats();
  void caption();
  void input_file();
  void import_file();
  void bibliography();
  void package();
  void end_document();
  const std::string* find_file(std::string name, std::string_view extension, std::string& found) const;
  void open_file(const std::string& name);

  // reader_maths.cpp
  void step_maths();
  void dollar();
  void open_maths(bool display, std::string_view opening, std::string_view closing);
  void close_maths();
  void text_in_maths(const std::string& name);
  void maths_newline();
  bool closes_maths(std::string_view delimiter) const { return maths() && mode_ != Mode::text_in_maths && closing_ == delimiter; }

  const LatexFiles& files_;
  const LatexOptions& options_;
  Input input_;
  Macros macros_;
  References references_;
  LatexPaper paper_;
  std::vector<OpenSection> sections_;
  std::size_t current_ = 0;
  std::vector<Environment> environments_;
  Writer* redirected_ = nullptr;
  Mode mode_ = Mode::text;
  std::string closing_;  // what ends the mathematics being read
  int num_hidden_ = 0;   // environments around here whose content goes
  int render_depth_ = 0;
  bool in_body_ = false;
  bool in_appendix_ = false;
};

}  // namespace megatron_astro
