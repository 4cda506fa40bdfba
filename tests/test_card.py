"""Cards: a concept becomes a suite, the stages run on it, and the page says what they measured."""
import argparse
import contextlib
import csv
import importlib
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from data import checkpoint, concept
from lib import artifacts, identity, suite as suites, vectors
from lib.artifacts import UserError
from lib.judging import judges, natural
from lib.studies import transfer, tuning, values
from report import card, card_along, card_draw, card_kinds, card_parts, card_read, export
from tests import tiny

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```([\w.]+)\n(.*?)^```", DOCUMENT, re.M | re.S))
PINNED = (ROOT / "requirements.txt").read_text(encoding="utf-8")
READ = (*card.STAGES, card_parts.CONTRASTS)
RUN_STAGE = card.run_stage               # the fixture below replaces it
MINE, OTHER = "by-me-v1.0-smoke.pt", "other.lm-eval.pt"
FORMAL = "formal: Write in a formal tone. | Write in a casual tone."


# --- a concept becomes a suite ------------------------------------------------------------------------------
@pytest.mark.parametrize("file, kind", [("tea.csv", "statement"), ("risk.csv", "choice"), ("capital.csv", "relation"),
                                        ("careful.jsonl", "value")])
def test_documented_examples(file, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(concept, "LEAST", dict.fromkeys(concept.LEAST, 2))
    (tmp_path / file).write_text(EXAMPLES[file])
    found, rows = concept.rows_of(tmp_path / file)
    assert found == kind and len(rows) == 2
    _, files = concept.build(f"mine: {tmp_path / file}")
    if kind in ("statement", "choice"):
        items = files["behaviours/mine.jsonl"]
        assert len(items) == 4 and [item["positive"] for item in items].count("A") == 2
        assert [item["swap_of"] for item in items] == [None, "0-a", None, "1-a"]


def test_documented_trait(tmp_path):
    text = EXAMPLES["concept"].strip()
    name, files = concept.build(text)
    suite = concept.write(tmp_path / "suite", files)
    assert name == "formal" and suite.judge == "self" and len(suite.traits[0]["instructions"]) == 5
    assert {pair["positive"] for pair in suite.traits[0]["instructions"]} == {"Write in a formal tone.", "Be formal."}
    assert concept.build("bullets: Use bullets. | Use none.")[1]["suite.json"]["judge"] == "rules"
    assert concept.build("bullets: Use bullets. | Use none.", judge="self")[1]["suite.json"]["judge"] == "self"


def test_options_follow_their_letters():
    """Whatever the order, the letter called positive stands before the option that shows the behaviour."""
    items = concept.both_orders("choice", [("Q1?", "yes please", "no thanks", "A"), ("Q2?", "left", "right", "B")])
    for item, shows in zip(items, ("yes please", "yes please", "right", "right")):
        assert f"({item['positive']}): {shows}" in item["question"]
    for item, shows in zip(concept.both_orders("statement", [("s", "No"), ("t", "Yes")]), ("No", "No", "Yes", "Yes")):
        assert f"({item['positive']}): {shows}" in item["question"] and f"({item['yes']}): Yes" in item["question"]


def test_splits_share_nothing_that_made_the_vector(tmp_path):
    write(tmp_path / "v.csv", ("positive", "negative"), value_rows())
    found = concept.write(tmp_path / "suite", concept.build(f"v: {tmp_path / 'v.csv'}")[1]).values[0]
    probes = {probe["positive_text"] for part in ("tune", "evaluate") for probe in suites.value_split(found, part)}
    assert not probes & {pair["positive"] for pair in suites.value_split(found, "extract")} and len(probes) == 24


@pytest.mark.parametrize("text, fault", [
    ("statement,answer\nI like tea.,Maybe\n", "line 2: answer is 'Maybe', expected Yes or No"),
    ("statement,answer\nI like tea.,Yes\n,No\n", "line 3: statement is '', expected text"),
    ("statement,answer\nI like tea.,Yes\nI like tea.,No\n", "line 3: 'I like tea.' stands in line 2 too"),
    ("statement,answer\nI like tea.,Yes\n", "line 2: ends after 1 rows, expected 20 or more"),
    ("text,label\na,b\n", "line 1: the columns text, label; expected statement, answer; or question, a, b, answer"),
    ("positive,negative\nHe ran.,She ran.\nHe,She\n", "line 3: the sentences share no word"),
    ("", "line 1: expected rows")])
def test_wrong_files_are_named(text, fault, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(fault)) as error:
        concept.build(f"mine: {tmp_path / 'x.csv'}")
    assert "x.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, fault", [
    ("../x: a | b", "is no name"), ("odd: a | b", "has no text to be tried on"), ("formal: a | ", "expected an instruction"),
    ("formal: a | b | c | d", "4 parts"), ("mine: nowhere.csv", "cannot be read"), ("trait/none", "is neither"),
    ("mine: file.txt", "expected a .csv or .jsonl file")])
