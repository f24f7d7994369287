"""Papers and texts in, clean documents out: JSONL files of `records.Document`, one a line.

Open `jsonl` first: it reads and checks such a file.
"""
