"""Suites: a miniature folder, its splits, its errors; and the embedded testbed, if it is there."""
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import suite as suites
from lib.judging import judges
from lib.artifacts import UserError

ROOT = Path(__file__).resolve().parent.parent
TESTBED = ROOT / "data" / "suites" / "testbed"


def choices(n):
    """n contents, each in both option orders."""
    rows = []
    for i in range(n):
        for letter in "AB":
            options = ("Yes", "No") if letter == "A" else ("No", "Yes")
            rows.append({"id": f"c{i}{letter}", "question": f"Say {i}?\n(A): {options[0]}\n(B): {options[1]}",
                         "positive": letter, "yes": letter, "contrary": False, "statement": f"Say {i}?",
                         "swap_of": f"c{i}A" if letter == "B" else None})
    return rows


def miniature():
    """All files of a small suite: {path: value}."""
    items = {split: [{"id": f"q-{split}-{i}", "task": "question", "prompt": f"{split} {i}"} for i in range(6)]
             for split in suites.SPLITS}
    other = {task: {split: [{"id": f"{task}-{split}", "task": task, "prompt": f"{task} {split}"}]
                    for split in ("tune", "evaluate")} for task in ("summary", "email")}
    files = {
        "suite.json": {"name": "mini", "judge": "self", "system": "Be helpful.", "strength": "raw",
                       "max_new_tokens": 40, "licence": "MIT", "source": "test"},
        "traits.json": [{"name": f"t{i}", "group": "E1", "task": ("email", "summary", None)[i % 3], "scope": "global",
                         "preference": "x", "instructions": [{"positive": "do", "negative": "do not"}]} for i in range(12)],
        "tasks.json": {"question": items, **other},
        "behaviours.json": [{"name": f"b{i}", "format": "yes_no", "file": f"behaviours/b{i}.jsonl",
                             "positive": f"You are {i}.", "negative": f"You are not {i}.", "planted": None} for i in range(3)],
        "relations/antonym.json": {"name": "antonym", "pairs": [[f"x{i}", f"y{i}"] for i in range(20)], "sources": []},
        "templates.json": [{"name": "arrow", "pair": "{x} -> {y}\n", "query": "{x} ->"}],
        "values.json": {"values": [{"name": "v", "pairs": [{"positive": "a", "negative": "b"}] * 9,
                                    "probes": [{"id": f"p{i}", "prompt": f"The p{i}", "positive": " she", "negative": " he",
                                                "planted": None, "level": i % 3} for i in range(30)]}],
                        "facts": [{"id": f"f{i}", "prompt": "In", "answer": " x"} for i in range(30)], "neutral": ["So."]}}
    return files | {f"behaviours/b{i}.jsonl": choices(20) for i in range(3)}


