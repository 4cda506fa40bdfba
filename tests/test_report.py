"""The report: verdicts follow their rules, every number is a key of a manifest, and a build that stops, at stale,
foreign or damaged artifacts, leaves the page there is."""
import itertools
import json
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lib import artifacts, metrics, sizes, suite
from lib.artifacts import ROOT, UserError
from report import build, claims, examples, figures_alignment, figures_reliability, front
from tests import planted


CLAIMS = json.loads((ROOT / "report" / "claims.json").read_text())
NAMES = ("pico-llama", "pico-gpt2")


def est(value, low, high, n=40):
    return {"value": value, "low": low, "high": high, "n": n, "unit": "behaviours", "method": "bootstrap"}


# --- verdicts -----------------------------------------------------------
@pytest.mark.parametrize(
    "side, threshold, estimate, word",
    [
        ("above", 0, est(1, 0.5, 2), "reproduced"),
        ("above", 0, est(1, -0.5, 2), "undecided"),
        ("above", 0, est(1, 0.0, 2), "undecided"),  # touching is not beyond
        ("above", 0, est(-1, -2, 0.5), "undecided"),
        ("above", 0, est(0, 0, 0), "undecided"),
        ("above", 0, est(-1, -2, -0.5), "contradicted"),
        ("above", 20, est(25, 19, 31), "undecided"),
        ("below", 0, est(-1, -2, -0.5), "reproduced"),
        ("below", 0, est(-1, -2, 0.5), "undecided"),
        ("below", 0, est(1, 0.5, 2), "contradicted"),
        ("below", 1, est(0.8, 0.6, 1.0), "undecided"),
        ("above", 0, None, "not testable here"),
    ],
)
def test_verdict(side, threshold, estimate, word):
    assert claims.verdict(estimate, {"side": side, "threshold": threshold}) == word


def test_verdict_mirrors():
    rng = np.random.default_rng([11, 1])
    for _ in range(200):
        low, value, high = np.sort(rng.normal(size=3))
        up = claims.verdict(est(value, low, high), {"side": "above", "threshold": 0.3})
        down = claims.verdict(est(-value, -high, -low), {"side": "below", "threshold": -0.3})
        assert up == down


def test_verdict_needs_an_interval_and_a_side():
    with pytest.raises(UserError, match="low and high"):
        claims.verdict({"value": 1.0, "low": None, "high": None}, {"side": "above", "threshold": 0})
    with pytest.raises(UserError, match="side"):
        claims.verdict(est(1, 0, 2), {"side": "over", "threshold": 0})


def test_every_method_must_hold():
    rule = {"side": "below", "threshold": 0}
    methods = {"a": est(-3, -4, -2), "b": est(-1, -2, -0.5), "c": est(-2, -5, 0.5)}
    # its interval crosses, though b falls less
    assert claims.weakest(methods, rule)[0] == "c"
    assert claims.weakest({k: methods[k] for k in "ab"}, rule)[0] == "b"
    assert claims.weakest({**methods, "d": est(0.1, -1, 1)}, rule)[0] == "d"


def test_intervals_of_several_parts_are_widened_for_their_number():
    """Three claims of which all are false: a joint error rate of 5 % and not of 14 %."""
    rng = np.random.default_rng([11, 2])
    wrong = [0, 0]
    for _ in range(2000):
        parts = {name: est(x, x - 1.96, x + 1.96) | {"method": "known"} for name, x in zip("abc", rng.normal(size=3))}
        for i, some in enumerate((parts, claims.widened(parts))):
            wrong[i] += any(e["low"] > 0 or e["high"] < 0 for e in some.values())
    assert wrong[0] / 2000 > 0.11 and 0.035 < wrong[1] / 2000 < 0.065
    alone = {"a": est(1, 0, 2) | {"method": "known"}}
    assert claims.widened(alone) == alone


def test_intervals_of_few_units_are_widened_for_their_number():
    """Nine units, as the groups of traits are: the bootstrap of a mean of 0 lies beside it in a tenth of the draws."""
    rng, wrong = np.random.default_rng([11, 3]), [0, 0]
    for seed in range(1000):
        found = metrics.bootstrap(rng.normal(size=9), unit="groups", seed_address=[11, seed], n_boot=500)
        for i, one in enumerate((found, claims.widened({"": found})[""])):
            wrong[i] += one["low"] > 0 or one["high"] < 0
    assert wrong[0] / 1000 > 0.08 and 0.03 < wrong[1] / 1000 < 0.065
    assert one["method"].endswith("widened for 9 units") and one["value"] == found["value"]


def test_one_unit_has_no_interval():
    gates = [{"key": "known", "side": "above", "threshold": 0.5, "what": "facts"}]
    claim = {"id": "X", "stage": "03_transfer", "key": "x", "rule": {"side": "above", "threshold": 0}}
    for made, more in (({"x": est(2, 2, 2, 1)}, {}), ({"x": est(2, 1, 3), "known": est(1, 1, 1, 1)}, {"gates": gates})):
        cell = claims.decide(claim | more, "m", {("m", "03_transfer"): fake(made, "03_transfer")})
        assert cell["verdict"] == "not testable here" and "from one of behaviours, which has no interval" in cell["reason"]


def test_students_quantiles_are_those_of_a_table():
    for level, degrees, value in ((0.975, 1, 12.7062), (0.975, 8, 2.3060), (0.995, 3, 5.8409), (0.975, 100, 1.98397)):
        assert claims.student(level, degrees) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("known, word", [(est(0.9, 0.8, 1), "reproduced"), (est(0.6, 0.4, 0.8), "not testable here"),
                                         (0.7, "reproduced"), (0.4, "not testable here"),
                                         ({"reason": "no facts"}, "not testable here")])
