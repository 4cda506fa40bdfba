"""README: every command in it runs somewhere, its worked example is carried out word for word, and what a reviewer
edits afterwards is found by name."""

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib import artifacts, vectors
from lib.artifacts import UserError
from report import audit, build, claims, front, latex, trace
from tests import tiny
from tests.test_report import spelled

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
MODEL = "my-model"

# Every command of README, and what runs it: a test of this file, another test, or .ci/run.
RUN_BY = {
    "make all": "test_worked_example and .ci/run, on the smoke profile",
    "make test": "whoever reads this line",
    "make verify": "test_verify_passes and .ci/run",
    "make spot": ".ci/run, tests/test_audit.py",
    "make report FROZEN=1": "test_report_from_committed_artifacts and .ci/run",
    "make compare": "tests/test_makefile.py::test_one_chain_per_model, tests/test_audit.py::test_publish_and_compare",
    "make smoke": ".ci/run",
    "make null": "tests/test_null.py",
    "python -m report.audit trace R2": "test_trace_fits_a_screen",
    "make checkpoint": "tests/test_makefile.py::test_checkpoints_are_listed_or_brought",
    "make checkpoint NAME=smollm2-135m-instruct-q4_1": "tests/test_makefile.py::test_checkpoints_are_listed_or_brought, tests/test_checkpoint.py",
    "make plan MODEL=Qwen/Qwen2.5-0.5B-Instruct PYTHON=python3": "test_plan_of_another_model",
    "make all MODEL=Qwen/Qwen2.5-0.5B-Instruct PYTHON=python3": "tests/test_makefile.py::test_one_chain_per_model",
    "make all MODEL=Qwen/Qwen2.5-0.5B-Instruct SUITE=papers PROFILE=quick BUDGET=60m PYTHON=python3": (
        "tests/test_makefile.py::test_a_quick_run_is_planned_first_and_compared_with_its_plan_last, tests/test_plan.py"
    ),
    'make all MODEL="meta-llama/Llama-3.1-8B-Instruct path/to/a/folder" NPROC=4 PYTHON=python3': (
        "tests/test_makefile.py::test_processes_share_a_stage, tests/test_work.py"
    ),
    "make data SUITE=papers": "tests/test_papers.py",
    "make reliability SUITE=papers MODEL=path/to/a/folder": "tests/test_papers.py",
    "python -m lib.suite tea": "test_worked_example",
    "make all SUITE=tea MODEL=data/models/pico-llama": "test_worked_example, on a smaller model",
    "make export CONCEPT=trait/allcaps FORMAT=gguf MODEL=data/models/pico-llama": (
        "test_export_of_the_example, tests/test_makefile.py::test_export_follows_tune_or_takes_what_is_committed"
    ),
    'make card CONCEPT="formal: Write in a formal tone. | Write in a casual tone." MODEL=Qwen/Qwen2.5-0.5B-Instruct PYTHON=python3': (
        "tests/test_makefile.py::test_a_card_is_a_suite_and_a_page, tests/test_card.py"
    ),
    'make card VECTOR=report/cards/elsewhere.safetensors LAYER=20 CONCEPT="capital: report/cards/capital.csv" MODEL=smollm2-135m-instruct-q4_1 PYTHON=python3': (
        "tests/test_makefile.py::test_a_card_is_a_suite_and_a_page, tests/test_card.py"
    ),
    "python -m lib.vectors outputs/pico-llama/testbed/export/trait/allcaps.gguf": "test_export_of_the_example",
    "python -m json.tool outputs/committed/pico-llama/testbed/05_reliability/manifest.json": "test_manifest_is_json",
}


def commands():
    found = re.findall(r"^    ((?:make|python) .*?)(?:  +.*)?$", README, re.M)
    return [re.sub(r"\s+#.*", "", line).strip() for line in found]


def test_every_command_is_run_by_something():
    assert set(commands()) == set(RUN_BY), set(commands()) ^ set(RUN_BY)
    ci = (ROOT / ".ci/run").read_text()
    for command, who in RUN_BY.items():
        if ".ci/run" in who and "all" not in command:
            assert re.search(rf"^{command.split(' FROZEN')[0]}", ci, re.M), command
        for name in re.findall(r"\btest_\w+(?!\w*\.py)", who):
            file = re.search(r"tests/\w+\.py(?=::" + name + ")", who)
            text = (ROOT / (file.group() if file else "tests/test_readme.py")).read_text()
            assert f"def {name}(" in text or f"{name}.py" in who, name


