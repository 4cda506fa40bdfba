"""Permuted labels: the committed results come again where nothing is dealt; a dealing keeps every value in its unit and
takes away a planted effect."""
import json
import sys
from collections import Counter

import numpy as np
import pytest

from lib import artifacts
from lib.artifacts import ROOT
from lib.stage import COMMITTED
from lib.studies import tuning
from report import claims, null, permuted
from report.permuted import PERMUTED, PUBLISHED, STOPPING

CLAIMS = {claim["id"]: claim for claim in claims.listed()}
NOT_KEPT = {"P14", "B12", "B13"}
SWAPPED = {"P9": "usable", "P10": "usable", "P13": "coherence", "B17": "usable"}       # methods within a subset
COLUMNS = {"R7": "distance", "R8": "cosine", "B15": "distance", "B16": "cosine", "B5": "means", "B14": "ratios"}
CHANGED = {"P2": "scope", "P6": "tried"} | COLUMNS                                     # of others the cells


class Undealt:
    """A generator that leaves everything where it is."""
    @staticmethod
    def permutation(x):
        return np.arange(x) if isinstance(x, int) else np.asarray(x)


@pytest.fixture(scope="module")
def stages():
    return {name: {stage: artifacts.load(ROOT / COMMITTED / name / "testbed" / stage) for stage in null.STAGES}
            for name in null.MODELS}


@pytest.fixture(scope="module")
def models(stages):
    return {name: permuted.read(found) for name, found in stages.items()}


@pytest.fixture(scope="module")
def model(models):
    return models["pico-llama"]


def test_every_claim_that_names_it_is_dealt_or_says_why_not():
    assert {name for name, claim in CLAIMS.items() if "permuted" in claim["null"]} == set(PERMUTED) | NOT_KEPT
    reasons = permuted.__doc__.split("Not dealt")[1]
    assert not set(PERMUTED) & NOT_KEPT and all(name in reasons for name in NOT_KEPT)


@pytest.mark.parametrize("model", null.MODELS)
@pytest.mark.parametrize("name", PERMUTED)
def test_labels_that_stay_give_the_committed_result(stages, models, name, model):
    deal, conclude = PERMUTED[name]
    found = artifacts.plain(conclude(deal(models[model], Undealt)), digits=artifacts.DIGITS)
    assert found == claims.lookup(stages[model][CLAIMS[name]["stage"]], CLAIMS[name]["key"].removesuffix(".*"))


# --- what a dealing keeps -----------------------------------------------------------------------------------
def methods(name, model):
    return {"P13": PUBLISHED, "B17": STOPPING}.get(name) or (
        "solved", model["best"][{"P9": "best_published", "P10": "best_scaled"}[name]])


def in_units(name, model):
    """{unit: its values, in their places}: what a dealing of the claim may move inside the unit alone."""
    found = {}
    if name == "P6":
        for c in model["tried"]:
            tuned = c["coefficient"] and c["layer"] == model["tuned"][c["key"]]["layer"]
            apart = () if tuned and c["strength"] <= tuning.TRADE else (c["layer"], c["strength"])
            found.setdefault((c["key"], *apart), []).append(c["expression"])
    elif name in ("B5", "B14"):
        found = {one: model[COLUMNS[name]][model["formats"] == one].tolist() for one in set(model["formats"])}
    elif name in ("R7", "R8"):                                             # rows: behaviours with all their shifts
        found = {"rows": list(map(tuple, model[COLUMNS[name]]))}
    elif name == "P5":
        for cell in (cell for cell in model["cells"] if cell["method"] in PUBLISHED):
            for trait, shown in cell["expressions"].items():
                found.setdefault((trait, cell["method"]), []).append(shown)
    elif name == "P11":
        for cell in model["cells"]:
            method = cell["method"].partition("@")[0]
            if method in permuted.ORDERED:
                found.setdefault((cell["subset"], method), []).append(tuple(cell["expressions"].values()))
    elif name in SWAPPED:
        for cell in model["cells"]:
            mine = cell["k"] > 1 and cell["method"] in methods(name, model)
            found.setdefault((cell["subset"], *(() if mine else (cell["method"],))), []).append(cell[SWAPPED[name]])
    else:
        found = {"traits": model["scope"].tolist()}
    return found


@pytest.mark.parametrize("name", sorted(set(PERMUTED) - {"P7", "B15", "B16"}))
def test_a_dealing_is_a_permutation_inside_its_units(model, name):
    before, after = (in_units(name, one) for one in (model, PERMUTED[name].deal(model, np.random.default_rng(1))))
    assert before != after and set(before) == set(after)
    assert all(sorted(before[unit]) == sorted(after[unit]) for unit in before)


