"""Audit: are artifacts what they were, do they come again, and where does a number come from?

    verify    every file of a stage folder, the stages before it, and, where they are here, the data, the weights
              and the source files it was made from, each against the hash that was kept
    compare   two runs of one stage: equal bytes, or every estimate inside the committed interval (see `compare`)
    trace     a claim, a figure or a key: number, artifact, command, line of the script, inputs and their hashes

Reads artifacts and makes none, so it is no source of any (lib.artifacts.closure).
"""

import argparse
import ast
import textwrap
from pathlib import Path

from lib import suite as suites
from lib.artifacts import ROOT, UserError, digest_of, load, read_json, sha256

OWN = ("manifest.json", "run.json")
WIDTH = 118  # of a terminal; `trace` wraps its lists to it
MANY = 4  # artifacts of a figure that are told in full; of more only where they are


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
    """Folder of an input stage: beside this one, or of another model where the label reads model/stage."""
    model, _, stage = label.rpartition("/")
    return (
        artifact.path.parent.parent.with_name(model) / artifact.path.parent.name / stage
        if model
        else artifact.path.parent / label
    )


def inspect(path):
    """(faults, counts) of one stage folder: texts that name what is wrong, {what: number checked}.

    A count of 0 for weights or data means that the folder named on the command line is not here. UserError if
    the manifest itself was edited or is missing."""
    artifact, faults = load(path), []
    again = f"delete {artifact.path} and run {artifact.manifest['stage']} again"
    names = {file.name for file in artifact.path.iterdir() if not file.name.startswith(".")}
    names = sorted((names | set(artifact.manifest["outputs"])) - set(OWN))
    for name in names:
        try:
            artifact.file(name)
        except UserError as fault:
            faults.append(str(fault))
    counts = {"files": len(names), "inputs": 0}
    for label, digest in artifact.manifest["inputs"].items():
        if label != "suite" and (before(artifact, label) / "manifest.json").is_file():
            counts["inputs"] += 1
            if read_json(before(artifact, label) / "manifest.json").get("digest") != digest:
                faults.append(f"{artifact.path}: made from another {label} than the one beside it; {again}")
    try:
        run = artifact.run
        for what, check in (("data", _data), ("weights", _weights), ("sources", _sources)):
            counts[what], wrong = check(artifact, run)
            faults += [f"{artifact.path}: {text}; {again}" for text in wrong]
    except UserError as fault:
        faults.append(str(fault))
    return faults, counts


def _data(artifact, run):
    """The suite of the command line, if it is here, has the digest that went in; else the files that differ."""
    suite = given(run, "--suite", "testbed")[0]
    folder = next((f for f in (ROOT / suite, ROOT / "data" / "suites" / suite) if (f / "suite.json").is_file()), None)
    if folder is None or "suite" not in artifact.manifest["inputs"]:
        return 0, []
    shown, digest = (
        folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder,
        artifact.manifest["inputs"]["suite"],
    )
    try:
        now = suites.load(folder).data["files"]
    except UserError as fault:
        return 1, [f"made from other data: {fault}"]
    if digest_of(now) == digest:
        return len(now), []
    kept = _kept_data(artifact)
    if kept is None or digest_of(kept) != digest:
        return len(now), [f"made from other data than {shown}"]
    return len(now), [
        f"made from other data: {shown / name} changed"
        for name in sorted({*now, *kept})
        if now.get(name) != kept.get(name)
    ]


def _kept_data(artifact):
    """{file: sha256} of the suite as stage 01 kept it, beside `artifact` or under its first model; None without."""
    label = next((label for label in artifact.manifest["inputs"] if "/" in label), "")
    folder = before(artifact, label).parent if label else artifact.path.parent
    path = folder / "01_extract" / "run.json"
    return (read_json(path).get("data") or {}).get("files") if path.is_file() else None


def _weights(artifact, run):
    """Weights and tokenizer in the folder of the command line, if it is here, are those of the manifest."""
    model, source = artifact.config.get("model"), given(run, "--model")[0]
    folder = ROOT / source if source else None
    if (
        not isinstance(model, dict)
        or "weights" not in model
        or folder is None
        or not (folder / "config.json").is_file()
    ):
        return 0, []
    files = identity.model_files(folder)
    tokenizer = {name: digest for name, digest in files.items() if name in identity.TOKENIZER_FILES}
    kept = {**model["weights"], **model["config"]}
    now = {name: digest for name, digest in files.items() if name not in tokenizer}
    wrong = [f"made with another {folder / name}" for name in sorted({*kept, *now}) if kept.get(name) != now.get(name)]
    if digest_of(tokenizer) != model["tokenizer"]:
        wrong.append(f"made with another tokenizer than {folder}'s")
    return len(files), wrong


