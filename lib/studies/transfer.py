"""What stage 03 concludes from the texts, propensities and log-probabilities it measured. Pure functions.

Each returns (rows, results, missing): records to keep and to draw; estimates as in lib.metrics; and
{dotted key of a result that these data cannot give: reason}.
"""
import numpy as np

from lib import metrics
from lib.artifacts import UserError
from lib.judging.cases import number
from lib.metrics import estimator, pooled_spearman

ARMS = ("unsteered", "prompted", "steered", "steered_prompted", "random")


# --- traits ------------------------------------------------------------------------------------------------
def trait_rows(cases, traits, tasks, address):
    """One record per trait and task: means of the arms over the prompts all arms share, with [low, high] over prompts,
    and the paired differences of arms as estimates.

    cases   lib.judging.cases records with task, item, arm; the unsteered ones hold the scores of every trait
    traits  the suite's records of the traits to report
    UserError if a trait has no prompt of a task on which every arm has a score."""
    found = {}
    for case in cases:
        for trait, expression in case["expression"].items():
            prompts = found.setdefault((trait, case["task"]), {})
            prompts.setdefault(case["item"], {})[case["arm"]] = number(expression), number(case["coherence"])
    rows = []
    for t, trait in enumerate(traits):
        for k, task in enumerate(tasks):
            scores = np.array([[arms[arm] for arm in ARMS] for arms in found[trait["name"], task].values()])
            usable = np.isfinite(scores).all(axis=(1, 2))
            if not usable.any():
                raise UserError(f"trait {trait['name']}, {task}: the judge scored no prompt in every arm")
            scores = scores[usable]
            counts = metrics.redraws(len(scores), [*address, t, k, 1])
            limits = metrics.interval(metrics.resampled_means(scores.reshape(len(scores), -1), counts))
            limits = limits.reshape(2, len(ARMS), 2)                       # (end, arm, expression or coherence)
            arm = dict(zip(ARMS, scores[..., 0].T))
            rows.append({"trait": trait["name"], "scope": trait["scope"], "group": trait["group"],
                         "task": task, "n": int(usable.sum()), "unscored": int((~usable).sum()),
                         **{what: dict(zip(ARMS, scores[..., s].mean(axis=0)))
                            for s, what in enumerate(("expression", "coherence"))},
                         **{f"{what}_interval": dict(zip(ARMS, limits[..., s].T.tolist()))
                            for s, what in enumerate(("expression", "coherence"))},
                         **{name: metrics.bootstrap(arm[a] - arm[b], unit="prompts",
                                                    seed_address=[*address, t, k, *tag])
                            for name, a, b, tag in (("gain", "steered", "unsteered", ()),
                                                    ("steered_minus_random", "steered", "random", (2,)),
                                                    ("prompted_minus_steered", "prompted", "steered", (3,)),
                                                    ("both_minus_prompted", "steered_prompted", "prompted", (4,)))}})
    return rows


