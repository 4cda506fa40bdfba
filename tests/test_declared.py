"""Declared: a damaged claim, null run, published value or template is one line that names file and claim, status 2."""
import copy
import json
import sys

import pytest

from lib import artifacts
from lib.artifacts import ROOT, UserError
from report import build, claims, declared, draw, trace
from tests import planted

CLAIMS = json.loads((ROOT / "report/claims.json").read_text())
PUBLISHED = json.loads((ROOT / "data/published.json").read_text())
COUNT = {"n": 3, "undecided": 3, "rate": [0, 0, 0.5]}
NULL = {"profile": [], "claims": {"P1": {"chains": {"random": dict(COUNT)}, "what": "ten more", "false": dict(COUNT),
                                         "planted": dict(COUNT)}}}
GONE = object()
DEEP = [[]]
for _ in range(950):
    DEEP = [DEEP]


def changed(value, *keys, to=GONE):
    """A copy with another value at `keys`, or without it."""
    new = copy.deepcopy(value)
    at = new
    for key in keys[:-1]:
        at = at[key]
    if to is GONE:
        del at[keys[-1]]
    else:
        at[keys[-1]] = to
    return new


def line_of(tmp_path, name, text, read):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    line = artifacts.shown(error.value)
    assert name in line and len(line) < 500
    return line


def test_what_is_committed_passes(tmp_path):
    assert [claim["id"] for claim in declared.listed()] == [claim["id"] for claim in CLAIMS]
    assert declared.published() == PUBLISHED and draw.published("composition") == PUBLISHED["composition"]
    (tmp_path / "null.json").write_text(json.dumps(NULL))
    assert declared.measured(tmp_path / "null.json") == NULL["claims"] and declared.measured(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text, word", [
    (b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "cannot be read"), (b"[" * 100000, "nested too deeply"), (b"[[]]", "list|object"),
    (b"null", "expected"), (b"5", "expected"), (b"[NaN]", "finite"), (b'[{"id": "P1", "id": "P2"}]', "twice"), (b"[]", ""), (b"{}", "")])
@pytest.mark.parametrize("name", ["claims.json", "null.json", "published.json"])
def test_files_that_are_no_such_thing(tmp_path, name, text, word):
    read = {"claims.json": declared.listed, "null.json": declared.measured, "published.json": declared.published}[name]
    assert any(part in line_of(tmp_path, name, text, read) for part in word.split("|"))


@pytest.mark.parametrize("keys, to, word", [
    (("id",), GONE, r"claims.json[1]: no key 'id'"), (("id",), 7, "claims.json[1], id: is 7, expected text"),
    (("id",), "P1", "two have the id 'P1'"), (("id",), "P 2", "P 2: the id is no word"), (("id",), "", "expected text on one line"),
    (("title",), GONE, "P2: no key 'title'"), (("title",), ["x"], "P2, title: is [\"x\"], expected text"),
    (("title",), "a\nb", "P2, title: is 'a\\nb', expected text on one line"), (("title",), "a\x1b[31m", "expected text on one line"),
    (("title",), {}, "P2, title: is {}, expected text"), (("titel",), "x", "P2: unknown key 'titel'"),
    (("gate",), [], "P2: unknown key 'gate'"), (("paper",), "nature", "P2, paper: is 'nature', expected one of preferences"),
    (("stage",), "06_more", "P2, stage: is '06_more', expected one of 01_extract"), (("stage",), DEEP, "nested too deeply"),
    (("key",), "traits..gap", "P2: key 'traits..gap', expected names"), (("key",), "a|b", "P2: key 'a|b'"),
    (("rule",), [], "P2, rule: is [], expected an object"), (("rule", "side"), "over", "P2, rule, side: is 'over', expected one of above, below"),
    (("rule", "side"), None, "P2, rule, side: is 'None', expected one of"), (("rule", "threshold"), "0", "P2, rule, threshold: is \"0\", expected a number"),
    (("rule", "threshold"), True, "P2, rule, threshold"), (("rule", "threshold"), 1e308, "a number of 1e+09 at most"),
    (("rule", "why"), GONE, "P2, rule: no key 'why'"), (("reads", "undecided"), GONE, "P2, reads: no key 'undecided'"),
    (("reads", "untested"), "x", "P2, reads: unknown key 'untested'"), (("gates",), {}, "P2, gates: is {}, expected a list"),
    (("gates", 0), "x", "P2, gates[0]: is \"x\", expected an object"), (("gates", 0, "side"), GONE, "P2, gates[0]: no key 'side'"),
    (("gates", 0, "treshold"), 1, "P2, gates[0]: unknown key 'treshold'"), (("gates", 0, "stage"), "05_across", "P2, gates[0], stage: is '05_across'"),
    (("gates", 0, "key"), "a.*", "P2: key 'a.*'"), (("null",), ["chance"], "P2, null[0]: is 'chance', expected one of untrained"),
    (("needs",), "luck", "P2, needs: is 'luck', expected one of steerable"), (("digits",), 2.5, "P2, digits: is '2.5'"),
    (("digits",), -1, "P2, digits"), (("digits",), True, "P2, digits"), (("command",), "make tea", "P2, command: is 'make tea'"),
    (("changed", "seen"), "yes", "P2, changed, seen: is \"yes\", expected true or false"), (("changed", "was"), "x", "P2, changed: unknown key")])
