// megatron_astro._corpus: source files of one paper in, its title and sections out. The GIL is released while a paper is read.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>

#include "../checks.h"
#include "latex.h"

namespace py = pybind11;
namespace ma = megatron_astro;

namespace {

ma::LatexPaper read_latex(const std::string& main_name, const std::map<std::string, py::bytes>& files, bool keep_citations,
                          int64_t max_expansions, int64_t max_work_bytes) {
  ma::require(max_expansions > 0 && max_work_bytes > 0, "max_expansions and max_work_bytes are ", max_expansions, " and ", max_work_bytes,
              "; give positive numbers");
  ma::LatexFiles sources;
  for (const auto& [name, content] : files) sources.emplace(name, std::string(content));
  const py::gil_scoped_release release;
  return ma::read_latex(main_name, std::move(sources), {keep_citations, max_expansions, max_work_bytes});
}

const char* part_name(const ma::LatexSection& section) {
  constexpr const char* names[] = {"front", "abstract", "section", "appendix"};
  return names[static_cast<int>(section.part)];
}

}  // namespace

PYBIND11_MODULE(_corpus, module) {
  module.doc() = "LaTeX papers read in one pass within bounds; signatures and meaning in _corpus.pyi.";
  py::class_<ma::LatexSection>(module, "LatexSection")
      .def_property_readonly("part", &part_name)
      .def_readonly("level", &ma::LatexSection::level)
      .def_readonly("heading", &ma::LatexSection::heading)
      .def_readonly("text", &ma::LatexSection::text);
  py::class_<ma::LatexPaper>(module, "LatexPaper")
      .def_readonly("title", &ma::LatexPaper::title)
      .def_readonly("document_class", &ma::LatexPaper::document_class)
      .def_readonly("sections", &ma::LatexPaper::sections)
      .def_readonly("missing_files", &ma::LatexPaper::missing_files)
      .def_readonly("num_macros", &ma::LatexPaper::num_macros)
      .def_readonly("num_expansions", &ma::LatexPaper::num_expansions)
      .def_readonly("num_refused_expansions", &ma::LatexPaper::num_refused_expansions);
  module.def("read_latex", &read_latex, py::arg("main_name"), py::arg("files"), py::kw_only(), py::arg("keep_citations"),
             py::arg("max_expansions"), py::arg("max_work_bytes"));
}
