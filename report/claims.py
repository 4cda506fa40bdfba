"""Claims: what decides one, what is said of it, and what it costs to check. Reads manifests; computes no science.

    verdict(estimate, rule)     interval beyond the threshold           reproduced
                                point beyond, interval across it        partly
                                point not beyond                        not reproduced
                                no estimate, with the reason            not testable here

A claim is an entry of report/claims.json; a cell is the outcome of one claim on one model (see `decide`).
"""
import os

from lib.artifacts import UserError
from lib.studies import reliability
from report import draw, trace
from report.audit import STAGES

ACROSS = "05_across"
VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
PAPERS = {"preferences": "arXiv 2607.01802", "reliability": "arXiv 2407.12404", "alignment": "arXiv 2505.01162",
          "beyond": "beyond the papers"}
# What each command runs, for its cost.
COMMANDS = {"make tune": STAGES[:2], "make transfer": STAGES[:3], "make compose": (*STAGES[:2], "04_compose"),
            "make reliability": (*STAGES[:3], "05_reliability", ACROSS)}


# --- what decides -------------------------------------------------------------------------------------------
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
    """Of {name: estimate} that must all be beyond the threshold, the one that decides: worst verdict, then least far.

    Returns (name, estimate)."""
    sign = 1 if rule["side"] == "above" else -1
    return max(estimates.items(), key=lambda item: (VERDICTS.index(verdict(item[1], rule)), -sign * item[1]["value"]))


def lookup(artifact, key):
    """Value at a dotted key of an artifact's results, or {"reason": text} where the stage says it has none.

    A stage explains an absent key, or a group of keys, in results["not_testable"] = {dotted key: reason}.
    UserError for a key the stage neither has nor explains, and for a null."""
    for absent, reason in artifact.results.get("not_testable", {}).items():
        if key == absent or key.startswith(absent + "."):
            return {"reason": reason}
    where = artifact.path / "manifest.json"
    value = {"config": artifact.config} if key.startswith("config.") else artifact.results
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{where}: results have no key {key!r} (stopped at {part!r})")
        value = value[part]
    if value is None:
        raise UserError(f"{where}: results.{key} is null and no reason is given")
    return value


def source(claim, name):
    """(model or "+", stage): what decides a claim about one model, if it was loaded."""
    return "+" if claim["stage"] == ACROSS else name, claim["stage"]


def untested(reason, digest, key):
    """The cell of a claim that has no number here."""
    return {"verdict": VERDICTS[3], "estimate": None, "part": "", "reason": reason, "digest": digest, "key": key}


def decide(claim, name, found):
    """{"verdict", "estimate" or None, "reason", "digest", "key", "part"} of a claim on one model.

    Of a key with .* all parts must hold: "part" is the one that decides."""
    key, part = claim["key"].removesuffix(".*"), ""
    if source(claim, name) not in found:
        return untested("needs two models", "", key)
    artifact = found[source(claim, name)]
    if claim.get("needs") == "steerable" and not reliability.steers(found[name, "05_reliability"].results):
        # A vector that moves nothing has a letter bias and correlations too; they would say nothing about steering.
        return untested("no more behaviours steer than luck explains", artifact.digest, key)
    value = lookup(artifact, key)
    if "reason" in value:
        return untested(value["reason"], artifact.digest, key)
    if claim["key"].endswith(".*"):
        part, value = weakest(value, claim["rule"])
        key += f".{part}"
    return {"verdict": verdict(value, claim["rule"]), "estimate": value, "part": part, "reason": "",
            "digest": artifact.digest, "key": key}


# --- how it is said -----------------------------------------------------------------------------------------
def show(estimate, digits=2):
    """`1.52 [1.20, 1.81]` from an estimate; a minus sign proper, and no negative zero."""
    if "reason" in estimate:
        return estimate["reason"]
    return "{} [{}, {}]".format(*(draw.number(estimate[key], digits) for key in ("value", "low", "high")))


