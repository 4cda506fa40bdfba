"""Stage: flags and folders; a stage is up to date by content, if this machine made it, and by nothing else."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib import stage
from lib.artifacts import ROOT, UserError
from tests import tiny

SCRIPT = '''
"""A stage of its own, seconds long."""
from lib import stage

CLI = stage.cli(__doc__)
stage.begin(__name__, CLI)

import sys
from lib import artifacts, metrics
assert "torch" not in sys.modules


def main():
    args = CLI.parse_args()
    artifacts.save(stage.paths(args) / "09_toy", stage="09_toy", config={"x": metrics.LEVEL}, inputs={}, results={"n": 1},
                   tables={"t": [1]})
    print("ran")


if __name__ == "__main__":
    stage.run(main)
'''


def test_paths_and_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny two").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    for name in ("models/tiny two", "models/tiny two/", str(tmp_path / "models" / "tiny two"), "./models/../models/tiny two"):
        assert stage.paths(stage.cli("x").parse_args(["--model", name])) == Path("outputs/tiny two/testbed")
    args = stage.cli("x", many=True).parse_args("--model org/a --model b --suite ./mine/ --profile smoke".split())
    assert args.model == ["org/a", "b"] and stage.paths(args, args.model[0]) == Path("outputs/org--a/mine-smoke")
    args = stage.cli("x").parse_args("--model a --judge model:org/b".split())
    assert stage.paths(args) == Path("outputs/a/testbed-by-model--org--b")
    args = stage.cli("x").parse_args("--model a --judge rules --profile quick".split())
    assert stage.paths(args) == Path("outputs/a/testbed-quick-by-rules")
    with pytest.raises(UserError, match="unknown judge 'oracle'"):
        stage.paths(stage.cli("x").parse_args("--model a --judge oracle".split()))


def test_one_precision_for_all_models_or_one_for_each():
    def folders(*dtypes):
        flags = [word for dtype in dtypes for word in ("--dtype", dtype)]
        args = stage.cli("x", many=True).parse_args(["--model", "a", "--model", "b", *flags])
        return [str(stage.paths(args, name)) for name in ("a", "b", "a+b")]
    plain, half = [f"outputs/{name}/testbed" for name in ("a", "b", "a+b")], "-bfloat16"
    assert folders() == folders("float32") == folders("float32", "float32") == plain
    assert folders("bfloat16") == folders("bfloat16", "bfloat16") == [name + half for name in plain]
    assert folders("bfloat16", "float32") == [plain[0] + half, plain[1], plain[2]]
    with pytest.raises(UserError, match="3 for 2 of --model"):
        folders(*["float32"] * 3)


def test_levels_of_a_quick_run(tmp_path, monkeypatch):
    """Those on the command line, else those of the plan in the run's folder; neither is one line that says what to do."""
    monkeypatch.chdir(tmp_path)
    def found(*flags):
        return stage.levels(stage.cli("x").parse_args(["--model", "a", *flags]))
    text, levels = "preferences=0.25 reliability=0 alignment=1", {"preferences": 0.25, "reliability": 0.0, "relations": 1.0, "values": 1.0}
    assert found() is None and found("--profile", "quick", "--sizes", text) == levels
    for flags, fault in ((("--profile", "quick"), "testbed-quick/plan.json: not there; give --sizes, or a plan"),
                         (("--sizes", text), "--sizes goes with --profile quick"),
                         (("--profile", "quick", "--sizes", "0.5"), "expected preferences=LEVEL")):
        with pytest.raises(UserError, match=fault):
            found(*flags)
    (tmp_path / "outputs/a/testbed-quick").mkdir(parents=True)
    (tmp_path / "outputs/a/testbed-quick" / stage.PLAN).write_text(json.dumps({"levels": levels | {"relations": 0.5}}))
    assert found("--profile", "quick") == levels | {"relations": 0.5}
    assert found("--profile", "quick", "--sizes", text) == levels


@pytest.mark.parametrize("models", [["a", "a"], ["x/b", "x--b"], ["committed"]])
def test_two_models_of_one_folder_are_refused(models):
    flags = [word for model in models for word in ("--model", model)]
    with pytest.raises(UserError, match="same output folder"):
        stage.check(stage.cli("x", many=True).parse_args(flags))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A copy of the project's lib and suites with a stage that takes no time."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data/suites/testbed", folder / "data/suites/testbed")
    (folder / "09_toy.py").write_text(SCRIPT)
    tiny.save(folder / "my model", "llama")
    return folder


