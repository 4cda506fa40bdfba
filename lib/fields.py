"""Fields: what each file of a suite must hold, checked before anything is computed. data/README.md documents them."""
import re
from difflib import SequenceMatcher
from pathlib import Path

from lib.artifacts import NUMBER, UserError, check

SPLITS = ("extract", "tune", "evaluate")
OBJECTS = ("suite", "relation", "values", "grammar")          # kinds of which a file holds one, not a list
OPTIONAL, ANY = str | None, "any text"                       # text, unless it is ANY, is not blank
WANTED = {str: "text that is not blank", OPTIONAL: "text or null", int: "a whole number above 0", list: "a list",
          dict: "an object", ANY: "text"}
# Deeper shapes (lib.artifacts.check) of what FIELDS calls a list or an object.
GRAMMAR = {"traits": {str: {"kind": str, "forms": [(str, [str])], "closing": [str]}}, "frames": {str: [str]},
           "slots": {str: {str: [str]}}, "roles": {str: [str]}, "ands": {str: NUMBER}, "greetings": [str],
           "closings": [str]}
TASKS = dict.fromkeys(("question", "summary", "email"), dict)
# What a field of each kind may hold: what WANTED names, one of several values, or a list of records of another kind.
FIELDS = {"suite": {"name": str, "judge": str, "system": ANY, "strength": ("relative", "raw"), "max_new_tokens": int,
                    "licence": str, "source": str},
          "grammar": {"traits": dict, "frames": dict, "slots": dict, "roles": dict, "sentences": int, "ands": dict,
                      "greetings": list, "closings": list},
          "trait": {"name": str, "group": OPTIONAL, "task": ("email", "summary", None), "preference": str,
                    "scope": ("global", "local"), "instructions": "sides"},
          "sides": {"positive": str, "negative": str},
          "item": {"id": str, "task": ("question", "summary", "email"), "prompt": str},
          "behaviour": {"name": str, "format": ("yes_no", "options"), "file": str, "positive": str, "negative": str},
          "choice": {"id": str, "question": str, "positive": ("A", "B"), "yes": ("A", "B", None), "statement": ANY,
                     "contrary": (True, False), "swap_of": OPTIONAL},
          "relation": {"name": str, "pairs": list}, "template": {"name": str, "pair": str, "query": str},
          "values": {"values": list, "facts": list, "neutral": list},
          "value": {"name": str, "pairs": "sides", "probes": list}, "fact": {"id": str, "prompt": str, "answer": str},
          "probe": {"id": str, "prompt": str, "positive": str, "negative": str, "level": (0, 1, 2)},
          "sentences": {"id": str, "positive_text": str, "negative_text": str, "level": (0, 1, 2)}}
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")    # letters and digits, with ' and - between them; or another sign


def within(where, function, *args):
    """function(*args), a UserError of it with the place in front."""
    try:
        return function(*args)
    except UserError as fault:
        raise UserError(f"{where}: {fault}") from None


