"""Subsets of traits that act at once: which there are, in which orders, and what stage 04 concludes.

A *cell* here is one subset under one method on one task: the means over its prompts. Pure functions.
"""
from itertools import combinations, count, product

import numpy as np

from lib import metrics
from lib.studies import tuning
from lib.judging.cases import number
from lib.metrics import Missing, estimator

TIE = 1e-9                # scores closer than this are a tie; both methods win


def grouped(records, *keys):
    """{values of the keys: the records that have them}, in order of first appearance."""
    found = {}
    for record in records:
        found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return found


def subsets(traits, available, largest):
    """(subsets, number left out): all subsets of 1 to `largest` traits of a group, in alphabetical order.

    traits     the suite's records; those without a group compose with nothing
    available  names that have a tuned vector; subsets that need another one are left out and counted
    returns    [{"name", "group", "task", "k", "traits"}] in order of k, then of the groups in the suite"""
    groups = grouped([trait for trait in traits if trait["group"]], "group", "task")
    found = [{"name": "+".join(names), "group": group, "task": task, "k": k, "traits": list(names)}
             for k in range(1, largest + 1) for (group, task), members in groups.items()
             for names in combinations(sorted(trait["name"] for trait in members), k)]
    kept = [subset for subset in found if set(subset["traits"]) <= set(available)]
    return kept, len(found) - len(kept)


def turned(names, turn):
    """The names from number `turn` on, the ones before it behind: over all turns each is in every place once."""
    return [*names[turn:], *names[:turn]]


def cells(cases, coherent):
    """One record per subset, task and method: means over the prompts that have scores for every trait.

    `usable` counts the expression of a text as 0 where its coherence is below `coherent`."""
    records = []
    for (subset, task, method), mine in grouped(cases, "subset", "task", "method").items():
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
    means, rows = [], []
    for (k, label), cells in grouped(records, "k", "method").items():
        method, setting = label.split()
        means.append({"k": k, "method": method, "setting": float(setting), "n": len(cells), "limit": limit, **{
            what: float(np.mean([cell[what] for cell in cells])) for what in ("expression", "coherence", "usable")}})
    for mine in grouped(means, "k", "method").values():
        best, coherent = tuning.best([row | {"strength": row["setting"]} for row in mine],
                                     "expression", "coherence", limit)
        rows += [row | {"chosen": row["setting"] == best["setting"], "coherent": coherent}
                 for row in sorted(mine, key=lambda row: row["setting"])]
    return rows


def slope(values):
    """Least-squares slope of column 1 on column 0; nan where column 0 is constant."""
    x = values[:, 0] - values[:, 0].mean()
    return x @ values[:, 1] / (x @ x) if x.any() else np.nan


def cell_means(values):
    """(cell, method) means of values (subset, 1 + method): the number of a cell, then the scores of the methods."""
    return np.array([values[values[:, 0] == cell, 1:].mean(axis=0) for cell in np.unique(values[:, 0])])


