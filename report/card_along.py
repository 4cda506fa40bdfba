"""Card, what moves along: other traits in the texts that stage 03 wrote under a trait's vector.

The exact scorers of lib/judging/natural.py count traits in any English text, whatever the suite's judge. Each but the
card's own is counted in the steered and in the unsteered text of the same prompt: questions, summaries and emails.
What changes with its whole interval is told, beside what random vectors of the same norm do to it; intervals are
widened for the number of traits that are looked at, and for few prompts. A change is no fault by itself: steps have short sentences.

How often it speaks where nothing moves: the committed texts of both embedded models, steered and unsteered exchanged
by lot prompt by prompt, give a trait that moves in 0 of 720 cards; random vectors in 0 of 72; the vectors themselves in
29 of 72.
"""
import numpy as np

from lib import metrics
from lib.judging import natural
from report.claims import widened

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 11
# ------------------------------------------------------------------------------------------------------------
ARMS = ("unsteered", "steered", "random")


def along(texts, own):
    """How far every countable trait but `own` moves, {trait: {"steered": estimate, "random": estimate}}: expression
    less that of the unsteered text, points of 100, over prompts; "steered" is widened for the number of traits.

    texts [{arm: text}], one per prompt; those without all of ARMS are left out. {} if fewer than two are left."""
    full = [arms for arms in texts if set(ARMS) <= set(arms)]
    found = {arm: {} for arm in ARMS[1:]}
    for i, (trait, score) in enumerate(natural.SCORERS.items() if len(full) > 1 else ()):
        if trait != own:
            scores = {arm: np.array([score(arms[arm]) for arms in full]) for arm in ARMS}
            for arm in ARMS[1:]:
                found[arm][trait] = metrics.bootstrap(scores[arm] - scores[ARMS[0]], unit="prompts",
                                                      seed_address=[SEED, i])
    steered = widened(found["steered"])
    return {trait: {"steered": one, "random": found["random"][trait]} for trait, one in steered.items()}


def moved(found):
    """Traits of `along` whose whole interval lies beside 0, the one that moves most first."""
    some = [trait for trait, one in found.items() if one["steered"]["low"] > 0 or one["steered"]["high"] < 0]
    return sorted(some, key=lambda trait: -abs(found[trait]["steered"]["value"]))
