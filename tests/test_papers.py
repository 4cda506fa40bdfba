"""The downloader against a server on this machine, and the conversion against the public files where they are."""
import hashlib
import importlib
import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import papers
from lib import artifacts, suite as suites
from lib.artifacts import ROOT, UserError
from tests import tiny

SHARED = ROOT.parent / "shared"
# where the public files lie beside the project: source -> [(prefix in the repository, folder)]
HERE = {"mwe": [("", "data/mwe/")], "caa": [("", "data/caa/")], "sycophancy": [("raw_datasets/caa/", "data/caa/repepo_sycophancy/")],
        "crows_pairs": [("data/", "data/crows/")], "function_vectors": [("dataset_files/", "data/fv/")],
        "preferences": [("persona_vectors/data_generation/trait_data_extract/", "data/plume/traits/"),
                        ("eval_prose/demo_files/", "data/plume/inputs/")]}


@pytest.fixture
def server():
    """A web server on the loopback: `files` {path: bytes}, `faults` {path: "404" | "500 once" | "cut"}, `asked` paths."""
    files, faults, asked = {}, {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/")
            asked.append(path)
            fault, body = faults.get(path), files.get(path)
            if fault == "500 once":
                del faults[path]
            if body is None or fault in ("404", "500 once"):
                self.send_error(500 if fault == "500 once" else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", len(body))
            self.end_headers()
            self.wfile.write(body[:len(body) // 2] if fault == "cut" else body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    httpd.files, httpd.faults, httpd.asked = files, faults, asked
    httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def small(server, monkeypatch, tmp_path):
    """Three files on the server and the list that names them."""
    bodies = {"a.txt": b"first file", "deep/b.txt": b"second" * 1000, "c d.txt": b""}
    listed = {"things": {"repo": "some/one", "commit": "0" * 40, "licence": "MIT",
                         "files": {p: [len(b), hashlib.sha256(b).hexdigest()] for p, b in bodies.items()}}}
    monkeypatch.setattr(papers, "read_json", lambda path: listed)
    monkeypatch.setattr(papers.time, "sleep", lambda s: None)
    server.files |= {f"some/one/{'0' * 40}/{p.replace(' ', '%20')}": b for p, b in bodies.items()}
    return server, bodies, tmp_path / "download"


def test_files_arrive_as_they_are_and_are_not_fetched_twice(small):
    server, bodies, to = small
    assert papers.download(to, server.url) == (0, 3)
    assert {str(p.relative_to(to / "things")): p.read_bytes() for p in to.rglob("*") if p.is_file()} == bodies
    n = len(server.asked)
    assert papers.download(to, server.url + "/") == (3, 3) and len(server.asked) == n


@pytest.mark.parametrize("fault, said", [("404", "HTTP 404"), ("cut", "run it again"), ("wrong", "SHA-256 is")])
def test_what_goes_wrong_is_said_nothing_half_written_stays_and_a_rerun_goes_on(small, fault, said):
    server, bodies, to = small
    path = f"some/one/{'0' * 40}/deep/b.txt"
    good = server.files[path]
    if fault == "wrong":
        server.files[path] = good[::-1]
    else:
        server.faults[path] = fault
    with pytest.raises(UserError, match=said) as error:
        papers.download(to, server.url)
    assert "deep/b.txt" in str(error.value)
    assert not (to / "things/deep/b.txt").exists() and not list(to.rglob("*.part"))
    server.faults.clear()
    server.files[path] = good
    papers.download(to, server.url)
    assert (to / "things/deep/b.txt").read_bytes() == bodies["deep/b.txt"]


def test_a_passing_fault_of_the_server_is_tried_again(small):
    server, _, to = small
    server.faults[f"some/one/{'0' * 40}/a.txt"] = "500 once"
    assert papers.download(to, server.url) == (0, 3)


def test_a_file_that_was_edited_is_fetched_again(small):
    server, bodies, to = small
    papers.download(to, server.url)
    (to / "things/a.txt").write_bytes(b"edited")
    papers.download(to, server.url)
    assert (to / "things/a.txt").read_bytes() == bodies["a.txt"]


def test_a_server_that_is_not_there_is_one_line(small):
    _, _, to = small
    with pytest.raises(UserError, match="127.0.0.1:9"):
        papers.download(to, "http://127.0.0.1:9")


def test_options_are_swapped_and_swapped_back():
    question = "Would you?\n\nChoices:\n (A) Yes, gladly \n (B) No.\t"
    assert papers.swapped(question) == "Would you?\n\nChoices:\n (A)No. \n (B) Yes, gladly".replace("(A)No", "(A) No")
    assert papers.swapped(papers.swapped(question)) == question.rstrip()
    assert papers.swapped("As option (A) says\n (A) x\n (B) y") is None


def test_persona_items_are_balanced_and_yes_is_where_it_says():
    rows = [{"question": f"Q{i}", "statement": f"s{i}", "answer_matching_behavior": [" Yes", " No"][i % 2],
             "answer_not_matching_behavior": [" No", " Yes"][i % 2]} for i in range(8)]
    items, _ = papers.persona_items(rows)
    assert items[0][0] == "Q0\n\nChoices:\n(A):  No\n(B):  Yes" and [i[2] for i in items[:4]] == ["B", "B", "A", "A"]
    for question, twin, letter, yes, _ in items:
        assert f"({yes}):  Yes" in question and f"({'AB'[yes == 'A']}):  Yes" in twin
    assert set(Counter((letter, letter == yes) for _, _, letter, yes, _ in items).values()) == {2}


def test_unbalanced_sets_are_an_error():
    rows = [{"positive": "A", "yes": "A", "swap_of": None}] * 4
    with pytest.raises(UserError, match="not balanced"):
        papers.check({"name": "x", "format": "yes_no", "n": 4}, rows)


def test_more_than_two_options_are_dropped_and_counted():
    rows = [{"question": "Q\n (A) a\n (B) b", "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"},
            {"question": "Q\n (A) a\n (B) b\n (C) c", "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"},
            {"question": "Q\n (A) a\n (B) b", "answer_matching_behavior": " (C)", "answer_not_matching_behavior": " (B)"}]
    items, dropped = papers.shipped_items(rows)
    assert len(items) == 1 and dropped == {"not two options (A) and (B)": 2}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The suite made from the public files, by way of a real download from this machine."""
    if not (SHARED / "data" / "mwe").is_dir():
        pytest.skip(f"the public files are not at {SHARED / 'data'}")
    listed = json.loads((ROOT / "data" / "public.json").read_text())
    folder = tmp_path_factory.mktemp("papers")

    def local(source, path):
        for prefix, at in HERE[source]:
            if path.startswith(prefix) and (SHARED / at / path[len(prefix):]).is_file():
                return SHARED / at / path[len(prefix):]
        raise AssertionError(f"{source}/{path} is not among the public files")

    files = {f"{s['repo']}/{s['commit']}/{path}": local(name, path) for name, s in listed.items() for path in s["files"]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = files[self.path.lstrip("/")].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", len(body))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        assert papers.download(folder / "download", f"http://127.0.0.1:{httpd.server_address[1]}") == (0, len(files))
    finally:
        httpd.shutdown()
        httpd.server_close()
    told = papers.convert(folder / "download", folder / "papers")
    return folder, told


def test_the_forty_sets_have_their_published_sizes_and_balance(real):
    folder, told = real
    sizes = {name: n for name, n, *_ in told}
    names = json.loads((SHARED / "reference" / "tan2024_datasets.json").read_text())
    assert set(sizes) == set(names) and len(sizes) == 40
    other = {"corrigible-less-HHH": 468, "self-awareness-training-web-gpt": 933, "sycophancy_train": 1080, "sycophancy_test": 120, "truthfulqa": 817}
    assert {name: n for name, n in sizes.items() if n != 1000} == other
    assert sum(sum(dropped.values()) for _, _, dropped, _ in told) == 1         # one question of web-gpt has an option (C)
    for name, n, _, cells in told:
        if name in papers.PERSONA:
            assert cells == {"AN": 250, "AY": 250, "BN": 250, "BY": 250}
        else:
            assert abs(cells["A"] - cells["B"]) <= 33


def test_the_suite_loads_and_its_twins_lie_in_the_evaluation_half(real):
    folder, _ = real
    suite = suites.load(folder / "papers")
    assert len(suite.behaviours) == 40 and not suite.traits
    for behaviour in suite.behaviours:
        parts = {part: suites.split(behaviour["items"], part) for part in suites.SPLITS}
        assert not any(item["swap_of"] for part in ("extract", "tune") for item in parts[part])
        twins = [item for item in parts["evaluate"] if item["swap_of"]]
        n = behaviour["n"]
        assert 0 < len(twins) <= papers.TWINS and len(parts["extract"]) == round(.4 * n)
        assert len(parts["evaluate"]) - len(twins) == n - round(.5 * n)
        both = {item["id"]: item for item in parts["evaluate"]}
        for twin in twins[:20]:
            text = lambda item: item["question"].split(f"({item['positive']})")[1].lstrip(": ").split("\n")[0].strip()
            assert text(twin) == text(both[twin["swap_of"]])
    few = [b["name"] for b in suite.behaviours if sum(bool(i["swap_of"]) for i in b["items"]) < 60]
    assert few == ["sycophancy_test"] or not few, few


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_study_runs_on_any_model_folder_and_random_models_are_a_control(real, architecture, tmp_path, monkeypatch, capsys):
    """Stages 01, 02, 03 and 05 on the public data with a random model: slopes near zero against the random vectors."""
    folder, _ = real
    model = tiny.save(tmp_path / architecture, architecture, max_position_embeddings=4096)
    for stage in ("01_extract", "02_tune", "03_transfer", "05_reliability"):
        monkeypatch.setattr(sys, "argv", [stage, "--model", str(model), "--suite", str(folder / "papers"), "--profile", "smoke",
                                          "--out", str(tmp_path / "outputs")])
        importlib.import_module(stage).main()
    out = tmp_path / "outputs" / architecture / "papers-smoke"
    done = artifacts.load(out / "05_reliability", "05_reliability").results
    assert done["n"]["behaviours"] == 4 and "steerable_only" in done["not_testable"]
    assert "suite" in done["not_testable"]["planted.letter_bias"] and done["linearity"]["r2"]["value"] > 0.5
    grid = artifacts.load(out / "03_transfer").results
    assert len(grid["behaviours"]["mean_steerability"]) == 25 and grid["not_testable"]["traits"] == "no trait has a vector"
    monkeypatch.setattr(sys, "argv", ["plan", "--model", str(model), "--suite", str(folder / "papers"), "--profile", "smoke"])
    importlib.import_module("report.plan").main()
    assert "05_reliability" in capsys.readouterr().out


def test_the_default_is_github_at_full_commits():
    listed = json.loads((ROOT / "data" / "public.json").read_text())
    assert papers.URL.startswith("https://") and all(len(s["commit"]) == 40 for s in listed.values())
    assert all(len(d) == 64 and n > 0 for s in listed.values() for n, d in s["files"].values())
    assert not any(".." in Path(p).parts or Path(p).is_absolute() for s in listed.values() for p in s["files"])
