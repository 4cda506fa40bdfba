"""Audit: what was edited, is missing or comes out otherwise is found by name; a planted digit is found by spot checks."""
import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from lib import artifacts, stage
from lib.artifacts import UserError
from lib.judging import judges
from report import audit, compare, light, spot, trace
from tests import tiny
from tests.test_stage_01_02 import HashJudge

STAGES = audit.STAGES


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 9, "unit": "things", "method": "none"}


def save(path, **more):
    return artifacts.save(path, **({"stage": path.name, "config": {}, "inputs": {}, "results": {"n": 1}} | more))


# --- verify -------------------------------------------------------------------------------------------------
def test_verify_finds_edits_strangers_and_what_is_missing(tmp_path, capsys):
    first = save(tmp_path / "01_extract", tables={"t": [1]})
    save(tmp_path / "02_tune", inputs={"01_extract": first.digest})
    folders = [tmp_path / "01_extract", tmp_path / "02_tune"]
    (tmp_path / "01_extract" / stage.MARK).write_text("{}")        # local, and no part of the results
    audit.verify_all(folders)
    out = capsys.readouterr().out
    assert out.count("ok  ") == 2 and "no spot check" in out and "sources the same" in out
    (tmp_path / "01_extract" / "extra.npy").write_bytes(b"")
    with pytest.raises(UserError, match="extra.npy: not in the manifest"):
        audit.verify(tmp_path / "01_extract")
    save(tmp_path / "01_extract", config={"seed": 2})              # 02 is stale now
    with pytest.raises(UserError, match="1 of 2 stage folders are not as they were written"):
        audit.verify_all(folders)
    assert "02_tune: made from another 01_extract" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 of 3"):
        audit.verify_all([tmp_path / "01_extract", tmp_path / "03_transfer", tmp_path / "01_extract"])
    assert "03_transfer: no manifest.json" in capsys.readouterr().out


def test_an_input_that_is_gone_is_missed(tmp_path):
    save(tmp_path / "02_tune", inputs={"01_extract": "ab" * 32})
    with pytest.raises(UserError, match="01_extract/manifest.json: cannot be read"):
        audit.verify(tmp_path / "02_tune")


def test_inputs_of_a_model_set_are_the_stages_of_its_models(tmp_path):
    saved = {name: save(tmp_path / name / "s" / "05_x", config={"name": name}) for name in ("a", "b")}
    both = tmp_path / "a+b" / "s" / "05_y"
    save(both, inputs={f"{name}/05_x": made.digest for name, made in saved.items()})
    assert audit.inspect(both) == ([], {"files": 0, "inputs": 2, "data": 0, "weights": 0})
    shutil.move(tmp_path / "b/s", tmp_path / "b/s-bfloat16")                  # a model in a precision of its own
    assert audit.inspect(both) == ([], {"files": 0, "inputs": 2, "data": 0, "weights": 0})
    save(tmp_path / "b" / "s" / "05_x", config={"name": "c"})
    assert not audit.inspect(both)[0]
    shutil.rmtree(tmp_path / "b/s-bfloat16")
    assert ["another b/05_x" in fault for fault in audit.inspect(both)[0]] == [True]


