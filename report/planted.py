"""Planted truth: for a claim, results in which it is true (size 1) or false (size 0), without a model."""
from typing import Callable, NamedTuple


class Planted(NamedTuple):
    """What is planted, in words; make(seed, size) gives {stage: results} through the stages' own conclusions."""
    what: str
    make: Callable
