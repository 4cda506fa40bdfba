"""Cross-validated prediction of one number per behaviour or input from a few others, by ridge regression."""
import numpy as np

from lib import metrics
from lib.metrics import Missing

# --- settings that change the numbers -----------------------------------------------------------------------
RIDGE = 1.0              # penalty, predictors in standard deviations
FOLDS, REPEATS = 3, 2    # of the behaviours of a format; draws of the folds
N_PERMUTED = 60          # permutations that show how far a prediction of noise strays
# ------------------------------------------------------------------------------------------------------------


def held_out(x, y, folds=None):
    """Ridge predictions of y (n,) from x (n, predictors), each by a fit without its fold (n,); leave one out."""
    x, y, out = np.asarray(x, np.float64), np.asarray(y, np.float64), np.empty(len(y))
    folds = np.arange(len(y)) if folds is None else folds
    for fold in np.unique(folds):
        keep = folds != fold
        centre, scale = x[keep].mean(axis=0), x[keep].std(axis=0)
        z = (x - centre) / np.where(scale > 0, scale, 1)
        w = np.linalg.solve(z[keep].T @ z[keep] + RIDGE * np.eye(x.shape[1]), z[keep].T @ (y[keep] - y[keep].mean()))
        out[~keep] = y[keep].mean() + z[~keep] @ w
    return out


def inside_formats(x, y, formats, address):
    """(n, group, 2) for `metrics.within_spearman`: predictions of y (n,) from x (n, predictors), and y. A group is a
    fold of a format, and each is predicted by a fit on the others of its format. None without a large enough format.

    A fold that lies high lowers the mean of the rest, so that predictions of several fits, ranked together, correlate
    negatively with pure noise; inside folds they do not."""
    rng, groups = np.random.default_rng(address), []
    for mine in (np.flatnonzero(formats == one) for one in np.unique(formats)):
        for _ in range(REPEATS if len(mine) > x.shape[1] + 2 else 0):
            folds = rng.permutation(len(mine)) % FOLDS
            told = held_out(x[mine], y[mine], folds)
            for fold in range(FOLDS):
                groups.append(np.full((len(y), 2), np.nan))
                groups[-1][mine[folds == fold]] = np.stack([told, y[mine]], axis=1)[folds == fold]
    return np.stack(groups, axis=1) if groups else None


def foretold_within(x, y, formats, address):
    """Estimate of the rank correlation of y (n,) with its predictions from x (n, predictors) within formats.

    A bootstrap of fixed predictions does not see that the fits vary: what y permuted inside the formats gives varies
    too, and its spread is added to the interval in quadrature."""
    formats, rng = np.asarray(formats), np.random.default_rng([*address, 1])
    pairs = inside_formats(x, y, formats, address)
    if pairs is None:
        return Missing(f"{len(y)} behaviours in {len(set(formats))} formats for {x.shape[1]} predictors")
    found, null = metrics.bootstrap_within(pairs, unit="behaviours", seed_address=address), []
    if isinstance(found, Missing):
        return found
    for _ in range(N_PERMUTED):
        order = np.arange(len(y))
        for one in np.unique(formats):
            order[formats == one] = rng.permutation(order[formats == one])
        null.append(metrics.within_spearman(inside_formats(x, y[order], formats, address)))
    stray = 1.96 * np.nanstd(null)
    low, high = (found["value"] + sign * np.hypot(found[end] - found["value"], stray)
                 for sign, end in ((-1, "low"), (1, "high")))
    return found | {"low": max(-1.0, float(low)), "high": min(1.0, float(high)),
                    "method": f"{found['method']}, and {N_PERMUTED} permutations"}
