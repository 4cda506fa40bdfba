"""Report - verdicts, tables and figures, read from manifests; computes no science.

Every number on the page is a key of a stage's results, and every figure draws rows of a stage's tables.
Three things stop the build: a key no manifest knows, a stage made from another upstream than the one beside
it, a stage of another suite.

    verdict(estimate, rule)     interval beyond the threshold           reproduced
                                point beyond, interval across it        partly
                                point not beyond                        not reproduced
                                no estimate, with the reason            not testable here

Tokens of the template:
    {{model:stage:dotted.key|format}}     one value, Python format; model `*` lists all models, `+` is the
                                          model set; format `est` prints value, interval and n
    {{rows:stage:key, key, ...|digits}}   a table: one line per estimate, one column per model
    {{verdicts}} {{claims}} {{provenance}} {{figure:name}} {{models}} {{suite}}

reads   outputs/<model>/<suite>/<stage>/, outputs/<model>+<model>/<suite>/05_across/ (two models or more),
        report/claims.json, report/template.md
writes  <to>/report.md, <to>/figures/<name>.png, <to>/figures/<name>.csv
cost    seconds; no model is loaded

    python report/build.py --model data/models/pico-llama --model data/models/pico-gpt2
"""

import csv
import io
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "report")]

import draw  # noqa: E402
import figures  # noqa: E402
from lib import artifacts, reliability, suite  # noqa: E402
from lib.artifacts import UserError  # noqa: E402

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
ACROSS = "05_across"
VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
PAPERS = {
    "preferences": "arXiv 2607.01802",
    "reliability": "arXiv 2407.12404",
    "alignment": "arXiv 2505.01162",
    "beyond": "beyond the papers",
}


def verdict(estimate, rule):
    """One of VERDICTS for an estimate {"value", "low", "high", ...} or None under {"side", "threshold"}.

    Touching the threshold is not beyond it. UserError for a rule without a known side, or for a value with
    no interval."""
    if rule.get("side") not in ("above", "below"):
        raise UserError(f"report/claims.json: side {rule.get('side')!r} is neither above nor below")
    if estimate is None:
        return "not testable here"
    if any(estimate.get(key) is None for key in ("value", "low", "high")):
        raise UserError(f"an estimate without value, low and high decides nothing: {estimate}")
    sign = 1 if rule["side"] == "above" else -1
    value, *ends = (sign * (estimate[key] - rule["threshold"]) for key in ("value", "low", "high"))
    if min(ends) > 0:
        return "reproduced"
    return "partly" if value > 0 else "not reproduced"


def weakest(estimates, rule):
    """Of several estimates that must all be beyond the threshold, the one that decides: worst verdict, then
    least far.

    Returns (name, estimate) from {name: estimate}."""
    sign = 1 if rule["side"] == "above" else -1
    return max(estimates.items(), key=lambda item: (VERDICTS.index(verdict(item[1], rule)), -sign * item[1]["value"]))


def lookup(artifact, key):
    """Value at a dotted key of an artifact's results, or {"reason": text} where the stage says it has none.

    A stage explains an absent key, or a group of keys, in results["not_testable"] = {dotted key: reason}.
    UserError for a key the stage neither has nor explains, and for a null."""
    for absent, reason in artifact.results.get("not_testable", {}).items():
        if key == absent or key.startswith(absent + "."):
            return {"reason": reason}
    value = artifact.results
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{artifact.path / 'manifest.json'}: results have no key {key!r} (stopped at {part!r})")
        value = value[part]
    if value is None:
        raise UserError(f"{artifact.path / 'manifest.json'}: results.{key} is null and no reason is given")
    return value


def load(args):
    """Every stage of every model, checked: {(model name, stage): Artifact}, with the model set under "+".

    UserError if a stage is missing, was edited, was made from another upstream, or from another suite or
    profile."""
    names = [artifacts.model_name(model) for model in args.model]
    if len(set(names)) < len(names):
        raise UserError(f"--model: {names} name the same output folder twice")
    found, suites = {}, {}
    for name, model in zip(names, args.model):
        folder = artifacts.stage_paths(args, model)
        for stage in STAGES:
            found[name, stage] = artifacts.load(folder / stage, stage)
    if len(names) > 1:
        across = found["+", ACROSS] = artifacts.load(artifacts.stage_paths(args, "+".join(names)) / ACROSS, ACROSS)
        for name in names:
            _same(across, f"{name}/05_reliability", found[name, "05_reliability"].digest)
    for (name, stage), artifact in found.items():
        for label, digest in artifact.manifest["inputs"].items():
            if (name, label) in found:
                _same(artifact, label, found[name, label].digest)
        if artifact.config.get("profile") != args.profile:
            raise UserError(f"{artifact.path}: profile {artifact.config.get('profile')!r}, expected {args.profile!r}")
        if "suite" not in artifact.manifest["inputs"]:
            raise UserError(f"{artifact.path}: its manifest names no suite among the inputs")
        suites.setdefault(artifact.manifest["inputs"]["suite"], []).append(str(artifact.path))
    if len(suites) > 1:
        odd = min(suites.values(), key=len)[0]
        raise UserError(f"{odd}: made from another suite than the other stages; delete it and run its stage again")
    folder = next(
        (f for f in (Path(args.suite), ROOT / "data/suites" / args.suite) if (f / "suite.json").is_file()), None
    )
    if folder and suite.load(args.suite).digest not in suites:
        raise UserError(
            f"{found[names[0], STAGES[0]].path}: made from another suite than {folder}; run the stages again"
        )
    return names, found


