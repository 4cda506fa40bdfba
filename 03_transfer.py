"""Stage 03 - do tuned vectors hold in another task, under another prompt, in a longer context?

    traits      gain  = expression steered - unsteered, same prompt, points of 100
    behaviours  s(v_A, D_B) = mean slope of propensity against the multiplier, nats per unit
                relative = s(v_A, D_B) / |s(v_B, D_B)|        distance = mean_i |m_i(A) - m_i(B)|, unsteered
    relations   gain  = log p(antonym) steered - unsteered, minus the mean of that over random vectors, nats
    values      shift = log-odds steered - unsteered, minus the mean of that over random vectors, nats
                bias  = size of the log-odds, nats; with one sign for all, or against each probe's lean

Layer and coefficient are those of stage 02. Steering starts at the last prompt token, in whole sentences at the
first. A random vector has the layer and the norm of the row it controls. Inputs are the evaluation split; only
the task SEEN asks the questions that made the vectors, to show what that is worth.
Traits: one judge and one scale in all tasks. "narrow" and "steered_other_start" are what the release does.
Behaviours: v_A is made under prompt setting A, D_B are inputs under B; all v_A have the norm of v_BASE.
"relative" needs |s(v_B, D_B)| above MIN_STEERABILITY. Headline correlations pool the four SHIFTS.
Relations: level 0 is a bare query, 1 to 3 have SENTENCES in front, 4 synonym pairs or an instruction.
Values: a strength is inside the window if one sign of the vector lowers the bias and costs at most stage
02's FACT_LOSS of the facts, both with their whole interval. Reasons: report/methods.md. Fields, units:
outputs/README.md.

reads   01_extract: vectors, setting_vectors, way_vectors, concepts; 02_tune: tuned, unit_norm_raw;
        the suite's split evaluate; extract and tune for the task SEEN and for examples in a prompt
writes  cases.jsonl, prompts.jsonl           every text with its scores; the task items they answer
        traits.json, trait_inputs.json       per trait and task: arms, paired differences; per trait: prompts
        propensity.npy, propensity_unsteered.npy, slopes.npy, behaviour_items.jsonl     per input and A, B
        behaviours.json, shifts.json         per behaviour; per behaviour and pair A, B
        relation_logp.npy, relation_rank.npy, relation_items.jsonl     the antonym vector, per prompt and row
        way_logp.npy, way_rank.npy, way_items.jsonl                    all ways to make it, per prompt and row
        relations.json, ways.json            gain per template and context, of the vector and of all ways
        probe_lean.npy, probe_steered.npy, probe_prompted.npy, value_items.jsonl       log-odds per probe
        fact_known.npy, fact_steered.npy, fact_prompted.npy, text_plain.npy, text_steered.npy      what breaks
        values.json, breaks.json             per value and strength; per other concept: facts and text it breaks
claims  P1, P2, P3, P4, P8; R6, R7, R8, R9; A1 to A9; B1, B3, B15, B16, B18
cost    about 3 min on one CPU core for the testbed and 3 M parameters; seconds with --profile smoke

    python 03_transfer.py --model data/models/pico-llama
"""
import numpy as np

from lib import stage

CLI = stage.cli(__doc__)
AFTER = ("01_extract", "02_tune")
stage.begin(__name__, CLI, AFTER)      # up to date? says so and ends, before torch is imported

from lib import metrics, suite as suites, work
from lib.judging import cases, judges
from lib.studies import gates, propensity, relation_gains, relations, transfer, tuning, values

