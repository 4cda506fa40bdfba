"""Suites: the data a run is made on, read from a folder, checked, and split into extract, tune and evaluate.

data/README.md documents every field. A part whose file is absent is empty, since a suite may have behaviours and
nothing else; what is there must be complete. Vectors see `extract`, selection sees `tune`, reports see `evaluate`.

    python -m lib.suite data/suites/testbed     check a folder and count what is in it
"""
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lib import fields, samples, sizes
from lib.artifacts import ROOT, UserError, check, digest_of, read_json, run, sha256
from lib.fields import SPLITS, changed, shared_words                                           # noqa: F401
from lib.splits import (balanced, components, filled, probe_split, published_split, relation_split,      # noqa: F401
                        split, subjects, value_split)

SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")


@dataclass(frozen=True)
class Suite:
    """Lists and dicts as in the files; a behaviour carries its `items`. `digest`: names and bytes of all files read,
    the same for all profiles; `data` {"licence", "source", "files": {name: sha256}} is what it covers."""
    name: str
    judge: str
    system: str
    strength: str
    max_new_tokens: int
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
    grammar: dict                    # of exact scorers (lib.judging.scorers); {} where there are none
    studied: tuple = ("antonym", "synonym")          # the relation that stage 03 studies, one that distracts it
    levels: dict | None = None       # of the quick profile: {study: level}, see lib.sizes

    def size(self, constant, study):
        """A constant {"full", "smoke"} of a stage at this profile."""
        return sizes.at(constant, self.profile, self.levels and self.levels[study])


def find(name):
    """Folder of the suite called `name`: that folder, or the one in data/suites; None if there is neither."""
    if not name or "\0" in str(name):
        return None
    return next((at for at in (Path(name), ROOT / "data" / "suites" / name) if (at / "suite.json").is_file()), None)


def load(name, profile="full", levels=None):
    """The suite called `name` (see `find`); levels: of `quick`. UserError names file and line or key."""
    folder = find(name)
    if folder is None:
        known = ", ".join(sorted(path.parent.name for path in ROOT.glob("data/suites/*/suite.json")))
        raise UserError(f"{name}: no folder with a suite.json, and none of data/suites ({known})")
    hashes = {}

    def read(file, kind, absent=None):
        if absent is not None and not (folder / file).is_file():
            return absent
        hashes[file] = sha256(folder / file) if (folder / file).is_file() else None
        value = read_json(folder / file)
        return value if kind is None else fields.records(folder / file, kind, value)

    def can_split(file, cut, parts):
        for part in parts:                                 # the first that would be empty
            try:
                cut(part)
            except UserError as fault:
                raise UserError(f"{folder / file}: {fault}; a split needs ten of them or more") from None

    head, grammar = read("suite.json", "suite"), read("grammar.json", "grammar", {})
    traits, behaviours = read("traits.json", "trait", []), read("behaviours.json", "behaviour", [])
    tasks = read("tasks.json", None, None if traits else {})
    fields.check_tasks(folder / "tasks.json", tasks, [trait["name"] for trait in traits])
    if traits:
        fields.within(folder / "suite.json", judge_kind, head["judge"])
    if traits and grammar:
        fields.check_grammar(folder, grammar, traits, tasks)
    for behaviour in behaviours:
        behaviour["items"] = read(behaviour["file"], "choice")
        wrong = [item["id"] for item in behaviour["items"] if (item["yes"] is None) == (behaviour["format"] == "yes_no")]
        if wrong:
            raise UserError(f"{folder / behaviour['file']}: {wrong[0]}: 'yes' does not fit the format "
                            f"{behaviour['format']}, which has {'A or B' if behaviour['format'] == 'yes_no' else 'null'}")
    relations = [read(f"relations/{path.name}", "relation") for path in sorted(folder.glob("relations/*.json"))]
    fields.unique(folder / "relations", "name", relations)
    fields.unique(folder / "behaviours.json", "file", behaviours)
    templates = read("templates.json", "template", None if relations else [])
    values = read("values.json", "values", {"values": [], "facts": [], "neutral": []})
    for part, kind in (("values", "value"), ("facts", "fact")):
        if values[part]:
            fields.records(f"{folder / 'values.json'}, {part}", kind, values[part])
    check(f"{folder / 'values.json'}, neutral", values["neutral"], [str])
    for value in values["values"]:
        where = f"{folder / 'values.json'}, {value['name']}.probes"
        fields.records(where, fields.form(where, value["probes"]), value["probes"])
    if not (traits or behaviours or relations or values["values"]):
        raise UserError(f"{folder}: no traits, behaviours, relations or values")
    studied = head.get("studied", list(Suite.studied))
    if "studied" in head and not (isinstance(studied, list) and len(studied) == 2 and
                                  all(name in [r["name"] for r in relations] for name in studied)):
        raise UserError(f"{folder / 'suite.json'}: 'studied' is {studied!r}, expected the names of two relations")
    suite = Suite(head["name"], head["judge"], head["system"], head["strength"], head["max_new_tokens"], profile,
                  folder, digest_of(hashes), traits, tasks, behaviours, relations, templates, values["values"],
                  values["facts"], values["neutral"],
                  {"licence": head["licence"], "source": head["source"], "files": hashes}, grammar, tuple(studied))
    suite = samples.smoke(suite) if profile == "smoke" else samples.quick(suite, levels) if profile == "quick" else suite
    for behaviour in suite.behaviours:
        can_split(behaviour["file"], partial(split, behaviour["items"]), SPLITS)
    for relation in suite.relations:
        can_split("relations", partial(relation_split, relation), SPLITS)
    for value in suite.values:
        can_split("values.json", partial(value_split, value), SPLITS)
    if suite.facts:
        can_split("values.json, facts", partial(probe_split, suite.facts), SPLITS[1:])
    return suite


