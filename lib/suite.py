"""Suites: the data a run is made on, read from a folder, checked, and split into extract, tune and evaluate.

data/README.md documents every field. A part whose file is absent is empty, since a suite may have behaviours
and nothing else; what is there must be complete. Vectors see `extract`, selection sees `tune`, reports see
`evaluate`.

    python -m lib.suite data/suites/testbed     check a folder and count what is in it
"""
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from lib.artifacts import ROOT, UserError, digest_of, read_json, run, sha256

SPLITS = ("extract", "tune", "evaluate")
SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")
# What the smoke profile keeps: the first of each, in file order.
SMOKE = {"traits_per_task": 3, "items": 4, "behaviours_per_format": 2, "contents": 10, "words": 15,
         "templates": 3, "pairs": 8, "probes": 12}
OBJECTS = ("suite", "relation", "values")          # kinds of which a file holds one, not a list
OPTIONAL = (str, None)
FIELDS = {"suite": {"name": str, "judge": str, "system": str, "strength": ("relative", "raw"), "licence": str,
                    "source": str},
          "trait": {"name": str, "group": OPTIONAL, "task": ("email", "summary", None), "preference": str,
                    "scope": ("global", "local"), "instructions": list},
          "sides": {"positive": str, "negative": str},
          "item": {"id": str, "task": ("question", "summary", "email"), "prompt": str},
          "behaviour": {"name": str, "format": ("yes_no", "options"), "file": str, "positive": str,
                        "negative": str},
          "choice": {"id": str, "question": str, "positive": ("A", "B"), "yes": ("A", "B", None),
                     "statement": str, "contrary": (True, False), "swap_of": OPTIONAL},
          "relation": {"name": str, "pairs": list}, "template": {"name": str, "pair": str, "query": str},
          "values": {"values": list, "facts": list, "neutral": list},
          "value": {"name": str, "pairs": list, "probes": list},
          "fact": {"id": str, "prompt": str, "answer": str},
          "probe": {"id": str, "prompt": str, "positive": str, "negative": str, "level": (0, 1, 2)}}


@dataclass(frozen=True)
class Suite:
    """Lists and dicts as in the files; a behaviour carries its `items`. `digest`: names and bytes of all
    files read, the same for both profiles; `data` {"licence", "source", "files": {name: sha256}} is what it covers."""
    name: str
    judge: str
    system: str
    strength: str
    profile: str
    folder: Path
    digest: str
    traits: list
    tasks: dict
    behaviours: list
    relations: list
    templates: list
    values: list
    facts: list
    neutral: list
    data: dict


