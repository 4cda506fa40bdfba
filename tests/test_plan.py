"""Quick runs: nested and balanced samples, a budget met on a synthetic cost, levels that survive a command line."""
import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lib import samples, sizes, stage, suite as suites
from lib.artifacts import UserError
from report import budget, plan

LEVELS = (0.0, 0.1, 0.35, 0.5, 0.8, 1.0)
CONSTANTS = [(name, value) for script in plan.scripts() for name, value in vars(script).items() if isinstance(value, dict)
             for value in ([value] if "full" in value else [v for v in value.values() if isinstance(v, dict) and "full" in v])]


def at(level):
    return dict.fromkeys(sizes.STUDIES, level)


# --- sizes ----------------------------------------------------------------------------------------------------
def test_there_are_constants_to_size():
    assert {"QUESTIONS", "N_PROMPTS", "STRENGTHS", "NARROW_STEPS", "LISTS", "N_RANDOM"} <= {name for name, _ in CONSTANTS}


@pytest.mark.parametrize("name, constant", CONSTANTS, ids=[name for name, _ in CONSTANTS])
def test_a_constant_grows_from_its_least_to_its_full_size(name, constant):
    assert [sizes.at(constant, profile) for profile in ("full", "smoke")] == [constant["full"], constant["smoke"]]
    assert sizes.at(constant, "quick", 1.0) == constant["full"]
    assert sizes.at(constant, "quick", 0.0) == constant.get("quick", constant["smoke"])
    for low, high in pairwise(sizes.at(constant, "quick", u) for u in LEVELS):
        if isinstance(constant["full"], tuple):
            assert set(low) <= set(high) and list(high) == [v for v in constant["full"] if v in high]
        else:
            assert low <= high


def test_geometric_between():
    assert sizes.between(2, 32, 0.5) == 8 and sizes.between(9, 4, 0.3) == 4
    assert sizes.at({"full": (1, 2, 3, 4, 5), "smoke": (1, 3)}, "quick", 0.4) == (1, 3, 5)       # the end before 2 or 4


@pytest.mark.parametrize("levels", [at(0.0), at(1.0), at(0.0) | {"behaviours": 1.0}, at(0.5) | {"traits": 1.0, "behaviours": 0.0, "evaluate": 0.25}, at(0.0) | {"relations": None}, at(0.0) | {"relations": 0.5, "values": None}, {"preferences": 0.41, "reliability": 0.055, "relations": 0.999, "values": 0.999}])
def test_levels_survive_a_command_line(levels):
    assert sizes.parse(sizes.told(levels)) == levels


def test_one_level_for_both_parts_of_a_paper():
    both = {"preferences": None, "reliability": 0.5, "relations": 0.2, "values": 0.2}
    assert sizes.parse("preferences=none reliability=0.5 alignment=0.2") == both
    assert sizes.told(both) == "preferences=none reliability=0.5 alignment=0.2"
    assert sizes.told({"preferences": 0, "reliability": None, "alignment": 1}) == "preferences=0 reliability=none alignment=1"
    assert sizes.told(both | {"values": None}) == "preferences=none reliability=0.5 relations=0.2 values=none"
    with pytest.raises(UserError):
        sizes.parse("preferences=0 reliability=0 relations=0 alignment=0")


@pytest.mark.parametrize("text", ["", "preferences=.5", "preferences=1 reliability=2 alignment=0", "preferences=x reliability=1 alignment=1",
                                  "preferences=0 preferences=0 reliability=1 alignment=1", "preferences=nan reliability=1 alignment=1",
                                  "preferences=0 reliability=1 alignment=1 other=1", "0.5",
                                  "preferences=none reliability=none alignment=none", "behaviours=1",
                                  "preferences=0 reliability=0 alignment=0 behaviours=none",
                                  "preferences=0 reliability=0 alignment=0 behaviours=2",
                                  "preferences=none reliability=0 alignment=0 traits=1",
                                  "preferences=0 reliability=none alignment=0 behaviours=1"])
def test_other_levels_are_refused(text):
    with pytest.raises(UserError, match="expected preferences=LEVEL reliability=LEVEL relations=LEVEL values=LEVEL"):
        sizes.parse(text)


# --- samples --------------------------------------------------------------------------------------------------
def made(n, swapped, yes=True, seed=0):
    """n contents in random order of letters, of which some have a swap, as a suite's file has them."""
    rng, contents = np.random.default_rng(seed), []
    for i in range(n):
        letter, is_yes = rng.choice(["A", "B"]), bool(rng.random() < 0.6)
        other = "BA"["AB".index(letter)]
        item = {"id": f"x{i}", "positive": letter, "yes": (letter if is_yes else other) if yes else None, "swap_of": None}
        swap = {"id": f"x{i}s", "positive": other, "yes": (other if is_yes else letter) if yes else None, "swap_of": f"x{i}"}
        contents.append([item, swap] if rng.random() < swapped else [item])
    return contents


