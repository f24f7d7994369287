r"""Rules of the compiled LaTeX reader, one line each; then what no source may do to it."""

import string
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_astro._corpus import read_latex


def read(text, *, citations=True, expansions=100_000, work=64_000_000, **files):
    content = {"main.tex": text if isinstance(text, bytes) else text.encode()}
    content |= {name.replace("_dot_", "."): value.encode() for name, value in files.items()}
    return read_latex("main.tex", content, keep_citations=citations, max_expansions=expansions, max_work_bytes=work)


def text_of(source, **options):
    """The text of the only section of a body."""
    paper = read(r"\section{S} " + source, **options)
    return paper.sections[0].text


RULES = {
    "accents": (r"\"o \'{e} \^\i{} \v{c} \c{c} \~n na\"{\i}ve {\O} \AA{} \ss{} \l{} \aa", "ö é î č ç ñ naïve Ø Å ß ł å"),
    "dashes and quotes": ("a--b---c ``d'' `e' it's x-y", "a\u2013b\u2014c \u201cd\u201d \u2018e' it's x-y"),
    "ties and spaces": ("a~b c\\,d e\\ f\n   g\th", "a b c d e f g h"),
    "escaped characters": (r"50\% \$5 \& \_ \# \{x\}", r"50% \$5 & _ # {x}"),
    "comments": ("affine-%\n    invariant % gone\nnext 5\\% kept", "affine-invariant next 5% kept"),
    "a ruler between paragraphs": ("one\n%%%%\n\ntwo", "one\n\ntwo"),
    "formatting goes, its text stays": (r"{\it a} \textbf{b} \emph{c} {\sc H\,ii} \unknown[x]{d}", "a b c H ii d"),
    "xspace": (r"\newcommand{\x}{CCL\xspace}\x is, \x. \x{} \x, (\x)", "CCL is, CCL. CCL CCL, (CCL)"),
    "arguments": (r"\newcommand{\f}[2][d]{<#1|#2>}\f{a} \f[o]{b} \f c", "<d|a> <o|b> <d|c>"),
    "delimited arguments": (r"\def\f#1,#2.{<#1|#2>}\f a,bc. d", "<a|bc> d"),
    "let": (r"\newcommand{\a}{x}\let\b=\a\renewcommand{\a}{y}\b\a \let\s\section z", "xy z"),
    "a later definition wins, a provided one does not": (
        r"\newcommand{\q}{1}\renewcommand{\q}{2}\providecommand{\q}{3}\providecommand{\z}{4}\q\z",
        "24",
    ),
    "an edef of itself is not a loop": (r"\def\q{1}\edef\q{\q2}\q", "1"),
    "a space after a macro's command and before its argument": (r"\newcommand{\f}[1]{\it#1}\f{abc}", "abc"),
    "newenvironment": (r"\newenvironment{box}[1]{<#1:}{>}\begin{box}{k}in\end{box}", "<k:in>"),
    "conditionals": (r"a\iffalse b\ifx c d\fi\else e\fi f\ifxetex g\else h\fi i\iftrue j\else k\fi", "aefhij"),
    "newif": (r"\newif\ifd\dtrue\ifd a\else b\fi\dfalse\ifd c\else d\fi", "ad"),
    "ifx compares": (r"\def\a{1}\def\b{1}\def\c{2}\ifx\a\b y\else n\fi\ifx\a\c y\else n\fi", "yn"),
    "ifnextchar": (
        r"\makeatletter\newcommand{\f}{\@ifnextchar[{\g}{none}}\def\g[#1]{<#1>}\makeatother\f[x] \f y",
        "<x> noney",
    ),
    "lists": (
        r"\begin{itemize}\item a\item[(b)] c\end{itemize}\begin{enumerate}\item d\item e\end{enumerate}",
        "- a\n(b) c\n\n1. d\n2. e",
    ),
    "footnotes go": (r"Brut\footnote{\url{http://x}}, a\footnotemark[1] b", "Brut, a b"),
    "links": (r"\url{http://a/%7Eb_c} \href{http://x%20y}{here}", "http://a/%7Eb_c here"),
    "verb": (r"\verb|a%b\c{| d", r"a%b\c{ d"),
    "colours": (r"\textcolor{red}{kept} {\color[rgb]{0,1,0} too}", "kept too"),
    "figures and tables go": (r"a\begin{figure*}[h]\caption{no}\end{figure*}b\begin{tabular}{cc}1&2\end{tabular}c", "a\n\nb\n\nc"),
    "raw environments go": ("a\\begin{comment}\\end{figure} { \\end{comment}b\\begin{verbatim}$\\end{verbatim}c", "abc"),
    "acknowledgements go": (r"a\begin{acknowledgements}We thank\end{acknowledgements}b", "a\n\nb"),
    "tikz": (r"a\begin{tikzpicture}\draw (0,0);\end{tikzpicture}b", "ab"),
    "lengths": (r"a\vspace{1cm}\hskip 10pt plus 1fil b\setlength{\parindent}{0pt}c\baselineskip=24pt d", "a bcd"),
    "inline mathematics": (r"$x_{1}^2 \alpha  y$ and \(z\)", r"$x_{1}^2 \alpha y$ and $z$"),
    "macros in mathematics": (r"\newcommand{\ms}{m}\newcommand{\v}[1]{\mathbf{#1}}$\alpha\ms\v{x}\beta$", r"$\alpha m\mathbf{x}\beta$"),
    "ensuremath": (r"\newcommand{\k}{\ensuremath{\rm km}}\k\ and $3\k$ x$y$\k", r"$\rm km$ and $3\rm km$ x$y \rm km$"),
    "display": ("a\\begin{equation}\nx % c\n\\label{e}\n\\end{equation}b \\[y\\]", "a\n\\begin{equation}\nx\n\\end{equation}\nb\n\\[y\\]"),
    "display by macros": (r"\def\be{\begin{equation}}\def\ee{\end{equation}}\be x\ee", "\\begin{equation}x\\end{equation}"),
    "text in mathematics": (r"$a\mbox{ at $r$}b\text{c}$", r"$a\mbox{ at $r$}b\text{c}$"),
    "operator": (r"\DeclareMathOperator*{\amin}{arg\,min}$\amin x$", r"$\operatorname*{arg\,min} x$"),
    "an unclosed dollar ends with its paragraph": ("a $x\n\nb", "a $x$\n\nb"),
    "references": (
        r"\label{s}\begin{equation}x\label{e}\end{equation}Sec.~\ref{s}, \eqref{e}, \autoref{e}, \ref{none}.",
        "\\begin{equation}x\\end{equation}\nSec. 1, (1), Equation 1, .",
    ),
    "a macro that begins as another command": (r"\def\be{\begin{itemize}\item}\def\ee{\end{itemize}}\be x\ee", "- x"),
    "a missing file": (r"a \input{gone} b", "a b"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    source, expected = RULES[rule]
    assert unicodedata.normalize("NFC", text_of(source)) == expected


BIBLIOGRAPHY = r"""\begin{thebibliography}{9} \bibitem[{Alpha} et~al.(2001)Alpha, Beta]{a} Title
\bibitem[\protect\citeauthoryear{Gamma}{Gamma}{2002}]{g} \bibitem{n} \end{thebibliography}"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (r"\citep{a}", "x (Alpha et al. 2001)."),
        (r"\citep[e.g.,][p.~3]{a,g}", "x (e.g., Alpha et al. 2001; Gamma 2002, p. 3)."),
        (r"\citet{a}", "x Alpha et al. (2001)."),
        (r"\citealt{g}", "x Gamma 2002."),
        (r"\citeauthor{a}", "x Alpha et al.."),
        (r"\cite{n}", "x [3]."),
        (r"\citep{unknown}", "x (unknown)."),
    ],
)
def test_citations(command, expected):
    assert text_of(f"x {command}.{BIBLIOGRAPHY}") == expected
    assert text_of(f"x {command}.{BIBLIOGRAPHY}", citations=False) == "x."


def parts(source, **files):
    return [(section.part, section.level, section.heading, section.text) for section in read(source, **files).sections]


def test_sections_abstract_and_back_matter():
    source = r"""\documentclass{article}\title{T\thanks{no}}\begin{document}\author{N}\affil{U}
    \begin{abstract}A.\end{abstract}\section*{One $x$\footnote{f}}\subsection[s]{Two}t\acknowledgments We thank.
    \appendix\section{More}m\label{m} See \ref{m}.\end{document} emacs"""
    assert parts(source) == [
        ("abstract", 1, "", "A."),
        ("section", 1, "One $x$", ""),
        ("section", 2, "Two", "t"),
        ("section", 1, "Acknowledgements", "We thank."),
        ("appendix", 1, "More", "m See A."),
    ]
    assert read(source).title == "T"


def test_structured_abstract_of_aa_alone():
    source = (
        "\\documentclass{CLASS}\\begin{document}\\abstract\n % context\n {a.}{b.}\n% more\n{c.}{}\\keywords{k}\\end{document}"
    )
    assert parts(source.replace("CLASS", "aa")) == [("abstract", 1, "", "a. b. c.")]
    assert parts(source.replace("CLASS", "article")) == [("front", 1, "", "b. c."), ("abstract", 1, "", "a.")]


def test_a_heading_ends_a_figure_left_open():
    assert parts(r"\section{A}a\begin{figure}\caption{no}\section{B}b") == [("section", 1, "A", "a"), ("section", 1, "B", "b")]


def test_files():
    main = r"\documentclass{article}\usepackage{mine}\begin{document}\section{A}\input{sub/b}\include{c}\bibliography{r}\end{document}"
    files = {
        "sub/b_dot_tex": r"\me, \input{sub/b}",
        "c_dot_tex": r"\documentclass{subfiles}\title{no}\begin{document}c \citep{k}\end{document} no",
        "mine_dot_sty": r"\def\me@{me}\newcommand{\me}{\me@}",
        "x_dot_bbl": r"\begin{thebibliography}{1}\bibitem[K(1999)]{k}\end{thebibliography}",
    }
    paper = read(main, **files)
    assert paper.sections[0].text == "me, c (K 1999)"
    assert paper.missing_files == []
    assert read(r"\input{a}\include{b}\input a").missing_files == ["a", "b", "a"]


def test_encodings():
    assert read("\\section{A}caf\u00e9".encode("latin-1")).sections[0].text == "caf\u00e9"
    assert read(b"\\section{A}\x93x\x94 \x80").sections[0].text == "\u201cx\u201d \u20ac"
    assert read("\ufeff\\section{A}a\r\n\r\nb\rc\x00\x01d".encode()).sections[0].text == "a\n\nb cd"


HOSTILE = {
    "a bomb": rb"\newcommand{\a}{\a\a}\a",
    "a doubling": b"".join(rb"\def\%c{\%c\%c}" % (99 + i, 98 + i, 98 + i) for i in range(20)) + rb"\def\b{xxxxxxxx}\v",
    "open headings": rb"\section{" * 200_000,
    "open footnotes": rb"\footnote{" * 200_000,
    "open items": rb"\item[" * 200_000,
    "nested text in mathematics": rb"$\mbox{" * 200_000,
    "nested environments": rb"\begin{itemize}" * 100_000,
    "missing files": rb"\input{x}" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_too_much_is_refused(name):
    started_at = time.process_time()
    with pytest.raises(ValueError, match=r"more than .*(bytes of work|environments)|expand more than"):
        read(HOSTILE[name])
    assert time.process_time() - started_at < 20


@pytest.mark.parametrize(
    "content",
    [b"{" * 5_000_000, b"}" * 1_000_000, b"$" * 1_000_000, bytes(range(256)) * 10_000, rb"\textbf{" * 300_000, b"\\", b"%",
     b"\\begin",
     b"\\section", b"\\def", b"\\newcommand{", b"\\verb", b"\\cite[", b"\\'", b"\\item[", b"$$", b"\\csname", b"\\ifx", b"\\input",
     b"\\bibitem[", b"\\abstract{", b"\\let\\a", b"\\newif", b"\\@", b"\\end{document}", b"\\hskip", b"\\iffalse",
     b"\xc3", b"\xed\xa0\x80"],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_what_is_cut_or_senseless_is_read(content):
    read(content)
    read(rb"\section{A} text " + content)


def test_bounds_are_checked():
    with pytest.raises(ValueError, match="give positive numbers"):
        read("x", expansions=0)
    with pytest.raises(ValueError, match=r"no file main\.tex"):
        read_latex("main.tex", {}, keep_citations=True, max_expansions=1, max_work_bytes=1)
    with pytest.raises(ValueError, match="expand more than 5 times"):
        read(r"\def\a{x}" + r"\a" * 6, expansions=5)


WORDS = [
    "\\section{", "\\begin{figure}", "\\end{figure}", "\\begin{abstract}", "\\end{abstract}", "$", "$$", "{", "}", "[", "]", "%", "\n",
    "\n\n",
    "\\def\\a", "\\a", "\\b", "#1", "\\newcommand{\\b}[1]{", "\\if", "\\iffalse", "\\else", "\\fi", "\\cite{", "\\ref{", "\\label{x}",
    "\\begin{equation}", "\\end{equation}", "\\item", "\\mbox{", "\\ensuremath{", "\\let\\a\\b", "\\footnote{", "\\verb|", "\\bibitem[",
    "\\input{main}", "\\'", "\\end{document}", "\\begin{document}", "\\appendix", "\\begin{itemize}", "\\abstract{", "~", "\\\\", "\\[",
    "\\]",
    "\\xspace", "\\csname", "\\endcsname", "\\@ifnextchar", "\\begin{x}", "\\newenvironment{x}{", "text", " ", "\\documentclass{aa}",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60).map("".join), st.booleans())
@example("\\newenvironment{x}{\\begin{x}}{}\\begin{x}", True)
def test_any_mixture_of_commands_is_read_or_refused(source, citations):
    try:
        paper = read(source, citations=citations, expansions=10_000, work=5_000_000)
    except ValueError as error:
        assert "more than" in str(error)  # noqa: PT017
        return
    for section in paper.sections:
        assert not set(section.text) & set("\x00\x01\x02\x03\x04")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read(content):
    read(content, expansions=10_000, work=5_000_000)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(string.ascii_letters + string.digits + ".,;:()!?", min_size=1, max_size=10), max_size=30))
def test_plain_words_stay_as_they_are(words):
    assert " ".join(section.text for section in read("\\section{A} " + "  ".join(words)).sections) == " ".join(words)
