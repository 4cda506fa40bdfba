"""Card: one page on one vector of one model: does it work, how strongly, for whom not, and what does it break?

    make card CONCEPT="formal: Write in a formal tone. | Write in a casual tone." MODEL=...
    make card VECTOR=file CONCEPT=... MODEL=...       a vector from elsewhere (lib/vectors.py), on the concept's suite

It adds no stage: the five run on a suite of that concept (data/concept.py), in outputs/<model>/card-<name>/, and the
page reads what they left. A vector from elsewhere takes the place of the concept's own behind stage 01, in a folder
beside it, card-<name>-of-<file>-<its SHA-256>[-layer<n>]/, whose suite says so (FOREIGN) and whose stage 01 is not made
again; at a layer that the file lacks it is zero, which stage 02 never picks. Controls (shuffled labels, other methods,
heads) stay those of the concept's own pairs.

Behind the stages report/card_contrasts.py measures what else the vector moves.

reads   the stages' manifests, tables and arrays; nothing is computed but how far other traits move along, counted in
        the texts of stage 03 (report/card_along.py), and what weak inputs have in common (report/card_parts.py)
writes  card.md, card.png, card.json beside them: "numbers" says of every number which table it is from

    python -m report.card --model data/models/pico-llama --suite outputs/pico-llama/card-allcaps/suite
"""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from lib import artifacts, identity, metrics, stage, suite as suites
from lib.artifacts import ROOT, UserError, write_json
from report import card_draw
from report.draw import table
from report.card_kinds import KINDS
from report.card_parts import CONTRASTS, QUESTIONS, origin
from report.card_read import Read, alike, clear, concept_of

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
FAILED = "nothing is extractable"                  # how stage 01 ends where the model cannot be asked
MOST_TEXT = 600                                    # characters of an answer that are shown
SMOKE = " (smoke: a handful of inputs, which show nothing)"
FOREIGN = "vector.json"                            # in a card's suite: which file its vector is from; no stage reads it


# --- running ------------------------------------------------------------------------------------------------
def embedded(args):
    return Path(args.model).resolve().parent == ROOT / "data" / "models"


def run_stage(name, args, suite):
    """One stage, or a module of report, on the suite's folder, its lines shown as they come. UserError with its last line
    if it fails."""
    shared = ["-m", "lib.work", args.nproc] if args.nproc != "1" else []
    script = [*shared, str(ROOT / f"{name}.py")] if name[0].isdigit() else ["-m", f"report.{name}"]
    command = [sys.executable, *script, "--model", args.model, "--suite", str(suite),
               "--profile", args.profile, "--dtype", args.dtype, "--out", args.out]
    env, last = os.environ | ({"OMP_NUM_THREADS": "1"} if embedded(args) else {}), ""      # one thread, as in the Makefile
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            last = line.strip() or last
    if process.returncode:
        raise UserError(last.removeprefix("error: ") or f"{name} ended with status {process.returncode}")


def place(own, key, file, layer, folder):
    """Stage 01 of a vector from elsewhere: `own`, that of the concept's suite, with the file's vector in place of its
    own; a table `foreign.json` compares the two. Zero at layers that the file lacks."""
    from lib import vectors                                # brings torch
    made = own.array("vectors")
    found = vectors.load(file, *made.shape[1:], layer)
    number = [concept["key"] for concept in own.table("concepts")].index(key)
    mine, theirs = made[number].copy(), np.zeros_like(made[number])
    for l, vector in found.row():
        theirs[l] = vector
    arrays = {name.removesuffix(".npy"): (own.array(name.removesuffix(".npy")), entry["axes"])
              for name, entry in own.manifest["outputs"].items() if name.endswith(".npy")}
    arrays["vectors"][0][number] = theirs
    if key.startswith("behaviour/"):                       # the same under every prompt
        arrays["setting_vectors"][0][:, number] = theirs
    tables = {name: own.table(name) for name in own.manifest["outputs"] if not name.endswith(".npy")}
    norm = np.linalg.norm
    tables["foreign"] = [{"layer": l, "norm": float(norm(theirs[l])), "own_norm": float(norm(mine[l])),
                          "cosine": float(metrics.cosine(theirs[l], mine[l]))} for l in sorted(found.layers)]
    vector = {"file": Path(file).name, "sha256": identity.sha256(file), "format": found.format,
              "layers": sorted(found.layers), "coefficient": found.coefficient}
    return artifacts.save(folder, stage="01_extract", config={**own.config, "vector": vector}, arrays=arrays,
                          inputs=own.manifest["inputs"], tables=tables, results=own.results, sources=[__file__])


