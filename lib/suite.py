"""Suites: the data a run is made on, read from a folder, checked, and split into extract, tune and evaluate.

data/README.md documents every field. A part whose file is absent is empty, since a suite may have behaviours and
nothing else; what is there must be complete. Vectors see `extract`, selection sees `tune`, reports see `evaluate`.

    python -m lib.suite data/suites/testbed     check a folder and count what is in it
"""
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib import fields
from lib.artifacts import ROOT, UserError, check, digest_of, read_json, run, sha256
from lib.fields import SPLITS, WORD, changed, shared_words       # noqa: F401, for those who read suites

SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")
# What the smoke profile keeps: the first of each, in file order.
SMOKE = {"traits_per_task": 3, "items": 4, "behaviours_per_format": 2, "contents": 10, "words": 15,
         "templates": 3, "values": 3, "pairs": 8, "probes": 12, "max_new_tokens": 48}
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")          # where a raw text is cut into sentences


@dataclass(frozen=True)
class Suite:
    """Lists and dicts as in the files; a behaviour carries its `items`. `digest`: names and bytes of all files read,
    the same for both profiles; `data` {"licence", "source", "files": {name: sha256}} is what it covers."""
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


def find(name):
    """Folder of the suite called `name`: that folder, or the one in data/suites; None if there is neither."""
    if not name or "\0" in str(name):
        return None
    return next((at for at in (Path(name), ROOT / "data" / "suites" / name) if (at / "suite.json").is_file()), None)


def load(name, profile="full"):
    """The suite called `name` (see `find`). UserError names file and line or key."""
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
    suite = Suite(head["name"], head["judge"], head["system"], head["strength"], head["max_new_tokens"], profile,
                  folder, digest_of(hashes), traits, tasks, behaviours, relations, templates, values["values"],
                  values["facts"], values["neutral"],
                  {"licence": head["licence"], "source": head["source"], "files": hashes}, grammar)
    suite = _shrink(suite) if profile == "smoke" else suite
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


def _shrink(suite):
    """The smoke profile: the first few of everything; of the tasks, the first few items for each trait kept."""
    def first(records, key, n):
        return [r for i, r in enumerate(records) if sum(r[key] == before[key] for before in records[:i]) < n]

    def items(records):
        kept, counts = [], Counter()
        for item in records:
            mine = [name for name in item.get("traits", names) if name in names]
            if any(counts[name] < SMOKE["items"] for name in mine):
                kept.append(item)
                counts.update(mine)
        return kept

    traits = first(suite.traits, "task", SMOKE["traits_per_task"])
    names = [trait["name"] for trait in traits] or [None]
    return replace(
        suite, traits=traits, max_new_tokens=min(suite.max_new_tokens, SMOKE["max_new_tokens"]),
        tasks={task: {name: items(records) for name, records in splits.items()}
               for task, splits in suite.tasks.items()},
        behaviours=[b | {"items": sum(_contents(b["items"])[:SMOKE["contents"]], [])}
                    for b in first(suite.behaviours, "format", SMOKE["behaviours_per_format"])],
        relations=[relation | {"pairs": relation["pairs"][:SMOKE["words"]]} for relation in suite.relations],
        templates=suite.templates[:SMOKE["templates"]], facts=suite.facts[:SMOKE["probes"]],
        values=[v | {"pairs": v["pairs"][:SMOKE["pairs"]], "probes": v["probes"][:SMOKE["probes"]]}
                for v in suite.values[:SMOKE["values"]]])


def _contents(items):
    """Items grouped by content: [[item, its swap], ...], or [[item], ...] where nothing is swapped."""
    groups = []
    for item in items:
        groups[-1].append(item) if item["swap_of"] is not None else groups.append([item])
    return groups


def split(items, name):
    """A behaviour's items in one split: the first 40 % of the contents, the next 10 %, the last 50 %."""
    first, last = {"extract": (0, 0.4), "tune": (0.4, 0.5), "evaluate": (0.5, 1)}[name]
    return _filled(_part(items, first, last), f"{items[0]['id']} ... {items[-1]['id']}", name)


