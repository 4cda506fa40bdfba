"""Gates: can the model do the task at all? Measured before anything is swept, and never on the evaluation split.

    letters     probability of the two letters at the read-out (lib.studies.propensity)
    look-up     "Which option says ...?", asked for both options of an item: share right; chance is 1/2
    persona     m under the persona sentence minus m under its opposite (SYS_POS, SYS_NEG), nats
    letter      logit(A) - logit(B), unsteered, nats: how far the answer hangs on the letter
    expression  a trait's expression under the instruction for it minus that under the one against it, points
    lists       in-context lists answered right, less the chance to be right with the answer of another list
    facts       share of the facts that are known; lean: mean size of a value's unsteered log-odds, nats

What a persona sentence does is heterogeneous: inputs that are answered from the other side lower the mean gap of a
behaviour, and they are what stage 05 looks for. So a behaviour is left out only if its sentences do nothing, that is
if the whole interval lies within LEAST_GAP of 0, and all are if no more of them rise than luck explains, where there
are enough to count (MIN_BEHAVIOURS).
The smoke profile measures the gates and leaves nothing out.
"""
import re
from dataclasses import replace

import numpy as np

from lib import fields, metrics, suite as suites, work
from lib.metrics import Missing, estimator
from lib.studies import propensity
from lib.studies.reliability import MIN_BEHAVIOURS, by_luck

# --- settings that change the numbers -----------------------------------------------------------------------
N_GATE = {"full": 32, "quick": 16, "smoke": 4}        # items per behaviour, from tuning on into extraction
LEAST_GAP = 0.1                          # nats: odds that a persona sentence changes by less than a tenth
LUCK = 0.05                              # chance of an interval above 0 by luck; of a dozen contents it is too narrow
LEAST_LEAN = 0.1                         # nats: less is even odds, and there is nothing to correct
# ------------------------------------------------------------------------------------------------------------
OPTIONS = re.compile(r"^\s*\(A\):?\s*(.*?)\s*^\s*\(B\):?\s*(.*?)\s*\Z", re.M | re.S)


def row(kind, name, gate, found, passed):
    """A row of gates.json; found: an estimate, a number, or Missing."""
    found = found if isinstance(found, dict) else {"value": None if isinstance(found, Missing) else found}
    return {"kind": kind, "name": name, "gate": gate, "passed": passed,
            **{key: found.get(key) for key in ("value", "low", "high", "n")}}


def above(found, least=0):
    """Whether an estimate is there and its whole interval lies above `least`."""
    return not isinstance(found, Missing) and found["low"] > least


# --- behaviours (stage 01) ----------------------------------------------------------------------------------
def look_ups(item):
    """The two look-ups of an item as items; [] where its options cannot be told apart in its text."""
    question = item["question"]
    found = OPTIONS.search(question) if question.count("(A)") == question.count("(B)") == 1 else None
    if not found or found[1] == found[2] or not (found[1] and found[2]):
        return []
    return [item | {"question": f'Which option says "{text}"?\n\n{found[0].strip()}', "positive": letter}
            for text, letter in zip(found.groups(), "AB")]


def look_up(lm, read_out, suite, fmt):
    """{"right" (item,)}: share of the two look-ups of an item that are right, over `propensity.sample`."""
    asked = sum((look_ups(item) for _, item in propensity.sample(suite, fmt)), [])
    m = propensity.propensities(lm, read_out, suite, suite.behaviours[0], asked, [()])[0] if asked else np.empty((0, 1))
    return {"right": (m > 0).reshape(-1, 2).mean(axis=1)}


def persona(lm, read_out, suite, behaviour):
    """{"gap" (item,), "letter" (item,), nats; "contents": a label per item, shared with its swap}."""
    items = suites.balanced(suites.split(behaviour["items"], "tune") + suites.split(behaviour["items"], "extract"),
                            N_GATE[suite.profile])
    m = {setting: propensity.propensities(lm, read_out, suite, behaviour, items, [()], setting)[0][:, 0]
         for setting in ("BASE", "SYS_POS", "SYS_NEG")}
    is_a = np.array([item["positive"] == "A" for item in items])
    return {"gap": m["SYS_POS"] - m["SYS_NEG"], "letter": np.where(is_a, 1, -1) * m["BASE"],
            "contents": [item["swap_of"] or item["id"] for item in items]}


