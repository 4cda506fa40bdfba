"""Stage 05 - how far can a behaviour's steering vector be trusted on a single input?

    m_i(lambda) = logit(positive letter) - logit(negative letter)      propensity of input i, nats
    s_i         = least-squares slope of m_i against lambda            steerability of input i, nats per unit
    anti-steerable: s_i <= 0

Inputs are the evaluation split under the BASE prompt. lambda runs over the seven published multipliers, once
at matched relative strength (lambda = 1 moves the residual stream by the same share of its norm for every
behaviour, layer and model: comparable) and once on raw vectors (as published). Layer l is the output of block
l; steering starts at the last prompt token, so the opening bracket of "(A" is steered too.

Controls have the norm of the vector: random directions, and vectors of shuffled labels. They run at lambda =
-1 and 1, where the least-squares slope is (m(1) - m(-1)) / 2; the vector meets them through the same slope.
The vector is also run on the items it was made from (the published runs scored 47 % of their items that way).

Bias: share of the variance of s explained by the letter of the positive option, then by Yes/No on top (Tan et
al. 2024, between inputs), beside the same under permuted labels; and, within pairs of inputs that differ only
in the order of their options, what the swap alone does to s. A suite with planted truth is held against it.

reads   01_extract: vectors, shuffled_vectors, concepts; 02_tune: tuned (layer, unit); the evaluation split
writes  items.jsonl                  one line per input, in row order of the arrays
        propensity.npy               float32 (input, multiplier), matched strength, nats
        propensity_raw.npy           float32 (input, multiplier), raw multipliers, nats
        slopes.npy, slopes_raw.npy, r2.npy, monotonicity.npy      float32 (input,)
        random_slopes.npy, shuffled_slopes.npy                    float32 (input, vector), nats per unit
        behaviours.json              per behaviour: mean slope with interval, SD, shares, controls, biases
        05_across: pairs.json        per pair of models and behaviour: mean and SD of slopes on both
claims  R1, R2, R3, R4; with --across R5
cost    under a minute for 40 behaviours of 40 inputs, two free CPU cores and a 3 M-parameter model

    python 05_reliability.py --model data/models/pico-llama
    python 05_reliability.py --across --model data/models/pico-llama --model data/models/pico-gpt2
"""

import time

import numpy as np

from lib import artifacts, engine, metrics, models, reliability, suite as suites, work
from lib.artifacts import UserError

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 5
MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
CONTROLS = (-1.0, 1.0)  # two rows per control vector instead of six; see above
N_RANDOM = {"full": 20, "smoke": 3}  # random directions per behaviour
N_PERMUTATIONS = 200  # label permutations for the share of variance that chance explains
RANDOM_QUANTILE = 0.95  # a steerable behaviour beats this quantile of the random directions
# ------------------------------------------------------------------------------------------------------------


def propensities(lm, suite, behaviour, items, rows):
    """(item, row) float64 propensity in nats of items at BASE, each prompt ending in the opening bracket."""
    letters, bracket = lm.letter_ids(), lm.tokens("(")
    prompts = [lm.chat(*suites.behaviour_prompts(suite, behaviour, item, "BASE")) + bracket for item in items]
    tokens = np.array([letters if item["positive"] == "A" else letters[::-1] for item in items])
    logits = engine.sweep(lm, prompts, rows, tokens, suffix=1 + len(bracket))["logits"].astype(np.float64)
    return logits[:, :, 0] - logits[:, :, 1]


def measure(lm, suite, behaviour, tuned, vector, shuffled, n_random, address):
    """Propensities of one behaviour: {"matched", "raw" (input, multiplier), "controls" (input, vector, 2)
    with the random directions first, "seen" (extraction item, multiplier)}, float32 nats.

    vector (d,) raw at the tuned layer; shuffled (n, d); address of the random directions."""
    layer, unit, n = tuned["layer"], tuned["unit"], len(MULTIPLIERS)
    scaled = (unit * vector).astype(np.float32)
    controls = [*metrics.norm_matched_random(scaled, n_random, address)]
    controls += [np.linalg.norm(scaled) / np.linalg.norm(v) * v for v in shuffled]
    matched = [((layer, np.float32(m) * scaled),) if m else () for m in MULTIPLIERS]
    raw = [((layer, np.float32(m) * vector),) if m else () for m in MULTIPLIERS]
    steered = [((layer, np.float32(m) * v),) for v in controls for m in CONTROLS]
    found = propensities(
        lm, suite, behaviour, suites.split(behaviour["items"], "evaluate"), matched + raw + steered
    ).astype(np.float32)
    seen = propensities(lm, suite, behaviour, suites.split(behaviour["items"], "extract"), matched)
    return {
        "matched": found[:, :n],
        "raw": found[:, n : 2 * n],
        "seen": seen.astype(np.float32),
        "controls": found[:, 2 * n :].reshape(len(found), -1, len(CONTROLS)),
    }


