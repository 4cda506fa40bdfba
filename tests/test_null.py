"""Null runs: the vectors that take the place of a model's, and how verdicts are counted. The chains themselves run with
`make null`."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib import artifacts, models
from report import claims, null
from report.planted import Planted

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A stage 01 of three concepts, four layers and eight dimensions."""
    rng = np.random.default_rng(3)
    arrays = {"vectors": (rng.normal(size=(3, 4, 8)).astype(np.float32), ("concept", "layer", "d_model")),
              "shuffled_vectors": (rng.normal(size=(3, 5, 4, 8)).astype(np.float32), ("concept", "draw", "layer", "d_model")),
              "setting_vectors": (rng.normal(size=(5, 2, 4, 8)).astype(np.float32),
                                  ("setting", "behaviour", "layer", "d_model")),
              "residual_norm": (np.ones(4, np.float32), ("layer",))}
    return artifacts.save(tmp_path_factory.mktemp("null") / "01_extract", stage="01_extract", config={"seed": 1},
                          inputs={"suite": "s"}, arrays=arrays, tables={"concepts": [{"key": k} for k in "abc"]},
                          results={"n": 3})


@pytest.mark.parametrize("kind, seed", [("random", 1), ("random", 2), ("shuffled", 0), ("shuffled", 3)])
def test_a_null_vector_has_the_norm_and_nothing_else(made, tmp_path, kind, seed):
    null.derive(kind, seed, made, tmp_path / "01_extract")
    other = artifacts.load(tmp_path / "01_extract", "01_extract")
    assert other.config == {"seed": 1, "null": [kind, seed]} and other.results == made.results
    for name in ("vectors", "setting_vectors"):
        old, new = made.array(name), other.array(name)
        assert new.shape == old.shape and not np.isclose(new, old).any(axis=-1).all()
        if kind == "random" or name != "vectors":
            np.testing.assert_allclose(np.linalg.norm(new, axis=-1), np.linalg.norm(old, axis=-1), rtol=1e-5)
    if kind == "shuffled":
        np.testing.assert_array_equal(other.array("vectors"), made.array("shuffled_vectors")[:, seed])
    for name in ("shuffled_vectors", "residual_norm"):
        np.testing.assert_array_equal(other.array(name), made.array(name))


def test_draws_differ_and_come_again(made, tmp_path):
    found = [null.derive("random", seed, made, tmp_path / str(i)) or artifacts.load(tmp_path / str(i)).array("vectors")
             for i, seed in enumerate((1, 2, 1))]
    assert not np.allclose(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_fresh_weights_are_no_copy_and_load(tmp_path):
    folder = null.untrained("pico-gpt2", 1, tmp_path)
    fresh, trained = models.load(folder), models.load(ROOT / "data/models/pico-gpt2")
    assert fresh.tokens("hello world") == trained.tokens("hello world")
    assert not np.allclose(*(next(iter(lm.model.parameters())).numpy() for lm in (fresh, trained)))


def test_synthetic_runs_are_decided_as_the_page_decides(monkeypatch):
    """A planted claim whose number is +-1 with an interval of +-.5: all of one size are met, none of the other."""
    claim = claims.listed()[0]
    key, sign = claim["key"].removesuffix(".*").split("."), 1 if claim["rule"]["side"] == "above" else -1

    def make(seed, size):
        value = claim["rule"]["threshold"] + sign * (10 if size else -10)
        nested = {"value": value, "low": value - 0.5, "high": value + 0.5, "n": 9}
        for part in reversed(key):
            nested = {part: nested}
        return {claim["stage"]: nested}

    monkeypatch.setattr(null.claims, "listed", lambda: [{k: v for k, v in claim.items() if k != "gates"}])
    monkeypatch.setattr(null.importlib, "import_module", lambda _: SimpleNamespace(
        PLANTED={claim["id"]: Planted("ten more", make)}))
    found = null.synthetic("any")[claim["id"]]
    assert found["what"] == "ten more" and found["planted"]["rate"][0] == 1 and found["false"]["rate"][0] == 0
    assert found["false"]["contradicted"] == null.SYNTHETIC["false"]


def test_every_claim_is_planted_or_says_why_not():
    """Planted truth for every claim but B3, which is arithmetic under scores that are counted."""
    planted = {name for study in null.STUDIES for name in null.importlib.import_module(f"report.planted_{study}").PLANTED}
    assert {claim["id"] for claim in claims.listed()} - planted == {"B3"}


def test_no_rule_speaks_where_there_is_nothing():
    told = json.loads((ROOT / "report/null.json").read_text()) if (ROOT / "report/null.json").is_file() else None
    if told is None:
        pytest.skip("report/null.json is not there; make null")
    assert set(told["claims"]) == {claim["id"] for claim in claims.listed()}
    for name, found in told["claims"].items():
        for kind in (*found["chains"].values(), *([found["false"]] if "false" in found else [])):
            assert kind["rate"][1] <= null.MOST, f"{name} speaks in {kind} of its null runs"


def test_chains_of_one_study_leave_the_others_out():
    *words, levels = null.sized(("relations",))
    assert words == ["--profile", "quick", "--sizes"]
    whole, one = (null.sizes.parse(text) for text in (null.PROFILE[-1], levels))
    assert one == {study: whole[study] if study == "relations" else None for study in whole}
    assert null.sizes.parse(null.sized(null.sizes.STUDIES)[-1]) == whole
    assert {null.claims.study_of(claim) for claim in null.claims.listed()} == set(whole)


def test_a_study_goes_with_chains(monkeypatch, capsys):
    monkeypatch.setattr(null.sys, "argv", ["null", "--study", "values"])
    with pytest.raises(SystemExit):
        null.main()
    assert "--study goes with --only chains or synthetic" in capsys.readouterr().err
