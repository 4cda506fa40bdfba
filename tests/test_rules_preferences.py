"""Rules of the preference study against planted faults: what once met a claim without being true no longer does, and
what is true still does."""
import json

import numpy as np
import pytest

from lib import artifacts, metrics
from lib.studies import subsets, transfer, tuning
from report import planted_preferences as planted

CLAIMS = {claim["id"]: claim for claim in json.loads((artifacts.ROOT / "report/claims.json").read_text())}


def estimates(claim, results):
    found = results[claim["stage"]]
    for part in claim["key"].removesuffix(".*").split("."):
        found = found[part]
    return list(found.values()) if claim["key"].endswith(".*") else [found]


def met(claim, results):
    """Whether every interval is beyond the threshold."""
    sign = 1 if claim["rule"]["side"] == "above" else -1
    return all(sign * (e[end] - claim["rule"]["threshold"]) > 0 for e in estimates(claim, results)
               for end in ("low", "high"))


@pytest.mark.parametrize("name", planted.PLANTED)
def test_what_is_planted_is_found_and_what_is_not_is_not(name):
    """Two draws of each: a rule that noise meets in both is no rule (it should in 1 of 1600)."""
    make, claim = planted.PLANTED[name].make, CLAIMS[name]
    assert all(met(claim, make(seed, 1)) for seed in (0, 1))
    assert not all(met(claim, make(seed, 0)) for seed in (0, 1))


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim["command"] in (
    "make tune", "make transfer", "make compose") and claim["paper"] != "alignment" and name in planted.PLANTED])
def test_every_claim_says_what_it_means_what_it_needs_and_what_meets_it_not(name):
    claim = CLAIMS[name]
    assert set(claim["reads"]) == {"reproduced", "contradicted", "undecided"} and claim["gates"] and claim["null"]
    assert set(claim["null"]) <= {"untrained", "random", "shuffled", "permuted"}


def test_shuffled_methods_do_not_meet_p7():
    """Scores of which a group's favourites are a part, the labels of the methods shuffled in every subset."""
    rng, hits, old = np.random.default_rng(5), 0, 0
    records = planted.together(0, planted.PUBLISHED, lambda *_: 0.0)[0]
    for seed in range(20):
        shuffled = []
        for mine in subsets.grouped(records, "subset").values():
            labels = rng.permutation(planted.PUBLISHED)
            shuffled += [r | {"method": str(label)} for r, label in zip(mine, labels)]
        found = subsets.method_interaction(shuffled, planted.PUBLISHED, True, [seed])
        hits += found["low"] > 0
        at = {(r["subset"], r["method"]): r for r in shuffled}
        cells = sorted({(r["k"], r["task"]) for r in shuffled})
        table = np.array([[cells.index((r["k"], r["task"])), *(at[r["subset"], m]["usable"] for m in planted.PUBLISHED)]
                          for r in shuffled if r["method"] == planted.PUBLISHED[0]])
        old += subsets.best_share(table) < 1
    assert hits <= 3 and old == 20                     # the share of won cells is below 1 every time


def test_one_method_that_is_best_everywhere_is_no_interaction():
    scores = np.random.default_rng(6).normal(0, 1, (60, 3)) + np.array([20.0, 0.0, -5.0])
    cells, groups = np.repeat(range(6), 10), np.tile(range(10), 6)
    assert subsets.excess_interaction(scores, cells, groups, [1])["low"] < 0
    scores[cells < 3] += np.array([0.0, 30.0, 0.0])
    found = subsets.excess_interaction(scores, cells, groups, [1])
    assert found["low"] > 0 and found["n"] == 10
    # a two-level effect of 30 on one of three methods: residuals +-10, +-5, +-5; dealt tables keep some of it
    assert 0 < found["value"] < np.sqrt((100 + 25 + 25) / 3) + 1


def test_interaction_by_hand():
    means = np.array([[3.0, 1.0], [1.0, 3.0], [np.nan, np.nan]])
    assert subsets.interaction(means) == pytest.approx(1) and subsets.interaction(means[:2] * [[1], [3]]) > 1
    assert subsets.interaction(np.add.outer([1.0, 5.0], [2.0, 7.0])) == pytest.approx(0)


def test_shared_traits_widen_p9():
    """Copies of a group's subsets are no new evidence."""
    rng = np.random.default_rng(7)
    records = [{"subset": f"{g} {i}", "group": g, "k": 2, "own": True, "method": method, "usable": 10.0 + more}
               for g in range(9) for gain in [rng.normal(2, 4)] for i in range(10)
               for method, more in (("solved", gain), ("x", 0.0))]
    found = subsets.solved_minus(records, {"x": ("x",)}, [1])[0]["x"]
    pairs = [a["usable"] - b["usable"] for a, b in zip(records[::2], records[1::2])]
    naive = metrics.bootstrap(pairs, unit="subsets", seed_address=[1])
    assert found["n"] == 9 and found["value"] == pytest.approx(naive["value"])
    assert found["high"] - found["low"] > 2.5 * (naive["high"] - naive["low"])


