"""Subsets of traits that act at once: which there are, one more composition, and what stage 04 concludes.

A *cell* here is one subset under one method on one task: the means over its prompts. Pure functions.
"""
from itertools import combinations

import numpy as np

from lib import metrics
from lib.cases import number

TIE = 1e-9                # scores closer than this are a tie; both methods win


def subsets(traits, available, largest):
    """(subsets, number left out): all subsets of 1 to `largest` traits of a group, in alphabetical order.

    traits     the suite's records; those without a group compose with nothing
    available  names that have a tuned vector; subsets that need another one are left out and counted
    returns    [{"name", "group", "task", "k", "traits"}] in order of k, then of the groups in the suite"""
    groups = {}
    for trait in traits:
        if trait["group"]:
            groups.setdefault((trait["group"], trait["task"]), []).append(trait["name"])
    found = [{"name": "+".join(names), "group": group, "task": task, "k": k, "traits": list(names)}
             for k in range(1, largest + 1) for (group, task), members in groups.items()
             for names in combinations(sorted(members), k)]
    kept = [subset for subset in found if set(subset["traits"]) <= set(available)]
    return kept, len(found) - len(kept)


def solved(layer, lengths):
    """The method that solves for all coefficients at once: the shortest w, at one layer, with
    w . v_i / ||v_i|| = lengths[i] for every trait i, so each goes along its own direction as far as alone.

    lengths (k,) residual-stream units. Takes and returns what the methods of lib.compose do; vectors that are
    copies of each other but want different lengths get the least-squares answer."""
    def method(vectors, layers, coefs):
        v = np.asarray(vectors, np.float64)[:, layer]
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        return ((layer, (np.linalg.pinv(v) @ np.asarray(lengths, np.float64)).astype(np.float32)),)
    return method


def cells(cases, coherent):
    """One record per subset, task and method: means over the prompts that have scores for every trait.

    `usable` counts the expression of a text as 0 where its coherence is below `coherent`."""
    grouped = {}
    for case in cases:
        grouped.setdefault((case["subset"], case["task"], case["method"]), []).append(case)
    records = []
    for (subset, task, method), mine in grouped.items():
        names = list(mine[0]["expression"])
        scores = np.array([[number(case["expression"][name]) for name in names] for case in mine])
        coherence = np.array([number(case["coherence"]) for case in mine])
        scored = np.isfinite(scores).all(axis=1) & np.isfinite(coherence)
        if not scored.any():
            continue
        scores, coherence = scores[scored], coherence[scored]
        records.append({
            "subset": subset, "group": mine[0]["group"], "k": len(names), "task": task, "own": mine[0]["own"],
            "method": method, "n": int(scored.sum()), "unscored": int((~scored).sum()),
            "expressions": dict(zip(names, scores.mean(axis=0))), "expression": scores.mean(),
            "coherence": coherence.mean(), "usable": (scores.mean(axis=1) * (coherence >= coherent)).mean()})
    return records


def slope(values):
    """Least-squares slope of column 1 on column 0; nan where column 0 is constant."""
    x = values[:, 0] - values[:, 0].mean()
    return x @ values[:, 1] / (x @ x) if x.any() else np.nan


def best_share(values):
    """Share of cells that the method with the highest mean over cells wins. Column 0 names the cell, the
    other columns are the methods' scores, one row per subset."""
    means = np.array([values[values[:, 0] == cell, 1:].mean(axis=0) for cell in np.unique(values[:, 0])])
    best = means.mean(axis=0).argmax()
    return (means[:, best] >= means.max(axis=1) - TIE).mean()


