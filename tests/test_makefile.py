"""The Makefile's promises: one chain per model whatever its name, nothing decided by file times, frozen means no stage."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
# A stand-in for python that writes down how it was called.
ECHO = '#!/bin/bash\n{ printf "%s|" "${OMP_NUM_THREADS-}" "$@"; echo; } >> calls\ncase "$*" in *--resolve*) echo "${@: -1}";; esac\ncase "$1" in fail*) exit 3;; esac\n'


@pytest.fixture
def project(tmp_path):
    """The Makefile in a folder of its own with a python that only writes down its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text(ECHO)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(*args, cwd=ROOT):
    # MAKEFLAGS of a surrounding make would leak in: this test also runs under `make test`.
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(["make", *args], cwd=cwd, env=env, capture_output=True, text=True)


def calls(project, *args):
    """[(OMP_NUM_THREADS, words)] of every python that make ran."""
    done = make(*args, "PYTHON=./python", cwd=project)
    assert done.returncode == 0 and "warning: undefined" not in done.stderr, done.stderr
    lines = (project / "calls").read_text().splitlines() if (project / "calls").exists() else []
    (project / "calls").unlink(missing_ok=True)
    found = [(threads, words) for threads, *words in (line[:-1].split("|") for line in lines)]
    return [(threads, words) for threads, words in found if "--resolve" not in words]


def test_help_lists_every_phony_target():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY:(.*?)(?<!\\)$", text, re.M | re.S).group(1).replace("\\\n", " ").split()
    listed = make("help")
    assert listed.returncode == 0 and listed.stderr == ""
    assert all(re.search(rf"^  {target} ", listed.stdout, re.M) for target in phony)


def test_one_chain_per_model(project):
    (project / "a model").mkdir()
    found = calls(project, "all", 'MODEL="a model" org/other', "SUITE=mine", "JUDGE=api:x")
    for model in ("a model", "org/other"):
        mine = [words for _, words in found if words[:2] == [f"{words[0]}", "--model"] and words[2] == model]
        assert sorted(words[0] for words in mine) == sorted(f"{stage}.py" for stage in STAGES)
        assert [words[0] for words in mine][:2] == ["01_extract.py", "02_tune.py"]
        assert all(words[3:] == ["--suite", "mine", "--profile", "full", "--judge", "api:x"] for words in mine)
    both = ["--model", "a model", "--model", "org/other"]
    modules = [words for _, words in found if words[0] == "-m"]
    assert [words[1] for words in modules] == ["lib.stage", "report.build", "report.audit"]
    assert all(words[-10:-6] == both or words[3:7] == both or words[2:6] == both for words in modules)
    assert sum(words[:2] == ["05_reliability.py", "--across"] for _, words in found) == 1
    assert found[-1][1][:3] == ["-m", "report.audit", "compare"] and found[-1][1][-1] == "--brief"


@pytest.mark.parametrize("name", ["two words", "two words/", "{root}/two words", "./two words"])
def test_one_folder_with_spaces_needs_no_quotes(project, name):
    (project / "two words").mkdir()
    name = name.format(root=project)
    found = calls(project, "all", f"MODEL={name}")
    assert [words[2] for _, words in found if words[0] in [f"{s}.py" for s in STAGES]] == [name] * len(STAGES)
    assert not [words for _, words in found if "--across" in words]


def test_nothing_in_a_name_is_run(project):
    found = calls(project, "extract", "MODEL=org/$$(touch bad) `touch bad`;touch bad")
    assert not (project / "bad").exists() and found


def test_the_embedded_models_run_on_one_thread_each_alone_or_together(project):
    for models in (["data/models/pico-llama"], ["data/models/pico-llama", "data/models/pico-gpt2"]):
        found = calls(project, "extract", f"MODEL={' '.join(models)}")
        assert sorted(words[2] for threads, words in found if words[0] == "01_extract.py" and threads == "1") == sorted(models)
    found = calls(project, "extract", "MODEL=org/other")
    assert [threads for threads, words in found if words[0] == "01_extract.py"] == [""]


def test_a_failing_stage_stops_make(project):
    (project / "python").write_text(ECHO.replace('"fail*"', "x").replace("fail*", "02*"))
    for model in ("org/one", "data/models/pico-llama"):            # in front, and side by side in the background
        done = make("all", f"MODEL={model}", "PYTHON=./python", cwd=project)
        assert done.returncode == 2 and "03_transfer" not in (project / "calls").read_text()


