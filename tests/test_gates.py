"""Gates: planted abilities and none, and pairs whose letter cancels."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lib import suite as suites
from lib.metrics import Missing, estimator
from lib.studies import gates, propensity, relations
from tests import tiny

READ_OUT = propensity.ReadOut("open", (), (1, 2), None, mass={"options": 0.8, "yes_no": 0.9}, masses={})


@pytest.fixture(scope="module")
def testbed():
    return suites.load("testbed")


def item(i, letter, yes=None, swap_of=None):
    return {"id": str(i), "positive": letter, "yes": yes, "swap_of": swap_of, "question": "?\n\n(A): x\n(B): y"}


def estimates(gaps):
    return {f"b{i}": estimator("contents", [1, i])(0, gap) for i, gap in enumerate(gaps)}


# --- persona -------------------------------------------------------------------------------------------------
def test_who_tells_no_persona_apart_is_not_asked():
    """40 behaviours of pure noise, 20 times: all are left out, with the counts as the reason."""
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(20):
        gaps = estimates(rng.normal(0, 1, (40, 16)))
        left, counts = gates.settle(gaps)
        passed += len(left) < 40
        assert counts["n"] == 40 and counts["by_luck"] == 6
    assert passed <= 1
    assert "do not" not in left["b0"] and f"{counts['told']} of 40" in left["b0"]


def test_inputs_answered_from_the_other_side_do_not_cost_a_behaviour():
    """A third of the behaviours moves half of its inputs the other way: their mean gap says nothing, and all stay."""
    rng = np.random.default_rng(2)
    side = np.ones((30, 16))
    side[:10, ::2] = -1
    gaps = estimates(8 * side + rng.normal(0, 1, side.shape))
    left, counts = gates.settle(gaps)
    assert not left and 20 <= counts["told"] < 25


def test_what_a_persona_does_not_move_is_left_out_alone():
    rng = np.random.default_rng(3)
    gaps = estimates([*rng.normal(2, 0.5, (12, 32)), *rng.normal(0.03, 0.05, (3, 32))])
    left, counts = gates.settle(gaps)
    assert set(left) == {"b12", "b13", "b14"} and counts["told"] == 12
    assert f"{gaps['b12']['value']:.3f} nats" in left["b12"]


def test_a_tiny_effect_on_every_behaviour_is_none():
    """0.02 nats, surely above 0 on all: nobody could use that."""
    rng = np.random.default_rng(4)
    left, counts = gates.settle(estimates(rng.normal(0.02, 0.01, (40, 32))))
    assert len(left) == 40 and counts["told"] == 0


@pytest.mark.parametrize("size, profile, kept", [(3.0, "full", 40), (0.0, "full", 0), (0.0, "smoke", 40)])
def test_what_later_stages_see(testbed, monkeypatch, size, profile, kept):
    rng, suite = np.random.default_rng(5), replace(testbed, profile=profile)
    contents = [str(i // 2) for i in range(32)]

    def units(out, identity, keys, fn, desc):
        return {key: {"right": np.full(8, 0.5)} if key.startswith("format") else {
            "gap": rng.normal(size, 0.02, 32), "letter": np.full(32, -0.7), "contents": contents} for key in keys}

    monkeypatch.setattr(gates.work, "units", units)
    left_suite, reasons, rows, results = gates.behaviours(SimpleNamespace(lm=None, out="x"), READ_OUT, suite, {}, [1])
    assert len(left_suite.behaviours) == kept
    assert results["letter"]["value"] == pytest.approx(0.7) and results["persona"]["told"] == (40 if size else 0)
    assert results["persona"]["gap"]["n"] == 40 and results["lookup"]["yes_no"]["value"] == 0.5
    assert {row["gate"] for row in rows} == {"letters", "look-up", "persona", "letter"} and len(rows) == 2 + 2 + 80
    persona = [row for row in rows if row["gate"] == "persona"]
    assert all(row["n"] == 16 and row["passed"] == (size > 0) for row in persona if size)
    out = [b["name"] for b in suite.behaviours if b not in left_suite.behaviours]
    extract = SimpleNamespace(config={"left_out": out}, results={"not_testable": reasons | {"heads": "none"}})
    again, told = gates.testable(suite, extract)
    assert again.behaviours == left_suite.behaviours and told == reasons
    assert kept or "0 of 40 behaviours" in told["behaviours"]


def test_persona_reads_item_by_item_what_the_two_sentences_do(testbed, monkeypatch):
    """The gap is SYS_POS minus SYS_NEG, the letter bias is free of the side; tuning items come first."""
    shift = {"BASE": 0.0, "SYS_POS": 2.0, "SYS_NEG": -1.0}

    def m(lm, read_out, suite, behaviour, items, rows, setting="BASE"):
        sign = np.array([1 if i["positive"] == "A" else -1 for i in items])
        return (0.8 * sign + shift[setting])[:, None], None

    monkeypatch.setattr(propensity, "propensities", m)
    for behaviour in testbed.behaviours[::9]:
        found = gates.persona(None, READ_OUT, testbed, behaviour)
        np.testing.assert_allclose(found["gap"], 3.0)
        np.testing.assert_allclose(found["letter"], 0.8)
        assert 16 <= len(found["gap"]) <= 32 and len(set(found["contents"])) * 2 == len(found["contents"])
        allowed = {i["id"] for part in ("tune", "extract") for i in suites.split(behaviour["items"], part)}
        assert set(found["contents"]) <= allowed


# --- look-up -------------------------------------------------------------------------------------------------
def test_a_look_up_asks_for_both_options(testbed, monkeypatch):
    first, second = gates.look_ups(item(1, "B") | {"question": "What?\n\nChoices:\n (A) I agree\n (B): no\n "})
    assert first["question"] == 'Which option says "I agree"?\n\n(A) I agree\n (B): no'
    assert (first["positive"], second["positive"]) == ("A", "B") and '"no"' in second["question"]
    for odd in ("(A): x\n(B): x", "(A): x\n(B): I oppose (A)", "no options", "(A): \n(B): y"):
        assert gates.look_ups(item(1, "A") | {"question": odd}) == []
    # who always says A is right half of the time, who reads is always right
    for answer, want in ((lambda i: 1 if i["positive"] == "A" else -1, 0.5), (lambda i: 1, 1.0)):
        monkeypatch.setattr(propensity, "propensities", lambda lm, ro, suite, b, items, rows: (
            np.array([[answer(i)] for i in items]), None))
        right = gates.look_up(None, READ_OUT, testbed, "options")["right"]
        assert len(right) == propensity.N_PROMPTS and set(right) == {want}


# --- balanced pairs --------------------------------------------------------------------------------------------
def test_the_letter_cancels_in_a_dozen_items():
    """State differences hold a letter ten times the answer, and Yes too: the mean of balanced items is the answer."""
    rng, d = np.random.default_rng(6), 64
    letter, yes, answer = rng.standard_normal((3, d))
    items = [item(i, l, y) for i, (l, y) in enumerate(zip("AAAAAAABBBBB", "AABABAAABABB"))]

    def mean(kept):
        return np.mean([10 * letter * (1 if i["positive"] == "A" else -1) + answer
                        + 10 * yes * (1 if i["yes"] == i["positive"] else -1) for i in kept], axis=0)

    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    kept = suites.balanced(items)
    np.testing.assert_allclose(mean(kept), answer, atol=1e-12)
    assert cosine(mean(items), answer) < 0.6 and 4 <= len(kept) < 12
    assert [int(i["id"]) for i in kept] == sorted(int(i["id"]) for i in kept)


def test_balanced_cells():
    def count(items, most=None):
        kept = suites.balanced(items, most)
        cells = {}
        for i in kept:
            cells[i["positive"], i["yes"]] = cells.get((i["positive"], i["yes"]), 0) + 1
        return cells
    assert count([item(i, "AAAB"[i % 4]) for i in range(20)]) == {("A", None): 5, ("B", None): 5}
    assert count([item(i, "AAAB"[i % 4]) for i in range(20)], 6) == {("A", None): 3, ("B", None): 3}
    three = [item(i, *pair) for i, pair in enumerate([("A", "A")] * 4 + [("A", "B")] * 2 + [("B", "B")] * 3)]
    assert count(three) == {("A", "A"): 3, ("B", "B"): 3}                       # a cell is empty: the letters alone
    assert count([item(0, "A"), item(1, "A")]) == {("A", None): 2}              # nothing to balance; 01 says so


def test_swaps_stay_whole_and_balanced_splits_as_they_are(testbed):
    unchanged = 0
    for behaviour in testbed.behaviours:
        items = suites.split(behaviour["items"], "extract")
        kept = suites.balanced(items)
        ids = {i["id"] for i in kept}
        assert all(i["swap_of"] is None or i["swap_of"] in ids for i in kept)
        assert sum(i["positive"] == "A" for i in kept) * 2 == len(kept) >= 20
        unchanged += kept == items
    assert unchanged == 22                                  # 19 without Yes and No, and three that are even in it


# --- traits, relations, values ---------------------------------------------------------------------------------
def test_what_an_instruction_adds():
    rng = np.random.default_rng(7)
    jobs = [{"traits": [name]} for name in ("up", "flat", "mute") for _ in range(40)]
    answers = []
    for name in ("up", "flat", "mute"):
        for _ in range(20):
            low, high = rng.uniform(0, 20), rng.uniform(0, 20) + 50 * (name == "up")
            answers += [{"expression": {name: None if name == "mute" else high}}, {"expression": {name: low}}]
    answers[0]["expression"]["up"] = None
    found = gates.expression(jobs, answers, [1])
    assert found["up"]["value"] == pytest.approx(50, abs=6) and found["up"]["n"] == 19
    assert gates.above(found["up"]) and not gates.above(found["flat"]) and not gates.above(found["mute"])
    assert "no usable score to 20 of 20" in found["mute"]
    assert gates.over("traits", found, [1])["n"] == 2 and isinstance(gates.over("traits", {}, [1]), Missing)
    answers = [answer | {"dropped": None if i % 10 < 6 else "x"} for i, answer in enumerate(answers)]
    suite = SimpleNamespace(profile="full", traits=[{"name": name} for name in ("up", "flat", "mute", "unasked")])
    table, kept, _ = gates.traits(suite, jobs, answers, {"unasked": "the judge rates all alike"}, 5, [1])
    assert [row["extractable"] for row in table.values()] == [True, False, False, False] and not table["up"]["reason"]
    assert table["flat"]["reason"].startswith("12 of 20 pairs kept, 5 needed; the instruction raises it by ")
    assert table["unasked"]["reason"] == "the judge rates all alike" and table["flat"]["dropped"] == {"x": 8}
    assert kept["up"][:6] == [0, 1, 2, 3, 4, 5] and kept["up"][6:8] == [10, 11]


def test_the_commonest_answer_is_no_ability(tmp_path, monkeypatch):
    """A model that answers every list with one word has a share right and no gain; one that knows has both."""
    lm = tiny.load(tmp_path / "tiny", "llama")
    pairs = [[f"w{i}", "ab"[i % 2]] for i in range(12)]
    template = {"name": "t", "pair": "{x}: {y}\n", "query": "{x}:"}
    knows = lambda tokens: tokens[:, 0]
    for answer, sign in ((knows, True), (lambda tokens: np.full(len(tokens), tokens[0, 0]), False)):
        monkeypatch.setattr(relations.engine, "sweep", lambda lm, prompts, rows, tokens: {
            "argmax": answer(tokens)[:, None]})
        monkeypatch.setattr(relations, "heads_of", lambda lm: (None, "none"))
        found = relations.extract(lm, pairs, template, 2, [[1, i] for i in range(30)], 1, 1)
        rows, gain = gates.lists(["r"], [found["list_right"]], [found["list_chance"]], [1])
        assert found["list_right"][:, 0].mean() > 0.3 and rows[0]["passed"] is sign == gates.above(gain["r"])
    tokens = [lm.answer_token("x", f" {y}") for y in "ab"]
    assert isinstance(gain["antonym"], Missing) and tokens[0] != tokens[1]


def test_facts_and_lean():
    known = np.array([1] * 6 + [0] * 24, bool)
    rows, found = gates.values(["v", "w"], [np.array([2.0, -2.0, 3.0]), np.array([0.01, -0.02, 0.0])], known, 0.1, [1])
    assert found["facts"]["value"] == 0.2 and found["lean"]["v"]["value"] == pytest.approx(7 / 3)
    assert [row["passed"] for row in rows] == [found["facts"]["low"] > 0.1, True, False]
