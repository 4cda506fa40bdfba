"""Stage: the frame of a numbered script: its flags and folders, whether there is anything to do, what it starts from.

    CLI = stage.cli(__doc__)
    stage.begin(__name__, CLI, AFTER)         up to date? says so and ends, before torch is imported
    at = stage.open(args, __file__, AFTER)    suite, model, judge and the stages before, checked against each other
    stage.run(main)                           errors in one line; marks the stage as made here

A stage is up to date if this machine made it from the same flags, model files, suite, stages before, sources (by
meaning, lib.identity) and package versions, and its files are what was written. The mark of that, .made in its folder,
is not tracked: results that came with a checkout were not made here.
"""
import argparse
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from lib import artifacts, identity, sizes, suite as suites
from lib.artifacts import UserError

COMMITTED = Path("outputs") / "committed"        # results that come with the project; runs never write there
MARK = artifacts.MARK
OWN = "suite"                                    # a suite of this name lies in the folder of its results
DTYPES = ("float32", "bfloat16")                 # the first is the default
NO_TEMPLATE = "the tokenizer has no template"    # as lib.chat says it; a base model, of which nothing is to be told
PLAN = "plan.json"                               # beside the stages of a quick run: its levels (report/plan.py)
_making = None                                   # (folder, digest, lock) of this process, from begin to run


