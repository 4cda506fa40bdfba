"""Permuted: committed results in which the label that a claim compares is dealt at random, so that the claim is false.

PERMUTED is {claim: Permuted(deal, conclude)}. A `model` is what `read` takes from a model's stages; deal(model, rng) is
the same with one label dealt anew; conclude(model) is what stands at the claim's key, by the function that the stage
concludes with. Of labels as they are that is the committed result. What is dealt, and among what:
    P2          scope                               all traits
    P5          expression in the subsets of a trait    these subsets, of one trait to four; all methods alike
    P6          expression, against coherence       strengths of a trait's tuned layer up to tuning.TRADE
    P7          methods, after their own means      a group's subsets alike; a method may still lead everywhere
    P9, P10     solved and the best of the side     a group's subsets alike; the other methods stay
    P11         turns of the order                  a group's subsets of one k alike; all methods alike
    P13         the published methods               a group's subsets alike
    B17         adaptive and plain_sum_scaled       a group's subsets alike
    R7, R8      the first column                    behaviours, all shifts alike
    B15, B16    the same, in ranks, after its line on the column that is held fixed
    B5, B14     what is foretold                    behaviours of a format
Whole groups and behaviours change places where these are resampled: what their parts have in common stays.
Not dealt, since the stages do not keep what these are concluded from:
    P14         cells of the tuning split: fronts.json has means over groups
    B12, B13    predictors of an input that are read from states and prompts: agreement, distance, length
"""
from typing import Callable, NamedTuple

import numpy as np

from lib import metrics
from lib.metrics import estimator
from lib.studies import predict, reliability, subsets, transfer, tuning
from report.declared import STAGES

# --- settings, as the stages have them: labels that are not dealt give the committed results -----------------
TRAITS, TUNED, SHIFTS = [3, 10, 1], [2, 1], [3, 11]                   # addresses of draws
COMPANY, SOLVED, INTERACTION, ORDERS, ADAPTIVE = [4, 1, 1], [4, 1, 2], [4, 1, 3], [4, 2], [4, 4]
PREDICTED = {"means": [5, 3, 20, 18], "ratios": [5, 3, 21, 18]}
ORDERED = ("different_layers", "orthogonalised")
PUBLISHED = (*ORDERED, "tuned_mean", "unit_norm_mid", "unit_norm_late")
METHODS = (*PUBLISHED, "plain_sum")
SIDES = {"best_published": PUBLISHED,
         "best_scaled": tuple(f"{name}_scaled" for name in (*ORDERED, "tuned_mean", "plain_sum"))}
STOPPING = ("adaptive", "plain_sum_scaled")
# ------------------------------------------------------------------------------------------------------------


class Permuted(NamedTuple):
    deal: Callable
    conclude: Callable


def read(stages):
    """What is dealt and concluded from, of a model's stages {name: Artifact}."""
    extract, tune, moved, compose, reliable = (stages[name] for name in STAGES)
    tuned, tasks, rows = tune.table("tuned"), moved.config["tasks"], moved.table("traits")
    tried = [c for c in tune.table("candidates") if c["key"].startswith("trait/") and "search" not in c]
    pairs, shifts = [tuple(pair) for pair in moved.config["pairs"]], moved.table("shifts")
    vectors, behaviours = {row["key"]: row for row in extract.table("concepts")}, reliable.table("behaviours")

    def column(key):                                                               # (behaviour, pair)
        return np.array([row[key] for row in shifts], float).reshape(-1, len(pairs))

    def predictors(record):
        key = f"behaviour/{record['name']}"
        of_vector = {name: vectors[key][name][tuned[key]["layer"]] for name in reliability.VECTOR_PREDICTORS}
        told = record | of_vector | {"baseline": record["unsteered"]["mean"]}
        return [told[name] for name in reliability.PREDICTORS]

    means = reliability.column(behaviours, "slope", "value")
    return {
        "tried": tried, "coherent": tune.config["coherent"],
        "tuned": {c["key"]: tuned[c["key"]] for c in tried},                       # in the order of the suite
        "tasks": tasks, "scope": np.array([row["scope"] == "global" for row in rows[::len(tasks)]]),
        "expression": {arm: np.array([row["expression"][arm] for row in rows]).reshape(-1, len(tasks))
                       for arm in transfer.ARMS},                                  # (trait, task)
        "halves": np.array([row["halves"] for row in rows[::len(tasks)]], float),
        "works": np.isin([row["trait"] for row in rows[::len(tasks)]], tuning.steering(tuned)),
        "cells": [cell for cell in compose.table("cells") if cell["own"]], "best": compose.results["best"],
        "distance": column("distance"), "cosine": column("cosine"),
        "relative": transfer.relative_steerability(column("ood"), column("own"), moved.config["min_steerability"]),
        "plotted": [p for p, row in enumerate(shifts[:len(pairs)]) if row["plotted"]],
        "others": [p for p, (a, b) in enumerate(pairs) if a != b],
        "formats": np.array([record["format"] for record in behaviours]),
        "predictors": np.array([predictors(record) for record in behaviours]), "means": means,
        "ratios": reliability.column(behaviours, "sd") / np.abs(means)}


