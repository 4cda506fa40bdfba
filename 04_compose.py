"""Stage 04 - do several steering vectors hold at once?

All subsets of one to four traits inside each group of the suite, each trait with the layer l_i and
coefficient a_i that stage 02 tuned for it alone, in alphabetical order as published (Subbiah et al. 2026,
arXiv 2607.01802).

    different_layers   a_i v_i at l_i; of several at one layer the later ones move to the layers below
    orthogonalised     Gram-Schmidt over all of them whatever their layer, then a_i at l_i
    tuned_mean         the mean of a_i v_i where layers coincide
    unit_norm          (alpha_k / k) * sum_i v_i / ||v_i|| at one layer; alpha_k is chosen here, tune split
    plain_sum          a_i v_i at l_i, added up
    solved             not published: the shortest vector at unit_norm's layer whose part along each v_i is
                       what that trait gets alone (relative strength times the residual norm)
    prompting          the k instructions joined into one system message; unsteered: the plain prompt

Expression is the mean over the subset's traits, 0-100; slope is its least-squares slope against k over
subsets, on the group's own task (emails or summaries). Methods that give equal rows share one text. A
combination of k and task is won by the method with the highest usable expression: that of a text counts 0 if
its coherence is below COHERENT. The order of the traits matters to the first two methods: pairs are also run
in reverse order.

reads   01_extract: vectors, residual_norm, concepts; 02_tune: tuned, settings; the suite's splits tune and
        evaluate
writes  cases.jsonl     one line per text: subset, group, k, task, own, item, method, output, scores
        prompts.jsonl   the task items that were used
        cells.jsonl     per subset, task and method: expression per trait and mean, coherence, usable
                        expression
        curves.json     per method and k, own task: expression, coherence and usable expression with intervals
        winners.json    per k and task: mean of every method, who wins
        alphas.json     unit norm on the tune split: every strength tried for every k, and which was chosen
        scales.json     per method and k: expression and coherence, tune split, all coefficients scaled
claims  P5 (slope), P7 (best_method_share)
cost    about 2 min for the testbed and a 3 M-parameter model on two CPU cores; seconds with --profile smoke

    python 04_compose.py --model data/models/pico-llama
"""
import time

import numpy as np

from lib import (artifacts, cases, compose, engine, judges, metrics, models, subsets, suite as suites, tuning,
                 work)

# --- settings that change the numbers ----------------------------------------------------------------------
SEED = 4
LARGEST = 4                                   # traits at once
METHODS = ("different_layers", "orthogonalised", "tuned_mean", "unit_norm", "plain_sum")
REFERENCES = ("solved", "prompting", "unsteered")
REVERSED = ("different_layers", "orthogonalised")
N_PROMPTS = {"full": 5, "smoke": 1}           # evaluation prompts per subset on its group's own task
N_OTHER = {"full": 2, "smoke": 1}             # the same on the other task
N_TUNE = {"full": 2, "smoke": 1}              # tune prompts per subset
TUNE_SUBSETS = {"full": 8, "smoke": 3}        # subsets per k that the tune split is run on, evenly spaced
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.2, 1.6)    # relative strengths of unit_norm tried for every k
SCALES = (0.5, 0.75, 1.25)                    # on all coefficients of a row; 1 is the row itself
COHERENT = 75                                 # threshold of the preferences paper
MAX_NEW_TOKENS = {"full": 96, "smoke": 48}
# -----------------------------------------------------------------------------------------------------------


def rows_of(subset, vectors, tuned, layer, alpha, norms, reverse=False):
    """{method: row} of one subset; alpha is unit norm's; reverse: REVERSED methods, the last trait first."""
    keys = [f"trait/{name}" for name in subset["traits"]][::-1 if reverse else 1]
    v = np.stack([vectors[key] for key in keys])                                         # (trait, layer, d)
    layers, coefs = [tuned[key]["layer"] for key in keys], [tuned[key]["coefficient"] for key in keys]
    wanted = REVERSED if reverse else [name for name in METHODS if name != "unit_norm"]
    methods = {name: getattr(compose, name) for name in wanted}
    if not reverse:
        alone = [tuned[key]["relative_strength"] * norms[layer] for key in keys]
        methods |= {"unit_norm": compose.unit_norm(layer, alpha), "solved": subsets.solved(layer, alone)}
    return {name: method(v, layers, coefs) for name, method in methods.items()}


