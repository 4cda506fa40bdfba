"""Directions from paired states: the mean difference with what describes it, and other methods' directions.

METHODS map positive and negative states, both (n, d), to one direction (d,) that has the norm of the mean
difference and points to its side, so that methods are compared at equal strength. NumPy in and out.
"""
import numpy as np

from lib import metrics
from lib.artifacts import UserError

RIDGE, STEPS, TOLERANCE = 1.0, 50, 1e-10        # penalty on |w|^2 / 2 in units of the log-likelihood; Newton steps
N_SHUFFLED = 5           # shuffled-label vectors per concept


def describe(diffs, positive, negative, address, halved=None):
    """Mean of diffs (n, layer, d), n >= 2, and its statistics; positive, negative (n, layer, d) for d'.

    halved  (m, layer, d) differences to be halved in place of diffs
    Returns {"vector": (layer, d) float32, "shuffled": (draw, layer, d) float32, the same of shuffled labels, "stats":
    {name: [per layer]}, "n": n}."""
    vector, layers = diffs.mean(axis=0), range(diffs.shape[1])
    halved = diffs if halved is None else halved
    stats = {"split_half_cosine": [metrics.split_half_cosine(halved[:, l], address) for l in layers],
             "norm": [float(np.linalg.norm(vector[l])) for l in layers],
             "directional_agreement": [metrics.directional_agreement(diffs[:, l], vector[l]) for l in layers],
             "d_prime": [metrics.d_prime(positive[:, l], negative[:, l], vector[l]) for l in layers]}
    return {"vector": vector.astype(np.float32), "stats": stats, "n": len(diffs),
            "shuffled": metrics.shuffled_label(diffs, N_SHUFFLED, [*address, 1])}


def _pairs(positive, negative, what):
    p, q = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if p.shape != q.shape or p.ndim != 2 or len(p) < 2 or not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise UserError(f"{what}: states of shapes {p.shape} and {q.shape}, need two or more finite pairs")
    return p, q


def _like(direction, mean):
    """`direction` with the norm of `mean`, on its side."""
    size = np.linalg.norm(direction)
    return direction * (np.linalg.norm(mean) / size if size else 0.0) * (-1.0 if direction @ mean < 0 else 1.0)


def principal_component(positive, negative):
    """First principal component of the paired differences and their opposites (the mean is not taken off: a
    difference has no sign of its own; RepE, arXiv 2310.01405)."""
    diffs = np.subtract(*_pairs(positive, negative, "principal_component"))
    return _like(np.linalg.svd(diffs, full_matrices=False)[2][0], diffs.mean(axis=0))


def logistic(positive, negative):
    """Weights of the logistic regression that tells positive from negative states: minimum of the summed log-loss
    plus RIDGE |w|^2 / 2, with a free intercept, by Newton's method in the span of the states."""
    p, q = _pairs(positive, negative, "logistic")
    x, y = np.concatenate([p, q]), np.repeat([1.0, 0.0], len(p))
    left, size, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    keep = size > 1e-9 * max(size[0], 1e-300)
    z = np.column_stack([left[:, keep] * size[keep], np.ones(len(x))])      # coordinates in the span, and 1
    penalty = np.append(np.full(keep.sum(), RIDGE), 0.0)

    def loss(w):
        score = z @ w
        return np.logaddexp(0, score).sum() - y @ score + (penalty * w * w).sum() / 2

    w = np.zeros(z.shape[1])
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-np.clip(z @ w, -500, 500)))
        gradient = z.T @ (probability - y) + penalty * w
        hessian = (z * (probability * (1 - probability))[:, None]).T @ z + np.diag(penalty + 1e-12)
        step, size_of = np.linalg.solve(hessian, gradient), 1.0
        while loss(w - size_of * step) > loss(w) and size_of > 1e-6:        # halve a step that overshoots
            size_of /= 2
        w = w - size_of * step
        if np.abs(gradient).max() < TOLERANCE * len(x):
            break
    return _like(w[:-1] @ right[keep], (p - q).mean(axis=0))


METHODS = {"principal_component": principal_component, "logistic": logistic}