def per_input(done, n_random):
    """Slopes and fits of one behaviour from what `measure` found: what lib.reliability.record reads."""
    low, high = (MULTIPLIERS.index(m) for m in CONTROLS)
    matched, width = done["matched"].astype(np.float64), CONTROLS[1] - CONTROLS[0]
    controls = (done["controls"][..., 1].astype(np.float64) - done["controls"][..., 0]) / width
    return {
        "slopes": metrics.slopes(MULTIPLIERS, matched),
        "r2": metrics.r2(MULTIPLIERS, matched),
        "monotonicity": metrics.monotonicity(MULTIPLIERS, matched),
        "slopes_raw": metrics.slopes(MULTIPLIERS, done["raw"]),
        "seen_slopes": metrics.slopes(MULTIPLIERS, done["seen"]),
        "unsteered": matched[:, MULTIPLIERS.index(0.0)],
        "control_slope": (matched[:, high] - matched[:, low]) / width,
        "random_slopes": controls[:, :n_random],
        "shuffled_slopes": controls[:, n_random:],
    }


def one_model(args, t0):
    # 1. data: vectors and strengths of the stages before, inputs of the suite
    root, n_random = artifacts.stage_paths(args), N_RANDOM[args.profile]
    out = root / "05_reliability"
    extract, tune = artifacts.load(root / "01_extract", "01_extract"), artifacts.load(
        root / "02_tune", "02_tune"
    )
    suite = suites.load(args.suite, args.profile)
    lm = models.load(args.model)
    config = {
        "model": lm.identity,
        "suite": suite.name,
        "profile": args.profile,
        "seed": SEED,
        "multipliers": MULTIPLIERS,
        "controls": CONTROLS,
        "n_random": n_random,
        "n_permutations": N_PERMUTATIONS,
        "random_quantile": RANDOM_QUANTILE,
    }
    inputs = {"suite": suite.digest, "01_extract": extract.digest, "02_tune": tune.digest}
    modules = (artifacts, engine, metrics, models, reliability, suites, work)
    save = {
        "stage": "05_reliability",
        "config": config,
        "inputs": inputs,
        "t0": t0,
        "sources": [__file__, *(module.__file__ for module in modules)],
    }
    if not suite.behaviours:
        if work.is_main():
            why = dict.fromkeys(reliability.GROUPS, "the suite has no behaviours")
            artifacts.save(out, results={"not_testable": why}, **save)
            print(f"05 reliability  {lm.name}  the suite has no behaviours")
        return

    # 2. every row of every behaviour; a unit is one behaviour
    tuned, vectors, shuffled = (
        tune.table("tuned"),
        extract.array("vectors"),
        extract.array("shuffled_vectors"),
    )
    concepts = {concept["key"]: (i, concept) for i, concept in enumerate(extract.table("concepts"))}
    numbers = {behaviour["name"]: i for i, behaviour in enumerate(suite.behaviours)}

    def unit(name):
        number, chosen = numbers[name], tuned[f"behaviour/{name}"]
        vector = vectors[concepts[f"behaviour/{name}"][0], chosen["layer"]]
        return measure(
            lm,
            suite,
            suite.behaviours[number],
            chosen,
            vector,
            shuffled[number, :, chosen["layer"]],
            n_random,
            [SEED, 1, number],
        )

    done = work.units(out, {**config, **inputs}, list(numbers), unit, "05 reliability")
    if not work.is_main():
        return

    # 3. one record per behaviour, then estimates over behaviours
    items, records, predictors, arrays = [], [], [], {}
    for number, behaviour in enumerate(suite.behaviours):
        name, mine = behaviour["name"], suites.split(behaviour["items"], "evaluate")
        got = per_input(done[name], n_random)
        records.append(
            reliability.record(behaviour, mine, got, RANDOM_QUANTILE, N_PERMUTATIONS, [SEED, 2, number])
        )
        layer, concept = tuned[f"behaviour/{name}"]["layer"], concepts[f"behaviour/{name}"][1]
        predictors.append({key: concept[key][layer] for key in reliability.PREDICTORS})
        items += [
            {
                "behaviour": name,
                **{key: item[key] for key in ("id", "positive", "yes", "contrary", "swap_of")},
            }
            for item in mine
        ]
        got |= {"propensity": done[name]["matched"], "propensity_raw": done[name]["raw"]}
        for key in (
            "slopes",
            "slopes_raw",
            "r2",
            "monotonicity",
            "random_slopes",
            "shuffled_slopes",
            "propensity",
            "propensity_raw",
        ):
            arrays.setdefault(key, []).append(np.asarray(got[key], np.float32))
    results = reliability.summary(records, predictors, RANDOM_QUANTILE, [SEED, 3])

    # 4. artifacts
    axes = {
        "propensity": ("input", "multiplier"),
        "propensity_raw": ("input", "multiplier"),
        "random_slopes": ("input", "vector"),
        "shuffled_slopes": ("input", "vector"),
    }
    saved = artifacts.save(
        out,
        results=results,
        tables={"behaviours": records, "items.jsonl": items},
        **save,
        arrays={key: (np.concatenate(parts), axes.get(key, ("input",))) for key, parts in arrays.items()},
    )
    share = results["anti_steerable"]["share"]
    print(
        f"05 reliability  {lm.name}  anti-steerable {share['value']:.3f} [{share['low']:.3f}, "
        f"{share['high']:.3f}]  {time.time() - t0:.0f} s  digest {saved.digest[:12]}"
    )


