"""Stages 03 and 04: planted measurements with known answers; both end to end on a tiny random model."""
import importlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lib import artifacts, models, stage as frame, suite as suites
from lib.studies import propensity, relations, subsets, transfer
from report import audit
from tests import tiny

ROOT = artifacts.ROOT
ADDRESS = [7]
ZERO = "formal", "anti-LGBTQ-rights"           # planted with coefficient 0: their rows must change nothing


# --- conclusions of stage 03 -------------------------------------------------------------------------------
def test_relative_steerability_known_case():
    found = transfer.relative_steerability([1.0, -1.0, 3.0, 1.0], [2.0, 2.0, -2.0, 0.2], 0.25)
    assert found[:3].tolist() == [0.5, -0.5, 1.5] and np.isnan(found[3])   # the sign is kept


def trait_cases(effect):
    """effect(trait, task): steered minus unsteered expression; prompted is 90, random changes nothing."""
    cases = []
    for task in ("question", "summary", "email"):
        for item in range(3):
            level = 10.0 * item                     # prompts differ: only pairing cancels it
            base = {"task": task, "item": f"{task}-{item}", "coherence": 100.0}
            cases.append(base | {"arm": "unsteered", "trait": None, "expression": {t: level for t in "abcd"}})
            for t in "abcd":
                for arm, value in (("prompted", 90.0), ("steered", level + effect(t, task)),
                                   ("steered_prompted", 95.0), ("random", level)):
                    cases.append(base | {"arm": arm, "trait": t, "expression": {t: value}})
    return cases


def test_trait_gaps_known_case():
    loss = {"question": 0, "summary": 30, "email": 10}
    traits = [{"name": t, "group": None, "scope": "global" if t in "ab" else "local"} for t in "abcd"]
    cases = trait_cases(lambda t, task: (60 if t in "ab" else 40) - loss[task])
    rows, results, missing = transfer.traits(cases, traits, tuple(loss), "seen", list("abcd"), ADDRESS)
    assert len(rows) == 12 and set(missing) == {f"traits.{key}" for key in (
        "first_token_effect", "search_effect", "search_coherence", "seen_minus_held_out", "scales")}
    assert rows[0]["steered_minus_random"]["value"] == pytest.approx(60)
    assert rows[0]["expression_interval"]["prompted"] == [90, 90] and rows[0]["coherence_interval"]["random"] == [100, 100]
    low, high = rows[0]["expression_interval"]["steered"]
    assert 60 <= low < rows[0]["expression"]["steered"] < high <= 80
    for key, value in (("transfer_gap", 20), ("summary_deficit", 20), ("global_minus_local", 20)):
        assert results[key]["value"] == pytest.approx(value), key
    assert results["transfer_gap"]["low"] == pytest.approx(20)                # no trait differs: no width
    assert results["gain"]["question"]["value"] == pytest.approx(50)
    assert results["steered_minus_random"]["value"] == pytest.approx(50 - 40 / 3)
    late = [case | {"arm": "steered_other_start", "expression": {case["trait"]: 0.0}} for case in cases
            if (case["arm"], case["item"]) == ("steered", "question-1")]
    results = transfer.traits(cases + late, traits, tuple(loss), "seen", list("abcd"), ADDRESS)[1]
    assert results["first_token_effect"]["value"] == pytest.approx((70 + 70 + 50 + 50) / 4)
    cases[0]["expression"]["a"] = None              # an unscored text is left out, in pairs
    rows = transfer.traits(cases, traits, tuple(loss), "seen", list("abcd"), ADDRESS)[0]
    assert (rows[0]["n"], rows[0]["unscored"], rows[0]["gain"]["value"]) == (2, 1, 60)