def test_wrong_concepts_are_named(text, fault):
    with pytest.raises(UserError, match=re.escape(fault)):
        concept.build(text)


def test_a_text_that_shows_it_is_enough_for_a_new_name():
    _, files = concept.build("pirate: Talk like a pirate. | Talk plainly. | Arr, me hearties, hoist the sail!")
    assert files["traits.json"][0]["calibration"] == {"positive": "Arr, me hearties, hoist the sail!"}


@pytest.mark.parametrize("key", ["trait/allcaps", "behaviour/openness", "relation/past", "value/pronoun"])
def test_a_concept_of_a_suite(key, tmp_path):
    suite = concept.write(tmp_path / "suite", concept.build(key)[1])
    assert card.concept_of(suite) == key


# --- the stages' additions ----------------------------------------------------------------------------------
def test_window_and_what_breaks():
    candidates = [{"strength": s, "expression": e, "coherence": c} for s, e, c in (
        (0.5, 5, 90), (1.0, 20, 80), (1.5, 60, 76), (2.0, 90, 74), (3.0, 90, 10))]
    assert tuning.window(candidates, 5, 75) == {"window": [1.0, 1.5], "breaks": 2.0}
    assert tuning.window(candidates[:1], 5, 75) == {"window": None, "breaks": None}


def test_a_layer_that_a_file_lacks_is_not_picked():
    vector = np.zeros((3, 4))
    vector[1] = 2
    points = tuning.grid(vector, np.ones((2, 3)), [1.0])
    assert [point[2] for point in points] == [0, 0.25, 0] and tuning.live(vector, [0, 2]) == [1] == tuning.live(vector, [1, 2])
    slopes = {"behaviour/x": -np.ones((2, 3, 4)) * np.array([0, 1, 0])[:, None]}           # it works backwards there
    items = {"behaviour/x": [{"id": str(i), "positive": "AB"[i % 2]} for i in range(4)]}
    tuned = tuning.settle_behaviours(slopes, items, {"behaviour/x": vector}, np.ones((2, 3)), 1.0, [1])[0]
    assert tuned["behaviour/x"]["layer"] == 1


def test_trait_inputs_against_a_plain_count():
    rng = np.random.default_rng(0)
    plain, steered = rng.integers(0, 50, 12), rng.integers(0, 100, 12)
    told = {("t", "question", arm): {str(i): {"expression": float(x)} for i, x in enumerate(found)}
            for arm, found in (("unsteered", plain), ("steered", steered), ("shuffled", plain))}
    (row,) = transfer.trait_inputs(told, ["t"], ["question"], {str(i): i for i in range(12)}, [1])
    assert row["worse"]["value"] == np.mean(steered < plain) and row["unmoved"]["value"] == np.mean(steered == plain)
    assert row["steered_minus_shuffled"]["value"] == pytest.approx(np.mean(steered - plain))


def test_what_breaks_against_a_plain_count():
    known, facts = np.array([1, 1, 1, 0], bool), np.array([[1, 1], [0, 1], [0, 1], [0, 0]], bool)
    found = {"known": known, "facts": facts, "plain_text": np.array([-10.0, -20]), "text": np.array(
        [[-12.0, -10], [-22, -20]]), "tokens": np.array([5, 5])}
    (row,), results = values.breaks({"trait/t": found}, [1])
    assert row["fact_loss"]["value"] == 0.5 and row["fact_loss_random"]["value"] == 0 and row["facts_known"] == 0.75
    assert row["perplexity"]["value"] == pytest.approx(np.exp(4 / 10)) and row["perplexity_random"]["value"] == 1
    assert results["fact_loss_minus_random"]["value"] == 0.5


