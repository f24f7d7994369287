from megatron_astro.corpus.cleaning_report import EXAMPLES_PER_RULE, RuleCounts, report_to_markdown
from megatron_astro.corpus_records import CleaningReport, RemovedDocument, RepairedDocument
from megatron_astro.records import Provenance


def test_counts_and_page_say_the_same():
    counts = RuleCounts(skip=("language", "digits"))
    for number in range(5):
        counts.count_removed(
            RemovedDocument(
                id=f"d{number}",
                version=0,
                title="",
                source="",
                num_words=1000,
                step="quality",
                rule="symbols",
                evidence=f"a|b\n{number}",
            )
        )
    counts.count_repaired(
        RepairedDocument(id="r", version=0, step="repetition", rule="word_runs", times=2, words=7, evidence="far far")
    )
    rules = {rule.rule: rule for rule in counts.reports()}
    assert (rules["symbols"].documents_removed, rules["symbols"].words_removed) == (5, 5000)
    assert len(rules["symbols"].examples) == EXAMPLES_PER_RULE
    assert (rules["word_runs"].documents_repaired, rules["word_runs"].words_repaired) == (1, 7)
    assert [rule.rule for rule in counts.reports() if not rule.active] == ["other_language", "digits"]
    page = report_to_markdown(
        CleaningReport(
            inputs=("a.jsonl",),
            replay_inputs=("web.jsonl",),
            exams=(),
            num_questions=9,
            unsearchable_questions=("q1", "q7"),
            documents_read=10,
            words_read=12345,
            documents_written=5,
            words_written=8000,
            replay_documents=1,
            replay_words=800,
            documents_sha256="ab",
            documents_bytes=2,
            rules=counts.reports(),
            provenance=Provenance(command="clean", created="now", versions={"python": "3"}),
        )
    )
    assert "10 documents (12,345 words) were read, 5 (8,000 words) written." in page
    assert "none (9 questions)" in page
    assert "2 of the questions could not be looked for: they have too few words, or the rules for them are off: q1, q7" in page
    assert "1 documents, 800 words, 10.00% of the words written" in page
    assert "| quality | 5 | 50.00% | 5,000 | 0 |" in page
    assert "| language (off) | 0 |" in page
    assert "| quality | `digits` (off) |" in page
    assert "- d0: a|b 0\n" in page
    assert "- d3" not in page
    assert "| repetition | `word_runs` | repairs: a word said many times in a row becomes one | 0 | 0 | 1 | 7 |" in page
