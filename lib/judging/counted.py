"""Counted: a judge for any English text that asks nobody.

    expression   what lib.judging.natural counts; None for a trait that cannot be counted
    coherence    how far the text lies outside what the same model writes to the same task unsteered
                 (lib.judging.fluency): its perplexity there, repetition, words, letters

The unsteered texts are the model's answers to the tune split. Stage 01 writes them (`refer`), so that all stages and
processes have the same; what it has not written is made when it is first needed.
"""
import numpy as np

from lib import engine, suite as suites, work
from lib.judging import fluency, natural

N_REFERENCE = 24          # unsteered texts per task


def preferred(found):
    """Preference from what a counting judge read: expression 0 is 0, below 50 is 1, from 50 on 2. A count of hits
    knows no contradiction, so there is no negative score."""
    return [None if shown is None else 0 if shown == 0 else 1 if shown < 50 else 2 for shown, *_ in found]


class Counted:
    """A judge as lib.judging.judges has them, of one model and suite."""
    name = "rules"

    def __init__(self, lm, suite):
        self.lm, self.suite, self.known, self.texts = lm, suite, {}, {}           # known, texts: by task

    def can(self, trait):
        return trait in natural.SCORERS

    def read(self, asked):
        texts = {(item["id"], text): item for _, item, text in asked}
        nats = self.nats([(item, text) for (_, text), item in texts.items()])
        coherent = {key: self.reference(item["task"]).score(key[1], n) for (key, item), n in zip(texts.items(), nats)}
        names = [trait["name"] if isinstance(trait, dict) else trait for trait, _, _ in asked]
        return [(natural.expression(name, text) if self.can(name) else None, coherent[item["id"], text], None)
                for name, (_, item, text) in zip(names, asked)]

    def preferences(self, asked):
        return preferred(self.read(asked))

    def nats(self, told):
        """(n,) mean nats per token of [(item, text)] behind the item's prompt, unsteered; nan without a token."""
        prompts = [self.lm.chat(self.suite.system, item["prompt"]) for item, _ in told]
        room = [(self.lm.max_tokens or 2**31) - len(prompt) for prompt in prompts]
        answers = [self.lm.tokens(text)[:most] for (_, text), most in zip(told, room)]
        some, out = [i for i, answer in enumerate(answers) if answer], np.full(len(told), np.nan)
        if some:
            found = engine.sequence_logprob(self.lm, [prompts[i] for i in some], [answers[i] for i in some], [()])
            out[some] = -found[:, 0] / [len(answers[i]) for i in some]
        return out

    def items(self, task):
        return suites.tasks(self.suite, task, "tune")[:N_REFERENCE]

    def write(self, task):
        """[text, ...]: the model's unsteered answers to `items`."""
        prompts = [self.lm.chat(self.suite.system, item["prompt"]) for item in self.items(task)]
        return engine.generate(self.lm, prompts, [()] * len(prompts), self.suite.max_new_tokens)

    def reference(self, task):
        """What the model writes to one task unsteered, as lib.judging.fluency.Reference. UserError if that is too
        little to compare with."""
        if task not in self.known:
            texts = self.texts.get(task) or self.write(task)
            nats = self.nats(list(zip(self.items(task), texts)))
            kept = np.isfinite(nats)
            self.known[task] = fluency.Reference.of([t for t, good in zip(texts, kept) if good], nats[kept])
        return self.known[task]


def refer(judge, tasks, out, identity):
    """Have the unsteered texts of some tasks written, a work unit each (out, identity as in lib.work.units), where the
    judge is one that counts."""
    if isinstance(judge, Counted) and tasks:
        done = work.units(out, identity, [f"reference {task}" for task in tasks],
                          lambda key: {"texts": judge.write(key.removeprefix("reference "))}, "01 reference")
        judge.texts |= {task: done[f"reference {task}"]["texts"] for task in tasks}


def references(judge):
    """Those texts as records of a table; [] where there are none."""
    return [{"task": task, "item": item["id"], "output": text} for task, texts in getattr(judge, "texts", {}).items()
            for item, text in zip(judge.items(task), texts)]


def take(judge, extract):
    """Give a judge that counts the texts that stage 01, its Artifact, has written."""
    if isinstance(judge, Counted) and "reference.jsonl" in extract.manifest["outputs"]:
        for row in extract.table("reference.jsonl"):
            judge.texts.setdefault(row["task"], []).append(row["output"])
