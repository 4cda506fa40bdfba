"""Beyond the paper: can the position bias be taken out, what makes an input anti-steerable, how much label noise and
how few pairs does a vector bear, and does it know the items that made it?

All vectors have the norm of the mean difference at multiplier 1 and are run at two multipliers, where the slope is
half of the difference. Measured by stage 05, which names the numbers of `settings`.
"""
import re

import numpy as np

from lib import engine, metrics, suite as suites
from lib.metrics import Missing, estimator
from lib.studies import propensity
from lib.studies.predict import held_out
from lib.studies.reliability import explained, signs, swap_pairs

# --- settings that change the numbers -----------------------------------------------------------------------
FOLDS, SHUFFLES = 5, 20          # of the contents, for cross-validation; shuffled labels beside it
LEAST_ANTI = 3                   # inputs on either side of zero, for a prediction of the side
# ------------------------------------------------------------------------------------------------------------
FORM = ("letter", "yes")         # predictors of an input that are its form alone
GROUPS = ("debias", "noise", "inputs")
OPTIONS = re.compile(r"\(A\):?\s*(.+?)\s*\(B\):?\s*(.+?)\s*$", re.S)


# --- measuring ----------------------------------------------------------------------------------------------
def contents(items):
    """(n,) what an item shares with its swap."""
    return np.array([item["swap_of"] or item["id"] for item in items])


def read(lm, read_out, suite, behaviour, layer, part):
    """States of the items of a split at their letters, at one layer, float32: {"diff": (n, d) positive minus negative,
    "middle": (n, d) their mean, "length": (n,) prompt tokens}."""
    prompts, letters = propensity.ask(lm, read_out, suite, behaviour, suites.split(behaviour["items"], part))
    m = read_out.suffix                        # where `propensity.propensities` parts them, for lib.passes.kept
    ends = [[prompt[-m:] + [int(letter)] for prompt, letter in zip(prompts, column)] for column in letters.T]
    states = engine.read_pairs(lm, [prompt[:-m] for prompt in prompts], *ends)[:, :, layer]
    return {"diff": states[:, 0] - states[:, 1], "middle": states.mean(axis=1),
            "length": np.array([len(prompt) for prompt in prompts])}


def letter_direction(items, diffs):
    """(d,) mean of state at A minus state at B over items with differences (n, d)."""
    return (signs(items)[0][:, None] * diffs).mean(axis=0)


def balanced(items, diffs):
    """(d,) mean difference in which each of letter and Yes/No counts the same: the mean of the means of the cells."""
    letter, yes, _ = signs(items)
    cells = [(letter == a) & (yes == b) for a in np.unique(letter) for b in np.unique(yes)]
    return np.mean([diffs[cell].mean(axis=0) for cell in cells if cell.any()], axis=0)


def one_order(items, diffs):
    """(d,) the same from one order of the options per content, the first of every other pair; None without swaps."""
    pairs = swap_pairs(items)
    return np.delete(diffs, [pair[k % 2] for k, pair in enumerate(pairs)], axis=0).mean(axis=0) if len(pairs) else None


def granularity(items, diffs):
    """How much the direction turns from context to context: mean cosine of two differences (n, d) of items that share
    letter and Yes/No, less that of two that do not; 0 where no two share them, or all do (after concept granularity,
    arXiv 2605.16362, whose contexts are prompts)."""
    letter, yes, _ = signs(items)
    unit = diffs / np.maximum(np.linalg.norm(diffs, axis=1, keepdims=True), 1e-12)
    alike = (letter[:, None] == letter) & (yes[:, None] == yes)
    cosines, other = unit @ unit.T, ~np.eye(len(items), dtype=bool)
    shared, crossed = cosines[alike & other], cosines[~alike]
    return float(shared.mean() - crossed.mean()) if len(shared) and len(crossed) else 0.0


def logit_lens(lm, read_out, vector):
    """|cosine| of a vector (d,) with the difference of the rows of A and B in the unembedding: how much of it writes a
    letter by itself (without the final norm, after arXiv 2604.15557)."""
    a, b = lm.model.get_output_embeddings().weight[list(read_out.letters)].detach().double().cpu().numpy()
    return float(abs(metrics.cosine(a - b, vector)))


def halves(items, address):
    """(n,) 0 or 1: the half that an item falls into; contents stay whole, letters and Yes/No even out."""
    names, rng = contents(items), np.random.default_rng(address)
    order = rng.permutation(np.unique(names))
    return np.isin(names, order[::2]).astype(int)