def test_what_the_releases_choices_were_worth_known_case():
    traits = [{"name": t, "group": None, "scope": "global" if t in "ab" else "local"} for t in "abcd"]
    cases = trait_cases(lambda t, task: 50)
    for case in list(cases):
        if case["arm"] == "steered":
            if case["task"] == "question":
                lower = {t: value - 8 for t, value in case["expression"].items()}
                cases.append(case | {"arm": "narrow", "expression": lower, "coherence": 90.0})
                cases.append(case | {"task": "seen", "expression": {t: v + 5 for t, v in case["expression"].items()}})
            case["preference"] = {t: -1.0 if case["task"] == "email" else 1.0 for t in case["expression"]}
        elif case["arm"] == "unsteered" and case["task"] == "question":
            cases.append(case | {"task": "seen"})
    _, results, missing = transfer.traits(cases, traits, ("question", "summary", "email"), "seen", [], ADDRESS)
    assert set(missing) == {f"traits.{key}" for key in ("first_token_effect", "transfer_gap", "summary_deficit",
                                                        "prompted_minus_steered")}        # no trait steers
    found = {key: results[key]["value"] for key in ("search_effect", "search_coherence", "seen_minus_held_out")}
    assert found == pytest.approx({"search_effect": 8, "search_coherence": 10, "seen_minus_held_out": 5})
    scales = results["scales"]                   # 60 of 100 everywhere; preferences 1 and -1, mean 0: 50 of 100
    assert (scales["gap"]["value"], scales["gap_mixed"]["value"]) == pytest.approx((0, 10))
    assert scales["mixed_minus_one_scale"]["value"] == pytest.approx(10) and scales["preference"]["value"] == 0
    assert scales["traits_that_improve"] == {"mixed": 0, "one_scale": 0}


SETTINGS, LAMBDAS = ("BASE", "SYS_POS", "USER_NEG"), (-1.0, 0.0, 1.0)
GRID = tuple((vector, inputs) for vector in SETTINGS for inputs in SETTINGS)


def grid_slopes(strength, share):
    """Slopes (behaviour, pair) of vectors that have `strength` at home and strength * share everywhere else."""
    return np.stack([strength if a == b else strength * share for a, b in GRID], axis=1)


def likeness(n, other=0.5):
    """Cosines (n, 3, 3) of vectors that are all equally alike."""
    return np.tile(np.where(np.eye(3), 1.0, other), (n, 1, 1))


def test_behaviour_transfer_known_case():
    shifts = (("BASE", "USER_NEG"),)
    strength = np.array([1.0, 2.0, 3.0, 4.0, 0.1])
    share = np.array([0.9, 0.7, 0.5, 0.3, 0.5])     # what is left in another setting; the further, the less
    names = np.repeat(list("abcde"), 2)
    slopes = np.repeat(grid_slopes(strength, share), 2, axis=0)
    unsteered = np.repeat(np.stack([0 * share, 2 + 0 * share, share - 1], axis=1), 2, axis=0)
    start = np.stack([unsteered[:, SETTINGS.index(b)] for _, b in GRID], axis=1)
    curves = start[:, :, None] + slopes[:, :, None] * np.array(LAMBDAS)
    (rows, moved), results, missing = transfer.behaviours(
        names, np.arange(len(names)), ["yes_no"] * 5, slopes, curves, unsteered, likeness(5), GRID, shifts, SETTINGS, LAMBDAS, 0.25, ADDRESS)
    plotted = [row for row in moved if row["plotted"]]
    assert len(moved) == 5 * 9 and [row["relative"] for row in plotted] == pytest.approx([0.9, 0.7, 0.5, 0.3, None])
    assert [row["distance"] for row in plotted] == pytest.approx(1 - share)
    assert results["n"]["no_denominator"] == 1
    assert results["distance_spearman"]["value"] == pytest.approx(-1)
    assert results["id_ood_spearman"]["n"] == 5
    assert results["vector_effect"]["value"] == pytest.approx(strength.mean())
    assert results["sentence_effect"]["SYS_POS"]["value"] == pytest.approx(2)
    assert results["both_minus_sentence"]["value"] == pytest.approx((strength * share).mean())
    assert results["mean_steerability"]["SYS_POS->SYS_POS"] == pytest.approx(strength.mean())
    # the pairs of a setting with itself correlate by construction, and only lift the correlation
    assert results["grid"]["id_ood"]["value"] < results["grid"]["id_ood_with_self"]["value"] < 1
    assert results["grid"]["distance_relative_with_self"]["value"] < results["grid"]["distance_relative"]["value"] < 0
    # all vectors are equally alike, so nothing can be said about likeness; spread within behaviours is zero
    assert set(missing) == {"behaviours.grid.cosine_distance", "behaviours.grid.cosine_relative",
                            "behaviours.id_ood_sd_spearman", "behaviours.id_ood_sd", "behaviours.cosine_within",
                            "behaviours.cosine_distance_within", "behaviours.cosine_given_distance",
                            "behaviours.distance_given_cosine",
                            *(f"behaviours.formats_apart.{name}" for name in (
                                "id_ood_sd", "cosine_distance", "cosine_given_distance", "distance_given_cosine"))}
    assert results["formats_apart"]["distance"] == results["distance_within"]              # one format is no format


