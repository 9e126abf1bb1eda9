"""LangevinSampler: draws from a density that can be written down, or from data."""

import dataclasses
import math
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from scipy.stats import chi2
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from skdiffusion._device import memory_advice, resolve_device
from skdiffusion._random import ChainNoise, chain_keys, draw_seed, row_keys, torch_generator
from skdiffusion._threads import one_thread, spread
from skdiffusion.columns.standard import column_moments
from skdiffusion.diffusion.langevin.chains import Divergence, Plan, run
from skdiffusion.diffusion.langevin.tuning import curvature, roundness, tune
from skdiffusion.diffusion.target.recognise import FunctionTarget, change_coordinates
from skdiffusion.diffusion.target.targets import DenoiserTarget, MixtureTarget
from skdiffusion.estimators.density.score_sde import ScoreSDE
from skdiffusion.estimators.sampling._targets import (
    as_target,
    check_target,
    extent_of,
    kind_of,
    target_features,
    to_model,
    units_of,
)
from skdiffusion.inputs.frames import infinity_named
from skdiffusion.metrics import effective_sample_size, nested_r_hat, r_hat

_METHODS = ("ula", "mala", "underdamped", "annealed", "tempered")
# Chains of the trial run in fit, and draws of each that the diagnostics look at.
_N_PILOT, _N_TRACE = 128, 50
# Trial runs that look for a preconditioner, and the steps of each.
_N_PILOT_RUNS, _PILOT_STEPS = 3, 300
# Bytes of the largest matrix of a block: more and it leaves the processor's cache.
_BLOCK_BYTES = 800_000
_SMALLEST_BETA = 0.002
# Spread of the trial chains, in spreads of their start, from which a runaway is looked for.
_WIDE = 50
_START = 2**40
# Squares of coordinates in units of the smallest scale are rounded to a part of 2**24.
_FLOAT32_MAGNITUDE = 300


def _can_score(sampler):
    """Whether the target gives log densities; the reason is in the error otherwise."""
    kind = getattr(sampler, "target_kind_", None)
    if kind in ("gradient", "minibatch"):
        raise AttributeError(
            "score_samples needs a log density, but the target gives only a gradient: return the "
            "log density, or the pair (log_density, gradient)."
        )
    return True


