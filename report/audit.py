"""Audit: are results what they were, do they come again, and where does a number come from?

    verify     every file of a stage folder, the stages before it and, where they are here, data and weights, each
               against the hash that was kept; sources by meaning; the last spot check. Nothing may be missing
    spot       work units drawn at random, computed again from the committed inputs (report/spot.py)
    compare    what ran here, held to what is committed (report/compare.py)
    publish    what ran here becomes what is committed, without large arrays that stage 01 makes again
    clean      deletes what ran here
    trace      from a claim, a figure or model:stage:key back to line, inputs and hashes (report/trace.py)

    python -m report.audit verify --model data/models/pico-llama
    python -m report.audit trace R2

`verify` and `spot` look at outputs/committed; --out outputs looks at what ran here. Reads artifacts and makes none.
"""
import argparse
import shutil
import sys
import textwrap
from pathlib import Path

from lib import artifacts, identity, stage, suite as suites
from lib.artifacts import ROOT, UserError, digest_of, load, read_json, write_json
from report import compare, trace
from report.declared import STAGES
from report.light import LEFT_OUT, TUNED, left_out, lighten

OWN = ("manifest.json", "run.json")
SPOTS = "spot.json"              # beside the stage folders of a model: what was checked when (report/spot.py)
WIDTH = 118                      # of a terminal; `trace` wraps its lists to it


def due(args):
    """Every stage folder that should be there: five per model, and the comparison of several."""
    folders = [stage.paths(args, model) / name for model in args.model for name in STAGES]
    if len(args.model) > 1:
        folders.append(stage.paths(args, "+".join(map(stage.model_name, args.model))) / "05_across")
    return folders


# --- verify -------------------------------------------------------------------------------------------------
def given(run, flag, default=None):
    """Values of a flag on the command line that run.json keeps, as `--flag value` or `--flag=value`."""
    argv, found = run["argv"], []
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            found.append(argv[i + 1])
        elif word.startswith(f"{flag}="):
            found.append(word.split("=", 1)[1])
    return found or [default]


def before(artifact, label):
    """Folder of an input stage: beside this one, or of another model where the label reads model/stage: of its folders,
    whatever the precision, the one that went in, else that of this one's name."""
    model, _, name = label.rpartition("/")
    beside = artifact.path.parent
    if not model:
        return beside / label
    there, digest = beside.parent.with_name(model), artifact.manifest["inputs"][label]
    fit = [file.parent for file in sorted(there.glob(f"*/{name}/manifest.json")) if read_json(file).get("digest") == digest]
    return fit[0] if fit else there / beside.name / name


def inspect(path):
    """(faults, counts) of one stage folder: texts that name what is wrong, {what: number checked}.

    A count of 0 for weights or data means that the folder named on the command line is not here. Sources that mean
    something else now are no fault (see `state`). UserError if the manifest itself was edited or is missing."""
    artifact, faults = load(path), []
    again = f"delete {artifact.path} and run {artifact.manifest['stage']} again"
    absent = {name for name in left_out(path) if not (artifact.path / name).exists()}
    known = {stage.MARK, LEFT_OUT, *OWN, *(name.replace(".npy", TUNED) for name in absent)}
    names = {file.name for file in artifact.path.iterdir()} - known
    names = sorted((names | set(artifact.manifest["outputs"])) - absent)
    for name in names:
        try:
            artifact.file(name)
        except UserError as fault:
            faults.append(str(fault))
    counts = {"files": len(names), **({"left out": len(absent)} if absent else {}), "inputs": 0}
    for label, digest in artifact.manifest["inputs"].items():
        if label in STAGES or "/" in label:
            counts["inputs"] += 1
            if read_json(before(artifact, label) / "manifest.json").get("digest") != digest:
                faults.append(f"{artifact.path}: made from another {label} than the one beside it; {again}")
        elif label != "suite":
            counts["inputs"] += 1
            if identity.sha256(ROOT / "data" / f"{label}.json") != digest:
                faults.append(f"{artifact.path}: made from another data/{label}.json; {again}")
    run = artifact.run
    for what, check in (("data", _data), ("weights", _weights)):
        counts[what], wrong = check(artifact, run)
        faults += [f"{artifact.path}: {text}; {again}" for text in wrong]
    return faults, counts


def _data(artifact, run):
    """The suite of the command line, if it is here, has the digest that went in; else the files that differ."""
    name = given(run, "--suite", "testbed")[0]
    folder = suites.find(ROOT / name) or suites.find(name)
    if folder is None or "suite" not in artifact.manifest["inputs"]:
        return 0, []
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    kept = (run.get("data") or {}).get("files", {})
    try:
        now = suites.load(folder).data["files"]
    except UserError as fault:
        return 1, [f"made from other data: {fault}"]
    if digest_of(now) == artifact.manifest["inputs"]["suite"]:
        return len(now), []
    return len(now), [f"made from other data: {shown / name} changed" for name in sorted({*now, *kept})
                      if now.get(name) != kept.get(name)] or [f"made from other data than {shown}"]


def _weights(artifact, run):
    """Weights, configuration and tokenizer in the folder of the command line, if it is here, are the manifest's."""
    model, source = artifact.config.get("model"), given(run, "--model")[0]
    folder = ROOT / source if source else None
    if not isinstance(model, dict) or folder is None or not (folder / "config.json").is_file():
        return 0, []
    parts = identity.model_parts(identity.model_files(folder))
    files, tokenizer, kept = parts["weights"] | parts["config"], parts["tokenizer"], model["weights"] | model["config"]
    wrong = [f"made with another {folder / name}" for name in sorted({*kept, *files})
             if kept.get(name) != files.get(name)]
    if digest_of(tokenizer) != model["tokenizer"]:
        wrong.append(f"made with another tokenizer than {folder}'s")
    return len(files) + len(tokenizer), wrong


