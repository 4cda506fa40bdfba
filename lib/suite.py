"""Suites: the data a run is made on, read from a folder, checked, and split into extract, tune and evaluate.

data/README.md documents every field. A part whose file is absent is empty, since a suite may have behaviours and
nothing else; what is there must be complete. Vectors see `extract`, selection sees `tune`, reports see `evaluate`.

    python -m lib.suite data/suites/testbed     check a folder and count what is in it
"""
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

from lib import sizes
from lib.artifacts import ROOT, UserError, digest_of, read_json, run, sha256

SPLITS = ("extract", "tune", "evaluate")
SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")
# What the smoke profile keeps: the first of each, in file order.
SMOKE = {"traits_per_task": 3, "items": 4, "behaviours_per_format": 2, "contents": 10, "words": 15,
         "templates": 3, "values": 3, "pairs": 8, "probes": 12, "max_new_tokens": 48}
# What quick keeps: study, least, most (None: all). Vectors of 128 items reach a cosine of .92 with those of 200.
QUICK = {"traits_per_task": ("preferences", 3, None), "items": ("preferences", 24, None),
         "max_new_tokens": ("preferences", 96, 96), "behaviours": ("reliability", 16, None),
         "extract": ("reliability", 16, 128), "tune": ("reliability", 8, 32), "evaluate": ("reliability", 32, None),
         "words": ("alignment", 24, None), "templates": ("alignment", 3, None), "values": ("alignment", 3, None),
         "pairs": ("alignment", 24, None), "probes": ("alignment", 16, None)}
SEED = 8                                                      # of the quick samples
OBJECTS = ("suite", "relation", "values", "grammar")          # kinds of which a file holds one, not a list
OPTIONAL = str | None
WANTED = {str: "text", OPTIONAL: "text or null", int: "a whole number above 0", list: "a list", dict: "an object"}
# What a field of each kind may hold: what WANTED names, one of several values, or a list of records of another kind.
FIELDS = {"suite": {"name": str, "judge": str, "system": str, "strength": ("relative", "raw"), "max_new_tokens": int,
                    "licence": str, "source": str},
          "grammar": {"traits": dict, "frames": dict, "slots": dict, "roles": dict, "sentences": int, "ands": dict,
                      "greetings": list, "closings": list},
          "trait": {"name": str, "group": OPTIONAL, "task": ("email", "summary", None), "preference": str,
                    "scope": ("global", "local"), "instructions": "sides"},
          "sides": {"positive": str, "negative": str},
          "item": {"id": str, "task": ("question", "summary", "email"), "prompt": str},
          "behaviour": {"name": str, "format": ("yes_no", "options"), "file": str, "positive": str, "negative": str},
          "choice": {"id": str, "question": str, "positive": ("A", "B"), "yes": ("A", "B", None), "statement": str,
                     "contrary": (True, False), "swap_of": OPTIONAL},
          "relation": {"name": str, "pairs": list}, "template": {"name": str, "pair": str, "query": str},
          "values": {"values": list, "facts": list, "neutral": list},
          "value": {"name": str, "pairs": "sides", "probes": list}, "fact": {"id": str, "prompt": str, "answer": str},
          "probe": {"id": str, "prompt": str, "positive": str, "negative": str, "level": (0, 1, 2)},
          "sentences": {"id": str, "positive_text": str, "negative_text": str, "level": (0, 1, 2)}}
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")    # letters and digits, with ' and - between them; or another sign


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
    levels: dict | None = None       # of the quick profile: {study: level}, see lib.sizes

    def size(self, constant, study):
        """A constant {"full", "smoke"} of a stage at this profile."""
        return sizes.at(constant, self.profile, self.levels and self.levels[study])


