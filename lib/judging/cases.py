"""Cases: one text each, generated under one steering row and scored for the traits in question.

A *job* is {"record": what identifies the case, "prompt": token ids, "row": steering row, "item": the task
item, "traits": names to score}. A *case* is the job's record plus "output", "expression" {trait: 0-100 or None}
and "coherence" (0-100 or None); None where the judge gave no usable score. A judge that is asked in words adds
"shares": of the probability, how much lay on usable answers (lib.judging.judges); on request there is also "preference"
{trait: -2 to 2 or None}.
"""
import numpy as np

from lib import engine, work
from lib.judging import judges

SHARD = 512               # texts per work unit: one large generate call, and the most that a killed run loses


def signature(job):
    """What decides the text of a job: prompt tokens, and layer and exact vector of every part of the row."""
    row = tuple((layer, np.asarray(v, np.float32).tobytes()) for layer, v in job["row"])
    return tuple(job["prompt"]), row


def shared(jobs):
    """[[index of a job, ...], ...]: jobs with equal signatures, which share one text."""
    groups = {}
    for index, job in enumerate(jobs):
        groups.setdefault(signature(job), []).append(index)
    return list(groups.values())


def make(lm, judge, jobs, max_new_tokens, first_token=True, prefer=False):
    """Outputs and scores of all jobs, in job order.

    max_new_tokens int; first_token as in lib.engine.generate; prefer=True: they carry the five-point scores too"""
    groups, texts = shared(jobs), [None] * len(jobs)
    first = [jobs[indices[0]] for indices in groups]
    found = engine.generate(lm, [job["prompt"] for job in first], [job["row"] for job in first], max_new_tokens,
                            first_token=first_token)
    for indices, text in zip(groups, found):
        for i in indices:
            texts[i] = text
    return score(judge, jobs, texts, prefer)


def run(lm, judge, jobs, max_new_tokens, out, identity, desc, first_token=True, prefer=False):
    """Cases of all jobs, in job order, made in work units of SHARD texts; out, identity, desc as in lib.work.units, the
    rest as in `make`."""
    groups, cases = shared(jobs), [None] * len(jobs)
    kind = f"{desc} with preferences" if prefer else desc
    shards = {f"{kind} {start}": sum(groups[start:start + SHARD], []) for start in range(0, len(groups), SHARD)}

    def unit(key):
        return {"cases": make(lm, judge, [jobs[i] for i in shards[key]], max_new_tokens, first_token, prefer)}

    done = work.units(out, identity, list(shards), unit, desc)
    for key, indices in shards.items():
        for i, case in zip(indices, done[key]["cases"]):
            cases[i] = {**jobs[i]["record"], **case}
    return cases


def asked(jobs, texts):
    """What a judge is asked about jobs and their texts: (trait, item, text) for every trait of every job."""
    return [(trait, job["item"], text) for job, text in zip(jobs, texts) for trait in job["traits"]]


def score(judge, jobs, texts, prefer=False):
    """Outputs and scores of jobs (see above) from one call of the judge; coherence is the mean over the traits
    for which it is a number."""
    triples = asked(jobs, texts)
    read = iter(judges.read(judge, triples))
    preferred = iter(judge.preferences(triples) if prefer and triples else ())
    cases = []
    for job, text in zip(jobs, texts):
        found = {trait: next(read) for trait in job["traits"]}
        coherence = [c for _, c, _ in found.values() if c is not None]
        case = {"output": text, "expression": {trait: shown for trait, (shown, _, _) in found.items()},
                "coherence": float(np.mean(coherence)) if coherence else None}
        shares = {trait: shares for trait, (_, _, shares) in found.items() if shares is not None}
        if shares:
            case["shares"] = {"expression": {trait: each["expression"] for trait, each in shares.items()},
                              "coherence": next(iter(shares.values()))["coherence"]}
        if prefer:
            case["preference"] = {trait: next(preferred) for trait in job["traits"]}
        cases.append(case)
    return cases


def number(score):
    """A judge's score as a float, None as nan, so that means can leave it out."""
    return np.nan if score is None else float(score)