def verify(path):
    """The stage folder at `path`, loaded, if `inspect` finds no fault; else UserError with the first."""
    faults, _ = inspect(path)
    if faults:
        raise UserError(faults[0])
    return load(path)


def state(artifact):
    """{"sources": texts that name what changed since, "spot": the last spot check in words} of a stage."""
    return {"sources": trace.changed(artifact.run), "spot": spotted(artifact)}


def spotted(artifact):
    """The last spot check of a stage in words."""
    try:
        last = read_json(artifact.path.parent / SPOTS).get(artifact.path.name, {})
    except UserError:
        last = {}
    if last.get("digest") != artifact.digest:
        return "no spot check"
    return f"{last['bad']} of {len(last['units'])} units differ ({last['of']} in all), commit {last['commit'][:10]}"


def verify_all(folders):
    """Prints a line per stage folder, and what is wrong; UserError if anything is, or is missing."""
    bad = 0
    for path in folders:
        try:
            faults, counts = inspect(path)
        except UserError as fault:
            faults = [str(fault)]
        bad += bool(faults)
        if faults:
            print("\n".join(f"BAD  {fault}" for fault in faults))
            continue
        artifact = load(path)
        now = state(artifact)
        checked = ", ".join(f"{what} {n}" for what, n in counts.items())
        print(f"ok   {path}  {artifact.digest[:12]}  {checked}; sources "
              f"{'the same' if not now['sources'] else 'changed'}; {now['spot']}")
        for text in now["sources"]:
            print(f"     made by other sources: {text}")
    if bad:
        raise UserError(f"{bad} of {len(folders)} stage folders are not as they were written")


# --- compare and publish ------------------------------------------------------------------------------------
def compare_all(args, brief):
    """Prints what ran here beside what is committed; UserError if it differs in substance."""
    here = {path.relative_to(args.out): path for path in due(args)}
    kept = {name: stage.COMMITTED / name for name in here if (stage.COMMITTED / name).is_dir()}
    if not kept:
        print(f"no committed results of {', '.join(args.model)} to compare with")
        return
    found = compare.graded([(folder, here[name]) for name, folder in kept.items()])
    for path, grade, told in () if brief else found:
        print(f"{grade:9s} {path}  " + "\n          ".join(told))
    print(compare.summary(found))
    if not brief and any(grade == "differs" for _, grade, _ in found):
        raise UserError("what ran here differs from the committed results in substance")


def publish(args):
    """What ran here replaces what is committed, model by model, after it was verified."""
    for path in due(args):
        verify(path)
    for folder in sorted({path.parent for path in due(args)}):
        to = stage.COMMITTED / folder.relative_to(args.out)
        held, copy, old = artifacts.hold(to), *(to.with_name(f"{to.name}.{what}") for what in ("copy", "old"))
        try:
            if old.exists() and not to.exists():            # a publish that was killed between its two renames
                old.rename(to)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(
                stage.MARK, "report", "export", "*.units", "*.tmp-*", "*.old-*", "*.lock"))
            made = [load(manifest.parent) for manifest in sorted(copy.glob("*/manifest.json"))]
            tuned = next((one.table("tuned") for one in made if "tuned.json" in one.manifest["outputs"]), {})
            for one in made:
                lighten(one, tuned)
            if to.exists():
                shutil.rmtree(old, ignore_errors=True)
                to.rename(old)
            copy.rename(to)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            artifacts.release(held)
        print(f"{to}  is what ran here")


def clean(args):
    """Deletes what ran here: the folders of these models at this suite and profile, finished or not."""
    for folder in {path.parent for path in due(args)}:
        if folder.exists():
            shutil.rmtree(folder)


# --- commands -----------------------------------------------------------------------------------------------
def main():
    command, rest = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if command == "trace":
        parser = argparse.ArgumentParser(prog="report.audit trace")
        parser.add_argument("name", help="id of a claim, name of a figure, or model:stage:key")
        parser.add_argument("--report", type=Path, default=ROOT / "report", help="folder of the report that shows it")
        args = parser.parse_args(rest)
        for line in trace.trace(args.name, args.report):
            line = "".join(c if c.isprintable() else artifacts.shown(c) for c in line)
            print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False))
        return
    parser = stage.cli(__doc__, many=True)
    parser.add_argument("command", choices=("verify", "spot", "compare", "publish", "clean", "trace"))
    parser.add_argument("--brief", action="store_true", help="compare: one line")
    parser.add_argument("--n", type=int, default=10, help="spot: work units per stage")
    parser.add_argument("--seed", type=int, help="spot: of the draw; default: drawn and printed")
    parser.set_defaults(out=str(stage.COMMITTED) if command in ("verify", "spot") else "outputs")
    args = parser.parse_args()
    args.suite = args.suite.rstrip("/")
    if command == "verify":
        verify_all(due(args))
    elif command == "compare":
        compare_all(args, args.brief)
    elif command == "publish":
        publish(args)
    elif command == "clean":
        clean(args)
    else:
        from report import spot                              # here: it brings torch
        spot.check(args, due(args), SPOTS)


if __name__ == "__main__":
    artifacts.run(main)
