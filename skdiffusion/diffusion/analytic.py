r"""Densities whose noisy versions are known in closed form.

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

_LOG_2PI = math.log(2 * math.pi)


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
        return z + _variance(z, s) * self.log_density_gradient(z, s, leave_out)

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
        variance = _variance(z, s)
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
        variance = _variance(z, s)
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


class _SharedMixture(Mixture):
    """Every component has the covariance ``U diag(lam) U'``; lam may have length one."""

    def _rotate(self, z):
        """Coordinates in which the covariance is diagonal."""
        centred = z - self.centre
        return centred if self.eigenvectors is None else centred @ self.eigenvectors

    def _rotate_back(self, vectors):
        """Rotate vectors, not points, to the original coordinates."""
        return vectors if self.eigenvectors is None else vectors @ self.eigenvectors.T

    def _parts(self, z, s, leave_out):
        """Logits or their sum, responsibilities, log-density offset, rotated point, variances."""
        w = self._rotate(z)
        v = self.eigenvalues + _variance(z, s)
        means = self.means if self.eigenvectors is None else self.means @ self.eigenvectors
        if v.shape == (1, 1):
            bias = self.log_weights - means.square().sum(1) / (2 * v[0])
            logits = torch.addmm(bias, w / v, means.T)
        elif v.shape[1] == 1:
            logits = torch.addmm(means.square().sum(1) / -2, w, means.T).div_(v)
            logits += self.log_weights
        else:
            logits = torch.addmm(self.log_weights - (0.5 / v) @ means.square().T, w / v, means.T)
        if leave_out is not None:
            logits.scatter_(1, leave_out[:, None], -math.inf)
        scale = self.n_features / v.shape[1]
        offset = -0.5 * (
            (w.square() / v).sum(1) + scale * v.log().sum(1) + self.n_features * _LOG_2PI
        )
        return *_softmax(logits), offset, w, v, means

    def _gradient(self, parts):
        """Gradient of the log density."""
        _, responsibilities, _, w, v, means = parts
        return self._rotate_back((responsibilities @ means - w) / v)

    def _laplacian(self, parts):
        """Trace of the Hessian of the log density."""
        _, responsibilities, _, _, v, means = parts
        spread = responsibilities @ means.square() - (responsibilities @ means).square()
        return (spread / v**2 - 1 / v).sum(1)

    def _hessian_product(self, parts, vector):
        """Hessian of the log density times a vector."""
        _, responsibilities, _, _, v, means = parts
        if self.eigenvectors is not None:
            vector = vector @ self.eigenvectors
        moved = (vector / v) @ means.T * responsibilities
        spread = moved @ means - (responsibilities @ means) * moved.sum(1, keepdim=True)
        return self._rotate_back((spread - vector) / v)

    def _hessian(self, parts):
        """Hessian of the log density."""
        _, responsibilities, _, w, v, means = parts
        d = self.n_features
        second = responsibilities @ (means[:, :, None] * means[:, None, :]).reshape(-1, d * d)
        mean = responsibilities @ means
        spread = second.reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        v = v.expand(len(w), d)
        hessian = spread / (v[:, :, None] * v[:, None, :]) - torch.diag_embed(1 / v)
        if self.eigenvectors is None:
            return hessian
        return self.eigenvectors @ hessian @ self.eigenvectors.T

    def _covariances(self):
        """Covariances with a leading axis of length one."""
        scaled = self.eigenvalues.expand(self.n_features)
        if self.eigenvectors is None:
            return torch.diag(scaled)[None]
        return (self.eigenvectors * scaled @ self.eigenvectors.T)[None]

    def _colour(self, component, noise):
        """Centred draws from the components."""
        return self.means[component] + self._rotate_back(noise * self.eigenvalues.sqrt())


