r"""The hills of a log density, each as Laplace's approximation sees it.

A density of several modes is about ``sum_k w_k N(m_k, S_k)`` with the tops ``m_k``, minus the
inverse Hessians ``S_k`` there, and weights in proportion to ``p(m_k) |S_k|^(1/2)``, the mass of a
Gaussian of that height and shape [1]_.

References
----------
.. [1] L. Tierney, J. Kadane, "Accurate approximations for posterior moments and marginal
   densities", JASA 1986, https://doi.org/10.1080/01621459.1986.10478240.
"""

import dataclasses
import functools
import math

import torch

from skdiffusion.diffusion.target.hilltop import is_at, led_up, shape_at

# Nats of mass below the largest hill from which others do not count.
_NEGLIGIBLE = 9.0
# Curvature of a ridge, whose ends are elsewhere, in units of the largest.
_RIDGE = 1e-6
# Widths of the Gaussians put on each hill and their shares: the second for the flanks of hills
# that fall more slowly.
_WIDTHS, _SHARES = (1.0, 2.0), (0.7, 0.3)
# Share of the weights spread evenly: of a hill that is no Gaussian the mass is a guess.
_EVEN = 0.3
# Variance in all directions that lets a covariance have a root.
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Hills:
    """Gaussians on the hills of a log density.

    Parameters
    ----------
    tops : tensor of shape (n_hills, n_features)
        Tops.
    roots : tensor of shape (n_hills, n_features, n_features)
        ``L`` with ``L L'`` the covariance of a hill.
    log_mass : tensor of shape (n_hills,)
        Logarithms of the masses by Laplace's approximation, the largest one 0.
    unseen : float, default=0.0
        Share of more such points that would lead to other hills [1]_.

    References
    ----------
    .. [1] I. J. Good, "The population frequencies of species and the estimation of population
       parameters", Biometrika 1953, https://doi.org/10.1093/biomet/40.3-4.237.
    """

    tops: torch.Tensor
    roots: torch.Tensor
    log_mass: torch.Tensor
    unseen: float = 0.0

    def __len__(self):
        """Number of hills."""
        return len(self.tops)

    def and_wide(self, x):
        """The same with one more Gaussian, as wide as points that are on none of the hills.

        From where no Gaussian has a density no jump leads away: its way back were too rare.
        """
        root = torch.linalg.cholesky(
            torch.cov(x.T).reshape(2 * x.shape[1:]) + _TINY * torch.eye(x.shape[1]).to(x)
        )
        parts = (self.tops, x.mean(0)), (self.roots, root), (self.log_mass, x.new_tensor(-math.inf))
        return Hills(*(torch.cat([old, new[None]]) for old, new in parts), self.unseen)

    def like(self, x):
        """The same with the type and on the device of x."""
        return Hills(self.tops.to(x), self.roots.to(x), self.log_mass.to(x), self.unseen)

    @property
    def weights(self):
        """Share of every hill."""
        return (1 - _EVEN) * torch.softmax(self.log_mass, 0) + _EVEN / len(self)

    @functools.cached_property
    def _shapes(self):
        """What makes offsets from the tops standard, and logarithms of the sizes of the hills."""
        return torch.linalg.inv(self.roots).mT, torch.linalg.slogdet(self.roots)[1]

    def draw(self, uniform, normal):
        """Points of the Gaussians.

        Parameters
        ----------
        uniform : tensor of shape (n_points,)
            Uniforms on (0, 1), which choose hill and width.
        normal : tensor of shape (n_points, n_features)
            Standard normals.

        Returns
        -------
        x : tensor of shape (n_points, n_features)
            Points.
        """
        shares = (self.weights[:, None] * normal.new_tensor(_SHARES)).flatten()
        chosen = torch.searchsorted(shares.cumsum(0), uniform.contiguous()).clamp(
            max=len(shares) - 1
        )
        hill, width = chosen // len(_SHARES), normal.new_tensor(_WIDTHS)[chosen % len(_SHARES)]
        # Hill by hill: a root for every point would fill the memory.
        order, counts = hill.argsort(stable=True), hill.bincount(minlength=len(self)).tolist()
        parts = zip((width[:, None] * normal)[order].split(counts), self.roots, strict=True)
        return self.tops[hill].index_add(0, order, torch.cat([z @ root.T for z, root in parts]))

    def log_density(self, x):
        """Log density of :meth:`draw` at points, up to a constant."""
        whiten, log_size = self._shapes
        squares = ((x - self.tops[:, None]) @ whiten).square().sum(2).T
        parts = [
            math.log(share) - 0.5 * squares / width**2 - x.shape[1] * math.log(width)
            for width, share in zip(_WIDTHS, _SHARES, strict=True)
        ]
        return (torch.logaddexp(*parts) + self.weights.log() - log_size).logsumexp(1)


def find_hills(target, x):
    """Hills that points lead up to.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : float64 tensor of shape (n_points, n_features)
        Where to begin.

    Returns
    -------
    hills : Hills
        The hills, the one with most mass first; of those without a Gaussian shape at the top, as
        a ridge or the neck of a funnel, there is none.
    """
    with torch.no_grad():
        x, height, arrived = led_up(target, x)
        left, found, n_once = arrived & torch.isfinite(height), [], 0
        while bool(left.any()):
            i = int(torch.where(left, height, -torch.inf).argmax())
            left[i] = False
            root = shape_at(target, x[i], _RIDGE)
            if root is None:
                continue
            same = left & is_at(x, x[i], root)
            left &= ~same
            n_once += not same.any()
            found.append((x[i], root, height[i] + torch.linalg.slogdet(root)[1]))
        if not found:
            nothing = x.new_zeros(0)
            return Hills(x[:0], x[:0, :, None], nothing)
        tops, roots, mass = map(torch.stack, zip(*found, strict=True))
        mass, order = (mass - mass.max()).sort(descending=True)
        order = order[mass > -_NEGLIGIBLE]
        return Hills(tops[order], roots[order], mass[: len(order)], n_once / len(x))