def test_a_gap_between_formats_does_not_count_as_an_order_of_behaviours():
    rng = np.random.default_rng([3, 4])
    formats = np.repeat(["options", "yes_no"], [12, 9])
    x, noise = rng.normal(size=(2, 21, 2))
    y, far = noise - x, 4.0 * (formats == "options")[:, None]                # against x inside a format, with it between
    together, apart = (transfer.inside_pairs((x + far, y + far), [0, 1], [3], fmt)["value"] for fmt in (None, formats))
    a, b = (np.concatenate([(part.argsort().argsort() + 0.5) / len(part) - 0.5 for fmt in set(formats) for p in (0, 1)
                            for part in (column[formats == fmt, p],)]) for column in (x, y))
    by_hand = np.corrcoef(a, b)[0, 1]
    assert apart < -0.4 and together > 0.4 and apart == pytest.approx(by_hand)


def test_a_behaviour_without_a_denominator_in_one_shift_keeps_its_others():
    """One shift has no denominator for behaviour e: its number is left out, and the estimate stays finite."""
    shifts = (("BASE", "SYS_POS"), ("BASE", "USER_NEG"))
    own, share = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.9, 0.7, 0.5, 0.3, 0.2])
    in_y = np.array([1.0, 2.0, 3.0, 4.0, 0.1])
    slopes = np.stack([(in_y if b == "USER_NEG" else own) * (1 if a == b else share) for a, b in GRID], axis=1)
    unsteered = np.stack([0 * share, 1 - share, 1 - share], axis=1)
    slopes, unsteered = np.repeat(slopes, 2, axis=0), np.repeat(unsteered, 2, axis=0)
    _, results, missing = transfer.behaviours(
        np.repeat(list("abcde"), 2), np.arange(10), ["options"] * 5, slopes, slopes[:, :, None] * np.array(LAMBDAS), unsteered,
        likeness(5), GRID, shifts, SETTINGS, LAMBDAS, 0.25, ADDRESS)
    assert results["n"]["no_denominator"] == 1
    assert results["distance_spearman"]["value"] == pytest.approx(-1) and results["distance_spearman"]["n"] == 5


def test_shift_intervals_resample_contents():
    rng = np.random.default_rng(5)
    slopes = np.repeat(rng.normal(1.0, 1.0, size=(30, len(GRID))), 2, axis=0)          # an input and its swap: one draw
    names, unsteered = np.repeat("a", 60), rng.normal(size=(60, len(SETTINGS)))
    rows = {}
    for label, contents in (("swap", np.repeat(np.arange(30), 2)), ("input", np.arange(60))):
        _, moved = transfer.behaviour_rows(names, contents, slopes, slopes[:, :, None] * np.array(LAMBDAS), unsteered,
                                           likeness(1), GRID, (), SETTINGS, LAMBDAS, 0.25, ADDRESS)
        rows[label] = moved
        assert all(row["n"] == 60 and row["ood_interval"][0] < row["ood"] < row["ood_interval"][1] for row in moved)
        assert all(row["distance_interval"] == [0, 0] for row in moved if len(set(row["shift"].split("->"))) == 1)
    width = {label: np.mean([np.ptp(row["ood_interval"]) for row in moved]) for label, moved in rows.items()}
    assert width["swap"] == pytest.approx(np.sqrt(2) * width["input"], rel=0.1)
    # the standard error of a mean over 30 contents, twice 1.96 of it
    expected = np.mean([2 * 1.96 * slopes[::2, p].std() / np.sqrt(30) for p in range(len(GRID))])
    assert width["swap"] == pytest.approx(expected, rel=0.1)
    own = [row for row in rows["swap"] if len(set(row["shift"].split("->"))) == 1]
    assert all(row["relative_interval"] == pytest.approx([1, 1]) for row in own)        # drawn together, not apart


