"""Card, what moves along: other traits in the texts that stage 03 wrote under a trait's vector.

The exact scorers of lib/judging/natural.py count traits in any English text, whatever the suite's judge. Each but the
card's own is counted in the steered and in the unsteered text of the same prompt: questions, summaries and emails.
What changes with its whole interval is told, if it differs so from what random vectors of the same norm do to it as well;
intervals are widened for the number of traits that are looked at, and for few prompts. A change is no fault by itself:
steps have short sentences.

How often it speaks where nothing moves: the committed texts of both embedded models, steered and unsteered exchanged
by lot prompt by prompt, give a trait that moves in 0 of 360 cards; steered and random ones, in 0 of 360; the vectors
themselves in 24 of 72.
"""
import numpy as np

from lib import metrics
from lib.judging import natural
from report.card_read import clear
from report.claims import widened

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 11
# ------------------------------------------------------------------------------------------------------------
ARMS = ("unsteered", "steered", "random")
LESS = {"steered": ("steered", "unsteered"), "over_random": ("steered", "random")}


def along(texts, own):
    """How far every countable trait but `own` moves, {trait: {"steered", "over_random"}}: estimates of the expression less
    that of the unsteered text, and less that under a random vector, points of 100, over prompts; widened for the number
    of traits.

    texts [{arm: text}], one per prompt; those without all of ARMS are left out. {} if fewer than two are left."""
    full = [arms for arms in texts if set(ARMS) <= set(arms)]
    found = {what: {} for what in LESS}
    for i, (trait, score) in enumerate(natural.SCORERS.items() if len(full) > 1 else ()):
        if trait != own:
            scores = {arm: np.array([score(arms[arm]) for arms in full]) for arm in ARMS}
            for what, (arm, other) in LESS.items():
                found[what][trait] = metrics.bootstrap(scores[arm] - scores[other], unit="prompts", seed_address=[SEED, i])
    wide = {what: widened(some) for what, some in found.items()}
    return {trait: {what: wide[what][trait] for what in LESS} for trait in wide["steered"]}


def moved(found):
    """Traits of `along` that move to one side of the unsteered and of the random texts, the one that moves most first."""
    some = [trait for trait, one in found.items() if clear(one["steered"]) == clear(one["over_random"]) != 0]
    return sorted(some, key=lambda trait: -abs(found[trait]["steered"]["value"]))
