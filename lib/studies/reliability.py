"""What stage 05 concludes from propensity curves: one record per behaviour, and estimates over behaviours.

Pure functions. An estimate that the data cannot give is named in results["not_testable"] = {key: reason}.
"""
import math

import numpy as np

from lib import metrics

# Groups of results, for a suite without behaviours, which can test none of them.
GROUPS = ("steerability", "spread", "anti_steerable", "bias", "unsteerable", "linearity", "raw", "definition", "leak",
          "steerable_only", "methods", "planted", "predictors", "published")
VECTOR_PREDICTORS = ("directional_agreement", "d_prime", "split_half_cosine", "norm")      # of the extraction split
PREDICTORS = (*VECTOR_PREDICTORS, "baseline")                                               # mean unsteered propensity
MIN_BEHAVIOURS = 4       # fewer give no rank correlation
RIDGE = 1.0              # penalty of the cross-validated prediction, predictors in standard deviations


# --- one behaviour ------------------------------------------------------------------------------------------
def swap_pairs(items):
    """Indices (n, 2) of inputs that differ only in the order of their options; first column: positive is A."""
    index = {item["id"]: i for i, item in enumerate(items)}
    pairs = [(index[item["swap_of"]], i) for i, item in enumerate(items) if item["swap_of"] in index]
    ordered = [(i, j) if items[i]["positive"] == "A" else (j, i) for i, j in pairs]
    return np.array(ordered, dtype=int).reshape(-1, 2)


def signs(items):
    """(letter, yes, contrary) of inputs: +1 where the positive option is A, is Yes (0: no Yes/No); bool."""
    letter = np.array([1.0 if item["positive"] == "A" else -1.0 for item in items])
    yes = np.array([0.0 if item["yes"] is None else 1.0 if item["yes"] == item["positive"] else -1.0 for item in items])
    return letter, yes, np.array([bool(item["contrary"]) for item in items])


def bias_fit(propensity, letter, yes, contrary):
    """Unsteered propensity (N,) as side * default + letter * b + yes * c by least squares, nats.

    The default counts from the other side where `contrary`. Returns {"default", "letter", "yes"}; yes is
    None where the format has no Yes/No."""
    columns = {"default": np.where(contrary, -1.0, 1.0), "letter": letter, "yes": yes}
    if not np.any(yes):
        del columns["yes"]
    fit = np.linalg.lstsq(np.stack(list(columns.values()), axis=1), propensity, rcond=None)[0]
    return {"yes": None, **dict(zip(columns, fit.tolist()))}


def swapped(slopes, pairs):
    """What the order of the options alone does to slopes (N,), from pairs (n, 2); None without pairs.

    flips_sign    share of pairs whose two slopes have different signs
    within_share  share of the pairs' variance that lies within pairs: 1 if content plays no part
    letter_effect half the mean difference of the slope with positive option A and the one with B, nats"""
    if not len(pairs):
        return None
    two = slopes[pairs]
    within = ((two - two.mean(axis=1, keepdims=True)) ** 2).mean()
    return {"n": len(pairs), "flips_sign": float(((two[:, 0] <= 0) != (two[:, 1] <= 0)).mean()),
            "within_share": float(within / two.var()) if two.var() > 0 else 0.0,
            "letter_effect": float((two[:, 0] - two[:, 1]).mean() / 2)}


def explained(slopes, letter, yes):
    """Share of the variance of slopes (N,) that letter and Yes/No explain together; 0 where it has none."""
    if slopes.var() <= 1e-24 * max(1.0, np.abs(slopes).max()) ** 2:
        return 0.0
    return 1 - metrics.variance_shares(slopes, letter > 0, yes > 0)["unexplained"]


def permuted_share(slopes, letter, yes, n, address):
    """Mean share of variance that letter and yes explain when the two are dealt to the inputs anew, n times."""
    rng, found = np.random.default_rng(address), []
    for _ in range(n):
        order = rng.permutation(len(slopes))
        found.append(explained(slopes, letter[order], yes[order]))
    return float(np.mean(found))


