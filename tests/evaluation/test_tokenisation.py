from transformers import AutoTokenizer

from megatron_astro.evaluation.tokenisation import SplitText, common_prefix_length, join_as_tree, split_texts

STEM = "Question: How hot is the Sun?\nAnswer:"


def test_splitting_keeps_the_joint_tokens_and_the_leading_space_of_the_option(either_loaded):
    tokenizer = either_loaded.tokenizer
    texts = [" 5772 K", " 1.4", " solar masses", " 772 K"]
    for text, split in zip(texts, split_texts(tokenizer, STEM, texts), strict=True):
        whole = [token for token in tokenizer(STEM + text)["input_ids"] if token != tokenizer.eos_token_id]
        assert list(split.ids) == whole
        assert tokenizer.decode(split.ids[split.num_stem :]).strip() == text.strip()
        first = tokenizer.convert_ids_to_tokens(split.ids[split.num_stem])
        assert first[0] in "Ġ▁"  # the space is scored with the option, not with the stem


def test_a_beginning_is_kept_and_an_end_is_not(metaspace_folder):
    tokenizer = AutoTokenizer.from_pretrained(metaspace_folder)
    (split,) = split_texts(tokenizer, STEM, [""])
    assert split.ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in split.ids
    assert split.num_stem == len(split.ids)


def test_a_token_across_the_boundary_is_scored_with_its_branch():
    plain, across = SplitText(ids=(5, 6, 7, 8), num_stem=3), SplitText(ids=(5, 6, 9, 3), num_stem=2)
    tree = join_as_tree("t", [plain, across])
    assert tree.stem == (5, 6)
    assert tree.branches == ((7, 8), (9, 3))
    assert tree.first_scored == (1, 0)  # 7 belongs to the stem of the first text: context, not answer


def test_common_prefix_length():
    assert common_prefix_length([(1, 2, 3), (1, 2, 4), (1, 2)]) == 2
    assert common_prefix_length([(1, 2), (1, 2)]) == 2
    assert common_prefix_length([(1, 2), (3,)]) == 0