def test_unlike_vectors_of_distant_prompts_are_found():
    own, far = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    slopes, cosines = grid_slopes(own, 1 - far / 2), np.ones((5, 3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosines[:, i, j] = cosines[:, j, i] = 1 - far
    unsteered = np.repeat(np.stack([0 * far, far, -far], axis=1), 2, axis=0)
    slopes = np.repeat(slopes, 2, axis=0)
    results = transfer.behaviours(np.repeat(list("abcde"), 2), np.arange(10), ["options"] * 5, slopes,
                                  slopes[:, :, None] * np.array(LAMBDAS), unsteered, cosines, GRID, (("BASE", "USER_NEG"),), SETTINGS, LAMBDAS, 0.25, ADDRESS)[1]
    assert results["grid"]["cosine_relative"]["value"] == pytest.approx(1)
    assert results["grid"]["cosine_distance"]["value"] < -0.7
    assert results["mean_cosine"]["BASE->BASE"] == pytest.approx(1)


# --- subsets and conclusions of stage 04 -------------------------------------------------------------------
def test_subset_counts_are_the_published_ones():
    traits = suites.load("testbed").traits
    names = [trait["name"] for trait in traits]
    found, left_out = subsets.subsets(traits, names, 4)
    assert [sum(s["k"] == k for s in found) for k in (1, 2, 3, 4)] == [35, 51, 33, 8] and left_out == 0
    assert all(s["traits"] == sorted(s["traits"]) for s in found)
    fewer, left_out = subsets.subsets(traits, [name for name in names if name != "slang"], 4)
    assert len(found) - len(fewer) == left_out == 4    # slang alone, two pairs, one triple


def planted_cells(expression):
    """Cells of three groups of three traits; expression(method, k, task) per trait."""
    records = []
    for group, task in (("E1", "email"), ("E2", "email"), ("S1", "summary")):
        for k, names in ((1, "a"), (1, "b"), (1, "c"), (2, "ab"), (2, "ac"), (2, "bc"), (3, "abc")):
            names = [f"{group}{name}" for name in names]
            for method in ("x", "y"):
                value = expression(method, k, task)
                records.append({
                    "subset": "+".join(names), "group": group, "k": k, "task": task, "own": True, "n": 2,
                    "method": method, "unscored": 0, "expressions": dict.fromkeys(names, value),
                    "expression": value, "coherence": 100.0 - k, "usable": value})
    return records


def test_slopes_drops_and_winners_known_case():
    def expression(method, k, task):
        return 80 - 10 * k if method == "x" else 90 - 20 * k + (25 if task == "email" and k == 3 else 0)
    curves, winners, results, missing = subsets.conclude(planted_cells(expression), ("x", "y"), (), {}, ["E1a", "S1c"], ADDRESS)
    assert results["slope"]["x"]["value"] == pytest.approx(-10) and results["slope"]["x"]["n"] == 3
    found = results["per_vector"]["expression"]          # -10 and -20 at k = 2 and 3, of two traits in two groups
    assert found["x"]["value"] == pytest.approx(-10) and found["x"]["n"] == 2
    assert results["per_vector"]["coherence"]["y"]["value"] == pytest.approx(-1)
    assert results["drop"]["x"]["3"]["value"] == pytest.approx(-20)
    # x: 70 60 50 | 70 60 50; y: 70 50 55 | 70 50 30 (email | summary): x leads and loses one cell of six
    assert results["best_method"]["usable"] == "x"
    assert results["best_method_share"]["value"] == pytest.approx(5 / 6)
    assert [w["winners"] for w in winners if w["score"] == "usable" and w["k"] == 1] == [["x", "y"]] * 2
    assert [c["expression"]["value"] for c in curves if c["method"] == "x"] == [70, 60, 50]
    assert missing["best_method_share_other_task"] and "slope_other_task" not in results


def test_the_joint_solution_is_held_against_the_best_of_the_published():
    def expression(method, k, task):
        return 50 - 10 * k if method == "x" else 40 - 5 * k
    records = planted_cells(expression)
    records += [r | {"method": "solved", "usable": 33.0} for r in records if r["method"] == "x"]
    results = subsets.conclude(records, ("x", "y"), ("solved",), {"best_published": ("x", "y")}, [], ADDRESS)[2]
    # k >= 2, nine pairs and three triples: x 30 and 20, mean 27.5; y 30 and 25, mean 28.75
    assert results["best"] == {"best_published": "y"} and results["solved_minus"]["best_published"]["n"] == 3
    assert results["solved_minus"]["best_published"]["value"] == pytest.approx(33 - 28.75)
    assert results["solved_minus"]["x"]["value"] == pytest.approx(33 - 27.5)
    few = [r for r in records if r["k"] == 1]
    missing = subsets.conclude(few, ("x", "y"), ("solved",), {"best_published": ("x", "y")}, [], ADDRESS)[3]
    assert {"solved_minus", "drop"} <= set(missing)


def test_what_a_trait_loses_in_company():
    rows = subsets.traits_apart(planted_cells(lambda method, k, task: 80 - 10 * k), ("x",))
    assert len(rows) == 9 * 2 and {row["method"] for row in rows} == {"x"}
    assert all(row["alone"] == 70 and row["drop"] == pytest.approx(-10 * (row["k"] - 1)) for row in rows)
    assert {row["k"]: row["n"] for row in rows} == {2: 2, 3: 1}


def test_the_setting_of_each_k_is_chosen_on_its_own():
    def cells(k, setting, expression, coherence):
        return {"k": k, "method": f"x {setting}", "expression": expression, "coherence": coherence, "usable": 0}
    records = [cells(1, 0.5, 20, 90), cells(1, 1.0, 30, 80), cells(1, 1.5, 90, 10),
               cells(2, 0.5, 20, 70), cells(2, 1.0, 30, 60), cells(2, 1.5, 90, 10)]
    found = subsets.fronts(records + [records[0] | {"expression": 10, "coherence": 80}], 75)
    assert [(row["k"], row["setting"], row["coherent"]) for row in found if row["chosen"]] == [(1, 1.0, True),
                                                                                            (2, 0.5, False)]
    assert found[0]["n"] == 2 and found[0]["expression"] == 15 and found[0]["coherence"] == 85


@pytest.mark.parametrize("k", [2, 3, 4])
def test_place_and_trait_are_told_apart(k):
    """Expression = trait + place, planted: only what the place adds is found, though the traits differ more."""
    names, trait, place = list("abcd")[:k], [90, 40, 10, 70], [5, 1, 0, -4]
    records = []
    for turn in range(k):
        order = subsets.turned(names, turn)
        values = {name: trait[i] + place[order.index(name)] for i, name in enumerate(names)}
        records.append({"subset": "s", "group": "g", "own": True, "k": k, "method": f"x@{turn}" if turn else "x",
                        "expressions": values})
    records.append(records[0] | {"method": "y", "expressions": dict(zip(names, trait))})
    rows, results, missing = subsets.orders(records, ("x",), ("x", "y"), ADDRESS)
    assert not missing and results["first_minus_last"]["x"]["value"] == pytest.approx(place[0] - place[k - 1])
    assert rows[0]["sd"] == pytest.approx(np.std(place[:k], ddof=1)) and rows[0]["sd_mean"] == pytest.approx(0)
    if k == 2:
        gap, symmetric = results["alphabetical"]["x"], results["alphabetical"]["y"]
        assert [gap[key]["value"] for key in ("difference", "place", "traits")] == pytest.approx([54, 4, 50])
        assert symmetric["difference"]["value"] == 50 and "place" not in symmetric


def test_items_are_asked_for_by_trait_on_the_own_task_alone(monkeypatch):
    """A suite may have items for some traits only; a group shares its own task's."""
    four, asked = importlib.import_module("04_compose"), []
    item = {"id": "x", "prompt": "p", "task": "email"}
    monkeypatch.setattr(suites, "tasks", lambda suite, *args: asked.append(args) or [item | {"task": args[0]}])
    lm = SimpleNamespace(chat=lambda system, prompt: [1])
    suite = SimpleNamespace(system="s", traits=[{"name": n, "instructions": [{"positive": n}]} for n in "ab"])
    found = [{"name": n, "group": task, "task": task, "k": 1, "traits": [n]}
             for n, task in (("a", "email"), ("b", "summary"))]
    vectors = {f"trait/{n}": np.ones((2, 4), np.float32) for n in "ab"}
    tuned = {key: {"layer": 1, "coefficient": 2.0} for key in vectors}
    chosen = dict.fromkeys((*four.UNIT_NORMS, *four.TUNED, "solved"), 1.0)
    jobs = four.evaluation_jobs(lm, suite, found, 1, 1, vectors, tuned, np.ones(2), {1: chosen})
    assert asked == [("email", "evaluate", "a"), ("summary", "evaluate"),
                     ("email", "evaluate"), ("summary", "evaluate", "b")]
    own = {job["record"]["method"] for job in jobs if job["record"]["own"]}
    other = {job["record"]["method"] for job in jobs if not job["record"]["own"]}
    assert own == {*four.METHODS, *four.REFERENCES} and other == own - set(four.SCALED)


def test_every_trait_is_in_every_place_once():
    turns = [subsets.turned("abcd", turn) for turn in range(4)]
    assert turns[0] == list("abcd") and all(sorted(column) == list("abcd") for column in zip(*turns))


def test_text_that_falls_apart_is_not_usable():
    case = {"subset": "a", "group": "E1", "task": "email", "own": True, "method": "x",
            "expression": {"a": 100.0}}
    record, = subsets.cells([case | {"coherence": c} for c in (80.0, 75.0, 40.0, None)], 75)
    assert (record["expression"], record["n"], record["unscored"]) == (100, 3, 1)
    assert record["usable"] == pytest.approx(200 / 3)


# --- both stages, end to end -------------------------------------------------------------------------------
def plant_upstream(world):
    """Stages 01 and 02 of the smoke profile from random vectors; the concepts in ZERO have coefficient 0."""
    suite, lm = suites.load("testbed", "smoke"), models.load(str(world / "tiny"))
    rng = np.random.default_rng(3)
    keys = [f"{kind}/{concept['name']}" for kind in ("trait", "behaviour", "relation", "value")
            for concept in getattr(suite, kind + "s")]
    def arrays(*shape, axes):
        return rng.standard_normal(shape).astype(np.float32), axes
    size, norms = (lm.n_layers, lm.d_model), (np.full(lm.n_layers, 6, np.float32), ("layer",))
    config = {"model": lm.identity, "suite": suite.name, "profile": "smoke", "judge": "rules", "ways": list(relations.MADE),
              "fact_loss": 0.1}
    found = propensity.find(lm, suite)
    folder = frame.paths(SimpleNamespace(
        model=str(world / "tiny"), suite="testbed", profile="smoke", out=world / "outputs"))
    first = artifacts.save(
        folder / "01_extract", stage="01_extract", config=config | {"read_out": found.config("smoke"), "left_out": []}, inputs={"suite": suite.digest},
        results={"read_out": {"mass": found.mass, "masses": found.masses}, "not_testable": {}},
        tables={"concepts": [{"key": key} for key in keys]},
        arrays={"vectors": arrays(len(keys), *size, axes=("concept", "layer", "d_model")),
                "shuffled_vectors": arrays(len(keys), 5, *size, axes=("concept", "draw", "layer", "d_model")),
                "setting_vectors": arrays(5, len(suite.behaviours), *size,
                                          axes=("setting", "behaviour", "layer", "d_model")),
                "way_vectors": arrays(4, len(suite.relations), *size, axes=("way", "relation", "layer", "d_model")),
                "residual_norm": norms, "residual_norm_raw": norms})
    tuned = {}
    for i, key in enumerate(keys):
        c = 0.0 if key.split("/")[1] in ZERO else 0.4
        at = {"layer": i % lm.n_layers, "coefficient": c, "strength": c}
        tuned[key] = at | {"unit": c, "narrow": at, "window": at | {"sign": -1}, "against": at, "score": 100 * c,
                           "unsteered": 0.0, "ways": dict.fromkeys(relations.WAYS, at)}
    artifacts.save(folder / "02_tune", stage="02_tune", config=config,
                   inputs={"suite": suite.digest, "01_extract": first.digest},
                   tables={"tuned": tuned, "settings": {"behaviour": {"layer": 1, "unit": 0.4}}},
                   arrays={"unit_norm": norms, "unit_norm_raw": norms})
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny.save(folder / "tiny", "llama", max_position_embeddings=2048)
    plant_upstream(folder)
    return folder


def command(world, stage):
    return [sys.executable, str(ROOT / f"{stage}.py"), "--model", str(world / "tiny"), "--profile", "smoke",
            "--out", str(world / "outputs")]


def here(world, stage, capsys, monkeypatch):
    """(exit status, output, errors) of a stage run in this process: a new one costs an import of torch."""
    monkeypatch.setattr(sys, "argv", command(world, stage)[1:])
    try:
        artifacts.run(importlib.import_module(stage).main)
        status = 0
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("run.json", ".made")}


@pytest.fixture(scope="module")
def done(world):
    """Both stages, side by side from the command line: {stage: (artifact, last line printed, bytes)}."""
    stages, environment = ("03_transfer", "04_compose"), {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command(world, stage), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, cwd=ROOT, env=environment) for stage in stages]
    finished = {}
    for stage, process in zip(stages, started):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        artifact = artifacts.load(world / "outputs/tiny/testbed-smoke" / stage, stage)
        finished[stage] = artifact, output.strip().splitlines()[-1], contents(artifact.path)
    return finished


