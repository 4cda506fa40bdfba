"""outputs/README.md names every file, field and group of results that a stage writes; the heads of the stages are
short, in order, and name their files and claims."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "outputs" / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", README, re.M | re.S))
STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
OWN = {"manifest.json", "run.json"}
SOME = {"01_extract": {"calibration.json", "reference.jsonl"},      # with a judge in words; with one that counts
        "02_tune": {"precision.json"}}           # with weights in bfloat16
PARTS = ("reads", "writes", "claims", "cost")


def folder(stage):
    """A folder of the stage, what ran here before what is committed."""
    model = "pico-llama+pico-gpt2" if stage == "05_across" else "pico-llama"
    for root in (ROOT / "outputs", ROOT / "outputs" / "committed"):
        at = root / model / "testbed" / stage
        if (at / "manifest.json").is_file():
            return at
    raise AssertionError(f"no results of {stage} here")


def files(stage):
    """Names of the arrays and tables of a stage."""
    return sorted(json.loads((folder(stage) / "manifest.json").read_text())["outputs"])


def named(text):
    """What stands in backticks, bare."""
    return set(re.findall(r"`([^`\n]+)`", text))


def head(stage):
    return ast.get_docstring(ast.parse((ROOT / f"{stage}.py").read_text(encoding="utf-8")), clean=False)


@pytest.mark.parametrize("stage", (*STAGES, "05_across"))
def test_every_file_and_field_is_explained(stage):
    at, told = folder(stage), named(SECTIONS[stage])
    for name in files(stage):
        assert name in told, f"{stage}/{name}"
        if name.endswith(".npy"):
            continue
        text = (at / name).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)
        rows = rows.values() if isinstance(rows, dict) else rows
        missing = {field for row in rows for field in row} - told
        assert not missing, f"{stage}/{name}: {sorted(missing)}"
    assert {name for name in told if re.fullmatch(r"[\w.]+\.(npy|json|jsonl)", name)} <= set(files(stage)) | {
        "cases.jsonl", "behaviours.json"} | OWN | SOME.get(stage, set()), f"{stage}: a file that it does not write"


@pytest.mark.parametrize("stage", (*STAGES, "05_across"))
def test_every_group_of_results_is_explained(stage):
    results, told = json.loads((folder(stage) / "manifest.json").read_text())["results"], named(SECTIONS[stage])
    groups = set(results) - {"not_testable"}
    if stage in ("02_tune", "03_transfer"):  # groups are the kinds of concepts
        groups |= {key for kind in groups for key in results[kind]}
    assert not groups - told, sorted(groups - told)


def test_axes_are_those_of_the_arrays():
    for stage in STAGES:
        outputs = json.loads((folder(stage) / "manifest.json").read_text())["outputs"]
        for name, entry in outputs.items():
            if name.endswith(".npy"):
                rows = [line.split("|") for line in SECTIONS[stage].splitlines() if line.startswith("|")]
                axes = next(row[2] for row in rows if f"`{name}`" in row[1])
                assert f"({', '.join(entry['axes'])})" in axes and entry["dtype"] in axes, name


@pytest.mark.parametrize("stage", STAGES)
def test_head_is_a_contract(stage):
    lines = head(stage).split("\n")
    assert len(lines) <= 40 and max(map(len, lines)) <= 112
    assert lines[0].startswith(f"Stage {stage[:2]} - ") and "?" in lines[0]
    places = [next(i for i, line in enumerate(lines) if line.startswith(f"{part} ")) for part in PARTS]
    assert places == sorted(places)
    assert any(line.startswith(f"    python {stage}.py --") for line in lines[places[-1] :])


@pytest.mark.parametrize("stage", STAGES)
def test_head_names_what_is_written(stage):
    writes = re.search(r"^writes .*?(?=^claims )", head(stage), re.M | re.S).group()
    expected = set(files(stage)) | SOME.get(stage, set()) | ({"pairs.json"} if stage == "05_reliability" else set())
    assert set(re.findall(r"[\w.]+\.(?:npy|jsonl?)\b", writes)) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_head_names_its_claims(stage):
    text = re.search(r"^claims (.*?)(?=^cost )", head(stage), re.M | re.S).group(1)
    told = set(re.findall(r"\b[PRAB]\d+", text))
    for kind, first, last in re.findall(r"\b([PRAB])(\d+) to [PRAB](\d+)", text):
        told |= {f"{kind}{i}" for i in range(int(first), int(last))}
    claims = json.loads((ROOT / "report" / "claims.json").read_text(encoding="utf-8"))
    writers = (stage, "05_across") if stage == "05_reliability" else (stage,)
    assert told == {claim["id"] for claim in claims if claim["stage"] in writers}