def cli(doc, many=False):
    """Parser with the flags every stage shares; many=True: --model may be repeated and is a list."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, action="append" if many else "store",
                        help="folder or Hugging Face id" + ("; repeat for several" if many else ""))
    parser.add_argument("--suite", default="testbed", help="name of a folder in data/suites, or a folder")
    parser.add_argument("--profile", choices=("full", "quick", "smoke"), default="full")
    parser.add_argument("--sizes", help="quick: level of each study, as report.plan prints them; default: its plan's")
    parser.add_argument("--judge", help="rules, self, model:<id> or api:<model>; default: the suite's")
    parser.add_argument("--dtype", choices=DTYPES, action="append" if many else "store", default=None if many else DTYPES[0],
                        help="weights in stages 02 to 05; vectors are made in float32" + "; once for all, or once for each "
                             "--model in its order" * many)
    parser.add_argument("--out", default="outputs", help="folder for all results")
    return parser


def model_name(model):
    """Folder name for a model: the basename of a folder, or a hub id with "/" written as "--"."""
    return _name("--model", Path(model).resolve().name if Path(model).is_dir() else str(model).strip("/").replace("/", "--"))


def _name(flag, name):
    """`name`, if it can name one folder below another. UserError if it leads elsewhere or holds what no line shows."""
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise UserError(f"{flag}: {name!r} cannot name a folder of results")
    return name


def paths(args, model=None):
    """Folder that holds the stages of one model and suite: <out>/<model>/<suite>[-<profile>][-bfloat16][-by-<judge>].
    UserError for a name that would lead out of it, or that reads as that of another profile or judge. A suite folder
    called OWN has the name of the folder that it lies in."""
    judge, folder = getattr(args, "judge", None), suites.find(args.suite) or Path(args.suite)
    leaf = folder.resolve() if folder.is_dir() else None
    leaf = leaf and (leaf.parent if leaf.name == OWN else leaf).name
    leaf = _name("--suite", str(args.suite) if leaf is None else leaf)
    if "-by-" in leaf or leaf.endswith(("-smoke", "-quick", "-bfloat16")):
        raise UserError(f"--suite: {leaf!r} reads as the results of another judge or profile; give the folder another name")
    leaf += "" if args.profile == "full" else f"-{args.profile}"
    leaf += "" if dtype(args, model) == DTYPES[0] else f"-{dtype(args, model)}"
    if judge:
        suites.judge_kind(judge)
        leaf = _name("--judge", leaf + "-by-" + re.sub("[/:]", "--", judge))
    return Path(args.out) / model_name(args.model if model is None else model) / leaf


def dtype(args, model=None):
    """The --dtype of a model: the one given, or the one at its place; of a set of models the one that all have, else the
    default. UserError where there is neither one nor as many as models."""
    given, models = getattr(args, "dtype", None) or DTYPES[0], args.model if isinstance(args.model, list) else [args.model]
    if isinstance(given, str):
        return given
    if len(given) not in (1, len(models)):
        raise UserError(f"--dtype: {len(given)} for {len(models)} of --model; give one for all, or one for each")
    return given[0] if len(set(given)) == 1 else dict(zip(models, given)).get(model, DTYPES[0])


def levels(args, model=None):
    """{study: level} of a quick run: of --sizes, else of the plan in its folder; None at other profiles. UserError
    without either."""
    given = getattr(args, "sizes", None)
    if args.profile != "quick":
        if given:
            raise UserError(f"--sizes goes with --profile quick, not {args.profile}")
        return None
    plan = paths(args, model) / PLAN
    if not given and not plan.is_file():
        raise UserError(f"{plan}: not there; give --sizes, or a plan first (make plan PROFILE=quick BUDGET=60m)")
    return sizes.parse(given or sizes.told(artifacts.read_json(plan)["levels"]))


def check(args):
    """UserError if two models would write one folder, or one is neither a folder nor could be a hub id."""
    names = [model_name(model) for model in args.model]
    twice = sorted({name for name in names if names.count(name) > 1} | ({COMMITTED.name} & set(names)))
    if twice:
        raise UserError(f"--model: {', '.join(twice)} names the same output folder twice, or the committed results")
    paths(args, args.model[0])


# --- up to date? --------------------------------------------------------------------------------------------
def begin(name, parser, after=(), files=()):
    """In a script that is run: end it with a line if its results are up to date. Elsewhere nothing.

    after  names of the stages it reads; files  what else it reads, beside model and suite"""
    if name == "__main__":
        artifacts.run(lambda: _begin(parser.parse_args(), after, files))


def _begin(args, after, files):
    global _making
    script = Path(sys.modules["__main__"].__file__).resolve()
    models = args.model if isinstance(args.model, list) else [args.model]
    folder, suite = target(args, script.stem), suites.load(args.suite)        # one digest for all profiles
    held = None
    if int(os.environ.get("RANK", 0)) == 0:                # the other ranks are of one family with it
        held = artifacts.hold(folder)
        artifacts.settle(folder)
    folders = [identity.model_folder(model) for model in models]
    judge = suites.judge_kind(args.judge or suite.judge) if args.judge or suite.traits else ("", "")
    folders += [identity.model_folder(judge[1])] if judge[0] == "model" else []
    facts = {"script": script.name, "sources": identity.sources([script]), "versions": identity.versions(),
             "flags": {key: value for key, value in vars(args).items() if key not in ("model", "out")},
             "models": [at and identity.model_files(at) for at in folders],
             "endpoint": os.environ.get("OPENAI_BASE_URL") if judge[0] == "api" else None,
             "suite": suite.digest, "levels": [levels(args, model) for model in models],
             "files": [identity.sha256(path) for path in files],
             "before": {str(path): artifacts.load(path).digest for path in _before(args, models, script.stem, after)
                        if (path / "manifest.json").is_file()}}
    _making = folder, artifacts.digest_of(facts), held
    if None not in folders and is_made(folder, _making[1]):
        print(f"{folder}  up to date  digest {artifacts.load(folder).digest[:12]}")
        if held:
            shutil.rmtree(f"{folder}.units", ignore_errors=True)      # of a run that was killed when all was done
            artifacts.release(held)
        sys.exit()


def target(args, stem):
    """Folder that a script writes: of the comparison of several models where --across asks for it."""
    if getattr(args, "across", False):
        return paths(args, "+".join(map(model_name, args.model))) / f"{stem[:2]}_across"
    return paths(args, args.model[0] if isinstance(args.model, list) else args.model) / stem


def _before(args, models, stem, after):
    if getattr(args, "across", False):
        return [paths(args, model) / stem for model in models]
    return [paths(args, models[0]) / stage for stage in after]


def is_made(folder, digest):
    """Whether the stage in `folder` was made here from what `digest` stands for, and is what was written."""
    try:
        mark, artifact = artifacts.read_json(folder / MARK), artifacts.load(folder)
        return mark == {"of": digest, "digest": artifact.digest} and all(map(artifact.file, artifact.manifest["outputs"]))
    except UserError:
        return False


def run(main):
    """Call main(), errors in one line (lib.artifacts.run). What was made is marked."""
    try:
        artifacts.run(main)
        if _making and _making[2] and not is_made(*_making[:2]):
            folder, digest, _ = _making
            artifacts.write_json(folder / MARK, {"of": digest, "digest": artifacts.load(folder).digest})
    finally:
        if _making and _making[2]:
            artifacts.release(_making[2])


# --- what a stage starts from -------------------------------------------------------------------------------
@dataclass
class Opened:
    """`config` and `inputs` of the manifest as far as all stages share them; `out` is the stage's folder."""
    script: Path
    out: Path
    suite: object
    lm: object
    judge: object
    before: list
    config: dict
    inputs: dict
    t0: float = field(default_factory=time.time)

    def vectors(self):
        """{key of a concept: (layer, d_model)} of stage 01."""
        extract = self.before[0]
        return dict(zip([concept["key"] for concept in extract.table("concepts")], extract.array("vectors")))

    def identity(self, config):
        """What decides the work units (lib.work) of this stage."""
        return {"stage": self.out.name, "config": config, "inputs": self.inputs}

    def save(self, config, told, **parts):
        """`artifacts.save` of this stage, and its last line. told: the key numbers in words."""
        saved = artifacts.save(self.out, stage=self.out.name, config=config, inputs=self.inputs, t0=self.t0,
                               sources=[self.script], data=self.suite.data, made=_making and _making[1], **parts)
        print(f"{self.out.name.replace('_', ' ')}  {self.lm.name}  {told}  {time.time() - self.t0:.0f} s  "
              f"digest {saved.digest[:12]}")