def load(name, profile="full", levels=None):
    """The suite in data/suites/<name>, or in the folder `name`; levels: of `quick`. UserError names file and line."""
    folder = Path(name) if (Path(name) / "suite.json").is_file() else ROOT / "data" / "suites" / name
    if not (folder / "suite.json").is_file():
        known = ", ".join(sorted(at.parent.name for at in ROOT.glob("data/suites/*/suite.json")))
        raise UserError(f"{name}: no folder with a suite.json, and none of data/suites ({known})")
    hashes = {}

    def read(file, kind, absent=None):
        if absent is not None and not (folder / file).is_file():
            return absent
        hashes[file] = sha256(folder / file) if (folder / file).is_file() else None
        value = read_json(folder / file)
        return value if kind is None else _check(folder / file, kind, value)

    head, grammar = read("suite.json", "suite"), read("grammar.json", "grammar", {})
    traits, behaviours = read("traits.json", "trait", []), read("behaviours.json", "behaviour", [])
    tasks = read("tasks.json", None, None if traits else {})
    _check_tasks(folder / "tasks.json", tasks, [trait["name"] for trait in traits])
    for behaviour in behaviours:
        behaviour["items"] = read(behaviour["file"], "choice")
    relations = [read(f"relations/{path.name}", "relation") for path in sorted(folder.glob("relations/*.json"))]
    templates = read("templates.json", "template", None if relations else [])
    values = read("values.json", "values", {"values": [], "facts": [], "neutral": []})
    for part, kind in (("values", "value"), ("facts", "fact")):
        if values[part]:
            _check(f"{folder / 'values.json'}, {part}", kind, values[part])
    for value in values["values"]:
        where = f"{folder / 'values.json'}, {value['name']}.probes"
        _check(where, _form(where, value["probes"]), value["probes"])
    if not (traits or behaviours or relations or values["values"]):
        raise UserError(f"{folder}: no traits, behaviours, relations or values")
    suite = Suite(head["name"], head["judge"], head["system"], head["strength"], head["max_new_tokens"], profile,
                  folder, digest_of(hashes), traits, tasks, behaviours, relations, templates, values["values"],
                  values["facts"], values["neutral"],
                  {"licence": head["licence"], "source": head["source"], "files": hashes}, grammar)
    suite = _shrink(suite) if profile == "smoke" else quick(suite, levels) if profile == "quick" else suite
    for part in SPLITS:                                    # raises for the first part with an empty split
        for behaviour in suite.behaviours:
            split(behaviour["items"], part)
        for relation in suite.relations:
            relation_split(relation, part)
    return suite


def judge_kind(name):
    """(kind, model) of a judge's name (lib.judging.judges). UserError for one that is none."""
    kind, _, which = name.partition(":")
    if kind not in ("rules", "self", "model", "api") or bool(which) != (kind in ("model", "api")):
        raise UserError(f"unknown judge {name!r}; there are: rules, self, model:<id or folder>, api:<model>")
    return kind, which


def _faults(kind, record, before):
    """What is wrong with a record whose fields are as FIELDS says; `before`: the one before it in its list, or {}."""
    def shows(text, *marks):
        return isinstance(text, str) and all(mark in text for mark in marks)

    if kind == "trait" and not shows(record.get("judge_prompt", "{question} {answer}"), "{question}", "{answer}"):
        yield "judge_prompt needs {question} and {answer}"
    if kind == "behaviour" and (".." in Path(record["file"]).parts or Path(record["file"]).is_absolute()):
        yield f"{record['file']} lies outside the suite"
    if kind == "choice" and not shows(record["question"], "(A)", "(B)"):
        yield "the question does not show the options (A) and (B)"
    if kind == "choice" and record["swap_of"] is not None and (
            before.get("id"), {before.get("positive"), record["positive"]}) != (record["swap_of"], {"A", "B"}):
        yield "not the swap of the line before, as swap_of says"
    if kind == "relation":
        yield from (f"pairs[{i}]: expected [x, y], two words" for i, pair in enumerate(record["pairs"])
                    if not isinstance(pair, list) or [type(word) for word in pair] != [str, str])
    if kind == "template" and not (shows(record["pair"], "{x}", "{y}") and shows(record["query"], "{x}")):
        yield "pair needs {x} and {y}, query needs {x}"
    if kind == "sentences" and not shared_words(record["positive_text"], record["negative_text"])[1]:
        yield "positive_text and negative_text share no word after the first that differs: their scores cannot differ"


def _check(where, kind, value):
    """`value`, one record or a list of them, if it is as FIELDS and `_faults` say of `kind`; other keys are free."""
    if not value or isinstance(value, list) == (kind in OBJECTS):
        raise UserError(f"{where}: expected {'an object' if kind in OBJECTS else 'a list'} that is not empty")
    records, seen = value if isinstance(value, list) else [value], set()
    for i, record in enumerate(records):
        place = f"line {i + 1}" if str(where).endswith(".jsonl") else f"[{i}]"
        at = where if kind in OBJECTS else f"{where}, {place}"
        if not isinstance(record, dict):
            raise UserError(f"{at}: expected an object")
        for field, allowed in FIELDS[kind].items():
            if field not in record:
                raise UserError(f"{at}: no key {field!r}")
            found = record[field]
            if isinstance(allowed, str):
                _check(f"{where}, {record['name']}.{field}", allowed, found)
                continue
            fits = found in allowed if isinstance(allowed, tuple) else isinstance(found, allowed)
            if not fits or allowed is int and (found is True or found < 1):
                wanted = f"one of {allowed}" if isinstance(allowed, tuple) else WANTED[allowed]
                raise UserError(f"{at}: {field!r} is {found!r}, expected {wanted}")
        for fault in _faults(kind, record, records[i - 1] if i else {}):
            raise UserError(f"{at}: {fault}")
        name = record.get("id", record.get("name"))
        if name in seen:
            raise UserError(f"{at}: {name!r} occurs twice")
        seen |= {name} - {None}
    return value


