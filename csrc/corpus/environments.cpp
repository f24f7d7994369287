#include <unordered_map>

#include "commands.h"

namespace megatron_astro {

namespace {

using Environments = std::unordered_map<std::string_view, EnvironmentRule>;

Environments build_environments() {
  using enum EnvironmentKind;
  Environments rules;
  const auto add = [&rules](EnvironmentKind kind, std::string_view specification, std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) rules[name] = {kind, specification};
  };
  add(dropped, "", {"figure", "table", "tabular", "tabularx", "tabulary", "longtable", "deluxetable", "sidewaystable", "sidewaysfigure",
                    "wrapfigure", "wraptable", "SCfigure", "marginfigure", "subfigure", "supertabular", "xtabular", "longtab",
                    "algorithm", "algorithmic", "algorithm2e", "rotatetable", "planotable", "splitdeluxetable", "picture", "pspicture",
                    "overpic", "floatingfigure", "SCtable", "landscape", "listing", "program", "tabbing", "ruledtabular", "tablenotes",
                    "interactive", "figurehere", "extfigure"});
  add(hidden, "", {"acknowledgements", "acknowledgments", "acknowledgement", "acknowledgment", "acks", "ack", "keywords", "keyword",
                   "IEEEkeywords", "CCSXML", "highlights", "contributions", "affiliations", "authorlist", "dataavailability",
                   "authorcontributions", "competinginterests", "funding", "titlenotes", "references", "AMS", "PACS", "pacs"});
  add(raw, "", {"comment", "verbatim", "Verbatim", "BVerbatim", "lstlisting", "minted", "alltt", "tikzpicture", "pgfpicture", "code",
                "filecontents", "rawhtml", "python", "pycode", "luacode", "LTXexample", "asy", "shell", "bash", "feynman"});
  add(maths, "", {"equation", "align", "eqnarray", "gather", "multline", "displaymath", "flalign", "dmath", "IEEEeqnarray", "alignat",
                  "empheq", "xalignat", "subeqnarray"});
  add(inline_maths, "", {"math"});
  add(bullets, "o", {"itemize", "compactitem", "trivlist"});
  add(bullets, "mm", {"list"});
  add(numbers, "o", {"enumerate", "compactenum", "inparaenum"});
  add(descriptions, "o", {"description", "compactdesc"});
  add(abstract, "o", {"abstract", "resume", "onecolabstract"});
  add(EnvironmentKind::appendix, "", {"appendix", "appendices", "subappendices"});
  add(document, "", {"document"});
  add(EnvironmentKind::bibliography, "m", {"thebibliography"});
  add(text, "om", {"minipage", "adjustbox", "tcolorbox"});
  add(text, "m", {"multicols", "spacing", "singlespacing", "otherlanguage", "fmffile"});
  add(text, "mm", {"adjustwidth", "addmargin"});
  add(text, "omm", {"CJK"});
  return rules;
}

const Environments& environments() {
  static const Environments rules = build_environments();
  return rules;
}

std::string_view without_star(std::string_view name) { return name.ends_with('*') ? name.substr(0, name.size() - 1) : name; }

}  // namespace

EnvironmentRule find_environment(std::string_view name) {
  const auto found = environments().find(without_star(name));
  return found == environments().end() ? EnvironmentRule{} : found->second;
}

bool is_known_environment(std::string_view name) { return environments().contains(without_star(name)); }

}  // namespace megatron_astro
