r"""A mixture of Gaussians over the cells of a row of a table, given whichever of them are observed.

Letters. ``B`` rows have ``P`` cells; a component ``k`` of ``K`` has the weight ``w_k``, the mean
``mu_k`` and the covariance ``S_k``. ``m`` and ``o`` are the missing and observed cells of a row.
What is missing given what is observed is a mixture again, whose components are those of the
Gaussians one by one and whose weights say how well each explains what is observed,

.. math::

    p(x_m | x_o) = \sum_k r_k \, N(x_m; E_k[x_m | x_o], \mathrm{Cov}_k[x_m | x_o]),
    \qquad r_k \propto w_k \, N(x_o; \mu_{k,o}, S_{k,oo}).

Clusters, curves and spreads that depend on other columns are in these weights. With the precision
``Q`` of a component, everything costs the cube of the missing cells alone:

.. math::

    \mathrm{Cov}[x_m | x_o] = Q_{mm}^{-1}, \qquad \log |S_{oo}| = \log |S| + \log |Q_{mm}|,

and with ``d`` the centred values, 0 where missing, and :math:`g = (Q d)_m` the mean is
:math:`\mu_m - Q_{mm}^{-1} g`, and :math:`d_o^T S_{oo}^{-1} d_o = d^T Q d - g^T Q_{mm}^{-1} g`.
"""

from typing import NamedTuple

import torch

from skdiffusion.diffusion.analytic.em import Moments
from skdiffusion.diffusion.window.gaussian import identity_on, pick
from skdiffusion.diffusion.window.series import alike

# Numbers in one array of covariances or draws that are worked on together: 4 MB of float64.
_NUMBERS = 2**19
# What keeps covariances positive where rounding would not: a thousandth of a standard deviation.
_JITTER = 1e-6


class Parts(NamedTuple):
    """What the components say of rows, of which ``N`` cells at most are missing.

    Attributes
    ----------
    log_density : tensor of shape (B, K)
        Log of weight times density of the observed cells, up to a constant of each row.
    mean : tensor of shape (B, K, P)
        Means, the values themselves where observed.
    covariance : tensor of shape (B, K, N, N)
        Covariances of the missing cells, 0 on padding.
    missing : int64 tensor of shape (B, N)
        The missing cells of each row.
    """

    log_density: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor
    missing: torch.Tensor

    @property
    def weights(self):
        """Weights of the components given the observed cells (B, K)."""
        return torch.softmax(self.log_density, 1)

    @property
    def variance(self):
        """Variances of all cells (B, K, P), 0 where observed."""
        cells = self.missing[:, None].expand(self.covariance.shape[:3])
        diagonal = torch.diagonal(self.covariance, dim1=-2, dim2=-1)
        return torch.zeros_like(self.mean).scatter_add(2, cells, diagonal)

    def moments(self):
        """Mean (B, P) and covariance (B, P, P) of the rows, whatever their component."""
        weights = self.weights
        mean = torch.einsum("bk,bkp->bp", weights, self.mean)
        apart = self.mean - mean[:, None]
        between = torch.einsum("bk,bkp,bkq->bpq", weights, apart, apart)
        within = torch.einsum("bk,bkmn->bmn", weights, self.covariance)
        place = self.missing[:, :, None] * mean.shape[1] + self.missing[:, None]
        return mean, between.flatten(1).scatter_add(1, place.flatten(1), within.flatten(1)).view_as(
            between
        )

    def at(self, cells):
        """Covariances (B, K, n, n) of some of the missing cells (B, n)."""
        order = torch.arange(self.missing.shape[1], device=cells.device).expand_as(self.missing)
        # Padding names cell 0, as if it were the first: the largest place is the true one.
        place = torch.zeros(
            len(cells), self.mean.shape[2], dtype=torch.int64, device=cells.device
        ).scatter_reduce(1, self.missing, order * self._real, "amax")
        place = place.gather(1, cells)[:, None]
        shape = (*self.covariance.shape[:2], cells.shape[1])
        part = self.covariance.gather(2, place[..., None].expand(*shape, self.covariance.shape[3]))
        return part.gather(3, place[:, :, None].expand(*shape, cells.shape[1]))

    @property
    def _real(self):
        """1 for the cells that are missing, 0 for padding."""
        return (torch.diagonal(self.covariance[:, 0], dim1=1, dim2=2) > 0).long()


