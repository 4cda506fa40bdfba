"""What stage 05 concludes from propensity curves: one record per behaviour, and estimates over behaviours.

Pure functions. An estimate that the data cannot give is named in results["not_testable"] = {key: reason}.
"""
import math
from functools import partial
from itertools import combinations

import numpy as np

from lib import metrics
from lib.artifacts import NUMBER
from lib.metrics import Missing, estimator
from lib.studies.predict import foretold_within, held_out

# Groups of results, for a suite without behaviours, which can test none of them.
GROUPS = ("steerability", "spread", "anti_steerable", "bias", "unsteerable", "linearity", "range", "raw", "definition",
          "leak", "steerable_only", "calibration", "methods", "planted", "predictors", "published")
VECTOR_PREDICTORS = ("directional_agreement", "d_prime", "split_half_cosine", "norm")      # of the extraction split
PREDICTORS = (*VECTOR_PREDICTORS, "logit_lens", "granularity", "baseline")                # mean unsteered propensity
MIN_BEHAVIOURS = 4       # fewer give no rank correlation
# data/published.json, "reliability": {model: {behaviour: number}}, and per input {model: {behaviour: shares}}.
PUBLISHED = {"steerability": {str: {str: NUMBER}},
             "per_input": {str: {str: dict.fromkeys(("anti_steerable", "letter", "yes_marginal"), NUMBER)}}}


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


def reach(low, high, limit):
    """Where the interval [low, high] of a mean slope lies: "above" the limit that random vectors reach, "within" it on
    both sides, "below" (the vector works backwards), or "undecided"."""
    return "above" if low > limit else "below" if high < -limit else "within" if -limit < low and high < limit \
        else "undecided"


def permuted_share(slopes, letter, yes, n, address):
    """Mean share of variance that letter and yes explain when the two are dealt to the inputs anew, n times."""
    rng = np.random.default_rng(address)
    orders = (rng.permutation(len(slopes)) for _ in range(n))
    return float(np.mean([explained(slopes, letter[order], yes[order]) for order in orders]))


