"""Planted truth of the reliability claims and of what goes beyond them: slopes, correlations and shares of known truth,
run through the conclusions of stages 03 and 05. Seeds are addresses; size 1: the effect is there, 0: the claim is false."""
import numpy as np

from lib import metrics
from lib.studies import controls, predict, reliability, transfer
from report.planted import Planted

N, INPUTS, VECTORS = 40, 36, 3
FORMATS = np.repeat(["yes_no", "options"], [21, 19])
LETTER, YES = np.resize([1.0, -1.0], INPUTS), np.resize([1.0, 1.0, -1.0, -1.0], INPUTS)
CONTRARY = np.arange(INPUTS) < 4
STEERS = {"n": {"behaviours": N, "steerable": N, "steerable_by_luck": 7}}
PAIRS = [("BASE", "USER_NEG"), ("BASE", "USER_POS"), ("SYS_POS", "USER_NEG"), ("SYS_NEG", "USER_POS")]
BETWEEN = np.array([0.0, 3.0, 1.0, 4.0])        # what differs from shift to shift, whatever the behaviour


def draw(seed, tag):
    return np.random.default_rng([6, tag, *np.atleast_1d(seed).tolist()])


def at_05(**results):
    return {"05_reliability": STEERS | results}


def at_03(**results):
    return {"03_transfer": {"behaviours": results}, "05_reliability": dict(STEERS)}


# --- single inputs ------------------------------------------------------------------------------------------
def records(slopes, random, other=None):
    """What the conclusions over behaviours read of slopes (behaviour, input) and random (behaviour, input, vector);
    other: slopes of another method."""
    out = []
    for s, r, o, fmt in zip(slopes, random, slopes if other is None else other, FORMATS):
        means, mean, error = r.mean(axis=0), s.mean(), s.std(ddof=1) / np.sqrt(len(s))
        limit = float(np.quantile(np.concatenate([means, -means]), 0.95))
        told = {name: {"mean": x.mean(), "anti": metrics.anti_fraction(x),
                       "explained": reliability.explained(x, LETTER, YES)}
                for name, x in (("mean_difference", s), ("logistic", o))}
        out.append({
            "format": fmt, "slope": {"value": mean}, "sd": s.std(ddof=1), "anti_steerable": metrics.anti_fraction(s),
            "control_slope": mean, "steerable": mean > limit, "slope_half": mean, "slope_one": mean,
            "reach": reliability.reach(mean - 1.96 * error, mean + 1.96 * error, limit), "methods": told,
            "contrary": {"regular_anti": metrics.anti_fraction(s[~CONTRARY])},
            "random": {"means": means, "spread": np.median(r.std(axis=0) / np.abs(means)),
                       "anti_oriented": metrics.anti_fraction(r * np.where(means < 0, -1, 1)),
                       "explained": np.mean([reliability.explained(x, LETTER, YES) for x in r.T])}})
    return out


def inputs(spread, wrong=0.0, letter=0.5, random_letter=0.5, unsteerable=0, other=None):
    """make(seed, size): slopes of mean 1 with an SD of spread[size]; wrong[size] of the regular inputs and all contrary
    ones turned round; letter[size] nats by the letter, random_letter under random vectors; unsteerable[size] behaviours
    that a random vector steers as well; other[size] nats by the letter under another method."""
    def pick(value, size):
        return value[size] if isinstance(value, tuple) else value

    def make(seed, size):
        rng = draw(seed, 1)
        noise, strength = rng.normal(size=(2, N, INPUTS)), rng.uniform(0.7, 1.3, size=(N, 1))
        slopes = strength * (1 + pick(spread, size) * noise[0])
        turned = CONTRARY | (rng.random((N, INPUTS)) < pick(wrong, size))
        slopes = np.where(turned, -np.abs(slopes), slopes) if wrong else slopes
        bias = rng.normal(size=(N, 1)) * LETTER
        slopes = slopes + pick(letter, size) * bias
        few = np.arange(N) < pick(unsteerable, size)
        slopes = np.where(few[:, None], 0.05 * noise[1], slopes)
        random = rng.normal(size=(N, 1, VECTORS)) * 0.15 + 0.5 * rng.normal(size=(N, INPUTS, VECTORS))
        random += random_letter * rng.normal(size=(N, 1, VECTORS)) * LETTER[:, None]
        rest = None if other is None else strength + pick(other, size) * bias + 0.3 * noise[1]
        made = records(slopes, random, rest)
        return at_05(**reliability.where_steerable(made, [6, 2]), methods=reliability.other_methods(made, [6, 2]))
    return make


