"""Spot: work units drawn at random, computed again by today's code from the committed inputs, and held to what is
committed, item by item.

A unit is what one concept, or one share of a stage's texts, comes to; no stage has more than about a hundred. Those
that were not yet checked against these results are drawn first, so ten calls check everything. Numbers may differ by
TOLERANCE, and of texts the share TEXTS: another machine adds in another order, and a nearly tied token flips. What
was checked is kept in spot.json beside the stages; `verify` and the report say it.

    python -m report.audit spot --n 10 --model data/models/pico-llama
"""
import importlib
import subprocess
import time
from functools import partial

import numpy as np

from lib import artifacts, identity, metrics, stage, suite as suites
from lib.artifacts import ROOT, UserError
from lib.judging import cases, counted
from lib.studies import gates, propensity, relations, strength, subsets, tuning, values
from report import compare
from report.light import Light, left_out

SHARES = {"02": 80, "03": 20, "04": 95}       # units into which a stage cuts its texts; three sorts of them in 03
TOLERANCE = 1e-3                 # |a - b| / (1 + |a|) of one number; a solver makes ten times more of the last bits
TEXTS = 0.05                     # share of a unit's texts that may differ


# --- the units of each stage: {name: function that gives [(file, place, committed, again)]} ------------------
def extract_units(at, one, kept):
    """Stage 01: answers and vector of a trait; vectors of a behaviour, relation or value; the residual norms."""
    lm, vectors, read_out = at.lm, kept.array("vectors"), propensity.read_out(kept)
    suite, _ = gates.testable(at.suite, kept)
    concepts, there = kept.table("concepts"), Light(kept.path, kept.manifest)
    row = {concept["key"]: i for i, concept in enumerate(concepts)}
    jobs = one.ask(lm, suite, at.judge, kept.config["refused"])
    answers = kept.table("responses.jsonl") if jobs else []
    counted.take(at.judge, kept)

    def reference(task):
        rows = [row for row in kept.table("reference.jsonl") if row["task"] == task]
        return texts("reference.jsonl", rows, [{"output": text} for text in at.judge.write(task)])

    def norms():
        return [(name, "", kept.array(name), norm) for name, norm in one.residual_norms(lm, suite).items()]

    def described(key, again):
        stats = {name: concepts[row[key]][name] for name in again["stats"]}
        return [("vectors.npy", f"[{row[key]}]", vectors[row[key]], again["vector"]),
                ("concepts.json", key, stats, again["stats"])]

    def trait(name):
        mine = [i for i, job in enumerate(jobs) if job["traits"] == [name]]
        made = cases.make(lm, at.judge, [jobs[i] for i in mine], suite.max_new_tokens)
        told = texts("responses.jsonl", [answers[i] for i in mine], made)
        good = [i for i in mine if answers[i]["dropped"] is None]
        key = f"trait/{name}"
        if key not in row:
            return told
        number = [c["name"] for c in concepts if c["kind"] == "trait"].index(name)
        return told + described(key, one.extract_trait(
            lm, [jobs[i]["prompt"] for i in good], [lm.tokens(answers[i]["output"]) for i in good],
            [one.SEED, 1, number]))

    def behaviour(i, name):
        again = one.extract_behaviour(lm, suite, i, read_out)
        pairs = (("setting_vectors", np.s_[:, i], "settings"), ("shuffled_vectors", row[f"behaviour/{name}"], "shuffled"),
                 ("method_vectors", np.s_[:, i], "methods"), ("published_vectors", i, "published"))
        found = [(f"{file}.npy", name, there.array(file)[place], again[part]) for file, place, part in pairs
                 if there.holds(file)]
        return described(f"behaviour/{name}", again) + [                 # where nothing is committed, nothing is compared
            (file, place, *(np.where(np.isnan(made), 0, x) for x in (made, now))) for file, place, made, now in found]

    def relation(i, name):
        made, ways = kept.array("way_vectors"), kept.config["ways"]
        again = one.extract_relation(lm, suite, i)
        told = [("way_vectors.npy", f"{way} {name}", made[w, i], np.broadcast_to(again[way], made[w, i].shape))
                for w, way in enumerate(ways)]
        centre = made[ways.index("mean")].mean(axis=0) if made.shape[1] > 1 else 0
        at_row = row[f"relation/{name}"]
        told.append(("vectors.npy", f"[{at_row}]", vectors[at_row], again["mean"] - centre))
        right = dict(zip(("clean", "shuffled"), again["list_right"].mean(axis=0).tolist()))
        told.append(("relations.json", name, kept.table("relations")[i]["right"], right))
        if "heads" in ways:
            told.append(("head_effects.npy", name, kept.array("head_effects")[i], again["effects"]))
        return told

    def value(i, v):
        return described(f"value/{v['name']}", values.extract(lm, v, [one.SEED, 6, i]))

    found = {"norms": norms, **{f"reference {task}": partial(reference, task) for task in getattr(at.judge, "texts", ())}}
    found |= {**{f"trait {name}": partial(trait, name) for name in dict.fromkeys(
        job["traits"][0] for job in jobs)}}
    found |= {f"behaviour {b['name']}": partial(behaviour, i, b["name"]) for i, b in enumerate(suite.behaviours)}
    found |= {f"relation {r['name']}": partial(relation, i, r["name"]) for i, r in enumerate(suite.relations)}
    return found | {f"value {v['name']}": partial(value, i, v) for i, v in enumerate(suite.values)}


