"""Gains of relation vectors (stage 03): by template and context, over controls, and the ways to make them.

Pure: log-probabilities of lib.studies.relations in, rows and estimates out, as the functions of lib.studies.transfer.
Gains are in nats, net of the mean random vector. What decides a claim is held against every single random vector too:
the interval over words does not hold how far random vectors differ from each other.
"""
import numpy as np

from lib import metrics
from lib.metrics import Missing
from lib.studies.relations import ARMS, LISTS, STYLES, TOP


def columns(items, *keys):
    return [np.array([item[key] for item in items]) for key in keys]


def distinct(values):
    """What occurs in values (n,), in order of first appearance."""
    return list(dict.fromkeys(values.tolist()))


def per_pair(items, address):
    """(over, gap, slope, joint): estimates over pairs, of each the mean of its items where `keep` (prompt,) bool
    holds. Word components are resampled, so that pairs which share a word stay together.

        over(tag, values, keep)          of values (prompt,)
        joint(tag, columns, keep, stat)  of a statistic of the means of columns (prompt, m) (lib.metrics.of_means)
        gap(tag, values, keep, other)    of the difference between two kinds of items
        slope(tag, values, keep)         of the change per level, by least squares over means in contexts"""
    words, (context, level) = [(item["x"], item["y"]) for item in items], columns(items, "context", "level")
    component = {word: item["component"] for word, item in zip(words, items)}
    number, clusters = {word: i for i, word in enumerate(component)}, list(component.values())
    pair, estimate = np.array([number[word] for word in words]), metrics.estimator("word components", address)

    def mean(values, keep):                                                                            # (pair,)
        total = np.bincount(pair[keep], np.asarray(values, np.float64)[keep], len(number))
        return total / np.bincount(pair[keep], minlength=len(number))

    def over(tag, values, keep):
        return estimate(tag, mean(values, keep), clusters=clusters)

    def joint(tag, columns, keep, stat):
        return metrics.of_means(np.stack([mean(column, keep) for column in columns.T], axis=1), stat,
                                unit="word components", clusters=clusters, seed_address=[*address, tag])

    def gap(tag, values, keep, other):
        return estimate(tag, mean(values, keep) - mean(values, other), clusters=clusters)

    def slope(tag, values, keep):
        at = [keep & (context == name) for name in distinct(context[keep])]
        curves = np.stack([mean(values, mine) for mine in at], axis=1)
        return estimate(tag, metrics.slopes([level[mine][0] for mine in at], curves), clusters=clusters)
    return over, gap, slope, joint


def log_odds(logp):
    """log p / (1 - p) of log p, nats; a p that float32 rounds to 1 counts as 1 - 1e-7."""
    logp = np.minimum(np.asarray(logp, np.float64), -1e-7)
    return logp - np.log(-np.expm1(logp))


SCALES = {"log_odds": log_odds, "probability": lambda logp: np.exp(np.asarray(logp, np.float64))}