def changed(run):
    """Texts that name which sources of run.json mean something else now."""
    kept = run["sources"]
    return identity.moved(kept, {path: identity.meaning(ROOT / path) for path in kept if (ROOT / path).is_file()})


def verify(path):
    """The stage folder at `path`, loaded, if `inspect` finds no fault; else UserError with the first."""
    faults, _ = inspect(path)
    if faults:
        raise UserError(faults[0])
    return load(path)


# --- compare ------------------------------------------------------------------------------------------------
def estimates(results, at=""):
    """{dotted key: estimate} of all estimates in a stage's results, at any depth."""
    if {"value", "low", "high"} <= set(results):
        return {at: results}
    return {
        key: found
        for name, part in results.items()
        if isinstance(part, dict)
        for key, found in estimates(part, f"{at}.{name}".strip(".")).items()
    }


def compare(committed, again):
    """(agrees, [what to say]) of one stage folder made twice.

    Equal digests are equal bytes, and the same machine and versions must give them. Another machine adds in
    another order: logits differ in the last bits, an argmax that was nearly tied flips, and a text goes another
    way from there. No bound on single texts or inputs can be given for that. What the page concludes rests on
    estimates and intervals, so the tolerance is the committed 95 % interval: every estimate has to lie in it, none
    may be missing on either side, and the settings have to be the same. Everything that moved is listed."""
    first, second = load(committed), load(again)
    if first.digest == second.digest:
        return True, [f"the same, digest {first.digest[:12]}"]
    far = [
        f"config.{key} differs"
        for key in sorted({*first.config, *second.config})
        if first.config.get(key) != second.config.get(key)
    ]
    old, new, near = estimates(first.results), estimates(second.results), []
    for key in sorted({*old, *new}):
        if key not in old or key not in new:
            far.append(f"{key} on one side only")
        elif old[key]["value"] != new[key]["value"]:
            inside = old[key]["low"] <= new[key]["value"] <= old[key]["high"]
            (near if inside else far).append(
                f"{key} {old[key]['value']:g} -> {new[key]['value']:g}, "
                f"{'inside' if inside else 'outside'} [{old[key]['low']:g}, {old[key]['high']:g}]"
            )
    files = [
        name
        for name in sorted({*first.manifest["outputs"], *second.manifest["outputs"]})
        if first.manifest["outputs"].get(name) != second.manifest["outputs"].get(name)
    ]
    told = [
        f"{len(old)} estimates, {len(near) + len(far)} moved, {len(far)} beyond tolerance; "
        f"files that differ: {', '.join(files) or 'none'}"
    ]
    return not far, told + far + near


def pairs_of(committed, again):
    """[(committed folder, its counterpart or None)] of every stage of the models and suites below `again`; model
    sets, as in a+b, count where all their models do."""
    there = {path.parent.relative_to(again) for path in again.rglob("manifest.json")}
    runs = {path.parent for path in there}
    here = {path.parent.relative_to(committed) for path in committed.rglob("manifest.json")}

    def members(run):  # {a/suite, b/suite} of a+b/suite
        *rest, models, leaf = run.parts if len(run.parts) > 1 else ("", *run.parts)
        return {Path(*rest, model, leaf) for model in models.split("+")}

    due = {path for path in here if members(path.parent) <= runs}
    return [(committed / path, again / path if path in there else None) for path in sorted(there | due)]


# --- trace --------------------------------------------------------------------------------------------------
def trace(name, report):
    """Lines that lead from a claim's id, a figure's name or model:stage:key to what made it."""
    index = read_json(report / "index.json")
    if name in index["claims"]:
        return _trace_claim(name, index)
    if name in index["figures"]:
        return _trace_figure(name, index)
    parts = name.split(":")
    if len(parts) == 3:
        artifact = _artifact(index, f"{parts[0]}/{parts[1]}")
        found = at(artifact.results, parts[2])
        if found is None:
            raise UserError(f"{artifact.path / 'manifest.json'}: no result {parts[2]!r}")
        return [f"{parts[2]} of {parts[0]}: {told(found)}", *_made(artifact, parts[2]), *_code([artifact], parts[2])]
    raise UserError(
        f"{name!r}: neither a claim ({', '.join(index['claims'])}), nor a figure "
        f"({', '.join(index['figures'])}), nor model:stage:key"
    )


def at(results, key):
    """What stands at a dotted key, or None."""
    for part in key.split("."):
        results = results.get(part) if isinstance(results, dict) else None
    return results


