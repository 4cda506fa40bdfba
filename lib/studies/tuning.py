"""What stage 02 chooses from what it measured. Pure: candidates in, tuned records and estimates out.

A *point* is (layer, strength, coefficient, relative strength): coefficient * v[layer] is added at the output of that
block. Its norm is `strength` units of that layer (lib.studies.strength) and the share `relative strength` of the
residual stream's norm. A *candidate* is a point with a key and scores, means over the tuning split.
"""
from collections import Counter

import numpy as np

from lib import metrics
from lib.metrics import Missing, estimator

# --- settings that change the numbers ----------------------------------------------------------------------
STEERS = 10               # least gain on the tuning split, points, of a trait that steers: a tenth of the scale
TRADE = 1.6               # largest strength of the trade-off's range, units, fixed: beyond it texts fall apart
# -----------------------------------------------------------------------------------------------------------
POINT = ("layer", "strength", "coefficient", "relative_strength")


def layer_grid(n_layers, most):
    """Layers to search: all, or `most` of them evenly spaced, the first and the last among them."""
    return sorted({round(l) for l in np.linspace(0, n_layers - 1, min(most, n_layers))})


def grid(vector, norms, strengths, unit="relative", layers=None):
    """[point] over all layers, or those given. vector (layer, d) raw; norms (2, layer): the unit's and the residual
    stream's; `unit` says whether the strengths are in units ("relative") or coefficients ("raw")."""
    points = []
    for l in range(len(vector)) if layers is None else layers:
        if not vector[l].any():                        # nothing to add: unsteered, and never chosen
            points += [(l, 0.0, 0.0, 0.0)] * len(strengths)
            continue
        each, share = (np.linalg.norm(vector[l]) / np.asarray(norms, np.float64)[:, l]).tolist()   # of coefficient 1
        points += [(l, s, s / each, s * share / each) if unit == "relative" else (l, s * each, s, s * share)
                   for s in strengths]
    return points


def live(vector, layers):
    """Those of the layers at which a vector (layer, d) is not zero; all such layers where that is none of them. One
    from elsewhere may have a single layer."""
    there = np.flatnonzero(vector.any(axis=1)).tolist()
    return [l for l in layers if l in there] or there


def place(point):
    """A point as the fields of a candidate."""
    return dict(zip(POINT, point))


def best(candidates, gain, keep, limit):
    """The candidate with the most of `gain` among those with `keep` >= limit, ties to the weaker; and True.

    If none has it: the one with the most of `keep`, ties to more gain, then to the weaker; and False."""
    good = [c for c in candidates if c[keep] >= limit]
    if good:
        return max(good, key=lambda c: (c[gain], -c["strength"])), True
    return max(candidates, key=lambda c: (c[keep], c[gain], -c["strength"])), False


def promising(candidates, gain, keep, limit):
    """The candidate around which to search on: like `best`, but of equals the one whose next stronger
    one at the same layer has more of `gain`, then the stronger. Below a concept's onset all gains are equal,
    and the weakest candidate does not show where it begins."""
    def after(c):
        stronger = [d for d in candidates if d["layer"] == c["layer"]
                    and d["strength"] > c["strength"]]
        return min(stronger, key=lambda d: d["strength"], default=c)[gain]

    good = [c for c in candidates if c[keep] >= limit]
    if not good:
        return best(candidates, gain, keep, limit)[0]
    return max(good, key=lambda c: (c[gain], after(c), c["strength"]))


def steering(tuned):
    """Names of the traits that steer: they gain STEERS on the tuning split. Stages after it measure them on other
    texts, so that being picked does not flatter them. tuned: of stage 02."""
    return [key.removeprefix("trait/") for key, t in tuned.items()
            if key.startswith("trait/") and t["score"] - t["unsteered"] >= STEERS]


