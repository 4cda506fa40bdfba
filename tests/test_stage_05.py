"""Stage 05: slopes, controls, bias and planted truth recovered from data that is known; the stage end to end
on a tiny model."""

import importlib
import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lib import artifacts, metrics, models, suite as suites
from lib.studies import propensity, reliability
from tests import tiny

stage = importlib.import_module("05_reliability")
NAMES = ("calm", "bold", "kind", "plain")
LAYERS, WIDTH = 3, 32


def item_list(name, n=20, contrary_every=5):
    """n contents, each in both option orders; half of them agree by saying Yes."""
    items = []
    for i in range(n):
        for positive in "AB":
            says_yes = i % 2 == 0
            yes = positive if says_yes else "AB".replace(positive, "")
            first, second = ("Yes", "No") if yes == "A" else ("No", "Yes")
            items.append(
                {
                    "id": f"{name}-{i}{positive}",
                    "question": f"{name} {i}?\n(A): {first}\n(B): {second}",
                    "positive": positive,
                    "yes": yes,
                    "statement": f"{name} {i}",
                    "contrary": i % contrary_every == 0,
                    "swap_of": f"{name}-{i}A" if positive == "B" else None,
                }
            )
    return items


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny model, a suite of four behaviours, and planted outputs of stages 01 and 02."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("one", "two"):
        tiny.save(folder / name, "llama", seed=len(name))
    suite = folder / "mini"
    (suite / "behaviours").mkdir(parents=True)
    (suite / "suite.json").write_text(
        json.dumps(
            {
                "name": "mini",
                "judge": "none",
                "system": "be brief",
                "strength": "relative",
                "max_new_tokens": 8,
                "licence": "none",
                "source": "test",
            }
        )
    )
    (suite / "behaviours.json").write_text(
        json.dumps(
            [
                {
                    "name": n,
                    "format": "yes_no",
                    "file": f"behaviours/{n}.jsonl",
                    "positive": f"be {n}",
                    "negative": f"not {n}",
                    "planted": {"default": 0.2 + 0.1 * i, "letter_bias": 0.8, "yes_bias": 0.8},
                }
                for i, n in enumerate(NAMES)
            ]
        )
    )
    for name in NAMES:
        (suite / "behaviours" / f"{name}.jsonl").write_text(
            "".join(json.dumps(i) + "\n" for i in item_list(name))
        )
    for m, model in enumerate(("one", "two")):
        plant_upstream(folder / "outputs" / model / "mini", suite, np.random.default_rng([9, m]), folder / model)
    return folder


def plant_upstream(out, suite, rng, model):
    lm = models.load(str(model))
    made = {"model": lm.identity, "suite": "mini", "profile": "full"}
    masses = {"mass": {"yes_no": 1.0}, "masses": {"bracket": {"yes_no": 1.0}}}
    read_out = replace(propensity.candidates(lm)[0], **masses)
    vectors = rng.normal(size=(len(NAMES), LAYERS, WIDTH)).astype(np.float32)
    concepts = [
        {
            "key": f"behaviour/{n}",
            "kind": "behaviour",
            "name": n,
            **{
                k: rng.uniform(size=LAYERS).tolist()
                for k in ("split_half_cosine", "directional_agreement", "d_prime", "norm")
            },
        }
        for n in NAMES
    ]
    inputs = {"suite": suites.load(str(suite)).digest}
    first = artifacts.save(
        out / "01_extract",
        stage="01_extract",
        config=made | {"methods": ["one way", "another"], "read_out": read_out.config("full"), "left_out": []},
        results={"read_out": masses, "not_testable": {}},
        inputs=inputs,
        tables={"concepts": concepts},
        arrays={
            "vectors": (vectors, ("concept", "layer", "d")),
            "shuffled_vectors": (
                rng.normal(size=(len(NAMES), 2, LAYERS, WIDTH)).astype(np.float32),
                ("behaviour", "draw", "layer", "d"),
            ),
            "method_vectors": (
                rng.normal(size=(2, len(NAMES), LAYERS, WIDTH)).astype(np.float32),
                ("method", "behaviour", "layer", "d"),
            ),
            "published_vectors": (2 * vectors, ("behaviour", "layer", "d")),
        },
    )
    artifacts.save(
        out / "02_tune",
        stage="02_tune",
        config=made,
        inputs={**inputs, "01_extract": first.digest},
        tables={"tuned": {f"behaviour/{n}": {"layer": 1, "unit": 0.5} for n in NAMES}},
    )


