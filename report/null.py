"""Null: how often does each rule speak where there is nothing, and how often where there is something?

Chains in which every claim that names their kind is false, at the sizes of PROFILE, both embedded models:
    untrained   a network of the same architecture and tokenizer with fresh weights
    random      stage 01 as it is, then every vector a random one of its norm; stages 02 to 05
    shuffled    stage 01 as it is, then every vector that of shuffled labels; stages 02 to 05
Real results beside them, the committed ones of both models:
    permuted    the label that a claim compares (methods, scope, order ...) is dealt at random (report/permuted.py); of
                P14, B12 and B13 the stages keep too little, and only false synthetic data stand for it
Synthetic data beside them, through the functions that the stages conclude with (report/planted_<study>.py):
    false       the claim does not hold          planted     it holds, at a stated size
A claim is decided in each by the code that decides it on the page (report/claims.py).

reads   data/models, the committed results, report/claims.json
writes  <out>/ (the chains; what is done is not done again), report/null.json: per claim and kind, how often each
        verdict came; rates with Wilson's 95 % interval
cost    an hour on two cores; the permuted part one minute, the synthetic one four

    python -m report.null
    python -m report.null --only permuted       that part of report/null.json anew, the rest as it is
    python -m report.null --only chains --study relations --study values      the same, of these two alone
"""
import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lib import artifacts, identity, metrics, sizes
from lib.artifacts import ROOT, UserError
from lib.stage import COMMITTED
from report import claims, permuted
from report.audit import STAGES

# --- settings -----------------------------------------------------------------------------------------------
MODELS = ("pico-llama", "pico-gpt2")
SEEDS = {"untrained": (1, 2, 3), "random": (1, 2, 3), "shuffled": (0, 1, 2)}     # shuffled: the draw that is used
PROFILE = ("--profile", "quick", "--sizes", "preferences=0.2 reliability=0.3 alignment=0.4")
PARTS = ("chains", "permuted", "synthetic")
SYNTHETIC = {"false": 100, "planted": 40}           # draws of synthetic data per claim
DEALT = 50                                         # draws of permuted labels per claim and model
MOST = 0.05                                        # a rule may speak in so many of its null runs
STUDIES = ("preferences", "reliability", "alignment")
SAME = ("shuffled_vectors",)                       # arrays of stage 01 that are controls themselves
TOLD = ROOT / "report" / "null.json"
# ------------------------------------------------------------------------------------------------------------


# --- chains -------------------------------------------------------------------------------------------------
def untrained(model, seed, to):
    """A folder like the model's, with fresh weights."""
    source, folder = ROOT / "data/models" / model, to / model
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(folder)
        for name in identity.model_parts(identity.model_files(source))["tokenizer"]:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
    return folder


def replaced(kind, seed, name, array, shuffled):
    """An array of vectors of stage 01 (..., layer, d) with others in their place; shuffled (concept, draw, layer, d)."""
    if kind == "shuffled" and name == "vectors":               # of other arrays no shuffled pairs are kept
        return shuffled[:, seed]
    drawn = np.random.default_rng([seed, *name.encode()]).standard_normal(array.shape)
    norms = np.linalg.norm(array, axis=-1, keepdims=True) / np.linalg.norm(drawn, axis=-1, keepdims=True)
    return (drawn * norms).astype(np.float32)


def derive(kind, seed, made, folder):
    """Stage 01 of a chain from the one that was made as it is: the same manifest, other vectors."""
    if (folder / "manifest.json").is_file():
        return
    arrays, tables = {}, {}
    shuffled = made.array("shuffled_vectors")
    for file, output in made.manifest["outputs"].items():
        name, ending = file.rsplit(".", 1)
        if ending != "npy":
            tables[name if ending == "json" else file] = made.table(name)
            continue
        array, axes = made.array(name), output["axes"]
        if axes[-1] == "d_model" and name not in SAME:
            array = replaced(kind, seed, name, array, shuffled)
        arrays[name] = array, axes
    artifacts.save(folder, stage="01_extract", config={**made.config, "null": [kind, seed]}, arrays=arrays, tables=tables,
                   inputs=made.manifest["inputs"], results=made.results, sources=[])