def tradeoff(candidates):
    """Spearman of expression with coherence up to the strength TRADE, and along all strengths.

    candidates  of one trait at one layer, steered: a trait that steers was picked for a low score unsteered
    The range does not depend on the scores: one that stopped at the peak of expression would find a trade-off in
    noise. 0 where coherence never moves: nothing is paid. None below three candidates or if expression never moves."""
    found = []
    for part in ([c for c in candidates if c["strength"] <= TRADE], candidates):
        expression, coherence = ([c[name] for c in part] for name in ("expression", "coherence"))
        if len(part) < 3 or len(set(expression)) == 1:
            found.append(None)
        else:
            found.append(0.0 if len(set(coherence)) == 1 else metrics.spearman(expression, coherence))
    return tuple(found)


def window(candidates, unsteered, coherent):
    """{"window": [weakest, strongest] strength, units, of those that gain STEERS over the score `unsteered` with a mean
    coherence of `coherent` (None: there is none), "breaks": the weakest without that coherence (None: none of them)};
    candidates of one trait at one layer."""
    works = [c["strength"] for c in candidates if c["coherence"] >= coherent and c["expression"] - unsteered >= STEERS]
    broken = [c["strength"] for c in candidates if c["coherence"] < coherent]
    return {"window": [min(works), max(works)] if works else None, "breaks": min(broken, default=None)}


def settle_traits(candidates, chosen, narrow, address, coherent):
    """(tuned, results, {result that is missing: reason}) of the traits.

    candidates  of all traits, unsteered ones (coefficient 0) among them
    chosen      {key: candidate with "coherent"}; narrow likewise, of the paper's search
    coherent    least mean coherence of a setting"""
    if not chosen:
        return {}, {"n": 0}, {"traits": "no trait could be extracted from this model"}
    plain = {c["key"]: c for c in candidates if not c["coefficient"]}
    candidates = [c for c in candidates if c["n"]]                 # a judge in words may have no score for a point

    def record(c):
        return _short(c, "coherence", "coherent") | {"score": c["expression"]}

    tuned = {key: record(c) | {"narrow": record(narrow[key]), "unsteered": plain[key]["expression"],
                               "unsteered_coherence": plain[key]["coherence"]} for key, c in chosen.items()}
    for key, t in tuned.items():
        t |= window([c for c in candidates if c["key"] == key and c["coefficient"] and c["layer"] == t["layer"]],
                    t["unsteered"], coherent)
    steer = steering(tuned)
    trades = [tradeoff([d for d in candidates if d["key"] == f"trait/{name}" and d["coefficient"]
                        and d["layer"] == tuned[d["key"]]["layer"]]) for name in steer]
    over, found = estimator("traits", address), list(tuned.values())
    means = {"expression" if name == "score" else name: [t[name] for t in found] for name in (
        "score", "coherence", "unsteered", "unsteered_coherence", "strength", "relative_strength")}
    means |= {f"narrow_{name}": [t["narrow"][name] for t in found]
              for name in ("score", "coherence", "strength", "relative_strength")}
    means |= dict(zip(("tradeoff", "tradeoff_all"), zip(*trades) if trades else ((), ())))
    results = {"n": len(tuned), "steering": len(steer), "layers": _layers(tuned),
               "incoherent": sum(not t["coherent"] for t in found),
               "narrow_incoherent": sum(not t["narrow"]["coherent"] for t in found),
               **{f"{name}_undefined": means[name].count(None) for name in ("tradeoff", "tradeoff_all")}}
    for i, (name, values) in enumerate(means.items()):
        values = [value for value in values if value is not None]
        results[name] = over(i, values) if values else Missing(
            "no trait steers, or none has three strengths in the range" if name.startswith("tradeoff") else
            "the judge scored no such text")
    return tuned, *metrics.missing_apart(results, "traits.")


