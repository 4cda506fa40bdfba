"""The report: verdicts follow their rules, every number is a key of a manifest, stale or foreign artifacts
stop the build."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib import artifacts
from lib.artifacts import UserError
from tests import planted

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "report"))
spec = importlib.util.spec_from_file_location("build", ROOT / "report" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def est(value, low, high, n=40):
    return {"value": value, "low": low, "high": high, "n": n, "unit": "behaviours", "method": "bootstrap"}


# --- verdicts -----------------------------------------------------------
@pytest.mark.parametrize(
    "side, threshold, estimate, word",
    [
        ("above", 0, est(1, 0.5, 2), "reproduced"),
        ("above", 0, est(1, -0.5, 2), "partly"),
        ("above", 0, est(1, 0.0, 2), "partly"),  # touching is not beyond
        ("above", 0, est(-1, -2, 0.5), "not reproduced"),
        ("above", 0, est(0, 0, 0), "not reproduced"),
        ("above", 20, est(25, 19, 31), "partly"),
        ("below", 0, est(-1, -2, -0.5), "reproduced"),
        ("below", 0, est(-1, -2, 0.5), "partly"),
        ("below", 0, est(1, 0.5, 2), "not reproduced"),
        ("below", 1, est(0.8, 0.6, 1.0), "partly"),
        ("above", 0, None, "not testable here"),
    ],
)
def test_verdict(side, threshold, estimate, word):
    assert build.verdict(estimate, {"side": side, "threshold": threshold}) == word


def test_verdict_mirrors():
    rng = np.random.default_rng([11, 1])
    for _ in range(200):
        low, value, high = np.sort(rng.normal(size=3))
        up = build.verdict(est(value, low, high), {"side": "above", "threshold": 0.3})
        down = build.verdict(est(-value, -high, -low), {"side": "below", "threshold": -0.3})
        assert up == down


def test_verdict_needs_an_interval_and_a_side():
    with pytest.raises(UserError, match="low and high"):
        build.verdict({"value": 1.0, "low": None, "high": None}, {"side": "above", "threshold": 0})
    with pytest.raises(UserError, match="side"):
        build.verdict(est(1, 0, 2), {"side": "over", "threshold": 0})


def test_every_method_must_hold():
    rule = {"side": "below", "threshold": 0}
    methods = {"a": est(-3, -4, -2), "b": est(-1, -2, -0.5), "c": est(-2, -5, 0.5)}
    # its interval crosses, though b falls less
    assert build.weakest(methods, rule)[0] == "c"
    assert build.weakest({k: methods[k] for k in "ab"}, rule)[0] == "b"
    assert build.weakest({**methods, "d": est(0.1, -1, 1)}, rule)[0] == "d"


# --- keys and tokens ----------------------------------------------------
def fake(results, stage="03_transfer"):
    return SimpleNamespace(
        results=results,
        path=Path("outputs/m/s") / stage,
        digest="0123456789abcdef",
        manifest={"stage": stage},
    )


FOUND = {
    ("m", "03_transfer"): fake(
        {"traits": {"gap": est(12.345, 10, 14)}, "n": 3, "not_testable": {"values": "no values"}}
    ),
    ("k", "03_transfer"): fake({"traits": {"gap": est(-2, -3, -0.04)}, "n": 4}),
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
        ("{{figure:x}}", "X"),
    ],
)
def test_tokens_resolve(token, text):
    assert build.fill(f"a {token} b", ["m", "k"], FOUND, {"figure:x": "X"}) == f"a {text} b"


@pytest.mark.parametrize(
    "token, message",
    [
        ("{{m:03_transfer:traits.gpa.value|.1f}}", "gpa"),
        ("{{m:04_compose:traits|est}}", "04_compose"),
        ("{{z:03_transfer:n|d}}", "'z'"),
        ("{{m:03_transfer:n}}", "no known token"),
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
        build.lookup(fake({"a": None}), "a")


def test_claims_about_steering_need_behaviours_that_steer():
    claim = {"stage": "03_transfer", "key": "rho", "needs": "steerable", "rule": {"side": "above", "threshold": 0, "why": "x"}}
    rho = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 40}
    for steer, word in ((7, "reproduced"), (6, "not testable here")):
        found = {("m", "03_transfer"): fake({"rho": rho}),
                 ("m", "05_reliability"): fake({"n": {"steerable": steer, "steerable_by_luck": 6}})}
        cell = build.decide(claim, "m", found)
        assert cell["verdict"] == word and (word == "reproduced" or "luck" in cell["reason"])
    assert build.decide({k: v for k, v in claim.items() if k != "needs"}, "m", found)["verdict"] == "reproduced"


def test_claims_file():
    claims = json.loads((ROOT / "report" / "claims.json").read_text())
    assert [c["id"] for c in claims] == [f"P{i}" for i in range(1, 9)] + [f"R{i}" for i in range(1, 8)] + [
        f"A{i}" for i in range(1, 10)
    ]
    for claim in claims:
        assert claim.get("needs") in (None, "steerable")
        assert set(claim) - {"needs"} == {
            "id",
            "paper",
            "title",
            "statement",
            "published",
            "source",
            "stage",
            "key",
            "rule",
            "unit",
            "command",
            "digits",
        }
        assert (
            claim["rule"]["side"] in ("above", "below")
            and claim["rule"]["why"]
            and claim["paper"] in build.PAPERS
        )
        assert claim["stage"] in build.STAGES + (build.ACROSS,)


def test_template_uses_every_figure_once():
    template = (ROOT / "report" / "template.md").read_text()
    assert all(template.count("{{figure:%s}}" % f.name) == 1 for f in build.figures.ALL)
    assert template.index("{{figure:verdicts}}") < template.index("\n## ")


# --- the whole page from planted artifacts ------------------------------
NAMES = ("pico-llama", "pico-gpt2")


def run_build(monkeypatch, tmp, names=NAMES, *extra):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "build.py",
            "--suite",
            "planted",
            "--out",
            str(tmp / "outputs"),
            "--to",
            str(tmp / "report"),
            *[part for name in names for part in ("--model", name)],
            *extra,
        ],
    )
    build.main()
    return (tmp / "report" / "report.md").read_text()


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_page_figures_and_csv(tmp_path, monkeypatch):
    made = planted.plant(tmp_path / "outputs", NAMES)
    page = run_build(monkeypatch, tmp_path)
    assert "{{" not in page and "SMOKE" not in page
    for figure in build.figures.ALL:
        assert f"![{figure.title}](figures/{figure.name}.png)" in page
        assert (tmp_path / "report/figures" / f"{figure.name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((tmp_path / "report/figures" / f"{figure.name}.csv").read_text().splitlines()) > 2
    share = made["pico-gpt2", "05_reliability"].results["anti_steerable"]["share"]
    assert build.show(share, 3) in page and made["pico-gpt2", "05_reliability"].digest in page
    assert "not testable here**<br>the suite has no values" in page
    captions = [line for line in page.splitlines() if line.startswith("*Figure") and "Stage" in line]
    assert captions and all("digest" in line and "n " in line for line in captions)
    # byte for byte the same again, as a second checkout must find it
    before = files_of(tmp_path / "report")
    run_build(monkeypatch, tmp_path)
    assert files_of(tmp_path / "report") == before


def test_one_model_has_no_comparison(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1])
    page = run_build(monkeypatch, tmp_path, NAMES[:1])
    assert "not testable here**<br>needs two models" in page and "across.png" not in page


def test_smoke_says_so(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES[:1], profile="smoke")
    marked = []
    monkeypatch.setattr(
        build.draw,
        "save",
        lambda figure, path, smoke: marked.append(smoke) or build.draw.plt.close(figure),
    )
    page = run_build(monkeypatch, tmp_path, NAMES[:1], "--profile", "smoke")
    assert page.startswith("> **SMOKE**") and marked and all(marked)


def test_stale_upstream_stops_the_build(tmp_path, monkeypatch):
    planted.plant(tmp_path / "outputs", NAMES)
    where = tmp_path / "outputs/pico-llama/planted/01_extract"
    old = artifacts.load(where)
    artifacts.save(
        where,
        stage="01_extract",
        config={**old.config, "seed": 2},
        inputs=old.manifest["inputs"],
        tables={"layers": old.table("layers")},
    )
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
    where = tmp_path / "outputs/pico-llama/planted/05_reliability"
    old = artifacts.load(where)
    artifacts.save(
        where,
        stage="05_reliability",
        config=old.config,
        inputs={**old.manifest["inputs"], "suite": "6" * 64},
        tables={"behaviours": old.table("behaviours")},
        results=old.results,
    )
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
    where = tmp_path / "outputs/pico-llama/planted/02_tune"
    old = artifacts.load(where)
    made = artifacts.save(
        where,
        stage="02_tune",
        config=old.config,
        inputs=old.manifest["inputs"],
        tables={name: old.table(name) for name in ("layers", "settings")},
        results={"traits": {}},
    )
    for stage in ("03_transfer", "04_compose", "05_reliability"):
        path = where.with_name(stage)
        late = artifacts.load(path)
        artifacts.save(
            path,
            stage=stage,
            config=late.config,
            inputs={**late.manifest["inputs"], "02_tune": made.digest},
            tables={n: late.table(n) for n in late.manifest["outputs"]},
            results=late.results,
        )
    with pytest.raises(UserError, match="no key 'traits.tradeoff'"):
        run_build(monkeypatch, tmp_path, NAMES[:1])
