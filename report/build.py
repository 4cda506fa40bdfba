"""Report - verdicts, tables and figures, read from manifests; computes no science.

Every number on the page is a key of a stage's results, and every figure draws rows of a stage's tables. These stop
the build: a key no manifest knows, a number typed into the template, a stage made from another upstream than the
one beside it, a stage of another suite, a stage that nothing on the page reads.

    verdict(estimate, rule)     interval beyond the threshold           reproduced
                                point beyond, interval across it        partly
                                point not beyond                        not reproduced
                                no estimate, with the reason            not testable here

Tokens of the template:
    {{model:stage:dotted.key|format}}     one value, Python format; model `*` lists all models, `=` says once what
                                          they agree on, `+` is the model set; format `est` prints value,
                                          interval and n, `len` a count; keys under `config.` are settings
    {{published:dotted.key|format}}       a fact of a paper, from data/published.json
    {{rows:stage:key, key, ...|digits}}   a table: one line per estimate, one column per model
    {{verdicts}} {{claims}} {{provenance}} {{figure:name}} {{models}} {{suite}} {{methods}}

reads   outputs/<model>/<suite>/<stage>/, outputs/<model>+<model>/<suite>/05_across/ (two models or more),
        report/claims.json, data/published.json, report/template.md
writes  <to>/report.md, <to>/report.tex, <to>/figures/<name>.png, <to>/figures/<name>.csv
        <to>/index.json     claims and figures with the artifacts they read, for `python -m report.audit trace`
        <to>/cases/<model>.md   prompts, answers and scores of three texts per trait
        <to>/report.pdf     where a TeX engine is installed; left alone if it is of this page already
        the block of --readme between its two marks: verdicts by model
cost    seconds; no model is loaded

    python -m report.build --model data/models/pico-llama --model data/models/pico-gpt2
"""

import ast
import csv
import inspect
import io
import os
import re
import shutil
from pathlib import Path

from lib import artifacts, suite
from lib.artifacts import ROOT, UserError
from lib.stage import cli, model_name, paths
from lib.studies import reliability
from report import audit, draw, examples, figures, latex

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
ACROSS = "05_across"
VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
PAPERS = {
    "preferences": "arXiv 2607.01802",
    "reliability": "arXiv 2407.12404",
    "alignment": "arXiv 2505.01162",
    "beyond": "beyond the papers",
}
# What each command runs, for its cost.
COMMANDS = {
    "make tune": STAGES[:2],
    "make transfer": STAGES[:3],
    "make compose": (*STAGES[:2], "04_compose"),
    "make reliability": (*STAGES[:3], "05_reliability", ACROSS),
}
# Digits that prose may carry: identifiers, words that begin with a letter (R2, GPT-2, Llama-2-7b), code, tables of
# papers, and the level of every interval (lib.metrics). All else is measured or set, and comes from a token.
NAMES = (r"`[^`]*[A-Za-z][^`]*`", r"arXiv \d{4}\.\d{5}", r"\b[A-Za-z][\w.-]*\d[\w-]*", r"\bTable \d\b", r"\b95 %")
MARKS = ("<!-- verdicts: written by make report -->", "<!-- end of verdicts -->")


class Reads(dict):
    """Artifacts by (model, stage), with the keys that were looked up in `seen`."""

    seen = frozenset()

    def __getitem__(self, key):
        self.seen = self.seen | {key}
        return super().__getitem__(key)


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
    value = {"config": artifact.config} if key.startswith("config.") else artifact.results
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
    names = [model_name(model) for model in args.model]
    if len(set(names)) < len(names):
        raise UserError(f"--model: {names} name the same output folder twice")
    found, suites = {}, {}
    for name, model in zip(names, args.model):
        folder = paths(args, model)
        for stage in STAGES:
            found[name, stage] = artifacts.load(folder / stage, stage)
    if len(names) > 1:
        across = found["+", ACROSS] = artifacts.load(paths(args, "+".join(names)) / ACROSS, ACROSS)
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
    for folder in {artifact.path.parent for artifact in found.values()}:
        stray = {path.parent for path in folder.glob("*/manifest.json")} - {
            artifact.path for artifact in found.values()
        }
        if stray:
            raise UserError(f"{min(stray)}: an artifact that no part of the report reads; delete it")
    folder = next(
        (f for f in (Path(args.suite), ROOT / "data/suites" / args.suite) if (f / "suite.json").is_file()), None
    )
    if folder and suite.load(args.suite).digest not in suites:
        raise UserError(
            f"{found[names[0], STAGES[0]].path}: made from another suite than {folder}; run the stages again"
        )
    return names, Reads(found)


