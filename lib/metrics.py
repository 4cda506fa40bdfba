"""Metrics and statistics, NumPy in and out, float64 inside. Draws come from default_rng(address), never a
global state.

An *estimate* is {"value", "low", "high", "n", "unit", "method"}: a 95 % percentile-bootstrap interval, where
`n` counts the units that were resampled and `unit` names them. Empty or non-finite input raises UserError: a
mean over nothing must not become a number.
"""
from statistics import NormalDist

import numpy as np

from lib.artifacts import UserError

LEVEL = 0.95
CELLS = 2_000_000                # resampled values held at once


def _values(x, what, least=1):
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 0 or len(x) < least or x.size == 0:
        raise UserError(f"{what}: shape {x.shape}, need at least {least} along the first axis")
    if not np.isfinite(x).all():
        raise UserError(f"{what}: {int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    return x


def _labels(clusters, n):
    """(n,) int: from 0 the cluster of each of n values; without clusters each value is one."""
    labels = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if len(labels) != n or not n:
        raise ValueError(f"{len(labels)} cluster labels for {n} values")
    return labels


def bootstrap(values, stat=np.mean, *, unit, seed_address, clusters=None, n_boot=2000):
    """Estimate of stat(values) over the first axis; a paired difference is the bootstrap of the differences.

    values (n, ...); stat maps (m, ...) to a number; clusters (n,) labels: whole clusters are resampled, and counted
    in `n`. Resamples for which `stat` is not finite (correlation of a constant) are left out, counted in `method`."""
    values, rng = _values(values, f"bootstrap over {unit}"), np.random.default_rng(seed_address)
    labels = _labels(clusters, len(values))
    sizes = np.bincount(labels)
    n = len(sizes)
    if clusters is None and values.ndim == 1 and stat in (np.mean, np.median):
        step = max(1, CELLS // n)
        draws = np.concatenate([stat(values[rng.integers(n, size=(min(step, n_boot - done), n))], axis=1)
                                for done in range(0, n_boot, step)])
    elif values.ndim == 1 and stat is np.mean and n_boot * n <= CELLS:         # sums of whole clusters do
        drawn = rng.integers(n, size=(n_boot, n))
        draws = np.bincount(labels, values)[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    else:
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
        draws = np.array([stat(values[np.concatenate([members[c] for c in rng.integers(n, size=n)])])
                          for _ in range(n_boot)])
    kept, value = draws[np.isfinite(draws)], float(stat(values))
    if not np.isfinite(value) or not len(kept):
        raise UserError(f"bootstrap over {unit}: the statistic is {value} on {n} {unit}")
    low, high = interval(kept).tolist()
    method = f"percentile {'' if clusters is None else 'cluster '}bootstrap, {n_boot} resamples"
    method += f", {n_boot - len(kept)} undefined" if len(kept) < n_boot else ""
    return {"value": value, "low": low, "high": high, "n": n, "unit": unit, "method": method}


def redraws(n, seed_address, clusters=None, n_boot=2000):
    """(n_boot, n) int: how often each of n values occurs in each bootstrap resample; clusters (n,) are drawn whole.

    One set of resamples for several statistics of the same values: their ratios and differences are paired."""
    labels = _labels(clusters, n)
    m = labels.max() + 1
    drawn = np.random.default_rng(seed_address).integers(m, size=(n_boot, m))
    drawn += m * np.arange(n_boot)[:, None]                   # one count for all resamples
    return np.bincount(drawn.ravel(), minlength=n_boot * m).reshape(-1, m)[:, labels]


def resampled_means(values, counts):
    """(n_boot, m) means of the columns of values (n, m) in the resamples counts (n_boot, n) of `redraws`."""
    return counts @ _values(values, "resampled_means") / counts.sum(axis=1, keepdims=True)


def of_means(values, stat, *, unit, seed_address, clusters=None, n_boot=2000):
    """Estimate of a statistic of column means: values (n, m); stat maps means (k, m) to (k,) numbers. Resampling as
    in `bootstrap`, by matrix products: all columns are drawn together, so differences and ratios are paired."""
    values = _values(values, f"bootstrap over {unit}")
    counts = redraws(len(values), seed_address, clusters, n_boot)
    draws = stat(resampled_means(values, counts))
    kept, value = draws[np.isfinite(draws)], float(stat(values.mean(axis=0)[None])[0])
    if not np.isfinite(value) or not len(kept):
        raise UserError(f"bootstrap over {unit}: the statistic is {value} on {len(values)} values")
    low, high = interval(kept).tolist()
    method = f"percentile {'' if clusters is None else 'cluster '}bootstrap, {n_boot} resamples"
    method += f", {n_boot - len(kept)} undefined" if len(kept) < n_boot else ""
    n = int(_labels(clusters, len(values)).max()) + 1
    return {"value": value, "low": low, "high": high, "n": n, "unit": unit, "method": method}


def beyond_random(means):
    """First column less the largest of the others and of 0, which is no vector, (k, 1 + random vectors) -> (k,), for
    `of_means`. An interval over inputs does not hold how far random vectors differ: a further random vector comes out
    above the mean of 20 as often as not, and above all of them in one case of 21. And where random vectors of a norm
    destroy the text, what does less harm is no gain yet."""
    return means[:, 0] - means[:, 1:].max(axis=1, initial=0)


def interval(draws):
    """[low, high] of the 95 % percentile interval of draws (n_boot, ...) -> (2, ...); nan draws are left out."""
    return np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def estimator(unit, address):
    """over(tag, values, stat=mean, clusters=None): the bootstrap of one unit; `tag`, one number or several, keeps its
    draws apart."""
    def over(tag, values, stat=np.mean, clusters=None):
        return bootstrap(np.asarray(values, np.float64), stat, unit=unit, clusters=clusters,
                         seed_address=[*address, *np.atleast_1d(tag).tolist()])
    return over


class Missing(str):
    """Why a result cannot be given, in the place where the result would stand."""


def missing_apart(results, at=""):
    """(results without what is Missing, {dotted key that starts with `at`: reason}) of nested dicts; a group of which
    nothing is left goes as well."""
    found, reasons = {}, {}
    for key, value in results.items():
        if isinstance(value, Missing):
            reasons[at + key] = str(value)
        elif isinstance(value, dict):
            inner, more = missing_apart(value, f"{at}{key}.")
            reasons |= more
            if inner or not more:
                found[key] = inner
        else:
            found[key] = value
    return found, reasons


def ranks(x):
    """Ranks from 1 along the last axis, ties averaged. x (..., n) -> (..., n)."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 1:                                        # n log n; the comparison below needs n * n
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    less, same = x[..., :, None] > x[..., None, :], x[..., :, None] == x[..., None, :]
    return less.sum(axis=-1) + (same.sum(axis=-1) + 1) / 2


def _centred(x):
    return x - x.mean(axis=-1, keepdims=True)


def _ratio(a, b, otherwise):
    """a / b, and `otherwise` where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), otherwise), where=b > 0)[()]


