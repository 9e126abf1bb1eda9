"""LangevinSampler: draws from a density that can be written down, or from data."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch.distributions import Transform
from torch.distributions.constraints import Constraint

from skdiffusion._device import DRAW_OFTEN, require_memory, resolve_device
from skdiffusion._random import chain_keys, draw_seed, row_keys
from skdiffusion._threads import one_thread
from skdiffusion._warn import warn
from skdiffusion.diffusion.langevin import KERNELS
from skdiffusion.estimators._portable import PortableEstimator
from skdiffusion.estimators._removed import removed
from skdiffusion.estimators._tables import as_table
from skdiffusion.estimators.density.score_sde import ScoreSDE
from skdiffusion.estimators.sampling._bounds import WORDS, number_of_bounds, read_bounds
from skdiffusion.estimators.sampling._coordinates import Starts, first_coordinates, start_array
from skdiffusion.estimators.sampling._diagnosis import doubtful_run, first_sound
from skdiffusion.estimators.sampling._export import inference_data, unchanged_by_failure
from skdiffusion.estimators.sampling._plan import Settings, choose_dtype, choose_methods
from skdiffusion.estimators.sampling._running import run_in_blocks
from skdiffusion.estimators.sampling._scouting import find_candidates
from skdiffusion.estimators.sampling._targets import (
    can_score,
    check_target,
    kind_of,
    number_of_features,
    one_column_note,
    refuse_constant,
    unfrozen,
    validated,
)
from skdiffusion.inputs.arguments import positive_int


class LangevinSampler(OneToOneFeatureMixin, TransformerMixin, PortableEstimator):
    r"""Sampler of densities by Langevin dynamics, annealed, tempered or plain.

    The density is given by ``target``, or learned from the data passed to ``fit``. Thousands of
    chains run at once, and a chain does not depend on which others run beside it. The defaults
    reach all modes where that is possible: with a known noisy score by annealing, with a log
    density alone by trajectories that jump between hills, or else by parallel tempering.

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
        * any of these inside ``sklearn.frozen.FrozenEstimator``, which keeps it fitted where the
          sampler is cloned, as in ``cross_validate`` and ``GridSearchCV``;
        * another fitted estimator with ``log_density_gradient(X, noise_level)``; give rows of X
          to ``fit`` to find the ladder;
        * a :class:`skdiffusion.diffusion.target.Target`, such as ``MinibatchPosterior``.
    method : {"auto", "ula", "mala", "underdamped", "hmc", "annealed", "tempered"}, default="auto"
        How to sample. "auto" takes "annealed" where the noisy score is known, and "ula" where there
        is only a gradient, with a warning: a plain chain does not cross between modes. For a log
        density alone trial runs look for modes; it takes "hmc", trajectories (with jumps between
        hills, if there are several), if such chains agree, "tempered" if not or with ``step_size``.
    noise_levels : "auto", int or array-like of shape (n_levels,), default="auto"
        Ladder of "annealed": strictly decreasing positive noise levels, in the units of the data
        (of ``scale_`` where ``target`` is None or an estimator that counts noise so, of the
        preconditioned coordinates where ``preconditioner`` is given). "auto" goes from the largest
        distance of two places with mass to a tenth of the smallest local scale, an int so often.
    n_steps : "auto" or int, default="auto"
        Steps before the first draw, after the ladder of "annealed". "auto" is 20 for "annealed" (0
        without a log density), 100 for "hmc", 500 for "tempered" and 1000 otherwise.
    step_size : "auto" or float, default="auto"
        Step ``h`` of ``x + h g + sqrt(2 h) eps`` in squared units of x, or in the coordinates of
        the preconditioner; for "underdamped" the time step. "auto" adapts the acceptance to 0.574
        in ``fit`` for Metropolis methods and takes a tenth of the inverse of the largest
        curvature for the others.
    preconditioner : {"auto", "pilot"}, None or array-like, default="auto"
        Covariance by which chains are scaled: an array of shape (n_features,) or (n_features,
        n_features), or "pilot" for the covariance of trial runs in ``fit``, each in the coordinates
        that the one before found, the first at the top of the density, if it has one. "auto" keeps
        that covariance where it makes the target at least twice as round, measured by the largest
        curvature times the largest variance, and by the same measure straightens funnels, variables
        whose scale follows other variables; it does not try where ``step_size`` is given, where the
        noisy score is known or where gradients are stochastic. Not used where ``target`` is None:
        columns are standardised then.
    temperature : float, default=1.0
        With "ula", the chains sample ``p ** (1 / temperature)``; 0 leaves out the noise, which is
        plain gradient ascent.
    n_chains : int, default=None
        Number of chains; None runs one chain a draw, so that draws are independent.
    thin : int, default=1
        Steps between the draws of a chain, and between the points of a trajectory.
    init : {"normal", "data"}, callable or array-like, default="normal"
        Where chains start: N(0, I) in the coordinates of the preconditioner, rows of X,
        ``init(n_chains, rng)`` with a numpy Generator, or the rows of an array, used in turn.
        "annealed" adds the noise of the first level.
    bounds : {"positive", "simplex", "ordered"}, array-like or object, default=None
        Where the target lives: a pair ``(low, high)`` for every feature, with None or infinity
        where there is no bound; a word for all features together, positive numbers, shares that
        sum to one, or increasing numbers; a constraint or bijective transform of
        ``torch.distributions``; or blocks of features such as ``[("simplex", 3), (0, 1)]``, which
        are a word, constraint or transform with its number of features. Chains then run in free
        coordinates with the Jacobian counted, and everything given and returned stays in those
        of the target; ``init="normal"``, the preconditioner, ``mean_`` and ``scale_`` are in the
        free ones: logarithms, logits, and logarithms of steps. On a simplex the density is that
        of all features but the last one. A torch distribution brings its own bounds.
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
        preconditioner is not diagonal and where a funnel is straightened.
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
        Convergence of trial chains of which one half starts at ``init`` and the other half at exact
        draws, rows of X or far out; near 1 where the start is forgotten. NaN for "annealed".
    energy_nested_rhat_ : float
        The same of the energy, minus the log density, which is often the slowest to settle; NaN
        where the log density is not known.
    ess_, ess_tail_ : ndarray of shape (n_features,)
        Effective sample size of the trial run for every thousand draws, of bulk and tails.
    diagnostics_ : dict
        What else it says: "rhat_second_half" of single chains, "warnings", and of tempering
        "round_trips" a chain, "swap_rejections" of neighbours and their sum, the "barrier";
        "log_density_noise" is the size of the rounding errors of the log density, in nats.

    See Also
    --------
    ScoreSDE : Learns the density of data; draws from it faster, by fewer and longer steps.
    sklearn.neighbors.KernelDensity : Density of data in closed form.

    Notes
    -----
    Annealed sampling costs ``2 n_levels + n_steps`` evaluations a chain, by default below 200.

    ``transform`` moves the given points by the same dynamics; a row's result depends neither on
    the other rows nor on their order. The tests of convergence in ``fit`` warn when chains from
    two starts disagree.

    References
    ----------
    .. [1] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data
       distribution", NeurIPS 2019, https://arxiv.org/abs/1907.05600.
    .. [2] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
       discrete approximations", Bernoulli 1996, https://doi.org/10.2307/3318418.
    .. [3] S. Syed et al., "Non-reversible parallel tempering", JRSS B 2022,
       https://doi.org/10.1111/rssb.12464.

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
        "method": [StrOptions({"auto", *KERNELS})],
        "noise_levels": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            "array-like",
        ],
        "n_steps": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "step_size": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "preconditioner": [None, StrOptions({"auto", "pilot"}), "array-like"],
        "temperature": [Interval(Real, 0, None, closed="left")],
        "n_chains": [None, Interval(Integral, 1, None, closed="left")],
        "thin": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"normal", "data"}), callable, "array-like"],
        "bounds": [None, StrOptions({*WORDS}), "array-like", Constraint, Transform],
        "n_features": [None, Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @removed(
        steps_per_level="every level has one step; diffusion.langevin.anneal takes others",
        friction="it follows from the curvature; diffusion.langevin.underdamped takes others",
        n_temperatures="it follows from the number of features; raise n_steps for more swaps",
    )
    def __init__(
        self,
        target=None,
        *,
        method="auto",
        noise_levels="auto",
        n_steps="auto",
        step_size="auto",
        preconditioner="auto",
        temperature=1.0,
        n_chains=None,
        thin=1,
        init="normal",
        bounds=None,
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
        self.n_steps = n_steps
        self.step_size = step_size
        self.preconditioner = preconditioner
        self.temperature = temperature
        self.n_chains = n_chains
        self.thin = thin
        self.init = init
        self.bounds = bounds
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
        check_target(unfrozen(self.target))
        self._settings().check(self.method)
        with unchanged_by_failure(self):
            X, device = self._check_fit_data(X), resolve_device(self.device)
            self._seed = draw_seed(self.random_state)
            self._rows = X if isinstance(self.init, str) and self.init == "data" else None
            source = unfrozen(self.target)
            if source is None:
                source = self.score_model_ = self._learn(X)
                self.n_iter_ = max(source.n_iter_, 1)
            support = read_bounds(self.bounds, source, self.n_features_in_)
            coordinates = first_coordinates(
                source, self.n_features_in_, X, self.preconditioner, device, support
            )
            target = coordinates.target(torch.float64, device)
            self.target_kind_ = kind_of(target)
            methods, notes = choose_methods(self.method, target, self.step_size)
            for text in notes + one_column_note(target):
                warn(text)
            candidates = find_candidates(
                coordinates, methods, self._starts(), self._settings(), device
            )
            found, diagnosis = first_sound(candidates, self._starts(), X, self._seed ^ 3, device)
            self.method_, self._coordinates, self._plan = found
            self._publish(diagnosis, device)
            for text in diagnosis.warnings:
                warn(text, ConvergenceWarning)
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
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Draws; with ``n_chains`` the draws of all chains at one step come together. A frame
            after ``set_output``.
        trajectory : ndarray of shape (n_points, n_chains, n_features)
            Start, path and end of every chain. Only if ``return_trajectory``.
        """
        self._require_fitted()
        n_samples = positive_int(n_samples, "n_samples")
        require_memory(n_samples * self.n_features_in_, f"n_samples={n_samples}", DRAW_OFTEN)
        seed = self._seed_of_call(random_state)
        n_chains = min(n_samples, self.n_chains or n_samples)
        n_draws = -(-n_samples // n_chains)
        options = {"n_draws": n_draws, "with_trajectory": return_trajectory}
        draws, trajectory = self._run(*self._new_chains(n_chains, seed), **options)
        X = draws.reshape(-1, self.n_features_in_)[:n_samples]
        X = as_table(X, self, self.get_feature_names_out())
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
        self._require_fitted()
        X = self._check_data(X)
        keys = row_keys(X, self._seed)
        moved = self._run(X, lambda a, b: keys[a:b], dtype="float64")[0][0]
        return moved.astype(X.dtype, copy=False)

    @available_if(can_score)
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
        self._require_fitted()
        X = self._check_data(X)
        return self._coordinates.log_density(X, resolve_device(self.device))

    @available_if(can_score)
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
        return float(np.mean(self.score_samples(X)))

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
        self._require_fitted()
        X = self._check_data(X)
        if not isinstance(noise_level, Real) or not 0 <= noise_level < np.inf:
            raise ValueError(f"noise_level must be a number >= 0, got {noise_level!r}")
        return self._coordinates.gradient(X, noise_level, resolve_device(self.device))

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
        self._require_fitted()
        seed = self._seed_of_call(random_state)
        x = self._run(*self._new_chains(n_chains, seed), n_draws=n_draws)[0].transpose(1, 0, 2)
        log_density = None
        if self.target_kind_ not in ("gradient", "minibatch"):
            log_density = self._coordinates.log_density(
                x.reshape(-1, x.shape[-1]), resolve_device(self.device)
            ).reshape(x.shape[:2])
        return inference_data(x, log_density)

    def __sklearn_tags__(self):
        """Tags of scikit-learn: NaN is refused, float32 is kept."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.requires_fit = True
        return tags

    def _new_chains(self, n_chains, seed):
        """Starting points and noise keys of chains."""
        X = self._starts().draw(self._coordinates, n_chains, seed)
        return X, lambda a, b: chain_keys(seed, a, b)

    def _run(self, X, keys, dtype=None, **options):
        """Draws of chains from X, and where they were."""
        options |= {"dtype": dtype or self.dtype_, "device": self.device, "verbose": self.verbose}
        draws, path, rates = run_in_blocks(self._coordinates, self._plan, X, keys, **options)
        for text in doubtful_run(rates, draws, self._plan):
            warn(text, ConvergenceWarning)
        return draws, path

    def _starts(self):
        """Where chains start."""
        return Starts(self.init, self._rows)

    def _settings(self):
        """What the user asked of the plan."""
        levels = self.noise_levels
        levels = int(levels) if isinstance(levels, Integral) else levels
        steps = self.n_steps, self.thin, self.step_size
        seed = getattr(self, "_seed", 0)
        return Settings(*steps, levels, self.preconditioner, float(self.temperature), seed)

    def _publish(self, diagnosis, device):
        """Attributes for the user."""
        coordinates, kernel = self._coordinates, self._plan.kernel
        if coordinates.is_diagonal:
            self.mean_, self.scale_ = coordinates.shift, np.diag(coordinates.factor)
        self.dtype_ = choose_dtype(self.dtype, coordinates.target(torch.float64, device))
        self.noise_levels_ = np.array(kernel.noise_levels)
        self.step_size_ = np.array(kernel.step_size)[()]
        self.inverse_temperatures_ = np.array(kernel.inverse_temperatures)
        self.acceptance_rate_ = diagnosis.acceptance_rate
        self.rhat_, self.nested_rhat_ = diagnosis.rhat, diagnosis.nested_rhat
        self.energy_nested_rhat_ = diagnosis.energy_nested_rhat
        self.ess_, self.ess_tail_ = diagnosis.ess, diagnosis.ess_tail
        self.diagnostics_ = diagnosis.report()

    def _check_fit_data(self, X):
        """Validate X where it is given or needed, and find the number of features."""
        if X is None and self.target is None:
            raise ValueError(
                "LangevinSampler has no target and no data: pass X to fit, or a target."
            )
        if X is None and isinstance(self.init, str) and self.init == "data":
            raise ValueError("init='data' starts chains at rows of X: pass X to fit.")
        if X is not None:
            least = 2 if self.target is None else 1
            X = validated(self, X, dtype=np.float64, ensure_min_samples=least)
        array = not isinstance(self.init, str) and not callable(self.init)
        self.n_features_in_ = number_of_features(
            n_features=self.n_features,
            X=None if X is None else X.shape[1],
            init=start_array(self.init).shape[1] if array else None,
            bounds=number_of_bounds(self.bounds),
            target=unfrozen(self.target),
        )
        return X

    def _check_data(self, X):
        """Validate X against the fitted features."""
        return validated(self, X, dtype=[np.float64, np.float32], reset=False)

    def _learn(self, X):
        """Score of the rows at every noise level, by denoising score matching."""
        refuse_constant(X, getattr(self, "feature_names_in_", np.arange(X.shape[1])))
        model = ScoreSDE(
            max_iter=self.max_iter,
            device=self.device,
            verbose=self.verbose,
            random_state=self._seed % 2**32,
        )
        return model.fit(X)
