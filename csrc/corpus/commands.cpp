#include "commands.h"

#include <algorithm>
#include <unordered_map>

namespace megatron_astro {

namespace {

using Commands = std::unordered_map<std::string_view, Command>;

void add(Commands& commands, Action action, std::string_view specification, std::string_view names, bool author_may_redefine = false) {
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(' '), names.size());
    commands[names.substr(0, end)] = {action, specification, author_may_redefine};
    names.remove_prefix(std::min(end + 1, names.size()));
  }
}

void add_skipped(Commands& commands) {
  add(commands, Action::skip, "m",
      "thispagestyle pagestyle pagenumbering bibliographystyle nocite email ead homepage urladdr submitted received revised accepted "
      "date keywords pacs preprint shorttitle shortauthor shortauthors titlerunning authorrunning slugcomment offprints offprint journal "
      "journalinfo pubyear lefthead righthead leftheadtext correspondingauthor collaboration nocollaboration "
      "altaffilmark orcidlink orcid aiOrcid orcidauthor jid jnlcitation cpright slugger hyphenation index glossary "
      "graphicspath DeclareGraphicsExtensions usetikzlibrary pgfplotsset hypersetup lstset sisetup captionsetup "
      "AtBeginDocument AtEndDocument linespread setstretch "
      "arabic roman Roman alph Alph fnsymbol software facility facilities "
      "newcounter refstepcounter stepcounter usecounter newlength newsavebox usebox newdimen newcount newskip newbox newtoks newwrite "
      "phantom hphantom vphantom subjectheadings subjclass copyrightyear doi DOI pubdate "
      "authorcontributions funding conflictsofinterest institutionalreview informedconsent dataavailability firstpage "
      "lastpage articlenumber externaleditor datereceived dateaccepted datepublished subtitle dedicated tracingmacros watermark "
      "addbibresource titlenote subtitlenote authornote authornotemark marginnote sidenote nodetext setdefaultlanguage "
      "setmainfont setcitestyle shorthandoff shorthandon authoremail authoraddr thispagestyle correspondence corref cortext fntext "
      "fnref tnotetext tnoteref nonumnote reportnum PACS MSC JEL CDS institute offprintsname "
      "svnInfo svnidlong rcsInfo");
  add(commands, Action::skip, "o", "pagebreak nopagebreak linebreak nolinebreak listoftodos");
  add(commands, Action::skip, "*m", "vspace hspace addvspace enlargethispage");
  add(commands, Action::skip, "mm",
      "altaffiltext setcounter addtocounter addtolength setlength settowidth settoheight settodepth addtocontents sbox fontsize "
      "numberwithin counterwithin colorlet pagerange "
      "newsubfloat labelformat DeclareUnicodeCharacter captionof "
      "newfloat setkeys SetWatermarkText");
  add(commands, Action::skip, "mmm", "addcontentsline definecolor DeclareFontFamily doiinfo");
  add(commands, Action::skip, "mmmm", "DeclareSymbolFont DeclareMathSymbol");
  add(commands, Action::skip, "mmmmm", "patchcmd xpatchcmd DeclareMathAlphabet SetMathAlphabet SetSymbolFont DeclareFontShape");
  add(commands, Action::skip, "om",
      "author affil affiliation address altaffiliation institution thanks footnote footnotetext endnote todo marginpar "
      "includepdf missingfigure listofchanges authors degrees affiliations correspondingemail "
      "institutional floatstyle restylefloat orgdiv orgname orgaddress "
      "runauthor runtitle equalcont setlist tikzset tcbset mdfsetup fnmark");
  add(commands, Action::skip, "*oom", "includegraphics epsfig psfig plotone epsffile epsfbox BoxedEPSF");
  add(commands, Action::skip, "om", "inst city country state postcode street", true);
  add(commands, Action::skip, "m", "volume issue year value", true);
  add(commands, Action::skip, "mm", "plottwo");
  add(commands, Action::skip, "mmmmmmm", "plotfiddle");
  add(commands, Action::skip, "*m", "titlespacing captionsetup");
  add(commands, Action::skip, "omm", "rotatebox scalebox savebox");
  add(commands, Action::skip, "mom", "newcolumntype");
  add(commands, Action::skip, "*momo", "newtheorem");
  add(commands, Action::skip, "*mommmm", "titleformat");
  add(commands, Action::skip, "oo", "makebox framebox");
  add(commands, Action::skip, "oom", "parbox");
  add(commands, Action::skip, "moo", "raisebox");
  add(commands, Action::skip, "om", "textcolor color pagecolor");
  add(commands, Action::skip, "omm", "rule");
  add(commands, Action::skip, "o", "footnotemark tnotemark");
  add(commands, Action::skip, "m", "colorbox hypertarget hyperlink foreignlanguage selectlanguage ptsize");
  add(commands, Action::skip, "o", "hyperref");
  add(commands, Action::skip, "m", "cline cmidrule bibinfo bibfield markright");
  add(commands, Action::skip, "mm", "markboth fcolorbox");
  add(commands, Action::skip, "v", "href");
  add(commands, Action::skip, "", "nonumber notag allowbreak protect relax leavevmode hfill");
}

