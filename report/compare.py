"""Compare: two results of one stage, how far apart?

    same       every file has equal bytes and every result is equal
    rounding   no text and no choice differs, and no estimate by more than TOLERANCE or a HUNDREDTH of its interval:
               another machine adds in another order
    moved      a nearly tied token flipped and a text went another way from there, or a choice with it; every estimate
               lies in the committed 95 % interval
    differs    an estimate lies beyond it or is on one side only, or the settings are not the same

No bound on single texts can be given once a token has flipped. What the page concludes rests on estimates and
intervals, so there the committed interval is the tolerance. What two results were made from may differ (another suite
digest, say) while they are the same; that is said.
"""
from pathlib import Path

import numpy as np

from lib.artifacts import UserError, load, read_json

GRADES = ("same", "rounding", "moved", "differs")
TOLERANCE = 1e-4                 # |a - b| / (1 + |a|) that another order of additions explains in one number
HUNDREDTH = 0.01                 # of an interval: ranks and shares of nearly tied inputs move an estimate so far


def gaps(old, new, where=""):
    """Yields (where, size) for every leaf in which two JSON values or arrays differ: |a - b| / (1 + |a|) of numbers,
    inf of anything else. Of an array only the largest."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and old.shape == new.shape:
        a, b = old.astype(np.float64), new.astype(np.float64)
        size = np.abs(a - b) / (1 + np.abs(a))
        if size.size and not np.array_equal(a, b):
            size = np.where(np.isnan(size), np.inf, size)
            place = np.unravel_index(int(size.argmax()), size.shape)
            yield f"{where}[{', '.join(map(str, place))}]", float(size[place])
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            yield from gaps(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new)):
            yield from gaps(*pair, f"{where}[{i}]")
    elif all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (old, new)):
        if old != new:
            yield where, abs(old - new) / (1 + abs(old))
    elif type(old) is not type(new) or not np.array_equal(old, new):
        yield where, float("inf")


def content(artifact, name):
    """An output of an artifact as an array or a JSON value."""
    path = artifact.file(name)
    return np.load(path, allow_pickle=False) if path.suffix == ".npy" else read_json(path)


def estimates(results, at=""):
    """{dotted key: estimate} of all estimates in a stage's results, at any depth."""
    if {"value", "low", "high"} <= set(results):
        return {at: results}
    return {key: found for name, part in results.items() if isinstance(part, dict)
            for key, found in estimates(part, f"{at}.{name}".strip(".")).items()}


def compare(committed, again):
    """(grade, [what to say]) of one stage folder made twice."""
    first, second = load(committed), load(again)
    outputs = first.manifest["outputs"], second.manifest["outputs"]
    made = [f"{part}.{key}" for part in ("config", "inputs")
            for key in sorted({*first.manifest[part], *second.manifest[part]})
            if first.manifest[part].get(key) != second.manifest[part].get(key)]
    if outputs[0] == outputs[1] and first.results == second.results:
        return "same", [f"made from another {', '.join(made)}"] if made else [f"digest {first.digest[:12]}"]
    settings = [f"{key} differs" for key in made if key.startswith("config.") and key != "config.model"]
    files = [name for name in sorted({*outputs[0], *outputs[1]}) if outputs[0].get(name) != outputs[1].get(name)]
    both = [name for name in files if name in outputs[0] and name in outputs[1] and (first.path / name).is_file()]
    found = [(f"{name} {where}".strip(), size) for name in both
             for where, size in gaps(content(first, name), content(second, name))]
    found += [(name, float("inf")) for name in files if name not in both]      # on one side only, or left out here
    found += [(f"results.{where}", size) for where, size in gaps(first.results, second.results)]
    where, worst = max(found, key=lambda item: item[1])
    old, new = estimates(first.results), estimates(second.results)
    lost = [f"{key} on one side only" for key in sorted({*old} ^ {*new})]
    tiny, near, far = [], [], []
    for key in sorted({*old} & {*new}):
        (before, low, high), value = (old[key][name] for name in ("value", "low", "high")), new[key]["value"]
        if before != value:
            inside, size = low <= value <= high, abs(value - before)
            slight = size <= max(HUNDREDTH * (high - low), TOLERANCE * (1 + abs(before)))
            (tiny if slight else near if inside else far).append(
                f"{key} {before:g} -> {value:g}, {'inside' if inside else 'outside'} [{low:g}, {high:g}]")
    told = [f"files that differ: {', '.join(files) or 'none'}; largest difference {worst:.2g} at {where}",
            f"{len(old)} estimates, {len(tiny + near + far)} moved, {len(near + far)} by more than rounding, "
            f"{len(far + lost)} beyond tolerance", *settings, *lost, *far, *near]
    if settings or lost or far:
        return "differs", told
    return "moved" if near or np.isinf(worst) else "rounding", told


def pairs_of(committed, again):
    """[(committed folder, its counterpart or None)] of every stage of the models and suites below `again`; model
    sets, as in a+b, count where all their models do."""
    there = {path.parent.relative_to(again) for path in again.rglob("manifest.json")}
    runs = {path.parent for path in there}
    here = {path.parent.relative_to(committed) for path in committed.rglob("manifest.json")}

    def members(run):                                              # {a/suite, b/suite} of a+b/suite
        *rest, models, leaf = run.parts if len(run.parts) > 1 else ("", *run.parts)
        return {Path(*rest, model, leaf) for model in models.split("+")}

    due = {path for path in here if members(path.parent) <= runs}
    return [(committed / path, again / path if path in there else None) for path in sorted(there | due)]


def graded(pairs):
    """[(committed folder, grade, [what to say])] of pairs of stage folders; a missing or damaged one differs."""
    found = []
    for committed, again in pairs:
        try:
            grade, told = compare(committed, again) if again else ("differs", ["not made again"])
        except UserError as fault:
            grade, told = "differs", [str(fault)]
        found.append((committed, grade, told))
    return found


def summary(found):
    """One line on what `graded` gave: "11 of 11 stages equal the committed ones", or what differs."""
    counts = {grade: [path for path, g, _ in found if g == grade] for grade in GRADES}
    line = f"{len(counts['same'])} of {len(found)} stages equal the committed ones"
    for grade, words in (("rounding", "differ in the last bits"), ("moved", "moved within the committed intervals"),
                         ("differs", "differ in substance")):
        if counts[grade]:
            line += f"; {len(counts[grade])} {words}: {', '.join('/'.join(p.parts[-3:]) for p in counts[grade])}"
    return line
