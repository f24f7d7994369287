#include <algorithm>

#include "../checks.h"
#include "reader.h"

namespace megatron_astro {

namespace {

constexpr std::size_t kMostOpenEnvironments = 1000;
constexpr std::size_t kFileSearchBytes = 64;  // what looking at one file name counts for
constexpr int kMostAbstractParts = 6;  // A&A: context, aims, methods, results, conclusions, and one that is often empty

bool is_hidden_kind(EnvironmentKind kind) {
  return kind == EnvironmentKind::dropped || kind == EnvironmentKind::hidden || kind == EnvironmentKind::bibliography;
}

bool starts_with_class(std::string_view document_class) {
  if (document_class == "aa") return true;
  return document_class.starts_with("aa_") || document_class.starts_with("aa-") || document_class.starts_with("aa.");
}

std::string stem_of(std::string name) {
  const std::size_t start = name.find_first_not_of(" \t\n\"");
  if (start == std::string::npos) return {};
  name = name.substr(start, name.find_last_not_of(" \t\n\"") - start + 1);
  while (name.starts_with("./")) name.erase(0, 2);
  return name;
}

}  // namespace

void LatexReader::begin_part(LatexPart part, int level, std::string heading) {
  if (!in_body_ && part != LatexPart::abstract) return;
  sections_.emplace_back();
  sections_.back().part = part;
  sections_.back().level = level;
  sections_.back().heading = std::move(heading);
  current_ = sections_.size() - 1;
}

// A heading where a figure or table should have ended: its \end is missing.
void LatexReader::leave_floats() {
  if (maths()) close_maths();
  while (!environments_.empty() && environments_.back().kind == EnvironmentKind::dropped) close_environment(environments_.size() - 1);
}

void LatexReader::section(int level) {
  const bool star = input_.skip_star();
  input_.read_bracketed();
  auto heading = input_.read_group();
  if (render_depth_ > 0 || !heading) return;
  leave_floats();
  if (hidden()) return;
  if (!star) references_.step_section(level);
  std::string rendered = render(std::move(*heading));
  begin_part(in_appendix_ ? LatexPart::appendix : LatexPart::section, level, std::move(rendered));
}

// \paragraph{Heading} stays in the text.
void LatexReader::heading_in_line() {
  input_.skip_star();
  input_.read_bracketed();
  auto heading = input_.read_group();
  paragraph();
  if (heading) input_.push(std::move(*heading) + " ");
}

void LatexReader::back_matter(std::string_view heading) {
  if (hidden() || render_depth_ > 0) return;
  begin_part(LatexPart::section, 1, std::string(heading));
}

void LatexReader::title() {
  input_.read_bracketed();
  auto text = input_.read_group();
  if (text && paper_.title.empty() && render_depth_ == 0) paper_.title = render(std::move(*text));
}

// \abstract{...}; of class aa with up to six arguments.
void LatexReader::abstract_command() {
  if (render_depth_ > 0 || !input_.at_group()) return;
  const std::size_t before = current_;
  const bool structured = starts_with_class(paper_.document_class);
  std::vector<std::string> parts;
  while (parts.size() < (structured ? kMostAbstractParts : 1) && input_.at_group()) {
    auto part = input_.read_group();
    if (!part) break;
    std::string text = render(std::move(*part));
    if (!text.empty()) parts.push_back(std::move(text));
  }
  begin_part(LatexPart::abstract, 1, "");
  for (const std::string& part : parts) {
    sections_[current_].writer.put(part);
    sections_[current_].writer.space();
  }
  current_ = before;
}

void LatexReader::caption() {
  if (render_depth_ == 0) {
    const auto around = std::find_if(environments_.rbegin(), environments_.rend(),
                                     [](const Environment& open) { return open.kind == EnvironmentKind::dropped; });
    const bool table = around != environments_.rend() && around->name.find("tab") != std::string::npos;
    references_.step(table ? "Table" : "Figure");
  }
  if (!hidden()) input_.skip_specified("*om");
}

void LatexReader::begin_environment() {
  const std::string name = input_.read_group().value_or("");
  if (const Macro* macro = macros_.find("begin " + name); macro != nullptr) {
    require(environments_.size() < kMostOpenEnvironments, "it nests more than ", kMostOpenEnvironments, " environments");
    environments_.push_back({.name = name});
    return expand(*macro, "begin " + name);
  }
  const EnvironmentRule rule = find_environment(name);
  const bool structural = is_hidden_kind(rule.kind) && rule.kind != EnvironmentKind::dropped;
  if (maths() && !structural) {
    if (hidden()) return;
    writer().put_command("begin");
    return writer().put("{" + name + "}");
  }
  if (maths()) close_maths();
  enter_environment(name, rule);
}

void LatexReader::enter_environment(const std::string& name, const EnvironmentRule& rule) {
  using enum EnvironmentKind;
  if (rule.kind == raw) return skip_raw(name);
  if (rule.kind == maths) {
    if (!name.ends_with('*') && name != "displaymath") references_.step("Equation");
    return open_maths(true, "\\begin{" + name + "}", "\\end{" + name + "}");
  }
  if (rule.kind == inline_maths) return open_maths(false, "$", "\\end{" + name + "}");
  if (rule.kind == document && !in_body_) {
    in_body_ = true;
    sections_.emplace_back();
    current_ = sections_.size() - 1;
    return;
  }
  input_.skip_specified(rule.specification);
  require(environments_.size() < kMostOpenEnvironments, "it nests more than ", kMostOpenEnvironments, " environments");
  environments_.push_back({.name = name, .kind = rule.kind, .section = current_});
  if (is_hidden_kind(rule.kind)) ++num_hidden_;
  if (rule.kind == EnvironmentKind::abstract && num_hidden_ == 0 && render_depth_ == 0) begin_part(LatexPart::abstract, 1, "");
  if (rule.kind == EnvironmentKind::appendix) in_appendix_ = true, references_.begin_appendix();
  paragraph();
}

void LatexReader::skip_raw(const std::string& name) {
  if (input_.at_end()) return;
  const std::string closing = "\\end{" + name + "}";
  const std::size_t end = input_.rest().find(closing);
  input_.spend(std::min(end, input_.rest().size()));
  input_.advance(end == std::string_view::npos ? input_.rest().size() : end + closing.size());
}

void LatexReader::end_environment() {
  const std::string name = input_.read_group().value_or("");
  if (name == "document") return end_document();
  if (closes_maths("\\end{" + name + "}")) return close_maths();
  const auto open = std::find_if(environments_.rbegin(), environments_.rend(), [&](const Environment& e) { return e.name == name; });
  if (open == environments_.rend()) {
    if (!maths() || hidden()) return;
    writer().put_command("end");
    return writer().put("{" + name + "}");
  }
  const Macro* macro = macros_.find("end " + name);
  if (macro != nullptr) {
    environments_.erase(std::next(open).base());
    return expand(*macro, "end " + name);
  }
  if (maths()) close_maths();
  close_environment(static_cast<std::size_t>(std::distance(open, environments_.rend())) - 1);
}

// Close the environment at that position and those left open inside it.
void LatexReader::close_environment(std::size_t position) {
  while (environments_.size() > position) {
    const Environment closed = std::move(environments_.back());
    environments_.pop_back();
    if (is_hidden_kind(closed.kind) && num_hidden_ > 0) --num_hidden_;
    if (closed.kind == EnvironmentKind::abstract && render_depth_ == 0) current_ = closed.section;
    if (closed.kind == EnvironmentKind::appendix) in_appendix_ = false;
  }
  paragraph();
}

void LatexReader::end_document() {
  if (input_.in_nested_file()) return input_.pop_file();
  input_.stop();
}

const std::string* LatexReader::find_file(std::string name, std::string_view extension, std::string& found) const {
  name = stem_of(std::move(name));
  for (const std::string& candidate : {name, name + std::string(extension)}) {
    if (const auto file = files_.find(candidate); file != files_.end()) {
      found = candidate;
      return &file->second;
    }
  }
  if (name.empty()) return nullptr;
  const std::string ending = "/" + name + std::string(extension);  // the paper's own search path is not known: any folder will do
  const std::string* best = nullptr;
  for (const auto& [path, text] : files_) {
    if (path.ends_with(ending) && (best == nullptr || path < found)) best = &text, found = path;
  }
  return best;
}

void LatexReader::open_file(const std::string& name) {
  std::string found;
  input_.spend(files_.size() * kFileSearchBytes);
  const std::string* text = find_file(name, ".tex", found);
  if (text == nullptr) {
    if (paper_.missing_files.size() < 100) paper_.missing_files.push_back(name.substr(0, 200));
    return;
  }
  if (input_.depth() > 100 || input_.is_open(found)) return;
  const auto entry = files_.find(found);
  const std::string_view begin = "\\begin{document}";
  const std::size_t body = text->find("\\documentclass") == std::string::npos ? std::string::npos : text->find(begin);
  input_.push_file(entry->first, *text);
  if (body != std::string::npos) input_.advance(body + begin.size());  // a subfile brings a preamble of its own
}

// \input{name} or \input name
void LatexReader::input_file() {
  if (!input_.skip_blank()) return;
  if (input_.current() == '{') return open_file(input_.read_group().value_or(""));
  const std::string_view rest = input_.rest();
  const std::size_t end = std::min(rest.find_first_of(" \t\n\\%{}"), rest.size());
  const std::string name(rest.substr(0, end));
  input_.advance(end);
  if (!name.empty()) open_file(name);
}

void LatexReader::import_file() {
  const std::string folder = stem_of(input_.read_argument());
  const std::string name = stem_of(input_.read_argument());
  open_file(folder.empty() || folder.ends_with('/') ? folder + name : folder + "/" + name);
}

// The compiled bibliography (.bbl) has the labels of citations; papers ship it under their own name.
void LatexReader::bibliography() {
  input_.read_group();
  input_.spend(files_.size() * kFileSearchBytes);
  const auto compiled = std::min_element(files_.begin(), files_.end(), [](const auto& left, const auto& right) {
    const bool left_is = left.first.ends_with(".bbl");
    const bool right_is = right.first.ends_with(".bbl");
    return left_is != right_is ? left_is : left.first < right.first;
  });
  if (compiled->first.ends_with(".bbl") && !input_.is_open(compiled->first) && input_.depth() < 100) {
    input_.push_file(compiled->first, compiled->second);
  }
}

// A style file that came with the paper holds macros of its author.
void LatexReader::package() {
  input_.read_bracketed();
  const std::string name = input_.read_argument();
  input_.read_bracketed();
  std::string found;
  input_.spend(files_.size() * kFileSearchBytes);
  const std::string* text = find_file(name + ".sty", "", found);
  if (text == nullptr || input_.is_open(found) || in_body_) return;
  input_.push("\\makeatother ");
  input_.push_file(files_.find(found)->first, *text);
  input_.push("\\makeatletter ");
}

}  // namespace megatron_astro