def beside(args):
    """Suite folder of the card of args.vector: a copy of the concept's, in a folder of the file's own. UserError in a line
    for what is no vector of this model, before minutes of stage 01."""
    from lib import vectors                                # brings torch
    from report import export
    own, file = Path(args.suite), Path(args.vector)
    if own.name != stage.OWN:
        raise UserError(f"--suite {own}: expected a folder that `python -m data.concept` wrote")
    found = vectors.load(file, *export.shape(args.model), args.layer)
    digest, layer = identity.sha256(file), "" if args.layer is None else f"-layer{args.layer}"
    name = f"{re.sub('[^A-Za-z0-9.]+', '_', file.stem)[:60]}-{digest[:8]}{layer}"        # no -by- or -smoke of the file's
    suite = own.parent.with_name(f"{own.parent.name}-of-{name}") / stage.OWN
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(own, suite)
    write_json(suite / FOREIGN, {"file": file.name, "sha256": digest, "layers": sorted(found.layers)})
    return str(suite)


def run(args, suite, own, folder):
    """Everything that the card in `folder` reads. suite, own: of the concept's own vector, its suite and results."""
    if not (embedded(args) or (own / STAGES[0]).is_dir()):
        run_stage("plan", args, suite)                     # minutes that it will take
    run_stage(STAGES[0], args, suite)
    if args.vector:
        place(artifacts.load(own / STAGES[0], STAGES[0]), concept_of(suites.load(suite)), args.vector, args.layer,
              folder / STAGES[0])
    for name in (*STAGES[1:], CONTRASTS):
        run_stage(name, args, args.suite)


# --- saying -------------------------------------------------------------------------------------------------
def verdict(part, key, where):
    """(word, first line) from what a kind's function found."""
    (kind, _, name), effect, reach = key.partition("/"), part["effect"], part.get("reach")
    side, decides = clear(effect), bool(effect) and not alike(effect)
    none = decides and effect["high"] <= part.get("least", 0)
    word = {"above": "works", "below": "backwards", "within": "nothing",
            "undecided": "nothing" if none else "undecided"}[reach] if reach else (
        "works" if side > 0 else "backwards" if side < 0 and kind == "trait" else "nothing" if none else "undecided")
    told = f"{part['told']} ({part['n']})"
    first = {"works": f"The {kind} {name} works {where}: the vector {told}",
             "backwards": f"The vector for {name} works backwards {where}: it {told}",
             "nothing": f"This vector moves nothing that random vectors do not move {where}: for {name} it {told}",
             "undecided": f"Undecided {where}: the vector for {name} {told}; " + (
                 "the interval holds both nothing and more than that" if decides else "that is no interval")}[word]
    if word == "nothing" and part.get("along"):
        first = f"This vector moves {', '.join(part['along'])} {where}, but not {name}: it {told}"
    said = part["but"] + part["harm"] if word == "works" else part["harm"]
    return word, first + ("; but " if word == "works" else "; and ") * bool(said) + "; ".join(said) + "."


def gates_of(read, key):
    """[(gate, passed)] of what this concept needs (lib/studies/gates.py)."""
    return [(row["gate"], row["passed"]) for s in STAGES[:2] for row in table(read.found[s], "gates")
            if row["passed"] is not None and (row["kind"] == "format" or row["name"] == key.partition("/")[2])]


