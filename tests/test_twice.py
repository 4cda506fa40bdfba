"""Twice: a run in bfloat16 beside one in float32, on planted results."""
import json
import re
import shutil

import pytest

from lib.artifacts import UserError
from report import twice
from tests import planted

ARGV = ["twice", "--model", "one", "--suite", "planted", "--profile", "quick"]


def made(folder, first, second):
    """<folder>/out with two runs of the model "one": what was planted for the models so numbered."""
    for dtype, number in (("-bfloat16", first), ("", second)):
        others = [f"other{i}" for i in range(number)]
        planted.plant(folder / f"made{number}", [*others, "one"], profile="quick")
        shutil.copytree(folder / f"made{number}" / "one" / "planted-quick", folder / "out" / "one" / f"planted-quick{dtype}",
                        dirs_exist_ok=True)
        shutil.rmtree(folder / f"made{number}")
    return folder / "out"


def told(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*ARGV, "--out", str(folder / "out"), "--to", str(folder / "twice.md")])
    twice.main()
    return [int(word) for word in re.findall(r"\d+", capsys.readouterr().out)]


def test_equal_runs_agree_in_everything(tmp_path, monkeypatch, capsys):
    made(tmp_path, 0, 0)
    same, claims, n, k = told(tmp_path, monkeypatch, capsys)
    assert same == claims > 40 and n == k > 40


def test_other_numbers_are_counted_and_shown(tmp_path, monkeypatch, capsys):
    out = made(tmp_path, 0, 1)
    same, claims, n, k = told(tmp_path, monkeypatch, capsys)
    results = [{stage: json.loads((out / "one" / leaf / stage / "manifest.json").read_text())["results"] for stage in
                ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")}
               for leaf in ("planted-quick-bfloat16", "planted-quick")]

    def flat(value, at=()):
        if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
            return {at: value}
        return {key: e for name, part in value.items() for key, e in flat(part, (*at, name)).items()} if isinstance(value, dict) else {}
    one, two = map(flat, results)
    both = one.keys() & two.keys()
    agree = [key for key in both if one[key]["low"] <= two[key]["value"] <= one[key]["high"]
             and two[key]["low"] <= one[key]["value"] <= two[key]["high"]]
    assert (n, k) == (len(both), len(agree)) and 0 < k < n
    rows = [line.split(" | ") for line in (tmp_path / "twice.md").read_text().splitlines() if re.match(r"\| [PRAB]\d", line)]
    changed = [row for row in rows if row[2].split(",")[0] != row[3].split(",")[0]]
    assert len(changed) == claims - same > 0


def test_runs_of_other_sizes_are_refused(tmp_path, monkeypatch, capsys):
    out = made(tmp_path, 0, 0)
    path = out / "one" / "planted-quick" / "01_extract" / "manifest.json"
    path.write_text(path.read_text().replace('"preferences": 0.5', '"preferences": 0.25'))
    with pytest.raises(UserError):
        told(tmp_path, monkeypatch, capsys)


def test_what_else_changed_is_said(tmp_path, monkeypatch, capsys):
    """A setting and a function that differ are named; alike, in whatever words the levels stand, nothing is."""
    class Run:
        def __init__(self, n, meaning, levels):
            self.config = {"model": {"dtype": str(n)}, "n_random": n, "levels": levels}
            self.run = {"sources": {"lib/a.py": {"f": meaning}}}

    def found(n, meaning):
        levels = {"alignment": 0.1}, {"relations": 0.1, "values": 0.1}
        return {(dtype, name): Run(*one, level) for name in twice.declared.STAGES
                for dtype, one, level in zip(twice.RUNS, ((8, "x"), (n, meaning)), levels)}

    assert twice.changed(found(8, "x")) == []
    text, _ = twice.changed(found(20, "y"))
    assert "n_random of 01" in text and text.endswith("of the sources: lib/a.py.")
