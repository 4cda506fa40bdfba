"""Families: tiny random models of every architecture that we vouch for, each path of the engine against plain passes.

`python -m tests.test_families` prints the table that README shows between its marks."""
import functools
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from lib import engine, models, probe
from lib.artifacts import ROOT, UserError
from lib.studies import mediation
from tests import tiny
from tests.test_engine import naive, naive_generate, naive_read, some, some_rows

TITLES = {
    "gpt2": "GPT-2", "gpt_neo": "GPT-Neo", "gpt_neox": "GPT-NeoX, Pythia", "gptj": "GPT-J", "codegen": "CodeGen",
    "opt": "OPT", "xglm": "XGLM", "bloom": "Bloom", "mpt": "MPT", "falcon": "Falcon",
    "falcon-alibi": "Falcon with ALiBi", "llama": "Llama", "llama4": "Llama 4", "mistral": "Mistral with window",
    "mixtral": "Mixtral", "qwen2": "Qwen 2", "qwen3": "Qwen 3", "qwen3_moe": "Qwen 3 MoE",
    "qwen3_next": "Qwen 3 Next", "gemma": "Gemma", "gemma2": "Gemma 2", "gemma3": "Gemma 3", "phi": "Phi",
    "phi3": "Phi-3", "olmo2": "OLMo 2", "stablelm": "StableLM", "cohere": "Cohere", "cohere2": "Cohere 2",
    "granite": "Granite", "smollm3": "SmolLM 3", "gpt_oss": "gpt-oss", "lfm2": "LFM 2", "jamba": "Jamba",
    "mamba": "Mamba", "mamba2": "Mamba 2", "recurrent_gemma": "RecurrentGemma", "rwkv": "RWKV", "xlstm": "xLSTM",
    "bart-decoder": "BART, decoder alone", "openai-gpt": "GPT"}
WORST = 1e-4                 # absolute, of states and logits of a size around 1
REFUSED = {"bert": "a later token changes an earlier state: not a causal language model",
           "roberta": "a later token changes an earlier state: not a causal language model",
           "xlnet": "a block puts out (7, 1, 32), expected (batch, token, d_model), here (1, 7, 32)",
           "gemma3n": "a block puts out (4, 1, 7, 32), expected (batch, token, d_model), here (1, 7, 32)"}
MARKS = r"<!-- families -->\n(.*?)\n<!-- end of families -->"


@functools.cache
def load(family):
    with tempfile.TemporaryDirectory() as folder:
        return tiny.load(Path(folder) / family, family)


@functools.cache
def measure(family):
    """{"capture", "sweep": largest errors; "same" of "answers" are identical; "path" and "heads" in words}."""
    lm, prompts, rows = load(family), some(5), [some_rows()[i] for i in (0, 1, 2, 5)]
    read = engine.read(lm, prompts)
    capture = max(np.abs(found - naive_read(lm, ids)[:, -1]).max() for ids, found in zip(prompts, read))
    sweep = 0
    for suffix in (1, 2):
        found = engine.sweep(lm, prompts, rows, np.arange(320), suffix=suffix)["logits"]
        for i, ids in enumerate(prompts):
            for j, row in enumerate(rows):
                want = naive(lm, ids, row, len(ids) - suffix)[-1].numpy()
                sweep = max(sweep, np.abs(found[i, j] - want).max())
                assert np.abs(want).max() > 0.3                  # an error could be seen
    asked, under = [*prompts, *prompts[:2]], [*rows, *rows[:3]]
    answers = engine.generate_ids(lm, asked, under, 6)
    same = sum(found == naive_generate(lm, ids, row, 6) for ids, row, found in zip(asked, under, answers))
    try:
        place = mediation.projections(lm)
        name = {id(module): name for name, module in lm.layers[1].named_modules()}[id(place.modules[1])]
        heads = f"`{name}`"
    except UserError as error:
        heads = re.sub(r"^.*(layer \d) has no attention.*$", r"none: \1 has no attention", str(error))
    return {"capture": capture, "sweep": sweep, "same": same, "answers": len(asked), "path": probe.paths(lm),
            "heads": heads}


@pytest.mark.parametrize("family", TITLES)
def test_every_path_is_a_plain_pass(family):
    found = measure(family)
    assert found["capture"] < WORST and found["sweep"] < WORST and found["same"] == found["answers"]


def test_paths():
    """The families that take another path than branches, each for its reason."""
    other = {family: found["path"] for family in TITLES if (found := measure(family))["path"] != "branches"}
    windows = dict.fromkeys(("mistral", "gemma2", "gemma3", "cohere2", "gpt_oss", "llama4"),
                            "branches up to 12 tokens, then copies")
    by_index = dict.fromkeys(("gpt_neo", "bloom", "mpt", "falcon-alibi"), "copies")
    states = dict.fromkeys(("lfm2", "mamba2", "qwen3_next"), "copies") | dict.fromkeys(
        ("mamba", "jamba"), "copies, by single tokens")
    assert other == windows | by_index | states | {
        "recurrent_gemma": "whole prompts; answers in batches of one length",
        "bart-decoder": "copies; answers in batches of one length",
        "rwkv": "whole prompts; answers in batches of one length; no cache in answers",
        "xlstm": "whole prompts; answers in batches of one length; no cache in answers",
        "openai-gpt": "whole prompts; no cache in answers"}


