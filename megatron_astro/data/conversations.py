"""Conversations to tokens, with a mask of those a loss is taken on: what the assistant says, and nothing else.

The text is what the tokenizer's own chat template makes of the messages. A template that marks what the assistant says (`{% generation %}`)
is taken at its word. Of any other, the assistant's part of a turn is what the template adds for it to the prompt that it makes of the
messages before (`add_generation_prompt`): the reply with the token that ends it, without white space after that token. Where that cannot
be told, because a template makes something else of a message once others follow, the conversation is refused. A token is trained on when
it stands for at least one character of an assistant's part.

An end-of-document token is added to a conversation that does not end in it already. A loss is taken on it where no special token ends
the last reply: there it is what the model has to end one with.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from megatron_astro.corpus_records import Message
from megatron_astro.data.tokenizer import TextTokenizer, read_config
from megatron_astro.errors import DataError

WITHOUT_CLOCK = "{% set strftime_now = no_clock %}\n"  # no_clock is undefined; the line end goes with the block
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")

Span = tuple[int, int]


class ChatEncoder:
    """Encodes conversations by the chat template of a tokenizer's folder, and ends them with `eos_id` if it is not None."""

    def __init__(self, tokenizer: TextTokenizer, eos_id: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._eos_id = eos_id
        config = read_config(tokenizer.folder / "tokenizer_config.json")
        self._template = WITHOUT_CLOCK + _chat_template(tokenizer.folder, config)
        self._special = _special_tokens(config)
        self._closers = tokenizer.added_tokens()

    def digests(self) -> dict[str, str]:
        """SHA-256 of what the folder adds to the tokenizer's own file, by name."""
        special = json.dumps(self._special, sort_keys=True)
        contents = {"chat template": self._template, "special tokens of the chat template": special}
        return {name: hashlib.sha256(content.encode()).hexdigest() for name, content in contents.items()}

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and for each 1 if a loss is taken on it, 0 if not.

        Raises
        ------
        DataError
            The template refuses the messages, nobody in them is the assistant, or its part of the text cannot be told.
        """
        if not any(message.role == "assistant" for message in messages):
            raise DataError("no message is the assistant's; there is nothing to train on")
        for number, message in enumerate(messages, start=1):
            if message.role == "assistant" and not message.content.strip():
                raise DataError(f"message {number}: the assistant says nothing; there is nothing to train on")
        text, spans = self._marked(messages) if GENERATION.search(self._template) else self._compared(messages)
        ids, offsets = self._tokenizer.encode_with_offsets(text)
        mask = [int(any(start < stop_ and start_ < stop for start_, stop_ in spans)) for start, stop in offsets]
        if not any(mask):
            raise DataError("the assistant says nothing; there is nothing to train on")
        bare = text.rstrip()
        last = max(number for number, (start, _) in enumerate(offsets) if start < len(bare))
        if self._eos_id is not None and ids[last] != self._eos_id:
            ids.append(self._eos_id)
            mask.append(int(mask[-1] and not bare.endswith(self._closers)))
        return ids, mask

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        return self._render(messages, with_spans=True)

    def _compared(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        text, _ = self._render(messages)
        spans = []
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt, _ = self._render(messages[:number], prompt=True)
            until, _ = self._render(messages[: number + 1])
            if not text.startswith(until) or not until.startswith(prompt):
                raise DataError(
                    f"message {number + 1}: the chat template writes a reply in another way once others follow it, so the assistant's part "
                    "cannot be told; mark it in the template with {% generation %}"
                )
            spans.append((len(prompt), self._without_trailing_space(until)))
        return text, spans

    def _without_trailing_space(self, text: str) -> int:
        """The length of a text without white space after its last special token; with it where it ends in none."""
        bare = text.rstrip()
        return len(bare) if bare.endswith(self._closers) else len(text)

    def _render(self, messages: Sequence[Message], *, prompt: bool = False, with_spans: bool = False) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[plain],
                chat_template=self._template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=with_spans,
                **self._special,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(f"the chat template refuses the messages: {error}") from error
        return texts[0], list(spans[0]) if with_spans else []


def _chat_template(folder: Path, config: Mapping[str, object]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    named = config.get("chat_template")
    if isinstance(named, list):
        named = next(
            (entry.get("template") for entry in named if isinstance(entry, dict) and entry.get("name") == "default"), None
        )
    if not isinstance(named, str):
        raise DataError(
            f"{folder} has no chat template, in chat_template.jinja or tokenizer_config.json; name a chat model's tokenizer"
        )
    return named


def _special_tokens(config: Mapping[str, object]) -> dict[str, str]:
    """The texts of the special tokens, which templates use by name."""
    found = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[name] = value
    return found
