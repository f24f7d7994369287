"""The loss of a Hugging Face folder on the fixed probe (`parity.py`), by transformers' own layers, one layer's weights in memory at a time.

What it proves: transformers' embedding, decoder layers, rotary embedding and norm compute this loss from the folder's tensors in float32.
A run whose own loss on the same tokens is the same has the same weights in the same places, whatever its layout.
Memory: one layer in float32 (a 70B model: 3.4 GB) and a block of rows of the output matrix. One rank reads the whole model for it, and the
others wait: for a very large model on a slow disk, raise `parallel.timeout_minutes`. Shapes: s probe tokens, V vocabulary, h hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import EMBEDDING, OUTPUT, named_shapes
from megatron_astro.checkpoint.parity import probe_loss
from megatron_astro.checkpoint.reader import blocks, read_tensor

LAYER = "model.layers.{i}."
FINAL_NORM = "model.norm."


@torch.no_grad()
def hugging_face_probe_loss(reader: HuggingFaceReader, tokens: Sequence[int], device: torch.device | None = None) -> float:
    """Mean next-token loss in nats of a folder on `tokens`, computed on `device` (None: the processor)."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

    config = LlamaConfig.from_pretrained(reader.path, local_files_only=True)
    config._attn_implementation = "sdpa"  # causal where no mask is given
    positions = torch.arange(len(tokens), device=device).unsqueeze(0)
    hidden = _embedded(reader, tokens).to(device).unsqueeze(0)
    rotary = LlamaRotaryEmbedding(config).to(device)(hidden, position_ids=positions)
    for number in range(reader.sizes.num_layers):
        with torch.device("meta"):
            layer = LlamaDecoderLayer(config, number)
        _fill(layer, LAYER.format(i=number), reader, device)
        out = layer(hidden, attention_mask=None, position_ids=positions, position_embeddings=rotary)
        hidden = out if isinstance(out, Tensor) else out[0]  # transformers before 4.54 gives a tuple
    norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
    _fill(norm, FINAL_NORM, reader, device)
    return probe_loss(_logits(reader, norm(hidden)[0]), tuple(tokens))


def _embedded(reader: HuggingFaceReader, tokens: Sequence[int]) -> Tensor:
    """Rows of the embedding. -> [s, h]."""
    name = EMBEDDING.hugging_face[0][0]
    shape = named_shapes(reader.sizes)[name]
    return torch.cat([read_tensor(reader, name, shape, rows=(token, token + 1)) for token in tokens]).float()


def _fill(module: nn.Module, prefix: str, reader: HuggingFaceReader, device: torch.device | None) -> None:
    """Give a module its weights in float32, all of them and no others."""
    shapes = {name: shape for name, shape in named_shapes(reader.sizes).items() if name.startswith(prefix)}
    weights = {name.removeprefix(prefix): read_tensor(reader, name, shape).float().to(device) for name, shape in shapes.items()}
    module.load_state_dict(weights, assign=True)
    module.eval()


def _logits(reader: HuggingFaceReader, hidden: Tensor) -> Tensor:
    """[s, h] -> [s, V] on the processor, a block of the output's rows at a time."""
    name = (EMBEDDING if reader.sizes.tied_embeddings else OUTPUT).hugging_face[0][0]
    shape = named_shapes(reader.sizes)[name]
    return torch.cat([(hidden @ block.float().to(hidden.device).T).cpu() for _, block in blocks(reader, name, shape)], dim=-1)