def _pearson(x, y):
    """Pearson correlation along the last axis; nan where x or y is constant."""
    x, y = _centred(x), _centred(y)
    return _ratio((x * y).sum(axis=-1), np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1)), np.nan)


def _spearman(pairs):
    """Spearman rank correlation of pairs (n, 2); nan for a constant."""
    return _pearson(ranks(pairs[:, 0]), ranks(pairs[:, 1]))


def spearman(x, y):
    """Spearman rank correlation of x (n,) and y (n,). UserError below two values or for a constant."""
    pairs = _values(np.stack([x, y], axis=1), "spearman", least=2)
    value = float(_spearman(pairs))
    if np.isnan(value):
        raise UserError(f"spearman: one of the variables is constant over {len(pairs)} values")
    return value


def bootstrap_corr(x, y, *, unit, seed_address, clusters=None, n_boot=2000):
    """Estimate of the Spearman correlation of x (n,) and y (n,); pairs are resampled and ranked anew."""
    spearman(x, y)                                         # the clearer error
    return bootstrap(np.stack([x, y], axis=1), _spearman, unit=unit, seed_address=seed_address, clusters=clusters,
                     n_boot=n_boot)


def pooled_spearman(values):
    """Spearman of values[..., 0] with values[..., 1] over finite pairs; nan below three or for a constant."""
    values = values.reshape(-1, 2)
    pairs = values[np.isfinite(values).all(axis=1)]
    return float(_spearman(pairs)) if len(pairs) > 2 else np.nan


