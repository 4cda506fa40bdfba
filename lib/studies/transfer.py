"""What stage 03 concludes from the texts, propensities and log-probabilities it measured. Pure functions.

Each returns (rows, results, missing): records to keep and to draw; estimates as in lib.metrics; and
{dotted key of a result that these data cannot give: reason}.
"""
from itertools import product

import numpy as np

from lib import metrics
from lib.artifacts import UserError
from lib.judging.cases import number
from lib.metrics import Missing, estimator, pooled_spearman
from lib.studies.reliability import by_luck

LUCK = 0.05               # chance of an interval over twelve prompts above 0 without an effect, on the safe side
ARMS = ("unsteered", "prompted", "steered", "steered_prompted", "random")


# --- traits ------------------------------------------------------------------------------------------------
def by_prompt(cases):
    """{(trait, task, arm): {item: {"expression", "coherence", "preference": score or nan}}}."""
    found = {}
    for case in cases:
        for trait, expression in case["expression"].items():
            found.setdefault((trait, case["task"], case["arm"]), {})[case["item"]] = {
                "expression": number(expression), "coherence": number(case["coherence"]),
                "preference": number(case.get("preference", {}).get(trait))}
    return found


def by_trait(told, names, task, arm, minus=None, what="expression"):
    """(trait,) mean over prompts of one arm's score on one task, or of that minus the score of another arm on the
    same prompt; nan without a score. told: of `by_prompt`; what: expression, coherence or preference."""
    found = []
    for name in names:
        other = told.get((name, task, minus), {})
        values = np.array([score[what] - (other.get(item, {}).get(what, np.nan) if minus else 0)
                           for item, score in told.get((name, task, arm), {}).items()])
        values = values[np.isfinite(values)]
        found.append(values.mean() if len(values) else np.nan)
    return np.array(found)


def trait_rows(told, traits, tasks, address):
    """One record per trait and task: means of the arms over the prompts all arms share, with [low, high] over prompts,
    and the paired differences of arms as estimates.

    told    of `by_prompt`; unsteered texts have the scores of every trait
    traits  the suite's records of the traits to report
    UserError if a trait has no prompt of a task on which every arm has a score."""
    rows, over, measures = [], estimator("prompts", address), ("expression", "coherence")
    for (t, trait), (k, task) in product(enumerate(traits), enumerate(tasks)):
        arms = [told[trait["name"], task, arm] for arm in ARMS]
        scores = np.array([[[arm[item][what] for what in measures] for arm in arms] for item in arms[0]])
        usable = np.isfinite(scores).all(axis=(1, 2))
        if not usable.any():
            raise UserError(f"trait {trait['name']}, {task}: the judge scored no prompt in every arm")
        scores = scores[usable]
        counts = metrics.redraws(len(scores), [*address, t, k, 1])
        limits = metrics.interval(metrics.resampled_means(scores.reshape(len(scores), -1), counts))
        limits, arm = limits.reshape(2, len(ARMS), 2), dict(zip(ARMS, scores[..., 0].T))      # (end, arm, measure)
        row = {"trait": trait["name"], "scope": trait["scope"], "group": trait["group"], "task": task,
               "n": int(usable.sum()), "unscored": int((~usable).sum()),
               "halves": [np.subtract(arm["steered"], arm["random"])[half::2].mean() if len(scores) > half else None
                          for half in (0, 1)],
               **{name: over((t, k, *tag), arm[a] - arm[b]) for name, a, b, *tag in (
                   ("gain", "steered", "unsteered"), ("steered_minus_random", "steered", "random", 2),
                   ("prompted_minus_steered", "prompted", "steered", 3),
                   ("both_minus_prompted", "steered_prompted", "prompted", 4))}}
        for s, what in enumerate(measures):
            row |= {what: dict(zip(ARMS, scores[..., s].mean(axis=0))),
                    f"{what}_interval": dict(zip(ARMS, limits[..., s].T.tolist()))}
        rows.append(row)
    return rows