def test_a_card_is_a_suite_and_a_page(project):
    concept = "formal: Write; `touch bad` $$(touch bad), or not: casually."
    found = calls(project, "card", f"CONCEPT={concept}", "MODEL=org/one", "VECTOR=my file.gguf", "LAYER=3", "JUDGE=self")
    first, second = (words for _, words in found)
    assert first[:4] == ["-m", "data.concept", "--model", "org/one"] and first[5] == concept.replace("$$", "$")
    assert first[-2:] == ["--judge", "self"] and second[:4] == ["-m", "report.card", "--model", "org/one"]
    assert second[-4:] == ["--vector", "my file.gguf", "--layer", "3"] and not (project / "bad").exists()
    assert not {"--dtype", "--nproc"} & {*first, *second}
    assert calls(project, "card", "SIZES=traits=1")[1][1][-2:] == ["--sizes", "traits=1"]      # which report.card refuses
    found = calls(project, "card", "CONCEPT=trait/t", "MODEL=org/one", "DTYPE=bfloat16", "NPROC=2")
    assert found[-1][1][2:6] == ["--model", "org/one", "--dtype", "bfloat16"] and found[-1][1][-2:] == ["--nproc", "2"]
    assert found[0][1][1] == "data.concept" and found[0][1][2:6] == ["--model", "org/one", "--dtype", "bfloat16"]


def test_one_precision_for_all_models_or_one_for_each(project):
    def dtypes(words):
        return [words[i + 1] for i, word in enumerate(words) if word == "--dtype"]
    for given, each, together in (("", [[], []], []), ("bfloat16", [["bfloat16"]] * 2, ["bfloat16"]),
                                  ("bfloat16 float32", [["bfloat16"], ["float32"]], ["bfloat16", "float32"])):
        found = [words for _, words in calls(project, "reliability", "MODEL=org/one org/two", f"DTYPE={given}")]
        for stage in ("01_extract.py", "05_reliability.py"):
            assert [dtypes(words) for words in found if words[0] == stage and "--across" not in words] == each
        assert [dtypes(words) for words in found if "--across" in words] == [together]


def test_frozen_runs_no_stage(project):
    found = calls(project, "report", "FROZEN=1")
    assert [words[:2] for _, words in found] == [["-m", "report.build"], ["-m", "report.front"]]
    assert found[0][1][-1] == "--frozen"
    assert len(calls(project, "report", "FROZEN=1", "MODEL=org/one")) == 1           # the front is the project's own


def test_real_models_that_are_committed_are_verified_and_have_a_page(project):
    def run(name, leaf):
        (project / "outputs/committed" / name / f"papers-quick{leaf}-by-rules").mkdir(parents=True)
    run("gemma-3-270m-q4_k_m", "-bfloat16"), run("qwen2.5-coder-0.5b-instruct-q4_k_m", "")
    verified, built = calls(project, "verify"), calls(project, "report", "FROZEN=1")
    assert [words[1] for _, words in built] == ["report.build", "report.build", "report.front"] and len(verified) == 2
    for words in verified[1][1], built[1][1]:
        told = " ".join(words)
        assert ("--model gemma-3-270m-q4_k_m --dtype bfloat16 --model qwen2.5-coder-0.5b-instruct-q4_k_m --dtype float32 "
                "--suite papers --profile quick --judge rules") in told and words.count("--model") == 2
    assert built[1][1][-4:] == ["--to", "report/real", "--notes", "report/real.md"]
    assert len(calls(project, "verify", "AT=elsewhere")) == 1
    run("gemma-3-270m-q4_k_m", "")                                 # in both: float32 on the page, and one beside the other
    built = [" ".join(words) for _, words in calls(project, "report", "FROZEN=1")]
    assert "--model gemma-3-270m-q4_k_m --dtype float32" in built[1] and len(built) == 4
    assert built[2].startswith("-m report.twice --model gemma-3-270m-q4_k_m --suite papers")


def test_audit_looks_at_the_committed_results_unless_told(project):
    for target in ("verify", "spot"):
        assert "outputs/committed" in calls(project, target)[0][1]
        assert "elsewhere" in calls(project, target, "AT=elsewhere")[0][1]
    assert calls(project, "spot", "SPOT=3")[0][1][-2:] == ["--n", "3"]


def test_file_times_decide_nothing(project):
    """Whatever is newer than whatever, make calls every stage; these decide by content (tests/test_stage.py)."""
    first = calls(project, "all", "MODEL=org/one")
    for i, stage in enumerate(STAGES):
        (project / f"{stage}.py").touch()
        out = project / "outputs/org--one/testbed" / stage
        out.mkdir(parents=True)
        (out / "manifest.json").write_text("{}")
        os.utime(out / "manifest.json", (i, i))
    assert calls(project, "all", "MODEL=org/one") == first
    text = (ROOT / "Makefile").read_text()
    files = re.findall(r"^([\w./$()-]+):(?!=)", text, re.M)
    phony = re.search(r"^\.PHONY:(.*?)(?<!\\)$", text, re.M | re.S).group(1)
    assert set(files) - set(phony.replace("\\\n", " ").split()) == {".DELETE_ON_ERROR", ".SUFFIXES", ".venv/requirements.stamp",
                                                                    "data/suites/papers/suite.json", ".PHONY"}


def test_smoke_is_the_chain_on_the_smoke_profile(project):
    found = calls(project, "smoke", "MODEL=org/only")
    assert all("smoke" in words for _, words in found) and found[-1][1][1] == "report.audit"


