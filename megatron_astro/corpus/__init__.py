"""Papers and texts in, clean documents out: JSONL or Parquet files of `corpus_records.Document`, with what was left out and why.

Two commands. `build.py` makes documents of papers: it plans, hands out and gathers. `papers.py` says which papers the inputs hold,
`documents.py` makes one document of one paper, `workers.py` keeps a paper from harming the rest. Readers: `latex.py` (compiled:
csrc/corpus), `bibliography.py`, `markdown.py`, `archives.py`, `arxiv.py`. `sections.py` names sections and chooses among them.

`cleaning.py` cleans documents: it plans the work (`cleaning_plan`, `shards`), sends every document through the steps (`pages`,
`repetition`, `length`, `language`, `quality`, `decontamination`), finds duplicates (`fingerprints`, `near_duplicates`, `containment`,
`survivors`), mixes in general text (`replay`) and reports (`collecting`, `cleaning_report`). Only `pipeline_steps` and `executors` know
datatrove. `jsonl.py` reads and checks a corpus.
"""