def traits(cases, traits, tasks, seen, steering, address):
    """Expression and gain per trait and task, and estimates over traits. Vectors were made on tasks[0]; cases
    (lib.judging.cases, with task, item, arm) of the task `seen` are on the very prompts that they were made from.

    steering  names of the traits that steer on the tuning split: only those have something to lose elsewhere
    What compares traits, tasks or prompting is net of the random arm: what any push does to a trait is no steering."""
    told, over, names = by_prompt(cases), estimator("traits", [*address, 1]), [trait["name"] for trait in traits]
    rows = trait_rows(told, traits, tasks, [*address, 0])

    def table(what, arm):                                                                     # (trait, task)
        return np.array([row[what][arm] for row in rows]).reshape(-1, len(tasks))

    expression = {arm: table("expression", arm) for arm in ARMS}
    gain = expression["steered"] - expression["unsteered"]
    scope = np.array([trait["scope"] == "global" for trait in traits])
    halves = np.array([row["halves"] for row in rows[::len(tasks)]], np.float64)
    beyond = sum(row["steered_minus_random"]["low"] > 0 for row in rows[::len(tasks)])
    lucky = by_luck(len(traits), LUCK)
    mean = {arm: expression[arm].mean(axis=1) for arm in ARMS}
    results = decisive(expression, halves, scope, np.isin(names, steering), tasks, over) | {
        "n": {"traits": len(traits), "prompts": min(row["n"] for row in rows), "texts": len(cases),
              "unscored": sum(row["unscored"] for row in rows)},
        "steer": {"tuning": int(np.isin(names, steering).sum()), "beyond_random": beyond, "by_luck": lucky,
                  "excess": beyond - lucky},
        "both_minus_prompted": over(5, mean["steered_prompted"] - mean["prompted"]),
        "gain": {task: over(10 + k, gain[:, k]) for k, task in enumerate(tasks)},
        **{what: {arm: {task: over(tag + k, table(what, arm)[:, k]) for k, task in enumerate(tasks)} for arm in ARMS}
           for tag, what in ((20, "expression"), (30, "coherence"))}}
    # what the release's choices were worth, each against the same prompts or the same trait
    gained = {task: by_trait(told, names, task, "steered") - by_trait(told, names, task, "unsteered")
              for task in (tasks[0], seen)}
    variants = {"first_token_effect": by_trait(told, names, tasks[0], "steered", "steered_other_start"),
                "search_effect": by_trait(told, names, tasks[0], "steered", "narrow"),
                "search_coherence": by_trait(told, names, tasks[0], "steered", "narrow", "coherence"),
                "seen_minus_held_out": gained[seen] - gained[tasks[0]]}
    for tag, (key, effect) in enumerate(variants.items(), 40):
        effect = effect[np.isfinite(effect)]
        results[key] = over(tag, effect) if len(effect) else Missing("no text was made both ways")
    preference = np.mean([by_trait(told, names, task, "steered", what="preference") for task in tasks[1:]], axis=0)
    preference, steered = (values[np.isfinite(preference)] for values in (preference, expression["steered"]))
    mixed, same = steered[:, 0] - (preference + 2) / 4 * 100, steered[:, 0] - steered[:, 1:].mean(axis=1)
    results["scales"] = {
        "preference": over(50, preference), "gap_mixed": over(51, mixed), "gap": over(52, same),
        "mixed_minus_one_scale": over(53, mixed - same),
        "traits_that_improve": {"mixed": int((mixed < 0).sum()), "one_scale": int((same < 0).sum())}
    } if len(preference) else Missing("no preference scores")
    return rows, *metrics.missing_apart(results, "traits.")


def decisive(expression, halves, scope, works, tasks, over):
    """The results that decide claims, est. over traits.

    expression {arm: (trait, task)} means over prompts; halves (trait, 2) steered minus random on every other prompt of
    tasks[0] and on the rest; scope (trait,) is it global?; works (trait,) does it steer?"""
    net, mean = expression["steered"] - expression["random"], {arm: x.mean(axis=1) for arm, x in expression.items()}
    email, summary = (net[:, tasks.index(task)] for task in ("email", "summary"))

    def among(tag, values):
        return over(tag, values[works]) if works.any() else Missing("no trait steers on the tuning split")

    return {
        "expressibility_spread": over(0, halves, crossed_spread) if np.isfinite(halves).all() else Missing(
            "a trait has one prompt: its noise cannot be told from its expression"),
        "global_minus_local": over(1, np.stack([net[:, 0], scope], axis=1), split_difference)
        if 0 < scope.sum() < len(scope) else Missing("the traits are all global or all local"),
        "transfer_gap": among(2, net[:, 0] - net[:, 1:].mean(axis=1)), "summary_deficit": among(3, email - summary),
        "prompted_minus_steered": among(4, mean["prompted"] - mean["steered"]),
        "prompted_gain": over(7, mean["prompted"] - mean["unsteered"]),
        "steered_minus_random": over(6, mean["steered"] - mean["random"])}