class LangevinSampler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Sampler of densities by Langevin dynamics, annealed, tempered or plain.

    The density is given by ``target``, or learned from the data passed to ``fit``. Thousands of
    chains run at once, and a chain does not depend on which others run beside it. The defaults
    reach all modes where that is possible: with a known noisy score by annealing, with a log
    density alone by parallel tempering.

    Parameters
    ----------
    target : object, default=None
        What to sample:

        * None: the density of the rows of X, whose noise-conditional score is learnt by denoising
          score matching: a :class:`ScoreSDE` with its defaults, which starts from a mixture or
          kernel density estimate and keeps a network where held-out rows say that it helps;
        * a callable ``f(x)`` in torch operations, for ``x`` of shape (n_chains, n_features)
          returning log densities of shape (n_chains,), or gradients of the shape of ``x``, or
          the pair of both. A constant in the log density does not matter;
        * a ``torch.distributions.Distribution``;
        * a fitted ``GaussianMixture``, ``BayesianGaussianMixture`` (at the means of its
          posterior) or Gaussian ``KernelDensity`` of scikit-learn;
        * a fitted :class:`ScoreSDE`;
        * another fitted estimator with ``log_density_gradient(X, noise_level)``; give rows of X
          to ``fit`` to find the ladder;
        * a :class:`skdiffusion.diffusion.target.Target`, such as ``MinibatchPosterior``.
    method : {"auto", "ula", "mala", "underdamped", "annealed", "tempered"}, default="auto"
        How to sample. "auto" takes "annealed" where the noisy score is known, "tempered" where
        only the log density is known, and "ula" where there is only a gradient, with a warning:
        a plain chain does not cross between modes.
    noise_levels : "auto", int or array-like of shape (n_levels,), default="auto"
        Ladder of "annealed": strictly decreasing positive noise levels, in the units of the data
        (of ``scale_`` where ``target`` is None or an estimator that counts noise so, of the
        preconditioned coordinates where ``preconditioner`` is given). "auto" goes from the
        largest distance between two places with mass to a tenth of the smallest local scale; an
        int is the number of levels of that ladder.
    steps_per_level : int, default=1
        Langevin steps on each level, of a size proportional to ``s**2 + scale**2``. A
        second-order step of the reverse diffusion leads from level to level.
    n_steps : "auto" or int, default="auto"
        Steps before the first draw; with "annealed" those after the ladder. "auto" is 20 for
        "annealed" (0 where the log density is not known), 500 for "tempered" and 1000 otherwise.
    step_size : "auto" or float, default="auto"
        Step ``h`` of ``x + h g + sqrt(2 h) eps`` in squared units of x, or in the coordinates of
        the preconditioner; for "underdamped" the time step. "auto" adapts the acceptance to 0.574
        in ``fit`` for Metropolis methods and takes a tenth of the inverse of the largest
        curvature for the others.
    preconditioner : {"auto", "pilot"}, None or array-like, default="auto"
        Covariance by which chains are scaled: an array of shape (n_features,) or
        (n_features, n_features), or "pilot" for the covariance of trial runs in ``fit``, each in
        the coordinates that the one before found. "auto" keeps that covariance where it makes the
        target at least twice as round, measured by the largest curvature times the largest
        variance; it does not try where ``step_size`` is given, where the noisy score is known or
        where gradients are stochastic. Not used where ``target`` is None: columns are
        standardised then.
    friction : "auto" or float, default="auto"
        Friction of "underdamped", per unit of time.
    temperature : float, default=1.0
        With "ula", the chains sample ``p ** (1 / temperature)``; 0 leaves out the noise, which is
        plain gradient ascent.
    n_temperatures : "auto" or int, default="auto"
        Number of temperatures of "tempered".
    n_chains : int, default=None
        Number of chains; None runs one chain a draw, so that draws are independent.
    thin : int, default=1
        Steps between the draws of a chain, and between the points of a trajectory.
    init : {"normal", "data"}, callable or array-like, default="normal"
        Where chains start: N(0, I) in the coordinates of the preconditioner, rows of X,
        ``init(n_chains, rng)`` with a numpy Generator, or the rows of an array, used in turn.
        "annealed" adds the noise of the first level.
    n_features : int, default=None
        Number of features, for a callable target when neither X nor an ``init`` array tells.
    max_iter : int, default=2000
        Training steps of a network at most, where ``target`` is None; 0 keeps to densities in
        closed form, a mixture or a kernel density estimate.
    dtype : {"auto", "float64", "float32"}, default="auto"
        Type of the chains in ``sample``; float32 is twice as fast. "auto" takes it for learnt
        scores and for mixtures of which no coordinate is larger than 300 of the smallest standard
        deviations, where rounding cannot be seen, and float64 otherwise.
    device : str or torch.device, default="auto"
        Where to compute; "auto" takes a GPU where there is one.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seed of the noise; an int makes every call give the same result.

    Attributes
    ----------
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X in ``fit`` had names.
    mean_, scale_ : ndarray of shape (n_features,)
        Origin and units of the columns in which noise levels count; absent where the
        preconditioner is not diagonal.
    method_ : str
        Method in use.
    target_kind_ : str
        What the target was taken for.
    score_model_ : ScoreSDE
        The model of the rows of X; only where ``target`` is None.
    n_iter_ : int
        Training steps taken, 1 where no network was trained; only where ``target`` is None.
    dtype_ : str
        Type of the chains in ``sample``.
    noise_levels_ : ndarray
        Ladder in use, empty unless annealed.
    step_size_ : float or ndarray
        Step size in use, one a temperature for "tempered".
    inverse_temperatures_ : ndarray
        Temperatures in use.
    acceptance_rate_ : float
        Mean acceptance of the trial run; NaN without Metropolis steps.
    rhat_, nested_rhat_ : ndarray of shape (n_features,)
        Convergence of trial chains of which one half starts at ``init`` and the other half at
        exact draws, at rows of X or far out; near 1 where the start is forgotten. NaN for
        "annealed", whose chains forget their start on the first level.
    energy_nested_rhat_ : float
        The same of the energy, minus the log density, which is often the slowest to settle; NaN
        where the log density is not known.
    ess_, ess_tail_ : ndarray of shape (n_features,)
        Effective sample size of the trial run for every thousand draws, of the bulk and of the
        5 % and 95 % quantiles.

    See Also
    --------
    ScoreSDE : Learns the density of data; draws from it faster, by fewer and longer steps.
    sklearn.neighbors.KernelDensity : Density of data in closed form.

    Notes
    -----
    Annealed sampling costs ``2 n_levels + n_steps`` evaluations of the score a chain, below 200
    with the defaults.

    ``transform`` moves the given points by the same dynamics; a row's result depends neither on
    the other rows nor on their order. The tests of convergence in ``fit`` warn when chains from
    two starts disagree.

    References
    ----------
    .. [1] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data
       distribution", NeurIPS 2019.
    .. [2] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
       discrete approximations", Bernoulli 1996.
    .. [3] S. Syed et al., "Non-reversible parallel tempering", JRSS B 2022.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.estimators import LangevinSampler
    >>> means = torch.tensor([[-8.0], [8.0]])
    >>> two_modes = torch.distributions.MixtureSameFamily(
    ...     torch.distributions.Categorical(torch.tensor([0.25, 0.75])),
    ...     torch.distributions.Independent(torch.distributions.Normal(means, 1.0), 1),
    ... )
    >>> sampler = LangevinSampler(two_modes, random_state=0).fit()
    >>> X = sampler.sample(1000)
    >>> X.shape
    (1000, 1)
    >>> bool(0.7 < (X > 0).mean() < 0.8)
    True
    """

    _parameter_constraints = {
        "target": "no_validation",
        "method": [StrOptions({"auto", *_METHODS})],
        "noise_levels": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            "array-like",
        ],
        "steps_per_level": [Interval(Integral, 0, None, closed="left")],
        "n_steps": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "step_size": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "preconditioner": [None, StrOptions({"auto", "pilot"}), "array-like"],
        "friction": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="left")],
        "n_temperatures": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "n_chains": [None, Interval(Integral, 1, None, closed="left")],
        "thin": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"normal", "data"}), callable, "array-like"],
        "n_features": [None, Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        target=None,
        *,
        method="auto",
        noise_levels="auto",
        steps_per_level=1,
        n_steps="auto",
        step_size="auto",
        preconditioner="auto",
        friction="auto",
        temperature=1.0,
        n_temperatures="auto",
        n_chains=None,
        thin=1,
        init="normal",
        n_features=None,
        max_iter=2000,
        dtype="auto",
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.target = target
        self.method = method
        self.noise_levels = noise_levels
        self.steps_per_level = steps_per_level
        self.n_steps = n_steps
        self.step_size = step_size
        self.preconditioner = preconditioner
        self.friction = friction
        self.temperature = temperature
        self.n_temperatures = n_temperatures
        self.n_chains = n_chains
        self.thin = thin
        self.init = init
        self.n_features = n_features
        self.max_iter = max_iter
        self.dtype = dtype
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    @one_thread()
    def fit(self, X=None, y=None):
        """Recognise or learn the target, choose steps and ladder, and try the chains out.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), default=None
            Data: the density to learn where ``target`` is None; otherwise rows where the density
            has mass, which make the diagnostics sharper, and starting points for ``init="data"``.
        y : None
            Ignored.

        Returns
        -------
        self : LangevinSampler
            The fitted sampler.
        """
        check_target(self.target)
        X = self._check_fit_data(X)
        self._check_plan()
        self._seed = draw_seed(self.random_state)
        self._rows = X if self._keeps_rows() else None
        self._extent = None
        self.n_features_in_ = self._find_n_features(X)
        if self.target is None:
            self.score_model_ = self._learn(X)
            self.n_iter_ = max(self.score_model_.n_iter_, 1)
        device = resolve_device(self.device)
        target = self._build_target(torch.float64, device, X)
        self.target_kind_ = kind_of(target)
        self._warn_of_one_column(target)
        self.method_ = self._choose_method(target)
        self._shift, self._factor = self._coordinates(X)
        target = self._to_chains(target, torch.float64, device)
        if self._tries_pilot(target):
            target = self._pilot(target, device)
        if np.array_equal(self._factor, np.diag(np.diag(self._factor))):
            self.mean_, self.scale_ = self._shift, np.diag(self._factor)
        self.dtype_ = self._choose_dtype(target)
        plan = self._tuned_plan(target, device)
        self._plan = dataclasses.asdict(plan)
        self.noise_levels_ = np.array(plan.noise_levels)
        self.step_size_ = np.array(plan.step_size)[()]
        self.inverse_temperatures_ = np.array(plan.inverse_temperatures)
        self._diagnose(target, plan, device, X)
        return self

    @one_thread()
    def sample(self, n_samples=1, random_state=None, return_trajectory=False):
        """Draw from the target.

        Parameters
        ----------
        n_samples : int, default=1
            Number of draws.
        random_state : int, RandomState instance or None, default=None
            Seed of these draws; None uses the estimator's.
        return_trajectory : bool, default=False
            Whether to return, too, where the chains were every ``thin`` steps.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Draws; with ``n_chains`` the draws of all chains at one step come together.
        trajectory : ndarray of shape (n_points, n_chains, n_features)
            Start, path and end of every chain. Only if ``return_trajectory``.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}")
        if random_state is None:
            random_state = self.random_state
        seed = draw_seed(random_state)
        n_chains = min(n_samples, self.n_chains or n_samples)
        n_draws = -(-n_samples // n_chains)
        starts = self._starts(n_chains, seed)
        draws, trajectory, _ = self._run(
            starts, lambda a, b: chain_keys(seed, a, b), n_draws, self.dtype_, return_trajectory
        )
        X = draws.reshape(-1, self.n_features_in_)[:n_samples]
        return (X, trajectory) if return_trajectory else X

    @one_thread()
    def transform(self, X):
        """Move the given points by the chosen dynamics.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Starting points.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            Where the points are after the run: draws from the target if the run is long enough.
        """
        check_is_fitted(self)
        X = self._check_data(X)
        keys = row_keys(X, self._seed)
        draws, _, _ = self._run(X, lambda a, b: keys[a:b], 1, "float64", False)
        return draws[0].astype(X.dtype, copy=False)

    @available_if(_can_score)
    @one_thread()
    def score_samples(self, X):
        """Log density of each row, as the target gives it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log densities in nats; without their constant where the target lacks it.
        """
        check_is_fitted(self)
        X = self._check_data(X)
        return self._log_density(X)

    @available_if(_can_score)
    @one_thread()
    def score(self, X, y=None):
        """Mean log density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        y : None
            Ignored.

        Returns
        -------
        score : float
            Mean of ``score_samples``.
        """
        check_is_fitted(self)
        return float(np.mean(self._log_density(self._check_data(X))))

    @one_thread()
    def log_density_gradient(self, X, noise_level=0.0):
        """Gradient of the log density, with noise if asked.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        noise_level : float, default=0.0
            Level of the noise, as ``noise_levels``; above 0 only where the noisy score is known,
            and not below 0.001 for a learnt score.

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            Gradient with respect to X.
        """
        check_is_fitted(self)
        X = self._check_data(X)
        if not isinstance(noise_level, Real) or not 0 <= noise_level < np.inf:
            raise ValueError(f"noise_level must be a number >= 0, got {noise_level!r}")
        if isinstance(self._source(), ScoreSDE):
            level = {"noise_level": noise_level} if noise_level > 0 else {}
            return self._source().log_density_gradient(X, **level)
        target = self._chain_target(torch.float64)
        if noise_level > 0 and not target.has_noisy_score:
            raise ValueError(
                f"noise_level={noise_level} needs a noisy score, but the target is a "
                f"{self.target_kind_}: use noise_level=0, a mixture, a KernelDensity or data."
            )
        u = self._to_u(X, torch.float64)
        with torch.no_grad():
            parts = [
                target.score(part, noise_level) if noise_level > 0 else target.gradient(part)
                for part in u.split(self._block(target))
            ]
        return torch.cat(parts).cpu().numpy() @ np.linalg.inv(self._factor)

    @one_thread()
    def to_inference_data(self, n_chains=4, n_draws=1000, random_state=None):
        """Run a few chains and hand their draws to ArviZ.

        Parameters
        ----------
        n_chains : int, default=4
            Number of chains.
        n_draws : int, default=1000
            Draws of each chain, ``thin`` steps apart.
        random_state : int, RandomState instance or None, default=None
            Seed; None uses the estimator's.

        Returns
        -------
        data : object
            What ``arviz.from_dict`` makes of the group "posterior" with one variable ``x`` of
            shape (n_chains, n_draws, n_features) and, where the log density is known, the group
            "sample_stats" with it, ``lp``, and the energy, ``-lp``.
        """
        check_is_fitted(self)
        try:
            from arviz import from_dict
        except ImportError:
            try:
                from arviz_base import from_dict
            except ImportError as error:
                raise ImportError("to_inference_data needs ArviZ: pip install arviz") from error
        seed = draw_seed(self.random_state if random_state is None else random_state)
        keys = lambda a, b: chain_keys(seed, a, b)  # noqa: E731
        starts = self._starts(n_chains, seed)
        draws, _, _ = self._run(starts, keys, n_draws, self.dtype_, False)
        x = draws.transpose(1, 0, 2)
        groups = {"posterior": {"x": x}}
        if self.target_kind_ not in ("gradient", "minibatch"):
            lp = self._log_density(x.reshape(-1, x.shape[-1])).reshape(x.shape[:2])
            groups["sample_stats"] = {"lp": lp, "energy": -lp}
        return from_dict(groups)

    def __sklearn_tags__(self):
        """Tags of scikit-learn: NaN is refused, float32 is kept."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.requires_fit = True
        return tags

    # ---------------------------------------------------------------- the data and the target

    def _check_fit_data(self, X):
        """Validate X where it is given or needed."""
        if X is None and self.target is None:
            raise ValueError(
                "LangevinSampler has no target and no data: pass X to fit, or a target."
            )
        if X is None and isinstance(self.init, str) and self.init == "data":
            raise ValueError("init='data' starts chains at rows of X: pass X to fit.")
        if X is None:
            return None
        least = 2 if self.target is None else 1
        return self._validate(X, dtype=np.float64, ensure_min_samples=least)

    def _check_plan(self):
        """Refuse a ladder or temperature that cannot run, before anything is learnt."""
        if self.temperature != 1 and self.method != "ula":
            raise ValueError(
                f"temperature={self.temperature} works with method='ula' only, got "
                f"method={self.method!r}"
            )
        if isinstance(self.noise_levels, str | Integral):
            return
        levels = np.asarray(self.noise_levels, dtype=np.float64)
        ordered = levels.ndim == 1 and len(levels) > 0 and (np.diff(levels) < 0).all()
        if not ordered or not (np.isfinite(levels) & (levels > 0)).all():
            raise ValueError(
                "noise_levels must be positive and strictly decreasing, from the largest "
                f"distance between modes to a part of their width; got {levels.tolist()[:8]}"
            )

    def _check_data(self, X):
        """Validate X against the fitted features."""
        return self._validate(X, dtype=[np.float64, np.float32], reset=False)

    def _validate(self, X, **kwargs):
        """Checked array; points to the imputer where X has missing values."""
        try:
            with infinity_named(X):
                return validate_data(self, X, **kwargs)
        except ValueError as error:
            if "contains NaN" not in str(error):
                raise
            raise ValueError(
                "Input X contains NaN. LangevinSampler does not accept missing values: impute "
                "first, for example with CSDIImputer or SimpleImputer."
            ) from error

    def _keeps_rows(self):
        """Whether chains start at rows of X."""
        return isinstance(self.init, str) and self.init == "data"

    def _find_n_features(self, X):
        """Number of features, from whatever tells it."""
        found = {"n_features": self.n_features}
        if X is not None:
            found["X"] = X.shape[1]
        if not isinstance(self.init, str) and not callable(self.init):
            found["init"] = self._init_array().shape[1]
        found["target"] = target_features(self.target)
        found = {name: number for name, number in found.items() if number is not None}
        if not found:
            raise ValueError(
                "the number of features is unknown: pass n_features, X in fit, or an init array."
            )
        if len(set(found.values())) > 1:
            raise ValueError(f"the numbers of features differ: {found}")
        return next(iter(found.values()))

    def _init_array(self):
        """The array of starting points."""
        array = np.asarray(self.init, dtype=np.float64)
        if array.ndim != 2 or len(array) == 0:
            raise ValueError(f"init must have shape (n_points, n_features), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("init contains NaN or infinity: give finite starting points.")
        return array

    def _learn(self, X):
        """Score of the rows at every noise level, by denoising score matching."""
        constant = np.flatnonzero(column_moments(X)[1] == 0)
        if len(constant):
            names = getattr(self, "feature_names_in_", range(X.shape[1]))
            raise ValueError(
                f"column {names[constant[0]]!r} is constant, and the density of a constant is not "
                "bounded: drop the column."
            )
        return ScoreSDE(
            max_iter=self.max_iter,
            device=self.device,
            verbose=self.verbose,
            random_state=self._seed % 2**32,
        ).fit(X)

    def _source(self):
        """The target given, or the model learnt in its place."""
        return self.score_model_ if self.target is None else self.target

    def _build_target(self, dtype, device, X=None):
        """Target in the user's coordinates, or in units of the columns where it counts so."""
        source = self._source()
        if isinstance(source, ScoreSDE):
            check_is_fitted(source)
        if X is None and isinstance(source, ScoreSDE) and self._extent is None:
            X = source.sample(1000, random_state=0)
        if X is not None:
            # What the ladder needs to know of an estimator is kept from fit.
            self._extent = extent_of(to_model(source, X))
        return as_target(source, self.n_features_in_, dtype, device, self._extent)

    def _in_units(self):
        """Whether the target lives in coordinates of its own."""
        return isinstance(self._source(), ScoreSDE) or self.target_kind_ == "estimator"

    def _choose_dtype(self, target):
        """Single precision where rounding cannot be seen."""
        if self.dtype != "auto":
            return self.dtype
        small = isinstance(target, MixtureTarget) and target.magnitude < _FLOAT32_MAGNITUDE
        return "float32" if small or isinstance(target, DenoiserTarget) else "float64"

    def _choose_method(self, target):
        """Method that suits what is known of the target."""
        if self.method == "annealed" and not target.has_noisy_score:
            raise ValueError(
                f"method='annealed' needs a noisy score, but the target is a {kind_of(target)}: "
                "use method='tempered' or 'mala', or a mixture, a KernelDensity or data as target."
            )
        if self.method in ("mala", "tempered") and not target.has_log_density:
            raise ValueError(
                f"method={self.method!r} needs a log density, but the target is a "
                f"{kind_of(target)}: return the pair (log_density, gradient), or use method='ula'."
            )
        if self.method != "auto":
            return self.method
        if target.has_noisy_score:
            return "annealed"
        if target.has_log_density:
            return "tempered"
        if not target.stochastic:
            warnings.warn(
                "The target gives only a gradient, so plain Langevin chains are used, which do not "
                "cross between modes. Give the log density to allow parallel tempering, or pass "
                "method='ula' to silence this warning.",
                UserWarning,
                stacklevel=5,
            )
        return "ula"

    def _warn_of_one_column(self, target):
        """One feature leaves open what a column of values is: it is read as a gradient."""
        a_gradient = isinstance(target, FunctionTarget) and not target.has_log_density
        if a_gradient and self.n_features_in_ == 1:
            warnings.warn(
                "target returns shape (n_chains, 1). For one feature this is read as the "
                "gradient, and (n_chains,) as the log density: if it is the log density, "
                "return it without the last axis, for example with .sum(1).",
                UserWarning,
                stacklevel=5,
            )

    # ---------------------------------------------------------------- coordinates

    def _coordinates(self, X):
        """Origin and axes of the coordinates in which chains run."""
        d = self.n_features_in_
        if self._in_units():
            centre, unit = units_of(self._source(), d)
            return centre, np.diag(unit)
        if self.preconditioner is None or isinstance(self.preconditioner, str):
            return np.zeros(d), np.eye(d)
        covariance = np.asarray(self.preconditioner, dtype=np.float64)
        if covariance.shape == (d,):
            covariance = np.diag(covariance)
        if not np.isfinite(covariance).all():
            raise ValueError("preconditioner contains NaN or infinity: give a finite covariance.")
        if covariance.shape != (d, d) or not np.allclose(covariance, covariance.T):
            raise ValueError(
                f"preconditioner must be a covariance of shape ({d},) or ({d}, {d}), got shape "
                f"{np.shape(self.preconditioner)}"
            )
        try:
            return np.zeros(d), np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError as error:
            raise ValueError("preconditioner must be positive definite") from error

    def _to_chains(self, target, dtype, device):
        """Target in the coordinates of the chains."""
        if self._in_units():
            if self.target is None or self.preconditioner is None or self._is_auto():
                return target
            raise ValueError(
                "preconditioner cannot be used with an estimator as target, whose noise is added "
                "in its own coordinates: scale the data instead."
            )
        if np.array_equal(self._factor, np.eye(self.n_features_in_)) and not self._shift.any():
            return target
        shift, factor = (
            torch.as_tensor(a, dtype=dtype, device=device) for a in (self._shift, self._factor)
        )
        return change_coordinates(target, shift, factor)

    def _is_auto(self):
        """Whether the preconditioner is left to the trial runs."""
        return isinstance(self.preconditioner, str) and self.preconditioner == "auto"

    def _tries_pilot(self, target):
        """Whether trial runs look for a preconditioner."""
        if not isinstance(self.preconditioner, str) or self._in_units():
            return False
        left = self.step_size == "auto" and not target.has_noisy_score and not target.stochastic
        return left or not self._is_auto()

    def _pilot(self, target, device):
        """Target in coordinates in which it is about a standard Gaussian, by trial runs."""
        first = self._shift, self._factor
        x = self._starts(_N_PILOT, self._seed ^ 2)
        for i in range(_N_PILOT_RUNS):
            current = self._to_chains(target, torch.float64, device)
            u = self._to_u(x, torch.float64)
            keys = chain_keys(self._seed ^ 2, i * _N_PILOT, (i + 1) * _N_PILOT, device)
            plan = self._tuned_plan(current, device, u, keys)
            plan = dataclasses.replace(plan, n_steps=_PILOT_STEPS // 2, thin=_PILOT_STEPS // 20)
            noise = _noise(keys, plan, current, torch.float64)
            draws, _ = run(current, plan, u, noise, n_draws=11)
            x = self._to_x(draws[-1])
            cloud = self._to_x(draws).reshape(-1, self.n_features_in_)
            if i == 0:
                before = roundness(current, draws[-1])
            self._shift, self._factor = cloud.mean(0), _shrunk_root(cloud, self._factor)
        current = self._to_chains(target, torch.float64, device)
        after = roundness(current, self._to_u(x, torch.float64))
        if self._is_auto() and not after < before / 2:
            self._shift, self._factor = first
        return self._to_chains(target, torch.float64, device)

    def _to_u(self, X, dtype):
        """Chain coordinates of points."""
        X = np.asarray(X, dtype=np.float64)
        if isinstance(self._source(), ScoreSDE):
            u = to_model(self._source(), X)
        else:
            u = np.linalg.solve(self._factor, (X - self._shift).T).T
        return torch.as_tensor(u.copy(), dtype=dtype, device=resolve_device(self.device))

    def _to_x(self, u):
        """The user's coordinates of points, in float64."""
        u = u.cpu().double()
        if isinstance(self._source(), ScoreSDE):
            return self._source()._to_units(u.reshape(-1, u.shape[-1])).reshape(u.shape)
        return u.numpy() @ self._factor.T + self._shift

    # ---------------------------------------------------------------- the plan

    def _tuned_plan(self, target, device, x=None, keys=None):
        """What to run, with ladder, temperatures and step size found, on chains at ``x``."""
        method = self.method_
        n_steps = self.n_steps
        if n_steps == "auto":
            n_steps = {"annealed": 20 * target.has_log_density, "tempered": 500}.get(method, 1000)
        if x is None:
            x = self._to_u(self._starts(_N_PILOT, self._seed ^ 1), torch.float64)
            keys = chain_keys(self._seed ^ 1, 0, _N_PILOT, device)
        plan = Plan(method, n_steps, self.thin, temperature=float(self.temperature))
        if method == "annealed":
            levels, scale = self._ladder(target)
            plan = dataclasses.replace(
                plan, noise_levels=levels, scale=scale, steps_per_level=self.steps_per_level
            )
            without = dataclasses.replace(plan, n_steps=0, step_size=1.0)
            x = run(target, without, x, _noise(keys, plan, target, torch.float64))[0][0]
        if method == "tempered":
            plan = dataclasses.replace(
                plan,
                inverse_temperatures=self._inverse_temperatures(),
                radius=100 * max(float(x.std(0).max()), 1e-12),
            )
        return self._find_step_size(target, plan, x, keys)

    def _find_step_size(self, target, plan, x, keys):
        """Plan with the step size given, adapted, or taken from the curvature."""
        noise = _noise(keys, plan, target, torch.float64)
        bend = curvature(target, x, noise.normal(_START)[: len(x)])
        if self.friction != "auto" or plan.method == "underdamped":
            friction = math.sqrt(bend) / 2 if self.friction == "auto" else float(self.friction)
            plan = dataclasses.replace(plan, friction=friction)
        betas = np.array(plan.inverse_temperatures)
        if self.step_size != "auto":
            step = float(self.step_size)
            step = tuple(step / betas) if plan.method == "tempered" else step
            return dataclasses.replace(plan, step_size=step)
        metropolis = plan.method in ("mala", "tempered") or (
            plan.method == "annealed" and target.has_log_density
        )
        if not metropolis:
            step = {"underdamped": 0.5 / math.sqrt(bend)}.get(plan.method, 0.1 / bend)
            return dataclasses.replace(plan, step_size=step)
        step = tuple(1 / bend / betas) if plan.method == "tempered" else 1 / bend
        plan = dataclasses.replace(plan, step_size=step)
        at_target = plan
        if plan.method == "annealed":
            at_target = dataclasses.replace(plan, method="mala", noise_levels=())
        tuned, _ = tune(target, at_target, x, noise, n_steps=200)
        return dataclasses.replace(plan, step_size=tuned.step_size)

    def _ladder(self, target):
        """Noise levels and the local scale."""
        if not isinstance(self.noise_levels, str | Integral):
            levels = np.asarray(self.noise_levels, dtype=np.float64)
            scale = getattr(target, "scale", None) or levels[-1]
            return (*levels.tolist(), 0.0), float(scale)
        if target.reach is None:
            raise ValueError(
                "noise_levels='auto' needs data to find the ladder for an estimator: pass X to "
                "fit, or noise_levels as an array."
            )
        high, low = target.reach, target.scale / 10
        n_levels = self.noise_levels
        if n_levels == "auto":
            n_levels = round(min(max(11.5 * math.log(high / low), 10), 85))
        return (*np.geomspace(high, low, n_levels).tolist(), 0.0), target.scale

    def _inverse_temperatures(self):
        """Geometric temperatures whose ratio lets neighbours swap in this dimension."""
        n = self.n_temperatures
        if n == "auto":
            ratio = 1 + 5.3 / math.sqrt(self.n_features_in_)
            n = 1 + math.ceil(-math.log(_SMALLEST_BETA) / math.log(ratio))
        return tuple(np.geomspace(1, _SMALLEST_BETA, n).tolist())

    # ---------------------------------------------------------------- running

    def _starts(self, n_chains, seed):
        """Starting points in the user's coordinates."""
        d = self.n_features_in_
        if callable(self.init):
            points = np.asarray(self.init(n_chains, np.random.default_rng(seed)), dtype=float)
            if points.shape != (n_chains, d):
                raise ValueError(f"init returned shape {points.shape}, expected ({n_chains}, {d})")
            if not np.isfinite(points).all():
                raise ValueError("init returned NaN or infinity: return finite starting points.")
            return points
        if not isinstance(self.init, str):
            points = self._init_array()
            return points[np.arange(n_chains) % len(points)]
        if self.init == "data":
            order = np.random.default_rng(seed).permutation(len(self._rows))
            return self._rows[order[np.arange(n_chains) % len(order)]]
        keys = chain_keys(seed, 0, n_chains)
        normal = ChainNoise(keys, d).normal(_START).numpy()
        return normal @ self._factor.T + self._shift

    def _chain_target(self, dtype):
        """Target in the coordinates of the chains, as fitted."""
        device = resolve_device(self.device)
        return self._to_chains(self._build_target(dtype, device), dtype, device)

    def _block(self, target, dtype=torch.float64):
        """Chains that run together: as many as the cache holds."""
        if resolve_device(self.device).type != "cpu":
            return 2**17
        return int(min(max(_BLOCK_BYTES / dtype.itemsize / target.width, 64), 4096))

    @memory_advice("Too little memory for all chains at once: lower n_chains or n_samples.")
    def _run(self, X, keys, n_draws, dtype, with_trajectory):
        """Run chains from X in blocks: draws, trajectory or None, mean acceptance."""
        dtype = getattr(torch, dtype)
        target, plan = self._chain_target(dtype), Plan(**self._plan)
        block = self._block(target, dtype) // plan.n_replicas or 1
        n_levels = max(len(plan.noise_levels) - 1, 0)
        n_steps = n_levels + plan.n_steps + (n_draws - 1) * plan.thin
        starts = range(0, len(X), block)
        bar = tqdm(total=n_steps * len(starts), disable=not self.verbose, desc="LangevinSampler")

        def run_block(first):
            last = min(first + block, len(X))
            u = self._to_u(X[first:last], dtype)
            noise = _noise(keys(first, last).to(u.device), plan, target, dtype)
            path = _Path(plan.thin, n_steps) if with_trajectory else None
            try:
                draws, rate = run(target, plan, u, noise, n_draws, path, bar.update)
            except Divergence as error:
                raise Divergence(f"block of chains from {first}: {error}") from None
            points = self._to_x(path.points()) if with_trajectory else None
            return self._to_x(draws), points, rate

        # A function of the user's need not bear being called by two workers at once.
        ours = isinstance(target, MixtureTarget | DenoiserTarget)
        results = (spread if ours else map)(run_block, starts)
        draws, paths, rates = zip(*results, strict=True)
        bar.close()
        trajectory = np.concatenate(paths, 1) if with_trajectory else None
        rates = [rate.cpu().numpy() for rate in rates if rate is not None]
        acceptance = float(np.mean(np.concatenate(rates))) if rates else np.nan
        return np.concatenate(draws, 1), trajectory, acceptance

    def _log_density(self, X):
        """Log density of validated rows, in float64 and the user's coordinates."""
        target = self._chain_target(torch.float64)
        if self._in_units():
            with warnings.catch_warnings():
                # X has lost the names of its columns on the way.
                warnings.filterwarnings("ignore", "X does not have valid feature names")
                return np.asarray(self._source().score_samples(X))
        value = self._values(target, self._to_u(X, torch.float64))
        return value - np.linalg.slogdet(self._factor)[1]

    def _values(self, target, u):
        """Log density in the coordinates of the chains."""
        with torch.no_grad():
            parts = [target.evaluate(part)[0] for part in u.split(self._block(target))]
        return torch.cat(parts).cpu().numpy()

    # ---------------------------------------------------------------- diagnostics

    def _diagnose(self, target, plan, device, X):
        """Run chains from two kinds of start and see whether they agree."""
        # Tempering has many replicas a chain, and single chains miss modes more often.
        n = _N_PILOT if plan.method == "tempered" else 2 * _N_PILOT
        d, half = self.n_features_in_, n // 2
        for name in ("rhat_", "nested_rhat_", "ess_", "ess_tail_"):
            setattr(self, name, np.full(d, np.nan))
        self.energy_nested_rhat_ = np.nan
        self.acceptance_rate_ = np.nan
        if self.temperature != 1:
            return
        seed = self._seed ^ 3
        near = self._to_u(self._starts(half, seed), torch.float64)
        far = self._far_starts(target, half, seed, X, near)
        keys = chain_keys(seed, 0, n, device)
        noise = _noise(keys, plan, target, torch.float64)
        try:
            draws, rate = run(target, plan, torch.cat([near, far]), noise, n_draws=_N_TRACE)
        except Divergence as error:
            raise Divergence(f"trial run in fit: {error}") from None
        self.acceptance_rate_ = np.nan if rate is None else float(rate.mean())
        if plan.method == "annealed":
            return
        self._warn_of_runaway(target, near, draws[-1])
        self._compare(target, draws.transpose(0, 1), np.arange(n) // (half // 2), plan)

    def _warn_of_runaway(self, target, near, last):
        """Warn where chains are far wider than their start and nothing holds them back.

        A density that can be normalised has ``E[-(x_j - c) g_j] = 1`` for every feature, whatever
        ``c`` and its width; where the gradient vanishes or points outwards it is 0 or less.
        """
        start, spread = ((x - x.median(0).values).abs().median(0).values for x in (near, last))
        wide = (start > 0) & (spread > _WIDE * start)
        if not wide.any():
            return
        with torch.no_grad():
            pull = -(last - last.median(0).values) * target.gradient(last)
        most = pull.mean(0) + 4 * pull.std(0) / math.sqrt(len(last))
        loose = (wide & (most < 0.1)).nonzero()
        if len(loose):
            worst = int(loose[0])
            warnings.warn(
                f"Chains run away from their start: in feature {worst} the trial run ends "
                f"{float(spread[worst] / start[worst]):.2g} times as wide as it began, and the "
                "gradient does not lead back. Does target return the *log* density (not the "
                "density), with the right sign, and is it normalisable?",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _compare(self, target, draws, superchains, plan):
        """Diagnostics of the trial chains, and a warning where their starts still show."""
        x = draws.cpu().numpy()
        n, n_draws, d = x.shape
        self.rhat_, self.nested_rhat_ = r_hat(x), nested_r_hat(x, superchains)
        self.ess_, self.ess_tail_ = (
            effective_sample_size(x, kind) * 1000 / (n * n_draws) for kind in ("bulk", "tail")
        )
        if target.has_log_density:
            energy = -self._values(target, draws.reshape(-1, d)).reshape(n, n_draws)
            self.energy_nested_rhat_ = nested_r_hat(energy, superchains)
        both = np.append(self.nested_rhat_, self.energy_nested_rhat_)
        worst = int(np.nanargmax(both)) if np.isfinite(both).any() else 0
        name = f"feature {worst}" if worst < d else "the energy"
        # What perfect chains exceed in one run of ten thousand, whatever the number of features.
        n_each = n // (superchains.max() + 1)
        limit = math.sqrt(1 + chi2.isf(1e-4 / (d + 1), 3) / (3 * n_each))
        if not both[worst] < limit:
            warnings.warn(
                f"Chains from two kinds of start disagree after {plan.n_steps} steps: nested R-hat "
                f"of {name} is {both[worst]:.2f}, above {limit:.2f}, below which chains that "
                "agree stay. They have not reached all modes or tails; "
                f"{_advice(plan.method, target)}",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _far_starts(self, target, n, seed, X, near):
        """Exact draws, rows of X, or points spread five times as wide as the others."""
        if isinstance(target, MixtureTarget):
            return target.draw(n, torch_generator(seed, near.device))
        if X is not None:
            rows = np.random.default_rng(seed).integers(len(X), size=n)
            return self._to_u(X[rows], torch.float64)
        centre = near.mean(0)
        return centre + 5 * (near - centre)


class _Path:
    """Positions every ``thin`` steps, with the first and the last."""

    def __init__(self, thin, n_steps):
        self._thin, self._n_steps, self._count, self._kept = thin, n_steps, 0, []

    def __call__(self, step, x, acceptance):
        if self._count % self._thin == 0 or self._count == self._n_steps:
            self._kept.append(x.clone())
        self._count += 1

    def points(self):
        return torch.stack(self._kept)


def _shrunk_root(cloud, factor):
    """Cholesky factor of the covariance of points, shrunk in the coordinates at hand."""
    u = np.linalg.solve(factor, (cloud - cloud.mean(0)).T).T
    scale = np.maximum(u.std(0), 1e-9 * u.std() + 1e-300)
    correlation, _ = ledoit_wolf(u / scale, assume_centered=True)
    return np.linalg.cholesky(factor @ (scale[:, None] * correlation * scale) @ factor.T)


def _noise(keys, plan, target, dtype):
    """Noise of the chains; every temperature of a chain has a stream of its own."""
    if plan.n_replicas > 1:
        level = torch.arange(plan.n_replicas, device=keys.device)[:, None]
        keys = (keys + level * 0x632BE59BD9B4E019).reshape(-1)
    return ChainNoise(keys, target.n_features, dtype)


def _advice(method, target):
    """What to do about chains that do not meet."""
    if target.has_noisy_score:
        return "use method='annealed'."
    if method == "tempered":
        return "raise n_steps or n_temperatures, or start wider (init)."
    if target.has_log_density:
        return "use method='tempered', or raise n_steps."
    return "raise n_steps, or give the log density and use method='tempered'."
