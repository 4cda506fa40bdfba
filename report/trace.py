"""Trace: the way from a claim, a figure or a key to the number, the artifact, the command, the line of the code that
wrote it, and the hashes of what went in. Reads artifacts, the report's index.json and the sources."""
import ast
import json

from lib import artifacts, identity
from lib.artifacts import ROOT, UserError, read_json
from report import declared

# Shape of index.json, as report/build.py writes it.
INDEX = {"claims": {str: {str: {"verdict": str, "reason": (str, None), "key": str, "stage": (str, None)}}},
         "figures": {str: {"number": int, "title": str, "csv": str, "rows": str, "draw": str, "tables": [str], "reads": [str]}},
         "stages": {str: {"path": str, "digest": str}}}
MANY = 4                         # artifacts of a figure that are told in full; of more only where they are


def trace(name, report):
    """Lines that lead from a claim's id, a figure's name or model:stage:key to what made it."""
    index = read_json(report / "index.json", INDEX)
    if name in index["claims"]:
        return _claim(name, index)
    if name in index["figures"]:
        return _figure(name, index)
    parts = name.split(":")
    if len(parts) != 3:
        raise UserError(f"{name!r}: neither a claim ({', '.join(index['claims'])}), nor a figure "
                        f"({', '.join(index['figures'])}), nor model:stage:key")
    artifact = _artifact(index, f"{parts[0]}/{parts[1]}")
    found = at(artifact.results, parts[2])
    if found is None:
        raise UserError(f"{artifact.path / 'manifest.json'}: no result {parts[2]!r}")
    return [f"{parts[2]} of {parts[0]}: {told(found)}", *_made(artifact, parts[2]), *_code([artifact], parts[2])]


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


def line_of(path, key):
    """Number of the line of manifest.json where results.<key> begins: one more space of indent per level."""
    lines, number = path.read_text(encoding="utf-8").split("\n"), 0
    for depth, part in enumerate(["results", *key.split(".")], 1):
        start = f'{" " * depth}{json.dumps(part, ensure_ascii=False)}: '
        number = next(n for n in range(number, len(lines)) if lines[n].startswith(start)) + 1
    return number


def _artifact(index, label):
    if label not in index["stages"]:
        raise UserError(f"{label}: the report read no such stage; there are {', '.join(index['stages'])}")
    artifact = artifacts.load(ROOT / index["stages"][label]["path"])
    if artifact.digest != index["stages"][label]["digest"]:
        raise UserError(f"{artifact.path}: not the artifact that the report was built from; build it again")
    return artifact


def _claim(name, index):
    claim = next((c for c in declared.listed() if c["id"] == name), None)
    if claim is None:
        raise UserError(f"report/claims.json: no claim {name!r}, which the report shows; build it again")
    rule, seen = claim["rule"], {}
    lines = [f"{name}  {claim['title']} ({claim['paper']})",
             f"  rule       {claim['unit']} {rule['side']} {rule['threshold']}: {rule['why']}",
             f"  published  {claim['published']}; {claim['source']}"]
    for model, cell in index["claims"][name].items():
        lines.append(f"{model}: {cell['verdict']}" + (f", {cell['reason']}" if cell["reason"] else ""))
        if cell["stage"]:
            artifact = seen[cell["stage"]] = _artifact(index, cell["stage"])
            found = at(artifact.results, cell["key"])
            lines += [] if found is None else [f"  value      {told(found)}"]
            lines += _made(artifact, cell["key"] if found is not None else None)
    return [*lines, *_code(list(seen.values()), claim["key"])]


def _figure(name, index):
    figure, seen = index["figures"][name], []
    lines = [f"figure {figure['number']}, {name}: {figure['title']}",
             *(f"  {what:10s} {figure[key]}" for what, key in (("data", "csv"), ("rows", "rows"), ("drawn", "draw")))]
    for label in figure["reads"]:
        seen.append(_artifact(index, label))
        made = _made(seen[-1], None)
        lines += [label, *(made if len(figure["reads"]) <= MANY else made[:1])]
    for table in figure["tables"]:
        lines += _code([a for a in seen if any(file.split(".")[0] == table for file in a.manifest["outputs"])], table,
                       table_place)
    return lines


