"""Real tokenizers on tiny random models: token ids of prompts, where the letters are read, and the stages end to end.

Chat templates that would spoil a prompt, each as a toy: what lib.chat makes of it.
"""
import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lib import artifacts, chat, metrics, models, splits, suite as suites
from lib.artifacts import ROOT, UserError
from lib.judging import judges
from lib.studies import propensity
from tests import tiny
from tests.test_stage_01_02 import HashJudge

SHARED = ROOT.parent / "shared" / "data" / "tokenizers"
NAMES = ("gemma2", "gpt2", "llama2", "llama3_1", "mistral_nemo", "qwen1_5", "qwen2_5", "qwen3")
STAGES = [importlib.import_module(name) for name in ("01_extract", "02_tune", "03_transfer", "05_reliability")]
ASKED = ("Be brief.", "Is it so?\n\nChoices:\n(A):  Yes\n(B):  No")
CHATML = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PLAIN = "{}\n\nUser: {}\nAssistant:\n"
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
# By hand, from the models' cards: what a prompt is. A plain one gets the tokenizer's own BOS.
WRITTEN = {"gemma2": "<bos>" + PLAIN, "gpt2": PLAIN, "llama2": PLAIN, "mistral_nemo": "<s>[INST]{}\n\n{}[/INST]",
           "llama3_1": "<|begin_of_text|>" + HEADER.format("system") + "{}<|eot_id|>" + HEADER.format("user")
           + "{}<|eot_id|>" + HEADER.format("assistant"),
           "qwen1_5": CHATML, "qwen2_5": CHATML, "qwen3": CHATML + "<think>\n\n</think>\n\n"}
MERGED = {"llama3_1", "mistral_nemo", "qwen1_5", "qwen2_5", "qwen3"}       # "(A" is one token
ENDS = {"llama3_1": "<|eot_id|>", "mistral_nemo": "</s>",
        **dict.fromkeys(("qwen1_5", "qwen2_5", "qwen3"), "<|im_end|>")}


def model(folder, tokenizer):
    """A random model of two layers with the vocabulary of `tokenizer`."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=True, initializer_range=0.3, pad_token_id=None,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)).save_pretrained(folder)


@pytest.fixture(scope="module", params=NAMES)
def named(request, tmp_path_factory):
    """(name, folder of a tiny model with the tokenizer of that name)."""
    if not (SHARED / request.param).is_dir():
        pytest.skip(f"the tokenizer is not at {SHARED / request.param}")
    folder = tmp_path_factory.mktemp("tokenizers") / request.param
    folder.mkdir()
    for file in (SHARED / request.param).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model(folder, AutoTokenizer.from_pretrained(folder))
    return request.param, folder


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A suite of one trait, a behaviour per format, two relations and a value, cut from the testbed."""
    source, folder = suites.load("testbed", "smoke"), tmp_path_factory.mktemp("suite") / "mini"
    trait = source.traits[0]
    mine = {task: {part: [item for item in items if trait["name"] in item.get("traits", [trait["name"]])][:2]
                   for part, items in splits.items()} for task, splits in source.tasks.items()}
    mine = {task: {part: [item | {"traits": [trait["name"]]} for item in items] for part, items in splits.items()}
            for task, splits in mine.items()}
    behaviours = [next(b for b in source.behaviours if b["format"] == fmt) for fmt in ("yes_no", "options")]
    parts = {"suite.json": {"name": "mini", "judge": "self", "system": source.system, "strength": "relative",
                            "max_new_tokens": 4, "licence": "MIT", "source": "the testbed"},
             "traits.json": [trait], "tasks.json": mine, "templates.json": source.templates[:2],
             "behaviours.json": [{key: b[key] for key in b if key != "items"} for b in behaviours],
             "values.json": {"values": [source.values[0] | {"probes": source.values[0]["probes"][:6]}],
                             "facts": source.facts[:6], "neutral": source.neutral[:12]}}
    parts |= {b["file"]: sum(splits.contents(b["items"])[:8], []) for b in behaviours}
    parts |= {f"relations/{name}.json": (r := suites.relation(source, name)) | {"pairs": r["pairs"][:10]}
              for name in ("antonym", "synonym")}
    for name, content in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(folder / name, content)
    return folder


