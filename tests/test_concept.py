"""data.concept: what a file of rows must be, that no content is in two splits, and that the command of a card runs."""
import argparse
import re
import subprocess

import pytest

from data import concept
from lib import stage, suite as suites
from lib.artifacts import ROOT, UserError, read_json

SENTENCES = [(f"The old man {i} sat down.", f"The young man {i} sat down.") for i in range(20)]


def csv_of(path, columns, rows):
    path.write_text("\n".join([columns, *(",".join(f'"{cell}"' for cell in row) for row in rows)]), encoding="utf-8")
    return path


def contents(items):
    """{(question, its two options)} of a behaviour's items, read from what the model is asked."""
    asked = [re.fullmatch(r"(.*)\n\n\(A\): (.*)\n\(B\): (.*)", item["question"]).groups() for item in items]
    return {(question, frozenset(options)) for question, *options in asked}


# --- no content is in two splits ----------------------------------------------------------------------------
def test_both_orders_of_a_choice_are_one_content(tmp_path):
    rows = [(f"Q{i % 10}?", f"yes {i}", f"no {i}", "AB"[i % 2]) for i in range(20)]
    swaps = [(q, b, a, "AB"[answer == "A"]) for q, a, b, answer in rows]
    path = csv_of(tmp_path / "x.csv", "question,a,b,answer", rows + swaps)
    items = concept.write(tmp_path / "suite", concept.build(f"x: {path}")[1]).behaviours[0]["items"]
    parts = [contents(suites.split(items, name)) for name in ("extract", "tune", "evaluate")]
    assert [len(part) for part in parts] == [8, 2, 10] and len(set.union(*parts)) == 20
    alone = csv_of(tmp_path / "alone.csv", "question,a,b,answer", rows)
    assert concept.rows_of(path) == concept.rows_of(alone)
    with pytest.raises(UserError, match="line 39: ends after 19 rows and their swaps, expected 20 or more"):
        concept.rows_of(csv_of(path, "question,a,b,answer", rows[:19] + swaps[:19]))


@pytest.mark.parametrize("columns, rows, fault", [
    ("question,a,b,answer", [("Q?", "x", "y", "A"), ("Q?", "y", "x", "A")], "line 3: 'Q?' stands in line 2 too"),
    ("question,a,b,answer", [("Q?", "x", "y", "A"), ("Q?", "x", "y", "B")], "line 3: 'Q?' stands in line 2 too"),
    ("question,a,b,answer", [("Q?", "x", "x", "A")], "line 2: a and b are 'x', expected two options"),
    ("positive,negative", [SENTENCES[0], SENTENCES[1], SENTENCES[0][::-1]],
     "line 4: 'The young man 0 sat down.' stands in line 2 too"),
    ("positive,negative", [SENTENCES[0], ("The aged man 0 sat down.", SENTENCES[0][1])],
     "line 3: 'The young man 0 sat down.' stands in line 2 too"),
    ("positive,negative", [(SENTENCES[0][0],) * 2], "line 2: the sentences share no word"),
    ("x,y", [("hot", "cold"), ("cold", "hot"), ("hot", "cool")], "line 4: 'hot' stands in line 2 too")])
def test_a_content_stands_once(columns, rows, fault, tmp_path):
    with pytest.raises(UserError, match=re.escape(fault)):
        concept.rows_of(csv_of(tmp_path / "x.csv", columns, rows))


def test_mirrored_words_share_a_split():
    pairs = [[f"a{i}", f"b{i}"] for i in range(20)]
    relation = {"name": "r", "pairs": pairs + [pair[::-1] for pair in pairs]}
    parts = [{word for pair in suites.relation_split(relation, name) for word in pair} for name in suites.SPLITS]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 40


