"""Artifacts: the same inputs give the same bytes, nothing half-written stays, and a changed file is refused
by name."""
import json

import numpy as np
import pytest

from lib import artifacts
from lib.artifacts import UserError


def write(out, **changes):
    """A small stage folder; `changes` replace arguments of save."""
    arguments = dict(stage="01_extract", config={"seed": 1, "profile": "full"}, inputs={"suite": "ab" * 32},
                     arrays={"vectors": (np.arange(6, dtype=np.float32).reshape(2, 3), ("concept", "d"))},
                     tables={"concepts": [{"key": "trait/formal", "n": np.int64(3)}],
                             "responses.jsonl": [{"text": "é\nx"}, {"text": "b"}]},
                     results={"share": 1 / 3, "tiny": -1e-300 * 1e-300, "n": np.int32(2)})
    return artifacts.save(out, **(arguments | changes))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "run.json"}


def test_round_trip(tmp_path):
    write(tmp_path / "s" / "01_extract", sources=[__file__], t0=0)
    got = artifacts.load(tmp_path / "s" / "01_extract", "01_extract")
    assert got.array("vectors").tolist() == [[0, 1, 2], [3, 4, 5]] and got.array("vectors").dtype == np.float32
    assert got.table("concepts") == got.table("concepts.json") == [{"key": "trait/formal", "n": 3}]
    assert got.table("responses")[0] == {"text": "é\nx"}
    assert got.results == {"share": 0.333333, "tiny": 0.0, "n": 2}
    assert got.manifest["outputs"]["vectors.npy"] == {
        "sha256": artifacts.sha256(tmp_path / "s" / "01_extract" / "vectors.npy"),
        "shape": [2, 3], "axes": ["concept", "d"], "dtype": "float32"}
    assert "test_round_trip" in got.run["sources"]["tests/test_artifacts.py"] and got.run["wall_s"] > 0


def test_bytes_do_not_depend_on_order_time_or_memory_layout(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", config={"profile": "full", "seed": 1}, t0=123.0, sources=[__file__],
              arrays={"vectors": (np.asfortranarray(array), ["concept", "d"])},
              tables=dict(reversed([("concepts", [{"n": 3, "key": "trait/formal"}]),
                                    ("responses.jsonl", ({"text": "é\nx"}, {"text": "b"}))])))
    assert contents(a.path) == contents(b.path) and a.digest == b.digest


@pytest.mark.parametrize("changes", [
    {"config": {"seed": 2}}, {"inputs": {"suite": "cd" * 32}}, {"results": {"share": 0.3}}, {"stage": "02_tune"},
    {"arrays": {"vectors": (np.zeros((2, 3), np.float32), ("concept", "d"))}},
    {"arrays": {"vectors": (np.arange(6, dtype=np.float32).reshape(2, 3), ("concept", "width"))}}])
def test_digest_covers_everything_that_is_identity(tmp_path, changes):
    assert write(tmp_path / "a").digest != write(tmp_path / "b", **changes).digest


