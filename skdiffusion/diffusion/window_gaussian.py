r"""The Gaussian over the cells of a window, given whichever of them are observed.

Letters. A window has ``L`` time steps and ``K`` features, that is ``P = L K`` cells; a cell has
the flat index ``t K + k``. All values are standardised. ``m`` and ``o`` are the missing and the
observed cells of one window.

With mean ``mu``, covariance ``S`` and precision ``Q = S^{-1}`` the missing cells given the
observed ones are Gaussian with

.. math::

    E[x_m | x_o] = \mu_m - Q_{mm}^{-1} Q_{mo} (x_o - \mu_o)
                 = \mu_m + S_{mo} S_{oo}^{-1} (x_o - \mu_o),
    \qquad
    \mathrm{Cov}[x_m | x_o] = Q_{mm}^{-1} = S_{mm} - S_{mo} S_{oo}^{-1} S_{om}.

The two forms cost the cube of the number of missing and of observed cells; the cheaper one is
taken. Everything here is float64: covariances of smooth series are nearly singular.

A long series is taken as stationary: its covariance is block-Toeplitz, made of the
autocovariances at lags 0 to L - 1. They are estimated on the *filled* series, to which the
conditional covariance of what was filled in is added back, which is one step of EM. Dividing
every lag by the same number of rows (the "biased" estimate) keeps the matrix positive definite.
Samples that start at a common hour, and rows of a table, share a free covariance, estimated by
EM [1]_ and shrunk towards a simpler one.

References
----------
.. [1] T. Schneider, "Analysis of incomplete climate data", Journal of Climate 14, 2001.
"""

from typing import NamedTuple

import torch

from skdiffusion.diffusion.windows import interpolate

NUGGET = 1e-4
# Stationary windows with more cells are conditioned piece by piece.
MAX_CELLS = 1000
# A smaller share of the diagonal gains nothing, but biases regressions on filled columns.
_LEAST_SHARE = 0.05
# Above this many features only the next rows are used to fill gaps before estimation.
_WIDE = 60


class Conditional(NamedTuple):
    """Conditional distribution of every cell of a batch of windows.

    ``mean`` and ``sd`` are (B, P), exact values and 0 at observed cells; ``covariance`` is
    (B, N, N) over the asked cells, the identity on padding.
    """

    mean: torch.Tensor
    sd: torch.Tensor
    covariance: torch.Tensor | None


