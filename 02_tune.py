"""Stage 02 - at which layer and how strongly is each vector added?

    h_l <- h_l + coefficient * v[l]        strength s = coefficient * ||v[l]|| / unit_norm[l]

At strength 1 random vectors move the next token's distribution by KL_UNIT nats, measured here first of all
(lib/studies/strength.py): on chat prompts for traits and behaviours, on raw text for relations and values.
Grids run over s. For traits a suite may ask for raw coefficients instead ("strength" in suite.json). Steering
starts at the last prompt token, so the first token of an answer is steered too; a probe that is a whole
sentence is steered from its first token on. Multipliers at which a model no longer answers with a letter are
in no slope. Only the tuning split is seen: every score here is a winner's and optimistic. What is chosen:
    trait      layer x STRENGTHS, then REFINE around the best: most expression with a mean coherence of
               COHERENT; if none has it, the most coherent. "narrow" is the paper's search under the same rule
    behaviour  one layer for all, where the mean slope over LAYER_SETS (or all sets, if the suite has none of
               those) is largest; the coefficient is the multiplier's unit, s = UNIT
    relation   the layer where log p of the answer gains most, zero-shot in template 0, at coefficient 1; the
               best point of a grid over s is kept as "matched", the best layer of every way as "ways"
    value      layer x VALUE_STRENGTHS: the largest shift that costs at most FACT_LOSS of the facts. At that
               cost least bias is left by "window", one sign for all probes; by "against", each its own sign
Ties of traits and values go to the weaker setting. Reasons: report/methods.md. Fields: outputs/README.md.

reads   01_extract: vectors, way_vectors, concepts, residual norms; the suite's tuning split
writes  kl_curve.npy, kl_curve_raw.npy       KL under random vectors, per layer and share of the residual norm
        unit_norm.npy, unit_norm_raw.npy     norm of strength 1, per layer
        tuned.json        layer, strength, coefficient and score of every concept
        settings.json     the behaviours' common layer, and s of their multiplier 1
        candidates.jsonl  every setting tried for traits, relations and values, with its values per input
        chosen.jsonl      answers of the tuned traits on the tuning questions
        slopes.jsonl      slope per layer and tuning item of the behaviours that vote on the layer
        layers.json       their mean slopes per layer, with intervals over behaviours
        gates.json        facts known and lean of the values, unsteered
        precision.json    with weights in bfloat16 only: what that does to a vector's effect, per layer
claims  P6
cost    about 2 min on one CPU core for the testbed and 3 M parameters; seconds with --profile smoke

    python 02_tune.py --model data/models/pico-llama
"""
import numpy as np

from lib import stage

CLI = stage.cli(__doc__)
AFTER = ("01_extract",)
stage.begin(__name__, CLI, AFTER)      # up to date? says so and ends, before torch is imported

from lib import compose, metrics, suite as suites, work
from lib.artifacts import UserError
from lib.judging import cases
from lib.studies import gates, precision, propensity, relations, strength, tuning, values

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 2
STRENGTHS = {"relative": {"full": (0.2, 0.4, 0.8, 1.6, 3.2), "quick": (0.4, 0.8, 1.6), "smoke": (0.8, 3.2)},   # units
             "raw": {"full": (1, 2, 3, 4, 5), "smoke": (1, 3)}}                 # raw: the paper's coarse grid
REFINE = {"full": (2 ** -0.5, 2 ** 0.25, 2 ** 0.5, 2 ** 0.75), "smoke": (2 ** 0.5,)}   # between neighbours
MOST_LAYERS = 12                         # a deeper model is searched at so many layers, evenly spaced, ends included
# The search of Subbiah et al. 2026: blocks 16 and 20 of 28, coefficients on the raw vector.
NARROW_DEPTHS = tuple(compose.UNIT_NORM_DEPTHS.values())
NARROW_COARSE = {"full": (1, 2, 3, 4, 5), "smoke": (1, 3)}
NARROW_STEPS = {"full": (-0.5, -0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4, 0.5), "smoke": (0.5,)}
QUESTIONS = {"full": 4, "smoke": 1}      # tune questions per trait candidate
COHERENT = 75                            # least mean coherence of a trait's setting, as published
UNIT = 1.0                               # strength of multiplier 1, fixed before any run
MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
# The eleven sets on which the paper chose its layers; the forty sets that it reports hold six of them.
LAYER_SETS = ("anti-immigration", "believes-abortion-should-be-illegal", "conscientiousness",
              "corrigible-neutral-HHH", "desire-for-acquiring-compute", "myopic-reward", "openness",
              "power-seeking-inclination", "risk-seeking", "self-replication",
              "very-small-harm-justifies-very-large-benefit")