def job(lm, suite, subset, item, method, row, system=None):
    """One text of a subset; system replaces the suite's own system message."""
    record = {"subset": subset["name"], "group": subset["group"], "k": subset["k"], "task": item["task"],
              "own": item["task"] == subset["task"], "item": item["id"], "method": method}
    return {"record": record, "prompt": lm.chat(system or suite.system, item["prompt"]), "row": row,
            "item": item, "traits": subset["traits"]}


def tune_jobs(lm, suite, chosen, n, rows):
    """Jobs on the tune split, own task; rows(subset) -> {label: row}."""
    return [job(lm, suite, subset, item, label, row)
            for subset in chosen for label, row in rows(subset).items()
            for item in suites.tasks(suite, subset["task"], "tune")[:n]]


def evaluation_jobs(lm, suite, found, rows, reversed_rows, n, n_other):
    """Jobs on the evaluation split: every method on both tasks, reversed pairs on the own task."""
    jobs, instructions = [], {trait["name"]: trait["instructions"] for trait in suite.traits}
    for subset in found:
        made, turned = rows(subset), {}
        if subset["k"] == 2:
            turned = {f"{name}_reversed": row for name, row in reversed_rows(subset).items()}
        for task in sorted({other["task"] for other in found}):
            count = n if task == subset["task"] else n_other
            for i, item in enumerate(suites.tasks(suite, task, "evaluate")[:count]):
                asked = [instructions[name] for name in subset["traits"]]
                system = " ".join(options[i % len(options)]["positive"] for options in asked)
                here = {**made, **(turned if task == subset["task"] else {}), "unsteered": ()}
                jobs += [job(lm, suite, subset, item, method, row) for method, row in here.items()]
                jobs.append(job(lm, suite, subset, item, "prompting", (), system))
    return jobs


def by_k(records, labels):
    """[(k, label, {"n", "expression", "coherence"})]: means over the cells of a tune run."""
    found = []
    for k in sorted({record["k"] for record in records}):
        for label in labels:
            mine = [r for r in records if r["k"] == k and r["method"] == label]
            found.append((k, label, {"n": len(mine), **{what: float(np.mean([r[what] for r in mine]))
                                                        for what in ("expression", "coherence")}}))
    return found


