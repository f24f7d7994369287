"""LaTeX papers read in one pass within bounds, compiled (csrc/corpus). The GIL is released."""

from typing import Literal

class LatexSection:
    """A part of a paper; level 0 is a chapter, 1 a section, 2 a subsection, 3 a subsubsection."""

    @property
    def part(self) -> Literal["front", "abstract", "section", "appendix"]: ...
    @property
    def level(self) -> int: ...
    @property
    def heading(self) -> str: ...
    @property
    def text(self) -> str: ...

class LatexPaper:
    r"""What was read: `missing_files` are those that \input names and the paper lacks; refused expansions nested too deep."""

    @property
    def title(self) -> str: ...
    @property
    def document_class(self) -> str: ...
    @property
    def sections(self) -> list[LatexSection]: ...
    @property
    def missing_files(self) -> list[str]: ...
    @property
    def num_macros(self) -> int: ...
    @property
    def num_expansions(self) -> int: ...
    @property
    def num_refused_expansions(self) -> int: ...

def read_latex(
    main_name: str, files: dict[str, bytes], *, keep_citations: bool, max_expansions: int, max_work_bytes: int
) -> LatexPaper:
    """Read the paper that `main_name`, one of `files`, begins.

    `files` are the paper's .tex, .bbl and .sty files by their path in its folder; what is not UTF-8 is taken for Windows-1252.
    Raises ValueError when the paper asks for more macro expansions, or more bytes of expanded text and searched arguments, than allowed.
    """