def apart(means):
    """Gain of the vector less that of the synonym's, less the most that two random vectors lie apart: means (k, 2 +
    random) -> (k,), for `metrics.of_means`. Random vectors are taken two by two, either way round."""
    drawn = means[:, 2:]
    return means[:, 0] - means[:, 1] - np.abs(drawn[:, 0::2][:, :drawn.shape[1] // 2] - drawn[:, 1::2]).max(axis=1)


def template_spread(gain, items, keep, address, n_draws=2000):
    """How far templates lie apart: standard deviation of the mean gain (prompt,) over templates, less that where
    templates are permuted within each word component. The interval holds 95 % of the permutations: it is above 0 in
    2.5 % of cases if templates make no difference.

    items (prompt,) with keep (prompt,) bool: every component in every template, equally often."""
    template, component = (np.unique(column[keep], return_inverse=True)[1]
                           for column in columns(items, "template", "component"))
    shape = component.max() + 1, template.max() + 1
    total, count = (np.bincount(component * shape[1] + template, weights, shape[0] * shape[1]).reshape(shape)
                    for weights in (gain[keep], None))
    rng, found = np.random.default_rng(address), np.zeros((n_draws, shape[1]))
    for row in total:                                        # (template,) of one component, at once for all draws
        found += row[rng.random((n_draws, shape[1])).argsort(axis=1)]
    spread = (total.sum(axis=0) / count.sum(axis=0)).std(ddof=1)
    null = (found / count.sum(axis=0)).std(axis=1, ddof=1)
    low, high = (float(spread - end) for end in metrics.interval(null)[::-1])
    return {"value": float(spread - null.mean()), "low": low, "high": high, "n": int(shape[0]),
            "unit": "word components", "method": f"permutation of templates within components, {n_draws} draws"}


def responses(logp):
    """What the rows of one way do, nats, from logp (prompt, row), unsteered and then those of `arms`: change (prompt,
    row); random (prompt,), its mean over the random rows; and, net of that, of each of ARMS, (arm, prompt)."""
    change = (logp[:, 1:] - logp[:, :1]).astype(np.float64)
    random = change[:, len(ARMS):].mean(axis=1)
    return change, random, (change[:, :len(ARMS)] - random[:, None]).T


def by_facet(items, among, means):
    """[(keep, record)] per template without a context, and per context of the items `among` (prompt,) bool: which
    items it is made of, and the means over them of {name: values (prompt, ...)}."""
    template, own, context, level = columns(items, "template", "own", "context", "level")
    facets = [("template", x, (level == 0) & (template == x)) for x in distinct(template)]
    facets += [("context", x, among & (context == x)) for x in distinct(context)]
    return [(keep, {"facet": facet, "x": x, "own": bool(own[keep].all()), "level": int(level[keep][0]),
                    **{name: values[keep].mean() for name, values in means.items()}}) for facet, x, keep in facets]


def decisive(items, logp, address):
    """The results that claims about the antonym vector are decided by, held against every random vector; arguments as
    in `contexts`.

    Templates and complexity have two scales. A constant push on the logits counts the same on log-odds whatever the
    probability is; where the context has taken the antonym away a gain in log p grows, and one in p shrinks, with no
    change of what the vector does. What matters to a reader of the text is p, so both must change."""
    change = responses(logp)[0]
    own, level = columns(items, "own", "level")
    *_, slope, joint = per_pair(items, address)
    bare, everywhere = level == 0, level >= 0
    gains = {name: responses(scale(logp))[2][0] for name, scale in SCALES.items()}
    return {
        "antonym_beyond_random": joint(20, change[:, [0, *range(len(ARMS), change.shape[1])]], bare,
                                       metrics.beyond_random),
        "specific_beyond_random": joint(21, change[:, [0, 2, *range(len(ARMS), change.shape[1])]], bare, apart),
        "template_spread": {name: template_spread(gain, items, bare, [*address, 22, i])
                            for i, (name, gain) in enumerate(gains.items())}
        if (bare & ~own).any() else Missing("the suite has one template"),
        "complexity": {name: slope(23 + i, gain, everywhere) for i, (name, gain) in enumerate(gains.items())}
        if (level > 0).any() else Missing("the suite can make no context")}


def contexts(items, logp, rank, address):
    """Gain of the antonym's log-probability by template and by context, over controls.

    items  (prompt,) records of `queries`
    logp   (prompt, row) nats; rows: unsteered, then those of `arms`; rank likewise, 0 for the top token
    Gains are net of the mean random vector. Word components are resampled."""
    change, random, (gain, flipped, synonym, other) = responses(logp)
    template, kind, own, context, level = columns(items, "template", "style", "own", "context", "level")
    over, gap, slope, _ = per_pair(items, address)
    bare, everywhere, styles = level == 0, level >= 0, set(kind.tolist())
    neutral, top_random = everywhere & (level < level.max()), rank[:, 1 + len(ARMS):]
    results = decisive(items, logp, address) | {
        "n": {"pairs": len({(item["x"], item["y"]) for item in items}), "random": change.shape[1] - len(ARMS),
              "components": len({item["component"] for item in items}), "templates": len(distinct(template))},
        "antonym_gain": over(0, gain, bare), "own_template_gain": over(1, gain, bare & own),
        "flipped_gain": over(2, flipped, bare), "synonym_vector_gain": over(3, synonym, bare),
        "antonym_minus_synonym_vector": over(4, gain - synonym, bare), "random_gain": over(5, random, bare),
        "other_vector_gain": over(9, other, bare),
        **{f"top{k}": {"random": over(100 + 10 * k + 9, (top_random < k).mean(axis=1), bare),
                       **{name: over(100 + 10 * k + i, rank[:, i] < k, bare)
                          for i, name in enumerate(("unsteered", *ARMS))}} for k in TOP},
        "style": {name: over(40 + i, gain, bare & (kind == name)) if name in styles else
                  Missing(f"the suite has no template of the kind {name}") for i, name in enumerate(STYLES)},
        "context": {name: over(50 + i, gain, context == name) for i, name in enumerate(distinct(context))},
        "neutral_slope": slope(10, gain, neutral) if (level[neutral] > 0).any() else
        Missing("the suite has no neutral sentences"),
        "template_gap": Missing("the suite has one template") if own.all() else gap(8, gain, bare & own, bare & ~own),
        "sentence_minus_symbols": gap(11, gain, bare & (kind == "sentence"), bare & (kind == "symbols"))
        if {"symbols", "sentence"} <= styles else Missing("the suite's templates are of one kind")}
    if (level > 0).any():
        results |= {"complexity_slope": slope(6, gain, everywhere), "complexity_slope_own": slope(7, gain, own),
                    "logp_slope": {name: slope(12 + i, logp[:, i], everywhere)
                                   for i, name in enumerate(("unsteered", "vector"))},
                    "top1_slope": {name: slope(14 + i, rank[:, i] < 1, everywhere)
                                   for i, name in enumerate(("unsteered", "vector"))}}
    else:
        results |= dict.fromkeys(("complexity_slope", "complexity_slope_own", "logp_slope", "top1_slope"),
                                 Missing("the suite can make no context"))
    means = {"synonym_vector": synonym, "other_vector": other, "flipped": flipped, "random": random,
             "unsteered_logp": logp[:, 0], "top1_unsteered": rank[:, 0] < 1, "top1_random": top_random < 1}
    rows = [record | {"style": kind[keep][0], "gain": over(60 + i, gain, keep),
                      "top1": over(200 + i, rank[:, 1] < 1, keep)}
            for i, (keep, record) in enumerate(by_facet(items, everywhere, means))]
    return rows, *metrics.missing_apart(results, "relations.")


def mixed_minus_mean(items, more, over):
    """Of `more` (prompt,), log p under "mixed" less that under "mean": bare in templates that neither was made on,
    bare in all, and in the contexts of the own one. Not net of random vectors: each way has its own, whose means
    differ by more than the ways do. over: of `per_pair`."""
    own, mixed, level = columns(items, "own", "mixed", "level")
    where = {"new_templates": (level == 0) & ~mixed, "all_templates": level == 0, "contexts": own & (level > 0)}
    return {at: over(50 + i, more, keep) if keep.any() else Missing("the suite can make no context")
            for i, (at, keep) in enumerate(where.items())}


def ways(items, names, logp, rank, address):
    """The ways side by side: (rows, {"ways", "specific", "lists", "mixed_minus_mean"}, missing).

    items  (prompt,) records of `queries`: all templates bare, the own one in all contexts, and lists (context in
           LISTS, level -1)
    logp   (prompt, row) nats; rows: unsteered, then for each of `names` those of `arms`; rank likewise"""
    own, context, level = columns(items, "own", "context", "level")
    over, gap, slope, _ = per_pair(items, address)
    bare, listed = level == 0, {name: context == name for name in LISTS}
    prompts = {"zero_shot": bare & own, "shuffled_list": listed["shuffled list"]}
    alone = Missing("the suite has one template, or can make no context")

    def each(tag, values):
        return {where: over(tag + i, values, keep) for i, (where, keep) in enumerate(prompts.items())}

    results, rows, changes = {"ways": {}, "specific": {}}, [], {}
    results["lists"] = {name: {f"top{k}": over(10 * i + k, rank[:, 0] < k, keep) for k in TOP}
                        for i, (name, keep) in enumerate({**prompts, "clean_list": listed["clean list"]}.items())}
    results["lists"]["clean_minus_shuffled"] = gap(40, rank[:, 0] < 1, *listed.values())
    for w, (name, mine) in enumerate(zip(names, np.split(np.arange(1, logp.shape[1]), len(names)))):
        change, random, (gain, flipped, synonym, other) = responses(logp[:, [0, *mine]])
        tag, place, changes[name] = 1000 * (w + 1), rank[:, mine[0]], change[:, 0]
        results["ways"][name] = {
            "all_templates": over(tag, gain, bare), "flipped": over(tag + 1, flipped, bare),
            "synonym": over(tag + 2, synonym, bare), "other": over(tag + 3, other, bare),
            "random": over(tag + 4, random, bare), "gain": each(tag + 5, gain),
            "change": each(tag + 50, change[:, 0]), **{f"top{k}": each(tag + 10 * k, place < k) for k in TOP},
            "template_gap": gap(tag + 8, gain, bare & own, bare & ~own) if (bare & ~own).any() else alone,
            "complexity_slope": slope(tag + 9, gain, own & (level >= 0)) if (level > 0).any() else alone}
        results["specific"][name] = over(tag + 7, gain - synonym, bare)
        means = {"synonym_vector": synonym, "other_vector": other, "random": random, "change": change[:, 0],
                 "top1_unsteered": rank[:, 0] < 1, "top1": place < 1, "top3": place < 3}
        rows += [record | {"way": name, "gain": over(tag + 100 + i, gain, keep)}
                 for i, (keep, record) in enumerate(by_facet(items, own, means))]
    results["mixed_minus_mean"] = mixed_minus_mean(items, changes["mixed"] - changes["mean"], over) \
        if "mixed" in changes else Missing("the suite has fewer than three templates")
    return rows, *metrics.missing_apart(results, "relations.")