# --- settings that change the numbers ----------------------------------------------------------------------
SEED = 3
TASKS = ("question", "summary", "email")      # the first is the one that vectors were made on
N_PROMPTS = {"full": 12, "quick": 3, "smoke": 2}   # per trait and task; the first that are for the trait
SEEN = "extraction question"                  # prompts that the vectors were made from, beside TASKS
N_AGREE = {"full": 150, "smoke": 12}          # texts on which a second judge is held against exact scorers
FIRST_TOKEN = True                            # False: the first generated token unsteered, as in one release
SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")             # order of setting_vectors
SHIFTS = (("BASE", "USER_NEG"), ("BASE", "USER_POS"), ("SYS_POS", "USER_NEG"), ("SYS_NEG", "USER_POS"))
# (setting of the vector, setting of the inputs): the four that the paper plots, and all twenty-five
PAIRS = tuple((vector, inputs) for vector in SETTINGS for inputs in SETTINGS)
MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
MIN_STEERABILITY = 0.25                       # |s(v_B, D_B)| of fewer nats per unit is no denominator
N_RANDOM = {"full": 20, "quick": 20, "smoke": 4}          # random vectors of the antonym vector's norm
N_RANDOM_VALUES = {"full": 20, "quick": 8, "smoke": 4}    # the same per value and strength
N_RANDOM_WAYS = 10                            # the same per way
N_RANDOM_TEXT = {"full": 5, "quick": 2, "smoke": 2}    # how many of a value's are run over neutral text
N_SHUFFLED, N_RANDOM_BROKEN = 5, 5            # shuffled-label vectors of stage 01, in turn; random ones on facts, text
SENTENCES = (0, 1, 3, 10)                     # neutral sentences in front of a query: levels 0 to 3
DISTRACTORS = 3                               # synonym pairs in front of a query: level 4
CONFLICT = "Write a word that means the same.\n"                                # also level 4
SHOTS = {"full": 10, "quick": 10, "smoke": 2}      # examples in a list with shuffled answers
STRENGTHS = {"full": (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0), "quick": (0.25, 1.0, 4.0),
             "smoke": (1.0, 4.0)}             # of a value vector, in units
N_EXAMPLES = 4                                # probes written out in front of another one: prompting
# -----------------------------------------------------------------------------------------------------------


def tuned_row(vectors, tuned, key, search=None):
    """The row of one concept as stage 02 tuned it; search "narrow": as its variant did."""
    setting = tuned[key][search] if search else tuned[key]
    return ((setting["layer"], np.float32(setting["coefficient"]) * vectors[key][setting["layer"]]),)


def random_rows(row, n, address):
    """`n` rows of random direction with the layer and the norm of the one-part row `row`."""
    (layer, vector), = row
    return [((layer, v),) for v in metrics.norm_matched_random(vector, n, [SEED, *address])]


def trait_jobs(lm, suite, traits, vectors, tuned, n, shuffled):
    """One job per text: unsteered once per prompt and scored for every trait that is tried on it, other arms trait by
    trait. Vectors of `shuffled` labels {key: (draw, layer, d)} and variants of the release (questions alone) are arms."""
    jobs, plain = [], {}

    def add(arm, task, item, trait, prompt, row):
        jobs.append({"record": {"task": task, "item": item["id"], "arm": arm, "trait": trait}, "prompt": prompt,
                     "row": row, "item": item, "traits": [trait] if trait else plain[task, item["id"]]})

    for task in (*TASKS, SEEN):
        for t, trait in enumerate(traits):
            name, steer = trait["name"], tuned_row(vectors, tuned, f"trait/{trait['name']}")
            where = ("question", "extract") if task == SEEN else (task, "evaluate")
            for i, item in enumerate(suites.tasks(suite, *where, name)[:n]):
                bare = lm.chat(suite.system, item["prompt"])
                if (task, item["id"]) not in plain:
                    plain[task, item["id"]] = []
                    add("unsteered", task, item, None, bare, ())
                plain[task, item["id"]].append(name)
                add("steered", task, item, name, bare, steer)
                if task == SEEN:
                    continue
                asked = lm.chat(trait["instructions"][i % len(trait["instructions"])]["positive"], item["prompt"])
                add("prompted", task, item, name, asked, ())
                add("steered_prompted", task, item, name, asked, steer)
                add("random", task, item, name, bare, random_rows(steer, 1, [1, t, TASKS.index(task), i])[0])
                if task == TASKS[0]:
                    (layer, v), w = steer[0], shuffled[f"trait/{name}"][i % N_SHUFFLED, steer[0][0]]
                    add("shuffled", task, item, name, bare, ((layer, w * (np.linalg.norm(v) / np.linalg.norm(w))),))
                    add("narrow", task, item, name, bare, tuned_row(vectors, tuned, f"trait/{name}", "narrow"))
    return jobs