def test_methods_keep_their_means_and_subsets_what_is_left(model):
    def table(cells):                                                      # (method, subset)
        mine = [cell for cell in cells if cell["k"] > 1 and cell["method"] in permuted.METHODS]
        return np.array([[cell["usable"] for cell in mine if cell["method"] == name] for name in permuted.METHODS])

    was, dealt = (table(one["cells"]) for one in (model, PERMUTED["P7"].deal(model, np.random.default_rng(1))))
    parts = [np.sort(x - was.mean(axis=1, keepdims=True), axis=0) for x in (was, dealt)]
    assert not np.allclose(was, dealt)
    np.testing.assert_allclose(*parts, atol=1e-9)


@pytest.mark.parametrize("name, third", [("B15", "cosine"), ("B16", "distance")])
def test_what_is_held_fixed_stays_related(model, name, third):
    """The line on the ranks of the third column stays; what is left around it goes with whole behaviours."""
    def ranks(column):                                                     # (pair, behaviour), centred
        return column.argsort(axis=0).argsort(axis=0).T - (len(column) - 1) / 2

    (x, z), dealt = (ranks(model[key][:, model["plotted"]]) for key in (COLUMNS[name], third)), PERMUTED[name].deal(
        model, np.random.default_rng(1))[COLUMNS[name]][:, model["plotted"]].T
    line = (x * z).sum(axis=1, keepdims=True) / (z * z).sum(axis=1, keepdims=True) * z
    order = [int(np.abs((x - line)[0] - value).argmin()) for value in (dealt - line)[0]]
    assert order != sorted(order) == list(range(len(order)))
    np.testing.assert_allclose(dealt - line, (x - line)[:, order], atol=1e-9)


