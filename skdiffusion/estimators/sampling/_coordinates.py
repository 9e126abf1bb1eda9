"""Where chains start, and the coordinates in which they run."""

import dataclasses
import warnings

import numpy as np
import torch

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.target.noncentred import NonCentred
from skdiffusion.diffusion.target.recognise import change_coordinates
from skdiffusion.diffusion.target.supports import Supported
from skdiffusion.estimators.sampling._running import block_size
from skdiffusion.estimators.sampling._targets import (
    as_target,
    extent_of,
    kind_of,
    model_parts,
    units_of,
)
from skdiffusion.inputs.arguments import require_arguments
from skdiffusion.inputs.arrays import unmasked

# Rows drawn from a density model to see how far it reaches.
_N_ROWS = 1000
# Address of the noise of starting points, far from that of any step.
START = 2**40
# Tries to start where the target is finite: enough where it is finite in one try of five.
_N_TRIES = 30


@dataclasses.dataclass(frozen=True)
class ChainCoordinates:
    """Coordinates ``u`` of chains, and the density that they sample there.

    Free coordinates are ``y = shift + factor u``, or what ``stretch`` makes of them; they are the
    user's ``x``, or lead to it through the support.

    Parameters
    ----------
    source : object
        Who gives the density: what the user gave, or the model learnt in its place.
    shift : ndarray of shape (n_features,)
        Origin.
    factor : ndarray of shape (n_features, n_features)
        Columns are the axes.
    extent : tuple of two float or None
        Reach and local scale of an estimator, for its ladder.
    own : bool
        Whether the source counts noise in coordinates of its own, which chains then use.
    support : object or None
        Map from free coordinates to the user's, where those are not free.
    stretch : NonCentred or None
        Map that straightens funnels, where there are any.
    """

    source: object
    shift: np.ndarray
    factor: np.ndarray
    extent: tuple | None = None
    own: bool = False
    support: object = None
    stretch: NonCentred | None = None

    @property
    def n_features(self):
        """Number of features of the user's points."""
        return self.n_free if self.support is None else self.support.n_features

    @property
    def n_free(self):
        """Number of free coordinates."""
        return len(self.shift)

    @property
    def is_diagonal(self):
        """Whether every axis is that of a feature."""
        return self.stretch is None and np.array_equal(self.factor, np.diag(np.diag(self.factor)))

    @property
    def is_curved(self):
        """Whether free coordinates or the user's are no linear function of those of the chains."""
        return self.support is not None or self.stretch is not None

    def moved(self, shift, factor, stretch=None):
        """Coordinates with another origin and other axes."""
        return dataclasses.replace(self, shift=shift, factor=factor, stretch=stretch)

    def target(self, dtype, device):
        """What chains sample."""
        target = self.given(dtype, device)
        target = target if self.support is None else Supported(target, self.support)
        target = target if self.stretch is None else Supported(target, self.stretch)
        untouched = np.array_equal(self.factor, np.eye(self.n_free)) and not self.shift.any()
        if self.own or untouched:
            return target
        arrays = (torch.as_tensor(a, dtype=dtype, device=device) for a in (self.shift, self.factor))
        return change_coordinates(target, *arrays)

    def given(self, dtype, device):
        """The density in the coordinates of its source."""
        return as_target(self.source, self.n_features, dtype, device, self.extent, self.support)

    def forward(self, X, dtype, device):
        """Points in the coordinates of the chains."""
        X, parts = np.asarray(X, dtype=np.float64), model_parts(self.source)
        if parts is not None:
            return torch.as_tensor(parts.forward(X).copy(), dtype=dtype, device=device)
        if self.support is not None:
            self._check_inside(X)
            X = self.support.inverse(torch.as_tensor(X)).numpy()
        return self.from_free(X, dtype, device)

    def from_free(self, y, dtype, device):
        """Coordinates of the chains for free ones."""
        if self.stretch is not None:
            y = self.stretch.inverse(torch.as_tensor(y)).numpy()
        u = np.linalg.solve(self.factor, (y - self.shift).T).T
        return torch.as_tensor(u.copy(), dtype=dtype, device=device)

    def inverse(self, u):
        """Points in the user's coordinates, in float64."""
        parts = model_parts(self.source)
        if parts is not None:
            u = u.cpu().double()
            return parts.inverse(u.reshape(-1, u.shape[-1])).reshape(u.shape)
        y = self.free(u)
        if self.support is None:
            return y
        x, _ = self.support(torch.as_tensor(y.reshape(-1, y.shape[-1])))
        return x.numpy().reshape(*y.shape[:-1], -1)

    def free(self, u):
        """Free coordinates, in float64."""
        y = u.cpu().double().numpy() @ self.factor.T + self.shift
        if self.stretch is None:
            return y
        return self.stretch(torch.as_tensor(y.reshape(-1, y.shape[-1])))[0].numpy().reshape(y.shape)

    def spread(self, normal):
        """Starting points out of standard normals, in the user's coordinates."""
        return self.free(normal) if self.support is None else self.inverse(normal)

    def _check_inside(self, X):
        """Refuse points that the support does not have."""
        outside = np.flatnonzero(~self.support.contains(torch.as_tensor(X)).numpy())
        if len(outside):
            raise ValueError(
                f"{len(outside)} of {len(X)} points lie outside bounds, first row {outside[0]}: "
                f"{X[outside[0]].tolist()}"
            )

    def finite(self, X):
        """Whether the target is finite at points; closed forms and models are so everywhere."""
        target = self.target(torch.float64, torch.device("cpu"))
        if target.has_noisy_score:
            return np.ones(len(X), dtype=bool)
        u = self.forward(X, torch.float64, torch.device("cpu"))
        return finite(target, u).numpy()

    def log_density(self, X, device):
        """Log density of rows in the user's coordinates."""
        if self.own:
            with warnings.catch_warnings():
                # X has lost the names of its columns on the way.
                warnings.filterwarnings("ignore", "X does not have valid feature names")
                return np.asarray(self.source.score_samples(X))
        if self.is_curved:
            x = torch.as_tensor(X, dtype=torch.float64, device=device)
            inside = torch.ones(len(x), dtype=torch.bool, device=device)
            inside = inside if self.support is None else self.support.contains(x)
            values = np.full(len(X), -np.inf)
            if inside.any():
                given = self.given(torch.float64, device)
                values[inside.cpu().numpy()] = log_densities(given, x[inside])
            return values
        target = self.target(torch.float64, device)
        values = log_densities(target, self.forward(X, torch.float64, device))
        return values - np.linalg.slogdet(self.factor)[1]

    def gradient(self, X, noise_level, device):
        """Gradient of the noisy log density with respect to rows in the user's coordinates."""
        if model_parts(self.source) is not None:
            level = {"noise_level": noise_level} if noise_level > 0 else {}
            return self.source.log_density_gradient(X, **level)
        target = self.target(torch.float64, device)
        if noise_level > 0 and not target.has_noisy_score:
            raise ValueError(
                f"noise_level={noise_level} needs a noisy score, but the target is a "
                f"{kind_of(target)}: use noise_level=0, a mixture, a KernelDensity or data."
            )
        u, to_x = self.forward(X, torch.float64, device), np.linalg.inv(self.factor)
        if self.is_curved:
            u, to_x = torch.as_tensor(X, dtype=torch.float64, device=device), np.eye(X.shape[1])
            target = self.given(torch.float64, device)
        with torch.no_grad():
            parts = [
                target.score(part, noise_level) if noise_level > 0 else target.gradient(part)
                for part in u.split(block_size(target, torch.float64, device))
            ]
        return torch.cat(parts).cpu().numpy() @ to_x