class _FreeMixture(Mixture):
    """Every component k has its own covariance ``U_k diag(lam_k) U_k'``."""

    def _parts(self, z, s, leave_out):
        """Logits or their sum, responsibilities, log-density offset, residuals, variances."""
        centred = z - self.centre
        residual = self.means - centred[:, None]
        if self.eigenvectors is not None:
            k, d, _ = self.eigenvectors.shape
            rotated = (centred @ self.eigenvectors.transpose(0, 1).reshape(d, k * d)).reshape(
                -1, k, d
            )
            residual = torch.einsum("ki,kij->kj", self.means, self.eigenvectors) - rotated
        return self._parts_of(residual, self.eigenvalues + _variance(z, s)[:, None], leave_out)

    def _parts_of(self, residual, v, leave_out):
        """The parts from residuals in the coordinates of the components, and variances."""
        logits = self.log_weights - 0.5 * ((residual.square() / v).sum(2) + v.log().sum(2))
        if leave_out is not None:
            logits.scatter_(1, leave_out[:, None], -math.inf)
        offset = -0.5 * self.n_features * _LOG_2PI
        return *_softmax(logits), offset, residual, v

    def _component_gradients(self, parts):
        """Gradient of the log density of each component."""
        _, _, _, residual, v = parts
        gradients = residual / v
        if self.eigenvectors is not None:
            gradients = torch.einsum("nkj,kij->nki", gradients, self.eigenvectors)
        return gradients

    def _gradient(self, parts):
        """Gradient of the log density."""
        _, responsibilities, _, residual, v = parts
        weighted = responsibilities[:, :, None] * residual / v
        if self.eigenvectors is None:
            return weighted.sum(1)
        basis = self.eigenvectors.transpose(1, 2).reshape(-1, self.n_features)
        return weighted.flatten(1) @ basis

    def _laplacian(self, parts):
        """Trace of the Hessian of the log density."""
        _, responsibilities, _, residual, v = parts
        local = ((residual / v).square() - 1 / v).sum(2)
        return (responsibilities * local).sum(1) - self._gradient(parts).square().sum(1)

    def _hessian_product(self, parts, vector):
        """Hessian of the log density times a vector."""
        responsibilities, v = parts[1], parts[4]
        gradients = self._component_gradients(parts)
        moved = responsibilities * (gradients * vector[:, None]).sum(2)
        mean = (responsibilities[:, :, None] * gradients).sum(1)
        product = (moved[:, :, None] * gradients).sum(1) - mean * moved.sum(1, keepdim=True)
        if self.eigenvectors is None:
            return product - (responsibilities[:, :, None] / v).sum(1) * vector
        rotated = torch.einsum("ni,kij->nkj", vector, self.eigenvectors) / v
        scaled = responsibilities[:, :, None] * rotated
        return product - torch.einsum("nkj,kij->ni", scaled, self.eigenvectors)

    def _hessian(self, parts):
        """Hessian of the log density."""
        responsibilities, v = parts[1], parts[4]
        gradients = self._component_gradients(parts)
        mean = torch.einsum("nk,nki->ni", responsibilities, gradients)
        weighted = gradients * responsibilities[:, :, None]
        second = weighted.transpose(1, 2) @ gradients
        precision = self._mean_precision(responsibilities, v)
        return second - precision - mean[:, :, None] * mean[:, None, :]

    def _mean_precision(self, responsibilities, v):
        """Average of the inverse covariances; one noise level for all rows is much faster."""
        if self.eigenvectors is None:
            return torch.diag_embed((responsibilities[:, :, None] / v).sum(1))
        if v.ndim == 3 and len(v) == 1:
            precisions = (self.eigenvectors / v[0][:, None]) @ self.eigenvectors.transpose(1, 2)
            averages = responsibilities @ precisions.flatten(1)
            return averages.reshape(-1, self.n_features, self.n_features)
        inner = responsibilities[:, :, None] / v
        return torch.einsum("kil,nkl,kjl->nij", self.eigenvectors, inner, self.eigenvectors)

    def _covariances(self):
        """Covariances of the components."""
        if self.eigenvectors is None:
            return torch.diag_embed(self.eigenvalues)
        scaled = self.eigenvectors * self.eigenvalues[:, None]
        return scaled @ self.eigenvectors.transpose(1, 2)

    def _colour(self, component, noise):
        """Centred draws from the components."""
        scaled = noise * self.eigenvalues[component].sqrt()
        if self.eigenvectors is not None:
            scaled = torch.einsum("nj,nij->ni", scaled, self.eigenvectors[component])
        return self.means[component] + scaled


def _softmax(logits):
    """Logits, or their log-sum-exp where it costs nothing, and softmax; logits may be overwritten.

    In float32 on a CPU one exponential in place serves both a third faster. Below -80 it would
    meet underflow, where torch.exp is 13 to 42 times slower.
    """
    if logits.requires_grad or logits.is_cuda or logits.dtype != torch.float32:
        return logits, torch.softmax(logits, 1)
    largest = logits.amax(1, keepdim=True)
    unnormalised = logits.sub_(largest).clamp_(min=-80.0).exp_()
    total = unnormalised.sum(1, keepdim=True)
    return (largest + total.log()).squeeze(1), unnormalised.div_(total)


def _log_sum_exp(logits, softmax):
    """Log-sum-exp with the softmax at hand; torch.logsumexp is slow."""
    return logits.amax(1) - softmax.amax(1).log()


def _variance(z, s):
    """``s**2`` as a column, (1, 1) for one level and (n_samples, 1) for one a row."""
    s = torch.as_tensor(s, dtype=z.dtype, device=z.device)
    return s.square().reshape(-1, 1)


def gaussian(mean, covariance):
    """Gaussian density.

    Parameters
    ----------
    mean : array-like of shape (n_features,)
        Mean.
    covariance : array-like of shape (n_features, n_features)
        Positive semi-definite covariance.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> density = gaussian([0.0], [[1.0]])
    >>> density.denoise(torch.tensor([[1.0]], dtype=torch.float64), 1.0)
    tensor([[0.5000]], dtype=torch.float64)
    """
    return gaussian_mixture([1.0], _tensor(mean)[None], covariance, "tied")