def inside(rng, units):
    """(n,) which of n things comes to each place when they are dealt anew inside each of the units (n,)."""
    units, order = np.asarray(units), np.arange(len(units))
    for unit in np.unique(units):
        order[units == unit] = rng.permutation(order[units == unit])
    return order


# --- traits -------------------------------------------------------------------------------------------------
def deal_scope(model, rng):
    return model | {"scope": rng.permutation(model["scope"])}


def by_scope(model):
    return transfer.decisive(*(model[key] for key in ("expression", "halves", "scope", "works", "tasks")),
                             estimator("traits", TRAITS))["global_minus_local"]


def deal_strengths(model, rng):
    """Expression against coherence: both belong to a strength, and only one of them is dealt."""
    tried, tuned = model["tried"], model["tuned"]
    there = [i for i, c in enumerate(tried) if c["coefficient"] and c["layer"] == tuned[c["key"]]["layer"]
             and c["strength"] <= tuning.TRADE]
    shown = {i: tried[there[k]]["expression"] for i, k in zip(there, inside(rng, [tried[i]["key"] for i in there]))}
    return model | {"tried": [c | {"expression": shown.get(i, c["expression"])} for i, c in enumerate(tried)]}


def along_strength(model):
    chosen, narrow = ({key: t | {"expression": t["score"]} for key, t in found.items()} for found in (
        model["tuned"], {key: t["narrow"] for key, t in model["tuned"].items()}))
    return tuning.settle_traits(model["tried"], chosen, narrow, TUNED, model["coherent"])[1]["tradeoff"]


# --- several traits at once ---------------------------------------------------------------------------------
def deal_numbers(model, rng):
    """The subsets that hold a trait, of one to all of its group, exchange what it shows in them."""
    cells, held = [cell for cell in model["cells"] if cell["method"] in PUBLISHED], {}
    for cell in cells:
        for trait in cell["expressions"]:
            held.setdefault(trait, {})[cell["subset"]] = None
    source = {trait: dict(zip(names, rng.permutation(list(names)))) for trait, names in held.items()}
    at = {(cell["subset"], cell["method"]): cell["expressions"] for cell in cells}
    return model | {"cells": [cell | {"expressions": {
        trait: at[source[trait][cell["subset"]], cell["method"]][trait] for trait in cell["expressions"]}}
        for cell in cells]}


def relabelled(model, what, methods, rng):
    """Scores `what` of the methods change places where two traits or more act at once, in all subsets of a group alike:
    a method may suit a group."""
    at = {(cell["subset"], cell["method"]): cell[what] for cell in model["cells"]}
    source = {group: dict(zip(methods, rng.permutation(methods)))
              for group in sorted({cell["group"] for cell in model["cells"]})}
    return model | {"cells": [cell | {what: at[cell["subset"], source[cell["group"]][cell["method"]]]}
                              if cell["k"] > 1 and cell["method"] in methods else cell for cell in model["cells"]]}


