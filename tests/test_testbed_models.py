"""The committed models: ordinary folders, of the promised size, able to do what their cards say."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data import check_testbed
from data import testbed as tb
from data.styles import TRAITS, instruction
from lib import engine, models

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
NAMES = ("pico-llama", "pico-gpt2")


@pytest.fixture(scope="module", params=NAMES)
def lm(request):
    return models.load(MODELS / request.param)


@pytest.mark.parametrize("name", NAMES)
def test_an_ordinary_hugging_face_folder_of_at_most_8_megabytes(name):
    weights = list((MODELS / name).glob("*.safetensors"))
    assert len(weights) == 1 and weights[0].stat().st_size <= 8e6
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    tok = AutoTokenizer.from_pretrained(MODELS / name)
    assert model.dtype == torch.bfloat16 and 2.5e6 < model.num_parameters() < 4e6
    text = tok.apply_chat_template([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
                                   tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|system|>a<|end|><|user|>b<|end|><|assistant|>"
    assert tok("hot ->").input_ids[0] == tok.bos_token_id


def test_follows_style_instructions_on_held_out_contents(lm):
    rng, names = np.random.default_rng(1), list(TRAITS)[::3]
    rows = [tb.task_item(rng, task, True) for task in tb.TASK_ROLES for _ in names]
    asked = names * len(tb.TASK_ROLES)
    prompts = [lm.chat(instruction(t, True, 0, 0), r["prompt"]) for t, r in zip(asked, rows)]
    texts = engine.generate(lm, prompts, [()] * len(rows), 100)
    assert np.mean([tb.SCORER.expression(t, x, r) for t, x, r in zip(asked, texts, rows)]) > 85
    assert np.mean([tb.SCORER.coherence(x, r) for x, r in zip(texts, rows)]) > 85


def test_chooses_the_option_that_the_persona_asks_for(lm):
    rng, letters, jobs = np.random.default_rng(2), lm.letter_ids(), []
    for name, (_, words) in tb.BEHAVIOURS.items():
        for kind in ("yes_no", "options"):
            item, _ = tb.sample_item(rng, name, kind, True)
            persona = bool(rng.random() < .5)
            prompt = lm.chat(tb.PERSONAS[persona][0].format(t=words[0]), item["question"]) + lm.tokens("(")
            jobs.append((prompt, (item["positive"] == "A") == (persona != item["contrary"])))
    z = engine.sweep(lm, [p for p, _ in jobs], [()], np.array(letters))["logits"][:, 0]
    assert np.mean((z[:, 0] > z[:, 1]) == [a for _, a in jobs]) > .85


@pytest.mark.parametrize("name", NAMES)
def test_the_card_shows_the_numbers_that_were_measured(name):
    card = json.loads((MODELS / name / "card.json").read_text())
    page = (MODELS / name / "README.md").read_text()
    for ability, bound, measured, ok in check_testbed.table(card):
        assert f"| {ability} | {bound} | {measured} | {'yes' if ok else '**no**'} |" in page
