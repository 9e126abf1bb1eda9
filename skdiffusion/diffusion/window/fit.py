"""The Gaussian over a window with a free covariance, from samples with gaps."""

import torch

from skdiffusion.diffusion.window.gaussian import WindowGaussian, pick, submatrix

# Added to variances of one: a hundredth of a standard deviation, below what a sensor resolves.
NUGGET = 1e-4
# A smaller share of the diagonal gains nothing, but biases regressions on filled columns.
_LEAST_SHARE = 0.05
# Rounds in which the numbers of features settle, and rows from which a correlation says anything.
_N_ROUNDS, _FEWEST_TOGETHER = 30, 4
# Rows with the same cells missing, on average, from which they are worked on together.
_ROWS_A_PATTERN = 8


def block_toeplitz(lags):
    """Covariance over a window from autocovariances.

    Parameters
    ----------
    lags : sequence of tensors of shape (K, K)
        ``lags[t][i, j]`` is the covariance of feature ``i`` now and ``j`` after ``t`` steps.

    Returns
    -------
    covariance : tensor of shape (L * K, L * K)
        Over cells in the order time, feature.
    """
    length, size = len(lags), len(lags[0])
    both = torch.stack([lag.T for lag in lags[:0:-1]] + list(lags))
    step = torch.arange(length)
    blocks = both[step[None, :] - step[:, None] + length - 1]
    return blocks.permute(0, 2, 1, 3).reshape(length * size, length * size)


def free_gaussian(values, observed, owner=None, *, nugget=NUGGET, batch=64):
    """Fit a Gaussian with a free covariance to samples with missing cells, by EM.

    Every pass replaces the second moment by its expectation given the observed cells (E) and
    makes it simpler (M): by smaller covariances in a table, by a share of the stationary covariance
    with the same lags for samples of several time steps. How much smaller is what Schäfer and
    Strimmer [1]_ ask of one share, asked of every feature; less than 5 % is none. The share is the
    one with the highest likelihood on samples kept aside for that choice.

    Parameters
    ----------
    values : float64 tensor of shape (n_samples, L, n_features)
        Standardised values, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
    owner : int64 tensor of shape (n_features,), optional
        The feature that each column of a table belongs to; without it a table's covariance is not
        made simpler.
    nugget : float, default=1e-4
        Variance of independent measurement noise added to every cell.
    batch : int, default=64
        Samples conditioned at once.

    Returns
    -------
    base : WindowGaussian
        Over the ``L * n_features`` cells of a sample.

    References
    ----------
    .. [1] J. Schäfer, K. Strimmer, "A shrinkage approach to large-scale covariance matrix
       estimation and implications for functional genomics", Statistical Applications in
       Genetics and Molecular Biology 4, 2005, https://doi.org/10.2202/1544-6115.1175.
    """
    length = values.shape[1]
    x, seen = torch.where(observed, values, 0.0).flatten(1), observed.flatten(1)
    base = _first_guess(x, seen, length, nugget)
    factors = 1.0 if owner is None else _kept(x, seen, owner)
    # Large samples converge slowly in EM but need few of them: one covariance serves all times.
    sizes = [len(x)] * 10 if x.shape[1] <= 500 else [100, 100, 200]
    kept = (torch.arange(len(x)) % 5 == 4) & (length > 1)
    share = 0.95 if length > 1 else 0.0
    for i, size in enumerate(sizes):
        rows = torch.nonzero(~kept)[:size, 0]
        mean, second = _expected_moments(base, x[rows], seen[rows], batch)
        # A first guess of the share kept to the end would bias every filling towards it.
        if i in (2, len(sizes) - 1) and bool(kept.any()):
            share = _best_share(mean, second, length, nugget, x[kept], seen[kept], batch)
        base = _shrunk(mean, second * factors, share, length, nugget)
    return base


def _kept(x, seen, owner):
    """What covariances of a table are multiplied by: ``a_f a_g`` between features ``f`` and ``g``.

    The numbers make the expected sum of squared errors of the correlations between features
    smallest, each given the others. One for all would be that of Schäfer and Strimmer, by which
    columns that tell nothing, such as the many of a label, shrink those away that tell a lot.
    A product of positive semidefinite matrices, cell by cell, is one.

    Correlations are those of what was seen together, with the noise of samples that are all
    complete: what is missing is filled in by the shrunk covariance, and so shrinks it by itself.
    """
    together = seen.double().T @ seen.double()
    centred = torch.where(seen, x - x.sum(0) / seen.sum(0).clamp(min=1), 0.0)
    squares = centred.square().T @ seen.double()
    r = (centred.T @ centred / (squares * squares.T).sqrt()).nan_to_num(0.0)
    r = torch.where(together < _FEWEST_TOGETHER, 0.0, r)
    noise = torch.where(r == 0, 0.0, (1 - r.square()).square() / len(x))
    place = owner.unique(return_inverse=True)[1]
    member = torch.nn.functional.one_hot(place).double()
    apart = place[:, None] != place
    squares, signal = (member.T @ (v * apart) @ member for v in (r.square(), r.square() - noise))
    a = torch.ones_like(signal[0])
    for _ in range(_N_ROUNDS):
        best = (signal @ a / (squares @ a.square())).nan_to_num(0.0).clamp(0, 1)
        a = (a + best) / 2
    a = torch.where(a.square() > 1 - _LEAST_SHARE, 1.0, a)[place]
    return torch.where(apart, a[:, None] * a, 1.0)


