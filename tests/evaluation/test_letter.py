import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from megatron_astro.errors import DataError
from megatron_astro.evaluation.letter import LetterForm, answer_by_letter, letter_forms, read_letters
from megatron_astro.evaluation.prompts import BUILT_IN, Template, stem_text
from megatron_astro.records import LETTERS


def test_letters_get_the_probability_of_the_next_token(either_loaded, questions, shots):
    """Against one plain forward pass a question; float32 both, logits below 64 in sums of 32 products: 32 * 64 * 2^-23."""
    loaded = either_loaded
    model = AutoModelForCausalLM.from_pretrained(loaded.folder)
    stems = [stem_text(BUILT_IN["letter"], question, shots, "letter") for question in questions]
    answers, _ = answer_by_letter(loaded, questions, stems, BUILT_IN["letter"], batch_size=2)
    for answer, stem in zip(answers, stems, strict=True):
        ids = [token for token in loaded.tokenizer(stem)["input_ids"] if token != loaded.tokenizer.eos_token_id]
        with torch.inference_mode():
            log_softmax = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for form in letter_forms(loaded.tokenizer, stem, BUILT_IN["letter"]):
            if len(form.tokens) == 1:  # the other form is part of the sum, so the sum is no smaller
                assert answer.scores[LETTERS.index(form.letter)] >= log_softmax[form.tokens[0]].item() - 32 * 64 * 2**-23
        assert answer.letter_mass == pytest.approx(sum(math.exp(score) for score in answer.scores))
        assert answer.letter_mass < 1
        assert answer.scores[LETTERS.index(answer.predicted)] == max(answer.scores)


def test_forms_are_the_tokenizers_own(loaded, questions):
    tokenizer = loaded.tokenizer
    stem = stem_text(BUILT_IN["letter"], questions[0], (), "letter")
    forms = letter_forms(tokenizer, stem, BUILT_IN["letter"])
    assert [(form.letter, form.text) for form in forms if form.letter == "A"] == [("A", " A"), ("A", "A")]
    assert (
        len({form.tokens for form in forms}) == len(forms) == 8
    )  # no two letters share a form: no beginning-of-text token among them
    for form in forms:
        assert tokenizer.decode(form.tokens) == form.text


def test_a_letter_that_melts_into_the_stem_is_refused(loaded):
    """A question whose last word and letter are one token has no letter token to score."""
    template = Template(version="1", question="{question} {A} {B} {C} {D} Answ", answer="{answer}")

    class Melting:
        def __call__(self, texts, **_options):
            rows = [[len(text)] for text in texts]  # every text is a single token
            return {
                "input_ids": rows,
                "offset_mapping": [[(0, len(text))] for text in texts],
                "special_tokens_mask": [[0] for _ in texts],
            }

    with pytest.raises(DataError, match="no token of its own for the letter A"):
        letter_forms(Melting(), "stem", template)


def test_forms_are_summed_not_the_best_taken(questions):
    """B is likeliest as a letter (0.3 + 0.3), though the single likeliest form is A's (0.35)."""
    shares = {("A", " A"): 0.35, ("B", " B"): 0.3, ("B", "B"): 0.3, ("C", " C"): 0.03, ("D", " D"): 0.02}
    forms = [LetterForm(letter=letter, text=text, tokens=(index,)) for index, (letter, text) in enumerate(shares)]
    answer = read_letters(questions[1], tuple((math.log(share),) for share in shares.values()), forms)
    assert answer.predicted == "B"
    assert answer.correct
    assert answer.letter_mass == pytest.approx(1.0)
    assert answer.scores[1] == pytest.approx(math.log(0.6))


def test_remarks_count_forms_and_letters(loaded, questions):
    stems = [stem_text(BUILT_IN["letter"], question, (), "letter") for question in questions]
    answers, (forms, mass, letters) = answer_by_letter(loaded, questions, stems, BUILT_IN["letter"], batch_size=5)
    wins = sum(answer.variant.startswith(" ") for answer in answers)
    assert forms == f"forms scored, and how often each was the likelier: ' A' {wins}, 'A' {len(answers) - wins}"
    assert mass.startswith("probability on the four letters: mean 0.")
    assert letters.startswith("letters chosen: A ")
