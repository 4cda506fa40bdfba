"""Claims: what decides one, what is said of it, and what it costs to check. Reads manifests; computes no science.

    verdict(estimate, rule)     whole interval beyond the threshold         reproduced
                                whole interval on the other side            contradicted
                                interval that holds the threshold           undecided
                                no estimate, or a gate that is shut         not testable here

A claim is an entry of report/claims.json; a cell is the outcome of one claim on one model (see `decide`).

    gates   what has to hold before the claim says anything: {"key", "side", "threshold", "what", "stage" (else the
            claim's own)}. An estimate has to lie beyond the threshold with its whole interval, a number by itself
    reads   what a verdict means for a user of the model, one sentence per verdict
    null    the null runs in which the claim is false (report/null.py); changed: what the rule was, and why it is not

The bootstrap of n units is too narrow by sqrt((n - 1) / n), and as if the spread of n were known; where all parts
under a key must hold, each has its own chance to end on the wrong side. So an interval that decides, a gate's too, is
widened: Student's quantile of n - 1 degrees of freedom at the level 1 - 0.05 / parts (Bonferroni) in place of the
normal one, times sqrt(n / (n - 1)). One unit has no interval.
"""
import os
from functools import lru_cache
from statistics import NormalDist
from urllib.parse import quote

import numpy as np

from lib.artifacts import NUMBER, UserError, check
from lib.fields import within
from lib.studies import reliability
from report import draw, trace
from report.declared import ACROSS, COMMANDS, PAPERS, STAGES, VERDICTS, listed, measured          # noqa: F401
from report.examples import harmless

NO_TIME, LEFT_OUT = "left out of this quick run for its time", "left out"       # the reason, and its sign in a cell
ESTIMATE = {**dict.fromkeys(("value", "low", "high"), NUMBER), "n": int}
# The study that a claim's stage, or the first word of its key, belongs to.
STUDY = {"04_compose": "preferences", "05_reliability": "reliability", ACROSS: "reliability", "traits": "preferences",
         "behaviours": "reliability", "relations": "relations", "values": "values"}


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
    ends = [sign * (estimate[key] - rule["threshold"]) for key in ("low", "high")]
    return "reproduced" if min(ends) > 0 else "contradicted" if max(ends) < 0 else "undecided"


def weakest(estimates, rule):
    """Of {name: estimate} that must all be beyond the threshold, the one that decides: worst verdict, then least far.

    Returns (name, estimate)."""
    sign = 1 if rule["side"] == "above" else -1
    return max(estimates.items(), key=lambda item: (VERDICTS.index(verdict(item[1], rule)), -sign * item[1]["value"]))