# --- what moves along ---------------------------------------------------------------------------------------
def texts_of(cases, own):
    """[{arm: text}] of a trait's prompts, from the rows of cases.jsonl."""
    told = {}
    for case in cases:
        if own in case["expression"] and case["task"] in card_parts.TASKS:
            told.setdefault((case["task"], case["item"]), {})[case["arm"]] = case["output"]
    return list(told.values())


def along(cases, own):
    return artifacts.plain(card_along.along(texts_of(cases, own), own))


def test_what_moves_along_is_what_was_planted():
    """Every steered text has its second sentence in capitals; every other random one is a list."""
    plain = [f"The tea of day {i} was warm. We talked for hours about the garden." for i in range(20)]
    listed = [f"- The tea of day {i} was warm.\n- We talked for hours about the garden." for i in range(20)]
    texts = [{"unsteered": a, "steered": a.replace("hours", "HOURS AND YOU DID NOT STOP"),
              "random": listed[i] if i % 2 else a} for i, a in enumerate(plain)]
    found = card_along.along([*texts, {"unsteered": "We DID.", "steered": "We did."}], "steps")
    assert set(found) == set(natural.SCORERS) - {"steps"} and found["bullets"]["over_random"]["value"] == -50
    assert card_along.moved(found)[0] == "allcaps" and "bullets" not in card_along.moved(found)
    alike = [arms | {"random": arms["steered"].replace("tea", "pot")} for arms in texts]      # random ones do it as well
    assert card_along.moved(card_along.along(alike, "steps")) == []
    assert found["allcaps"]["steered"]["value"] == 100 and found["allcaps"]["steered"]["n"] == 20
    assert "widened for 20 units and 16 parts" in found["allcaps"]["steered"]["method"]
    assert "allcaps" not in card_along.along(texts, "allcaps")
    assert card_along.along([{"steered": "We did."}], "x") == card_along.along(texts[:1], "x") == {}


@pytest.mark.parametrize("other", ["unsteered", "random"])
def test_where_nothing_moves_nothing_is_told(other):
    """Steered and unsteered or random texts exchanged by lot, of a vector that moves three other traits: told in few cards."""
    cases = artifacts.load(ROOT / "outputs/committed/pico-llama/testbed/03_transfer").table("cases")
    texts, rng = texts_of(cases, "conditionals"), np.random.default_rng(0)
    assert card_along.moved(card_along.along(texts, "conditionals")) == ["longflowing", "shortpunchy", "secondperson"]

    def by_lot(arms):
        return arms | ({"steered": arms[other], other: arms["steered"]} if rng.random() < 0.5 else {})

    told = [card_along.moved(card_along.along(list(map(by_lot, texts)), "conditionals")) for _ in range(20)]
    assert sum(map(bool, told)) <= 1


