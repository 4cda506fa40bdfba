"""Other directions from paired states, against independent computations and known data."""
import numpy as np
import pytest
import torch

from lib import directions, metrics
from lib.artifacts import UserError


def states(n=60, d=12, seed=0):
    """Pairs that differ along the first axis, with a larger spread of the difference along the second."""
    rng = np.random.default_rng(seed)
    middle, sign = rng.normal(size=(n, d)), rng.choice([-1.0, 1.0], size=n)
    half = np.zeros((n, d))
    half[:, 0], half[:, 1] = 0.5, 2 * sign
    return middle + half, middle - half


def test_principal_component_is_the_top_eigenvector_of_the_differences_second_moment():
    p, q = states()
    found = directions.principal_component(p, q)
    top = np.linalg.eigh((p - q).T @ (p - q))[1][:, -1]
    assert abs(metrics.cosine(found, top)) == pytest.approx(1)
    assert abs(metrics.cosine(found, np.eye(12)[1])) > 0.99        # the large axis, not the one the mean is on
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm((p - q).mean(axis=0)))
    assert found @ (p - q).mean(axis=0) >= 0


def test_logistic_is_the_minimum_that_gradient_descent_finds():
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(40, 5)) + [1, 0, 0.5, 0, 0], rng.normal(size=(40, 5))
    x = torch.tensor(np.concatenate([p, q]))
    y = torch.tensor(np.repeat([1.0, 0.0], 40))
    w, b = torch.zeros(5, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([w, b], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, y, reduction="sum") + directions.RIDGE * (w @ w) / 2
        loss.backward()
        return loss

    opt.step(closure)
    assert metrics.cosine(directions.logistic(p, q), w.detach().numpy()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", directions.METHODS.values())
def test_separable_wide_and_few(method):
    """More dimensions than states, classes apart: a finite direction on the mean's side."""
    rng = np.random.default_rng(2)
    p, q = rng.normal(size=(6, 300)) + 50, rng.normal(size=(6, 300))
    found = method(p, q)
    assert np.isfinite(found).all() and metrics.cosine(found, (p - q).mean(axis=0)) > 0.5
    with pytest.raises(UserError, match="pairs"):
        method(p[:1], q[:1])
    with pytest.raises(UserError):
        method(p, q[:3])
