"""Card, what moves along: eight contrasts of the project's own beside the vector of a card, whatever its kind. And, since
the model is at hand, its dose for tools that add a vector at all positions (report/export.py), and what a value's vector
adds to examples in the prompt.

data/contrasts.json has short answers to everyday questions, each in two ways: formal and casual, agreeing and
disagreeing, and so on. For each contrast, over its pairs:
    cosine   of the vector with the mean difference of the two answers' states (averaged over the answer's tokens), at
             the vector's layer. Limit: what one more vector of shuffled labels reaches.
    shift    of the log-odds of the first way, nats per token, steered as stage 02 tuned it from the last prompt token
             on, less unsteered. Limits: what one more random vector of the same norm reaches.
Limits are prediction intervals (Student's t) from the vectors at hand. A contrast counts if its whole interval lies
beyond; intervals and limits are widened for the number of contrasts. A change is no fault by itself.

How often it speaks where nothing is: random vectors in the vector's place moved no contrast in 40 cards of pico-llama
and none in 16 of SmolLM2 (8 contrasts each), and vectors of shuffled labels lay along none; tests/test_card_contrasts.py
does it again in small.

reads   01_extract: vectors, shuffled_vectors; 02_tune: tuned; data/contrasts.json
writes  contrasts.json   per contrast: estimates, limits, and what counts
        logprob.npy      per contrast, pair, side, row: nats per token; rows: unsteered, the vector, random ones
        cosine.npy       per contrast, vector: the vector, then shuffled ones
        results          dose: KL as tuned and at all positions, and the coefficient there with the same effect;
                         together, of a value: share of the bias that examples and vector remove, less the examples alone

    python -m report.card_contrasts --model data/models/pico-llama --suite outputs/pico-llama/card-allcaps/suite
"""
import numpy as np

from lib import artifacts, stage

CLI = stage.cli(__doc__)
AFTER = ("01_extract", "02_tune")
PAIRS = artifacts.ROOT / "data/contrasts.json"
stage.begin(__name__, CLI, AFTER, [PAIRS])

from lib import engine, identity, metrics, sizes, suite as suites
from lib.studies import values
from lib.studies.values import SIDES
from report import export
from report.card_read import concept_of
from report.claims import student, widened

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 12
N_PAIRS = {"full": 10, "smoke": 3}
N_RANDOM = {"full": 10, "smoke": 2}
N_EXAMPLES = 4                           # of a value, in the prompt, as in stage 03
# ------------------------------------------------------------------------------------------------------------


def measure(lm, system, contrasts, layer, rows):
    """{"logprob" (contrast, pair, side, row) nats per token, "states" (contrast, pair, side, d) at the layer}
    of every answer; rows: rows of the engine."""
    asked = [(lm.chat(system, pair["prompt"]), lm.tokens(pair[side])) for c in contrasts for pair in c["pairs"]
             for side in SIDES]
    prompts, answers = zip(*asked)
    lengths = np.array(list(map(len, answers)))
    states = engine.read(lm, [prompt + answer for prompt, answer in asked], tail=lengths.tolist())[:, layer]
    logprob = engine.sequence_logprob(lm, prompts, answers, rows) / lengths[:, None]
    shape = len(contrasts), -1, 2
    return {"logprob": logprob.reshape(*shape, len(rows)), "states": states.reshape(*shape, states.shape[-1])}


def together(lm, value, layer, vector):
    """Share of the bias that examples in the prompt and the vector (d,) remove together, each against the probe's lean,
    less what the examples alone do (stage 03 has these, and the vector alone); an estimate over subjects."""
    probes, subjects = (suites.value_split(value, "evaluate", labels=which) for which in (False, True))
    lean, rows = values.preference(lm, probes, [()])[:, 0], [(), ((layer, vector),), ((layer, -vector),)]
    asked = np.stack([values.preference(lm, probes, rows, [
        values.examples(value, side, N_EXAMPLES, [SEED, 2, s, i]) for i in range(len(probes))])
        for s, side in enumerate(SIDES)], axis=1)                                     # (probe, side, row)
    sizes = [np.abs(lean)] + [np.abs(values.against(lean, asked[:, None, (0, 1), both]))[:, 0] for both in ((0, 0), (1, 2))]
    return metrics.of_means(np.stack(sizes, axis=1), lambda means: values.removed(means[:, [0, 2]]) - values.removed(
        means[:, [0, 1]]), unit="subjects", clusters=subjects, seed_address=[SEED, 2])


def limits(reached, parts, mean=None):
    """[low, high] that hold one more draw with LEVEL, widened for `parts`. reached (n,), n >= 2; mean: if it is known."""
    degrees = len(reached) - (mean is None)
    middle = np.mean(reached) if mean is None else mean
    spread = np.sqrt(np.square(reached - middle).sum() / degrees * (1 + (1 / len(reached) if mean is None else 0)))
    half = student(1 - (1 - metrics.LEVEL) / 2 / parts, degrees) * spread
    return [float(middle - half), float(middle + half)]


