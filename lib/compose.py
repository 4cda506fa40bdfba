"""Composition: one steering row from the tuned vectors of several traits: the methods of Subbiah et al. (arXiv
2607.01802), their plain sum, and `solved`, which is this project's.

Every method takes `vectors` (k, layer, d) raw, `layers` (k,) tuned layers l_i and `coefs` (k,) tuned coefficients
a_i, and returns a row: a tuple of (layer, (d,) float32) in ascending order of layers, each layer once. v_i stands for
the vector of trait i at its own layer. Sums run in float64. The order of the traits matters to `different_layers` and
`orthogonalised`; the paper orders them alphabetically.
"""
import numpy as np

from lib.artifacts import UserError


def _checked(vectors, layers, coefs):
    """(v_1 .. v_k (k, d) float64, layers as a list of k ints, coefs (k, 1) float64)."""
    vectors, coefs = np.asarray(vectors, dtype=np.float64), np.asarray(coefs, dtype=np.float64)
    layers = [int(layer) for layer in layers]
    if not len(vectors) or not len(vectors) == len(layers) == len(coefs):
        raise UserError(f"compose: {len(vectors)} vectors, {len(layers)} layers, {len(coefs)} coefficients")
    if min(layers) < 0 or max(layers) >= vectors.shape[1]:
        raise UserError(f"layers {layers} are not among the {vectors.shape[1]} of the vectors")
    if not (np.isfinite(vectors).all() and np.isfinite(coefs).all()):
        raise UserError("composition of vectors or coefficients that are not finite")
    return vectors[np.arange(len(layers)), layers], layers, coefs[:, None]


