"""Report - tables, figures and prose, read from manifests; computes no science. What is claimed: report/claims.py.

Every number on the page is a key of a stage's results, and every figure draws rows of a stage's tables. These stop
the build, and leave the page of the last one as it was: a key no manifest knows, a number typed into the template, a
file that is not what its stage wrote, a stage made from another upstream than the one beside it, a stage of another
suite, a stage that nothing on the page reads.

Tokens of the template:
    {{model:stage:dotted.key|format}}     one value, Python format; model `*` lists all models, `=` says once what
                                          they agree on, `+` is the model set; format `est` prints value,
                                          interval and n, `len` a count; keys under `config.` are settings
    {{published:dotted.key|format}}       a fact of a paper, from data/published.json
    {{rows:stage:key, key, ...|digits}}   a table: one line per estimate, one column per model
    {{notes}}                             the text of --notes, tokens and all
    {{verdicts}} {{claims}} {{provenance}} {{figure:name}} {{models}} {{suite}} {{methods}}

reads   <out>/<model>/<suite>/<stage>/, <out>/<model>+<model>/<suite>/05_across/ (two models or more),
        report/claims.json, data/published.json, report/template.md
writes  <to>/report.md, <to>/report.tex, <to>/figures/<name>.png, <to>/figures/<name>.csv
        <to>/index.json     claims and figures with the artifacts they read, for `python -m report.audit trace`
        <to>/cases/<model>.md   prompts, answers and scores of three texts per trait
        <to>/report.pdf     where a TeX engine is installed; left alone if it is of this page already
        of the project's own page: the block of report/methods.md between its two marks, changed rules
cost    seconds; no model is loaded

    python -m report.build --model data/models/pico-llama --model data/models/pico-gpt2 --frozen
"""
import ast
import contextlib
import csv
import inspect
import io
import os
import re
import shutil
from functools import partial
from glob import escape as glob_escape
from pathlib import Path
from urllib.parse import quote

from lib import artifacts, sizes, stage as stages, suite
from lib.artifacts import ROOT, UserError
from report import audit, declared, draw, examples, figures, latex, trace
from report.claims import (ACROSS, ESTIMATE, NoKey, changed_table, claim_list, counted, decide, lookup, show, source,
                           verdict_table)
from report.examples import harmless

EMBEDDED = ("data/models/pico-llama", "data/models/pico-gpt2")
# Digits that prose may carry: identifiers, words that begin with a letter (R2, GPT-2, Llama-2-7b), code, tables of
# papers, and the level of every interval (lib.metrics). All else is measured or set, and comes from a token.
NAMES = (r"`[^`]*[A-Za-z][^`]*`", r"arXiv \d{4}\.\d{5}", r"\b[A-Za-z][\w.-]*\d[\w-]*", r"\bTable \d\b", r"\b95 %")
RULES = ("<!-- rules: written by make report -->", "<!-- end of rules -->")
FORM = re.compile(r"len|est\d?|,?(\.\d)?[a-z%]?")              # of a token; no width, which would fill the memory
HEADS = {"full": "",
         "smoke": "> **SMOKE**: a handful of items, to see that everything runs. The numbers mean nothing.\n\n",
         "quick": "> **quick**: samples of the suite: fewer inputs, wider intervals. {sizes}; 0 is the smallest sample, 1 the "
                  "whole, none a study that is left out.\n\n"}


class Reads(dict):
    """Artifacts by (model, stage), with the keys that were looked up in `seen`."""
    seen = frozenset()

    def __getitem__(self, key):
        self.seen = self.seen | {key}
        return super().__getitem__(key)


# --- what is read, and where the page goes ------------------------------------------------------------------
def place(args):
    """(folder of results, folder of the page, whether it is the project's own) by the flags.

    --frozen reads the committed results; of the embedded models' own it makes the project's page. The page of any
    other set of models lies beside its results."""
    out, name = stages.COMMITTED if args.frozen else Path(args.out), "+".join(map(stages.model_name, args.model))
    folder = stages.paths(args, name).relative_to(args.out)
    same = [Path(model).resolve() for model in args.model] == [Path(model).resolve() for model in EMBEDDED]
    own = args.frozen and same and folder.name == "testbed"          # with this name: full, and the suite's judge
    to = Path(args.to) if args.to else Path("report") if own else out / folder / "report"
    return out, to, own and not args.to


