"""Precision: do weights in bfloat16 move the numbers? The same sweep with both, layer by layer.

A vector's effect on an input is (m(1) - m(-1)) / 2, m the difference of two logits, nats. bfloat16 keeps eight bits, so
what a weak vector does drowns in rounding, and how weak is too weak depends on model and layer. The error of the mean
effect is told in half-widths of its own 95 % interval: what it is to the numbers that the stages report.

Vectors are made in float32 always. A behaviour's is what is left of large differences once the letters have cancelled,
and rounding is not small beside it: on Qwen2.5-Coder-0.5B three of them, of 16 items each, had cosines of .62 to .97 with
the same made in bfloat16, layer by layer; a value's, where nothing cancels, .999.
"""
import numpy as np
import torch

from lib import engine, models
from lib.artifacts import UserError

# --- settings that change the numbers -----------------------------------------------------------------------
MOST_ERROR = 0.5         # half-widths: with a larger error at a layer that is used the run has to be in float32
# ------------------------------------------------------------------------------------------------------------


def effects(lm, prompts, tokens, vectors, suffix=1):
    """(prompt, layer) float64 nats: effect of vectors (layer, d) on logit 0 minus logit 1 of tokens (prompt, 2)."""
    rows = [((layer, sign * v),) for layer, v in enumerate(np.asarray(vectors, np.float32)) for sign in (-1, 1)]
    logits = engine.sweep(lm, prompts, rows, tokens, suffix=suffix)["logits"].astype(np.float64)
    m = (logits[..., 0] - logits[..., 1]).reshape(len(prompts), -1, 2)
    return (m[..., 1] - m[..., 0]) / 2


def measure(source, rough, asked, vectors):
    """`compare` of a loaded model with the same in float32, on prompts [(token ids, how many are steered)]; vectors
    (layer, d) at strength 1. The two tokens are the likeliest ones unsteered."""
    exact = models.load(source)
    prompts, counts = ([list(part) if i == 0 else part for part in column] for i, column in enumerate(zip(*asked)))
    with torch.inference_mode():
        tokens = [exact.model(torch.tensor([ids], device=exact.device)).logits[0, -1].topk(2).indices.tolist()
                  for ids in prompts]
    return compare(*(effects(lm, prompts, tokens, vectors, counts) for lm in (exact, rough)))


def compare(exact, rough):
    """One record per layer from effects (prompt, layer) in float32 and in another precision: mean effect, half-width of
    its interval (1.96 standard errors), error of the mean in half-widths, correlation, share of signs that flip."""
    rows = []
    for layer, (x, y) in enumerate(zip(exact.T, rough.T)):
        half = 1.96 * x.std(ddof=1) / np.sqrt(len(x))
        alike = np.corrcoef(x, y)[0, 1] if x.std() > 0 < y.std() else 0.0
        rows.append({"layer": layer, "n": len(x), "effect": x.mean(), "half_width": half,
                     "error": abs(y.mean() - x.mean()) / max(half, 1e-9), "correlation": alike,
                     "flips": ((x > 0) != (y > 0)).mean()})
    return rows


def check(name, rows, used=None):
    """{"worst", "layer", "correlation"} of `compare` at the layers `used`; UserError if one of them is too far from
    float32. Before they are known (None) it is enough that one layer is not."""
    rows = [row for row in rows if used is None or row["layer"] in used]
    worst = (min if used is None else max)(rows, key=lambda row: row["error"])
    if worst["error"] > MOST_ERROR:
        raise UserError(f"{name}: in bfloat16 the effect of a vector at layer {worst['layer']} is off by "
                        f"{worst['error']:.2f} half-widths of its interval, at most {MOST_ERROR}; use DTYPE=float32")
    return {"worst": worst["error"], "layer": worst["layer"], "correlation": min(row["correlation"] for row in rows)}