def test_a_quick_run_is_planned_first_and_compared_with_its_plan_last(project):
    found = [words for _, words in calls(project, "all", "MODEL=org/only", "PROFILE=quick", "BUDGET=90m")]
    kinds = [words[1] if words[0] == "-m" else words[0] for words in found]
    assert kinds[:3] == ["lib.stage", "report.plan", "01_extract.py"] and kinds[-2:] == ["report.audit", "report.budget"]
    assert found[1][-3:] == ["--budget", "90m", "--keep"]
    assert all(words[words.index("--profile") + 1] == "quick" and "--sizes" not in words for words in found)
    alone = calls(project, "plan", "MODEL=org/only", "PROFILE=quick")[0][1]
    assert alone[-2:] == ["--budget", "60m"] and "--budget" not in calls(project, "plan", "MODEL=org/only")[0][1]


def test_given_sizes_need_no_plan(project):
    given = "preferences=0.4 reliability=0.5 alignment=1"
    found = [words for _, words in calls(project, "all", "MODEL=org/only", "PROFILE=quick", f"SIZES={given}")]
    assert not {"report.plan", "report.budget"} & {words[1] for words in found}
    assert all(words[words.index("--sizes") + 1] == given for words in found)


def test_processes_share_a_stage(project):
    found = calls(project, "extract", "MODEL=org/only", "NPROC=2")
    assert found[-1][1][:4] == ["-m", "lib.work", "2", "01_extract.py"]


def test_export_follows_tune_or_takes_what_is_committed(project):
    asked = ("export", "CONCEPT=trait/a b", "MODEL=org/only", "FORMAT=lm-eval")
    found = [words for _, words in calls(project, *asked)]
    assert [words[0] for words in found[1:-1]] == ["01_extract.py", "02_tune.py"]
    assert found[-1] == ["-m", "report.export", "--model", "org/only", "--suite", "testbed", "--profile", "full",
                         "--concept", "trait/a b", "--format", "lm-eval", "--measure", "1"]
    ((_, words),) = calls(project, *asked, "FROZEN=1", "MEASURE=0", "TO=a file.pt")
    assert words[-5:] == ["--measure", "0", "--to", "a file.pt", "--frozen"]


def test_a_cards_vector_from_elsewhere_is_not_made_again(project):
    (project / "a card").mkdir()
    (project / "a card/vector.json").write_text("{}")
    for target, last in (("export", "-m"), ("reliability", "05_reliability.py")):
        found = [words[0] for _, words in calls(project, target, "SUITE=a card", "MODEL=org/only")]
        assert "01_extract.py" not in found and "02_tune.py" in found and found[-1] == last


def test_an_unknown_format_is_said_before_anything_runs(project):
    from lib import vectors
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^FORMATS := (.*)$", text, re.M)[1].split() == list(vectors.EXTENSIONS)
    done = make("export", "FORMAT=foo", "PYTHON=./python", cwd=project)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "expected one of gguf" in done.stderr
    assert not (project / "calls").exists()


def test_checkpoints_are_listed_or_brought(project):
    assert calls(project, "checkpoint")[0][1] == ["-m", "data.checkpoint"]
    assert calls(project, "checkpoint", "NAME=smollm2-135m-instruct-q4_1")[0][1][2:] == ["smollm2-135m-instruct-q4_1"]


def test_a_name_of_the_list_is_resolved_before_it_is_run(project):
    (project / "python").write_text(ECHO.replace('echo "${@: -1}"', 'echo "data/checkpoints/${@: -1}"'))
    found = calls(project, "extract", "MODEL=some-name")
    assert found[-1][1][:3] == ["01_extract.py", "--model", "data/checkpoints/some-name"]


def test_default_python_is_an_environment_made_once():
    plan = make("-n", "-B", "test")
    assert "-m venv .venv" in plan.stdout and "requirements.txt" in plan.stdout
    assert "venv" not in make("-n", "-B", "test", "PYTHON=python3").stdout


def test_readme_commands_are_targets():
    text = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:|^ *{target} |{target}:", text, re.M), target


def test_processes_share_the_tests(tmp_path):
    """`python -m tests`: every file runs once, whichever process it falls to, and a failure in any is one of the whole."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib")
    (tmp_path / "tests").mkdir()
    for name in ("__main__", "conftest"):
        shutil.copy(ROOT / f"tests/{name}.py", tmp_path / "tests")
    for i in range(4):
        (tmp_path / f"tests/test_{i}.py").write_text(
            "import os, pytest\n@pytest.mark.parametrize('k', range(5))\ndef test_it(k):\n"
            f"    assert 'TESTS_CLAIMED' not in os.environ\n    open(f'ran-{i}-{{k}}', 'x').close()\n")
    done = subprocess.run([sys.executable, "-m", "tests"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("20 passed in "), done.stdout
    assert len(list(tmp_path.glob("ran-*"))) == 20
    done = subprocess.run([sys.executable, "-m", "tests"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("20 failed in "), done.stdout
