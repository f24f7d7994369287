import json
import os
import signal
import subprocess
import sys
import time

import pytest

from megatron_astro.config.cleaning import CleaningFiles, CleaningRules, DecontaminationConfig, SlurmConfig
from megatron_astro.corpus import pipeline_steps
from megatron_astro.corpus.cleaning import clean_corpus, closing_line
from megatron_astro.corpus.shards import read_shard
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import held_folder

QUESTION = {
    "id": "q1", "question": "Which property of a star decides how its life will end?", "answer": "B", "source": "arXiv:2401.09999v1",
    "options": ["The colour of its light", "The mass it was born with", "Its distance from us", "The name of its constellation"],
}  # fmt: skip


FRENCH = (
    "Nous présentons une étude des étoiles variables dans les amas globulaires à partir des observations du télescope spatial. Les "
    "résultats montrent que la métallicité est faible et que la distance est de dix kiloparsecs. Nous discutons ensuite les conséquences "
    "de cette mesure pour les modèles de formation des galaxies, et nous décrivons les erreurs possibles de la méthode."
)


@pytest.fixture
def inputs(tmp_path, make_text, write_documents):
    """A corpus with one document for each step to find, general text, and an exam."""
    quiz = f"{make_text(50)}\n\nQuiz: {QUESTION['question']} A. {QUESTION['options'][0]} B. {QUESTION['options'][1]}"
    corpus = [
        *({"id": f"2401.0000{number}v1", "text": make_text(number), "title": f"Paper {number}"} for number in range(8)),
        {"id": "2401.00001v2", "text": make_text(1) + " A new last sentence of the paper.", "version": 2},
        {"id": "copy", "text": make_text(2).upper()},
        {"id": "pages", "text": make_text(20) + "\n[MISSING_PAGE_FAIL:1]" * 3},
        {"id": "loops", "text": make_text(21) + " the end is near now" * 80},
        {"id": "mended", "text": make_text(22) + " the star is" * 4},
        {"id": "french", "text": FRENCH},
        {"id": "symbols", "text": make_text(23).replace(" ", " #@! ")},
        {"id": "short", "text": "A few words."},
        {"id": "quiz", "text": quiz},
        {"id": "2401.09999", "text": make_text(24)},
        {"id": "copy-of-source", "text": make_text(24).lower()},
    ]
    general = [{"id": f"web-{number}", "text": make_text(100 + number, 150), "source": "web"} for number in range(6)]
    (tmp_path / "exam.jsonl").write_text(json.dumps(QUESTION) + "\n")
    return CleaningFiles(
        documents=(write_documents(tmp_path / "corpus.jsonl", corpus),), output=tmp_path / "clean",
        exams=(tmp_path / "exam.jsonl",), replay=(write_documents(tmp_path / "general.jsonl", general),),
    )  # fmt: skip


RULES = CleaningRules(replay_fraction=0.2, skip=("duplicate_sentences", "duplicate_ngrams"))


def run(files, rules=RULES, *, workers=1, shard_bytes=1 << 20, output=None, executor="local", slurm=None):
    if output is not None:
        files = CleaningFiles(**(vars(files) | {"output": output}))
    return clean_corpus(files, rules, shard_bytes=shard_bytes, executor=executor, workers=workers, slurm=slurm or SlurmConfig())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def result_of(folder):
    """Everything a cleaning writes, but for the report's provenance and the work folder."""
    report = json.loads((folder / "report.json").read_text())
    del report["provenance"]
    files = [folder / "documents.jsonl", folder / "repaired.jsonl", *sorted((folder / "removed").iterdir())]
    return {path.name: path.read_bytes() for path in files} | {"report": report}