def _paired(x, y):
    """(x, y) as float64 (..., K), both centred over the points that each row of y has and 0 at those it lacks (nan)."""
    y = np.asarray(y, np.float64)
    kept = ~np.isnan(y)
    _values(np.where(kept, y, 0.0), "curves")
    n = np.maximum(kept.sum(axis=-1, keepdims=True), 1)
    x, y = (np.where(kept, z, 0.0) for z in (x, y))
    return tuple(np.where(kept, z - z.sum(axis=-1, keepdims=True) / n, 0.0) for z in (x, y))
def within_spearman(values, counts=None):
    """Spearman within groups: values (n, group, 2), ranked and centred inside every group, so that no difference
    between groups counts. A third column is partialled out of the ranks. A row with a value that is not finite is left
    out of its group; nan where fewer than three rows are left or a side is constant.

    counts  (n_boot, n) of `redraws`: one value per resample, (n_boot,), each ranked anew"""
    x = np.asarray(values, np.float64)
    here = np.isfinite(x).all(axis=-1)                                                         # (n, group)
    w = (np.ones((1, len(x))) if counts is None else counts)[:, :, None] * here                # (draw, n, group)
    below = (x[None] < x[:, None]) + 0.5 * (x[None] == x[:, None])                             # (row, other, group, k)
    r = np.einsum("bog,rogk->kbrg", w, below, optimize=True)                                   # ranks less one half
    size = w.sum(axis=1, keepdims=True)
    r = (r - size / 2) / np.maximum(size, 1)             # centred; a group counts by its rows, not by their cube
    rho = {(i, j): _ratio((w * r[i] * r[j]).sum(axis=(1, 2)),
                          np.sqrt((w * r[i] ** 2).sum(axis=(1, 2)) * (w * r[j] ** 2).sum(axis=(1, 2))), np.nan)
           for i in range(len(r)) for j in range(i)}
    found = rho[1, 0]
    if len(r) == 3:
        rest = np.maximum((1 - rho[2, 0] ** 2) * (1 - rho[2, 1] ** 2), 0.0)
        found = _ratio(found - rho[2, 0] * rho[2, 1], np.sqrt(np.where(rest > 1e-12, rest, 0.0)), np.nan)
    found = np.where(((w > 0).sum(axis=1)).sum(axis=1) > 2, found, np.nan)
    return float(found[0]) if counts is None else found