def conclude(records, methods, references, address):
    """(curves, winners, results, missing) from the records of `cells`.

    methods     the compositions that compete; references stand beside them (prompting, unsteered ...)
    Expression is counted on the group's own task, as published; `other_task` is the same on the other one.
    Subsets are resampled; those of a group share traits, so `slope_over_groups` resamples whole groups."""
    at = {(r["subset"], r["own"], r["method"]): r for r in records}
    shown, counter, missing = (*methods, *references), iter(range(10 ** 6)), {}

    def over(values, stat=np.mean, unit="subsets", clusters=None):
        return metrics.bootstrap(np.asarray(values, np.float64), stat, unit=unit, clusters=clusters,
                                 seed_address=[*address, next(counter)])

    def slopes(names, own=True, what="expression", by_group=False):
        found = {}
        for method in names:
            mine = [r for r in records if r["method"] == method and r["own"] == own]
            if len({r["k"] for r in mine}) > 1:
                points = [[r["k"], r[what]] for r in mine]
                found[method] = over(points, slope, "groups", [r["group"] for r in mine]) if by_group else \
                    over(points, slope)
        return found

    results = {"slope": slopes(methods), "slope_reference": slopes(references),
               "slope_over_groups": slopes(shown, by_group=True),
               "slope_other_task": slopes(shown, own=False),
               "slope_coherence": slopes(shown, what="coherence")}
    for key in [key for key, found in results.items() if not found]:
        missing[key] = "no subset of more than one trait, or no second task"
        del results[key]

    # expression of a trait in company minus the same trait alone, same method, same prompts
    drop = {}
    for method in shown:
        for k in sorted({r["k"] for r in records} - {1}):
            mine = [r for r in records if r["method"] == method and r["own"] and r["k"] == k]
            lost = [np.mean([value - at[name, True, method]["expressions"][name]
                             for name, value in r["expressions"].items()]) for r in mine
                    if all((name, True, method) in at for name in r["expressions"])]
            if lost:
                drop.setdefault(method, {})[str(k)] = over(lost)
    # the alphabetical order of the published table, and what exchanging the two traits does to each of them
    order, exchanged = {}, {}
    for method in shown:
        pairs = [list(r["expressions"].values()) for r in records
                 if r["method"] == method and r["own"] and r["k"] == 2]
        if pairs:
            order[method] = over([first - second for first, second in pairs])
    for method in ("different_layers", "orthogonalised"):
        gains = []
        for r in records:
            if r["method"] == f"{method}_reversed":
                (a, b), forward = r["expressions"], at[r["subset"], True, method]["expressions"]
                gains.append(np.mean([forward[a] - r["expressions"][a], r["expressions"][b] - forward[b]]))
        if gains:
            exchanged[method] = over(gains)
    for key, found in (("drop", drop), ("first_minus_second", order),
                       ("first_minus_second_exchanged", exchanged)):
        if found:
            results[key] = found
        else:
            missing[key] = "no subset of two traits"

    # who wins: cells of k and task
    results["best_method"], results["best_method_other_task"] = {}, {}
    curves, winners = [], []
    for own, share, named in ((True, "best_method_share", "best_method"),
                              (False, "best_method_share_other_task", "best_method_other_task")):
        for score in ("usable", "expression"):
            rows = [(r, [at[r["subset"], own, m][score] for m in methods]) for r in records
                    if r["method"] == methods[0] and r["own"] == own
                    and all((r["subset"], own, m) in at for m in methods)]
            places = sorted({(r["k"], r["task"]) for r, _ in rows})
            if len(places) < 2:
                missing[share] = "fewer than two combinations of k and task"
                continue
            table = np.array([[places.index((r["k"], r["task"])), *scores] for r, scores in rows])
            means = np.array([table[table[:, 0] == c, 1:].mean(axis=0) for c in range(len(places))])
            key = share if score == "usable" else share + "_expression"
            results[key] = over(table, best_share) | {"cells": len(places)}
            results[named][score] = methods[int(means.mean(axis=0).argmax())]
            winners += [{"k": k, "task": task, "own": own, "score": score, "n": int((table[:, 0] == c).sum()),
                         "means": dict(zip(methods, means[c])),
                         "winners": [m for m, x in zip(methods, means[c]) if x >= means[c].max() - TIE]}
                        for c, (k, task) in enumerate(places)]
    for method in shown:
        for k in sorted({r["k"] for r in records}):
            mine = [r for r in records if r["method"] == method and r["own"] and r["k"] == k]
            if mine:
                curves.append({"method": method, "task": "own", "k": k, **{
                    what: over([r[what] for r in mine]) for what in ("expression", "coherence", "usable")}})
    return curves, winners, results, missing