@pytest.mark.parametrize("stage", ["03_transfer", "04_compose"])
def test_rerun_gives_the_same_bytes(stage, world, done, capsys, monkeypatch):
    artifact, line, before = done[stage]
    assert artifact.digest[:12] in line
    status, output, errors = here(world, stage, capsys, monkeypatch)
    assert status == 0, errors
    assert contents(artifact.path) == before
    audit.verify(artifact.path)
    assert not artifact.path.with_name(stage + ".units").exists()


def test_a_row_of_zero_changes_nothing(done):
    artifact = done["03_transfer"][0]
    cases = artifact.table("cases.jsonl")
    plain = {case["item"]: case["output"] for case in cases if case["arm"] == "unsteered"}
    mine = [case for case in cases if case["trait"] == ZERO[0]]
    prompted = {case["item"]: case["output"] for case in mine if case["arm"] == "prompted"}
    assert {case["arm"] for case in mine} == {"prompted", "steered", "steered_prompted", "random", "narrow",
                                              "shuffled", "steered_other_start"}
    for case in mine:
        same = prompted if "prompted" in case["arm"] else plain
        assert case["output"] == same[case["item"]], case["arm"]
    others = [case for case in cases if case["arm"] == "steered" and case["trait"] != ZERO[0]]
    assert any(case["output"] != plain[case["item"]] for case in others)    # the test can fail
    row, = [row for row in artifact.table("traits") if row["trait"] == ZERO[0] and row["task"] == "question"]
    assert row["gain"]["value"] == row["gain"]["high"] == 0
    curves = artifact.array("propensity")
    flat = np.ptp(curves, axis=-1).max(axis=-1) == 0
    assert flat.tolist() == [item["behaviour"] == ZERO[1] for item in artifact.table("behaviour_items.jsonl")]


