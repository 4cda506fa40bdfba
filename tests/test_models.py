"""lib.models: loading, identity, and text to token ids."""
import json

import pytest
from safetensors.torch import load_file, save_file

from lib import chat, models
from lib.artifacts import UserError, sha256
from tests import tiny


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return tiny.load(tmp_path_factory.mktemp("models") / "pico", "llama")


def text(lm, ids):
    return lm.tokenizer.decode(ids)


def test_identity(lm, tmp_path):
    assert lm.name == "pico" and (lm.n_layers, lm.d_model, lm.eos) == (3, 32, (2,))
    folder = tiny.save(tmp_path / "other", "llama", seed=1)
    other = models.load(str(folder) + "/")
    assert other.identity["id"] == "other" and other.identity["dtype"] == "float32"
    assert other.identity["weights"] == {"model.safetensors": sha256(folder / "model.safetensors")}
    assert other.identity["weights"] != lm.identity["weights"]
    assert other.identity["tokenizer"] == lm.identity["tokenizer"]
    assert other.identity["n_parameters"] == lm.model.num_parameters()
    json.dumps(lm.identity)
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())


def test_penalties_of_a_hub_config_do_not_reach_greedy_decoding(tmp_path):
    folder = tiny.save(tmp_path / "m", "llama")
    config = json.loads((folder / "generation_config.json").read_text())
    config |= {"repetition_penalty": 1.3, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(config))
    found = models.load(str(folder)).model.generation_config
    assert found.repetition_penalty in (None, 1.0) and not found.do_sample and found.eos_token_id == [2]


def test_chat_uses_the_template_and_one_bos(lm):
    assert text(lm, lm.chat("be brief", "hello")) == "<s><system>be brief</s><user>hello</s><assistant>"
    for system in (None, ""):
        assert text(lm, lm.chat(system, "hello")) == "<s><user>hello</s><assistant>"
    assert lm.chat("be brief", "hello").count(1) == 1
    assert {"kind": "own", "system": "role"}.items() <= lm.identity["chat_template"].items()
    assert lm.encode("hello")[0] == 1 and lm.tokens("hello") == lm.encode("hello")[1:]


def test_template_without_system_role(tmp_path):
    lm = tiny.load(tmp_path / "m", "llama", chat_template=tiny.NO_SYSTEM)
    assert lm.identity["chat_template"]["system"] == "in user message"
    assert text(lm, lm.chat("be brief", "hello")) == "<s><user>be brief\n\nhello</s><assistant>"
    silent = tiny.load(tmp_path / "n", "llama", chat_template="{{ messages[-1].content }}")
    assert text(silent, silent.chat("be brief", "hello")) == "be brief\n\nhello"


def test_no_template(tmp_path):
    lm = tiny.load(tmp_path / "m", "gpt2", chat_template=None)
    assert {"kind": "plain", "system": "role"}.items() <= lm.identity["chat_template"].items()
    assert text(lm, lm.chat("be brief", "hello")) == "<s>be brief\n\nUser: hello\nAssistant:\n"
    without = tiny.load(tmp_path / "n", "gpt2", chat_template=None, add_bos=False)
    assert text(without, without.chat(None, "hello")) == "User: hello\nAssistant:\n"


def test_a_template_with_a_date_does_not_change_from_day_to_day(tmp_path):
    dated = "{{ date_string if date_string is defined else strftime_now('%d') }} {{ messages[-1].content }}"
    lm = tiny.load(tmp_path / "m", "llama", chat_template=dated)
    assert text(lm, lm.chat(None, "hello")) == f"{chat.DATE} hello"


def test_letters(lm):
    a, b = lm.letter_ids()
    assert lm.tokenizer.convert_ids_to_tokens([a, b]) == ["A", "B"]


@pytest.mark.parametrize("merges, message", [
    ({"(A": "(A", "(B": "(B"}, "'A' is not a token of its own"),
    ({"A)": "A)"}, "'A' is not a token of its own"),
])
def test_merged_letters(lm, monkeypatch, merges, message):
    def merged(string):
        for piece in merges:
            if piece in string:
                head, tail = string.split(piece)
                return [*map(ord, head), 1000, *map(ord, tail)]
        return [*map(ord, string)]
    monkeypatch.setattr(lm, "tokens", merged)
    with pytest.raises(UserError, match=message):
        lm.letter_ids()


def test_equal_letters(lm, monkeypatch):
    monkeypatch.setattr(lm, "tokens", lambda string: [7 if c in "AB" else ord(c) for c in string])
    with pytest.raises(UserError, match="same token id 7"):
        lm.letter_ids()


def test_answer_token(lm):
    whole = lm.encode("big -> small")
    assert lm.answer_token("big ->", " small") == whole[len(lm.encode("big ->"))]
    assert lm.answer_token(lm.encode("big ->"), " small") == lm.tokens(" small")[0]
    with pytest.raises(UserError, match="merges"):
        lm.answer_token("the ca", "t")      # "cat" is one token
    with pytest.raises(UserError):
        lm.answer_token("big ->", "")


def test_encode_drops_a_closing_eos(lm, monkeypatch):
    tok = lm.tokenizer
    monkeypatch.setattr(lm, "tokenizer", lambda s, add_special_tokens=True: type("Ids", (), {
        "input_ids": tok(s, add_special_tokens=add_special_tokens).input_ids + [2] * add_special_tokens}))
    monkeypatch.setattr(lm.tokenizer, "eos_token_id", 2, raising=False)
    assert lm.encode("hello") == [1, *tok("hello", add_special_tokens=False).input_ids]


@pytest.mark.parametrize("name", ["no/such/folder", "./missing", "tests/missing"])
def test_missing_folder(name):
    with pytest.raises(UserError, match=f"{name}: no such model folder"):
        models.load(name)


def test_broken_folders(tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        models.load(str(tmp_path))
    with pytest.raises(UserError, match="dtype"):
        models.load(str(tmp_path), dtype="int8")
    folder = tiny.save(tmp_path / "m", "llama")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights lack .*layers.1.mlp.up_proj"):
        models.load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load(str(folder))
