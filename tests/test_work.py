"""Work units: a killed stage ends with the same bytes, ranks share the work, foreign or damaged units are not
read."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib import work
from lib.artifacts import UserError

ROOT = Path(__file__).resolve().parent.parent

# A stage in miniature: 12 units, each logged when computed; argv: folder, seconds per unit.
STAGE = """
import os, sys, time
import numpy as np
from lib import artifacts, work
out, pause = sys.argv[1], float(sys.argv[2])
def fn(key):
    with open(out + ".log", "a") as log:
        log.write(key + " " + os.environ.get("RANK", "0") + "\\n")
    time.sleep(pause)
    rng = np.random.default_rng([7, int(key[1:])])
    return {"x": rng.normal(size=(2, 3)).astype(np.float32), "note": {"mean": float(rng.normal()), "t": (1, 2)}}
for phase in ("coarse", "fine"):
    got = work.units(out, {"phase": phase}, [f"u{i}" for i in range(6)], fn, phase)
assert list(got) == [f"u{i}" for i in range(6)]
if work.is_main():
    artifacts.save(out, stage="s", config={}, inputs={}, results={"sum": float(sum(r["x"].sum() for r in got.values()))},
                   arrays={"x": (np.stack([r["x"] for r in got.values()]), ("unit", "row", "d"))},
                   tables={"notes.jsonl": [r["note"] for r in got.values()]})
"""


def start(folder, pause=0.0, **env):
    (folder / "stage.py").write_text(STAGE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen([sys.executable, folder / "stage.py", folder / "out", str(pause)], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    for process in processes:
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert out == err == ""                            # progress is for terminals, not for logs


def contents(folder):
    return {p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.name != "run.json"}


def log(folder):
    return [line.split() for line in (folder / "out.log").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder))
    return contents(folder)


def wait_for_units(folder, n):
    stop = time.time() + 15
    while len(list(folder.glob("out.units/*/*.npz"))) < n:
        assert time.time() < stop
        time.sleep(0.01)


def test_killed_stage_resumes_with_the_same_bytes(tmp_path, undisturbed):
    process = start(tmp_path, pause=0.05)
    wait_for_units(tmp_path, 8)                            # in the second phase
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists()
    done, before = len(list(tmp_path.glob("out.units/*/*.npz"))), len(log(tmp_path))
    finish(start(tmp_path))
    assert contents(tmp_path) == undisturbed
    assert len(log(tmp_path)) - before == 12 - done        # only the missing units were computed again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.log", "stage.py"]


def test_two_ranks_share_the_units_and_write_the_same_bytes(tmp_path, undisturbed):
    pair = [start(tmp_path, pause=0.02, RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)]
    finish(*pair)
    assert contents(tmp_path) == undisturbed
    assert sorted(log(tmp_path)) == sorted([f"u{i}", str(i % 2)] for i in range(6) for _ in range(2))


@pytest.mark.parametrize("late", [0, 1])
def test_ranks_meet_in_spite_of_a_killed_run(tmp_path, undisturbed, late):
    pair = [start(tmp_path, pause=0.05, RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    wait_for_units(tmp_path, 12)                           # everything computed, words of this run left behind
    for process in pair:
        process.kill()
        process.communicate()
    first = start(tmp_path, RANK=str(1 - late), WORLD_SIZE="2")
    time.sleep(0.6)                                        # long enough to run through if it trusted old words
    assert first.poll() is None or (tmp_path / "out").exists()
    finish(first, start(tmp_path, RANK=str(late), WORLD_SIZE="2"))
    assert contents(tmp_path) == undisturbed


def unit(out, identity, value, calls, keys=("a/b", "a b", "ä" * 200, "..")):
    def fn(key):
        calls.append(key)
        return {"x": np.full(2, value), "k": key}
    return work.units(out, identity, keys, fn, "test")


def test_units_of_another_identity_or_other_code_are_never_read(tmp_path, monkeypatch):
    calls = []
    assert unit(tmp_path / "s", {"seed": 1}, 1.0, calls)["a/b"]["x"].tolist() == [1, 1]
    assert unit(tmp_path / "s", {"seed": 1}, 9.0, calls)["a/b"]["x"].tolist() == [1, 1] and len(calls) == 4
    assert unit(tmp_path / "s", {"seed": 2}, 2.0, calls)["a/b"]["x"].tolist() == [2, 2] and len(calls) == 8
    monkeypatch.setattr(work, "CODE", ["edited"])
    assert unit(tmp_path / "s", {"seed": 1}, 3.0, calls)["a/b"]["x"].tolist() == [3, 3] and len(calls) == 12


def test_keys_become_distinct_files_and_keep_their_order(tmp_path):
    got = unit(tmp_path / "s", {}, 1.0, [])
    assert [r["k"] for r in got.values()] == list(got) == ["a/b", "a b", "ä" * 200, ".."]


def test_a_fresh_result_looks_like_a_resumed_one(tmp_path):
    def fn(key):
        return {"t": (1, np.float32(0.5)), "x": np.arange(3, dtype=np.float16), "none": None, "flag": np.array(True)}
    fresh, resumed = (work.units(tmp_path / "s", {}, ["k"], fn, "test")["k"] for _ in range(2))
    assert fresh["t"] == resumed["t"] == [1, 0.5] and fresh["none"] is None
    assert fresh["x"].dtype == resumed["x"].dtype == np.float16 and fresh["flag"].shape == ()


def test_damaged_unit_is_named(tmp_path):
    unit(tmp_path / "s", {}, 1.0, [], keys=["a"])
    path, = tmp_path.glob("s.units/*/a-*.npz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a-.*\.npz: damaged .*; delete it"):
        unit(tmp_path / "s", {}, 1.0, [], keys=["a"])


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nothing to compute"):
        work.units(tmp_path / "s", {}, [], None, "x")
    with pytest.raises(ValueError, match="repeated"):
        work.units(tmp_path / "s", {}, ["a", "a"], None, "x")
    with pytest.raises(UserError, match="loss.*not a finite"):
        work.units(tmp_path / "s", {}, ["a"], lambda key: {"loss": float("nan")}, "x")
    with pytest.raises(TypeError):
        work.units(tmp_path / "s", {}, ["a"], lambda key: {"o": np.array([object()])}, "x")
    assert not list(tmp_path.glob("s.units/*/*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        work.units(tmp_path / "file" / "s", {}, ["a"], None, "x")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK=2"):
        work.units(tmp_path / "s", {}, ["a"], None, "x")


def test_main_is_rank_zero(monkeypatch):
    assert work.is_main()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not work.is_main() and work.ranks() == (1, 2)
