"""A judge in words is calibrated before it is used: does it tell a text that shows a trait from one that does not, and
language from its words in another order?

Per trait of data/calibration.json, all as answers to one question: a text that shows the trait, one that does not
(where plain text could be taken for the trait), two plain paragraphs, and the words of the first text shuffled. A judge
that rates everything alike, however high, fails here; one that counts has its own tests and is not asked.
"""
from collections import Counter

import numpy as np

from lib import metrics, work
from lib.artifacts import UserError, read_json
from lib.judging import judges, natural
from lib.metrics import Missing, estimator

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 9
CALIBRATED = 25           # points that a trait makes in expression, and shuffling in coherence
MOST_FAILED = 0.5         # share of the traits; a judge that fails on more is refused for all
# ------------------------------------------------------------------------------------------------------------


def applies(judge):
    """Whether a judge is asked in words."""
    return isinstance(judge, judges.Words) and judge.ask is not None


def texts(path):
    """data/calibration.json: {"question", "neutral": [text, text], "traits": {name: {"positive", some "negative"}}}.
    UserError for another form."""
    found = read_json(path)
    good = isinstance(found, dict) and {"question", "neutral", "traits"} <= set(found) and found["neutral"]
    if not good or not all("positive" in each for each in found["traits"].values()):
        raise UserError(f"{path}: expected question, neutral, and traits with a positive text each")
    return found


def shuffled(text, address):
    """The words of a text in another order, in one line."""
    words = text.split()
    return " ".join(words[i] for i in np.random.default_rng(address).permutation(len(words)))


def ask(judge, traits, known):
    """{name: {"positive", "negative", "neutral", "shuffled": [[expression, coherence], ...]}} of the records in
    `traits` that have texts in `known` or of their own; "negative" holds the plain texts where there is no other."""
    found = {}
    item = {"id": "calibration", "task": "question", "prompt": known["question"]}
    asked = []
    for i, trait in enumerate(traits):
        mine = known["traits"].get(trait["name"]) or trait.get("calibration")
        if mine:
            against = [mine["negative"]] if "negative" in mine else known["neutral"]
            parts = {"positive": [mine["positive"]], "negative": against, "neutral": known["neutral"],
                     "shuffled": [shuffled(mine["positive"], [SEED, i])]}
            asked += [(trait, part, text) for part, some in parts.items() for text in some]
    scores = judge.read([(trait, item, text) for trait, _, text in asked])
    for (trait, part, _), (expression, coherence, _) in zip(asked, scores):
        found.setdefault(trait["name"], {}).setdefault(part, []).append([expression, coherence])
    return found


def decide(name, scores):
    """Row of calibration.json from the scores of one trait (see `ask`), or None where it has no texts.

    gap     expression of the positive text less the highest of those against it, points; None without usable scores
    drop    coherence of the plain texts less that of the shuffled one, points, or None
    reason  why the trait is refused, or None"""
    if scores is None:
        return {"name": name, "gap": None, "drop": None, "passed": False, "scores": {},
                "reason": "no text for calibration shows it"}
    told = [score for part in scores.values() for pair in part for score in pair]
    (shown, _), = scores["positive"]
    (_, broken), = scores["shuffled"]
    gap = drop = reason = None
    if None in told:
        reason = f"the judge gives no usable score to {told.count(None)} of {len(told)} questions"
    else:
        against, plain = max(e for e, _ in scores["negative"]), float(np.mean([c for _, c in scores["neutral"]]))
        gap, drop = shown - against, plain - broken
        if gap < CALIBRATED:
            reason = (f"the judge gives {shown:.0f} of 100 to a text that shows it and {against:.0f} to one that "
                      f"does not, {CALIBRATED} points apart are needed")
        elif drop < CALIBRATED:
            reason = (f"the judge gives a coherence of {plain:.0f} of 100 to plain text and {broken:.0f} to shuffled "
                      f"words, {CALIBRATED} points apart are needed")
    return {"name": name, "gap": gap, "drop": drop, "passed": reason is None, "scores": scores, "reason": reason}


def settle(rows, judge):
    """{trait: reason} of the traits for which a judge, by name, is refused."""
    failed = {row["name"]: row["reason"] for row in rows if row["reason"]}
    if len(failed) <= MOST_FAILED * len(rows):
        return failed
    whole = f"{judge} fails its calibration on {len(failed)} of {len(rows)} traits"
    return {row["name"]: "; ".join(filter(None, (whole, row["reason"]))) for row in rows}


def check(judge, suite, path, out, identity, address):
    """(rows, {trait: reason} of those refused, results with Missing in them) of the traits that a judge can score.

    path: of the texts; out, identity as in lib.work.units. The smoke profile refuses none."""
    traits = [trait for trait in suite.traits if judges.can(judge, trait["name"])]
    if not traits or not applies(judge):
        return [], {}, Missing("no judge is asked in words")
    known = texts(path)
    scores = work.units(out, identity, ["calibration"], lambda _: {"scores": ask(judge, traits, known)}, "01 judge")
    rows = [decide(trait["name"], scores["calibration"]["scores"].get(trait["name"])) for trait in traits]
    over, results = estimator("traits", address), {}
    for tag, part in enumerate(("gap", "drop")):
        found = [row[part] for row in rows if row[part] is not None]
        commonest = Counter(row["reason"] for row in rows if row[part] is None).most_common(1)
        results[part] = over(tag, found) if found else Missing(commonest[0][0])
    results["passed"] = over(2, [row["passed"] for row in rows])
    return rows, {} if suite.profile == "smoke" else settle(rows, judge.name), results


def agreement(judge, answers, address):
    """Spearman, over the texts of stage 01, of a judge's expression with what can be counted exactly, or Missing."""
    both = []
    for answer in answers if applies(judge) else ():
        (name, shown), = answer["expression"].items()
        if name in natural.SCORERS and shown is not None:
            both.append((shown, natural.expression(name, answer["output"])))
    x, y = np.array(both, float).reshape(-1, 2).T
    if len(both) < judges.LEAST_AGREED or not np.ptp(x) or not np.ptp(y):
        return Missing(f"{len(both)} texts that a judge in words has scored and that can be counted, or all alike")
    return metrics.bootstrap_corr(x, y, unit="texts", seed_address=address)
