"""Judges: how strongly a text expresses a trait, and how coherent it is, both 0 to 100.

A judge has .name and .score(trait, item, text) -> (expression, coherence). The same judge and scale serve
every context that is compared: a gap between two scales is not a finding.
"""
import importlib
import math
from dataclasses import dataclass

from lib.artifacts import UserError


@dataclass(frozen=True)
class Rules:
    """The testbed's exact scorers: share of the places where a trait can show and does; words that parse,
    facts kept."""
    grammar: object              # module with expression(trait, text, item) and coherence(text, item)
    name: str = "rules"

    def score(self, trait, item, text):
        """(expression, coherence) of one answer; trait is a name, item a task item of the suite."""
        scores = float(self.grammar.expression(trait, text, item)), float(self.grammar.coherence(text, item))
        if not all(math.isfinite(score) and 0 <= score <= 100 for score in scores):
            raise ValueError(f"rules: {trait} on {item['id']} scored {scores}, outside 0..100")
        return scores


@dataclass(frozen=True)
class Nobody:
    """Stands in where a suite has no traits and nothing is ever judged."""
    name: str = "none"


def load(name, suite, lm=None):
    """The judge called `name`; None is the suite's own. UserError for an unknown one, or one that cannot
    judge it."""
    if name is None and not suite.traits:
        return Nobody()
    name = suite.judge if name is None else name
    if name != "rules":
        raise UserError(f"unknown judge {name!r}; there is: rules")
    if suite.judge != "rules":
        raise UserError(f"the judge rules scores the testbed's grammar alone; suite {suite.name} names "
                        f"{suite.judge!r}")
    return Rules(importlib.import_module("data.testbed"))
