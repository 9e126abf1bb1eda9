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
.. [1] T. Schneider, "Analysis of incomplete climate data", Journal of Climate 14, 2001,
   https://doi.org/10.1175/1520-0442(2001)014%3C0853:AOICDE%3E2.0.CO;2.
"""

from typing import NamedTuple

import torch


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
    >>> from skdiffusion.diffusion.window import WindowGaussian
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
        # Both forms are exact.
        if _mostly(observed):
            return self._by_precision(values, observed, cells, pad)
        return self._by_covariance(values, observed, cells, pad)

    def of_pattern(self, values, observed):
        """Condition windows whose observed cells are the same.

        Parameters
        ----------
        values : tensor of shape (B, P)
            Values; what stands at unobserved cells is not read.
        observed : bool tensor of shape (P,)
            Which cells are observed.

        Returns
        -------
        mean : tensor of shape (B, P)
            Means, the values themselves where observed.
        covariance : tensor of shape (N, N)
            Of the missing cells, in every window.
        """
        mean, gone = values.double().clone(), ~observed
        centred = (mean - self.mean)[:, observed]
        if gone.sum() <= observed.sum():
            factor = torch.linalg.cholesky(self.precision[gone][:, gone])
            pull = centred @ self.precision[observed][:, gone]
            filled = -torch.cholesky_solve(pull.T, factor).T
            covariance = torch.cholesky_inverse(factor)
        else:
            factor = torch.linalg.cholesky(self.covariance[observed][:, observed])
            both = torch.cat([self.covariance[observed][:, gone], centred.T], 1)
            cross, seen = torch.linalg.solve_triangular(factor, both, upper=False).split(
                [int(gone.sum()), len(mean)], 1
            )
            filled, covariance = seen.T @ cross, self.covariance[gone][:, gone] - cross.T @ cross
        mean[:, gone] = filled + self.mean[gone]
        return mean, covariance

    def completed(self, values, observed):
        """Condition windows (B, P) on their observed cells, for sums over them.

        Returns
        -------
        mean : tensor of shape (B, P)
            Means, the values themselves where observed.
        covariance : tensor of shape (P, P)
            Sum of the conditional covariances.
        """
        values, n_cells = torch.where(observed, values.double() - self.mean, 0.0), len(self.mean)
        if _mostly(observed):
            cells, pad = pick(~observed)
            shift, part = self._shifts(values, cells, pad)
            part = part.masked_fill(pad[:, :, None] | pad[:, None], 0.0)
            place = (cells[:, :, None] * n_cells + cells[:, None]).flatten()
            total = torch.zeros(n_cells * n_cells, dtype=part.dtype, device=part.device)
            total = total.index_add_(0, place, part.flatten()).view(n_cells, n_cells)
            return values.scatter_add(1, cells, shift) + self.mean, total
        cross, target = self._roots(values, observed)
        mean = torch.where(observed, values, (cross * target).sum(1))
        # Single precision halves the cost of the one large product; it only feeds an average.
        cross = cross.flatten(0, 1).float()
        return mean + self.mean, len(observed) * self.covariance - (cross.T @ cross).double()

    def _shifts(self, values, missing, empty):
        """What means of missing cells (B, N) are moved by, and their covariances (B, N, N)."""
        factor = torch.linalg.cholesky(submatrix(self.precision, missing, empty))
        pull = (values @ self.precision).gather(1, missing).masked_fill(empty, 0.0)
        shift = -torch.cholesky_solve(pull[..., None], factor)[..., 0]
        return shift.masked_fill(empty, 0.0), torch.cholesky_inverse(factor)

    def _roots(self, values, observed):
        """Covariances of observed cells with all, and values, in units of the former."""
        seen, empty = pick(observed)
        factor = torch.linalg.cholesky(submatrix(self.covariance, seen, empty))
        cross = self.covariance[seen].masked_fill(empty[..., None], 0.0)
        cross = torch.linalg.solve_triangular(factor, cross, upper=False)
        target = values.gather(1, seen).masked_fill(empty, 0.0)[..., None]
        return cross, torch.linalg.solve_triangular(factor, target, upper=False)

    def _by_precision(self, values, observed, cells, pad):
        """Condition at the cost of the cube of the missing cells."""
        missing, empty = pick(~observed)
        shift, covariance = self._shifts(values, missing, empty)
        mean = values.scatter_add(1, missing, shift)
        variance = torch.diagonal(covariance, dim1=1, dim2=2).masked_fill(empty, 0.0)
        sd = torch.zeros_like(values).scatter_add(1, missing, variance).sqrt()
        if cells is not None:
            place = torch.zeros_like(observed, dtype=torch.int64)
            order = torch.arange(missing.shape[1], device=missing.device).expand_as(missing)
            place = place.scatter_add(1, missing, order.masked_fill(empty, 0)).gather(1, cells)
            covariance = covariance.gather(1, place[:, :, None].expand(-1, -1, missing.shape[1]))
            covariance = covariance.gather(2, place[:, None].expand(-1, place.shape[1], -1))
            covariance = identity_on(covariance, pad)
        return Conditional(mean + self.mean, sd, covariance if cells is not None else None)

    def _by_covariance(self, values, observed, cells, pad):
        """Condition at the cost of the cube of the observed cells."""
        cross, target = self._roots(values, observed)
        mean = torch.where(observed, values, (cross * target).sum(1))
        variance = self.covariance.diagonal() - cross.square().sum(1)
        sd = torch.where(observed, 0.0, variance.clamp(min=0.0).sqrt())
        covariance = None
        if cells is not None:
            part = cross.gather(2, cells[:, None].expand(-1, cross.shape[1], -1))
            prior = self.covariance[cells[:, :, None], cells[:, None]]
            covariance = identity_on(prior - part.transpose(1, 2) @ part, pad)
        return Conditional(mean + self.mean, sd, covariance)


def _mostly(observed):
    """Whether fewer cells are missing than observed, of a batch padded to its largest counts."""
    n_observed = observed.sum(1)
    return int((observed.shape[1] - n_observed).max()) <= int(n_observed.max())


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


def submatrix(matrix, cells, pad):
    """Gather a principal submatrix for every row, the identity on padding."""
    return identity_on(matrix[cells[:, :, None], cells[:, None]], pad)


def identity_on(matrix, pad):
    """Replace the padded rows and columns of a batch of matrices by those of the identity."""
    if pad is None:
        return matrix
    matrix = matrix.masked_fill(pad[..., :, None] | pad[..., None, :], 0.0)
    matrix.diagonal(dim1=-2, dim2=-1).add_(pad.to(matrix.dtype))
    return matrix