def best_share(values):
    """Share of the cells of `cell_means` that the method with the highest mean over cells wins."""
    means = cell_means(values)
    return (means[:, means.mean(axis=0).argmax()] >= means.max(axis=1) - TIE).mean()


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
    shown, ks, tags = (*methods, *references), sorted({r["k"] for r in records}), count()
    over_subsets, over_groups = estimator("subsets", address), estimator("groups", address)

    def over(values, stat=np.mean):
        return over_subsets(next(tags), values, stat)

    def pick(method, own=True, k=None):
        return [r for r in records if r["method"] == method and r["own"] == own and k in (None, r["k"])]

    def slopes(names, own=True, what="expression", by_group=False):
        found = {}
        for method in names:
            mine = pick(method, own)
            points = [[r["k"], r[what]] for r in mine]
            if len({k for k, _ in points}) > 1:
                found[method] = over_groups(next(tags), points, slope, [r["group"] for r in mine]) if by_group else \
                    over(points, slope)
        return found or Missing("no subset of more than one trait, or no second task")

    results = {"slope": slopes(methods), "slope_reference": slopes(references),
               "slope_over_groups": slopes(shown, by_group=True), "slope_other_task": slopes(shown, own=False),
               "slope_coherence": slopes(shown, what="coherence")}

    # expression of a trait in company minus the same trait alone, same method, same prompts
    drop = {}
    for method, k in product(shown, [k for k in ks if k > 1]):
        lost = [np.mean([value - at[name, True, method]["expressions"][name]
                         for name, value in r["expressions"].items()]) for r in pick(method, k=k)
                if all((name, True, method) in at for name in r["expressions"])]
        if lost:
            drop.setdefault(method, {})[str(k)] = over(lost)
    results["drop"] = drop or Missing("no subset of two traits")

    # the joint solution against others, on the same subsets of two traits and more
    minus, best = {}, {}
    for key, others in {**sides, **{m: (m,) for m in shown if m != "solved"}}.items():
        scores = [[at[r["subset"], True, m]["usable"] for m in ("solved", *others)] for r in pick("solved")
                  if r["k"] > 1 and all((r["subset"], True, m) in at for m in others)]
        if scores:
            minus[key] = over(scores, ahead)
            if len(others) > 1:
                best[key] = others[int(np.mean(scores, axis=0)[1:].argmax())]
    results |= {"solved_minus": minus or Missing("no subset of two traits"), **({"best": best} if best else {})}

    # who wins: cells of k and task
    winners = []
    for own, suffix in ((True, ""), (False, "_other_task")):
        mine = [r for r in pick(methods[0], own) if all((r["subset"], own, m) in at for m in methods)]
        places, leader = sorted({(r["k"], r["task"]) for r in mine}), {}
        results[f"best_method{suffix}"] = leader
        if len(places) < 2:
            results[f"best_method_share{suffix}"] = Missing("fewer than two combinations of k and task")
            continue
        for score, ending in (("usable", ""), ("expression", "_expression")):
            table = np.array([[places.index((r["k"], r["task"])), *(at[r["subset"], own, m][score] for m in methods)]
                              for r in mine])
            results[f"best_method_share{suffix}{ending}"] = over(table, best_share) | {"cells": len(places)}
            leader[score] = methods[int(cell_means(table).mean(axis=0).argmax())]
            for (k, task), means in zip(places, cell_means(table)):
                here = [r["subset"] for r in mine if (r["k"], r["task"]) == (k, task)]
                beside = {m: np.mean([at[name, own, m][score] for name in here]) for m in references
                          if all((name, own, m) in at for name in here)}
                winners.append({"k": k, "task": task, "own": own, "score": score, "n": len(here),
                                "means": dict(zip(methods, means)), "references": beside,
                                "winners": [m for m, x in zip(methods, means) if x >= means.max() - TIE]})
    curves = [{"method": method, "task": "own", "k": k, **{
        what: over([r[what] for r in mine]) for what in ("expression", "coherence", "usable")}}
              for method in shown for k in ks if (mine := pick(method, k=k))]
    return curves, winners, *metrics.missing_apart(results)


def traits_apart(records, methods):
    """What each trait loses in company: [{"trait", "group", "method", "k", "n", "alone", "together", "drop"}], means
    over the n subsets of k traits that hold it, own task; drop = together minus alone, same method and prompts."""
    found = {}
    for r in records:
        if r["own"] and r["method"] in methods:
            for name, value in r["expressions"].items():
                found.setdefault((name, r["group"], r["method"], r["k"]), []).append(value)
    mean = {key: float(np.mean(values)) for key, values in found.items()}
    return [{"trait": name, "group": group, "method": method, "k": k, "n": len(found[name, group, method, k]),
             "alone": alone, "together": together, "drop": together - alone}
            for (name, group, method, k), together in mean.items()
            if k > 1 and (alone := mean.get((name, group, method, 1))) is not None]


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
    rows, results, tags, over = [], {}, count(), estimator("subsets", address)
    for r in [at[key] for method in ordered for key in at if key[1] == method and at[key]["k"] > 1]:
        turns = [at.get((r["subset"], f"{r['method']}@{t}" if t else r["method"])) for t in range(r["k"])]
        if all(turns):
            e = np.array([list(turn["expressions"].values()) for turn in turns])          # (turn, trait)
            trait = np.arange(r["k"])
            first, last = e[trait, trait], e[(trait + 1) % r["k"], trait]
            rows.append({"subset": r["subset"], "k": r["k"], "method": r["method"], "expression": e.mean(),
                         "first": first.mean(), "last": last.mean(), "first_minus_last": (first - last).mean(),
                         "sd": e.std(axis=0, ddof=1).mean(), "sd_mean": e.mean(axis=1).std(ddof=1)})
    for what, method in product(("first_minus_last", "sd", "sd_mean"), ordered):
        mine = [row for row in rows if row["method"] == method]
        if mine:
            results.setdefault(what, {})[method] = over(next(tags), [row[what] for row in mine])
            results.setdefault(f"{what}_by_k", {})[method] = {
                str(k): over(next(tags), [row[what] for row in mine if row["k"] == k])
                for k in sorted({row["k"] for row in mine})}
    for method in shown:
        gaps = {r["subset"]: float(np.subtract(*r["expressions"].values()))
                for (_, made), r in at.items() if made == method and r["k"] == 2}
        place = {row["subset"]: row["first_minus_last"] for row in rows if row["method"] == method}
        if gaps:
            found = {"difference": over(next(tags), list(gaps.values()))}
            if set(gaps) <= set(place):
                found |= {"place": over(next(tags), [place[name] for name in gaps]),
                          "traits": over(next(tags), [gap - place[name] for name, gap in gaps.items()])}
            results.setdefault("alphabetical", {})[method] = found
    return rows, results, {} if results else {"order": "no subset of two traits"}