def told(value):
    """An estimate in words; other values as they are."""
    if isinstance(value, dict) and "value" in value:
        number = f"{value['value']:g} [{value['low']:g}, {value['high']:g}]"
        return f"{number}, n = {value['n']} {value['unit']}, {value['method']}"
    return str(value)


def _artifact(index, label):
    if label not in index["stages"]:
        raise UserError(f"{label}: the report read no such stage; there are {', '.join(index['stages'])}")
    artifact = load(ROOT / index["stages"][label]["path"])
    if artifact.digest != index["stages"][label]["digest"]:
        raise UserError(f"{artifact.path}: not the artifact that the report was built from; build it again")
    return artifact


def line_of(path, key):
    """Number of the line of manifest.json where results.<key> begins: one more space of indent per level."""
    lines, number = path.read_text(encoding="utf-8").split("\n"), 0
    for depth, part in enumerate(["results", *key.split(".")], 1):
        start = f'{" " * depth}"{part}": '
        number = next(n for n in range(number, len(lines)) if lines[n].startswith(start)) + 1
    return number


def _trace_claim(name, index):
    claim = next(c for c in read_json(ROOT / "report" / "claims.json") if c["id"] == name)
    rule = claim["rule"]
    lines = [
        f"{name}  {claim['title']} ({claim['paper']})",
        f"  rule       {claim['unit']} {rule['side']} {rule['threshold']}: {rule['why']}",
        f"  published  {claim['published']}; {claim['source']}",
    ]
    seen = {}
    for model, cell in index["claims"][name].items():
        lines.append(f"{model}: {cell['verdict']}" + (f", {cell['reason']}" if cell["reason"] else ""))
        if cell["stage"]:
            artifact = seen[cell["stage"]] = _artifact(index, cell["stage"])
            found = at(artifact.results, cell["key"])
            lines += [] if found is None else [f"  value      {told(found)}"]
            lines += _made(artifact, cell["key"] if found is not None else None)
    return [*lines, *_code(list(seen.values()), claim["key"])]


def _trace_figure(name, index):
    figure, seen = index["figures"][name], []
    lines = [
        f"figure {figure['number']}, {name}: {figure['title']}",
        f"  data       {figure['csv']}",
        f"  rows       {figure['rows']}",
        f"  drawn      {figure['draw']}",
    ]
    for label in figure["reads"]:
        seen.append(_artifact(index, label))
        made = _made(seen[-1], None)
        lines += [label, *(made if len(figure["reads"]) <= MANY else made[:1])]
    for table in figure["tables"]:
        lines += _code(
            [a for a in seen if any(file.split(".")[0] == table for file in a.manifest["outputs"])], table, table_place
        )
    return lines


def _made(artifact, key):
    """Lines on one artifact: where the key stands, the command, what went in, hashes."""
    run, model, short = artifact.run, artifact.config.get("model"), lambda digest: digest[:12]
    where = artifact.path / "manifest.json"
    where = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    lines = [
        f"  artifact   {where}"
        + (f" line {line_of(artifact.path / 'manifest.json', key)}: {key}" if key else "")
        + f", digest {short(artifact.digest)}",
        f"  made by    python {' '.join(run['argv'])}",
        f"             {run['wall_s']:.0f} s, {run['time'][:10]}, seed {artifact.config.get('seed')}, commit "
        f"{(run['commit'] or 'none')[:10]}{' with changes' if run['dirty'] else ''}; {versions}",
        "  inputs     "
        + ", ".join(f"{label} {short(digest)}" for label, digest in artifact.manifest["inputs"].items())
        + (f" ({len(files)} files, each in the run.json of 01_extract)" if (files := _kept_data(artifact)) else ""),
    ]
    if isinstance(model, dict) and "weights" in model:
        lines.append(
            "  model      "
            + ", ".join(
                [
                    *(f"{file} {short(digest)}" for file, digest in model["weights"].items()),
                    f"tokenizer {short(model['tokenizer'])}",
                    f"chat template {short(model['chat_template']['sha256'])}",
                    f"revision {model['revision'] or 'none, a folder'}",
                ]
            )
        )
    return lines


def texts(node):
    """[(text, line)] of the string literals below a node."""
    return [
        (n.value.removesuffix(".jsonl"), n.lineno)
        for n in ast.walk(node)
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def written(function):
    """[(key, line)] of what a function writes into dicts, but for reasons: {key: value} and name[key] = value."""
    found = []
    for node in ast.walk(function):
        pairs = []
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values)
        elif isinstance(node, ast.Assign):
            targets = [t for target in node.targets for t in getattr(target, "elts", [target])]
            pairs = [(target.slice, node.value) for target in targets if isinstance(target, ast.Subscript)]
        for key, value in pairs:
            if (
                isinstance(key, ast.Constant)
                and not isinstance(value, ast.Constant)
                and getattr(value, "id", "") != "reason"
            ):
                found.append((key.value, key.lineno))
    return found