def _same(artifact, label, digest):
    if artifact.manifest["inputs"].get(label) != digest:
        raise UserError(
            f"{artifact.path}: stale, made from another {label} than the one there is; "
            f"delete it and run {artifact.manifest['stage']} again"
        )


def untested(reason, digest, key):
    """The cell of a claim that has no number here."""
    return {
        "verdict": VERDICTS[3],
        "estimate": None,
        "part": "",
        "reason": reason,
        "digest": digest,
        "key": key.removesuffix(".*"),
    }


def decide(claim, name, found):
    """One cell of the verdict table: {"verdict", "estimate" or None, "part" (of an `every` claim), "reason",
    "digest"}."""
    if claim["stage"] == ACROSS and ("+", ACROSS) not in found:
        return untested("needs two models", "", claim["key"])
    artifact = found["+" if claim["stage"] == ACROSS else name, claim["stage"]]
    if claim.get("needs") == "steerable" and not reliability.steers(found[name, "05_reliability"].results):
        # A vector that moves nothing has a letter bias and correlations too; they would say nothing about steering.
        return untested("no more behaviours steer than luck explains", artifact.digest, claim["key"])
    every = claim["key"].endswith(".*")
    value = lookup(artifact, claim["key"].removesuffix(".*"))
    part = ""
    if "reason" not in value and every:
        part, value = weakest(value, claim["rule"])
    if "reason" in value:
        return untested(value["reason"], artifact.digest, claim["key"])
    return {
        "verdict": verdict(value, claim["rule"]),
        "estimate": value,
        "part": part,
        "reason": "",
        "digest": artifact.digest,
        "key": f"{claim['key'].removesuffix('.*')}.{part}" if every else claim["key"],
    }


