"""Targets: what a sampler needs to know of a density.

Letters. ``x`` is a point, ``p`` the density, perhaps without its constant, ``z = x + s eps`` a
noisy point and ``p_s`` its density. A target offers as much of the following as it can:

* ``gradient(x)``, the gradient of ``log p``; every target has it;
* ``evaluate(x)``, log density and gradient; only where ``has_log_density``;
* ``score(z, s)``, the gradient of ``log p_s``; only where ``has_noisy_score``. With it come
  ``reach``, the largest distance between two places where there is mass, and ``scale``, the
  smallest local standard deviation: between them lies every noise level that matters;
* ``draw(n, generator)``, exact draws; only where ``has_noisy_score`` is in closed form.

Coordinates. In ``u`` with ``x = m + F u`` the density is ``p(m + F u) |det F|`` and its gradient
``F' grad log p``. A kernel that runs in ``u`` is the preconditioned kernel with the matrix
``F F'`` [1]_; :func:`change_coordinates` therefore serves all of them.

References
----------
.. [1] G. Roberts, O. Stramer, "Langevin diffusions and Metropolis-Hastings algorithms",
   Methodology and Computing in Applied Probability 2002, https://doi.org/10.1023/A:1023562417138.
"""

import torch

from skdiffusion.diffusion.analytic.fused import Fused, can_fuse
from skdiffusion.diffusion.langevin.gradients import minibatch_gradient

# Up to this many points the distances of all pairs are compared.
_ALL_PAIRS = 4000


class Target:
    """What every target has; see the module's introduction.

    Parameters
    ----------
    n_features : int
        Number of features.
    """

    has_log_density = False
    has_noisy_score = False
    stochastic = False
    # Whether values and gradients are no better than single precision, whatever their type.
    is_single = False

    def __init__(self, n_features):
        self.n_features = n_features

    @property
    def width(self):
        """Numbers held for every chain while the target is evaluated."""
        return self.n_features

    def evaluate(self, x):
        """Log density, or None, and gradient."""
        return None, self.gradient(x)

    def at_step(self, step):
        """Gradient-only evaluation for one step; only stochastic gradients depend on it."""
        return lambda x: (None, self.gradient(x))


class MixtureTarget(Target):
    """Closed-form Gaussian mixture or kernel density estimate.

    Parameters
    ----------
    mixture : skdiffusion.diffusion.analytic.Mixture
        The density, already of the type and on the device of the chains.
    """

    has_log_density = True
    has_noisy_score = True

    def __init__(self, mixture):
        super().__init__(mixture.n_features)
        self.mixture, self._fused = mixture, (None, None)
        self.scale = float(mixture.eigenvalues.min().sqrt())
        self.reach = max(_largest_distance(mixture.centred), self._widest())

    @property
    def width(self):
        """One number a component, or one a component and feature."""
        parts = 1 if self.mixture.eigenvalues.ndim == 1 else self.n_features
        return self.mixture.n_components * parts

    @property
    def magnitude(self):
        """Largest coordinate in units of the smallest scale: what rounding errors grow with."""
        return float(self.mixture.means.abs().max()) / self.scale

    def gradient(self, x):
        """Gradient of the log density."""
        return self.evaluate(x)[1]

    def evaluate(self, x):
        """Log density and gradient."""
        return self._at(0.0)(x)

    def score(self, z, s):
        """Gradient of the noisy log density."""
        return self._at(s)(z)[1]

    def draw(self, n_samples, generator):
        """Exact draws."""
        return self.mixture.sample(n_samples, generator)

    def _at(self, s):
        """Function of points for one noise level, the last of which is kept."""
        if not can_fuse(self.mixture):
            return lambda x: self.mixture.log_density_and_gradient(x, s)
        # Chains of other threads may be at another level, and replace what is kept at any moment.
        level, function = self._fused
        if level != s:
            function = Fused(self.mixture, s)
            self._fused = s, function
        return function

    def _widest(self):
        """A component's own width, for mixtures of few components or one."""
        return 4 * float(self.mixture.eigenvalues.max().sqrt())


class DenoiserTarget(Target):
    """Density whose noisy score was learnt: ``grad log p_s(z) = (D(z, s) - z) / s**2``.

    Parameters
    ----------
    denoiser : skdiffusion.diffusion.denoiser.Denoiser
        The denoiser, of the type and on the device of the chains.
    reach, scale : float
        Largest distance between points with mass and smallest local scale.
    """

    has_noisy_score = True

    def __init__(self, denoiser, reach, scale):
        super().__init__(denoiser.base.given(None).n_features)
        self._denoiser, self.reach, self.scale = denoiser, reach, scale

    @property
    def width(self):
        """One number a component of the base, and a few hundred of the network."""
        return max(self._denoiser.base.given(None).n_components, 512)

    def gradient(self, x):
        """Gradient at a tenth of the local scale: without noise it may not be defined."""
        return self.score(x, self.scale / 10)

    def score(self, z, s):
        """Gradient of the noisy log density."""
        return (self._denoiser(z, s) - z) / s**2


