"""Planted: synthetic data of known truth, run through the functions that the stages conclude with.

PLANTED of report/planted_<study>.py is {claim: Planted(what, make)}; make(seed, size) -> {stage: results}. At size 1 the
effect is there as `what` says, at size 0 the claim is false.
"""
from typing import Callable, NamedTuple


class Planted(NamedTuple):
    what: str
    make: Callable