def settle_behaviours(slopes, items, vectors, norms, unit, address):
    """(tuned, results, rows of layers.json, rows of slopes.jsonl) of the behaviours: one layer for all.

    slopes   {key: (scale [matched, raw], layer, item) nats per multiplier} of the voting behaviours
    items    {key: their tuning items}; vectors {key: (layer, d)} of all behaviours; norms (2, layer) as for `grid`
    unit     strength of multiplier 1"""
    if not slopes:
        return {}, {"n": 0}, [], []
    over, found = estimator("behaviours", address), {}
    for s, scale in enumerate(("matched", "raw")):
        for l in range(len(norms[0])):
            parts = _letter_parts([(mine[s, l], np.array([item["positive"] for item in items[key]]))
                                   for key, mine in slopes.items()])
            found |= {(what, scale, l): over((s, l, w), values) for w, (what, values) in enumerate(parts.items())}

    def curve(what, scale="matched"):
        return [found[what, scale, l] for l in range(len(norms[0]))]

    there = live(np.stack([np.linalg.norm(v, axis=1) for v in vectors.values()], axis=1), range(len(norms[0])))

    def peak(what, scale="matched"):
        return max(there, key=lambda l: curve(what, scale)[l]["value"])

    layer, tuned = peak("steerability"), {}
    for key, vector in vectors.items():
        (point,), (raw,) = (grid(vector, norms, [by], scale, [layer]) for by, scale in ((unit, "relative"), (1.0, "raw")))
        tuned[key] = {**place(point), "unit": point[2], "raw_strength": raw[1], "raw_relative_strength": raw[3],
                      "score": float(slopes[key][0, layer].mean()) if key in slopes else None}
    results = {"n": len(tuned), "voting": sorted(slopes), "layer": layer, "unit": unit,
               "slope": curve("steerability")[layer], "layer_raw": peak("steerability", "raw"),
               "slope_raw": curve("steerability", "raw")[layer]}
    if "letter" in parts:
        results |= {"letter": curve("letter")[layer], "layer_letter_free": peak("letter_free")}
    rows = [{"kind": "behaviour", "what": what, "scale": scale, "layer": l, "chosen": l == layer, **estimate}
            for (what, scale, l), estimate in found.items()]
    return tuned, results, rows, [
        {"key": key, "item": item["id"], "positive": item["positive"], "matched": mine[0, :, i], "raw": mine[1, :, i]}
        for key, mine in slopes.items() for i, item in enumerate(items[key])]


def _letter_parts(behaviours):
    """{what: one value per behaviour} from [(slopes (item,), letter of each positive option)]: the mean
    slope; half the difference between items with A and with B; the mean of these two groups. The last two are
    left out unless every behaviour has both letters."""
    found = {"steerability": [slopes.mean() for slopes, _ in behaviours]}
    groups = [(slopes[letters == "A"], slopes[letters == "B"]) for slopes, letters in behaviours]
    if all(len(a) and len(b) for a, b in groups):
        found["letter"] = [(a.mean() - b.mean()) / 2 for a, b in groups]
        found["letter_free"] = [(a.mean() + b.mean()) / 2 for a, b in groups]
    return found


def settle_relations(points, gains, address):
    """(tuned, results, candidates) of the relations: best layer at coefficient 1, best point of the grid.

    points {key: [point]}, those of coefficient 1 first, one per layer; gains {key: (point, pair)} nats"""
    tuned, candidates, over = {}, [], estimator("relations", address)
    for key, found in gains.items():
        mine = [_candidate(key, *pair) for pair in zip(points[key], found)]
        n_layers = 1 + max(c["layer"] for c in mine)
        unscaled, matched = (max((c for c in part if c["coefficient"]), key=lambda c: c["score"])
                             for part in (mine[:n_layers], mine[n_layers:]))
        tuned[key] = _short(unscaled, "score") | {"matched": _short(matched, "score")}
        candidates += mine
    results = {"n": len(tuned), "layers": _layers(tuned)}
    if tuned:
        results |= {"gain": over(0, [t["score"] for t in tuned.values()]),
                    "gain_matched": over(1, [t["matched"]["score"] for t in tuned.values()])}
    return tuned, results, candidates


