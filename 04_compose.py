"""Stage 04 - do several steering vectors hold at once?

    different_layers   a_i v_i at l_i; if l_i is taken, at the nearest free layer below it, else above
    orthogonalised     Gram-Schmidt over all v_i whatever their layer, not renormalised; then a_i at l_i
    tuned_mean         the mean of a_i v_i where layers coincide
    unit_norm_mid, unit_norm_late     (alpha_k / k) * sum_i v_i / ||v_i|| at one of two fixed depths
    plain_sum          a_i v_i at l_i, added up
    solved             ours: strengths x of least |G x - r|^2 with x' B x <= bound^2 (lib/compose.py)
    *_scaled           the first three and the plain sum, all coefficients times one scale; own task only
    adaptive           ours: plain sum, scaled; from half-way on without the traits that show by then
    prompting, unsteered    the k instructions joined into one system message; the plain prompt

Subsets are all sets of one to LARGEST traits inside a group of the suite, in alphabetical order as published.
Layer l_i and coefficient a_i are those that stage 02 tuned for the trait alone. alpha_k, bound and scale are
chosen here on the tuning split, per method and k, by the rule of stage 02: most expression with a mean
coherence of COHERENT. Expression is the mean over the subset's traits. "usable" counts it as 0 in a text whose
coherence is below COHERENT; by it methods are compared. "slope" is the least-squares slope of expression
against k within a group, on its own task (emails or summaries). The first two methods depend on the order of
traits: on the own task they also run in its turns (abc, bca, cab), as "method@turn". Groups are resampled.
Equal prompts under equal vectors share one text. Reasons: report/methods.md. Fields: outputs/README.md.

reads   01_extract: vectors, concepts; 02_tune: tuned, unit_norm; the suite's splits tune and evaluate
writes  cases.jsonl    every text of the evaluation split with its scores
        prompts.jsonl  the task items that were used
        cells.jsonl    means per subset, task and method
        curves.json    means per method and k, own task, with intervals
        winners.json   per k and task: mean of every method, and who wins
        fronts.json    tuning split: what every setting gives, and which was chosen
        traits.json    per trait, method and k: expression alone, in company, and the drop
        orders.json    per subset and order-dependent method: first place, last place, SD over orders
claims  P5, P7, P9 to P14; B17
cost    about 3 min on one CPU core for the testbed and 3 M parameters; seconds with --profile smoke

    python 04_compose.py --model data/models/pico-llama
"""
import numpy as np

from lib import stage

CLI = stage.cli(__doc__)
AFTER = ("01_extract", "02_tune")
stage.begin(__name__, CLI, AFTER)      # up to date? says so and ends, before torch is imported

from lib import compose, engine, metrics, suite as suites, work
from lib.judging import cases
from lib.studies import subsets, tuning

# --- settings that change the numbers ----------------------------------------------------------------------
SEED = 4
LARGEST = 4                                   # traits at once
UNIT_NORMS = tuple(compose.UNIT_NORM_DEPTHS)
PUBLISHED = ("different_layers", "orthogonalised", "tuned_mean", *UNIT_NORMS)
METHODS = (*PUBLISHED, "plain_sum")
TUNED = ("different_layers", "orthogonalised", "tuned_mean", "plain_sum")     # made of l_i and a_i alone
SCALED = tuple(f"{name}_scaled" for name in TUNED)
REFERENCES = ("solved", *SCALED, "prompting", "unsteered")
ORDERED = ("different_layers", "orthogonalised")
N_PROMPTS = {"full": 5, "smoke": 1}           # evaluation prompts per subset on its group's own task
N_OTHER = {"full": 2, "smoke": 1}             # the same on the other task
N_TUNE = {"full": 2, "smoke": 1}              # tune prompts per subset
TUNE_SUBSETS = {"full": 10, "smoke": 3}       # subsets per k that the tune split is run on, evenly spaced
STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0)    # of unit norm tried for every k, in units
BOUNDS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.4)  # of solved, in units
SCALES = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25)    # on all coefficients of a row of TUNED
SHOWN = 25                                    # expression of half a text from which a trait counts as shown
COHERENT = 75                                 # threshold of the preferences paper
# -----------------------------------------------------------------------------------------------------------


def composed(names, vectors, tuned, methods):
    """{label: row} of the traits in this order; methods {label: function of (vectors, layers, coefs)}."""
    keys = [f"trait/{name}" for name in names]
    v = np.stack([vectors[key] for key in keys])                                         # (trait, layer, d)
    layers, coefs = [tuned[key]["layer"] for key in keys], [tuned[key]["coefficient"] for key in keys]
    return {label: method(v, layers, coefs) for label, method in methods.items()}


def scaled(method, scale):
    """The method with all coefficients times scale."""
    return lambda v, layers, coefs: method(v, layers, scale * np.asarray(coefs))