def log_densities(target, u):
    """Log densities of points in the coordinates of the chains, in blocks."""
    with torch.no_grad():
        blocks = u.split(block_size(target, torch.float64, u.device))
        parts = [target.evaluate(block)[0] for block in blocks]
    return torch.cat(parts).cpu().numpy()


def finite(target, u):
    """Whether log density and gradient are finite at points in the coordinates of the chains."""
    values, gradients = evaluated(target, u)
    good = torch.isfinite(gradients).all(1)
    return good if values is None else good & torch.isfinite(values)


def evaluated(target, u):
    """Log densities, or None, and gradients at points in coordinates of the chains, in blocks."""
    with torch.no_grad():
        blocks = u.split(block_size(target, u.dtype, u.device))
        values, gradients = zip(*map(target.evaluate, blocks), strict=True)
    return torch.cat(values) if target.has_log_density else None, torch.cat(gradients)


def first_coordinates(source, n_features, X, preconditioner, device, support=None):
    """Coordinates before any trial run: those of the source, or of a covariance that was given.

    Parameters
    ----------
    source : object
        Who gives the density.
    n_features : int
        Number of features.
    X : ndarray of shape (n_samples, n_features) or None
        Rows where the density has mass.
    preconditioner : str, None or array-like
        As the parameter of the sampler.
    device : torch.device
        Where to evaluate.
    support : object or None
        Map from free coordinates to those of the density.

    Returns
    -------
    coordinates : ChainCoordinates
        The coordinates.
    """
    extent = _extent(source, X)
    target = as_target(source, n_features, torch.float64, device, extent, support)
    if model_parts(source) is not None or kind_of(target) == "estimator":
        if not (preconditioner is None or _is(preconditioner, "auto")):
            raise ValueError(
                "preconditioner cannot be used with an estimator as target, whose noise is added "
                "in its own coordinates: scale the data instead."
            )
        if support is not None:
            raise ValueError(
                "bounds cannot be used with an estimator or data, whose noisy densities have none: "
                "transform the columns instead, as ScoreSDE(marginals='auto') does."
            )
        centre, unit = units_of(source, n_features)
        return ChainCoordinates(source, centre, np.diag(unit), extent, own=True)
    n_free = n_features if support is None else support.n_free
    factor = np.eye(n_free)
    if not (preconditioner is None or isinstance(preconditioner, str)):
        factor = _covariance_root(preconditioner, n_free)
    return ChainCoordinates(source, np.zeros(n_free), factor, extent, support=support)