def _lengths(own, layers, what):
    """(k, 1) norms of own (k, d). UserError for a vector that is zero."""
    lengths = np.linalg.norm(own, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(f"{what}: vector {int(np.argmin(lengths))} is zero at layer {layers[np.argmin(lengths)]}")
    return lengths


def _row(layers, parts):
    """The parts (k, d) summed per layer."""
    return tuple((layer, sum(part for at, part in zip(layers, parts) if at == layer).astype(np.float32))
                 for layer in sorted(set(layers)))


def plain_sum(vectors, layers, coefs):
    """a_i v_i at l_i, added up where layers coincide."""
    own, layers, coefs = _checked(vectors, layers, coefs)
    return _row(layers, coefs * own)


def moved_layers(layers, n_layers):
    """Layers after the collision rule of `different_layers`.

    The paper moves the second and third trait of a layer l to l-1 and l-2, and leaves open what happens below layer 0
    and on a layer that is some other trait's. Here, in the order of the traits: each takes its tuned layer if it is
    still free, else the nearest free one below, else (nothing free down to layer 0) the nearest free one above.
    UserError if there are more traits than layers."""
    if len(layers) > n_layers:
        raise UserError(f"{len(layers)} traits cannot have different layers in a model of {n_layers}")
    moved = []
    for layer in layers:
        moved.append(next(l for l in (*range(layer, -1, -1), *range(layer + 1, n_layers)) if l not in moved))
    return moved


def different_layers(vectors, layers, coefs):
    """a_i v_i at l_i; traits that share a layer are moved apart (see `moved_layers`) and use their vector of the
    layer they come to, with the coefficient they had."""
    _, layers, _ = _checked(vectors, layers, coefs)
    return plain_sum(vectors, moved_layers(layers, np.shape(vectors)[1]), coefs)


def orthogonalised(vectors, layers, coefs):
    """Gram-Schmidt over v_1 .. v_k whatever their layers (the release's experiment with up to four traits): the first
    is kept, each later one loses its part along all before, nothing is renormalised; then a_i at l_i, summed."""
    own, layers, coefs = _checked(vectors, layers, coefs)
    basis = []
    for v, scale in zip(own, np.linalg.norm(own, axis=1)):
        for b in basis:
            v -= (v @ b) * b
        norm = np.linalg.norm(v)
        if norm > 1e-10 * scale:              # a vector in the span of the others leaves no direction
            basis.append(v / norm)
    return _row(layers, coefs * own)


def tuned_mean(vectors, layers, coefs):
    """Where m traits share a layer the mean of their a_i v_i; a trait alone at its layer keeps a_i v_i."""
    own, layers, coefs = _checked(vectors, layers, coefs)
    return _row(layers, coefs * own / np.array([[layers.count(layer)] for layer in layers]))


def unit_norm(layer, alpha):
    """The method (alpha / k) * sum_i v_i / ||v_i|| with every v_i taken at one layer; tuned layers and coefficients
    are not used. alpha is the norm, in residual-stream units, that k parallel vectors would have."""
    def method(vectors, _, coefs):
        own, layers, _ = _checked(vectors, [layer] * len(vectors), coefs)
        return _row(layers, alpha / len(own) * own / _lengths(own, layers, "unit_norm"))
    return method


# The paper's two fixed layers, of unit norm and of its search (stage 02): after 16 and 20 blocks, of 28 (Qwen2.5-7B)
# as of 32 (Llama-3.1-8B). As shares of 28.
UNIT_NORM_DEPTHS = {"unit_norm_mid": 16 / 28, "unit_norm_late": 20 / 28}


def unit_norm_layers(n_layers):
    """{method: layer} of the two fixed layers in a model of n_layers blocks: the published ones from 28 to 32 blocks,
    at the same share of the depth below and above."""
    reach = 28 * n_layers / min(max(n_layers, 28), 32)
    return {name: max(round(depth * reach), 1) - 1 for name, depth in UNIT_NORM_DEPTHS.items()}


def solved(norms, bound):
    """The method that solves for all coefficients at once, so that every trait moves the residual stream along its
    own direction as far as it does alone, within a bound on how far the stream is moved in all. Not published.

    norms  (layer,) the norm n_l of strength 1 (lib.studies.strength)
    bound  largest total strength

    With u_i = v_i / ||v_i|| at l_i, x_i the strength that trait i gets in company and r_i = a_i ||v_i|| / n_{l_i} the
    one it was tuned to alone, what is added is x_i n_{l_i} u_i at l_i. What was added at a layer stays in the stream
    above it, so trait i sees (G x)_i units along u_i, and layer l moves by w_l:

        G_ij = u_i . u_j n_{l_j} / n_{l_i}          where l_j <= l_i, else 0
        minimise |G x - r|^2   subject to   x' B x = sum_l ||w_l||^2 / n_l^2 <= bound^2
        B_ij = u_i . u_j       where l_j  = l_i, else 0

    Where it fits, the solution of least total strength that gives each trait its r_i; else the best trade on the
    bound (`least_squares_in_ball`). Alone, x = min(r, bound). Later blocks change what they pass on, so the
    identity path is a first-order account. Symmetric in the traits."""
    def method(vectors, layers, coefs):
        own, layers, coefs = _checked(vectors, layers, coefs)
        lengths = _lengths(own, layers, "solved")
        units, at, one = own / lengths, np.array(layers), np.asarray(norms, np.float64)[layers]
        cosines = units @ units.T
        seen = np.where(at <= at[:, None], cosines * one / one[:, None], 0.0)
        values, axes = np.linalg.eigh(np.where(at == at[:, None], cosines, 0.0))
        used = values > 1e-10 * values.max()      # copies of one direction differ in nothing that is added
        root = axes[:, used] / np.sqrt(values[used])                  # x = root y has total strength |y|
        x = root @ least_squares_in_ball(seen @ root, (coefs * lengths)[:, 0] / one, bound)
        return _row(layers, (x * one)[:, None] * units)
    return method


def least_squares_in_ball(a, b, radius):
    """The y of least |a y - b| with |y| <= radius, the shortest of several: (n,) from a (m, n) and b (m,).

    With the singular values s of a = U S V', y(t) = V diag(s / (s^2 + t)) U' b. If y(0), the least-squares solution,
    lies inside, it is the answer; else |y(t)| falls in t and meets the radius once (the secular equation)."""
    if not radius > 0:
        raise UserError(f"a bound of {radius}: expected a number above 0")
    u, s, vt = np.linalg.svd(np.asarray(a, np.float64), full_matrices=False)
    kept = s > 1e-10 * s.max(initial=0.0)
    s, vt, c = s[kept], vt[kept], (u.T @ np.asarray(b, np.float64))[kept]

    def solution(t):
        return s * c / (s * s + t)

    low, high = 0.0, float(np.linalg.norm(s * c)) / radius            # |y(t)| <= |s c| / t
    if np.linalg.norm(solution(0.0)) <= radius:
        return vt.T @ solution(0.0)
    while low < (middle := (low + high) / 2) < high:                  # down to neighbouring floats
        low, high = (middle, high) if np.linalg.norm(solution(middle)) > radius else (low, middle)
    return vt.T @ solution(high)