def record(behaviour, items, got, methods, quantile, n_permutations, address):
    """The record of one behaviour.

    got  arrays over its N inputs: slopes, slopes_raw, slopes_sum, slopes_sum_raw, slopes_published, control_slope, r2,
         monotonicity, unsteered (N,); random_slopes, shuffled_slopes, orthogonal_slopes, method_slopes (N, vectors);
         slopes_overlap, of the published vector on test items that it was made from
    methods  names of the columns of method_slopes
    "intervals" holds [low, high] over contents: variance shares, and anti-steerable shares (raw, sum: of those slopes).
    A behaviour is steerable if its mean control_slope is above `quantile` of the random vectors' means."""
    slopes, (letter, yes, contrary), pairs = got["slopes"], signs(items), swap_pairs(items)
    clusters = np.arange(len(items))
    clusters[pairs[:, 1]] = pairs[:, 0]          # both orders of one content are one draw, not two
    means = got["random_slopes"].mean(axis=0)
    # A random direction and its opposite are equally likely and have opposite slopes: both count.
    limit = float(np.quantile(np.concatenate([means, -means]), quantile))
    control, anti = float(got["control_slope"].mean()), metrics.anti_fraction

    def direction(column):
        return {"mean": float(column.mean()), "anti": anti(column), "explained": explained(column, letter, yes)}

    counts = metrics.redraws(len(items), [*address, 2], clusters)
    drawn = metrics.resampled_variance_shares(slopes, letter > 0, yes > 0, counts)
    drawn |= {name: metrics.resampled_means((got[f"slopes{of}"] <= 0)[:, None], counts)[:, 0] for name, of in (
        ("anti_steerable", ""), ("raw", "_raw"), ("sum", "_sum"), ("sum_raw", "_sum_raw"))}
    columns = {"mean_difference": got["control_slope"], **dict(zip(methods, got["method_slopes"].T))}
    whole = np.concatenate([got["slopes_overlap"], got["slopes_published"]])
    return {
        "name": behaviour["name"], "format": behaviour["format"], "n": len(items),
        "slope": metrics.bootstrap(slopes, unit="contents", clusters=clusters, seed_address=[*address, 0]),
        "sd": float(slopes.std(ddof=1)), "anti_steerable": anti(slopes),
        "intervals": {name: metrics.interval(draws).tolist() for name, draws in drawn.items()},
        "r2": float(got["r2"].mean()),
        "quantiles": {f"p{q:02d}": float(np.quantile(slopes, q / 100)) for q in (5, 25, 50, 75, 95)},
        "monotonicity": float(got["monotonicity"].mean()),
        "bias": {**metrics.variance_shares(slopes, letter > 0, yes > 0),
                 "permuted": permuted_share(slopes, letter, yes, n_permutations, [*address, 1])},
        "swap": swapped(slopes, pairs), "control_slope": control, "steerable": control > limit,
        "random": {"means": means, "p95": limit, "anti": anti(got["random_slopes"]),
                   "anti_oriented": anti(got["random_slopes"] * np.where(means < 0, -1, 1))},
        **{name: {"means": got[f"{name}_slopes"].mean(axis=0), "anti": anti(got[f"{name}_slopes"])}
           for name in ("shuffled", "orthogonal")},
        "methods": {name: direction(column) for name, column in columns.items()},
        "raw": {"mean": float(got["slopes_raw"].mean()), "sd": float(got["slopes_raw"].std(ddof=1)),
                "anti_steerable": anti(got["slopes_raw"])},
        **{name: {"mean": float(got[f"slopes_{name}"].mean()), "anti_steerable": anti(got[f"slopes_{name}"])}
           for name in ("sum", "sum_raw")},
        "published": {"mean": float(whole.mean()), "anti_steerable": anti(whole), "n": len(whole),
                      "overlap": float(got["slopes_overlap"].mean()), "n_overlap": len(got["slopes_overlap"]),
                      "fresh": float(got["slopes_published"].mean())},
        "unsteered": {"mean": float(got["unsteered"].mean()), **bias_fit(got["unsteered"], letter, yes, contrary)},
        "contrary": {"n": int(contrary.sum()), "anti": anti(slopes[contrary]) if contrary.any() else None,
                     "regular_anti": None if contrary.all() else anti(slopes[~contrary])},
        "planted": behaviour.get("planted")}