def load(name, profile="full"):
    """The suite in data/suites/<name>, or in the folder `name`. UserError names file and line or key."""
    folder = Path(name) if (Path(name) / "suite.json").is_file() else ROOT / "data" / "suites" / name
    if not (folder / "suite.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in ROOT.glob("data/suites/*/suite.json")))
        raise UserError(f"{name}: no folder with a suite.json, and none of data/suites ({known})")
    hashes = {}

    def read(file, kind, absent=None):
        if absent is not None and not (folder / file).is_file():
            return absent
        hashes[file] = sha256(folder / file) if (folder / file).is_file() else None
        value = read_json(folder / file)
        return value if kind is None else _check(folder / file, kind, value)

    head, traits = read("suite.json", "suite"), read("traits.json", "trait", [])
    behaviours = read("behaviours.json", "behaviour", [])
    for trait in traits:
        _check(f"{folder / 'traits.json'}, {trait['name']}.instructions", "sides", trait["instructions"])
    tasks = read("tasks.json", None, None if traits else {})
    _check_tasks(folder / "tasks.json", tasks)
    for behaviour in behaviours:
        if ".." in Path(behaviour["file"]).parts or Path(behaviour["file"]).is_absolute():
            raise UserError(f"{folder / 'behaviours.json'}: {behaviour['file']} lies outside the suite")
        behaviour["items"] = read(behaviour["file"], "choice")
        _check_choices(folder / behaviour["file"], behaviour["items"])
    files = sorted(f"relations/{path.name}" for path in folder.glob("relations/*.json"))
    relations = [read(file, "relation") for file in files]
    for file, relation in zip(files, relations):
        for i, pair in enumerate(relation["pairs"]):
            if not isinstance(pair, list) or [type(word) for word in pair] != [str, str]:
                raise UserError(f"{folder / file}, pairs[{i}]: expected [x, y], two words")
    templates = read("templates.json", "template", None if relations else [])
    for template in templates:
        if "{x}" not in template["query"] or not ("{x}" in template["pair"] and "{y}" in template["pair"]):
            raise UserError(f"{folder / 'templates.json'}, {template['name']}: "
                            "pair needs {x} and {y}, query needs {x}")
    values = read("values.json", "values", {"values": [], "facts": [], "neutral": []})
    for kind, part in (("value", "values"), ("fact", "facts")):
        if values[part]:
            _check(f"{folder / 'values.json'}, {part}", kind, values[part])
    for value in values["values"]:
        _check(f"{folder / 'values.json'}, {value['name']}.pairs", "sides", value["pairs"])
        _check(f"{folder / 'values.json'}, {value['name']}.probes", "probe", value["probes"])
    if not (traits or behaviours or relations or values["values"]):
        raise UserError(f"{folder}: no traits, behaviours, relations or values")
    suite = Suite(head["name"], head["judge"], head["system"], head["strength"], profile, folder,
                  digest_of(hashes), traits, tasks, behaviours, relations, templates, values["values"],
                  values["facts"], values["neutral"],
                  {"licence": head["licence"], "source": head["source"], "files": hashes})
    suite = _shrink(suite) if profile == "smoke" else suite
    for part in SPLITS:                                    # raises for the first part with an empty split
        for behaviour in suite.behaviours:
            split(behaviour["items"], part)
        for relation in suite.relations:
            relation_split(relation, part)
    return suite


def _check(where, kind, value):
    """`value`, one record or a list of them, if it has the fields of `kind`; keys that are not listed are
    free."""
    if not value or isinstance(value, list) == (kind in OBJECTS):
        raise UserError(f"{where}: expected {'an object' if kind in OBJECTS else 'a list'} that is not empty")
    seen = set()
    for i, record in enumerate(value if isinstance(value, list) else [value]):
        at = f"{where}, line {i + 1}" if str(where).endswith(".jsonl") else f"{where}, [{i}]"
        at = at if isinstance(value, list) else str(where)
        if not isinstance(record, dict):
            raise UserError(f"{at}: expected an object")
        for field, allowed in FIELDS[kind].items():
            if field not in record:
                raise UserError(f"{at}: no key {field!r}")
            found = record[field]
            if allowed is OPTIONAL:
                good, wanted = found is None or isinstance(found, str), "text or null"
            elif isinstance(allowed, tuple):
                good, wanted = found in allowed, f"one of {allowed}"
            else:
                good, wanted = isinstance(found, allowed), {str: "text", list: "a list"}[allowed]
            if not good:
                raise UserError(f"{at}: {field!r} is {found!r}, expected {wanted}")
        name = record.get("id", record.get("name"))
        if name in seen:
            raise UserError(f"{at}: {name!r} occurs twice")
        seen |= {name} - {None}
    return value


def _check_tasks(path, tasks):
    """Every task has its splits, ids are unique, and no prompt stands in two splits."""
    seen = {}
    for task, splits in tasks.items():
        for name in SPLITS if task == "question" else SPLITS[1:]:
            if name not in splits:
                raise UserError(f"{path}: no {task}.{name}")
            for item in _check(f"{path}, {task}.{name}", "item", splits[name]):
                place = f"{task}.{name}"
                for mark in (item["id"], item["prompt"]):
                    if item["task"] != task or seen.setdefault(mark, place) != place:
                        raise UserError(f"{path}, {place}: {item['id']} is of another task or in two splits")


def _check_choices(path, items):
    """Questions show both options; a swapped item stands right after the one it swaps, with the other
    letter."""
    for i, item in enumerate(items):
        if "(A)" not in item["question"] or "(B)" not in item["question"]:
            raise UserError(f"{path}, line {i + 1}: the question does not show the options (A) and (B)")
        twin = items[i - 1] if i else {"id": None}
        if item["swap_of"] is not None and (twin["id"], twin.get("positive")) != \
                (item["swap_of"], {"A": "B", "B": "A"}[item["positive"]]):
            raise UserError(f"{path}, line {i + 1}: not the swap of the line before, as swap_of says")


def _shrink(suite):
    """The smoke profile: the first few of everything."""
    def first(records, key, n):
        return [r for i, r in enumerate(records) if sum(r[key] == before[key] for before in records[:i]) < n]
    return replace(
        suite, traits=first(suite.traits, "task", SMOKE["traits_per_task"]),
        tasks={task: {name: items[:SMOKE["items"]] for name, items in splits.items()}
               for task, splits in suite.tasks.items()},
        behaviours=[b | {"items": sum(_contents(b["items"])[:SMOKE["contents"]], [])}
                    for b in first(suite.behaviours, "format", SMOKE["behaviours_per_format"])],
        relations=[relation | {"pairs": relation["pairs"][:SMOKE["words"]]} for relation in suite.relations],
        templates=suite.templates[:SMOKE["templates"]], facts=suite.facts[:SMOKE["probes"]],
        values=[v | {"pairs": v["pairs"][:SMOKE["pairs"]], "probes": v["probes"][:SMOKE["probes"]]}
                for v in suite.values])


def _contents(items):
    """Items grouped by content: [[item, its swap], ...], or [[item], ...] where nothing is swapped."""
    groups = []
    for item in items:
        groups[-1].append(item) if item["swap_of"] is not None else groups.append([item])
    return groups


def split(items, name):
    """A behaviour's items in one split: the first 40 % of the contents, the next 10 %, the last 50 %."""
    groups = _contents(items)
    cuts = [round(len(groups) * share) for share in (0, 0.4, 0.5, 1)]
    part = SPLITS.index(name)
    found = sum(groups[cuts[part]:cuts[part + 1]], [])
    return _filled(found, f"{items[0]['id']} ... {items[-1]['id']}", name)


def published_split(items):
    """(train, test) as in the released run of Tan et al. 2024: the first half of the contents, and all from 5 % on
    ("50:100%" was read as item 50 of 1,000), so that 47 % of the test items were trained on."""
    groups = _contents(items)
    half, start = round(len(groups) * 0.5), round(len(groups) * 0.05)
    return sum(groups[:half], []), sum(groups[start:], [])


def components(relation):
    """One label per pair, from 0 in file order; pairs that a chain of shared words connects have the same."""
    parent = {}

    def root(word):
        while parent.setdefault(word, word) != word:
            word = parent[word]
        return word

    for x, y in relation["pairs"]:
        parent[root(y)] = root(x)
    labels = {}
    return [labels.setdefault(root(x), len(labels)) for x, _ in relation["pairs"]]


def relation_split(relation, name, labels=False):
    """Pairs of a relation in one split, in file order; labels=True: their component labels, the unit to
    resample.

    Components go, largest first, to the split that lacks most of its share of 40/20/40 of the pairs."""
    found = components(relation)
    sizes = [found.count(label) for label in range(max(found) + 1)]
    lacking, home = [share * len(found) for share in (0.4, 0.2, 0.4)], {}
    for label in sorted(range(len(sizes)), key=lambda label: -sizes[label]):
        home[label] = lacking.index(max(lacking))
        lacking[home[label]] -= sizes[label]
    chosen = [i for i, label in enumerate(found) if home[label] == SPLITS.index(name)]
    _filled(chosen, f"relation {relation['name']}", name)
    return [found[i] if labels else relation["pairs"][i] for i in chosen]


def probe_split(records, name):
    """Probes of a value, or facts: the first third is for tuning, the rest for evaluation; extraction uses
    neither."""
    cut = round(len(records) / 3)
    return _filled({"tune": records[:cut], "evaluate": records[cut:]}[name], "probes or facts", name)


def tasks(suite, task, name):
    """Items of one task and split."""
    return _filled(suite.tasks.get(task, {}).get(name), f"{suite.folder / 'tasks.json'}, {task}", name)


def relation(suite, name):
    """The relation called `name`. UserError if the suite has none."""
    found = [relation for relation in suite.relations if relation["name"] == name]
    return _filled(found, f"{suite.folder / 'relations'}", name)[0]


def _filled(found, what, name):
    if not found:
        raise UserError(f"{what}: nothing for {name}")
    return found


def behaviour_prompts(suite, behaviour, item, setting):
    """(system message, user message) of an item in one of SETTINGS. A SYS setting replaces the suite's system
    message by the persona sentence, a USER setting puts it in front of the user message."""
    question, pro, con = item["question"], behaviour["positive"], behaviour["negative"]
    return {"BASE": (suite.system, question), "SYS_POS": (pro, question), "SYS_NEG": (con, question),
            "USER_POS": (suite.system, f"{pro}\n\n{question}"),
            "USER_NEG": (suite.system, f"{con}\n\n{question}")}[setting]


def main():
    suite = load(*sys.argv[1:2] or ["testbed"])
    print(f"{suite.folder}: {suite.name}, digest {suite.digest[:12]}")
    parts = ("traits", "tasks", "behaviours", "relations", "templates", "values", "facts", "neutral")
    print("  ".join(f"{part} {len(getattr(suite, part))}" for part in parts))


if __name__ == "__main__":
    run(main)
