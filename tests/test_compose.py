"""Composition methods against hand computation."""
import numpy as np
import pytest

from lib import compose
from lib.artifacts import UserError

RNG = np.random.default_rng([11, 0])
VECTORS = RNG.normal(size=(4, 6, 5)).astype(np.float32)            # (trait, layer, d)
METHODS = {"plain_sum": compose.plain_sum, "different_layers": compose.different_layers,
           "orthogonalised": compose.orthogonalised, "tuned_mean": compose.tuned_mean,
           "unit_norm": compose.unit_norm(3, 2.0), "solved": compose.solved(np.ones(6), 1e9)}


def same(row, expected):
    assert [layer for layer, _ in row] == [layer for layer, _ in expected]
    for (_, found), (_, wanted) in zip(row, expected):
        assert found.dtype == np.float32 and found.shape == (5,)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_plain_sum():
    v = VECTORS
    same(compose.plain_sum(v[:3], (4, 2, 4), (1.0, 3.0, -0.5)), [(2, 3 * v[1, 2]), (4, v[0, 4] - 0.5 * v[2, 4])])


def test_different_layers_keeps_distinct_layers():
    same(compose.different_layers(VECTORS[:2], (4, 2), (1.0, 3.0)), [(2, 3 * VECTORS[1, 2]), (4, VECTORS[0, 4])])


def test_different_layers_reloads_the_vector_where_it_is_moved():
    v = VECTORS
    same(compose.different_layers(v[:3], (4, 4, 4), (1.0, 2.0, 3.0)), [(2, 3 * v[2, 2]), (3, 2 * v[1, 3]), (4, v[0, 4])])


@pytest.mark.parametrize("layers, moved", [
    ((4, 4, 4, 4), [4, 3, 2, 1]), ((4, 4, 3), [4, 3, 2]), ((3, 4, 4), [3, 4, 2]),
    ((0, 0, 0), [0, 1, 2]), ((1, 1, 1, 1), [1, 0, 2, 3]), ((0, 1, 0, 1), [0, 1, 2, 3])])
def test_collision_rule(layers, moved):
    assert compose.moved_layers(layers, 6) == moved


def test_more_traits_than_layers():
    with pytest.raises(UserError, match="4 traits cannot"):
        compose.different_layers(VECTORS[:, :3], (0, 1, 2, 2), np.ones(4))


def test_orthogonalised_by_hand():
    """Across layers, and not renormalised."""
    v = np.zeros((3, 2, 3))
    v[0, 1], v[1, 0], v[2, 1] = (2, 0, 0), (3, 4, 0), (1, 1, 5)
    row = compose.orthogonalised(v, (1, 0, 1), (10.0, 100.0, 1.0))
    assert [(layer, part.tolist()) for layer, part in row] == [(0, [0, 400, 0]), (1, [20, 0, 5])]


def test_orthogonalised_vectors_are_orthogonal_and_depend_on_order():
    parts = [compose.orthogonalised(VECTORS, (5, 4, 3, 2), np.ones(4))[::-1][i][1] for i in range(4)]
    gram = np.array(parts) @ np.array(parts).T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-5)
    np.testing.assert_allclose(parts[0], VECTORS[0, 5])
    assert all(np.linalg.norm(p) < np.linalg.norm(VECTORS[i, 5 - i]) for i, p in enumerate(parts) if i)


def test_orthogonalised_repeated_vector_leaves_nothing_and_no_noise():
    twice = np.stack([VECTORS[0], VECTORS[0], VECTORS[1]])
    row = compose.orthogonalised(twice, (3, 3, 3), np.ones(3))
    same(row, compose.orthogonalised(VECTORS[:2], (3, 3), np.ones(2)))


def test_tuned_mean_divides_by_the_number_at_that_layer_only():
    v = VECTORS
    same(compose.tuned_mean(v, (4, 2, 4, 4), (1.0, 3.0, 2.0, -1.0)),
         [(2, 3 * v[1, 2]), (4, (v[0, 4] + 2 * v[2, 4] - v[3, 4]) / 3)])


