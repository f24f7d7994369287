// The LaTeX reader of megatron_astro._corpus, free of Python: source files in, sections of clean text out. It throws on a paper that asks
// for more work than its budget and on nothing else: what it does not know it leaves out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace megatron_astro {

using LatexFiles = std::unordered_map<std::string, std::string>;  // name inside the paper's folder -> contents

struct LatexOptions {
  bool keep_citations = true;
  int64_t max_expansions = 0;   // of macros
  int64_t max_work_bytes = 0;   // bytes that expansion and the search for arguments may handle
};

enum class LatexPart { front, abstract, section, appendix };

struct LatexSection {
  LatexPart part = LatexPart::front;
  int level = 1;  // 0 chapter, 1 section, 2 subsection, 3 subsubsection
  std::string heading;
  std::string text;
};

struct LatexPaper {
  std::string title;
  std::string document_class;
  std::vector<LatexSection> sections;
  std::vector<std::string> missing_files;
  int64_t num_macros = 0;
  int64_t num_expansions = 0;
  int64_t num_refused_expansions = 0;
};

// reader.cpp
LatexPaper read_latex(const std::string& main_name, LatexFiles files, const LatexOptions& options);

// encoding.cpp: UTF-8 as it is, anything else taken for Windows-1252; line ends become \n, other control characters go.
std::string to_utf8(std::string_view bytes);

}  // namespace megatron_astro
