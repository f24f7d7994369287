import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from megatron_astro.evaluation.answer_text import answer_by_text, read_texts
from megatron_astro.evaluation.prompts import BUILT_IN, stem_text

TEMPLATE = BUILT_IN["answer_text"]


@pytest.mark.parametrize("num_shots", [0, 2])
def test_options_get_the_probability_of_their_text(either_loaded, questions, shots, num_shots):
    """log P(option | stem) = log P(stem + option) - log P(stem), each from a plain forward pass of the whole text.

    float32 both; a text's sum has under 256 terms, each off by at most 32 * 64 * 2^-23 (sums of 32 products of logits below 64).
    """
    model = AutoModelForCausalLM.from_pretrained(either_loaded.folder)
    tokenizer = either_loaded.tokenizer

    def log_probability(text):
        ids = torch.tensor([[token for token in tokenizer(text)["input_ids"] if token != tokenizer.eos_token_id]])
        with torch.inference_mode():
            scores = model(ids).logits[0, :-1].double().log_softmax(-1)
        return scores.gather(1, ids[0, 1:, None]).sum().item(), ids.shape[1]

    stems = [stem_text(TEMPLATE, question, shots[:num_shots], "answer_text") for question in questions]
    answers, _ = answer_by_text(either_loaded, questions, stems, TEMPLATE, batch_size=3)
    for question, stem, answer in zip(questions, stems, answers, strict=True):
        of_stem, num_stem = log_probability(stem)
        for index, option in enumerate(question.options):
            of_whole, num_whole = log_probability(f"{stem} {option}")
            assert answer.num_tokens[index] == num_whole - num_stem
            assert answer.log_likelihoods[index] == pytest.approx(of_whole - of_stem, abs=256 * 32 * 64 * 2**-23)
            assert answer.scores[index] == pytest.approx(answer.log_likelihoods[index] / answer.num_tokens[index])


def test_length_is_divided_out(questions):
    """The second option is likeliest per token (-1), though another text has the larger sum (-3 against -4)."""
    answer = read_texts(questions[1], ((-3.0,), (-1.0, -1.0, -1.0, -1.0), (-9.0,), (-8.0,)))
    assert answer.predicted == "B"
    assert answer.correct
    assert answer.scores == (-3.0, -1.0, -9.0, -8.0)
    assert answer.log_likelihoods == (-3.0, -4.0, -9.0, -8.0)


def test_remark_tells_other_ways_to_count_length(either_loaded, questions):
    stems = [stem_text(TEMPLATE, question, (), "answer_text") for question in questions]
    answers, (remark,) = answer_by_text(either_loaded, questions, stems, TEMPLATE, batch_size=5)
    undivided = sum("ABCD"[max(range(4), key=answer.log_likelihoods.__getitem__)] == answer.right for answer in answers)
    assert remark.endswith(f"undivided: {undivided / 5:.4f}")
    assert not math.isnan(answers[0].scores[0])
