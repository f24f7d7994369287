"""What a section is, by its heading; and which sections a corpus takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from megatron_astro.corpus_records import Section, SectionKind

Selection = Literal["full", "abstract", "aic", "custom"]

NUMBERING = re.compile(r"^\s*(?:(?:\d+(?:\.\d+)*|[IVX]+|[A-Z])[.)]?\s+|(?:section|chapter)\s+\d+[.:]?\s*)", re.IGNORECASE)
KINDS: tuple[tuple[SectionKind, re.Pattern[str]], ...] = (
    ("abstract", re.compile(r"^abstract\b", re.IGNORECASE)),
    ("appendix", re.compile(r"^(?:appendi(?:x|ces)|supplement\w*|supporting (?:information|material))\b", re.IGNORECASE)),
    (
        "conclusion",
        re.compile(
            r"\b(?:conclusions?|concluding|conclude)\b|^(?:brief )?summary\b|\bsummary$|^(?:future )?outlook\b", re.IGNORECASE
        ),
    ),
    ("introduction", re.compile(r"^introduct(?:ion|ory)\b|^statement of need$|\bintroduction$", re.IGNORECASE)),
    ("discussion", re.compile(r"\bdiscussions?\b", re.IGNORECASE)),
)
# Sections that are no part of the science: they go whatever is selected, unless a custom pattern names them.
BACK_MATTER = re.compile(
    r"^(?:acknowledge?ments?|references|bibliography|data(?: and (?:code|software))? availability.*|(?:code|software)(?: and data)? "
    r"availability.*|availability of (?:data|code).*|authors?'? contributions?|author information|affiliations?|funding.*|facilit(?:y|ies)"
    r"|software|conflicts? of interests?.*|competing interests.*|declarations?|orcid(?: ids?)?|contents|nomenclature|credits"
    r"|list of (?:figures|tables)|additional information|note added.*|dedication|citations?|ethics.*)\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class RawSection:
    """A section as a reader found it, before its kind is known."""

    heading: str
    text: str
    level: int = 1
    part: Literal["front", "abstract", "section", "appendix"] = "section"


@dataclass(frozen=True, kw_only=True)
class ClassifiedSection:
    """A section and whether it is back matter (acknowledgements, references, availability of data)."""

    section: Section
    back_matter: bool


def classify(sections: Sequence[RawSection]) -> list[ClassifiedSection]:
    """Give each section its kind: a section's by its heading, a subsection's by the section it is in.

    Text before the first heading (authors, notes to editors) is left out unless there is nothing else, as in letters without sections.
    A paper that begins with a summary and has no abstract has that for one.
    """
    has_body = any(section.part in ("section", "appendix") for section in sections)
    top = min((section.level for section in sections if section.part == "section"), default=1)
    has_abstract = any(_kind(section) == "abstract" for section in sections)
    classified: list[ClassifiedSection] = []
    kind: SectionKind = "body"
    back_matter = False
    for section in sections:
        if section.part == "front" and has_body:
            continue
        if section.part != "section" or section.level <= top:
            kind, back_matter = _kind(section), bool(BACK_MATTER.match(_plain(section.heading)))
            if not has_abstract and not classified and kind == "conclusion" and _plain(section.heading).lower() == "summary":
                kind = "abstract"
        made = Section(kind=kind, heading=section.heading, text=section.text, level=section.level)
        classified.append(ClassifiedSection(section=made, back_matter=back_matter))
    return classified


def select(
    sections: Sequence[ClassifiedSection], selection: Selection, patterns: Sequence[re.Pattern[str]]
) -> tuple[Section, ...]:
    """The sections that a selection takes, the abstract first; a heading without text goes with the section it leads to."""
    wanted = [_is_chosen(item, selection, patterns) for item in sections]
    chosen = [
        item.section
        for index, item in enumerate(sections)
        if wanted[index] and (item.section.text or _leads(sections, wanted, index))
    ]
    return tuple(sorted(chosen, key=lambda section: section.kind != "abstract"))


def join(sections: Sequence[Section]) -> str:
    """One text: each heading and each section's paragraphs, with empty lines between."""
    return "\n\n".join(part for section in sections for part in (section.heading, section.text) if part)


def _leads(sections: Sequence[ClassifiedSection], wanted: Sequence[bool], index: int) -> bool:
    """Whether a heading without text has a chosen subsection right below it."""
    following = sections[index + 1].section if index + 1 < len(sections) else None
    return following is not None and wanted[index + 1] and following.level > sections[index].section.level


def _is_chosen(item: ClassifiedSection, selection: Selection, patterns: Sequence[re.Pattern[str]]) -> bool:
    kind = item.section.kind
    if selection == "custom":
        return any(pattern.search(item.section.heading or kind) for pattern in patterns)
    if item.back_matter or kind == "appendix":
        return False
    if selection == "abstract":
        return kind == "abstract"
    return selection == "full" or kind in ("abstract", "introduction", "conclusion")


def _kind(section: RawSection) -> SectionKind:
    if section.part in ("abstract", "appendix"):
        return section.part
    heading = _plain(section.heading)
    return next((kind for kind, pattern in KINDS if pattern.search(heading)), "body")


def _plain(heading: str) -> str:
    return NUMBERING.sub("", heading).strip().rstrip(".:")