def traits(cases, traits, tasks, seen, address):
    """Expression and gain per trait and task, and estimates over traits. Vectors were made on tasks[0]; cases of the
    task `seen` are on the very prompts that they were made from."""
    rows, missing = trait_rows(cases, traits, tasks, [*address, 0]), {}
    over = estimator("traits", [*address, 1])
    def table(what, arm):                                                                     # (trait, task)
        return np.array([row[what][arm] for row in rows]).reshape(-1, len(tasks))
    expression = {arm: table("expression", arm) for arm in ARMS}
    gain = expression["steered"] - expression["unsteered"]
    scope = np.array([trait["scope"] == "global" for trait in traits])
    email, summary = (gain[:, tasks.index(task)] for task in ("email", "summary"))
    mean = {arm: expression[arm].mean(axis=1) for arm in ARMS}
    results = {
        "n": {"traits": len(traits), "prompts": min(row["n"] for row in rows), "texts": len(cases),
              "unscored": sum(row["unscored"] for row in rows)},
        "expressibility_spread": over(0, expression["steered"][:, 0], spread),
        "transfer_gap": over(2, gain[:, 0] - gain[:, 1:].mean(axis=1)),
        "summary_deficit": over(3, email - summary),
        "prompted_minus_steered": over(4, mean["prompted"] - mean["steered"]),
        "both_minus_prompted": over(5, mean["steered_prompted"] - mean["prompted"]),
        "steered_minus_random": over(6, mean["steered"] - mean["random"]),
        "gain": {task: over(10 + k, gain[:, k]) for k, task in enumerate(tasks)},
        "expression": {arm: {task: over(20 + k, expression[arm][:, k]) for k, task in enumerate(tasks)}
                       for arm in ARMS},
        "coherence": {arm: {task: over(30 + k, table("coherence", arm)[:, k]) for k, task in enumerate(tasks)}
                      for arm in ARMS}}
    # what the release's choices were worth, each against the same prompts or the same trait
    names = [trait["name"] for trait in traits]
    here, there = ({arm: by_trait(cases, names, arm, task) for arm in ("steered", "unsteered")}
                   for task in (tasks[0], seen))
    variants = {"first_token_effect": paired(cases, names, "steered", "steered_other_start", tasks[0]),
                "search_effect": paired(cases, names, "steered", "narrow", tasks[0]),
                "search_coherence": paired(cases, names, "steered", "narrow", tasks[0], "coherence"),
                "seen_minus_held_out": (there["steered"] - there["unsteered"]) - (here["steered"] - here["unsteered"])}
    for tag, (key, effect) in enumerate(variants.items(), 40):
        effect = effect[np.isfinite(effect)]
        if len(effect):
            results[key] = over(tag, effect)
        else:
            missing[f"traits.{key}"] = "no text was made both ways"
    preference = np.mean([by_trait(cases, names, "steered", task, "preference") for task in tasks[1:]], axis=0)
    told = np.isfinite(preference)
    if told.any():
        preference, steered = preference[told], expression["steered"][told]
        mixed = steered[:, 0] - (preference + 2) / 4 * 100
        same = steered[:, 0] - steered[:, 1:].mean(axis=1)
        results["scales"] = {
            "preference": over(50, preference), "gap_mixed": over(51, mixed), "gap": over(52, same),
            "mixed_minus_one_scale": over(53, mixed - same),
            "traits_that_improve": {"mixed": int((mixed < 0).sum()), "one_scale": int((same < 0).sum())}}
    else:
        missing["traits.scales"] = "no preference scores"
    if scope.all() or not scope.any():
        missing["traits.global_minus_local"] = "the traits are all global or all local"
    else:
        results["global_minus_local"] = over(1, np.stack([gain[:, 0], scope], axis=1), split_difference)
    return rows, results, missing


def scored(cases, arm, task, what="expression"):
    """{trait: {item: score or nan}} of one arm on one task; what: expression, preference or coherence."""
    found = {}
    for case in cases:
        if (case["arm"], case["task"]) == (arm, task):
            for trait in case["expression"]:
                score = case[what] if what == "coherence" else case.get(what, {}).get(trait)
                found.setdefault(trait, {})[case["item"]] = number(score)
    return found


def _mean(values):
    values = np.array([value for value in values if np.isfinite(value)])
    return values.mean() if len(values) else np.nan


def by_trait(cases, names, arm, task, what="expression"):
    """(trait,) mean score of one arm on one task; nan without a score."""
    found = scored(cases, arm, task, what)
    return np.array([_mean(found.get(name, {}).values()) for name in names])


def paired(cases, names, first, second, task, what="expression"):
    """(trait,) mean over prompts of the first arm's score minus the second's on the same prompt; nan without a pair."""
    a, b = scored(cases, first, task, what), scored(cases, second, task, what)
    return np.array([_mean([score - b.get(name, {}).get(item, np.nan) for item, score in a.get(name, {}).items()])
                     for name in names])


def spread(values):
    """90th minus 10th percentile."""
    return np.subtract(*np.quantile(values, [0.9, 0.1]))


def split_difference(values):
    """Mean of column 0 where column 1 is 1, minus its mean where it is 0; nan if either does not occur."""
    ones = values[:, 1] > 0
    return values[ones, 0].mean() - values[~ones, 0].mean() if 0 < ones.sum() < len(ones) else np.nan