def _form(where, probes):
    """Kind of a value's probes: all prompts with two continuations, or all pairs of sentences."""
    forms = {(any(key.endswith("_text") for key in probe), "prompt" in probe)
             for probe in probes if isinstance(probe, dict)}
    if len(forms) > 1 or (True, True) in forms:
        raise UserError(f"{where}: expected one form, prompt with positive and negative, "
                        "or positive_text with negative_text")
    return "sentences" if (True, False) in forms else "probe"


def _check_tasks(path, tasks, names):
    """Every task has its splits, each with items for every trait; ids are unique, no prompt stands in two splits."""
    seen = {}
    for task, name in [(task, name) for task in tasks for name in (SPLITS if task == "question" else SPLITS[1:])]:
        if name not in tasks[task]:
            raise UserError(f"{path}: no {task}.{name}")
        place, served = f"{path}, {task}.{name}", set()
        for item in _check(place, "item", tasks[task][name]):
            if item["task"] != task or any(seen.setdefault(item[key], place) != place for key in ("id", "prompt")):
                raise UserError(f"{place}: {item['id']} is of another task or in two splits")
            mine = item.get("traits", names)
            if not isinstance(mine, list) or not mine and names or any(trait not in names for trait in mine):
                raise UserError(f"{place}: {item['id']}: 'traits' is {mine!r}, "
                                "expected a list of names of traits.json")
            served |= set(mine)
        for trait in names:
            if trait not in served:
                raise UserError(f"{place}: nothing for the trait {trait}")


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


def quick(suite, levels):
    """A full suite at the quick profile: nested samples, sizes by QUICK and the levels {study: level}. What has splits
    is drawn inside those of the full suite and keeps them; of traits, tasks, templates and values it is the first."""
    def n(part, there):
        study, least, most = QUICK[part]
        return sizes.between(least, min(most or there, there), levels[study])

    def items(records):
        seen, mine = Counter(), [[name for name in item.get("traits", names) if name in names] for item in records]
        return [item for item, its in zip(records, mine) if its and seen.update(its) is None
                and min(seen[name] for name in its) <= n("items", len(records))]

    def pick(part, things, *address):
        kinds = [thing.get("level") if isinstance(thing, dict) else None for thing in things]
        return [things[i] for i in sizes.drawn(n(part, len(things)), kinds, [SEED, *address])]

    def choices(behaviour, number):
        parts = {name: _contents(split(behaviour["items"], name)) for name in SPLITS}
        return behaviour | {"items": [
            item | {"split": name} for s, (name, mine) in enumerate(parts.items())
            for group in sizes.balanced(mine, n(name, sum(map(len, mine))), [SEED, 1, number, s]) for item in group]}

    def pairs(relation, number):
        homes = _homes(relation)
        found = sum((pick("words", [i for i, home in enumerate(homes) if home == name], 2, number, s)
                     for s, name in enumerate(SPLITS)), [])
        return relation | {"pairs": [relation["pairs"][i] for i in found], "splits": [homes[i] for i in found]}

    def probes(records, number):
        parts = {name: probe_split(records, name) for name in SPLITS[1:]} if records else {}
        return [probe | {"split": name} for s, (name, mine) in enumerate(parts.items())
                for probe in pick("probes", mine, 3, number, s)]

    tasks = [trait["task"] for trait in suite.traits]
    traits = [t for i, t in enumerate(suite.traits)
              if tasks[:i].count(t["task"]) < n("traits_per_task", max(map(tasks.count, tasks)))]
    kept = sizes.drawn(n("behaviours", len(suite.behaviours)), [b["format"] for b in suite.behaviours], [SEED, 5])
    names, length = [trait["name"] for trait in traits], n("max_new_tokens", suite.max_new_tokens)
    return replace(
        suite, profile="quick", levels=levels, traits=traits, max_new_tokens=length,
        tasks={task: {name: items(found) for name, found in splits.items()} for task, splits in suite.tasks.items()},
        behaviours=[choices(suite.behaviours[i], i) for i in kept],
        relations=[pairs(relation, i) for i, relation in enumerate(suite.relations)],
        templates=suite.templates[:n("templates", len(suite.templates))], facts=probes(suite.facts, 1000),
        values=[value | {"pairs": pick("pairs", value["pairs"], 4, i), "probes": probes(value["probes"], i)}
                for i, value in enumerate(suite.values[:n("values", len(suite.values))])])


