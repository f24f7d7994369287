"""Papers and texts in, clean documents out: JSONL files of `corpus_records.Document`, one a line.

Open `jsonl` first: it reads and checks such a file. `cleaning` then cleans one: it plans the work (`cleaning_plan`, `shards`), sends every
document through the steps (`pages`, `repetition`, `quality`, `language`, `decontamination`), finds duplicates (`fingerprints`,
`near_duplicates`, `containment`, `survivors`), mixes in general text (`replay`) and reports (`collecting`, `cleaning_report`). Only
`pipeline_steps` and `executors` know datatrove.
"""