def _is(value, word):
    """Whether a parameter is a certain word."""
    return isinstance(value, str) and value == word


def _extent(source, X):
    """Reach and scale that the ladder of an estimator needs, where they can be seen."""
    parts = model_parts(source)
    if X is None and parts is None:
        return None
    if X is None:
        X = source.sample(_N_ROWS, random_state=0)
    if parts is not None:
        return extent_of(parts.forward(X))
    centre, unit = units_of(source, X.shape[1])
    return extent_of((X - centre) / unit)


def _covariance_root(preconditioner, d):
    """Cholesky factor of the covariance given."""
    covariance = np.asarray(preconditioner, dtype=np.float64)
    if covariance.shape == (d,):
        covariance = np.diag(covariance)
    if not np.isfinite(covariance).all():
        raise ValueError("preconditioner contains NaN or infinity: give a finite covariance.")
    if covariance.shape != (d, d) or not np.allclose(covariance, covariance.T):
        raise ValueError(
            f"preconditioner must be a covariance of shape ({d},) or ({d}, {d}), got shape "
            f"{np.shape(preconditioner)}"
        )
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ValueError("preconditioner must be positive definite") from error


@dataclasses.dataclass(frozen=True)
class Starts:
    """Where chains start.

    Parameters
    ----------
    init : str, callable or array-like
        As the parameter of the sampler.
    rows : ndarray of shape (n_samples, n_features) or None
        Rows of X, for ``init="data"``.
    """

    init: object
    rows: np.ndarray | None

    def draw(self, coordinates, n_chains, seed):
        """Starting points in the user's coordinates."""
        if callable(self.init):
            return self._from_function(n_chains, coordinates.n_features, seed)
        if not isinstance(self.init, str):
            points = start_array(self.init, coordinates.n_features)
            return points[np.arange(n_chains) % len(points)]
        if self.init == "data":
            order = np.random.default_rng(seed).permutation(len(self.rows))
            return self.rows[order[np.arange(n_chains) % len(order)]]
        return self._normal(coordinates, n_chains, seed)

    def _normal(self, coordinates, n_chains, seed):
        """Standard normals in the coordinates of the chains, each where the target is finite."""
        noise = ChainNoise(chain_keys(seed, 0, n_chains), coordinates.n_free)
        points = coordinates.spread(noise.normal(START))
        for i in range(1, _N_TRIES):
            outside = ~coordinates.finite(points)
            if not outside.any():
                break
            points[outside] = coordinates.spread(noise.normal(START + i))[outside]
        return points

    def _from_function(self, n_chains, d, seed):
        """Starting points that the user's function draws."""
        require_arguments(self.init, "init", "n_chains", "rng")
        points = np.asarray(self.init(n_chains, np.random.default_rng(seed)), dtype=float)
        if points.shape != (n_chains, d):
            raise ValueError(f"init returned shape {points.shape}, expected ({n_chains}, {d})")
        if not np.isfinite(points).all():
            raise ValueError("init returned NaN or infinity: return finite starting points.")
        return points


def start_array(init, n_features=None):
    """Checked array of starting points."""
    array = np.asarray(unmasked(init), dtype=np.float64)
    if array.ndim != 2 or len(array) == 0 or n_features not in (None, array.shape[1]):
        wanted = "n_features" if n_features is None else n_features
        raise ValueError(f"init must have shape (n_points, {wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("init contains NaN or infinity: give finite starting points.")
    return array