def _contents(items):
    """Items grouped by content: [[item, its swap], ...], or [[item], ...] where nothing is swapped."""
    groups = []
    for item in items:
        groups[-1].append(item) if item["swap_of"] is not None else groups.append([item])
    return groups


def split(items, name):
    """A behaviour's items in one split: the first 40 % of the contents, the next 10 %, the last 50 %."""
    first, last = {"extract": (0, 0.4), "tune": (0.4, 0.5), "evaluate": (0.5, 1)}[name]
    found = [item for item in items if item["split"] == name] if _drawn(items) else _part(items, first, last)
    return _filled(found, f"{items[0]['id']} ... {items[-1]['id']}", name)


def _drawn(records):                                             # is it a sample of `quick`? these keep their splits
    return bool(records) and isinstance(records[0], dict) and "split" in records[0]


def published_split(items):
    """(train, test) as in the released run of Tan et al. 2024: the first half of the contents, and all from 5 % on
    ("50:100%" was read as item 50 of 1,000), so that 47 % of the test items were trained on."""
    if _drawn(items):
        half = split(items, "extract") + split(items, "tune")
        return half, _part(half, 0.1, 1) + split(items, "evaluate")
    return _part(items, 0, 0.5), _part(items, 0.05, 1)


def _part(items, first, last):
    """Items whose contents lie between two shares of all contents."""
    groups = _contents(items)
    return sum(groups[round(len(groups) * first):round(len(groups) * last)], [])


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
    """Pairs of a relation in one split, in file order; labels=True: their component labels, the unit to resample."""
    found = components(relation)
    mine = [i for i, home in enumerate(_homes(relation)) if home == name]
    return [found[i] if labels else relation["pairs"][i] for i in _filled(mine, f"relation {relation['name']}", name)]


def _homes(relation):
    """The split of every pair: components go, largest first, where most is lacking of 40/20/40 % of the pairs."""
    if "splits" in relation:
        return relation["splits"]
    found = components(relation)
    sizes_of = [found.count(label) for label in range(max(found) + 1)]
    lacking, home = [share * len(found) for share in (0.4, 0.2, 0.4)], {}
    for label in sorted(range(len(sizes_of)), key=lambda label: -sizes_of[label]):
        home[label] = lacking.index(max(lacking))
        lacking[home[label]] -= sizes_of[label]
    return [SPLITS[home[label]] for label in found]


def probe_split(records, name):
    """Probes of a value, or facts: the first third for tuning, the rest for evaluation; extraction uses neither."""
    cut = round(len(records) / 3)
    found = ([record for record in records if record["split"] == name] if _drawn(records) else
             {"tune": records[:cut], "evaluate": records[cut:]}[name])
    return _filled(found, "probes or facts", name)


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


def _words(positive, negative):
    """Words of both sentences, as matches of WORD, and difflib's blocks of equal and unequal ones."""
    words = [list(WORD.finditer(text)) for text in (positive, negative)]
    match = SequenceMatcher(None, *([word.group() for word in side] for side in words), autojunk=False)
    return words, match.get_opcodes()


def changed(positive, negative):
    """Where two sentences differ: ([(start, end), ...], [(start, end), ...]), character spans of the words (WORD)
    that difflib does not match, sentence by sentence. A token that covers more than white space is shared if it
    overlaps no span of its sentence (after Nangia et al. 2020, who align the tokens of a masked model); see
    data/README.md."""
    words, blocks = _words(positive, negative)
    spans = [], []
    for kind, *cuts in blocks:
        for side, found, (i, j) in zip(spans, words, (cuts[:2], cuts[2:])):
            if kind != "equal" and i < j:
                side.append((found[i].start(), found[j - 1].end()))
    return spans


def shared_words(positive, negative):
    """Words that two sentences share, without other signs: ([those before the first difference], [those after it]).
    Only those after it can be more probable in the one sentence than in the other."""
    (a, _), blocks = _words(positive, negative)
    equal = [(n > 0, word.group()) for n, (kind, i, j, *_) in enumerate(blocks) if kind == "equal" for word in a[i:j]]
    return tuple([word for later, word in equal if later == side and word[0].isalnum()] for side in (False, True))


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
        told(f"value {value['name']}", {"pairs": value["pairs"]} | {name: probe_split(value["probes"], name)
                                                                    for name in SPLITS[1:]})


if __name__ == "__main__":
    run(main)