# --- heads --------------------------------------------------------------------------------------------------


def without_values(lm, attention, head, heads):
    """Zero what one key/value head (of as many as `heads` share) brings in; how many heads it serves."""
    modules, d = dict(attention.named_modules()), lm.d_model // heads
    last = {name.rpartition(".")[2]: module for name, module in modules.items()}
    if "v_proj" in last:
        rows, module = slice(head * d, (head + 1) * d), last["v_proj"]
    elif "query_key_value" in last:             # NeoX, Bloom, Falcon: query, key, value side by side for every head
        rows, module = slice((3 * head + 2) * d, (3 * head + 3) * d), last["query_key_value"]
    else:                                       # GPT-2, MPT, Phi-3: all queries, all keys, all values
        module = next(last[name] for name in ("c_attn", "Wqkv", "qkv_proj") if name in last)
        out = module.weight.shape[1 if isinstance(module, Conv1D) else 0]
        start = (out + lm.d_model) // 2         # queries are as wide as the model, keys as wide as values
        rows = slice(start + head * d, start + (head + 1) * d)
    with torch.no_grad():
        (module.weight.T if isinstance(module, Conv1D) else module.weight)[rows] = 0
        if getattr(module, "bias", None) is not None:
            module.bias[rows] = 0
    config = lm.model.config.get_text_config(decoder=True)
    kv = getattr(config, "num_key_value_heads", None) or heads
    return heads // kv


@pytest.mark.parametrize("family", [f for f in TITLES if f not in (
    "lfm2", "jamba", "mamba", "mamba2", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "codegen")])
def test_what_a_head_brings_is_what_is_missing_without_its_values(family, tmp_path):
    """Independent of how the projection is found: the values of one head are zeroed in the weights before it."""
    lm, ids = tiny.load(tmp_path / family, family), some(1)[0]
    place, layer, head = mediation.projections(lm), 1, 1
    inputs = engine.read(lm, [ids], place=place)[0]

    def attended():
        kept = []
        handle = place.modules[layer].register_forward_hook(lambda _m, _a, output: kept.append(output))
        engine.read(lm, [ids])
        handle.remove()
        return kept[0].view(-1, lm.d_model)[-1].numpy()

    before = attended()
    attention = next(module for module in lm.layers[layer].modules()
                     if type(module).__name__.endswith("Attention") and place.modules[layer] in [*module.modules()])
    group = without_values(lm, attention, head, mediation.n_heads(lm))
    served = [(layer, head * group + k) for k in range(group)]
    np.testing.assert_allclose(before - attended(), mediation.head_sum(lm, place, inputs, served), atol=1e-5)
    assert np.abs(before - attended()).max() > 1e-3


def test_models_without_heads_say_so():
    assert {family for family in TITLES if measure(family)["heads"].startswith("none")} == {
        "lfm2", "jamba", "mamba", "mamba2", "qwen3_next", "recurrent_gemma", "xlstm", "rwkv"}


# --- what is refused ----------------------------------------------------------------------------------------


def refusal(folder):
    with pytest.raises(UserError) as error:
        models.load(str(folder))
    line = str(error.value)
    assert "\n" not in line and len(line) < 400
    return line


@pytest.mark.parametrize("family", REFUSED)
def test_other_models_are_refused_in_one_line(family, tmp_path):
    assert refusal(tiny.save(tmp_path / family, family)) == f"{family}: {REFUSED[family]}"


@pytest.mark.parametrize("kind, says", [
    ("t5", "t5 is an encoder-decoder model, expected a causal language model"),
    ("bart", "bart is an encoder-decoder model"), ("whisper", "whisper is an encoder-decoder model"),
    ("qwen2_vl", "qwen2_vl is a model with vision input"), ("llava", "llava is a model with vision input"),
    ("clip", "clip is "), ("vit", "vit is no causal language model"), ("gibberish", "cannot be loaded: ")])
def test_other_configurations_are_refused_before_their_weights_are_read(kind, says, tmp_path):
    config = {"model_type": kind} if kind == "gibberish" else AutoConfig.for_model(kind).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    assert refusal(tmp_path).startswith(f"{tmp_path}: {says}")