def cost(command, names, found):
    """Minutes of one model's stages behind a command, of the slowest model, as run.json has them."""
    if command not in COMMANDS:
        raise UserError(f"report/claims.json: command {command!r} is none of {', '.join(COMMANDS)}")
    keys = [[("+" if stage == ACROSS else name, stage) for stage in COMMANDS[command]] for name in names]
    most = max(sum(found.get(key).run["wall_s"] or 0 for key in mine if key in found) for mine in keys)
    return f"{most:.0f} s" if most < 90 else f"{most / 60:.0f} min"


def link(artifact, key, to):
    """Markdown link to the line of a manifest where a key of its results stands."""
    path = artifact.path / "manifest.json"
    line = f"#L{trace.line_of(path, key)}" if trace.at(artifact.results, key) is not None else ""
    return f"[{key}]({os.path.relpath(path, to).replace(os.sep, '/')}{line})"


def ruled(claim):
    return f"{claim['unit']} {claim['rule']['side']} {claim['rule']['threshold']}"


def verdict_table(claims, names, cells, found, to):
    """Markdown table, one row per claim: what is claimed, the rule, how to make it, and one column per model."""
    lines = ["| | claim | published | rule | " + " | ".join(names) + " | command, time per model |",
             "|---" * (len(names) + 5) + "|"]
    for claim in claims:
        row = [claim["id"], claim["title"], claim["published"],
               ruled(claim) + (", where behaviours steer" if "needs" in claim else "")]
        for name in names:
            cell, artifact = cells[claim["id"], name], found.get(source(claim, name))
            said = cell["reason"]
            if cell["estimate"]:
                said = f"{show(cell['estimate'], claim['digits'])}, n = {cell['estimate']['n']}"
                said += f" ({cell['part']})" if cell["part"] else ""
            said += f"<br>{link(artifact, cell['key'], to)}" if artifact else ""
            row.append(f"**{cell['verdict']}**<br>{said}")
        row.append(f"`{claim['command']}`<br>{cost(claim['command'], names, found)}")
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |")
    return "\n".join(lines)


def summary(claims, names, cells):
    """Markdown: which claims each model reproduces and which not, and the line that `make all` ends with."""
    lines = ["| | " + " | ".join(VERDICTS) + " |", "|---" * (len(VERDICTS) + 1) + "|"]
    for name in names:
        ids = [[c["id"] for c in claims if cells[c["id"], name]["verdict"] == word] for word in VERDICTS]
        told = [f"{len(some)}: {' '.join(some)}" if some else "none" for some in ids]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join([*lines, "", f"`make all` ends with: `{counted(cells)}`"])


def counted(cells):
    verdicts = [cell["verdict"] for cell in cells.values()]
    return ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS)


def claim_list(claims, names, cells, found):
    """One paragraph per claim: statement, source, rule, where each number stands and how it was made."""
    blocks = []
    for claim in claims:
        needs = "; only where more behaviours steer than luck explains." if "needs" in claim else "."
        lines = [f"**{claim['id']}. {claim['title']}.** {claim['statement']}",
                 f"*Published*: {claim['published']} ({claim['source']}).",
                 f"*Rule*: {ruled(claim)}; {claim['rule']['why']}{needs}",
                 f"*Key*: `{claim['stage']}` `{claim['key']}`, from `{claim['command']}`, "
                 f"{cost(claim['command'], names, found)} per model."]
        for name in names:
            cell = cells[claim["id"], name]
            estimate, said = cell["estimate"], f": {cell['reason']}."
            if estimate:
                said = (f", {show(estimate, claim['digits'])}, n = {estimate['n']}, {estimate['method']}, resampled: "
                        f"{estimate['unit']}; digest {cell['digest'][:12]}.")
            lines.append(f"*{name}*: {cell['verdict']}{said}")
        blocks.append("  \n".join(lines))
    return "\n\n".join(blocks)