def _same(artifact, label, digest):
    if artifact.manifest["inputs"].get(label) != digest:
        raise UserError(
            f"{artifact.path}: stale, made from another {label} than the one there is; "
            f"delete it and run {artifact.manifest['stage']} again"
        )


def untested(reason, digest):
    """The cell of a claim that has no number here."""
    return {"verdict": VERDICTS[3], "estimate": None, "part": "", "reason": reason, "digest": digest}


def decide(claim, name, found):
    """One cell of the verdict table: {"verdict", "estimate" or None, "part" (of an `every` claim), "reason",
    "digest"}."""
    if claim["stage"] == ACROSS and ("+", ACROSS) not in found:
        return untested("needs two models", "")
    artifact = found["+" if claim["stage"] == ACROSS else name, claim["stage"]]
    if claim.get("needs") == "steerable" and not reliability.steers(found[name, "05_reliability"].results):
        # A vector that moves nothing has a letter bias and correlations too; they would say nothing about steering.
        return untested("no more behaviours steer than luck explains", artifact.digest)
    every = claim["key"].endswith(".*")
    value = lookup(artifact, claim["key"].removesuffix(".*"))
    part = ""
    if "reason" not in value and every:
        part, value = weakest(value, claim["rule"])
    if "reason" in value:
        return untested(value["reason"], artifact.digest)
    return {
        "verdict": verdict(value, claim["rule"]),
        "estimate": value,
        "part": part,
        "reason": "",
        "digest": artifact.digest,
    }