def test_claims(tmp_path, keys, to, word):
    assert word in line_of(tmp_path, "claims.json", changed(CLAIMS, 1, *keys, to=to), declared.listed)


@pytest.mark.parametrize("keys, to, word", [
    (("claims", "P1"), [], "P1: is [], expected an object"), (("claims", "P1", "chains"), GONE, "P1: no key 'chains'"),
    (("claims", "P1", "chains", "random"), 3, "P1, chains, random: is 3"), (("claims", "P1", "false", "maybe"), 3, "P1, false: unknown key 'maybe'"),
    (("claims", "P1", "false", "n"), "3", "P1, false, n: is \"3\", expected a number"), (("claims", "P1", "false", "rate"), [0, 1], "P1: a rate is"),
    (("claims", "P1", "planted", "rate"), [0, "x", 1], "P1, planted, rate[1]"), (("claims", "P1", "what"), GONE, "P1: no key 'what'"),
    (("claims", "P1", "what"), "a\nb", "P1, what: is 'a\\nb'"), (("claims", "P1", "x"), 1, "P1: unknown key 'x'"),
    (("claims", "P1", "chains"), DEEP, "nested too deeply"), (("claims",), [], "claims: is [], expected an object")])
def test_null_runs(tmp_path, keys, to, word):
    assert word in line_of(tmp_path, "null.json", changed(NULL, *keys, to=to), declared.measured)


@pytest.mark.parametrize("keys, to, word", [
    (("reliability",), GONE, "no key 'reliability'"), (("reliability",), [], "reliability: is [], expected an object"),
    (("relyability",), {}, "unknown key 'relyability'"), (("reliability", "steerability", "gemma-2-2b-it"), [1], "gemma-2-2b-it: is [1], expected an object"),
    (("reliability", "steerability", "gemma-2-2b-it", "openness"), "1", "openness: is \"1\", expected a number"),
    (("reliability", "per_input", "Llama-2-7b-chat", "openness", "letter"), GONE, "openness: no key 'letter'"),
    (("composition", "rows"), {}, "rows: is {}, expected a list"), (("composition", "rows", 3, "alpha"), GONE, "rows[3]: expected layer and alpha"),
    (("composition", "rows", 3, "layer"), [], "rows[3], layer: is [], expected a number"),
    (("composition", "rows", 0, "drop_sem"), -1, "rows[0]: expected"), (("composition", "rows", 0, "drop"), 1e308, "rows[0], drop: is 1e+308"),
    (("models", "largest"), None, "largest: is null, expected a number"), (("models",), DEEP, "nested too deeply")])
def test_published_values(tmp_path, keys, to, word):
    assert word in line_of(tmp_path, "published.json", changed(PUBLISHED, *keys, to=to), declared.published)


def test_no_depth_of_nesting_gives_a_traceback(tmp_path):
    for depth in range(960, 1001, 4):
        text = b'[{"id": ' + b"[" * depth + b"]" * depth + b"}]"
        assert "nested too deeply" in line_of(tmp_path, "claims.json", text, declared.listed)


# --- the whole command -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("declared")
    planted.plant(out, ["one", "two"])
    return out