# --- behaviours --------------------------------------------------------------------------------------------
def relative_steerability(shifted, own, smallest):
    """s(v_A, D_B) / |s(v_B, D_B)|, the share of its own effect that a vector from elsewhere has; nan where
    |s(v_B, D_B)| <= smallest. Any shapes that agree, nats per unit of the multiplier.

    Tan et al. 2024 keep s(v_B, D_B) > 0.25, which also drops vectors that work backwards at home."""
    shifted, own = np.asarray(shifted, np.float64), np.asarray(own, np.float64)
    if shifted.shape != own.shape:
        raise ValueError(f"steerability of shape {shifted.shape} over one of shape {own.shape}")
    return np.divide(shifted, np.abs(own), out=np.full(own.shape, np.nan), where=np.abs(own) > smallest)


def behaviour_rows(names, contents, slopes, curves, unsteered, likeness, pairs, shifts, settings, multipliers, smallest,
                   address):
    """(behaviours, shifts): one record per behaviour, one per behaviour and pair of settings.

    names, contents (input,) the behaviour of each input, and what it shares with its swap; slopes (input, pair);
    curves (input, pair, multiplier); unsteered (input, setting); propensities in nats. likeness (behaviour, setting,
    setting) cosines of the vectors; pairs are (vector's, inputs') settings, shifts those of them that are "plotted". A shift's intervals
    resample contents, the same for all pairs, so that numerator and denominator of "relative" stay together."""
    names, contents, behaviours, moved = np.asarray(names), np.asarray(contents), [], []
    first, second = (np.array([settings.index(pair[side]) for pair in pairs]) for side in (0, 1))
    home = [pairs.index((b, b)) for _, b in pairs]                 # where each pair's inputs meet their own vector
    zero, one, base = multipliers.index(0.0), multipliers.index(1.0), pairs.index(("BASE", "BASE"))
    for k, name in enumerate(dict.fromkeys(names.tolist())):
        mine = names == name
        s, m = slopes[mine].mean(axis=0), unsteered[mine].astype(np.float64)
        effect = m - m[:, [settings.index("BASE")]]
        distances = np.abs(m[:, first] - m[:, second])
        counts = metrics.redraws(int(mine.sum()), [*address, k], contents[mine])
        drawn = metrics.resampled_means(slopes[mine], counts)
        drawn = {"ood": drawn, "own": drawn[:, home], "distance": metrics.resampled_means(distances, counts)}
        drawn["relative"] = drawn["ood"] / np.maximum(np.abs(drawn["own"]), 1e-12)
        limits = {name: metrics.interval(draws) for name, draws in drawn.items()}                   # (2, pair)
        behaviours.append({
            "name": name, "n": int(mine.sum()), "propensity": dict(zip(settings, m.mean(axis=0))),
            "steerability": {arrow(pair): value for pair, value in zip(pairs, s)},
            "sd": {arrow(pair): slopes[mine, p].std(ddof=1) for p, pair in enumerate(pairs)},
            "anti_steerable": {arrow(pair): (slopes[mine, p] <= 0).mean() for p, pair in enumerate(pairs)},
            "vector_effect": (curves[mine, base, one] - curves[mine, base, zero]).mean(),
            "sentence": m[:, settings.index("SYS_POS")].mean(),
            "sentence_and_vector": curves[mine, pairs.index(("BASE", "SYS_POS")), one].mean(),
            "sentence_effect": {x: effect[:, i].mean() for i, x in enumerate(settings) if x != "BASE"}})
        for p, (a, b) in enumerate(pairs):
            i, j = settings.index(a), settings.index(b)
            own = s[home[p]]
            share = relative_steerability(s[p], own, smallest)
            moved.append({"behaviour": name, "shift": arrow((a, b)), "plotted": (a, b) in shifts, "n": int(mine.sum()),
                          "id": s[base], "ood": s[p], "own": own, "distance": distances[:, p].mean(),
                          "cosine": likeness[k, i, j], "relative": None if np.isnan(share) else share,
                          **{f"{what}_interval": limits[what][:, p].tolist() for what in limits
                             if what != "relative" or not np.isnan(share)}})
    return behaviours, moved


def arrow(pair):
    return f"{pair[0]}->{pair[1]}"