class RowMixture:
    """Mixture of Gaussians over the cells of a row, and the base of an imputer of tables.

    Parameters
    ----------
    weights : float64 tensor of shape (n_components,)
        Positive weights that sum to one.
    means : float64 tensor of shape (n_components, n_cells)
        Means.
    covariances : float64 tensor of shape (n_components, n_cells, n_cells)
        Positive definite covariances, measurement noise included.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.window.mixture import RowMixture
    >>> means = torch.tensor([[-3.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
    >>> mixture = RowMixture(torch.tensor([0.5, 0.5]).double(), means, 0.1 * torch.eye(2).double()
    ...     .expand(2, 2, 2))
    >>> parts = mixture.parts(torch.tensor([[3.0, 0.0]]), torch.tensor([[True, False]]))
    >>> parts.moments()[0].tolist()
    [[3.0, 2.0]]
    """

    #: As of :class:`.base.WindowBase`.
    direct, causal, margin, repeats = True, False, 0, 1

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = weights, means, covariances
        factors = torch.linalg.cholesky(covariances)
        self.precisions = torch.cholesky_inverse(factors)
        self.log_sizes = _log_diagonal(factors)

    def __deepcopy__(self, memo):
        """Share the matrices: they are never changed."""
        return self

    @property
    def rows_at_once(self):
        """How many rows to take at a time."""
        return max(1, _NUMBERS // self.covariances.numel())

    def fits(self, count, fewest, most):
        """Whether so many rows, with this many missing cells at most, are conditioned at once."""
        n_components, n_cells = self.means.shape
        return count * n_components * (most**2 + 4 * n_cells) <= _NUMBERS

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return RowMixture(**{name: function(x) for name, x in self.arrays().items()})

    def arrays(self):
        """Return a dict of tensors from which :meth:`from_arrays` rebuilds the mixture."""
        return {"weights": self.weights, "means": self.means, "covariances": self.covariances}

    @classmethod
    def from_arrays(cls, weights, means, covariances):
        """Rebuild what :meth:`arrays` took apart."""
        return cls(weights, means, covariances)

    @classmethod
    def of_one(cls, gaussian):
        """A Gaussian of rows as a mixture of one component."""
        mean, covariance = gaussian.mean[None], gaussian.covariance[None]
        return cls(torch.ones_like(mean[:, 0]), mean, covariance)

    def parts(self, values, observed):
        """What the components say of rows.

        Parameters
        ----------
        values : tensor of shape (B, P)
            Values; what stands at unobserved cells is not read.
        observed : bool tensor of shape (B, P)
            Which cells are observed.

        Returns
        -------
        parts : Parts
            Of all components.
        """
        missing, pad = pick(~observed)
        values = values.double()[:, None]
        centred = torch.where(observed[:, None], values - self.means, 0.0)
        pull = torch.einsum("bkp,kpq->bkq", centred, self.precisions)
        inner = self.precisions[:, missing[:, :, None], missing[:, None]].transpose(0, 1)
        factor = torch.linalg.cholesky(identity_on(inner, pad[:, None]))
        covariance = torch.cholesky_inverse(factor)
        covariance = covariance.masked_fill((pad[:, :, None] | pad[:, None])[:, None], 0.0)
        cells = missing[:, None].expand(covariance.shape[:3])
        pull_on = pull.gather(2, cells)
        shift = -(covariance @ pull_on[..., None])[..., 0]
        mean = torch.where(observed[:, None], values, self.means).scatter_add(2, cells, shift)
        distance = (centred * pull).sum(-1) + (pull_on * shift).sum(-1)
        size = self.log_sizes + _log_diagonal(factor)
        return Parts(self.weights.log() - 0.5 * distance - size, mean, covariance, missing)

    def batches(self, values, observed):
        """What the components say of rows, some at a time."""
        size = self.rows_at_once
        return (self.parts(*part) for part in zip(values.split(size), observed.split(size)))

    def expect(self, values, observed):
        """Moments of rows with gaps: the step E of expectation maximisation.

        Parameters
        ----------
        values, observed : tensors of shape (n_rows, P)
            As for :meth:`parts`.

        Returns
        -------
        moments : Moments
            Expected ones, given what is observed.
        """
        count, total, second = (torch.zeros_like(x) for x in self.arrays().values())
        log_density = 0.0
        for part in self.batches(values, observed):
            weights = part.weights
            log_density += float(torch.logsumexp(part.log_density, 1).sum())
            count += weights.sum(0)
            weighted = weights[..., None] * part.mean
            total += weighted.sum(0)
            second += weighted.permute(1, 2, 0) @ part.mean.transpose(0, 1)
            within = (weights[..., None, None] * part.covariance).transpose(0, 1).flatten(1)
            place = part.missing[:, :, None] * second.shape[2] + part.missing[:, None]
            second.flatten(1).index_add_(1, place.flatten(), within)
        return Moments(count, total, second, log_density / len(values))

    def plain(self):
        """The same with normal errors, which it has."""
        return self

    def prepare(self, series):
        """Return the series: every row is conditioned by itself."""
        return series

    def given(self, series, rows, cells=None, pad=None):
        """What is known of rows; see :meth:`.statespace.base.SeriesGaussian.given`."""
        values, observed = series.values[rows], series.observed[rows]
        flat = zip(
            values.flatten(1).split(self.rows_at_once), observed.flatten(1).split(self.rows_at_once)
        )
        mean, covariance = map(torch.cat, zip(*(self.parts(*part).moments() for part in flat)))
        sd = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=0).sqrt()
        mean, sd = (x.to(values.dtype).view_as(values) for x in (mean, sd))
        return mean, sd, None if cells is None else _submatrices(covariance, cells, pad)

    def draw(self, series, normals, n_draws):
        """Draw the wanted cells of rows, jointly and without a solver.

        See :meth:`.statespace.base.SeriesGaussian.draw`.
        """
        wanted = series.wanted
        rank = wanted.flatten().cumsum(0).view_as(wanted) - 1
        out = series.values.new_empty((n_draws, int(wanted.sum())))

        def fits(count, smallest, largest):
            return count <= self.rows_at_once and count * largest * n_draws <= _NUMBERS

        gappy = torch.nonzero(wanted.any(1))[:, 0]
        for batch in alike(wanted[gappy].sum(1), fits):
            rows = gappy[batch].sort().values
            cells, pad = pick(wanted[rows])
            number = rows.repeat_interleave(cells.shape[1])
            noise = normals(number, cells.flatten(), 0, 1)[..., 0].view(n_draws, *cells.shape)
            level = torch.special.ndtr(normals(rows, torch.zeros_like(rows), 1, 1)[..., 0].double())
            parts = self.parts(series.values[rows], series.observed[rows])
            drawn = _drawn(parts, cells, pad, noise.double(), level)
            out[:, rank[rows].gather(1, cells)[~pad]] = drawn[:, ~pad].to(out.dtype)
        return out


def _drawn(parts, cells, pad, noise, level):
    """Draws (M, B, N) of cells by noise of this shape and uniforms (M, B) for the component."""
    ends = parts.weights.cumsum(1)[:, :-1]
    chosen = (level[..., None] > ends).sum(-1)[..., None]
    covariance = identity_on(parts.at(cells), pad[:, None])
    covariance.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    roots, out = torch.linalg.cholesky(covariance), torch.zeros_like(noise)
    for k in range(parts.mean.shape[1]):
        drawn = torch.einsum("bij,mbj->mbi", roots[:, k], noise)
        out = torch.where(chosen == k, drawn + parts.mean[:, k].gather(1, cells), out)
    return out


def _log_diagonal(factors):
    return torch.diagonal(factors, dim1=-2, dim2=-1).log().sum(-1)


def _submatrices(matrices, cells, pad):
    """Principal submatrices of a batch of matrices, the identity on padding."""
    part = matrices.gather(1, cells[:, :, None].expand(-1, -1, matrices.shape[2]))
    return identity_on(part.gather(2, cells[:, None].expand(-1, cells.shape[1], -1)), pad)