def sized(studies):
    """PROFILE for these studies alone. Samples and draws go by address: a chain without the others is the same."""
    *words, levels = PROFILE
    return (*words, sizes.told({study: level if study in studies else None
                                for study, level in sizes.parse(levels).items()}))


def stage_of(script, words, out):
    """Run one stage script; UserError with its last lines if it fails."""
    done = subprocess.run([sys.executable, script, *words, "--out", str(out)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise UserError(f"{script} {' '.join(words)} --out {out}: {done.stderr.strip()[-300:]}")


def chain(kind, seed, model, out, profile):
    """All stages of one case and model; returns {(model, stage): Artifact}."""
    folder = out / f"{kind}-{seed}"
    source = untrained(model, seed, folder / "models") if kind == "untrained" else ROOT / "data/models" / model
    leaf = folder / model / "testbed-quick"
    for name in STAGES:
        if name == STAGES[0] and kind != "untrained":
            derive(kind, seed, artifacts.load(out / "trained" / model / leaf.name / name), leaf / name)
        else:
            stage_of(f"{name}.py", ("--model", str(source), *profile), folder)
    return {(model, name): artifacts.load(leaf / name) for name in STAGES}


def case(kind, seed, out, profile):
    """[{claim: verdict}] of one case, a model each."""
    found = {}
    for model in MODELS:
        found |= chain(kind, seed, model, out, profile)
    folder = out / f"{kind}-{seed}"
    sources = [folder / "models" / m if kind == "untrained" else ROOT / "data/models" / m for m in MODELS]
    stage_of("05_reliability.py", [word for at in sources for word in ("--model", str(at))] + [*profile, "--across"], folder)
    found["+", claims.ACROSS] = artifacts.load(folder / "+".join(MODELS) / "testbed-quick" / claims.ACROSS)
    return [{claim["id"]: claims.decide(claim, model, found)["verdict"] for claim in claims.listed()
             if kind in claim.get("null", ())} for model in MODELS]


def chains(out, studies=sizes.STUDIES):
    """{claim: {kind: how often each verdict came}} of all cases, run side by side, of the claims of these studies."""
    cases = [(kind, seed) for kind, seeds in SEEDS.items() for seed in seeds]
    for model in MODELS:                               # what the chains share, before they run
        stage_of("01_extract.py", ("--model", str(ROOT / "data/models" / model), *sized(studies)), out / "trained")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda one: (one[0], case(*one, out, sized(studies))), cases))
    each = {kind: [verdicts for k, models in found if k == kind for verdicts in models] for kind in SEEDS}
    return {claim["id"]: {kind: counted(Counter(one[claim["id"]] for one in each[kind]))
                          for kind in SEEDS if kind in claim.get("null", ())}
            for claim in claims.listed() if claims.study_of(claim) in studies}


# --- permuted labels ----------------------------------------------------------------------------------------
def placed(artifact, key, value):
    """The artifact with another value at a dotted key of its results, rounded as a manifest is."""
    results = at = artifacts.plain(artifact.results)                       # a copy
    *path, last = key.split(".")
    for part in path:
        at = at[part]
    at[last] = artifacts.plain(value, key, artifacts.DIGITS)
    return replace(artifact, manifest={**artifact.manifest, "results": results})