def record(behaviour, items, got, methods, quantile, n_permutations, address):
    """The record of one behaviour.

    got  arrays over its N inputs: slopes, slopes_raw, slopes_sum, slopes_sum_raw, slopes_published, control_slope, r2,
         slopes_half, slopes_one (of multipliers up to that size), monotonicity, unsteered (N,); random_slopes,
         shuffled_slopes, orthogonal_slopes, method_slopes (N, vectors);
         slopes_overlap, of the published vector on test items that it was made from
    methods  names of the columns of method_slopes
    "intervals" holds [low, high] over contents: variance shares, and anti-steerable shares (raw, sum: of those slopes).
    A behaviour is steerable if its mean control_slope is above `quantile` of the random vectors' means; it is
    unsteerable if the interval of that mean lies within what they reach ("reach")."""
    slopes, (letter, yes, contrary), pairs = got["slopes"], signs(items), swap_pairs(items)
    clusters = np.arange(len(items))
    clusters[pairs[:, 1]] = pairs[:, 0]          # both orders of one content are one draw, not two
    means = got["random_slopes"].mean(axis=0)
    # A random direction and its opposite are equally likely and have opposite slopes: both count.
    limit = float(np.quantile(np.concatenate([means, -means]), quantile))
    control, anti = float(got["control_slope"].mean()), metrics.anti_fraction
    spread = got["random_slopes"].std(axis=0, ddof=1) / np.maximum(np.abs(means), 1e-12)

    def told(column, share="anti_steerable"):
        return {"mean": float(column.mean()), share: anti(column)}

    counts = metrics.redraws(len(items), [*address, 2], clusters)
    drawn = metrics.resampled_variance_shares(slopes, letter > 0, yes > 0, counts)
    drawn |= {name: metrics.resampled_means((got[of] <= 0)[:, None], counts)[:, 0] for name, of in (
        ("anti_steerable", "slopes"), *((of, f"slopes_{of}") for of in ("raw", "sum", "sum_raw")))}
    drawn["control_slope"] = metrics.resampled_means(got["control_slope"][:, None], counts)[:, 0]
    intervals = {name: metrics.interval(draws).tolist() for name, draws in drawn.items()}
    columns = {"mean_difference": got["control_slope"], **dict(zip(methods, got["method_slopes"].T))}
    whole = np.concatenate([got["slopes_overlap"], got["slopes_published"]])
    return {
        "name": behaviour["name"], "format": behaviour["format"], "n": len(items),
        "slope": estimator("contents", address)(0, slopes, clusters=clusters),
        "sd": float(slopes.std(ddof=1)), "anti_steerable": anti(slopes),
        "intervals": intervals, **{f"slope_{part}": float(got[f"slopes_{part}"].mean()) for part in ("half", "one")},
        **{name: float(got[name].mean()) for name in ("r2", "monotonicity")},
        "quantiles": {f"p{q:02d}": float(np.quantile(slopes, q / 100)) for q in (5, 25, 50, 75, 95)},
        "bias": {**metrics.variance_shares(slopes, letter > 0, yes > 0),
                 "permuted": permuted_share(slopes, letter, yes, n_permutations, [*address, 1])},
        "swap": swapped(slopes, pairs), "control_slope": control, "steerable": control > limit,
        "reach": reach(*intervals["control_slope"], limit),
        "random": {"means": means, "p95": limit, "anti": anti(got["random_slopes"]), "spread": float(np.median(spread)),
                   "explained": float(np.mean([explained(column, letter, yes) for column in got["random_slopes"].T])),
                   "anti_oriented": anti(got["random_slopes"] * np.where(means < 0, -1, 1))},
        **{name: {"means": got[f"{name}_slopes"].mean(axis=0), "anti": anti(got[f"{name}_slopes"])}
           for name in ("shuffled", "orthogonal")},
        "methods": {name: told(column, "anti") | {"explained": explained(column, letter, yes)}
                    for name, column in columns.items()},
        "raw": told(got["slopes_raw"]) | {"sd": float(got["slopes_raw"].std(ddof=1))},
        **{name: told(got[f"slopes_{name}"]) for name in ("sum", "sum_raw")},
        "published": told(whole) | {
            "n": len(whole), "fresh": float(got["slopes_published"].mean()),
            "overlap": float(got["slopes_overlap"].mean()), "n_overlap": len(got["slopes_overlap"])},
        "unsteered": {"mean": float(got["unsteered"].mean()), **bias_fit(got["unsteered"], letter, yes, contrary)},
        "contrary": {"n": int(contrary.sum()), "anti": anti(slopes[contrary]) if contrary.any() else None,
                     "regular_anti": None if contrary.all() else anti(slopes[~contrary])},
        "planted": behaviour.get("planted")}


# --- over behaviours ----------------------------------------------------------------------------------------
def correlate(x, y, address):
    """The Spearman correlation of x and y over behaviours, or why there is none."""
    if len(x) < MIN_BEHAVIOURS or len(set(x)) == 1 or len(set(y)) == 1:
        return Missing(f"{len(x)} behaviours with {len(set(x))} and {len(set(y))} different values")
    return metrics.bootstrap_corr(np.asarray(x, float), np.asarray(y, float), unit="behaviours", seed_address=address)


def correlate_within(x, y, formats, address):
    """The same within formats: whether one format steers better than another does not count."""
    if len(x) < MIN_BEHAVIOURS:
        return Missing(f"{len(x)} behaviours")
    return metrics.bootstrap_within(metrics.by_group(np.stack([x, y], axis=1), formats), unit="behaviours",
                                    seed_address=address)