def test_unit_norm():
    v = VECTORS
    units = [x[3] / np.linalg.norm(x[3]) for x in v]
    same(compose.unit_norm(3, 7.0)(v, (0, 1, 2, 5), (9, 9, 9, 9)), [(3, 7.0 / 4 * sum(units))])
    same(compose.unit_norm(3, 7.0)(v * np.array([1, 10, 100, 1000])[:, None, None], (0,) * 4, np.zeros(4)),
         [(3, 7.0 / 4 * sum(units))])
    (_, part), = compose.unit_norm(0, 7.0)(np.stack([v[0], v[0]]), (0, 0), (1, 1))
    assert np.linalg.norm(part) == pytest.approx(7.0)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "unit_norm"])
def test_one_trait_is_the_tuned_vector(name):
    same(METHODS[name](VECTORS[:1], (2,), (1.5,)), [(2, 1.5 * VECTORS[0, 2])])


@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_left_alone_and_errors_are_clear(name):
    before = VECTORS.copy()
    METHODS[name](VECTORS, (3, 3, 2, 2), np.ones(4))
    assert (VECTORS == before).all()
    for vectors, layers, coefs in (([], (), ()), (VECTORS, (1, 2), (1, 1)), (VECTORS[:, :2], (5,) * 4, np.ones(4)),
                                   (VECTORS, (1, 2, 3, 4), (1, 1, np.nan, 1))):
        with pytest.raises(UserError):
            METHODS[name](vectors, layers, coefs)


def test_methods_differ_only_where_they_should():
    """With all layers different, every tuned method but Gram-Schmidt across layers is the plain sum (as in
    the release)."""
    arguments = VECTORS, (5, 3, 1, 0), (1.0, 2.0, 3.0, 4.0)
    for name in ("different_layers", "tuned_mean"):
        same(METHODS[name](*arguments), compose.plain_sum(*arguments))


