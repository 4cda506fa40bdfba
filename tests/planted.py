"""Planted artifacts: every stage of some models as the stages would leave it, from invented numbers. Tests
only."""

import json
import re

import numpy as np

from lib import artifacts

TRAITS = [f"trait{i}" for i in range(8)]
# the first four have published values
BEHAVIOURS = ["myopic-reward", "conscientiousness", "coordinate-itself", "coordinate-other-ais", "behaviour-4", "behaviour-5"]
TASKS = ("question", "summary", "email")


def est(value, spread=1.0, n=40, unit="behaviours"):
    return {
        "value": float(value),
        "low": float(value) - spread,
        "high": float(value) + spread,
        "n": n,
        "unit": unit,
        "method": "percentile bootstrap, 2000 resamples",
    }


def wanted(stage):
    """Dotted keys of one stage's results that the template's tables and the claims ask for."""
    template = (artifacts.ROOT / "report" / "template.md").read_text()
    keys = {entry.split("=")[0].strip() for rows in re.findall(r"\{\{rows:" + stage + r":(.*?)(?:\|\d+)?\}\}", template)
            for entry in rows.split(",")}
    claims = json.loads((artifacts.ROOT / "report" / "claims.json").read_text())
    gates = [{"stage": c["stage"], **gate} for c in claims for gate in c.get("gates", ())]
    return sorted(keys | {c["key"].replace(".*", ".ANY") for c in claims if c["stage"] == stage}
                  | {gate["key"] for gate in gates if gate["stage"] == stage})


def complete(stage, results, rng):
    """`results` with an invented estimate at every key that is wanted, neither there nor explained."""
    for key in wanted(stage):
        place, (*path, last) = results, key.split(".")
        if any(key == absent or key.startswith(absent + ".") for absent in results.get("not_testable", {})):
            continue
        for part in path:
            place = place.setdefault(part, {})
        if last != "ANY" or not place:
            place.setdefault(last, est(rng.uniform(0, 1), 0.3))
    return results


def plant(out, names, suite="planted", profile="full", suite_digest="5" * 64):
    """All stages of every model under `out`; returns {(model, stage): Artifact}, the model set under "+"."""
    made = {}
    leaf = suite + ("" if profile == "full" else f"-{profile}")
    sized = {"levels": {"preferences": 0.5, "reliability": 1, "relations": 0, "values": 0}} if profile == "quick" else {}
    for index, name in enumerate(names):
        rng, inputs = np.random.default_rng([77, index]), {"suite": suite_digest}
        for stage, (tables, results) in stages(rng).items():
            artifact = artifacts.save(
                out / name / leaf / stage,
                stage=stage,
                inputs=dict(inputs),
                tables=tables,
                config={"suite": suite, "profile": profile, "model": {"id": name},
                        "tasks": ["question", "summary", "email"], **sized,
                        "pairs": [[a, b] for a in SETTINGS for b in SETTINGS]},
                results=complete(stage, results, rng),
            )
            made[name, stage] = artifact
            inputs[stage] = artifact.digest
            inputs = {k: v for k, v in inputs.items() if k in ("suite", "01_extract", "02_tune")}
    if len(names) > 1:
        pairs = [
            {
                "pair": f"{names[0]} / {names[1]}",
                "name": b,
                "mean": [i, i + 0.2],
                "sd": [0.5, 0.6 + i / 10],
                "anti_steerable": [0.1, 0.2],
            }
            for i, b in enumerate(BEHAVIOURS)
        ]
        made["+", "05_across"] = artifacts.save(
            out / "+".join(names) / leaf / "05_across",
            stage="05_across",
            tables={"pairs": pairs},
            config={"suite": suite, "profile": profile},
            inputs={
                "suite": suite_digest,
                **{f"{n}/05_reliability": made[n, "05_reliability"].digest for n in names},
            },
            results=complete("05_across", {}, np.random.default_rng(77)),
        )
    return made