@lru_cache
def student(level, degrees):
    """Quantile of Student's t: with x = sqrt(degrees) tan(angle) its density is cos(angle) ** (degrees - 1)."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angle) ** (degrees - 1)
    below = np.cumsum(density) - density / 2
    return float(np.sqrt(degrees) * np.tan(np.interp(level, below / below[-1], angle)))


def widened(estimates):
    """{name: estimate} with the intervals that decide, see above; without ends where n < 2. What is no bootstrap
    (Wilson's interval) knows its n and is widened for the number of parts alone."""
    def wide(estimate):
        n, parts, normal = estimate["n"], len(estimates), NormalDist()
        drawn = "bootstrap" in estimate.get("method", "")
        if drawn and n < 2:
            return {**estimate, "low": None, "high": None}
        level = 1 - 0.025 / parts
        factor = (student(level, n - 1) * (n / (n - 1)) ** 0.5 if drawn else normal.inv_cdf(level)) / normal.inv_cdf(0.975)
        said = [f"{n} units"] * drawn + [f"{parts} parts"] * (parts > 1)
        return {**estimate, **{end: estimate["value"] + factor * (estimate[end] - estimate["value"])
                               for end in ("low", "high")},
                "method": ", widened for ".join([estimate.get("method", "")] + [" and ".join(said)] * bool(said))}

    return {name: wide(estimate) for name, estimate in estimates.items()}


def shut(claim, name, found):
    """Why the first gate of a claim that does not hold keeps it shut, with the number; None if all hold."""
    if claim.get("needs") == "steerable" and not reliability.steers(found[name, "05_reliability"].results):
        # A vector that moves nothing has a letter bias and correlations too; they would say nothing about steering.
        return "no more behaviours steer than luck explains"
    for gate in claim.get("gates", ()):
        value = _of(claim, lookup, found[source({"stage": claim["stage"], **gate}, name)], gate["key"])
        needed = f"needed {gate['side']} {gate['threshold']:g}"
        if isinstance(value, dict) and "reason" in value:
            return f"{gate['what']}: {value['reason']}"
        _of(claim, check, gate["key"], value, (ESTIMATE, *NUMBER))
        estimate = widened({"": value})[""] if isinstance(value, dict) else dict.fromkeys(("value", "low", "high"), value)
        if estimate["low"] is None:
            return f"{gate['what']}: {alone(estimate)}"
        if verdict(estimate, gate) != "reproduced":
            return f"{gate['what']}: {show(estimate) if isinstance(value, dict) else draw.number(value, 2)}, {needed}"
    return None


def alone(estimate):
    return f"{draw.number(estimate['value'], 2)} from one of {estimate.get('unit', 'its unit')}, which has no interval"


class NoKey(UserError):
    """A key that a stage neither has nor explains."""


def lookup(artifact, key):
    """Value at a dotted key of an artifact's results, or {"reason": text} where the stage says it has none.

    A stage explains an absent key, or a group of keys, in results["not_testable"] = {dotted key: reason}; a way to make
    a relation's vector is absent where its config does not list it.
    NoKey for a key the stage neither has nor explains, UserError for a null."""
    for absent, reason in artifact.results.get("not_testable", {}).items():
        if key == absent or key.startswith(absent + "."):
            return {"reason": reason}
    _, _, way = key.partition(".ways.") if ".ways." in key else key.partition(".specific.")
    if way and "ways" in artifact.config and way.split(".")[0] not in artifact.config["ways"]:
        return {"reason": "not one of the ways of this run"}
    where = artifact.path / "manifest.json"
    value = {"config": artifact.config} if key.startswith("config.") else artifact.results
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise NoKey(f"{where}: results have no key {key!r} (stopped at {part!r})")
        value = value[part]
    if value is None:
        raise UserError(f"{where}: results.{key} is null and no reason is given")
    return value


def source(claim, name):
    """(model or "+", stage): what decides a claim about one model, if it was loaded."""
    return "+" if claim["stage"] == ACROSS else name, claim["stage"]


def _of(claim, function, *args):
    """function(*args), a UserError of it with the claim in front: a key may have been mistyped there."""
    return within(f"report/claims.json, {claim.get('id', claim['key'])}", function, *args)


def untested(reason, digest, key):
    """The cell of a claim that has no number here."""
    return {"verdict": VERDICTS[3], "estimate": None, "part": "", "parts": {}, "reason": reason, "digest": digest,
            "key": key}


def study_of(claim):
    """The study (lib.sizes) that a claim's numbers are of."""
    return STUDY.get(claim["stage"]) or STUDY.get(claim["key"].split(".")[0])


def left_out(claim, artifact):
    """Whether a quick run had no time for the study of a claim (lib.sizes)."""
    study = study_of(claim)
    levels = artifact.config.get("levels") or {}
    return levels.get(study, levels.get("alignment", 0)) is None      # of runs that had one level for both its parts


def no_time(cell):
    """Whether an outcome is that: no gate was shut."""
    return cell["reason"] == NO_TIME


def decide(claim, name, found):
    """{"verdict", "estimate" or None, "reason", "digest", "key", "part", "parts"} of a claim on one model.

    Of a key with .* all parts must hold: "parts" are their estimates, "part" names the one that decides."""
    key, part = claim["key"].removesuffix(".*"), ""
    if source(claim, name) not in found:
        return untested("needs two models", "", key)
    artifact = found[source(claim, name)]
    if left_out(claim, artifact):
        return untested(NO_TIME, artifact.digest, key)
    value, parts = _of(claim, check, key, _of(claim, lookup, artifact, key), dict), {}
    reason = value.get("reason") or shut(claim, name, found)     # the stage's own first: it may not have steered at all
    if reason:
        return untested(reason, artifact.digest, key)
    several = claim["key"].endswith(".*")
    _of(claim, check, key, value, {str: ESTIMATE} if several and value else ESTIMATE)
    wide = widened(value if several else {"": value})
    single = next((one for one in wide.values() if one["low"] is None), None)
    if single:
        return untested(alone(single), artifact.digest, key)
    part, value = weakest(wide, claim["rule"])
    if several:
        parts, key = wide, f"{key}.{part}"
    return {"verdict": verdict(value, claim["rule"]), "estimate": value, "part": part, "parts": parts, "reason": "",
            "digest": artifact.digest, "key": key}


# --- how it is said -----------------------------------------------------------------------------------------
def show(estimate, digits=2):
    """`1.52 [1.20, 1.81]` from an estimate; a minus sign proper, and no negative zero."""
    if "reason" in estimate:
        return harmless(estimate["reason"])
    return "{} [{}, {}]".format(*(draw.number(estimate[key], digits) for key in ("value", "low", "high")))


def cost(command, names, found):
    """Minutes of one model's stages behind a command, of the slowest model, as run.json has them."""
    keys = [[("+" if stage == ACROSS else name, stage) for stage in COMMANDS[command]] for name in names]
    most = max(sum(found.get(key).run["wall_s"] or 0 for key in mine if key in found) for mine in keys)
    return f"{most:.0f} s" if most < 90 else f"{most / 60:.0f} min"


def link(artifact, key, to):
    """Markdown link to the line of a manifest where a key of its results stands."""
    path = artifact.path / "manifest.json"
    line = f"#L{trace.line_of(path, key)}" if trace.at(artifact.results, key) is not None else ""
    return f"[{harmless(key)}]({quote(os.path.relpath(path, to).replace(os.sep, '/'), safe='/+')}{line})"


def own(text):
    """Text of report/claims.json in a cell; it is Markdown already, and one line (report/declared.py)."""
    return text.replace("|", "\\|")


def ruled(claim):
    """The rule of a claim in words, its gates behind it."""
    gates = [f"{gate['what']} ({gate['side']} {gate['threshold']:g})" for gate in claim.get("gates", ())]
    gates += ["behaviours steer"] if "needs" in claim else []
    rule = f"{claim['unit']} {claim['rule']['side']} {claim['rule']['threshold']}"
    return rule + (f", where {', '.join(gates)}" if gates else "")


def null_runs(claim, told):
    """{kind: its counts in report/null.json} of the runs in which a claim is false."""
    mine = told.get(claim["id"], {"chains": {}})
    return mine["chains"] | ({"synthetic": mine["false"]} if "false" in mine else {})


def null_rate(claim, told):
    """How often a claim's rule says `reproduced` where it is false, and where it is true, from report/null.json."""
    said = [f"{one.get(VERDICTS[0], 0)} of {one['n']} {harmless(kind)}, {rate(one)}"
            for kind, one in null_runs(claim, told).items()] or ["no null run"]
    power = told.get(claim["id"], {}).get("planted")
    said += [f"power {draw.number(power['rate'][0], 2)}: {harmless(told[claim['id']]['what'])}"] if power else []
    return "; ".join(said)


def null_most(claim, told):
    """The same in a cell: the kind in which the rule says it most often, and the power."""
    runs = null_runs(claim, told)
    most = max(runs, key=lambda kind: (runs[kind]["rate"][0], runs[kind]["n"]), default=None)
    said = [f"{rate(runs[most])}<br>{harmless(most)}" if most else "no null run"]
    power = told.get(claim["id"], {}).get("planted")
    return "<br>".join(said + ([f"power {draw.number(power['rate'][0], 2)}"] if power else []))


def rate(one):
    return "{} [{}, {}]".format(*(draw.number(x, 2) for x in one["rate"]))


def ranges(some):
    """`P1 P4-P6` of claims in order: three or more of one paper in a row are told by their ends."""
    runs = []
    for claim in some:
        letter, number = claim[0], int(claim[1:])
        if runs and (letter, number - 1) == runs[-1][-1]:
            runs[-1].append((letter, number))
        else:
            runs.append([(letter, number)])
    return " ".join(f"{a}{i}\u2013{a}{run[-1][1]}" if len(run) > 2 else " ".join(f"{b}{n}" for b, n in run)
                    for run in runs for a, i in run[:1])


def verdict_table(claims, names, cells, found, to):
    """Markdown table, one row per claim: what is claimed, the rule, one column per model, how often the rule speaks
    where there is nothing, and how to make it. Behind it those that no model can test, by their reasons."""
    lines = ["| | claim | published | rule | " + " | ".join(map(harmless, names))
             + " | reproduced where there is nothing, at most; power | command, time per model |", "|---" * (len(names) + 6) + "|"]
    told, shut = measured(), {}
    for claim in claims:
        mine = [cells[claim["id"], name] for name in names]
        if not any(cell["estimate"] for cell in mine):
            shut.setdefault(tuple(cell["reason"] for cell in mine), []).append(claim["id"])
            continue
        row = [claim["id"], *map(own, (claim["title"], claim["published"], ruled(claim)))]
        for name in names:
            cell, artifact = cells[claim["id"], name], found.get(source(claim, name))
            said = harmless(cell["reason"])
            if said == NO_TIME:                            # there is no line that it could lead to
                row.append(f"*{NO_TIME}*")
                continue
            if cell["estimate"]:
                said = f"{show(cell['estimate'], claim['digits'])}, n = {cell['estimate']['n']}"
                others = [f"{harmless(part)} {show(e, claim['digits'])}" for part, e in cell["parts"].items()
                          if part != cell["part"]]
                said += f" ({harmless(cell['part'])}, which decides; {'; '.join(others)})" if cell["part"] else ""
            said += f"<br>{link(artifact, cell['key'], to)}" if artifact else ""
            row.append(f"**{cell['verdict']}**<br>{said}")
        row += [null_most(claim, told)]
        row.append(f"`{claim['command']}`<br>{cost(claim['command'], names, found)}")
        lines.append("| " + " | ".join(row) + " |")
    if shut:
        lines = (lines + [""] if len(lines) > 2 else []) + [
            "| not testable here | " + " | ".join(map(harmless, names)) + " |", "|---" * (len(names) + 1) + "|",
            *(f"| {ranges(some)} | {' | '.join(map(harmless, why))} |" for why, some in shut.items())]
    return "\n".join(lines)


def counted(cells):
    return tally([cell["verdict"] for cell in cells.values()])


def tally(verdicts):
    """`44 reproduced, 41 undecided, ...`"""
    return ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS)


