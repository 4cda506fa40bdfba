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
N_PERMUTED = 20           # tables of dealt methods that an interaction is held against


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


def slopes(records, methods, own=True, what="expression"):
    """{method: (slope per group,)}: least squares of a score on k over the subsets of each group, own task or other;
    groups of one k and methods of one group have none. Within a group all k are made of the same traits."""
    found = {}
    for (method, _), mine in grouped([r for r in records if r["method"] in methods and r["own"] == own],
                                     "method", "group").items():
        k, score = (np.array([r[key] for r in mine], np.float64) for key in ("k", what))
        if np.ptp(k):
            found.setdefault(method, []).append((k - k.mean()) @ score / ((k - k.mean()) @ (k - k.mean())))
    return found


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


def interaction(means):
    """Root mean square of what is left of means (..., cell, method) after those of cells and methods: how far methods
    suit cells, in points; cells that are nan are left out."""
    left = means - means.mean(axis=-1, keepdims=True)
    left = left - np.nanmean(left, axis=-2, keepdims=True)
    return np.sqrt(np.nanmean(left * left, axis=(-1, -2)))


def excess_interaction(scores, cells, groups, address):
    """Estimate of `interaction` beyond luck: minus its mean over N_PERMUTED tables in which every group of traits
    deals what is left of its scores, after the methods' means, to the methods anew.

    scores (subset, method); cells, groups (subset,) labels. In a dealt table a method that is better everywhere keeps
    its lead, but no method suits a cell. Groups are resampled, in all tables alike."""
    rng, main = np.random.default_rng([*address, 0]), scores.mean(axis=0)
    (names, group), (places, cell) = (np.unique(labels, return_inverse=True) for labels in (groups, cells))
    sums = np.zeros((1 + N_PERMUTED, len(names), len(places), len(main)))
    counts = np.zeros((len(names), len(places)))
    np.add.at(counts, (group, cell), 1)
    for table in range(len(sums)):
        dealt = np.array([rng.permutation(len(main)) if table else np.arange(len(main)) for _ in names])
        np.add.at(sums[table], (group, cell), np.take_along_axis(scores - main, dealt[group], axis=1))
    drawn = np.concatenate([np.ones((1, len(names))), metrics.redraws(len(names), [*address, 1])])
    with np.errstate(invalid="ignore"):                    # a cell of which no group was drawn
        means = np.einsum("bg,tgcm->btcm", drawn, sums, optimize=True) / (drawn @ counts)[:, None, :, None]
    found = interaction(means + main)
    excess = found[:, 0] - found[:, 1:].mean(axis=1)
    low, high = metrics.interval(excess[1:]).tolist()
    return {"value": float(excess[0]), "low": low, "high": high, "n": len(names), "unit": "groups",
            "method": f"percentile cluster bootstrap, {len(drawn) - 1} resamples, {N_PERMUTED} dealt tables"}


def conclude(records, methods, references, sides, steering, address):
    """(curves, winners, results, missing) from the records of `cells`.

    methods     the compositions that compete; references stand beside them (solved, prompting, unsteered ...)
    sides       {name: methods}; `solved` is held against the best of each; "best_published" are those of the paper
    steering    names of the traits that steer alone: what shows nothing alone can lose nothing
    Expression is counted on the group's own task, as published; `other_task` is the same on the other one. Subsets
    of a group share traits, so whole groups are resampled."""
    at = {(r["subset"], r["own"], r["method"]): r for r in records}
    shown, ks, tags = (*methods, *references), sorted({r["k"] for r in records}), count()
    over_groups, published = estimator("groups", address), sides.get("best_published", methods)

    def over(mine, values, stat=np.mean):
        return over_groups(next(tags), values, stat, [r["group"] for r in mine])

    def pick(method, own=True, k=None):
        return [r for r in records if r["method"] == method and r["own"] == own and k in (None, r["k"])]

    results = {key: {method: over_groups(next(tags), each) for method, each in slopes(
        records, shown, own, what).items()} or Missing("no subset of more than one trait, or no second task")
        for key, own, what in (("slope", True, "expression"), ("slope_other_task", False, "expression"),
                               ("slope_coherence", True, "coherence"))}

    # expression of a trait in company minus the same trait alone, same method, same prompts
    drop = {}
    for method, k in product(shown, [k for k in ks if k > 1]):
        mine = [r for r in pick(method, k=k) if all((name, True, method) in at for name in r["expressions"])]
        if mine:
            drop.setdefault(method, {})[str(k)] = over(mine, [np.mean(
                [value - at[name, True, method]["expressions"][name] for name, value in r["expressions"].items()])
                for r in mine])
    results["drop"] = drop or Missing("no subset of two traits")
    results |= company(records, published, steering, [*address, 1])
    minus, best = solved_minus(records, {**sides, **{m: (m,) for m in shown if m != "solved"}}, [*address, 2])
    results |= {"solved_minus": minus or Missing("no subset of two traits"), **({"best": best} if best else {})}

    # who wins: cells of k and task; and whether methods suit cells, where anything is composed
    winners = []
    for own, suffix in ((True, ""), (False, "_other_task")):
        mine = [r for r in pick(methods[0], own) if all((r["subset"], own, m) in at for m in methods)]
        places, leader = sorted({(r["k"], r["task"]) for r in mine}), {}
        results[f"best_method{suffix}"] = leader
        results[f"method_interaction{suffix}"] = method_interaction(records, methods, own, [*address, 3])
        if len(places) < 2:
            results[f"best_method_share{suffix}"] = Missing("fewer than two combinations of k and task")
            continue
        for score, ending in (("usable", ""), ("expression", "_expression")):
            table = np.array([[places.index((r["k"], r["task"])), *(at[r["subset"], own, m][score] for m in methods)]
                              for r in mine])
            results[f"best_method_share{suffix}{ending}"] = over(mine, table, best_share) | {"cells": len(places)}
            leader[score] = methods[int(cell_means(table).mean(axis=0).argmax())]
            for (k, task), means in zip(places, cell_means(table)):
                here = [r["subset"] for r in mine if (r["k"], r["task"]) == (k, task)]
                beside = {m: np.mean([at[name, own, m][score] for name in here]) for m in references
                          if all((name, own, m) in at for name in here)}
                winners.append({"k": k, "task": task, "own": own, "score": score, "n": len(here),
                                "means": dict(zip(methods, means)), "references": beside,
                                "winners": [m for m, x in zip(methods, means) if x >= means.max() - TIE]})
    curves = [{"method": method, "task": "own", "k": k, "subsets": len(mine), **{
        what: over(mine, [r[what] for r in mine]) for what in ("expression", "coherence", "usable")}}
              for method in shown for k in ks if (mine := pick(method, k=k))]
    return curves, winners, *metrics.missing_apart(results)