def tried(norms):
    """{"method setting": method}: all settings that the tune split compares."""
    found = {f"{name} {scale}": scaled(getattr(compose, name), scale) for name in TUNED for scale in SCALES}
    for name, layer in compose.unit_norm_layers(len(norms)).items():
        found |= {f"{name} {s}": compose.unit_norm(layer, s * norms[layer]) for s in STRENGTHS}
    return found | {f"solved {bound}": compose.solved(norms, bound) for bound in BOUNDS}


def settled(norms, chosen):
    """{label: method} that the evaluation split compares; chosen {method: setting}."""
    found = {name: getattr(compose, name) for name in TUNED}
    for name, layer in compose.unit_norm_layers(len(norms)).items():
        found[name] = compose.unit_norm(layer, chosen[name] * norms[layer])
    found |= {f"{name}_scaled": scaled(getattr(compose, name), chosen[name]) for name in TUNED}
    return found | {"solved": compose.solved(norms, chosen["solved"])}


def job(lm, suite, subset, item, method, row, system=None):
    """One text of a subset; system replaces the suite's own system message."""
    record = {"subset": subset["name"], "group": subset["group"], "k": subset["k"], "task": item["task"],
              "own": item["task"] == subset["task"], "item": item["id"], "method": method}
    return {"record": record, "prompt": lm.chat(system or suite.system, item["prompt"]), "row": row,
            "item": item, "traits": subset["traits"]}


def own_items(suite, subset, split):
    """Items of the group's own task; the traits of a group share them."""
    return suites.tasks(suite, subset["task"], split, subset["traits"][0])


def tune_jobs(lm, suite, few, n, vectors, tuned, norms):
    """Jobs on the tune split, own task: a few subsets under every setting."""
    return [job(lm, suite, subset, item, label, row) for subset in few
            for label, row in composed(subset["traits"], vectors, tuned, tried(norms)).items()
            for item in own_items(suite, subset, "tune")[:n]]


def evaluation_jobs(lm, suite, found, n, n_other, vectors, tuned, norms, chosen):
    """Jobs on the evaluation split: every method, on both tasks; the own task in every turn of the order, too."""
    jobs, asked = [], {trait["name"]: trait["instructions"] for trait in suite.traits}
    for subset in found:
        names, k = subset["traits"], subset["k"]
        rows = composed(names, vectors, tuned, settled(norms, chosen[k])) | {"unsteered": ()}
        turns = {f"{method}@{turn}": row for turn in range(1, k) for method, row in composed(
            subsets.turned(names, turn), vectors, tuned, {m: getattr(compose, m) for m in ORDERED}).items()}
        for task in sorted({other["task"] for other in found}):
            own = task == subset["task"]
            items = own_items(suite, subset, "evaluate") if own else suites.tasks(suite, task, "evaluate")
            here = rows | turns if own else {m: row for m, row in rows.items() if m not in SCALED}
            for i, item in enumerate(items[:n if own else n_other]):
                system = " ".join(asked[name][i % len(asked[name])]["positive"] for name in names)
                jobs += [job(lm, suite, subset, item, method, row) for method, row in here.items()]
                jobs.append(job(lm, suite, subset, item, "prompting", (), system))
    return jobs


def adaptive_jobs(lm, suite, few, split, n, vectors, tuned, scales):
    """Jobs of `adaptive`, own task; scales {k: {label: scale}}. "after" gives the row of the traits not yet shown."""
    def row(names, scale):
        return composed(names, vectors, tuned, {0: scaled(compose.plain_sum, scale)})[0] if names else ()
    return [job(lm, suite, subset, item, label, row(subset["traits"], scale)) | {
        "after": lambda names, scale=scale: row(names, scale)}
            for subset in few for label, scale in scales.get(subset["k"], {}).items()
            for item in own_items(suite, subset, split)[:n]]