def trait_runs(lm, suite, traits, vectors, tuned, n, shuffled):
    """[(jobs, what they are, first_token, prefer)]: the texts that are made together; cases.jsonl is in this order."""
    jobs = trait_jobs(lm, suite, traits, vectors, tuned, n, shuffled)
    steered = [job for job in jobs if job["record"]["arm"] == "steered"]
    other = [{**job, "record": {**job["record"], "arm": "steered_other_start"}} for job in steered
             if job["record"]["task"] == TASKS[0]]
    return [([job for job in jobs if job["record"]["arm"] != "steered"], "03 traits", FIRST_TOKEN, False),
            (steered, "03 steered", FIRST_TOKEN, True), (other, "03 other start", not FIRST_TOKEN, False)]


def measure_behaviour(lm, read_out, suite, behaviour, vectors, tuned):
    """Propensities of one behaviour, nats: curves (input, pair, multiplier), unsteered (input, setting); and "mass"
    (pair, multiplier) of the letters, mean over inputs.

    vectors (setting, layer, d) raw; tuned {"layer", "unit"}: multiplier 1 adds unit * v_BASE[layer]."""
    items = suites.split(behaviour["items"], "evaluate")
    layer = tuned["layer"]
    norms = np.linalg.norm(vectors[:, layer], axis=1, keepdims=True)
    unit = tuned["unit"] * norms[SETTINGS.index("BASE")] / norms * vectors[:, layer]      # (setting, d)
    both = np.empty((2, len(items), len(SETTINGS), len(SETTINGS), len(MULTIPLIERS)), np.float32)     # m and mass
    steps = [m for m in MULTIPLIERS if m]
    rows = [(), *(((layer, np.float32(m) * v),) for v in unit for m in steps)]
    for s, setting in enumerate(SETTINGS):
        found = np.stack(propensity.propensities(lm, read_out, suite, behaviour, items, rows, setting))
        both[:, :, :, s] = found[:, :, :1, None]                           # the multiplier 0 of every vector
        both[:, :, :, s, np.flatnonzero(MULTIPLIERS)] = found[:, :, 1:].reshape(2, len(items), -1, len(steps))
    unsteered = both[0, :, 0, :, MULTIPLIERS.index(0.0)]
    curves, mass = both.reshape(2, len(items), len(PAIRS), len(MULTIPLIERS))
    return {"curves": curves, "unsteered": unsteered, "mass": mass.mean(axis=0)}