def load(args):
    """Names of the models, and every stage of each: {(name, stage): Artifact}, with the model set under "+".

    UserError if a stage is missing or any file of it is not what was written, if it was made from another upstream,
    or from another suite or profile."""
    stages.check(args)
    names, found, suites = list(map(stages.model_name, args.model)), {}, {}
    for path in audit.due(args):
        artifact = found["+" if path.name == ACROSS else path.parts[-3], path.name] = artifacts.load(path, path.name)
        for file in set(artifact.manifest["outputs"]) - set(audit.left_out(path)):
            artifact.file(file)
    for (name, stage), artifact in found.items():
        inputs = artifact.manifest["inputs"]
        before = {label: (name, label) for label in inputs if (name, label) in found}
        before |= {f"{one}/05_reliability": (one, "05_reliability") for one in names if stage == ACROSS}
        for label, key in before.items():
            if inputs.get(label) != found[key].digest:
                raise UserError(f"{artifact.path}: stale, made from another {label} than the one there is; delete it "
                                f"and run {stage} again")
        if artifact.config.get("profile") != args.profile:
            raise UserError(f"{artifact.path}: profile {artifact.config.get('profile')!r}, expected {args.profile!r}")
        if "suite" not in inputs:
            raise UserError(f"{artifact.path}: its manifest names no suite among the inputs")
        suites.setdefault(inputs["suite"], []).append(artifact.path)
    if len(suites) > 1:
        odd = min(suites.values(), key=len)[0]
        raise UserError(f"{odd}: made from another suite than the other stages; delete it and run its stage again")
    paths = {artifact.path for artifact in found.values()}
    stray = {at.parent for path in paths for at in path.parent.glob("*/manifest.json")
             if not re.search(r"\.(tmp|old)-\d+$", at.parent.name)} - paths          # the next start removes these
    if stray:
        raise UserError(f"{min(stray)}: an artifact that no part of the report reads; delete it")
    here = [at for at in (Path(args.suite), ROOT / "data/suites" / args.suite) if (at / "suite.json").is_file()]
    if here and suite.load(args.suite).digest not in suites:
        first = found[names[0], "01_extract"].path
        raise UserError(f"{first}: made from another suite than {here[0]}; run the stages again")
    return names, Reads(found)


def quick_sizes(args, names, found):
    """Budget and levels of every model of a quick run in words; empty at other profiles."""
    told = []
    for name in names if args.profile == "quick" else ():
        artifact = found.get((name, "01_extract"))
        plan = artifact.path.parent / stages.PLAN
        plan = artifacts.read_json(plan) if plan.is_file() else {}
        same = plan.get("levels") == artifact.config["levels"]
        told.append(f"{harmless(name)}: " + (f"budget {plan['budget'] / 60:g} min, " if same else "")
                    + f"levels {sizes.told(artifact.config['levels'])}")
    return "; ".join(told)


# --- tables of the page -------------------------------------------------------------------------------------
def rows_table(keys, stage, digits, names, found):
    """Markdown table of estimates, one line per key (`key = label` renames it), one column per model; where there is
    none at all, a line that says why."""
    columns = ["+"] if stage == ACROSS else names
    if stage == ACROSS and ("+", ACROSS) not in found:
        return "*Needs two models.*"
    if stage not in declared.STAGES + (ACROSS,):
        raise UserError(f"report/template.md: no stage {stage!r}")
    heads = ["model set"] if stage == ACROSS else map(harmless, names)
    lines = ["| | " + " | ".join(heads) + " | n | resampled |", "|---" * (len(columns) + 3) + "|"]
    reasons, some = {}, False
    for entry in keys:
        key, _, label = (part.strip() for part in entry.partition("="))
        values = _across([found[column, stage] for column in columns], key)
        plain = [artifacts.check(f"report/template.md: {key}", value, ESTIMATE)
                 for value in values if not _reason(value)]
        some |= bool(plain)
        reasons |= {show(value): None for value in values if _reason(value)}
        n = " / ".join(dict.fromkeys(str(value["n"]) for value in plain))
        lines.append(" | ".join([f"| {label or f'`{key}`'}", *(show(value, digits) for value in values), n,
                                 harmless(plain[0].get("unit", "")) if plain else ""]) + " |")
    return "\n".join(lines) if some else f"*Nothing to show: {'; '.join(reasons)}.*"


