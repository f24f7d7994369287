// What is still to be read: a stack of texts (the main file, files it inputs, expanded macros), and the reading of arguments from it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

namespace megatron_astro {

class Input {
 public:
  explicit Input(int64_t max_work_bytes) : max_work_bytes_(max_work_bytes) {}

  void push(std::string text, bool at_letter = false);
  void push_file(std::string_view name, std::string_view text);
  void push_barrier(std::string text);  // at_end() holds at its end, until pop_barrier()
  void pop_barrier();
  void pop_file();  // the rest of the innermost file
  void stop();      // everything up to the innermost barrier

  bool at_end();
  char current() const { return frames_.back().text[frames_.back().position]; }
  char after(std::size_t distance) const;
  void advance(std::size_t count) { frames_.back().position += count; }
  std::string_view rest() const { return frames_.back().text.substr(frames_.back().position); }
  std::size_t depth() const { return frames_.size(); }
  bool in_nested_file() const;
  bool is_open(std::string_view file) const;

  void spend(std::size_t bytes);  // throws std::invalid_argument when the paper has spent its budget

  std::string read_name();        // after a backslash: a control word or one character
  void skip_space_after_name();
  bool skip_blank();              // white space and comments, not the end of a paragraph; false: nothing follows
  bool skip_past_newline();       // at a newline: skip it and the white space that follows; true: a paragraph ends
  bool skip_comment();            // at a %; true: an empty line follows
  bool skip_star();
  bool at_group();                // is a braced argument next
  std::optional<std::string> read_group();           // {...} without its braces and comments; none if there is none
  std::optional<std::string> read_verbatim_group();  // the same, with % an ordinary character
  std::optional<std::string> read_bracketed();       // [...]
  std::string read_argument();                       // a group, a command or a character, as a macro takes it
  std::optional<std::string> read_until(std::string_view delimiter);
  void skip_specified(std::string_view specification);
  bool skip_branch();             // past \else (true) or \fi (false) of the conditional being read
  void skip_dimension();

  bool at_is_letter = false;

 private:
  struct Frame {
    std::string owned;
    std::string_view text;
    std::size_t position = 0;
    std::string_view file;
    bool barrier = false;
    bool at_is_letter = false;
  };

  std::optional<std::string> read_balanced(char open, char close, bool comments);
  bool is_letter(char c) const;

  std::deque<Frame> frames_;  // a deque: a frame that owns its text must not move
  int64_t work_bytes_ = 0;
  int64_t max_work_bytes_;
};

}  // namespace megatron_astro
