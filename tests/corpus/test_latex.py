import pytest
from papers_expected import NEEDS_PAPERS, check_paper, expected_of, paper_folders

from megatron_astro.corpus.archives import read_paper_folder
from megatron_astro.corpus.latex import choose_main_file, read_latex_paper
from megatron_astro.corpus.sections import classify, select
from megatron_astro.errors import DataError

# Where a real paper is read otherwise than its expected.json says, and why.
EXPECTED_EXCEPTIONS = {
    # A JOSS paper whose only section is its summary: it is taken for the abstract it is ("accept it as summary or as nothing").
    ("emcee-joss-tex", "conclusion starts"),
    ("emcee-joss-tex", "conclusion ends"),
    # The title holds $\sim$, which is kept as mathematics; expected.json writes ~.
    ("twoface-catalog", "title"),
}


def aic_parts(paper):
    chosen = select(classify(paper.sections), "aic", ())
    kinds = ("abstract", "introduction", "conclusion")
    return {kind: "\n\n".join(section.text for section in chosen if section.kind == kind) for kind in kinds}


@pytest.mark.skipif(not paper_folders(), reason=NEEDS_PAPERS)
@pytest.mark.parametrize("citations", ["plain", "drop"])
def test_real_papers_are_read_as_a_person_does(citations):
    checks = []
    for folder in paper_folders():
        paper = read_latex_paper(read_paper_folder(folder), citations)
        checks += check_paper(folder.name, expected_of(folder), paper.title, aic_parts(paper))
    failed = {(check.paper, check.name) for check in checks if not check.holds}
    assert len(checks) >= 150
    assert failed == EXPECTED_EXCEPTIONS
    assert len(failed) <= 0.05 * len(checks)


@pytest.mark.skipif(not paper_folders(), reason=NEEDS_PAPERS)
def test_the_main_file_of_real_papers_is_found():
    for folder in paper_folders():
        assert choose_main_file(read_paper_folder(folder))[0] == expected_of(folder)["main"]


def test_main_file():
    document = b"\\documentclass{article}\\begin{document}x\\end{document}"
    assert choose_main_file({"a.tex": b"x", "b.tex": document}) == ("b.tex", ())
    name, notes = choose_main_file({"old.tex": document + b" " * 999, "ms.tex": document, "z.txt": b""})
    assert name == "ms.tex"
    assert notes == ("ms.tex is taken for the main file, not old.tex",)
    assert choose_main_file({"ms.tex": document, "b.tex": document, "00README.XXX": b"b.tex toplevelfile\n"})[0] == "b.tex"
    assert choose_main_file({"ms.tex": b"\\documentclass{subfiles}\\begin{document}", "z.tex": document})[0] == "z.tex"
    assert choose_main_file({"a.tex": document, "z.tex": document.replace(b"x", b"\\input{a}")})[0] == "z.tex"
    assert choose_main_file({"a.tex": b"%\\documentclass{x}", "z.tex": b"\\documentstyle[12pt]{article}"})[0] == "z.tex"
    with pytest.raises(DataError, match="no file holds"):
        choose_main_file({"a.tex": b"text"})


def test_bibtex_gives_citations_their_authors():
    bib = b"@article{k, author = {Alpha, A. and Beta, B. and Gamma, C.},\n year = 2001,\n}\n"
    bib += b"@book{m,\n author={Ann Delta and B. Eta},\n year={1999}}"
    main = b"\\documentclass{article}\\begin{document}\\section{A} \\citet{k}, \\citep{m}.\\bibliography{r}\\end{document}"
    paper = read_latex_paper({"ms.tex": main, "r.bib": bib})
    assert paper.sections[0].text == "Alpha et al. (2001), (Delta & Eta 1999)."


def test_dropped_citations_leave_no_empty_brackets():
    main = b"\\documentclass{article}\\begin{document}\\section{A} x (e.g., \\citealt{k}), y \\citep{k}. f(x) () z\\end{document}"
    assert read_latex_paper({"ms.tex": main}, "drop").sections[0].text == "x, y. f(x) z"


def test_too_much_work_is_a_data_error():
    bomb = rb"\documentclass{article}\newcommand{\a}{\a\a}\begin{document}\a\end{document}"
    with pytest.raises(DataError, match=r"ms\.tex: its macros expand more than 1000000 times; leave the paper out"):
        read_latex_paper({"ms.tex": bomb})
