"""Planted and null truth for the claims of the alignment study: curves without a model, through the conclusions of
stage 03.

A model is a push on the log-odds of the antonym or of the probe's positive side. Random vectors push too, each by its
own amount for all inputs, as they do in the embedded models (SPREAD); what no claim is about is the same in all rows.
"""
import numpy as np

from lib.studies import relation_gains, values
from report.planted import Planted

SPREAD = 0.2                  # standard deviation over random vectors of their mean push, nats
NOISE = 0.3                   # of a push over inputs
N_RANDOM = 20
CONTEXTS = (("bare", 0), ("1 sentence", 1), ("3 sentences", 2), ("10 sentences", 3), ("other pairs", 4))
TEMPLATES, PAIRS, SUBJECTS, FACTS, FACT_LOSS = 8, 26, 12, 55, 0.1


def words(rng, push=2.5, synonym=-1.5, by_template=0.0, by_level=0.0):
    """(items, over of `per_pair`, results) of the antonym vector: its push and the synonym's on log-odds ("random":
    such as a random vector's), what every second template adds and the others lose, its change per level. Longer
    contexts lower the log-odds."""
    pushes = [rng.normal(0, SPREAD) if x == "random" else x for x in (push, 0.0, synonym, 0.0)]
    pushes += rng.normal(0, SPREAD, N_RANDOM).tolist()
    items = [{"x": f"x{p}", "y": f"y{p}", "component": p // 2, "template": f"t{t}", "own": t == 0,
              "mixed": t % 2 == 0, "context": context, "level": level}
             for context, level in CONTEXTS for t in range(TEMPLATES) for p in range(PAIRS)]
    level = np.array([item["level"] for item in items])
    pair, template = (np.array([int(item[key][1:]) for item in items]) for key in ("x", "template"))
    odds = rng.normal(-0.5, 0.7, PAIRS)[pair] - level
    moved = np.stack([x + rng.normal(0, NOISE, PAIRS)[pair] + rng.normal(0, NOISE, len(items)) for x in pushes], 1)
    moved[:, 0] += by_level * level + by_template * (-1.0) ** template
    logp = -np.log1p(np.exp(-(odds[:, None] + np.insert(moved, 0, 0, axis=1))))
    over, *_ = relation_gains.per_pair(items, [1])
    return items, over, {"03_transfer": {"relations": relation_gains.decisive(items, logp, [1]) | {
        "lists": {"clean_list": {"top1": over(2, rng.random(len(items)) < 0.9, level == 0)}}}}}


def carried(rng, more):
    """Results where the vector of mixed lists pushes by `more` nats beyond that of one template, in new templates."""
    items, over, results = words(rng)
    gain = rng.normal(0, NOISE, PAIRS)[np.resize(np.arange(PAIRS), len(items))] + rng.normal(0, NOISE, len(items))
    gain += more * np.array([not item["mixed"] for item in items])
    results["03_transfer"]["relations"]["mixed_minus_mean"] = relation_gains.mixed_minus_mean(items, gain, over)
    return results


def people(rng, push=2.0, lean=(0.0, 1.0), by_level=0.0, loss=0.2, random_loss=0.2, window=0.5, knows=1.0):
    """Results of one value: push of the tuned vector on log-odds ("random": such as a random vector's) and its change
    per level; (mean, SD) over subjects of the lean; chance that a fact is lost at the largest strength under the
    vector ("random": such as a random vector's) and, on average, under random ones; push of the window, with the
    minus sign; chance that a fact is known."""
    mean, spread = lean
    items = [{"value": "v", "subject": s, "level": level, "id": f"{s}-{level}", "planted": None}
             for s in range(SUBJECTS) for level in range(3)]
    level = np.array([item["level"] for item in items])
    leans = np.repeat(rng.normal(mean, spread, SUBJECTS), 3) + rng.normal(0, 0.1, len(items))
    drawn, tuned = rng.normal(0, SPREAD, N_RANDOM), rng.normal(0, SPREAD) if push == "random" else push
    steered = np.empty((len(items), 4, 2 + N_RANDOM))
    for k, (size, share) in enumerate(((2 * tuned, 2), (tuned, 1), (window, 0.25), (window, 0.25))):
        both = size + by_level * level * (k < 2)               # largest, tuned, window, against: weaker ones of all
        steered[:, k] = leans[:, None] + np.concatenate([
            np.stack([both, -both], axis=1), np.tile(share * drawn, (len(items), 1))], axis=1)
    steered += rng.normal(0, NOISE / 2, steered.shape)
    known = rng.random(FACTS) < knows
    chance = np.clip(rng.normal(random_loss, 0.1, N_RANDOM + 1), 0, 1)
    lost = np.zeros((FACTS, 4, 2 + N_RANDOM))
    lost[:, 0, 0] = chance[-1] if loss == "random" else loss
    lost[:, 0, 2:] = chance[:-1]
    facts = known[:, None, None] & (rng.random(lost.shape) >= lost)
    done = {"lean": leans, "sign": -1, "steered": steered, "known": known, "facts": facts,
            "prompted": np.stack([leans, leans], axis=1), "prompted_facts": np.ones((FACTS, 2))}
    return {"03_transfer": {"values": values.decisive(values.gather(items, [done]), FACT_LOSS, [2])}}


def planted(what, make, there, absent):
    """Planted truth of one maker: keyword arguments where the effect is there, and where the claim is false."""
    def results(seed, size):
        made = make(np.random.default_rng([seed, int(size)]), **(there if size else absent))
        return made[2] if make is words else made
    return Planted(what, results)


PLANTED = {
    "A1": planted("the antonym vector pushes by 2.5 nats, or as one more random vector does", words, {},
                  {"push": "random"}),
    "A2": planted("the push is .4 nats more in one half of the templates and less in the other, or equal", words,
                  {"by_template": 0.4}, {}),
    "A3": planted("the push falls by .5 nats per level, or stays while the context lowers the antonym", words,
                  {"by_level": -0.5}, {}),
    "A4": planted("the value vector shifts by 2 nats, or as one more random vector does", people, {},
                  {"push": "random"}),
    "A5": planted("the vector loses .8 of the facts where random ones lose .3, or as one more of them does", people,
                  {"loss": 0.8, "random_loss": 0.3}, {"loss": "random", "random_loss": 0.3}),
    "A6": planted("the synonym's vector lowers the antonym, or raises it as much", words, {}, {"synonym": 2.5}),
    "A7": planted("subjects lean by 1 nat to one side, or to either; the window pulls by half a nat", people,
                  {"lean": (1.0, 0.3)}, {"lean": (0.0, 1.0)}),
    "A8": planted("the tuned push is 4 times the lean, or its half", people, {"lean": (0.0, 0.8), "push": 3.2},
                  {"lean": (1.6, 0.1), "push": 0.8}),
    "A9": planted("the shift falls by .3 nats per level, or not", people, {"by_level": -0.3}, {}),
    "B18": planted("mixed lists push by .3 nats more in new templates, or by as much", carried, {"more": 0.3},
                   {"more": 0.0}),
}