def above_random(seed, size):
    rng = draw(seed, 3)
    random = 0.2 * rng.normal(size=(N, 20))
    made = [{"control_slope": 0.4 * size + 0.2 * rng.normal(), "random": {"means": row}} for row in random]
    return at_05(steerability={"minus_random": reliability.above_random(made, [6, 3])})


def ranges(seed, size):
    rng = draw(seed, 4)
    means = rng.uniform(0.1, 1, size=N)
    noisy = means + (0.03 if size else 0.3) * rng.normal(size=(2, N))
    made = records(means[:, None] + 0.3 * rng.normal(size=(N, INPUTS)), 0.1 * rng.normal(size=(N, INPUTS, 2)))
    made = [r | {"slope": {"value": m}, "slope_half": a, "slope_one": b, "steerable": True}
            for r, m, a, b in zip(made, means, *noisy)]
    return at_05(**reliability.where_steerable(made, [6, 4]))


def calibrated(seed, size):
    rng = draw(seed, 5)
    own = rng.choice([-1.0, 1.0], size=N) if size else np.ones(N)
    slopes = list(1 + own[:, None] * LETTER + 0.5 * rng.normal(size=(N, INPUTS)))
    return at_05(calibration=reliability.calibration(slopes, [(LETTER, YES)] * N, FORMATS, np.ones(N), [6, 5]))


def of_one_order(seed, size, tag, change):
    """Slopes of another way, `change` times as biased by the letter as the vector is (1: as much)."""
    rng, made = draw(seed, tag), []
    bias = rng.normal(size=(N, 1)) * LETTER
    both = [1 + k * bias + 0.5 * rng.normal(size=(N, INPUTS)) for k in (1.0, change if size else 1.0)]
    for plain, other in zip(*both):
        made.append({name: {"mean": s.mean(), "anti": metrics.anti_fraction(s),
                            "explained": reliability.explained(s, LETTER, YES)}
                     for name, s in (("plain", plain), ("no_letter", other), ("one_order", other), ("words", other))})
    return at_05(**beyond([{"ways": ways} for ways in made]))


def beyond(made):
    """Results of controls.summary over records that hold one part of what it reads."""
    blank = {"steerable": True, "control_slope": 1.0, "own_minus_other": 0.0, "ways": {}, "noise": {},
             "inputs": {"each": {}, "slope": None, "anti": None}}
    results = controls.summary([blank | one for one in made], True, (), [6, 6])
    return {"leak": {"own_minus_other": results.pop("own_minus_other")}} | results


def own_items(seed, size):
    rng = draw(seed, 7)
    return at_05(**beyond([{"own_minus_other": (0.2 * size + rng.normal(size=INPUTS)).mean()} for _ in range(N)]))


def kept(name, seed, size):
    """What a spoilt vector keeps of the slope: 95 % of it, or 75 %."""
    rng = draw(seed, 8)
    full = rng.uniform(0.5, 1.5, size=N)
    part = full * (0.95 if size else 0.75) + 0.05 * rng.normal(size=N)
    return at_05(**beyond([{"control_slope": a, "noise": {name: {"cosine": b / a, "mean": b}}}
                           for a, b in zip(full, part)]))


def single_inputs(seed, size, what):
    """Inputs whose slope follows their own agreement with the vector, beside the letter; at size 0 the letter alone for
    "slope", and nothing for "anti"."""
    rng, made, names = draw(seed, 9), [], np.arange(INPUTS) // 2
    for _ in range(10):
        columns = {"agreement": rng.normal(size=INPUTS), "letter": LETTER, "yes": YES}
        y = size * columns["agreement"] + rng.normal(size=INPUTS) + (LETTER if what == "slope" else 0)
        y = y if what == "slope" else (y < -0.5).astype(float)
        told = controls.foretold(columns, y, names, [6, 9])
        made.append({"inputs": {"each": {}, "slope": None, "anti": None} | {what: told}})
    return at_05(**beyond(made))


# --- over behaviours ----------------------------------------------------------------------------------------
def foretold(seed, size, spread=False):
    """Behaviours whose formats differ in everything; at size 1 a predictor also tells them apart within a format."""
    rng = draw(seed, 10)
    x = rng.normal(size=(N, len(reliability.PREDICTORS))) + 3 * (FORMATS == "options")[:, None]
    y = 3.0 * (FORMATS == "options") + size * x[:, 0] + 0.7 * rng.normal(size=N)
    told = {"held_out_within": predict.foretold_within(x, y, FORMATS, [6, 10])}
    return at_05(predictors={"spread": told} if spread else told)