def test_propensity_at_multiplier_zero_is_the_unsteered_one(done):
    artifact = done["03_transfer"][0]
    settings, pairs = artifact.config["settings"], artifact.config["pairs"]
    zero = artifact.config["multipliers"].index(0.0)
    curves, unsteered = artifact.array("propensity"), artifact.array("propensity_unsteered")
    for p, (_, inputs) in enumerate(pairs):
        assert np.array_equal(curves[:, p, zero], unsteered[:, settings.index(inputs)])


def test_results_hold_every_claim(done):
    claims = json.loads((ROOT / "report/claims.json").read_text())
    for stage in ("03_transfer", "04_compose"):
        results = done[stage][0].results
        for claim in claims:
            absent = any(claim["key"].startswith(key) for key in results["not_testable"])
            if claim["stage"] != stage or absent:
                continue
            value = results
            for part in claim["key"].removesuffix(".*").split("."):
                value = value[part]
            for estimate in value.values() if claim["key"].endswith(".*") else [value]:
                assert estimate["low"] <= estimate["value"] + 1e-9 and estimate["n"] > 0, claim["id"]


def test_single_traits_agree_across_methods(done):
    """With k = 1 four of the methods are one row, and one text."""
    same = ("different_layers", "orthogonalised", "tuned_mean", "plain_sum")
    cases = done["04_compose"][0].table("cases.jsonl")
    alone = [case for case in cases if case["k"] == 1 and case["method"] in same]
    for subset in {case["subset"] for case in alone}:
        for item in {case["item"] for case in alone}:
            outputs = {case["output"] for case in alone if (case["subset"], case["item"]) == (subset, item)}
            assert len(outputs) == 1


def test_missing_upstream_is_one_line_and_status_2(world, tmp_path, capsys, monkeypatch):
    for stage in ("03_transfer", "04_compose"):
        monkeypatch.setattr(sys, "argv", [stage, "--model", str(world / "tiny"), "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            artifacts.run(importlib.import_module(stage).main)
        errors = capsys.readouterr().err
        assert left.value.code == 2 and errors.count("\n") == 1 and "01_extract" in errors
    assert not any(tmp_path.iterdir())