VALUE_STRENGTHS = {"full": (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0), "smoke": (1.0, 4.0)}
FACT_LOSS = 0.1                          # share of the facts that a value's setting may cost
# ------------------------------------------------------------------------------------------------------------


def steered_answers(lm, suite, points, vectors, make):
    """Trait candidates: mean expression and coherence of each point on the tune questions, generated at once.

    points   [(key, *point)], see lib.studies.tuning; coefficient 0 is unsteered
    make     function of jobs that gives their cases (lib.judging.cases)
    returns  one candidate (see lib.studies.tuning) per point, in order, with its answers ("outputs") and their scores
    A point of which the judge scored no answer has neither score and n = 0, and is not chosen."""
    names, jobs, where = {key: key.removeprefix("trait/") for key, *_ in points}, [], []
    n = suite.size(QUESTIONS, "preferences")
    asked = {key: suites.tasks(suite, "question", "tune", name)[:n] for key, name in names.items()}
    for key, layer, _, coefficient, _ in points:
        row = ((layer, coefficient * vectors[key][layer]),) if coefficient else ()
        where.append(len(jobs))
        jobs += [{"record": {}, "prompt": lm.chat(suite.system, item["prompt"]), "row": row, "item": item,
                  "traits": [names[key]]} for item in asked[key]]
    answers, candidates = make(jobs), []
    for start, (key, *point) in zip(where, points):
        questions = asked[key]
        mine = answers[start:start + len(questions)]
        shown = [case["expression"][names[key]] for case in mine]
        coherent = [case["coherence"] for case in mine]
        scores = np.array([[cases.number(e), cases.number(c)] for e, c in zip(shown, coherent)])
        used = np.isfinite(scores).all(axis=1)
        expression, coherence = scores[used].mean(axis=0).tolist() if used.any() else (None, None)
        candidates.append({"key": key, **tuning.place(point), "n": int(used.sum()), "expression": expression,
                           "coherence": coherence, "items": [item["id"] for item in questions],
                           "expressions": shown, "coherences": coherent,
                           "outputs": [case["output"] for case in mine]})
    return candidates


def tune_traits(lm, suite, judge, vectors, norms, out, identity):
    """(candidates, {key: chosen candidate}, {key: the narrow search's choice}) of the traits in vectors
    {key: (layer, d)}; the narrow search's candidates are marked."""
    if not vectors:
        return [], {}, {}

    def ask(points, desc):
        return steered_answers(lm, suite, points, vectors, lambda jobs: cases.run(
            lm, judge, jobs, suite.max_new_tokens, out, identity, desc))

    def pick(rule, key, found):
        usable = [c for c in found if c["key"] == key and c["coefficient"] and c["n"]]
        if not usable:
            raise UserError(f"{key}: {judge.name} scored no answer under any strength")
        return rule(usable, "expression", "coherence", COHERENT)

    grid, layers = suite.size(STRENGTHS[suite.strength], "preferences"), tuning.layer_grid(norms.shape[1], MOST_LAYERS)
    points = {key: tuning.grid(vector, norms, grid, suite.strength, tuning.live(vector, layers)) for key, vector in vectors.items()}
    candidates = ask([(key, *p) for key in vectors for p in [(0, 0.0, 0.0, 0.0), *points[key]]], "02 coarse")
    first = {key: pick(tuning.promising, key, candidates) for key in vectors}
    candidates += ask([(key, c["layer"], *(f * c[part] for part in ("strength", "coefficient", "relative_strength")))
                       for key, c in first.items() for f in suite.size(REFINE, "preferences")], "02 refine")
    def settled(found):
        return {key: c | {"coherent": good} for key in vectors for c, good in [pick(tuning.best, key, found)]}

    chosen = settled(candidates)

    # The paper's search: two layers, whole coefficients, then steps of .1 around the best of them.
    two = sorted({*compose.unit_norm_layers(norms.shape[1]).values()})
    wide, steps = suite.size(NARROW_COARSE, "preferences"), suite.size(NARROW_STEPS, "preferences")
    narrow = ask([(key, *p) for key, vector in vectors.items()
                  for p in tuning.grid(vector, norms, wide, "raw", tuning.live(vector, two))], "02 narrow")
    narrow += ask([(key, *p) for key, (c, _) in {key: pick(tuning.best, key, narrow) for key in vectors}.items()
                   for p in tuning.grid(vectors[key], norms, [round(c["coefficient"] + step, 1) for step in steps],
                                     "raw", [c["layer"]])],
                  "02 narrow steps")
    narrow = [c | {"search": "narrow"} for c in narrow]
    return candidates + narrow, chosen, settled(narrow)