def beyond(estimate, limit):
    """+1, -1: the whole interval lies above, below both limits and 0; 0: neither."""
    low, high = min(limit[0], 0), max(limit[1], 0)
    return 0 if estimate["low"] is None else int(estimate["low"] > high) - int(estimate["high"] < low)


def conclude(contrasts, logprob, states, vectors):
    """(records of the contrasts, cosines (contrast, vector)) from what `measure` gave; vectors (1 + shuffled, d).

    "along" and "moves" are +1 or -1 where the widened interval decides; those that are written down are not widened."""
    odds = np.subtract(*np.moveaxis(logprob, 2, 0)).astype(np.float64)                # (contrast, pair, row)
    diffs = np.subtract(*np.moveaxis(states, 2, 0)).astype(np.float64)                # (contrast, pair, d)
    cosines = np.array([[metrics.cosine(mean, v) for v in vectors] for mean in diffs.mean(axis=1)])
    unit, found = vectors[0] / np.linalg.norm(vectors[0]), {what: {} for what in ("cosine", "shift", "lean", "random")}
    for c, contrast in enumerate(contrasts):
        def over(tag, values, stat=lambda means: means[:, 0]):
            return metrics.of_means(values, stat, unit="pairs", seed_address=[SEED, 1, c, tag])
        name, moved = contrast["name"], odds[c] - odds[c, :, :1]
        found["cosine"][name] = over(0, diffs[c], lambda means: means @ unit / np.linalg.norm(means, axis=1))
        found["shift"][name], found["lean"][name] = over(1, moved[:, 1:2]), over(2, odds[c, :, :1])
        found["random"][name] = moved[:, 2:].mean(axis=0)
    wide, records = {what: widened(found[what]) for what in ("cosine", "shift")}, []
    for c, contrast in enumerate(contrasts):
        name, n = contrast["name"], len(contrasts)
        record = {"name": name, "positive": contrast["positive"], "negative": contrast["negative"],
                  "cosine": found["cosine"][name], "cosine_limits": limits(cosines[c, 1:], n, mean=0.0),
                  "shift": found["shift"][name], "shift_limits": limits(found["random"][name], n),
                  "lean": found["lean"][name]}
        records.append(record | {"along": beyond(wide["cosine"][name], record["cosine_limits"]),
                                 "moves": beyond(wide["shift"][name], record["shift_limits"])})
    return records, cosines


def main():
    args = CLI.parse_args()

    # 1. the vector at its dose, and what it is held against
    at = stage.open(args, __file__, AFTER, judged=False)
    (extract, tune), key, made = at.before, concept_of(at.suite), at.vectors()
    record, layered = tune.table("tuned")[key], made[key]                             # (layer, d)
    n_pairs, n_random = (sizes.at(size, at.suite.profile) for size in (N_PAIRS, N_RANDOM))
    layer = record["layer"]
    v = np.float32(record["coefficient"]) * layered[layer]
    vectors = np.concatenate([v[None], extract.array("shuffled_vectors")[list(made).index(key), :, layer]])
    contrasts = [contrast | {"pairs": contrast["pairs"][:n_pairs]} for contrast in artifacts.read_json(PAIRS)]
    rows = [(), *(((layer, w),) for w in [v, *metrics.norm_matched_random(v, n_random, [SEED, 0])])]

    # 2. states and log-probabilities of every answer; the dose; a value's vector behind examples
    found = measure(at.lm, at.suite.system, contrasts, layer, rows)
    more = {"dose": export.measure(at.lm, export.prompts(at.lm, at.suite, key, extract), layer, layered[layer],
                                   record["coefficient"])}
    if key.startswith("value/"):
        against = record["against"]
        more["together"] = together(at.lm, at.suite.values[0], against["layer"],
                                    np.float32(against["coefficient"]) * layered[against["layer"]])

    # 3. results
    records, cosines = conclude(contrasts, **found, vectors=vectors)
    config = at.config | {"seed": SEED, "key": key, "layer": layer, "coefficient": record["coefficient"],
                          "n_pairs": n_pairs, "n_random": n_random, "pairs": identity.sha256(PAIRS)}
    moved = [record["name"] for record in records if record["moves"]]
    at.save(config, f"moves along: {', '.join(moved) or 'none'}", tables={"contrasts": records}, arrays={
        "logprob": (found["logprob"].astype(np.float32), ["contrast", "pair", "side", "row"]),
        "cosine": (cosines, ["contrast", "vector"])}, results={
            "n": {"contrasts": len(records), "moved": len(moved)}, **more})


if __name__ == "__main__":
    stage.run(main)