def _made(artifact, key):
    """Lines on one artifact: where the key stands, the command, what went in, hashes."""
    run, model, where = artifact.run, artifact.config.get("model"), artifact.path / "manifest.json"
    shown = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where
    files, data = [], run.get("data") or {}
    if isinstance(model, dict) and "weights" in model:
        files = [f"  model      {_short(model['weights'] | model['config'])}, tokenizer {model['tokenizer'][:12]}, chat "
                 f"template {model['chat_template']['sha256'][:12]}, revision {model['revision'] or 'none, a folder'}"]
    return [f"  artifact   {shown}" + (f" line {line_of(where, key)}: {key}" if key else "")
            + f", digest {artifact.digest[:12]}",
            f"  made by    python {' '.join(run['argv'])}",
            f"             {run['wall_s'] or 0:.0f} s, {run['time'][:10]}, seed {artifact.config.get('seed')}, commit "
            f"{(run['commit'] or 'none')[:10]}{' with changes' if run['dirty'] else ''}; "
            + ", ".join(f"{name} {number}" for name, number in run["versions"].items()),
            f"  inputs     {_short(artifact.manifest['inputs'])}"
            + (f" ({len(data['files'])} files, each in its run.json)" if data else ""), *files]


def _short(digests):
    return ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())


def _code(found, key, find=None):
    """Lines on the source: where the key is written, and every source with what changed in it since."""
    sources, moved = {}, []
    for artifact in found:
        sources |= artifact.run["sources"]
        moved += [text for text in changed(artifact.run) if text not in moved]
    if not sources:
        return []
    path, number, text = (find or place)(list(sources), key)
    where = [f"computed at  {path}:{number}", f"             {text}"] if path else \
        [f"computed at  no source names {key!r} literally"]
    return [*where, f"sources      {', '.join(sources)}",
            f"since then   {'; '.join(moved) or 'no source has changed its meaning'}"]


def changed(run):
    """Texts that name which sources of run.json mean something else now."""
    kept = run["sources"]
    return identity.moved(kept, {path: identity.meaning(ROOT / path) for path in kept if (ROOT / path).is_file()})


# --- places in the code -------------------------------------------------------------------------------------
def texts(node):
    """[(text, line)] of the string literals below a node."""
    return [(n.value.removesuffix(".jsonl"), n.lineno) for n in ast.walk(node)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)]


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
        found += [(key.value, key.lineno) for key, value in pairs if isinstance(key, ast.Constant)
                  and not isinstance(value, ast.Constant) and getattr(value, "id", "") != "reason"]
    return found


def _parsed(names):
    """(name, lines, syntax tree) of every source that is here."""
    for name in names:
        if (ROOT / name).is_file():
            text = (ROOT / name).read_text(encoding="utf-8")
            yield name, text.split("\n"), ast.parse(text)


def place(sources, key):
    """(path, line, text) where a source writes a result, or (None, 0, "") if none names it.

    The last part of the dotted key decides, better as the key of a dict than as another literal, which counts more
    in lib, where results are made, than in a script, which prints them; of several functions the one that names most
    of the other parts, and in it the line nearest to them."""
    *parents, last = key.removesuffix(".*").split(".")
    best, found = None, (None, 0, "")
    for name, lines, tree in _parsed(sources):
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            literals = texts(function)
            near = [line for part, line in literals if part in parents]
            for spots, as_key in ((written(function), True), (literals, False)):
                for line in [line for part, line in spots if part == last]:
                    score = (as_key, as_key or "/" in name, len({part for part, _ in literals} & set(parents)),
                             -min((abs(line - other) for other in near), default=0))
                    if best is None or score > best:
                        best, found = score, (name, line, lines[line - 1].strip())
    return found


def table_place(sources, table):
    """The same for a table: where the stage's script puts it among its `tables`."""
    for name, lines, tree in _parsed([name for name in sources if "/" not in name]):
        for node in ast.walk(tree):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            targets = [t for target in targets for t in getattr(target, "elts", [target])]
            mine = [t for t in targets if getattr(getattr(t, "value", t), "id", "") == "tables"]
            if mine or isinstance(node, ast.keyword) and node.arg == "tables":
                keys = [key for part in ast.walk(node) if isinstance(part, ast.Dict) for key in part.keys if key is not None]
                for key in [*keys, *(t.slice for t in mine if isinstance(t, ast.Subscript))]:
                    if (table, key.lineno) in texts(key):
                        return name, key.lineno, lines[key.lineno - 1].strip()
    return place(sources, table)
