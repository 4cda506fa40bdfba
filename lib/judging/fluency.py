"""Coherence without a judge: how far a text lies outside what the same model writes unsteered, 0 to 100.

Seven numbers describe a text, none of which takes an opinion. Each is held to its distribution over unsteered texts
of the same model and task: 100 within the LOW and HIGH quantiles, from there falling in a straight line, to 0 at the
distance that PARTS names or at twice the width of the band, whichever is more. The score is the lowest of the parts:
a text that loops is likely word by word, so a good perplexity must not make up for it.

    ref = Reference.of(unsteered_texts, unsteered_nats)
    ref.score(text, nats)                 ref.parts(text, nats)

Such a score sees broken language. It does not see a fluent text that says nothing, or the wrong thing.
"""
import re
from dataclasses import dataclass

import numpy as np

from lib.artifacts import UserError
from lib.judging.prose import EMOJI, FUNCTION, words

# --- settings that change a score ---------------------------------------------------------------------------
LOW, HIGH = 0.05, 0.95    # quantiles of the unsteered texts between which a text scores 100
LEAST = 5                 # unsteered texts, below which those quantiles mean nothing
# part: (side that is bad, distance at which nothing is left, observations that the unsteered median counts for:
#        a share of few words is mostly chance)
PARTS = {"perplexity": ("above", 5.0, 0),     # nats per token under the unsteered model; a factor of 150
         "repetition": ("above", 0.3, 0),     # share of 3-, 4- and 5-grams of words that occurred before
         "runs": ("above", 0.15, 0),          # share of words and characters in runs of one and the same
         "function": ("both", 0.25, 10),      # share of words that are among the commonest function words
         "order": ("above", 0.25, 5),         # share of articles and prepositions before what cannot follow one
         "wordlike": ("below", 0.25, 5),      # share of words that could be English: Latin letters with a vowel
         "prose": ("below", 0.25, 20)}        # share of characters that belong to English prose, emojis included
# ------------------------------------------------------------------------------------------------------------
ARTICLES = frozenset("a an the my your our their".split())
PREPOSITIONS = frozenset("of from with at for into between during".split())
CLOSED = frozenset("""a an the my your our their of from with at for into to and or but because than is are was were
 be am has have had do does did will would can could should may might must he she they we i who whom which if in on by
 as it's i'm don't not that so""".split())
AFTER_PREPOSITION = frozenset("""of and or but because than is are was were am do does did would could must he she we
 i""".split())
VOWEL = re.compile(r"[aeiouyàâäáèéêëìíîïòóôöùúûü]", re.I)
PROSE = re.compile(rf"[A-Za-z0-9\s.,;:!?'\"()\[\]*#&@%$£€/_+=<>|~^`{{}}\\…–—‘’“”•-]|[À-ÖØ-öø-ÿ]|{EMOJI}")
TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?]")


def wordlike(word):
    """Could this be an English word, an initial or an acronym?"""
    if len(word) == 1 or word.isupper() and len(word) <= 5:
        return bool(re.match(r"[A-Za-z]", word))
    return (bool(re.fullmatch(r"[A-Za-zÀ-ÖØ-öø-ÿ'’-]{1,20}", word)) and bool(VOWEL.search(word))
            and not re.search(r"[a-z][A-Z].*[a-z][A-Z]|[bcdfghjklmnpqrstvwxz]{6}", word))


def measures(text):
    """{part: (share, number of observations)} of `text`, for all parts of PARTS but perplexity. ValueError if it has
    no words."""
    own = [w.lower() for w in words(text)]
    if not own:
        raise ValueError("a text without words has no measures")
    grams = [[tuple(own[i:i + n]) for i in range(len(own) - n + 1)] for n in (3, 4, 5)]
    repeated = [1 - len(set(g)) / len(g) for g in grams if g]
    same = sum(len(m[0].split()) for m in re.finditer(r"\b(\S+)(?: \1\b){2,}", " ".join(own))) / len(own)
    solid = re.sub(r"\s", "", text)
    drawn = sum(len(m[0]) for m in re.finditer(r"([^-=_.*#|])\1{4,}", solid)) / len(solid)
    tokens = [t.lower().replace("’", "'") for t in TOKEN.findall(text)]
    heads = [(a, b) for a, b in zip(tokens, tokens[1:] + ["."]) if a in ARTICLES or a in PREPOSITIONS]
    bad = sum(b in CLOSED or not b[0].isalnum() if a in ARTICLES else b in AFTER_PREPOSITION or b in ",;"
              for a, b in heads)
    alphabetic = [t for t in TOKEN.findall(text) if t[0].isalpha()]
    good = sum(map(wordlike, alphabetic))
    return {"repetition": (float(np.mean(repeated)) if repeated else 0.0, len(own)),
            "runs": (max(same, drawn), len(own)),
            "function": (sum(w in FUNCTION for w in own) / len(own), len(own)),
            "order": (bad / max(1, len(heads)), len(heads)),
            "wordlike": (good / max(1, len(alphabetic)), len(alphabetic)),
            "prose": (sum(len(m[0]) for m in PROSE.finditer(text)) / len(text), len(text))}


@dataclass(frozen=True)
class Reference:
    """Quantiles of the parts over unsteered texts: bands {part: (low, median, high)}; made by `of`."""
    bands: dict

    @classmethod
    def of(cls, texts, nats=None):
        """texts  unsteered answers of one model to one task; those without a word are left out, with their nats
        nats   (N,) their mean nats per token under the unsteered model; None: there is no part perplexity
        UserError for fewer than LEAST texts with words or for nats that are not finite, ValueError if there are not
        as many nats as texts."""
        if nats is not None and len(nats) != len(texts):
            raise ValueError(f"{len(texts)} texts, but {len(nats)} perplexities")
        kept = [i for i, text in enumerate(texts) if words(text)]
        if len(kept) < LEAST:
            raise UserError(f"fluency: {len(kept)} unsteered texts with words, a reference needs {LEAST}")
        found = [measures(texts[i]) for i in kept]
        values = {part: [m[part][0] for m in found] for part in found[0]}
        if nats is not None:
            values = {"perplexity": [float(nats[i]) for i in kept], **values}
            if not np.isfinite(values["perplexity"]).all():
                raise UserError("fluency: the perplexities of the unsteered texts are not all finite")
        return cls({part: tuple(np.quantile(x, (LOW, 0.5, HIGH)).tolist()) for part, x in values.items()})

    def parts(self, text, nats=None):
        """{part: score 0 to 100} of a text; {} if it has no words. nats: its mean nats per token under the unsteered
        model, needed if the reference has some (ValueError); one that is not finite scores 0."""
        if not words(text):
            return {}
        found = measures(text)
        if "perplexity" in self.bands:
            if nats is None:
                raise ValueError("the reference has perplexities, the text has none")
            found["perplexity"] = (float(nats), 1)
        out = {}
        for part, (low, middle, high) in self.bands.items():
            (x, n), (side, zero, prior) = found[part], PARTS[part]
            x = (x * n + middle * prior) / (n + prior) if n + prior else middle
            outside = max(low - x if side != "above" else 0.0, x - high if side != "below" else 0.0, 0.0)
            out[part] = max(0.0, 100.0 * (1 - outside / max(zero, 2 * (high - low)))) if np.isfinite(x) else 0.0
        return out

    def score(self, text, nats=None):
        """Coherence of a text, 0 to 100: the lowest of its parts; 0 if it has no words."""
        return min(self.parts(text, nats).values(), default=0.0)
