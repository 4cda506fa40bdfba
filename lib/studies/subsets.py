"""Subsets of traits that act at once: which there are, in which orders, and what stage 04 concludes.

A *cell* here is one subset under one method on one task: the means over its prompts. Pure functions.
"""
from itertools import combinations

import numpy as np

from lib import metrics
from lib.studies import tuning
from lib.judging.cases import number

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


def turned(names, turn):
    """The names from number `turn` on, the ones before it behind: over all turns each is in every place once."""
    return [*names[turn:], *names[:turn]]


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


def fronts(records, limit):
    """Means per k, method and setting over the cells of a tune run, whose `method` reads "name setting".

    returns  [{"k", "method", "setting", "n", "expression", "coherence", "usable", "limit", "chosen", "coherent"}]; of
             a method and k the one chosen is the best by the rule of stage 02: most expression with a coherence
             of `limit`, ties to the smaller setting."""
    found = {}
    for record in records:
        method, setting = record["method"].split()
        found.setdefault((record["k"], method), {}).setdefault(float(setting), []).append(record)
    rows = []
    for (k, method), settings in found.items():
        mine = [{"k": k, "method": method, "setting": setting, "n": len(cells), "limit": limit, **{
            what: float(np.mean([cell[what] for cell in cells])) for what in ("expression", "coherence", "usable")}}
                for setting, cells in sorted(settings.items())]
        best, coherent = tuning.best([row | {"relative_strength": row["setting"]} for row in mine],
                                     "expression", "coherence", limit)
        rows += [row | {"chosen": row["setting"] == best["setting"], "coherent": coherent} for row in mine]
    return rows


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


def ahead(values):
    """Mean of column 0 minus the highest mean of the other columns."""
    first, *others = values.mean(axis=0)
    return first - max(others)


def conclude(records, methods, references, sides, address):
    """(curves, winners, results, missing) from the records of `cells`.

    methods     the compositions that compete; references stand beside them (solved, prompting, unsteered ...)
    sides       {name: methods}; `solved` is held against the best of each
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
    if drop:
        results["drop"] = drop
    else:
        missing["drop"] = "no subset of two traits"

    # the joint solution against others, on the same subsets of two traits and more
    mine = [r["subset"] for r in records if r["method"] == "solved" and r["own"] and r["k"] > 1]
    against = {**sides, **{m: (m,) for m in shown if m != "solved"}}
    for key, others in against.items():
        scores = [[at[name, True, m]["usable"] for m in ("solved", *others)] for name in mine
                  if all((name, True, m) in at for m in others)]
        if scores:
            results.setdefault("solved_minus", {})[key] = over(scores, ahead)
            if len(others) > 1:
                results.setdefault("best", {})[key] = others[int(np.mean(scores, axis=0)[1:].argmax())]
    if not mine:
        missing["solved_minus"] = "no subset of two traits"

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
            for c, (k, task) in enumerate(places):
                mine = [r["subset"] for r, _ in rows if (r["k"], r["task"]) == (k, task)]
                beside = {m: np.mean([at[name, own, m][score] for name in mine]) for m in references
                          if all((name, own, m) in at for name in mine)}
                winners.append({"k": k, "task": task, "own": own, "score": score, "n": len(mine),
                                "means": dict(zip(methods, means[c])), "references": beside,
                                "winners": [m for m, x in zip(methods, means[c]) if x >= means[c].max() - TIE]})
    for method in shown:
        for k in sorted({r["k"] for r in records}):
            mine = [r for r in records if r["method"] == method and r["own"] and r["k"] == k]
            if mine:
                curves.append({"method": method, "task": "own", "k": k, **{
                    what: over([r[what] for r in mine]) for what in ("expression", "coherence", "usable")}})
    return curves, winners, results, missing


def traits_apart(records, methods):
    """What each trait loses in company: [{"trait", "group", "method", "k", "n", "alone", "together", "drop"}], means
    over the n subsets of k traits that hold it, own task; drop = together minus alone, same method and prompts."""
    found, alone = {}, {}
    for r in records:
        if r["own"] and r["method"] in methods:
            for name, value in r["expressions"].items():
                if r["k"] == 1:
                    alone[name, r["method"]] = float(value)
                found.setdefault((name, r["group"], r["method"], r["k"]), []).append(value)
    return [{"trait": name, "group": group, "method": method, "k": k, "n": len(values),
             "alone": alone[name, method], "together": float(np.mean(values)),
             "drop": float(np.mean(values)) - alone[name, method]}
            for (name, group, method, k), values in found.items() if k > 1 and (name, method) in alone]


def orders(records, ordered, shown, address):
    """(rows, results, {missing key: reason}): what the place of a trait does, own task.

    ordered  methods whose rows depend on the order; turn t of one is the method "name@t" (see `turned`), the
             alphabetical order is the method itself
    shown    methods whose alphabetical difference is given
    Each trait of a subset is in every place once, so first minus last, the mean over its traits of expression in
    the first place minus expression in the last, is free of differences between traits. At k = 2 the alphabetical
    difference, Trait 1 minus Trait 2 of the published table, is the sum of it (`place`) and of what the two traits
    differ by (`traits`). `sd`: SD over orders of one trait's expression; `sd_mean`: of the subset's mean."""
    at = {(r["subset"], r["method"]): r for r in records if r["own"]}
    rows, results, counter = [], {}, iter(range(10 ** 6))

    def over(values):
        return metrics.bootstrap(values, unit="subsets", seed_address=[*address, next(counter)])

    for method in ordered:
        for r in [r for r in records if r["own"] and r["method"] == method and r["k"] > 1]:
            turns = [at.get((r["subset"], f"{method}@{t}" if t else method)) for t in range(r["k"])]
            if all(turns):
                e = np.array([list(turn["expressions"].values()) for turn in turns])      # (turn, trait)
                k, trait = r["k"], np.arange(r["k"])
                rows.append({"subset": r["subset"], "k": k, "method": method, "expression": e.mean(),
                             "first": e[trait, trait].mean(), "last": e[(trait + 1) % k, trait].mean(),
                             "first_minus_last": (e[trait, trait] - e[(trait + 1) % k, trait]).mean(),
                             "sd": e.std(axis=0, ddof=1).mean(), "sd_mean": e.mean(axis=1).std(ddof=1)})
    for what in ("first_minus_last", "sd", "sd_mean"):
        for method in ordered:
            mine = [row for row in rows if row["method"] == method]
            if mine:
                results.setdefault(what, {})[method] = over([row[what] for row in mine])
                for k in sorted({row["k"] for row in mine}):
                    results.setdefault(f"{what}_by_k", {}).setdefault(method, {})[str(k)] = over(
                        [row[what] for row in mine if row["k"] == k])
    for method in shown:
        gaps = {r["subset"]: float(np.subtract(*r["expressions"].values()))
                for r in records if r["own"] and r["method"] == method and r["k"] == 2}
        place = {row["subset"]: row["first_minus_last"] for row in rows if row["method"] == method}
        if gaps:
            found = results.setdefault("alphabetical", {})[method] = {"difference": over(list(gaps.values()))}
            if all(name in place for name in gaps):
                found |= {"place": over([place[name] for name in gaps]),
                          "traits": over([gap - place[name] for name, gap in gaps.items()])}
    return rows, results, {} if results else {"order": "no subset of two traits"}
