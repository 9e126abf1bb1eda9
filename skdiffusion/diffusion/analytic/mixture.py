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
.. [1] B. Efron, "Tweedie's formula and selection bias", JASA 2011.
"""

import math

import torch
from torch import nn

LOG_2PI = math.log(2 * math.pi)


class Mixture(nn.Module):
    """Gaussian mixture seen through Gaussian noise of any level.

    Built by :func:`gaussian`, :func:`gaussian_mixture` and :func:`kernel_density`. Its tensors
    are buffers, so that ``.to(device, dtype)`` and ``state_dict`` work as for any module.

    Parameters
    ----------
    weights : tensor of shape (n_components,)
        Positive weights that sum to one.
    means : tensor of shape (n_components, n_features)
        Component means.
    eigenvalues : tensor
        Eigenvalues of the component covariances.
    eigenvectors : tensor or None
        Eigenvectors in columns; None where the covariances are diagonal.

    Notes
    -----
    In every method ``z`` has shape (n_samples, n_features), ``s`` is a float or a tensor of shape
    (n_samples,), and ``leave_out``, where given, is an int64 tensor of shape (n_samples,) naming
    the component to leave out for each row; the other weights are rescaled to sum to one. A
    kernel density estimate must leave out the point itself when it is evaluated on noisy versions
    of its own points, or it remembers instead of describing them.
    """

    def __init__(self, weights, means, eigenvalues, eigenvectors):
        super().__init__()
        self.register_buffer("log_weights", weights.log())
        self.register_buffer("centre", weights @ means)
        # Stored by columns: the product with the responsibilities is then four times as fast.
        self.register_buffer("means", (means - self.centre).T.contiguous().T)
        self.register_buffer("eigenvalues", eigenvalues)
        self.register_buffer("eigenvectors", eigenvectors)

    @property
    def n_features(self):
        """Number of features."""
        return self.means.shape[-1]

    @property
    def n_components(self):
        """Number of components."""
        return len(self.log_weights)

    def mean(self):
        """Mean of the density.

        Returns
        -------
        mean : tensor of shape (n_features,)
            Mean.
        """
        return self.centre

    def marginals(self):
        """Density of single columns, a mixture in one dimension each.

        Returns
        -------
        weights : tensor of shape (n_components,)
            Weights of the components, the same for all columns.
        means : tensor of shape (n_components, n_features)
            Their means.
        deviations : tensor of shape (n_components, n_features)
            Their standard deviations.
        """
        variances = torch.diagonal(self._covariances(), dim1=1, dim2=2)
        means = self.means + self.centre
        return self.log_weights.exp(), means, variances.sqrt().expand_as(means)

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
        parts = self._parts(z, s, leave_out)
        return self._log_density(parts, leave_out)

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
        identity = torch.eye(self.n_features, dtype=z.dtype, device=z.device)
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

    def denoise_and_jvp(self, z, s, vector):
        """Denoiser and its Jacobian applied to one vector a row, without forming the Jacobian.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.
        vector : tensor of shape (n_samples, n_features)
            Vectors.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            Conditional mean of the data.
        product : tensor of shape (n_samples, n_features)
            ``sum_j dD_i / dz_j vector_j``.
        """
        denoised, _, (product,) = self.denoise_divergence_and_jvps(z, s, (vector,))
        return denoised, product

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
        divergence = self.n_features + variance.reshape(-1) * self._laplacian(parts)
        products = [vector + variance * self._hessian_product(parts, vector) for vector in vectors]
        return z + variance * self._gradient(parts), divergence, products

    def sample(self, n_samples, generator):
        """Draw from the density without noise.

        Parameters
        ----------
        n_samples : int
            Number of draws.
        generator : torch.Generator
            Source of randomness, on the device of the buffers.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Independent draws.
        """
        component = torch.multinomial(
            self.log_weights.exp(), n_samples, replacement=True, generator=generator
        )
        return self.sample_components(component, generator)

    def given(self, condition=None):
        """Return the density itself, which has no condition.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_conditions), optional
            Ignored; :mod:`.conditional` has the densities that look at it.

        Returns
        -------
        density : Mixture
            This density.
        """
        return self

    def arrays(self):
        """Return what :func:`from_arrays` needs to rebuild the density.

        Returns
        -------
        arrays : dict of str to tensor or None
            Weights, means, eigenvalues and eigenvectors.
        """
        return {
            "weights": self.log_weights.exp(),
            "means": self.means + self.centre,
            "eigenvalues": self.eigenvalues,
            "eigenvectors": self.eigenvectors,
        }

    def sample_components(self, component, generator):
        """Draw one point from each named component.

        Parameters
        ----------
        component : int64 tensor of shape (n_samples,)
            Components.
        generator : torch.Generator
            Source of randomness, on the device of the buffers.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Independent draws.
        """
        shape = (len(component), self.n_features)
        noise = torch.randn(
            shape, generator=generator, dtype=self.means.dtype, device=self.means.device
        )
        return self._colour(component, noise) + self.centre

    def _log_density(self, parts, leave_out):
        """Log-sum-exp of the logits plus what they leave out."""
        total = parts[0] + parts[2] if parts[0].ndim == 1 else _log_sum_exp(*parts[:2]) + parts[2]
        if leave_out is None:
            return total
        return total - torch.log1p(-self.log_weights.exp())[leave_out]


def _log_sum_exp(logits, softmax):
    """Log-sum-exp with the softmax at hand; torch.logsumexp is slow."""
    return logits.amax(1) - softmax.amax(1).log()


def noise_variance(z, s):
    """``s**2`` as a column, (1, 1) for one level and (n_samples, 1) for one a row."""
    s = torch.as_tensor(s, dtype=z.dtype, device=z.device)
    return s.square().reshape(-1, 1)
