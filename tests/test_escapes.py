"""Escapes: what others wrote, in a manifest or as a model's name, is text on the page and nothing else."""
import csv
import io
import json
import re
import sys

import pytest

from lib import artifacts
from lib.artifacts import ROOT
from report import build, claims, examples, front, latex
from tests import planted

NASTY = "<script>alert(1)</script>|{{verdicts}} `x` [y](http://z) **b** _i_ \\ $a$\n# head\r\n| c |\n\n<!-- \x1b[31m\u202e\x00"
NAME = "<b>a|b<i>{{x}}*_`[c](d) $\\q"                      # what a folder can be called
ALLOWED = re.compile(r"<br>|<!-- (rules|verdicts|end of \w+)")
HTML = re.compile(r"(?<!\\)<")


def nasty(value):
    """JSON of a stage where traits and behaviours have other names, and parts of the claim P5 too."""
    if isinstance(value, dict):
        return {nasty(name) if name in planted.TRAITS else name: nasty(part) for name, part in value.items()}
    if isinstance(value, list):
        return [nasty(part) for part in value]
    return f"{value} {NASTY}" if value in planted.TRAITS + planted.BEHAVIOURS else value


def nasty_stages(rng, real=planted.stages):
    for stage, (tables, results) in real(rng).items():
        results = dict(results)
        if "per_vector" in results:
            results["per_vector"] = {"expression": {f"{name} {NASTY}": e for name, e in results["per_vector"]["expression"].items()}}
        if "values" in results.get("not_testable", {}):
            results["not_testable"] = {"values": NASTY}
        yield stage, (nasty(tables), results)


def outside_code(text):
    return re.sub(r"(?<!\\)`[^`\n]*`", "`code`", text)