# --- the joint solution ------------------------------------------------------------------------------------
NORMS = np.array([3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
UNIT = [[x[l] / np.linalg.norm(x[l]) for l in range(6)] for x in VECTORS.astype(np.float64)]


def seen_along(row, trait, layer):
    """Relative strength along a trait's own direction of all that was added up to its layer."""
    return sum(np.dot(part, UNIT[trait][layer]) for l, part in row if l <= layer) / NORMS[layer]


def total(row):
    return np.sqrt(sum((np.linalg.norm(part) / NORMS[layer]) ** 2 for layer, part in row))


def alone(trait, layer, coef):
    return coef * np.linalg.norm(VECTORS[trait, layer]) / NORMS[layer]


@pytest.mark.parametrize("layers", [(2, 2, 2), (4, 1, 4), (5, 3, 0)])
def test_solved_gives_every_trait_what_it_had_alone(layers):
    coefs = (1.0, 2.0, 0.5)
    row = compose.solved(NORMS, 1e9)(VECTORS[:3], layers, coefs)
    for trait, (layer, coef) in enumerate(zip(layers, coefs)):
        assert seen_along(row, trait, layer) == pytest.approx(alone(trait, layer, coef), abs=1e-5)
    plain = compose.plain_sum(VECTORS[:3], layers, coefs)
    assert any(abs(seen_along(plain, t, l) - alone(t, l, c)) > 0.05 for t, (l, c) in enumerate(zip(layers, coefs)))


@pytest.mark.parametrize("bound", [0.1, 0.5, 1.0])
def test_solved_keeps_within_its_bound_and_trades_best_there(bound):
    """Against random rows of the same vectors and layers on the bound, and steps from the solution."""
    layers, coefs, rng = (4, 1, 4), np.array([1.0, 2.0, 0.5]), np.random.default_rng([11, 1])
    wanted = [alone(t, l, c) for t, (l, c) in enumerate(zip(layers, coefs))]

    def shortfall(row):
        return sum((seen_along(row, t, layers[t]) - wanted[t]) ** 2 for t in range(3))

    row = compose.solved(NORMS, bound)(VECTORS[:3], layers, coefs)
    assert total(row) == pytest.approx(bound, rel=1e-5)
    tried = [rng.normal(size=3) for _ in range(3000)]
    (_, low), (_, high) = row
    own = np.stack([VECTORS[t, l] for t, l in enumerate(layers)]).astype(np.float64)
    found = np.array([np.linalg.lstsq(own[[0, 2]].T, high, rcond=None)[0][0], np.dot(low, own[1]) / (own[1] @ own[1]),
                      np.linalg.lstsq(own[[0, 2]].T, high, rcond=None)[0][1]])
    tried += [found + step * rng.normal(size=3) for step in (1e-3, 1e-2, 1e-1) for _ in range(300)]
    for c in tried:
        other = compose.plain_sum(VECTORS[:3], layers, c)
        other = compose.plain_sum(VECTORS[:3], layers, c * bound / total(other))
        assert shortfall(row) <= shortfall(other) + 1e-6


def test_ball_against_projected_gradient_descent():
    """Wide, square and tall, full and deficient, inside and on the bound."""
    rng = np.random.default_rng([11, 2])
    for m, n, rank in ((3, 3, 3), (4, 2, 2), (2, 4, 2), (3, 3, 2)):
        a = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
        b = rng.normal(size=m)
        free = np.linalg.pinv(a) @ b
        for radius in (0.3 * np.linalg.norm(free), 2 * np.linalg.norm(free)):
            y, step = np.zeros(n), 1 / np.linalg.norm(a, 2) ** 2
            for _ in range(20000):
                y = y - step * a.T @ (a @ y - b)
                y *= min(1.0, radius / max(np.linalg.norm(y), 1e-300))
            found = compose.least_squares_in_ball(a, b, radius)
            np.testing.assert_allclose(found, y, atol=1e-4 * np.linalg.norm(y))
            assert np.linalg.norm(found) <= radius * (1 + 1e-12)
            assert np.linalg.norm(a @ found - b) <= np.linalg.norm(a @ y - b) + 1e-9


def test_solved_alone_is_the_tuned_vector_up_to_the_bound():
    same(compose.solved(NORMS, 9.0)(VECTORS[:1], (2,), (1.5,)), [(2, 1.5 * VECTORS[0, 2])])
    same(compose.solved(NORMS, 0.1)(VECTORS[:1], (2,), (1.5,)), [(2, 0.1 * NORMS[2] * UNIT[0][2])])


def test_solved_does_not_depend_on_the_order_and_counts_a_copy_once():
    layers, coefs, turn = (4, 1, 4, 2), np.array([1.0, 2.0, 0.5, 1.0]), [2, 0, 3, 1]
    for bound in (0.4, 99.0):
        method = compose.solved(NORMS, bound)
        same(method(VECTORS[turn], [layers[i] for i in turn], coefs[turn]), method(VECTORS, layers, coefs))
        twice = method(np.stack([VECTORS[0], VECTORS[0], VECTORS[1]]), (4, 4, 1), (1.0, 1.0, 2.0))
        if bound > 1:
            same(twice, method(VECTORS[:2], (4, 1), (1.0, 2.0)))


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan])
def test_solved_needs_a_bound(bound):
    with pytest.raises(UserError, match="above 0"):
        compose.solved(NORMS, bound)(VECTORS[:1], (2,), (1.5,))


def test_unit_norm_layers_of_the_published_models_and_ours():
    """Published: after 16 and 20 blocks, of 28 and of 32."""
    for n in (28, 30, 32):
        assert compose.unit_norm_layers(n) == {"unit_norm_mid": 15, "unit_norm_late": 19}
    assert list(compose.unit_norm_layers(24).values()) == [13, 16]
    assert list(compose.unit_norm_layers(6).values()) == [2, 3]
    assert all(0 <= layer < n for n in range(1, 9) for layer in compose.unit_norm_layers(n).values())