def stages(rng):
    """{stage: (tables, results)} with the keys the report reads."""
    layers = [
        {"kind": kind, "what": "split_half_cosine", "layer": l, "value": rng.uniform(0.5, 1), "n": 9}
        for kind in ("trait", "behaviour", "relation", "value")
        for l in range(4)
    ]
    curve = [
        {"kind": "behaviour", "what": "steerability", "scale": scale, "layer": l, **est(l * (4 - l))}
        for scale in ("matched", "raw")
        for l in range(4)
    ]
    settings = {"behaviour": {"layer": 2, "unit": 0.4}}
    arms = ("unsteered", "prompted", "steered", "steered_prompted", "random")
    traits = [
        {
            "trait": t,
            "scope": "global" if i % 2 else "local",
            "task": task,
            "n": 12,
            "expression": dict(zip(arms, rng.uniform(0, 100, 5))),
            "coherence": dict(zip(arms, rng.uniform(60, 100, 5))),
            "expression_interval": {arm: [10, 90] for arm in arms},
            "coherence_interval": {arm: [60, 100] for arm in arms},
            "gain": est(rng.uniform(0, 60), 5, 12, "prompts"),
        }
        for i, t in enumerate(TRAITS)
        for task in ("question", "summary", "email")
    ]
    cases = [
        {"task": task, "item": f"{task}-{i}", "arm": arm, "trait": t, "output": f"A *text* of {t}\n\u2603 {i}",
         "expression": {t: 10.0 * i}, "coherence": 100.0 - i}
        for t in TRAITS for task in TASKS for i in range(3) for arm in ("steered", "prompted")
    ]
    shifts = [
        {
            "behaviour": b,
            "shift": s,
            "plotted": s != "BASE->SYS_POS",
            "id": rng.normal(1),
            "ood": rng.normal(1),
            "own": rng.normal(1),
            "distance": rng.uniform(),
            "relative": rng.normal(1) if i else None,
        }
        for i, b in enumerate(BEHAVIOURS)
        for s in ("BASE->USER_NEG", "SYS_POS->USER_NEG", "BASE->SYS_POS")
    ]
    facets = [("template", t) for t in ("arrow", "colon", "bar")] + [("context", c) for c in ("bare", "1 sentence")]
    relations = [
        {
            "facet": facet,
            "x": x,
            "own": x == "arrow",
            "gain": est(rng.uniform(0, 3), 0.4, 30, "word components"),
            "synonym_vector": 0.1,
        }
        for facet, x in facets
    ]
    ways = [
        {"way": way, "facet": facet, "x": x, "own": x == "arrow", "gain": est(1, 0.4, 30, "word components"),
         "top1": rng.uniform(), "top1_unsteered": 0.4}
        for way in WAYS
        for facet, x in facets
    ]
    values = [
        {
            "value_name": v,
            "strength": s,
            "kind": "tuned" if s == 0.3 else "grid",
            "inside": 0 < s < 0.5,
            "bias": est(abs(1 - 2 * s), 0.2, 20, "probes"),
            "bias_random": 1.0,
            "bias_against": 1.0,
            "fact_accuracy_both": 1 - s / 3,
            "fact_accuracy_random": 1 - s / 9,
            "perplexity": 1 + s,
            "perplexity_random": 1 + s / 2,
        }
        for v in ("pronoun", "kindness")
        for s in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 0.3)
    ]
    transfer = {
        "traits": {
            **{
                k: est(rng.normal(10, 5), 6, 36, "traits")
                for k in (
                    "expressibility_spread",
                    "global_minus_local",
                    "transfer_gap",
                    "summary_deficit",
                    "prompted_minus_steered",
                    "prompted_gain",
                )
            },
            "steer": {"tuning": 20, "beyond_random": 15, "by_luck": 5, "excess": 10},
            "gain": {
                task: est(rng.uniform(10, 40), 5, 36, "traits") for task in ("question", "summary", "email")
            },
        },
        "behaviours": {
            "id_ood_spearman": est(0.8, 0.1), "distance_spearman": est(-0.2, 0.3), "id_ood_sd_spearman": est(0.3, 0.2),
            "vector_effect": est(0.4, 0.1), "sentence_effect": {"SYS_POS": est(4, 0.5), "USER_POS": est(4, 0.5)},
            "both_minus_sentence": est(0.1, 0.1),
            "grid": {key: est(0.3, 0.2) for key in ("id_ood", "id_ood_with_self", "distance_relative",
                                                    "distance_relative_with_self", "cosine_relative", "cosine_distance")},
            "mean_steerability": {f"{a}->{b}": 0.1 for a in SETTINGS for b in SETTINGS},
            "mean_cosine": {f"{a}->{b}": 0.5 for a in SETTINGS for b in SETTINGS}},
        "relations": alignment(),
        "not_testable": {"values": "the suite has no values"},
    }
    return {
        "01_extract": ({"layers": layers}, {"lists_right": {"clean": est(0.9, 0.05), "shuffled": est(0.5, 0.1)}}),
        "02_tune": (
            {"layers": curve, "settings": settings},
            {"traits": {"tradeoff": est(-0.4, 0.2, 36, "traits")}},
        ),
        "03_transfer": (
            {"cases": cases, "prompts": [{"id": f"{task}-{i}", "task": task, "prompt": "What | now?"} for task in TASKS
                                         for i in range(3)], "traits": traits, "shifts": shifts, "relations": relations, "ways": ways, "values": values},
            transfer,
        ),
        "04_compose": composition(rng),
        "05_reliability": reliability(rng),
    }


SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")
WAYS = ("centred", "mean", "contrast", "heads", "patch")


def alignment():
    """results["relations"] with the keys that the page reads."""
    arms = ("unsteered", "vector")
    where = ("zero_shot", "shuffled_list")
    return {
        "antonym_gain": est(2, 0.5), "template_gap": est(0.5, 0.2), "complexity_slope": est(-0.3, 0.2),
        "neutral_slope": est(-0.1, 0.2), "sentence_minus_symbols": est(0.1, 0.2),
        **{key: est(0.1, 0.2) for key in ("random_gain", "flipped_gain", "synonym_vector_gain", "other_vector_gain")},
        "style": {key: est(1, 0.2) for key in ("symbols", "labels", "sentence")},
        **{f"top{k}": {arm: est(0.5, 0.1) for arm in arms} for k in (1, 2, 3)},
        **{key: {arm: est(-0.1, 0.1) for arm in arms} for key in ("logp_slope", "top1_slope")},
        "ways": {way: {key: {at: est(1, 0.2) for at in where} for key in ("change", "gain", "top1")} for way in WAYS},
        "specific": {way: est(1, 0.2) for way in WAYS},
        "lists": {name: {"top1": est(0.5, 0.1)} for name in ("zero_shot", "shuffled_list", "clean_list")}}


def composition(rng):
    methods = ("different_layers", "orthogonalised", "tuned_mean", "unit_norm_mid", "unit_norm_late", "plain_sum")
    beside = ("solved", "plain_sum_scaled", "tuned_mean_scaled", "prompting", "unsteered")
    rows = [
        {
            "method": m,
            "task": "own",
            "k": k,
            "expression": est(70 - 12 * k + rng.normal(), 5, 30, "subsets"),
            "coherence": est(95 - 8 * k, 3, 30, "subsets"),
            "usable": est(60 - 12 * k + rng.normal(), 5, 30, "subsets"),
        }
        for m in (*methods, *beside)
        for k in (1, 2, 3, 4)
    ]
    fronts = [
        {"k": k, "method": m, "setting": s, "n": 16, "expression": 40 * s / k + rng.normal(), "usable": 10.0,
         "coherence": 110 - 60 * s, "limit": 75, "chosen": s == 0.5, "coherent": True}
        for m in (*methods, "solved") for k in (1, 2, 3, 4) for s in (0.5, 1.0, 1.25)
    ]
    winners = [
        {"k": k, "task": task, "own": own, "score": score, "n": 20, "means": {m: 50.0 - i for i, m in enumerate(methods)},
         "references": {m: 45.0 for m in beside if own or not m.endswith("_scaled")}, "winners": [methods[0]]}
        for k in (1, 2, 3, 4) for task in ("email", "summary") for own in (True, False) for score in ("usable", "expression")
    ]
    order = {"first_minus_last": {m: est(2, 1, 92, "subsets") for m in methods[:2]},
             "sd": {m: est(5, 1, 92, "subsets") for m in methods[:2]},
             "alphabetical": {m: {"difference": est(4, 3, 51, "subsets")} | (
                 {"place": est(1, 1, 51, "subsets"), "traits": est(3, 3, 51, "subsets")} if m in methods[:2] else {})
                 for m in (*methods, *beside)}}
    return {"curves": rows, "fronts": fronts, "winners": winners}, {
        "slope": {m: est(-8 - i, 3, 60, "subsets") for i, m in enumerate(methods)},
        "per_vector": {what: {m: est(-8 - i, 3, 9, "groups") for i, m in enumerate(methods[:3])}
                       for what in ("expression", "coherence")},
        "unit_norm_spares": {"unit_norm_mid": est(20, 5, 9, "groups")},
        "method_interaction": est(0.5, 0.8, 9, "groups"),
        "best_method_share": est(0.6, 0.2, 8, "cells"),
        "drop": {m: {"2": est(-9 - i, 4, 30, "subsets")} for i, m in enumerate(methods)},
        "solved_minus": {m: est(1, 2, 92, "subsets") for m in ("best_published", "best_scaled", "plain_sum_scaled", "prompting")},
        "order": order,
    }