def run(stages, folder, suite, out, patch):
    """The stages' artifacts, all run in this process at smoke size."""
    patch.setattr(judges, "load", lambda *_: HashJudge())
    patch.setattr(STAGES[0], "why_dropped", lambda *_: None)
    # A vocabulary of 250,000 is slow even at width 16, and controls do not depend on it.
    for name, few in {"N_RANDOM": {"full": 2, "smoke": 2}, "N_RANDOM_VALUES": {"full": 2, "smoke": 2}, "N_RANDOM_WAYS": 1,
                      "N_RANDOM_TEXT": {"full": 1, "smoke": 1},
                      "STRENGTHS": {"full": (0.4,), "smoke": (0.4,)}}.items():
        patch.setattr(STAGES[2], name, few)
    patch.setitem(metrics.bootstrap.__kwdefaults__, "n_boot", 100)
    for stage in stages:
        argv = [stage.__file__, "--model", folder, "--suite", suite, "--profile", "smoke", "--out", out]
        patch.setattr(sys, "argv", [*map(str, argv)])
        stage.main()
    return [artifacts.load(out / folder.name / "mini-smoke" / stage.__name__) for stage in stages]


# --- real tokenizers ----------------------------------------------------------------------------------------
def test_a_prompt_has_the_ids_of_its_text(named):
    """Against text written by hand and the tokenizers library alone."""
    name, folder = named
    lm, alone = models.load(folder, device="cpu"), Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = lm.chat(*ASKED)
    assert ids == alone.encode(WRITTEN[name].format(*ASKED), add_special_tokens=name == "llama2").ids
    assert ids.count(lm.tokenizer.bos_token_id) == (name in ("gemma2", "llama2", "llama3_1", "mistral_nemo"))
    told = lm.identity["chat_template"]
    assert told["kind"] == ("own" if name in ENDS else "plain") and told["system"] == "role"
    assert (told["default_system"] is not None) == (name in ("qwen1_5", "qwen2_5"))
    assert told["thinking"].startswith("switched off") == (name == "qwen3")
    if name in ENDS:
        assert alone.token_to_id(ENDS[name]) in lm.eos
    for system in (None, ""):
        bare = lm.tokenizer.decode(lm.chat(system, "Is it so?"))
        assert "system" not in bare and "helpful" not in bare and "Is it so?" in bare


def test_every_candidate_reads_as_the_letters(named):
    name, folder = named
    lm = models.load(folder, device="cpu")
    found = {one.name: one for one in propensity.candidates(lm)}
    assert set(found) == {"bracket", "published"} | ({"open"} if name in MERGED else set())
    for one in found.values():
        assert one.suffix == 1 + len(one.prefix) == 1 + (one.name != "open")
        for letter, token in zip("AB", one.letters):
            ids = lm.chat(*ASKED)
            read = lm.tokenizer.decode([*ids, *one.prefix, token, one.close], clean_up_tokenization_spaces=False)
            asked = lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            assert read == asked + {"published": " "}.get(one.name, "") + f"({letter})"