# --- the worked example, in a folder that holds the project ------------------------------------------------
def carry_out(monkeypatch, *words):
    """A script, or a module after -m, with its flags, in this process: importing torch for each would take most of
    the time. What make calls is held to this in tests/test_makefile.py."""
    monkeypatch.setattr(sys, "argv", list(words))
    if words[0].endswith(".py"):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    else:
        importlib.import_module(words[0]).main()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project with the example's suite and outputs of a tiny model: what a user has after `make all`."""
    folder = tmp_path_factory.mktemp("clone")
    ignore = shutil.ignore_patterns("__pycache__", "models", "suites", "figures", "report.*", "index.json")
    for name in ("lib", "data", "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in (*ROOT.glob("*.py"), ROOT / "Makefile", ROOT / "README.md"):
        shutil.copy(path, folder)
    tiny.save(folder / MODEL, "llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        exec(re.search(r"```python\n(.*?)```", README, re.S).group(1), {})
        patch.setattr(latex, "ENGINES", ())
        for script in (*(f"{name}.py" for name in STAGES), "report.build"):
            carry_out(patch, script, "--model", MODEL, "--suite", "tea", "--profile", "smoke")
    return folder


def test_worked_example(clone):
    checked = subprocess.run([sys.executable, "-m", "lib.suite", "tea"], cwd=clone, capture_output=True, text=True)
    assert checked.returncode == 0 and "behaviours 1" in checked.stdout
    items = [json.loads(line) for line in (clone / "tea/behaviours/likes-tea.jsonl").read_text().splitlines()]
    cells = [(item["yes"], item["positive"]) for item in items]
    assert len(items) == 40 and all(cells.count(cell) == 10 for cell in set(cells)) and len(set(cells)) == 4
    page = (clone / f"outputs/{MODEL}/tea-smoke/report/report.md").read_text()
    assert "Suite `tea`" in page and "not testable here" in page and "{{" not in page
    saved = artifacts.load(clone / f"outputs/{MODEL}/tea-smoke/05_reliability")
    assert [record["name"] for record in saved.table("behaviours")] == ["likes-tea"]
    methods = re.search(r"\[methods.md\]\((.*?)\)", page).group(1)
    assert (clone / f"outputs/{MODEL}/tea-smoke/report" / methods).is_file()


def test_export_of_the_example(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    flags = ("--model", MODEL, "--suite", "tea", "--profile", "smoke", "--concept", "behaviour/likes-tea")
    carry_out(monkeypatch, "report.export", *flags, "--format", "lm-eval")
    path = f"outputs/{MODEL}/tea-smoke/export/behaviour/likes-tea.lm-eval.pt"
    told = capsys.readouterr().out
    assert path in told and "moves the next token by KL" in told
    extract, tune = (artifacts.load(clone / f"outputs/{MODEL}/tea-smoke" / name) for name in STAGES[:2])
    record, found = tune.table("tuned")["behaviour/likes-tea"], vectors.load(path)
    ((layer, vector),) = found.layers.items()
    assert layer == record["layer"] and np.array_equal(vector, extract.array("vectors")[0, layer])
    assert found.coefficient == found.meta["written"] and found.meta["coefficient"] == record["coefficient"]
    assert found.meta["digests"] == {"01_extract": extract.digest, "02_tune": tune.digest} and found.meta["id"] == MODEL
    carry_out(monkeypatch, "lib.vectors", path)
    assert f"layer {layer}: 32 numbers" in capsys.readouterr().out
    carry_out(monkeypatch, "report.export", *flags, "--format", "npy", "--measure", "0", "--to", "mine.npy")
    (row,) = vectors.load("mine.npy").row()
    assert row[0] == layer and np.array_equal(row[1], np.float32(record["coefficient"]) * vector)
    with pytest.raises(UserError, match="there are behaviour/likes-tea"):
        carry_out(monkeypatch, "report.export", *flags[:-1], "behaviour/likes-coffee")
    edit(clone / f"outputs/{MODEL}/tea-smoke/01_extract/vectors.npy", b"NUMPY", b"NUMPX")
    try:
        with pytest.raises(UserError, match="vectors.npy: changed"):
            carry_out(monkeypatch, "report.export", *flags)
    finally:
        edit(clone / f"outputs/{MODEL}/tea-smoke/01_extract/vectors.npy", b"NUMPX", b"NUMPY")


def test_verify_passes(clone):
    done = subprocess.run(
        ["make", "verify", f"MODEL={MODEL}", "SUITE=tea", "PROFILE=smoke", "AT=outputs", f"PYTHON={sys.executable}"],
        cwd=clone,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert len(lines) == len(STAGES) and done.stdout.count("sources the same") == len(STAGES)
    assert not re.search(r"(data|weights) 0", done.stdout)


# --- what a reviewer edits ----------------------------------------------------------------------------------
def faults(clone, monkeypatch, stage):
    for module in (audit, artifacts.identity, trace):
        monkeypatch.setattr(module, "ROOT", clone)
    artifacts.identity._tree.cache_clear()
    path = clone / f"outputs/{MODEL}/tea-smoke" / stage
    return audit.inspect(path)[0] + audit.state(artifacts.load(path))["sources"]


def edit(path, old, new):
    data = path.read_bytes()
    assert data.count(old) >= 1
    path.write_bytes(data.replace(old, new, 1))
    return data


@pytest.mark.parametrize(
    "stage, path, old, new, named",
    [
        (
            "05_reliability",
            "outputs/{m}/tea-smoke/05_reliability/behaviours.json",
            b'"n": ',
            b'"n": 1',
            "behaviours.json: changed",
        ),
        ("05_reliability", "outputs/{m}/tea-smoke/05_reliability/slopes.npy", b"\n", b" ", "slopes.npy: changed"),
        ("05_reliability", "tea/behaviours/likes-tea.jsonl", b"at work", b"at home", "likes-tea.jsonl changed"),
        ("01_extract", "tea/suite.json", b"helpful", b"careful", "suite.json changed"),
        ("02_tune", "{m}/model.safetensors", b"\x00", b"\x01", "model.safetensors"),
        ("02_tune", "{m}/tokenizer.json", b"{", b"{ ", "another tokenizer"),
        (
            "05_reliability",
            "05_reliability.py",
            b"SEED = 5",
            b"SEED = 6",
            "05_reliability.py SEED",
        ),
        ("02_tune", "lib/metrics.py", b"LEVEL = 0.95", b"LEVEL = 0.9", "lib/metrics.py LEVEL"),
    ],
)
def test_an_edit_is_found_by_name(clone, monkeypatch, stage, path, old, new, named):
    path = clone / path.format(m=MODEL)
    assert faults(clone, monkeypatch, stage) == []
    before = edit(path, old, new)
    try:
        found = faults(clone, monkeypatch, stage)
        assert found and all(named in fault for fault in found), found
    finally:
        path.write_bytes(before)


def test_a_gone_source_and_an_edited_result_are_found(clone, monkeypatch):
    source, manifest = clone / "lib/judging/cases.py", clone / f"outputs/{MODEL}/tea-smoke/02_tune/manifest.json"
    before = source.read_bytes()
    source.unlink()
    try:
        assert any("lib/judging/cases.py is gone" in fault for fault in faults(clone, monkeypatch, "02_tune"))
    finally:
        source.write_bytes(before)
    before = edit(manifest, b'"value": ', b'"value": 1')
    try:
        with pytest.raises(UserError, match="02_tune/manifest.json: changed"):
            faults(clone, monkeypatch, "02_tune")
    finally:
        manifest.write_bytes(before)


def test_one_number_of_a_committed_artifact(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "outputs/committed/pico-llama/testbed", tmp_path, dirs_exist_ok=True)
    assert not [fault for fault in audit.inspect(tmp_path / "05_reliability")[0] if "changed; delete" in fault]
    edit(tmp_path / "05_reliability/behaviours.json", b'"mean": 0.', b'"mean": 1.')
    assert any("behaviours.json: changed" in fault for fault in audit.inspect(tmp_path / "05_reliability")[0])


def test_prose_is_free(clone, monkeypatch):
    assert faults(clone, monkeypatch, "02_tune") == []
    before = edit(clone / "lib/metrics.py", b'"""Metrics and statistics', b'"""Statistics, and metrics')
    try:
        assert faults(clone, monkeypatch, "02_tune") == []
    finally:
        (clone / "lib/metrics.py").write_bytes(before)


# --- the other commands -------------------------------------------------------------------------------------
def test_report_from_committed_artifacts(tmp_path, monkeypatch, capsys):
    """The committed artifacts make a page and its index, without a model; README has their counts."""
    monkeypatch.setattr(latex, "ENGINES", ())
    models = ("--model", "data/models/pico-llama", "--model", "data/models/pico-gpt2")
    carry_out(monkeypatch, "report.build", *models, "--frozen", "--to", str(tmp_path / "report"))
    said = capsys.readouterr().out.splitlines()[-1]
    counts = said.split("report.md  full  ")[1]
    assert f"`make all` ends with: `{counts}`" in README
    assert (tmp_path / "report/report.tex").read_text().startswith(r"\documentclass")


def test_readme_shows_the_committed_verdicts():
    index = [json.loads((ROOT / page / "index.json").read_text())["claims"] for page in front.PAGES.values()]
    block = README.split("<!-- verdicts: written by make report -->")[1].split("<!-- end of verdicts -->")[0]
    for claim, cells in (item for page in index for item in page.items()):
        for model, cell in cells.items():
            row = next(line for line in block.splitlines() if line.startswith((f"| {model} |", f"| {model} (")))
            column = len(claims.VERDICTS) if claims.no_time(cell) else claims.VERDICTS.index(cell["verdict"])
            assert claim in spelled(row.split("|")[2 + column])


def test_first_screen_answers_what_on_what_and_what_not():
    screen = "\n".join(README.splitlines()[:40])
    for said in (
        "make all ",
        "make test ",
        "report/front.png",
        "report/real/report.md",
        "1.5b",
        "contradicted",
        "pico-llama",
        "pico-gpt2",
        "Subbiah",
        "Tan et al.",
        "Niranjan",
        "report/report.md",
    ):
        assert said in screen


@pytest.mark.parametrize(
    "name", ["R2", "P5", "R5", "verdicts", "steerability", "pico-llama:05_reliability:bias.letter"]
)
def test_trace_fits_a_screen(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit", "trace", name])
    audit.main()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= audit.WIDTH
    text = " ".join(line.strip() for line in lines)
    assert len(lines) <= 45
    if name != "verdicts":
        number, shown = re.search(r"computed at  \S+:(\d+) (.*?) sources ", text).groups()
        path = re.search(r"computed at  (\S+):", text).group(1)
        assert (ROOT / path).read_text().splitlines()[int(number) - 1].split() == shown.split()
    for said in ("digest", "manifest.json", *(() if name == "verdicts" else ("made by", "inputs", "suite"))):
        assert said in text


def test_trace_of_nothing(monkeypatch):
    with pytest.raises(UserError, match="neither a claim"):
        trace.trace("R99", ROOT / "report")


def test_plan_of_another_model(monkeypatch, capsys, tmp_path):
    tiny.save(tmp_path / "other", "gpt2")
    carry_out(monkeypatch, "report.plan", "--model", str(tmp_path / "other"), "--profile", "smoke")
    assert "05_reliability" in capsys.readouterr().out


def test_manifest_is_json():
    path = RUN_BY and re.search(r"python -m json.tool (\S+)", README).group(1)
    assert json.loads((ROOT / path).read_text())["stage"] == "05_reliability"


def test_propensity_is_what_readme_says():
    folder = ROOT / "outputs/committed/pico-llama/testbed/05_reliability"
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = len((folder / "items.jsonl").read_text().splitlines())
    assert np.load(folder / "propensity.npy").shape == (rows, len(manifest["config"]["multipliers"]))


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "report/report.md", ROOT / "report/methods.md", ROOT / "data/README.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
