"""Examine a model: multiple-choice exams, next-token loss, and what changed between two models, with its uncertainty.

Comes in: a Hugging Face folder, an exam (JSONL of `records.Question`), documents (JSONL of `records.Document`).
Goes out: `exam_records.ExamRecord`, `LossRecord`, `ExamComparison` and `LossComparison` as JSON files.

Open `sitting.py` first: it sets an exam from beginning to end. Then

- `exam.py` is what is asked: `questions.py` reads and checks it, `prompts.py` words it (templates are data);
- `tokenisation.py` cuts the texts into tokens;
- `model.py` loads a model, `likelihood.py` gives the log-probability of continuations: the one place that runs the model;
- `letter.py` and `answer_text.py` are the two ways to ask; `loss.py` measures documents;
- `statistics.py` holds the arithmetic of uncertainty, `scores.py` applies it to one record and `compare.py` to two.

No module here imports megatron; `exam`, `scores`, `compare` and what they use import no torch.
"""