void add_symbols(Commands& commands) {
  const std::string_view symbols[][2] = {
      {"&", "& "},          {"%", "%"},           {"$", "\\$"},          {"#", "#"},           {"_", "_"},
      {"{", "{"},           {"}", "}"},           {"S", "\u00a7"},       {"P", "\u00b6"},      {"dag", "\u2020"},
      {"ddag", "\u2021"},   {"copyright", "\u00a9"}, {"pounds", "\u00a3"}, {"ss", "\u00df"},   {"SS", "SS"},
      {"o", "\u00f8"},      {"O", "\u00d8"},      {"l", "\u0142"},       {"L", "\u0141"},      {"ae", "\u00e6"},
      {"AE", "\u00c6"},     {"oe", "\u0153"},     {"OE", "\u0152"},      {"aa", "\u00e5"},     {"AA", "\u00c5"},
      {"i", "\u0131"},      {"j", "\u0237"},      {"dh", "\u00f0"},      {"DH", "\u00d0"},     {"th", "\u00fe"},
      {"TH", "\u00de"},     {"ldots", "..."},     {"dots", "..."},       {"textellipsis", "..."}, {"TeX", "TeX"},
      {"LaTeX", "LaTeX"},   {"LaTeXe", "LaTeX2e"}, {"BibTeX", "BibTeX"}, {"slash", "/"},       {"textbackslash", "\\"},
      {"textbar", "|"},     {"textless", "<"},    {"textgreater", ">"},  {"textasciitilde", "~"}, {"textasciicircum", "^"},
      {"textunderscore", "_"}, {"textdegree", "\u00b0"}, {"degree", "\u00b0"}, {"textmu", "\u00b5"}, {"textmicro", "\u00b5"},
      {"textonehalf", "\u00bd"}, {"textbullet", "\u2022"}, {"textendash", "\u2013"}, {"textemdash", "\u2014"},
      {"textquoteleft", "\u2018"}, {"textquoteright", "\u2019"}, {"textquotedblleft", "\u201c"}, {"textquotedblright", "\u201d"},
      {"textquotesingle", "'"}, {"textregistered", "\u00ae"}, {"texttrademark", "\u2122"}, {"textdollar", "$"},
      {"textpm", "\u00b1"}, {"texttimes", "\u00d7"}, {"lq", "\u2018"},   {"rq", "\u2019"},     {"quotedblbase", "\u201e"},
      {"guillemotleft", "\u00ab"}, {"guillemotright", "\u00bb"}, {"euro", "\u20ac"}, {"texteuro", "\u20ac"}, {"sun", "$\\odot$"},
      {"sim", "$\\sim$"},   {"pm", "$\\pm$"},     {"times", "$\\times$"}, {"deg", "$^\\circ$"}, {"arcdeg", "$^\\circ$"},
      {"arcmin", "$'$"},    {"arcsec", "$''$"},   {"fdg", "$.\\!\\!^\\circ$"}, {"farcs", "$.\\!\\!''$"}, {"farcm", "$.\\!\\!'$"},
      {"micron", "$\\mu$m"}, {"ion", ""},         {"gtrsim", "$\\gtrsim$"}, {"lesssim", "$\\lesssim$"}, {"ga", "$\\gtrsim$"},
      {"la", "$\\lesssim$"}, {"gtsim", "$\\gtrsim$"}, {"ltsim", "$\\lesssim$"}, {"approx", "$\\approx$"}, {"kms", "km s$^{-1}$"},
      {"sun", "$\\odot$"},  {"lsun", "$L_\\odot$"}, {"msun", "$M_\\odot$"}, {"cdot", "$\\cdot$"}, {"alpha", "$\\alpha$"},
      {"beta", "$\\beta$"}, {"mu", "$\\mu$"},     {"sigma", "$\\sigma$"}, {"chi", "$\\chi$"},  {"lambda", "$\\lambda$"},
      {"Lambda", "$\\Lambda$"}, {"Delta", "$\\Delta$"}, {"gamma", "$\\gamma$"}, {"aj", "AJ"},   {"araa", "ARA&A"},
      {"apj", "ApJ"},       {"apjl", "ApJ"},      {"apjs", "ApJS"},      {"aap", "A&A"},       {"mnras", "MNRAS"},
      {"pasp", "PASP"},     {"nat", "Nature"},    {"prd", "Phys. Rev. D"}, {"prl", "Phys. Rev. Lett."}, {"icarus", "Icarus"}};
  for (const auto& [name, text] : symbols) commands[name] = {Action::symbol, text, true};
  commands["&"] = {Action::symbol, "&", true};
  for (const std::string_view name : {",", ";", ":", " ", ">", "quad", "qquad", "enspace", "enskip", "thinspace", "\n", "\t", "space"}) {
    commands[name] = {Action::symbol, " ", false};
  }
  for (const std::string_view name : {"/", "-", "!"}) commands[name] = {Action::skip_in_text, "", false};
}

