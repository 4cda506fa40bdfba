"""Strength: one unit of steering for all layers, concepts and models.

    unit_norm[l]   norm at which random vectors, added at layer l, move the next token by KL_UNIT nats
    strength     = ||coefficient * v[l]|| / unit_norm[l]

A share of the residual stream's norm is no such unit: where a few dimensions hold most of the norm (Sun et al. 2024,
arXiv 2402.17762) and later blocks normalise, the same share moves one model hardly and breaks another. What a random
vector of a norm does is a property of model, layer and kind of text, not of a concept, and says nothing on whether a
concept steers.
"""
import numpy as np

from lib import engine, metrics, suite as suites
from lib.studies import propensity

# --- settings that change the numbers -----------------------------------------------------------------------
# Mean KL(unsteered || steered) of the next token at strength 1, nats. So small that KL still goes with the square of
# the norm, and another choice would rescale all layers alike; so large that what is measured is no rounding. It moves at
# most sqrt(KL / 2) = 16 % of the probability to other tokens (Pinsker).
KL_UNIT = 0.05
SHARES = tuple(1.6 / 4.0 ** k for k in range(6, -1, -1))       # norms tried, as shares of the residual stream's
N_PROMPTS = {"full": 8, "quick": 4, "smoke": 4}      # tuning prompts per kind of text
N_RANDOM = {"full": 4, "quick": 2, "smoke": 2}       # random directions per layer, each at every share
# ------------------------------------------------------------------------------------------------------------


def config(profile):
    """What of it decides numbers."""
    return {"kl": KL_UNIT, "shares": SHARES, "n_prompts": N_PROMPTS[profile], "n_random": N_RANDOM[profile]}


def prompts(lm, suite, read_out, n):
    """{"" chat, "_raw" raw text: [(token ids, how many at the end are steered)]} of the tuning split, `n` at most; a
    kind without prompts is left out.

    Chat prompts are half questions of the traits, half items of the behaviours up to the letter; raw ones are queries
    of the relations in template 0, or the values' probes in a suite without relations."""
    asked = [(lm.chat(suite.system, item["prompt"]), 1)
             for item in (suites.tasks(suite, "question", "tune") if suite.traits else [])]
    chosen = [(*propensity.ask(lm, read_out, suite, behaviour, [item])[0], read_out.suffix)
              for fmt in sorted({b["format"] for b in suite.behaviours})
              for behaviour, item in propensity.sample(suite, fmt)]
    texts = [suite.templates[0]["query"].format(x=x) for relation in suite.relations
             for x, _ in suites.relation_split(relation, "tune")]
    texts = texts or [probe.get("prompt") or probe["positive_text"] for value in suite.values
                      for probe in suites.probe_split(value["probes"], "tune")]
    half = n // 2 if asked and chosen else n
    found = {"": spread(asked, half) + spread(chosen, half), "_raw": spread([(lm.encode(t), 1) for t in texts], n)}
    return {kind: these for kind, these in found.items() if these}


def spread(things, n):
    """`n` of the things at most, evenly spaced."""
    return [things[i] for i in np.unique(np.linspace(0, len(things) - 1, n).round().astype(int))] if things else []


def curve(lm, prompts, norms, n_random, address):
    """(layer, share, vector) float32 nats: KL(unsteered || steered) under random vectors, mean over prompts.

    prompts  as `prompts` gives them for one kind; norms (layer,) of the residual stream on this kind of text"""
    ids, suffixes = zip(*prompts)
    rows = [((l, share * v),) for l, norm in enumerate(norms) for vectors in
            [metrics.norm_matched_random(np.full(lm.d_model, norm / lm.d_model ** 0.5), n_random, [*address, l])]
            for share in np.float32(SHARES) for v in vectors]
    return engine.divergence(lm, ids, rows, suffixes).mean(axis=0).reshape(len(norms), len(SHARES), n_random)


def unit_norms(curves, norms, kl=KL_UNIT):
    """((layer,) float32 norms at which the mean over vectors reaches `kl`, (layer,) where that is: -1, 0 or 1).

    curves (layer, share, vector) nats; norms (layer,). Interpolated on logarithms, of the largest value so far, so
    that a curve that falls again has one crossing, the first. Below the first share (-1) KL goes with the square of
    the norm, as it does for small ones. Above the last (1) the unit is clamped to the last share."""
    found, where = [], []
    for rising in np.maximum.accumulate(np.asarray(curves, np.float64).mean(axis=2), axis=1):
        i = int(np.searchsorted(rising, kl))                       # the first share that reaches kl
        where.append(-1 if i == 0 else 1 if i == len(rising) else 0)
        if i == 0:
            found.append(SHARES[0] * np.sqrt(kl / rising[0]))
        elif i == len(rising):
            found.append(SHARES[-1])
        else:
            low, high = np.log(np.maximum(rising[i - 1:i + 1], 1e-12))
            found.append(SHARES[i - 1] * (SHARES[i] / SHARES[i - 1]) ** ((np.log(kl) - low) / (high - low)))
    return (np.array(found) * norms).astype(np.float32), np.array(where)


def scale(curves, residual):
    """What stage 02 makes of curves {"kl_curve" + kind: (layer, share, vector) nats} and of the residual stream's norms
    {kind: (layer,)}: ({kind: (2, layer) the unit's norms and the stream's, for `tuning.grid`}, results, arrays)."""
    scales, results, arrays = {}, {}, {}
    for kind, norms in residual.items():
        found = curves[f"kl_curve{kind}"]
        units, where = unit_norms(found, norms)
        scales[kind] = np.stack([units, norms])
        arrays |= {f"kl_curve{kind}": (found, ("layer", "share", "vector")),
                   f"unit_norm{kind}": (units, ("layer",))}
        results[{"": "chat", "_raw": "raw"}[kind]] = {
            "unit_share": units / norms, **{name: np.flatnonzero(where == side).tolist()
                                            for name, side in (("extrapolated", -1), ("clamped", 1))}}
    return scales, {"strength": results}, arrays
