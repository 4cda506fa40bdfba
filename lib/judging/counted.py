"""Counted: a judge for any English text that asks nobody.

    expression   what lib.judging.natural counts; None for a trait that cannot be counted
    coherence    how far the text lies outside what the same model writes to the same task unsteered
                 (lib.judging.fluency): its perplexity there, repetition, words, letters

The unsteered texts are the model's answers to the tune split, made when they are first needed.
"""
import numpy as np

from lib import engine, suite as suites
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
        self.lm, self.suite, self.known = lm, suite, {}

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

    def reference(self, task):
        """What the model writes to one task unsteered, as lib.judging.fluency.Reference. UserError if that is too
        little to compare with."""
        if task not in self.known:
            items = suites.tasks(self.suite, task, "tune")[:N_REFERENCE]
            prompts = [self.lm.chat(self.suite.system, item["prompt"]) for item in items]
            texts = engine.generate(self.lm, prompts, [()] * len(items), self.suite.max_new_tokens)
            nats = self.nats(list(zip(items, texts)))
            kept = np.isfinite(nats)
            self.known[task] = fluency.Reference.of([t for t, good in zip(texts, kept) if good], nats[kept])
        return self.known[task]