def command(world, monkeypatch, capsys, *args):
    """(exit status, stderr) of the stage's command line, run in this process: a new one costs an import of
    torch."""
    monkeypatch.setattr(
        sys,
        "argv",
        ["05_reliability.py", "--suite", str(world / "mini"), "--out", str(world / "outputs"), *args],
    )
    try:
        artifacts.run(stage.main)
    except SystemExit as left:
        return left.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(world):
    for model in ("one", "two"):
        stage.one_model(
            SimpleNamespace(
                model=str(world / model),
                suite=str(world / "mini"),
                profile="full",
                out=str(world / "outputs"), sizes=None, judge=None, dtype="float32",
            )
        )
    return world / "outputs"


def test_outputs_agree_with_each_other(finished, world):
    made = artifacts.load(finished / "one" / "mini" / "05_reliability", "05_reliability")
    items, records = made.table("items"), made.table("behaviours")
    curves, slopes = made.array("propensity"), made.array("slopes")
    assert curves.shape == (len(items), 7) and len(items) == 4 * 20
    cut = 0
    for record, mine, of in zip(records, np.split(curves.astype(float), 4), np.split(slopes, 4)):
        kept = [k for k, (m, mass) in enumerate(zip(stage.MULTIPLIERS, record["mass"]["matched"]))
                if mass >= 0.1 or abs(m) <= 0.5]                   # a model of random weights hardly writes letters
        np.testing.assert_allclose(of, np.polyfit(np.array(stage.MULTIPLIERS)[kept], mine[:, kept].T, 1)[0], atol=1e-4)
        cut += 7 - len(kept)
    assert cut and made.results["window"]["matched"]["cut"] == pytest.approx(cut / 28)
    # multiplier 0 is the unsteered model in both scales; unit 0.5 makes raw 0.5 equal to matched 1
    raw = made.array("propensity_raw")
    np.testing.assert_array_equal(curves[:, 3], raw[:, 3])
    np.testing.assert_allclose(raw[:, 4], curves[:, 5], atol=1e-4)
    for record in records:
        mine = slopes[[i for i, item in enumerate(items) if item["behaviour"] == record["name"]]]
        assert record["slope"]["value"] == pytest.approx(mine.mean(), abs=1e-4)
        assert record["anti_steerable"] == pytest.approx((mine <= 0).mean())
        assert record["swap"]["n"] == record["slope"]["n"] == 10 and record["n"] == 20
        limit = np.quantile(np.r_[record["random"]["means"], -np.array(record["random"]["means"])], 0.95)
        assert record["steerable"] == (record["control_slope"] > limit)
    assert made.array("random_slopes").shape == (80, stage.N_RANDOM["full"])
    assert made.array("method_slopes").shape == (80, 2) and set(records[0]["methods"]) == {"mean_difference", "one way", "another"}
    # the planted vector of the published split is twice the clean one; half of its test items made it
    for record in records:
        assert record["published"]["n"] - record["published"]["n_overlap"] == record["n"]
        assert record["published"]["fresh"] == pytest.approx(2 * record["slope"]["value"], abs=0.1)
    assert made.results["leak"]["overlap_share"] == pytest.approx(18 / 38)
    assert made.results["anti_steerable"]["share"]["value"] == pytest.approx((slopes <= 0).mean(), abs=1e-4)


