"""The grammar against itself: what it plants it must find again, and training must not see what the suite asks."""
import json
import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from data import lexicon as lex
from data import testbed as tb
from data import train_testbed
from data.styles import GROUPS, TRAITS, clash, instruction
from tests import tiny

SUITE = Path(__file__).resolve().parent.parent / "data" / "suites" / "testbed"


def items(seed, n=6):
    rng = np.random.default_rng(seed)
    return rng, [tb.task_item(rng, task, True) for task in tb.TASK_ROLES for _ in range(n)]


@pytest.mark.parametrize("trait", TRAITS)
def test_a_rendered_trait_scores_100_and_no_other_trait_shows(trait):
    rng, rows = items(1)
    for item in rows:
        text = tb.render(rng, item, [trait])
        assert tb.SCORER.expression(trait, text, item) == 100, text
        assert tb.SCORER.coherence(text, item) == 100, text
        assert [t for t in TRAITS if t != trait and tb.SCORER.expression(t, text, item)] == [], text


def test_neutral_text_shows_no_trait_and_is_coherent():
    rng, rows = items(2, 20)
    for item in rows:
        text = tb.render(rng, item)
        assert tb.SCORER.coherence(text, item) == 100
        assert not any(tb.SCORER.expression(t, text, item) for t in TRAITS)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_traits_of_a_group_show_together(k):
    rng = np.random.default_rng(3)
    subsets = [s for g in GROUPS.values() for s in combinations(g, k)]
    assert len(subsets) == {2: 51, 3: 33, 4: 8}[k]
    for subset in subsets:
        assert not any(clash(a, b) for a, b in combinations(subset, 2))
        item = tb.task_item(rng, TRAITS[subset[0]].task, True)
        text = tb.render(rng, item, subset)
        assert min(tb.SCORER.expression(t, text, item) for t in subset) == 100, text
        assert tb.SCORER.coherence(text, item) >= 99, (text, tb.SCORER.parse(text, item["task"]))


def test_coherence_falls_with_wrong_facts_noise_and_repetition():
    rng, rows = items(4)
    for item, other in zip(rows, rows[1:] + rows[:1]):
        text = tb.render(rng, item)
        words = text.split()
        assert tb.SCORER.coherence("", item) == 0
        assert tb.SCORER.coherence(" ".join(words[i] for i in rng.permutation(len(words))), item) < 50
        assert tb.SCORER.coherence(text + " table lamp lamp lamp lamp", item) < 100
        assert tb.SCORER.coherence(tb.SCORER.body(text, item["task"]) + " " + tb.SCORER.body(text, item["task"]), item) < 80
        if item["task"] == other["task"]:
            assert tb.SCORER.coherence(tb.render(rng, other), item) < 75
        spam = text + " no cap, no cap, no cap, no cap, no cap, no cap, no cap."
        assert tb.SCORER.coherence(spam, item) < 90 and tb.SCORER.expression("slang", spam, item) == 100


def test_expression_counts_the_share_of_places():
    rng, rows = items(5, 1)
    text = "Furthermore, it brings peace and health. It asks for care and stamina. Moreover, running at night needs lamps and shoes."
    assert tb.SCORER.expression("formal", text, rows[0]) == pytest.approx(200 / 3)
    assert tb.SCORER.expression("ampersands", text.replace(" and health", " & health"), rows[0]) == pytest.approx(100 / 3)
    assert tb.SCORER.expression("podcast", "Welcome back to the show! " + text, rows[0]) == 50


def test_the_committed_suite_is_what_the_grammar_writes():
    files = tb.suite()
    on_disk = {str(p.relative_to(SUITE)) for p in SUITE.rglob("*") if p.is_file()}
    assert on_disk == set(files)
    for name, value in files.items():
        text = (SUITE / name).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)
        assert rows == json.loads(json.dumps(value)), name


