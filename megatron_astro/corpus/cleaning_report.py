"""What a cleaning did, counted rule by rule, and the page that says it in tables and examples."""

from collections.abc import Sequence
from dataclasses import replace

from megatron_astro.config.cleaning_rules import CLEANING_RULES, active_rules
from megatron_astro.corpus_records import CleaningReport, RemovedDocument, RepairedDocument, RuleExample, RuleReport

EXAMPLES_PER_RULE = 3


class RuleCounts:
    """Counts what each rule removed and repaired, and keeps its first examples."""

    def __init__(self, skip: Sequence[str]) -> None:
        self._rules = {
            (step, rule): RuleReport(step=step, rule=rule, meaning=meaning, active=rule in active_rules(step, skip))
            for step, rules in CLEANING_RULES.items()
            for rule, meaning in rules.items()
        }

    def count_removed(self, removed: RemovedDocument) -> None:
        """Take in a removed document."""
        rule = self._rules[removed.step, removed.rule]
        self._rules[removed.step, removed.rule] = replace(
            rule,
            documents_removed=rule.documents_removed + 1,
            words_removed=rule.words_removed + removed.num_words,
            examples=_with_example(rule, removed.id, removed.evidence),
        )

    def count_repaired(self, repaired: RepairedDocument) -> None:
        """Take in what a rule repaired in a document."""
        rule = self._rules[repaired.step, repaired.rule]
        self._rules[repaired.step, repaired.rule] = replace(
            rule,
            documents_repaired=rule.documents_repaired + 1,
            words_repaired=rule.words_repaired + repaired.words,
            examples=_with_example(rule, repaired.id, repaired.evidence),
        )

    def reports(self) -> tuple[RuleReport, ...]:
        """All rules in the order they are applied."""
        return tuple(self._rules.values())


def _with_example(rule: RuleReport, document_id: str, evidence: str) -> tuple[RuleExample, ...]:
    if len(rule.examples) >= EXAMPLES_PER_RULE:
        return rule.examples
    return (*rule.examples, RuleExample(document_id=document_id, evidence=evidence))


def report_to_markdown(report: CleaningReport) -> str:
    """The report as a page to read."""
    sections = (_summary(report), _steps_table(report), _rules_table(report), _examples(report), _provenance(report))
    return "\n\n".join(sections) + "\n"


def _summary(report: CleaningReport) -> str:
    share = report.replay_words / report.words_written if report.words_written else 0.0
    lines = [
        "# Cleaning report",
        "",
        f"{report.documents_read:,} documents ({report.words_read:,} words) were read, {report.documents_written:,} "
        f"({report.words_written:,} words) written.",
        "",
        f"- Corpus files: {', '.join(report.inputs)}",
        f"- Exams looked for: {', '.join(report.exams) or 'none'} ({report.num_questions} questions)",
    ]
    if report.unsearchable_questions:
        lines += [
            f"- {len(report.unsearchable_questions)} of the questions could not be looked for: they have too few words, or the rules for "
            f"them are off: {', '.join(report.unsearchable_questions)}"
        ]
    if report.replay_inputs:
        lines += [
            f"- General text mixed in from {', '.join(report.replay_inputs)}: {report.replay_documents:,} documents, "
            f"{report.replay_words:,} words, {share:.2%} of the words written; their topic is `replay`. "
            "What the fraction had no room for is neither written nor counted as removed.",
        ]
    return "\n".join(lines)


def _steps_table(report: CleaningReport) -> str:
    rows = []
    for step in CLEANING_RULES:
        rules = [rule for rule in report.rules if rule.step == step]
        removed = sum(rule.documents_removed for rule in rules)
        words = sum(rule.words_removed for rule in rules)
        state = "" if any(rule.active for rule in rules) else " (off)"
        share = removed / report.documents_read if report.documents_read else 0.0
        repaired = sum(rule.words_repaired for rule in rules)
        rows.append([f"{step}{state}", f"{removed:,}", f"{share:.2%}", f"{words:,}", f"{repaired:,}"])
    head = ["Step", "Documents removed", "of those read", "Words removed with them", "Words removed by repairs"]
    return "## What each step removed\n\n" + _table(head, rows)


def _rules_table(report: CleaningReport) -> str:
    rows = [
        [
            rule.step, f"`{rule.rule}`{'' if rule.active else ' (off)'}", rule.meaning, f"{rule.documents_removed:,}",
            f"{rule.words_removed:,}", f"{rule.documents_repaired:,}", f"{rule.words_repaired:,}",
        ]
        for rule in report.rules
    ]  # fmt: skip
    head = ["Step", "Rule", "What it does", "Documents removed", "Words", "Documents repaired", "Words"]
    return "## What each rule did\n\n" + _table(head, rows)


def _examples(report: CleaningReport) -> str:
    lines = ["## Examples", "", "The first documents of each rule; all are in `removed/` and `repaired.jsonl`."]
    for rule in report.rules:
        if rule.examples:
            lines += ["", f"**{rule.step}, {rule.rule}**", ""]
            lines += [f"- {example.document_id}: {_plain(example.evidence)}" for example in rule.examples]
    return "\n".join(lines)


def _provenance(report: CleaningReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.provenance.versions.items())
    return (
        f"## Provenance\n\n- Command: `{report.provenance.command}`\n- Started: {report.provenance.created}\n- Versions: {versions}\n"
        f"- SHA-256 of documents.jsonl: {report.documents_sha256}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.split())