def _best_share(mean, second, length, nugget, x, seen, batch):
    """Share of the simpler covariance with the highest held-out likelihood."""
    shares = (0.02, 0.1, 0.3, 0.6, 0.95)
    trials = [_shrunk(mean, second, share, length, nugget) for share in shares]
    scores = [_log_likelihood(trial, x[:100], seen[:100], batch) for trial in trials]
    return shares[int(torch.stack(scores).argmax())]


def _first_guess(x, seen, length, nugget):
    """Mean of each cell shrunk to that of its feature; covariance of what was seen together."""
    count = seen.double().sum(0)
    n_features = x.shape[1] // length
    feature = lambda v: v.view(length, -1).sum(0).repeat(length)  # noqa: E731
    overall = feature(x.sum(0)) / feature(count).clamp(min=1)
    mean = (x.sum(0) + 20 * overall) / (count + 20)
    centred = torch.where(seen, x - mean, 0.0)
    # Pairs of cells with the same lag are pooled; the prior count of 20 keeps rare pairs small.
    products = _stationary_part(centred.T @ centred, length)
    pairs = _stationary_part(seen.double().T @ seen.double(), length)
    pooled = (length - _lag(length, n_features)) * pairs
    second = products / pairs.clamp(min=1e-12) * pooled / (pooled + 20)
    second.diagonal().add_(20 / (pooled.diagonal() + 20))
    return WindowGaussian(mean, _positive(second + nugget * torch.eye(len(second)), nugget))


def _lag(length, n_features):
    """Distance in time of every pair of cells."""
    time = torch.arange(length).repeat_interleave(n_features)
    return (time[:, None] - time).abs()


def _expected_moments(base, x, seen, batch):
    """Mean and covariance of the completed samples, conditional covariance included."""
    n_cells = x.shape[1]
    total, second = torch.zeros(n_cells).double(), torch.zeros(n_cells, n_cells).double()
    for mean, rest in _completed(base, x, seen, batch):
        total += mean.sum(0)
        second += mean.T @ mean + rest
    mean = total / len(x)
    return mean, second / len(x) - mean[:, None] * mean


def _completed(base, x, seen, batch):
    """Conditional means of some samples at a time, and the sum of their conditional covariances."""
    groups = alike_patterns(seen)
    if groups is None:
        # A batch costs the cube of the most cells that are missing in one of its rows.
        for rows in seen.sum(1).argsort(stable=True).split(batch):
            yield base.completed(x[rows], seen[rows])
        return
    for rows, observed in groups:
        mean, covariance = base.of_pattern(x[rows], observed)
        gone = torch.nonzero(~observed)[:, 0]
        rest = torch.zeros(len(observed), len(observed), dtype=mean.dtype)
        rest[gone[:, None], gone] = len(rows) * covariance
        yield mean, rest


def alike_patterns(observed):
    """Rows with the same cells observed, or None where few rows have the same.

    The many columns of a label with many categories are missing at once: a table of five features
    has 32 patterns at most, however many columns they take.

    Parameters
    ----------
    observed : bool tensor of shape (n_rows, n_cells)
        Which cells are observed.

    Returns
    -------
    groups : list of pairs or None
        Row numbers, and which cells are observed in them.
    """
    patterns, which, count = observed.unique(dim=0, return_inverse=True, return_counts=True)
    if len(patterns) * _ROWS_A_PATTERN > len(observed):
        return None
    return list(zip(which.argsort(stable=True).split(count.tolist()), patterns))


def completed_by(base, values, observed, batch=256):
    """Conditional means and standard deviations of the cells of rows (n_rows, P), 0 where observed.

    Rows of one pattern are worked on together, others so many at once.
    """
    groups = alike_patterns(observed)
    if groups is None:
        given = [base.condition(*rows) for rows in zip(values.split(batch), observed.split(batch))]
        return torch.cat([one.mean for one in given]), torch.cat([one.sd for one in given])
    mean, sd = torch.zeros_like(values), torch.zeros_like(values)
    for rows, seen in groups:
        mean[rows], covariance = base.of_pattern(values[rows], seen)
        sd[rows[:, None], torch.nonzero(~seen)[:, 0]] = covariance.diagonal().clamp(min=0).sqrt()
    return mean, sd


def _shrunk(mean, second, share, length, nugget):
    """Window Gaussian with a shrunken covariance."""
    return WindowGaussian(mean, _shrink(second, share, length, nugget))


def _shrink(second, share, length, nugget):
    """Mix a covariance with its stationary part, which of single rows is itself."""
    mixed = (1 - share) * second + share * _stationary_part(second, length)
    return _positive(mixed + nugget * torch.eye(len(mixed), dtype=mixed.dtype), nugget)


def _stationary_part(second, length):
    """Average the blocks of a window covariance that belong to the same lag."""
    blocks = second.view(length, -1, length, len(second) // length).permute(0, 2, 1, 3)
    lags = [blocks.diagonal(t, 0, 1).mean(-1) for t in range(length)]
    return block_toeplitz(lags)


def _positive(matrix, floor):
    """Lift negative eigenvalues, where there are any."""
    if int(torch.linalg.cholesky_ex(matrix).info) == 0:
        return matrix
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=floor)) @ vectors.T


def _log_likelihood(base, x, seen, batch):
    """Mean log-density of the observed cells, up to a constant."""
    total = torch.zeros(()).double()
    for values, observed in zip(x.split(batch), seen.split(batch)):
        cells, pad = pick(observed)
        factor = torch.linalg.cholesky(submatrix(base.covariance, cells, pad))
        centred = (values - base.mean).gather(1, cells).masked_fill(pad, 0.0)[..., None]
        white = torch.linalg.solve_triangular(factor, centred, upper=False)
        total -= 0.5 * white.square().sum() + torch.diagonal(factor, dim1=1, dim2=2).log().sum()
    return total / max(len(x), 1)