def claim_list(claims, names, cells, found):
    """One paragraph per claim: statement, source, rule, where each number stands and how it was made."""
    blocks, told = [], measured()
    for claim in claims:
        lines = [f"**{claim['id']}. {claim['title']}.** {claim['statement']}",
                 f"*Published*: {claim['published']} ({claim['source']}).",
                 f"*Rule*: {ruled(claim)}; {claim['rule']['why']}.",
                 f"*Key*: `{claim['stage']}` `{claim['key']}`, from `{claim['command']}`, "
                 f"{cost(claim['command'], names, found)} per model.",
                 f"*Says reproduced*: {null_rate(claim, told)}."]
        for name in names:
            cell = cells[claim["id"], name]
            estimate, said = cell["estimate"], f": {harmless(cell['reason'])}."
            if estimate:
                method, unit = (harmless(estimate[key]) for key in ("method", "unit"))
                said = (f", {show(estimate, claim['digits'])}, n = {estimate['n']}, {method}, resampled: {unit}; "
                        f"digest {cell['digest'][:12]}. {claim['reads'][cell['verdict']]}")
            lines.append(f"*{harmless(name)}*: {cell['verdict']}{said}")
        blocks.append("  \n".join(lines))
    return "\n\n".join(blocks)


def changed_table(claims):
    """Markdown table of the rules that changed: from what, to what, why, and whether results had been seen."""
    rows = [(claim["id"], claim["changed"]) for claim in claims if "changed" in claim]
    lines = ["| | was | is | why | results seen before |", "|---" * 5 + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(own, (
        name, change["from"], change["to"], change["why"], "yes" if change.get("seen") else "no"))) + " |"
        for name, change in rows])