def balanced(items, most=None):
    """Items of which every cell of letter and Yes/No of the positive option has as many, the first of each, in file
    order; `most` of them at most. Where one of four cells is empty the letters alone are balanced.

    A state at the letter holds the letter, and nearly nothing else: in a mean over 7 items with A and 5 with B it is
    what is left over."""
    def cells(of):
        found = {}
        for i, item in enumerate(items):
            found.setdefault(of(item), []).append(i)
        return found.values()
    found = cells(lambda item: (item["positive"], item["yes"] == item["positive"]))
    found = cells(lambda item: item["positive"]) if len(found) == 3 else found
    n = min(map(len, found)) if most is None else min(most // len(found), *map(len, found))
    return [items[i] for i in sorted(i for cell in found for i in cell[:n])]


def published_split(items):
    """(train, test) as in the released run of Tan et al. 2024: the first half of the contents, and all from 5 % on
    ("50:100%" was read as item 50 of 1,000), so that 47 % of the test items were trained on."""
    return _part(items, 0, 0.5), _part(items, 0.05, 1)


def _part(items, first, last):
    """Items whose contents lie between two shares of all contents."""
    groups = _contents(items)
    return sum(groups[round(len(groups) * first):round(len(groups) * last)], [])


def components(relation):
    """One label per pair, from 0 in file order; pairs that a chain of shared words connects have the same."""
    return _linked(relation["pairs"])


def _linked(groups):
    """One label per group of words, from 0 in order; groups that a chain of shared words connects have the same."""
    parent = {}

    def root(word):
        while parent.setdefault(word, word) != word:
            word = parent[word]
        return word

    for first, *others in groups:
        for other in [first, *others]:
            parent[root(other)] = root(first)
    labels = {}
    return [labels.setdefault(root(first), len(labels)) for first, *_ in groups]


def relation_split(relation, name, labels=False):
    """Pairs of a relation in one split, in file order; labels=True: their component labels, the unit to resample.

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
    """Facts: the first third for tuning, the rest for evaluation; extraction uses none."""
    cut = round(len(records) / 3)
    return _filled({"tune": records[:cut], "evaluate": records[cut:]}[name], "facts", name)


def subjects(value):
    """(labels of a value's pairs, labels of its probes): who or what each is about, numbers from 0 in file order.

    A prompt is about one word of its last sentence: the one that the fewest of the value's texts have in theirs, the
    first of equals (the occupation in "The nurse met the cook. The cook said that", where all share the rest). Both
    sides of a pair are; those that a chain of shared words connects have one label. A pair or a probe of whole
    sentences is a published item of its own, and so is its label."""
    pairs, probes = value["pairs"], value["probes"]
    if "prompt" not in probes[0]:
        return list(range(len(pairs))), list(range(len(pairs), len(pairs) + len(probes)))
    texts = [[pair["positive"], pair["negative"]] for pair in pairs] + [[probe["prompt"]] for probe in probes]
    last = [[re.findall(r"\w\S*\w|\w", SENTENCE.split(text.strip())[-1]) or [text] for text in some]
            for some in texts]
    common = Counter(word for some in last for words in some for word in set(words))
    labels = _linked([[min(words, key=common.get) for words in some] for some in last])
    return labels[:len(pairs)], labels[len(pairs):]


def value_split(value, name, labels=False):
    """Pairs of a value to extract from, or its probes to tune or to evaluate on, in file order; labels=True: their
    `subjects`, the unit to resample. No subject is in two splits.

    Of the subjects that pairs and probes share the first 40 % are for extraction, the next 20 % for tuning, the rest
    for evaluation; of those that only probes have, the first third for tuning; those that only pairs have, for
    extraction. Pairs and probes of a subject that went to another split are left out. A bystander, named in a
    sentence before the last, may be of any split."""
    found = subjects(value)
    order = list(dict.fromkeys(found[0] + found[1]))
    alone = [label for label in order if label not in found[0]]
    both = [label for label in order if label in found[0] and label in found[1]]
    home = {label: 0 for label in order}
    for some, shares in ((alone, (0, 1 / 3)), (both, (0.4, 0.6))):
        first, last = (round(share * len(some)) for share in shares)
        home |= {label: (i >= first) + (i >= last) for i, label in enumerate(some)}
    records, mine = (value["pairs"], found[0]) if name == "extract" else (value["probes"], found[1])
    chosen = [i for i, label in enumerate(mine) if home[label] == SPLITS.index(name)]
    _filled(chosen, f"value {value['name']}, {len(order)} subjects", name)
    return [mine[i] if labels else records[i] for i in chosen]


def tasks(suite, task, name, trait=None):
    """Items of one task and split; with `trait`, those that are for it: an item without `traits` is for all.
    UserError if there are none, or the suite has no such trait."""
    found, where = suite.tasks.get(task, {}).get(name), f"{suite.folder / 'tasks.json'}, {task}"
    if trait is not None:
        if trait not in (record["name"] for record in suite.traits):
            raise UserError(f"{suite.folder / 'traits.json'}: no trait {trait!r}")
        found = [item for item in found or () if trait in item.get("traits", [trait])]
        where = f"{where}, trait {trait}"
    return _filled(found, where, name)


def fill(text, x, y=""):
    """A template with x and y in their places. Nothing else in it means anything, and what is put in is not read again."""
    return re.sub(r"\{([xy])\}", lambda place: {"x": x, "y": y}[place[1]], text)


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
    def told(what, parts):
        print(f"{what}: " + "  ".join(f"{name} {len(found)}" for name, found in parts.items()))

    suite = load(*sys.argv[1:2] or ["testbed"])
    parts = ("traits", "tasks", "behaviours", "relations", "templates", "values", "facts", "neutral")
    told(f"{suite.folder}: {suite.name}, digest {suite.digest[:12]}", {part: getattr(suite, part) for part in parts})
    for task, splits in suite.tasks.items():
        told(task, splits)
    for relation in suite.relations:
        told(f"relation {relation['name']}", {name: relation_split(relation, name) for name in SPLITS})
    for value in suite.values:
        told(f"value {value['name']}", {name: value_split(value, name) for name in SPLITS})


if __name__ == "__main__":
    run(main)