def sure(read, key, suite, command):
    """[sentence, ...]: how sure this is, and what it was made from."""
    extract = read.found[STAGES[0]]
    config, told = extract.config, [origin(read, key, suite)]
    gates = gates_of(read, key)
    failed = [gate for gate, passed in gates if not passed]
    told.append(f"Gates, before any steering: {len(gates) - len(failed)} of {len(gates)} passed"
                + (f"; failed: {', '.join(failed)}." if failed else "."))
    if config["judge"] != "none":
        tried = "" if config["judge"] == "rules" else ", tried on known texts first"
        told.append(f"Judge: {config['judge']}{tried}.")
    error = read("error of bfloat16", STAGES[1], "results", "precision", "worst")
    if error is not None:
        told.append("Stages 02 to 05 ran in bfloat16, which moves the effect of a vector by at most "
                    f"{error:.2g} half-widths of its interval.")
    model, digests = config["model"], ", ".join(f"{s[:2]} {read.found[s].digest[:12]}" for s in STAGES)
    digests += f", contrasts {read.found[CONTRASTS].digest[:12]}"
    others = f", but for the {'traits and ' * key.startswith('trait/')}contrasts above"
    texts = f"answers of more than {suite.max_new_tokens} tokens" if key.startswith("trait/") else "written answers"
    told += ["Intervals of 95 % are by bootstrap over the inputs of this one concept, widened for few units, and Wilson's where "
             "inputs are counted; one model, one suite.",
             f"Not tested: other concepts{others}; other models; contexts of thousands of tokens; {texts}.",
             f"Model {model['id']}, revision {model['revision'] or 'a local folder'}, weights "
             f"{', '.join(digest[:12] for digest in model['weights'].values())}; "
             f"suite {extract.manifest['inputs']['suite'][:12]}; profile {config['profile']}; digests {digests}.",
             f"Made with `{command}`."]
    return told


def compared(read):
    """Sentences on a vector from elsewhere beside the concept's own; [] for the own."""
    rows = read("foreign vector, own", STAGES[0], "foreign") or []
    layer = read.numbers.get("layer", {}).get("found")
    here = next((row for row in rows if row["layer"] == layer), None)
    told = ", ".join(f"{row['layer']}: {row['cosine']:.2f}" for row in rows)
    return [f"Cosine with the concept's own vector at the layer used, {layer}: {here['cosine']:.2f} "
            f"(norm {here['norm']:.3g}, own {here['own_norm']:.3g}). Per layer: {told}."] if here else []


def markdown(card):
    lines = [f"# {card['concept']} on {card['model']}" + (f": {card['vector']}" if card["vector"] else ""), "",
             f"**{card['verdict']}**", ""]
    if "answers" not in card:
        return "\n".join(lines + [*card["sure"], ""])
    lines += ["![the effect and its controls, strength, single inputs](card.png)", "", "| | |", "|---|---|"]
    lines += [f"| **{question}** | {' '.join(card['answers'][question])} |" for question in QUESTIONS]
    lines += [f"| **How sure is this?** | {' '.join(card['sure'])} |", "",
              f"<details><summary>The {len(card['worst'])} inputs on which it does least, in full</summary>", ""]
    for i, case in enumerate(card["worst"], 1):
        lines += [f"{i}. {case['found']}", "", *(f"    {line}" for line in case["input"].splitlines()), ""]
        if "text" in case:
            short = case["text"] if len(case["text"]) <= MOST_TEXT else case["text"][:MOST_TEXT] + " ..."
            lines += ["    steered:", "", *(f"        {line}" for line in short.splitlines()), ""]
    return "\n".join([*lines, "</details>", ""])