# --- over behaviours ----------------------------------------------------------------------------------------
def correlate(results, key, x, y, address):
    """Put the Spearman correlation of x and y over behaviours at `key` = "group.name", or say why there is none."""
    group, name = key.split(".", 1)
    if len(x) < MIN_BEHAVIOURS or len(set(x)) == 1 or len(set(y)) == 1:
        results["not_testable"][key] = f"{len(x)} behaviours with {len(set(x))} and {len(set(y))} different values"
        return
    results.setdefault(group, {})[name] = metrics.bootstrap_corr(
        np.asarray(x, float), np.asarray(y, float), unit="behaviours", seed_address=address)


def held_out(x, y):
    """Ridge predictions of y (n,) from x (n, predictors), each by a fit that has not seen it (leave one out)."""
    x, y, out = np.asarray(x, np.float64), np.asarray(y, np.float64), np.empty(len(y))
    for i in range(len(y)):
        keep = np.arange(len(y)) != i
        centre, scale = x[keep].mean(axis=0), x[keep].std(axis=0)
        z = (x - centre) / np.where(scale > 0, scale, 1)
        w = np.linalg.solve(z[keep].T @ z[keep] + RIDGE * np.eye(x.shape[1]), z[keep].T @ (y[keep] - y[keep].mean()))
        out[i] = y[keep].mean() + z[i] @ w
    return out


def exceeds_by_luck(n_random, quantile):
    """Probability that one more random vector beats the `quantile` of n_random random means and their opposites.

    The limit is itself an estimate: it lies at about the r-th largest of n_random absolute means, r = (1 - quantile)
    (2 n_random - 1) + 1, which a new one beats with r / (n_random + 1), on the positive side half as often."""
    return ((1 - quantile) * (2 * n_random - 1) + 1) / (2 * (n_random + 1))


def by_luck(n, p, level=0.99):
    """The smallest k for which Binomial(n, p) is at most k with probability `level`."""
    total, k = (1 - p) ** n, 0
    while total < level:
        k += 1
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
    return k


def steers(results):
    """Whether more behaviours of a model steer than luck explains, from its results of stage 05."""
    n = results.get("n", {"steerable": 0, "steerable_by_luck": 0})
    return n["steerable"] > n["steerable_by_luck"]


