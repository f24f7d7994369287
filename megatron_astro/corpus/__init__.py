"""Papers and texts in, clean documents out: `documents.jsonl` (`corpus_records.Document`), `rejects.jsonl`, `report.json`.

Open `build.py` first: it plans, hands out and gathers. `papers.py` says which papers the inputs hold, `documents.py` makes one document
of one paper, `workers.py` keeps a paper from harming the rest. Readers: `latex.py` (compiled: csrc/corpus), `bibliography.py`,
`markdown.py`, `archives.py`, `arxiv.py`. `sections.py` names sections and chooses among them. `jsonl.py` reads and checks a corpus.
"""
