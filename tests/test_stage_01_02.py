"""Stages 01 and 02: vectors against an independent computation, choices from planted measurements, both end to end."""
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import artifacts, directions, suite as suites
from lib.judging import judges
from lib.studies import propensity, relations, tuning
from tests import soak, tiny

ROOT = artifacts.ROOT
extract, tune = (importlib.import_module(name) for name in ("01_extract", "02_tune"))
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
LEAF = Path("tiny") / "testbed-smoke"


class HashJudge:
    """Scores that depend on the text alone, so that a random model has something to be tuned for."""
    name = "hash"

    def read(self, asked):
        found = [hashlib.sha256((trait + text).encode()).digest()[:2] for trait, _, text in asked]
        return [(100.0 * (first % 5) / 4, 60.0 + second % 41, None) for first, second in found]

    def preferences(self, asked):
        return [len(text) % 5 - 2 for _, _, text in asked]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model in `tiny` and another one of the same name elsewhere."""
    folder = tmp_path_factory.mktemp("stages")
    tiny.save(folder / "tiny", "llama", max_position_embeddings=1024)
    tiny.save(folder / "other" / "tiny", "llama", max_position_embeddings=1024, seed=1)
    return folder


def command(stage, folder, out):
    return [sys.executable, str(ROOT / stage), "--model", str(folder / "tiny"), "--profile", "smoke", "--out", str(out)]


def shell(stage, folder, out):
    return subprocess.run(command(stage, folder, out), capture_output=True, text=True, env=ENV, cwd=ROOT)


def call(module, monkeypatch, *argv):
    """Run a stage's main() in this process; exit status."""
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, argv)])
    try:
        artifacts.run(module.main)
    except SystemExit as error:
        return error.code
    return 0


def files(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name not in ("run.json", ".made")}


