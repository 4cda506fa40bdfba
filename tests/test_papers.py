"""The downloader against a server on this machine, and the conversion against the public files where they are."""
import csv
import hashlib
import importlib
import itertools
import json
import sys
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import papers
from lib import artifacts, samples, suite as suites
from lib.judging import judges
from lib.artifacts import ROOT, UserError
from lib.models import load as load_model
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
    told, other = papers.convert(folder / "download", folder / "papers")
    return folder, told, {name: (counts, dict(dropped)) for name, counts, dropped in other}


@pytest.fixture(scope="module")
def suite(real):
    return suites.load(real[0] / "papers")


# --- traits and tasks ------------------------------------------------------------------------------------------------
def released(folder, name):
    """The file of one trait as it was released."""
    path = f"preferences/persona_vectors/data_generation/trait_data_extract/{name}.json"
    return json.loads((folder / "download" / path).read_text())


def test_questions_of_several_traits_go_to_one_split_and_every_trait_has_its_numbers():
    names = [f"t{i}" for i in range(6)]
    asked = {name: [f"{name} {i}" for i in range(28)] for name in names}
    for i, pair in enumerate(itertools.combinations(names, 2)):             # 15 questions of two traits, 5 of each
        for name in pair:
            asked[name].append(f"two {i}")
    for name in names:
        asked[name] += [f"all {i}" for i in range(7)]
    items = papers.question_items(asked)
    assert items == papers.question_items(asked)
    home = {item["prompt"]: part for part in suites.SPLITS for item in items[part]}
    assert len(home) == sum(len(items[part]) for part in suites.SPLITS) == 6 * 28 + 15 + 7
    for name in names:
        assert Counter(home[question] for question in asked[name]) == papers.QUESTIONS
    assert all(set(item["traits"]) == {n for n in names if item["prompt"] in asked[n]} for item in items["extract"])
    with pytest.raises(UserError, match="no split has room"):
        papers.place({f"q{i}": ["t"] for i in range(41)})


def test_rows_take_turns_and_a_text_that_comes_again_is_dropped():
    def row(task, source, n, text):
        group, = (g for g, (own, at, _) in papers.GROUPS.items() if (own, at) == (papers.TASKS[task], source))
        return {"task_name": task, "task_source": source, "seed": "7", "source_example_num": str(n), "context": text,
                "true preferences": "; ".join(f"wish for {name}" for name in papers.GROUPS[group][2])}
    rows = [row("email_writing", source, n, f"{source} {n}") for source in ("ccby", "slf5k") for n in range(5)]
    rows += [row("summarization", "imdb", n, f"slf5k  {n} " if n == 4 else f"film {n}") for n in range(5)]
    items, wishes, dropped = papers.text_items(rows)
    assert [i["id"] for i in items["email"]["tune"]] == [f"email-{g}-7-{n}" for n in range(3) for g in ("E1", "E2")]
    assert [i["id"] for i in items["email"]["evaluate"]] == [f"email-{g}-7-{n}" for n in (3, 4) for g in ("E1", "E2")]
    assert wishes["S5"][1] == "wish for onomatopoeia" and dropped == {"email": {}, "summary": {"text occurs twice": 1}}
    assert [i["prompt"].split("\n\n")[1] for i in items["summary"]["evaluate"]] == ["film 3"]
    first = items["email"]["tune"][0]["traits"]
    assert first[:4] == list(papers.GROUPS["E1"][2]) and "critical" not in first and {"bullets", "steps"} <= set(first)
    rows[3]["true preferences"] = "wish for nothing"
    with pytest.raises(UserError, match="a row of ccby asks for"):
        papers.text_items(rows)


def test_the_traits_are_the_released_ones(real, suite):
    folder, _, told = real
    groups = {group: [t["name"] for t in suite.traits if t["group"] == group] for group in papers.GROUPS}
    assert len(suite.traits) == 36 and groups.pop(None) == ["bullets"] and len(groups) == 9
    assert [sum(len(list(itertools.combinations(names, k))) for names in groups.values()) for k in (1, 2, 3, 4)] == \
        [35, 51, 33, 8]
    assert {t["name"]: t["preference"] for t in suite.traits}.items() >= {
        "thirdperson": "write in a third person perspective", "similes": "include a simile", "radio":
        "write in the style of old timey radio", "bullets": "write using bullet points"}.items()
    assert told["traits"][0] == {"all": 36, "global": 23, "local": 13}
    for trait in suite.traits:
        made = released(folder, trait["name"])
        assert [[pair["positive"], pair["negative"]] for pair in trait["instructions"]] == \
            [[pair["pos"], pair["neg"]] for pair in made["instruction"]] and len(trait["instructions"]) == 5
        asked = trait["judge_prompt"].replace("{question}", "").replace("{answer}", "")
        assert trait["judge_prompt"].count("{question}") == trait["judge_prompt"].count("{answer}") == 1
        assert "{" not in asked and "100" in asked
        # the wish of the rows and the wish of the trait's own file are of the same thing
        own = made["eval_prompt"].split("**")[1].lower()
        assert any(word[:5] in own for word in trait["preference"].lower().split() if len(word) > 4), trait["name"]