@pytest.mark.parametrize("name", PERMUTED)
def test_a_dealing_touches_one_thing_and_comes_again(model, name):
    key, deal = CHANGED.get(name, "cells"), PERMUTED[name].deal
    first, again, other = (deal(model, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(first[one] is model[one] for one in model if one != key)
    assert np.array_equal(first[key], again[key]) and not np.array_equal(first[key], other[key])


@pytest.mark.parametrize("name, what", SWAPPED.items())
def test_a_group_is_dealt_as_a_whole(model, name, what):
    mine = methods(name, model)
    marked = model | {"cells": [cell | {what: mine.index(cell["method"]) if cell["method"] in mine else -1}
                                for cell in model["cells"]]}
    cells = PERMUTED[name].deal(marked, np.random.default_rng(1))["cells"]
    went = {(cell["group"], cell["method"], cell[what]) for cell in cells if cell["k"] > 1 and cell["method"] in mine}
    assert len(went) == len({cell["group"] for cell in cells}) * len(mine)
    assert all(cell[what] == -1 for cell in cells if cell["method"] not in mine)


@pytest.mark.parametrize("name, mark, place", [
    ("P5", lambda cell: cell["subset"], lambda cell, trait: (trait, cell["subset"])),
    ("P11", lambda cell: cell["method"].partition("@")[2],
     lambda cell, trait: (cell["group"], cell["k"], cell["method"].partition("@")[2]))])
def test_methods_are_dealt_alike(model, name, mark, place):
    marked = model | {"cells": [cell | {"expressions": dict.fromkeys(cell["expressions"], mark(cell))}
                                for cell in model["cells"]]}
    came = {}
    for cell in PERMUTED[name].deal(marked, np.random.default_rng(1))["cells"]:
        for trait, source in cell["expressions"].items():
            came.setdefault(place(cell, trait), set()).add(source)
    assert all(len(sources) == 1 for sources in came.values())


# --- what a dealing takes away ------------------------------------------------------------------------------
def per_cell(change):
    """A planted effect on every cell."""
    return lambda model: model | {"cells": [cell | change(cell) for cell in model["cells"]]}


def in_place(cell):
    """Ten points for every place nearer to the first."""
    names, turn = list(cell["expressions"]), int((cell["method"] + "@0").split("@")[1])
    return {"expressions": {name: 10.0 * (cell["k"] - 1 - (i - turn) % cell["k"]) for i, name in enumerate(names)}}


def suits(cell):
    best = (2 * cell["k"] + (cell["task"] == "email")) % len(permuted.METHODS)
    return {"usable": cell["usable"] + 30.0 * (permuted.METHODS[best] == cell["method"])}


PLANTED = {
    "P2": lambda model: model | {"expression": model["expression"] | {
        "steered": model["expression"]["steered"] + 60.0 * model["scope"][:, None]}},
    "P5": per_cell(lambda cell: {"expressions": dict.fromkeys(cell["expressions"], 100.0 - 20 * cell["k"])}),
    "P6": lambda model: model | {"tried": [c | {"expression": c["strength"], "coherence": -c["strength"]}
                                           for c in model["tried"]]},
    "P7": per_cell(suits),
    "P9": per_cell(lambda cell: {"usable": cell["usable"] + 60.0 * (cell["method"] == "solved")}),
    "P10": per_cell(lambda cell: {"usable": cell["usable"] + 60.0 * (cell["method"] == "solved")}),
    "P11": per_cell(in_place),
    "P13": per_cell(lambda cell: {"coherence": cell["coherence"] + 60.0 * cell["method"].startswith("unit_norm")}),
    "B17": per_cell(lambda cell: {"usable": cell["usable"] + 60.0 * (cell["method"] == "adaptive")}),
    "R7": lambda model: model | {"relative": -model["distance"]},
    "R8": lambda model: model | {"cosine": -model["distance"]},
    "B15": lambda model: model | {"relative": -model["distance"]},
    "B16": lambda model: model | {"relative": model["cosine"]},
    "B5": lambda model: model | {"means": model["predictors"][:, 0]},
    "B14": lambda model: model | {"ratios": model["predictors"][:, 0]},
}


@pytest.mark.parametrize("name", PERMUTED)
def test_a_planted_effect_is_gone_once_dealt(model, name):
    claim, (deal, conclude) = CLAIMS[name], PERMUTED[name]
    planted = PLANTED[name](model)

    def says(found):
        parts = claims.widened(found) if claim["key"].endswith(".*") else {"": found}
        return claims.verdict(claims.weakest(parts, claim["rule"])[1], claim["rule"])

    assert says(conclude(planted)) == "reproduced"
    assert [says(conclude(deal(planted, np.random.default_rng(seed)))) for seed in range(4)].count("reproduced") < 2


# --- how they are counted -----------------------------------------------------------------------------------
def test_a_dealt_claim_is_decided_as_on_the_page(stages, monkeypatch):
    """Where nothing is dealt the verdict is the page's; another estimate at the key decides, behind the same gates."""
    far = {"value": -50.0, "low": -60.0, "high": -40.0, "n": 9}
    undealt = {"P2": lambda model: far, **{name: PERMUTED[name].conclude for name in ("P6", "P13", "R7")}}
    monkeypatch.setattr(null, "DEALT", 2)
    monkeypatch.setattr(permuted, "PERMUTED", {
        name: permuted.Permuted(lambda model, rng: model, conclude) for name, conclude in undealt.items()})
    told, found = null.dealt(), {(model, stage): one for model, mine in stages.items() for stage, one in mine.items()}
    for name in ("P6", "P13", "R7"):
        verdicts = Counter(claims.decide(CLAIMS[name], model, found)["verdict"] for model in stages)
        assert {word: told[name].get(word, 0) for word in verdicts} == {word: 2 * n for word, n in verdicts.items()}
    assert told["P2"]["contradicted"] == told["P2"]["n"] == 2 * len(null.MODELS)


@pytest.mark.parametrize("part", ["permuted", "synthetic"])
def test_a_part_alone_leaves_the_rest_as_it_is(tmp_path, monkeypatch, part):
    old = {"n": 3, "undecided": 3, "rate": [0, 0, 0.5]}
    kept = {"profile": ["x"], "wall_s": 7, "claims": {name: {
        "chains": {"random": old, "permuted": old}, "what": "ten", "false": old, "planted": old} for name in CLAIMS}}
    (tmp_path / "null.json").write_text(json.dumps(kept))
    new = {"n": 5, "reproduced": 5, "rate": [1, 0.5, 1]}
    monkeypatch.setattr(null, "TOLD", tmp_path / "null.json")
    monkeypatch.setattr(null, "chains", lambda out: pytest.fail("chains ran"))
    monkeypatch.setattr(null, "dealt", lambda: {"P2": new})
    monkeypatch.setattr(null, "synthetic", lambda study: {"P2": {"false": new}} if study == "preferences" else {})
    monkeypatch.setattr(sys, "argv", ["null", "--only", part])
    null.main()
    at = kept["claims"]["P2"]["chains"] if part == "permuted" else kept["claims"]["P2"]
    at["permuted" if part == "permuted" else "false"] = new
    assert json.loads((tmp_path / "null.json").read_text()) == kept