def test_every_step_finds_its_own_and_says_so(inputs):
    report = run(inputs)
    removed = {line["id"]: (path.stem, line["rule"]) for path in (inputs.output / "removed").iterdir() for line in lines(path)}
    assert removed == {
        "pages": ("pages", "missing_pages"),
        "loops": ("repetition", "repaired_share"),
        "french": ("language", "other_language"),
        "symbols": ("quality", "symbols"),
        "short": ("length", "too_short"),
        "quiz": ("decontamination", "stem_and_answer"),
        "2401.09999": ("decontamination", "source_paper"),
        "copy-of-source": ("decontamination", "source_paper"),
        "2401.00001v1": ("duplicates", "same_paper"),
        "copy": ("duplicates", "exact"),
    }
    documents = lines(inputs.output / "documents.jsonl")
    kept = [document["id"] for document in documents if document["topic"] != "replay"]
    assert kept[:2] == ["2401.00000v1", "2401.00002v1"]
    assert "mended" in kept
    assert "2401.00001v2" in kept
    assert all(document["num_words"] == len(document["text"].split()) for document in documents)
    assert [line["rule"] for line in lines(inputs.output / "repaired.jsonl")] == ["phrase_loops"]
    counted = {rule.rule: rule.documents_removed for rule in report.rules if rule.documents_removed}
    assert sum(counted.values()) == len(removed) == 10
    assert report.documents_read == 25
    evidence = {line["id"]: line["evidence"] for line in lines(inputs.output / "removed" / "decontamination.jsonl")}
    assert evidence["2401.09999"] == "source of question q1"
    assert evidence["copy-of-source"] == "duplicate of 2401.09999: source of question q1; similarity 1.00"
    assert "quiz which property of a star decides" in evidence["quiz"]
    assert "source of question q1" in (inputs.output / "report.md").read_text()


def test_what_holds_a_held_out_document_goes_and_says_so(tmp_path, make_text, write_documents):
    held = {"id": "held", "text": make_text(1, 400), "split": "heldout"}
    holder = {"id": "holder", "text": f"{make_text(1, 400)} {make_text(2, 800)}"}
    files = CleaningFiles(documents=(write_documents(tmp_path / "corpus.jsonl", [held, holder]),), output=tmp_path / "clean")
    run(files, CleaningRules())
    (removed,) = lines(files.output / "removed" / "duplicates.jsonl")
    assert (removed["id"], removed["rule"], removed["evidence"]) == ("holder", "contained", "holds 100% of held, which stays")