def place(sources, key):
    """(path, line, text) where a source writes a result, or (None, 0, "") if none names it.

    The last part of the dotted key decides, better as the key of a dict than as another literal, which counts more
    in lib, where results are made, than in a script, which prints them; of several functions the one that names most
    of the other parts, and in it the line nearest to them."""
    *parents, last = key.removesuffix(".*").split(".")
    best, found = None, (None, 0, "")
    for name in sources:
        if not name.endswith(".py") or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef):
                continue
            keys, literals = written(function), texts(function)
            near = [line for part, line in literals if part in parents]
            for spots, as_key in ((keys, True), (literals, False)):
                for line in [line for part, line in spots if part == last]:
                    score = (
                        as_key,
                        as_key or "/" in name,
                        len({part for part, _ in literals} & set(parents)),
                        -min((abs(line - other) for other in near), default=0),
                    )
                    if best is None or score > best:
                        best, found = score, (name, line, text.split("\n")[line - 1].strip())
    return found


def table_place(sources, table):
    """The same for a table: where the stage's script puts it among its `tables`."""
    for name in [name for name in sources if "/" not in name and (ROOT / name).is_file()]:
        text = (ROOT / name).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            targets = [t for target in targets for t in getattr(target, "elts", [target])]
            mine = [t for t in targets if getattr(getattr(t, "value", t), "id", "") == "tables"]
            if mine or isinstance(node, ast.keyword) and node.arg == "tables":
                keys = [
                    key
                    for part in ast.walk(node)
                    if isinstance(part, ast.Dict)
                    for key in part.keys
                    if key is not None
                ]
                for key in [*keys, *(t.slice for t in mine if isinstance(t, ast.Subscript))]:
                    if (table, key.lineno) in texts(key):
                        return name, key.lineno, text.split("\n")[key.lineno - 1].strip()
    return place(sources, table)


def _code(artifacts, key, find=place):
    """Lines on the source: where the key is written, and every source with its hash, changed ones marked."""
    lines, seen, moved = [], {}, set()
    for artifact in artifacts:
        seen |= artifact.run["sources"]
        moved |= set(changed(artifact.run))
    if seen:
        path, number, text = find(list(seen), key)
        lines.append(f"computed at  {path}:{number}" if path else f"computed at  no source names {key!r} literally")
        lines += [f"             {text}"] if path else []
        listed = ", ".join(
            f"{path} {digest[:8]}{' (CHANGED since)' if path in moved else ''}" for path, digest in seen.items()
        )
        lines.append("sources      " + listed)
    return lines


# --- commands -----------------------------------------------------------------------------------------------
def main():
    parser = argparse.ArgumentParser(description="Verify stage folders, compare two runs of them, or trace a number.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("verify", help="re-hash stage folders and what they were made from").add_argument(
        "folders", nargs="+"
    )
    both = commands.add_parser("compare", help="hold one run's stage folders to another's")
    both.add_argument("committed", type=Path)
    both.add_argument("again", type=Path)
    way = commands.add_parser("trace", help="the way from a number to artifact, line and inputs")
    way.add_argument("name", help="id of a claim, name of a figure, or model:stage:key")
    way.add_argument("--report", type=Path, default=ROOT / "report", help="folder of the report that shows it")
    args = parser.parse_args()
    if args.command == "trace":
        for line in trace(args.name, args.report):
            print(
                textwrap.fill(line, WIDTH, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False)
            )
        return
    bad, found = 0, []
    if args.command == "compare":
        found = pairs_of(args.committed, args.again)
        for committed, again in found:
            try:
                good, told_ = compare(committed, again) if again else (False, ["not made again"])
            except UserError as fault:
                good, told_ = False, [str(fault)]
            bad += not good
            print(f"{'ok  ' if good else 'BAD '} {committed}  " + "\n       ".join(told_))
    else:
        found = sorted({m.parent for folder in args.folders for m in Path(folder).rglob("manifest.json")})
        for path in found:
            try:
                faults, counts = inspect(path)
            except UserError as fault:
                faults = [str(fault)]
            bad += bool(faults)
            print(
                "\n".join(f"BAD  {fault}" for fault in faults)
                if faults
                else f"ok   {path}  {load(path).digest[:12]}  {', '.join(f'{what} {n}' for what, n in counts.items())}"
            )
    if not found:
        raise UserError(
            f"{' '.join(map(str, args.folders if args.command == 'verify' else [args.again]))}: no stage folder below"
        )
    if bad:
        raise UserError(f"{bad} of {len(found)} stage folders are not as they were written")