def adapt(lm, judge, jobs, length):
    """Cases of `adaptive_jobs`: half of the text under all vectors, the rest under those of the traits that it lacks."""
    def text(answers):
        return lm.tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    answers = engine.generate_ids(lm, [job["prompt"] for job in jobs], [job["row"] for job in jobs], length // 2)
    shown = [case["expression"] for case in cases.score(judge, jobs, text(answers))]
    on = [i for i, answer in enumerate(answers) if len(answer) == length // 2]
    rest = engine.generate_ids(lm, [[*jobs[i]["prompt"], *answers[i]] for i in on], [jobs[i]["after"](
        [name for name, score in shown[i].items() if (score or 0) < SHOWN]) for i in on], length - length // 2) if on else []
    for i, more in zip(on, rest):
        answers[i] = [*answers[i], *more]
    return cases.score(judge, jobs, text(answers))


def adaptive_cases(lm, judge, jobs, length, out, identity, desc):
    """The same in work units, in job order; none where no subset has two traits."""
    if not jobs:
        return []
    size = cases.shard(lm)
    parts = {f"{desc} {start}": jobs[start:start + size] for start in range(0, len(jobs), size)}
    done = work.units(out, identity, list(parts), lambda key: {"cases": adapt(lm, judge, parts[key], length)}, desc)
    return [job["record"] | case for key, mine in parts.items() for job, case in zip(mine, done[key]["cases"])]


def main():
    args = CLI.parse_args()

    # 1. data: vectors, what was tuned for each trait alone, and the subsets
    at = stage.open(args, __file__, AFTER)
    (extract, tune), lm, suite, judge = at.before, at.lm, at.suite, at.judge
    length = suite.max_new_tokens
    n, n_other, n_tune, n_few = (suite.size(part, "preferences")
                                 for part in (N_PROMPTS, N_OTHER, N_TUNE, TUNE_SUBSETS))
    config = at.config | {
              "seed": SEED, "largest": LARGEST, "n_prompts": n, "n_other": n_other,
              "n_tune": n_tune, "tune_subsets": n_few, "strengths": STRENGTHS,
              "bounds": BOUNDS, "scales": SCALES, "shown": SHOWN,
              "unit_norm_layers": compose.unit_norm_layers(lm.n_layers),
              "coherent": COHERENT, "max_new_tokens": length, "steers": tuning.STEERS,
              "n_permuted": subsets.N_PERMUTED}
    out, identity, vectors = at.out, at.identity(config), at.vectors()
    tuned = tune.table("tuned")
    found, left_out = subsets.subsets(suite.traits, [key.removeprefix("trait/") for key in tuned], LARGEST)
    if not found:
        if work.is_main():
            reason = "no trait of a group has a vector"
            at.save(config, reason, results={"n": {"left_out": left_out}, "not_testable": dict.fromkeys(
                ("slope", "per_vector", "unit_norm_spares", "method_interaction", "best_method_share", "solved_minus",
                 "setting_gain", "adaptive", "order"), reason)})
        return
    norms = tune.array("unit_norm")

    # 2. tune split: what every setting trades for every k, and which is used
    few = []
    for k in sorted({subset["k"] for subset in found}):
        mine = [subset for subset in found if subset["k"] == k]
        few += [mine[i] for i in np.unique(np.linspace(0, len(mine) - 1, n_few).astype(int))]
    told = cases.run(lm, judge, tune_jobs(lm, suite, few, n_tune, vectors, tuned, norms), length, out,
                     identity, "04 settings")
    gain = subsets.setting_gain(subsets.cells(told, COHERENT), [SEED, 3])
    tries = dict.fromkeys(range(2, LARGEST + 1), {f"adaptive {scale}": scale for scale in SCALES})
    told += adaptive_cases(lm, judge, adaptive_jobs(lm, suite, few, "tune", n_tune, vectors, tuned, tries),
                           length, out, identity, "04 adaptive settings")
    fronts = subsets.fronts(subsets.cells(told, COHERENT), COHERENT)
    chosen = {}
    for row in fronts:
        if row["chosen"]:
            chosen.setdefault(row["k"], {})[row["method"]] = row["setting"]

    # 3. evaluation split: every subset, method, order and prompt
    jobs = evaluation_jobs(lm, suite, found, n, n_other, vectors, tuned, norms, chosen)
    told = cases.run(lm, judge, jobs, length, out, identity, "04 subsets")
    told += adaptive_cases(lm, judge, adaptive_jobs(
        lm, suite, found, "evaluate", n, vectors, tuned, {
            k: {"adaptive": settings["adaptive"]} for k, settings in chosen.items() if k > 1}), length, out, identity,
        "04 adaptive")
    if not work.is_main():
        return

    # 4. results: slopes, losses, who wins where, what the order does
    records = subsets.cells(told, COHERENT)
    curves, winners, results, missing = subsets.conclude(
        records, METHODS, REFERENCES, {"best_published": PUBLISHED, "best_scaled": SCALED}, tuning.steering(tuned),
        [SEED, 1])
    turns, order, no_order = subsets.orders(records, ORDERED, (*METHODS, *REFERENCES), [SEED, 2])
    more, none = metrics.missing_apart({"setting_gain": gain, "adaptive": subsets.against(
        records, "adaptive", "plain_sum_scaled", [SEED, 4])})
    results |= more | {"n": {"subsets": {str(k): sum(s["k"] == k for s in found) for k in chosen},
                      "left_out": left_out, "cases": len(told),
                      "unscored": sum(r["unscored"] for r in records)},
                "chosen": {str(k): settings for k, settings in chosen.items()},
                **({"order": order} if order else {}), "not_testable": missing | none | no_order}

    # 5. artifacts
    prompts = list({item["id"]: item for item in (job["item"] for job in jobs)}.values())
    tables = {"cases.jsonl": told, "prompts.jsonl": prompts, "cells.jsonl": records, "curves": curves,
              "fronts": fronts, "traits": subsets.traits_apart(records, (*METHODS, *REFERENCES)),
              "orders": turns, "winners": winners}
    slopes = "  ".join(f"{m} {s['value']:.1f}" for m, s in results.get("slope", {}).items() if m in METHODS)
    at.save(config, f"slope: {slopes or 'not testable'}", results=results,
            tables={name: rows for name, rows in tables.items() if rows})


if __name__ == "__main__":
    stage.run(main)
