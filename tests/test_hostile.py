"""Hostile: what a reviewer broke once stays mended. Nothing is lost, nothing is silent, one line for each error."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib import artifacts, models, passes, stage, suite as suites, work
from lib.artifacts import ROOT, UserError
from lib.judging import endpoint
from report import audit, build, examples
from tests import soak, tiny
from tests.test_suite import broken, choices, miniature, write

COMMITTED = ROOT / "outputs" / "committed"
MODELS = ["data/models/pico-llama", "data/models/pico-gpt2"]


def save(out, **more):
    return artifacts.save(out, **({"stage": out.name, "config": {}, "inputs": {}, "results": {"n": 1},
                                   "arrays": {"v": (np.ones((2, 3)), ("row", "d"))}} | more))


# --- verify ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("committed") / "all"
    shutil.copytree(COMMITTED, folder, copy_function=os.link)
    return folder


@pytest.mark.parametrize("gone", ["pico-gpt2/testbed/04_compose", "pico-gpt2/testbed/04_compose/manifest.json",
                                  "pico-llama+pico-gpt2/testbed/05_across"])
def test_verify_misses_what_is_not_there(committed, gone, monkeypatch, capsys):
    monkeypatch.setattr(audit, "inspect", lambda path: ([], {}) if artifacts.load(path) else None)
    (committed / gone).rename(committed / "away")
    try:
        args = stage.cli("x", many=True).parse_args(
            [word for model in MODELS for word in ("--model", str(ROOT / model))] + ["--out", str(committed)])
        with pytest.raises(UserError, match="1 of 11"):
            audit.verify_all(audit.due(args))
    finally:
        (committed / "away").rename(committed / gone)


def test_verify_knows_an_edited_config_and_published_values(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/published.json").write_text("{}")
    model = tiny.save(tmp_path / "m", "llama")
    lm = models.load(str(model))
    monkeypatch.setattr(sys, "argv", ["05.py", "--model", str(model)])
    out = tmp_path / "out" / "05_reliability"
    save(out, config={"model": lm.identity}, inputs={"published": artifacts.sha256(tmp_path / "data/published.json")})
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    assert audit.inspect(out)[0] == []
    (tmp_path / "data/published.json").write_text("{ }")
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    faults = " ".join(audit.inspect(out)[0])
    assert "another data/published.json" in faults and "config.json" in faults


# --- saves, locks and pages --------------------------------------------------------------------------------------
def test_what_a_killed_save_left_is_finished_or_removed(tmp_path):
    out = tmp_path / "01_extract"
    for left, name in ((["old"], "old"), (["tmp"], "tmp"), (["old", "tmp"], "tmp")):
        for kind in left:
            save(tmp_path / kind, config={"kind": kind}).path.rename(tmp_path / f"01_extract.{kind}-7")
        artifacts.settle(out)
        assert artifacts.load(out).config == {"kind": name} and [p.name for p in tmp_path.iterdir()] == ["01_extract"]
        shutil.rmtree(out)
    (tmp_path / "01_extract.tmp-7").mkdir()                                # without a manifest it is not whole
    artifacts.settle(out)
    assert not list(tmp_path.iterdir())


def test_one_process_works_on_a_folder_and_a_dead_one_binds_nobody(tmp_path):
    (tmp_path / "s.lock").write_text("1\n")                                # of a process that was killed
    held = artifacts.hold(tmp_path / "s")
    code = f"from lib import artifacts; artifacts.run(lambda: artifacts.hold({str(tmp_path / 's')!r}))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 2 and other.stderr.count("\n") == 1 and f"process {os.getpid()} is working on it" in other.stderr
    artifacts.release(held)
    artifacts.release(artifacts.hold(tmp_path / "s"))
    assert not list(tmp_path.iterdir())


def test_a_page_that_fails_leaves_the_good_one_and_a_killed_move_is_finished(tmp_path):
    to = tmp_path / "report"
    with build.replacing(to) as new:
        (new / "figures").mkdir()
        (new / "figures" / "a.png").write_text("one")
        (new / "report.md").write_text("one")
    with pytest.raises(UserError, match="damaged"), build.replacing(to) as new:
        (new / "figures").mkdir()
        raise UserError("damaged input")
    assert (to / "figures/a.png").read_text() == "one" and sorted(p.name for p in tmp_path.iterdir()) == ["report"]
    shutil.copytree(to, tmp_path / "report.new")                           # killed while the parts moved
    (tmp_path / "report.new/figures/a.png").write_text("two")
    shutil.rmtree(to / "figures")
    with pytest.raises(UserError), build.replacing(to):
        raise UserError("x")
    assert (to / "figures/a.png").read_text() == "two" and not (tmp_path / "report.new").exists()


def test_a_cut_array_is_found(tmp_path):
    path = save(tmp_path / "01_extract").path / "v.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="v.npy: changed"):
        artifacts.load(tmp_path / "01_extract").array("v")
    assert audit.inspect(tmp_path / "01_extract")[0]


@pytest.mark.parametrize("name, fails", [("../suites/x", True), ("a/b", True), ("x-smoke", True), ("x-by-rules", True),
                                         ("papers", False), ("a\nb", True)])
def test_names_of_folders_stay_inside(tmp_path, monkeypatch, name, fails):
    monkeypatch.chdir(tmp_path)
    args = stage.cli("x").parse_args(["--model", "m", "--suite", name])
    if fails:
        with pytest.raises(UserError, match="--suite"):
            stage.paths(args)
    else:
        assert stage.paths(args) == Path("outputs/m") / name
    write(tmp_path / "suites" / "x", miniature())
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert stage.paths(stage.cli("x").parse_args(["--model", "m", "--suite", "../suites/x"])) == Path("outputs/m/x")
    for model in ("..", "/", "."):
        at = stage.paths(stage.cli("x").parse_args(["--model", model])) if model != "/" else None
        assert at is None or ".." not in at.parts and len(at.parts) == 3


def test_the_suites_own_judge_counts_for_up_to_date(tmp_path, monkeypatch):
    files = miniature()
    judge = tiny.save(tmp_path / "judge", "llama")
    files["suite.json"]["judge"] = f"model:{judge}"
    suite = write(tmp_path / "mini", files)
    seen = []
    monkeypatch.setattr(stage, "_making", None)
    monkeypatch.setattr(artifacts, "digest_of", lambda facts: seen.append(json.dumps(facts)) or "x")
    args = stage.cli("x").parse_args(["--model", str(judge), "--suite", str(suite), "--out", str(tmp_path / "out")])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(ROOT / "01_extract.py"), raising=False)
    for change in (b"", b"\n"):
        (judge / "config.json").write_bytes((judge / "config.json").read_bytes() + change)
        stage._begin(args, (), ())
        artifacts.release(stage._making[2])
    assert seen[0] != seen[1] and seen[0].count('"config.json"') == 2      # the model's and the judge's


# --- suites ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change, message", [
    (lambda f: f.update({"relations/b.json": f["relations/antonym.json"]}), r"relations: two have the name 'antonym'"),
    (broken("values.json", "values", 0, "probes", 2, "negative", value=" she"), r"v\.probes, \[2\]: positive and negative are the same"),
    (broken("behaviours/b1.jsonl", 0, "yes", value="C"), r"b1\.jsonl, line 1: 'yes' is 'C'"),
    (lambda f: [row.update(yes=None) for row in f["behaviours/b1.jsonl"]], r"b1\.jsonl: c0A: 'yes' does not fit the format"),
    (broken("behaviours.json", 1, "file", value="behaviours/b0.jsonl"), r"behaviours\.json: two have the file 'behaviours/b0\.jsonl'"),
    (broken("behaviours.json", 1, "file", value="x" * 5000), r"behaviours\.json, \[1\]: 'file' is a name of 5000 letters"),
    (broken("templates.json", 0, "query", value="{x} {y}"), r"templates\.json, \[0\]: .*not \{y\}"),
    (broken("traits.json", 0, "name", value=" "), r"traits\.json, \[0\]: 'name' is ' ', expected text that is not blank"),
    (broken("traits.json", 0, "name", value="a\0b"), r"traits\.json, \[0\]: .*is no name"),
    (broken("traits.json", 0, "preference", value=5), r"traits\.json, \[0\]: 'preference' is 5"),
    (broken("values.json", "neutral", 0, value=5), r"values\.json, neutral\[0\]: is 5, expected text"),
    (broken("values.json", "values", 0, "probes", 0, "level", value=True), r"'level' is True"),
    (broken("suite.json", "max_new_tokens", value=2**70), r"suite\.json: not JSON that can be used \(the number"),
    (broken("suite.json", "judge", value="oracle"), r"suite\.json: unknown judge"),
    (broken("tasks.json", "question", value=[]), r"tasks\.json, question: is \[\], expected an object"),
    (broken("tasks.json", "email"), r"tasks\.json: no key 'email'"),
    (lambda f: f.update({"tasks.json": []}), r"tasks\.json: is \[\], expected an object"),
    (lambda f: f.update({"values.json": []}), r"values\.json: expected an object"),
    (lambda f: f.update({"grammar.json": {"traits": {}, "frames": {}, "slots": {}, "roles": {}, "ands": {}, "sentences": 1,
                                          "greetings": [], "closings": []}}), r"grammar\.json: no trait 't0' of traits\.json"),
    (lambda f: f.update({"behaviours/b1.jsonl": choices(2)}), r"behaviours/b1\.jsonl: c0A .*: nothing for tune; a split needs ten")])
def test_suites_that_were_silently_wrong(tmp_path, change, message):
    files = miniature()
    change(files)
    with pytest.raises(UserError, match=message):
        suites.load(write(tmp_path / "mini", files))


@pytest.mark.parametrize("text, message", [
    (b'{"name": "a", "name": "b"}', "stands twice"), (b'{"name": NaN}', "NaN is not"), (b'{"name": "\\ud800"}', "surrogate"),
    (b"[" * 100000, "nested too deeply"), (b"9" * 5000, "5000 digits"), (b"\xff", "cannot be read"), (b"null", "is null"), (b"[]", "is ")])
def test_json_that_python_would_take(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        artifacts.read_json(tmp_path / "a.json", {"name": str})
    assert "a.json" in str(error.value) and "\n" not in str(error.value)


def test_templates_are_replaced_not_run():
    assert suites.fill("{x.__class__} {{ {x} -> {y}", "{y}", "b") == "{x.__class__} {{ {y} -> b"


# --- models ------------------------------------------------------------------------------------------------------
TENSOR = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("name, change, message", [
    ("model.safetensors", lambda raw: raw[:-1000], "model.safetensors: no whole safetensors file"),
    ("model.safetensors", lambda raw: b"", "model.safetensors: no whole"),
    ("model.safetensors", lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git LFS"),
    ("config.json", lambda raw: b"[]", "config.json: expected an object"),
    ("config.json", lambda raw: raw.replace(b'"hidden_size": 32', b'"hidden_size": "32"'), "hidden_size"),
    ("config.json", lambda raw: raw.replace(b'"num_attention_heads": 4', b'"num_attention_heads": 0'), "cannot be loaded"),
    ("config.json", lambda raw: raw.replace(b'"num_hidden_layers": 3', b'"num_hidden_layers": 0'), "number of layers"),
    ("config.json", lambda raw: raw.replace(b'"max_position_embeddings": 256', b'"max_position_embeddings": 0'), "is 0"),
    ("generation_config.json", lambda raw: b"{", "generation_config.json: not JSON"),
    ("tokenizer.json", lambda raw: b"{}", "cannot be loaded"),
    ("tokenizer.json", lambda raw: raw.replace(b'"continuing_subword_prefix": null', b'"continuing_subword_prefix": "%b"' % (b"x" * 5000)),
     "cannot be loaded: PanicException")])
def test_damaged_model_folders(tmp_path, capfd, name, change, message):
    model = tiny.save(tmp_path / "m", "llama")
    capfd.readouterr()
    (model / name).write_bytes(change((model / name).read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        models.load(str(model))
    assert str(model) in str(error.value) and capfd.readouterr().err == ""


@pytest.mark.parametrize("change, message", [(lambda w: w.zero_(), "is all zero"),
                                             (lambda w: w.__setitem__((0, 0), torch.nan), "not finite")])
def test_damaged_tensors_are_named(tmp_path, change, message):
    model = tiny.save(tmp_path / "m", "llama")
    tensors = load_file(model / "model.safetensors")
    change(tensors[TENSOR])
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{TENSOR} .*{message}|{TENSOR} {message}"):
        models.load(str(model))


# --- memory, disks, signals, processes -----------------------------------------------------------------------------
@pytest.mark.parametrize("error", [MemoryError("x"), torch.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory"),
                                   RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_of_every_kind_halves_the_batch(error):
    done = []

    def do(batch):
        if len(batch) > 2:
            raise error
        done.extend(batch)
    passes.each([list(range(8))], do)
    assert done == list(range(8))
    with pytest.raises(UserError, match="out of memory"):
        passes.each([[1]], lambda batch: (_ for _ in ()).throw(error))


def ended(code, *before, stop=None):
    # A shell's background job ignores Ctrl-C, and so would its children.
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    if stop:
        process.stdout.readline()
        process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_signals_disks_and_memory_are_one_line():
    wait = "import time; from lib import artifacts; artifacts.run(lambda: (print('go', flush=True), time.sleep(60)))"
    for signalled, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        code, err = ended(wait, stop=signalled)
        assert code == status and err.count("\n") == 1 and signalled.name in err
    for raised in ("OSError(28, 'No space left on device', 'a.npy')", "MemoryError()", "artifacts.UserError('a\\n\\x1b[31mb')"):
        code, err = ended(f"from lib import artifacts\ndef main(): raise {raised}\nartifacts.run(main)")
        assert code == 2 and err.count("\n") == 1 and "\x1b" not in err and err.startswith("error: ")


def test_a_full_disk_in_a_unit_keeps_the_others(tmp_path, monkeypatch):
    def unit(key):
        if key == "b":
            monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        return {"n": 1}
    with pytest.raises(UserError, match="npz: cannot be written .No space left"):
        work.units(tmp_path / "out", 1, ["a", "b"], unit, "x")
    kept = [path.name for path in tmp_path.rglob("*.npz*")]
    assert len(kept) == 1 and kept[0].startswith("a-")


@pytest.mark.parametrize("n", ["0", "-1", "two", "1 2", ""])
def test_a_number_of_processes_that_is_none(n):
    done = subprocess.run([sys.executable, "-m", "lib.work", n, "01_extract.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"NPROC={n}" in done.stderr


def test_an_error_of_one_process_is_one_line(tmp_path):
    script = tmp_path / "s.py"
    for body in ("raise artifacts.UserError('all of us')",
                 "raise artifacts.UserError('one of us') if os.environ['RANK'] == '1' else time.sleep(60)",
                 "os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(60)"):
        script.write_text(f"import os, time\nfrom lib import artifacts\ndef main():\n    {body}\nartifacts.run(main)\n"
                          .replace("raise artifacts.UserError('one of us') if os.environ['RANK'] == '1' else time.sleep(60)",
                                   "if os.environ['RANK'] == '1': raise artifacts.UserError('one of us')\n    time.sleep(60)"))
        begun = time.time()
        done = subprocess.run([sys.executable, "-m", "lib.work", "2", str(script)], cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and time.time() - begun < 40, done.stderr


# --- what others wrote -------------------------------------------------------------------------------------------
def test_texts_of_others_are_shown_harmless():
    assert artifacts.shown("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
    assert examples.plain("<b>|{{x}}") == "\\<b\\>\\|\\{\\{x\\}\\}"
    assert build.as_csv([{"a": "=1+1", "b": "x\x1by", "c": -1.5}]) == "a,b,c\n'=1+1,x\\x1by,-1.5\n"
    assert build.fill("{{verdicts}}", [], {}, {"verdicts": "an item called {{x}}"}) == "an item called {{x}}"


def test_the_endpoint_keeps_no_key_and_takes_any_reply(tmp_path, monkeypatch):
    key = "sk-secret-0123456789"
    reply = {"model": key, "choices": [{"message": {"content": key}, "logprobs": {"content": [{"token": key, "logprob": -0.1}]}}]}
    assert key not in json.dumps(endpoint._masked(endpoint._parse(json.dumps(reply).encode()), key))
    with pytest.raises(ValueError, match="RecursionError"):
        endpoint._parse(b"[" * 100000)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for url in ("http://[::1", "http://x:port/v1", f"http://x/{key}/v1", "http://x/v1#a"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(UserError, match="OPENAI_BASE_URL") as error:
            endpoint.find("m")
        assert key not in str(error.value)
    for entry in ([], {"text": 1, "refused": False, "tokens": None}, {"text": "", "refused": False, "tokens": {"7": "x"}},
                  {"text": "", "refused": False, "tokens": {"7": 1e308}}):
        (tmp_path / "a.json").write_text(json.dumps(entry))
        with pytest.raises(UserError, match="a.json.*delete it"):
            endpoint._weigh(tmp_path / "a.json", ("7",))


def test_a_short_soak():
    """Fifteen seconds of tests/soak.py; `make soak` goes on for longer."""
    done = subprocess.run([sys.executable, "-m", "tests.soak", "--seconds", "15"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