def test_dead_traits_neither_hide_nor_make_a_loss():
    """Every added vector costs 8 points of what shows; half of the traits show nothing alone."""
    records, steering = planted.together(3, ("x",), lambda method, k, task: -8.0 * (k - 1), dead=0.5)
    assert 0.3 < len(steering) / 36 < 0.7
    rows = subsets.company(records, ("x",), steering, [1])["per_vector"]["expression"]["x"]
    every = subsets.company(records, ("x",), {f"g{g}{a}" for g in range(9) for a in "abcd"}, [1])
    assert rows["low"] < -8 < rows["high"] and rows["high"] < 0
    assert every["per_vector"]["expression"]["x"]["value"] > 0.8 * rows["value"]      # diluted
    assert "no trait that steers" in subsets.company(records, ("x",), (), [1])["per_vector"]["expression"]


def test_noise_does_not_meet_p6():
    """Coherence falls with strength and expression is noise: up to the peak they seem to trade."""
    rng, peaked, fixed = np.random.default_rng(8), [], []
    for _ in range(300):
        points = [{"strength": 2 * s, "expression": rng.random(), "coherence": 100 - 50 * s}
                  for s in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.6)]
        top = max(range(8), key=lambda i: points[i]["expression"])
        if top > 1:
            peaked.append(metrics.spearman(*([p[key] for p in points[:top + 1]] for key in ("expression", "coherence"))))
        fixed.append(tuning.tradeoff(points)[0])
    assert np.mean(peaked) < -0.4 and abs(np.mean(fixed)) < 0.08


def test_noise_has_a_spread_of_expression_and_none_that_holds():
    rng = np.random.default_rng(9)
    halves = rng.normal(0, 20, (2000, 36, 2))
    assert abs(np.mean([transfer.crossed_spread(x) for x in halves])) < 1
    assert np.subtract(*np.quantile(halves.mean(axis=2), [0.9, 0.1], axis=1)).mean() > 20
    apart = np.repeat(np.arange(10.0)[:, None], 2, axis=1)
    assert transfer.crossed_spread(apart) == pytest.approx(8)                        # (9 + 8) / 2 - (0 + 1) / 2


def test_traits_that_do_not_steer_do_not_dilute_the_gap():
    tasks = ("question", "summary", "email")
    steered = np.array([[40.0, 20.0, 20.0]] * 4 + [[0.0, 0.0, 0.0]] * 12)
    arms = dict.fromkeys(("unsteered", "random"), np.zeros((16, 3))) | {
        "steered": steered, "prompted": np.full((16, 3), 90.0)}
    works, over = steered[:, 0] > 0, metrics.estimator("traits", [1])
    found = transfer.decisive(arms, np.zeros((16, 2)), np.arange(16) % 2 > 0, works, tasks, over)
    assert (found["transfer_gap"]["value"], found["transfer_gap"]["n"]) == (20, 4)
    assert found["prompted_minus_steered"]["value"] == pytest.approx(90 - 80 / 3)
    none = transfer.decisive(arms, np.zeros((16, 2)), np.arange(16) % 2 > 0, ~works & works, tasks, over)
    assert all("no trait steers" in none[key] for key in ("transfer_gap", "summary_deficit", "prompted_minus_steered"))


def test_steering_is_a_gain_on_the_tuning_split():
    tuned = {"trait/a": {"score": 50.0, "unsteered": 45.0}, "trait/b": {"score": 20.0, "unsteered": 5.0},
             "behaviour/c": {"score": None}}
    assert tuning.steering(tuned) == ["b"]


def test_settings_chosen_from_noise_gain_nothing():
    rng = np.random.default_rng(10)
    gains = []
    for seed in range(30):
        records = [{"subset": f"{g} {k} {i}", "group": g, "k": k, "task": "email", "method": f"m {s}",
                    "usable": rng.normal(50, 20)} for g in range(6) for k in (1, 2, 3) for i in range(2)
                   for s in (0.5, 1.0, 1.5)]
        gains.append(subsets.setting_gain(records, [seed])["value"])
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(30) + 0.5
    assert "no two groups" in subsets.setting_gain([r for r in records if r["group"] == 0], [1])


def test_adaptive_goes_on_without_what_shows(monkeypatch):
    """The second half runs on prompt and first half, under the vectors of the traits below SHOWN; ended texts stay."""
    import importlib
    from types import SimpleNamespace
    four, calls = importlib.import_module("04_compose"), []

    def generate(lm, prompts, rows, n):
        calls.append((prompts, rows, n))
        return [[7] * n if len(calls) > 1 or i else [5] for i in range(len(prompts))]
    monkeypatch.setattr(four.engine, "generate_ids", generate)
    monkeypatch.setattr(four.cases, "score", lambda judge, jobs, texts: [
        {"output": text, "expression": {"a": 50.0, "b": None, "c": 24.0}} for text in texts])
    lm = SimpleNamespace(tokenizer=SimpleNamespace(batch_decode=lambda ids, **_: [list(x) for x in ids]))
    jobs = [{"prompt": [1, i], "row": f"all {i}", "after": lambda names, i=i: f"{i} {'+'.join(names)}"} for i in range(2)]
    found = four.adapt(lm, None, jobs, 5)
    assert calls == [([[1, 0], [1, 1]], ["all 0", "all 1"], 2), ([[1, 1, 7, 7]], ["1 b+c"], 3)]
    assert [case["output"] for case in found] == [[5], [7] * 5]
    # all have ended by half-way, or there is no pair of traits: nothing goes on, and nothing fails
    calls.clear()
    assert [case["output"] for case in four.adapt(lm, None, jobs[:1], 5)] == [[5]] and len(calls) == 1
    assert four.adaptive_cases(lm, None, [], 5, "out", {}, "x") == []