class EstimatorTarget(Target):
    """Fitted estimator with ``log_density_gradient(X, noise_level)`` on numpy arrays.

    Its noise is counted in units of the columns, so that the target lives in the coordinates
    ``u = (x - centre) / unit`` in which the noise is the same in every direction.

    Parameters
    ----------
    estimator : object
        The estimator.
    centre, unit : ndarray of shape (n_features,)
        Origin and units of the coordinates.
    reach, scale : float or None
        Largest distance between points with mass and smallest local scale, in ``u``.
    """

    has_noisy_score = True

    def __init__(self, estimator, centre, unit, reach, scale):
        super().__init__(len(unit))
        self._estimator, self.reach, self.scale = estimator, reach, scale
        self._centre, self._unit = centre, unit

    def gradient(self, x):
        """Gradient at a tenth of the local scale: without noise it may not be defined."""
        return self.score(x, (self.scale or 0.0) / 10)

    def score(self, z, s):
        """Gradient of the noisy log density."""
        x = self._centre + z.detach().cpu().double().numpy() * self._unit
        gradient = self._estimator.log_density_gradient(x, float(s))
        return torch.as_tensor(gradient * self._unit).to(z)


class MinibatchPosterior(Target):
    """Log posterior whose gradient is estimated on minibatches of the data.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(x, rows) -> tensor of shape (n_chains,)``, the log likelihood of
        parameters ``x`` of shape (n_chains, n_features) summed over the given rows of the data.
    log_prior : callable
        ``log_prior(x) -> tensor of shape (n_chains,)``.
    data : tensor of shape (n_rows, ...)
        All the data.
    n_features : int
        Number of parameters.
    batch_size : int, default=100
        Rows a step.
    seed : int, default=0
        Seed of the choice of rows; all chains share the rows of a step.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.target import MinibatchPosterior
    >>> data = torch.arange(10.0)[:, None]
    >>> likelihood = lambda x, rows: -0.5 * (x[:, None] - rows).square().sum((1, 2))
    >>> prior = lambda x: -0.5 * x.square().sum(1)
    >>> target = MinibatchPosterior(likelihood, prior, data, n_features=1, batch_size=10)
    >>> target.gradient(torch.zeros(1, 1))
    tensor([[45.]])
    """

    stochastic = True

    def __init__(self, log_likelihood, log_prior, data, n_features, batch_size=100, seed=0):
        super().__init__(n_features)
        self._log_likelihood, self._log_prior = log_likelihood, log_prior
        self._data, self._seed = data, seed
        self._batch_size = min(batch_size, len(data))

    def gradient(self, x):
        """Gradient on all the data."""
        return self._evaluate(torch.arange(len(self._data)))(x)[1]

    def at_step(self, step):
        """Gradient on the rows of one step."""
        generator = torch.Generator().manual_seed(self._seed * 2**32 + step)
        return self._evaluate(
            torch.randperm(len(self._data), generator=generator)[: self._batch_size]
        )

    def _evaluate(self, rows):
        """Evaluate on some rows."""
        return minibatch_gradient(self._log_likelihood, self._log_prior, self._data, rows)


class Affine(Target):
    """A target seen in the coordinates ``u`` of ``x = shift + factor u``.

    Parameters
    ----------
    target : Target
        The target in ``x``.
    shift : tensor of shape (n_features,)
        Origin of the new coordinates.
    factor : tensor of shape (n_features, n_features)
        Columns are the new axes.
    """

    def __init__(self, target, shift, factor):
        super().__init__(target.n_features)
        self._target, self._shift, self._factor = target, shift, factor
        self._log_volume = torch.linalg.slogdet(factor)[1]
        self.has_log_density, self.stochastic = target.has_log_density, target.stochastic
        self.is_single = target.is_single

    @property
    def width(self):
        """That of the target."""
        return self._target.width

    def gradient(self, u):
        """Gradient with respect to u."""
        return self._turned(self._target.gradient(self._point(u)))

    def evaluate(self, u):
        """Log density, or None, and gradient."""
        log_density, gradient = self._target.evaluate(self._point(u))
        if log_density is not None:
            log_density = log_density + self._log_volume
        return log_density, self._turned(gradient)

    def at_step(self, step):
        """Gradient-only evaluation for one step."""
        evaluate = self._target.at_step(step)
        return lambda u: (None, self._turned(evaluate(self._point(u))[1]))

    def _point(self, u):
        """Back to x."""
        return (self._shift[:, None] + self._factor @ u.T).T

    def _turned(self, gradient):
        """Gradient with respect to u."""
        return (self._factor.T @ gradient.T).T


def _largest_distance(points):
    """Largest distance of two points; for many points an upper bound, twice the radius."""
    points = points.double()
    if len(points) == 1:
        return 0.0
    if len(points) <= _ALL_PAIRS:
        return max(float(torch.cdist(part, points).max()) for part in points.split(500))
    return 2 * float((points - points.mean(0)).norm(dim=1).max())