def company(records, published, steering, address):
    """{"per_vector": {"expression", "coherence"}, "unit_norm_spares"} {published method: estimate over groups}: what a
    trait that steers alone loses per added vector; what an added vector does to coherence, where the vectors keep the
    coefficients that they were tuned to; and the coherence of unit norm minus the mean of those methods, k >= 2."""
    at, over, tags = {(r["subset"], r["method"]): r for r in records if r["own"]}, estimator("groups", address), count()
    apart, added = traits_apart(records, published), [m for m in published if not m.startswith("unit_norm")]
    falls, spared = {}, {}
    for (method,), rows in grouped([row for row in apart if row["trait"] in steering], "method").items():
        each = list(grouped(rows, "trait").values())
        falls[method] = over(next(tags), [per_vector(mine) for mine in each], np.mean, [mine[0]["group"] for mine in each])
    for method in [m for m in published if m not in added and added]:
        mine = [r for (name, made), r in at.items() if made == method and r["k"] > 1
                and all((name, m) in at for m in added)]
        if mine:
            spared[method] = over(next(tags), [r["coherence"] - np.mean(
                [at[r["subset"], m]["coherence"] for m in added]) for r in mine], np.mean, [r["group"] for r in mine])
    few = Missing("no subset of two traits")
    return {"per_vector": {
        "expression": falls or Missing("no trait that steers alone is in a subset of two"),
        "coherence": {method: over(next(tags), each) for method, each in slopes(
            records, added, what="coherence").items()} or few}, "unit_norm_spares": spared or few}


def solved_minus(records, sides, address):
    """({side: estimate}, {side: its best method}): usable expression of `solved` minus the best of each side's methods,
    paired over subsets of two traits and more, groups resampled and the best picked anew in each resample."""
    at, over = {(r["subset"], r["method"]): r for r in records if r["own"]}, estimator("groups", address)
    minus, best = {}, {}
    for tag, (key, others) in enumerate(sides.items()):
        mine = [r for (name, made), r in at.items() if made == "solved" and r["k"] > 1
                and all((name, m) in at for m in others)]
        scores = np.array([[at[r["subset"], m]["usable"] for m in ("solved", *others)] for r in mine])
        if mine:
            many = len(others) > 1
            minus[key] = over(tag, scores if many else scores[:, 0] - scores[:, 1], ahead if many else np.mean,
                              [r["group"] for r in mine])
            if many:
                best[key] = others[int(scores.mean(axis=0)[1:].argmax())]
    return minus, best


