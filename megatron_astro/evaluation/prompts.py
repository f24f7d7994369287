"""How a question is put into words: templates are data, built in or from a TOML file.

A template has a header, the wording of a question with `{question}` and, if the options are to be seen, `{A}` to `{D}`, the wording of an
answer with `{answer}`, and what separates a worked example from what follows. The text a model continues is

    header + (question + answer + separator, for each worked example) + question

and what is scored is `answer`, filled with a letter or with an option's text: the answer's leading space belongs to it.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec

from megatron_astro.errors import ConfigError
from megatron_astro.records import LETTERS, Method, Question

PLACEHOLDER = re.compile(r"\{(question|answer|A|B|C|D)\}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """The wording of a method. `version` names the wording: scores under different versions are not comparable."""

    version: str
    question: str
    answer: str = " {answer}"
    header: str = ""
    separator: str = "\n\n"


BUILT_IN: dict[Method, Template] = {
    "letter": Template(
        version="letter-1",
        header="Each of these multiple-choice questions about astronomy is followed by the letter of its right answer.\n\n",
        question="Question: {question}\nA: {A}\nB: {B}\nC: {C}\nD: {D}\nAnswer:",
    ),
    "answer_text": Template(version="answer_text-1", question="Question: {question}\nAnswer:"),
}

REQUIRED_PLACEHOLDERS: dict[Method, tuple[str, ...]] = {"letter": ("question", *LETTERS), "answer_text": ("question",)}


def load_template(path: Path | None, method: Method) -> Template:
    """The template of a TOML file, or the built-in one of the method where there is no file.

    The version of a template from a file ends in the first digits of the file's SHA-256, so that an edited wording is a new version.

    Raises
    ------
    ConfigError
        The file cannot be read, is not TOML, has a key that is missing, unknown or not text, or lacks a placeholder it needs.
    """
    if path is None:
        return BUILT_IN[method]
    keys = [field.name for field in fields(Template)]
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode())
        template = msgspec.convert(table, Template)
    except OSError as error:
        raise ConfigError(f"cannot read the template {path}: {error.strerror}; name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} is not a template: {error}; its keys are {', '.join(keys)}, all texts") from error
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise ConfigError(f"{path} has the unknown key {unknown[0]!r}; a template's keys are {', '.join(keys)}")
    _check_placeholders(template, method, path)
    digest = hashlib.sha256(content).hexdigest()
    return replace(template, version=f"{template.version}+{digest[:12]}")


def stem_text(template: Template, question: Question, shots: Sequence[Question], method: Method) -> str:
    """What the model reads before it answers: header, worked examples with their answers, and the question."""
    examples = (
        _word_question(template, shot) + word_answer(template, _right_answer(shot, method)) + template.separator for shot in shots
    )
    return template.header + "".join(examples) + _word_question(template, question)


def word_answer(template: Template, answer: str) -> str:
    """What follows the stem when the model answers with this letter or text."""
    return PLACEHOLDER.sub(lambda match: answer if match[1] == "answer" else match[0], template.answer)


def _word_question(template: Template, question: Question) -> str:
    values = dict(zip(("question", *LETTERS), (question.question, *question.options), strict=True))
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template.question)


def _right_answer(question: Question, method: Method) -> str:
    return question.answer if method == "letter" else question.options[LETTERS.index(question.answer)]


def _check_placeholders(template: Template, method: Method, path: Path) -> None:
    found = {match[1] for match in PLACEHOLDER.finditer(template.question)}
    missing = [name for name in REQUIRED_PLACEHOLDERS[method] if name not in found]
    if missing:
        raise ConfigError(f"{path}: the key question lacks {{{missing[0]}}}, which method {method} needs; add it")
    if "{answer}" not in template.answer:
        raise ConfigError(f"{path}: the key answer is {template.answer!r}; put {{answer}} where the answer stands")