# --- cells --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data, fault", [
    (b"x,y\nUSA,Washington, D.C.\n", "line 2: 3 cells, expected 2; put text with commas in quotes"),
    (b"x,y\n\nUSA\n", "line 3: 1 cells, expected 2"), (b"x,y,\nUSA,Washington\n", "line 2: 2 cells, expected 3"),
    (b"x,y, x\na,b,c\n", "line 1: the column 'x' stands twice"),
    (b"x,y\na,b\0\n", "line 2: byte 0x00, expected text in UTF-8"), (b"x,y\na,b\nc,\xe4\n", "line 3: byte 0xe4"),
    ("x,y\na,b\n".encode("utf-16"), "line 1: byte 0xff"),
    (b'x,y\na,b\n"c,d\ne,f\n', "line 3: unexpected end of data"), (b'x,y\n"a"b,c\n', "line 2: ',' expected after")])
def test_no_cell_is_dropped(data, fault, tmp_path):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(UserError, match=re.escape(fault)) as error:
        concept.rows_of(tmp_path / "x.csv")
    assert str(error.value).startswith(f"{tmp_path / 'x.csv'}, line ") and str(error.value).isprintable()


@pytest.mark.parametrize("line, fault", [(b'{"x": "a", "y": "\xe4"}', "line 2: byte 0xe4"),
                                         (b'{"x": "a", "y": "b\\u0000"}', "line 2: y is 'b\\x00', expected text")])
def test_lines_of_json_hold_text(line, fault, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"x": "c", "y": "d"}\n' + line)
    with pytest.raises(UserError, match=re.escape(fault)):
        concept.rows_of(tmp_path / "x.jsonl")


def test_spaces_around_cells_mean_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(concept, "LEAST", dict.fromkeys(concept.LEAST, 2))
    text = '\ufeffx , y, note,,\r\n USA, "Washington, D.C.",,,\r\n\r\n"a\nb","c ""d""",e,,'
    (tmp_path / "x.csv").write_bytes(text.encode())
    kind, rows = concept.rows_of(tmp_path / "x.csv")
    assert kind == "relation" and sorted(rows) == [("USA", "Washington, D.C."), ("a\nb", 'c "d"')]


# --- names, and the command -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a" * 61, "élan", "-a", "a b", "a/b", ""])
def test_the_rule_of_names_is_said(name):
    with pytest.raises(UserError, match="a to z, A to Z or 0 to 9, then letters, digits, - or _, 60 in all at most"):
        concept.build(f"{name}: a | b | c")


@pytest.mark.parametrize("name", ["x-smoke", "x-quick", "x-bfloat16", "x-by-me", "smoke", "by-me", "a" * 60, "0_é"])
def test_a_name_is_taken_where_the_stages_take_it(name):
    try:
        stage.paths(argparse.Namespace(suite=f"card-{name}", profile="smoke", model="m", out="o"))
    except UserError:
        with pytest.raises(UserError, match="reads as the results of another"):
            concept.build(f"{name}: a | b | c")
    else:
        assert concept.build(f"{name}: a | b | c")[0] == name


def test_what_is_neither_instructions_nor_a_file():
    with pytest.raises(UserError, match="a .csv or .jsonl file .*; or instruction | instruction against$"):
        concept.build("formal: Be formal")


@pytest.mark.parametrize("text", [
    "formal: Be formal. | Be casual.", "formal: Say \"$5\", it's `touch bad` \\ #1! | $(touch bad) $$ ${HOME} \\"])
def test_the_command_says_what_was_asked(text, tmp_path):
    """make, behind bash, is told the concept that was given."""
    (tmp_path / "Makefile").write_text("export CONCEPT JUDGE\ncard:\n\t@printf '%s|%s' \"$$CONCEPT\" \"$$JUDGE\"\n")
    told = concept.build(text, judge="model:my $1 'judge'")[1]["suite.json"]["card"]
    line = ["bash", "-c", f"make --no-print-directory card {told}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{text}|model:my $1 'judge'" and [path.name for path in tmp_path.iterdir()] == ["Makefile"]


@pytest.mark.parametrize("at", sorted(ROOT.glob("report/cards/*/suite")), ids=lambda at: at.parent.name)
def test_the_suite_of_a_published_card_is_written_again(at, tmp_path):
    told = re.search('CONCEPT="(.*?)"', read_json(at / "suite.json")["card"])[1]
    again = concept.write(tmp_path / "suite", concept.build(told)[1])
    assert again.digest == suites.load(at).digest
