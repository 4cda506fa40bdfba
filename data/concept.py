"""Concept: a small suite of one concept, in its own words or from a file, for a card (`make card`).

    trait       CONCEPT="formal: Write in a formal tone. | Write in a casual tone."
    others      CONCEPT="likes-tea: tea.csv"           the columns say the kind (COLUMNS; data/README.md has examples)
    of a suite  CONCEPT=trait/allcaps SUITE=testbed    that suite, without its other concepts

Several wordings of an instruction are parted by ;; and a trait may have a third part: a text that shows it, on which
a judge in words is tried (data/calibration.json has such texts for known names). A behaviour may have two more parts:
persona sentences for and against it. What a trait is tried on, facts and neutral text are data/plain.json, written
for this project; the relations that a relation is centred with are those of the testbed.

    python -m data.concept --model data/models/pico-llama --concept "likes-tea: tea.csv"

writes outputs/<model>/card-<name>/suite/ and prints that folder.
"""
import csv
import difflib
import io
import random
import re
import shlex
import shutil
from pathlib import Path

from lib import artifacts, stage, suite as suites
from lib.artifacts import ROOT, UserError, read_json, write_json
from lib.fields import shared_words
from lib.judging import natural

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 7
MAX_NEW_TOKENS = 64                      # of an answer: a few sentences, on a laptop
WORDINGS = 5                             # instruction pairs of a trait; fewer wordings are used in turn
MOST = {"statement": 150, "choice": 150, "relation": 300, "value": 200}     # rows of a file that are used, drawn
LEAST = {"statement": 20, "choice": 20, "relation": 30, "value": 20}        # fewer have no interval worth the name
EXTRACT = 0.4                            # share of a value's sentence pairs that make the vector; the rest is weighed
COMPANIONS = ("synonym", "antonym", "plural", "past")       # of the testbed: what a relation is centred with
SYSTEM = "You are a helpful assistant."
PERSONA = ("You are someone of whom this is true: {}.", "You are someone of whom this is not true: {}.")
ASKED = 'Would you say this? "{}"'
# ------------------------------------------------------------------------------------------------------------
COLUMNS = {"statement": ("statement", "answer"), "choice": ("question", "a", "b", "answer"), "relation": ("x", "y"),
           "value": ("positive", "negative")}
ANSWERS = {"statement": ("Yes", "No"), "choice": ("A", "B")}
NAME = re.compile(r"[A-Za-z0-9][\w-]{0,59}")
TAKEN = re.compile(r"-by-|-(smoke|quick|bfloat16)$")         # how folders of other judges, profiles and dtypes are named
PLAIN, CALIBRATION, TESTBED = ROOT / "data/plain.json", ROOT / "data/calibration.json", ROOT / "data/suites/testbed"


# --- reading ------------------------------------------------------------------------------------------------
def text_of(path):
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except (OSError, ValueError) as error:                     # ValueError: a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    wrong = re.search("[\0\udc80-\udcff]", text)
    if wrong:
        line = text.count("\n", 0, wrong.start()) + 1
        raise UserError(f"{path}, line {line}: byte 0x{ord(wrong[0]) % 256:02x}, expected text in UTF-8")
    return text


def cells_of(path, text):
    """[(line on which a row begins, {column: text}), ...] of a CSV file. UserError for a row with more or fewer cells
    than the first, and for a column that stands twice there."""
    reader, found, line = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True), [], 1
    try:
        for cells in reader:
            found += [(line, cells)] * bool(cells)             # of an empty line there are none
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {error}; expected quotes to be closed, and doubled in quotes") from None
    head = [name.strip() for name in found[0][1]] if found else []
    for name in head:
        if name and head.count(name) > 1:
            raise UserError(f"{path}, line {found[0][0]}: the column {name!r} stands twice, expected once")
    for line, cells in found:
        if len(cells) != len(head):
            raise UserError(f"{path}, line {line}: {len(cells)} cells, expected {len(head)}; put text with commas in "
                            "quotes")
    return [(line, dict(zip(head, cells))) for line, cells in found[1:]]


