"""Stage 05 - how far can a behaviour's steering vector be trusted on a single input?

    m_i(lambda) = logit(positive letter) - logit(negative letter)      propensity of input i, nats
    s_i         = least-squares slope of m_i against lambda            steerability of input i, nats per unit
    anti-steerable: s_i <= 0

Inputs are the evaluation split under the BASE prompt. Letters are read where stage 01 found them.
Steering starts at the last prompt token, so a bracket before the letter is steered too. lambda runs over
MULTIPLIERS twice: matched, where 1 is the same strength (UNIT of stage 02) for all behaviours and models; and
raw, on the vector as it is. Where the letters hold less than LEAST_MASS a point is in no slope. "sum" is
the propensity of the released code, which adds the logits of the closing bracket.
Controls have the norm of the vector: random, shuffled labels, the same made orthogonal to it, and directions
of other methods. They run at lambda = CONTROLS alone, where the slope is (m(1) - m(-1)) / 2; the vector meets
them through the same slope. A behaviour is steerable if its mean is above RANDOM_QUANTILE of the random means,
each counted with both signs. "published" repeats the released split: 47 % of its test items made the vector.
Bias is the share of Var(s_i) that the letter explains, and Yes/No on top; a swap changes the order of options
alone. lib.studies.controls takes it out, foretells single inputs, and turns labels round (FLIPS) or leaves
pairs out (FEW). Derivations: report/methods.md. Fields and units: outputs/README.md.

reads   data/published.json; 01_extract: vectors, shuffled_vectors, method_vectors, published_vectors, concepts;
        02_tune: tuned; the suite's split evaluate, and all items from 5 % on for "published"
writes  items.jsonl                                 the inputs, in row order of the arrays
        propensity.npy, propensity_raw.npy          per input and multiplier
        propensity_sum.npy, propensity_sum_raw.npy  the same by the released definition
        slopes.npy, slopes_raw.npy, slopes_sum.npy, slopes_sum_raw.npy, slopes_published.npy     per input
        r2.npy, monotonicity.npy                    per input: how straight and how rising its curve is
        random_slopes.npy, shuffled_slopes.npy, orthogonal_slopes.npy, method_slopes.npy     per input, control
        behaviours.json                             everything per behaviour, with intervals over its inputs
        pairs.json                                  with --across, in 05_across: two models side by side
claims  R1, R2, R3, R4, R10, R11; B2, B4 to B14; with --across R5
cost    about two minutes on one CPU core for the testbed and 3 M parameters; seconds with --profile smoke

    python 05_reliability.py --model data/models/pico-llama
    python 05_reliability.py --across --model data/models/pico-llama --model data/models/pico-gpt2
"""
import numpy as np

from lib import stage
from lib.identity import ROOT, sha256

CLI = stage.cli(__doc__, many=True)
CLI.add_argument("--across", action="store_true", help="compare finished runs; loads no model")
AFTER = ("01_extract", "02_tune")
PUBLISHED = ROOT / "data" / "published.json"                # per-dataset values of three models
stage.begin(__name__, CLI, AFTER, [PUBLISHED])              # up to date? says so and ends, before torch is imported

from lib import artifacts, metrics, passes, suite as suites, work
from lib.artifacts import UserError
from lib.studies import controls, gates, propensity, reliability

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 5
MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
CONTROLS = (-1.0, 1.0)               # two rows per control vector instead of six; see above
N_RANDOM = {"full": 20, "quick": 10, "smoke": 3}  # random directions per behaviour
FLIPS = (0.1, 0.2, 0.3, 0.4, 0.5)    # shares of labels turned round
FEW = (4, 8, 16, 32, 64)             # pairs a vector is made from, where there are as many
N_DRAWS = {"full": 3, "smoke": 1}    # vectors per share and per number of pairs
N_PERMUTATIONS = 200                 # label permutations for the share of variance that chance explains
RANDOM_QUANTILE = 0.95               # a steerable behaviour beats this quantile of the random directions
# ------------------------------------------------------------------------------------------------------------
STEPS = [m for m in MULTIPLIERS if m]


def scaled(layer, vector):
    """A row per multiplier but 0."""
    return [((layer, np.float32(m) * vector),) for m in STEPS]


def curve(unsteered, steered):
    """(input, multiplier) from what is unsteered (input,) and the rows of `scaled` (input, step)."""
    return np.insert(steered, MULTIPLIERS.index(0.0), unsteered, axis=1)