def test_an_exams_paper_takes_its_parts_along_though_another_rule_removes_it(inputs, tmp_path, make_text, write_documents):
    text = make_text(24, 600)
    paper = {"id": "2401.09999", "text": f"{text}\n\n{QUESTION['question']} {QUESTION['options'][1]}"}
    corpus = write_documents(tmp_path / "papers.jsonl", [paper, {"id": "part", "text": text[: len(text) // 2]}])
    run(CleaningFiles(documents=(corpus,), output=inputs.output, exams=inputs.exams), CleaningRules())
    removed = lines(inputs.output / "removed" / "decontamination.jsonl")
    assert [(line["id"], line["rule"]) for line in removed] == [("2401.09999", "source_paper"), ("part", "source_paper")]


def test_general_text_makes_up_the_fraction_to_the_word(inputs):
    report = run(inputs)
    documents = lines(inputs.output / "documents.jsonl")
    general = [document for document in documents if document["topic"] == "replay"]
    words = sum(len(document["text"].split()) for document in documents)
    replay = sum(len(document["text"].split()) for document in general)
    assert (report.words_written, report.replay_words, report.replay_documents) == (words, replay, len(general))
    assert replay == round((words - replay) * 0.2 / 0.8)
    assert {document["source"] for document in general} == {"web"}
    assert closing_line(report, inputs.output).endswith(f"words, {replay} of them general text; report.md says what went.")


def test_questions_that_cannot_be_looked_for_are_named(inputs):
    symbols = [{**QUESTION, "id": f"s{number}", "question": "?", "options": ["<", ">", "=", "+"]} for number in range(12)]
    inputs.exams[0].write_text("".join(json.dumps(question) + "\n" for question in [QUESTION, *symbols]))
    report = run(inputs)
    assert report.unsearchable_questions == tuple(question["id"] for question in symbols)
    told = "; 12 of 13 exam questions could not be looked for (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 and 2 more);"
    assert told in closing_line(report, inputs.output)


def test_the_result_does_not_depend_on_the_shards(inputs, tmp_path):
    run(inputs)
    run(inputs, shard_bytes=4000, output=tmp_path / "again")
    assert result_of(tmp_path / "again") == result_of(inputs.output)


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(inputs, tmp_path):
    run(inputs, shard_bytes=4000)
    run(inputs, workers=3, shard_bytes=4000, output=tmp_path / "again")
    assert result_of(tmp_path / "again") == result_of(inputs.output)


def test_a_run_cut_short_goes_on_and_ends_the_same(inputs, tmp_path, monkeypatch):
    run(inputs, shard_bytes=4000)
    read_before: list[int] = []

    def read_three(shard):
        if len(read_before) == 3:
            raise MemoryError("cut short")
        read_before.append(shard.start)
        return read_shard(shard)

    monkeypatch.setattr(pipeline_steps, "read_shard", read_three)
    with pytest.raises(MemoryError):
        run(inputs, shard_bytes=4000, output=tmp_path / "again")
    assert not (tmp_path / "again" / "report.json").exists()
    read_again: list[int] = []
    monkeypatch.setattr(pipeline_steps, "read_shard", lambda shard: (read_again.append(shard.start), read_shard(shard))[1])
    run(inputs, shard_bytes=4000, output=tmp_path / "again")
    assert len(read_again) == len(json.loads((tmp_path / "again" / "work" / "plan.json").read_text())["shards"]) - 3
    assert result_of(tmp_path / "again") == result_of(inputs.output)


def test_a_finished_cleaning_is_not_done_again(inputs):
    first = run(inputs)
    before = (inputs.output / "documents.jsonl").stat().st_mtime_ns
    assert run(inputs) == first
    assert (inputs.output / "documents.jsonl").stat().st_mtime_ns == before
    assert not (inputs.output / "work" / "kept").exists()
    (inputs.output / "documents.jsonl.7.partial").touch()  # of a run that was killed as it wrote
    (inputs.output / "removed" / "pages.jsonl.7.partial").touch()
    run(inputs)
    assert list(inputs.output.rglob("*.partial")) == []


def test_what_is_switched_off_is_kept(inputs):
    rules = CleaningRules(skip=("pages", "repetition", "language", "quality", "length", "decontamination", "duplicates"))
    report = run(CleaningFiles(**(vars(inputs) | {"replay": ()})), rules)
    assert (report.documents_written, report.documents_read) == (19, 19)


def test_only_the_passage_goes_where_that_is_asked_for(inputs):
    rules = CleaningRules(decontamination=DecontaminationConfig(action="passage"))
    run(CleaningFiles(**(vars(inputs) | {"replay": ()})), rules)
    (quiz,) = (document for document in lines(inputs.output / "documents.jsonl") if document["id"] == "quiz")
    assert "Quiz" not in quiz["text"]
    assert [line["rule"] for line in lines(inputs.output / "repaired.jsonl") if line["id"] == "quiz"] == ["stem_and_answer"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(inputs, tmp_path):
    run(inputs, shard_bytes=4000)
    expected = result_of(inputs.output)
    script = tmp_path / "slow.py"
    script.write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from megatron_astro.config.cleaning import CleaningFiles, CleaningRules, SlurmConfig\n"
        "from megatron_astro.corpus import cleaning, pipeline_steps\n"
        "def slowly(shard, read=pipeline_steps.read_shard):\n"
        "    time.sleep(0.3)\n"
        "    yield from read(shard)\n"
        "pipeline_steps.read_shard = slowly\n"
        f"files = CleaningFiles(documents=(Path({str(inputs.documents[0])!r}),), output=Path({str(tmp_path / 'killed')!r}),\n"
        f"    exams=(Path({str(inputs.exams[0])!r}),), replay=(Path({str(inputs.replay[0])!r}),))\n"
        f"rules = CleaningRules(replay_fraction=0.2, skip={RULES.skip!r})\n"
        "cleaning.clean_corpus(files, rules, shard_bytes=4000, executor='local', workers=1, slurm=SlurmConfig())\n"
    )
    marks = tmp_path / "killed" / "work" / "logs" / "1_documents" / "completions"
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while len(list(marks.glob("*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in marks.glob("*")}
    assert 2 <= len(done) < 6
    assert not (tmp_path / "killed" / "report.json").exists()
    run(inputs, shard_bytes=4000, output=tmp_path / "killed")
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert result_of(tmp_path / "killed") == expected


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has \d+ bytes, \d+ were written"),
    ],
)
def test_a_finished_cleaning_without_its_documents_is_told(inputs, spoil, text):
    run(inputs)
    spoil(inputs.output / "documents.jsonl")
    with pytest.raises(DataError, match=rf"documents\.jsonl {text}.*, or remove the folder and clean again"):
        run(inputs)


def test_two_cleanings_of_one_folder_do_not_run_together(inputs):
    inputs.output.mkdir()
    with held_folder(inputs.output, "output"), pytest.raises(ConfigError, match="is being written by another process"):
        run(inputs)
    assert list(inputs.output.iterdir()) == []


def test_a_cleaning_killed_before_its_plan_was_whole_goes_on(inputs):
    for name in ("resolved.toml", "resolved.toml.7.partial", "work/plan.json.7.partial"):
        (inputs.output / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs.output / name).touch()
    assert run(inputs).documents_read == 25


def test_a_file_that_changed_its_role_makes_another_cleaning(inputs, tmp_path, make_text, write_documents):
    extra = write_documents(tmp_path / "extra.jsonl", [{"id": "extra", "text": make_text(50)}])
    run(CleaningFiles(**(vars(inputs) | {"documents": (*inputs.documents, extra)})))
    with pytest.raises(ConfigError, match="holds a cleaning of other files or with other options"):
        run(CleaningFiles(**(vars(inputs) | {"replay": (extra, *inputs.replay)})))


@pytest.mark.parametrize(
    ("documents", "output", "text"),
    [
        (".", "below/clean", "is inside the folder .* that is read"),
        (".", ".", "is inside the folder .* that is read"),
        ("corpus.jsonl", ".", "is read, and is inside the output folder"),
    ],
)
def test_output_and_input_inside_each_other_are_told(inputs, tmp_path, documents, output, text):
    with pytest.raises(ConfigError, match=f"{text}.*; name"):
        run(CleaningFiles(**(vars(inputs) | {"documents": (tmp_path / documents,), "output": tmp_path / output})))


@pytest.mark.parametrize("changed", ["options", "input", "exam"])
def test_another_cleaning_is_not_continued(inputs, changed):
    run(inputs)
    rules = RULES
    if changed == "options":
        rules = CleaningRules(replay_fraction=0.1)
    elif changed == "input":
        inputs.documents[0].write_text(inputs.documents[0].read_text() + "\n")
    else:
        inputs.exams[0].write_text(inputs.exams[0].read_text().replace('"q1"', '"q2"'))
    with pytest.raises(ConfigError, match="holds a cleaning of other files or with other options"):
        run(inputs, rules)


def test_what_cannot_be_cleaned_is_told(inputs, tmp_path):
    with pytest.raises(ConfigError, match=r"replay names 1 files and replay_fraction is 0\.0"):
        run(inputs, CleaningRules())
    with pytest.raises(DataError, match="words of general text are wanted"):
        run(inputs, CleaningRules(replay_fraction=0.9))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ConfigError, match="holds other files; name a new or an empty folder"):
        run(inputs, output=tmp_path / "other")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match=r"pipe\.jsonl: no such plain file"):
        run(CleaningFiles(**(vars(inputs) | {"exams": (tmp_path / "pipe.jsonl",)})))
    inputs.documents[0].write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match="line 1: not a Document"):
        run(inputs, output=tmp_path / "bad")


def test_an_error_in_a_worker_process_is_the_same_error(inputs, tmp_path):
    inputs.documents[0].write_text('{"id": "a", "text": "x"}\n' * 3 + '{"id": "a"}\n')
    with pytest.raises(DataError, match="line 4: not a Document"):
        run(inputs, workers=2, shard_bytes=30, output=tmp_path / "bad")