def settle(gaps):
    """({name: reason} of the behaviours to leave out, {"n", "told", "by_luck"}), from persona gaps
    {name: estimate}."""
    idle = {name for name, gap in gaps.items() if max(-gap["low"], gap["high"]) < LEAST_GAP}
    told = sum(above(gap) for name, gap in gaps.items() if name not in idle)
    lucky = by_luck(len(gaps), LUCK)
    counts = {"n": len(gaps), "told": told, "by_luck": lucky}
    if told < max(lucky + 1, MIN_BEHAVIOURS) and len(gaps) >= MIN_BEHAVIOURS:
        mean = np.mean([gap["value"] for gap in gaps.values()])
        reason = (f"the model does not tell persona sentences apart: they raise {told} of {len(gaps)} behaviours, "
                  f"up to {lucky} would by luck and {MIN_BEHAVIOURS} are needed (mean {mean:.2f} nats)")
        return dict.fromkeys(gaps, reason), counts
    return {name: f"the persona sentences move it by {gaps[name]['value']:.3f} nats, "
                  f"[{gaps[name]['low']:.3f}, {gaps[name]['high']:.3f}]" for name in sorted(idle)}, counts


def behaviours(at, read_out, suite, identity, address):
    """Gates of the behaviours: (suite without those left out, {key: reason}, rows, results with Missing in them).

    at: lib.stage.Opened; identity of the work units, which every rank needs to know what it extracts"""
    formats = sorted({b["format"] for b in suite.behaviours})
    by_name = {b["name"]: b for b in suite.behaviours}
    rows = [row("format", fmt, "letters", mass, mass >= propensity.LEAST_MASS[suite.profile])
            for fmt, mass in (read_out.mass.items() if read_out else ())]
    if not formats:
        return suite, {}, rows, Missing("no behaviour can be asked")

    def unit(key):
        kind, name = key.split("/", 1)
        return look_up(at.lm, read_out, suite, name) if kind == "format" else \
            persona(at.lm, read_out, suite, by_name[name])

    keys = [*(f"format/{fmt}" for fmt in formats), *(f"behaviour/{name}" for name in by_name)]
    done = work.units(at.out, identity, keys, unit, "01 gates")
    looked = dict.fromkeys(fields.FIELDS["behaviour"]["format"], Missing("no such behaviour is asked"))
    gaps, letters = {}, {}
    for i, fmt in enumerate(formats):
        right = done[f"format/{fmt}"]["right"]
        looked[fmt] = estimator("items", [*address, 0])(i, right) if len(right) else Missing(
            "no item shows two options that can be told apart")
        rows.append(row("format", fmt, "look-up", looked[fmt], above(looked[fmt], 0.5)))
    for i, name in enumerate(by_name):
        found, over = done[f"behaviour/{name}"], estimator("contents", [*address, 1, i])
        gaps[name], letters[name] = (over(tag, found[part], clusters=found["contents"])
                                     for tag, part in enumerate(("gap", "letter")))
        rows += [row("behaviour", name, "persona", gaps[name], above(gaps[name])),
                 row("behaviour", name, "letter", letters[name], None)]
    (left, counts), over = settle(gaps), estimator("behaviours", [*address, 2])
    results = {"lookup": looked, "letter": over(0, [abs(found["value"]) for found in letters.values()]),
               "persona": {"gap": over(1, [gap["value"] for gap in gaps.values()]), **counts}}
    if suite.profile == "smoke" or not left:
        return suite, {}, rows, results
    kept = [b for name, b in by_name.items() if name not in left]
    reasons = {f"behaviours.{name}": reason for name, reason in left.items()} if kept else {
        "behaviours": next(iter(left.values()))}
    return replace(suite, behaviours=kept), reasons, rows, results