def behaviours(names, contents, slopes, curves, unsteered, likeness, pairs, shifts, settings, multipliers, smallest,
               address):
    """`behaviour_rows`, and estimates over behaviours: all pairs of a behaviour are resampled together.

    shifts: the pairs that the headline correlations run over; grid: those over all pairs of two settings,
    and with the pairs of one ("with_self")."""
    rows, moved = behaviour_rows(names, contents, slopes, curves, unsteered, likeness, pairs, shifts, settings,
                                 multipliers, smallest, [*address, 60])
    over, missing = estimator("behaviours", address), {}
    def column(key):                                                                    # (behaviour, pair)
        values = [np.nan if row[key] is None else row[key] for row in moved]
        return np.array(values, np.float64).reshape(-1, len(pairs))
    def effect(sentence):
        return np.array([row["sentence_effect"][sentence] for row in rows])
    def correlate(tag, key, x, y):
        both = np.stack([x, y], axis=2)                # with gaps, so behaviours are drawn by their number
        if np.isfinite(pooled_spearman(both)):
            return {key: over(tag, np.arange(len(both)), lambda drawn: pooled_spearman(both[drawn.astype(int)]))}
        missing[f"behaviours.{key}"] = "fewer than three pairs of values, or a side that is constant"
        return {}
    inside, outside, own, distance, cosine = (column(key) for key in ("id", "ood", "own", "distance", "cosine"))
    relative = relative_steerability(outside, own, smallest)
    spread = np.array([list(row["sd"].values()) for row in rows])
    plotted = [pairs.index(shift) for shift in shifts]
    others, base = [p for p, (a, b) in enumerate(pairs) if a != b], pairs.index(("BASE", "BASE"))
    shifted = [p for p in range(len(pairs)) if p != base]
    vector = np.array([row["vector_effect"] for row in rows])
    asked, both = (np.array([row[key] for row in rows]) for key in ("sentence", "sentence_and_vector"))
    results = {
        "n": {"behaviours": len(rows), "shifts": len(shifts), "pairs": len(pairs),
              "inputs": min(row["n"] for row in rows),
              "no_denominator": int(np.isnan(relative[:, plotted]).sum())},
        "id_steerability": over(0, inside[:, 0]), "ood_steerability": over(1, outside[:, plotted].mean(axis=1)),
        **correlate(2, "id_ood_spearman", inside[:, plotted], outside[:, plotted]),
        **correlate(7, "id_ood_sd_spearman", spread[:, [base] * len(plotted)], spread[:, plotted]),
        "vector_effect": over(3, vector), "sentence_minus_vector": over(4, effect("SYS_POS") - vector),
        "both_minus_sentence": over(8, both - asked),
        "sentence_effect": {x: over(10 + i, effect(x)) for i, x in enumerate(rows[0]["sentence_effect"])},
        "mean_steerability": {arrow(pair): float(outside[:, p].mean()) for p, pair in enumerate(pairs)},
        "mean_cosine": {arrow(pair): float(cosine[:, p].mean()) for p, pair in enumerate(pairs)}}
    found = {}
    for p in shifted:
        name = arrow(pairs[p])
        found |= correlate(40 + p, f"per_shift.{name}", inside[:, [p]], outside[:, [p]])
    results["per_shift"] = {key.removeprefix("per_shift."): value for key, value in found.items()}
    grid = {**correlate(30, "grid.id_ood", inside[:, shifted], outside[:, shifted]),
            **correlate(31, "grid.id_ood_with_self", inside, outside),
            **correlate(34, "grid.cosine_distance", cosine[:, others], distance[:, others])}
    if np.isfinite(relative[:, plotted]).any():
        usable = np.isfinite(relative[:, plotted]).any(axis=1)
        results |= correlate(5, "distance_spearman", distance[:, plotted], relative[:, plotted])
        results["relative_steerability"] = over(6, np.nanmean(relative[:, plotted][usable], axis=1), np.median)
        grid |= {**correlate(32, "grid.distance_relative", distance[:, others], relative[:, others]),
                 **correlate(33, "grid.distance_relative_with_self", distance, relative),
                 **correlate(35, "grid.cosine_relative", cosine[:, others], relative[:, others])}
    else:
        for key in ("distance_spearman", "relative_steerability",
                    "grid.distance_relative", "grid.distance_relative_with_self", "grid.cosine_relative"):
            missing[f"behaviours.{key}"] = f"no vector moves its own setting by over {smallest} nats per unit"
    results["grid"] = {key.removeprefix("grid."): value for key, value in grid.items()}
    return (rows, moved), results, missing