def _across(runs, key):
    """`lookup` of one key in several runs; one from before the key was there has none. NoKey where all lack it."""
    values = []
    for run in runs:
        try:
            values.append(lookup(run, key))
        except NoKey as fault:
            values.append(fault)
    if all(isinstance(value, NoKey) for value in values):
        raise values[0]
    return [{"reason": "not measured in this run, which is older"} if isinstance(value, NoKey) else value for value in values]


def provenance(names, found):
    """Markdown: every stage that was read with its digest and circumstances, what changed in its sources since, its
    last spot check, and what each model is."""
    lines = ["| model | stage | digest | seconds | commit | sources since | spot check |", "|---" * 7 + "|"]
    for (name, stage), artifact in found.items():
        run, who = artifact.run, "model set" if name == "+" else harmless(name)
        commit = harmless((run["commit"] or "none")[:10]) + (" with changes" if run["dirty"] else "")
        now = audit.state(artifact)
        moved = f"changed in {len(now['sources'])} files" if now["sources"] else "the same"
        lines.append(f"| {who} | {stage} | `{artifact.digest}` | {run['wall_s']} | {commit} | {moved} | {now['spot']} |")
    lines += ["", "| model | parameters | precision | weights | tokenizer | chat template | revision |",
              "|---" * 7 + "|"]
    for name in names:
        model = found.get((name, "01_extract")).config.get("model", {})
        short = [", ".join(digest[:12] for digest in model.get("weights", {}).values()),
                 model.get("tokenizer", "")[:12], model.get("chat_template", {}).get("sha256", "")[:12]]
        lines.append(" | ".join([f"| {harmless(name)}", f"{model.get('n_parameters', 0):,}",
                                 harmless(found.get((name, "02_tune")).config.get("model", {}).get("dtype", "")),
                                 *(f"`{harmless(text)}`" if text else "" for text in short),
                                 harmless(model.get("revision") or "a folder")]) + " |")
    first = next(iter(found.values()))
    versions, data = (first.run.get(key) or {} for key in ("versions", "data"))
    files = f", {len(data['files'])} files, licence {harmless(data['licence'])}" if data else ""
    return "\n".join([*lines, "", f"Suite digest `{harmless(first.manifest['inputs']['suite'])}`{files}. "
                      + ", ".join(f"{harmless(what)} {harmless(number)}" for what, number in versions.items()) + "."])


# --- the template -------------------------------------------------------------------------------------------
def typed(text):
    """Numbers in the prose of a template, a caption or a table's labels that are no names: [(line, number)]."""
    def label(match):                        # of a rows token only the labels are prose
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
        body, _, form = (part.strip() for part in token.partition("|"))
        parts, where = [part.strip() for part in body.split(":", 2)], f"report/template.md: {{{{{token}}}}}"
        if not (re.compile(r"\d?") if parts[0] == "rows" else FORM).fullmatch(form):
            raise UserError(f"{where} has no known format")
        if parts[0] == "published" and len(parts) == 2 and form:
            value = trace.at(published or {}, parts[1])
            if value is None:
                raise UserError(f"{where}: data/published.json has no {parts[1]!r}")
            return _format(value, form, where)
        if len(parts) != 3 or (parts[0] != "rows" and not form):
            raise UserError(f"{where} is no known token")
        who, stage, key = parts
        if who == "rows":
            return rows_table(key.split(","), stage, int(form or 2), names, found)
        wanted, texts = names if who in ("*", "=") else [who], []
        for name in wanted:
            if (name, stage) not in found:
                raise UserError(f"{where}: no {stage} of {name!r} was loaded")
            texts.append(_format(lookup(found[name, stage], key), form, where))
        if who != "*" and len(set(texts)) == 1:
            return texts[0]
        return ", ".join(f"{harmless(name)} {text}" for name, text in zip(wanted, texts))
    text = re.sub(r"\{\{(.*?)\}\}", resolve, template)
    if re.search(r"\{\{|\}\}", re.sub(r"\{\{(.*?)\}\}", "", template)):
        raise UserError("report/template.md: a token is not closed")
    if typed(template):
        raise UserError("report/template.md: numbers typed into the prose, a token has to give them: "
                        + ", ".join(f"{match!r} in line {number}" for number, match in typed(template)))
    return text