def open(args, file, after=(), judged=True):
    """Suite, model, judge and the stages before; a stage that starts from none loads the model in float32. UserError if
    the stages before were made from another model, judge or suite, or from another stage than the one beside them."""
    from lib import models                                   # here, not above: they bring torch
    from lib.judging import counted, judges
    suite, root, script = suites.load(args.suite, args.profile, levels(args)), paths(args), Path(file)
    before = [artifacts.load(root / stage, stage) for stage in after]
    lm = models.load(args.model, dtype(args) if after else DTYPES[0])
    why = lm.identity["chat_template"]["why"]
    if why not in (None, NO_TEMPLATE) and int(os.environ.get("RANK", 0)) == 0:
        print(f"{artifacts.shown(args.model)}: its chat template is not used, plain labels stand in its place: "
              f"{artifacts.shown(why)}", file=sys.stderr)
    judge = judges.load(args.judge, suite, lm) if judged else None
    config = {"model": lm.identity, "suite": suite.name, "profile": args.profile}
    config |= {"levels": suite.levels} if suite.levels else {}
    config |= {"judge": judge.name} if judged else {}
    inputs = {"suite": suite.digest, **{artifact.path.name: artifact.digest for artifact in before}}
    def alike(a, b):
        return a == b or isinstance(a, dict) and {**a, "dtype": None} == {**b, "dtype": None}
    for artifact in before:
        same = all(alike(artifact.config[key], value) for key, value in config.items())
        if not same or not artifact.manifest["inputs"].items() <= inputs.items():
            raise UserError(f"{artifact.path}: made from another model, judge, suite or stage before; delete it and "
                            f"run {artifact.path.name} again")
    if judged and before:
        counted.take(judge, before[0])
    return Opened(script, root / script.stem, suite, lm, judge, before, config, inputs)


if __name__ == "__main__":
    artifacts.run(lambda: check(cli(__doc__, many=True).parse_args()))