def testable(suite, extract):
    """(suite with the behaviours of which stage 01, its Artifact, has vectors, {key: reason} of the others)."""
    kept = [b for b in suite.behaviours if b["name"] not in extract.config["left_out"]]
    return replace(suite, behaviours=kept), {key: reason for key, reason in extract.results["not_testable"].items()
                                             if key.split(".")[0] == "behaviours"}


# --- traits, relations (stage 01), values (stage 02) ----------------------------------------------------------
def expression(jobs, answers, address):
    """{trait: estimate over pairs of what the instruction adds, or Missing}; jobs and answers of stage 01, positive
    and negative side by side, kept or not."""
    gaps = {}
    for job, *pair in zip(jobs[::2], answers[::2], answers[1::2]):
        name, = job["traits"]
        gaps.setdefault(name, []).append([answer["expression"][name] for answer in pair])
    found = {}
    for i, (name, pairs) in enumerate(gaps.items()):
        both = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
        found[name] = estimator("pairs", [*address, i])(0, both[:, 0] - both[:, 1]) if len(both) > 1 else Missing(
            f"the judge gave no usable score to {len(pairs) - len(both)} of {len(pairs)} pairs")
    return found


def traits(suite, jobs, answers, refused, least, address):
    """({name: row of traits.json}, {name: indices of kept answers}, {name: `expression` of those asked}) of stage 01.

    answers carry "dropped"; refused {name: reason}: a judge in words that failed its calibration; least: pairs"""
    table = {t["name"]: {"name": t["name"], "n_asked": 0, "n_pairs": 0, "dropped": {}} for t in suite.traits}
    kept, raised = {}, expression(jobs, answers, address)
    for i in range(0, len(jobs), 2):
        (name,), reason = jobs[i]["traits"], answers[i]["dropped"]
        table[name]["n_asked"] += 1
        if reason is None:
            table[name]["n_pairs"] += 1
            kept.setdefault(name, []).extend((i, i + 1))
        else:
            table[name]["dropped"][reason] = table[name]["dropped"].get(reason, 0) + 1
    for name, row in table.items():
        gap = raised.get(name, Missing(refused.get(name, "the judge cannot score it")))
        row["extractable"] = row["n_pairs"] >= least and (above(gap) or suite.profile == "smoke")
        told = gap if isinstance(gap, Missing) else (f"the instruction raises it by {gap['value']:.1f} points, "
                                                     f"[{gap['low']:.1f}, {gap['high']:.1f}]")
        asked = f"{row['n_pairs']} of {row['n_asked']} pairs kept, {least} needed; " if row["n_asked"] else ""
        row["reason"] = None if row["extractable"] else asked + told
    return table, kept, raised


def over(unit, found, address):
    """Estimate of the mean over {name: estimate or Missing}, of those that are there; Missing where none is."""
    kept = [each["value"] for each in found.values() if not isinstance(each, Missing)]
    return estimator(unit, address)(0, kept) if kept else Missing(f"there is none of the {unit}")


def lists(names, right, chance, address):
    """(rows, {relation: estimate}) of what clean lists gain over chance; right (list, [clean, shuffled]), chance
    (list,) per relation."""
    found = {name: estimator("lists", [*address, i])(0, got[:, 0] - luck)
             for i, (name, got, luck) in enumerate(zip(names, right, chance))}
    rows = [row("relation", name, "lists", gain, above(gain)) for name, gain in found.items()]
    return rows, {"antonym": Missing("the suite has no antonyms")} | found


def values(names, odds, known, fact_loss, address):
    """(rows, results) of the facts known (fact,) bool and of the unsteered log-odds, one (probe,) per value.

    fact_loss: share of the facts that a setting may cost; who knows less has nothing to lose"""
    facts = estimator("facts", [*address, 0])(0, known)
    lean = {name: estimator("probes", [*address, 1, i])(0, np.abs(each))
            for i, (name, each) in enumerate(zip(names, odds))}
    return [row("facts", "facts", "known", facts, above(facts, fact_loss)),
            *(row("value", name, "lean", found, above(found, LEAST_LEAN)) for name, found in lean.items())], {
        "facts": facts, "lean": lean}
