"""What of a text is prose: mathematics, LaTeX commands and code are set aside before anything is counted."""

import re
from dataclasses import dataclass

FORMULA = "\ufffc"  # stands where a formula was

_ENVIRONMENTS = "equation|align|alignat|eqnarray|gather|multline|flalign|displaymath|math|subequations"
# No pattern may read past its own opening, else a text full of openings takes the square of its length.
_MATHEMATICS = re.compile(
    rf"\\begin\{{({_ENVIRONMENTS})\*?\}}[^\\]*+(?:\\(?!(?:begin|end)\{{\1\*?\}})[^\\]*+)*+\\end\{{\1\*?\}}"
    r"|(?<!\\)\$\$.{1,4000}?\$\$"
    r"|(?<!\\)\$(?:[^$\n]|\n(?!\s*\n)){1,1000}\$"  # inline: never over an empty line
    r"|\\\((?:[^\\]|\\\\|\\(?![\\(])){1,1000}?\\\)|(?<!\\)\\\[(?:[^\\]|\\\\|\\(?![\\\[])){1,4000}?\\\]",
    re.DOTALL,
)
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+\*?|.)|[{}~]")
_CITATION = re.compile(r"\[@[^\[\]]*\]|\]\([^)\]\s]*\)|https?://\S+")


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A text without its formulas; each is marked by one `FORMULA` character."""

    text: str
    num_mathematics_characters: int
    num_characters: int


def read_prose(text: str) -> Prose:
    """Set formulas, code blocks, LaTeX commands, links and citation keys aside."""
    without_code = _CODE.sub("\n", text) if "```" in text else text
    marked = _MATHEMATICS.sub(FORMULA, without_code) if "$" in text or "\\" in text else without_code
    num_mathematics = len(without_code) - len(marked) + marked.count(FORMULA)
    plain = _COMMAND.sub(" ", marked)
    return Prose(
        text=_CITATION.sub(" ", plain), num_mathematics_characters=num_mathematics, num_characters=max(len(without_code), 1)
    )