def rows_of(path):
    """(kind, [row, ...]) of a .csv or .jsonl file; the kind is told by the columns. A choice whose options stand
    exchanged in a later row is one row. UserError names file, line and what was expected."""
    path, known = Path(path), "; or ".join(", ".join(names) for names in COLUMNS.values())
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: expected a .csv or .jsonl file with the columns {known}; or instruction | instruction "
                        "against")
    text = text_of(path)
    found = list(enumerate(read_json(path), 1)) if path.suffix == ".jsonl" else cells_of(path, text)
    if not found or not isinstance(found[0][1], dict):
        raise UserError(f"{path}, line 1: expected rows with the columns {known}")
    kind = next((kind for kind, names in COLUMNS.items() if set(names) <= set(found[0][1])), None)
    if kind is None:
        raise UserError(f"{path}, line 1: the columns {', '.join(map(str, found[0][1]))}; expected {known}")
    seen, rows = {}, []
    for line, row in found:
        for name in COLUMNS[kind]:
            text = row.get(name) if isinstance(row, dict) else None
            if not isinstance(text, str) or not text.strip() or "\0" in text:
                raise UserError(f"{path}, line {line}: {name} is {text!r}, expected text")
        got = tuple(row[name].strip() for name in COLUMNS[kind])
        if kind in ANSWERS and got[-1] not in ANSWERS[kind]:
            raise UserError(f"{path}, line {line}: answer is {got[-1]!r}, expected {' or '.join(ANSWERS[kind])}")
        if kind == "value" and not shared_words(*got)[1]:
            raise UserError(f"{path}, line {line}: the sentences share no word after the first that differs, "
                            "expected two that differ before their end")
        if kind == "choice" and got[1] == got[2]:
            raise UserError(f"{path}, line {line}: a and b are {got[1][:60]!r}, expected two options")
        # Whatever repeats may come to lie in two splits: a question with its options, each sentence of a value.
        parts = [(part,) for part in got] if kind == "value" else [(got[0], frozenset(got[1:-1]))]
        twice = next((part for part in parts if part in seen), None)
        if twice:
            first, before = seen[twice]
            if kind == "choice" and got[1] == before[2] and got[-1] != before[-1]:
                continue                                       # both orders are made of every row
            raise UserError(f"{path}, line {line}: {twice[0][:60]!r} stands in line {first} too, expected once" + (
                ", or its options and the answer exchanged" if kind == "choice" else ""))
        seen |= dict.fromkeys(parts, (line, got))
        rows.append(got)
    if len(rows) < LEAST[kind]:
        swaps = " and their swaps" if len(rows) < len(found) else ""
        raise UserError(f"{path}, line {found[-1][0]}: ends after {len(rows)} rows{swaps}, expected {LEAST[kind]} or "
                        "more")
    return kind, random.Random(SEED).sample(rows, min(len(rows), MOST[kind]))


# --- suites -------------------------------------------------------------------------------------------------
def head(name, judge, source):
    return {"name": f"card-{name}", "judge": judge, "system": SYSTEM, "strength": "relative",
            "max_new_tokens": MAX_NEW_TOKENS, "licence": "of the concept: its author's; all else: the project's",
            "source": source}


def around():
    """values.json without values: facts and neutral text."""
    plain = read_json(PLAIN)
    return {"values": [], "facts": plain["facts"], "neutral": plain["neutral"]}