def crossed_spread(values):
    """Mean of the top fifth minus mean of the bottom fifth of the rows, in one column as the other ranks them; mean
    of both ways. Rows that differ by noise alone give 0, as noise in one column says nothing of the other's."""
    fifth, order = max(1, len(values) // 5), np.argsort(values, axis=0, kind="stable")
    return np.mean([values[order[-fifth:, a], b].mean() - values[order[:fifth, a], b].mean()
                    for a, b in ((0, 1), (1, 0))])


def split_difference(values):
    """Mean of column 0 where column 1 is 1, minus its mean where it is 0; nan if either does not occur."""
    ones = values[:, 1] > 0
    return values[ones, 0].mean() - values[~ones, 0].mean() if 0 < ones.sum() < len(ones) else np.nan


def trait_inputs(told, names, tasks, words, address):
    """One record per trait over the prompts of all tasks: share that the vector makes worse ("worse": less of the trait
    than unsteered) and leaves as they are ("unmoved"), est.; Spearman of the gain with the unsteered expression and
    with the prompt's length, est. or None where one is constant; and on tasks[0] what the vector gains more than those
    of shuffled labels, est. or None. told: of `by_prompt`; words {item: words of its prompt}."""
    rows, over = [], estimator("prompts", address)
    for t, name in enumerate(names):
        pairs = [(scores["expression"], told[name, task, "unsteered"][item]["expression"], words[item])
                 for task in tasks for item, scores in told[name, task, "steered"].items()]
        shown, lean, length = np.array([pair for pair in pairs if np.isfinite(pair[:2]).all()], float).reshape(-1, 3).T
        gain = shown - lean
        row = {"trait": name, "n": len(gain), "worse": over((t, 0), gain < 0), "unmoved": over((t, 1), gain == 0)}
        for tag, (what, x) in enumerate((("by_unsteered", lean), ("by_length", length)), 2):
            row[what] = metrics.bootstrap_corr(gain, x, unit="prompts", seed_address=[*address, t, tag]) if (
                len(gain) > 2 and np.ptp(gain) and np.ptp(x)) else None
        more = [scores["expression"] - told[name, tasks[0], "shuffled"][item]["expression"]
                for item, scores in told[name, tasks[0], "steered"].items()
                if item in told.get((name, tasks[0], "shuffled"), {})]
        more = [value for value in more if np.isfinite(value)]
        rows.append(row | {"steered_minus_shuffled": over((t, 4), more) if more else None})
    return rows


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
    setting) cosines of the vectors; pairs are (vector's, inputs') settings, shifts those of them that are "plotted". A
    shift's intervals resample contents, the same for all pairs, so that numerator and denominator of "relative" stay
    together."""
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


def inside_pairs(columns, at, address, formats=None):
    """Spearman of two columns (behaviour, pair) within the pairs of settings `at`, behaviours resampled: what differs
    between pairs does not count, nor, with formats (behaviour,), what differs between these. A third column is
    partialled out."""
    values = np.stack([column[:, at] for column in columns], axis=2)
    if formats is not None:
        formats = np.asarray(formats)
        values = np.concatenate([np.where((formats == fmt)[:, None, None], values, np.nan)
                                 for fmt in np.unique(formats)], axis=1)
    return metrics.bootstrap_within(values, unit="behaviours", seed_address=address)


def by_shift(columns, pairs, at, address, formats=None):
    """The same in each of the pairs `at` by itself, {arrow: estimate}; the reason of the first that has none."""
    found = {arrow(pairs[p]): inside_pairs(columns, [p], [*address, p], formats) for p in at}
    return next((Missing(f"{shift}: {one}") for shift, one in found.items() if isinstance(one, Missing)), found)


def behaviours(names, contents, formats, slopes, curves, unsteered, likeness, pairs, shifts, settings, multipliers,
               smallest, address):
    """`behaviour_rows`, and estimates over behaviours, whose formats (behaviour,) are in the order of their first
    inputs: all pairs of a behaviour are resampled together.

    shifts: the pairs that the headline correlations run over, each by itself and ("_within") with ranks inside each;
    pooled correlations also count what differs between them, and all but "formats_apart" what differs between formats.
    "_published": denominators above `smallest`, as in the paper. grid: all pairs of two settings, and with the pairs of
    one ("with_self")."""
    rows, moved = behaviour_rows(names, contents, slopes, curves, unsteered, likeness, pairs, shifts, settings,
                                 multipliers, smallest, [*address, 60])
    over = estimator("behaviours", address)

    def column(key):                                                                    # (behaviour, pair)
        values = [np.nan if row[key] is None else row[key] for row in moved]
        return np.array(values, np.float64).reshape(-1, len(pairs))

    def each(key):
        return np.array([row[key] for row in rows])

    def correlate(tag, x, y, at):
        both = np.stack([x[:, at], y[:, at]], axis=2)  # with gaps, so behaviours are drawn by their number
        if not np.isfinite(pooled_spearman(both)):
            return Missing("fewer than three pairs of values, or a side that is constant")
        return over(tag, np.arange(len(both)), lambda drawn: pooled_spearman(both[drawn.astype(int)]))

    inside, outside, own, distance, cosine = (column(key) for key in ("id", "ood", "own", "distance", "cosine"))
    relative = relative_steerability(outside, own, smallest)
    plotted, everywhere = [pairs.index(shift) for shift in shifts], list(range(len(pairs)))
    others, base = [p for p, (a, b) in enumerate(pairs) if a != b], pairs.index(("BASE", "BASE"))
    shifted, movable = [p for p in everywhere if p != base], np.isfinite(relative[:, plotted])
    immovable = Missing(f"no vector moves its own setting by over {smallest} nats per unit")

    def with_relative(tag, x, at):
        return correlate(tag, x, relative, at) if movable.any() else immovable

    def within(tag, *columns, at=plotted, apart=None):
        return inside_pairs(columns, at, [*address, tag], apart)

    spread = np.array([list(row["sd"].values()) for row in rows])
    own_spread, filtered = np.broadcast_to(spread[:, [base]], spread.shape), np.where(own > smallest, relative, np.nan)
    results = {
        "n": {"behaviours": len(rows), "shifts": len(shifts), "pairs": len(pairs),
              "inputs": min(row["n"] for row in rows), "no_denominator": int((~movable).sum()),
              "denominators": {arrow(pairs[p]): int(np.isfinite(relative[:, p]).sum()) for p in plotted},
              "denominators_published": {arrow(pairs[p]): int(np.isfinite(filtered[:, p]).sum()) for p in plotted}},
        "id_steerability": over(0, inside[:, 0]), "ood_steerability": over(1, outside[:, plotted].mean(axis=1)),
        "id_ood_spearman": correlate(2, inside, outside, plotted),
        "id_ood": by_shift((inside, outside), pairs, plotted, [*address, 40]),
        "id_ood_sd": by_shift((own_spread, spread), pairs, plotted, [*address, 130]),
        "id_ood_sd_spearman": correlate(7, own_spread, spread, plotted),
        "vector_effect": over(3, each("vector_effect")),
        "both_minus_sentence": over(8, each("sentence_and_vector") - each("sentence")),
        "sentence_effect": {x: over(10 + i, [row["sentence_effect"][x] for row in rows])
                            for i, x in enumerate(rows[0]["sentence_effect"])},
        "sentence_minus_vector": over(4, [row["sentence_effect"]["SYS_POS"] - row["vector_effect"] for row in rows]),
        **{f"mean_{name}": {arrow(pair): float(values[:, p].mean()) for p, pair in enumerate(pairs)}
           for name, values in (("steerability", outside), ("cosine", cosine))},
        "per_shift": {arrow(pairs[p]): within(40 + p, inside, outside, at=[p]) for p in shifted},
        "distance_spearman": with_relative(5, distance, plotted),
        "distance_within": within(160, distance, relative),
        "distance_within_published": within(161, distance, filtered),
        "distance_per_shift": by_shift((distance, relative), pairs, plotted, [*address, 170]),
        "distance_given_cosine": within(162, distance, relative, cosine),
        "cosine_within": within(163, cosine, relative),
        "cosine_given_distance": within(164, cosine, relative, distance),
        "cosine_distance_within": within(165, cosine, distance, at=others),
        "formats_apart": {
            "id_ood": by_shift((inside, outside), pairs, plotted, [*address, 40], formats),
            "id_ood_sd": by_shift((own_spread, spread), pairs, plotted, [*address, 130], formats),
            "distance": within(160, distance, relative, apart=formats),
            "distance_given_cosine": within(162, distance, relative, cosine, apart=formats),
            "cosine_given_distance": within(164, cosine, relative, distance, apart=formats),
            "cosine_distance": within(165, cosine, distance, at=others, apart=formats)},
        "relative_steerability": over(6, np.nanmean(relative[:, plotted][movable.any(axis=1)], axis=1), np.median)
        if movable.any() else immovable,
        "grid": {"id_ood": correlate(30, inside, outside, shifted),
                 "id_ood_with_self": correlate(31, inside, outside, everywhere),
                 "cosine_distance": correlate(34, cosine, distance, others),
                 "distance_relative": with_relative(32, distance, others),
                 "distance_relative_with_self": with_relative(33, distance, everywhere),
                 "cosine_relative": with_relative(35, cosine, others)}}
    return (rows, moved), *metrics.missing_apart(results, "behaviours.")