@pytest.fixture(scope="module")
def steered(folder):
    """Both stages with every trait pair kept and scores by hash: (01_extract, 02_tune, argv)."""
    argv = ("--model", folder / "tiny", "--profile", "smoke", "--out", folder / "steered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "load", lambda *_: HashJudge())
        patch.setattr(extract, "why_dropped", lambda *_: None)
        assert call(extract, patch, *argv) == 0 and call(tune, patch, *argv) == 0
    root = folder / "steered" / LEAF
    return artifacts.load(root / "01_extract"), artifacts.load(root / "02_tune"), argv


# --- stage 01 ------------------------------------------------------------------------------------------------
def test_behaviour_vector_is_the_difference_of_hidden_states_at_the_letter(folder, steered):
    """Against transformers' own hidden states, one prompt at a time; layer l is hidden_states[l + 1]."""
    lm, suite = tiny.lib_models.load(str(folder / "tiny")), suites.load("testbed", "smoke")
    number, setting = 1, "USER_NEG"
    behaviour, diffs = suite.behaviours[number], []
    for item in suites.balanced(suites.split(behaviour["items"], "extract")):
        prompt = lm.chat(*suites.behaviour_prompts(suite, behaviour, item, setting)) + lm.tokens("(")
        states = []
        for letter in (item["positive"], "AB".replace(item["positive"], "")):
            ids = torch.tensor([prompt + [dict(zip("AB", lm.letter_ids()))[letter]]])
            with torch.no_grad():
                hidden = lm.model(ids, output_hidden_states=True).hidden_states
            states.append(torch.stack([h[0, -1] for h in hidden[1:-1]]))      # the last one has the final norm on it
        diffs.append((states[0] - states[1]).numpy())
    made = steered[0].array("setting_vectors")[extract.SETTINGS.index(setting), number]
    np.testing.assert_allclose(made[:-1], np.mean(diffs, axis=0), atol=1e-5)


def test_trait_vector_is_a_mean_over_answer_tokens(folder):
    lm = tiny.lib_models.load(str(folder / "tiny"))
    prompts, answers = [[1, 20, 21], [1, 22], [1, 23], [1, 24, 25, 26]], [[30, 31, 32], [33], [34, 35], [36, 37, 38, 39]]
    made = extract.extract_trait(lm, prompts, answers, [1])["vector"]
    means = []
    for prompt, answer in zip(prompts, answers):
        with torch.no_grad():
            hidden = lm.model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states[1:-1]
        means.append(torch.stack([h[0, len(prompt):].mean(dim=0) for h in hidden]).numpy())
    want = (means[0] + means[2]) / 2 - (means[1] + means[3]) / 2
    np.testing.assert_allclose(made[:-1], want, atol=1e-5)


def test_describe_finds_a_planted_direction_at_its_layer():
    rng = np.random.default_rng(0)
    negative = rng.standard_normal((30, 3, 16))
    direction = rng.standard_normal(16)
    positive = rng.standard_normal((30, 3, 16))
    positive[:, 1] = negative[:, 1] + direction + 0.1 * rng.standard_normal((30, 16))
    found = directions.describe(positive - negative, positive, negative, [1])
    cosine = found["vector"][1] @ direction / np.linalg.norm(found["vector"][1]) / np.linalg.norm(direction)
    assert cosine > 0.99
    for name in ("split_half_cosine", "directional_agreement"):
        assert found["stats"][name][1] > 0.9 > 0.6 > max(found["stats"][name][0], found["stats"][name][2])
    assert found["stats"]["norm"] == pytest.approx(np.linalg.norm(found["vector"], axis=1), rel=1e-6)


def test_halves_of_a_behaviour_are_balanced(folder, monkeypatch):
    """A large letter part and a small shared answer: random halves would point apart, balanced ones agree."""
    lm, suite, rng = tiny.lib_models.load(str(folder / "tiny")), suites.load("testbed"), np.random.default_rng(3)
    letter, answer = 10 * rng.standard_normal((3, 32)), rng.standard_normal((3, 32))

    def states(_, prefixes, positives, negatives):
        sign = np.where(np.array(positives)[:, 0] == lm.letter_ids()[0], 1, -1)[:, None, None]
        noise = 0.1 * rng.standard_normal((len(prefixes), 2, 3, 32))
        return noise + np.stack([sign * letter + answer, -sign * letter - answer], axis=1) / 2

    monkeypatch.setattr(extract.engine, "read_pairs", states)
    found = extract.extract_behaviour(lm, suite, 0, propensity.find(lm, suite))
    assert min(found["stats"]["split_half_cosine"]) > 0.9
    np.testing.assert_allclose(found["vector"], answer, atol=0.2)


def test_relations_are_centred_on_the_mean_of_relations():
    rng = np.random.default_rng(1)
    shared, own = 10 * rng.standard_normal((2, 8)), rng.standard_normal((3, 2, 8))
    lists = [shared + v + 0.01 * rng.standard_normal((n, 2, 8)) for v, n in zip(own, (5, 9, 4))]     # sizes differ
    found = [f["vector"] for f in relations.centre(lists, [1])]
    np.testing.assert_allclose(found, own - own.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.sum(found, axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(relations.centre(lists[:1], [1])[0]["vector"], shared + own[0], atol=0.05)


@pytest.mark.parametrize("positive, negative, reason", [
    ((80, 90, "x"), (10, 90, "y"), None),
    ((50, 90, "x"), (10, 90, "y"), "positive answer does not show the trait"),
    ((80, 90, "x"), (50, 90, "y"), "negative answer shows the trait"),
    ((80, 49, "x"), (10, 90, "y"), "incoherent answer"),
    ((80, 90, "x"), (10, 49, "y"), "incoherent answer"),
    ((80, 50, "x"), (10, 50, "y"), None),
    ((None, 90, "x"), (10, 90, "y"), "no usable score"),
    ((80, None, "x"), (10, 90, "y"), "no usable score"),
    ((80, 90, "x"), (10, 90, " \n"), "empty answer")])
def test_why_a_pair_is_dropped(positive, negative, reason):
    pair = [{"expression": {"t": e}, "coherence": c, "output": text} for e, c, text in (positive, negative)]
    assert extract.why_dropped("t", *pair) == reason


def test_stage_01_outputs(steered):
    first, suite = steered[0], suites.load("testbed", "smoke")
    concepts, vectors = first.table("concepts"), first.array("vectors")
    kinds = [c["kind"] for c in concepts]
    assert kinds == sorted(kinds, key=("trait", "behaviour", "relation", "value").index)
    assert len(concepts) == len(vectors) == sum(first.results["n_concepts"].values())
    for concept, vector in zip(concepts, vectors):
        assert concept["norm"] == pytest.approx(np.linalg.norm(vector, axis=1).tolist(), rel=1e-5)
    behaviours = [i for i, kind in enumerate(kinds) if kind == "behaviour"]
    np.testing.assert_array_equal(first.array("setting_vectors")[0], vectors[behaviours])
    assert first.array("shuffled_vectors").shape == (len(vectors), directions.N_SHUFFLED, *vectors.shape[1:])
    asked = {response["item"] for response in first.table("responses")}
    assert asked <= {item["id"] for item in suite.tasks["question"]["extract"]}


def test_nothing_is_extractable_from_noise(folder, plain):
    """The exact scorers find no trait in random text: every trait is counted, none gets a vector."""
    first = artifacts.load(plain / "01_extract")
    assert first.results["traits"]["n_extractable"] == 0
    assert len(first.results["traits"]["not_extractable"]) == first.results["traits"]["n"] > 0
    assert sum(first.results["traits"]["dropped"].values()) == first.results["traits"]["n_asked"]
    second = artifacts.load(plain / "02_tune")
    assert "traits" in second.results["not_testable"] and "tradeoff" not in second.results["traits"]


# --- what stage 02 chooses, from planted measurements ----------------------------------------------------------
def test_grid_is_in_units_and_knows_the_share_of_the_residual_norm():
    rng = np.random.default_rng(2)
    vector, norms = rng.standard_normal((3, 8)), np.array([[1.0, 5.0, 20.0], [10.0, 5.0, 100.0]])
    for unit in ("relative", "raw"):
        points = tuning.grid(vector, norms, (0.5, 2.0), unit)
        assert [p[0] for p in points] == [0, 0, 1, 1, 2, 2]
        for layer, strength, coefficient, share in points:
            norm = np.linalg.norm(coefficient * vector[layer])
            assert [strength * norms[0, layer], share * norms[1, layer]] == pytest.approx([norm, norm])
        assert [p[1 if unit == "relative" else 2] for p in points] == [0.5, 2.0] * 3


def candidate(strength, expression, coherence, layer=0, key="trait/a"):
    return {"key": key, "layer": layer, "strength": strength, "coefficient": 2 * strength,
            "relative_strength": strength / 4, "n": 4, "expression": expression, "coherence": coherence}


def test_best_keeps_coherence_and_prefers_the_weaker():
    grid = [candidate(0.1, 20, 99), candidate(0.4, 60, 75), candidate(0.8, 60, 90), candidate(1.6, 95, 74.9)]
    found, coherent = tuning.best(grid, "expression", "coherence", 75)
    assert (found["strength"], coherent) == (0.4, True)               # 75 is enough; tie to the weaker
    found, coherent = tuning.best(grid, "expression", "coherence", 99.5)
    assert (found["strength"], coherent) == (0.1, False)              # none: the most coherent, flagged


def test_promising_looks_ahead_among_equals():
    grid = [candidate(s, e, c, layer) for layer, points in enumerate((
        [(0.2, 0, 99), (0.4, 0, 90), (0.8, 10, 20)], [(0.2, 0, 99), (0.4, 0, 80), (0.8, 60, 70)])) for s, e, c in points]
    found = tuning.promising(grid, "expression", "coherence", 75)
    assert (found["layer"], found["strength"]) == (1, 0.4)            # 60 begins right above it
    assert tuning.best(grid, "expression", "coherence", 75)[0]["strength"] == 0.2
    found = tuning.promising([*grid, candidate(0.2, 5, 99, 2)], "expression", "coherence", 75)
    assert found["layer"] == 2                                                 # more expression goes first
    assert tuning.promising(grid, "expression", "coherence", 100)["coherence"] == 99


@pytest.mark.parametrize("points, rising, whole", [
    ([(0, 0, 100), (0.1, 30, 90), (0.2, 60, 70), (0.8, 90, 40)], -1, -1),
    ([(0.2, 60, 70), (0, 0, 100), (1.8, 20, 10), (0.1, 30, 90), (3.2, 0, 0)], -1, 0.103),     # collapse is no trade
    ([(0, 0, 100), (0.1, 60, 90), (0.2, 30, 70), (0.4, 10, 40)], -0.2, -0.2),  # a peak does not end the range
    ([(0, 0, 100), (0.1, 30, 100), (0.2, 60, 100)], 0, 0),                     # nothing is paid
    ([(0, 50, 100), (0.1, 50, 90), (0.2, 50, 80)], None, None),                # expression never moves
    ([(0, 10, 100), (0.1, 40, 90), (1.8, 20, 80)], None, -0.5)])           # two points are no curve
def test_tradeoff_known_cases(points, rising, whole):
    found = tuning.tradeoff([candidate(*point) for point in points])
    for value, want in zip(found, (rising, whole)):
        assert value is None if want is None else value == pytest.approx(want, abs=1e-3)


def test_settle_traits_counts_what_has_no_curve():
    falling = [(0.0, 0, 100), (0.1, 20, 98), (0.4, 50, 90), (0.8, 80, 76), (1.6, 90, 20)]
    flat = [(0.0, 30, 100), (0.1, 30, 99), (0.4, 30, 98)]
    tried = [candidate(*p, key=key) for key, points in (("trait/a", falling), ("trait/b", flat)) for p in points]
    tried += [candidate(0.8, 99, 10, layer=1)]                                  # another layer is not in the curve
    chosen = {key: tuning.best([c for c in tried if c["key"] == key and c["coefficient"]], "expression", "coherence",
                               75)[0] | {"coherent": True} for key in ("trait/a", "trait/b")}
    narrow = {key: candidate(1.0, 10, 80, key=key) | {"coherent": key == "trait/a"} for key in chosen}
    tuned, results, missing = tuning.settle_traits(tried, chosen, narrow, [1], 75)
    assert (results["narrow_score"]["value"], results["narrow_incoherent"]) == (10, 1)
    assert tuned["trait/a"]["narrow"]["strength"] == 1.0 and tuned["trait/a"]["score"] == 80
    assert tuned["trait/a"].pop("narrow") == {"layer": 0, "strength": 1.0, "coefficient": 2.0, "relative_strength": 0.25,
                                              "n": 4, "score": 10, "coherence": 80, "coherent": True}
    assert tuned["trait/a"] == {"layer": 0, "strength": 0.8, "coefficient": 1.6, "relative_strength": 0.2, "n": 4, "score": 80,
                                "coherence": 76, "coherent": True, "unsteered": 0, "unsteered_coherence": 100,
                                "window": [0.1, 0.8], "breaks": 1.6}
    assert results["tradeoff"]["value"] == -1 and results["tradeoff"]["n"] == results["steering"] == 1
    assert results["tradeoff_undefined"] == 0 and not missing          # the other trait gains nothing
    _, results, missing = tuning.settle_traits(tried, {"trait/b": chosen["trait/b"]}, narrow, [1], 75)
    assert set(missing) == {"traits.tradeoff", "traits.tradeoff_all"} and "tradeoff" not in results


def test_settle_behaviours_separates_letter_from_answer():
    """Answer peaks at layer 1, letter at layer 2; behaviours with uneven letters let the letter leak into the mean."""
    answer, letter = np.array([0.2, 1.0, 0.1]), np.array([0.0, 0.1, 3.0])
    letters = {"behaviour/x": "AABA", "behaviour/y": "ABAA"}
    slopes = {key: np.stack([answer[:, None] + letter[:, None] * np.where(np.array(list(side)) == "A", 1, -1)] * 2)
              for key, side in letters.items()}
    items = {key: [{"id": str(i), "positive": p} for i, p in enumerate(side)] for key, side in letters.items()}
    vectors = {key: np.ones((3, 4), np.float32) for key in (*letters, "behaviour/z")}
    tuned, results, rows, per_item = tuning.settle_behaviours(
        slopes, items, vectors, np.array([[1.0, 2.0, 4.0], [5.0, 5.0, 20.0]]), 0.4, [1])
    assert results["layer"] == 2 and results["layer_letter_free"] == 1         # the choice follows the paper
    assert results["letter"]["value"] == pytest.approx(3.0)
    free = [r["value"] for r in rows if (r["what"], r["scale"]) == ("letter_free", "matched")]
    assert free == pytest.approx(answer.tolist())
    assert {r["layer"] for r in rows if r["chosen"]} == {2} and len(per_item) == 8
    assert tuned["behaviour/z"]["score"] is None and tuned["behaviour/z"]["unit"] == pytest.approx(0.4 * 4.0 / 2.0)
    assert tuned["behaviour/x"]["raw_strength"] == pytest.approx(2.0 / 4.0)
    assert tuned["behaviour/x"]["raw_relative_strength"] == pytest.approx(2.0 / 20.0)
    assert tuned["behaviour/x"]["relative_strength"] == pytest.approx(0.4 * 4.0 / 20.0)


def test_settle_relations_and_values():
    points = {"relation/r": [(0, 0.3, 1.0, 0.1), (1, 0.2, 1.0, 0.1), (0, 0.8, 4.0, 0.4), (1, 0.8, 4.0, 0.4)],
              "value/v": [(0, 0.1, 1.0, 0.1), (0, 0.4, 4.0, 0.4), (1, 0.4, 4.0, 0.4)]}
    gains = {"relation/r": np.array([[0.1, 0.3], [1.0, 2.0], [5.0, 5.0], [0.0, 0.0]])}
    tuned, results, tried = tuning.settle_relations(points, gains, [1])
    assert (tuned["relation/r"]["layer"], tuned["relation/r"]["score"]) == (1, 1.5) and len(tried) == 4
    assert (tuned["relation/r"]["matched"]["layer"], tuned["relation/r"]["matched"]["coefficient"]) == (0, 4.0)
    assert results["gain"]["value"] == 1.5
    # two probes that lean by -2 and 4: shifts of 1, 2, 9, and as much the other way
    lean, shift = np.array([-2.0, 4.0]), np.array([[1.0], [2.0], [9.0]])
    odds = {"value/v": np.concatenate([lean[None], lean + shift, lean - shift])}
    facts = {"value/v": np.array([[1] * 10, [1] * 10, [1] * 9 + [0], [1] * 5 + [0] * 5] + [[1] * 10] * 3, bool)}
    tuned, results, _ = tuning.settle_values(points, odds, facts, 0.1)
    assert tuned["value/v"]["score"] == 2.0 and tuned["value/v"]["facts_kept"]
    assert results["fact_loss"]["value/v"] == pytest.approx(0.1)
    # against their leans: 1 and 3 are left, 0 and 2, 7 and 5 on the other side; of 6 in all
    assert tuned["value/v"]["against"]["coefficient"] == 4.0
    assert tuned["value/v"]["against"]["bias_removed_against"] == pytest.approx(1 - 2 / 6)
    # one sign for both gives to one what it takes from the other; leans of one side it lowers, with the sign against
    assert (tuned["value/v"]["window"]["bias_removed"], tuned["value/v"]["window"]["coefficient"]) == (0, 1.0)
    odds = {"value/v": np.concatenate([abs(lean)[None], abs(lean) + shift, abs(lean) - shift])}
    window = tuning.settle_values(points, odds, facts, 0.1)[0]["value/v"]["window"]
    assert (window["sign"], window["coefficient"], window["bias_removed"]) == (-1, 4.0, pytest.approx(1 - 2 / 6))
    gains = {"relation/r": np.array([[[0.0, 0.0], [1.0, 3.0]], [[0.5, 0.5], [0.0, 0.0]]])}
    tuned, results, tried = tuning.settle_ways(gains, ("a", "b"), [1])
    assert tuned["relation/r"] == {"a": {"layer": 1, "score": 2.0, "n": 2}, "b": {"layer": 0, "score": 0.5, "n": 2}}
    assert results["a"]["value"] == 2.0 and len(tried) == 4


def test_stage_02_outputs(steered):
    first, second, _ = steered
    suite, tuned, candidates = suites.load("testbed", "smoke"), second.table("tuned"), second.table("candidates")
    vectors = dict(zip([c["key"] for c in first.table("concepts")], first.array("vectors")))
    assert set(tuned) == set(vectors)
    for key, record in tuned.items():                     # coefficient, strength and share name the same row
        kind, layer = "" if key.split("/")[0] in ("trait", "behaviour") else "_raw", record["layer"]
        row = record["coefficient"] * np.linalg.norm(vectors[key][layer])
        assert row == pytest.approx(record["strength"] * second.array(f"unit_norm{kind}")[layer], rel=1e-5)
        assert row == pytest.approx(record["relative_strength"] * first.array(f"residual_norm{kind}")[layer], rel=1e-5)
    assert second.results["behaviours"]["window"] == {"cut": 0, "behaviours": 0, "outside": 0}        # smoke cuts nothing
    layers, n_traits = first.array("vectors").shape[1], sum(key.startswith("trait/") for key in tuned)
    narrow = [c for c in candidates if c.get("search") == "narrow"]
    two = {max(0, round(depth * layers) - 1) for depth in tune.NARROW_DEPTHS}
    assert {c["layer"] for c in narrow} == two and len(narrow) == n_traits * (
        len(two) * len(tune.NARROW_COARSE["smoke"]) + len(tune.NARROW_STEPS["smoke"]))
    for key in {c["key"] for c in narrow}:                # the paper's rule over its own candidates
        best, coherent = tuning.best([c for c in narrow if c["key"] == key], "expression", "coherence", tune.COHERENT)
        assert tuned[key]["narrow"] == {name: best[name] for name in (
            *tuning.POINT, "n", "coherence")} | {"score": best["expression"], "coherent": coherent}
    mine = [c for c in candidates if c["key"].startswith("trait/") and "search" not in c]
    assert len(mine) == n_traits * (1 + layers * len(tune.STRENGTHS["relative"]["smoke"]) + len(tune.REFINE["smoke"]))
    for c in mine:
        assert c["expression"] == pytest.approx(np.mean(c["expressions"]))
        assert c["coefficient"] == 0 or c["expression"] <= tuned[c["key"]]["score"] or c["coherence"] < tune.COHERENT
    questions = {item["id"] for item in suite.tasks["question"]["tune"]}
    assert {item for c in mine for item in c["items"]} <= questions
    items = {i["id"] for b in suite.behaviours for i in suites.split(b["items"], "tune")}
    assert {row["item"] for row in second.table("slopes")} <= items
    behaviour = second.table("settings")["behaviour"]
    assert {record["layer"] for key, record in tuned.items() if key.startswith("behaviour/")} == {behaviour["layer"]}
    found = second.results["traits"]
    assert found["tradeoff_undefined"] + found.get("tradeoff", {"n": 0})["n"] == found["steering"]


def test_slopes_are_those_of_whole_prompts(folder, steered):
    """One voting behaviour, one layer: slope from plain forward passes with the vector added by hand, both scales."""
    first, second, _ = steered
    lm, suite = tiny.lib_models.load(str(folder / "tiny")), suites.load("testbed", "smoke")
    vectors = dict(zip([c["key"] for c in first.table("concepts")], first.array("vectors")))
    row, layer = second.table("slopes")[0], 1
    behaviour = next(b for b in suite.behaviours if f"behaviour/{b['name']}" == row["key"])
    item = next(i for i in behaviour["items"] if i["id"] == row["item"])
    prompt = lm.chat(*suites.behaviour_prompts(suite, behaviour, item, "BASE")) + lm.tokens("(")
    letters = dict(zip("AB", lm.letter_ids()))
    unit = tune.UNIT * second.array("unit_norm")[layer] / np.linalg.norm(vectors[row["key"]][layer])
    for scale, factor in (("matched", unit), ("raw", 1.0)):
        curve = []
        for multiplier in tune.MULTIPLIERS:
            added = torch.zeros(1, len(prompt), lm.d_model)
            added[0, -2:] = torch.tensor(multiplier * factor * vectors[row["key"]][layer])
            handle = lm.layers[layer].register_forward_hook(
                lambda _, __, out: (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added)
            with torch.no_grad():
                logits = lm.model(torch.tensor([prompt])).logits[0, -1]
            handle.remove()
            curve.append(float(logits[letters[item["positive"]]] - logits[letters["AB".replace(item["positive"], "")]]))
        assert np.polyfit(tune.MULTIPLIERS, curve, 1)[0] == pytest.approx(row[scale][layer], abs=1e-4)


def test_a_suite_may_ask_for_raw_strengths_and_hold_traits_alone(folder, monkeypatch, tmp_path):
    source, suite = ROOT / "data/suites/testbed", tmp_path / "mine"
    suite.mkdir()
    head = json.loads((source / "suite.json").read_text()) | {"strength": "raw"}
    (suite / "suite.json").write_text(json.dumps(head))
    for name in ("traits.json", "tasks.json"):
        (suite / name).write_bytes((source / name).read_bytes())
    monkeypatch.setattr(judges, "load", lambda *_: HashJudge())
    monkeypatch.setattr(extract, "why_dropped", lambda *_: None)
    argv = ("--model", folder / "tiny", "--suite", suite, "--profile", "smoke", "--out", tmp_path / "out")
    assert call(extract, monkeypatch, *argv) == 0 and call(tune, monkeypatch, *argv) == 0
    second = artifacts.load(tmp_path / "out" / "tiny" / "mine-smoke" / "02_tune")
    steps = {1, 3, *(f * c for f in tune.REFINE["smoke"] for c in (1, 3))}
    found = {label: {c["coefficient"] for c in second.table("candidates") if ("search" in c) == (label == "narrow")}
             for label in ("full", "narrow")}
    assert found["full"] <= {0.0, *steps} and found["narrow"] <= {1, 3, 1.5, 3.5}
    assert second.results["behaviours"] == {"n": 0}


# --- as commands: resume, sharing, errors ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain(folder):
    """Both stages as commands with the exact scorers; stage 01 is killed once, after its first unit."""
    out = folder / "plain"
    units = out / LEAF / "01_extract.units"
    process = subprocess.Popen(command("01_extract.py", folder, out), env=ENV, cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(units.glob("*/*.npz")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(units.glob("*/*.npz")) and not (out / LEAF / "01_extract").exists()
    for stage in ("01_extract.py", "02_tune.py"):
        done = shell(stage, folder, out)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and "digest" in done.stdout.splitlines()[-1]
        assert not (out / LEAF / f"{Path(stage).stem}.units").exists()
    return out / LEAF


def test_resumed_and_shared_runs_give_the_same_bytes(folder, plain, monkeypatch):
    """A killed and resumed run, and two ranks that share the units, against one uninterrupted process."""
    out = folder / "shared"
    assert call(extract, monkeypatch, "--model", folder / "tiny", "--profile", "smoke", "--out", out) == 0
    assert files(out / LEAF / "01_extract") == files(plain / "01_extract")
    ranks = [subprocess.Popen(command("02_tune.py", folder, out), env=ENV | {"RANK": str(r), "WORLD_SIZE": "2"}, cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for r in (0, 1)]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:                                 # one that failed leaves the other waiting
            rank.kill()
    assert files(out / LEAF / "02_tune") == files(plain / "02_tune")


def test_one_and_two_processes_give_the_same_digest_on_an_embedded_model(tmp_path):
    """As `make extract MODEL=data/models/pico-llama NPROC=2` starts them; the Makefile gives one thread to each."""
    digests, suite = [], soak.small_suite(tmp_path / "few")
    for started in ([], ["-m", "lib.work", "2"]):
        done = subprocess.run([sys.executable, *started, "01_extract.py", "--model", "data/models/pico-llama", "--suite", suite,
                               "--profile", "smoke", "--out", tmp_path / f"{len(started)}"], capture_output=True, text=True,
                              env=ENV, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        digests.append(artifacts.load(tmp_path / f"{len(started)}" / "pico-llama/few-smoke/01_extract").digest)
    assert digests[0] == digests[1]


def test_rerun_in_place_gives_the_same_bytes(steered, monkeypatch):
    first, second, argv = steered
    before = {path: files(path) for path in (first.path, second.path)}
    monkeypatch.setattr(judges, "load", lambda *_: HashJudge())
    monkeypatch.setattr(extract, "why_dropped", lambda *_: None)
    assert call(extract, monkeypatch, *argv) == 0 and call(tune, monkeypatch, *argv) == 0
    assert {path: files(path) for path in before} == before


@pytest.mark.parametrize("change, says", [
    (lambda f, o: ["--suite", f / "nowhere"], "no folder with a suite.json"),
    (lambda f, o: ["--judge", "oracle"], "unknown judge"),
    (lambda f, o: ["--out", f / "empty"], "run 01_extract first"),
    (lambda f, o: ["--model", f / "other" / "tiny"], "made from another model, judge, suite or stage before"),
    (lambda f, o: (o / "01_extract" / "vectors.npy").write_bytes(b"x") and [], "01_extract/vectors.npy: ")])
def test_wrong_input_is_one_line_and_status_2(change, says, folder, plain, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "out" / LEAF / "01_extract"
    copy.mkdir(parents=True)
    for name, content in files(plain / "01_extract").items():
        (copy / name).write_bytes(content)
    argv = ["--model", folder / "tiny", "--profile", "smoke", "--out", tmp_path / "out"]
    assert call(tune, monkeypatch, *argv, *change(folder, copy.parent)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error
    assert not (copy.parent / "02_tune").exists()


def test_no_such_model(folder, tmp_path, monkeypatch, capsys):
    assert call(extract, monkeypatch, "--model", folder / "nowhere", "--out", tmp_path) == 2
    assert "no such model folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_too_few_pairs_for_a_list(folder, tmp_path, monkeypatch, capsys):
    source, suite = ROOT / "data/suites/testbed", tmp_path / "mine"
    (suite / "relations").mkdir(parents=True)
    for name in ("suite.json", "templates.json"):
        (suite / name).write_bytes((source / name).read_bytes())
    pairs = [[f"a{i}", f"b{i}"] for i in range(20)]                             # 8 to extract from, 11 are needed
    (suite / "relations" / "small.json").write_text(json.dumps({"name": "small", "pairs": pairs, "sources": []}))
    argv = ("--model", folder / "tiny", "--suite", suite, "--out", tmp_path / "out")
    assert call(extract, monkeypatch, *argv) == 2
    error = capsys.readouterr().err
    assert "relation small" in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "tiny" / "mine" / "01_extract").exists()