def test_a_shut_gate_says_why(known, word):
    """A gate needs its whole interval beyond the threshold; a shut one gives its number as the reason."""
    claim = {"stage": "03_transfer", "key": "x", "rule": {"side": "above", "threshold": 0}, "gates": [
        {"key": "known", "stage": "02_tune", "side": "above", "threshold": 0.5, "what": "the model knows the facts"}]}
    missing = isinstance(known, dict) and "reason" in known
    gate = fake({"not_testable": {"known": known["reason"]}} if missing else {"known": known}, "02_tune")
    cell = claims.decide(claim, "m", {("m", "03_transfer"): fake({"x": est(2, 1, 3)}, "03_transfer"),
                                      ("m", "02_tune"): gate})
    assert cell["verdict"] == word
    if word != "reproduced":
        assert cell["reason"].startswith("the model knows the facts: ") and ("needed" in cell["reason"] or missing)


# --- keys and tokens ----------------------------------------------------
def fake(results, stage="03_transfer", config=None):
    return SimpleNamespace(results=results, config=config or {}, path=Path("outputs/m/s") / stage,
                           digest="0123456789abcdef", manifest={"stage": stage})


FOUND = {
    ("m", "03_transfer"): fake(
        {"traits": {"gap": est(12.345, 10, 14)}, "n": 3, "not_testable": {"values": "no values"}},
        config={"n_random": 20, "settings": ["BASE", "SYS"]},
    ),
    ("k", "03_transfer"): fake({"traits": {"gap": est(-2, -3, -0.04)}, "n": 4}, config={"n_random": 20}),
}


@pytest.mark.parametrize(
    "token, text",
    [
        ("{{m:03_transfer:traits.gap.value|.1f}}", "12.3"),
        ("{{m:03_transfer:n|d}}", "3"),
        ("{{m:03_transfer:traits.gap|est1}}", "12.3 [10.0, 14.0], n = 40"),
        ("{{*:03_transfer:traits.gap.value|.1f}}", "m 12.3, k \u22122.0"),
        ("{{k:03_transfer:traits.gap|est1}}", "\u22122.0 [\u22123.0, 0.0], n = 40"),  # no negative zero
        ("{{m:03_transfer:values.shift|est}}", "no values"),
        ("{{m:03_transfer:config.n_random|d}}", "20"),
        ("{{m:03_transfer:config.settings|len}}", "2"),
        ("{{=:03_transfer:config.n_random|d}}", "20"),  # they agree
        ("{{=:03_transfer:n|d}}", "m 3, k 4"),  # they do not
        ("{{published:models.largest|d}}", "14"),
        ("{{figure:x}}", "X"),
    ],
)
def test_tokens_resolve(token, text):
    published = {"models": {"largest": 14}}
    assert build.fill(f"a {token} b", ["m", "k"], FOUND, {"figure:x": "X"}, published) == f"a {text} b"


@pytest.mark.parametrize(
    "token, message",
    [
        ("{{m:03_transfer:traits.gpa.value|.1f}}", "gpa"),
        ("{{m:04_compose:traits|est}}", "04_compose"),
        ("{{z:03_transfer:n|d}}", "'z'"),
        ("{{m:03_transfer:n}}", "no known token"),
        ("{{m:03_transfer:config.seed|d}}", "config.seed"),
        ("{{published:models.smallest|d}}", "published.json has no 'models.smallest'"),
        ("{{figure:y}}", "no known token"),
        ("{{m:03_transfer:n|.q}}", "03_transfer:n"),
        ("{{m:03_transfer:n|d}", "not closed"),
        ("{{rows:03_transfer:traits.nope|1}}", "nope"),
    ],
)
def test_tokens_fail(token, message):
    with pytest.raises(UserError, match=message):
        build.fill(f"a {token} b", ["m", "k"], FOUND, {})


def test_null_needs_a_reason():
    with pytest.raises(UserError, match="null"):
        claims.lookup(fake({"a": None}), "a")


def test_claims_about_steering_need_behaviours_that_steer():
    claim = {"stage": "03_transfer", "key": "rho", "needs": "steerable",
             "rule": {"side": "above", "threshold": 0, "why": "x"}}
    rho = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 40}
    for steer, word in ((7, "reproduced"), (6, "not testable here")):
        found = {("m", "03_transfer"): fake({"rho": rho}),
                 ("m", "05_reliability"): fake({"n": {"steerable": steer, "steerable_by_luck": 6}})}
        cell = claims.decide(claim, "m", found)
        assert cell["verdict"] == word and (word == "reproduced" or "luck" in cell["reason"])
    assert claims.decide({k: v for k, v in claim.items() if k != "needs"}, "m", found)["verdict"] == "reproduced"


def test_claims_file():
    ids = [c["id"] for c in CLAIMS]
    assert ids == [f"{kind}{i + 1}" for kind in "PRAB" for i in range(sum(x[0] == kind for x in ids))]
    assert len(ids) > 25
    for claim in CLAIMS:
        assert claim.get("needs") in (None, "steerable")
        assert set(claim) - {"needs", "gates", "changed"} == {
            "id", "paper", "title", "statement", "published", "source", "stage", "key", "rule", "reads", "null", "unit",
            "command", "digits"}
        assert set(claim["reads"]) == set(claims.VERDICTS[:3]) and all(text.endswith(".") for text in claim["reads"].values())
        assert set(claim["null"]) <= {"untrained", "random", "shuffled", "permuted"} and claim["null"]
        for gate in claim.get("gates", ()):
            assert {"key", "side", "threshold", "what"} <= set(gate) <= {"key", "side", "threshold", "what", "stage"}
        assert set(claim.get("changed", {"from": 0, "to": 0, "why": 0, "seen": 0})) == {"from", "to", "why", "seen"}
        assert claim["rule"]["side"] in ("above", "below") and claim["rule"]["why"]
        assert claim["paper"] in claims.PAPERS
        assert claim["stage"] in claims.STAGES + (claims.ACROSS,)