def show(estimate, digits=2):
    """`1.52 [1.20, 1.81]` from an estimate; a minus sign proper, and no negative zero."""
    if "reason" in estimate:
        return estimate["reason"]
    value, low, high = (draw.number(estimate[key], digits) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def cost(command, names, found):
    """Minutes of one model's stages behind a command, of the slowest model, as run.json has them."""
    if command not in COMMANDS:
        raise UserError(f"report/claims.json: command {command!r} is none of {', '.join(COMMANDS)}")
    totals = []
    for name in names:
        runs = [found.get(("+" if stage == ACROSS else name, stage)) for stage in COMMANDS[command]]
        totals.append(sum(artifact.run["wall_s"] or 0 for artifact in runs if artifact is not None))
    return f"{max(totals):.0f} s" if max(totals) < 90 else f"{max(totals) / 60:.0f} min"


def link(artifact, key, to):
    """Markdown link to the line of a manifest where a key of its results stands."""
    path = artifact.path / "manifest.json"
    place = os.path.relpath(path, to).replace(os.sep, "/")
    return (
        f"[{key}]({place}#L{audit.line_of(path, key)})"
        if audit.at(artifact.results, key) is not None
        else f"[{key}]({place})"
    )


def source(claim, name, found):
    """The artifact that a claim about one model is decided by, or None."""
    return found.get(("+" if claim["stage"] == ACROSS else name, claim["stage"]))


def verdict_table(claims, names, cells, found, to):
    """Markdown table, one row per claim: what is claimed, the rule, how to make it, and one column per model."""
    lines = [
        "| | claim | published | rule | " + " | ".join(names) + " | command, time per model |",
        "|---|---|---|---|" + "---|" * len(names) + "---|",
    ]
    for claim in claims:
        rule, row = claim["rule"], []
        for name in names:
            cell = cells[claim["id"], name]
            text = f"**{cell['verdict']}**<br>"
            if cell["estimate"]:
                text += f"{show(cell['estimate'], claim['digits'])}, n = {cell['estimate']['n']}"
                text += f" ({cell['part']})" if cell["part"] else ""
            else:
                text += cell["reason"]
            artifact = source(claim, name, found)
            row.append(text + (f"<br>{link(artifact, cell['key'], to)}" if artifact else ""))
        made = f"`{claim['command']}`<br>{cost(claim['command'], names, found)}"
        ruled = f"{claim['unit']} {rule['side']} {rule['threshold']}" + (
            ", where behaviours steer" if "needs" in claim else ""
        )
        texts = (claim["id"], claim["title"], claim["published"], ruled, *row, made)
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
    return "\n".join(lines)


def summary(claims, names, cells):
    """Markdown: which claims each model reproduces and which not, and the line that `make all` ends with."""
    lines = ["| | " + " | ".join(VERDICTS) + " |", "|---" * (len(VERDICTS) + 1) + "|"]
    for name in names:
        ids = {word: [c["id"] for c in claims if cells[c["id"], name]["verdict"] == word] for word in VERDICTS}
        lines.append(
            f"| {name} | "
            + " | ".join(f"{len(found)}: {' '.join(found)}" if found else "none" for found in ids.values())
            + " |"
        )
    return "\n".join([*lines, "", "`make all` ends with: `" + counted(cells) + "`"])


def counted(cells):
    counts = {word: sum(cell["verdict"] == word for cell in cells.values()) for word in VERDICTS}
    return ", ".join(f"{n} {word}" for word, n in counts.items())


def claim_list(claims, names, cells, found):
    """One paragraph per claim: statement, source, rule, where each number stands and how it was made."""
    blocks = []
    for claim in claims:
        rule = claim["rule"]
        lines = [
            f"**{claim['id']}. {claim['title']}.** {claim['statement']}",
            f"*Published*: {claim['published']} ({claim['source']}).",
            f"*Rule*: {claim['unit']} {rule['side']} {rule['threshold']}; {rule['why']}"
            + ("; only where more behaviours steer than luck explains." if "needs" in claim else "."),
            f"*Key*: `{claim['stage']}` `{claim['key']}`, from `{claim['command']}`, "
            f"{cost(claim['command'], names, found)} per model.",
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
    """Markdown: every stage that was read with its digest and circumstances, and what each model is."""
    lines = ["| model | stage | digest | seconds | commit |", "|---|---|---|---|---|"]
    for (name, stage), artifact in found.items():
        run = artifact.run
        commit = (run["commit"] or "none")[:10] + (" with changes" if run["dirty"] else "")
        lines.append(
            f"| {'model set' if name == '+' else name} | {stage} | `{artifact.digest}` | {run['wall_s']} | {commit} |"
        )
    lines += [
        "",
        "| model | parameters | weights | tokenizer | chat template | revision |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        model = dict.get(found, (name, STAGES[0])).config.get("model", {})
        short = [
            ", ".join(digest[:12] for digest in model.get("weights", {}).values()),
            model.get("tokenizer", "")[:12],
            model.get("chat_template", {}).get("sha256", "")[:12],
        ]
        lines.append(
            f"| {name} | {model.get('n_parameters', 0):,} | "
            + " | ".join(f"`{text}`" if text else "" for text in short)
            + f" | {model.get('revision') or 'a folder'} |"
        )
    first = next(iter(found.values()))
    versions = ", ".join(f"{what} {number}" for what, number in first.run["versions"].items())
    data = first.run.get("data") or {}
    lines += [
        "",
        f"Suite digest `{first.manifest['inputs']['suite']}`"
        + (f", {len(data['files'])} files, licence {data['licence']}" if data else "")
        + f". {versions}.",
    ]
    return "\n".join(lines)


def typed(text):
    """Numbers in the prose of a template, a caption or a table's labels that are no names: [(line, number)]."""

    def label(match):  # of a rows token only the labels are prose
        token = match.group(1)
        if not token.startswith("rows:"):
            return ""
        return " ".join(part.partition("=")[2] for part in token.rpartition("|")[0].split(","))

    found = []
    for number, line in enumerate(re.sub(r"\{\{(.*?)\}\}", label, text).split("\n"), 1):
        for name in NAMES:
            line = re.sub(name, "", line)
        found += [(number, match) for match in re.findall(r"\d[\d.,]*", line)]
    return found


def fill(template, names, found, blocks, published=None):
    """The template with every token resolved. UserError names the token that does not resolve, or a typed number."""

    def resolve(match):
        token = match.group(1).strip()
        if token in blocks:
            return blocks[token]
        body, _, form = token.partition("|")
        parts = [part.strip() for part in body.split(":", 2)]
        if parts[0] == "published" and len(parts) == 2 and form:
            value = audit.at(published or {}, parts[1])
            if value is None:
                raise UserError(f"report/template.md: {{{{{token}}}}}: data/published.json has no {parts[1]!r}")
            return _format(value, form.strip(), token)
        if len(parts) != 3 or (parts[0] != "rows" and not form):
            raise UserError(f"report/template.md: {{{{{token}}}}} is no known token")
        if parts[0] == "rows":
            return rows_table(parts[2].split(","), parts[1], int(form or 2), names, found)
        wanted = names if parts[0] in ("*", "=") else [parts[0]]
        texts = []
        for name in wanted:
            if (name, parts[1]) not in found:
                raise UserError(f"report/template.md: {{{{{token}}}}}: no {parts[1]} of {name!r} was loaded")
            value = lookup(found[name, parts[1]], parts[2])
            texts.append(_format(value, form.strip(), token))
        if len(wanted) == 1 and parts[0] != "*" or parts[0] == "=" and len(set(texts)) == 1:
            return texts[0]
        return ", ".join(f"{name} {text}" for name, text in zip(wanted, texts))

    text = re.sub(r"\{\{(.*?)\}\}", resolve, template)
    if "{{" in text or "}}" in text:
        raise UserError("report/template.md: a token is not closed")
    if typed(template):
        raise UserError(
            "report/template.md: numbers typed into the prose, a token has to give them: "
            + ", ".join(f"{match!r} in line {number}" for number, match in typed(template))
        )
    return text


def _format(value, form, token):
    if isinstance(value, dict) and "reason" in value:
        return value["reason"]
    if form == "len":
        return str(len(value))
    if form.startswith("est"):
        return f"{show(value, int(form[3:] or 2))}, n = {value['n']}"
    try:
        return format(value, form).replace("-", "\u2212") if isinstance(value, (int, float)) else format(value, form)
    except (ValueError, TypeError) as error:
        raise UserError(f"report/template.md: {{{{{token}}}}}: {error}") from None


def trail(figure, number, rows, seen):
    """Entry of a figure in index.json: where it is made, and the stages and tables it reads."""
    rows_of, drawn = (getattr(f, "func", f) for f in (figure.rows or figures.verdict_rows, figure.draw))
    tables = {
        node.args[-1].value
        for node in ast.walk(ast.parse(inspect.getsource(rows_of)))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "table"
        and isinstance(node.args[-1], ast.Constant)
    }
    where = [
        f"{os.path.relpath(f.__code__.co_filename, ROOT)}:{f.__code__.co_firstlineno} {f.__name__}"
        for f in (rows_of, drawn)
    ]
    return {
        "number": number,
        "title": figure.title,
        "csv": f"figures/{figure.name}.csv",
        "n_rows": len(rows),
        "rows": where[0],
        "draw": where[1],
        "tables": sorted(tables),
        "reads": ["/".join(key) for key in sorted(seen)],
    }


def main():
    parser = cli(__doc__, many=True)
    parser.add_argument("--to", default=str(ROOT / "report"), help="folder for report.md and figures/")
    parser.add_argument("--readme", help="file whose marked block gets the verdicts by model")
    args = parser.parse_args()

    # 1. artifacts, every hash and every link of the chain checked
    names, found = load(args)
    claims, published = (artifacts.read_json(ROOT / file) for file in ("report/claims.json", "data/published.json"))

    # 2. verdicts
    cells = {(claim["id"], name): decide(claim, name, found) for claim in claims for name in names}
    read = found.seen

    # 3. figures: rows first, then the picture of exactly these rows
    to = Path(args.to)
    drawn, index = {}, {}
    for number, figure in enumerate(figures.ALL, 1):
        if typed(f"{figure.title} {figure.caption}"):
            raise UserError(f"figure {figure.name}: a number typed into its title or caption; let its rows give it")
        found.seen = frozenset()
        rows, sources = (
            figure.rows(names, found)
            if figure is not figures.VERDICTS
            else figures.verdict_rows(claims, names, cells, found)
        )
        read = read | found.seen
        if rows:
            drawn[figure.name] = (figure, rows, sources)
            index[figure.name] = trail(figure, number, rows, found.seen)
    found.seen = read
    for folder in ("figures", "cases"):
        shutil.rmtree(to / folder, ignore_errors=True)
        (to / folder).mkdir(parents=True)
    for name in names:
        (to / "cases" / f"{name}.md").write_text(examples.page(name, found[name, "03_transfer"]), encoding="utf-8", newline="\n")
    blocks = {
        "verdicts": verdict_table(claims, names, cells, found, to),
        "claims": claim_list(claims, names, cells, found),
        "provenance": provenance(names, found),
        "models": ", ".join(names),
        "suite": Path(args.suite).name,
        "examples": examples.digest(names, found),
        "cases": ", ".join(f"[{name}](cases/{name}.md)" for name in names),
        "methods": f"[methods.md]({os.path.relpath(ROOT / 'report' / 'methods.md', to).replace(os.sep, '/')})",
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
            f"Data: [{figure.name}.csv](figures/{figure.name}.csv). {sources}*"
        )

    # 4. the page, its index, and the same page in TeX
    template = (ROOT / "report" / "template.md").read_text(encoding="utf-8")
    page = fill(template, names, found, blocks, published)
    unused = [str(dict.get(found, key).path) for key in sorted(set(found) - found.seen)]
    if unused:
        raise UserError(f"{', '.join(unused)}: read by no claim, token or figure; every artifact has to be used")
    if args.profile == "smoke":
        page = "> **SMOKE**: a handful of items, to see that everything runs. The numbers mean nothing.\n\n" + page
    (to / "report.md").write_text(page, encoding="utf-8", newline="\n")
    artifacts.write_json(
        to / "index.json",
        {
            "stages": {
                "/".join(key): {"path": os.path.relpath(artifact.path, ROOT), "digest": artifact.digest}
                for key, artifact in found.items()
            },
            "figures": index,
            "claims": {
                claim["id"]: {
                    name: {
                        **{key: cells[claim["id"], name][key] for key in ("verdict", "reason", "key")},
                        "stage": "/".join(("+" if claim["stage"] == ACROSS else name, claim["stage"]))
                        if source(claim, name, found)
                        else None,
                    }
                    for name in names
                }
                for claim in claims
            },
        },
    )
    if args.readme:
        write_block(Path(args.readme), summary(claims, names, cells))
    print(latex.write(page, to))
    print(f"report  {to / 'report.md'}  {counted(cells)}")


def write_block(path, block):
    """Replace what stands between MARKS in a Markdown file. UserError if the marks are not there, once each."""
    text = path.read_text(encoding="utf-8")
    if [text.count(mark) for mark in MARKS] != [1, 1]:
        raise UserError(f"{path}: expected {MARKS[0]} and {MARKS[1]} once each")
    head, tail = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    path.write_text(f"{head}{MARKS[0]}\n{block}\n{MARKS[1]}{tail}", encoding="utf-8", newline="\n")


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