@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.parametrize("swapped", [0.0, 0.3, 1.0])
def test_choices_are_balanced_at_every_size_and_nested(swapped, yes):
    contents, before = made(150, swapped, yes), set()
    exhausted = min(Counter(item["yes"] == item["positive"] for group in contents for item in group).values()) if yes else 0
    for n in range(1, 200):
        kept = sizes.balanced(contents, n, [1, 2])
        items = [item for group in kept for item in group]
        assert Counter(item["positive"] for item in items)["A"] * 2 == len(items)
        if yes and len(items) < exhausted:
            assert Counter(item["yes"] == item["positive"] for item in items)[True] * 2 == len(items)
        assert all(group in contents for group in kept)                    # a content keeps its swap
        assert len(items) >= n or len(items) > len(contents) * 0.7
        now = {item["id"] for item in items}
        assert before <= now
        before = now
    assert [item["id"] for item in items] == [i["id"] for group in contents for i in group if i["id"] in now]


def test_an_unbalanced_draw_would_be_noticed():
    contents = made(150, 0.0)
    assert any(Counter(g[0]["positive"] for g in contents[:n])["A"] * 2 != n for n in range(2, 60, 2))


def test_other_addresses_draw_other_items():
    contents = made(100, 0.2)
    assert sizes.balanced(contents, 20, [1]) != sizes.balanced(contents, 20, [2])


def test_samples_keep_the_shares_of_their_labels():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    for n in (10, 20, 50):
        found = Counter(labels[i] for i in sizes.drawn(n, labels, [3]))
        assert all(abs(found[label] - n * share) <= 1 for label, share in ((0, 0.6), (1, 0.3), (2, 0.1)))
    assert set(sizes.drawn(9, labels, [3])) <= set(sizes.drawn(10, labels, [3]))


@pytest.fixture(scope="module")
def testbed():
    return suites.load("testbed")


def bare(record):
    return {key: value for key, value in record.items() if key not in ("split", "subject")}


def parts(suite):
    """Everything of a suite that a quick run samples, as sets by name."""
    found = {"traits": {t["name"] for t in suite.traits}, "templates": {t["name"] for t in suite.templates},
             "behaviours": {b["name"] for b in suite.behaviours}, "values": {v["name"] for v in suite.values}}
    for b in suite.behaviours:
        found |= {(b["name"], name): {i["id"] for i in suites.split(b["items"], name)} for name in suites.SPLITS}
    for r in suite.relations:
        found |= {(r["name"], name): set(map(tuple, suites.relation_split(r, name))) for name in suites.SPLITS}
    for v in suite.values:
        found |= {(v["name"], name): {str(p.get("id", p)) for p in map(bare, suites.value_split(v, name))}
                  for name in suites.SPLITS}
    found |= {("facts", name): {f["id"] for f in suites.probe_split(suite.facts, name)} for name in suites.SPLITS[1:]}
    return found | {(task, name): {item["id"] for item in items} for task, splits in suite.tasks.items()
                    for name, items in splits.items()}


def test_a_lower_level_is_part_of_a_higher_one_split_by_split(testbed):
    found = [parts(samples.quick(testbed, at(u))) for u in LEVELS] + [parts(testbed)]
    for low, high in pairwise(found):
        assert set(low) <= set(high) and all(low[key] <= high[key] for key in low)
    assert len(found[0]["traits"]) < len(found[1]["traits"]) < len(found[-2]["traits"]) == len(testbed.traits)


@pytest.mark.parametrize("level", LEVELS)
def test_a_quick_suite_is_large_enough_and_its_splits_stay_apart(testbed, level):
    suite = suites.load("testbed", "quick", at(level))
    assert suite.digest == testbed.digest and suite.profile == "quick" and suite.levels == at(level)
    for b in suite.behaviours:
        split = {name: suites.split(b["items"], name) for name in suites.SPLITS}
        for items in split.values():
            assert Counter(i["positive"] for i in items)["A"] * 2 == len(items)
        assert len(split["evaluate"]) >= 16 and len(split["extract"]) >= 8 and len(split["tune"]) >= 4
        trained, tested = suites.published_split(b["items"])
        assert {i["id"] for i in trained} == {i["id"] for name in ("extract", "tune") for i in split[name]}
        assert {i["id"] for i in tested} > {i["id"] for i in split["evaluate"]}
    for trait in suite.traits:
        assert suites.tasks(suite, "summary", "evaluate", trait["name"])


def test_a_study_is_sized_by_its_own_level(testbed):
    base, more = (parts(samples.quick(testbed, at(0.2) | {"reliability": u})) for u in (0.2, 0.9))
    assert {key for key in more if more[key] != base.get(key)} <= {
        "behaviours", *((b["name"], name) for b in testbed.behaviours for name in suites.SPLITS)}
    assert more["behaviours"] > base["behaviours"]