# --- the whole way, on a tiny model -------------------------------------------------------------------------
def write(path, columns, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def value_rows():
    return [(f"The old man number {i} sat down.", f"The young man number {i} sat down.") for i in range(40)]


class Alternating:
    """A judge without a model: what is asked first shows the trait, what is asked next does not."""
    name = "alternating"

    def read(self, asked):
        return [(0.0 if i % 2 else 100.0, 90.0, None) for i in range(len(asked))]

    def preferences(self, asked):
        return [0] * len(asked)


def in_process(name, args, suite):
    """A stage in this process: importing torch for each would take most of the time."""
    script = ROOT / ("." if name in card.STAGES else "report") / f"{name}.py"
    words = [str(script), "--model", args.model, "--suite", str(suite), "--profile", args.profile, "--out", args.out]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as told:
        patch.setattr(sys, "argv", words)
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise UserError(told.getvalue().splitlines()[-1].removeprefix("error: ")) from None


def make(patch, text, *more):
    """`make card` at smoke size; returns the folder and the card."""
    for module, words in (("data.concept", ["--concept", text]), ("report.card", list(more))):
        suite = ["--suite", make.folder] if module == "report.card" else []
        patch.setattr(sys, "argv", [module, "--model", "tiny", *suite, *words, "--profile", "smoke"])
        importlib.import_module(module).main()
        make.folder = f"outputs/tiny/card-{text.partition(':')[0]}/suite"
    folders = sorted(Path("outputs/tiny").glob(f"card-{text.partition(':')[0]}*-smoke/card.json"),
                     key=lambda path: path.stat().st_mtime)
    return folders[-1].parent, artifacts.read_json(folders[-1])


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """{kind: (folder, card)} of the four kinds, and of two vectors from elsewhere for the behaviour: its own, with a row
    for the embeddings in front and none that says its layers; and a random one with a coefficient."""
    folder = tmp_path_factory.mktemp("cards")
    tiny.save(folder / "tiny", "llama", max_position_embeddings=1024)
    write(folder / "tea.csv", ("statement", "answer"), [(f"I like {d} {i}.", a) for i in range(12) for d, a in (
        ("tea", "Yes"), ("coffee", "No"))])
    write(folder / "r.csv", ("x", "y"), [(f"cat{i}", f"mat{i}") for i in range(40)])
    write(folder / "v.csv", ("positive", "negative"), value_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(card, "run_stage", in_process)
        patch.setattr(judges, "load", lambda name, suite, lm=None: Alternating() if suite.traits else judges.Words(
            "none", {}, None))
        make.folder = None
        found = {"trait": make(patch, FORMAL), "behaviour": make(patch, "likes-tea: tea.csv"),
                 "relation": make(patch, "rhyme: r.csv"), "value": make(patch, "old: v.csv")}
        own = artifacts.load(found["behaviour"][0] / "01_extract").array("vectors")[0]
        torch.save(torch.from_numpy(np.concatenate([own[:1], own])), MINE)
        vectors.save(OTHER, "lm-eval", {1: np.random.default_rng(0).standard_normal(own.shape[1]).astype("f4")}, 2.0)
        for name in (MINE, OTHER):
            found[name] = make(patch, "likes-tea: tea.csv", "--vector", name)
        yield {kind: (folder / at, one) for kind, (at, one) in found.items()}


def check_numbers(at, found):
    """Every number of a card is the one that its stage has there, or comes out again from that stage's rows."""
    key = found["concept"].partition("/")[2]
    stages = {name: artifacts.load(at / name, name) for name in READ}
    assert len(found["numbers"]) > 8 and found["digests"] == {name: one.digest for name, one in stages.items()}
    for name, number in found["numbers"].items():
        stage, table, *steps = number["at"]
        if "counted" in number:
            assert along(stages[stage].table(table), key)[number["counted"]] == number["found"], name
        elif "computed" in number:
            assert number["shown"] == card_read.deciding(number["found"])
        elif "layer" in number:
            rows = stages[stage].table(table)
            assert number["found"] == sorted({row["strength"] for row in rows if row["strength"] and (row["key"], row["layer"])
                                              == (found["concept"], number["layer"])}), name
        else:
            assert card_read.look(stages[stage], table, steps) == number["found"], name


@pytest.mark.parametrize("kind", ["trait", "behaviour", "relation", "value", MINE, OTHER])
def test_a_card_says_what_the_stages_measured(kind, cards):
    at, found = cards[kind]
    check_numbers(at, found)
    counted = [number["counted"] for number in found["numbers"].values() if "counted" in number]
    assert sorted(counted) == (sorted(natural.SCORERS) if kind == "trait" else [])
    page = (at / "card.md").read_text()
    assert found["verdict"] in page and found["command"] in page and (at / "card.png").stat().st_size > 10_000
    assert all(f"**{question}**" in page for question in card_parts.QUESTIONS)
    assert 0 < len(found["worst"]) <= card_parts.WORST and found["picture"]["inputs"] == sorted(found["picture"]["inputs"])
    assert all(case["input"].splitlines()[0] in page for case in found["worst"])
    first, made = page.splitlines()[2], {"trait": "pairs of answers", "behaviour": "questions, answered with either letter",
                                         "relation": "lists of 2 examples, drawn from", "value": "pairs of sentences"}
    assert "(smoke: a handful of inputs" in first and (kind not in made or made[kind] in page)
    assert (kind in made) == ("not known" not in page) and (kind in made or " new " not in page)
    assert (kind == OTHER) == ("its coefficient, 2, multiplied in;" in page)
    if kind == "behaviour":
        assert "You are someone of whom this is true: likes tea." in page and "is not true: likes tea." in page
    if kind == "relation":
        order = [page.index(f"{context} ") for context in ("bare", "1 sentence", "3 sentences", "10 sentences", "other pairs")]
        assert order == sorted(order) and "The first token of the answer" in page


def test_the_effect_of_asking_is_counted_by_hand(cards):
    at, found = cards["behaviour"]
    stage = artifacts.load(at / "03_transfer")
    steered, plain = stage.array("propensity"), stage.array("propensity_unsteered")
    pairs, one = [tuple(pair) for pair in stage.config["pairs"]], stage.config["multipliers"].index(1.0)
    vector = steered[:, pairs.index(("BASE", "BASE")), one] - plain[:, 0]
    asked = plain[:, 1] - plain[:, 0]                      # settings: BASE, SYS_POS, ...
    number = found["numbers"]["odds under the persona sentence less under the vector"]["found"]
    assert number["value"] == pytest.approx((asked - vector).mean(), abs=1e-5) and number["n"] == len({
        item["content"] for item in stage.table("behaviour_items")})
    both = steered[:, pairs.index(("BASE", "SYS_POS")), one] - plain[:, 1]
    assert found["numbers"]["odds under both less under the sentence"]["found"]["value"] == pytest.approx(both.mean(), abs=1e-5)


def test_the_models_own_vector_gives_the_same_numbers(cards):
    own, mine = cards["behaviour"][1], cards[MINE][1]

    def rounded(card):                                     # rows of other vectors stand in the same batches
        return artifacts.plain(card["picture"], digits=4) | {"forest": [
            [label, {end: round(found[end], 5) for end in ("value", "low", "high")} if isinstance(found, dict) else
             round(found, 5)] for label, found in card["picture"]["forest"]]}

    assert rounded(own) == rounded(mine) and own["word"] == mine["word"] and mine["vector"] == MINE
    rows = mine["numbers"]["foreign vector, own"]["found"]
    assert [round(row["cosine"], 5) for row in rows] == [1.0] * len(rows)


def test_a_single_layer_from_elsewhere_is_the_one_that_is_used(cards):
    found = cards[OTHER][1]
    assert found["numbers"]["layer"]["found"] == 1 and abs(found["numbers"]["foreign vector, own"]["found"][0]["cosine"]) < 0.9
    assert found["word"] in ("nothing", "undecided", "backwards") and "Cosine with the concept's own" in str(found["answers"])


def called(patch, module, *words):
    patch.setattr(sys, "argv", [module.__name__, "--model", "tiny", "--profile", "smoke", *words])
    module.main()


def test_the_vector_of_a_card_is_what_is_exported(cards, monkeypatch, tmp_path):
    """The file's own, times its coefficient and the tuned one."""
    (at, found), key = cards[OTHER], "behaviour/likes-tea"
    monkeypatch.chdir(at.parents[2])
    suite = at.with_name(at.name.removesuffix("-smoke")) / "suite"
    assert artifacts.read_json(suite / card.FOREIGN)["file"] == OTHER
    called(monkeypatch, export, "--suite", str(suite), "--concept", key, "--format", "npy", "--measure", "0", "--to",
           str(tmp_path / "x.npy"))
    tuned = artifacts.load(at / "02_tune").table("tuned")[key]["coefficient"]
    assert np.allclose(np.load(tmp_path / "x.npy"), tuned * 2 * vectors.load(OTHER).layers[1], rtol=1e-5)
    assert artifacts.read_json(tmp_path / "x.npy.json")["vector"]["file"] == OTHER
    with pytest.raises(UserError, match="its vector is from elsewhere"):
        called(monkeypatch, card, "--suite", str(suite))


def test_a_vector_of_a_concept_that_cannot_be_asked_for_leaves_the_own_card(cards, monkeypatch):
    own = cards["behaviour"][0]
    before = {path: path.read_bytes() for path in own.glob("card.*")}

    def refused(name, args, suite):
        raise UserError("suite: nothing is extractable from tiny: no letters")

    monkeypatch.chdir(own.parents[2])
    monkeypatch.setattr(card, "run_stage", refused)
    vectors.save("third.npy", "npy", {1: np.ones(artifacts.load(own / "01_extract").array("vectors").shape[-1], "f4")})
    Path("third.npy.json").unlink()
    suite = str(own.with_name("card-likes-tea") / "suite")
    called(monkeypatch, card, "--suite", suite, "--vector", "third.npy", "--layer", "1")
    told = own.parent / f"card-likes-tea-of-third-{identity.sha256('third.npy')[:8]}-layer1-smoke/card.md"
    lines = told.read_text().splitlines()
    assert lines[0] == "# behaviour/likes-tea on tiny: third.npy" and lines[2].startswith("**Not judged (smoke")
    assert len(before) == 3 and before == {path: path.read_bytes() for path in own.glob("card.*")}
    called(monkeypatch, card, "--suite", suite)
    assert (own / "card.md").read_text().splitlines()[2].startswith("**No vector (smoke")
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize("array, layer, fault", [
    (np.ones((1, 7), "f4"), "1", r"vector \(7,\), expected"), (np.ones((9, 32), "f4"), None, r"array \(9, 32\); expected"),
    (np.ones(32, "f4"), "9", "layer 9, expected layers 0 to"), (np.ones(32, "f4"), None, "give the layer")])
def test_what_is_no_vector_of_the_model_is_said_before_stage_01(array, layer, fault, cards, monkeypatch):
    monkeypatch.chdir(cards["behaviour"][0].parents[2])
    monkeypatch.setattr(card, "run_stage", lambda *_: pytest.fail("a stage ran"))
    np.save("wrong.npy", array)
    with pytest.raises(UserError, match=fault):
        called(monkeypatch, card, "--suite", "outputs/tiny/card-likes-tea/suite", "--vector", "wrong.npy",
               *(["--layer", layer] if layer else []))


@pytest.mark.parametrize("words", [["--profile", "quick"], ["--sizes", "traits=1"], ["--judge", "self"]])
def test_what_a_card_has_not_is_refused(words, monkeypatch):
    with pytest.raises(UserError, match="a card is full or smoke"):
        called(monkeypatch, card, *words)


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_a_stage_gets_what_make_got(nproc, tmp_path, monkeypatch):
    """DTYPE and NPROC reach the stage as `make tune` would hand them on; the page names what changes a number."""
    (tmp_path / "01_s.py").write_text(
        "import os, sys\nwith open('said-' + os.environ.get('RANK', '-'), 'w') as file:\n"
        "    file.write(os.environ['OMP_NUM_THREADS'] + '\\n'.join(sys.argv[1:]))\n"
        "sys.exit('error: no such thing' if '--fail' in sys.argv[2] else 0)")
    monkeypatch.setattr(card, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(model="data/models/m", profile="smoke", dtype="bfloat16", nproc=nproc, out="o")
    RUN_STAGE("01_s", args, "a suite")
    ranks = {"1": ["said--"], "2": ["said-0", "said-1"]}[nproc]
    assert sorted(path.name for path in tmp_path.glob("said-*")) == ranks
    words = "--model|data/models/m|--suite|a suite|--profile|smoke|--dtype|bfloat16|--out|o".split("|")
    one_thread = "1"                                       # of an embedded model
    assert all((tmp_path / rank).read_text() == one_thread + "\n".join(words) for rank in ranks)
    with pytest.raises(UserError, match="^no such thing$"):
        RUN_STAGE("01_s", argparse.Namespace(**{**vars(args), "model": "--fail"}), "a suite")


def test_the_command_names_what_changes_a_number(tmp_path):
    suite = concept.write(tmp_path / "suite", concept.build("trait/allcaps")[1])
    args = argparse.Namespace(model="org/m", profile="full", dtype="float32", nproc="4", vector=None, layer=None)
    assert card.command_of(args, suite) == 'make card CONCEPT="trait/allcaps" SUITE=testbed MODEL=org/m'
    args.model = "data/checkpoints/smollm2-135m-instruct-q4_1"
    assert card.command_of(args, suite).endswith(" MODEL=smollm2-135m-instruct-q4_1")
    for path in ("/elsewhere/m", "data/checkpoints/gguf-m-01234567", str(tmp_path)):
        args.model = path
        assert card.command_of(args, suite).endswith(f" MODEL={path}")
    args.model = str(checkpoint.HOME / "smollm2-135m-instruct-q4_1")
    assert card.command_of(args, suite).endswith(" MODEL=smollm2-135m-instruct-q4_1")
    args.model, args.dtype = "org/m", "bfloat16"
    assert card.command_of(args, suite).endswith(" MODEL=org/m DTYPE=bfloat16")


def test_the_command_hands_on_what_was_typed(tmp_path):
    """Through the shell and make, which both have words of their own."""
    suite = concept.write(tmp_path / "suite", concept.build("trait/allcaps")[1])
    vector = "it's $HOME/$(pwd) my `file`.pt"
    args = argparse.Namespace(model="a model", profile="smoke", dtype="float32", vector=vector, layer=0)
    (tmp_path / "Makefile").write_text("export MODEL VECTOR LAYER PROFILE\ncard:\n"
                                       "\t@printf '%s|' \"$$MODEL\" \"$$VECTOR\" \"$$LAYER\" \"$$PROFILE\"\n")
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}               # without MAKEFLAGS of a make around
    done = subprocess.run(["bash", "-c", card.command_of(args, suite)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == f"a model|{vector}|0|smoke|", done.stderr


def test_a_stale_stage_is_noticed(cards, tmp_path):
    """A card is made of stages that belong together; a vector of another shape is refused in one line."""
    vectors.save(tmp_path / "wide.npy", "npy", {1: np.ones(7, "f4")})
    with pytest.raises(UserError, match="wide.npy"):
        card.place(artifacts.load(cards["behaviour"][0] / "01_extract"), "behaviour/likes-tea", tmp_path / "wide.npy", None,
                   tmp_path / "01_extract")


@pytest.mark.parametrize("low, high, word", [(5, 9, "works"), (-2, 3, "nothing"), (-2, 40, "undecided"), (-9, -5, "backwards")])
def test_the_first_line_follows_the_interval(low, high, word):
    part = {"effect": {"value": (low + high) / 2, "low": low, "high": high, "n": 5}, "least": 10, "told": "x", "n": "5 cats",
            "but": ["y"], "harm": ["it costs facts"]}
    found, line = card.verdict(part, "trait/t", "here")
    assert found == word and line.endswith("; but y; it costs facts." if word == "works" else "; and it costs facts.")
    assert "x (5 cats)" in line
    assert ("moves nothing" in line) == (word == "nothing")
    line = card.verdict({**part, "along": ["steps"]}, "trait/t", "here")[1]
    assert "moves nothing" not in line and ("moves steps here, but not t" in line) == (word == "nothing")


@pytest.mark.parametrize("value, n, word", [(0, 2, "undecided"), (0, 50, "undecided"), (100, 2, "undecided"), (100, 12, "works"),
                                            (-100, 12, "backwards")])
def test_inputs_that_are_all_alike_are_no_interval(value, n, word):
    """But ten that show the trait, all of them, are no luck: 1 of 512."""
    part = {"effect": {"value": value, "low": value, "high": value, "n": n}, "least": 10, "told": "x", "n": "n", "but": [],
            "harm": []}
    found, line = card.verdict(part, "trait/t", "here")
    assert found == word and (word == "undecided") == ("that is no interval" in line)
    assert card_read.est(part["effect"], 0) == card_read.draw.number(value, 0) + f" (all {n} alike)"


def test_a_share_has_wilsons_interval():
    """None of n: up to z^2 / (n + z^2)."""
    read = card_read.Read({})
    read.numbers = {"none": {"found": {"value": 0.0, "low": 0.0, "high": 0.0, "n": 2}}, "half": {"found": 0.5}}
    assert read.share("none") == f"0 [0, {100 * 1.96 ** 2 / (2 + 1.96 ** 2):.0f}] %"
    assert read.share("half", 100) == "50 [40, 60] %" and read.numbers["half"]["shown"]["n"] == 100


@pytest.mark.parametrize("at", sorted(path.parent for path in ROOT.glob("report/cards/*/01_extract")), ids=lambda at: at.name)
def test_an_example_is_rebuilt_from_its_stages(tmp_path, at):
    """Page, numbers and picture, byte by byte, from the stages that are committed beside them."""
    suite, told = suites.load(at / "suite"), artifacts.read_json(at / "card.json")
    for name in READ:
        stage = artifacts.load(at / name, name)
        assert stage.manifest["inputs"]["suite"] == suite.digest and all(map(stage.file, stage.manifest["outputs"]))
        (tmp_path / name).symlink_to(at / name)
    card.build(tmp_path, suite, told["command"])
    same = ["card.json", "card.md"] + ["card.png"] * (f"matplotlib=={matplotlib.__version__}\n" in PINNED)
    assert [file for file in same if (tmp_path / file).read_bytes() != (at / file).read_bytes()] == []


def test_what_a_relations_card_computes_is_counted_by_hand():
    at = ROOT / "report/cards/capital"
    items, rank, logp = (artifacts.load(at / "03_transfer").table("way_items"), *(np.load(at / f"03_transfer/{name}.npy") for name in
                         ("way_rank", "relation_logp")))
    numbers = {number["computed"]: number["found"] for number in artifacts.read_json(at / "card.json")["numbers"].values()
               if "computed" in number}
    clean = [i for i, item in enumerate(items) if item["context"] == "clean list"]
    change = [int(rank[i, 1] == 0) - int(rank[i, 0] == 0) for i in clean]
    assert numbers["top-1 behind clean lists, vector less none"]["value"] == pytest.approx(sum(change) / len(change))
    each = {}
    for i, item in enumerate(artifacts.load(at / "03_transfer").table("relation_items")):
        if item["context"] == "bare":
            each.setdefault(item["x"], []).append((logp[i, 0], logp[i, 1] - logp[i, 0]))
    plain, gain = np.array([np.mean(rows, axis=0) for rows in each.values()]).T
    assert {len(rows) for rows in each.values()} == {12} and f"{sum(gain < 0)} of {len(gain)} answers" in (at / "card.md").read_text()
    ranks = [np.argsort(np.argsort(x)) for x in (plain, gain)]
    assert numbers["rank correlation of the gain with the unsteered log-probability"]["value"] == pytest.approx(
        np.corrcoef(*ranks)[0, 1], abs=1e-6)


@pytest.mark.parametrize("ahead, told", [(-20, True), (-9, False), (58, False)])
def test_a_setting_that_does_more_is_named(ahead, told):
    """The tuned setting decides; one of the published search that gains what counts more is in the first line."""
    stages = {name: artifacts.load(ROOT / "report/cards/thirdperson" / name) for name in READ}
    stages["03_transfer"].results["traits"]["search_effect"]["value"] = ahead
    part = card_kinds.trait(card_read.Read(stages), "trait/thirdperson", None)
    line = card.verdict(part, "trait/thirdperson", "here")[1]
    assert ("(20.0 more where the published search sets it)" in line) == told
    assert ("layer 3, 1.3 units, new questions show 20.0 points more" in str(part["answers"])) == told


@pytest.mark.parametrize("path", sorted(ROOT.glob("report/cards/*/card.json")), ids=lambda path: path.parent.name)
def test_committed_cards_are_what_their_numbers_say(path):
    """Page and picture from the card's own numbers, byte by byte: also of cards whose stages are not committed."""
    found = artifacts.read_json(path)
    assert card.markdown(found) == path.with_name("card.md").read_text(encoding="utf-8")
    assert "picture" not in found or card_draw.draw_card(found).axes[0].get_title(loc="left") == "Effect and controls"


def test_no_vector_is_said_in_one_line(tmp_path):
    told = {"concept": "trait/t", "model": "m", "vector": None, "word": "no vector", "verdict": "No vector: nothing is "
            "extractable from m: 0 of 20 pairs kept.", "sure": ["Made with `make card`."]}
    card.save(tmp_path, told)
    assert "0 of 20 pairs" in (tmp_path / "card.md").read_text() and json.loads((tmp_path / "card.json").read_text()) == told