def change(folder, how):
    """Rewrite the weights of a model folder by how(dict)."""
    weights = load_file(folder / "model.safetensors")
    how(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def fill(name, value):
    return lambda weights: weights[name].fill_(value)


@pytest.mark.parametrize("how, says", [
    (fill("model.layers.1.mlp.up_proj.weight", float("nan")),
     "the weights are damaged, model.layers.1.mlp.up_proj.weight holds values that are not finite"),
    (fill("model.layers.2.self_attn.o_proj.weight", float("inf")), "o_proj.weight holds values that are not finite"),
    (fill("lm_head.weight", 0),
     "the weights are damaged, lm_head.weight is all zero"),
    (fill("model.norm.weight", 3e38), "values that are not finite: its weights are finite, so float32 is too narrow"),
    (lambda weights: weights.update({"model.layers.3.mlp.up_proj.weight": torch.ones(48, 32)}),
     "the weights hold 1 tensors that the model of its config.json has no place for: .*layers.3.mlp"),
    (lambda weights: weights.update({"model.embed_tokens.weight": torch.ones(7, 32)}), 
     r"model.embed_tokens.weight of the weights is \(7, 32\), expected \(320, 32\)"),
])
def test_weights_that_are_wrong(how, says, tmp_path):
    line = refusal(change(tiny.save(tmp_path / "m", "llama"), how))
    assert re.search(says, line), line


def test_buffers_of_old_checkpoints_are_no_reason(tmp_path):
    folder = change(tiny.save(tmp_path / "m", "llama"), lambda weights: weights.update(
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    assert models.load(str(folder)).branches


def test_fewer_layers_in_the_config_than_in_the_weights(tmp_path):
    folder = tiny.save(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert "9 tensors that the model of its config.json has no place for: ['model.layers.2." in refusal(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    assert "the weights lack" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert "no whole safetensors file" in refusal(folder)


# --- the probe sees what is wrong ---------------------------------------------------------------------------


def meddle(lm, monkeypatch, change):
    """change(block output, arguments of the model's call) between the first block and the second."""
    seen = {}
    real = lm.model.base_model.forward

    def forward(*args, **kwargs):
        seen.update({"input_ids": None, "past_key_values": None, "attention_mask": None} | kwargs)
        seen["past"] = seen["past_key_values"] is not None and seen["past_key_values"].get_seq_length() > 0
        return real(*args, **kwargs)
    monkeypatch.setattr(lm.model.base_model, "forward", forward)
    return lm.layers[0].register_forward_hook(lambda _m, _a, output: change(output, seen))


@pytest.mark.parametrize("change, says", [
    (lambda out, _: out + out.mean(1, keepdim=True), "a later token changes an earlier state"),
    (lambda out, _: out + out.mean(0, keepdim=True).cumsum(1), "the other prompts of a batch change"),
    (lambda out, seen: out * (1 + (seen["input_ids"] == 0).sum(1)[:, None, None]),
     "pads on the right change the states"),
    (lambda out, _: torch.rand_like(out), "changes? an earlier state|change the states"),
    (lambda out, _: out[:, :, :8], "a short plain pass fails|puts out"),
])
def test_the_probe_refuses(change, says, monkeypatch):
    lm = load.__wrapped__("llama")
    meddle(lm, monkeypatch, change)
    with pytest.raises(UserError, match=says):
        probe.check(lm)


def test_the_probe_leaves_a_path_that_disagrees(monkeypatch):
    """A model that goes wrong where a cache goes on, under a mask of branches, by several tokens, behind pads."""
    def ndim(seen):
        return getattr(seen["attention_mask"], "ndim", 0)

    for wrong, path in (
            (lambda out, seen: seen["past"], "whole prompts; no cache in answers"),
            (lambda out, seen: ndim(seen) == 4, "copies"),
            (lambda out, seen: seen["past"] and out.shape[1] > 1, "copies, by single tokens"),
            (lambda out, seen: ndim(seen) == 2 and not seen["attention_mask"].all(),
             "branches; answers in batches of one length")):
        lm = load.__wrapped__("llama")
        handle = meddle(lm, monkeypatch, lambda out, seen, wrong=wrong: out * (2 if wrong(out, seen) else 1))
        assert probe.paths(probe.check(lm)) == path
        handle.remove()
        monkeypatch.undo()


# --- README -------------------------------------------------------------------------------------------------


def table():
    """The Markdown table of README: what is measured here, family by family."""
    lines = ["| family | states | logits | answers identical | path | heads |", "|---|---:|---:|---:|---|---|"]
    for family, title in TITLES.items():
        found = measure(family)
        lines.append(f"| {title} | {found['capture']:.0e} | {found['sweep']:.0e} | {found['same']} of "
                     f"{found['answers']} | {found['path']} | {found['heads']} |")
    return "\n".join(lines)


def test_readme_shows_the_table():
    """Errors may differ from machine to machine; all else is held to the letter."""
    shown = re.search(MARKS, (ROOT / "README.md").read_text(), re.S)
    if not shown:
        pytest.skip("README has no marks for the table")
    error = re.compile(r"\| *(\d(?:\.\d)?e[+-]\d\d) *(?=\|)")
    assert error.sub("|", shown[1].strip()) == error.sub("|", table())
    assert all(float(number) < WORST for number in error.findall(shown[1]))


if __name__ == "__main__":
    print(table())