def test_a_file_beside_model_and_suite_is_an_input_too(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/published.json").write_text("{}")
    save(tmp_path / "05_x", inputs={"published": artifacts.sha256(tmp_path / "data/published.json")})
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    audit.verify(tmp_path / "05_x")
    (tmp_path / "data/published.json").write_text("[]")
    with pytest.raises(UserError, match="made from another data/published.json"):
        audit.verify(tmp_path / "05_x")


def test_sources_that_changed_are_named_and_no_fault(tmp_path, monkeypatch, capsys):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/metrics.py").write_text('"""Head."""\nLEVEL = 0.95\n\n\ndef bootstrap():\n    return LEVEL\n')
    for module in (artifacts.identity, trace):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    artifacts.identity._tree.cache_clear()
    path = save(tmp_path / "05_x", sources=[tmp_path / "lib/metrics.py"]).path

    def told(old, new):
        text = (tmp_path / "lib/metrics.py").read_text()
        assert old in text
        (tmp_path / "lib/metrics.py").write_text(text.replace(old, new))
        artifacts.identity._tree.cache_clear()
        audit.verify_all([path])
        (tmp_path / "lib/metrics.py").write_text(text)
        return capsys.readouterr().out

    assert "sources the same" in told("Head.", "Another head.")
    assert "made by other sources: lib/metrics.py bootstrap" in told("return LEVEL", "return LEVEL / 2")
    assert "made by other sources: lib/metrics.py LEVEL" in told("0.95", "0.90")
    (tmp_path / "lib/metrics.py").unlink()
    artifacts.identity._tree.cache_clear()
    audit.verify_all([path])
    assert "made by other sources: lib/metrics.py is gone" in capsys.readouterr().out


def test_flags_of_a_kept_command_line():
    run = {"argv": ["05.py", "--model", "a", "--suite=x/y", "--model", "b"]}
    assert audit.given(run, "--model") == ["a", "b"] and audit.given(run, "--suite", "testbed") == ["x/y"]
    assert audit.given(run, "--profile", "full") == ["full"]


# --- compare and publish ------------------------------------------------------------------------------------
def test_grades(tmp_path):
    def made(name, value=1.5, text="a", number=1.0, **more):
        return save(tmp_path / name / "05_x", results={"a": {"b": estimate(value, 1.0, 2.0)}, **more.pop("results", {})},
                    tables={"t": [{"text": text, "number": number}]}, arrays={"x": (np.full(3, number), ("i",))}, **more).path

    old = made("old")
    for grade, told, again in (
            ("same", "digest", made("1")), ("same", "another inputs.suite", made("2", inputs={"suite": "ab"})),
            ("rounding", "0 by more than rounding", made("3", number=1.0 + 1e-7)),
            ("rounding", "1 moved", made("4", value=1.5001)),
            ("moved", "inf at t.json [0].text", made("5", text="b")),
            ("moved", "a.b 1.5 -> 1.9, inside [1, 2]", made("6", value=1.9)),
            ("differs", "a.b 1.5 -> 2.1, outside [1, 2]", made("7", value=2.1)),
            ("differs", "c on one side only", made("8", results={"c": estimate(0, 0, 0)})),
            ("differs", "config.seed differs", made("9", config={"seed": 2}, number=2.0))):
        found, said = compare.compare(old, again)
        assert found == grade and any(told in line for line in said), (again, found, said)


def test_gaps_name_the_place():
    assert list(compare.gaps({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]})) == [("a[1].b", np.inf)]
    assert list(compare.gaps([1.0], [1.5])) == [("[0]", 0.25)] and list(compare.gaps({"a": 1}, {})) == [("a", np.inf)]
    assert list(compare.gaps(np.zeros((2, 2)), np.array([[0, 0], [0, 1]]), "x")) == [("x[1, 1]", 1.0)]
    assert list(compare.gaps(np.zeros(2), np.zeros(3))) == [("", np.inf)] and not list(compare.gaps(np.ones(2), np.ones(2)))


def test_summary_counts_what_differs(tmp_path):
    found = [(tmp_path / f"m/s/{i}", grade, []) for i, grade in enumerate(("same", "same", "rounding", "differs"))]
    assert compare.summary(found) == ("2 of 4 stages equal the committed ones; 1 differ in the last bits: m/s/2; "
                                      "1 differ in substance: m/s/3")
    assert compare.summary(found[:2]) == "2 of 2 stages equal the committed ones"


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A run of a model of two stages in outputs, and the same committed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "STAGES", ("01_extract", "02_tune"))
    for name in audit.STAGES:
        save(tmp_path / "outputs/m/testbed" / name, tables={"t": [1]})
        (tmp_path / "outputs/m/testbed" / name / stage.MARK).write_text("{}")
    return tmp_path


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["audit", *words])
    audit.main()


def test_publish_and_compare(committed, monkeypatch, capsys):
    command(monkeypatch, "compare", "--model", "m", "--brief")
    assert capsys.readouterr().out == "no committed results of m to compare with\n"
    command(monkeypatch, "publish", "--model", "m")
    kept = committed / "outputs/committed/m/testbed/01_extract"
    assert (kept / "manifest.json").is_file() and not (kept / stage.MARK).exists()
    command(monkeypatch, "compare", "--model", "m", "--brief")
    assert capsys.readouterr().out.endswith("2 of 2 stages equal the committed ones\n")
    save(committed / "outputs/m/testbed/02_tune", config={"seed": 3}, tables={"t": [2]})
    command(monkeypatch, "compare", "--model", "m", "--brief")                    # `make all` ends with this: no error
    assert capsys.readouterr().out == ("1 of 2 stages equal the committed ones; 1 differ in substance: "
                                       "m/testbed/02_tune\n")
    with pytest.raises(UserError, match="differs from the committed results"):
        command(monkeypatch, "compare", "--model", "m")
    shutil.rmtree(committed / "outputs/m/testbed/02_tune")
    with pytest.raises(UserError, match="no manifest"):
        command(monkeypatch, "publish", "--model", "m")                           # nothing half of a run is published
    assert (committed / "outputs/committed/m/testbed/02_tune/manifest.json").is_file()
    command(monkeypatch, "clean", "--model", "m")
    assert not (committed / "outputs/m/testbed").exists() and kept.is_dir()


def test_large_arrays_are_left_out_and_said(committed, monkeypatch, capsys):
    """What stage 01 makes again is not committed; a file that goes missing otherwise is still a fault."""
    monkeypatch.setattr(light, "LARGE", 100)
    many, axes = np.ones((8, 64), np.float32), ("draw", "d_model")
    first = save(committed / "outputs/m/testbed/01_extract", tables={"t": [1]},
                 arrays={"shuffled_vectors": (many, axes), "vectors": (many, axes), "scores": (many, ("item", "draw"))})
    save(committed / "outputs/m/testbed/02_tune", inputs={"01_extract": first.digest})
    command(monkeypatch, "publish", "--model", "m")
    kept = committed / "outputs/committed/m/testbed/01_extract"
    assert sorted(path.name for path in kept.glob("*.npy")) == ["scores.npy", "vectors.npy"]
    assert artifacts.read_json(kept / light.LEFT_OUT) == {"shuffled_vectors.npy": 2176}
    capsys.readouterr()
    command(monkeypatch, "verify", "--model", "m")
    assert "files 3, left out 1, inputs 0" in capsys.readouterr().out
    command(monkeypatch, "compare", "--model", "m", "--brief")
    assert capsys.readouterr().out == "2 of 2 stages equal the committed ones\n"
    shutil.rmtree(committed / "outputs/m")                                  # committed results go in and come out again
    shutil.copytree(committed / "outputs/committed/m", committed / "outputs/m")
    command(monkeypatch, "publish", "--model", "m")
    assert artifacts.read_json(kept / light.LEFT_OUT) == {"shuffled_vectors.npy": 2176}
    save(first.path, tables={"t": [1]}, arrays={"shuffled_vectors": (2 * many, axes), "vectors": (many, axes),
                                                 "scores": (many, ("item", "draw"))})
    assert audit.compare.compare(kept, first.path)[0] == "moved"
    (kept / "scores.npy").unlink()
    with pytest.raises(UserError, match="1 of 2 stage folders"):
        command(monkeypatch, "verify", "--model", "m")
    assert "scores.npy" in capsys.readouterr().out


def test_spot_passes_over_what_needs_an_array_that_is_not_committed(tmp_path):
    made = save(tmp_path / "01_extract", arrays={"way_vectors": (np.ones((2, 3)), ("way", "d_model"))})
    (made.path / "way_vectors.npy").unlink()
    assert spot.committed(lambda: [1], ["way_vectors.npy"]) == [1]
    assert spot.committed(lambda: made.array("way_vectors"), ["way_vectors.npy"]) == "needs way_vectors.npy, which is not committed"
    with pytest.raises(UserError, match="way_vectors.npy: missing"):
        spot.committed(lambda: made.array("way_vectors"), ["vectors.npy"])


def test_vectors_at_tuned_layers_stay(tmp_path, monkeypatch):
    """Rows of behaviours, relations and all concepts, each at every layer that its entry in tuned.json names."""
    monkeypatch.setattr(light, "LARGE", 0)
    rng, (n, depth, d) = np.random.default_rng(1), (4, 5, 3)
    keys = ["trait/a", "behaviour/b", "behaviour/c", "relation/d"]
    whole = {"shuffled_vectors": (rng.normal(size=(n, 2, depth, d)), ("concept", "draw", "layer", "d_model")),
             "setting_vectors": (rng.normal(size=(2, 2, depth, d)).astype(np.float32), ("setting", "behaviour", "layer", "d_model")),
             "way_vectors": (rng.normal(size=(2, 1, depth, d)), ("way", "relation", "layer", "d_model")),
             "other": (rng.normal(size=(2, d)), ("item", "d_model"))}
    saved = save(tmp_path / "01_extract", arrays=whole,
                 tables={"concepts": [{"key": key, "kind": key.split("/")[0]} for key in keys]})
    tuned = {"trait/a": {"layer": 3}, "behaviour/b": {"layer": 1}, "relation/d": {"layer": 0, "ways": {"mean": {"layer": 4}}}}
    at = {"trait/a": [3], "behaviour/b": [1], "behaviour/c": [], "relation/d": [0, 4]}
    light.lighten(saved, tuned)
    kept = light.Light(saved.path, saved.manifest)
    assert not list(saved.path.glob("*.npy")) and not audit.inspect(saved.path)[0]
    for name, of in (("shuffled_vectors", keys), ("setting_vectors", keys[1:3]), ("way_vectors", keys[3:])):
        array, (full, axes) = kept.array(name), whole[name]
        assert kept.holds(name) and array.dtype == full.dtype and array.shape == full.shape
        row, layer = (axes.index(axis) for axis in (next(a for a in axes if a in ("concept", "behaviour", "relation")), "layer"))
        for i, l in np.ndindex(full.shape[row], depth):
            here = tuple(i if axis == row else l if axis == layer else slice(None) for axis in range(full.ndim))
            assert np.array_equal(array[here], full[here]) if l in at[of[i]] else np.isnan(array[here]).all()
    assert not kept.holds("other")
    with pytest.raises(UserError, match="other.npy: missing"):
        kept.array("other")
    for broken in (b"PK", b"PK\x03\x04 and no more", b""):
        (saved.path / "way_vectors.tuned.npz").write_bytes(broken)
        with pytest.raises(UserError, match="way_vectors.tuned.npz: cannot be read"):
            kept.array("way_vectors")


def test_task_items_of_somebody_else_are_not_committed(committed, monkeypatch, capsys):
    for suite, kept in (("testbed", True), ("papers", False)):
        path = committed / f"outputs/m/{suite}/01_extract"
        first = save(path, config={"suite": suite}, tables={"prompts.jsonl": [{"id": "a"}], "cases.jsonl": [{"item": "a"}]})
        save(path.parent / "02_tune", config={"suite": suite}, inputs={"01_extract": first.digest})
        light.lighten(artifacts.load(path), {})
        assert (path / "prompts.jsonl").exists() is kept and (path / "cases.jsonl").exists()
        assert light.left_out(path) == ({} if kept else {"prompts.jsonl": 12})
        assert not audit.inspect(path)[0]


# --- trace --------------------------------------------------------------------------------------------------
def test_line_of_a_key(tmp_path):
    saved = save(tmp_path / "x", config={"a": {"b": 1}}, results={"a": {"ab": 0, "b": {"c": 1}}, "b": 3})
    lines = (tmp_path / "x/manifest.json").read_text().splitlines()
    at = [lines[trace.line_of(saved.path / "manifest.json", key) - 1].strip() for key in ("a.b.c", "b", "a.ab", "a.b")]
    assert at == ['"c": 1', '"b": 3', '"ab": 0,', '"b": {']


@pytest.mark.parametrize("text, line", [
    ('def f():\n    return {"share": g(1), "rest": 2}\n', 2),
    ('def f(r):\n    missing = {"share": "none"}\n    r["share"] = g(missing)\n', 3),          # not the reason
    ('def f(r):\n    show("share")\n\n\ndef g(r):\n    r["bias"] = {"share": h(2)}\n', 6),    # not where it is shown
    ('def f(r):\n    a = {"share": h(1)}\n    r["bias"] = {"share": h(2)}\n', 3)])        # below its parent
def test_place_of_a_key(tmp_path, monkeypatch, text, line):
    monkeypatch.setattr(trace, "ROOT", tmp_path)
    (tmp_path / "one.py").write_text(text)
    assert trace.place(["one.py"], "bias.share")[:2] == ("one.py", line)
    assert trace.place(["one.py"], "bias.nothing") == (None, 0, "")


# --- spot ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """All five stages of a tiny model at smoke size; a hash judges, and every pair of answers is kept."""
    folder = tmp_path_factory.mktemp("spot")
    tiny.save(folder / "tiny", "llama", max_position_embeddings=2048)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "load", lambda *_: HashJudge())
        patch.setattr(importlib.import_module("01_extract"), "why_dropped", lambda *_: None)
        for name in STAGES:
            patch.setattr(sys, "argv", [name, "--model", str(folder / "tiny"), "--profile", "smoke", "--out",
                                        str(folder / "outputs")])
            importlib.import_module(name).main()
    return folder


def check(run, monkeypatch, name, n, seed):
    monkeypatch.setattr(judges, "load", lambda *_: HashJudge())
    args = stage.cli("x", many=True).parse_args(["--model", str(run / "tiny"), "--profile", "smoke", "--out", str(run / "outputs")])
    args.n, args.seed = n, seed
    spot.check(args, [path for path in audit.due(args) if path.name == name], audit.SPOTS)


def test_spot_takes_the_precision_of_each_stage(run, tmp_path, monkeypatch):
    shutil.copytree(run / "outputs/tiny/testbed-smoke", tmp_path / "tiny/testbed-smoke-bfloat16")
    monkeypatch.setattr(judges, "load", lambda *_: HashJudge())
    seen = {}
    monkeypatch.setattr(spot, "UNITS", {name: lambda at, _script, kept: seen.update({kept.path.name: at.lm.model.dtype}) or {}
                                        for name in STAGES})
    args = stage.cli("x", many=True).parse_args(["--model", str(run / "tiny"), "--profile", "smoke", "--out", str(tmp_path),
                                                 "--dtype", "bfloat16"])
    args.n, args.seed = 1, 1
    spot.check(args, audit.due(args), audit.SPOTS)
    assert seen == dict.fromkeys(STAGES, torch.bfloat16) | {STAGES[0]: torch.float32}


def edit(path, name, change):
    """Change one output of a stage and make every hash fit, as a careful forger would."""
    artifact = artifacts.load(path)
    manifest = json.loads((path / "manifest.json").read_text())
    if name.endswith(".npy"):
        array = artifact.array(name.removesuffix(".npy")).copy()
        change(array)
        np.save(path / name, array)
    else:
        rows = artifact.table(name)
        change(rows)
        artifacts.write_json(path / name, rows)
    manifest["outputs"][name]["sha256"] = artifacts.sha256(path / name)
    manifest["digest"] = artifacts.digest_of({key: value for key, value in manifest.items() if key != "digest"})
    artifacts.write_json(path / "manifest.json", manifest)


def one_digit(array):
    """The first significant digit of one number goes up by one."""
    flat = array.reshape(-1)
    flat[flat.size // 2] += 10.0 ** np.floor(np.log10(np.abs(flat[flat.size // 2])))


def one_score(rows):
    scored = [row for row in rows if row.get("coherence") is not None and row.get("key", "trait/").startswith("trait/")]
    scored[len(scored) // 2]["coherence"] += 1


def one_slope(rows):
    by_layer = rows[len(rows) // 2]["matched"]
    by_layer[0] += 10.0 ** np.floor(np.log10(np.abs(by_layer[0])))


@pytest.mark.parametrize("name, file, change", [
    ("01_extract", "vectors.npy", one_digit), ("02_tune", "slopes.jsonl", one_slope), ("02_tune", "candidates.jsonl", one_score),
    ("03_transfer", "propensity.npy", one_digit), ("04_compose", "cases.jsonl", one_score),
    ("05_reliability", "propensity.npy", one_digit)])
def test_a_planted_digit_is_found_in_ten_runs(run, tmp_path, monkeypatch, capsys, name, file, change):
    shutil.copytree(run / "outputs", tmp_path / "outputs")
    shutil.copytree(run / "tiny", tmp_path / "tiny")
    monkeypatch.setattr(spot, "SHARES", dict.fromkeys(spot.SHARES, 20))
    folder = tmp_path / "outputs/tiny/testbed-smoke" / name
    check(tmp_path, monkeypatch, name, 1, 7)                       # as it was written, a unit is equal
    total = json.loads((folder.parent / audit.SPOTS).read_text())[name]["of"]
    edit(folder, file, change)
    audit.verify(folder) if name == "05_reliability" else None     # every hash fits: verify cannot see it
    with pytest.raises(UserError, match="units differ from what is committed"):
        for _ in range(10):
            check(tmp_path, monkeypatch, name, -(-total // 10), None)
    assert f"BAD  {folder}" in capsys.readouterr().out
    assert "differ" in audit.spotted(artifacts.load(folder))


def test_units_not_yet_checked_come_first_and_the_book_says_so(run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run / "outputs", tmp_path / "outputs")
    shutil.copytree(run / "tiny", tmp_path / "tiny")
    seen = []
    for seed in (1, 2):
        check(tmp_path, monkeypatch, "05_reliability", 2, seed)
        out = capsys.readouterr().out
        assert f"seed {seed}, 2 units per stage" in out and "2 of 2 units are what is committed" in out
        seen += [line.split("05_reliability  ")[1].split(":")[0] for line in out.splitlines() if line.startswith("ok")]
    assert len(set(seen)) == 4
    told = audit.spotted(artifacts.load(tmp_path / "outputs/tiny/testbed-smoke/05_reliability"))
    assert told.startswith("0 of 4 units differ (4 in all), commit ")
    assert audit.spotted(artifacts.load(tmp_path / "outputs/tiny/testbed-smoke/01_extract")) == "no spot check"


def some(units):
    """The units of a stage that write no texts."""
    return lambda *given: {name: call for name, call in units(*given).items() if name.startswith(("behaviour", "relation"))}


def test_what_is_committed_light_is_computed_again(run, tmp_path, monkeypatch, capsys):
    """The stages behind 02 need no more of 01's controls than is kept at tuned layers; a digit changed there is found."""
    shutil.copytree(run / "outputs", tmp_path / "outputs")
    shutil.copytree(run / "tiny", tmp_path / "tiny")
    monkeypatch.setattr(light, "LARGE", 0)
    folder = tmp_path / "outputs/tiny/testbed-smoke"
    made = artifacts.load(folder / "01_extract")
    light.lighten(made, artifacts.load(folder / "02_tune").table("tuned"))
    assert len(list(made.path.glob("*.npz"))) == 5 and not list(made.path.glob("*_vectors.npy"))
    monkeypatch.setattr(spot, "UNITS", {name: some(units) for name, units in spot.UNITS.items()})
    for name in (*STAGES[:3], STAGES[4]):
        check(tmp_path, monkeypatch, name, 100, 1)
    out = capsys.readouterr().out
    assert "BAD" not in out and {line.split(":")[0] for line in out.splitlines() if line.startswith("--")} == {
        f"--   {folder / name}" for name in STAGES[:2]}                     # 01's and 02's relations need all layers
    for name, unit in ((STAGES[0], "behaviour corrigible-more-HHH"), (STAGES[2], "behaviour corrigible-more-HHH"),
                       (STAGES[2], "relation ways"), (STAGES[4], "behaviour corrigible-more-HHH")):
        assert f"ok   {folder / name}  {unit}: equal" in out
    path = made.path / f"shuffled_vectors{light.TUNED}"
    with np.load(path) as kept:
        at, vectors = kept["at"], kept["vectors"]
    np.savez(path, at=at, vectors=-vectors)
    with pytest.raises(UserError, match="units differ from what is committed"):
        check(tmp_path, monkeypatch, STAGES[4], 100, 1)
