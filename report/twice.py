"""Twice: one model on the same samples, with its weights in another precision: which verdicts would change?

    python -m report.twice --model gemma-3-270m-q4_k_m --suite papers --profile quick --judge rules --frozen --to FILE

reads   every stage of the run in bfloat16 and of the one in float32, of the same sizes; hashes and links checked
prints  how many verdicts are the same, and how many estimates of one run lie in the intervals of the other
writes  FILE, in Markdown: that, and each claim that either run can test
"""
import copy
from pathlib import Path

from lib import artifacts, identity, sizes, stage
from lib.artifacts import UserError
from report import build, compare, declared
from report.claims import decide, own, show
from report.examples import harmless

RUNS = stage.DTYPES[::-1]


def runs(args):
    """{(precision, stage): Artifact} of both runs. UserError where one is missing, damaged or of other samples."""
    found = {}
    for dtype in RUNS:
        mine = copy.copy(args)
        mine.dtype = dtype
        (name,), loaded = build.load(mine)
        found |= {(dtype, key[1]): loaded[key] for key in list(loaded)}
    levels = [sizes.parse(sizes.told(found[dtype, "01_extract"].config["levels"])) for dtype in RUNS]
    if levels[0] != levels[1]:
        raise UserError(f"{name}: the two runs have other sizes, {' and '.join(map(sizes.told, levels))}")
    return found


def inside(found, stages):
    """(n, k): of n estimates that both runs have, k of the first lie in the interval of the second and the other way."""
    n = k = 0
    for name in stages:
        one, two = (compare.estimates(found[dtype, name].results) for dtype in RUNS)
        for key in one.keys() & two.keys():
            n += 1
            k += all(a["low"] <= b["value"] <= a["high"] for a, b in ((one[key], two[key]), (two[key], one[key])))
    return n, k


def changed(found):
    """Lines of the page: what else lies between the runs, settings and sources; two runs of one commit have neither."""
    settings, moved = [], set()
    for name in declared.STAGES:
        one, two = (found[dtype, name] for dtype in RUNS)
        settings += [f"{key} of {name[:2]}" for key in sorted(one.config.keys() | two.config.keys())
                     if key not in ("model", "levels") and one.config.get(key) != two.config.get(key)]
        moved |= {text.split()[0] for text in identity.moved(one.run["sources"], two.run["sources"])}
    return [f"Between them changed, of the settings: {', '.join(settings) or 'none'}; of the sources: "
            f"{', '.join(sorted(moved)) or 'none'}.", ""] if settings or moved else []


def page(name, claims, found):
    """Markdown on both runs: what is the same, and a row per claim that either can test."""
    cells = {(claim["id"], dtype): decide(claim, dtype, found) for claim in claims for dtype in RUNS}
    known = [claim for claim in claims if any(cells[claim["id"], dtype]["estimate"] for dtype in RUNS)]
    same = sum(cells[claim["id"], RUNS[0]]["verdict"] == cells[claim["id"], RUNS[1]]["verdict"] for claim in claims)
    n, k = inside(found, declared.STAGES)

    def said(claim, dtype):
        cell = cells[claim["id"], dtype]
        return f"{cell['verdict']}, " + (show(cell["estimate"], claim["digits"]) if cell["estimate"] else harmless(cell["reason"]))
    rows = ["| | claim | " + " | ".join(RUNS) + " |", "|---|---|---|---|",
            *(f"| {claim['id']} | {own(claim['title'])} | {said(claim, RUNS[0])} | {said(claim, RUNS[1])} |" for claim in known)]
    return "\n".join([
        f"# {harmless(name)} twice", "",
        f"The same samples, seeds and vectors, the weights of stages 02 to 05 in {RUNS[0]} and in {RUNS[1]}: layers, "
        "strengths, texts and answers are found again from there.", "", *changed(found),
        f"{same} of {len(claims)} verdicts are the same. Of {n} estimates with an interval that both runs have, {k} lie in "
        "each other's.", "",
        *(rows if known else ["Neither can test any claim."]), ""])


def main():
    parser = stage.cli(__doc__)
    parser.add_argument("--frozen", action="store_true", help=f"read {stage.COMMITTED} instead of --out")
    parser.add_argument("--to", required=True, type=Path, help="the Markdown file that is written")
    args = parser.parse_args()
    args.model, args.out = [args.model], stage.COMMITTED if args.frozen else args.out
    text = page(stage.model_name(args.model[0]), declared.listed(), runs(args))
    with artifacts.writing(args.to) as beside:
        beside.write_text(text, encoding="utf-8")
    print(next(line for line in text.splitlines() if "verdicts are the same" in line))


if __name__ == "__main__":
    artifacts.run(main)