def _reason(value):
    """Why there is no value, or None."""
    return value.get("reason") if isinstance(value, dict) else None


def _format(value, form, where):
    if _reason(value):
        return harmless(_reason(value))
    if form == "len":
        return str(len(artifacts.check(where, value, (list, dict, str))))
    if form.startswith("est"):
        return f"{show(artifacts.check(where, value, ESTIMATE), int(form[3:] or 2))}, n = {value['n']}"
    try:
        text = format(value, form)
        return text.replace("-", "\u2212") if isinstance(value, (int, float)) else harmless(text)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from None


# --- figures ------------------------------------------------------------------------------------------------
def collect(claims, names, cells, found):
    """{name: (rows, where they are from in words, entry of index.json)} of every figure; its rows may be empty."""
    told = {}
    for number, figure in enumerate(figures.ALL, 1):
        if typed(f"{figure.title} {figure.caption}"):
            raise UserError(f"figure {figure.name}: a number typed into its title or caption; let its rows give it")
        rows_of = partial(figure.rows, claims=claims, cells=cells) if figure is figures.VERDICTS else figure.rows
        before, found.seen = found.seen, frozenset()
        rows, said = rows_of(names, found)
        told[figure.name] = rows, said, trail(figure, number, rows, found.seen)
        found.seen |= before
    return told


def trail(figure, number, rows, seen):
    """Entry of a figure in index.json: where it is made, and the stages and tables it reads."""
    made = [getattr(function, "func", function) for function in (figure.rows, figure.draw)]
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(made[0]))) if isinstance(node, ast.Call)]
    tables = {call.args[-1].value for call in calls if getattr(call.func, "id", "") in ("table", "records")
              and isinstance(call.args[-1], ast.Constant)}
    where = [f"{os.path.relpath(f.__code__.co_filename, ROOT)}:{f.__code__.co_firstlineno} {f.__name__}"
             for f in made]
    return {"number": number, "title": figure.title, "csv": f"figures/{figure.name}.csv", "n_rows": len(rows),
            "rows": where[0], "draw": where[1], "tables": sorted(tables),
            "reads": ["/".join(key) for key in sorted(seen)]}


def pictures(told, names, at, smoke):
    """Write CSV and PNG of every figure that has rows into `at`; returns {token: Markdown}."""
    blocks = {}
    for number, figure in enumerate(figures.ALL, 1):
        name, title, (rows, said, _) = figure.name, figure.title, told[figure.name]
        blocks[f"figure:{name}"] = f"*Figure {number} ({title}) has nothing to show here.*"
        if rows:
            write(at / f"{name}.csv", as_csv(rows))
            there = {row.get("model") for row in rows}          # a model can lack what a figure shows
            draw.save(figure.draw(rows, [one for one in names if one in there] or names), at / f"{name}.png", smoke=smoke)
            blocks[f"figure:{name}"] = (f"![{title}](figures/{name}.png)\n\n*Figure {number}. {title}. "
                                        f"{figure.caption} Data: [{name}.csv](figures/{name}.csv). {harmless(said)}*")
    return blocks


def as_csv(rows):
    """CSV text of a list of dicts with equal keys; floats as in the artifact, at most 6 significant digits."""
    def cell(value):                     # a text that a spreadsheet would run as a formula is marked as text
        if isinstance(value, str):
            value = value if value.isprintable() else artifacts.shown(value)
            return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
        return f"{value:.6g}" if isinstance(value, float) else value
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