def bootstrap_within(values, *, unit, seed_address):
    """Estimate of `within_spearman` of values (n, group, 2 or 3), the rows with a value resampled; Missing where it is
    undefined."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values).all(axis=-1).any(axis=-1)]
    value = within_spearman(values) if len(values) > 2 else np.nan
    if not np.isfinite(value):
        return Missing("fewer than three pairs of values, or a side that is constant")
    draws = within_spearman(values, redraws(len(values), seed_address))
    low, high = interval(draws).tolist()
    lost = int((~np.isfinite(draws)).sum())
    return {"value": value, "low": low, "high": high, "n": len(values), "unit": unit,
            "method": f"percentile bootstrap, {len(draws)} resamples{f', {lost} undefined' if lost else ''}"}


def by_group(x, labels):
    """(n, group, k) of x (n, k) for `within_spearman`: every row in the group of its label, nan in the others."""
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    return np.where((labels[:, None] == np.unique(labels))[..., None], x[:, None], np.nan)


def bounded_share(low, high, n, unit):
    """Estimate of a share of n: `low` of them for certain, `high` at most. The ends of the intervals (`wilson`) of the
    two, so that what is undecided widens it and none of n is not [0, 0]."""
    return {"value": low / n, "low": wilson(low, n)[0], "high": wilson(high, n)[1], "n": n, "unit": unit,
            "method": f"Wilson interval, {high - low} undecided"}


def slopes(multipliers, curves):
    """Least-squares slope per row, over its points that are not nan. multipliers (K,), curves (..., K) -> (...), units
    of the curve per unit multiplier. On propensity curves this is the steerability of an input (Tan et al. 2024)."""
    x, y = _paired(_values(multipliers, "multipliers", least=2), curves)
    if not x.any(axis=-1).all():
        raise UserError("slopes: a row has no two points with different multipliers")
    return (x * y).sum(axis=-1) / (x * x).sum(axis=-1)


def r2(multipliers, curves):
    """Share of a row's variance that its line explains, (..., K) -> (...); nan left out. A constant row is its own
    line: 1."""
    x, y = _paired(multipliers, curves)
    line = slopes(multipliers, curves)[..., None] * x
    return 1 - _ratio(((y - line) ** 2).sum(axis=-1), (y * y).sum(axis=-1), 0.0)


def monotonicity(multipliers, curves):
    """Spearman correlation of each row with the multipliers, (..., K) -> (...), in [-1, 1]; nan left out. A constant
    row: 0."""
    y = np.atleast_2d(np.asarray(curves, np.float64))
    cut = np.isnan(y)                                          # neither less than any point nor equal to one: no rank
    x, y = _paired(ranks(np.where(cut, np.nan, multipliers)), np.where(cut, np.nan, ranks(y)))
    found = _ratio((x * y).sum(axis=-1), np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1)), 0.0)
    return found.reshape(np.shape(curves)[:-1])


def anti_fraction(slopes):
    """Share of inputs that are anti-steerable, slope <= 0, over all entries of an array of any shape."""
    return float((_values(slopes, "slopes") <= 0).mean())


def variance_shares(slopes, letter, yes=None):
    """Shares of the variance of slopes (n,) that letter (n,) bool explains, that yes (n,) bool explains on top, and
    the rest: {"letter", "yes_marginal", "unexplained"}, summing to 1 (Tan et al. 2024: nested least squares with an
    intercept). A constant or missing `yes` explains 0."""
    s = _values(slopes, "slopes", least=2)
    design = np.stack([np.ones(len(s)), letter, np.zeros(len(s)) if yes is None else yes], axis=1)
    fits = [columns @ np.linalg.lstsq(columns, s, rcond=None)[0] for columns in (design[:, :2].copy(), design)]
    total, after_letter, after_both = s.var(), *((s - fit).var() for fit in fits)
    if total <= 1e-24 * max(1.0, np.abs(s).max()) ** 2:     # equal slopes differ by rounding alone
        raise UserError(f"variance_shares: all {len(s)} slopes are equal")
    return {"letter": float((total - after_letter) / total), "unexplained": float(after_both / total),
            "yes_marginal": float((after_letter - after_both) / total)}


def resampled_variance_shares(slopes, letter, yes, counts):
    """`variance_shares` of slopes (n,) in every resample counts (n_boot, n): {name: (n_boot,)}, nan where all drawn
    slopes are equal. Least squares from weighted moments: a resample costs a 3 x 3 system, no pass over the data."""
    s = _values(slopes, "slopes", least=2)
    s = s - s.mean()
    design = np.stack([np.ones(len(s)), letter, yes], axis=1)
    n = counts.sum(axis=1).astype(np.float64)
    cross = np.stack([counts @ (design[:, i] * design[:, j]) for i in range(3) for j in range(3)], axis=1)
    moment, square = counts @ (design * s[:, None]), counts @ (s * s)
    left = []
    for k in (1, 2, 3):                                    # residual sums of squares of the nested fits
        normal = cross.reshape(-1, 3, 3)[:, :k, :k]
        fit = np.einsum("bij,bj->bi", np.linalg.pinv(normal, rcond=1e-10, hermitian=True), moment[:, :k])
        left.append(square - (fit * moment[:, :k]).sum(axis=1))
    total = np.where(left[0] > 1e-18 * n * max(1.0, np.abs(slopes).max()) ** 2, left[0], np.nan)
    return {"letter": (left[0] - left[1]) / total, "yes_marginal": (left[1] - left[2]) / total,
            "unexplained": left[2] / total}


def cosine(a, b):
    """Cosine along the last axis, (..., d) and (..., d) -> (...); 0 where a vector is zero: it has no direction."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return _ratio((a * b).sum(axis=-1), np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 0.0)


