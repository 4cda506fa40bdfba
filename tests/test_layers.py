"""The plan of the house: every module imports only what stands in an earlier line of LAYERS, or beside it in a room."""
import ast
from pathlib import Path

import pytest

from lib import identity

ROOT = Path(__file__).resolve().parent.parent
# Lowest first. A module of a line may import modules of earlier lines; rooms (a folder's name) also within themselves.
LAYERS = (
    "lib/identity", "lib/artifacts", "lib/sizes",
    "lib/chat lib/fields lib/hooks lib/metrics lib/vectors lib/work", "lib/splits", "lib/samples", "lib/suite",
    "lib/compose lib/directions lib/passes", "lib/engine", "lib/probe", "lib/models",
    "lib/judging", "lib/studies", "lib/stage",
    "data", "stages", "report",
)
ROOMS = {"lib/judging", "lib/studies", "data", "report"}
NOT = {("stages", "data"), ("report", "data")}             # scripts and report see data through suites and artifacts
MOST = 450                                                 # lines of a module


def layer(path):
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    found = [i for i, line in enumerate(LAYERS) for one in line.split()
             if name == one or one in ROOMS and name.startswith(f"{one}/") or one == "stages" and "/" not in name]
    assert len(found) == 1, f"{name}: in no line of LAYERS, or in several"
    return found[0]


def modules():
    files = [*ROOT.glob("0*.py"), *(path for room in ("lib", "data", "report") for path in ROOT.glob(f"{room}/**/*.py"))]
    return sorted(path for path in files if path.name != "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path):
    mine, name = layer(path), path.relative_to(ROOT).as_posix()
    for other in identity.imports(path):
        if other.name == "__init__.py":
            continue
        theirs = layer(other)
        line = LAYERS[mine]
        assert theirs < mine or theirs == mine and line in ROOMS, f"{name} imports {other.relative_to(ROOT)}"
        assert (line, LAYERS[theirs]) not in NOT, f"{name} imports {other.relative_to(ROOT)}"


def test_no_circle_in_a_room():
    graph = {path: identity.imports(path) - {path} for path in modules()}
    done = set()

    def visit(path, above):
        assert path not in above, " -> ".join(p.name for p in [*above, path])
        if path not in done:
            for other in graph.get(path, ()):
                visit(other, [*above, path])
            done.add(path)

    for path in graph:
        visit(path, [])


def test_stages_never_run_each_other():
    for path in ROOT.glob("0*.py"):
        tree = ast.parse(path.read_text())
        called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
                  and getattr(node.func, "attr", "") in ("import_module", "run_path", "run")
                  and any(isinstance(arg, ast.Constant) and (ROOT / f"{arg.value}.py").is_file() for arg in node.args)]
        assert not called, path.name


def test_the_plan_would_notice(tmp_path, monkeypatch):
    """A planted import upward and a planted circle are found."""
    for name, text in (("lib/metrics.py", "from lib import engine\n"), ("lib/engine.py", "x = 1\n"),
                       ("report/a.py", "from report import b\n"), ("report/b.py", "from report import a\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="lib/metrics.py imports lib/engine.py"):
        test_imports_run_one_way(tmp_path / "lib/metrics.py")
    with pytest.raises(AssertionError, match="a.py -> b.py -> a.py|b.py -> a.py -> b.py"):
        test_no_circle_in_a_room()


@pytest.mark.parametrize("path", [p for p in modules() if p.relative_to(ROOT).parts[0] != "data"],
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MOST


@pytest.mark.parametrize("path", sorted(ROOT.glob("0*.py")), ids=lambda path: path.name)
def test_a_stage_is_read_as_documentation(path):
    text = path.read_text()
    head = ast.parse(text).body[0].end_lineno
    assert head <= 40 and 80 <= len(text.splitlines()) <= 300
    for word in ("reads ", "writes ", "claims ", "cost ", f"python {path.name} --model"):
        assert word in ast.get_docstring(ast.parse(text)), word