def gaussian_mixture(weights, means, covariances, covariance_type="full"):
    """Gaussian mixture from the arrays of a fitted scikit-learn ``GaussianMixture``.

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Positive weights; they are normalised.
    means : array-like of shape (n_components, n_features)
        Component means.
    covariances : array-like
        Covariances in the shape that belongs to ``covariance_type``.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Shape (n_components, n_features, n_features), (n_features, n_features),
        (n_components, n_features) or (n_components,).

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian_mixture
    >>> density = gaussian_mixture([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0], "spherical")
    >>> z = torch.tensor([[0.0]], dtype=torch.float64)
    >>> density.log_density(z, 0.0)
    tensor([-2.9189], dtype=torch.float64)
    """
    weights, means, covariances = _tensor(weights), _tensor(means), _tensor(covariances)
    weights = weights / weights.sum()
    if covariance_type in ("full", "tied"):
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
        eigenvalues = eigenvalues.clamp_min(0.0)
        kind = _SharedMixture if covariance_type == "tied" else _FreeMixture
        if covariance_type == "full" and len(weights) == 1:
            kind, eigenvalues, eigenvectors = _SharedMixture, eigenvalues[0], eigenvectors[0]
        return kind(weights, means, eigenvalues, eigenvectors)
    if covariance_type not in ("diag", "spherical"):
        raise ValueError(
            "covariance_type must be 'full', 'tied', 'diag' or 'spherical', "
            f"got {covariance_type!r}"
        )
    eigenvalues = covariances.reshape(len(weights), -1)
    if (eigenvalues == eigenvalues[0]).all():
        return _SharedMixture(weights, means, eigenvalues[0], None)
    return _FreeMixture(weights, means, eigenvalues.expand_as(means).contiguous(), None)


def kernel_density(points, bandwidth):
    """Gaussian kernel density estimate, one component on each point.

    Parameters
    ----------
    points : array-like of shape (n_points, n_features)
        Points.
    bandwidth : float
        Standard deviation of the kernel.

    Returns
    -------
    density : Mixture
        The density, in float64. Component ``i`` is point ``i``: pass row indices as
        ``leave_out`` for the leave-one-out estimate.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import kernel_density
    >>> density = kernel_density([[0.0], [1.0]], 1.0)
    >>> z = torch.tensor([[0.0]], dtype=torch.float64)
    >>> density.log_density(z, 0.0, leave_out=torch.tensor([0]))
    tensor([-1.4189], dtype=torch.float64)
    """
    points = _tensor(points)
    weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    return _SharedMixture(weights, points, _tensor([float(bandwidth) ** 2]), None)


def union(weights, densities):
    """Average of mixtures, which is the mixture of all their components.

    Parameters
    ----------
    weights : array-like of shape (n_densities,)
        Positive weights; they are normalised.
    densities : sequence of Mixture
        The densities.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian, union
    >>> density = union([0.5, 0.5], [gaussian([-2.0], [[1.0]]), gaussian([2.0], [[1.0]])])
    >>> density.log_density(torch.tensor([[0.0]], dtype=torch.float64), 0.0)
    tensor([-2.9189], dtype=torch.float64)
    """
    if len(densities) == 1:
        return densities[0]
    weights = _tensor(weights) / _tensor(weights).sum()
    means, eigenvalues, eigenvectors = [], [], []
    for density in densities:
        arrays = density.arrays()
        means.append(arrays["means"])
        k, d = arrays["means"].shape
        eigenvalues.append(arrays["eigenvalues"].expand(k, d))
        basis = arrays["eigenvectors"]
        eigenvectors.append(
            (torch.eye(d).to(means[-1]) if basis is None else basis).expand(k, d, d)
        )
    diagonal = all(density.eigenvectors is None for density in densities)
    return _FreeMixture(
        torch.cat([w * density.log_weights.exp() for w, density in zip(weights, densities)]),
        torch.cat(means),
        torch.cat(eigenvalues),
        None if diagonal else torch.cat(eigenvectors),
    )


def from_arrays(weights, means, eigenvalues, eigenvectors):
    """Rebuild a density from :meth:`Mixture.arrays`.

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Weights.
    means : array-like of shape (n_components, n_features)
        Means.
    eigenvalues : array-like
        Eigenvalues of the covariances.
    eigenvectors : array-like or None
        Their eigenvectors.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> from skdiffusion.diffusion.analytic import from_arrays, gaussian
    >>> from_arrays(**gaussian([0.0], [[1.0]]).arrays()).n_features
    1
    """
    eigenvalues = _tensor(eigenvalues)
    kind = _SharedMixture if eigenvalues.ndim == 1 else _FreeMixture
    eigenvectors = None if eigenvectors is None else _tensor(eigenvectors)
    return kind(_tensor(weights), _tensor(means), eigenvalues, eigenvectors)


def _tensor(values):
    """Float64 copy as a tensor."""
    return torch.as_tensor(values, dtype=torch.float64).clone()