def ran(toy, *more):
    done = subprocess.run([sys.executable, "09_toy.py", "--model", "my model", *more], cwd=toy, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert ("ran" in done.stdout) != ("up to date" in done.stdout)
    return "ran" in done.stdout


def test_up_to_date_by_content(toy):
    assert ran(toy) and not ran(toy)
    for path in (toy / "lib").rglob("*.py"):               # file times say nothing
        os.utime(path)
    assert not ran(toy, "--model", str(toy / "my model") + "/") and not ran(toy)
    out = toy / "outputs/my model/testbed/09_toy"

    def changed(path, old, new):
        text = path.read_bytes()
        path.write_bytes(text.replace(old, new, 1))
        assert path.read_bytes() != text, path
        first, second = ran(toy), ran(toy)
        path.write_bytes(text)
        assert ran(toy) == first and not ran(toy) and not second
        return first

    assert not changed(toy / "lib/metrics.py", b'"""Metrics and statistics', b'"""Statistics and metrics')
    assert changed(toy / "lib/metrics.py", b"LEVEL = 0.95", b"LEVEL = 0.90")
    assert not changed(toy / "lib/compose.py", b"1e-10", b"1e-11")     # not imported
    assert changed(toy / "my model/config.json", b"{", b"{ ")
    assert changed(toy / "my model/tokenizer.json", b"{", b"{ ")
    assert changed(toy / "my model/model.safetensors", b"\x00", b"\x01")
    assert changed(toy / "data/suites/testbed/suite.json", b"helpful", b"careful")
    (out / "t.json").write_text("[2]")                     # what was written is damaged
    assert ran(toy) and not ran(toy)
    (out / stage.MARK).unlink()                            # as in a checkout: it was not made here
    assert ran(toy) and not ran(toy)
    (out / stage.MARK).write_text("{")
    assert ran(toy) and not ran(toy)


def test_other_levels_are_another_run(toy):
    quick = ("--profile", "quick", "--sizes")
    assert ran(toy, *quick, "preferences=0 reliability=0 alignment=0")
    assert not ran(toy, *quick, "preferences=0 reliability=0 alignment=0")
    assert ran(toy, *quick, "preferences=0 reliability=0.5 alignment=0")


def test_other_versions_are_another_identity(toy, monkeypatch):
    assert isinstance(json.loads((toy / "outputs/my model/testbed/09_toy" / stage.MARK).read_text())["of"], str)
    from lib import identity
    before = identity.versions()
    assert set(before) == {"python", *identity.PACKAGES}


def test_a_failing_stage_leaves_no_mark(toy):
    text = (toy / "09_toy.py").read_text()
    (toy / "09_toy.py").write_text(text.replace('results={"n": 1}', 'results={"n": float("nan")}'))
    done = subprocess.run([sys.executable, "09_toy.py", "--model", "my model", "--profile", "smoke"], cwd=toy,
                          capture_output=True, text=True)
    (toy / "09_toy.py").write_text(text)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "not a finite" in done.stderr
    assert not (toy / "outputs/my model/testbed-smoke").exists() or not list((toy / "outputs/my model/testbed-smoke").rglob(stage.MARK))


@pytest.mark.parametrize("template, says", [
    ("{% for m in messages %}{{ m.content", "the template raises"), ("{{ raise_exception('no') }}", "the template raises 'no'"),
    ("{{ messages[7].content }}", "plain labels"), ("a fixed text", "leaves the user's text out"), (tiny.CHAT, None), (None, None)])
def test_a_broken_template_is_said_once(tmp_path, capsys, monkeypatch, template, says):
    """Plain labels stand in for a template that gives no prompt; a base model has none, of which nothing is said."""
    folder = tiny.save(tmp_path / "m", "llama", chat_template=template)
    assert (folder / "chat_template.jinja").exists() == (template is not None)
    args = stage.cli("x").parse_args(["--model", str(folder), "--out", str(tmp_path / "out")])
    capsys.readouterr()
    at = stage.open(args, "01_extract.py", judged=False)
    said = capsys.readouterr().err
    why = at.lm.identity["chat_template"]["why"]
    assert (said == "") == (says is None) == (why in (None, stage.NO_TEMPLATE)) and (why is None) == (template == tiny.CHAT)
    if says:
        assert said.count("\n") == 1 and says in said and why in said and str(folder) in said
    monkeypatch.setenv("RANK", "1")
    stage.open(args, "01_extract.py", judged=False)
    assert capsys.readouterr().err == ""                   # the first process speaks for all