def across(seed, size):
    rng = draw(seed, 11)
    shared, own = rng.normal(size=N), rng.normal(size=(2, N))
    x, y = 3 * (FORMATS == "options") + size * 1.5 * shared + own
    found = reliability.correlate_within(x, y, FORMATS, [6, 11])
    return at_05() | {"05_across": {"steerability_within": {"spearman": found}}}


def shifted(key, seed, size):
    """Every shift keeps the order of the behaviours; at size 0 two of the four turn it round."""
    rng = draw(seed, 12)
    inside, sign = rng.normal(size=(N, 1)), np.ones(4) if size else np.array([1.0, 1.0, -1.0, -1.0])
    columns = np.repeat(inside, 4, axis=1), sign * inside + 0.6 * rng.normal(size=(N, 4))
    return at_03(**{key: transfer.by_shift(columns, PAIRS, range(4), [6, 12])})


def in_shifts(key, seed, size, sign):
    """Two columns that go together (`sign`) inside each shift or not at all, and the other way from shift to shift."""
    rng = draw(seed, 13)
    x, noise = rng.normal(size=(2, N, 4))
    y = sign * size * 0.7 * x + noise - sign * 3 * BETWEEN
    third = (rng.normal(size=(N, 4)),) if "given" in key else ()
    if third:                                   # goes with both: without it they would correlate in any case
        x, y, third = x + third[0], y + sign * third[0], third
    return at_03(**{key: transfer.inside_pairs((x + 3 * BETWEEN, y, *third), list(range(4)), [6, 13])})


PLANTED = {
    "R1": Planted("the SD of slopes is 0.9 of their mean, or 0.2", inputs(spread=(0.2, 0.9), letter=0.0)),
    "R2": Planted("a quarter of the regular inputs is turned round, or only those planted as contrary",
                  inputs(spread=0.2, wrong=(0.001, 0.25), letter=0.0)),
    "R3": Planted("the vector is more biased by the letter than random vectors, or as much",
                  inputs(spread=0.5, letter=(0.5, 2.0))),
    "R4": Planted("a third of the behaviours steers no better than random vectors, or a twentieth",
                  inputs(spread=0.3, letter=0.0, unsteerable=(2, 13))),
    "R5": Planted("behaviours keep their order on the other model, or the formats alone do", across),
    "R6": Planted("all shifts keep the order of behaviours, or two turn it round",
                  lambda seed, size: shifted("id_ood", seed, size)),
    "R7": Planted("less carries over from further away within shifts, or only between shifts",
                  lambda seed, size: in_shifts("distance_within", seed, size, -1)),
    "R8": Planted("cosine falls with distance within pairs of prompts, or only between them",
                  lambda seed, size: in_shifts("cosine_distance_within", seed, size, -1)),
    "R9": Planted("the order of spreads holds in all shifts, or two turn it round",
                  lambda seed, size: shifted("id_ood_sd", seed, size)),
    "R10": Planted("a short range ranks as the whole one, or with much noise", ranges),
    "R11": Planted("each vector has a letter bias of its own sign, or all the same", calibrated),
    "B2": Planted("the vector moves answers by 0.4 nats, or as a random one", above_random),
    "B4": Planted("the other direction has half of the bias, or as much",
                  inputs(spread=0.3, letter=1.0, other=(1.0, 0.4))),
    "B5": Planted("predictors tell behaviours apart within formats, or formats alone", foretold),
    "B6": Planted("own items are steered by 0.2 nats more, or alike", own_items),
    "B7": Planted("a third of the letter's bias is left, or all", lambda seed, size: of_one_order(seed, size, 14, 0.3)),
    "B8": Planted("one order has three times the bias, or the same",
                  lambda seed, size: of_one_order(seed, size, 15, 3.0)),
    "B9": Planted("words have a third of the bias, or all", lambda seed, size: of_one_order(seed, size, 16, 0.3)),
    "B10": Planted("95 % of the slope is kept, or 75 %", lambda seed, size: kept("flip_20", seed, size)),
    "B11": Planted("95 % of the slope is kept, or 75 %", lambda seed, size: kept("pairs_16", seed, size)),
    "B12": Planted("agreement decides the side, or nothing does", lambda seed, size: single_inputs(seed, size, "anti")),
    "B13": Planted("agreement counts beside the letter, or the letter alone",
                   lambda seed, size: single_inputs(seed, size, "slope")),
    "B14": Planted("predictors tell spreads apart within formats, or formats alone",
                   lambda seed, size: foretold(seed, size, spread=True)),
    "B15": Planted("distance counts at equal cosine, or only through it",
                   lambda seed, size: in_shifts("distance_given_cosine", seed, size, -1)),
    "B16": Planted("cosine counts at equal distance, or only through it",
                   lambda seed, size: in_shifts("cosine_given_distance", seed, size, 1)),
}
