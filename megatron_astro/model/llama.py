"""megatron.core's GPTModel with our operations for the loss.

Shapes: s sequence, b micro-batch, h hidden, v vocabulary, t tensor-parallel ranks.
"""

from typing import Any

from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region, gather_from_sequence_parallel_region
from torch import Tensor

from megatron_astro.model.operations import ModelOperations
from megatron_astro.ops.cross_entropy import cross_entropy_fused
from megatron_astro.ops.linear_cross_entropy import linear_cross_entropy_fused


class LlamaModel(GPTModel):  # type: ignore[misc]  # megatron.core has no types
    """Overrides the two methods in which GPTModel goes from hidden states to logits and from logits to losses."""

    def __init__(self, operations: ModelOperations, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.operations = operations

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """[b, s], [s, b, v/t] -> [b, s]. The fused operation uses the memory of the logits, which nothing else reads."""
        if not self.operations.fused_cross_entropy:
            losses: Tensor = super().compute_language_model_loss(labels, logits)
            return losses
        losses = cross_entropy_fused(logits.flatten(0, 1), labels.t().reshape(-1), self.pg_collection.tp)
        return losses.view(labels.shape[::-1]).t().contiguous()

    def _postprocess(
        self, hidden_states: Tensor, *, labels: Tensor | None = None, loss_mask: Tensor | None = None, **others: Any
    ) -> Tensor:
        """[s/t or s, b, h] -> losses [b, s], logits [b, s, v/t] or, where output layer and loss are one, the masked sum of losses []."""
        if not (self.post_process and self.operations.fused_linear_cross_entropy) or labels is None or loss_mask is None:
            output: Tensor = super()._postprocess(hidden_states, labels=labels, loss_mask=loss_mask, **others)
            return output
        return self._linear_cross_entropy(hidden_states, labels, loss_mask)

    def _linear_cross_entropy(self, hidden_states: Tensor, labels: Tensor, loss_mask: Tensor) -> Tensor:
        weight = (
            self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else self.output_layer.weight
        )
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden_states = gather_from_sequence_parallel_region(hidden_states, group=group)
        else:
            hidden_states = copy_to_tensor_model_parallel_region(hidden_states, group=group)
        tokens, weights = (tensor.t().reshape(-1) for tensor in (labels, loss_mask))
        loss_sum, _ = linear_cross_entropy_fused(hidden_states.flatten(0, 1), weight, tokens, weights, group)
        return loss_sum