def measure(lm, read_out, suite, behaviour, tuned, vector, published, others, address, n_random):
    """What one behaviour does under every row, float32 nats.

    tuned      {"layer", "unit"}: matched strength adds unit * vector (d,), raw strength the vector itself
    published  (d,) vector of the released split
    others     {"shuffled", "orthogonal", "method": (n, d)}: controls beside n_random random ones at `address`
    returns    {"matched", "raw", "sum", "sum_raw", "published" (input, multiplier), "overlap" (trained-on item,
               multiplier), and for "random" and each of `others` (input, vector, control); and of the letters, mean
               over inputs, "mass_matched", "mass_raw", "mass_published" (multiplier,)}"""
    layer, unit = tuned["layer"], tuned["unit"]
    here = (unit * vector).astype(np.float32)
    norm = np.linalg.norm(here)
    groups = {"random": metrics.norm_matched_random(here, n_random, address)}
    groups |= {name: norm * v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in others.items()}
    runs = {"matched": here, "raw": vector, "published": np.float32(unit) * published}
    rows = [(), *(row for v in runs.values() for row in scaled(layer, v))]
    rows += [((layer, np.float32(m) * v),) for group in groups.values() for v in group for m in CONTROLS]
    items, (trained, tested) = suites.split(behaviour["items"], "evaluate"), suites.published_split(behaviour["items"])
    found, mass = propensity.propensities(lm, read_out, suite, behaviour, items, rows)
    out, n = {}, len(STEPS)
    for i, name in enumerate(runs):
        out[name], out[f"mass_{name}"] = (curve(x[:, 0], x[:, 1 + i * n:1 + (i + 1) * n]) for x in (found, mass))
        out[f"mass_{name}"] = out[f"mass_{name}"].mean(axis=0)
    rest = found[:, 1 + len(runs) * n:].reshape(len(items), -1, len(CONTROLS))
    for name, part in zip(groups, np.split(rest, np.cumsum([len(g) for g in groups.values()])[:-1], axis=1)):
        out[name] = part
    seen = {item["id"] for item in trained}
    overlap, _ = propensity.propensities(lm, read_out, suite, behaviour,
                                         [item for item in tested if item["id"] in seen],
                                         [(), *scaled(layer, runs["published"])])
    out["overlap"] = curve(overlap[:, 0], overlap[:, 1:])
    closed = propensity.closings(lm, read_out, suite, behaviour, items,
                                 [(), *scaled(layer, here), *scaled(layer, vector)])
    out["sum"] = out["matched"] + curve(closed[:, 0], closed[:, 1:1 + n])
    out["sum_raw"] = out["raw"] + curve(closed[:, 0], closed[:, 1 + n:])
    return {name: value.astype(np.float32) for name, value in out.items()}


def measure_one(lm, suite, number, chosen, vector, extract, n_random):
    """`measure` of one behaviour with the vectors that stage 01 (`extract`) made of it; vector (layer, d)."""
    name, layer = suite.behaviours[number]["name"], chosen["layer"]
    row = [concept["key"] for concept in extract.table("concepts")].index(f"behaviour/{name}")
    others = extract.array("shuffled_vectors")[row, :, layer]
    others = {"shuffled": others, "method": extract.array("method_vectors")[:, number, layer],
              "orthogonal": metrics.orthogonal_to(others, vector[layer])}
    return measure(lm, propensity.read_out(extract), suite, suite.behaviours[number], chosen, vector[layer],
                   extract.array("published_vectors")[number, layer], others, [SEED, 1, number], n_random)


def per_input(done, profile):
    """Slopes and fits of one behaviour from what `measure` found: what lib.studies.reliability.record reads."""
    low, high = (MULTIPLIERS.index(m) for m in CONTROLS)
    done, width = {name: value.astype(np.float64) for name, value in done.items()}, CONTROLS[1] - CONTROLS[0]
    got = {f"{name}_slopes": (done[name][..., 1] - done[name][..., 0]) / width
           for name in ("random", "shuffled", "orthogonal", "method")}
    kept = {name: propensity.windowed(done[name], done[f"mass_{of}"], MULTIPLIERS, profile) for name, of in (
        ("matched", "matched"), ("sum", "matched"), ("raw", "raw"), ("sum_raw", "raw"),
        ("published", "published"), ("overlap", "published"))}
    matched = done["matched"]
    return got | {"slopes": metrics.slopes(MULTIPLIERS, kept["matched"]),
                  "r2": metrics.r2(MULTIPLIERS, kept["matched"]),
                  "monotonicity": metrics.monotonicity(MULTIPLIERS, kept["matched"]),
                  "unsteered": matched[:, MULTIPLIERS.index(0.0)],
                  "control_slope": (matched[:, high] - matched[:, low]) / width,
                  **{f"slopes_{name}": metrics.slopes(MULTIPLIERS[at:-at], kept["matched"][:, at:-at])
                     for name, at in (("half", 2), ("one", 1))},          # multipliers up to 0.5, and up to 1
                  **{f"slopes_{name}": metrics.slopes(MULTIPLIERS, kept[name])
                     for name in ("raw", "sum", "sum_raw", "published", "overlap")}}


