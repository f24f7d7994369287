import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LINES = [
    "The Sun is a G2V star with an effective temperature of 5772 K and a radius of 695,700 km.",
    "A white dwarf cannot exceed the Chandrasekhar mass of about 1.4 solar masses.",
    "The Hubble constant lies near 70 km/s/Mpc; the age of the Universe is 13.8 billion years.",
]


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory):
    """A byte-level BPE tokenizer of 300 tokens in the files of a Hugging Face folder; <|end|> is 0, <|begin|> is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>", "<|begin|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "bos_token": {"content": "<|begin|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
