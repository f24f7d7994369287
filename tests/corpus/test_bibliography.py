from megatron_astro.corpus.bibliography import bibliography_entries

BIB = rb"""@comment{no, author={X}, year=1}
@ARTICLE{one:1, author = "Ann Alpha", year = "2001" }
@article{two, author = {{Planck Collaboration} and Beta, B.},
  date = {2016-05-01},
}
@article{three, author = {van der Berg, A. and others}, year = 1999}
@article{none, title = {No author}, year = 2000}
"""


def test_entries_with_author_and_year():
    lines = bibliography_entries([BIB]).decode().splitlines()
    assert "\\bibitem[{Planck Collaboration} \\& Beta(2016)]{two}" in lines
    assert not any("{none}" in line or "{no}" in line for line in lines)


def test_nothing_gives_nothing():
    assert bibliography_entries([b"", b"@article{x, title={y}}"]) == b""
