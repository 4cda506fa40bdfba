"""Cases: one text each, generated under one steering row and scored for the traits in question.

A *job* is {"record": what identifies the case, "prompt": token ids, "row": steering row, "item": the task
item, "traits": names to score}. A *case* is the job's record plus "output", "expression" {trait: 0-100 or None}
and "coherence" (0-100 or None); None where the judge gave no usable score. A judge that is asked in words adds
"shares": of the probability, how much lay on usable answers (lib.judging.judges); on request there is also
"preference" {trait: -2 to 2 or None}.
"""
import numpy as np

from lib import engine, work
from lib.judging import judges

SHARD = 512               # texts per work unit: one large generate call, and the most that a killed run loses
CPU_SHARD = 5e10          # weights times texts per work unit on a CPU, which takes minutes


def shared(jobs):
    """[[index of a job, ...], ...]: jobs that share one text, which prompt tokens and, for every part of the row,
    layer and exact vector decide."""
    groups = {}
    for index, job in enumerate(jobs):
        row = tuple((layer, np.asarray(v, np.float32).tobytes()) for layer, v in job["row"])
        groups.setdefault((tuple(job["prompt"]), row), []).append(index)
    return list(groups.values())


def make(lm, judge, jobs, max_new_tokens, first_token=True, prefer=False):
    """Outputs and scores of all jobs, in job order.

    max_new_tokens int; first_token as in lib.engine.generate; prefer=True: they carry the five-point scores too"""
    groups = shared(jobs)
    first = [jobs[indices[0]] for indices in groups]
    found = engine.generate(lm, [job["prompt"] for job in first], [job["row"] for job in first], max_new_tokens,
                            first_token=first_token)
    texts = {i: text for indices, text in zip(groups, found) for i in indices}
    return score(judge, jobs, [texts[i] for i in range(len(jobs))], prefer)


def shard(lm):
    """Texts per work unit: fewer of a large model on a CPU, so that processes share them and a kill loses minutes."""
    fits = CPU_SHARD / sum(weight.numel() for weight in lm.model.parameters()) if lm.device.type == "cpu" else SHARD
    return max(1, min(SHARD, int(fits)))


def run(lm, judge, jobs, max_new_tokens, out, identity, desc, first_token=True, prefer=False):
    """Cases of all jobs, in job order, made in work units of `shard` texts; out, identity, desc as in lib.work.units,
    the rest as in `make`."""
    groups, kind, size = shared(jobs), f"{desc} with preferences" if prefer else desc, shard(lm)
    shards = {f"{kind} {start}": sum(groups[start:start + size], []) for start in range(0, len(groups), size)}

    def unit(key):
        return {"cases": make(lm, judge, [jobs[i] for i in shards[key]], max_new_tokens, first_token, prefer)}

    done = work.units(out, identity, list(shards), unit, desc)
    cases = {i: jobs[i]["record"] | case for key in shards for i, case in zip(shards[key], done[key]["cases"])}
    return [cases[i] for i in range(len(jobs))]


def score(judge, jobs, texts, prefer=False):
    """Outputs and scores of jobs (see above) from one call of the judge; coherence is the mean over the traits for
    which it is a number."""
    asked = [(trait, job["item"], text) for job, text in zip(jobs, texts) for trait in job["traits"]]
    read, preferred = iter(judge.read(asked)), iter(judge.preferences(asked) if prefer else ())
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