class WindowGaussian:
    """Gaussian over the cells of a window, conditioned in closed form.

    Parameters
    ----------
    mean : float64 tensor of shape (n_cells,)
        Mean of every cell.
    covariance : float64 tensor of shape (n_cells, n_cells)
        Positive definite covariance, measurement noise included.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.window_gaussian import WindowGaussian
    >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    >>> base = WindowGaussian(torch.zeros(2, dtype=torch.float64), covariance)
    >>> given = base.condition(torch.tensor([[2.0, 0.0]]), torch.tensor([[True, False]]))
    >>> given.mean.tolist(), round(float(given.sd[0, 1]), 3)
    ([[2.0, 1.6]], 0.6)
    """

    def __init__(self, mean, covariance):
        self.mean = mean
        self.covariance = covariance
        self.precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))

    def __deepcopy__(self, memo):
        """Share the matrices: they are never changed."""
        return self

    def map(self, function):
        """Return the same distribution with ``function`` applied to its tensors."""
        moved = object.__new__(WindowGaussian)
        for name in ("mean", "covariance", "precision"):
            setattr(moved, name, function(getattr(self, name)))
        return moved

    def condition(self, values, observed, cells=None, pad=None):
        """Condition a batch of windows on their observed cells.

        Parameters
        ----------
        values : tensor of shape (B, P)
            Values; what stands at unobserved cells is not read.
        observed : bool tensor of shape (B, P)
            Which cells are observed.
        cells : int64 tensor of shape (B, N), optional
            Unobserved cells whose joint covariance is wanted.
        pad : bool tensor of shape (B, N), optional
            True where ``cells`` is only padding.

        Returns
        -------
        conditional : Conditional
            Means, standard deviations and, for ``cells``, the covariance.
        """
        values = torch.where(observed, values.double() - self.mean, 0.0)
        n_observed = observed.sum(1)
        # Both forms are exact; the batch is padded to its largest count.
        if int((observed.shape[1] - n_observed).max()) <= int(n_observed.max()):
            return self._by_precision(values, observed, cells, pad)
        return self._by_covariance(values, observed, cells, pad)

    def missing_covariance(self, observed):
        """Sum over windows (B, P) of the conditional covariance, 0 at observed cells."""
        n_cells, n_observed = len(self.mean), observed.sum(1)
        if int((n_cells - n_observed).max()) <= int(n_observed.max()):
            cells, pad = pick(~observed)
            factor = torch.linalg.cholesky(_submatrix(self.precision, cells, pad))
            part = torch.cholesky_inverse(factor)
            part = part.masked_fill(pad[:, :, None] | pad[:, None], 0.0)
            place = (cells[:, :, None] * n_cells + cells[:, None]).flatten()
            total = torch.zeros(n_cells * n_cells, dtype=part.dtype, device=part.device)
            return total.index_add_(0, place, part.flatten()).view(n_cells, n_cells)
        cells, pad = pick(observed)
        factor = torch.linalg.cholesky(_submatrix(self.covariance, cells, pad))
        cross = self.covariance[cells].masked_fill(pad[..., None], 0.0)
        cross = torch.linalg.solve_triangular(factor, cross, upper=False).flatten(0, 1)
        # Single precision halves the cost of the one large product; it only feeds an average.
        explained = (cross.float().T @ cross.float()).double()
        return len(observed) * self.covariance - explained

    def _by_precision(self, values, observed, cells, pad):
        """Condition at the cost of the cube of the missing cells."""
        missing, empty = pick(~observed)
        factor = torch.linalg.cholesky(_submatrix(self.precision, missing, empty))
        pull = (values @ self.precision).gather(1, missing).masked_fill(empty, 0.0)
        shift = -torch.cholesky_solve(pull[..., None], factor)[..., 0]
        covariance = torch.cholesky_inverse(factor)
        mean = values.scatter_add(1, missing, shift.masked_fill(empty, 0.0))
        variance = torch.diagonal(covariance, dim1=1, dim2=2).masked_fill(empty, 0.0)
        sd = torch.zeros_like(values).scatter_add(1, missing, variance).sqrt()
        if cells is not None:
            place = torch.zeros_like(observed, dtype=torch.int64)
            order = torch.arange(missing.shape[1], device=missing.device).expand_as(missing)
            place = place.scatter_add(1, missing, order.masked_fill(empty, 0)).gather(1, cells)
            covariance = covariance.gather(1, place[:, :, None].expand(-1, -1, missing.shape[1]))
            covariance = covariance.gather(2, place[:, None].expand(-1, place.shape[1], -1))
            covariance = _identity_on(covariance, pad)
        return Conditional(mean + self.mean, sd, covariance if cells is not None else None)

    def _by_covariance(self, values, observed, cells, pad):
        """Condition at the cost of the cube of the observed cells."""
        seen, empty = pick(observed)
        factor = torch.linalg.cholesky(_submatrix(self.covariance, seen, empty))
        cross = self.covariance[seen].masked_fill(empty[..., None], 0.0)
        cross = torch.linalg.solve_triangular(factor, cross, upper=False)
        target = values.gather(1, seen).masked_fill(empty, 0.0)[..., None]
        target = torch.linalg.solve_triangular(factor, target, upper=False)
        mean = torch.where(observed, values, (cross * target).sum(1))
        variance = self.covariance.diagonal() - cross.square().sum(1)
        sd = torch.where(observed, 0.0, variance.clamp(min=0.0).sqrt())
        covariance = None
        if cells is not None:
            part = cross.gather(2, cells[:, None].expand(-1, cross.shape[1], -1))
            prior = self.covariance[cells[:, :, None], cells[:, None]]
            covariance = _identity_on(prior - part.transpose(1, 2) @ part, pad)
        return Conditional(mean + self.mean, sd, covariance)