def reliability(rng):
    records = []
    for i, name in enumerate(BEHAVIOURS):
        mean, letter, yes = rng.normal(1), rng.uniform(0, 0.4), rng.uniform(0, 0.4)
        records.append(
            {
                "name": name,
                "n": 40,
                "slope": est(mean, 0.2, 40, "contents"),
                "quantiles": {
                    "p05": mean - 2,
                    "p25": mean - 0.5,
                    "p50": mean,
                    "p75": mean + 0.5,
                    "p95": mean + 2,
                },
                "anti_steerable": rng.uniform(0, 0.5),
                "intervals": {"anti_steerable": [0.1, 0.6], "unexplained": [0.2, 0.9]},
                "format": ("yes_no", "options")[i % 2],
                "sum": {"mean": mean, "anti_steerable": 0.3}, "sum_raw": {"mean": mean / 2, "anti_steerable": 0.3},
                "random": {"p95": 0.4},
                "steerable": bool(mean > 0.4),
                "bias": {
                    "letter": letter,
                    "yes_marginal": yes,
                    "unexplained": 1 - letter - yes,
                    "permuted": 0.05,
                },
                "swap": {"flips_sign": 0.2} if i else None,
            }
        )
    keys = (
        "steerability.mean",
        "spread",
        "anti_steerable.share",
        "anti_steerable.random",
        "anti_steerable.random_oriented",
        "anti_steerable.shuffled",
        "unsteerable.share",
        "linearity.r2",
        "linearity.monotonicity",
        "raw.anti_steerable",
        "anti_steerable.orthogonal",
        "definition.closing",
        "definition.spearman",
        "leak.clean",
        "leak.published",
        "leak.overlap_minus_fresh",
        *(f"methods.{name}.{key}" for name in ("mean_difference", "principal_component", "logistic")
          for key in ("mean", "anti_steerable", "explained")),
        "bias.explained",
        "bias.excess",
        "bias.letter",
        "bias.yes_marginal",
        "bias.permuted",
        "bias.swap.flips_sign",
        "bias.swap.within_share",
        "steerable_only.spread",
        "steerable_only.anti_steerable",
        "planted.contrary_anti",
        "planted.regular_anti",
        "planted.letter_bias",
        "planted.yes_bias",
        "planted.default_spearman",
        "predictors.directional_agreement",
        "predictors.d_prime",
        "predictors.split_half_cosine",
        "predictors.norm",
        "predictors.baseline",
        "predictors.held_out",
    )
    results = {}
    for key in keys:
        *path, last = key.split(".")
        place = results
        for part in path:
            place = place.setdefault(part, {})
        place[last] = est(rng.uniform(0, 1), 0.1)
    results["n"] = {"steerable": 20, "steerable_by_luck": 6}
    return {"behaviours": records}, results