def main():
    args = CLI.parse_args()

    # 1. data: vectors, what was tuned, and an evaluation split that no stage has seen yet
    at = stage.open(args, __file__, AFTER)
    (extract, tune), lm, judge, read_out = at.before, at.lm, at.judge, propensity.read_out(at.before[0])
    suite, untestable = gates.testable(at.suite, extract)
    config = at.config | {
              "seed": SEED, "tasks": TASKS, "n_prompts": suite.size(N_PROMPTS, "preferences"),
              "max_new_tokens": suite.max_new_tokens, "seen": SEEN, "n_agree": suite.size(N_AGREE, "preferences"),
              "first_token": FIRST_TOKEN, "settings": SETTINGS,
              "pairs": PAIRS, "multipliers": MULTIPLIERS,
              "min_steerability": MIN_STEERABILITY, "n_random": suite.size(N_RANDOM, "relations"),
              "n_random_values": suite.size(N_RANDOM_VALUES, "values"),
              "n_random_ways": N_RANDOM_WAYS, "n_random_text": suite.size(N_RANDOM_TEXT, "values"),
              "n_random_broken": N_RANDOM_BROKEN, "n_shuffled": N_SHUFFLED,
              "sentences": SENTENCES, "distractors": DISTRACTORS, "conflict": CONFLICT,
              "shots": suite.size(SHOTS, "relations"), "strengths": suite.size(STRENGTHS, "values"),
              "n_examples": N_EXAMPLES,
              "steers": tuning.STEERS, "luck": transfer.LUCK,
              "ways": [w for w in relations.WAYS if w not in relations.MADE or w in extract.config["ways"]]}
    out, identity, vectors = at.out, at.identity(config), at.vectors()
    tuned, arrays, tables, results, missing = tune.table("tuned"), {}, {}, {}, dict(untestable)

    # 2. traits in other tasks
    traits, n = [t for t in suite.traits if f"trait/{t['name']}" in tuned], suite.size(N_PROMPTS, "preferences")
    if traits:
        runs = trait_runs(lm, suite, traits, vectors, tuned, n, dict(zip(vectors, extract.array("shuffled_vectors"))))
        told = [case for jobs, desc, start, prefer in runs
                for case in cases.run(lm, judge, jobs, suite.max_new_tokens, out, identity, desc, start, prefer)]
        tables["traits"], results["traits"], gaps = transfer.traits(
            told, traits, TASKS, SEEN, tuning.steering(tuned), [SEED, 10])
        prompts = {job["item"]["id"]: job["item"] for jobs, *_ in runs for job in jobs}
        tables |= {"cases.jsonl": told, "prompts.jsonl": list(prompts.values())}
        tables["trait_inputs"] = transfer.trait_inputs(transfer.by_prompt(told), [t["name"] for t in traits], TASKS, {
            name: len(item["prompt"].split()) for name, item in prompts.items()}, [SEED, 15])
        if judge.name == "rules":                          # the truth is known: how far would a model's own scores go?
            texts = [(case["trait"], prompts[case["item"]], case["output"]) for case in told
                     if case["arm"] in ("prompted", "steered") and case["task"] != SEEN]
            drawn = np.random.default_rng([SEED, 9]).permutation(len(texts))[:suite.size(N_AGREE, "preferences")]
            def agreement_unit(_):
                both = judge, judges.load("self", suite, lm)
                return dict(zip(("found", "gaps"), judges.agreement([texts[i] for i in drawn], *both, [SEED, 14])))
            agreed = work.units(out, identity, ["agreement"], agreement_unit, "03 judges")["agreement"]
            results["traits"]["agreement"] = agreed["found"]
            missing |= {f"traits.agreement.{key}": reason for key, reason in agreed["gaps"].items()}
            # both scales come from one count: an absent trait is 0 on the one and 50 on the other by definition
            results["traits"].get("scales", {}).pop("mixed_minus_one_scale", None)
            gaps["traits.scales.mixed_minus_one_scale"] = "exact scorers: arithmetic of the two scales, no finding"
        else:
            missing["traits.agreement"] = "the suite has no exact scorers to hold a judge against"
        missing |= gaps
    else:
        missing["traits"] = "no trait has a vector"

    # 3. behaviours under other prompts
    if suite.behaviours:
        made = extract.array("setting_vectors")
        number = {b["name"]: i for i, b in enumerate(suite.behaviours)}
        def behaviour_unit(name):
            i = number[name]
            return measure_behaviour(lm, read_out, suite, suite.behaviours[i], made[:, i], tuned[f"behaviour/{name}"])
        done = work.units(out, identity, number, behaviour_unit, "03 behaviours")
        curves, unsteered = (np.concatenate([one[part] for one in done.values()])
                             for part in ("curves", "unsteered"))
        slopes = np.concatenate([metrics.slopes(MULTIPLIERS, propensity.windowed(
            one["curves"], one["mass"], MULTIPLIERS, args.profile)) for one in done.values()])
        tuned_at = [tuned[f"behaviour/{b['name']}"]["layer"] for b in suite.behaviours]
        used = np.stack([made[:, i, layer] for i, layer in enumerate(tuned_at)])     # (behaviour, setting, d)
        likeness = metrics.cosine(used[:, :, None], used[:, None])
        items = [{"behaviour": b["name"], "id": item["id"], "content": item["swap_of"] or item["id"]}
                 for b in suite.behaviours
                 for item in suites.split(b["items"], "evaluate")]
        (rows, moved), results["behaviours"], gaps = transfer.behaviours(
            *([item[key] for item in items] for key in ("behaviour", "content")),
            [b["format"] for b in suite.behaviours], slopes, curves, unsteered, likeness,
            PAIRS, SHIFTS, SETTINGS, MULTIPLIERS, MIN_STEERABILITY, [SEED, 11])
        masses = np.stack([one["mass"] for one in done.values()])                     # (behaviour, pair, multiplier)
        results["behaviours"]["window"] = propensity.window(masses, MULTIPLIERS, args.profile)
        rows = [row | {"mass": dict(zip(map(transfer.arrow, PAIRS), mass))} for row, mass in zip(rows, masses)]
        tables |= {"behaviour_items.jsonl": items, "behaviours": rows, "shifts": moved}
        arrays |= {"propensity": (curves, ("input", "pair", "multiplier")),
                   "propensity_unsteered": (unsteered, ("input", "setting")),
                   "slopes": (slopes.astype(np.float32), ("input", "pair"))}
        missing |= gaps
    else:
        missing.setdefault("behaviours", "the suite has no behaviours")

    # 4. relations in other templates and contexts, values at rising strength
    if {f"relation/{name}" for name in suite.studied} <= set(tuned):
        made = extract.array("way_vectors")
        def relation_unit(key):
            if key == "antonym":
                return relations.measure_contexts(lm, suite, vectors, tuned, config, SEED)
            return relations.measure_ways(lm, suite, vectors, made, tuned, config, SEED)
        one, all_ways = work.units(out, identity, ["antonym", "ways"], relation_unit, "03 relations").values()
        for name, found in (("relation", one), ("way", all_ways)):
            tables[f"{name}_items.jsonl"] = found["items"]
            arrays |= {f"{name}_{part}": (found[part], ("prompt", "row")) for part in ("logp", "rank")}
        tables["relations"], results["relations"], gaps = relation_gains.contexts(
            one["items"], one["logp"], one["rank"], [SEED, 12])
        tables["ways"], more, others = relation_gains.ways(all_ways["items"], config["ways"], all_ways["logp"],
                                                           all_ways["rank"], [SEED, 14])
        results["relations"] |= more
        missing |= gaps | others | one["missing"]
        if "heads" not in config["ways"]:
            missing |= dict.fromkeys(("relations.ways.heads", "relations.specific.heads"),
                                     extract.results["not_testable"]["heads"])
    else:
        missing["relations"] = f"the suite has no {' or no '.join(suite.studied)}"
    if suite.values:
        norms, keys = tune.array("unit_norm_raw"), [f"value/{value['name']}" for value in suite.values]
        def value_unit(key):
            return values.measure(lm, suite, keys.index(key), vectors[key], tuned[key], norms, config, [SEED, 4])
        done = list(work.units(out, identity, keys, value_unit, "03 values").values())
        tables["value_items.jsonl"] = [item for one in done for item in one["items"]]
        tables["values"], results["values"], gaps = values.conclude(
            [value["name"] for value in suite.values], tables["value_items.jsonl"], done,
            [one["strengths"] for one in done], tune.config["fact_loss"], [SEED, 13])
        arrays |= values.arrays(done)
        missing |= gaps
    else:
        missing["values"] = "the suite has no values"
    moved = {key: i for i, key in enumerate(tuned) if not key.startswith("value/")}
    def broken_unit(key):
        row = tuned_row(vectors, tuned, key.removeprefix("broken "))
        drawn = random_rows(row, N_RANDOM_BROKEN, [2, moved[key.removeprefix("broken ")]])
        return values.broken(lm, suite, [row, *drawn])
    if moved and (suite.facts or suite.neutral):
        done = work.units(out, identity, [f"broken {key}" for key in moved], broken_unit, "03 what breaks")
        tables["breaks"], results["breaks"] = values.breaks(dict(zip(moved, done.values())), [SEED, 16])
    else:
        missing["breaks"] = "the suite has neither facts nor neutral sentences, or no vector of a concept but values"
    if not work.is_main():
        return

    # 5. artifacts
    heads = (("traits", "transfer_gap"), ("behaviours", "id_ood_spearman"), ("relations", "antonym_gain"),
             ("values", "shift"))
    shown = "  ".join(f"{key} {results[part][key]['value']:.2f}" for part, key in heads
                      if key in results.get(part, {}))
    at.save(config, shown, arrays=arrays, tables=tables, results={**results, "not_testable": missing})


if __name__ == "__main__":
    stage.run(main)
