"""What stage 03 concludes from the texts, propensities and log-probabilities it measured. Pure functions.

Each returns (rows, results, missing): records to keep and to draw; estimates as in lib.metrics; and
{dotted key of a result that these data cannot give: reason}.
"""
import numpy as np

from lib import metrics
from lib.artifacts import UserError
from lib.cases import number

ARMS = ("unsteered", "prompted", "steered", "steered_prompted", "random")


def estimator(unit, address):
    """over(tag, values, stat=mean, clusters=None): the bootstrap of one unit; `tag` keeps its draws apart."""
    def over(tag, values, stat=np.mean, clusters=None):
        return metrics.bootstrap(np.asarray(values, np.float64), stat, unit=unit, clusters=clusters,
                                 seed_address=[*address, tag])
    return over


# --- traits ------------------------------------------------------------------------------------------------
def trait_rows(cases, traits, tasks, address):
    """One record per trait and task: means of the arms over the prompts all arms share, and the paired gain.

    cases   lib.cases records with task, item, arm; the unsteered ones hold the scores of every trait
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
            expression, coherence = scores[usable, :, 0], scores[usable, :, 1]
            gain = expression[:, ARMS.index("steered")] - expression[:, ARMS.index("unsteered")]
            rows.append({"trait": trait["name"], "scope": trait["scope"], "group": trait["group"],
                         "task": task, "n": int(usable.sum()), "unscored": int((~usable).sum()),
                         "expression": dict(zip(ARMS, expression.mean(axis=0))),
                         "coherence": dict(zip(ARMS, coherence.mean(axis=0))),
                         "gain": metrics.bootstrap(gain, unit="prompts", seed_address=[*address, t, k])})
    return rows


def traits(cases, traits, tasks, address):
    """Expression and gain per trait and task, and estimates over traits. Vectors were made on tasks[0]."""
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
    effect = first_token_effect(cases, [trait["name"] for trait in traits])
    if effect:
        results["first_token_effect"] = over(7, effect)
    else:
        missing["traits.first_token_effect"] = "no text was made with the other start of steering"
    if scope.all() or not scope.any():
        missing["traits.global_minus_local"] = "the traits are all global or all local"
    else:
        results["global_minus_local"] = over(1, np.stack([gain[:, 0], scope], axis=1), split_difference)
    return rows, results, missing


def first_token_effect(cases, names):
    """Per trait with scored pairs, the mean over prompts of steered - steered_other_start expression."""
    found = {name: {} for name in names}
    for case in cases:
        if case["arm"] in ("steered", "steered_other_start"):
            found[case["trait"]][case["item"], case["arm"]] = number(case["expression"][case["trait"]])
    effects = [[score - scores.get((item, "steered_other_start"), np.nan)
                for (item, arm), score in scores.items() if arm == "steered"] for scores in found.values()]
    return [np.nanmean(effect) for effect in effects if np.isfinite(effect).any()]


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


def behaviour_rows(names, slopes, curves, unsteered, likeness, pairs, shifts, settings, multipliers, smallest):
    """(behaviours, shifts): one record per behaviour, one per behaviour and pair of settings.

    names (input,) the behaviour of each input; slopes (input, pair); curves (input, pair, multiplier);
    unsteered (input, setting); propensities in nats. likeness (behaviour, setting, setting) cosines of the
    vectors; pairs are (vector's, inputs') settings, shifts those of them that are "plotted"."""
    names, behaviours, moved = np.asarray(names), [], []
    zero, one, base = multipliers.index(0.0), multipliers.index(1.0), pairs.index(("BASE", "BASE"))
    for k, name in enumerate(dict.fromkeys(names.tolist())):
        mine = names == name
        s, m = slopes[mine].mean(axis=0), unsteered[mine].astype(np.float64)
        effect = m - m[:, [settings.index("BASE")]]
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
            own = s[pairs.index((b, b))]
            share = relative_steerability(s[p], own, smallest)
            moved.append({"behaviour": name, "shift": arrow((a, b)), "plotted": (a, b) in shifts,
                          "id": s[base], "ood": s[p], "own": own, "distance": np.abs(m[:, i] - m[:, j]).mean(),
                          "cosine": likeness[k, i, j], "relative": None if np.isnan(share) else share})
    return behaviours, moved


def arrow(pair):
    return f"{pair[0]}->{pair[1]}"


def behaviours(names, slopes, curves, unsteered, likeness, pairs, shifts, settings, multipliers, smallest,
               address):
    """`behaviour_rows`, and estimates over behaviours: all pairs of a behaviour are resampled together.

    shifts: the pairs that the headline correlations run over; grid: those over all pairs of two settings,
    and with the pairs of one ("with_self")."""
    rows, moved = behaviour_rows(names, slopes, curves, unsteered, likeness, pairs, shifts, settings,
                                 multipliers, smallest)
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


def pooled_spearman(values):
    """Spearman of values[..., 0] with values[..., 1] over finite pairs; nan below three or for a constant."""
    values = values.reshape(-1, 2)
    x, y = values[np.isfinite(values).all(axis=1)].T
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return metrics.spearman(x, y)


# --- relations ---------------------------------------------------------------------------------------------
def relations(items, logp, top1, address):
    """Gain of the antonym's log-probability by template and by level, over controls.

    items  (prompt,) records with x, y, template, own (the template the vector was made in?), level, component
    logp   (prompt, row) nats; rows: unsteered, antonym, -antonym, synonym vector, random ones; top1 likewise
    Gains are net of the mean random vector. Word components are resampled, so that pairs which share a word
    stay together."""
    raw = (logp[:, 1:] - logp[:, :1]).astype(np.float64)
    noise = raw[:, 3:].mean(axis=1)
    gain, flipped, synonym = (raw[:, :3] - noise[:, None]).T
    template, level, own = (np.array([item[key] for item in items]) for key in ("template", "level", "own"))
    words = [f"{item['x']} {item['y']}" for item in items]
    labels = {word: item["component"] for word, item in zip(words, items)}
    words = np.array(words)
    at = [words == word for word in labels]
    def per_pair(values, keep):                                  # (pair,) mean over its prompts that are kept
        return np.array([values[keep & mine].mean() for mine in at])
    bare, clusters, missing = level == 0, list(labels.values()), {}
    estimate = estimator("word components", address)
    def over(tag, values, keep=bare):
        return estimate(tag, per_pair(values, keep), clusters=clusters)
    levels, names = sorted(set(level.tolist())), list(dict.fromkeys(template.tolist()))
    def slope(keep):
        return metrics.slopes(levels, np.stack([per_pair(gain, keep & (level == x)) for x in levels], axis=1))
    everywhere, arms = level >= 0, ("unsteered", "antonym", "flipped", "synonym_vector")
    results = {
        "n": {"pairs": len(at), "components": len(set(clusters)), "templates": len(names),
              "random": raw.shape[1] - 3},
        "antonym_gain": over(0, gain), "own_template_gain": over(1, gain, bare & own),
        "flipped_gain": over(2, flipped), "synonym_vector_gain": over(3, synonym),
        "antonym_minus_synonym_vector": over(4, gain - synonym), "random_gain": over(5, noise),
        "complexity_slope": estimate(6, slope(everywhere), clusters=clusters),
        "complexity_slope_own": estimate(7, slope(own), clusters=clusters),
        "top1": {arm: over(10 + i, top1[:, i].astype(float)) for i, arm in enumerate(arms)}
        | {"random": over(14, top1[:, 4:].mean(axis=1))}}
    if own.all():
        missing["relations.template_gap"] = "the suite has one template"
    else:
        gap = per_pair(gain, bare & own) - per_pair(gain, bare & ~own)
        results["template_gap"] = estimate(8, gap, clusters=clusters)
    facets = [("template", name, bare & (template == name)) for name in names]
    facets += [("level", x, level == x) for x in levels]
    rows = [{"facet": facet, "x": x, "own": bool(own[keep].all()), "gain": over(20 + i, gain, keep),
             "synonym_vector": synonym[keep].mean(), "flipped": flipped[keep].mean(),
             "random": noise[keep].mean(), "unsteered_logp": logp[keep, 0].mean(),
             "top1_unsteered": top1[keep, 0].mean(), "top1": top1[keep, 1].mean(),
             "top1_random": top1[keep, 4:].mean()}
            for i, (facet, x, keep) in enumerate(facets)]
    return rows, results, missing


# --- values ------------------------------------------------------------------------------------------------
def values(names, items, lean, steered, known, facts, strengths, address):
    """Shift of the probes' log-odds, over-correction and loss of facts against relative strength.

    names      values; items (probe,) records with value and level (context complexity)
    lean       (probe,) unsteered log-odds of the positive continuation, nats
    steered    (probe, strength, vector) the same steered; vectors: value, minus value, then random ones
    known      (fact,) 1 where the unsteered model has the fact; facts (value, fact, strength, vector) steered
    strengths  (value, strength) relative: ascending ones shared by all values, then the tuned one"""
    over, facts_over = estimator("probes", [*address, 0]), estimator("facts", [*address, 1])
    lean, steered, facts = (np.asarray(x, np.float64) for x in (lean, steered, facts))
    owner, level = (np.array([item[key] for item in items]) for key in ("value", "level"))
    moved = steered - lean[:, None, None]
    noise = moved[:, :, 2:].mean(axis=2)
    shift = moved[:, :, 0] - noise                                               # (probe, strength)
    past, too_far = correction(lean, steered)
    loss = known[:, None] - facts[..., 0].mean(axis=0)                           # (fact, strength)
    random_loss = known[:, None] - facts[..., 2:].mean(axis=(0, 3))
    largest, tuned = -2, -1
    results = {
        "n": {"values": len(names), "probes": len(lean), "facts": len(known), "random": steered.shape[2] - 2},
        "shift": over(0, shift[:, tuned]), "shift_random": over(1, noise[:, tuned]),
        "past_even_tuned": over(2, past[:, tuned]), "overcorrected": over(3, too_far[:, largest]),
        "overcorrected_tuned": over(4, too_far[:, tuned]), "fact_accuracy": facts_over(0, known),
        "fact_loss": facts_over(1, loss[:, largest]), "fact_loss_tuned": facts_over(3, loss[:, tuned]),
        "fact_loss_random": facts_over(2, random_loss[:, largest]),
        "shift_at_level": {str(x): over(10 + i, shift[level == x, tuned])
                           for i, x in enumerate(sorted(set(level.tolist())))}}
    rows = []
    for v, name in enumerate(names):
        mine = owner == name
        rows.append({"value_name": name, "strength": 0.0, "tuned": False,
                     "shift": over(90 + v, 0 * lean[mine]), "shift_random": 0.0, "past_even": 0.0,
                     "overcorrected": 0.0, "fact_accuracy": known.mean(),
                     "fact_accuracy_random": known.mean()})
        for s, strength in enumerate(strengths[v]):
            rows.append({"value_name": name, "strength": strength, "tuned": s == len(strengths[v]) - 1,
                         "shift": over(100 + 20 * v + s, shift[mine, s]),
                         "shift_random": noise[mine, s].mean(),
                         "past_even": past[mine, s].mean(), "overcorrected": too_far[mine, s].mean(),
                         "fact_accuracy": facts[v, :, s, 0].mean(),
                         "fact_accuracy_random": facts[v, :, s, 2:].mean()})
    return rows, results, {}


def correction(lean, steered):
    """Each probe steered against its lean: (does it end past even odds, does it end further on the other side
    than it began on its own), both (probe, strength) bool. lean (probe,), steered (probe, strength, vector)
    log-odds in nats; vectors: value first, minus value second."""
    against = np.where((lean > 0)[:, None], steered[:, :, 1], steered[:, :, 0])
    beyond = -np.sign(lean)[:, None] * against
    return beyond > 0, beyond > np.abs(lean)[:, None]