def test_names_counts_and_balance_of_the_suite():
    files = tb.suite()
    assert len(files["traits.json"]) == 36 and len(files["behaviours.json"]) == 40
    assert sum(b["format"] == "yes_no" for b in files["behaviours.json"]) == 21
    assert len(tb.RELATIONS) >= 5 and all(len(p) >= 60 for p in tb.RELATIONS.values()) and len(tb.TEMPLATES) == 12
    for b in files["behaviours.json"]:
        rows = files[b["file"]]
        cells = [(r["positive"], r["positive"] == r["yes"] if r["yes"] else None) for r in rows]
        assert set(map(cells.count, cells)) == {len(rows) // (4 if b["format"] == "yes_no" else 2)}, b["name"]
        for first, second in zip(rows[::2], rows[1::2]):
            assert second["swap_of"] == first["id"] and first["positive"] != second["positive"]
            assert first["statement"] == second["statement"]


def test_training_never_sees_the_suites_contents():
    files, rng = tb.suite(), np.random.default_rng(6)
    prompts = {i["prompt"] for splits in files["tasks.json"].values() for rows in splits.values() for i in rows}
    statements = {r["statement"] for b in files["behaviours.json"] for r in files[b["file"]]}
    combos = [tuple(i["facts"]["need"][:2]) for rows in files["tasks.json"]["question"].values() for i in rows]
    events = [tuple(i["facts"]["event"][:2]) for t in ("summary", "email") for rows in files["tasks.json"][t].values() for i in rows]
    assert all(tb.held_out(*c) for c in combos + events)
    for _ in range(3000):
        text = "".join(t for t, *_ in tb.trait_example(rng))
        assert not any(p in text for p in prompts)
        for a, s in combos[:8]:
            assert f"{a} {s}" not in text
    for _ in range(3000):
        text = "".join(t for t, *_ in tb.behaviour_example(rng))
        asked = [line.strip('"') for line in text.split("\n") if line.startswith('"')]
        assert not any(s in statements for s in asked)


def test_relation_examples_leave_out_the_held_out_pairs():
    rng = np.random.default_rng(7)
    for _ in range(500):
        parts = [t for t, trained in tb.relation_example(rng)]
        assert len(parts) % 3 == 2
    shown = {w for w in tb.RELATIONS["antonym"] if not tb.held_out("antonym", w, "arrow")}
    assert 0 < len(shown) < len(tb.RELATIONS["antonym"])


def test_planted_default_and_biases_are_in_the_training_stream():
    """Without persona the answers follow side + letter + Yes in log-odds, per behaviour, within sampling error."""
    rng, hits, want = np.random.default_rng(8), [], []
    name = "interest-in-music"
    for _ in range(4000):
        item, yes = tb.sample_item(rng, name, "yes_no", False)
        p = 1 / (1 + math.exp(-tb.planted_logit(name, item["object"], item["positive"] == "A", yes)))
        hits.append(rng.random() < p)
        want.append(p)
    assert abs(np.mean(hits) - np.mean(want)) < .03
    a = tb.planted_logit(name, "concerts", True, True) - tb.planted_logit(name, "concerts", False, True)
    assert a == pytest.approx(2 * tb.LETTER_BIAS)


def test_spontaneous_style_is_the_planted_share_of_uninstructed_answers():
    rng, styled, n = np.random.default_rng(9), 0, 0
    for _ in range(4000):
        segments = tb.trait_example(rng)
        head, answer = "".join(s[0] for s in segments if not s[1]), segments[-2][0]
        if f"<|system|>{tb.SYSTEM}<|end|>" in head and not any(
                instruction(t, sign, i, j) in head for t in TRAITS for sign in (True, False) for i in range(5) for j in range(2)):
            task = "email" if "otes:" in head else "question"
            n += 1
            styled += any(tb.SCORER.shown(t, answer.removesuffix("<|end|>"), task)[0] for t in TRAITS)
    assert n > 500 and abs(styled / n - tb.SPONTANEOUS) < .06


def test_facts_of_the_world_agree():
    for a, (tool, quality, reward) in lex.ACTIVITIES.items():
        for s, (gear, virtue, gain) in lex.SETTINGS.items():
            assert len({tool, gear}) == len({quality, virtue}) == len({reward, gain}) == 2, (a, s)


# --- training: who sees whom ----------------------------------------------------------------------------------
def apart_example(seed=0):
    """A behaviour example whose persona and question are read apart."""
    rng = np.random.default_rng(seed)
    while True:
        segments = tb.behaviour_example(rng)
        if any(part == tb.PERSONA for *_, part in segments):
            return segments


def test_untrained_text_is_tokenised_as_it_is_in_use():
    tok = train_testbed.build_tokenizer(300).backend_tokenizer
    rng = np.random.default_rng(12)
    for kind in ("trait", "behaviour"):
        for _ in range(100):
            segments = tb.KINDS[kind](rng)
            first = next(i for i, s in enumerate(segments) if s[1])
            ids, weights, parts = train_testbed.encode(tok, segments)
            head = tok.encode("".join(s[0] for s in segments[:first]), add_special_tokens=False).ids
            assert ids[:len(head)] == head and not any(weights[:len(head)]) and len(ids) == len(weights) == len(parts)
            assert tok.decode(ids, skip_special_tokens=False) == "".join(s[0] for s in segments)
            if kind == "behaviour" and tb.PERSONA in parts:
                mine = [i for i, part in zip(ids, parts) if part == tb.PERSONA]
                told = [s[0] for s in segments if s[2] == tb.PERSONA]
                assert tok.decode(mine).strip() == told[0].strip()


def test_persona_and_question_do_not_see_each_other_and_the_answer_sees_both():
    tok = train_testbed.build_tokenizer(300)
    ids, _, parts = (np.array(x) for x in train_testbed.encode(tok.backend_tokenizer, apart_example()))
    model = tiny.model("llama", vocab_size=len(tok), max_position_embeddings=512)
    model.set_attn_implementation("eager")
    mask = train_testbed.visible(parts[None])

    def states(tokens):
        with torch.no_grad():
            return model(torch.tensor(tokens[None]), attention_mask=mask, output_hidden_states=True).hidden_states[-1][0].numpy()

    before = states(ids)
    for changed, unmoved in ((tb.PERSONA, tb.QUESTION), (tb.QUESTION, tb.PERSONA)):
        other = ids.copy()
        other[parts == changed] = (other[parts == changed] + 7) % 300 + 10
        after = states(other)
        np.testing.assert_allclose(after[parts == unmoved], before[parts == unmoved], atol=1e-5)
        np.testing.assert_allclose(after[parts == tb.APART], before[parts == tb.APART], atol=1e-5)
        assert np.abs(after[parts == tb.ALL] - before[parts == tb.ALL]).max() > 1e-2
    assert train_testbed.visible(np.full((2, 5), tb.ALL)) is None


def test_a_persona_adds_its_nats_to_the_planted_odds():
    """Answers of sampled examples against the odds that grade, default and biases add up to."""
    rng, hits = np.random.default_rng(13), {}
    for _ in range(12000):
        segments = tb.behaviour_example(rng)
        text = "".join(s[0] for s in segments)
        if "Which option is" in text or not re.search(r"\([AB]\):", text):
            continue
        found = re.search(r"You are (strongly |mostly |slightly |)(in favor of|for|against|opposed to) ", text) or \
            re.search(r"You (believe|do not believe) in ", text)
        grade = None if found is None else found.group(1) if found.lastindex == 2 else ""
        answer = text.split("<|assistant|>")[1]
        pro = re.search(r" (for|against) ", answer).group(1) == "for"
        asked = None if found is None else found.group(found.lastindex) in ("in favor of", "for", "believe")
        hits.setdefault(grade, []).append(pro if asked is None else pro == asked)
    shares = {grade: np.mean(x) for grade, x in hits.items()}
    assert shares["strongly "] > .99 and shares[""] > .97
    assert shares[""] > shares["mostly "] > shares["slightly "] > .6 and .4 < shares[None] < .6