def unique(where, key, rows):
    names = [record[key] for record in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: two have the {key} {name!r}")


def check_grammar(folder, grammar, traits, tasks):
    """The exact scorers find what they look up: every trait, role and slot, and the facts of every item."""
    where = folder / "grammar.json"
    check(where, grammar, GRAMMAR)
    frames, slots = grammar["frames"], grammar["slots"]
    lacks = [f"trait {trait['name']!r} of traits.json" for trait in traits if trait["name"] not in grammar["traits"]]
    lacks += [f"trait {name!r}, which the parser undoes" for name in ("longflowing", "streamofconsciousness")
              if name not in grammar["traits"]]
    lacks += [f"{part} of the task {task!r}" for task in TASKS for part in ("roles", "ands") if task not in grammar[part]]
    lacks += [f"frames of the role {role!r}" for roles in grammar["roles"].values() for role in roles if role not in frames]
    lacks += [f"slot {slot!r} of the role {role!r}" for role, texts in frames.items() for text in texts
              for slot in re.findall(r"{(\w+)}", text) if not {slot, "xy"} & set(slots.get(role, ()))]
    if lacks:
        raise UserError(f"{where}: no {lacks[0]}")
    for task, parts in tasks.items():
        for part, items in parts.items():
            for item in items:
                check(f"{folder / 'tasks.json'}, {task}.{part}, {item['id']}", item, {"facts": {str: [str]}})


def _faults(kind, record, before):
    """What is wrong with a record whose fields are as FIELDS says; `before`: the one before it in its list, or {}."""
    def shows(text, *marks):
        return isinstance(text, str) and all(mark in text for mark in marks)

    name = "".join(record[key] for key in ("name", "id") if key in FIELDS[kind])
    if not name.isprintable() or len(name) > 200:
        yield f"{name[:40]!r} is no name: it has signs that do not show, or more than 200"
    if kind in ("behaviour", "probe", "sides") and record["positive"] == record["negative"]:
        yield f"positive and negative are the same: {record['positive'][:60]!r}"
    if kind == "trait" and not shows(record.get("judge_prompt", "{question} {answer}"), "{question}", "{answer}"):
        yield "judge_prompt needs {question} and {answer}"
    if kind == "behaviour" and len(record["file"].encode()) > 250:
        yield f"'file' is a name of {len(record['file'])} letters"
    texts = record.get("calibration", {"positive": ""}) if kind == "trait" else {"positive": ""}
    if not (isinstance(texts, dict) and all(isinstance(texts.get(of, ""), str) for of in ("positive", "negative"))
            and "positive" in texts):
        yield "calibration needs a text 'positive' and may have one 'negative'"
    if kind == "behaviour" and (".." in Path(record["file"]).parts or Path(record["file"]).is_absolute()):
        yield f"{record['file']} lies outside the suite"
    if kind == "choice" and not shows(record["question"], "(A)", "(B)"):
        yield "the question does not show the options (A) and (B)"
    if kind == "choice" and record["swap_of"] is not None and (
            before.get("id"), {before.get("positive"), record["positive"]}) != (record["swap_of"], {"A", "B"}):
        yield "not the swap of the line before, as swap_of says"
    if kind == "relation":
        yield from ["'pairs' is empty"] * (not record["pairs"])
        yield from (f"pairs[{i}]: expected [x, y], two words" for i, pair in enumerate(record["pairs"])
                    if not isinstance(pair, list) or [type(word) for word in pair] != [str, str]
                    or not all(word.strip() for word in pair))
    if kind == "template" and (not (shows(record["pair"], "{x}", "{y}") and shows(record["query"], "{x}"))
                               or "{y}" in record["query"]):
        yield "pair needs {x} and {y}, query needs {x} and not {y}"
    if kind == "sentences" and not shared_words(record["positive_text"], record["negative_text"])[1]:
        yield "positive_text and negative_text share no word after the first that differs: their scores cannot differ"


def records(where, kind, value):
    """`value`, one record or a list of them, if it is as FIELDS and `_faults` say of `kind`; other keys are free."""
    if not value or isinstance(value, list) == (kind in OBJECTS):
        raise UserError(f"{where}: expected {'an object' if kind in OBJECTS else 'a list'} that is not empty")
    rows, seen = value if isinstance(value, list) else [value], set()
    for i, record in enumerate(rows):
        place = f"line {i + 1}" if str(where).endswith(".jsonl") else f"[{i}]"
        at = where if kind in OBJECTS else f"{where}, {place}"
        if not isinstance(record, dict):
            raise UserError(f"{at}: expected an object")
        for field, allowed in FIELDS[kind].items():
            if field not in record:
                raise UserError(f"{at}: no key {field!r}")
            found = record[field]
            if allowed == "sides":
                records(f"{where}, {record['name']}.{field}", allowed, found)
                continue
            fits = (any(type(found) is type(one) and found == one for one in allowed) if isinstance(allowed, tuple) else
                    isinstance(found, str if allowed == ANY else allowed))
            if not fits or allowed is int and (found is True or found < 1) or allowed is str and not found.strip():
                wanted = f"one of {allowed}" if isinstance(allowed, tuple) else WANTED[allowed]
                raise UserError(f"{at}: {field!r} is {found!r}, expected {wanted}")
        for fault in _faults(kind, record, rows[i - 1] if i else {}):
            raise UserError(f"{at}: {fault}")
        name = next((record[key] for key in ("id", "name") if key in FIELDS[kind]), None)
        if name in seen:
            raise UserError(f"{at}: {name!r} occurs twice")
        seen |= {name} - {None}
    return value


def form(where, probes):
    """Kind of a value's probes: all prompts with two continuations, or all pairs of sentences."""
    forms = {(any(key.endswith("_text") for key in probe), "prompt" in probe)
             for probe in probes if isinstance(probe, dict)}
    if len(forms) > 1 or (True, True) in forms:
        raise UserError(f"{where}: expected one form, prompt with positive and negative, "
                        "or positive_text with negative_text")
    return "sentences" if (True, False) in forms else "probe"


def check_tasks(path, tasks, names):
    """Every task has its splits, each with items for every trait; ids are unique, no prompt stands in two splits."""
    seen = {}
    check(path, check(path, tasks, {str: dict}), TASKS if names else {})
    for task, name in [(task, name) for task in tasks for name in (SPLITS if task == "question" else SPLITS[1:])]:
        if name not in tasks[task]:
            raise UserError(f"{path}: no {task}.{name}")
        place, served = f"{path}, {task}.{name}", set()
        for item in records(place, "item", tasks[task][name]):
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