def test_no_question_is_in_two_splits(real, suite):
    for trait in suite.traits:
        parts = [[item["prompt"] for item in suites.tasks(suite, "question", part, trait["name"])]
                 for part in suites.SPLITS]
        assert [len(part) for part in parts] == [20, 8, 12]
        assert sorted(sum(parts, [])) == sorted(released(real[0], trait["name"])["questions"])
    plain = [{" ".join("".join(c for c in item["prompt"].lower() if c.isalnum() or c == " ").split())
              for item in suites.tasks(suite, "question", part)} for part in suites.SPLITS]
    assert not any(a & b for a, b in itertools.combinations(plain, 2)) and len(set.union(*plain)) == 1285


def test_texts_are_whole_in_one_split_and_go_to_the_right_traits(real, suite):
    folder, _, told = real
    home, texts = {}, {}
    for path in (folder / "download/preferences/eval_prose/demo_files").glob("*.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                name = f"{row['seed']}-{row['source_example_num']}"
                texts[papers.TASKS[row["task_name"]], row["task_source"], name] = row["context"].strip()
    assert len(texts) == 40 + 50
    for task, part in itertools.product(("summary", "email"), ("tune", "evaluate")):
        items = suites.tasks(suite, task, part)
        groups = [group for group, (own, *_) in papers.GROUPS.items() if own == task]
        assert {item["id"].split("-")[1] for item in items[:len(groups)]} == set(groups)
        for item in items:
            _, group, seed, n = item["id"].split("-")
            text = texts.pop((task, papers.GROUPS[group][1], f"{seed}-{n}"))
            assert text in item["prompt"] and item["words"] == len(text.split()) >= 100
            assert home.setdefault(text, part) == part
            for trait in suite.traits:
                assert (trait["name"] in item["traits"]) == (trait["task"] != task or trait["group"] == group)
    assert not texts                                                        # none was dropped, as convert says too
    assert not told["task email"][1] and not told["task summary"][1]


def test_smoke_has_items_for_its_traits(real):
    full, smoke = suites.load(real[0] / "papers"), suites.load(real[0] / "papers", "smoke")
    assert len(smoke.traits) == 7 and len({t["group"] for t in smoke.traits}) == 3
    for trait in smoke.traits:
        for task, splits in smoke.tasks.items():
            for part, items in splits.items():
                n = min(samples.SMOKE["items"], len(suites.tasks(full, task, part, trait["name"])))
                assert len(suites.tasks(smoke, task, part, trait["name"])) >= n >= 3
                assert len(items) <= samples.SMOKE["items"] * len(smoke.traits)


# --- relations, templates, values ------------------------------------------------------------------------------------
def test_answers_that_cannot_be_scored_are_dropped_and_counted():
    rows = [{"input": x, "output": y} for x, y in (("big", " small "), ("hot dog", "sausage"), ("start", "shut down"),
                                                   ("cut", "cut"), ("end", ""))]
    made = papers.relation("r", rows, "here")
    assert made["pairs"] == [["big", "small"], ["hot dog", "sausage"]]
    assert made["dropped"] == {"answer of several words": 2, "answer repeats the query": 1}


def test_relations_are_the_files_less_what_was_dropped(real, suite):
    folder, _, told = real
    published = {"antonym": 2398, "synonym": 2880, "past": 293, "plural": 205, "capital": 197, "capitalize": 813}
    for name, n in published.items():
        made = suites.relation(suite, name)
        assert len(made["pairs"]) + sum(made["dropped"].values()) == n
        assert told[f"relation {name}"] == ({"pairs": len(made["pairs"])}, made["dropped"])
        parts = [{word for pair in suites.relation_split(made, part) for word in pair} for part in suites.SPLITS]
        assert not any(a & b for a, b in itertools.combinations(parts, 2))
        sizes = [len(suites.relation_split(made, part)) / len(made["pairs"]) for part in suites.SPLITS]
        assert sizes == pytest.approx([0.4, 0.2, 0.4], abs=0.01)
    assert suites.relation(suite, "antonym")["dropped"] == {"answer of several words": 21}
    assert {" ".join(pair) for pair in suites.relation(suite, "past")["pairs"]} >= {"adapt adapted"}
    assert {part for part in suites.relation(suite, "capital")["dropped"].values()} == {30, 1}


def test_templates_are_many_different_and_leave_the_answer_open(suite, tmp_path):
    assert len(suite.templates) >= 12 and suite.templates[0]["pair"].startswith("Q: {x}\nA:")
    assert len({t["pair"] for t in suite.templates}) == len(suite.templates)
    lm = load_model(tiny.save(tmp_path / "llama", "llama"), device="cpu")
    for template in suite.templates:
        assert template["pair"].startswith(template["query"] + " {y}") and template["pair"].endswith("\n")
        assert template["pair"].count("{x}") == template["pair"].count("{y}") == 1
        lm.answer_token(template["query"].format(x="big"), " small")        # raises if it swallows the answer
    assert len(suite.neutral) >= 10 and all(sentence.endswith(".") for sentence in suite.neutral)


def test_pairs_of_a_value_are_compared_by_the_words_they_share():
    row = lambda more, less: {"sent_more": more, "sent_less": less, "bias_type": "age"}
    rows = [row(f"Old cats sleep {w} hours.", f"Young cats sleep {w} hours.") for w in "abcdefghij"]
    made, dropped = papers.values(rows + [
        row("He sleeps, he is old.", "He sleeps, he is young."),
        row("Old cats nap now.", "Young dogs can never run now."), row("Old cats sleep b hours.", "Mad cats sleep b hours.")])
    assert dropped == {"no common word after the changed one": 1, "common words of an earlier pair": 1,
                       "fewer than half of the words in common": 1}
    value, = made
    read = lambda part: [probe["id"] for probe in suites.value_split(value, part)]
    assert [pair["positive"].split()[3] for pair in value["pairs"]] == ["a", "f", "d", "i"]
    assert (read("tune"), read("evaluate")) == (["crows-1", "crows-6"], ["crows-2", "crows-7", "crows-4", "crows-9"])


def test_values_are_the_published_pairs_each_in_one_place(real, suite):
    folder, _, told = real
    with open(folder / "download/crows_pairs/data/crows_pairs_anonymized.csv", encoding="utf-8", newline="") as file:
        rows = {row["sent_more"].strip(): row for row in csv.DictReader(file)}
    assert len(suite.values) == 9
    kept = 0
    for value in suite.values:
        assert told[f"value {value['name']}"][0] == {"pairs": len(value["pairs"]), "probes": len(value["probes"])}
        used = [(p["positive"], p["negative"]) for p in value["pairs"]]
        used += [(p["positive_text"], p["negative_text"]) for p in value["probes"]]
        assert len(set(sum(used, ()))) == 2 * len(used)                     # no sentence is read and measured
        kept += len(used)
        for more, less in used:
            assert rows[more]["sent_less"].strip() == less and rows[more]["bias_type"] == value["name"]
        assert len(value["pairs"]) / len(used) == pytest.approx(0.4, abs=0.01)
        assert {probe["level"] for probe in value["probes"]} == {0}
    assert kept + sum(told["values"][1].values()) == 1508 and kept > 1300
    head = json.loads((folder / "papers/suite.json").read_text())
    assert "Blodgett" in head["notes"]["crows_pairs"] and "none stated" in head["licence"]
    assert suite.max_new_tokens == 300


def test_facts_are_capitals(suite):
    asked = {fact["prompt"]: fact["answer"] for fact in suite.facts}
    assert len(asked) == len(suite.facts) > 150 and all(fact["answer"].startswith(" ") for fact in suite.facts)
    assert asked["The capital city of France is"] == " Paris"
    assert asked["The capital city of the Netherlands is"] == " Amsterdam"
    spread = [fact["prompt"].split()[-2][0] for fact in suites.probe_split(suite.facts, "tune")]
    assert {"A", "F", "Z"} <= set(spread)                                   # of the whole alphabet, not of its start


def test_nothing_of_the_public_data_is_in_the_project(real, suite):
    own = "".join((ROOT / path).read_text(encoding="utf-8") for path in (
        "data/papers.py", "data/public.json", "data/README.md", "tests/test_papers.py", "README.md"))
    texts = [item["prompt"] for splits in suite.tasks.values() for items in splits.values() for item in items]
    texts += [pair[side] for t in suite.traits for pair in t["instructions"] for side in ("positive", "negative")]
    texts += [line for t in suite.traits for line in t["judge_prompt"].splitlines()]
    texts += [pair[side] for value in suite.values for pair in value["pairs"] for side in ("positive", "negative")]
    texts += [part.strip() for text in texts for part in text.split("\n")]
    assert not [text for text in texts if len(text) > 24 and text in own and text not in papers.REQUESTS["email"]
                and text not in papers.REQUESTS["summary"]]


# --- behaviours ------------------------------------------------------------------------------------------------------
def test_the_forty_sets_have_their_published_sizes_and_balance(real):
    _, told, _ = real
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


def test_the_suite_loads_and_its_twins_lie_in_the_evaluation_half(suite):
    assert len(suite.behaviours) == 40
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


class Coin:
    """Scores by a hash of what it is asked: no model that a test builds writes texts that a judge could score."""
    name = "coin"

    def read(self, asked):
        return [(float(95 * (zlib.crc32(f"{trait}{text}".encode()) % 2)), 90.0, None) for trait, _, text in asked]

    def preferences(self, asked):
        return [zlib.crc32(f"{trait}{text}".encode()) % 5 - 2 for trait, _, text in asked]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_the_study_runs_on_any_model_folder_and_random_models_are_a_control(real, architecture, tmp_path, monkeypatch, capsys):
    """All stages on the public data with a random model: slopes near zero against the random vectors. On Llama a coin
    judges, so that traits get vectors; the others judge themselves, which gives no usable score and no trait."""
    if architecture == "llama":
        monkeypatch.setattr(judges, "load", lambda *_: Coin())
    folder = real[0]
    model = tiny.save(tmp_path / architecture, architecture, max_position_embeddings=4096)
    for stage in ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability"):
        monkeypatch.setattr(sys, "argv", [stage, "--model", str(model), "--suite", str(folder / "papers"), "--profile", "smoke",
                                          "--out", str(tmp_path / "outputs")])
        importlib.import_module(stage).main()
    out = tmp_path / "outputs" / architecture / "papers-smoke"
    done = artifacts.load(out / "05_reliability", "05_reliability").results
    assert done["n"]["behaviours"] == 4 and "steerable_only" in done["not_testable"]
    assert "suite" in done["not_testable"]["planted.letter_bias"] and done["linearity"]["r2"]["value"] > 0.5
    grid = artifacts.load(out / "03_transfer").results
    assert len(grid["behaviours"]["mean_steerability"]) == 25
    assert set(grid["relations"]["ways"]) == {"centred", "mean", "contrast", "mixed", "heads", "patch"}
    assert "antonym_gain" in grid["relations"] and {"shift", "bias", "window"} <= set(grid["values"])
    first = artifacts.load(out / "01_extract").results["traits"]
    composed = artifacts.load(out / "04_compose").results
    if architecture == "llama":
        assert first["n_extractable"] > 1 and grid["traits"]["n"]["traits"] == first["n_extractable"]
        assert "scales" in grid["traits"] and composed["n"]["cases"] > 10
        asked = {case["item"] for case in artifacts.load(out / "03_transfer").table("cases.jsonl")}
        suite = suites.load(str(folder / "papers"), "smoke")
        assert asked == {item["id"] for task, part in (("question", "evaluate"), ("question", "extract"), ("summary", "evaluate"),
                                                       ("email", "evaluate")) for trait in suite.traits
                         if trait["name"] not in first["not_extractable"]
                         for item in suites.tasks(suite, task, part, trait["name"])[:2]}
    else:
        assert first["dropped"] == {"no usable score": first["n_asked"]}
        assert grid["not_testable"]["traits"] == composed["not_testable"]["slope"].replace(
            "no trait of a group", "no trait") == "no trait has a vector"
    monkeypatch.setattr(sys, "argv", ["plan", "--model", str(model), "--suite", str(folder / "papers"), "--profile", "smoke"])
    importlib.import_module("report.plan").main()
    assert "05_reliability" in capsys.readouterr().out


def test_the_default_is_github_at_full_commits():
    listed = json.loads((ROOT / "data" / "public.json").read_text())
    assert papers.URL.startswith("https://") and all(len(s["commit"]) == 40 for s in listed.values())
    assert all(len(d) == 64 and n > 0 for s in listed.values() for n, d in s["files"].values())
    assert not any(".." in Path(p).parts or Path(p).is_absolute() for s in listed.values() for p in s["files"])
