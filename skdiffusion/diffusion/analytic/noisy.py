"""Densities whose noisy versions are known in closed form.

Letters. Data ``x`` follow a mixture ``p(x) = sum_k w_k N(x; m_k, C_k)``. Adding noise of level
``s`` gives ``z = x + s eps``, which is a mixture again, ``p_s(z) = sum_k w_k N(z; m_k, V_k)``
with ``V_k = C_k + s**2 I``. With the responsibilities ``r_k = w_k N(z; m_k, V_k) / p_s(z)`` and
the component gradients ``g_k = V_k^{-1} (m_k - z)``,

* ``grad log p_s(z) = g = sum_k r_k g_k``,
* ``D(z, s) = E[x | z] = z + s**2 g`` (Tweedie's formula, [1]_),
* ``dD/dz = I + s**2 (sum_k r_k (g_k g_k' - V_k^{-1}) - g g')``.

A Gaussian is the mixture of one component, a Gaussian kernel density estimate the mixture with one
component on each training point. Where every ``C_k`` is the same, the logits of the
responsibilities are linear in ``z`` and cost one matrix product.

References
----------
.. [1] B. Efron, "Tweedie's formula and selection bias", JASA 2011,
   https://doi.org/10.1198/jasa.2011.tm11181.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

LOG_2PI = math.log(2 * math.pi)


@dataclass
class Parts:
    """What value, gradient and Hessian of the log density at some points have in common.

    Parameters
    ----------
    responsibilities : tensor of shape (n_samples, n_components)
        Shares of the components in the density of each point.
    logits : tensor of shape (n_samples, n_components) or None
        Their logarithms up to a number for each point; None where ``log_sum`` is at hand.
    log_sum : tensor of shape (n_samples,) or None
        Logarithm of the sum of the exponentials of the logits; None where it is still to do.
    offset : tensor or float
        What the logits leave out of the log-density.
    variances : tensor
        Variances of the noisy components along their axes.
    """

    responsibilities: torch.Tensor
    logits: torch.Tensor | None
    log_sum: torch.Tensor | None
    offset: torch.Tensor | float
    variances: torch.Tensor

    def log_density(self):
        """Log-density of the points."""
        if self.logits is None:
            return self.log_sum + self.offset
        # With the softmax at hand; torch.logsumexp is slow.
        return self.logits.amax(1) - self.responsibilities.amax(1).log() + self.offset


class NoisyMixture(nn.Module):
    """What follows from the parts of a mixture of normals, whatever its covariances.

    A kind of mixture gives :class:`Parts`, and from them gradient, Laplacian and Hessian.

    Notes
    -----
    In every method ``z`` has shape (n_samples, n_features), ``s`` is a float or a tensor of shape
    (n_samples,), and ``leave_out``, where given, is an int64 tensor of shape (n_samples,) naming
    the component to leave out for each row; the other weights are rescaled to sum to one. A
    kernel density estimate must leave out the point itself when it is evaluated on noisy versions
    of its own points, or it remembers instead of describing them.
    """

    @abstractmethod
    def _parts(self, z, s, leave_out):
        """The :class:`Parts` at points."""

    @abstractmethod
    def _gradient(self, parts):
        """Gradient of the log density."""

    @abstractmethod
    def _laplacian(self, parts):
        """Trace of the Hessian of the log density."""

    @abstractmethod
    def _hessian_product(self, parts, vector):
        """Hessian of the log density times a vector."""

    @abstractmethod
    def _hessian(self, parts):
        """Hessian of the log density."""

    def log_density(self, z, s=0.0, leave_out=None):
        """Logarithm of the noisy density, ``log p_s(z)``.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Points.
        s : float or tensor of shape (n_samples,), default=0.0
            Noise level.
        leave_out : int64 tensor of shape (n_samples,), optional
            Component to leave out for each row.

        Returns
        -------
        log_density : tensor of shape (n_samples,)
            Log density in nats.
        """
        return self._log_density(self._parts(z, s, leave_out), leave_out)

    def log_density_gradient(self, z, s=0.0, leave_out=None):
        """Gradient of the noisy log density, ``grad log p_s(z)``.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Points.
        s : float or tensor of shape (n_samples,), default=0.0
            Noise level.
        leave_out : int64 tensor of shape (n_samples,), optional
            Component to leave out for each row.

        Returns
        -------
        gradient : tensor of shape (n_samples, n_features)
            Gradient.
        """
        return self._gradient(self._parts(z, s, leave_out))

    def log_density_and_gradient(self, z, s=0.0, leave_out=None):
        """Log density and its gradient at the cost of one evaluation.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Points.
        s : float or tensor of shape (n_samples,), default=0.0
            Noise level.
        leave_out : int64 tensor of shape (n_samples,), optional
            Component to leave out for each row.

        Returns
        -------
        log_density : tensor of shape (n_samples,)
            Log density in nats.
        gradient : tensor of shape (n_samples, n_features)
            Its gradient.
        """
        parts = self._parts(z, s, leave_out)
        return self._log_density(parts, leave_out), self._gradient(parts)

    def denoise(self, z, s, leave_out=None):
        """Best estimate of the data, ``D(z, s) = E[x | z]``.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.
        leave_out : int64 tensor of shape (n_samples,), optional
            Component to leave out for each row.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            Conditional mean of the data.
        """
        return z + noise_variance(z, s) * self.log_density_gradient(z, s, leave_out)

    def denoise_and_jacobian(self, z, s):
        """Denoiser and its Jacobian, which is ``Cov[x | z] / s**2``.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            Conditional mean of the data.
        jacobian : tensor of shape (n_samples, n_features, n_features)
            ``dD_i / dz_j``.
        """
        parts = self._parts(z, s, None)
        variance = noise_variance(z, s)
        hessian = self._hessian(parts)
        identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return (
            z + variance * self._gradient(parts),
            identity + variance.reshape(-1, 1, 1) * hessian,
        )

    def denoise_and_divergence(self, z, s):
        """Denoiser and the trace of its Jacobian.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            Conditional mean of the data.
        divergence : tensor of shape (n_samples,)
            ``sum_i dD_i / dz_i``.
        """
        return self.denoise_divergence_and_jvps(z, s, ())[:2]

    def denoise_divergence_and_jvps(self, z, s, vectors):
        """Denoiser, the trace of its Jacobian and the Jacobian applied to several vectors a row.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.
        vectors : iterable of tensor of shape (n_samples, n_features)
            Vectors.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            Conditional mean of the data.
        divergence : tensor of shape (n_samples,)
            ``sum_i dD_i / dz_i``.
        products : list of tensor of shape (n_samples, n_features)
            ``sum_j dD_i / dz_j vector_j`` of each vector.
        """
        parts = self._parts(z, s, None)
        variance = noise_variance(z, s)
        divergence = z.shape[1] + variance.reshape(-1) * self._laplacian(parts)
        products = [vector + variance * self._hessian_product(parts, vector) for vector in vectors]
        return z + variance * self._gradient(parts), divergence, products

    def _log_density(self, parts, leave_out):
        """Log density, the other weights rescaled where a component is left out."""
        if leave_out is None:
            return parts.log_density()
        return parts.log_density() - torch.log1p(-self.log_weights.exp())[leave_out]


def noise_variance(z, s):
    """``s**2`` as a column, (1, 1) for one level and (n_samples, 1) for one a row."""
    s = torch.as_tensor(s, dtype=z.dtype, device=z.device)
    return s.square().reshape(-1, 1)