@pytest.fixture
def said(results, tmp_path, monkeypatch, capsys):
    """The line on stderr of a report that ends with status 2, made with another file in place of one of the project's."""
    monkeypatch.setattr(build.draw, "save", lambda figure, path, smoke: path.write_bytes(b""))
    monkeypatch.setattr(build.figures, "ALL", [figure._replace(draw=lambda rows, names: None) for figure in build.figures.ALL])
    monkeypatch.setattr(build.figures, "VERDICTS", next(f for f in build.figures.ALL if f.name == build.figures.VERDICTS.name))
    monkeypatch.setattr(build, "trail", lambda figure, number, rows, seen: {})
    monkeypatch.setattr(build.latex, "ENGINES", ())

    def call(function, text):
        path = tmp_path / "other"
        path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
        if function is declared.text:
            monkeypatch.setattr(declared, "text", lambda _: function(path))
        else:
            monkeypatch.setattr(function, "__defaults__", (path,))
        flags = ["--model", "one", "--model", "two", "--suite", "planted", "--out", str(results), "--to", str(tmp_path / "page")]
        monkeypatch.setattr(sys, "argv", ["build", *flags])
        with pytest.raises(SystemExit) as ended:
            artifacts.run(build.main)
        line = capsys.readouterr().err
        assert ended.value.code == 2 and line.count("\n") == 1 and line.startswith("error: ")
        assert not (tmp_path / "page").exists()                            # a page that fails leaves nothing
        return line
    return call


@pytest.mark.parametrize("keys, to, word", [
    (("gates", 0, "sid"), "above", "P2, gates[0]: unknown key 'sid'"), (("key",), "traits.gap.nothing", "P2: .*no key 'traits.gap.nothing'"),
    (("key",), "n", "P2: n: is 7, expected an object"), (("key",), "traits", "P2: traits: no key 'value'"),
    (("key",), "traits.*", "P2: traits, "), (("gates", 0, "key"), "words", "P2: words: is \"w\", expected"),
    (("gates", 0, "key"), "config.suite", "P2: config.suite: is \"planted\"")])
def test_a_report_of_a_claim_that_fits_no_manifest(results, said, keys, to, word):
    for model in ("one", "two"):
        late = artifacts.load(results / model / "planted/03_transfer")
        artifacts.save(late.path, stage="03_transfer", config=late.config, inputs=late.manifest["inputs"],
                       tables={name: late.table(name) for name in late.manifest["outputs"]}, results={**late.results, "n": 7, "words": "w"})
    line = said(declared.listed, changed(CLAIMS, 1, *keys, to=to))
    assert all(part in line for part in word.split(".*"))


@pytest.mark.parametrize("function, text, word", [
    (declared.published, changed(PUBLISHED, "composition"), "no key 'composition'"),
    (declared.measured, changed(NULL, "claims", "P1", "chains"), "P1: no key 'chains'"),
    (declared.text, b"\xff", "cannot be read"), (declared.text, b"{{one:03_transfer:traits|est}}", "traits|est}}: no key 'value'"),
    (declared.text, b"{{one:03_transfer:traits.gain|9999999999d}}", "has no known format"),
    (declared.text, b"{{one:03_transfer:config.suite|d}}", "config.suite|d}}"), (declared.text, b"{{published:models|d}}", "{{published:models|d}}"),
    (declared.text, b"{{published:models.largest|len}}", "models.largest|len}}: is 14, expected a list"),
    (declared.text, b"{{rows:03_transfer:traits.transfer_gap|x}}", "has no known format"), (declared.text, b"{{rows:06_x:a|1}}", "no stage '06_x'"),
    (declared.text, b"{{rows:03_transfer:traits|1}}", "template.md: traits: no key 'value'"), (declared.text, b"{{rows:a}}", "is no known token"),
    (declared.text, b"{{one:03_transfer}}", "is no known token"), (declared.text, b"{{a", "not closed")])
def test_a_report_of_other_files(said, function, text, word):
    assert word in said(function, text)


def test_a_trace_of_damaged_claims(tmp_path, monkeypatch):
    (tmp_path / "claims.json").write_text(json.dumps(changed(CLAIMS, 1, "rule")))
    monkeypatch.setattr(declared.listed, "__defaults__", (tmp_path / "claims.json",))
    with pytest.raises(UserError, match="claims.json, P2: no key 'rule'"):
        trace.trace("P1", ROOT / "report")
    assert claims.listed is declared.listed