def test_template_uses_every_figure_once():
    template = (ROOT / "report" / "template.md").read_text()
    assert all(template.count("{{figure:%s}}" % f.name) == 1 for f in build.figures.ALL)
    assert template.index("{{figure:verdicts}}") < template.index("\n## ")


# --- the whole page from planted artifacts ------------------------------
def run_build(monkeypatch, tmp, names=NAMES, *extra, engines=()):
    monkeypatch.setattr(build.latex, "ENGINES", engines)  # TeX takes seconds; one test asks for it
    at = ["--out", str(tmp / "outputs"), "--to", str(tmp / "report")]
    models = [part for name in names for part in ("--model", name)]
    monkeypatch.setattr(sys, "argv", ["build.py", "--suite", "planted", *at, *models, *extra])
    build.main()
    return (tmp / "report" / "report.md").read_text()


def again(old, **parts):
    """A stage folder written anew, changed as told."""
    tables = {name: old.table(name) for name in old.manifest["outputs"]}
    kept = {"config": old.config, "inputs": old.manifest["inputs"], "tables": tables, "results": old.results}
    return artifacts.save(old.path, stage=old.path.name, **kept | parts)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_page_figures_and_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_reliability, "PAPERS", "planted")
    made = planted.plant(tmp_path / "outputs", NAMES)
    page = run_build(monkeypatch, tmp_path)
    assert "{{" not in page and "SMOKE" not in page
    for figure in build.figures.ALL:
        assert f"![{figure.title}](figures/{figure.name}.png)" in page
        assert (tmp_path / "report/figures" / f"{figure.name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((tmp_path / "report/figures" / f"{figure.name}.csv").read_text().splitlines()) > 2
    share = made["pico-gpt2", "05_reliability"].results["anti_steerable"]["share"]
    assert claims.show(share, 3) in page and made["pico-gpt2", "05_reliability"].digest in page
    assert "\n| A4 A5 A7\u2013A9 | the suite has no values | the suite has no values |" in page
    captions = [line for line in page.splitlines() if line.startswith("*Figure")]
    ends = re.compile(r" Stage 0\d_\w+, digest [^;]+(; stage 0\d_\w+, digest [^;]+)*; n = [^;]+\.\*$")
    assert len(captions) == len(build.figures.ALL) and all(ends.search(line) for line in captions)
    # byte for byte the same again, as a second checkout must find it
    before = files_of(tmp_path / "report")
    run_build(monkeypatch, tmp_path)
    assert files_of(tmp_path / "report") == before


def test_one_model_has_no_comparison(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    page = run_build(monkeypatch, tmp_path, NAMES[:1])
    assert re.search(r"^\| (?:R5 .*|.* R5.*|R5) \| needs two models \|$", page, re.M) and "across.png" not in page


def test_smoke_says_so(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1], profile="smoke")
    marked = []
    monkeypatch.setattr(build.draw, "save", lambda figure, path, smoke: (
        marked.append(smoke), path.write_bytes(b""), build.draw.plt.close(figure)))
    page = run_build(monkeypatch, tmp_path, NAMES[:1], "--profile", "smoke")
    assert page.startswith("> **SMOKE**") and marked and all(marked)


def test_quick_says_its_levels_and_the_budget_that_set_them(tmp_path, monkeypatch):
    made = planted.plant(tmp_path / "outputs", NAMES[:1], profile="quick")
    monkeypatch.setattr(build.draw, "save", lambda figure, path, smoke: (
        path.write_bytes(b""), build.draw.plt.close(figure)))
    text = f"{NAMES[0]}: {{}}levels preferences=0.5 reliability=1 alignment=0;"
    page = run_build(monkeypatch, tmp_path, NAMES[:1], "--profile", "quick")
    assert page.startswith("> **quick**") and text.format("") in page.splitlines()[0]
    config = made[NAMES[0], "01_extract"].config
    for levels, told in ((config["levels"], "budget 90 min, "), (config["levels"] | {"values": 1}, "")):
        artifacts.write_json(tmp_path / "outputs" / NAMES[0] / "planted-quick/plan.json", {"budget": 5400, "levels": levels})
        assert text.format(told) in run_build(monkeypatch, tmp_path, NAMES[:1], "--profile", "quick").splitlines()[0]


def test_failing_build_leaves_the_page_there_is(tmp_path, monkeypatch):
    """Whatever stops it, early or late: the old page, all its figures, nothing half-written, and no folder beside."""
    planted.plant(tmp_path / "outputs", NAMES[:1])
    made = again(artifacts.load(tmp_path / "outputs/pico-llama/planted/05_reliability"),
                 arrays={"propensity": (np.ones((40, 7)), ("item", "multiplier"))})
    array = made.path / "propensity.npy"
    whole = array.read_bytes()
    run_build(monkeypatch, tmp_path, NAMES[:1])
    (tmp_path / "report/report.pdf").write_bytes(b"of an earlier page")
    before, beside = files_of(tmp_path / "report"), sorted(tmp_path.iterdir())

    def stops(message):
        with pytest.raises(UserError, match=message):
            run_build(monkeypatch, tmp_path, NAMES[:1])
        assert files_of(tmp_path / "report") == before and sorted(tmp_path.iterdir()) == beside

    array.write_bytes(whole[:-8])
    stops("propensity.npy: changed; delete .* run 05_reliability again")
    array.write_bytes(whole)
    monkeypatch.setattr(build.draw, "save", lambda figure, path, smoke: (
        path.write_bytes(b"new"), build.draw.plt.close(figure)))
    with monkeypatch.context() as patch:
        patch.setattr(build.latex, "convert", lambda page: (_ for _ in ()).throw(UserError("pdflatex stopped")))
        stops("pdflatex stopped")
    monkeypatch.setattr(build, "place", lambda args: (tmp_path / "outputs", tmp_path / "report", True))
    monkeypatch.setattr(build, "RULES", ("<!-- no such mark -->",) * 2)
    stops("once each")


def test_notes_stand_above_the_verdicts_and_type_no_number(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    notes = tmp_path / "notes.md"
    notes.write_text("A run of the {{pico-llama:01_extract:config.profile|s}} size surprised.")
    run_build(monkeypatch, tmp_path, NAMES[:1], "--notes", str(notes))
    page = (tmp_path / "report/report.md").read_text()
    assert 0 < page.index("A run of the full size surprised.") < page.index("| | claim |")
    notes.write_text("A run of 12 surprised.")
    with pytest.raises(UserError, match="typed into the prose"):
        run_build(monkeypatch, tmp_path, NAMES[:1], "--notes", str(notes))


def test_new_page_replaces_all_of_the_old(tmp_path, monkeypatch):
    """What an earlier page had and this one has not is gone; what is not the page's stays."""
    planted.plant(tmp_path / "outputs", NAMES[:1])
    (tmp_path / "report/cases").mkdir(parents=True)
    (tmp_path / "report/cases/other.md").write_text("of an earlier set of models")
    (tmp_path / "report/methods.md").write_text("prose")
    run_build(monkeypatch, tmp_path, NAMES[:1])
    assert [path.name for path in (tmp_path / "report/cases").iterdir()] == ["pico-llama.md"]
    assert (tmp_path / "report/methods.md").read_text() == "prose"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "report"]


EMBEDDED = [f"data/models/{name}" for name in NAMES]


@pytest.mark.parametrize("flags, place", [
    ({"frozen": True}, ("outputs/committed", "report", True)),
    ({}, ("outputs", "outputs/pico-llama+pico-gpt2/testbed/report", False)),
    ({"out": "else"}, ("else", "else/pico-llama+pico-gpt2/testbed/report", False)),
    ({"frozen": True, "to": "x"}, ("outputs/committed", "x", False)),
    ({"frozen": True, "model": EMBEDDED[:1]},
     ("outputs/committed", "outputs/committed/pico-llama/testbed/report", False)),
    ({"frozen": True, "model": EMBEDDED[::-1]},
     ("outputs/committed", "outputs/committed/pico-gpt2+pico-llama/testbed/report", False)),
    ({"frozen": True, "profile": "smoke"},
     ("outputs/committed", "outputs/committed/pico-llama+pico-gpt2/testbed-smoke/report", False)),
    ({"frozen": True, "judge": "rules"},
     ("outputs/committed", "outputs/committed/pico-llama+pico-gpt2/testbed-by-rules/report", False)),
    ({"frozen": True, "suite": "papers"},
     ("outputs/committed", "outputs/committed/pico-llama+pico-gpt2/papers/report", False)),
    ({"model": ["org/one"]}, ("outputs", "outputs/org--one/testbed/report", False))])
def test_place(flags, place, monkeypatch):
    monkeypatch.chdir(ROOT)
    default = {"model": EMBEDDED, "suite": "testbed", "profile": "full", "judge": None, "out": "outputs",
               "frozen": False, "to": None}
    out, to, own = place
    assert build.place(Namespace(**default | flags)) == (Path(out), Path(to), own)


def test_frozen_page_of_the_embedded_models(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs/committed", NAMES, suite="testbed", suite_digest=suite.load("testbed").digest)
    for model in EMBEDDED:
        (tmp_path / model).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build.latex, "ENGINES", ())
    monkeypatch.setattr(sys, "argv", ["build.py", "--frozen", "--model", EMBEDDED[0], "--model", EMBEDDED[1]])
    build.main()
    page = Path("report/report.md").read_text()
    assert "](../outputs/committed/pico-gpt2/testbed/05_reliability/manifest.json#L" in page


def test_stale_upstream_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES)
    old = artifacts.load(tmp_path / "outputs/pico-llama/planted/01_extract")
    again(old, config={**old.config, "seed": 2})
    with pytest.raises(UserError, match="02_tune: stale, made from another 01_extract"):
        run_build(monkeypatch, tmp_path)