def noisy(items, diffs, flips, few, n_draws, address):
    """{name: (n_draws, d)}: vectors from all pairs with a share of `flips` labels turned round ("flip_20": a fifth),
    and from `few` pairs, half of either letter ("pairs_8"); a number that the items do not have is left out."""
    rng, letter, found = np.random.default_rng(address), signs(items)[0], {}
    for share in flips:
        turned = [rng.permutation(len(diffs)) < round(share * len(diffs)) for _ in range(n_draws)]
        found[f"flip_{round(100 * share)}"] = np.stack([np.where(t, -1.0, 1.0) @ diffs / len(diffs) for t in turned])
    a, b = np.flatnonzero(letter > 0), np.flatnonzero(letter < 0)
    for n in (n for n in few if n // 2 <= min(len(a), len(b)) and n < len(diffs)):
        drawn = [np.concatenate([rng.permutation(side)[:n // 2] for side in (a, b)]) for _ in range(n_draws)]
        found[f"pairs_{n}"] = np.stack([diffs[d].mean(axis=0) for d in drawn])
    return found


def words(lm, suite, behaviour, items, rows):
    """(item, row) float64, nats per token: log-probability of the positive option's own words as the answer, less that
    of the negative one's; None where a question does not show its options after (A) and (B)."""
    shown = [OPTIONS.search(item["question"]) for item in items]
    if not all(shown):
        return None
    prompts = [lm.chat(*suites.behaviour_prompts(suite, behaviour, item, "BASE")) for item in items]
    scores = []
    for side in (0, 1):
        answers = [lm.tokens(found.groups()[side ^ (item["positive"] == "B")]) for found, item in zip(shown, items)]
        total = engine.sequence_logprob(lm, prompts, answers, rows).astype(np.float64)
        scores.append(total / np.array([len(answer) for answer in answers])[:, None])
    return scores[0] - scores[1]


def measure(lm, read_out, suite, behaviour, tuned, vector, diffs, letter, settings, address):
    """What the vectors made in other ways do: {name: (input, vector) slopes}, nats per unit, "cosine_..." with the
    vector; "words" (input,), nats per token; "own", "other" (extraction item,): slopes under the vector of its own
    half of the items, and of the other half.

    tuned {"layer", "unit"}; vector (d,) raw; diffs (item, d) of `read`, of the extraction items; letter (d,),
    `letter_direction` of all behaviours; settings {"flips", "few", "n_draws", "controls"}"""
    items, made_from = (suites.split(behaviour["items"], part) for part in ("evaluate", "extract"))
    here, controls = (tuned["unit"] * vector).astype(np.float32), settings["controls"]
    half = halves(made_from, [*address, 1])
    groups = {"balanced": balanced(made_from, diffs), "one_order": one_order(made_from, diffs),
              "no_letter": metrics.orthogonal_to(vector[None], letter)[0]}
    groups = {name: v[None] for name, v in groups.items() if v is not None}
    groups |= noisy(made_from, diffs, settings["flips"], settings["few"], settings["n_draws"], [*address, 2])
    both = np.stack([diffs[half == side].mean(axis=0) for side in (0, 1)])

    def slopes(found):                                                            # (item, vector and control)
        found = found.reshape(len(found), -1, len(controls))
        return (found[..., 1] - found[..., 0]) / (controls[1] - controls[0])

    def rows(vectors):
        size = np.linalg.norm(here) / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return [((tuned["layer"], np.float32(m) * v),) for v in (size * vectors).astype(np.float32) for m in controls]

    stacked, at = np.concatenate(list(groups.values())), np.arange(len(half))
    found = slopes(propensity.propensities(lm, read_out, suite, behaviour, items, rows(stacked))[0])
    out = dict(zip(groups, np.split(found, np.cumsum([len(g) for g in groups.values()])[:-1], axis=1)))
    out |= {f"cosine_{name}": metrics.cosine(g, vector) for name, g in groups.items()}
    crossed = slopes(propensity.propensities(lm, read_out, suite, behaviour, made_from, rows(both))[0])
    out |= {"own": crossed[at, half], "other": crossed[at, 1 - half]}
    told = words(lm, suite, behaviour, items, rows(here[None]))
    return out if told is None else out | {"words": slopes(told)[:, 0]}


# --- one behaviour ------------------------------------------------------------------------------------------
def rank_correlation(x, y, groups=None):
    """Spearman of x and y (n,), within groups (n,) if given; 0 where one of them is constant: nothing is foretold."""
    pairs = np.stack([x, y], axis=1)
    return float(np.nan_to_num(metrics.pooled_spearman(pairs) if groups is None else
                               metrics.within_spearman(metrics.by_group(pairs, groups))))


def foretold(columns, y, names, address):
    """{"all", "form", "content": rank correlation of y (n,) with its cross-validated prediction from all columns, FORM,
    and the others; "shuffled": the mean of "all" with y dealt anew}. Contents `names` (n,) stay whole; ranks are taken
    within folds, since between them a fold that lies high lowers its own prediction."""
    rng, (_, content) = np.random.default_rng(address), np.unique(names, return_inverse=True)
    folds = rng.permutation(content.max() + 1)[content] % FOLDS

    def score(chosen, y):
        return rank_correlation(held_out(np.stack([columns[name] for name in chosen], axis=1), y, folds), y, folds)

    return {"all": score(columns, y), "form": score(FORM, y),
            "content": score([name for name in columns if name not in FORM], y),
            "shuffled": float(np.mean([score(columns, rng.permutation(y)) for _ in range(SHUFFLES)]))}


def features(items, unsteered, states, made_from, vector):
    """{predictor: (n,)} of inputs before any steering: unsteered propensity and its size, prompt length, cosine of its
    own difference with the vector, distance to the nearest extraction item, letter, Yes/No. states, made_from: of
    `read`, of the inputs and of the extraction items."""
    letter, yes, _ = signs(items)
    gaps = states["middle"][:, None].astype(np.float64) - made_from["middle"]
    return {"propensity": unsteered, "margin": np.abs(unsteered), "length": states["length"].astype(float),
            "agreement": metrics.cosine(states["diff"], vector),
            "distance": np.linalg.norm(gaps, axis=2).min(axis=1), "letter": letter, "yes": yes}


def record(items, slopes, control, columns, found, address):
    """What one behaviour's record gains: "ways" (mean slope, anti-steerable share, share of variance by letter and
    Yes/No, of the vector as it is, "plain", and in every other way), "noise", "leak" and "inputs".

    slopes, control (n,) as stage 05 measured them; columns of `features`; found of `measure`"""
    letter, yes, _ = signs(items)
    made = [name for name in ("balanced", "one_order", "no_letter") if name in found]
    ways = {"plain": control, **{name: found[name][:, 0] for name in made}}
    ways |= {"words": found["words"]} if "words" in found else {}
    anti, names = (slopes <= 0).astype(float), contents(items)
    return {"ways": {name: {"mean": float(s.mean()), "anti": metrics.anti_fraction(s),
                            "explained": explained(s, letter, yes)} for name, s in ways.items()},
            "noise": {name: {"cosine": float(found[f"cosine_{name}"].mean()), "mean": float(found[name].mean())}
                      for name in found if name.startswith(("flip_", "pairs_"))},
            "own_minus_other": float((found["own"] - found["other"]).mean()),
            "inputs": {"each": {name: rank_correlation(column, slopes) for name, column in columns.items()},
                       "slope": foretold(columns, slopes, names, [*address, 1]),
                       "anti": foretold(columns, anti, names, [*address, 2])
                       if LEAST_ANTI <= anti.sum() <= len(anti) - LEAST_ANTI else None}}


# --- over behaviours ----------------------------------------------------------------------------------------
def ratio(values):
    """Mean of column 0 over the mean of column 1."""
    return values[:, 0].mean() / values[:, 1].mean()


def summary(records, steers, few, address):
    """Results over the steerable behaviours: "debias", "noise", "inputs" and {"own_minus_other"} for "leak". steers:
    whether more of them steer than luck explains; what a vector that does nothing gives is no result. few: numbers of
    pairs that were asked for."""
    if not steers:
        return dict.fromkeys((*GROUPS, "own_minus_other"), Missing("no more behaviours steer than luck explains"))
    over, good = estimator("behaviours", address), [r for r in records if r["steerable"]]
    each = good[0]["inputs"]["each"]
    results = {"debias": {}, "noise": {}, "own_minus_other": over(4, [r["own_minus_other"] for r in good]), "inputs": {
        "each": {name: over((3, i), [r["inputs"]["each"][name] for r in good]) for i, name in enumerate(each)}}}
    absent = {"one_order": "no input comes with its options swapped",
              "words": "the questions do not show their options"}
    for w, way in enumerate(("plain", "balanced", "no_letter", "one_order", "words")):
        mine = [r["ways"] for r in good if way in r["ways"]]
        results["debias"][way] = Missing(absent.get(way, "not measured")) if not mine else {
            what: over((1, w, k), [m[way][what] for m in mine])
            for k, what in enumerate(("mean", "anti", "explained"))} | {
            f"{what}_change": over((1, w, k + 3), [m[way][what] - m["plain"][what] for m in mine])
            for k, what in enumerate(("anti", "explained")) if way != "plain"}
    names = dict.fromkeys([*(name for r in good for name in r["noise"]), *(f"pairs_{n}" for n in few)])
    for i, name in enumerate(names):
        mine = [r for r in good if name in r["noise"]]
        results["noise"][name] = Missing("fewer pairs to draw from") if not mine else {
            "cosine": over((2, i, 0), [r["noise"][name]["cosine"] for r in mine]),
            "kept": over((2, i, 1), [(r["noise"][name]["mean"], r["control_slope"]) for r in mine], ratio)}
    for k, what in enumerate(("slope", "anti")):
        mine = [r["inputs"][what] for r in good if r["inputs"][what]]
        results["inputs"][what] = {
            name: over((5, k, i), [m[name] for m in mine]) for i, name in enumerate(mine[0])} | {
            f"{a}_minus_{b}": over((5, k, j), [m[a] - m[b] for m in mine])
            for j, (a, b) in enumerate((("all", "shuffled"), ("all", "form")), 8)} if mine else Missing(
            f"no behaviour has {LEAST_ANTI} inputs on either side of zero")
    return results
