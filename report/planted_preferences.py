"""Planted truth of the preference study: synthetic scores of traits, settings and subsets with the conclusions that
stages 02 to 04 draw from them. size 1 plants what a claim says; size 0 plants noise of the same kind, and the claim
is false."""
from itertools import combinations, product

import numpy as np

from lib.metrics import estimator
from lib.studies import subsets, transfer, tuning
from report.planted import Planted

# --- settings that change the numbers ----------------------------------------------------------------------
SEED = 8
TRAITS, GROUPS, PROMPTS, TEXTS = 36, 9, 8, 5
NOISE = 20.0                # SD of one text's score, points
SPREAD = 25.0               # SD of the traits' own gains
GROUP, SUBSET = 6.0, 8.0    # SD of what a group, and a subset, adds to a method
PUBLISHED = ("different_layers", "orthogonalised", "tuned_mean", "unit_norm_mid", "unit_norm_late")
TASKS = ("question", "summary", "email")
# -----------------------------------------------------------------------------------------------------------


def traits(seed, size, spread=0.0, scope=0.0, elsewhere=0.0, summaries=0.0, asked=0.0, steered=30.0):
    """Stage 03 on texts whose scores are gains of traits and noise; the effects, points, are multiplied by size.
    At size 0 `steered` stays, so that a claim's gate is met and its own number decides."""
    rng, wide = np.random.default_rng([SEED, seed]), np.arange(TRAITS) % 3 > 0
    gain = steered + size * (spread * rng.standard_normal(TRAITS) + scope * wide)
    lost = size * np.array([0.0, elsewhere + summaries, elsewhere])                               # of TASKS
    level = {"unsteered": 0.0, "random": 0.0, "steered": gain[:, None] - lost,
             "prompted": gain[:, None] + size * asked, "steered_prompted": gain[:, None]}
    texts = {arm: np.expand_dims(mean, -1) + NOISE * rng.standard_normal((TRAITS, len(TASKS), PROMPTS))
             for arm, mean in level.items()}
    net = (texts["steered"] - texts["random"])[:, 0]
    halves = np.stack([net[:, half::2].mean(axis=1) for half in (0, 1)], axis=1)
    found = transfer.decisive({arm: x.mean(axis=-1) for arm, x in texts.items()}, halves, wide,
                              np.ones(TRAITS, bool), TASKS, estimator("traits", [SEED, seed]))
    return {"03_transfer": {"traits": found | {"steer": {"excess": TRAITS if steered else 0}}}}


def strengths(seed, size):
    """Stage 02: expression rises with strength in traits that steer, or is noise; coherence falls either way."""
    rng, tried, chosen = np.random.default_rng([SEED, seed]), [], {}
    for key in (f"trait/t{i}" for i in range(TRAITS)):
        mine = [{"key": key, "layer": 0, "strength": 2 * s, "relative_strength": s, "coefficient": s, "n": 4,
                 "expression": size * 60 * s + NOISE * rng.standard_normal(),
                 "coherence": 100 - 40 * s + 5 * rng.standard_normal()} for s in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)]
        best, coherent = tuning.best(mine[1:], "expression", "coherence", 75)
        chosen[key], tried = best | {"coherent": coherent}, tried + mine
    return {"02_tune": {"traits": tuning.settle_traits(tried, chosen, chosen, [SEED, seed], 75)[1]}}


def together(seed, methods, score, dead=0.0):
    """[cell] of nine groups of four traits, own task; score(rng, method, k, task, turn or None) is added to what a
    trait shows alone, a group's and a subset's share per method; `dead` is the share of traits that show nothing."""
    rng, records = np.random.default_rng([SEED, seed]), []
    for g in range(GROUPS):
        task, names = ("email", "summary")[g > 3], [f"g{g}{letter}" for letter in "abcd"]
        alone = {name: (40 + SPREAD * rng.random()) * (rng.random() >= dead) for name in names}
        suits = {method: GROUP * rng.standard_normal() for method in methods}
        for k, mine in ((k, mine) for k in (1, 2, 3, 4) for mine in combinations(names, k)):
            for method in methods:
                extra = (k > 1) * (suits[method] + SUBSET * rng.standard_normal()) + score(method, k, task)
                shown = {name: max(0.0, alone[name] + extra + NOISE / TEXTS ** 0.5 * rng.standard_normal())
                         if alone[name] else 0.0 for name in mine}
                mean = float(np.mean(list(shown.values())))
                records.append({"subset": "+".join(mine), "group": f"g{g}", "k": k, "task": task, "own": True,
                                "method": method, "n": TEXTS, "unscored": 0, "expressions": shown, "expression": mean,
                                "coherence": 80 + score(method, k, task) + suits[method] + 5 * rng.standard_normal(),
                                "usable": mean})
    return records, {name for r in records for name, shown in r["expressions"].items() if shown}