def dealt():
    """{claim: how often each verdict came} with labels dealt anew in the committed results; gates stay as they are."""
    by_id, told = {claim["id"]: claim for claim in claims.listed()}, {name: Counter() for name in permuted.PERMUTED}
    for model in MODELS:
        stages = {name: artifacts.load(ROOT / COMMITTED / model / "testbed" / name) for name in STAGES}
        kept, found = permuted.read(stages), {(model, name): artifact for name, artifact in stages.items()}
        for name, (deal, conclude) in permuted.PERMUTED.items():
            claim = by_id[name]
            for seed in range(DEALT):
                value = conclude(deal(kept, np.random.default_rng([seed, *f"{model} {name}".encode()])))
                changed = placed(stages[claim["stage"]], claim["key"].removesuffix(".*"), value)
                told[name][claims.decide(claim, model, found | {(model, claim["stage"]): changed})["verdict"]] += 1
    return {name: counted(verdicts) for name, verdicts in told.items()}


# --- synthetic data -----------------------------------------------------------------------------------------
def synthetic(study):
    """{claim: {"planted what": text, "false": verdicts, "planted": verdicts}} of one study."""
    module, told = importlib.import_module(f"report.planted_{study}"), {}
    by_id = {claim["id"]: claim for claim in claims.listed()}
    for name, planted in module.PLANTED.items():
        told[name] = {"what": planted.what}
        for size, (kind, n) in enumerate(SYNTHETIC.items()):
            verdicts = Counter()
            for seed in range(n):
                made = planted.make(seed, size)
                found = {(("+" if stage == claims.ACROSS else "m"), stage): SimpleNamespace(
                    results=results, config={}, digest="", path=Path("synthetic")) for stage, results in made.items()}
                # A gate on results that the synthetic data do not have counts as open: the rule itself is tried.
                gates = [gate for gate in by_id[name].get("gates", ())
                         if gate["key"].split(".")[0] in made.get(gate.get("stage", by_id[name]["stage"]), ())]
                verdicts[claims.decide({**by_id[name], "gates": gates}, "m", found)["verdict"]] += 1
            told[name][kind] = counted(verdicts)
    return told


def counted(verdicts):
    """{"n", verdict: how often, "rate": [share that says reproduced, low, high]}."""
    n, k = sum(verdicts.values()), verdicts["reproduced"]
    return {"n": n, **{word: verdicts[word] for word in claims.VERDICTS if verdicts[word]},
            "rate": [k / n, *metrics.wilson(k, n)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/null"), help="folder for the chains")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    parser.add_argument("--study", action="append", choices=sizes.STUDIES,
                        help="with --only chains or synthetic: of this study alone; may be repeated")
    args, start = parser.parse_args(), time.time()
    if args.study and not set(args.only or PARTS) <= {"chains", "synthetic"}:
        parser.error("--study goes with --only chains or synthetic")
    parts, studies = args.only or PARTS, set(args.study or sizes.STUDIES)
    before = artifacts.read_json(TOLD, {"claims": {str: dict}}) if args.only else {"claims": {}}
    told = {claim["id"]: {"chains": {}} | before["claims"].get(claim["id"], {}) for claim in claims.listed()}
    for name, found in chains(args.out.resolve(), studies).items() if "chains" in parts else ():
        told[name]["chains"] |= found
    for name, verdicts in dealt().items() if "permuted" in parts else ():
        told[name]["chains"]["permuted"] = verdicts
    for study in STUDIES if "synthetic" in parts else ():
        if not studies & set(sizes.BOTH.get(study, [study])):
            continue
        for name, found in synthetic(study).items():
            told[name] |= found
    over = sorted(name for name, found in told.items() for kind in (*found["chains"].values(), found.get("false"))
                  if kind and kind["rate"][1] > MOST)               # the whole interval of the rate
    whole = before if args.only else {
        "profile": PROFILE, "seeds": SEEDS, "models": MODELS, "wall_s": round(time.time() - start)}
    artifacts.write_json(TOLD, {**whole, "claims": told})
    print(f"null  {', '.join(parts)} of {len(told)} claims; above {MOST:g}: {', '.join(over) or 'none'}")


if __name__ == "__main__":
    artifacts.run(main)
