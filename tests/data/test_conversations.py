import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.corpus_records import Message
from megatron_astro.data.conversations import ChatEncoder
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError

CHATML = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
INST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant take turns') }}{% endif %}{% endfor %}"
)
THINKING = (  # shortens what is not the last reply
    "{% for message in messages %}{{ message['role'] }}: "
    "{{ message['content'] if loop.last else message['content'][:2] }}<|end|>{% endfor %}"
)
TURNS = [Message(role="user", content="Why?"), Message(role="assistant", content="Stars é 🔭"), Message(role="user", content="Ah."),
         Message(role="assistant", content=" So.\n")]  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@pytest.fixture(scope="module")
def folder_with(tiny_tokenizer_folder, tmp_path_factory):
    def make(template):
        folder = shutil.copytree(tiny_tokenizer_folder, tmp_path_factory.mktemp("chat") / "tokenizer")
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config |= {"chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder

    return make


def pieces(folder, messages, end_id=None):
    """Runs of trained and untrained tokens, as (trained, text)."""
    tokenizer = TextTokenizer(folder)
    ids, mask = ChatEncoder(tokenizer, end_id).encode(messages)
    assert len(ids) == len(mask)
    runs = []
    for number, taken in zip(ids, mask, strict=True):
        if not runs or runs[-1][0] != taken:
            runs.append((taken, []))
        runs[-1][1].append(number)
    return [(taken, tokenizer.decode(run)) for taken, run in runs]


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["compared", "marked"])
def test_a_loss_is_taken_on_replies_and_the_token_that_ends_them(folder_with, template):
    assert pieces(folder_with(template), TURNS) == [
        (0, "<|begin|>user\nWhy?<|end|>\n<|begin|>assistant\n"), (1, "Stars é 🔭<|end|>"),
        (0, "\n<|begin|>user\nAh.<|end|>\n<|begin|>assistant\n"), (1, " So.\n<|end|>"), (0, "\n"),
    ]  # fmt: skip


def test_a_template_without_a_prompt_of_its_own(folder_with):
    assert pieces(folder_with(INST), TURNS[:2]) == [(0, "<|begin|>[INST] Why? [/INST]"), (1, " Stars é 🔭 <|end|>")]


UNENDED = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
END, BEGIN = 0, 1


@pytest.mark.parametrize(
    ("template", "end_id", "ending", "learned"),
    [
        (CHATML, END, "🔭<|end|>\n", "🔭<|end|>"),
        (INST, END, "🔭 <|end|>", "🔭 <|end|>"),
        (CHATML, BEGIN, "🔭<|end|>\n<|begin|>", "🔭<|end|>"),
        (INST, BEGIN, "🔭 <|end|><|begin|>", "🔭 <|end|>"),
        (UNENDED, END, "🔭\n<|end|>", "🔭\n<|end|>"),  # nothing else says that the reply is over
    ],
)
def test_a_conversation_is_ended_once_and_the_model_learns_to_end_its_reply(folder_with, template, end_id, ending, learned):
    runs = pieces(folder_with(template), TURNS[:2], end_id)
    assert "".join(text for _, text in runs).endswith(ending)
    assert "".join(text for taken, text in runs if taken).endswith(learned)


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=2, max_size=6))
def test_masks_and_ids_are_those_of_transformers(folder_with, marked, contents):
    """transformers drops the last bytes of a span whose last character takes several tokens; here every span ends in <|end|>."""
    folder, theirs = marked
    messages = [Message(role=("user", "assistant")[number % 2], content=text) for number, text in enumerate(contents)]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    expected = theirs.apply_chat_template(plain, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = ChatEncoder(TextTokenizer(folder)).encode(messages)
    assert ids == expected["input_ids"]
    assert mask == expected["assistant_masks"]


@pytest.fixture(scope="module")
def marked(folder_with):
    from transformers import AutoTokenizer

    folder = folder_with(MARKED)
    return folder, AutoTokenizer.from_pretrained(folder)


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=2, max_size=6))
def test_comparing_finds_what_marks_say(folder_with, compared, marked, contents):
    messages = [Message(role=("user", "assistant")[number % 2], content=text) for number, text in enumerate(contents)]
    assert ChatEncoder(TextTokenizer(compared)).encode(messages) == ChatEncoder(TextTokenizer(marked[0])).encode(messages)


@pytest.fixture(scope="module")
def compared(folder_with):
    return folder_with(CHATML)


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        (CHATML, TURNS[:1], "no message is the assistant's"),
        (CHATML, [*TURNS, Message(role="assistant", content=" \n")], "message 5: the assistant says nothing"),
        (THINKING, TURNS, "message 2: the chat template writes a reply in another way once others follow it"),
        (INST, [Message(role="system", content="Be brief."), *TURNS], "refuses the messages: only user and assistant take turns"),
        ("{% if", TURNS, "the chat template refuses the messages"),
    ],
)
def test_what_cannot_be_told_is_refused(folder_with, template, messages, text):
    with pytest.raises(DataError, match=text):
        ChatEncoder(TextTokenizer(folder_with(template))).encode(messages)


def test_a_folder_without_template_is_named(tiny_tokenizer_folder):
    with pytest.raises(DataError, match="has no chat template"):
        ChatEncoder(TextTokenizer(tiny_tokenizer_folder))


def test_the_template_may_lie_in_a_file_or_a_list(folder_with):
    folder = folder_with([{"name": "tool", "template": "x"}, {"name": "default", "template": CHATML}])
    expected = ChatEncoder(TextTokenizer(folder)).encode(TURNS)
    folder = folder_with("another")
    (folder / "chat_template.jinja").write_text(CHATML)
    assert ChatEncoder(TextTokenizer(folder)).encode(TURNS) == expected


DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"


def test_the_date_is_not_in_the_tokens(folder_with):
    """LLaMA-3.2's template writes today's date where it can have it: the same corpus gave other tokens on another day."""
    tokenizer = TextTokenizer(folder_with(DATED + CHATML))
    ids, _ = ChatEncoder(tokenizer).encode(TURNS)
    plain, _ = ChatEncoder(TextTokenizer(folder_with("26 Jul 2024" + CHATML))).encode(TURNS)
    assert tokenizer.decode(ids) == tokenizer.decode(plain)
    with pytest.raises(DataError, match="the chat template refuses the messages: 'no_clock' is undefined"):
        ChatEncoder(TextTokenizer(folder_with("{{ strftime_now('%Y') }}" + CHATML))).encode(TURNS)