def summary(records, predictors, quantile, address):
    """Results over behaviours, which are what is resampled. predictors: per behaviour {name: number}; quantile
    of the random vectors that a steerable behaviour beats."""
    def over(values, tag, stat=np.mean):
        return metrics.bootstrap(np.asarray(values, np.float64), stat, unit="behaviours", seed_address=[*address, tag])

    def each(*path):
        values = records
        for key in path:
            values = [value[key] for value in values]
        return np.array(values, np.float64)

    means, anti = each("slope", "value"), each("anti_steerable")
    ratio, good = each("sd") / np.abs(means), each("steerable") > 0
    letter, yes, permuted = each("bias", "letter"), each("bias", "yes_marginal"), each("bias", "permuted")
    n_random = len(records[0]["random"]["means"])
    lucky = by_luck(len(records), exceeds_by_luck(n_random, quantile))
    results = {
        "n": {"behaviours": len(records), "inputs": int(each("n").sum()), "random": n_random,
              "steerable": int(good.sum()), "steerable_by_luck": lucky},
        "steerability": {"mean": over(means, 0), "minus_random": over(
            each("control_slope") - [np.abs(r["random"]["means"]).mean() for r in records], 58)},
        "spread": over(ratio, 1, np.median),
        "anti_steerable": {"share": over(anti, 2),
                           **{name: over(each(name, "anti"), tag) for name, tag in
                              (("random", 3), ("shuffled", 5), ("orthogonal", 19))},
                           "random_oriented": over(each("random", "anti_oriented"), 4)},
        "bias": {"explained": over(letter + yes, 6), "letter": over(letter, 7), "yes_marginal": over(yes, 8),
                 "permuted": over(permuted, 9), "excess": over(letter + yes - permuted, 18)},
        "linearity": {"r2": over(each("r2"), 11), "monotonicity": over(each("monotonicity"), 12)},
        "raw": {"spread": over(each("raw", "sd") / np.abs(each("raw", "mean")), 13, np.median),
                "anti_steerable": over(each("raw", "anti_steerable"), 14)},
        "definition": {"closing": over(each("sum", "mean") - means, 50),
                       "anti_steerable": over(each("sum", "anti_steerable"), 51),
                       "raw_closing": over(each("sum_raw", "mean") - each("raw", "mean"), 55),
                       "raw_anti_steerable": over(each("sum_raw", "anti_steerable"), 56)},
        "leak": {"clean": over(means, 0), "published": over(each("published", "mean"), 52),
                 "published_minus_clean": over(each("published", "mean") - means, 53),
                 "overlap_minus_fresh": over(each("published", "overlap") - each("published", "fresh"), 15),
                 "overlap_share": float(each("published", "n_overlap").sum() / each("published", "n").sum())},
        "methods": {name: {"mean": over(each("methods", name, "mean"), 60 + 5 * i),
                           "anti_steerable": over(each("methods", name, "anti"), 61 + 5 * i),
                           "explained": over(each("methods", name, "explained"), 62 + 5 * i),
                           **({} if i == 0 else {
                               "minus_mean_difference": over(each("methods", name, "mean")
                                                             - each("methods", "mean_difference", "mean"), 63 + 5 * i),
                               "explained_minus_mean_difference": over(
                                   each("methods", name, "explained")
                                   - each("methods", "mean_difference", "explained"), 64 + 5 * i)})}
                    for i, name in enumerate(records[0]["methods"])},
        "not_testable": {}}
    missing = results["not_testable"]

    # A vector that does nothing has anti-steerable inputs and a large SD / |mean| too, and "some do not steer" says
    # nothing where none does: the same without those, if more behaviours beat the random vectors than luck explains.
    if steers(results):
        results["steerable_only"] = {"spread": over(ratio[good], 16, np.median), "anti_steerable": over(anti[good], 17)}
        results["unsteerable"] = {"share": over(~good, 10)}
    else:
        reason = f"{good.sum()} of {len(good)} behaviours beat random vectors; up to {lucky} would by luck"
        missing |= {"steerable_only": reason, "unsteerable": reason}
    correlate(results, "definition.spearman", means, each("sum", "mean"), [*address, 54])
    correlate(results, "definition.raw_spearman", each("raw", "mean"), each("sum_raw", "mean"), [*address, 57])
    for i, name in enumerate(PREDICTORS):
        correlate(results, f"predictors.{name}", [p[name] for p in predictors], means, [*address, 20 + i])
    if len(records) > len(PREDICTORS) + 2:
        told = held_out([[p[name] for name in PREDICTORS] for p in predictors], means)
        correlate(results, "predictors.held_out", told, means, [*address, 28])
    else:
        missing["predictors.held_out"] = f"{len(records)} behaviours for {len(PREDICTORS)} predictors"
    swaps = [r["swap"] for r in records if r["swap"]]
    if swaps:
        results["bias"]["swap"] = {key: over([swap[key] for swap in swaps], 30)
                                   for key in ("flips_sign", "within_share", "letter_effect")}
    else:
        missing["bias.swap"] = "no input comes with its options swapped"

    # planted truth: inputs that answer from the other side, biases in nats, defaults
    mixed = [r["contrary"] for r in records if r["contrary"]["n"] and r["contrary"]["regular_anti"] is not None]
    if mixed:
        results["planted"] = {"contrary_anti": over([c["anti"] for c in mixed], 40),
                              "regular_anti": over([c["regular_anti"] for c in mixed], 41)}
    else:
        missing |= {f"planted.{key}_anti": "no input is planted as contrary" for key in ("contrary", "regular")}
    told = [(r["unsteered"], r["planted"]) for r in records if r["planted"]]
    for key in ("letter", "yes"):
        errors = [found[key] - truth[f"{key}_bias"] for found, truth in told if found[key] is not None]
        if errors:
            results.setdefault("planted", {})[f"{key}_bias"] = over(errors, 42 + (key == "yes"))
        else:
            missing[f"planted.{key}_bias"] = "nothing of the kind is planted in this suite"
    correlate(results, "planted.default_spearman", [found["default"] for found, _ in told],
              [truth["default"] for _, truth in told], [*address, 44])
    return results