def judge_kind(name):
    """(kind, model) of a judge's name (lib.judging.judges). UserError for one that is none."""
    kind, _, which = name.partition(":")
    if kind not in ("rules", "self", "model", "api") or bool(which) != (kind in ("model", "api")):
        raise UserError(f"unknown judge {name!r}; there are: rules, self, model:<id or folder>, api:<model>")
    return kind, which


def tasks(suite, task, name, trait=None):
    """Items of one task and split; with `trait`, those that are for it: an item without `traits` is for all.
    UserError if there are none, or the suite has no such trait."""
    found, where = suite.tasks.get(task, {}).get(name), f"{suite.folder / 'tasks.json'}, {task}"
    if trait is not None:
        if trait not in (record["name"] for record in suite.traits):
            raise UserError(f"{suite.folder / 'traits.json'}: no trait {trait!r}")
        found = [item for item in found or () if trait in item.get("traits", [trait])]
        where = f"{where}, trait {trait}"
    return filled(found, where, name)


def fill(text, x, y=""):
    """A template with x and y in their places. Nothing else in it means anything, and what is put in is not read again."""
    return re.sub(r"\{([xy])\}", lambda place: {"x": x, "y": y}[place[1]], text)


def relation(suite, name):
    """The relation called `name`. UserError if the suite has none."""
    found = [relation for relation in suite.relations if relation["name"] == name]
    return filled(found, f"{suite.folder / 'relations'}", name)[0]


def behaviour_prompts(suite, behaviour, item, setting):
    """(system message, user message) of an item in one of SETTINGS. A SYS setting replaces the suite's system
    message by the persona sentence, a USER setting puts it in front of the user message."""
    question, pro, con = item["question"], behaviour["positive"], behaviour["negative"]
    return {"BASE": (suite.system, question), "SYS_POS": (pro, question), "SYS_NEG": (con, question),
            "USER_POS": (suite.system, f"{pro}\n\n{question}"),
            "USER_NEG": (suite.system, f"{con}\n\n{question}")}[setting]


def main():
    def told(what, parts):
        print(f"{what}: " + "  ".join(f"{name} {len(found)}" for name, found in parts.items()))

    suite = load(*sys.argv[1:2] or ["testbed"])
    parts = ("traits", "tasks", "behaviours", "relations", "templates", "values", "facts", "neutral")
    told(f"{suite.folder}: {suite.name}, digest {suite.digest[:12]}", {part: getattr(suite, part) for part in parts})
    for task, parted in suite.tasks.items():
        told(task, parted)
    for relation in suite.relations:
        told(f"relation {relation['name']}", {name: relation_split(relation, name) for name in SPLITS})
    for value in suite.values:
        told(f"value {value['name']}", {name: value_split(value, name) for name in SPLITS})


if __name__ == "__main__":
    run(main)