def split_half_cosine(diffs, address, n_splits=20):
    """Cosine between the means of two random halves of diffs (n, d), averaged over n_splits halvings. n >= 2."""
    diffs, rng = _values(diffs, "split_half_cosine", least=2), np.random.default_rng(address)
    halvings = (np.split(rng.permutation(len(diffs)), [len(diffs) // 2]) for _ in range(n_splits))
    return float(np.mean([cosine(*(diffs[half].mean(axis=0) for half in halves)) for halves in halvings]))


def directional_agreement(diffs, v):
    """Mean cosine of the pair differences (n, d) with v (d,) (Braun et al. 2025, arXiv 2505.22637)."""
    return float(cosine(_values(diffs, "directional_agreement"), v).mean())


def d_prime(positive, negative, v):
    """Discriminability of positive and negative states (n, d) projected on v (d,): difference of the means over the
    root mean of the two variances (ddof 1). Signed, unlike Braun et al. 2025, who take the absolute value."""
    p, q = (_values(x, "d_prime", least=2) @ np.asarray(v, dtype=np.float64) for x in (positive, negative))
    spread = np.sqrt((p.var(ddof=1) + q.var(ddof=1)) / 2)
    if not spread > 0:
        raise UserError(f"d_prime: all {len(p)} projections are equal")
    return float((p.mean() - q.mean()) / spread)


def norm_matched_random(v, n, address):
    """(n, d) float32 random directions, uniform on the sphere with the norm of v (d,)."""
    draws = np.random.default_rng(address).standard_normal((n, len(v)))
    norm = np.linalg.norm(_values(v, "norm_matched_random"))
    return (draws * (norm / np.linalg.norm(draws, axis=1, keepdims=True))).astype(np.float32)


def shuffled_label(diffs, n, address):
    """(n, ...) float32 vectors of shuffled labels: the mean over pair differences diffs (N, ...), N >= 2, with half of
    them turned round, one draw for all layers; of an odd number one pair is left out.

    Exactly half, since independent signs leave 1/sqrt(N) of the mean: at the norm of the vector that is most of what
    is left where twenty pairs agree."""
    diffs = _values(diffs, "shuffled_label", least=2)
    signs = np.repeat([-1.0, 1.0, 0.0], [len(diffs) // 2, len(diffs) // 2, len(diffs) % 2])
    signs = np.random.default_rng(address).permuted(np.tile(signs, (n, 1)), axis=1)
    return (np.tensordot(signs, diffs, axes=1) / len(diffs)).astype(np.float32)


def orthogonal_to(vectors, v):
    """vectors (n, d) without their part along v (d,), float32: what else the data vary in, at no cosine with v."""
    x, v = _values(vectors, "orthogonal_to"), _values(v, "orthogonal_to")
    return (x - np.outer(x @ v, v) / (v @ v)).astype(np.float32)


def wilson(k, n, level=LEVEL):
    """(low, high): Wilson's interval of a share, k of n (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