def tune_units(at, two, kept):
    """Stage 02: texts of some candidates; the sweep of a behaviour, relation or value; what random vectors do."""
    lm, vectors, (extract, *_) = at.lm, at.vectors(), at.before
    read_out = propensity.read_out(extract)
    suite, _ = gates.testable(at.suite, extract)
    profile, rows = kept.config["profile"], kept.table("candidates.jsonl")
    ways = [way for way in relations.WAYS if way not in relations.MADE or way in extract.config["ways"]]

    def candidates(mine):
        tried = [(c["key"], *(c[part] for part in tuning.POINT)) for c in mine]
        again = two.steered_answers(lm, suite, tried, vectors, lambda jobs: cases.make(
            lm, at.judge, jobs, suite.max_new_tokens))
        return [("candidates.jsonl", f"{c['key']} layer {c['layer']} x {c['coefficient']:.3g}", {
            part: c[part] for part in ("expressions", "coherences", "expression", "coherence")}, a)
                for c, a in zip(mine, again)]

    def behaviour(b, key):
        norms = np.stack([kept.array("unit_norm"), extract.array("residual_norm")])
        again = two.sweep_behaviour(lm, read_out, suite, b, vectors[key], norms)["slopes"]
        mine = [row for row in kept.table("slopes.jsonl") if row["key"] == key]
        return [("slopes.jsonl", f"{key} {scale}", np.array([row[scale] for row in mine]).T, again[s])
                for s, scale in enumerate(("matched", "raw"))]

    def relation(r, key):
        mine = [c for c in rows if c["key"] == key]
        points = [[c[part] for part in tuning.POINT] for c in mine if "way" not in c]
        made, order = extract.array("way_vectors"), [relation["name"] for relation in suite.relations]
        by_way = relations.vectors_of(vectors, made, order, r["name"], ways)
        pairs = suites.relation_split(r, "tune")
        again = relations.sweep_layers(lm, pairs, suite.templates[0], points, vectors[key], by_way)
        return [("candidates.jsonl", key, np.array([c["values"] for c in mine if "way" not in c]), again["gains"]),
                ("candidates.jsonl", f"{key} ways", np.array([c["values"] for c in mine if "way" in c]),
                 again["ways"].reshape(-1, again["ways"].shape[-1]))]

    def value(v, key):
        mine = [c for c in rows if c["key"] == key]
        points = [[c[part] for part in tuning.POINT] for c in mine]
        again = values.sweep_tuning(lm, suite, v, points, vectors[key])
        plus = slice(1, 1 + len(points))
        odds, right = again["odds"][plus] - again["odds"][:1], again["facts"].mean(axis=1)[plus]
        return [("candidates.jsonl", key, np.array([c["values"] for c in mine]), odds),
                ("candidates.jsonl", f"{key} facts", np.array([c["fact_accuracy"] for c in mine]), right)]

    def scale(i, kind):
        asked = strength.prompts(lm, suite, read_out, strength.N_PROMPTS[profile])[kind]
        again = strength.curve(lm, asked, extract.array(f"residual_norm{kind}"), strength.N_RANDOM[profile],
                               [two.SEED, 5, i])
        return [(f"kl_curve{kind}.npy", "", kept.array(f"kl_curve{kind}"), again)]

    texted = [c for c in rows if c["key"].startswith("trait/")]
    found = {name: partial(candidates, mine) for name, mine in shares("candidates", texted, SHARES["02"])}
    voting = [b for b in suite.behaviours if f"behaviour/{b['name']}" in kept.results["behaviours"].get("voting", [])]
    for kind, work, these in (("behaviour", behaviour, voting), ("relation", relation, suite.relations),
                              ("value", value, suite.values)):
        found |= {f"{kind} {c['name']}": partial(work, c, f"{kind}/{c['name']}") for c in these}
    kinds = [kind for kind in ("", "_raw") if f"kl_curve{kind}.npy" in kept.manifest["outputs"]]
    return found | {f"strength{kind}": partial(scale, i, kind) for i, kind in enumerate(kinds)}


