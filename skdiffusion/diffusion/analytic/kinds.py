"""Mixtures whose components share a covariance, have their own, or differ from row to row."""

import math
from dataclasses import dataclass

import torch

from skdiffusion.diffusion.analytic.mixture import Mixture
from skdiffusion.diffusion.analytic.noisy import LOG_2PI, NoisyMixture, Parts, noise_variance


@dataclass
class SharedParts(Parts):
    """Parts of components with one covariance, in its axes: the point and the means."""

    point: torch.Tensor
    means: torch.Tensor


@dataclass
class FreeParts(Parts):
    """Parts of components with a covariance each: what points lack to the means, in its axes."""

    residual: torch.Tensor


class SharedMixture(Mixture):
    """Every component has the covariance ``U diag(lam) U'``; lam may have length one."""

    def _rotate(self, z):
        """Coordinates in which the covariance is diagonal."""
        centred = z - self.origin
        return centred if self.eigenvectors is None else centred @ self.eigenvectors

    def _rotate_back(self, vectors):
        """Rotate vectors, not points, to the original coordinates."""
        return vectors if self.eigenvectors is None else vectors @ self.eigenvectors.T

    def _parts(self, z, s, leave_out):
        """The parts, in the axes that the components share."""
        w = self._rotate(z)
        v = self.eigenvalues + noise_variance(z, s)
        means = self.centred if self.eigenvectors is None else self.centred @ self.eigenvectors
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
            (w.square() / v).sum(1) + scale * v.log().sum(1) + self.n_features * LOG_2PI
        )
        return SharedParts(*_softmax(logits), offset, v, w, means)

    def _gradient(self, parts):
        """Gradient of the log density."""
        w, v, means = parts.point, parts.variances, parts.means
        return self._rotate_back((parts.responsibilities @ means - w) / v)

    def _laplacian(self, parts):
        """Trace of the Hessian of the log density."""
        responsibilities, v, means = parts.responsibilities, parts.variances, parts.means
        spread = responsibilities @ means.square() - (responsibilities @ means).square()
        return (spread / v**2 - 1 / v).sum(1)

    def _hessian_product(self, parts, vector):
        """Hessian of the log density times a vector."""
        responsibilities, v, means = parts.responsibilities, parts.variances, parts.means
        if self.eigenvectors is not None:
            vector = vector @ self.eigenvectors
        moved = (vector / v) @ means.T * responsibilities
        spread = moved @ means - (responsibilities @ means) * moved.sum(1, keepdim=True)
        return self._rotate_back((spread - vector) / v)

    def _hessian(self, parts):
        """Hessian of the log density."""
        responsibilities, v, means = parts.responsibilities, parts.variances, parts.means
        d = self.n_features
        second = responsibilities @ (means[:, :, None] * means[:, None, :]).reshape(-1, d * d)
        mean = responsibilities @ means
        spread = second.reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        v = v.expand(len(mean), d)
        hessian = spread / (v[:, :, None] * v[:, None, :]) - torch.diag_embed(1 / v)
        if self.eigenvectors is None:
            return hessian
        return self.eigenvectors @ hessian @ self.eigenvectors.T

    def covariances(self):
        """Covariance of all components, with a leading axis of length one."""
        scaled = self.eigenvalues.expand(self.n_features)
        if self.eigenvectors is None:
            return torch.diag(scaled)[None]
        return (self.eigenvectors * scaled @ self.eigenvectors.T)[None]

    def _colour(self, component, noise):
        """Centred draws from the components."""
        return self.centred[component] + self._rotate_back(noise * self.eigenvalues.sqrt())


class FreeAlgebra(NoisyMixture):
    """Gradient and Hessian of components that each have axes ``eigenvectors`` of their own."""

    def _component_gradients(self, parts):
        """Gradient of the log density of each component."""
        gradients = parts.residual / parts.variances
        if self.eigenvectors is not None:
            gradients = torch.einsum("nkj,kij->nki", gradients, self.eigenvectors)
        return gradients

    def _gradient(self, parts):
        """Gradient of the log density."""
        responsibilities, residual, v = parts.responsibilities, parts.residual, parts.variances
        weighted = responsibilities[:, :, None] * residual / v
        if self.eigenvectors is None:
            return weighted.sum(1)
        basis = self.eigenvectors.transpose(1, 2).reshape(-1, self.n_features)
        return weighted.flatten(1) @ basis

    def _laplacian(self, parts):
        """Trace of the Hessian of the log density."""
        responsibilities, residual, v = parts.responsibilities, parts.residual, parts.variances
        local = ((residual / v).square() - 1 / v).sum(2)
        return (responsibilities * local).sum(1) - self._gradient(parts).square().sum(1)

    def _hessian_product(self, parts, vector):
        """Hessian of the log density times a vector."""
        responsibilities, v = parts.responsibilities, parts.variances
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
        responsibilities, v = parts.responsibilities, parts.variances
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


