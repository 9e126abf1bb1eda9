"""Targets from what a user writes: functions, torch distributions, other coordinates."""

import torch
from torch import distributions as td

from skdiffusion.diffusion.analytic.build import gaussian_mixture
from skdiffusion.diffusion.langevin.gradients import autograd, chains_last
from skdiffusion.diffusion.target.targets import Affine, MixtureTarget, Target

# Part by which points are moved: double precision sees it, single precision does not.
_HAIR = 1e-10


class FunctionTarget(Target):
    """Density or gradient written as a function of a batch of points.

    Parameters
    ----------
    function : callable
        ``function(x)`` with ``x`` of shape (n_chains, n_features) returns log densities of shape
        (n_chains,), differentiable by torch; or gradients of shape (n_chains, n_features); or
        the pair of both.
    n_features : int
        Number of features.
    dtype : torch.dtype
        Type of the chains. A function that refuses it is called with float32 or float64 instead.
    device : torch.device
        Device of the chains.
    support : callable, optional
        Map of free coordinates to points that the function knows and their log-Jacobian.

    Raises
    ------
    TypeError
        If the function does not return tensors.
    ValueError
        If shapes are wrong, if the value cannot be differentiated, or if rows influence each
        other.
    """

    def __init__(self, function, n_features, dtype, device, support=None):
        super().__init__(n_features)
        self._function, self._dtype = function, dtype
        self._name = getattr(function, "__qualname__", None) or repr(function)
        generator = torch.Generator().manual_seed(0)
        n_free = n_features if support is None else support.n_free
        x = torch.randn((3, n_free), generator=generator, dtype=torch.float64)
        x = x if support is None else support(x)[0]
        self._kind = self._recognise(x.to(device=device, dtype=dtype))
        self.has_log_density = self._kind != "gradient"

    def gradient(self, x):
        """Gradient of the log density."""
        return self._call(x)[1]

    def evaluate(self, x):
        """Log density, or None, and gradient."""
        return self._call(x)

    def _call(self, x):
        """Log density or None and gradient in the chains' type.

        Torch refuses all matrices of a batch where one cannot be factorised. Rows are halved until
        those of such matrices are alone, where the density is not a number.
        """
        try:
            return self._at(x)
        except torch.linalg.LinAlgError:
            if len(x) > 1:
                values, gradients = zip(*map(self._call, x.tensor_split(2)), strict=True)
                value = None if self._kind == "gradient" else torch.cat(values)
                return value, chains_last(torch.cat(gradients))
        nothing = torch.full_like(x, torch.nan)
        return None if self._kind == "gradient" else nothing[:, 0], nothing

    def _at(self, x):
        """The same at points where the function can be computed."""
        y = x.to(self._dtype).contiguous()
        if self._kind == "log_density":
            value, gradient = autograd(self._function, y)
            return value.to(x.dtype), gradient.to(x.dtype)
        with torch.enable_grad():
            result = self._function(y)
        value, gradient = result if self._kind == "both" else (None, result)
        gradient = chains_last(gradient.detach().to(x.dtype))
        return None if value is None else value.detach().to(x.dtype), gradient

    def _recognise(self, x):
        """Find out what the function returns, with three points."""
        value = self._try_types(x)
        pair = isinstance(value, tuple) and len(value) == 2
        for part in value if pair else (value,):
            if not isinstance(part, torch.Tensor):
                raise TypeError(
                    f"target {self._name} must return a torch tensor, got {type(part).__name__}: "
                    "compute with torch operations on its argument."
                )
        shapes = [tuple(part.shape) for part in value] if pair else [tuple(value.shape)]
        kind = {
            ((3,),): "log_density",
            (tuple(x.shape),): "gradient",
            ((3,), tuple(x.shape)): "both",
        }.get(tuple(shapes))
        if kind is None:
            raise ValueError(
                f"target {self._name} returned shape {shapes[0] if len(shapes) == 1 else shapes} "
                f"for x of shape {tuple(x.shape)}; expected log densities of shape (3,), one for "
                f"every row of x, or gradients of shape {tuple(x.shape)}, or the pair of both."
            )
        self._check_rows(x, kind)
        self.is_single = self._is_single(x, value if pair else (value,))
        return kind

    def _try_types(self, x):
        """Call the function, in the other precision if it holds tensors of that one."""
        try:
            return self._function(x.to(self._dtype))
        except RuntimeError as error:
            if not any(word in str(error) for word in ("dtype", "scalar type", "same type")):
                raise
            other = torch.float32 if self._dtype == torch.float64 else torch.float64
            self._dtype = other
            return self._function(x.to(other))

    def _is_single(self, x, parts):
        """Whether the function computes in single precision, or somewhere inside of it."""
        if any(part.dtype.itemsize < torch.float64.itemsize for part in parts):
            return True
        moved = self._function(x.to(self._dtype) * (1 + _HAIR))
        moved = moved if isinstance(moved, tuple) else (moved,)
        return all(map(torch.equal, parts, moved))

    def _check_rows(self, x, kind):
        """Check that the value can be differentiated and that rows do not meet."""
        self._kind = kind
        try:
            together = self._call(x)
        except RuntimeError as error:
            raise ValueError(
                f"the value of target {self._name} cannot be differentiated ({error}); compute "
                "it with torch operations on its argument, or return the pair "
                "(log_density, gradient)."
            ) from error
        alone = self._call(x[:1])
        for a, b in zip(together, alone, strict=True):
            if a is not None and not torch.allclose(a[:1], b, rtol=1e-3, atol=1e-5, equal_nan=True):
                raise ValueError(
                    f"target {self._name} gives the first row another value when it is alone: "
                    "each row of x must have its own value, independent of the other rows."
                )


