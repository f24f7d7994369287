import json
from dataclasses import asdict

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_astro.evaluation.model import load_model
from megatron_astro.records import Question

LINES = [
    "Question: How massive can a white dwarf be? A: 1.4 solar masses B: 8 solar masses\nAnswer: A\n\n",
    "Question: How old is the Universe? A: 13.8 billion years C: 4.6 billion years D: a year\nAnswer: A\n\n",
    "The Sun is a G2V star of 5772 K and 695,700 km; stars above 8 solar masses explode.",
]

QUESTIONS = (
    Question(
        id="q1",
        question="How hot is the Sun?",
        options=("5772 K", "12 K", "three million kelvin", "9000 K"),
        answer="A",
        source="a",
    ),
    Question(
        id="q2",
        question="How old is it?",
        options=("A year", "4.6 billion years", "13.8", "8 minutes old"),
        answer="B",
        source="a",
    ),
    Question(
        id="q3", question="Which stars explode?", options=("All", "None", "Massive stars", "The Sun"), answer="C", source="b"
    ),
    Question(
        id="q4", question="What is a white dwarf made of?", options=("Dust", "Ice and rock", "Iron", "Carbon, oxygen"), answer="D"
    ),
    Question(
        id="q5", question="How old is the oldest star?", options=("Å 1", "one Gyr", "five Gyr", "13 billion years"), answer="D"
    ),
)
SHOTS = (
    Question(id="s1", question="How many solar masses?", options=("1.4", "8", "A dozen", "none at all"), answer="C"),
    Question(id="s2", question="What is the Universe?", options=("All", "Star", "Years", "Answer"), answer="A"),
)


def save_model(folder, tokenizer, seed=0):
    """A random LLaMA of 2 layers, with 2 heads for each key/value head, in a folder with its tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.3,  # logits wide apart: a wrong position or mask shows
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def byte_level_tokenizer():
    """LLaMA-3's kind: a space belongs to the word behind it, and nothing is put in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def metaspace_tokenizer():
    """LLaMA-2's kind: spaces are marks, <s> is put in front and, to make it hard, </s> behind."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), byte_level_tokenizer())


@pytest.fixture(scope="session")
def other_model_folder(tmp_path_factory):
    """The same tokenizer, other random weights."""
    return save_model(tmp_path_factory.mktemp("other"), byte_level_tokenizer(), seed=1)


@pytest.fixture(scope="session")
def metaspace_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("metaspace"), metaspace_tokenizer())


@pytest.fixture(scope="session")
def loaded(model_folder):
    return load_model(model_folder, "cpu")


@pytest.fixture(scope="session", params=["model_folder", "metaspace_folder"])
def either_loaded(request):
    return load_model(request.getfixturevalue(request.param), "cpu")


@pytest.fixture
def questions():
    return QUESTIONS


@pytest.fixture
def shots():
    return SHOTS


@pytest.fixture
def write_questions(tmp_path):
    def write(questions, name="exam.jsonl", changes=None):
        """Write questions a line each; `changes` maps an id to fields to replace."""
        path = tmp_path / name
        lines = [json.dumps(asdict(question) | (changes or {}).get(question.id, {})) for question in questions]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
