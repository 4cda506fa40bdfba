"""Calibration of a judge in words: planted judges, good and useless ones, and the texts against exact scorers."""
import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

from lib import artifacts, suite as suites
from lib.judging import calibration, judges, natural
from tests import tiny

TEXTS = importlib.import_module("01_extract").TEXTS
KNOWN = artifacts.read_json(TEXTS)
SHOWS = {text["positive"]: name for name, text in KNOWN["traits"].items()}
WHOLE = {*SHOWS, *KNOWN["neutral"], *(text.get("negative") for text in KNOWN["traits"].values())}


class Planted(judges.Words):
    """A judge with planted scores: score(trait, text) -> (expression, coherence)."""

    def __new__(cls, score):
        return object.__new__(cls)

    def __init__(self, score):
        super().__init__("planted", {}, score)

    def read(self, asked):
        return [(*self.ask(trait["name"], text), None) for trait, _, text in asked]


def good(trait, text):
    return (90.0 if SHOWS.get(text) == trait else 10.0), (85.0 if text in WHOLE else 20.0)


def drawn(trait, text):
    rng = np.random.default_rng(list(f"{trait}{text}".encode()))
    return tuple(rng.uniform(52, 58, 2))


@pytest.fixture(scope="module")
def suite():
    return suites.load("testbed")


def check(judge, suite, tmp_path):
    return calibration.check(judge, suite, TEXTS, tmp_path / "01_extract", {}, [1])


def test_a_good_judge_passes(suite, tmp_path):
    rows, refused, results = check(Planted(good), suite, tmp_path)
    assert not refused and len(rows) == 36 and all(row["passed"] for row in rows)
    assert results["gap"]["value"] == 80 and results["drop"]["value"] == 65 and results["passed"]["value"] == 1


@pytest.mark.parametrize("score, says", [
    (lambda trait, text: (55.0, 55.0), "55 of 100 to a text that shows it and 55 to one that does not"),
    (drawn, "to a text that shows it and 5"),
    (lambda trait, text: (good(trait, text)[0], 55.0 if text in WHOLE else 50.0), "55 of 100 to plain text and 50"),
    (lambda trait, text: (None, 80.0), "no usable score to 5 of")])
def test_a_useless_judge_is_refused_whole(score, says, suite, tmp_path):
    rows, refused, results = check(Planted(score), suite, tmp_path)
    assert set(refused) == {trait["name"] for trait in suite.traits} and len(rows) == 36
    assert "planted fails its calibration on 36 of 36 traits" in refused["formal"] and says in refused["formal"]
    assert results["passed"]["value"] == 0
    assert not check(Planted(score), replace(suite, profile="smoke"), tmp_path / "smoke")[1]


def test_single_traits_are_refused_with_their_numbers(suite, tmp_path):
    """Blind for two traits, one by a hair; a judge that only lacks these is used for the others."""
    def score(trait, text):
        expression, coherence = good(trait, text)
        low = {"rhyming": 10.0, "slang": 34.9 if SHOWS.get(text) == "slang" else 10.0}
        return low.get(trait, expression), coherence
    rows, refused, results = check(Planted(score), suite, tmp_path)
    assert set(refused) == {"rhyming", "slang"} and results["passed"]["value"] == pytest.approx(34 / 36)
    assert refused["slang"].startswith("the judge gives 35 of 100 to a text that shows it and 10 to one")


def test_a_trait_without_texts_is_not_trusted(suite, tmp_path):
    odd = suite.traits[0] | {"name": "odd"}
    rows, refused, _ = check(Planted(good), replace(suite, traits=[odd, *suite.traits[:3]]), tmp_path)
    assert set(refused) == {"odd"} and "no text" in refused["odd"] and not rows[0]["passed"]


def test_who_counts_is_not_asked(suite, tmp_path):
    rows, refused, results = check(judges.load("rules", suite), suite, tmp_path)
    assert not rows and not refused and isinstance(results, str) and not (tmp_path / "01_extract.units").exists()


def test_the_texts_are_what_they_should_be():
    """Held to the exact scorers: a positive text shows its trait in full, what stands against it not at all."""
    names = {trait["name"] for trait in suites.load("testbed").traits}
    assert set(KNOWN["traits"]) == names and len(KNOWN["neutral"]) == 2
    for name in natural.SCORERS:
        mine = KNOWN["traits"][name]
        against = [mine["negative"]] if "negative" in mine else KNOWN["neutral"]
        assert natural.expression(name, mine["positive"]) == 100, name
        assert max(natural.expression(name, text) for text in against) < 5, name
    for text in SHOWS:
        mixed = calibration.shuffled(text, [1])
        assert sorted(mixed.split()) == sorted(text.split()) and mixed != text
        assert 8 <= len(text.split()) <= 80


def test_agreement_with_what_can_be_counted():
    rng = np.random.default_rng(1)
    written = [KNOWN["traits"]["emojis"][side] for side in ("positive", "negative")]

    def answers(score):
        texts = [written[i % 2] for i in range(40)]
        return [{"expression": {"emojis": score(natural.expression("emojis", t))}, "output": t} for t in texts]
    judge = Planted(good)
    close = calibration.agreement(judge, answers(lambda x: x / 2 + rng.uniform(0, 10)), [1])
    assert close["low"] > 0.6 and close["n"] == 40
    loose = calibration.agreement(judge, answers(lambda x: rng.uniform(0, 100)), [1])
    assert loose["low"] < 0 < loose["high"]
    assert "or all alike" in calibration.agreement(judge, answers(lambda x: 50.0), [1])
    assert "0 texts" in calibration.agreement(judge, answers(lambda x: None), [1])


def test_stage_01_asks_no_trait_of_a_refused_judge(tmp_path, monkeypatch):
    """Refused as in the full profile: no answer is generated, every trait has its reason."""
    monkeypatch.setattr(judges, "load", lambda *_: Planted(lambda trait, text: (55.0, 55.0)))
    check = calibration.check
    monkeypatch.setattr(calibration, "check", lambda judge, suite, *rest: check(
        judge, replace(suite, profile="full"), *rest))
    one = importlib.import_module("01_extract")
    tiny.save(tmp_path / "tiny", "llama", max_position_embeddings=1024)
    monkeypatch.setattr(sys, "argv", ["01", "--model", str(tmp_path / "tiny"), "--profile", "smoke",
                                      "--out", str(tmp_path / "out")])
    one.main()
    made = artifacts.load(tmp_path / "out" / "tiny" / "testbed-smoke" / "01_extract")
    assert "responses.jsonl" not in made.manifest["outputs"] and made.results["traits"]["n_asked"] == 0
    names = {row["name"] for row in made.table("calibration")}
    assert names == set(made.config["refused"]) == set(made.results["traits"]["not_extractable"])
    for name in names:
        assert "fails its calibration on 7 of 7" in made.results["not_testable"][f"traits.{name}"]
    assert "agreement" not in made.results["calibration"] and "calibration.agreement" in made.results["not_testable"]