def change_coordinates(target, shift, factor):
    """Return the target in the coordinates ``u`` of ``x = shift + factor u``.

    Parameters
    ----------
    target : Target
        The target in ``x``.
    shift : tensor of shape (n_features,)
        Origin of the new coordinates.
    factor : tensor of shape (n_features, n_features)
        Columns are the new axes.

    Returns
    -------
    target : Target
        The target in ``u``. Mixtures stay closed form, with noise added in ``u``.
    """
    if not isinstance(target, MixtureTarget):
        return Affine(target, shift, factor)
    old, inverse = target.mixture, torch.linalg.inv(factor)
    means = (old.means - shift) @ inverse.T
    weights = old.log_weights.exp()
    values = old.eigenvalues
    vectors = torch.eye(len(shift)).to(factor) if old.eigenvectors is None else old.eigenvectors
    values = values if values.shape[-1] == len(shift) else values.expand(len(shift))
    covariances = inverse @ (vectors * values.unsqueeze(-2)) @ vectors.mT @ inverse.T
    kind = "full" if covariances.ndim == 3 else "tied"
    if not covariances.diagonal(dim1=-2, dim2=-1).diag_embed().ne(covariances).any():
        covariances = covariances.diagonal(dim1=-2, dim2=-1).expand_as(means)
        kind = "diag"
    return MixtureTarget(gaussian_mixture(weights, means, covariances, kind).to(means))


def from_distribution(distribution, dtype, device, support=None):
    """Turn a torch distribution into a target.

    Parameters
    ----------
    distribution : torch.distributions.Distribution
        A distribution over the whole space, or over ``support``, with ``batch_shape == ()`` and
        an event of at most one dimension. Gaussians and mixtures of Gaussians become closed form.
    dtype : torch.dtype
        Type of the chains.
    device : torch.device
        Device of the chains.
    support : callable, optional
        Map of free coordinates to points of the distribution and their log-Jacobian.

    Returns
    -------
    target : Target
        The target.

    Raises
    ------
    ValueError
        If the shapes do not fit or the support is not the whole space.
    """
    batch, event = tuple(distribution.batch_shape), tuple(distribution.event_shape)
    if batch or len(event) > 1:
        raise ValueError(
            f"target distribution has batch_shape {batch} and event_shape {event}; expected () "
            "and (n_features,): torch.distributions.Independent(d, 1) turns a batch dimension "
            "into features."
        )
    closed_form = _gaussian_arrays(distribution)
    if closed_form is not None:
        return MixtureTarget(gaussian_mixture(*closed_form).to(device=device, dtype=dtype))
    if support is None and not _covers_the_space(distribution.support):
        raise ValueError(
            f"target distribution has the support {distribution.support}; Langevin chains need "
            "the whole space: give bounds, or sample a transformed variable "
            "(torch.distributions.TransformedDistribution)."
        )
    column = (lambda x: x) if event else (lambda x: x[:, 0])
    log_density = lambda x: distribution.log_prob(column(x))  # noqa: E731
    log_density.__qualname__ = f"{type(distribution).__name__}.log_prob"
    return FunctionTarget(log_density, event[0] if event else 1, dtype, device, support)


def _gaussian_arrays(distribution):
    """Weights, means, covariances and their type where they are all there is, else None."""
    weights, components = torch.ones(1), distribution
    if isinstance(distribution, td.MixtureSameFamily):
        weights = distribution.mixture_distribution.probs
        components = distribution.component_distribution
    if isinstance(components, td.MultivariateNormal):
        mean, covariance, kind = components.loc, components.covariance_matrix, "full"
        covariance = covariance.reshape(len(weights), *covariance.shape[-2:])
    else:
        if isinstance(components, td.Independent):
            components = components.base_dist
        if not isinstance(components, td.Normal):
            return None
        mean, covariance, kind = components.loc, components.variance, "diag"
        covariance = covariance.reshape(len(weights), -1)
    return weights.detach(), mean.detach().reshape(len(weights), -1), covariance.detach(), kind


def _covers_the_space(support):
    """Whether a support constraint is no constraint."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return isinstance(support, type(td.constraints.real))