def test_stale_comparison_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES)
    planted.plant(tmp_path / "other", NAMES[::-1])
    where, theirs = (tmp_path / side / "pico-llama/planted" for side in ("outputs", "other"))
    shutil.rmtree(where)
    shutil.copytree(theirs, where)
    with pytest.raises(UserError, match="05_across: stale"):
        run_build(monkeypatch, tmp_path)


def test_artifact_of_another_suite_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    old = artifacts.load(tmp_path / "outputs/pico-llama/planted/05_reliability")
    again(old, inputs={**old.manifest["inputs"], "suite": "6" * 64})
    with pytest.raises(UserError, match="05_reliability: made from another suite"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_suite_on_disk_is_the_suite_of_the_artifacts(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1], suite="testbed")
    with pytest.raises(UserError, match="made from another suite than"):
        run_build(monkeypatch, tmp_path, NAMES[:1], "--suite", "testbed")


def test_edited_table_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    table = tmp_path / "outputs/pico-llama/planted/03_transfer/traits.json"
    table.write_text(table.read_text().replace("trait0", "trait9"))
    with pytest.raises(UserError, match="traits.json: .*delete .*run 03_transfer again"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_missing_stage_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    shutil.rmtree(tmp_path / "outputs/pico-llama/planted/04_compose")
    with pytest.raises(UserError, match="run 04_compose first"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_unknown_key_in_the_claims_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    folder = tmp_path / "outputs/pico-llama/planted"
    made = again(artifacts.load(folder / "02_tune"), results={"traits": {}})
    for stage in ("03_transfer", "04_compose", "05_reliability"):
        late = artifacts.load(folder / stage)
        again(late, inputs={**late.manifest["inputs"], "02_tune": made.digest})
    with pytest.raises(UserError, match="no key 'traits.tradeoff'"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


# --- every claim, every outcome, from a manifest ---------------------------
def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def merge(into, more):
    for key, value in more.items():
        if isinstance(into.get(key), dict) and isinstance(value, dict):
            merge(into[key], value)
        else:
            into[key] = value


@pytest.mark.parametrize("outcome", claims.VERDICTS)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_each_outcome_of_each_claim(claim, outcome, tmp_path):
    sign = 1 if claim["rule"]["side"] == "above" else -1
    ends = {"reproduced": (9, 8, 10), "undecided": (2, -1, 3), "contradicted": (-9, -10, -8)}.get(outcome)
    key = claim["key"].removesuffix(".*")
    if ends is None:
        results = {"not_testable": {key: "nothing to test it on"}}
    else:
        value, *interval = (claim["rule"]["threshold"] + sign * end for end in ends)
        found = est(value, min(interval), max(interval))
        several = {"one": found, "other": {**found, "value": value + sign}}
        results = nested(key, found if claim["key"] == key else several)
    model = "+" if claim["stage"] == claims.ACROSS else "m"
    made = artifacts.save(tmp_path / claim["stage"], stage=claim["stage"], config={}, inputs={}, results=results)
    opened = {"05_reliability": {"n": {"steerable": 9, "steerable_by_luck": 1}}}
    for gate in claim.get("gates", ()):             # all gates open
        beyond = gate["threshold"] + (1 if gate["side"] == "above" else -1)
        merge(opened.setdefault(gate.get("stage", claim["stage"]), {}), nested(gate["key"], est(beyond, beyond, beyond)))
    merge(opened.setdefault(claim["stage"], {}), results)
    found = {("m" if stage != claims.ACROSS else "+", stage): SimpleNamespace(
        results=value, config={}, path=made.path if stage == claim["stage"] else Path(stage), digest=made.digest)
        for stage, value in opened.items()}
    assert found[model, claim["stage"]].path == made.path
    cell = claims.decide(claim, "m", found)
    assert cell["verdict"] == outcome and cell["digest"] == made.digest
    assert (cell["estimate"] is None) == (outcome == "not testable here") == bool(cell["reason"])
    if claim["key"] != key and ends:
        assert cell["part"] == "one" and cell["key"] == f"{key}.one"  # the one that is least far


def test_a_study_without_time_says_so():
    """Of a quick run that left out a study, its claims say that, and no other's."""
    for claim, other in itertools.product(CLAIMS, sizes.STUDIES):
        levels = dict.fromkeys(sizes.STUDIES, 0.0) | {other: None}
        key = claims.source(claim, "m")
        bare = SimpleNamespace(config={"levels": levels}, results={"not_testable": {claim["key"].removesuffix(".*"): "no number"}},
                               digest="")
        found = dict.fromkeys([key, *(("m", stage) for stage in claims.STAGES)], bare)
        mine = claims.study_of(claim)
        said = claims.decide({**claim, "needs": ""}, "m", found)["reason"]
        assert said == ("left out of this quick run for its time" if mine == other else "no number")


def test_commands_run_what_their_cost_counts():
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    for command, stages in claims.COMMANDS.items():
        plan = subprocess.run([*command.split(), "-n", "-B", "MODEL=org/one org/two", "PYTHON=python3"], cwd=ROOT,
                              env=env, capture_output=True, text=True).stdout
        ran = set(re.findall(r'python3 (0\d_\w+)\.py "\$\{one\[@\]\}"', plan))
        assert ran | ({claims.ACROSS} if "--across" in plan else set()) == set(stages), command
    assert {claim["command"] for claim in CLAIMS} <= set(claims.COMMANDS)


def test_table_links_to_the_line_of_the_key(tmp_path, monkeypatch):
    made = planted.plant(tmp_path / "outputs", NAMES)
    page = run_build(monkeypatch, tmp_path)
    table = page.split("| not testable here |")[0]
    rows = {line.split()[1]: line for line in table.splitlines() if re.match(r"\| [PRAB]\d+ \|", line)}
    shut = page.split("| not testable here |")[1].split("\n\n")[0].splitlines()[2:]
    others = [claim for line in shut for claim in spelled(line.split("|")[1])]
    assert others and sorted([*rows, *others]) == sorted(claim["id"] for claim in CLAIMS)        # every claim once
    for claim in CLAIMS:
        if claim["id"] in others:
            continue
        row = rows[claim["id"]]
        assert f"{claim['rule']['side']} {claim['rule']['threshold']}" in row
        assert f"`{claim['command']}`<br>0 s" in row
        for key, target, line in re.findall(r"\[([\w.]+)\]\((\S+)#L(\d+)\)", row):
            text = (tmp_path / "report" / target).read_text().splitlines()[int(line) - 1]
            assert text.strip().startswith(f'"{key.split(".")[-1]}": ')
            assert f"{key.split('.')[0]}" in (tmp_path / "report" / target).read_text()
    share, digits = made["pico-llama", "05_reliability"].results["steerability"]["minus_random"], next(
        claim["digits"] for claim in CLAIMS if claim["key"] == "steerability.minus_random")
    assert f"{claims.show(claims.widened({'': share})[''], digits)}, n = {share['n']}<br>" in page


def test_index_holds_what_was_read(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_reliability, "PAPERS", "planted")
    made = planted.plant(tmp_path / "outputs", NAMES)
    run_build(monkeypatch, tmp_path)
    index = json.loads((tmp_path / "report/index.json").read_text())
    digests = {"/".join(key): artifact.digest for key, artifact in made.items()}
    assert {label: entry["digest"] for label, entry in index["stages"].items()} == digests
    assert set(index["figures"]) == {figure.name for figure in build.figures.ALL}
    layers = index["figures"]["layers"]
    assert layers["reads"] == [f"{n}/{s}" for n in sorted(NAMES) for s in ("01_extract", "02_tune")]
    assert layers["tables"] == ["layers", "settings"]
    assert index["figures"]["antonym"]["tables"] == ["relations", "ways"]
    for figure in index["figures"].values():
        for place in (figure["rows"], figure["draw"]):
            path, number, name = re.match(r"(\S+):(\d+) (\w+)", place).groups()
            assert (ROOT / path).read_text().splitlines()[int(number) - 1].startswith(f"def {name}(")


# --- numbers come from tokens, and every artifact is used -------------------
@pytest.mark.parametrize(
    "text, found",
    [
        ("arXiv 2407.12404, claims P1 and A12, 95 % intervals, Table 2", []),
        ("`05_reliability` on GPT-2 and Llama-2-7b-chat", []),
        ("`0.21` at k = 2 and x=3", [(1, "0.21"), (1, "2"), (1, "3")]),
        ("a share of 0.21", [(1, "0.21")]),
        ("one\ntwo of 40 and 1,000", [(2, "40"), (2, "1,000")]),
        ("{{m:03_transfer:traits.gap.value|.1f}} of {{published:models.largest|d}}", []),
        ("{{rows:03_transfer:a.b2 = share,c = of 36 traits|1}}", [(1, "36")]),
        ("{{rows:03_transfer:a.b2 = share (R2),c = rest|3}}", []),
    ],
)
def test_typed_numbers(text, found):
    assert build.typed(text) == found


def test_typed_number_stops_the_build(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="typed into the prose.*'36' in line 2"):
        build.fill("{{m:03_transfer:n|d}} of\n36 traits", ["m"], FOUND, {})
    planted.plant(tmp_path / "outputs", NAMES[:1])
    layers = build.figures.LAYERS
    monkeypatch.setattr(build.figures, "ALL", (build.figures.VERDICTS, layers._replace(caption="All 6 layers.")))
    with pytest.raises(UserError, match="figure layers: a number typed"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_unused_artifact_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    monkeypatch.setattr(build.figures, "ALL", (build.figures.VERDICTS,))
    template = "{{suite}} {{models}} {{verdicts}} {{figure:verdicts}} {{claims}} {{provenance}}\n"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text",
                        lambda path, **k: template if path.name == "template.md" else read(path, **k))
    with pytest.raises(UserError, match="01_extract: read by no claim, token or figure"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_stray_artifact_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    older = tmp_path / "outputs/pico-llama/planted/06_older"
    artifacts.save(older, stage="06_older", config={}, inputs={}, results={"n": 1})
    with pytest.raises(UserError, match="06_older: an artifact that no part of the report reads"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_edited_result_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    path = tmp_path / "outputs/pico-llama/planted/05_reliability/manifest.json"
    path.write_text(path.read_text().replace('"value": 0.', '"value": 1.', 1))
    with pytest.raises(UserError, match="05_reliability/manifest.json: changed"):
        run_build(monkeypatch, tmp_path, NAMES[:1])


def test_block_of_a_page(tmp_path):
    page, marks = tmp_path / "README.md", front.MARKS
    page.write_text(f"a\n{marks[0]}\nold\n{marks[1]}\nb\n")
    for _ in range(2):  # writing it again changes nothing
        page.write_text(build.with_block(page, "new", marks))
        assert page.read_text() == f"a\n{marks[0]}\nnew\n{marks[1]}\nb\n"
    page.write_text("no marks")
    with pytest.raises(UserError, match="once each"):
        build.with_block(page, "new", marks)


def outcomes(shift):
    """A verdict per claim, each of the four in turn, as index.json has them."""
    return {c["id"]: {"verdict": word, "value": None if word == claims.VERDICTS[-1] else 0.5,
                      "reason": "the gate is shut: 0.1" if word == claims.VERDICTS[-1] else ""}
            for c, word in zip(CLAIMS, itertools.cycle(claims.VERDICTS[shift:] + claims.VERDICTS[:shift]))}


def spelled(cell):
    """Claims of a cell of README's table, those between two ends among them."""
    return [f"{letter}{i}" for letter, first, last in re.findall(r"([PRAB])(\d+)(?:\u2013[PRAB](\d+))?", cell)
            for i in range(int(first), int(last or first) + 1)]


def test_front_lists_every_claim_once_per_model_real_ones_first(tmp_path):
    silent = {claim: {"verdict": claims.VERDICTS[-1], "value": None, "reason": "it cannot: 2"} for claim in outcomes(0)}
    late = {claim: cell | {"reason": claims.NO_TIME} for claim, cell in silent.items()}
    pages = [("real models", {"m": outcomes(0), "s": silent, "o": late}), ("instrument check", {"k": outcomes(1)})]
    text = front.block(pages)
    rows = [line for line in text.splitlines() if line.startswith(("| m", "| s", "| o", "| k"))]
    assert [row.split()[1] for row in rows] == ["m", "s", "o", "k"] and "k (instrument check)" in rows[-1]
    for row in rows:
        assert sorted(claim for cell in row.split("|")[2:] for claim in spelled(cell)) == sorted(c["id"] for c in CLAIMS)
    assert claims.ranges(["P1", "P2", "P4", "P5", "P6", "R7", "R9"]) == "P1 P2 P4\u2013P6 R7 R9"
    assert text.count("nothing could be tested on s;") == 4 and "\u201cit cannot\u201d" in text
    # what a run had no time for is told apart from what a gate shut out, and is no reason of a gate
    assert text.count("left out for time on o.") == 4 and claims.NO_TIME not in text
    assert rows[2].split("|")[-2].strip().startswith(f"{len(CLAIMS)}: ")
    assert text.endswith(f"`make all` ends with: `{claims.tally([c['verdict'] for c in outcomes(1).values()])}`")
    front.picture(pages, CLAIMS, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_verdicts_are_told_apart_in_grey():
    def grey(fill):
        rgb = np.array(to_rgb(fill["facecolor"])) * fill.get("alpha", 1) + 1 - fill.get("alpha", 1)
        return rgb @ [0.299, 0.587, 0.114]

    shades = sorted(grey(build.figures.style(word)) for word in claims.VERDICTS)
    assert min(np.diff(shades)) > 0.05
    assert len({sign for _, sign in build.draw.VERDICT.values()}) == len(claims.VERDICTS)


# --- the page in TeX --------------------------------------------------------
def test_tex_of_the_markdown():
    page = (
        "# A *b*\n\ntext with `a_b`, **bold** and [a link](https://x.org/a_b#c%d); 5 % & $\n\n- one\n  more\n"
        "- two\n\n"
        "| | x |\n|---|---|\n| a\\|b | **c**<br>[k_1](../m.json#L3) |\n\n![alt](figures/f.png)\n\n*n = 3 \u2212 1*\n"
    )
    tex = build.latex.convert(page)
    for part in (
        r"\bfseries A \textit{b}",
        r"\texttt{a\_\allowbreak{}b}",
        r"\textbf{bold}",
        r"\href{https://x.org/a_b\#c\%d}{a link}",
        r"5 \% \& \$",
        r"\item one more",
        r"a\textbar{}b & \textbf{c}\newline k\_\allowbreak{}1 \\",
        r"]{figures/f.png}",
        r"\textit{n = 3 $-$ 1}",
    ):
        assert part in tex, part
    assert "../m.json" not in tex and tex.count(r"\begin{longtable}") == tex.count(r"\end{longtable}") == 1
    assert build.latex.escape("a smile \U0001F600") == "a smile [U+1F600]"


def test_tex_without_an_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(build.latex, "ENGINES", ("no-such-engine",))
    assert "not made, none of no-such-engine is installed" in build.latex.write("# A\n", tmp_path)
    assert (tmp_path / "report.tex").is_file() and not (tmp_path / "report.pdf").exists()


@pytest.mark.skipif(not any(map(shutil.which, build.latex.ENGINES)), reason="no TeX engine is installed")
def test_pdf_is_made_once_and_the_same_again(tmp_path):
    page = "# A\n\ntext \u2192 `x`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    pdfs = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        assert ", by " in build.latex.write(page, tmp_path / folder)
        pdfs.append((tmp_path / folder / "report.pdf").read_bytes())
    assert pdfs[0] == pdfs[1] and pdfs[0].startswith(b"%PDF")
    assert "is of this page" in build.latex.write(page, tmp_path / "one")
    assert ", by " in build.latex.write(page + "\nmore\n", tmp_path / "one")


def test_pdf_of_a_page_that_is_built_beside(tmp_path, monkeypatch):
    """It is made in the new folder, and not at all if the one in the old folder is of this page."""
    engine = tmp_path / "some-tex"
    engine.write_text('#!/bin/sh\nfor word; do case $word in -output-directory=*) at=${word#*=};; esac; done\n'
                      'echo "%PDF" > "$at/report.pdf"\n')
    engine.chmod(0o755)
    monkeypatch.setattr(build.latex, "ENGINES", (str(engine),))
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    assert f"{old / 'report.pdf'}, by" in build.latex.write("# A\n", new, old)
    assert not list(old.iterdir())
    (new / "report.pdf").rename(old / "report.pdf")
    assert "is of this page" in build.latex.write("# A\n", new, old) and not (new / "report.pdf").exists()
    assert ", by" in build.latex.write("# B\n", new, old) and (new / "report.pdf").exists()


def test_committed_pdf_is_of_the_committed_page():
    tex, pdf = ROOT / "report/report.tex", ROOT / "report/report.pdf"
    pictures = set(re.findall(r"\\includegraphics\[[^\]]*\]\{([^}]+)\}", tex.read_text()))
    parts = {name: artifacts.sha256(ROOT / "report" / name) for name in ("report.tex", *pictures)}
    assert pdf.read_bytes().endswith(f"% page {artifacts.digest_of(parts)}\n".encode())
    assert tex.read_text() == build.latex.convert((ROOT / "report/report.md").read_text())


# --- figures ----------------------------------------------------------------
def test_figures_label_their_axes(tmp_path, monkeypatch):
    """On every outer side of a panel: a label, or categories as ticks."""
    planted.plant(tmp_path / "outputs", NAMES)
    drawn = {}
    monkeypatch.setattr(build.draw, "save",
                        lambda figure, path, smoke: drawn.update({path.stem: figure}) or path.write_bytes(b""))
    run_build(monkeypatch, tmp_path)

    def categories(axis):
        return any(re.search("[A-Za-z]{2}", tick.get_text()) for tick in axis.get_ticklabels())

    for name, figure in drawn.items():
        for axes in figure.axes if name != "verdicts" else ():
            spec = axes.get_subplotspec()
            if spec is not None and spec.is_last_row():
                assert axes.get_xlabel() or categories(axes.xaxis), f"{name}: x of {axes}"
            if spec is not None and spec.is_first_col():
                assert axes.get_ylabel() or categories(axes.yaxis), f"{name}: y of {axes}"
        build.draw.plt.close(figure)


def test_words_shown_are_the_last_the_middle_and_the_first_by_what_the_vector_adds():
    gains = {"bare": [0.5, -1.0, 2.0, 0.1, 0.3], "1 sentence": [1.0]}
    items = [{"context": context, "x": f"x_{i}", "y": "y|", "template": "qa"} for context in gains for i in range(len(gains[context]))]
    added = np.array(sum(gains.values(), []))
    logp = np.column_stack([-9 + 0 * added, -9 + added, *[np.full(len(added), v) for v in (1, 2, 3, -7, -8)]])
    artifact = SimpleNamespace(manifest={"outputs": {"relation_items.jsonl": 0}}, table=lambda name: items, array={
        "relation_logp": logp, "relation_rank": np.round(-logp * 10)}.__getitem__)
    rows = [[cell.strip() for cell in line.split(" | ")] for line in examples.words(artifact).splitlines()[2:]]
    assert [row[1:3] for row in rows] == [["best", "x\\_2, y\\|"], ["median", "x\\_4, y\\|"], ["worst", "x\\_1, y\\|"],
                                          ["best and median and worst", "x\\_0, y\\|"]]
    assert rows[0][4:] == ["\u22129.0", "\u22127.0", "\u22127.5", "90", "70", "75 |"]
    assert len(examples.words(artifact, contexts=1).splitlines()) == 2 + 3
    assert examples.words(SimpleNamespace(manifest={"outputs": {}})) == ""


def test_a_way_that_a_run_does_not_have_is_no_missing_key():
    results = {"relations": {"ways": {"mean": {"gain": 1}}, "specific": {"mean": 2}}}
    artifact = SimpleNamespace(results=results, config={"ways": ["mean"]}, path=Path("m"))
    assert claims.lookup(artifact, "relations.ways.mean.gain") == 1 and claims.lookup(artifact, "relations.specific.mean") == 2
    for key in ("relations.ways.mixed.gain", "relations.specific.mixed"):
        assert claims.lookup(artifact, key) == {"reason": "not one of the ways of this run"}
        with pytest.raises(UserError, match="no key"):
            claims.lookup(SimpleNamespace(results=results, config={"ways": ["mean", "mixed"]}, path=Path("m")), key)


def test_a_key_that_an_older_run_lacks_is_said_and_one_that_all_lack_is_an_error():
    new, old = (SimpleNamespace(results=results, config={}, path=Path(name)) for name, results in (
        ("new", {"a": {"b": planted.est(0.5)}}), ("old", {"a": {}})))
    found = {("new", "03_transfer"): new, ("old", "03_transfer"): old}
    table = build.rows_table(["a.b = label"], "03_transfer", 2, ["old", "new"], found)
    assert "| label | not measured in this run, which is older | 0.50" in table
    with pytest.raises(UserError, match="no key 'a.c'"):
        build.rows_table(["a.c"], "03_transfer", 2, ["old", "new"], found)
    old.results["a"]["b"] = None                                          # a null is no older run
    with pytest.raises(UserError, match="is null and no reason is given"):
        build.rows_table(["a.b"], "03_transfer", 2, ["old", "new"], found)


def test_ranks_beside_published_ones_are_of_the_same_statements_and_within_formats(tmp_path, monkeypatch):
    """Two formats that lie apart in one order here and in the other there, each in the published order inside."""
    known = {name: float(i) for i, name in enumerate(planted.BEHAVIOURS)}
    monkeypatch.setattr(figures_reliability, "published", lambda _: {"steerability": {"big": known, "other": {"x": 1.0}}})
    rows = [{"name": name, "format": "ab"[i // 3], "sum": {"mean": i - 10.0 * (i // 3)}, "sum_raw": {"mean": float(-i)}}
            for i, name in enumerate(known)]
    artifact = SimpleNamespace(config={"suite": "papers"}, digest="0" * 64, results={"n": {"steerable": 9, "steerable_by_luck": 2}},
                               manifest={"outputs": {"behaviours.json": {}}}, table=lambda _: rows)
    found, caption = figures_reliability.ranks_rows(["m"], {("m", "05_reliability"): artifact})
    told = {(row["strength"], row["among"]): row["value"] for row in found}
    assert told == pytest.approx({("raw", "all"): -1, ("raw", "within formats"): -1, ("matched", "within formats"): 1,
                                  ("matched", "all"): np.corrcoef([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2])[0, 1]})
    assert {row["n"] for row in found} == {6} and "n = 6 behaviours" in caption
    artifact.results["n"]["steerable_by_luck"] = 9                                      # nothing steers
    assert figures_reliability.ranks_rows(["m"], {("m", "05_reliability"): artifact})[0] == []


def test_models_with_other_values_share_a_figure():
    keys = ("value", "low", "high", "bias_against", "bias_random", "fact_accuracy", "fact_accuracy_random", "perplexity",
            "perplexity_random")
    rows = [{"model": model, "value_name": name, "strength": strength, "kind": "grid", "inside": False,
             **dict.fromkeys(keys, 0.5)} for model, name in (("a", "x"), ("b", "x"), ("b", "y")) for strength in (1.0, 4.0)]
    axes = figures_alignment.values_draw(rows, ["a", "b"]).axes
    assert [len([line for line in axis.lines if len(line.get_xdata())]) for axis in axes[2:4]] == [2, 4]