def foretold(x, y, formats, address):
    """{predictor, "held_out", their "_within" formats}: rank correlations over behaviours of y (n,) with the columns of
    x (n, PREDICTORS), and with ridge predictions from all of them, by fits that have not seen the behaviour."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    results = {name: correlate(x[:, i], y, [*address, i]) for i, name in enumerate(PREDICTORS)}
    results |= {f"{name}_within": correlate_within(x[:, i], y, formats, [*address, 10 + i])
                for i, name in enumerate(PREDICTORS)}
    results["held_out"] = correlate(held_out(x, y), y, [*address, 8]) if len(y) > len(PREDICTORS) + 2 else Missing(
        f"{len(y)} behaviours for {len(PREDICTORS)} predictors")
    return results | {"held_out_within": foretold_within(x, y, formats, [*address, 18])}


def calibrated(slopes, designs, formats):
    """Slopes (list of (n,)) less what option letter and Yes/No do to them; designs: (letter, yes) of each.

    An offset that is subtracted from the logits at every multiplier is subtracted, as its own slope, from the slopes,
    and one that is measured unsteered cancels. Returns {"shared": by offsets of the other behaviours of the format,
    "own": by those of the behaviour's other half of inputs (swap pairs stand side by side, so by fours)}."""
    def fit(s, letter, yes):
        return np.linalg.lstsq(np.stack([letter, yes, np.ones(len(s))], axis=1), s, rcond=None)[0][:2]

    fits, found = np.array([fit(s, *design) for s, design in zip(slopes, designs)]), {"shared": [], "own": []}
    for i, (s, (letter, yes)) in enumerate(zip(slopes, designs)):
        alike = [k for k, fmt in enumerate(formats) if fmt == formats[i] and k != i]
        b, c = fits[alike].mean(axis=0) if alike else (0.0, 0.0)
        found["shared"].append(s - b * letter - c * yes)
        out, half = np.empty(len(s)), np.arange(len(s)) // 4 % 2
        for side in (0, 1):
            b, c = fit(s[half != side], letter[half != side], yes[half != side])
            out[half == side] = (s - b * letter - c * yes)[half == side]
        found["own"].append(out)
    return found


def calibration(slopes, designs, formats, good, address):
    """Shares over the `good` behaviours before and after the two calibrations of `calibrated`: what letter and Yes/No
    explain, and what is anti-steerable."""
    over = estimator("behaviours", address)
    columns = {"before": slopes, **calibrated(slopes, designs, formats)}
    return {what: {name: over((t, c), [measure(s, *design) for s, design, kept in zip(column, designs, good) if kept])
                   for c, (name, column) in enumerate(columns.items())}
            for t, (what, measure) in enumerate((("explained", explained),
                                                 ("anti_steerable", lambda s, *_: metrics.anti_fraction(s))))}


def exceeds_by_luck(n_random, quantile):
    """Probability that one more random vector beats the `quantile` of n_random random means and their opposites.

    The limit is itself an estimate: it lies at about the r-th largest of n_random absolute means, r = (1 - quantile)
    (2 n_random - 1) + 1, which a new one beats with r / (n_random + 1), on the positive side half as often."""
    return ((1 - quantile) * (2 * n_random - 1) + 1) / (2 * (n_random + 1))


def by_luck(n, p, level=0.99):
    """The smallest k for which Binomial(n, p) is at most k with probability `level`."""
    chances = np.cumsum([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    return int(np.searchsorted(chances, level))


def steers(results):
    """Whether more behaviours of a model steer than luck explains, from its results of stage 05."""
    n = results.get("n", {"steerable": 0, "steerable_by_luck": 0})
    return n["steerable"] > n["steerable_by_luck"]


def column(records, *path):
    """(n,) float64 of what stands at a path of keys in every record."""
    for key in path:
        records = [record[key] for record in records]
    return np.array(records, np.float64)


def regular_anti(records):
    """(n,) anti-steerable share of the inputs that are not planted as contrary; of all where all are."""
    return np.array([r["anti_steerable"] if r["contrary"]["regular_anti"] is None else r["contrary"]["regular_anti"]
                     for r in records])


def random_size(records):
    """(n,) mean size of the random vectors' mean slopes."""
    return np.array([np.abs(r["random"]["means"]).mean() for r in records])


def above_random(records, address):
    """How far the vector's mean slope lies above the mean size of the random vectors'."""
    return estimator("behaviours", address)(58, column(records, "control_slope") - random_size(records))


def other_methods(records, address):
    """{method: means over behaviours}, and what other directions have more or less than the mean difference."""
    over, each, results = estimator("behaviours", address), partial(column, records), {}
    good, size = each("steerable") > 0, random_size(records)
    for i, name in enumerate(records[0]["methods"]):
        mine = {field: each("methods", name, field) for field in ("mean", "anti", "explained")}
        results[name] = {key: over(tag + 5 * i, mine[field]) for tag, key, field in (
            (60, "mean", "mean"), (61, "anti_steerable", "anti"), (62, "explained", "explained"))}
        if i:
            more = {field: mine[field] - each("methods", "mean_difference", field) for field in mine}
            results[name] |= {
                "minus_mean_difference": over(63 + 5 * i, more["mean"]),
                "explained_minus_mean_difference": over(64 + 5 * i, more["explained"]),
                "minus_random": over(90 + i, mine["mean"] - size),
                "explained_minus_where_steerable": over(95 + i, more["explained"][good]) if good.any() else
                Missing("no behaviour is steerable")}
    return results


def where_steerable(records, address):
    """"steerable_only" and "range" of the steerable behaviours, and the share that is "unsteerable"."""
    over, good = estimator("behaviours", address), [r for r in records if r["steerable"]]
    each, reaches, n = partial(column, good), [r["reach"] for r in records], len(records)
    means, anti, ratio = each("slope", "value"), each("anti_steerable"), each("sd") / np.abs(each("slope", "value"))
    vector, random = each("methods", "mean_difference", "explained"), each("random", "explained")
    within, ranges = reaches.count("within"), {name: each(f"slope_{name}") for name in ("half", "one")}
    return {
        "unsteerable": {"share": metrics.bounded_share(within, within + reaches.count("undecided"), n, "behaviours")},
        "steerable_only": {
            "spread": over(16, ratio, np.median), "anti_steerable": over(17, anti),
            "regular_anti_steerable": over(73, regular_anti(good)),
            "spread_minus_random": over(74, ratio - each("random", "spread"), np.median),
            "anti_minus_random": over(75, anti - each("random", "anti_oriented")),
            "explained": over(76, vector), "explained_random": over(77, random),
            "explained_minus_random": over(78, vector - random)},
        "range": {"minus_all": {name: over((82, i), x - means) for i, (name, x) in enumerate(ranges.items())},
                  **{part: {name: correlate_within(x, means, groups, [*address, 80, i])
                            for i, (name, x) in enumerate(ranges.items())}
                     if len(good) >= MIN_BEHAVIOURS else Missing(f"{len(good)} steerable behaviours")
                     for part, groups in (("spearman", np.zeros(len(good))),
                                          ("formats_apart", [r["format"] for r in good]))}}}


def summary(records, predictors, inputs, quantile, address):
    """Results over behaviours, which are what is resampled. predictors: per behaviour {name: number}; inputs: per
    behaviour its slopes and `signs`; quantile of the random vectors that a steerable behaviour beats."""
    over, each = estimator("behaviours", address), partial(column, records)
    means, anti = each("slope", "value"), each("anti_steerable")
    ratio, good = each("sd") / np.abs(means), each("steerable") > 0
    letter, yes, permuted = each("bias", "letter"), each("bias", "yes_marginal"), each("bias", "permuted")
    n_random = len(records[0]["random"]["means"])
    told = [[p[name] for name in PREDICTORS] for p in predictors]                       # (behaviour, predictor)
    formats, reaches = [r["format"] for r in records], [r["reach"] for r in records]
    vector, random = each("methods", "mean_difference", "explained"), each("random", "explained")
    lucky = by_luck(len(records), exceeds_by_luck(n_random, quantile))
    results = {
        "n": {"behaviours": len(records), "inputs": int(each("n").sum()), "random": n_random,
              "steerable": int(good.sum()), "steerable_by_luck": lucky,
              "reach": {name: reaches.count(name) for name in ("above", "within", "below", "undecided")}},
        "steerability": {"mean": over(0, means), "minus_random": above_random(records, address)},
        "spread": over(1, ratio, np.median),
        "anti_steerable": {"share": over(2, anti), "random_oriented": over(4, each("random", "anti_oriented")),
                           "regular": over(70, regular_anti(records)),
                           **{name: over(tag, each(name, "anti")) for name, tag in
                              (("random", 3), ("shuffled", 5), ("orthogonal", 19))}},
        "bias": {"explained": over(6, letter + yes), "letter": over(7, letter), "yes_marginal": over(8, yes),
                 "permuted": over(9, permuted), "excess": over(18, letter + yes - permuted),
                 "random": over(71, random), "minus_random": over(72, vector - random)},
        "linearity": {"r2": over(11, each("r2")), "monotonicity": over(12, each("monotonicity"))},
        "raw": {"spread": over(13, each("raw", "sd") / np.abs(each("raw", "mean")), np.median),
                "anti_steerable": over(14, each("raw", "anti_steerable"))},
        "definition": {"closing": over(50, each("sum", "mean") - means),
                       "anti_steerable": over(51, each("sum", "anti_steerable")),
                       "spearman": correlate(means, each("sum", "mean"), [*address, 54]),
                       "raw_closing": over(55, each("sum_raw", "mean") - each("raw", "mean")),
                       "raw_anti_steerable": over(56, each("sum_raw", "anti_steerable")),
                       "raw_spearman": correlate(each("raw", "mean"), each("sum_raw", "mean"), [*address, 57])},
        "leak": {"clean": over(0, means), "published": over(52, each("published", "mean")),
                 "published_minus_clean": over(53, each("published", "mean") - means),
                 "overlap_minus_fresh": over(15, each("published", "overlap") - each("published", "fresh")),
                 "overlap_share": float(each("published", "n_overlap").sum() / each("published", "n").sum())},
        "methods": other_methods(records, address), "predictors": foretold(told, means, formats, [*address, 20]) | {
            "spread": foretold(told, ratio, formats, [*address, 21])}}
    # A vector that does nothing has anti-steerable inputs and a large SD / |mean| too, and "some do not steer" says
    # nothing where none does: the same without those, if more behaviours beat the random vectors than luck explains.
    if steers(results):
        slopes, designs = ([one[0] for one in inputs], [one[1][:2] for one in inputs])
        results |= where_steerable(records, address) | {
            "calibration": calibration(slopes, designs, formats, good, [*address, 84])}
    else:
        results |= dict.fromkeys(("steerable_only", "unsteerable", "range", "calibration"), Missing(
            f"{good.sum()} of {len(good)} behaviours beat random vectors; up to {lucky} would by luck"))
    swaps = [r["swap"] for r in records if r["swap"]]
    results["bias"]["swap"] = {
        key: over(30, [swap[key] for swap in swaps]) for key in ("flips_sign", "within_share", "letter_effect")
    } if swaps else Missing("no input comes with its options swapped")

    # planted truth: inputs that answer from the other side, biases in nats, defaults
    mixed = [r["contrary"] for r in records if r["contrary"]["n"] and r["contrary"]["regular_anti"] is not None]
    truths = [(r["unsteered"], r["planted"]) for r in records if r["planted"]]
    planted = results["planted"] = {
        key: over(tag, [c[field] for c in mixed]) if mixed else Missing("no input is planted as contrary")
        for tag, key, field in ((40, "contrary_anti", "anti"), (41, "regular_anti", "regular_anti"))}
    for tag, key in ((42, "letter"), (43, "yes")):
        errors = [found[key] - truth[f"{key}_bias"] for found, truth in truths if found[key] is not None]
        planted[f"{key}_bias"] = over(tag, errors) if errors else Missing(
            "nothing of the kind is planted in this suite")
    planted["default_spearman"] = correlate([found["default"] for found, _ in truths],
                                            [truth["default"] for _, truth in truths], [*address, 44])
    found, missing = metrics.missing_apart(results)
    return found | {"not_testable": missing}


def beside(records, published, steers, address):
    """(results, {missing: reason}) of rank correlations over behaviours with the published values of other models.

    published  data/published.json, "reliability". Theirs are slopes of the released definition against raw multipliers,
    so ours are too; "matched": ours at matched strength; "_within": ranks within formats. steers: whether more behaviours
    steer than luck explains; without that an order of slopes near zero would be compared, which the texts' form decides.
    A planted behaviour has the name of a published one and other statements: it is left out."""
    mine, results = {r["name"]: r for r in records if not r["planted"]}, {}

    def both(row):
        return row["letter"] + row["yes_marginal"]

    ours = {"steerability": lambda r: r["sum_raw"]["mean"], "matched": lambda r: r["sum"]["mean"],
            "explained": lambda r: both(r["bias"]), "anti_steerable": lambda r: r["sum_raw"]["anti_steerable"]}
    columns = [(what, model, values) for model, values in published["steerability"].items()
               for what in ("steerability", "matched")]
    for model, rows in published["per_input"].items():
        columns += [("anti_steerable", model, {name: row["anti_steerable"] for name, row in rows.items()}),
                    ("explained", model, {name: both(row) for name, row in rows.items()})]
    for i, (what, model, theirs) in enumerate(columns):
        shared, key = sorted(set(mine) & set(theirs)), model.replace(".", "_")    # a dot separates the parts of a key
        x, y = [ours[what](mine[b]) for b in shared], [theirs[b] for b in shared]
        reason = Missing("the suite has none of the published statements") if not shared else \
            None if steers else Missing("no more behaviours steer than luck explains")
        results.setdefault(what, {})[key] = reason or correlate(x, y, [*address, i])
        results.setdefault(f"{what}_within", {})[key] = reason or correlate_within(
            x, y, [mine[b]["format"] for b in shared], [*address, i])
    return metrics.missing_apart(results)


def compare(names, tables, idle, address):
    """(rows, results) of the rank correlations over behaviours between every two models.

    tables  per model {behaviour: record}; idle: models on which no more behaviours steer than luck explains, whose
    noise would correlate with nothing. With more than two models the pair that agrees least speaks for the
    claim ("spearman"); the estimates of all pairs stand beside it. "_within": within formats, since texts of two forms
    differ on any model."""
    columns = {"steerability": "mean", "steerability_sd": "sd", "anti_steerable": "anti_steerable"}
    rows, results = [], {what + part: {} for what in columns for part in ("", "_within")}
    for (i, first), (j, second) in combinations(enumerate(names), 2):
        pair = f"{first} / {second}"
        both = [(tables[i][name], tables[j][name]) for name in tables[i] if name in tables[j]]
        mine = [{"pair": pair, "name": two[0]["name"], "format": two[0]["format"],
                 "mean": [r["slope"]["value"] for r in two],
                 **{key: [r[key] for r in two] for key in ("sd", "anti_steerable")}} for two in both]
        rows += mine
        for what, column in columns.items():
            x, y = ([row[column][side] for row in mine] for side in (0, 1))
            results[what][pair] = correlate(x, y, [*address, i, j])
            results[f"{what}_within"][pair] = correlate_within(x, y, [row["format"] for row in mine], [*address, i, j])
    for what, pairs in results.items():
        given = [estimate for estimate in pairs.values() if not isinstance(estimate, Missing)]
        if idle:
            pairs["spearman"] = Missing(f"no more behaviours steer than luck explains on {', '.join(idle)}")
        elif given:
            pairs["spearman"] = min(given, key=lambda estimate: estimate["value"])
        else:
            results[what] = Missing("no two models share enough behaviours")
    found, missing = metrics.missing_apart(results)
    return rows, found | {"not_testable": missing}