def transfer_units(at, three, kept):
    """Stage 03: some texts; the propensities of a behaviour; relations; the odds, facts and texts of a value."""
    lm, vectors, (extract, tune) = at.lm, at.vectors(), at.before
    read_out = propensity.read_out(extract)
    suite, _ = gates.testable(at.suite, extract)
    config, tuned, found = kept.config, tune.table("tuned"), {}
    traits = [t for t in suite.traits if f"trait/{t['name']}" in tuned]
    if traits:
        told, start, n = kept.table("cases.jsonl"), 0, suite.size(three.N_PROMPTS, "preferences")
        shuffled = dict(zip(vectors, extract.array("shuffled_vectors")))
        for jobs, desc, first, prefer in three.trait_runs(lm, suite, traits, vectors, tuned, n, shuffled):
            both = list(zip(jobs, told[start:start + len(jobs)]))
            start += len(jobs)
            found |= {name: partial(written, at, mine, first, prefer)
                      for name, mine in shares(desc, both, SHARES["03"])}

    def behaviour(i, b):
        made, chosen = extract.array("setting_vectors")[:, i], tuned[f"behaviour/{b['name']}"]
        again = three.measure_behaviour(lm, read_out, suite, b, made, chosen)
        mine = where(kept.table("behaviour_items.jsonl"), "behaviour", b["name"])
        pairs = (("propensity", again["curves"]), ("propensity_unsteered", again["unsteered"]),
                 ("slopes", metrics.slopes(three.MULTIPLIERS, propensity.windowed(
                     again["curves"], again["mass"], three.MULTIPLIERS, config["profile"])).astype(np.float32)))
        return [(f"{file}.npy", b["name"], kept.array(file)[mine], now) for file, now in pairs]

    def relation(name, measure):
        again = measure()
        return [(f"{name}_{part}.npy", "", kept.array(f"{name}_{part}"), again[part]) for part in ("logp", "rank")]

    def value(i, v):
        again = values.measure(lm, suite, i, vectors[f"value/{v['name']}"], tuned[f"value/{v['name']}"],
                               tune.array("unit_norm_raw"), config, [three.SEED, 4])
        mine = where(kept.table("value_items.jsonl"), "value", v["name"])
        place = {"probe": mine, "value": slice(i, i + 1)}
        return [(f"{file}.npy", v["name"], kept.array(file)[place.get(axes[0], slice(None))], now)
                for file, (now, axes) in values.arrays([again]).items()]

    found |= {f"behaviour {b['name']}": partial(behaviour, i, b) for i, b in enumerate(suite.behaviours)}
    if "relation_logp.npy" in kept.manifest["outputs"]:
        made = extract.array("way_vectors")
        found |= {"relation contexts": lambda: relation("relation", lambda: relations.measure_contexts(
                      lm, suite, vectors, tuned, config, three.SEED)),
                  "relation ways": lambda: relation("way", lambda: relations.measure_ways(
                      lm, suite, vectors, made, tuned, config, three.SEED))}
    return found | {f"value {v['name']}": partial(value, i, v) for i, v in enumerate(suite.values)}