def beside(records, published, steers, address):
    """(results, {missing: reason}) of rank correlations over behaviours with the published values of other models.

    published  data/published.json, "reliability". Theirs are slopes of the released definition against raw multipliers,
    so ours are too. steers: whether more behaviours steer than luck explains; without that an order of slopes near zero
    would be compared, which the texts' form decides. A planted behaviour has the name of a published one and other
    statements: it is left out."""
    mine, results = {r["name"]: r for r in records if not r["planted"]}, {"not_testable": {}}

    def key(model):                                          # a dot separates the parts of a key
        return model.replace(".", "_")

    columns = {f"steerability.{key(model)}": (values, lambda r: r["sum_raw"]["mean"])
               for model, values in published["steerability"].items()}
    for model, rows in published["per_input"].items():
        columns[f"anti_steerable.{key(model)}"] = ({name: row["anti_steerable"] for name, row in rows.items()},
                                                   lambda r: r["sum_raw"]["anti_steerable"])
        columns[f"explained.{key(model)}"] = ({b: row["letter"] + row["yes_marginal"] for b, row in rows.items()},
                                              lambda r: r["bias"]["letter"] + r["bias"]["yes_marginal"])
    for i, (name, (theirs, ours)) in enumerate(columns.items()):
        shared = sorted(set(mine) & set(theirs))
        if shared and not steers:
            results["not_testable"][name] = "no more behaviours steer than luck explains"
        elif shared:
            correlate(results, name, [ours(mine[b]) for b in shared], [theirs[b] for b in shared], [*address, i])
        else:
            results["not_testable"][name] = "the suite has none of the published statements"
    return results, results.pop("not_testable")


def compare(names, tables, idle, address):
    """(rows, results) of the rank correlations over behaviours between every two models.

    tables  per model {behaviour: record}; idle: models on which no more behaviours steer than luck explains, whose
    noise would correlate with nothing. With more than two models the pair that agrees least speaks for the
    claim ("spearman"); the estimates of all pairs stand beside it."""
    columns = {"steerability": "mean", "steerability_sd": "sd", "anti_steerable": "anti_steerable"}
    rows, results = [], {"not_testable": {}}
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            pair = f"{first} / {names[j]}"
            both = [(tables[i][name], tables[j][name]) for name in tables[i] if name in tables[j]]
            mine = [{"pair": pair, "name": two[0]["name"], "mean": [r["slope"]["value"] for r in two],
                     **{key: [r[key] for r in two] for key in ("sd", "anti_steerable")}} for two in both]
            rows += mine
            for what, column in columns.items():
                correlate(results, f"{what}.{pair}", *([row[column][side] for row in mine] for side in (0, 1)),
                          [*address, i, j])
    reason = f"no more behaviours steer than luck explains on {', '.join(idle)}"
    for what in columns:
        if results.get(what) and not idle:
            results[what]["spearman"] = min(results[what].values(), key=lambda estimate: estimate["value"])
        elif idle:
            results["not_testable"][f"{what}.spearman"] = reason
        else:
            results["not_testable"][what] = "no two models share enough behaviours"
    return rows, results