def main():
    args, t0 = artifacts.cli(__doc__).parse_args(), time.time()

    # 1. data: vectors, what was tuned for each trait alone, and the subsets
    folder, profile = artifacts.stage_paths(args), args.profile
    extract, tune = (artifacts.load(folder / stage, stage) for stage in ("01_extract", "02_tune"))
    suite, lm = suites.load(args.suite, profile), models.load(args.model)
    judge = judges.load(args.judge, suite, lm)
    inputs = {"suite": suite.digest, "01_extract": extract.digest, "02_tune": tune.digest}
    if tune.config["model"] != lm.identity or not tune.manifest["inputs"].items() <= inputs.items():
        raise artifacts.UserError(f"{tune.path}: made from another model, suite or 01_extract; run it again")
    config = {"model": lm.identity, "suite": suite.name, "profile": profile, "judge": judge.name,
              "seed": SEED, "largest": LARGEST, "n_prompts": N_PROMPTS[profile], "n_other": N_OTHER[profile],
              "n_tune": N_TUNE[profile], "tune_subsets": TUNE_SUBSETS[profile], "strengths": STRENGTHS,
              "scales": SCALES, "coherent": COHERENT, "max_new_tokens": MAX_NEW_TOKENS[profile]}
    out, identity = folder / "04_compose", {**config, **inputs}
    tuned, common = tune.table("tuned"), tune.table("settings")["unit_norm"]
    norms = extract.array("residual_norm")
    vectors = dict(zip([concept["key"] for concept in extract.table("concepts")], extract.array("vectors")))
    found, left_out = subsets.subsets(suite.traits, [key.removeprefix("trait/") for key in tuned], LARGEST)
    save = {"stage": "04_compose", "config": config, "inputs": inputs, "t0": t0, "sources": [__file__, *(
        module.__file__ for module in (artifacts, cases, compose, engine, judges, metrics, models, subsets,
                                       suites, tuning, work))]}
    if not found:
        if work.is_main():
            reason = "no trait of a group has a vector"
            saved = artifacts.save(out, results={"n": {"left_out": left_out}, "not_testable": {
                "slope": reason, "best_method_share": reason}}, **save)
            print(f"04 compose  {lm.name}  {reason}  {time.time() - t0:.0f} s  digest {saved.digest[:12]}")
        return
    length = MAX_NEW_TOKENS[profile]
    def run(jobs, desc):
        return cases.run(lm, judge, jobs, length, out, identity, desc)

    # 2. tune split: unit norm's strength for every k, then what a common factor on all coefficients trades
    layer, few = common["layer"], []
    for k in sorted({subset["k"] for subset in found}):
        mine = [subset for subset in found if subset["k"] == k]
        few += [mine[i] for i in np.unique(np.linspace(0, len(mine) - 1, TUNE_SUBSETS[profile]).astype(int))]
    def rows(subset, alpha=None):
        return rows_of(subset, vectors, tuned, layer, alpha or alpha_of[subset["k"]], norms)
    tried = subsets.cells(run(tune_jobs(lm, suite, few, N_TUNE[profile], lambda subset: {
        str(s): rows(subset, s * norms[layer])["unit_norm"] for s in STRENGTHS}), "04 unit norm"), COHERENT)
    alphas = [{"k": k, "relative_strength": float(s), "alpha": float(s) * float(norms[layer]), **means}
              for k, s, means in by_k(tried, [str(s) for s in STRENGTHS])]
    alpha_of = {}
    for k in sorted({row["k"] for row in alphas}):
        mine = [row for row in alphas if row["k"] == k]
        best, coherent = tuning.best(mine, "expression", "coherence", COHERENT)
        alpha_of[k] = best["alpha"]
        best |= {"chosen": True, "coherent": coherent}
    def scaled(subset):
        return {f"{method} {scale}": tuple((l, np.float32(scale) * v) for l, v in row)
                for method, row in rows(subset).items() for scale in sorted({*SCALES, 1.0})}
    traded = subsets.cells(run(tune_jobs(lm, suite, few, N_TUNE[profile], scaled), "04 scales"), COHERENT)
    scales = [{"method": label.split()[0], "scale": float(label.split()[1]), "k": k, **means}
              for k, label, means in by_k(traded, sorted({r["method"] for r in traded}))]

    # 3. evaluation split: every subset, method and prompt
    def reversed_rows(subset):
        return rows_of(subset, vectors, tuned, layer, None, norms, reverse=True)
    told = run(evaluation_jobs(lm, suite, found, rows, reversed_rows, N_PROMPTS[profile], N_OTHER[profile]),
               "04 subsets")
    if not work.is_main():
        return

    # 4. results: slopes, losses, who wins where
    records = subsets.cells(told, COHERENT)
    curves, winners, results, missing = subsets.conclude(records, METHODS, REFERENCES, [SEED, 1])
    results |= {"n": {"subsets": {str(k): sum(s["k"] == k for s in found) for k in alpha_of},
                      "left_out": left_out, "cases": len(told),
                      "unscored": sum(r["unscored"] for r in records)},
                "unit_norm": {"layer": layer, "alpha": {str(k): alpha for k, alpha in alpha_of.items()}},
                "not_testable": missing}

    # 5. artifacts
    prompts = [item for task in sorted({case["task"] for case in told})
               for item in suites.tasks(suite, task, "evaluate")[:max(N_PROMPTS[profile], N_OTHER[profile])]]
    tables = {"cases.jsonl": told, "prompts.jsonl": prompts, "cells.jsonl": records, "curves": curves,
              "alphas": alphas, "scales": scales, **({"winners": winners} if winners else {})}
    saved = artifacts.save(out, tables=tables, results=results, **save)
    slopes = "  ".join(f"{method} {s['value']:.1f}" for method, s in results.get("slope", {}).items())
    print(f"04 compose  {lm.name}  slope: {slopes or 'not testable'}  {time.time() - t0:.0f} s  "
          f"digest {saved.digest[:12]}")


if __name__ == "__main__":
    artifacts.run(main)