def falling(seed, size):
    records, steering = together(seed, PUBLISHED, lambda method, k, task: -8.0 * size * (k - 1), dead=0.5)
    return {"04_compose": subsets.company(records, PUBLISHED, steering, [SEED, seed])}


def sparing(seed, size):
    records, steering = together(seed, PUBLISHED, lambda method, k, task: 20.0 * size * method.startswith("unit_norm"))
    return {"04_compose": subsets.company(records, PUBLISHED, steering, [SEED, seed])}


def suiting(seed, size):
    """In every setting another method gains 18 points; at size 0 one method does, everywhere."""
    settings = [(k, task) for k in (2, 3, 4) for task in ("email", "summary")]
    records, _ = together(seed, PUBLISHED, lambda method, k, task: 18.0 * (k > 1) * (PUBLISHED.index(method) == (
        settings.index((k, task)) % len(PUBLISHED) if size and k > 1 else 0)))
    return {"04_compose": {"method_interaction": subsets.method_interaction(records, PUBLISHED, True, [SEED, seed])}}


def solving(seed, size):
    records, _ = together(seed, ("solved", *PUBLISHED), lambda method, k, task: 25.0 * size * (method == "solved"))
    sides = {"best_published": PUBLISHED, "best_scaled": PUBLISHED}
    return {"04_compose": {"solved_minus": subsets.solved_minus(records, sides, [SEED, seed])[0]}}


def settled(seed, size):
    """The best of five settings moves with k by a step of 10 points a setting; at size 0 the middle one is best."""
    rng, records = np.random.default_rng([SEED, seed]), []
    for g, k, setting in product(range(GROUPS), (1, 2, 3, 4), range(5)):
        best = k if size else 2
        records.append({"subset": f"g{g} {k}", "group": f"g{g}", "k": k, "task": ("email", "summary")[g > 3],
                        "method": f"m {setting}",
                        "usable": 50 - 10.0 * abs(setting - best) + SUBSET * rng.standard_normal()})
    return {"04_compose": {"setting_gain": subsets.setting_gain(records, [SEED, seed])}}


def stopping(seed, size):
    methods = ("adaptive", "plain_sum_scaled")
    records, _ = together(seed, methods, lambda method, k, task: 15.0 * size * (method == methods[0]))
    return {"04_compose": {"adaptive": subsets.against(records, *methods, [SEED, seed])}}


def ordered(seed, size):
    """Turns of subsets in which the place of a trait adds 8 points from the last to the first."""
    methods = ("different_layers", "orthogonalised")
    records = together(seed, [f"{m}@{t}" if t else m for m in methods for t in range(4)], lambda *_: 0.0)[0]
    records = [r for r in records if int((r["method"] + "@0").split("@")[1]) < r["k"]]
    for r in records:
        order = subsets.turned(list(r["expressions"]), int((r["method"] + "@0").split("@")[1]))
        r["expressions"] = {name: shown + 8.0 * size * (r["k"] - 1 - order.index(name))
                            for name, shown in r["expressions"].items()}
    return {"04_compose": {"order": subsets.orders(records, methods, (), [SEED, seed])[1]}}


PLANTED = {
    "P1": Planted("gains of traits differ by 25 points (SD), or by noise alone",
                  lambda seed, size: traits(seed, size, spread=SPREAD)),
    "P2": Planted("global traits gain 20 points more", lambda seed, size: traits(seed, size, scope=20.0)),
    "P3": Planted("a vector loses 12 points outside its task", lambda seed, size: traits(seed, size, elsewhere=12.0)),
    "P4": Planted("a vector loses 12 points in summaries", lambda seed, size: traits(seed, size, summaries=12.0)),
    "P5": Planted("every vector costs the others 8 points; half of the traits show nothing", falling),
    "P6": Planted("expression rises with strength, or is noise, while coherence falls", strengths),
    "P7": Planted("another method suits every setting, or one suits all", suiting),
    "P8": Planted("asking gives 15 points more", lambda seed, size: traits(seed, size, asked=15.0)),
    "P9": Planted("solving adds 25 points", solving),
    "P10": Planted("solving adds 25 points", solving),
    "P11": Planted("every place nearer to the first adds 8 points", ordered),
    "P12": Planted("every vector costs 8 points of coherence", falling),
    "P13": Planted("unit norm spares 20 points of coherence", sparing),
    "P14": Planted("the best setting moves with k, or is the same for all", settled),
    "B17": Planted("stopping adds 15 points", stopping),
    "B1": Planted("vectors gain 10 points over random ones",
                  lambda seed, size: traits(seed, size, steered=10.0 * size, asked=60.0)),
}