def test_the_stages_run_and_read_the_letters_where_01_found_them(named, mini, tmp_path, monkeypatch):
    name, folder = named
    first, second, third, fifth = run(STAGES, folder, mini, tmp_path, monkeypatch)
    kept = first.config["read_out"]
    tried = {"bracket", "published"} | ({"open"} if name in MERGED else set())
    assert set(first.results["read_out"]["masses"]) == tried
    assert kept["not_testable"] == [] and set(first.results["read_out"]["mass"]) == {"yes_no", "options"}
    assert second.results["behaviours"]["n"] == 2
    assert len(third.table("behaviours")) == len(fifth.table("behaviours")) == 2
    # one curve of stage 05 against plain passes over prompt + prefix, the suffix steered
    lm, suite = models.load(folder, device="cpu"), suites.load(str(mini), "smoke")
    row, behaviour = fifth.table("items")[0], suite.behaviours[0]
    item = next(item for item in behaviour["items"] if item["id"] == row["id"])
    layer, unit = (second.table("tuned")[f"behaviour/{behaviour['name']}"][key] for key in ("layer", "unit"))
    number = [c["key"] for c in first.table("concepts")].index(f"behaviour/{behaviour['name']}")
    ids = lm.chat(suite.system, item["question"]) + kept["prefix"]
    added = torch.zeros(1, len(ids), lm.d_model)
    added[0, -kept["suffix"]:] = torch.tensor(1.5 * unit * first.array("vectors")[number, layer])
    handle = lm.layers[layer].register_forward_hook(
        lambda _, __, out: (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added)
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
    handle.remove()
    a, b = kept["letters"]
    want = float(logits[a] - logits[b]) * (1 if item["positive"] == "A" else -1)
    assert fifth.array("propensity")[0, -1] == pytest.approx(want, abs=1e-3)


def test_a_bracket_that_merges_with_the_prompt_is_tokenised_behind_something_else(named):
    """Llama 2 ends a prompt in "[/INST]" and has a token "](": behind it, "(A" is written with a token of its own."""
    name, folder = named
    lm = models.load(folder, device="cpu")
    lm.tokenizer.chat_template = "{{ bos_token + '[INST] ' + messages[-1].content + ' [/INST]' }}"
    lm.template = chat.Chat(lm.tokenizer)
    for one in propensity.candidates(lm):
        got = [lm.tokenizer.decode([*lm.tokens("x"), *one.prefix, token])[1:] for token in one.letters]
        assert got == [f"{' ' * (one.name == 'published')}({letter}" for letter in "AB"]


def cut(*pieces):
    """A tokenizer that knows whole pieces, and else every sign by itself."""
    def ids(_, behind, text):
        found = []
        while text:
            piece = next((p for p in pieces if text.startswith(p)), text[0])
            found, text = [*found, sum(map(ord, piece))], text[len(piece):]
        return found
    return ids


def test_letters_that_merge_with_what_closes_them(lm, mini, monkeypatch):
    for pieces, want in ((("(A)", "(B)"), {("open", ()), ("bracket", (40,)), ("published", (32, 40))}),
                         (("A)", "B)"), {("bracket", (40,)), ("published", (32, 40))}),
                         (("(A)", "(B"), {("bracket", (40,)), ("published", (32, 40))})):      # no candidate
        monkeypatch.setattr(models.LM, "continuation", cut(*pieces))
        found = propensity.candidates(lm)
        assert {(one.name, one.prefix) for one in found} == want
        assert found[0].close == (None if pieces[1].endswith(")") else ord(")"))
    suite = suites.load(str(mini), "smoke")
    rows, items = [(), ((0, np.ones(lm.d_model, np.float32)),)], suite.behaviours[0]["items"][:3]
    one = replace(found[0], close=None)
    assert not propensity.closings(lm, one, suite, suite.behaviours[0], items, rows).any()
    monkeypatch.setattr(models.LM, "continuation", lambda *_: None)
    with pytest.raises(UserError, match="no tokens for the letters"):
        propensity.candidates(lm)


# --- which read-out is used ---------------------------------------------------------------------------------
@pytest.fixture
def lm(tmp_path):
    return tiny.load(tmp_path / "m", "llama", max_position_embeddings=1024)


def test_the_mass_is_the_naive_computation_and_the_largest_wins(lm, mini):
    suite = suites.load(str(mini), "smoke")
    tried, found = propensity.candidates(lm), propensity.find(lm, suite)
    for fmt in ("yes_no", "options"):
        drawn = propensity.sample(suite, fmt)
        letters = [item["positive"] for _, item in drawn]
        assert letters.count("A") == letters.count("B") > 0
        for one in tried:
            p = []
            for behaviour, item in drawn:
                ids = lm.chat(*suites.behaviour_prompts(suite, behaviour, item, "BASE")) + list(one.prefix)
                with torch.no_grad():
                    p.append(float(lm.model(torch.tensor([ids])).logits[0, -1].softmax(-1)[list(one.letters)].sum()))
            assert found.masses[one.name][fmt] == pytest.approx(np.mean(p), abs=1e-4)
    means = {name: sum(by.values()) for name, by in found.masses.items()}
    assert found.name == max(means, key=means.get) and found.mass == found.masses[found.name]


def test_prompts_are_balanced_over_behaviours(mini):
    suite = suites.load("testbed")
    drawn = propensity.sample(suite, "yes_no")
    names = [behaviour["name"] for behaviour, _ in drawn]
    assert len(drawn) == propensity.N_PROMPTS and max(map(names.count, names)) <= 2
    tuning = {item["id"] for b in suite.behaviours for item in suites.split(b["items"], "tune")}
    assert {item["id"] for _, item in drawn} <= tuning


@pytest.mark.parametrize("mass", [{"yes_no": 0.05, "options": 0.9}, {"yes_no": 0.05, "options": 0.04}])
def test_behaviours_without_letters_are_left_out_with_the_reason(mass, lm, mini, tmp_path, monkeypatch):
    found = replace(propensity.candidates(lm)[0], mass=mass, masses={"bracket": mass})
    monkeypatch.setattr(propensity, "find", lambda *_: found)
    monkeypatch.setattr(propensity, "LEAST_MASS", {"smoke": 0.1})
    first, *rest = run(STAGES, tmp_path / "m", mini, tmp_path / "out", monkeypatch)
    left = [c["name"] for c in first.table("concepts") if c["kind"] == "behaviour"]
    assert first.config["read_out"]["not_testable"] == [fmt for fmt in mass if mass[fmt] < 0.1]
    assert len(left) == sum(value >= 0.1 for value in mass.values())
    for stage in (first, *rest):
        said = stage.results["not_testable"]
        assert any("the letters hold 0.050 of the probability" in reason for reason in said.values())
        assert ("behaviours.yes_no" in said) == bool(left)


# --- templates ----------------------------------------------------------------------------------------------
BODY = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
IF_NONE = "{% if messages[0].role != 'system' %}{{ '<system>You are Tiny.</s>' }}{% endif %}"
DROPS = "{% for m in messages if m.role != 'system' %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
LIST = ("{% for m in messages %}{% for c in m.content if c.type == 'text' %}{{ '<' + m.role + '>' + c.text }}"
        "{% endfor %}{% endfor %}")
FIRST = "(messages[0].content if messages[0].role == 'system' else '')"
LAST = "{{ '</s><user>' + messages[-1].content + '</s><assistant>' }}"
OMITS = ("{% set s = messages[0].content if messages[0].role == 'system' else 'You are Tiny.' %}"
         "{% if s %}{{ '<system>' + s }}{% endif %}" + LAST)
EMPTY = "{{ '<system>' + (messages[0].content if messages[0].role == 'system' else 'You are Tiny.') }}" + LAST
KEEPS = "{{ '<system>' + (" + FIRST + " or 'You are Tiny.') }}" + LAST
FLAG = "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
THINKS = "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
CHANNELS = BODY.replace("m.content", "('<|channel|>final' if m.role == 'assistant' else '') + m.content")
BOTH = "<system>S</s><user>U</s><assistant>", "<user>U</s><assistant>"      # a prompt with a system text, and without
NO_ROLE = "<user>S\n\nU</s><assistant>", "<user>U</s><assistant>"
NO_TEMPLATE = "<s>S\n\nUser: U\nAssistant:\n", "<s>User: U\nAssistant:\n"


def default(now):
    return {"default_system": {"text": "You are Tiny.", "now": now}}


def around(before, prompts, after=""):
    return tuple(before + prompt + after for prompt in prompts)


# name: (template, the two prompts, what the identity says)
TOYS = {
    "nothing special": (tiny.CHAT, around("<s>", BOTH), {"kind": "own", "system": "role", "default_system": None,
                                                         "opening": "", "date": None, "bos": "template"}),
    "raises on a system text": (tiny.NO_SYSTEM, around("<s>", NO_ROLE),
                                {"system": "in user message", "system_why": "the template raises 'no'"}),
    "drops a system text": (DROPS, ("<user>S\n\nU<assistant>", "<user>U<assistant>"),
                            {"system": "in user message", "system_why": "the template drops it"}),
    "default, in a block": ("{{ bos_token }}" + IF_NONE + BODY + PROMPT, around("<s>", BOTH), default("cut")),
    "default, empty is none": (OMITS, (BOTH[0], "</s>" + BOTH[1]), default("an empty message")),
    "default, not cut": (EMPTY, (BOTH[0], "<system></s>" + BOTH[1]), default("an empty message")),
    "default that stays": (KEEPS, (BOTH[0], "<system>You are Tiny.</s>" + BOTH[1]),
                           default("kept: it cannot be taken out")),
    "thinking flag": (BODY + PROMPT + FLAG, around("", BOTH, "<think>\n\n</think>\n\n"),
                      {"thinking": "switched off by the template's flag", "opening": ""}),
    "thinks without a flag": (BODY + PROMPT + THINKS, around("", BOTH, "<think>\n\n</think>\n\n"),
                              {"thinking": "closed before the answer", "opening": "\n</think>\n\n"}),
    "channels": (CHANNELS + PROMPT, around("", BOTH, "<|channel|>final"),
                 {"thinking": "closed before the answer", "opening": "<|channel|>final"}),
    "no generation prompt": (BODY, BOTH, {"thinking": "the template has none", "opening": "<assistant>"}),
    "clock": ("{{ strftime_now('%d %b %Y') }} " + BODY + PROMPT, around(f"{chat.DATE} ", BOTH), {"date": chat.DATE}),
    "a macro's clock": ("{% macro day() %}{{ strftime_now('%Y') }}{% endmacro %}{{ day() }}" + BODY + PROMPT,
                        around("2024", BOTH), {"date": chat.DATE}),
    "two BOS": ("{{ bos_token }}{{ bos_token }}" + BODY + PROMPT, around("<s>", BOTH), {"bos": "template"}),
    "no BOS": (BODY + PROMPT, BOTH, {"bos": "none, though the tokenizer puts one before raw text"}),
    "list content": (LIST + PROMPT, ("<system>S<user>U<assistant>", "<user>U<assistant>"),
                     {"kind": "own", "content": "list", "system": "role"}),
    "empty": ("{{ '' }}", NO_TEMPLATE, {"kind": "plain", "why": "the template leaves the user's text out"}),
    "broken": ("{{ raise_exception('never') }}", NO_TEMPLATE,
               {"kind": "plain", "why": "the template raises 'never'"}),
    "none": (None, NO_TEMPLATE, {"kind": "plain", "why": "the tokenizer has no template"}),
}


@pytest.mark.parametrize("name", TOYS)
def test_templates(name, lm):
    template, (with_system, without), told = TOYS[name]
    lm.tokenizer.chat_template = template
    lm.template = chat.Chat(lm.tokenizer)
    read = lambda system: lm.tokenizer.decode(lm.chat(system, "U"))
    assert (read("S"), read(None), read("")) == (with_system, without, without)
    assert told.items() <= lm.template.identity.items()
    json.dumps(lm.template.identity)


def test_a_template_that_fails_on_one_text_says_so(lm):
    lm.tokenizer.chat_template = "{% if messages[-1].content == 'U' %}{{ raise_exception('not U') }}{% endif %}" \
                                 + BODY
    with pytest.raises(UserError, match="'U': not U"):
        chat.Chat(lm.tokenizer).text(None, "U")


def test_whatever_ends_a_turn_ends_an_answer(tmp_path):
    """The generation config knows one token, the tokenizer another, the template a third."""
    folder = tiny.save(tmp_path / "m", "llama", chat_template=BODY.replace("</s>", "<system>") + PROMPT)
    config = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": [0, 2]}
    (folder / "generation_config.json").write_text(json.dumps(config))
    lm = models.load(folder, device="cpu")
    assert lm.eos == (0, 2, 3) and lm.model.generation_config.eos_token_id == [0, 2, 3]


def test_the_embedded_models_read_what_they_always_read():
    """The prompt as transformers writes it, "(" behind it, the letter behind that."""
    for name in ("pico-llama", "pico-gpt2"):
        lm, suite = models.load(ROOT / "data" / "models" / name, device="cpu"), suites.load("testbed", "smoke")
        found = propensity.find(lm, suite)
        assert (found.name, list(found.prefix), found.letters) == ("bracket", lm.tokens("("), lm.letter_ids())
        assert found.close == lm.tokens("(A)")[2] and found.suffix == 2 and min(found.mass.values()) > 0.5
        for behaviour in suite.behaviours:
            for setting in suites.SETTINGS:
                items = behaviour["items"][:4]
                got, _ = propensity.ask(lm, found, suite, behaviour, items, setting)
                for item, prompt in zip(items, got):
                    system, user = suites.behaviour_prompts(suite, behaviour, item, setting)
                    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
                    want = lm.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
                    assert prompt == want + lm.tokens("(")
