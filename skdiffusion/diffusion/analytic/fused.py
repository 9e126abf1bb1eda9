"""Value and gradient of a mixture for many points at once, in few passes over one large matrix."""

import math

import torch

from skdiffusion.diffusion.analytic.kinds import SharedMixture
from skdiffusion.diffusion.analytic.noisy import LOG_2PI

# Logits below, in powers of two, are met by far points only: exponentials are ten times slower
# where they underflow, and a sum of nothing but such shares has lost its digits.
_LOWEST = {torch.float32: -115.0, torch.float64: -860.0}
# A power of two takes a third of the time of an exponential.
_PER_NAT = math.log2(math.e)


class Fused:
    """A mixture whose components share a covariance, prepared for one noise level.

    The logits of the responsibilities, constant of the point and all, are one product of matrices:
    ``(w / v, -|w|^2 / 2 v, 1) @ (m; 1; log weight - |m|^2 / 2 v)``. They are at most 0, so that no
    maximum need be taken off before the exponential, and a second product with ``(m, 1)`` gives the
    weighted means and their sum. The large matrix leaves the processor's cache at no time.

    Parameters
    ----------
    mixture : SharedMixture
        The mixture.
    s : float, default=0.0
        Noise level.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic.build import gaussian
    >>> from skdiffusion.diffusion.analytic.fused import Fused
    >>> normal = gaussian(torch.zeros(2), torch.eye(2))
    >>> value, gradient = Fused(normal)(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    >>> round(float(value), 4), gradient.tolist()
    (-4.3379, [[-1.0, -2.0]])
    """

    def __init__(self, mixture, s=0.0):
        self._mixture, self._s = mixture, s
        self._v = mixture.eigenvalues + s**2
        means, d = mixture.centred, mixture.n_features
        vectors = mixture.eigenvectors
        means = means if vectors is None else means @ vectors
        bias = mixture.log_weights - 0.5 * (means.square() / self._v).sum(1)
        ones = torch.ones_like(bias)
        self._right = torch.stack([*means.T, ones, bias]) * _PER_NAT
        self._left = torch.cat([means, ones[:, None]], 1).T.contiguous().T
        scale = d / len(self._v)
        self._constant = -0.5 * (scale * float(self._v.log().sum()) + d * LOG_2PI)

    def __call__(self, x):
        """Log density and gradient at points of shape (n_samples, n_features)."""
        d, vectors = x.shape[1], self._mixture.eigenvectors
        w = x - self._mixture.origin
        w = w if vectors is None else w @ vectors
        points = torch.ones((d + 2, len(x)), dtype=x.dtype, device=x.device)
        points[:d] = (w / self._v).T
        torch.sum(w.T * points[:d], 0, out=points[d]).mul_(-0.5)
        lowest = _LOWEST[x.dtype]
        shares = torch.mm(points.T, self._right).clamp_(min=lowest).exp2_()
        sums = (self._left.T @ shares.T).T
        total = sums[:, d]
        gradient = (sums[:, :d] / sums[:, d:] - w) / self._v
        gradient = gradient if vectors is None else gradient @ vectors.T
        value = total.log() + self._constant
        # Where rounding of the lowest shares could be seen, the careful way.
        far = total < 2.0 ** (lowest / 2)
        if far.any():
            value[far], gradient[far] = self._mixture.log_density_and_gradient(x[far], self._s)
        return value, gradient


def can_fuse(mixture):
    """Whether a mixture has the form of :class:`Fused`, on a processor."""
    return isinstance(mixture, SharedMixture) and not mixture.origin.is_cuda