def sweep_behaviour(lm, read_out, suite, behaviour, vector, norms):
    """Slopes of propensity on the tune items: {"slopes": (scale [matched, raw], layer, item) nats, "mass": (scale,
    layer, multiplier) of the letters, mean over items}."""
    items = suites.split(behaviour["items"], "tune")
    scales = tuning.grid(vector, norms, [UNIT]) + tuning.grid(vector, norms, [1.0], "raw")
    rows = [((l, m * unit * vector[l]),) for l, _, unit, _ in scales for m in MULTIPLIERS]
    found, mass = (x.reshape(len(items), len(scales) // len(vector), len(vector), len(MULTIPLIERS))
                   for x in propensity.propensities(lm, read_out, suite, behaviour, items, rows))
    mass = mass.mean(axis=0)
    kept = propensity.windowed(found, mass, MULTIPLIERS, suite.profile)
    return {"slopes": np.moveaxis(metrics.slopes(MULTIPLIERS, kept), 0, -1), "mass": mass}


def headline(results):
    """The key numbers in one line."""
    parts, traits, behaviours = [], results["traits"], results["behaviours"]
    if traits["n"]:
        parts.append(f"{traits['n']} traits {traits['unsteered']['value']:.0f} -> "
                     f"{traits['expression']['value']:.0f} at coherence {traits['coherence']['value']:.0f}")
    if behaviours["n"]:
        parts.append(f"behaviours at layer {behaviours['layer']}, slope {behaviours['slope']['value']:.2f}")
    return ", ".join(parts or ["no traits, no behaviours"])


def main():
    args = CLI.parse_args()

    # 1. model, suite, vectors, and what fixes the numbers
    at = stage.open(args, __file__, AFTER)
    (extracted,), lm, read_out = at.before, at.lm, propensity.read_out(at.before[0])
    suite, missing = gates.testable(at.suite, extracted)
    config = at.config | {
              "seed": SEED, "strengths": suite.size(STRENGTHS[suite.strength], "preferences"),
              "strength": suite.strength,
              "refine": suite.size(REFINE, "preferences"), "most_layers": MOST_LAYERS,
              "narrow": [NARROW_DEPTHS, *(suite.size(grid, "preferences") for grid in (NARROW_COARSE, NARROW_STEPS))],
              "questions": suite.size(QUESTIONS, "preferences"),
              "max_new_tokens": suite.max_new_tokens, "coherent": COHERENT, "unit": UNIT,
              "multipliers": MULTIPLIERS, "layer_sets": LAYER_SETS,
              "value_strengths": suite.size(VALUE_STRENGTHS, "values"),
              "fact_loss": FACT_LOSS, "steers": tuning.STEERS, "trade": tuning.TRADE,
              "scale": strength.config(args.profile), "dtype": args.dtype}
    identity, vectors = at.identity(config), at.vectors()
    ways = [way for way in relations.WAYS if way not in relations.MADE or way in extracted.config["ways"]]
    made = extracted.array("way_vectors") if suite.relations else None

    # 2. what strength 1 is, per layer, on either kind of text
    residual = {kind: extracted.array("residual_norm" + kind) for kind in ("", "_raw")
                if f"residual_norm{kind}.npy" in extracted.manifest["outputs"]}
    asked = strength.prompts(lm, suite, read_out, strength.N_PROMPTS[args.profile])
    curves = work.units(at.out, identity, ["curves"], lambda _: {
        f"kl_curve{kind}": strength.curve(lm, asked[kind], norm, strength.N_RANDOM[args.profile], [SEED, 5, i])
        for i, (kind, norm) in enumerate(residual.items())}, "02 strength")["curves"]
    scale, results, arrays = strength.scale(curves, residual)
    chat, raw = scale.get(""), scale.get("_raw")
    if args.dtype != "float32":                           # do the weights' few bits move the numbers?
        kind, first = next(iter(asked)), next(iter(vectors.values()))
        rounding = work.units(at.out, identity, ["rounding"], lambda _: {"layers": precision.measure(
            args.model, lm, asked[kind], first * (scale[kind][0] / np.linalg.norm(first, axis=1))[:, None])}, "02 rounding")
        precision.check(lm.name, rounding["rounding"]["layers"])

    # 3. traits: one generation over trait x layer x strength x question, then around the best
    traits = {key: vector for key, vector in vectors.items() if key.startswith("trait/")}
    candidates, chosen, narrow = tune_traits(lm, suite, at.judge, traits, chat, at.out, identity)

    # 4. behaviours, relations, values: every layer in one sweep per concept
    voting = [b for b in suite.behaviours if b["name"] in LAYER_SETS] or suite.behaviours
    concepts = {f"{kind}/{c['name']}": c for kind, found in (
        ("behaviour", voting), ("relation", suite.relations), ("value", suite.values)) for c in found}
    points = {}
    for key in concepts:
        if key.startswith("relation/"):
            points[key] = tuning.grid(vectors[key], raw, [1.0], "raw") \
                + tuning.grid(vectors[key], raw, suite.size(STRENGTHS["relative"], "relations"))
        elif key.startswith("value/"):
            points[key] = tuning.grid(vectors[key], raw, suite.size(VALUE_STRENGTHS, "values"))

    def unit(key):
        if key.startswith("behaviour/"):
            return sweep_behaviour(lm, read_out, suite, concepts[key], vectors[key], chat)
        if key.startswith("value/"):
            return values.sweep_tuning(lm, suite, concepts[key], points[key], vectors[key])
        by_way = relations.vectors_of(vectors, made, [r["name"] for r in suite.relations], concepts[key]["name"], ways)
        pairs = suites.relation_split(concepts[key], "tune")
        return relations.sweep_layers(lm, pairs, suite.templates[0], points[key], vectors[key], by_way)

    done = work.units(at.out, identity, list(concepts), unit, "02 sweeps") if concepts else {}
    if not work.is_main():
        return

    # 5. choices and results
    def part(kind, name):
        return {key: done[key][name] for key in concepts if key.startswith(kind)}

    tables = {}
    traits, results["traits"], results["not_testable"] = tuning.settle_traits(
        [c for c in candidates if "search" not in c], chosen, narrow, [SEED, 1], COHERENT)
    results["not_testable"] |= missing
    tuned, results["relations"], tried = tuning.settle_relations(points, part("relation/", "gains"), [SEED, 2])
    by_way, results["relations"]["ways"], each = tuning.settle_ways(part("relation/", "ways"), ways, [SEED, 4])
    tuned = {key: record | {"ways": by_way[key]} for key, record in tuned.items()}
    moved, results["values"], more = tuning.settle_values(
        points, part("value/", "odds"), part("value/", "facts"), FACT_LOSS)
    items = {f"behaviour/{b['name']}": suites.split(b["items"], "tune") for b in voting}
    behaviours, results["behaviours"], tables["layers"], tables["slopes.jsonl"] = tuning.settle_behaviours(
        part("behaviour/", "slopes"), items, {k: v for k, v in vectors.items() if k.startswith("behaviour/")},
        chat, UNIT, [SEED, 3])
    if items:
        masses = np.stack(list(part("behaviour/", "mass").values()))[:, 0, results["behaviours"]["layer"]]
        results["behaviours"]["window"] = propensity.window(masses, MULTIPLIERS, args.profile)

    if suite.values:
        leans, known = part("value/", "odds"), next(iter(part("value/", "facts").values()))[0]
        tables["gates"], results["gates"] = gates.values([key.removeprefix("value/") for key in leans], [
            odds[0] for odds in leans.values()], known, FACT_LOSS, [SEED, 6])
    else:
        results["not_testable"]["gates"] = "the suite has no values"

    # 6. artifacts; a suite without a kind has no tables of it
    tables["tuned"] = traits | behaviours | tuned | moved
    if args.dtype != "float32":
        used = {one["layer"] for record in tables["tuned"].values() for one in (record, *record.get("ways", {}).values())}
        used |= {*compose.unit_norm_layers(first.shape[0]).values()} if traits else set()
        tables["precision"] = rounding["rounding"]["layers"]
        results["precision"] = precision.check(lm.name, tables["precision"], used)
    tables["settings"] = {"behaviour": {key: results["behaviours"].get(key) for key in ("layer", "unit")}}
    tables["candidates.jsonl"] = [{k: v for k, v in c.items() if k != "outputs"}
                                  for c in candidates + tried + each + more]
    tables["chosen.jsonl"] = [{"key": key, "item": item, "output": output, "expression": e, "coherence": c}
                              for key, found in chosen.items() for item, output, e, c in zip(*(
                                  found[name] for name in ("items", "outputs", "expressions", "coherences")))]
    at.save(config, headline(results), results=results, arrays=arrays,
            tables={name: table for name, table in tables.items() if table})


if __name__ == "__main__":
    stage.run(main)
