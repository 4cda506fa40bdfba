"""Composition: one steering row from the tuned vectors of several traits (Subbiah et al., arXiv 2607.01802).

Every method takes `vectors` (k, layer, d) raw, `layers` (k,) tuned layers l_i and `coefs` (k,) tuned
coefficients a_i, and returns a row: a tuple of (layer, (d,) float32) in ascending order of layers, each layer
once. v_i stands for the vector of trait i at its own layer. Sums run in float64. The order of the traits
matters to `different_layers` and `orthogonalised`; the paper orders them alphabetically.
"""
import numpy as np

from lib.artifacts import UserError


def _checked(vectors, layers, coefs):
    """vectors (k, L, d) and coefs (k,) float64, layers as a list of k ints."""
    vectors, coefs = np.asarray(vectors, dtype=np.float64), np.asarray(coefs, dtype=np.float64)
    layers = [int(layer) for layer in layers]
    if not len(vectors) or not len(vectors) == len(layers) == len(coefs):
        raise UserError(f"compose: {len(vectors)} vectors, {len(layers)} layers, {len(coefs)} coefficients")
    if min(layers) < 0 or max(layers) >= vectors.shape[1]:
        raise UserError(f"layers {layers} are not among the {vectors.shape[1]} of the vectors")
    if not (np.isfinite(vectors).all() and np.isfinite(coefs).all()):
        raise UserError("composition of vectors or coefficients that are not finite")
    return vectors, layers, coefs


def _row(layers, parts):
    """The parts (k, d) summed per layer."""
    return tuple((layer, sum(part for at, part in zip(layers, parts) if at == layer).astype(np.float32))
                 for layer in sorted(set(layers)))


def plain_sum(vectors, layers, coefs):
    """a_i v_i at l_i, added up where layers coincide."""
    vectors, layers, coefs = _checked(vectors, layers, coefs)
    return _row(layers, [a * v[layer] for v, layer, a in zip(vectors, layers, coefs)])


def moved_layers(layers, n_layers):
    """Layers after the collision rule of `different_layers`.

    The paper moves the second and third trait of a layer l to l-1 and l-2, and leaves open what happens below
    layer 0 and on a layer that is some other trait's. Here, in the order of the traits: each takes its tuned
    layer if it is still free, else the nearest free one below, else (nothing free down to layer 0) the
    nearest free one above. UserError if there are more traits than layers."""
    if len(layers) > n_layers:
        raise UserError(f"{len(layers)} traits cannot have different layers in a model of {n_layers}")
    moved = []
    for layer in layers:
        moved.append(next(l for l in (*range(layer, -1, -1), *range(layer + 1, n_layers)) if l not in moved))
    return moved


def different_layers(vectors, layers, coefs):
    """a_i v_i at l_i; traits that share a layer are moved apart (see `moved_layers`) and use their vector of
    the layer they come to, with the coefficient they had."""
    vectors, layers, coefs = _checked(vectors, layers, coefs)
    return plain_sum(vectors, moved_layers(layers, vectors.shape[1]), coefs)


def orthogonalised(vectors, layers, coefs):
    """Gram-Schmidt over v_1 .. v_k whatever their layers (the release's experiment with up to four traits):
    the first is kept, each later one loses its components along all before, nothing is renormalised; then a_i
    at l_i, summed."""
    vectors, layers, coefs = _checked(vectors, layers, coefs)
    basis, parts = [], []
    for v, layer, a in zip(vectors, layers, coefs):
        scale, v = np.linalg.norm(v[layer]), v[layer].copy()
        for b in basis:
            v -= (v @ b) * b
        norm = np.linalg.norm(v)
        if norm > 1e-10 * scale:              # a vector in the span of the others leaves no direction
            basis.append(v / norm)
        parts.append(a * v)
    return _row(layers, parts)


def tuned_mean(vectors, layers, coefs):
    """Where m traits share a layer the mean of their a_i v_i; a trait alone at its layer keeps a_i v_i."""
    vectors, layers, coefs = _checked(vectors, layers, coefs)
    return _row(layers, [a * v[layer] / layers.count(layer) for v, layer, a in zip(vectors, layers, coefs)])


def unit_norm(layer, alpha):
    """The method (alpha / k) * sum_i v_i / ||v_i|| with every v_i taken at one layer; tuned layers and
    coefficients are not used. alpha is the norm, in residual-stream units, that k parallel vectors would
    have."""
    def method(vectors, layers, coefs):
        vectors, _, _ = _checked(vectors, [layer] * len(vectors), coefs)
        norms = np.linalg.norm(vectors[:, layer], axis=1)
        if not norms.all():
            raise UserError(f"unit_norm: vector {int(np.argmin(norms))} is zero at layer {layer}")
        return _row([layer] * len(vectors), alpha / len(vectors) * vectors[:, layer] / norms[:, None])
    return method