def deal_suiting(model, rng):
    cells = [cell for cell in model["cells"] if cell["method"] in METHODS and cell["k"] > 1]
    mean = {method: np.mean([cell["usable"] for cell in cells if cell["method"] == method]) for method in METHODS}
    left = {"cells": [cell | {"usable": cell["usable"] - mean[cell["method"]]} for cell in cells]}
    return model | {"cells": [cell | {"usable": cell["usable"] + mean[cell["method"]]}
                              for cell in relabelled(left, "usable", METHODS, rng)["cells"]]}


def deal_turns(model, rng):
    """Turn t of a method is its cell "method@t", turn 0 the method itself."""
    at = {(cell["subset"], cell["method"]): cell["expressions"] for cell in model["cells"]}
    turns = {key: rng.permutation(key[1]) for key in sorted({(cell["group"], cell["k"]) for cell in model["cells"]})}

    def source(cell):
        name, _, turn = cell["method"].partition("@")
        other = turns[cell["group"], cell["k"]][int(turn or 0)]
        return f"{name}@{other}" if other else name

    return model | {"cells": [cell | {"expressions": at[cell["subset"], source(cell)]} for cell in model["cells"]
                              if cell["method"].partition("@")[0] in ORDERED]}


def company(model):
    return subsets.company(model["cells"], PUBLISHED, tuning.steering(model["tuned"]), COMPANY)


def solved(side):
    """Against the best of the other side alone: dealt among them all, `solved` would lose to the best of the rest."""
    return Permuted(lambda model, rng: relabelled(model, "usable", ("solved", model["best"][side]), rng),
                    lambda model: subsets.solved_minus(model["cells"], SIDES, SOLVED)[0][side])


# --- behaviours ---------------------------------------------------------------------------------------------
def in_shifts(tag, first, second, third=None, at="plotted"):
    """Rank correlation of two columns (behaviour, pair) inside the pairs `at`; at equal ranks of a third."""
    def deal(model, rng):
        order = rng.permutation(len(model[first]))
        if third is None:
            return model | {first: model[first][order]}
        x, z = (metrics.ranks(model[name].T) - (len(order) + 1) / 2 for name in (first, third))
        line = (x * z).sum(axis=1, keepdims=True) / np.maximum((z * z).sum(axis=1, keepdims=True), 1) * z
        return model | {first: (line + (x - line)[:, order]).T}

    return Permuted(deal, lambda model: transfer.inside_pairs(
        [model[name] for name in (first, second, third) if name], model[at], [*SHIFTS, tag]))


def foretold(key):
    return Permuted(
        lambda model, rng: model | {key: model[key][inside(rng, model["formats"])]},
        lambda model: predict.foretold_within(model["predictors"], model[key], model["formats"], PREDICTED[key]))


PERMUTED = {
    "P2": Permuted(deal_scope, by_scope),
    "P5": Permuted(deal_numbers, lambda model: company(model)["per_vector"]["expression"]),
    "P6": Permuted(deal_strengths, along_strength),
    "P7": Permuted(deal_suiting, lambda model: subsets.method_interaction(model["cells"], METHODS, True, INTERACTION)),
    "P9": solved("best_published"),
    "P10": solved("best_scaled"),
    "P11": Permuted(deal_turns,
                    lambda model: subsets.orders(model["cells"], ORDERED, (), ORDERS)[1]["first_minus_last"]),
    "P13": Permuted(lambda model, rng: relabelled(model, "coherence", PUBLISHED, rng),
                    lambda model: company(model)["unit_norm_spares"]),
    "B17": Permuted(lambda model, rng: relabelled(model, "usable", STOPPING, rng),
                    lambda model: subsets.against(model["cells"], *STOPPING, ADAPTIVE)["usable"]),
    "R7": in_shifts(160, "distance", "relative"),
    "R8": in_shifts(165, "cosine", "distance", at="others"),
    "B15": in_shifts(162, "distance", "relative", "cosine"),
    "B16": in_shifts(164, "cosine", "relative", "distance"),
    "B5": foretold("means"),
    "B14": foretold("ratios"),
}