def write(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = value if name.endswith(".jsonl") else [value]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_miniature_loads(tmp_path):
    suite = suites.load(write(tmp_path / "mini", miniature()))
    assert (suite.name, suite.judge, suite.strength, suite.profile) == ("mini", "self", "raw", "full")
    assert [len(x) for x in (suite.traits, suite.behaviours, suite.values, suite.facts)] == [12, 3, 1, 30]
    assert suites.tasks(suite, "email", "tune")[0]["prompt"] == "email tune"
    assert suites.relation(suite, "antonym")["pairs"][0] == ["x0", "y0"]
    for call in (lambda: suites.tasks(suite, "email", "extract"), lambda: suites.relation(suite, "hypernym")):
        with pytest.raises(UserError, match="nothing for"):
            call()


def aimed():
    """The miniature with tasks whose items are for some traits only, and a value whose probes are whole sentences."""
    files = miniature()
    for splits in files["tasks.json"].values():
        for name, items in splits.items():
            items[:] = [items[0] | {"id": f"{items[0]['id']}-{i}", "prompt": f"{items[0]['prompt']} {i}",
                                    "traits": [f"t{i % 12}", f"t{(i + 1) % 12}"]} for i in range(60)]
    files["values.json"]["values"].append({"name": "w", "pairs": [{"positive": "a", "negative": "b"}], "probes": [
        {"id": f"w{i}", "level": 0, "positive_text": f"Old cats sleep {i}.", "negative_text": f"Young cats sleep {i}."}
        for i in range(20)]})
    return files


def test_items_for_some_traits_only(tmp_path):
    suite = suites.load(write(tmp_path / "mini", aimed()))
    mine = suites.tasks(suite, "email", "tune", "t3")
    assert [item["prompt"].split()[-1] for item in mine] == ["2", "3", "14", "15", "26", "27", "38", "39", "50", "51"]
    assert len(suites.tasks(suite, "email", "tune")) == 60
    with pytest.raises(UserError, match=r"traits\.json: no trait 't99'"):
        suites.tasks(suite, "email", "tune", "t99")
    with pytest.raises(UserError, match="trait t3: nothing for extract"):
        suites.tasks(suite, "email", "extract", "t3")
    plain = suites.load(write(tmp_path / "mini", miniature()))
    assert suites.tasks(plain, "question", "tune", "t3") == suites.tasks(plain, "question", "tune")


def test_smoke_keeps_items_for_every_trait_it_keeps(tmp_path):
    full, smoke = (suites.load(write(tmp_path / "mini", aimed()), profile) for profile in ("full", "smoke"))
    for trait in smoke.traits:
        mine = suites.tasks(smoke, "summary", "evaluate", trait["name"])
        assert mine[:4] == suites.tasks(full, "summary", "evaluate", trait["name"])[:4] and len(mine) < 10
    assert [len(value["probes"]) for value in smoke.values] == [12, 12]


def test_changed_words_are_what_two_sentences_do_not_share():
    pairs = [("The old man's dog ran.", "The young woman's dog ran.", ["old man's"], ["young woman's"]),
             ("Men cook, badly.", "Women do not cook, badly.", ["Men"], ["Women do not"]),
             ("He said it (he did).", "She said it (she did).", ["He", "he"], ["She", "she"]),
             ("A well-off man ate.", "A man ate.", ["well-off"], []),
             ("Asian-Americans ate.", "White Americans ate.", ["Asian-Americans"], ["White Americans"]), ("Same.", "Same.", [], [])]
    for *texts, more, less in pairs:
        spans = suites.changed(*texts)
        assert [[text[a:b] for a, b in side] for text, side in zip(texts, spans)] == [more, less]
        for side in spans:                                     # what is left is the same words in both
            assert side == sorted(side)
        left = ["".join(c for i, c in enumerate(text) if not any(a <= i < b for a, b in side)).split()
                for text, side in zip(texts, spans)]
        assert left[0] == left[1]
    assert suites.shared_words(*pairs[0][:2]) == (["The"], ["dog", "ran"])
    assert suites.shared_words("He is poor.", "He is rich.") == (["He", "is"], [])


def test_digest_covers_every_file_and_nothing_else(tmp_path):
    before = suites.load(write(tmp_path / "a", miniature())).digest
    (tmp_path / "a" / "NOTES.txt").write_text("x")
    assert suites.load(tmp_path / "a").digest == suites.load(tmp_path / "a", "smoke").digest == before
    for name in miniature():
        folder = write(tmp_path / "b", miniature())
        (folder / name).write_text((folder / name).read_text().replace("\n", " \n", 1))
        assert suites.load(folder).digest != before, name


def test_smoke_takes_the_first_few_in_order(tmp_path):
    full, smoke = (suites.load(write(tmp_path / "mini", miniature()), profile) for profile in ("full", "smoke"))
    assert Counter(t["task"] for t in smoke.traits) == {"email": 3, "summary": 3, None: 3}
    assert len(smoke.behaviours) == 2 and smoke.behaviours[0]["items"] == full.behaviours[0]["items"][:20]
    assert len(smoke.relations[0]["pairs"]) == 15 and len(smoke.tasks["question"]["tune"]) == 6
    assert len(full.behaviours[0]["items"]) == 40


def test_parts_may_be_absent_but_not_all(tmp_path):
    files = {name: value for name, value in miniature().items() if name.startswith(("suite", "behaviours"))}
    suite = suites.load(write(tmp_path / "mini", files))
    assert suite.traits == suite.relations == suite.values == suite.neutral == [] and len(suite.behaviours) == 3
    with pytest.raises(UserError, match="no traits, behaviours"):
        suites.load(write(tmp_path / "mini", {"suite.json": files["suite.json"]}))


@pytest.mark.parametrize("n", [6, 10, 36, 37])
def test_behaviour_splits_are_40_10_50_and_never_divide_a_swap_pair(n):
    items = choices(n)
    parts = [suites.split(items, name) for name in suites.SPLITS]
    assert sum(parts, []) == items
    assert [len(part) / 2 for part in parts] == pytest.approx([0.4 * n, 0.1 * n, 0.5 * n], abs=1)
    for part in parts:
        assert len({item["statement"] for item in part}) == len(part) / 2
    for item in items:
        item["swap_of"] = None                             # no swaps: every item stands for itself
    assert [len(suites.split(items, name)) for name in suites.SPLITS] == pytest.approx([0.8 * n, 0.2 * n, n], abs=1)


def test_relation_splits_keep_connected_words_together():
    pairs = [[f"a{i}", f"b{i}"] for i in range(10)] + [["a0", "b1"], ["b1", "c"], ["d", "c"]] + [["a5", "b6"]]
    relation = {"name": "r", "pairs": pairs}
    parts = {name: suites.relation_split(relation, name) for name in suites.SPLITS}
    assert sorted(sum(parts.values(), [])) == sorted(pairs)
    words = [{word for pair in part for word in pair} for part in parts.values()]
    assert not any(a & b for a, b in itertools.combinations(words, 2))
    assert [len(part) for part in parts.values()] == pytest.approx([5.6, 2.8, 5.6], abs=1)
    labels = suites.components(relation)
    assert labels[0] == labels[1] == labels[10] == labels[12] and labels[5] == labels[6] == labels[13]
    assert len(set(labels)) == 8 and labels[0] == 0
    for name in suites.SPLITS:
        assert len(suites.relation_split(relation, name, labels=True)) == len(parts[name])


def test_probe_split():
    assert suites.probe_split(list(range(30)), "tune") == list(range(10))
    assert suites.probe_split(list(range(30)), "evaluate") == list(range(10, 30))
    with pytest.raises(UserError, match="nothing for tune"):
        suites.probe_split([1], "tune")


def test_behaviour_prompts(tmp_path):
    suite = suites.load(write(tmp_path / "mini", miniature()))
    behaviour, item = suite.behaviours[1], suite.behaviours[1]["items"][0]
    question = item["question"]
    assert {setting: suites.behaviour_prompts(suite, behaviour, item, setting) for setting in suites.SETTINGS} == {
        "BASE": ("Be helpful.", question), "SYS_POS": ("You are 1.", question), "SYS_NEG": ("You are not 1.", question),
        "USER_POS": ("Be helpful.", f"You are 1.\n\n{question}"),
        "USER_NEG": ("Be helpful.", f"You are not 1.\n\n{question}")}
    with pytest.raises(KeyError):
        suites.behaviour_prompts(suite, behaviour, item, "BASELINE")


def sentences(positive, negative):
    """A probe of two whole sentences."""
    return {"id": positive, "level": 0, "positive_text": positive, "negative_text": negative}


def broken(path, *keys, value=None):
    """A change of the miniature: the value at files[path][keys] replaced, or removed if None."""
    def change(files):
        place = files[path]
        for key in keys[:-1]:
            place = place[key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
    return change


@pytest.mark.parametrize("change, message", [
    (broken("suite.json", "system"), r"suite\.json: no key 'system'"),
    (broken("suite.json", "max_new_tokens"), r"suite\.json: no key 'max_new_tokens'"),
    (broken("suite.json", "max_new_tokens", value="300"), r"'max_new_tokens' is '300', expected a whole number"),
    (broken("suite.json", "max_new_tokens", value=True), r"'max_new_tokens' is True, expected a whole number above 0"),
    (broken("suite.json", "max_new_tokens", value=-1), r"'max_new_tokens' is -1, expected a whole number above 0"),
    (broken("suite.json", "strength", value="loud"), r"suite\.json: 'strength' is 'loud', expected one of"),
    (broken("traits.json", 3, "scope"), r"traits\.json, \[3\]: no key 'scope'"),
    (broken("traits.json", 3, "name", value="t1"), r"traits\.json, \[3\]: 't1' occurs twice"),
    (broken("traits.json", 2, "instructions", 0, "negative"), r"traits\.json, t2\.instructions, \[0\]: no key 'negative'"),
    (broken("traits.json", 2, "judge_prompt", value="Rate {answer}."), r"json, \[2\]: judge_prompt needs \{question\}"),
    (broken("traits.json", 2, "judge_prompt", value=["{question}", "{answer}"]), r"json, \[2\]: judge_prompt needs"),
    (broken("tasks.json", "email", "tune", 0, "traits", value=["t1", "t12"]), r"email\.tune: email-tune: .*'t12'"),
    (broken("tasks.json", "email", "tune", 0, "traits", value=[]), r"json, email\.tune: email-tune: 'traits' is \[\]"),
    (broken("tasks.json", "email", "tune", 0, "traits", value="t1"), r"email\.tune: email-tune: .*a list of names"),
    (broken("tasks.json", "email", "tune", 0, "traits", value=["t0", "t2"]), r"email\.tune: nothing for the trait t1"),
    (broken("tasks.json", "question", "extract"), r"tasks\.json: no question\.extract"),
    (broken("tasks.json", "question", "evaluate", 0, "prompt", value="extract 0"), r"tasks\.json, question\.evaluate: .*two"),
    (broken("tasks.json", "email", "tune", 0, "task", value="summary"), r"tasks\.json, email\.tune: .*another task"),
    (broken("behaviours.json", 0, "file", value="../b0.jsonl"), r"behaviours\.json, \[0\]: \.\./b0\.jsonl lies outside"),
    (broken("behaviours.json", 0, "file", value="behaviours/no.jsonl"), r"no\.jsonl: cannot be read"),
    (broken("behaviours/b1.jsonl", 4, "positive", value="C"), r"b1\.jsonl, line 5: 'positive' is 'C'"),
    (broken("behaviours/b1.jsonl", 4, "yes"), r"b1\.jsonl, line 5: no key 'yes'"),
    (broken("behaviours/b1.jsonl", 5, "swap_of", value="c9A"), r"b1\.jsonl, line 6: not the swap"),
    (broken("behaviours/b1.jsonl", 5, "positive", value="A"), r"b1\.jsonl, line 6: not the swap"),
    (broken("behaviours/b1.jsonl", 0, "swap_of", value="c0B"), r"b1\.jsonl, line 1: not the swap"),
    (broken("behaviours/b1.jsonl", 0, "question", value="Which?"), r"b1\.jsonl, line 1: .*options"),
    (broken("relations/antonym.json", "pairs", 7, value=["a"]), r"antonym\.json: pairs\[7\]: expected \[x, y\]"),
    (broken("relations/antonym.json", "pairs", value=[["a", "b"]]), r"relation antonym: nothing for tune"),
    (broken("templates.json", 0, "query", value="{y}"), r"templates\.json, \[0\]: .*\{x\}"),
    (broken("values.json", "values", 0, "probes", 2, "level", value=7), r"values\.json, v\.probes, \[2\]: 'level' is 7"),
    (broken("values.json", "values", 0, "probes", 2, "prompt"), r"v\.probes: expected one form"),
    (broken("values.json", "values", 0, "probes", 2, "positive_text", value="A"), r"v\.probes: expected one form"),
    (broken("values.json", "values", 0, "probes", 2, value=sentences("Old men sleep.", "Old cats sleep.")),
     r"v\.probes: expected one form"),
    (broken("values.json", "values", 0, "probes", value=[sentences("Old men sleep.", "Old cats sleep."),
                                                         sentences("The men sleep.", "The men sleep.")]),
     r"v\.probes, \[1\]: .*share no word after"),
    (broken("values.json", "values", 0, "probes", value=[sentences("He is poor.", "He is rich.")]),
     r"v\.probes, \[0\]: .*share no word after"),
    (broken("values.json", "values", 0, "probes", value=[sentences("A man ran.", "A cat ran.") | {"level": 3}]),
     r"v\.probes, \[0\]: 'level' is 3"),
    (broken("values.json", "values", 0, "probes", value=[{"id": "x", "level": 0, "positive_text": "A man ran."}]),
     r"v\.probes, \[0\]: no key 'negative_text'"),
    (broken("values.json", "facts", 1, "answer"), r"values\.json, facts, \[1\]: no key 'answer'"),
    (lambda files: files.update({"behaviours/b1.jsonl": choices(1)}), r"c0A \.\.\. c0B: nothing for extract"),
    (lambda files: files.pop("tasks.json"), r"tasks\.json: cannot be read"),
    (lambda files: files.pop("templates.json"), r"templates\.json: cannot be read"),
    (lambda files: files.update({"traits.json": {}}), r"traits\.json: expected a list"),
    (lambda files: files.update({"traits.json": [1]}), r"traits\.json, \[0\]: expected an object")])
def test_errors_name_file_and_place(tmp_path, change, message):
    files = miniature()
    change(files)
    with pytest.raises(UserError, match=message):
        suites.load(write(tmp_path / "mini", files))


def test_unknown_suite_lists_the_known(tmp_path):
    with pytest.raises(UserError, match="nowhere: no folder with a suite.json"):
        suites.load("nowhere")
    done = subprocess.run([sys.executable, "-m", "lib.suite", str(write(tmp_path / "mini", miniature()))], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "behaviours 3" in done.stdout
    done = subprocess.run([sys.executable, "-m", "lib.suite", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


# --- judges --------------------------------------------------------------------------------------------------------
def test_unknown_judges_are_refused():
    with pytest.raises(UserError, match="unknown judge 'oracle'"):
        judges.load("oracle", SimpleNamespace(name="testbed", judge="rules", grammar={}, traits=[]))


def test_rules_judge_scores_within_its_scale():
    grammar = SimpleNamespace(expression=lambda trait, text, item: len(text), coherence=lambda text, item: 75)
    judge = judges.Rules(grammar)
    assert judge.read([("formal", {"id": "x"}, "ab")]) == [(2.0, 75.0, None)]
    with pytest.raises(ValueError, match="outside"):
        judge.read([("formal", {"id": "x"}, "a" * 101)])


# --- the embedded testbed --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def testbed():
    if not (TESTBED / "suite.json").is_file():
        pytest.skip("data/suites/testbed is not there")
    return suites.load("testbed")


def test_testbed_has_its_parts(testbed):
    assert (len(testbed.traits), len(testbed.behaviours)) == (36, 40)
    sizes = Counter(trait["group"] for trait in testbed.traits)
    assert sizes == {**{f"E{i}": 4 for i in range(1, 5)}, **{f"S{i}": 4 for i in (1, 2, 4, 5)}, "S3": 3, None: 1}
    assert all(len(trait["instructions"]) == 5 for trait in testbed.traits)
    assert all((t["task"] == "email") == (t["group"] or "").startswith("E") for t in testbed.traits)
    assert {trait["scope"] for trait in testbed.traits} == {"global", "local"}
    assert {"antonym", "synonym"} <= {relation["name"] for relation in testbed.relations}
    assert suites.load("testbed", "smoke").digest == testbed.digest
    for value in testbed.values:
        assert suites.value_split(value, "tune") and suites.probe_split(testbed.facts, "tune")


def test_testbed_items_are_balanced(testbed):
    """Letter x Yes/No is an exact 2x2, and every content comes in both orders."""
    for behaviour in testbed.behaviours:
        items = behaviour["items"]
        assert all(item["yes"] is None for item in items) == (behaviour["format"] == "options")
        letters = Counter(item["positive"] for item in items)
        assert letters["A"] == letters["B"] == len(items) / 2, behaviour["name"]
        if behaviour["format"] == "yes_no":
            cells = Counter((item["positive"], item["yes"] == item["positive"]) for item in items)
            assert set(cells.values()) == {len(items) / 4} and len(cells) == 4, behaviour["name"]
        assert sum(item["swap_of"] is not None for item in items) == len(items) / 2


def content(item):
    """A behaviour item without the order of its options."""
    head, _, options = item["question"].partition("(A)")
    return head, frozenset(part.strip(": \n") for part in options.split("(B)"))


def test_testbed_splits_share_nothing(testbed):
    for behaviour in testbed.behaviours:
        parts = [{content(item) for item in suites.split(behaviour["items"], name)} for name in suites.SPLITS]
        assert not any(a & b for a, b in itertools.combinations(parts, 2)), behaviour["name"]
    texts = {}
    for task, splits in testbed.tasks.items():
        for name, items in splits.items():
            for item in items:
                key = item["prompt"], json.dumps(item["facts"], sort_keys=True)
                assert all(texts.setdefault(mark, name) == name for mark in key), item["id"]
    for relation in testbed.relations:
        parts = [{w for pair in suites.relation_split(relation, name) for w in pair} for name in suites.SPLITS]
        assert not any(a & b for a, b in itertools.combinations(parts, 2)), relation["name"]
    for value in testbed.values:
        read = {pair[side] for pair in value["pairs"] for side in ("positive", "negative")}
        assert not read & {probe["prompt"] for probe in value["probes"]}, value["name"]


def test_testbed_judge_is_the_grammar(testbed):
    judge = judges.load(None, testbed)
    item = suites.tasks(testbed, "question", "tune")[0]
    (expression, coherence, _), = judge.read([(testbed.traits[0]["name"], item, "")])
    assert expression == 0 and 0 <= coherence <= 100