def trait(name, parts, judge):
    """(judge, {file: content}) of a trait from [for, against, some text that shows it]."""
    wordings = [[text.strip() for text in part.split(";;") if text.strip()] for part in parts[:2]]
    if len(parts) not in (2, 3) or not all(wordings):
        raise UserError(f"CONCEPT: {name}: {len(parts)} parts, expected an instruction for | one against, some | "
                        "a text that shows it")
    judge = judge or ("rules" if name in natural.SCORERS else "self")
    record = {"name": name, "group": None, "task": None, "scope": "global", "preference": wordings[0][0],
              "instructions": [{"positive": wordings[0][i % len(wordings[0])],
                                "negative": wordings[1][i % len(wordings[1])]} for i in range(WORDINGS)]}
    if len(parts) == 3:
        record["calibration"] = {"positive": parts[2]}
    elif judge != "rules" and name not in read_json(CALIBRATION)["traits"]:
        raise UserError(f"CONCEPT: {name}: nothing counts it, and the judge {judge} has no text to be tried on; add "
                        "| a paragraph that shows it")
    if judge == "rules" and name not in natural.SCORERS:
        raise UserError(f"CONCEPT: {name}: nothing counts it; JUDGE=rules knows {', '.join(sorted(natural.SCORERS))}")
    return judge, {"traits.json": [record], "tasks.json": read_json(PLAIN)["tasks"]}


def both_orders(kind, rows):
    """Items of a behaviour: each row with its options in both orders, the positive one in turn at A or at B first."""
    items = []
    for i, row in enumerate(rows):
        options = ANSWERS["statement"] if kind == "statement" else row[1:3]
        asked = ASKED.format(row[0]) if kind == "statement" else row[0]
        shows = ANSWERS[kind].index(row[-1])                                # number of the option that shows it
        for k, turned in enumerate((i % 2 == 1, i % 2 == 0)):
            shown = options[::-1] if turned else options
            items.append({"id": f"{i}-{'ab'[k]}", "statement": row[0], "contrary": False,
                          "swap_of": f"{i}-a" if k else None, "yes": "AB"[turned] if kind == "statement" else None,
                          "positive": "AB"[shows ^ turned],
                          "question": f"{asked}\n\n(A): {shown[0]}\n(B): {shown[1]}"})
    return items


def from_file(name, parts):
    """{file: content} of a behaviour, relation or value from [file, some persona sentence for, one against]."""
    kind, rows = rows_of(parts[0])
    if kind in ANSWERS:
        if len(parts) not in (1, 3):
            raise UserError(f"CONCEPT: {name}: {len(parts)} parts, expected a file, or a file | persona for | "
                            "against")
        personas = parts[1:] or [text.format(name.replace("-", " ").replace("_", " ")) for text in PERSONA]
        file = f"behaviours/{name}.jsonl"
        return {file: both_orders(kind, rows), "behaviours.json": [{
            "name": name, "format": "yes_no" if kind == "statement" else "options", "file": file,
            "positive": personas[0], "negative": personas[1]}]}
    if len(parts) > 1:
        raise UserError(f"CONCEPT: {name}: {len(parts)} parts, expected a file alone")
    if kind == "relation":
        others = [other for other in COMPANIONS if other != name]
        return {f"relations/{name}.json": {"name": name, "pairs": [list(row) for row in rows]},
                **{f"relations/{other}.json": read_json(TESTBED / f"relations/{other}.json") for other in others},
                "templates.json": read_json(TESTBED / "templates.json")}
    cut = round(len(rows) * EXTRACT)
    return {"values.json": around() | {"values": [{
        "name": name, "pairs": [{"positive": a, "negative": b} for a, b in rows[:cut]],
        "probes": [{"id": f"{name}-{i}", "positive_text": a, "negative_text": b, "level": 0}
                   for i, (a, b) in enumerate(rows[cut:])]}]}}