def compose_units(at, four, kept):
    """Stage 04: some texts of the evaluation split; the cells that follow from all texts."""
    lm, suite, (extract, tune) = at.lm, at.suite, at.before
    if "cases.jsonl" not in kept.manifest["outputs"]:
        return {}
    tuned, told = tune.table("tuned"), kept.table("cases.jsonl")
    found, _ = subsets.subsets(suite.traits, [key.removeprefix("trait/") for key in tuned], four.LARGEST)
    chosen = {int(k): settings for k, settings in kept.results["chosen"].items()}
    jobs = four.evaluation_jobs(lm, suite, found, suite.size(four.N_PROMPTS, "preferences"),
                                suite.size(four.N_OTHER, "preferences"), at.vectors(), tuned,
                                tune.array("unit_norm"), chosen)
    def cells():
        return [("cells.jsonl", "", kept.table("cells.jsonl"), artifacts.plain(subsets.cells(told, four.COHERENT)))]

    parts = shares("subsets", list(zip(jobs, told)), SHARES["04"])
    return {"cells": cells, **{name: partial(written, at, mine) for name, mine in parts}}


def reliability_units(at, five, kept):
    """Stage 05: all curves and slopes of a behaviour."""
    lm, (extract, tune), tuned = at.lm, at.before, at.before[1].table("tuned")
    suite, _ = gates.testable(at.suite, extract)
    vectors, items = at.vectors(), kept.table("items.jsonl") if suite.behaviours else []
    columns = {"propensity": "matched", **{f"propensity_{part}": part for part in ("raw", "sum", "sum_raw")}}

    def behaviour(i, b):
        chosen, key = tuned[f"behaviour/{b['name']}"], f"behaviour/{b['name']}"
        done = five.measure_one(lm, suite, i, chosen, vectors[key], extract, kept.config["n_random"])
        mine = where(items, "behaviour", b["name"])
        got = five.per_input(done, kept.config["profile"]) | {name: done[part] for name, part in columns.items()}
        # Ranks and shares of a curve jump where values are nearly tied, so they are held to the committed curve.
        got |= {name: getattr(metrics, name)(five.MULTIPLIERS, kept.array("propensity")[mine].astype(np.float64))
                for name in ("r2", "monotonicity")}
        arrays = [name.removesuffix(".npy") for name in kept.manifest["outputs"] if name.endswith(".npy")]
        return [(f"{name}.npy", b["name"], kept.array(name)[mine], np.asarray(got[name], np.float32))
                for name in arrays]

    return {f"behaviour {b['name']}": partial(behaviour, i, b) for i, b in enumerate(suite.behaviours)}


UNITS = {"01_extract": extract_units, "02_tune": tune_units, "03_transfer": transfer_units,
         "04_compose": compose_units, "05_reliability": reliability_units}


