"""What a run did and what it changed, said in words, tables and figures that follow from its records. No torch.

Comes in: a run folder. Goes out: `report.json`, `report.md`, `report.html` and `figures/*.svg` in that folder.

Open `write.py` first, then `collect.py`: it lists the files a run folder may hold. `contents.py` is what the report holds (the keys of
`report.json`), `exam_results.py` fills the exam's part; `wording.py` turns numbers into sentences and their limits, `tables.py` into
tables, `plots.py` into figures; `markdown.py` and `html.py` (with `page.html`) lay them out.
"""