class LocalGaussian:
    """A short window Gaussian slid along a longer window.

    The window is cut into blocks; the cells of a block are conditioned on the observed cells of
    the block and of a margin on both sides, and are independent of the other blocks' given
    those. This bounds the cost for long windows and for many features.

    Parameters
    ----------
    short : WindowGaussian
        Gaussian over ``reach`` time steps.
    length, n_features : int
        Size of the long window.
    reach : int
        Number of time steps of ``short``, at most ``length``.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.window_gaussian import LocalGaussian, WindowGaussian
    >>> step = torch.arange(3.0, dtype=torch.float64)
    >>> covariance = 0.9 ** (step[:, None] - step).abs()
    >>> short = WindowGaussian(torch.zeros(3, dtype=torch.float64), covariance)
    >>> base = LocalGaussian(short, length=9, n_features=1, reach=3)
    >>> observed = torch.ones(1, 9, dtype=torch.bool)
    >>> observed[0, 4] = False
    >>> given = base.condition(torch.ones(1, 9), observed)
    >>> round(float(given.mean[0, 4]), 3)
    0.994
    """

    def __init__(self, short, length, n_features, reach):
        self.short, self.length, self.n_features, self.reach = short, length, n_features, reach
        self.margin = reach // 4 if reach > 4 else (reach - 1) // 2
        self.core = reach - 2 * self.margin

    def __deepcopy__(self, memo):
        """Share the matrices: they are never changed."""
        return self

    @property
    def mean(self):
        """Mean of the short window."""
        return self.short.mean

    @property
    def covariance(self):
        """Covariance of the short window."""
        return self.short.covariance

    def map(self, function):
        """Return the same distribution with ``function`` applied to its tensors."""
        return LocalGaussian(self.short.map(function), self.length, self.n_features, self.reach)

    def condition(self, values, observed, cells=None, pad=None):
        """Condition a batch of windows; see :meth:`WindowGaussian.condition`."""
        asked = torch.zeros_like(observed)
        if cells is not None:
            count = torch.zeros(observed.shape, dtype=torch.int64, device=cells.device)
            asked = count.scatter_add(1, cells, (~pad).long()) > 0
        blocks, empty = pick(self._blocks(asked, with_margin=False))
        given = self.short.condition(
            self._blocks(values),
            self._blocks(observed),
            blocks,
            empty if cells is not None else None,
        )
        mean, sd = self._whole(given.mean), self._whole(given.sd)
        if cells is None:
            return Conditional(mean, sd, None)
        return Conditional(mean, sd, self._assemble(given.covariance, blocks, empty, cells, pad))

    def _blocks(self, x, with_margin=True):
        """Cut windows (B, P) into blocks (B * n_blocks, reach * K); beyond the ends is 0."""
        x = x.view(len(x), self.length, self.n_features)
        n_blocks = -(-self.length // self.core)
        behind = n_blocks * self.core - self.length + self.margin
        x = torch.nn.functional.pad(x, (0, 0, self.margin, behind))
        x = x.unfold(1, self.reach, self.core).transpose(2, 3)
        if not with_margin:
            inside = torch.zeros(self.reach, 1, dtype=torch.bool, device=x.device)
            inside[self.margin : self.margin + self.core] = True
            x = x & inside
        return x.flatten(0, 1).flatten(1)

    def _whole(self, blocks):
        """Put the cores of blocks together again."""
        x = blocks.unflatten(1, (self.reach, self.n_features))
        x = x[:, self.margin : self.margin + self.core]
        n_blocks = -(-self.length // self.core)
        return x.reshape(-1, n_blocks * self.core, self.n_features)[:, : self.length].flatten(1)

    def _assemble(self, covariance, blocks, empty, cells, pad):
        """Block-diagonal covariance (B, N, N) of the asked cells."""
        batch, width = cells.shape
        n_blocks = len(blocks) // batch
        number = torch.arange(len(blocks), device=cells.device)[:, None]
        shift = ((number % n_blocks) * self.core - self.margin) * self.n_features
        place = torch.zeros(
            batch, self.length * self.n_features, dtype=torch.int64, device=cells.device
        )
        order = torch.arange(width, device=cells.device).expand_as(cells)
        place = place.scatter_add(1, cells, order.masked_fill(pad, 0))
        place = place[number // n_blocks, (blocks + shift).masked_fill(empty, 0)]
        outside = empty[:, :, None] | empty[:, None]
        flat = (
            (number // n_blocks)[..., None] * width**2 + place[:, :, None] * width + place[:, None]
        )
        total = torch.zeros(batch * width**2, dtype=covariance.dtype, device=cells.device)
        total.index_add_(0, flat.flatten(), covariance.masked_fill(outside, 0.0).flatten())
        return _identity_on(total.view(batch, width, width), pad)


def pick(mask):
    """Indices of the True cells of every row, padded to the longest row.

    Parameters
    ----------
    mask : bool tensor of shape (B, P)
        Cells to list.

    Returns
    -------
    cells : int64 tensor of shape (B, N)
        Increasing flat indices, 0 where padded.
    pad : bool tensor of shape (B, N)
        True where ``cells`` is padding.
    """
    count = mask.sum(1)
    width = max(int(count.max()), 1)
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :width]
    pad = torch.arange(width, device=mask.device) >= count[:, None]
    return order.masked_fill(pad, 0), pad


def _submatrix(matrix, cells, pad):
    """Gather a principal submatrix for every row, the identity on padding."""
    return _identity_on(matrix[cells[:, :, None], cells[:, None]], pad)


def _identity_on(matrix, pad):
    """Replace the padded rows and columns of a batch of matrices by those of the identity."""
    if pad is None:
        return matrix
    matrix = matrix.masked_fill(pad[:, :, None] | pad[:, None], 0.0)
    matrix.diagonal(dim1=1, dim2=2).add_(pad.to(matrix.dtype))
    return matrix


def stationary_gaussian(series, length, *, nugget=NUGGET):
    """Fit the block-Toeplitz Gaussian of a window to stationary series with gaps.

    The gaps are filled three times, each time from the rows around them by the Gaussian learnt
    from the last filling: twice from the rows next to them, then from three rows on each side.

    Parameters
    ----------
    series : list of (values, observed) pairs
        Tensors of shape (n_times, n_features): float64 values and the bool mask of those that
        are observed.
    length : int
        Window length L.
    nugget : float, default=1e-4
        Variance of independent measurement noise added to every cell, in standardised units.

    Returns
    -------
    base : WindowGaussian or LocalGaussian
        Over the ``length * n_features`` cells of a window; local above 1000 cells.
    """
    n_features = series[0][0].shape[1]
    reach = length
    if length * n_features > MAX_CELLS:
        reach = min(
            length, max(MAX_CELLS // n_features, 3 if 3 * n_features <= 4 * MAX_CELLS else 1)
        )
    filled = [(interpolate(x, observed)[0], torch.zeros_like(x)) for x, observed in series]
    for side in (1, 1, 3 if n_features <= _WIDE else 1):
        near = _toeplitz_gaussian(filled, 2 * side + 1, nugget)
        filled = [_fill_by_neighbours(near, x, observed, side) for x, observed in series]
    short = _toeplitz_gaussian(filled, reach, nugget)
    return window_base(short.mean, short.covariance, length, n_features)


def window_base(mean, covariance, length, n_features):
    """Gaussian of a window from its moments, or from those of a shorter window.

    Parameters
    ----------
    mean : float64 tensor of shape (n_cells,)
        Mean over ``n_cells / n_features`` time steps.
    covariance : float64 tensor of shape (n_cells, n_cells)
        Covariance.
    length, n_features : int
        Size of the window.

    Returns
    -------
    base : WindowGaussian or LocalGaussian
        The latter if ``n_cells`` is less than ``length * n_features``.
    """
    short, reach = WindowGaussian(mean, covariance), len(mean) // n_features
    return short if reach == length else LocalGaussian(short, length, n_features, reach)


def _toeplitz_gaussian(filled, length, nugget):
    """Window Gaussian from filled series and the variances of what was filled in."""
    n_rows = sum(len(values) for values, _ in filled)
    mean = sum(values.sum(0) for values, _ in filled) / n_rows
    centred = [values - mean for values, _ in filled]
    lags = [sum(x[: max(len(x) - t, 0)].T @ x[t:] for x in centred) / n_rows for t in range(length)]
    lags[0] = lags[0] + torch.diag(sum(variance.sum(0) for _, variance in filled) / n_rows + nugget)
    return WindowGaussian(mean.repeat(length), block_toeplitz(lags))


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


def _fill_by_neighbours(near, values, observed, reach, batch=2048):
    """Conditional mean and variance of every row given the rows up to ``reach`` away."""
    n_features, width = values.shape[1], 2 * reach + 1
    centre = slice(reach * n_features, (reach + 1) * n_features)

    def stacked(x):
        padded = torch.nn.functional.pad(x, (0, 0, reach, reach))
        return padded.unfold(0, width, 1).transpose(1, 2)

    around, seen = stacked(torch.where(observed, values, 0.0)), stacked(observed)
    mean, variance = values.clone(), torch.zeros_like(values)
    gappy = torch.nonzero(~observed.all(1))[:, 0]
    for rows in gappy.split(batch) if len(gappy) else ():
        given = near.condition(around[rows].flatten(1), seen[rows].flatten(1))
        mean[rows] = given.mean[:, centre]
        variance[rows] = given.sd[:, centre].square()
    return torch.where(observed, values, mean), variance


def free_gaussian(values, observed, *, nugget=NUGGET, batch=64):
    """Fit a Gaussian with a free covariance to samples with missing cells, by EM.

    Every pass replaces the second moment by its expectation given the observed cells (E) and
    mixes it with a simpler covariance (M): the diagonal for a table, the stationary covariance
    with the same lags for samples of several time steps. For a table the share of the simpler
    one is that of Schäfer and Strimmer [1]_, or none where that is below 5 %; else it is
    the one with the highest likelihood on samples kept aside for that choice.

    Parameters
    ----------
    values : float64 tensor of shape (n_samples, L, n_features)
        Standardised values, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
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
       Genetics and Molecular Biology 4, 2005.
    """
    length = values.shape[1]
    x, seen = torch.where(observed, values, 0.0).flatten(1), observed.flatten(1)
    base = _first_guess(x, seen, length, nugget)
    # Large samples converge slowly in EM but need few of them: one covariance serves all times.
    sizes = [len(x)] * 10 if x.shape[1] <= 500 else [100, 100, 200]
    kept = (torch.arange(len(x)) % 5 == 4) & (length > 1)
    share = 0.95
    for i, size in enumerate(sizes):
        rows = torch.nonzero(~kept)[:size, 0]
        mean, second = _expected_moments(base, x[rows], seen[rows], batch)
        # A first guess of the share kept to the end would bias every filling towards it.
        if length == 1:
            share = _table_share(second, len(x))
        elif i in (2, len(sizes) - 1) and bool(kept.any()):
            share = _best_share(mean, second, length, nugget, x[kept], seen[kept], batch)
        base = _shrunk(mean, second, share, length, nugget)
    return base


def _table_share(second, n_samples):
    """Share of the diagonal: variance of the sample correlations over the sum of their squares.

    Of samples that are all complete, however many cells are seen: what is missing is filled in by
    the shrunk covariance, pass after pass, and so shrinks it by itself.
    """
    spread = second.diagonal().clamp(min=0).sqrt()
    r = (second / (spread[:, None] * spread)).nan_to_num(0.0).tril(-1)
    noise = ((1 - r.square()).square() / n_samples).tril(-1)
    share = float((noise.sum() / r.square().sum()).clamp(max=1).nan_to_num(1.0))
    return share if share > _LEAST_SHARE else 0.0


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
    for values, observed in zip(x.split(batch), seen.split(batch)):
        mean = base.condition(values, observed).mean
        total += mean.sum(0)
        second += mean.T @ mean + base.missing_covariance(observed)
    mean = total / len(x)
    return mean, second / len(x) - mean[:, None] * mean


def _shrunk(mean, second, share, length, nugget):
    """Window Gaussian with a shrunken covariance."""
    return WindowGaussian(mean, _shrink(second, share, length, nugget))


def _shrink(second, share, length, nugget):
    """Mix a covariance with its stationary part, or with its diagonal for single rows."""
    simple = torch.diag(second.diagonal()) if length == 1 else _stationary_part(second, length)
    mixed = (1 - share) * second + share * simple
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
        factor = torch.linalg.cholesky(_submatrix(base.covariance, cells, pad))
        centred = (values - base.mean).gather(1, cells).masked_fill(pad, 0.0)[..., None]
        white = torch.linalg.solve_triangular(factor, centred, upper=False)
        total -= 0.5 * white.square().sum() + torch.diagonal(factor, dim1=1, dim2=2).log().sum()
    return total / max(len(x), 1)