def test_propensity_is_the_naive_computation(finished, world):
    torch = pytest.importorskip("torch")
    lm = tiny.lib_models.load(str(world / "one"))
    suite = suites.load(str(world / "mini"))
    made = artifacts.load(finished / "one" / "mini" / "05_reliability")
    vector = artifacts.load(finished / "one" / "mini" / "01_extract").array("vectors")[0, 1]
    item = suites.split(suite.behaviours[0]["items"], "evaluate")[0]
    ids = lm.chat("be brief", item["question"]) + lm.tokens("(")

    def add(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        hidden[:, -2:] += 1.5 * 0.5 * torch.from_numpy(vector)  # last prompt token and the bracket
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = lm.layers[1].register_forward_hook(add)
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
    handle.remove()
    a, b = lm.letter_ids()
    expected = float(logits[a] - logits[b]) * (1 if item["positive"] == "A" else -1)
    assert made.array("propensity")[0, 6] == pytest.approx(expected, abs=1e-4)


def test_the_sum_over_the_answers_tokens_is_the_naive_computation(finished, world):
    """The released definition: raw logits of all tokens of "(A)" and of "(B)", each string under steering."""
    import torch
    lm = tiny.lib_models.load(str(world / "one"))
    suite = suites.load(str(world / "mini"))
    made = artifacts.load(finished / "one" / "mini" / "05_reliability")
    vector = artifacts.load(finished / "one" / "mini" / "01_extract").array("vectors")[0, 1]
    item = suites.split(suite.behaviours[0]["items"], "evaluate")[1]
    prompt, totals = lm.chat("be brief", item["question"]), {}
    for letter in "AB":
        answer = lm.tokens(f"({letter})")

        def add(_, __, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[:, len(prompt) - 1:] += 0.5 * torch.from_numpy(vector)      # multiplier 1, unit 0.5
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = lm.layers[1].register_forward_hook(add)
        with torch.no_grad():
            logits = lm.model(torch.tensor([prompt + answer])).logits[0]
        handle.remove()
        totals[letter] = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
    expected = (totals["A"] - totals["B"]) * (1 if item["positive"] == "A" else -1)
    assert made.array("propensity_sum")[1, 5] == pytest.approx(expected, abs=2e-4)


def test_two_runs_give_the_same_digest(finished, world, monkeypatch, capsys):
    before = artifacts.load(finished / "one" / "mini" / "05_reliability").digest
    assert command(world, monkeypatch, capsys, "--model", str(world / "one"))[0] == 0
    assert artifacts.load(finished / "one" / "mini" / "05_reliability").digest == before


def test_across(finished, world, monkeypatch, capsys):
    both = ("--model", str(world / "one"), "--model", str(world / "two"))
    assert command(world, monkeypatch, capsys, "--across", *both) == (0, "")
    made = artifacts.load(finished / "one+two" / "mini" / "05_across", "05_across")
    tables = [
        artifacts.load(finished / m / "mini" / "05_reliability").table("behaviours") for m in ("one", "two")
    ]
    means = [[record["slope"]["value"] for record in table] for table in tables]
    assert made.results["steerability"]["one / two"]["value"] == pytest.approx(metrics.spearman(*means), abs=1e-5)
    assert "than luck" in made.results["not_testable"]["steerability.spearman"]      # planted vectors are random
    assert set(made.manifest["inputs"]) == {"suite", "one/05_reliability", "two/05_reliability"}


@pytest.mark.parametrize(
    "flags, models, message",
    [
        (("--across",), ("one",), "at least twice"),
        ((), ("one", "two"), "--across"),
        (("--profile", "smoke"), ("one",), "run 01_extract first"),
        (("--profile", "smoke"), ("nowhere",), "01_extract"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(world, monkeypatch, capsys, flags, models, message):
    named = [part for model in models for part in ("--model", str(world / model))]
    status, error = command(world, monkeypatch, capsys, *flags, *named)
    assert status == 2 and error.count("\n") == 1 and message in error


# --- pure parts ---------------------------------------------------------
signs = reliability.signs


def test_bias_fit_recovers_what_was_planted():
    letter, yes, contrary = signs(item_list("x", 40))
    noise = np.random.default_rng([5, 5]).normal(size=len(letter)) * 0.05
    planted = np.where(contrary, -1.2, 1.2) + 0.8 * letter - 0.3 * yes + noise
    found = reliability.bias_fit(planted, letter, yes, contrary)
    assert found == pytest.approx({"default": 1.2, "letter": 0.8, "yes": -0.3}, abs=0.05)
    assert reliability.bias_fit(planted, letter, np.zeros_like(yes), contrary)["yes"] is None


def got_for(slopes, items):
    """What stage 05 measured of one behaviour whose inputs have these slopes."""
    n, rng = len(items), np.random.default_rng([5, 6])
    return {
        "slopes": slopes,
        "slopes_raw": slopes,
        "control_slope": slopes,
        "slopes_half": slopes,
        "slopes_one": slopes,
        "slopes_sum": slopes,
        "slopes_sum_raw": 2 * slopes,
        "slopes_published": slopes,
        "slopes_overlap": slopes[:4] + 1,
        "r2": np.ones(n),
        "monotonicity": np.ones(n),
        "unsteered": rng.normal(size=n),
        "random_slopes": rng.normal(size=(n, 20)) * 0.1,
        "shuffled_slopes": rng.normal(size=(n, 5)) * 0.1,
        "orthogonal_slopes": rng.normal(size=(n, 5)) * 0.1,
        "method_slopes": np.stack([signs(items)[0], -slopes], axis=1),
    }


def record_for(slopes, items):
    behaviour = {"name": "x", "format": "yes_no", "planted": None}
    return reliability.record(behaviour, items, got_for(slopes, items), ["letter only", "backwards"], 0.95, 50, [5])


def test_record_finds_letter_bias_and_its_swap():
    items = item_list("x", 40)
    letter, yes, _ = signs(items)
    noise = np.random.default_rng([5, 7]).normal(size=len(items)) * 0.1
    pure = record_for(0.5 + 2 * letter + noise, items)
    assert (
        pure["bias"]["letter"] > 0.95
        and pure["swap"]["flips_sign"] == 1.0
        and pure["swap"]["within_share"] > 0.95
    )
    assert pure["swap"]["letter_effect"] == pytest.approx(2, abs=0.1) and pure["anti_steerable"] == 0.5
    by_yes = record_for(0.5 + 2 * yes + noise, items)
    assert by_yes["bias"]["yes_marginal"] > 0.95 and by_yes["swap"]["within_share"] < 0.05
    assert by_yes["bias"]["permuted"] < 0.1


def test_record_compares_with_random_directions():
    items = item_list("x", 40)
    assert record_for(np.full(len(items), 1.0) + signs(items)[0] * 0.01, items)["steerable"]
    assert not record_for(0.001 * signs(items)[0], items)["steerable"]


def test_directions_of_other_methods_are_held_against_the_same_bias():
    items = item_list("x", 40)
    record = record_for(np.full(len(items), 2.0) + np.random.default_rng(1).normal(size=len(items)) * 0.1, items)
    assert record["methods"]["letter only"] == {"mean": 0.0, "anti": 0.5, "explained": pytest.approx(1.0)}
    assert record["methods"]["backwards"]["mean"] == -record["methods"]["mean_difference"]["mean"]
    assert record["methods"]["backwards"]["anti"] == 1.0 and record["methods"]["mean_difference"]["explained"] < 0.1
    assert record["published"]["overlap"] - record["published"]["fresh"] == pytest.approx(1, abs=0.1)


def test_held_out_predictions_have_not_seen_what_they_predict():
    rng = np.random.default_rng([5, 9])
    x = rng.normal(size=(40, 3))
    y = 2 + x @ [1.0, -2.0, 0.0] + rng.normal(size=40) * 0.1
    told = reliability.held_out(x, y)
    assert metrics.spearman(told, y) > 0.98
    y[7] += 1e6                                                # an outlier moves every prediction but its own
    again = reliability.held_out(x, y)
    assert again[7] == pytest.approx(told[7]) and abs(again[8] - told[8]) > 1
    noise = rng.normal(size=40)
    assert metrics.spearman(reliability.held_out(x, noise), noise) < 0.4


def test_contrary_inputs_are_counted_apart():
    items = item_list("x", 40)
    contrary = signs(items)[2]
    record = record_for(np.where(contrary, -1.0, 1.0), items)
    assert record["contrary"] == {"n": int(contrary.sum()), "anti": 1.0, "regular_anti": 0.0}


def test_swap_pairs_put_positive_a_first():
    items = item_list("x", 3)[::-1]
    pairs = reliability.swap_pairs(items)
    assert len(pairs) == 3 and all(
        items[a]["positive"] == "A" and items[b]["positive"] == "B" for a, b in pairs
    )
    assert all(items[a]["statement"] == items[b]["statement"] for a, b in pairs)
    assert reliability.swap_pairs([i for i in items if i["swap_of"] is None]).shape == (0, 2)


def test_too_few_behaviours_is_a_reason_not_a_number():
    results, missing = metrics.missing_apart({"a": {
        "b": reliability.correlate([1.0, 2.0], [1.0, 2.0], [0]),
        "c": reliability.correlate([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], [0])}})
    assert set(missing) == {"a.b", "a.c"} and not results


def test_every_group_of_results_is_named_or_explained():
    items = item_list("x", 40)
    rng = np.random.default_rng([5, 8])
    records = [record_for(rng.normal(size=len(items)) + i, items) | {"name": str(i)} for i in range(5)]
    predictors = [dict.fromkeys(reliability.PREDICTORS, float(i)) for i in range(5)]
    results = reliability.summary(records, predictors, [(rng.normal(size=len(items)), signs(items))] * 5, 0.95, [5])
    assert "behaviours for" in results["not_testable"]["predictors.held_out"]
    told = set(results) | {key.split(".")[0] for key in results["not_testable"]}
    assert set(reliability.GROUPS) - {"published"} <= told
    assert results["predictors"]["norm"]["value"] == pytest.approx(1.0)  # means rise with i, and so do these
    assert "nothing of the kind is planted" in results["not_testable"]["planted.letter_bias"]


def test_published_values_stand_beside_the_behaviours_they_belong_to():
    items, rng = item_list("x", 20), np.random.default_rng([5, 9])
    records = [record_for(rng.normal(size=len(items)) + i, items) | {"name": f"b{i}"} for i in range(6)]
    theirs = {f"b{i}": 0.3 * i for i in range(6)} | {"elsewhere": 9.0}
    rows = {name: {"anti_steerable": 1 - value, "letter": value, "yes_marginal": 0.1} for name, value in theirs.items()}
    published = {"steerability": {"big": theirs, "other": {"elsewhere": 1.0}}, "per_input": {"big": rows}}
    results, missing = reliability.beside(records, published, True, [5])
    found = results["steerability"]["big"]
    assert found["value"] == pytest.approx(metrics.spearman([r["sum_raw"]["mean"] for r in records], range(6)))
    assert found["n"] == 6 and results["anti_steerable"]["big"]["value"] > 0
    parts = ("steerability", "matched", "anti_steerable", "explained")
    reason = "the suite has none of the published statements"
    assert missing == dict.fromkeys((f"{part}{end}.other" for part in parts[:2] for end in ("", "_within")), reason)
    # by hand within formats: a second form of behaviours that lies as much higher here as it lies lower there
    two = records + [r | {"name": f"c{i}", "format": "options", "sum": {"mean": r["sum"]["mean"] + 50}}
                     for i, r in enumerate(records)]
    theirs = {"big": theirs | {f"c{i}": 0.3 * i - 50 for i in range(6)}}
    apart = reliability.beside(two, {"steerability": theirs, "per_input": {}}, True, [5])[0]
    assert apart["matched"]["big"]["value"] < 0 < apart["matched_within"]["big"]["value"] == pytest.approx(metrics.spearman(
        [r["sum"]["mean"] for r in records], range(6)))
    planted = [record | {"planted": {"default": 0.5}} for record in records]       # the names, not the statements
    assert set(reliability.beside(planted, published, True, [5])[1]) == {
        f"{part}{end}.{model}" for part in parts for end in ("", "_within")
        for model in (("big", "other") if part in parts[:2] else ("big",))}
    assert len(reliability.beside(records, published, False, [5])[1]) == 12
    shipped = json.loads((artifacts.ROOT / "data/published.json").read_text())["reliability"]
    assert {len(values) for values in shipped["steerability"].values()} == {38, 39}
    assert metrics.spearman(*zip(*[(shipped["steerability"]["Llama-2-7b-chat"][b], v) for b, v in shipped[
        "steerability"]["Qwen1.5-14B-Chat"].items() if b in shipped["steerability"]["Llama-2-7b-chat"]])) == \
        pytest.approx(0.769, abs=0.0015)                                           # the paper's own number


def test_planted_truth_is_recovered_within_the_intervals():
    """Twelve simulated behaviours with planted defaults, biases and contrary inputs, answered with noise."""
    rng, records = np.random.default_rng([5, 10]), []
    for i in range(12):
        items = item_list(str(i), 40)
        letter, yes, contrary = signs(items)
        side = np.where(contrary, -1.0, 1.0)
        default = (i - 6) / 4
        got = got_for(side * (1 + 0.2 * rng.normal(size=len(items))), items)
        got["unsteered"] = side * default + 0.8 * letter + 0.6 * yes + 0.5 * rng.normal(size=len(items))
        behaviour = {"name": str(i), "format": "yes_no", "planted": {
            "default": 1 / (1 + np.exp(-default)), "letter_bias": 0.8, "yes_bias": 0.6}}
        records.append(reliability.record(behaviour, items, got, ["letter only", "backwards"], 0.95, 20, [5]))
    told = [{key: rng.normal() for key in reliability.PREDICTORS} for _ in records]
    results = reliability.summary(records, told, [(rng.normal(size=80), signs(items))] * 12, 0.95, [5])
    planted = results["planted"]
    for key in ("letter_bias", "yes_bias"):
        assert abs(planted[key]["value"]) < 0.05 and planted[key]["high"] - planted[key]["low"] < 0.2
    assert planted["contrary_anti"]["value"] > 0.99 and planted["regular_anti"]["value"] < 0.01
    assert planted["default_spearman"]["value"] > 0.95 and reliability.steers(results)


def test_the_interval_of_the_bias_covers_what_was_planted():
    """In 100 simulated studies of 12 behaviours, the 95 % interval holds the planted bias in about 95."""
    items, covered = item_list("x", 40), 0
    letter, yes, contrary = signs(items)
    for study in range(100):
        rng = np.random.default_rng([5, 11, study])
        errors = []
        for _ in range(12):
            propensity = np.where(contrary, -0.3, 0.3) + 0.8 * letter + 0.6 * yes + 0.5 * rng.normal(size=len(items))
            errors.append(reliability.bias_fit(propensity, letter, yes, contrary)["letter"] - 0.8)
        found = metrics.bootstrap(errors, unit="behaviours", seed_address=[study])
        covered += found["low"] <= 0 <= found["high"]
    assert 85 <= covered <= 99


def test_three_models_let_the_weakest_pair_speak():
    def table(values):
        return {
            str(i): {"name": str(i), "format": "options", "slope": {"value": v}, "sd": v, "anti_steerable": v}
            for i, v in enumerate(values)
        }

    tables = [table([1, 2, 3, 4, 5]), table([2, 3, 4, 5, 6]), table([5, 4, 3, 2, 1])]
    rows, results = reliability.compare(["a", "b", "c"], tables, [], [5])
    assert len(rows) == 15 and results["steerability"]["a / b"]["value"] == pytest.approx(1)
    assert results["steerability"]["spearman"]["value"] == pytest.approx(-1)
    results = reliability.compare(["a", "b", "c"], tables, ["b"], [5])[1]
    assert "spearman" not in results["steerability"] and "on b" in results["not_testable"]["steerability.spearman"]


def test_the_chance_to_beat_an_estimated_limit_is_that_of_a_simulation():
    rng = np.random.default_rng([5, 12])
    for n in (10, 20, 40):
        means, new = rng.normal(size=(40_000, n)), rng.normal(size=40_000)
        limit = np.quantile(np.concatenate([means, -means], axis=1), 0.95, axis=1)
        assert reliability.exceeds_by_luck(n, 0.95) == pytest.approx((new > limit).mean(), abs=0.005)


def test_by_luck_is_the_binomial_quantile():
    drawn = np.random.default_rng(0).binomial(40, 0.05, 200_000)
    assert reliability.by_luck(40, 0.05) == np.quantile(drawn, 0.99) == 6
    assert reliability.by_luck(4, 0.0) == 0


# --- the window in which a model still answers -----------------------------------------------------------------
def test_points_at_which_the_letters_are_gone_are_cut(monkeypatch):
    monkeypatch.setitem(propensity.LEAST_MASS, "full", 0.1)
    mass = np.array([[0.05, 0.2, 0.5, 0.9, 0.5, 0.09, 0.0], [0.9] * 7, [0.0, 0.0, 0.0, 0.9, 0.5, 0.2, 0.2]])
    curves = np.random.default_rng(0).normal(size=(5, 3, 7))
    kept = propensity.windowed(curves, mass, stage.MULTIPLIERS, "full")
    want = np.zeros((3, 7), bool)
    want[0, [0, 5, 6]] = want[2, [0, 1]] = True                # the inner point of the third stays
    assert (np.isnan(kept) == want).all() and (kept[:, ~want] == curves[:, ~want]).all()
    assert propensity.window(mass, stage.MULTIPLIERS, "full") == {"cut": 5 / 21, "behaviours": 2, "outside": 1}
    assert propensity.window(mass[None], stage.MULTIPLIERS, "full") == {"cut": 5 / 21, "behaviours": 1, "outside": 1}
    assert not np.isnan(propensity.windowed(curves, mass, stage.MULTIPLIERS, "smoke")).any()
