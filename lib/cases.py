"""Cases: one text each, generated under one steering row and scored for the traits in question.

A *job* is {"record": what identifies the case, "prompt": token ids, "row": steering row, "item": the task
item, "traits": names to score}. A *case* is the job's record plus "output", "expression" {trait: 0-100 or None}
and "coherence" (0-100 or None); None where the judge gave no usable score.
"""
import numpy as np

from lib import engine, work

SHARD = 512               # texts per work unit: one large generate call, and the most that a killed run loses


def signature(job):
    """What decides the text of a job: prompt tokens, and layer and exact vector of every part of the row."""
    row = tuple((layer, np.asarray(v, np.float32).tobytes()) for layer, v in job["row"])
    return tuple(job["prompt"]), row


def run(lm, judge, jobs, max_new_tokens, out, identity, desc, first_token=True):
    """Cases of all jobs, in job order; jobs with equal signatures share one text.

    max_new_tokens int; out, identity, desc as in lib.work.units; first_token as in lib.engine.generate."""
    sharing = {}
    for index, job in enumerate(jobs):
        sharing.setdefault(signature(job), []).append(index)
    texts = list(sharing.values())        # indices of the jobs that share each text
    shards = {f"{desc} {start}": texts[start:start + SHARD] for start in range(0, len(texts), SHARD)}

    def unit(key):
        first = [jobs[indices[0]] for indices in shards[key]]
        found = engine.generate(lm, [job["prompt"] for job in first], [job["row"] for job in first],
                                max_new_tokens, first_token=first_token)
        return {"cases": [[score(judge, jobs[i], text) for i in indices]
                          for indices, text in zip(shards[key], found)]}

    done = work.units(out, identity, list(shards), unit, desc)
    cases = [None] * len(jobs)
    for key, part in shards.items():
        for indices, found in zip(part, done[key]["cases"]):
            for i, case in zip(indices, found):
                cases[i] = {**jobs[i]["record"], **case}
    return cases


def score(judge, job, text):
    """Output and scores of one job; coherence is the mean over the calls that gave a number."""
    scores = {trait: judge.score(trait, job["item"], text) for trait in job["traits"]}
    coherence = [c for _, c in scores.values() if c is not None]
    return {"output": text, "expression": {trait: expression for trait, (expression, _) in scores.items()},
            "coherence": float(np.mean(coherence)) if coherence else None}


def number(score):
    """A judge's score as a float, None as nan, so that means can leave it out."""
    return np.nan if score is None else float(score)