class FreeMixture(FreeAlgebra, Mixture):
    """Every component k has its own covariance ``U_k diag(lam_k) U_k'``."""

    def _parts(self, z, s, leave_out):
        """The parts, each in the axes of its component."""
        centred = z - self.origin
        residual = self.centred - centred[:, None]
        if self.eigenvectors is not None:
            k, d, _ = self.eigenvectors.shape
            rotated = (centred @ self.eigenvectors.transpose(0, 1).reshape(d, k * d)).reshape(
                -1, k, d
            )
            residual = torch.einsum("ki,kij->kj", self.centred, self.eigenvectors) - rotated
        variances = self.eigenvalues + noise_variance(z, s)[:, None]
        return _free_parts(self.log_weights, residual, variances, leave_out)

    def covariances(self):
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
        return self.centred[component] + scaled


class RowMixture(FreeAlgebra):
    """Gaussian mixture whose weights, means and variances differ from row to row.

    Parameters
    ----------
    log_weights : tensor of shape (n_samples, n_components)
        Logarithms of the weights of each row.
    means : tensor of shape (n_samples or 1, n_components, n_features)
        Means of each row.
    eigenvalues : tensor of shape (..., n_components or 1, n_features)
        Eigenvalues of the covariances, for all rows or with a leading axis for each row.
    eigenvectors : tensor of shape (n_components or 1, n_features, n_features)
        Their eigenvectors, in columns.

    Notes
    -----
    All methods of :class:`~skdiffusion.diffusion.analytic.Mixture` that take points take exactly
    one for each row.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.conditional import RowMixture
    >>> one = torch.ones(1, 1, 1)
    >>> RowMixture(torch.zeros(2, 1), one, one[0], one).denoise(torch.zeros(2, 1), 1.0)
    tensor([[0.5000],
            [0.5000]])
    """

    def __init__(self, log_weights, means, eigenvalues, eigenvectors):
        super().__init__()
        k = log_weights.shape[1]
        self.log_weights, self.means = log_weights, means
        self.eigenvalues = eigenvalues.expand(*eigenvalues.shape[:-2], k, -1)
        self.eigenvectors = eigenvectors.expand(k, -1, -1)

    @property
    def n_features(self):
        """Number of features."""
        return self.means.shape[2]

    def mean(self):
        """Mean of each row's density.

        Returns
        -------
        mean : tensor of shape (n_samples, n_features)
            Means.
        """
        return (self.log_weights.exp()[:, :, None] * self.means).sum(1)

    def sample(self, uniforms, noise):
        """Draw from the density of each row, with randomness from outside.

        Parameters
        ----------
        uniforms : tensor of shape (n_samples, n_draws)
            Uniforms in (0, 1), which choose the components.
        noise : tensor of shape (n_samples, n_draws, n_features)
            Standard normals.

        Returns
        -------
        draws : tensor of shape (n_samples, n_draws, n_features)
            Independent draws.
        """
        cumulative = self.log_weights.exp().cumsum(1)
        component = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:])
        component = component.clamp_max(cumulative.shape[1] - 1)
        rows = torch.arange(len(uniforms), device=uniforms.device)[:, None]
        draws = self.means.expand(len(uniforms), -1, -1)[rows, component]
        variances = self.eigenvalues.expand(len(uniforms), -1, -1)[rows, component]
        noise = noise * variances.sqrt()
        for k in component.unique().tolist():
            chosen = component == k
            draws[chosen] += noise[chosen] @ self.eigenvectors[k].T
        return draws

    def _parts(self, z, s, leave_out):
        """The parts, each in the axes of its component."""
        s = torch.as_tensor(s, dtype=z.dtype, device=z.device).reshape(-1, 1, 1)
        residual = torch.einsum("nki,kij->nkj", self.means - z[:, None], self.eigenvectors)
        return _free_parts(self.log_weights, residual, self.eigenvalues + s.square(), leave_out)


def _free_parts(log_weights, residual, v, leave_out):
    """The parts from residuals in the axes of the components, and variances."""
    logits = log_weights - 0.5 * ((residual.square() / v).sum(2) + v.log().sum(2))
    if leave_out is not None:
        logits.scatter_(1, leave_out[:, None], -math.inf)
    offset = -0.5 * residual.shape[2] * LOG_2PI
    return FreeParts(*_softmax(logits), offset, v, residual)


def _softmax(logits):
    """Softmax, logits, and their log-sum-exp; of the last two only what costs nothing.

    Logits may be overwritten: in float32 on a CPU one exponential in place serves both, a third
    faster. Below -80 it would meet underflow, where torch.exp is 13 to 42 times slower.
    """
    if logits.requires_grad or logits.is_cuda or logits.dtype != torch.float32:
        return torch.softmax(logits, 1), logits, None
    largest = logits.amax(1, keepdim=True)
    unnormalised = logits.sub_(largest).clamp_(min=-80.0).exp_()
    total = unnormalised.sum(1, keepdim=True)
    return unnormalised.div_(total), None, (largest + total.log()).squeeze(1)