def command_of(args, suite):
    """The line that makes this card again."""
    told = artifacts.read_json(suite.folder / "suite.json").get("card", "")
    # The Makefile has put a folder in the place of a name of data/checkpoints.json.
    at, data = Path(args.model), ROOT / "data"
    named = at.name in {entry["name"] for entry in artifacts.read_json(data / "checkpoints.json")["models"]}
    model = at.name if named and (ROOT / at).parent == data / "checkpoints" else args.model
    words = [("MODEL", model, None), ("VECTOR", args.vector, None), ("LAYER", args.vector and args.layer, None),
             ("PROFILE", args.profile, "full"), ("DTYPE", args.dtype, "float32")]
    return " ".join([f"make card {told}", *(f"{name}={shlex.quote(str(given).replace('$', '$$'))}"
                                            for name, given, plain in words if given != plain)])


def build(folder, suite, command):
    """The card of finished stages: writes it beside them and returns it."""
    found, key = {name: artifacts.load(folder / name, name) for name in (*STAGES, CONTRASTS)}, concept_of(suite)
    read, model = Read(found), found[STAGES[0]].config["model"]["id"]
    part = KINDS[key.partition("/")[0]](read, key, suite)
    failed = [gate for gate, passed in gates_of(read, key) if not passed]
    part["harm"] += [f"the model fails the gate{'s' * (len(failed) > 1)} {', '.join(failed)}"] if failed else []
    config = found[STAGES[0]].config
    word, line = verdict(part, key, f"on {model}" + SMOKE * (config["profile"] == "smoke"))
    vector = config.get("vector", {}).get("file")
    answers = dict(part["answers"])
    answers[QUESTIONS[0]] = answers[QUESTIONS[0]] + compared(read)
    card = {"concept": key, "model": model, "vector": vector, "word": word, "verdict": line, "answers": answers,
            "worst": part["worst"], "sure": sure(read, key, suite, command), "picture": part["picture"],
            "digests": {name: one.digest for name, one in found.items()}, "command": command, "numbers": read.numbers,
            "profile": config["profile"]}
    save(folder, card)
    return card


def save(folder, card):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "card.json", card)
    if "picture" in card:
        card_draw.draw(artifacts.read_json(folder / "card.json"), folder / "card.png")
    else:
        (folder / "card.png").unlink(missing_ok=True)
    with artifacts.writing(folder / "card.md") as beside:
        beside.write_text(markdown(card), encoding="utf-8")


def main():
    parser = stage.cli(__doc__)
    parser.add_argument("--vector", help="file of a vector from elsewhere")
    parser.add_argument("--layer", type=int, help="its layer, for a file that does not say it")
    parser.add_argument("--nproc", default="1", help="processes that share a stage's work (lib/work.py)")
    args = parser.parse_args()
    if args.profile == "quick" or args.sizes or args.judge:
        raise UserError("a card is full or smoke and its suite names the judge: expected no --profile quick, --sizes, --judge")
    suite, own, first = args.suite, stage.paths(args), suites.load(args.suite, args.profile)
    if (first.folder / FOREIGN).exists():
        raise UserError(f"--suite {suite}: its vector is from elsewhere; expected the suite of the concept, and --vector")
    command = command_of(args, first)
    args.suite = beside(args) if args.vector else suite
    folder = stage.paths(args)
    try:
        run(args, suite, own, folder)
    except UserError as error:
        if FAILED not in str(error):
            raise
        why, told = str(error)[str(error).index(FAILED):], "Not judged" if args.vector else "No vector"
        card = {"concept": concept_of(first), "model": stage.model_name(args.model), "word": told.lower(),
                "vector": args.vector and Path(args.vector).name,
                "verdict": f"{told}{SMOKE * (args.profile == 'smoke')}: {why}.", "sure": [f"Made with `{command}`."]}
        save(folder, card)
    else:
        card = build(folder, suites.load(args.suite, args.profile), command)
    print(f"{card['verdict']}\n{folder / 'card.md'}")


if __name__ == "__main__":
    artifacts.run(main)