void add_accents(Commands& commands) {
  const std::string_view accents[][2] = {
      {"`", "\u0300"}, {"'", "\u0301"}, {"^", "\u0302"}, {"~", "\u0303"}, {"=", "\u0304"}, {"u", "\u0306"}, {".", "\u0307"},
      {"\"", "\u0308"}, {"r", "\u030a"}, {"H", "\u030b"}, {"v", "\u030c"}, {"d", "\u0323"}, {"c", "\u0327"}, {"k", "\u0328"},
      {"b", "\u0331"}, {"t", "\u0361"}};
  for (const auto& [name, mark] : accents) commands[name] = {Action::accent, mark, true};
}

void add_structure(Commands& commands) {
  add(commands, Action::section, "0", "chapter part");
  add(commands, Action::section, "1", "section");
  add(commands, Action::section, "2", "subsection");
  add(commands, Action::section, "3", "subsubsection");
  add(commands, Action::paragraph_heading, "", "paragraph subparagraph");
  add(commands, Action::appendix, "", "appendix appendices");
  add(commands, Action::back_matter, "Acknowledgements", "acknowledgments acknowledgements acknowledgement acknowledgment ack acknowledge");
  add(commands, Action::title, "", "title");
  add(commands, Action::abstract, "", "abstract");
  add(commands, Action::document_class, "", "documentclass documentstyle");
  add(commands, Action::caption, "", "caption figcaption tablecaption");
  add(commands, Action::item, "", "item");
  add(commands, Action::begin, "", "begin");
  add(commands, Action::end, "", "end");
  add(commands, Action::input, "", "input include subfile variable InputIfFileExists");
  add(commands, Action::import, "", "import subimport includefrom subincludefrom");
  add(commands, Action::bibliography, "", "bibliography printbibliography");
  add(commands, Action::package, "", "usepackage RequirePackage");
  add(commands, Action::endinput, "", "endinput");
  add(commands, Action::bibitem, "", "bibitem");
  add(commands, Action::label, "", "label");
  add(commands, Action::paragraph, "", "par bigskip medskip smallskip newpage clearpage cleardoublepage");
  add(commands, Action::line_break, "", "\\ newline cr tabularnewline");
  add(commands, Action::dimension, "s", "hskip vskip");
  add(commands, Action::dimension, "", "kern mskip mkern baselineskip parindent parskip hsize vsize textwidth textheight "
      "oddsidemargin evensidemargin topmargin hoffset voffset columnsep tabcolsep raise lower moveright moveleft abovedisplayskip "
      "belowdisplayskip abovecaptionskip belowcaptionskip leftskip rightskip tolerance magnification headheight headsep footskip "
      "arraycolsep lineskip topskip penalty hyphenpenalty clubpenalty widowpenalty interlinepenalty pageno");
  add(commands, Action::open_maths, "", "( [");
  add(commands, Action::close_maths, "", ") ]");
  add(commands, Action::verb, "", "verb lstinline mintinline");
  add(commands, Action::url, "", "url path nolinkurl");
  add(commands, Action::text_in_maths, "",
      "text mbox hbox textrm textit textbf textsf texttt textsc textsl textnormal textup emph intertext shortintertext fbox");
}