def setting_gain(records, address):
    """Estimate over groups: usable expression that a setting of its own for every k and task adds to one for all,
    over subsets and methods. Both are chosen on the cells of the other groups and measured on the group left out.

    records  cells of a tune run, whose `method` reads "name setting"; Missing if no group can be left out"""
    gains, of = [], []
    split = [r | dict(zip(("name", "setting"), r["method"].split())) for r in records]
    for mine in grouped(split, "name").values():
        settings = sorted({r["setting"] for r in mine}, key=float)
        rows = []
        for (_, group, k, task), some in grouped(mine, "subset", "group", "k", "task").items():
            usable = {r["setting"]: r["usable"] for r in some}
            if len(usable) == len(settings):
                rows.append((group, (k, task), np.array([usable[setting] for setting in settings])))
        for left_out in sorted({group for group, *_ in rows}):
            rest = {}
            for group, cell, usable in rows:
                if group != left_out:
                    rest.setdefault(cell, []).append(usable)
            rest = {cell: np.mean(found, axis=0) for cell, found in rest.items()}
            here = [(cell, usable) for group, cell, usable in rows if group == left_out and cell in rest]
            gains += [u[rest[cell].argmax()] - u[np.mean(list(rest.values()), axis=0).argmax()] for cell, u in here]
            of += [left_out] * len(here)
    return estimator("groups", address)(0, gains, np.mean, of) if gains else Missing(
        "no two groups share a k and task")


def against(records, method, other, address):
    """{score: estimate over groups} of a method minus another on the same subsets of two or more traits, own task."""
    at, over = {(r["subset"], r["method"]): r for r in records if r["own"]}, estimator("groups", address)
    pairs = [(r, at[name, other]) for (name, made), r in at.items()
             if made == method and r["k"] > 1 and (name, other) in at]
    return {what: over(tag, [a[what] - b[what] for a, b in pairs], np.mean, [a["group"] for a, _ in pairs])
            for tag, what in enumerate(("usable", "expression", "coherence"))} if pairs else Missing(
                "no subset of two traits")


def method_interaction(records, methods, own, address):
    """`excess_interaction` of usable expression where two traits or more act at once: cells of k and task, on the own
    task or the other one; Missing below two cells or groups."""
    at = {(r["subset"], r["method"]): r for r in records if r["own"] == own and r["k"] > 1}
    mine = [r for (name, made), r in at.items() if made == methods[0] and all((name, m) in at for m in methods)]
    cells, groups = [f"{r['k']} {r['task']}" for r in mine], [r["group"] for r in mine]
    if min(len(set(cells)), len(set(groups))) < 2:
        return Missing("fewer than two combinations of k and task, or than two groups")
    return excess_interaction(np.array([[at[r["subset"], m]["usable"] for m in methods] for r in mine]), cells, groups,
                              address)


def per_vector(rows):
    """What a trait loses per added vector: least-squares slope through no loss at k = 1 of `traits_apart`'s rows."""
    more, drop = (np.array([row[key] for row in rows], np.float64) for key in ("k", "drop"))
    return (more - 1) @ drop / ((more - 1) @ (more - 1))


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
    rows, results, tags, over_groups = [], {}, count(), estimator("groups", address)

    def over(mine, values):
        return over_groups(next(tags), values, np.mean, [r["group"] for r in mine])

    for r in [at[key] for method in ordered for key in at if key[1] == method and at[key]["k"] > 1]:
        turns = [at.get((r["subset"], f"{r['method']}@{t}" if t else r["method"])) for t in range(r["k"])]
        if all(turns):
            e = np.array([list(turn["expressions"].values()) for turn in turns])          # (turn, trait)
            trait = np.arange(r["k"])
            first, last = e[trait, trait], e[(trait + 1) % r["k"], trait]
            rows.append({"subset": r["subset"], "group": r["group"], "k": r["k"], "method": r["method"],
                         "expression": e.mean(),
                         "first": first.mean(), "last": last.mean(), "first_minus_last": (first - last).mean(),
                         "sd": e.std(axis=0, ddof=1).mean(), "sd_mean": e.mean(axis=1).std(ddof=1)})
    for what, method in product(("first_minus_last", "sd", "sd_mean"), ordered):
        mine = [row for row in rows if row["method"] == method]
        if mine:
            results.setdefault(what, {})[method] = over(mine, [row[what] for row in mine])
            results.setdefault(f"{what}_by_k", {})[method] = {
                str(k): over(few, [row[what] for row in few]) for (k,), few in sorted(grouped(mine, "k").items())}
    for method in shown:
        pairs = [r for (_, made), r in at.items() if made == method and r["k"] == 2]
        place = {row["subset"]: row["first_minus_last"] for row in rows if row["method"] == method}
        if pairs:
            gaps = np.array([np.subtract(*r["expressions"].values()) for r in pairs])
            found = {"difference": over(pairs, gaps)}
            if {r["subset"] for r in pairs} <= set(place):
                by_place = np.array([place[r["subset"]] for r in pairs])
                found |= {"place": over(pairs, by_place), "traits": over(pairs, gaps - by_place)}
            results.setdefault("alphabetical", {})[method] = found
    return rows, results, {} if results else {"order": "no subset of two traits"}
