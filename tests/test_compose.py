"""Composition methods against hand computation."""
import numpy as np
import pytest

from lib import compose
from lib.artifacts import UserError

RNG = np.random.default_rng([11, 0])
VECTORS = RNG.normal(size=(4, 6, 5)).astype(np.float32)            # (trait, layer, d)
METHODS = {"plain_sum": compose.plain_sum, "different_layers": compose.different_layers,
           "orthogonalised": compose.orthogonalised, "tuned_mean": compose.tuned_mean,
           "unit_norm": compose.unit_norm(3, 2.0)}


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