def settle_ways(layers, names, address):
    """({key: {way: {"layer", "score", "n"}}}, {way: mean gain}, candidates): the best layer of every way to make a
    relation's vector, at coefficient 1. layers {key: (way, layer, pair) nats}; names of the ways."""
    tuned, candidates, over = {}, [], estimator("relations", address)
    for key, gains in layers.items():
        mine = [[{"key": key, "way": way, "layer": l, "coefficient": 1.0, "score": float(values.mean()),
                  "n": len(values), "values": values} for l, values in enumerate(found)]
                for way, found in zip(names, gains)]
        best = [max(found, key=lambda c: c["score"]) for found in mine]
        tuned[key] = {c["way"]: {name: c[name] for name in ("layer", "score", "n")} for c in best}
        candidates += sum(mine, [])
    return tuned, {way: over(w, [found[way]["score"] for found in tuned.values()])
                   for w, way in enumerate(names) if tuned}, candidates


def settle_values(points, odds, facts, limit):
    """(tuned, results, candidates) of the values: the largest shift that costs at most `limit` of the facts, and
    beside it what leaves the least bias at that cost: "window", with one "sign" of the vector, +1 or -1, for all
    probes; "against", when every probe is steered against its own lean (lib.studies.values).

    points {key: [point]}; odds {key: (1 + 2 points, probe) nats}, facts {key: (1 + 2 points, fact) answered right?}:
    unsteered, then the points, then the points with the other sign"""
    tuned, candidates = {}, []
    for key, found in odds.items():
        n, lean = len(points[key]), found[0]
        plus, minus = found[1:n + 1], found[n + 1:]
        plain, *accuracy = facts[key].mean(axis=1).tolist()
        left = np.stack([np.abs(end).mean(axis=1) for end in (plus, minus, np.where(lean > 0, minus, plus))], axis=1)
        removed = (1 - left / np.abs(lean).mean() if lean.any() else 0 * left).tolist()
        mine = [_candidate(key, point, moved - lean) | {
                    "fact_accuracy": right, "fact_accuracy_flipped": wrong, "fact_accuracy_both": (right + wrong) / 2,
                    **dict(zip(("bias_removed", "bias_removed_flipped", "bias_removed_against"), shares))}
                for point, moved, shares, right, wrong in zip(points[key], plus, removed, accuracy, accuracy[n:])
                if point[2]]
        signed = [c | {"sign": sign, "bias_removed": c[f"bias_removed{of}"], "fact_accuracy": c[f"fact_accuracy{of}"]}
                  for sign, of in ((1, ""), (-1, "_flipped")) for c in mine]
        first, kept = best(mine, "score", "fact_accuracy", plain - limit)
        least, spared = best(signed, "bias_removed", "fact_accuracy", plain - limit)
        most, held = best(mine, "bias_removed_against", "fact_accuracy_both", plain - limit)
        tuned[key] = _short(first, "score", "fact_accuracy") | {
            "unsteered_fact_accuracy": plain, "facts_kept": kept,
            "window": _short(least, "sign", "bias_removed", "fact_accuracy") | {"facts_kept": spared},
            "against": _short(most, "bias_removed_against", "fact_accuracy_both") | {"facts_kept": held}}
        candidates += mine
    return tuned, {"n": len(tuned), "layers": _layers(tuned),
                   "fact_loss": {key: t["unsteered_fact_accuracy"] - t["fact_accuracy"] for key, t in tuned.items()},
                   "window": {key: t["window"] for key, t in tuned.items()},
                   "against": {key: t["against"] for key, t in tuned.items()},
                   "shift": {key: t["score"] for key, t in tuned.items()}}, candidates


def _candidate(key, point, values):
    """A point with the mean of values (input,), what it does to each."""
    return {"key": key, **place(point), "score": float(values.mean()), "n": len(values), "values": values}


def _short(candidate, *fields):
    """Where, how strongly, and over how many inputs the score is a mean; and the fields given."""
    return {name: candidate[name] for name in (*POINT, "n", *fields)}


def _layers(tuned):
    """{layer: number of concepts tuned to it}, in order of layers."""
    counts = Counter(t["layer"] for t in tuned.values())
    return {str(layer): counts[layer] for layer in sorted(counts)}
