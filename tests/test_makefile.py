"""The Makefile's promises: precise prerequisites, one chain per model, frozen artifacts stay as they are."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
# Progress, resumption and the audit move no number; editing them must not repeat a run.
EXEMPT = {"lib/work.py", "report/audit.py", "lib/__init__.py", "data/__init__.py"}


def make(*args, cwd=ROOT):
    # MAKEFLAGS of a surrounding make would leak in: this test also runs under `make test`.
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(["make", *args], cwd=cwd, env=env, capture_output=True, text=True)


def imported(path):
    """Project files that a file imports: at the top, inside a function, or by a constant name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    files = {name.replace(".", "/") + ".py" for name in names if name.split(".")[0] in ("lib", "data")}
    return {name for name in files if (ROOT / name).is_file()} - EXEMPT


def closure(path):
    found, open_ = set(), imported(path)
    while open_:
        found |= open_
        open_ = set().union(*(imported(ROOT / name) for name in open_)) - found
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_prerequisites_are_the_imports(stage):
    declared = re.search(rf"^LIB_{stage[:2]} := (.*?)(?<!\\)$", (ROOT / "Makefile").read_text(), re.M | re.S)
    assert set(declared.group(1).replace("\\\n", " ").split()) == closure(ROOT / f"{stage}.py")


def test_help_lists_every_phony_target():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY:(.*?)(?<!\\)$", text, re.M | re.S).group(1).replace("\\\n", " ").split()
    listed = make("help")
    assert listed.returncode == 0 and listed.stderr == ""
    assert all(re.search(rf"^  {target} ", listed.stdout, re.M) for target in phony)


def test_one_chain_per_model(tmp_path):
    (tmp_path / "some-model").mkdir()
    plan = make("-n", "-B", "all", f"MODEL={tmp_path}/some-model org/other", "PYTHON=python3", "SUITE=mine")
    assert plan.returncode == 0, plan.stderr
    assert "warning: undefined" not in plan.stderr
    lines = [line for line in plan.stdout.splitlines() if re.search(r" 0\d_\w+\.py ", line)]
    for model in (f"{tmp_path}/some-model", "org/other"):
        mine = [line.split()[1] for line in lines if line.split()[3:4] == [model]]
        assert sorted(mine) == sorted(f"{stage}.py" for stage in STAGES)
        assert mine[:2] == ["01_extract.py", "02_tune.py"]
    assert sum("--across" in line for line in lines) == 1
    assert "--to outputs/some-model+org--other/mine/report" in plan.stdout


def test_one_model_needs_no_comparison():
    plan = make("-n", "-B", "all", "MODEL=org/only", "PYTHON=python3")
    assert plan.returncode == 0, plan.stderr
    assert "--across" not in plan.stdout


def test_two_models_of_one_name_are_refused():
    plan = make("-n", "all", "MODEL=a/b a/b", "PYTHON=python3")
    assert plan.returncode == 2 and "same output folder" in plan.stderr


def test_frozen_runs_no_stage_and_misses_nothing_silently(tmp_path):
    folder = "outputs/org--only/testbed"
    for path in ("Makefile", *(f"{stage}.py" for stage in STAGES)):
        (tmp_path / path).write_text((ROOT / path).read_text())
    for stage in STAGES:
        (tmp_path / folder / stage).mkdir(parents=True)
        (tmp_path / folder / stage / "manifest.json").write_text("{}")
    for stage in STAGES:  # scripts newer than the artifacts, as after a checkout
        (tmp_path / f"{stage}.py").touch()
    plan = make("-n", "report", "FROZEN=1", "MODEL=org/only", "PYTHON=python3", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.startswith("python3 report/build.py") and "01_extract.py" not in plan.stdout
    (tmp_path / folder / "03_transfer" / "manifest.json").unlink()
    plan = make("-n", "report", "FROZEN=1", "MODEL=org/only", "PYTHON=python3", cwd=tmp_path)
    assert plan.returncode == 2 and "No rule to make target" in plan.stderr and "03_transfer" in plan.stderr


def test_smoke_has_a_folder_of_its_own():
    plan = make("-n", "all", "PROFILE=smoke", "PYTHON=python3", "MODEL=org/only")
    assert "outputs/org--only/testbed-smoke/report" in plan.stdout and "--profile smoke" in plan.stdout


def test_default_python_is_an_environment_made_once():
    plan = make("-n", "-B", "test")
    assert "-m venv .venv" in plan.stdout and "requirements.txt" in plan.stdout
    assert "venv" not in make("-n", "-B", "test", "PYTHON=python3").stdout


def test_readme_commands_are_targets():
    text = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:", text, re.M), target