void add_references(Commands& commands) {
  add(commands, Action::citation, "t", "cite citet citet* Citet textcite citen onlinecite shortcite newcite citealtt");
  add(commands, Action::citation, "p", "citep Citep parencite autocite footcite supercite");
  add(commands, Action::citation, "b", "citealt citealp Citealt Citealp");
  add(commands, Action::citation, "a", "citeauthor Citeauthor citeauthor* citefullauthor");
  add(commands, Action::citation, "y", "citeyear citeyearpar citeyearNP citenum");
  add(commands, Action::citation, "b", "citetalias");
  add(commands, Action::citation, "p", "citepalias");
  add(commands, Action::skip, "mm", "defcitealias");
  add(commands, Action::skip, "", "citetext");
  add(commands, Action::reference, "n", "ref subref vref Ref labelcref ref*");
  add(commands, Action::reference, "e", "eqref");
  add(commands, Action::reference, "k", "autoref cref Cref Autoref");
  add(commands, Action::skip, "m", "pageref nameref vpageref");
}

void add_programming(Commands& commands) {
  add(commands, Action::new_command, "r", "newcommand renewcommand DeclareRobustCommand newrobustcmd");
  add(commands, Action::new_command, "p", "providecommand");
  add(commands, Action::new_environment, "", "newenvironment renewenvironment provideenvironment");
  add(commands, Action::define, "", "def gdef edef xdef");
  add(commands, Action::let, "", "let");
  add(commands, Action::operator_name, "", "DeclareMathOperator");
  add(commands, Action::new_if, "", "newif");
  add(commands, Action::conditional, "", "ifnum ifdim ifodd ifcase ifcat if ifdefined ifcsname ifvmode ifhmode ifinner ifvoid ifhbox "
      "ifvbox ifeof ifpdf ifxetex ifluatex ifPDFTeX ifXeTeX ifLuaTeX iftutex");
  add(commands, Action::if_false, "", "iffalse");
  add(commands, Action::if_true, "", "iftrue");
  add(commands, Action::if_x, "", "ifx");
  add(commands, Action::if_maths, "", "ifmmode");
  add(commands, Action::if_then_else, "", "ifthenelse");
  add(commands, Action::if_next, "", "@ifnextchar kernel@ifnextchar");
  add(commands, Action::if_star, "", "@ifstar");
  add(commands, Action::else_branch, "", "else or");
  add(commands, Action::skip, "", "fi global long outer expandafter noexpand unexpanded begingroup endgroup bgroup egroup ignorespaces "
      "immediate futurelet");
  add(commands, Action::csname, "", "csname");
  add(commands, Action::at_letter, "", "makeatletter");
  add(commands, Action::at_other, "", "makeatother");
  add(commands, Action::ensure_maths, "", "ensuremath");
  add(commands, Action::xspace, "", "xspace");
  add(commands, Action::tex_or_pdf, "", "texorpdfstring");
  add(commands, Action::skip, "mm", "apptocmd pretocmd @ifpackageloaded IfFileExists newread");
  add(commands, Action::skip, "m", "write18 special typeout message");
}

Commands build_commands() {
  Commands commands;
  commands.reserve(1024);
  add_skipped(commands);
  add_symbols(commands);
  add_accents(commands);
  add_structure(commands);
  add_references(commands);
  add_programming(commands);
  return commands;
}

}  // namespace

const Command* find_command(std::string_view name) {
  static const Commands commands = build_commands();
  const auto found = commands.find(name);
  return found == commands.end() ? nullptr : &found->second;
}

}  // namespace megatron_astro
