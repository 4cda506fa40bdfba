"""The training script at a toy size: a run that is stopped and resumed ends with the weights of one that is not."""
import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from data import train_testbed as script

BUILD = script.build_tokenizer


@pytest.fixture
def toy(monkeypatch):
    """Seconds instead of half an hour: 12 steps and 4 more, two layers of width 48."""
    phases = ((0, {"trait": .5, "behaviour": .5}), (1, {"relation": .5, "value": .5}))
    legs = ({"phases": phases, "steps": 12, "peak": 1e-3, "warmup": 2, "floor": .1, "averaged": 0},
            {"phases": ((0, {"pronoun": 1.}),), "steps": 4, "peak": 1e-3, "warmup": 1, "floor": 1., "averaged": 2})
    for name, value in {"LEGS": legs, "CHUNK": 24, "BATCH_TOKENS": 1024, "CHECKPOINT_EVERY": 5, "WIDTH": 48, "LAYERS": 2,
                        "HEADS": 2, "MALLOC": {}, "build_tokenizer": lambda: BUILD(200)}.items():
        monkeypatch.setattr(script, name, value)

    def run(out, name="pico-llama"):
        monkeypatch.setattr(sys, "argv", ["train", name, "--out", str(out)])
        script.main()
        return load_file(out / name / "model.safetensors")
    return run


@pytest.mark.parametrize("name", ["pico-llama", "pico-gpt2"])
def test_a_resumed_run_ends_with_the_same_weights(toy, name, tmp_path, monkeypatch):
    whole = toy(tmp_path / "whole", name)
    real, calls = torch.save, []

    def stop_after_saving(*args):
        real(*args)
        calls.append(args)
        if len(calls) in (1, 2):                # inside the first leg, and again between the two
            (tmp_path / "cut" / name / "checkpoint.tmp").replace(tmp_path / "cut" / name / "checkpoint.pt")
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop_after_saving)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            toy(tmp_path / "cut", name)
    resumed = toy(tmp_path / "cut", name)
    assert len(calls) > 2 and set(whole) == set(resumed)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    logs = [json.loads((tmp_path / folder / name / "training.json").read_text()) for folder in ("whole", "cut")]
    assert logs[0]["padded_tokens"] == logs[1]["padded_tokens"] and logs[0]["steps"] == 16
    assert not (tmp_path / "cut" / name / "checkpoint.pt").exists()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / name)
    assert model.dtype == torch.bfloat16 and len(AutoTokenizer.from_pretrained(tmp_path / "whole" / name)) > 256


def test_the_last_leg_keeps_the_mean_of_its_last_weights(toy, tmp_path, monkeypatch):
    seen, step = [], script.torch.optim.AdamW.step
    monkeypatch.setattr(script.torch.optim.AdamW, "step", lambda self, *a: (step(self, *a), seen.append(
        [p.detach().clone() for g in self.param_groups for p in g["params"]]))[0])
    kept = toy(tmp_path)
    mean = [torch.stack(pair).mean(dim=0).to(torch.bfloat16) for pair in zip(*seen[-2:])]
    flat = lambda tensors: sorted((t.float().sum().item(), t.shape) for t in tensors)
    ours = [(s, shape) for s, shape in flat(mean)]
    theirs = flat(t for key, t in kept.items() if key != "lm_head.weight")
    assert [shape for _, shape in ours] == [shape for _, shape in theirs]
    assert [s for s, _ in ours] == pytest.approx([s for s, _ in theirs], abs=1e-2)


def test_learning_rate_warms_up_and_falls_to_its_floor():
    leg = {"steps": 100, "peak": 2., "warmup": 10, "floor": .1}
    rates = [script.learning_rate(leg, step) for step in range(100)]
    assert rates[0] == pytest.approx(.2) and rates[9] == rates[10] == 2. and rates[-1] == pytest.approx(.2, abs=.01)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:]))