def one_model(args):
    # 1. data: vectors and strengths of the stages before, inputs of the suite
    at = stage.open(args, __file__, AFTER, judged=False)
    n_random = at.suite.size(N_RANDOM, "reliability")
    (extract, tune), lm = at.before, at.lm
    suite, missing = gates.testable(at.suite, extract)
    at.inputs["published"] = sha256(PUBLISHED)
    published = artifacts.read_json(PUBLISHED, {"reliability": reliability.PUBLISHED})["reliability"]
    config = at.config | {
              "seed": SEED, "multipliers": MULTIPLIERS, "controls": CONTROLS, "n_random": n_random,
              "n_permutations": N_PERMUTATIONS, "random_quantile": RANDOM_QUANTILE,
              "flips": FLIPS, "few": FEW, "n_draws": at.suite.size(N_DRAWS, "reliability"),
              "methods": extract.config.get("methods", [])}
    if not suite.behaviours:
        if work.is_main():
            reason = missing.get("behaviours", "the suite has no behaviours")
            groups = (*reliability.GROUPS, *controls.GROUPS)
            at.save(config, reason, results={"not_testable": dict.fromkeys(groups, reason)})
        return

    # 2. every row of every behaviour; a unit is one behaviour
    tuned = tune.table("tuned")
    vectors, concepts = at.vectors(), {concept["key"]: concept for concept in extract.table("concepts")}
    numbers = {behaviour["name"]: i for i, behaviour in enumerate(suite.behaviours)}
    used = {name: vectors[f"behaviour/{name}"][tuned[f"behaviour/{name}"]["layer"]] for name in numbers}
    read_out, identity = propensity.read_out(extract), at.identity(config)

    def states_unit(key):
        name = key.removeprefix("states/")
        return controls.read(lm, read_out, suite, suite.behaviours[numbers[name]], tuned[f"behaviour/{name}"]["layer"],
                             "extract")

    def unit(name):
        key, i = f"behaviour/{name}", numbers[name]
        about, chosen = (lm, read_out, suite, suite.behaviours[i]), tuned[key]
        with passes.kept():                  # each input is read once, whatever is done to it
            parts = {"input": controls.read(*about, chosen["layer"], "evaluate"),
                     "way": controls.measure(*about, chosen, used[name], states[name]["diff"], np.mean(
                         letters[chosen["layer"]], axis=0), config, [SEED, 6, i]),
                     "row": measure_one(lm, suite, i, chosen, vectors[key], extract, n_random)}
        return {f"{part}.{key}": value for part, found in parts.items() for key, value in found.items()}

    states = work.units(at.out, identity, [f"states/{name}" for name in numbers], states_unit, "05 states")
    states, letters = dict(zip(numbers, states.values())), {}          # per layer: from B to A, of every behaviour
    for behaviour in suite.behaviours:
        letters.setdefault(tuned[f"behaviour/{behaviour['name']}"]["layer"], []).append(controls.letter_direction(
            suites.split(behaviour["items"], "extract"), states[behaviour["name"]]["diff"]))
    measured = work.units(at.out, identity, list(numbers), unit, "05 reliability")
    if not work.is_main():
        return

    # 3. one record per behaviour, then estimates over behaviours
    items, records, predictors, inputs, arrays = [], [], [], [], {}
    for number, behaviour in enumerate(suite.behaviours):
        name, mine = behaviour["name"], suites.split(behaviour["items"], "evaluate")
        of, way, done = ({key.partition(".")[2]: value for key, value in measured[name].items() if key.startswith(part)}
                         for part in ("input.", "way.", "row."))
        got = per_input(done, args.profile)
        records.append(reliability.record(behaviour, mine, got, config["methods"], RANDOM_QUANTILE, N_PERMUTATIONS,
                                          [SEED, 2, number]))
        records[-1]["mass"] = {scale: done[f"mass_{scale}"] for scale in ("matched", "raw", "published")}
        records[-1]["curve"] = done["matched"].mean(axis=0)
        inputs.append((got["slopes"], reliability.signs(mine)))
        columns = controls.features(mine, got["unsteered"], of, states[name], used[name])
        records[-1] |= controls.record(mine, got["slopes"], got["control_slope"], columns, way, [SEED, 7, number])
        told = {"logit_lens": controls.logit_lens(lm, read_out, used[name]), "granularity": controls.granularity(
            suites.split(behaviour["items"], "extract"), states[name]["diff"])}
        records[-1] |= told
        layer, concept = tuned[f"behaviour/{name}"]["layer"], concepts[f"behaviour/{name}"]
        predictors.append({key: concept[key][layer] for key in reliability.VECTOR_PREDICTORS} | told
                          | {"baseline": records[-1]["unsteered"]["mean"]})
        items += [{"behaviour": name, **{key: item[key] for key in ("id", "positive", "yes", "contrary", "swap_of")}}
                  for item in mine]
        got |= {"propensity": done["matched"], "propensity_raw": done["raw"],
                "propensity_sum": done["sum"], "propensity_sum_raw": done["sum_raw"]}
        for key in ("propensity", "propensity_raw", "propensity_sum", "propensity_sum_raw", "slopes", "slopes_raw",
                    "slopes_sum", "slopes_sum_raw", "slopes_published", "r2", "monotonicity", "random_slopes",
                    "shuffled_slopes", "orthogonal_slopes", "method_slopes"):
            arrays.setdefault(key, []).append(np.asarray(got[key], np.float32))
    results = reliability.summary(records, predictors, inputs, RANDOM_QUANTILE, [SEED, 3])
    results["window"] = {scale: propensity.window(np.stack([r["mass"][scale] for r in records]), MULTIPLIERS,
                                                  args.profile) for scale in records[0]["mass"]}
    more, gone = metrics.missing_apart(controls.summary(records, reliability.steers(results), FEW, [SEED, 8]))
    results["leak"] |= {"own_minus_other": more.pop("own_minus_other")} if "own_minus_other" in more else {}
    missing |= {key.replace("own_minus_other", "leak.own_minus_other"): reason for key, reason in gone.items()}
    results |= more
    results["published"], gaps = reliability.beside(records, published, reliability.steers(results), [SEED, 5])
    results["not_testable"] |= missing | {f"published.{key}": reason for key, reason in gaps.items()}

    # 4. artifacts
    def axes(key):
        second = "multiplier" if key.startswith("propensity") else "vector" if key.endswith("_slopes") else None
        return ("input", second) if second else ("input",)

    share = results["anti_steerable"]["share"]
    at.save(config, f"{results['n']['steerable']} of {len(records)} behaviours steer, anti-steerable "
                    f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]", results=results,
            tables={"behaviours": records, "items.jsonl": items},
            arrays={key: (np.concatenate(parts), axes(key)) for key, parts in arrays.items()})


