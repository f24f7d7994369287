import json

from megatron_astro.checkpoint.names import RULES, tensor_groups
from megatron_astro.model.sizes import LlamaSizes


def sizes_of(folder):
    return LlamaSizes.from_hf_config(json.loads((folder / "config.json").read_text()))


def test_groups_name_every_tensor_of_transformers_once_in_its_shape(family, weights):
    groups = tensor_groups(sizes_of(family))
    named = [(name, shape) for group in groups for name, shape in zip(group.names, group.shapes, strict=True)]
    assert len(named) == len(dict(named))
    assert dict(named) == {name: tuple(tensor.shape) for name, tensor in weights(family).items()}


def test_groups_count_every_parameter(family):
    sizes = sizes_of(family)
    assert sum(group.num_parameters for group in tensor_groups(sizes)) == sizes.num_parameters


def test_tied_embeddings_have_no_output_group(gqa):
    untied = sizes_of(gqa)
    tied = LlamaSizes(**{**untied.__dict__, "tied_embeddings": True})
    assert {group.rule.megatron for group in tensor_groups(untied)} == {rule.megatron for rule in RULES}
    assert {group.rule.megatron for group in tensor_groups(tied)} == {rule.megatron for rule in RULES[:-1]}


def test_groups_follow_the_computation(gqa):
    groups = tensor_groups(sizes_of(gqa))
    assert groups[0].names == ("model.embed_tokens.weight",)
    assert [group.layer for group in groups[1:-2]] == sorted(group.layer for group in groups[1:-2])
    assert [group.names[0] for group in groups[-2:]] == ["model.norm.weight", "lm_head.weight"]