def shares(name, rows, most):
    """[(name of the unit, its rows)]: the rows cut into `most` parts at most."""
    size = max(1, -(-len(rows) // most))
    parts = [(start, rows[start:start + size]) for start in range(0, len(rows), size)]
    return [(f"{name} {start}-{start + len(mine) - 1}", mine) for start, mine in parts]


def where(rows, key, name):
    """Indices of the rows that have `name` at `key`."""
    return np.flatnonzero([row[key] == name for row in rows])


def texts(file, committed, again):
    """What to compare of texts and their scores: all fields that were made again."""
    return [(file, f"text {i}", {key: case.get(key) for key in now}, now)
            for i, (case, now) in enumerate(zip(committed, again))]


def written(at, both, first=True, prefer=False):
    """The texts of [(job, committed case)] made again."""
    again = cases.make(at.lm, at.judge, [job for job, _ in both], at.suite.max_new_tokens, first, prefer)
    return texts("cases.jsonl", [case for _, case in both], again)


# --- drawing and judging ------------------------------------------------------------------------------------
def judged(parts):
    """(bad, what to say) of what a unit gave: [(file, place, committed, again)]."""
    flipped, gaps, n = 0, [], 0
    for file, place, committed, again in parts:
        text = isinstance(again, dict) and "output" in again
        n += text
        if text and committed["output"] != again["output"]:
            flipped += 1
            continue
        keys = set(committed) & set(again) if isinstance(again, dict) else None
        pair = ({key: x[key] for key in keys} for x in (committed, again)) if keys else (committed, again)
        gaps += [(size, f"{file} {place}{where}") for where, size in compare.gaps(*map(_values, pair))]
    worst = max(gaps, default=(0.0, ""))
    bad = worst[0] > TOLERANCE or flipped > TEXTS * n
    told = [f"largest difference {worst[0]:.2g} at {worst[1]}"] if gaps else []
    told += [f"{flipped} of {n} texts differ"] if flipped else []
    return bad, "; ".join(told) or "equal"


def committed(call, absent):
    """call(); or, where it needs one of the files that are not committed, a sentence that says so."""
    try:
        return call()
    except UserError as fault:
        needed = next((name for name in absent if f"/{name}: missing" in str(fault)), None)
        if needed is None:
            raise
        return f"needs {needed}, which is not committed"


def _values(value):
    return np.asarray(value) if isinstance(value, np.ndarray) else artifacts.plain(value)


def check(args, folders, name_of_book):
    """Draw `args.n` units of every stage below the folders, compute them again, print what came out and keep it
    in a JSON file beside the stages.

    Units that need arrays which are not committed are passed over, and named. UserError if a unit differs by more than
    the tolerance."""
    seed = args.seed if args.seed is not None else int(time.time())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    print(f"seed {seed}, {args.n} units per stage")
    bad = total = 0
    for model in args.model:
        mine = type(args)(**{**vars(args), "model": model, "dtype": stage.dtype(args, model)})
        book, opened = stage.paths(mine) / name_of_book, {}
        kept_book = artifacts.read_json(book) if book.is_file() else {}
        for name in [folder.name for folder in folders if folder.parent == stage.paths(mine)]:
            kept, script = artifacts.load(stage.paths(mine) / name, name), importlib.import_module(name)
            earlier = getattr(script, "AFTER", ())
            precision = mine.dtype if earlier else stage.DTYPES[0]                # one model for all stages in it
            at = opened[precision] = opened.get(precision) or stage.open(mine, script.__file__, earlier)
            at.before = [artifacts.load(stage.paths(mine) / before, before) for before in earlier]
            if "02_tune" in earlier:                                 # stages behind it read vectors at tuned layers alone
                at.before = [Light(one.path, one.manifest) for one in at.before]
            absent = [file for path in (kept.path, *(one.path for one in at.before)) for file in left_out(path)]
            units = committed(partial(UNITS[name], at, script, kept), absent)
            if isinstance(units, str):
                print(f"--   {kept.path}: {units}")
                continue
            last = kept_book.get(name, {})
            done = last.get("units", {}) if last.get("digest") == kept.digest else {}
            done = {} if set(done) >= set(units) else done                       # all were checked: begin anew
            rng = np.random.default_rng([seed, int(name[:2])])
            order = sorted(units, key=dict(zip(units, rng.permutation(len(units)).tolist())).get)
            drawn, lacking = 0, {}
            for key in sorted(order, key=lambda unit: unit in done):
                found = committed(units[key], absent) if drawn < args.n else ""
                if isinstance(found, str):
                    lacking |= {found: None} if found else {}
                    continue
                fault, told = judged(found)
                drawn += 1
                print(f"{'BAD ' if fault else 'ok  '} {kept.path}  {key}: {told}")
                bad, total, done = bad + fault, total + 1, done | {key: told}
                last = {"digest": kept.digest, "seed": seed, "commit": commit, "of": len(units), "units": done,
                        "bad": last.get("bad", 0) * (len(done) > 1) + fault,
                        "time": time.strftime("%Y-%m-%d", time.gmtime()),
                        "versions": identity.versions()}
            for told in lacking:
                print(f"--   {kept.path}: some units {told.replace('needs', 'need')}")
            kept_book |= {name: last} if last else {}
        artifacts.write_json(book, kept_book)
    print(f"{total - bad} of {total} units are what is committed")
    if bad:
        raise UserError(f"{bad} of {total} units differ from what is committed, seed {seed}")
