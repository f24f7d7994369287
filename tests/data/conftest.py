import dataclasses
import io
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.data.tokenize_request import TokenizeRequest

with warnings.catch_warnings():  # what torch and megatron-core say about themselves when first imported is not ours to mend
    warnings.simplefilter("ignore")
    import megatron.core.datasets.gpt_dataset  # noqa: F401


@pytest.fixture(scope="session")
def write_tokens():
    """A function that writes documents (lists of ids) as a dataset without sidecar and returns its prefix."""

    def write(prefix, documents, dtype=np.uint16):
        with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(dtype)) as writer:
            for document in documents:
                writer.add_document(document)
        return prefix

    return write


@pytest.fixture(scope="session")
def write_numbered(write_tokens):
    """A function that writes documents of given lengths whose ids count all tokens from `first` on: no id comes twice."""

    def write(prefix, lengths, first=0):
        starts = np.cumsum([first, *lengths])
        return write_tokens(prefix, [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)])

    return write


@pytest.fixture(scope="session")
def texts():
    """Texts of 150 documents, doc-0 to doc-149."""
    return [f"Star {number} lies {number * 7} parsecs away." + " It shines." * (number % 5) for number in range(150)]


@pytest.fixture
def corpus(tmp_path, texts):
    """A JSONL file of those documents."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": f"doc-{number}", "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


@pytest.fixture
def request_for(corpus, tiny_tokenizer_folder, tmp_path):
    """A function that makes the request to tokenise that corpus to out/data, with changes."""

    def make(**changes):
        base = TokenizeRequest(inputs=(corpus,), tokenizer=tiny_tokenizer_folder, prefix=tmp_path / "out" / "data")
        return dataclasses.replace(base, **changes)

    return make


@pytest.fixture(scope="session")
def bytes_of():
    """A function that reads the files of a dataset, its sidecar left out."""
    return lambda prefix: {ending: dataset_file(prefix, ending).read_bytes() for ending in ("bin", "idx", "ids")}


@pytest.fixture(scope="session")
def wait_for():
    """A function that asks again and again, for 20 seconds at most, and returns the last answer."""

    def wait(what):
        deadline = time.monotonic() + 20
        while not (found := what()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    return wait


SPLIT_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ("<|end|>", "<|begin|>", "<|eot_id|>")


def _byte_level_rules():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return {
        "gpt2": byte_level,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT_RULE), "isolated"), bare]),
        "qwen": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT_RULE.replace("{1,3}", "")), "isolated"), bare]),
    }


def _train_byte_level(rule, ignore_merges, texts):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = rule, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_sentencepiece(texts):
    """LLaMA-2's own settings, but for the size."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe", vocab_size=1500, character_coverage=0.9995,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, allow_whitespace_only_pieces=True, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _convert(model):
    """As transformers converts LLaMA-2's tokenizer.model: every way to make a piece of two, best scores first."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {processor.id_to_piece(number): number for number in range(processor.get_piece_size())}
    merges = []
    for piece, number in vocabulary.items():
        halves = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = sorted(
            (vocabulary[left], vocabulary[right], left, right) for left, right in halves if {left, right} <= vocabulary.keys()
        )
        merges += [(-processor.get_score(number), left, right) for _, _, left, right in known]
    merges.sort(key=lambda merge: merge[0])
    bpe = models.BPE(vocabulary, [merge[1:] for merge in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def _llama2_rules(tokenizer):
    """The three ways a tokenizer.json writes LLaMA-2's blanks."""
    yield "llama2", [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")], None
    for scheme in ("first", "always", "never"):
        yield f"llama2_{scheme}", None, pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme, split=False)


@pytest.fixture(scope="session")
def tokenizer_kinds(tmp_path_factory):
    """Folders of small tokenizers by kind, of every kind the compiled encoder knows, trained on a few lines of this repository."""
    texts = [path.read_text() for path in sorted((Path(__file__).parents[2] / "megatron_astro" / "data").glob("*.py"))[:6]]
    texts += [line * 3 for line in LINES_OF_MANY_SCRIPTS]
    root = tmp_path_factory.mktemp("kinds")
    for kind, rule in _byte_level_rules().items():
        (root / kind).mkdir()
        _train_byte_level(rule, kind == "llama3", texts).save(str(root / kind / "tokenizer.json"))
    (root / "sentencepiece").mkdir()
    model = _train_sentencepiece([line for text in texts for line in text.splitlines() if line.strip()])
    (root / "sentencepiece" / "tokenizer.model").write_bytes(model)
    tokenizer = _convert(model)
    for kind, normaliser, rule in _llama2_rules(tokenizer):
        if normaliser is None:
            tokenizer.pre_tokenizer = rule
            content = json.loads(tokenizer.to_str()) | {"normalizer": None}
        else:
            tokenizer.normalizer = normalizers.Sequence(normaliser)
            content = json.loads(tokenizer.to_str())
        (root / kind).mkdir()
        (root / kind / "tokenizer.json").write_text(json.dumps(content))
    return {path.name: path for path in root.iterdir()}


LINES_OF_MANY_SCRIPTS = (
    "The Hubble constant is 73.04 km/s/Mpc; it's what they've found, we'll see. ",
    "Звезда Бетельгейзе — красный сверхгигант. 太陽は恒星である。 별은 빛난다. مجرة. ",
)