def test_rounding_of_results_hides_last_bits_only(tmp_path):
    digests = [write(tmp_path / name, results={"x": x}).digest
               for name, x in (("a", 0.1 + 0.2), ("b", 0.3), ("c", 0.300001))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("changes, message", [
    ({"results": {"a": {"b": [1.0, float("nan")]}}}, r"results\.a\.b\[1\].*not a finite"),
    ({"tables": {"t": {"x": np.float32("inf")}}}, r"t\.json\.x.*not a finite"),
    ({"config": {"x": float("inf")}}, r"config\.x"),
    ({"arrays": {"v": (np.array([[0, 1], [np.nan, 2]]), ("item", "d"))}}, r"v\.npy.*1 numbers.*'item': 1, 'd': 0"),
    ({"arrays": {"v": (np.zeros((0, 3)), ("item", "d"))}}, r"v\.npy of shape \(0, 3\): empty"),
    ({"tables": {"t": []}}, r"t\.json: empty"), ({"tables": {"t.jsonl": []}}, r"t\.jsonl: empty")])
def test_refused_values_leave_the_earlier_folder_alone(tmp_path, changes, message):
    before = contents(write(tmp_path / "a").path)
    with pytest.raises(UserError, match=message):
        write(tmp_path / "a", **changes)
    assert contents(tmp_path / "a") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("changes, error", [
    ({"arrays": {"v": (np.array([object()]), ("item",))}}, TypeError),          # would need pickle
    ({"arrays": {"v": (np.zeros(3), ("item", "d"))}}, TypeError),
    ({"tables": {"t": {1: 2}}}, TypeError), ({"tables": {"t": [{1, 2}]}}, TypeError),
    ({"tables": {"manifest": [1]}}, ValueError), ({"tables": {"t": [1], "t.json": [1]}}, ValueError)])
def test_programming_errors(tmp_path, changes, error):
    with pytest.raises(error):
        write(tmp_path / "a", **changes)
    assert not list(tmp_path.iterdir())


def test_saving_again_replaces_the_folder_and_clears_what_was_left(tmp_path):
    write(tmp_path / "a", tables={"old": [1]})
    for left in ("a.tmp-1", "a.old-1", "a.units", "ab.units"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "x").write_text("x")
    write(tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "ab.units"]
    assert not (tmp_path / "a" / "old.json").exists()


def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="no manifest.json"):
        write(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years"


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "a")


@pytest.mark.parametrize("name", ["vectors.npy", "concepts.json", "responses.jsonl"])
def test_tampered_or_missing_file_is_named_with_the_remedy(tmp_path, name):
    got = write(tmp_path / "a")
    path = tmp_path / "a" / name
    read = (lambda: got.array("vectors")) if name.endswith(".npy") else (lambda: got.table(name))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: changed; delete .*a and run 01_extract again"):
        read()
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: missing; delete .*a and run 01_extract again"):
        read()


def test_edited_manifest_is_refused(tmp_path):
    path = write(tmp_path / "a").path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["results"]["share"] = 0.9
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest.json: changed; delete .*a and run 01_extract"):
        artifacts.load(tmp_path / "a")
    for text, message in (("{\n\n oops", "line 3: not JSON"), ("[]", "changed"), ("{}", "changed")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            artifacts.load(tmp_path / "a")


def test_missing_stage_wrong_stage_and_unknown_name(tmp_path):
    with pytest.raises(UserError, match="02_tune: no manifest.json; run 02_tune first"):
        artifacts.load(tmp_path / "02_tune", "02_tune")
    write(tmp_path / "a")
    with pytest.raises(UserError, match="written by 01_extract, expected 02_tune"):
        artifacts.load(tmp_path / "a", "02_tune")
    with pytest.raises(UserError, match="nothing.npy: not in the manifest"):
        artifacts.load(tmp_path / "a").array("nothing")


def test_json_lines_keep_odd_line_separators_and_name_the_bad_line(tmp_path):
    write(tmp_path / "a", tables={"t.jsonl": [{"x": "a\u2028b\u0085c\rd"}, {"x": ""}]})
    assert artifacts.load(tmp_path / "a").table("t")[0]["x"] == "a\u2028b\u0085c\rd"
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match="b.jsonl, line 2: not JSON"):
        artifacts.read_json(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="none.json: cannot be read .No such file"):
        artifacts.read_json(tmp_path / "none.json")


def test_run_turns_a_user_error_into_one_line(capsys):
    def fail():
        raise UserError("file.json:\n  bad")
    with pytest.raises(SystemExit) as stop:
        artifacts.run(fail)
    assert stop.value.code == 2 and capsys.readouterr().err == "error: file.json: bad\n"
    with pytest.raises(ZeroDivisionError):                                        # a bug keeps its traceback
        artifacts.run(lambda: 1 / 0)


def test_data_files_stand_beside_the_artifact_not_in_its_digest(tmp_path):
    data = {"licence": "MIT", "source": "here", "files": {"suite.json": "ab" * 32}}
    a, b = write(tmp_path / "a"), write(tmp_path / "b", data=data)
    assert a.digest == b.digest and "data" not in a.run and b.run["data"] == data
