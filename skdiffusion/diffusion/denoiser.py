r"""The denoiser: an analytic base and what a network adds to it.

With data of about unit variance the denoiser is

.. math:: D(z, s) &= D_{base}(z, s) + c_{out}(s)\, F(c_{in}(s) z, s, e_{base}) , \\
    c_{in} &= \frac{1}{\sqrt{1 + s^2}} , \quad c_{out} = \frac{s}{1 + s^2} , \quad
    e_{base} = \frac{z - D_{base}}{s} .

``D_base`` is the closed-form denoiser of a density fitted beforehand (:mod:`.analytic`) and ``F``
a network whose last layer starts at zero: before training, ``D`` *is* the base. The better the
base, the less is left for the network. ``e_base`` is the base's own estimate of the noise, which is
the most telling input the network can have.

For the base N(0, I), ``D_base = z / (1 + s**2)`` and at small noise this is the preconditioning of
Karras et al. [1]_. At large noise their ``c_out`` tends to 1, the size of what a network cannot
know; what it can add to a base with the mean and nearly the covariance of the data shrinks like
``1 / s``. With ``c_out`` of that size, errors of the network at large noise, which shift whole
clusters, shrink likewise.

Networks are modules called as ``network(x, log_s, base_noise, condition)`` with ``x`` of shape
(n_samples, n_features), ``log_s`` of shape (n_samples, 1), ``base_noise`` of the shape of ``x``
and ``condition`` of shape (n_samples, n_conditions) or None; they return the shape of ``x``.

References
----------
.. [1] T. Karras et al., "Elucidating the design space of diffusion-based generative models",
   NeurIPS 2022, https://arxiv.org/abs/2206.00364.
"""

import torch
from torch import nn


class Denoiser(nn.Module):
    """Analytic base plus a preconditioned network.

    Parameters
    ----------
    base : Mixture, ConditionalMixture or LabelledMixture
        Density of the standardised data known in closed form, with or without a condition.
    network : torch.nn.Module or None
        The residual network; None leaves the base alone.

    Notes
    -----
    In all methods ``z`` has shape (n_samples, n_features), ``s`` is a float or a tensor of shape
    (n_samples,), and ``condition`` is None or a tensor of shape (n_samples, n_conditions). None
    stands for the density of all conditions together.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.denoiser import Denoiser
    >>> denoiser = Denoiser(gaussian([0.0], [[1.0]]), None)
    >>> denoiser(torch.tensor([[1.0]], dtype=torch.float64), 1.0)
    tensor([[0.5000]], dtype=torch.float64)
    """

    def __init__(self, base, network=None):
        super().__init__()
        self.base = base
        self.network = network

    def forward(self, z, s, condition=None, leave_out=None):
        """Estimate the data from noisy points.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.
        condition : tensor of shape (n_samples, n_conditions), optional
            What the data are conditioned on.
        leave_out : int64 tensor of shape (n_samples,), optional
            Component of the base to leave out for each row.

        Returns
        -------
        denoised : tensor of shape (n_samples, n_features)
            ``D(z, s)``.
        """
        denoised = self.base.given(condition).denoise(z, s, leave_out)
        if self.network is None:
            return denoised
        s = _column(z, s)
        return denoised + self._residual(z, s, (z - denoised) / s, condition)

    def shares(self, z, s, condition=None, directions=None):
        """Base's and network's share of the estimate, each with the trace of its Jacobian.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Noisy points.
        s : float or tensor of shape (n_samples,)
            Noise level.
        condition : tensor of shape (n_samples, n_conditions), optional
            What the data are conditioned on.
        directions : tensor of shape (n_estimates, 1 or n_samples, n_features), optional
            Random signs for estimates of the network's trace, see
            :func:`skdiffusion.diffusion.likelihood.trace_directions`.

        Returns
        -------
        base : tuple of tensors of shapes (n_samples, n_features) and (n_samples,)
            ``D_base(z, s)`` and the trace of its Jacobian.
        residual : tuple of tensors of shapes (n_samples, n_features) and (n_samples,)
            What the network, which must be there, adds to both; with ``directions`` the second is
            of shape (n_samples, n_estimates).
        """
        base = self.base.given(condition)
        if directions is not None:
            return self._estimated_shares(base, z, s, condition, directions)
        with torch.no_grad():
            denoised, jacobian = base.denoise_and_jacobian(z, s)
            identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
            noise_jacobian = (identity - jacobian) / _column(z, s)[:, :, None]
        residual, inputs = self._traced_residual(z, s, denoised, condition)
        change = z.new_zeros(len(z))
        for i in range(z.shape[1]):
            by_z, by_noise = _products(residual, inputs, identity[i].expand_as(z))
            change = change + by_z[:, i] + (by_noise * noise_jacobian[:, :, i]).sum(1)
        trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
        return (denoised, trace), (residual.detach(), change)

    def _estimated_shares(self, base, z, s, condition, directions):
        """Shares with quadratic forms of the network's Jacobian in place of its trace."""
        directions = directions.expand(-1, len(z), -1)
        with torch.no_grad():
            denoised, trace, products = base.denoise_divergence_and_jvps(z, s, directions)
        residual, inputs = self._traced_residual(z, s, denoised, condition)
        s = _column(z, s)
        changes = []
        for direction, moved in zip(directions, products):
            by_z, by_noise = _products(residual, inputs, direction)
            changes.append((by_z * direction + by_noise * (direction - moved) / s).sum(1))
        return (denoised, trace), (residual.detach(), torch.stack(changes, 1))

    def _residual(self, z, s, base_noise, condition):
        """The network's share of the estimate."""
        c_in = 1 / torch.sqrt(1 + s.square())
        return s * c_in**2 * self.network(c_in * z, s.log(), base_noise, condition)

    def _traced_residual(self, z, s, denoised, condition):
        """The residual and the inputs to differentiate it by."""
        s = _column(z, s)
        with torch.enable_grad():
            inputs = (
                z.detach().clone().requires_grad_(),
                ((z - denoised) / s).detach().requires_grad_(),
            )
            return self._residual(inputs[0], s, inputs[1], condition), inputs


def _column(z, s):
    """Noise level as a column of one value a row."""
    s = torch.as_tensor(s, dtype=z.dtype, device=z.device)
    return s.reshape(-1, 1).expand(len(z), 1)


def _products(residual, inputs, vectors):
    """Vectors times the Jacobians of the residual, zero for inputs that a network ignores."""
    return torch.autograd.grad(
        residual, inputs, vectors, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def guided(denoiser, condition, guidance):
    """Denoiser given the condition, pushed away from the unconditional one [1]_.

    .. [1] J. Ho, T. Salimans, "Classifier-free diffusion guidance", 2022: equation 6 with
       ``guidance = 1 + w``, https://arxiv.org/abs/2207.12598.
    """
    if condition is None or guidance == 1:
        return lambda z, s: denoiser(z, s, condition)

    def denoise(z, s):
        free = denoiser(z, s)
        return free + guidance * (denoiser(z, s, condition) - free)

    return denoise