# --- the page -----------------------------------------------------------------------------------------------
def write(path, text):
    with artifacts.writing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def replacing(to):
    """An empty folder beside `to`. What is in it at the end takes the place of what `to` has of the same names. An
    error or a kill on the way leaves `to` as it was; one while the parts move is made good at the next start, since from
    the moment the folder is called .new it is whole."""
    held, new = artifacts.hold(to), to.with_name(f"{to.name}.new")
    work = to.with_name(f"{to.name}.tmp-{os.getpid()}")
    try:
        _move_in(new, to)
        for left in to.parent.glob(f"{glob_escape(to.name)}.tmp-*"):
            shutil.rmtree(left)
        work.mkdir()
        yield work
        work.rename(new)
        _move_in(new, to)
    except OSError as error:
        raise UserError(f"{to}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        artifacts.release(held)


def _move_in(new, to):
    """Every part of `new`, if there is one, into `to`; again and again until done, wherever it was stopped before."""
    if new.is_dir():
        to.mkdir(exist_ok=True)
        for part in sorted(new.iterdir()):
            if (to / part.name).is_dir():
                shutil.rmtree(to / part.name)
            part.replace(to / part.name)
        new.rmdir()


def with_block(path, block, marks):
    """Text of a Markdown file with `block` between two marks. UserError if these are not there, once each."""
    text, (first, last) = declared.text(path), marks
    if [text.count(mark) for mark in marks] != [1, 1]:
        raise UserError(f"{path}: expected {first} and {last} once each")
    return f"{text.split(first)[0]}{first}\n{block}\n{last}{text.split(last)[1]}"


def index(claims, names, cells, told, found):
    """What `trace` reads: stages with place and digest, figures, and each claim's outcome and key."""
    def outcome(claim, name):
        key = source(claim, name)
        cell = cells[claim["id"], name]
        return {**draw.pick(cell, "verdict", "reason", "key"), "value": cell["estimate"] and cell["estimate"]["value"],
                "stage": "/".join(key) if key in found else None}
    return {"models": names, "claims": {claim["id"]: {name: outcome(claim, name) for name in names} for claim in claims},
            "figures": {name: entry for name, (rows, _, entry) in told.items() if rows},
            "stages": {"/".join(key): {"path": os.path.relpath(artifact.path, ROOT), "digest": artifact.digest}
                       for key, artifact in found.items()}}


def main():
    parser = stages.cli(__doc__, many=True)
    parser.add_argument("--frozen", action="store_true", help=f"read {stages.COMMITTED} instead of --out")
    parser.add_argument("--to", help="folder for the page; default: report, beside the results or the project's own")
    parser.add_argument("--notes", type=Path, help="what a person saw in it, with tokens, above the verdicts")
    args = parser.parse_args()

    # 1. artifacts, every hash and every link of the chain checked
    args.out, to, own = place(args)
    names, found = load(args)
    claims, published = declared.listed(), declared.published()

    # 2. verdicts, and the rows of every figure
    cells = {(claim["id"], name): decide(claim, name, found) for claim in claims for name in names}
    told = collect(claims, names, cells, found)

    # 3. cases, pictures of exactly these rows, and the page around them, beside the one there is
    with replacing(to) as new:
        (new / "figures").mkdir()
        (new / "cases").mkdir()
        for name in names:
            write(new / "cases" / f"{name}.md", examples.page(name, found[name, "03_transfer"]))
        blocks = {"verdicts": verdict_table(claims, names, cells, found, to),
                  "claims": claim_list(claims, names, cells, found),
                  "provenance": provenance(names, found), "models": ", ".join(map(harmless, names)),
                  "suite": harmless(Path(args.suite).name),
                  "examples": examples.digest(names, found),
                  "cases": ", ".join(f"[{harmless(name)}](cases/{quote(name)}.md)" for name in names),
                  "methods": f"[methods.md]({os.path.relpath(ROOT / 'report/methods.md', to).replace(os.sep, '/')})",
                  **pictures(told, names, new / "figures", args.profile == "smoke")}
        notes = declared.text(args.notes) + "\n" if args.notes else ""
        text = declared.text(ROOT / "report/template.md").replace("{{notes}}", notes)
        page = fill(text, names, found, blocks, published)
        unused = [str(found.get(key).path) for key in sorted(set(found) - found.seen)]
        if unused:
            raise UserError(f"{', '.join(unused)}: read by no claim, token or figure; every artifact has to be used")

        # 4. what stands beside the page: its index, TeX and PDF, the changed rules in methods.md
        page = HEADS[args.profile].format(sizes=quick_sizes(args, names, found)) + page
        write(new / "report.md", page)
        artifacts.write_json(new / "index.json", index(claims, names, cells, told, found))
        pdf = latex.write(page, new, to)
        methods = ROOT / "report/methods.md"
        rules = own and with_block(methods, changed_table(claims), RULES)
    if own:
        write(methods, rules)
    print(f"{pdf}\nreport  {to / 'report.md'}  {args.profile}  {counted(cells)}")


if __name__ == "__main__":
    artifacts.run(main)
