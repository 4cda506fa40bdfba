"""Front: README's first screen, from what the pages of the real and of the embedded models found.

reads   report/real/index.json, report/index.json (report/build.py), report/claims.json
writes  report/front.png: a claim of the papers per row, a model per column, real models first
        README.md: the block between its two marks: one sentence per paper, and every verdict by model

    python -m report.front
"""
import re
import textwrap
from collections import Counter

from lib import artifacts
from lib.artifacts import ROOT
from report import claims, declared, draw, figures
from report.build import with_block, write
from report.claims import LEFT_OUT, no_time
from report.draw import VERDICT, plt
from report.examples import harmless

PAGES = {"real models": "report/real", "instrument check": "report"}
MARKS = ("<!-- verdicts: written by make report -->", "<!-- end of verdicts -->")
PAPERS = {"P": "preferences", "R": "reliability", "A": "alignment", "B": "beyond the papers"}
LETTERS = "PRA"                                    # rows of the picture


def read(listed):
    """[(page, {model: {claim: outcome}}), ...] of the pages that there are, claims in the order of the list."""
    found = []
    for what, folder in PAGES.items():
        file = ROOT / folder / "index.json"
        if file.is_file():
            index = artifacts.read_json(file)
            found.append((what, {model: {claim["id"]: index["claims"][claim["id"]][model] for claim in listed}
                                 for model in index["models"]}))
    return found


# --- the picture --------------------------------------------------------------------------------------------
def picture(pages, listed, to):
    """Draws the claims of the papers, in the order of the list."""
    mine = {claim["id"]: claim for claim in listed if claim["id"][0] in LETTERS}
    columns = {model: told for _, models in pages for model, told in models.items()}

    def said(claim, model):
        cell = columns[model][claim]
        sign, value = VERDICT[cell["verdict"]][1], cell["value"]
        if value is None:
            return cell["verdict"], LEFT_OUT if no_time(cell) else sign
        return cell["verdict"], f"{sign} {draw.number(value, mine[claim]['digits'])}"

    figure, axis = plt.subplots(figsize=(4.6 + 0.95 * len(columns), 1.3 + 0.22 * len(mine)))
    figures.ledger(axis, [(name, claim["title"]) for name, claim in mine.items()], list(columns), said)
    labels = ["\n".join(textwrap.wrap(model, 14)) for model in columns]
    axis.set_xticklabels(labels, fontsize=7.5)
    top, start = -1.2 - 0.55 * max(1 + label.count("\n") for label in labels), 0
    for what, models in pages:
        axis.text(start + len(models) / 2, top, what, ha="center", weight="bold")
        if start:
            axis.axvline(start, color="#444444", linewidth=0.8)
        start += len(models)
    draw.save(figure, to, smoke=False)


# --- the words ----------------------------------------------------------------------------------------------
def ids(told, verdict, letter=""):
    """Claims with a verdict, or LEFT_OUT, which is kept apart: a run had no time for them, no gate was shut."""
    return [claim for claim, cell in told.items() if claim.startswith(letter)
            and (LEFT_OUT if no_time(cell) else cell["verdict"]) == verdict]


def sentence(letter, models, gates):
    """What a paper's claims came to on these models; why most of what could not be tested could not. gates: what each of
    them asks, in words."""
    *tested, last = claims.VERDICTS
    said, silent, out = [], [], []
    for model, told in models.items():
        parts = [f"{word} {claims.ranges(found)}" for word in tested if (found := ids(told, word, letter))]
        if parts:
            shut = len(ids(told, last, letter))
            said.append(f"{harmless(model)}: {', '.join(parts)}" + (f", {shut} {last}" if shut else ""))
        else:
            (silent if ids(told, last, letter) else out).append(model)
    why = Counter(re.split(f":| on (?={'|'.join(map(re.escape, models))})", told[claim]["reason"])[0]
                  for told in models.values() for claim in ids(told, last, letter))
    if silent:
        said.append(f"nothing could be tested on {', '.join(map(harmless, silent))}")
    if out:
        said.append(f"left out for time on {', '.join(map(harmless, out))}")
    reasons = " and ".join(f"\u201c{harmless(reason)}\u201d" + " does not hold" * (reason in gates)
                           for reason, _ in why.most_common(2))
    return (f"**{PAPERS[letter]}** ({letter}): {'; '.join(said)}."
            + (f" Not testable mostly because {reasons}." if why else ""))


def block(pages):
    """Markdown of README's block."""
    lines, gates = [], {gate["what"] for claim in declared.listed() for gate in claim.get("gates", ())}
    for what, models in pages:
        if what != "instrument check":
            lines += [f"- {sentence(letter, models, gates)}" for letter in PAPERS] + [""]
    words = [*claims.VERDICTS, f"{LEFT_OUT} for time"]
    lines += ["| | " + " | ".join(words) + " |", "|---" * (len(words) + 1) + "|"]
    for what, models in pages:
        beside = " (instrument check)" if what == "instrument check" else ""
        for model, told in models.items():
            cells = [ids(told, word) for word in (*claims.VERDICTS, LEFT_OUT)]
            told = [f"{len(some)}: {claims.ranges(some)}" if some else "none" for some in cells]
            lines.append(f"| {harmless(model)}{beside} | {' | '.join(told)} |")
    outcomes = [cell["verdict"] for told in pages[-1][1].values() for cell in told.values()]
    return "\n".join([*lines, "", f"`make all` ends with: `{claims.tally(outcomes)}`"])


def main():
    listed, readme = declared.listed(), ROOT / "README.md"
    pages = read(listed)
    picture(pages, listed, ROOT / "report" / "front.png")
    write(readme, with_block(readme, block(pages), MARKS))
    print(f"front   {readme.name}, report/front.png: {', '.join(model for _, models in pages for model in models)}")


if __name__ == "__main__":
    artifacts.run(main)