def of_suite(suite, key):
    """(name, {file: content}) of one concept of a suite; a relation keeps the others, which it is centred with."""
    kind, _, name = key.partition("/")
    known = [f"{of}/{c['name']}" for of in ("trait", "behaviour", "relation", "value")
             for c in getattr(suite, of + "s")]
    if not key and len(known) == 1:
        kind, _, name = known[0].partition("/")
    elif key not in known:
        near = difflib.get_close_matches(key, known, 5, 0) if key else known[:60]
        raise UserError(f"CONCEPT: {key!r} is neither \"name: for | against\" or \"name: file.csv\", nor one of the "
                        f"{len(known)} of {suite.folder}: {', '.join(near)}")

    def only(records):
        return [record for record in records if record["name"] == name]

    files = {"suite.json": read_json(suite.folder / "suite.json") | {"name": f"card-{name}"}}
    if suite.facts or suite.neutral or kind == "value":
        files["values.json"] = {"values": only(suite.values) if kind == "value" else [], "facts": suite.facts,
                                "neutral": suite.neutral}
    if kind == "trait":
        files |= {"grammar.json": suite.grammar} if suite.grammar else {}
        mine = {task: {part: [{k: v for k, v in item.items() if k != "traits"} for item in items
                              if name in item.get("traits", [name])] for part, items in splits.items()}
                for task, splits in suite.tasks.items()}
        files |= {"traits.json": [only(suite.traits)[0] | {"group": None, "task": None}], "tasks.json": mine}
    elif kind == "behaviour":
        (record,) = only(suite.behaviours)
        files |= {record["file"]: record["items"],
                  "behaviours.json": [{k: v for k, v in record.items() if k != "items"}]}
    elif kind == "relation":
        files |= {f"relations/{r['name']}.json": r for r in suite.relations} | {"templates.json": suite.templates}
    return name, files


def studied(name, names):
    """suite.json's `studied`: the relation that stage 03 studies, and one that distracts it."""
    return [name, next(other for other in ("synonym", *names) if other != name)]


def quoted(text):
    """One word of a shell's line for make, which reads a $ after the shell."""
    return shlex.quote(str(text).replace("$", "$$"))


def build(concept, suite="testbed", judge=None):
    """(name, {file of a suite: content}) from CONCEPT; see the head."""
    given = judge
    if judge:
        suites.judge_kind(judge)
    name, colon, told = concept.partition(":")
    name = name.strip()
    if not colon:
        name, files = of_suite(suites.load(suite), name)
        files["suite.json"] |= {"judge": judge} if judge else {}
    else:
        if not NAME.fullmatch(name):
            raise UserError(f"CONCEPT: {name[:61]!r} is no name; expected a to z, A to Z or 0 to 9, then letters, digits, "
                            "- or _, 60 in all at most, before the colon")
        parts = [part.strip() for part in told.split("|")]
        if len(parts) == 1 or Path(parts[0]).suffix in (".csv", ".jsonl"):
            judge, files = "none", from_file(name, parts)
        else:
            judge, files = trait(name, parts, judge)
        files = {"values.json": around(), **files, "suite.json": head(name, judge, f"CONCEPT={concept}")}
    if TAKEN.search(f"card-{name}"):
        raise UserError(f"CONCEPT: {name!r} reads as the results of another judge or profile; expected a name without "
                        "-by- that does not end in -smoke, -quick or -bfloat16")
    relations = [file[10:-5] for file in files if file.startswith("relations/")]
    one = quoted(concept) if re.search(r'["$`\\!]', concept) else f'"{concept}"'
    files["suite.json"]["card"] = f"CONCEPT={one}" + ("" if colon else f" SUITE={quoted(suite)}") + (
        f" JUDGE={quoted(judge)}" if given else "")
    if relations:
        if len(relations) < 2:
            raise UserError(f"relation {name}: the suite has no other, expected one to centre it with")
        files["suite.json"] |= {"studied": studied(name, relations)}
    return name, files


def write(folder, files):
    """A suite folder that holds these files and no others. Returns it, checked."""
    if folder.exists():
        shutil.rmtree(folder)
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / file, content)
    return suites.load(folder)


def main():
    parser = stage.cli(__doc__)
    parser.add_argument("--concept", default="", help="see above; none: the only one of --suite")
    args = parser.parse_args()
    name, files = build(args.concept, args.suite, args.judge)
    folder = Path(args.out) / stage.model_name(args.model) / f"card-{name}" / "suite"
    write(folder, files)
    print(folder)


if __name__ == "__main__":
    artifacts.run(main)