def across(args, t0):
    """Is steerability a property of the behaviour? Rank correlation over behaviours between every two
    models."""
    names = [artifacts.model_name(model) for model in args.model]
    if len(set(names)) < max(2, len(names)):
        raise UserError("--across compares models: give --model at least twice, with different models")
    stages = [
        artifacts.load(artifacts.stage_paths(args, model) / "05_reliability", "05_reliability")
        for model in args.model
    ]
    digests = {stage.manifest["inputs"]["suite"] for stage in stages}
    if len(digests) > 1:
        raise UserError(f"{' and '.join(str(stage.path) for stage in stages)}: made from different suites")
    tables = [
        (
            {record["name"]: record for record in stage.table("behaviours")}
            if "behaviours.json" in stage.manifest["outputs"]
            else {}
        )
        for stage in stages
    ]
    rows, results = reliability.compare(names, tables, [SEED, 4])
    saved = artifacts.save(
        artifacts.stage_paths(args, "+".join(names)) / "05_across",
        stage="05_across",
        results=results,
        t0=t0,
        config={"models": names, "suite": stages[0].config["suite"], "profile": args.profile, "seed": SEED},
        inputs={
            "suite": digests.pop(),
            **{f"{name}/05_reliability": stage.digest for name, stage in zip(names, stages)},
        },
        tables={"pairs": rows} if rows else {},
        sources=[__file__, artifacts.__file__, metrics.__file__, reliability.__file__],
    )
    rho = results.get("steerability", {}).get("spearman")
    told = (
        f"Spearman {rho['value']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}]" if rho else "nothing to compare"
    )
    print(f"05 across  {', '.join(names)}  {told}  digest {saved.digest[:12]}")


def main():
    parser = artifacts.cli(__doc__, many=True)
    parser.add_argument("--across", action="store_true", help="compare finished runs; loads no model")
    args = parser.parse_args()
    t0 = time.time()
    if args.across:
        across(args, t0)
    elif len(args.model) != 1:
        raise UserError("--model: one model, or --across to compare several")
    else:
        args.model = args.model[0]
        one_model(args, t0)


if __name__ == "__main__":
    artifacts.run(main)