def cells(line):
    return re.split(r"(?<!\\)(?:\\\\)*\|", outside_code(line).strip())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(folder, text) of a report of two models that bear such names and manifests full of such texts."""
    folder = tmp_path_factory.mktemp("escapes")
    names = [NAME, "plain"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.draw, "save", lambda figure, path, smoke: path.write_bytes(b""))
        patch.setattr(build.figures, "ALL", [f._replace(draw=lambda rows, names: None) for f in build.figures.ALL])
        patch.setattr(build.figures, "VERDICTS", next(f for f in build.figures.ALL if f.name == build.figures.VERDICTS.name))
        patch.setattr(build, "trail", lambda figure, number, rows, seen: {})
        patch.setattr(build.latex, "ENGINES", ())
        patch.setattr(planted, "stages", lambda rng: dict(nasty_stages(rng)))
        est = planted.est
        patch.setattr(planted, "est", lambda *args, **named: est(*args, **named) | {"unit": NASTY, "method": NASTY})
        planted.plant(folder, names)
        patch.setattr(sys, "argv", ["build", *(word for name in names for word in ("--model", name)), "--suite", "planted", "--out",
                                    str(folder), "--to", str(folder / "page")])
        build.main()
    return folder / "page", (folder / "page/report.md").read_text()


def test_a_page_of_such_texts_shows_them(page):
    folder, text = page
    assert all(c.isprintable() or c == "\n" for c in text) and "U+001B" in text and "U+202E" in text
    assert "\\<script>" in text and "alert(1)" in text and "\\{\\{verdicts" in text
    for line in text.split("\n"):
        assert not HTML.search(ALLOWED.sub("", outside_code(line))), line[:300]
        assert not line.startswith("# head") and "{{" not in line and not re.search(r"(?<!\\)\]\(http://z", line)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, *rows = table.strip().split("\n")
        assert {len(cells(row)) for row in rows} == {len(cells(head))}, table[:500]
    case = (folder / "cases" / f"{NAME}.md").read_text()
    assert case.startswith("# Single cases: \\<b") and not [line for line in case.split("\n") if HTML.search(ALLOWED.sub("", outside_code(line)))]


def test_its_data_and_its_tex_too(page):
    folder, _ = page
    for path in (folder / "figures").glob("*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len({len(row) for row in rows}) == 1 and all(cell.isprintable() for row in rows for cell in row), path
    tex = (folder / "report.tex").read_text()
    body = tex.split(r"\begin{document}")[1]
    assert all(c.isprintable() or c == "\n" for c in tex) and r"\textless{}script" in body and r"\$a\$" in body
    assert "http://z}" not in body and not re.search(r"(?<!\\)\$a", body)
    for table in re.findall(r"\\begin\{longtable\}.*?\\end\{longtable\}", body, re.S):
        lines = [line for line in table.split("\n") if line.endswith(r" \\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    depth = len(re.findall(r"(?<!\\)\{", body)) - len(re.findall(r"(?<!\\)\}", body))
    assert depth == 0


@pytest.mark.parametrize("text, shown", [
    ("a|b", r"a\|b"), ("<i>x</i>", r"\<i>x\</i>"), ("{{x}}", r"\{\{x\}\}"), ("a\n\n# b\t c", r"a # b c".replace("# ", r"\# ")),
    ("\x1b[31mred", "[U+001B\\][31mred"), ("a_b.c_d", "a_b.c_d"), ("_a_ *b*", r"\_a\_ \*b\*"), ("0.1 [0, 1], n", "0.1 [0, 1], n"),
    ("[a](b)", r"[a\](b)"), ("`c`", r"\`c\`"), ("a\\|b", r"a\\\|b"), ("SYS->USER", "SYS->USER"), (7, "7")])
def test_harmless(text, shown):
    assert examples.harmless(text) == shown


def test_the_cells_of_claims_alone():
    """Reasons, parts, units and methods, one at a time, in each of the tables."""
    claim = json.loads((ROOT / "report/claims.json").read_text())[0]
    estimate = {"value": 1.0, "low": 0.5, "high": 2.0, "n": 3, "unit": NASTY, "method": NASTY}
    shown = {"untested": claims.untested(NASTY, "", "k"), "one": claims.untested("", "d" * 64, "k") | {
        "verdict": "reproduced", "estimate": estimate, "part": NASTY, "parts": {NASTY: estimate, NASTY + "2": estimate}}}
    for cell in shown.values():
        told = {(claim["id"], NAME): cell}
        for text in (claims.verdict_table([claim], [NAME], told, {}, "."), claims.claim_list([claim], [NAME], told, {}),
                     front.block([("real models", {NAME: {claim["id"]: cell}})])):
            for line in text.split("\n"):
                assert not HTML.search(ALLOWED.sub("", outside_code(line))) and line.isprintable()
            assert len({len(cells(line)) for line in text.split("\n") if line.startswith("| ")}) <= 1
    power = {"chains": {"random": {"n": 3, "rate": [0, 0, 1]}}, "what": NASTY, "planted": {"n": 3, "rate": [0, 0, 1]}}
    assert claims.null_rate(claim, {claim["id"]: power}).count("<") == len(re.findall(r"<br>|\\<", claims.null_rate(claim, {claim["id"]: power})))
    told = claims.changed_table([claim | {"changed": {"from": "|a|", "to": "b", "why": "c", "seen": True}}]).split("\n")
    assert len(cells(told[-1])) == len(cells(told[0]))


def test_a_link_keeps_its_target_and_its_label(tmp_path):
    folder = tmp_path / "a|b (c) [d]"
    made = artifacts.save(folder / "01_extract", stage="01_extract", config={}, inputs={}, results={"a": {"x](y": 1}})
    text = claims.link(made, "a.x](y", tmp_path)
    assert text == "[a.x\\](y](a%7Cb%20%28c%29%20%5Bd%5D/01_extract/manifest.json#L8)"
    assert latex.inline("[a\\](http://evil) b](x.json)") == "a](http://evil) b"


def test_a_name_that_is_a_broken_formula(tmp_path):
    figure, axis = build.draw.plt.subplots()
    axis.set_title("$\\q$")
    with pytest.raises(artifacts.UserError, match="cannot be drawn"):
        build.draw.save(figure, tmp_path / "a.png", False)
