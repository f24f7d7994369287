r"""Markdown papers: JOSS (YAML header, `# Summary`, `[@key]` citations) and OCR of the Nougat kind (.mmd), broken marks and all."""

import re
from collections.abc import Iterator
from datetime import date, datetime

import yaml

from megatron_astro.corpus.latex import Citations, PaperText
from megatron_astro.corpus.sections import RawSection
from megatron_astro.errors import DataError

HEADER = re.compile(r"\A\s*---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$")
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
MISSING_PAGE = re.compile(r"\[MISSING_PAGE\w*(?::\d+)?\]")
IMAGE = re.compile(r"!\[[^\[\]]*\]\([^()]*\)(?:\{[^{}]*\})?")
LINK = re.compile(r"\[([^\[\]]+)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
CITATIONS = re.compile(r"\s?\[((?:[^\[\]@]*-?@[\w:./+-]+[^\[\]@]*)+)\]")
CITATION = re.compile(r"(?<![\w@])-?@([\w:/+-](?:[\w:./+-]*[\w/+-])?)")
EMPHASIS = re.compile(r"(?<![\w*\\])(\*{1,3}|_{1,3})(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")
TABLE_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$")
LEFT_OUT = tuple(  # comments and LaTeX tables: how each begins and ends
    (re.compile(begins), re.compile(ends))
    for begins, ends in (
        (r"\\begin\{table\*?\}", r"\\end\{table\*?\}"), (r"\\begin\{tabular\*?\}", r"\\end\{tabular\*?\}"), ("<!--", "-->"),
    )
)  # fmt: skip
LATEX_COMMAND = re.compile(r"\\(?:label|ref|autoref|autoref\*|eqref)\{[^{}]*\}")
DATE_FORMATS = ("%d %B %Y", "%B %d, %Y", "%d %b %Y", "%Y/%m/%d", "%B %Y")
LARGEST_HEADER = 100_000


def read_markdown_paper(content: bytes, citations: Citations = "plain") -> PaperText:
    """Read one Markdown paper.

    Raises
    ------
    DataError
        Its YAML header is not YAML.
    """
    text = decode(content)
    header, body = _split_header(text)
    pages = len(MISSING_PAGE.findall(body))
    sections = list(_sections(MISSING_PAGE.sub("", _leave_out(body)), citations))
    title = _inline(str(header.get("title") or ""), citations)
    if not title and sections and sections[0].level == 1 and not sections[0].text.strip():
        title, sections = sections[0].heading, sections[1:]
    elif (
        not title
        and sections
        and sections[0].part == "section"
        and sum(s.level == 1 and s.part == "section" for s in sections) == 1
    ):
        title = sections[0].heading  # a single top heading is the title; what stands below it are authors
        sections = [RawSection(heading="", text=sections[0].text, level=1, part="front"), *sections[1:]]
    notes = (f"{pages} pages are marked as missing",) if pages else ()
    return PaperText(title=title, sections=tuple(sections), date=_date(header.get("date")), notes=notes)


def read_plain_text(content: bytes) -> PaperText:
    """A text without marks: one section."""
    return PaperText(title="", sections=(RawSection(heading="", text=decode(content).strip(), part="front"),))


def decode(content: bytes) -> str:
    """UTF-8, or Windows-1252 where it is not."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _split_header(text: str) -> tuple[dict[str, object], str]:
    found = HEADER.match(text[:LARGEST_HEADER])
    if not found:
        return {}, text
    try:
        header = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise DataError(f"the YAML header is not valid ({' '.join(str(error).split())[:200]}); mend or remove it") from error
    return (header if isinstance(header, dict) else {}), text[found.end() :]


def _leave_out(text: str) -> str:
    """Without comments and tables; one that does not end stays, and the time grows with the text alone."""
    for begins, ends in LEFT_OUT:
        kept: list[str] = []
        place = 0
        while (first := begins.search(text, place)) and (last := ends.search(text, first.end())):
            kept.append(text[place : first.start()])
            place = last.end()
        text = "".join(kept) + text[place:]
    return text


def _sections(body: str, citations: Citations) -> Iterator[RawSection]:
    heading, level, part = "", 1, "front"
    lines: list[str] = []
    fence = ""
    for line in body.split("\n"):
        fenced = FENCE.match(line)
        if fence or fenced:
            fence = "" if fenced and fence and fenced[1].startswith(fence) else fence or (fenced[1] if fenced else "")
            continue
        found = HEADING.match(line)
        if not found:
            lines.append(line)
            continue
        if heading or any(line.strip() for line in lines):
            yield _section(heading, lines, level, part, citations)
        heading, level, part, lines = _inline(found[2], citations), len(found[1]), "section", []
        if level >= 5 and heading.lower().rstrip(".:") == "abstract":  # Nougat writes it as a heading of the sixth level
            level, part = 1, "abstract"
    if heading or any(line.strip() for line in lines):
        yield _section(heading, lines, level, part, citations)


def _section(heading: str, lines: list[str], level: int, part: str, citations: Citations) -> RawSection:
    kept = "\n".join(line for line in lines if not TABLE_ROW.match(line))
    paragraphs = (" ".join(_inline(paragraph, citations).split()) for paragraph in re.split(r"\n[ \t]*\n", kept))
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    if part == "abstract":
        return RawSection(heading="", text=text, level=level, part="abstract")
    return RawSection(heading=heading, text=text, level=level, part="section" if part == "section" else "front")


def _inline(text: str, citations: Citations) -> str:
    text = LATEX_COMMAND.sub("", LINK.sub(r"\1", IMAGE.sub("", text)))
    if citations == "plain":
        text = CITATIONS.sub(lambda found: " (" + CITATION.sub(r"\1", found[1]) + ")", text)
        text = CITATION.sub(r"\1", text)
    else:
        text = CITATION.sub("", CITATIONS.sub("", text))
    return EMPHASIS.sub(r"\2", _maths(text)).strip()


def _maths(text: str) -> str:
    r"""\( and \) as $; a mark without its partner is dropped, as OCR leaves them."""
    for opening, closing, mark in ((r"\(", r"\)", "$"), (r"\[", r"\]", "$$")):
        pieces = re.split(f"({re.escape(opening)}|{re.escape(closing)})", text)
        text = _paired(pieces, opening, closing, mark)
    return text


def _paired(pieces: list[str], opening: str, closing: str, mark: str) -> str:
    opened_at: int | None = None
    for index, piece in enumerate(pieces):
        if piece == opening:
            pieces[index], opened_at = "", index
        elif piece == closing:
            pieces[index] = ""
            if opened_at is not None:
                inside = "".join(pieces[opened_at + 1 : index]).strip()
                pieces[opened_at : index + 1] = [mark + inside + mark, *[""] * (index - opened_at)]
                opened_at = None
    return "".join(pieces)


def _date(value: object) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    for form in DATE_FORMATS:
        try:
            found = datetime.strptime(str(value), form)
        except ValueError:
            continue
        return found.strftime("%Y-%m" if "%d" not in form else "%Y-%m-%d")
    return ""