def show(estimate, digits=2):
    """`1.52 [1.20, 1.81]` from an estimate; a minus sign proper, and no negative zero."""
    if "reason" in estimate:
        return estimate["reason"]
    value, low, high = (draw.number(estimate[key], digits) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def verdict_table(claims, names, cells):
    """Markdown table, one row per claim and one column per model."""
    lines = ["| | claim | published | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names)]
    for claim in claims:
        row = []
        for name in names:
            cell = cells[claim["id"], name]
            number = show(cell["estimate"], claim["digits"]) if cell["estimate"] else cell["reason"]
            row.append(f"**{cell['verdict']}**<br>{number}" + (f" ({cell['part']})" if cell["part"] else ""))
        texts = [text.replace("|", "\\|") for text in (claim["id"], claim["title"], claim["published"], *row)]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def claim_list(claims, names, cells):
    """One paragraph per claim: statement, source, rule, where each number stands and how it was made."""
    blocks = []
    for claim in claims:
        rule = claim["rule"]
        lines = [
            f"**{claim['id']}. {claim['title']}.** {claim['statement']}",
            f"*Published*: {claim['published']} ({claim['source']}).",
            f"*Rule*: {claim['unit']} {rule['side']} {rule['threshold']}; {rule['why']}"
            + ("; only where more behaviours steer than luck explains." if "needs" in claim else "."),
            f"*Key*: `{claim['stage']}` `{claim['key']}`, from `{claim['command']}`.",
        ]
        for name in names:
            cell = cells[claim["id"], name]
            estimate = cell["estimate"]
            if estimate is None:
                lines.append(f"*{name}*: {cell['verdict']}: {cell['reason']}.")
            else:
                lines.append(
                    f"*{name}*: {cell['verdict']}, {show(estimate, claim['digits'])}, "
                    f"n = {estimate['n']}, {estimate['method']}, resampled: {estimate['unit']}; "
                    f"digest {cell['digest'][:12]}."
                )
        blocks.append("  \n".join(lines))
    return "\n\n".join(blocks)


def rows_table(keys, stage, digits, names, found):
    """Markdown table of estimates, one line per key (`key = label` renames it), one column per model."""
    columns = ["+"] if stage == ACROSS else names
    if stage == ACROSS and ("+", ACROSS) not in found:
        return "*Needs two models.*"
    heads = ["model set"] if stage == ACROSS else names
    lines = ["| | " + " | ".join(heads) + " | n | resampled |", "|---|" + "---|" * (len(columns) + 2)]
    for entry in keys:
        key, _, label = (part.strip() for part in entry.partition("="))
        values = [lookup(found[column, stage], key) for column in columns]
        plain = [v for v in values if "reason" not in v]
        n = " / ".join(dict.fromkeys(str(v["n"]) for v in plain if "n" in v))
        lines.append(
            f"| {label or '`' + key + '`'} | "
            + " | ".join(show(v, digits) for v in values)
            + f" | {n} | {plain[0].get('unit', '') if plain else ''} |"
        )
    return "\n".join(lines)


def provenance(names, found):
    """Markdown table: every stage that was read, with its digest."""
    lines = ["| model | stage | digest |", "|---|---|---|"]
    lines += [
        f"| {'model set' if name == '+' else name} | {stage} | `{artifact.digest}` |"
        for (name, stage), artifact in found.items()
    ]
    return "\n".join(lines)


def fill(template, names, found, blocks):
    """The template with every token resolved. UserError names the token that does not resolve."""

    def resolve(match):
        token = match.group(1).strip()
        if token in blocks:
            return blocks[token]
        body, _, form = token.partition("|")
        parts = [part.strip() for part in body.split(":", 2)]
        if len(parts) != 3 or (parts[0] != "rows" and not form):
            raise UserError(f"report/template.md: {{{{{token}}}}} is no known token")
        if parts[0] == "rows":
            return rows_table(parts[2].split(","), parts[1], int(form or 2), names, found)
        wanted = names if parts[0] == "*" else [parts[0]]
        texts = []
        for name in wanted:
            if (name, parts[1]) not in found:
                raise UserError(f"report/template.md: {{{{{token}}}}}: no {parts[1]} of {name!r} was loaded")
            value = lookup(found[name, parts[1]], parts[2])
            texts.append((f"{name} " if parts[0] == "*" else "") + _format(value, form.strip(), token))
        return ", ".join(texts)

    text = re.sub(r"\{\{(.*?)\}\}", resolve, template)
    if "{{" in text or "}}" in text:
        raise UserError("report/template.md: a token is not closed")
    return text


def _format(value, form, token):
    if isinstance(value, dict) and "reason" in value:
        return value["reason"]
    if form.startswith("est"):
        return f"{show(value, int(form[3:] or 2))}, n = {value['n']}"
    try:
        return format(value, form).replace("-", "\u2212") if isinstance(value, (int, float)) else format(value, form)
    except (ValueError, TypeError) as error:
        raise UserError(f"report/template.md: {{{{{token}}}}}: {error}") from None


def main():
    parser = artifacts.cli(__doc__, many=True)
    parser.add_argument("--to", default=str(ROOT / "report"), help="folder for report.md and figures/")
    args = parser.parse_args()

    # 1. artifacts, every hash and every link of the chain checked
    names, found = load(args)
    claims = artifacts.read_json(ROOT / "report" / "claims.json")

    # 2. verdicts
    cells = {(claim["id"], name): decide(claim, name, found) for claim in claims for name in names}

    # 3. figures: rows first, then the picture of exactly these rows
    to = Path(args.to)
    drawn = {}
    for figure in figures.ALL:
        rows, sources = (
            figure.rows(names, found)
            if figure is not figures.VERDICTS
            else figures.verdict_rows(claims, names, cells, found)
        )
        if rows:
            drawn[figure.name] = (figure, rows, sources)
    shutil.rmtree(to / "figures", ignore_errors=True)
    (to / "figures").mkdir(parents=True)
    blocks = {
        "verdicts": verdict_table(claims, names, cells),
        "claims": claim_list(claims, names, cells),
        "provenance": provenance(names, found),
        "models": ", ".join(names),
        "suite": Path(args.suite).name,
    }
    for number, figure in enumerate(figures.ALL, 1):
        if figure.name not in drawn:
            blocks[f"figure:{figure.name}"] = f"*Figure {number} ({figure.title}) has nothing to show here.*"
            continue
        _, rows, sources = drawn[figure.name]
        (to / "figures" / f"{figure.name}.csv").write_text(as_csv(rows), encoding="utf-8", newline="\n")
        draw.save(figure.draw(rows, names), to / "figures" / f"{figure.name}.png", smoke=args.profile == "smoke")
        blocks[f"figure:{figure.name}"] = (
            f"![{figure.title}](figures/{figure.name}.png)\n\n"
            f"*Figure {number}. {figure.title}. {figure.caption} "
            f"{sources} Data: [{figure.name}.csv](figures/{figure.name}.csv).*"
        )

    # 4. the page
    template = (ROOT / "report" / "template.md").read_text(encoding="utf-8")
    page = fill(template, names, found, blocks)
    if args.profile == "smoke":
        page = "> **SMOKE**: a handful of items, to see that everything runs. The numbers mean nothing.\n\n" + page
    (to / "report.md").write_text(page, encoding="utf-8", newline="\n")
    counts = {word: sum(cell["verdict"] == word for cell in cells.values()) for word in VERDICTS}
    print(f"report  {to / 'report.md'}  " + ", ".join(f"{n} {word}" for word, n in counts.items()))


def as_csv(rows):
    """CSV text of a list of dicts with equal keys; floats as in the artifact, at most 6 significant
    digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
    return text.getvalue()


if __name__ == "__main__":
    artifacts.run(main)