def across(args):
    """Is steerability a property of the behaviour? Rank correlation over behaviours between every two models."""
    names = [stage.model_name(model) for model in args.model]
    if len(set(names)) < max(2, len(names)):
        raise UserError("--across compares models: give --model at least twice, with different models")
    found = [artifacts.load(stage.paths(args, model) / "05_reliability", "05_reliability") for model in args.model]
    digests = {artifact.manifest["inputs"]["suite"] for artifact in found}
    if len(digests) > 1:
        raise UserError(f"{' and '.join(str(artifact.path) for artifact in found)}: made from different suites")
    tables = [{record["name"]: record for record in artifact.table("behaviours")}
              if "behaviours.json" in artifact.manifest["outputs"] else {} for artifact in found]
    idle = [name for name, artifact in zip(names, found) if not reliability.steers(artifact.results)]
    rows, results = reliability.compare(names, tables, idle, [SEED, 4])
    saved = artifacts.save(
        stage.target(args, "05_reliability"), stage="05_across", results=results,
        config={"models": names, "suite": found[0].config["suite"], "profile": args.profile, "seed": SEED},
        inputs={"suite": digests.pop(),
                **{f"{name}/05_reliability": artifact.digest for name, artifact in zip(names, found)}},
        tables={"pairs": rows} if rows else {},
        sources=[__file__])
    rho = results.get("steerability", {}).get("spearman")
    told = f"Spearman {rho['value']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}]" if rho else "nothing to compare"
    print(f"05 across  {', '.join(names)}  {told}  digest {saved.digest[:12]}")


def main():
    args = CLI.parse_args()
    if args.across:
        across(args)
    elif len(args.model) != 1:
        raise UserError("--model: one model, or --across to compare several")
    else:
        args.model = args.model[0]
        one_model(args)


if __name__ == "__main__":
    stage.run(main)
