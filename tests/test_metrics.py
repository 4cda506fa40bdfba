"""Metrics against NumPy, brute force, and planted ground truth."""
import numpy as np
import pytest

from lib import metrics
from lib.artifacts import UserError

LAMBDAS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def rng(*address):
    return np.random.default_rng([21, *address])


def naive_ranks(x):
    return np.array([np.sum(x < a) + (np.sum(x == a) + 1) / 2 for a in x])


def test_slopes_and_r2_are_polyfit():
    curves = rng(0).normal(size=(40, 7)) + np.outer(rng(1).normal(size=40), LAMBDAS)
    fit = [np.polyfit(LAMBDAS, curve, 1, full=True) for curve in curves]
    np.testing.assert_allclose(metrics.slopes(LAMBDAS, curves), [f[0][0] for f in fit], atol=1e-12)
    total = ((curves - curves.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    np.testing.assert_allclose(metrics.r2(LAMBDAS, curves), 1 - np.array([f[1][0] for f in fit]) / total, atol=1e-12)
    assert metrics.slopes(LAMBDAS, curves[0]) == pytest.approx(fit[0][0][0])
    assert metrics.slopes(LAMBDAS, curves.reshape(4, 10, 7)).shape == (4, 10)
    assert metrics.slopes(LAMBDAS, curves).mean() == pytest.approx(metrics.slopes(LAMBDAS, curves.mean(axis=0)))


def test_slope_keeps_float64_on_large_offsets():
    curves = (1e4 + 0.25 * np.array(LAMBDAS))[None].astype(np.float64)
    assert metrics.slopes(LAMBDAS, curves)[0] == pytest.approx(0.25, abs=1e-9)


def test_two_multipliers_give_the_symmetric_difference():
    curves = rng(2).normal(size=(9, 2))
    np.testing.assert_allclose(metrics.slopes((-1.0, 1.0), curves), (curves[:, 1] - curves[:, 0]) / 2)


def test_r2_and_monotonicity_of_known_curves():
    x = np.array(LAMBDAS)
    curves = np.stack([2 * x, -x, x ** 3, -np.exp(x), np.ones(7), x ** 2])
    np.testing.assert_allclose(metrics.monotonicity(LAMBDAS, curves), [1, -1, 1, -1, 0, 0], atol=1e-12)
    found = metrics.r2(LAMBDAS, curves)
    np.testing.assert_allclose(found[[0, 1, 4, 5]], [1, 1, 1, 0], atol=1e-12)
    assert 0.8 < found[2] < 1 and metrics.monotonicity(LAMBDAS, x).shape == ()
    noisy = rng(3).normal(size=(20, 7)).round(1)
    np.testing.assert_allclose(metrics.monotonicity(LAMBDAS, noisy),
                               [np.corrcoef(naive_ranks(x), naive_ranks(c))[0, 1] for c in noisy], atol=1e-12)


def test_points_that_are_cut_count_for_nothing():
    """A least-squares line, its r2 and a rank correlation of the kept points alone, row by row."""
    curves = rng(7).normal(size=(4, 30, 7)).round(1) + np.outer(rng(8).normal(size=120), LAMBDAS).reshape(4, 30, 7)
    curves[rng(9).random(curves.shape) < 0.3] = np.nan
    curves[..., 2:5] = np.nan_to_num(curves[..., 2:5])
    assert 100 < np.isnan(curves).sum() and len(set(np.isnan(curves).sum(axis=-1).ravel())) > 3
    slopes, fits, orders = (f(LAMBDAS, curves) for f in (metrics.slopes, metrics.r2, metrics.monotonicity))
    for place in np.ndindex(4, 30):
        x, y = np.array(LAMBDAS)[~np.isnan(curves[place])], curves[place][~np.isnan(curves[place])]
        line = np.polyfit(x, y, 1)
        assert slopes[place] == pytest.approx(line[0]) and orders[place] == pytest.approx(
            np.corrcoef(naive_ranks(x), naive_ranks(y))[0, 1])
        assert fits[place] == pytest.approx(1 - ((y - np.polyval(line, x)) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_ranks_and_spearman_with_ties():
    x, y = rng(4).integers(6, size=50), rng(5).integers(6, size=50) * 10.0
    np.testing.assert_array_equal(metrics.ranks(x), naive_ranks(x))
    np.testing.assert_array_equal(metrics.ranks(np.stack([x, y])), [naive_ranks(x), naive_ranks(y)])
    assert metrics.spearman(x, y) == pytest.approx(np.corrcoef(naive_ranks(x), naive_ranks(y))[0, 1])
    assert metrics.spearman(x, np.exp(x / 3)) == pytest.approx(1) and metrics.spearman(x, -x) == pytest.approx(-1)


def test_bootstrap_covers_the_truth_and_repeats_by_address():
    x = rng(6).normal(3.0, 2.0, size=400)
    found = metrics.bootstrap(x, unit="inputs", seed_address=[1, 2])
    assert found == metrics.bootstrap(x, unit="inputs", seed_address=[1, 2])
    assert found != metrics.bootstrap(x, unit="inputs", seed_address=[1, 3])
    assert set(found) == {"value", "low", "high", "n", "unit", "method"}
    assert (found["value"], found["n"], found["unit"]) == (x.mean(), 400, "inputs")
    half = 1.96 * x.std() / 20
    assert found["low"] == pytest.approx(x.mean() - half, abs=0.05)
    assert found["high"] == pytest.approx(x.mean() + half, abs=0.05)


def test_bootstrap_coverage():
    hits = [e["low"] <= 0 <= e["high"] for e in
            (metrics.bootstrap(rng(7, i).normal(size=60), unit="x", seed_address=[i], n_boot=400) for i in range(200))]
    assert 0.89 <= np.mean(hits) <= 0.99


def test_bootstrap_is_its_definition():
    x = rng(8).normal(size=30)
    draws = np.random.default_rng([5]).integers(30, size=(2000, 30))
    for stat in (np.mean, np.median):
        expected = np.quantile(stat(x[draws], axis=1), [0.025, 0.975])
        found = metrics.bootstrap(x, stat, unit="x", seed_address=[5])
        np.testing.assert_allclose([found["low"], found["high"]], expected)
    other = metrics.bootstrap(x, lambda v: v.mean(), unit="x", seed_address=[5])       # the general path
    assert other["low"] == pytest.approx(metrics.bootstrap(x, unit="x", seed_address=[5])["low"])


def test_memory_bound_does_not_change_the_interval(monkeypatch):
    x = rng(9).normal(size=50)
    whole = metrics.bootstrap(x, unit="x", seed_address=[1])
    monkeypatch.setattr(metrics, "CELLS", 700)
    assert metrics.bootstrap(x, unit="x", seed_address=[1]) == whole


def test_cluster_bootstrap_is_wider_when_clustered_and_not_otherwise():
    def width(x, clusters=None):
        found = metrics.bootstrap(x, unit="x", seed_address=[3], clusters=clusters)
        return found["high"] - found["low"]
    clusters = np.repeat(np.arange(40), 5)
    shared = np.repeat(rng(10).normal(size=40), 5)
    assert width(shared, clusters) > 2.0 * width(shared)             # in theory sqrt(5)
    free = rng(11).normal(size=200)
    assert width(free, clusters) == pytest.approx(width(free), rel=0.25)
    found = metrics.bootstrap(shared, unit="contents", seed_address=[3], clusters=clusters[::-1])
    assert found["n"] == 40 and "cluster" in found["method"] and found["value"] == shared.mean()


def test_clusters_move_together():
    """The two members of a cluster cancel, so no resample can differ from 0."""
    found = metrics.bootstrap([1.0, 2.0, -1.0, -2.0], unit="x", seed_address=[0], clusters=["a", "b", "a", "b"])
    assert found["low"] == found["high"] == found["value"] == 0 and found["n"] == 2


def test_bootstrap_corr():
    x = rng(12).normal(size=40)
    y = x + rng(13).normal(size=40)
    found = metrics.bootstrap_corr(x, y, unit="behaviours", seed_address=[4])
    assert found["value"] == metrics.spearman(x, y) and found["low"] < found["value"] < found["high"] <= 1
    few = metrics.bootstrap_corr([1, 2, 2], [1, 3, 2], unit="behaviours", seed_address=[4])
    assert "undefined" in few["method"]


def test_anti_fraction():
    assert metrics.anti_fraction([-1, 0, 1, 2]) == 0.5
    assert metrics.anti_fraction(np.array([[1.0, -1.0], [1.0, 1.0]])) == 0.25


def test_random_directions_are_anti_steerable_half_the_time():
    inputs, v = rng(14).normal(size=(400, 16)), rng(15).normal(size=16)
    randoms = metrics.norm_matched_random(v, 50, [9])
    assert metrics.anti_fraction(inputs @ randoms.T.astype(float)) == pytest.approx(0.5, abs=0.05)


def test_variance_shares_recover_planted_effects():
    letter, yes = (np.tile(x, 500).astype(bool) for x in ([0, 0, 1, 1], [0, 1, 0, 1]))
    s = 1.0 + 2.0 * letter + 1.0 * yes + rng(16).normal(0, 0.5, size=2000)       # variances 1, 1/4, 1/4
    found = metrics.variance_shares(s, letter, yes)
    assert found["letter"] == pytest.approx(1 / 1.5, abs=0.03)
    assert found["yes_marginal"] == pytest.approx(0.25 / 1.5, abs=0.03)
    assert sum(found.values()) == pytest.approx(1)
    alone = metrics.variance_shares(s, letter, np.zeros(2000, bool))             # no Yes/No in this format
    assert alone["yes_marginal"] == pytest.approx(0, abs=1e-12) and alone["letter"] == pytest.approx(found["letter"])
    assert alone == metrics.variance_shares(s, letter)


def test_variance_shares_are_nested_least_squares_when_unbalanced():
    letter = rng(17).random(300) < 0.7
    yes = np.where(letter, rng(18).random(300) < 0.8, rng(19).random(300) < 0.3)
    s = letter + 0.5 * yes + rng(20).normal(size=300)
    between = sum(m.sum() * (s[m].mean() - s.mean()) ** 2 for m in (letter, ~letter)) / 300
    found = metrics.variance_shares(s, letter, yes)
    assert found["letter"] == pytest.approx(between / s.var())
    both = np.corrcoef(np.stack([s, letter, yes]).astype(float))
    a, b, c = both[0, 1], both[0, 2], both[1, 2]
    assert found["letter"] + found["yes_marginal"] == pytest.approx((a * a + b * b - 2 * a * b * c) / (1 - c * c))


def test_split_half_cosine():
    v = rng(21).normal(size=32)
    noise = rng(22).normal(size=(200, 32))
    assert metrics.split_half_cosine(v + 0.1 * noise, [1]) > 0.99
    assert abs(metrics.split_half_cosine(noise, [1])) < 0.3
    assert metrics.split_half_cosine(noise, [1]) == metrics.split_half_cosine(noise, [1])


def test_directional_agreement_and_cosine():
    diffs, v = rng(23).normal(size=(30, 8)), rng(24).normal(size=8)
    expected = np.mean([d @ v / np.linalg.norm(d) / np.linalg.norm(v) for d in diffs])
    assert metrics.directional_agreement(diffs, v) == pytest.approx(expected)
    assert metrics.directional_agreement(np.outer([1, 2, 5], v), v) == pytest.approx(1)
    assert metrics.cosine(v, np.zeros(8)) == 0 and metrics.cosine(diffs, v).shape == (30,)


def test_d_prime():
    v = np.array([1.0, 0.0])
    p, q = rng(25).normal(0, 2, size=(4000, 2)) + [3, 9], rng(26).normal(0, 2, size=(4000, 2))
    assert metrics.d_prime(p, q, v) == pytest.approx(1.5, abs=0.08)
    assert metrics.d_prime(q, p, v) == -metrics.d_prime(p, q, v)
    assert metrics.d_prime(p, q, 100 * v) == pytest.approx(metrics.d_prime(p, q, v))


def test_norm_matched_random():
    v = rng(27).normal(size=64)
    found = metrics.norm_matched_random(v, 500, [1, 2])
    assert found.shape == (500, 64) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(v), rtol=1e-5)
    assert np.abs(metrics.cosine(found, v)).mean() < 0.15 and np.linalg.norm(found.mean(axis=0)) < 0.1 * np.linalg.norm(v)
    assert (found == metrics.norm_matched_random(v, 500, [1, 2])).all()
    assert (found[:3] == metrics.norm_matched_random(v, 3, [1, 2])).all()


@pytest.mark.parametrize("n", [2, 5, 20, 41])
def test_shuffled_labels_have_no_direction(n):
    v, noise = rng(28).normal(size=(3, 64)), 0.01 * rng(29).normal(size=(n, 3, 64))
    found = metrics.shuffled_label(v + noise, 400, [7])
    assert found.shape == (400, 3, 64) and found.dtype == np.float32
    # Pairs that agree to a hundredth: nothing of what they share is left, so the noise alone gives the same vectors.
    np.testing.assert_allclose(found, metrics.shuffled_label(noise, 400, [7]), atol=1e-6)
    for draw in found[:5]:                       # and each is a mean with as many pairs turned round as left as they are
        signs = np.linalg.lstsq(noise.reshape(n, -1).T, n * draw.ravel(), rcond=None)[0]
        assert sorted(np.round(signs, 2)) == [-1] * (n // 2) + [0] * (n % 2) + [1] * (n // 2)
    assert n < 20 or np.abs(metrics.cosine(found[:, 0], v[0])).mean() < 0.3


@pytest.mark.parametrize("call", [
    lambda: metrics.bootstrap([], unit="x", seed_address=[0]),
    lambda: metrics.bootstrap([1.0, np.nan], unit="x", seed_address=[0]),
    lambda: metrics.anti_fraction([]), lambda: metrics.anti_fraction([np.nan]),
    lambda: metrics.spearman([1, 1, 1], [1, 2, 3]), lambda: metrics.spearman([1], [1]),
    lambda: metrics.slopes((1, 1), [[1, 2]]), lambda: metrics.slopes(LAMBDAS, np.zeros((0, 7))),
    lambda: metrics.slopes((0, 1), [[1, np.nan]]), lambda: metrics.slopes((0, 1), [[np.inf, 1]]),
    lambda: metrics.variance_shares([0.1 + 0.2] * 4, [0, 0, 1, 1], [0, 1, 0, 1]),
    lambda: metrics.split_half_cosine(np.ones((1, 4)), [0]), lambda: metrics.directional_agreement(np.ones((0, 4)), [1] * 4),
    lambda: metrics.d_prime(np.ones((4, 2)), np.ones((4, 2)), [1, 0]),
    lambda: metrics.bootstrap_corr([1, 1], [1, 2], unit="x", seed_address=[0])])
def test_no_number_out_of_nothing(call):
    with pytest.raises(UserError):
        call()


def test_redraws_are_whole_clusters():
    counts = metrics.redraws(7, [1, 2], clusters=list("aabbbcd"), n_boot=500)
    assert counts.shape == (500, 7) and (counts[:, 0] == counts[:, 1]).all() and (counts[:, 2] == counts[:, 4]).all()
    assert (counts[:, [0, 2, 5, 6]].sum(axis=1) == 4).all() and abs(counts.mean() - 1) < 0.1
    assert (metrics.redraws(7, [1, 2]).sum(axis=1) == 7).all()
    values = np.random.default_rng(0).normal(size=(7, 2))
    naive = [np.repeat(values, row, axis=0).mean(axis=0) for row in counts]
    np.testing.assert_allclose(metrics.resampled_means(values, counts), naive, atol=1e-12)


def test_resampled_variance_shares_are_those_of_the_resample():
    rng = np.random.default_rng(3)
    letter, yes = rng.random(40) < 0.5, rng.random(40) < 0.4
    slopes = 5 + 2 * letter - 1.5 * yes + rng.normal(size=40)
    for yes in (yes, np.zeros(40, bool), letter):                    # a second column that adds nothing
        counts = metrics.redraws(40, [4], n_boot=50)
        found = metrics.resampled_variance_shares(slopes, letter, yes, counts)
        for b, row in enumerate(counts):
            again = [np.repeat(x, row) for x in (slopes, letter, yes)]
            naive = metrics.variance_shares(*again)
            assert {name: draws[b] for name, draws in found.items()} == pytest.approx(naive, abs=1e-9)
    low, high = metrics.interval(metrics.resampled_variance_shares(slopes, letter, yes, counts)["letter"])
    assert 0 < low < metrics.variance_shares(slopes, letter)["letter"] < high < 1


def test_wilson_covers_and_stays_inside():
    """Held to what it has to do: the true share lies inside in about 95 of 100 draws."""
    rng = np.random.default_rng([3, 9])
    for p in (0.03, 0.2, 0.5):
        ends = np.array([metrics.wilson(k, 60) for k in rng.binomial(60, p, 2000)])
        assert 0.92 < ((ends[:, 0] <= p) & (p <= ends[:, 1])).mean() < 0.98
        assert ends.min() >= 0 and ends.max() <= 1
    assert metrics.wilson(0, 20)[0] == 0 and metrics.wilson(20, 20)[1] == 1