def test_breadth_and_depth_have_levels_apart(testbed):
    """All behaviours with the least inputs, and more inputs of the same vectors: nothing else of the suite moves."""
    base, wide, deep = (parts(samples.quick(testbed, at(0.0) | apart)) for apart in ({}, {"behaviours": 1}, {"evaluate": 1}))
    assert wide["behaviours"] == {b["name"] for b in testbed.behaviours} > base["behaviours"]
    assert all(wide[key] == base[key] for key in base if key != "behaviours")
    every, few = (samples.quick(testbed, at(0.0) | apart).traits for apart in ({"traits": 1}, {}))
    assert every == testbed.traits and len(few) < len(every) and [t for t in every if t in few] == few
    moved = {key for key in deep if deep[key] != base[key]}
    assert moved == {(name, "evaluate") for name in base["behaviours"]} and all(deep[key] > base[key] for key in moved)


# --- budget ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, seconds", [("60m", 3600), ("1.5h", 5400), ("3600s", 3600), ("90m", 5400)])
def test_budgets(text, seconds):
    assert budget.seconds(text) == seconds


@pytest.mark.parametrize("text", ["60", "m", "1h30m", "-5m", "0m", "", "60 minutes", None])
def test_other_budgets_are_refused(text):
    with pytest.raises(UserError, match="expected a time such as 60m, 1.5h or 3600s"):
        budget.seconds(text)


def rising(least, full):
    return lambda u: least ** (1 - u) * full ** u


def test_equal_parts_are_met():
    costs = {"a": rising(10, 1000), "b": rising(1, 5000), "c": rising(50, 400)}
    for cost, level in zip(costs.values(), budget.levels(costs, 600).values()):
        assert cost(level) <= 200 < cost(level + 0.002)


def test_what_one_cannot_use_goes_to_the_others_and_a_floor_is_paid_by_them():
    costs = {"a": rising(1, 20), "b": rising(1, 5000), "c": rising(300, 4000)}
    found = budget.levels(costs, 600)
    assert (found["a"], found["c"]) == (1.0, 0.0) and costs["b"](found["b"]) == pytest.approx(280, rel=0.02)
    assert budget.levels(costs, 1e6) == dict.fromkeys(costs, 1.0)
    found = budget.levels(costs, 100)                                      # the dearest are left out
    assert found["c"] is None and found["a"] == 1.0 and costs["b"](found["b"]) == pytest.approx(80, rel=0.02)
    assert budget.levels(costs, 0.5) == {"a": None, "b": 0.0, "c": None}    # but for the last
    assert budget.levels({}, 60) == {}


def test_a_larger_budget_never_lowers_the_sum():
    costs = {"a": rising(5, 100), "b": rising(1, 5000), "c": rising(300, 4000)}
    spent = [sum(cost(u) for cost, u in zip(costs.values(), budget.levels(costs, total).values())) for total in (350, 500, 900, 5000)]
    assert spent == sorted(spent) and all(s <= total for s, total in zip(spent, (350, 500, 900, 5000)))


def test_planned_beside_real(tmp_path):
    (tmp_path / "01_extract").mkdir()
    (tmp_path / "01_extract/run.json").write_text('{"wall_s": 90}')
    (tmp_path / stage.PLAN).write_text(json.dumps({"budget": 600, "levels": at(0.5), "minutes": {"01_extract": 1.25, "start": 2}}))
    lines = budget.spent(tmp_path)
    assert lines[0].endswith("budget 10 min, preferences=0.5 reliability=0.5 alignment=0.5")
    assert lines[2].split() == ["01_extract", "1.2", "1.5"] and lines[3].split()[:3] == ["all", "1.2", "1.5"]


# --- counts, held to what the committed runs wrote ------------------------------------------------------------
def test_counts_are_what_a_full_run_wrote(testbed):
    from lib import artifacts, models
    from lib.judging import judges
    root = plan.stage.COMMITTED / "pico-llama/testbed"
    lm = models.load("data/models/pico-llama")
    counts = plan.preferences(lm, testbed, plan.mean_length(lm, testbed), 30, judges.load(None, testbed, lm))
    assert counts["01_extract"][2] == len(artifacts.load(root / "01_extract").table("responses.jsonl"))
    tried = [row for row in artifacts.load(root / "02_tune").table("candidates.jsonl") if row["key"].startswith("trait/")]
    assert counts["02_tune"][2] == sum(len(row["items"]) for row in tried)
    cases = artifacts.load(root / "03_transfer").table("cases.jsonl")
    assert counts["03_transfer"][2:].tolist() == [len(cases), sum(len(case["expression"]) for case in cases)]
    fourth = artifacts.load(root / "04_compose")
    assert counts["04_compose"][2] == pytest.approx(len(fourth.table("cases.jsonl")) + len(fourth.table("fronts")) * 20, rel=0.25)
