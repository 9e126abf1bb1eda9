"""A density model that learns the score of noisy data."""

import math
import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
)

from skdiffusion._device import load_numpy_state, memory_advice, resolve_device, to_numpy_state
from skdiffusion._random import draw_seed, normals, row_keys, torch_generator
from skdiffusion._threads import one_thread, spread
from skdiffusion.columns.marginals import Marginals, fit_marginals
from skdiffusion.diffusion import likelihood
from skdiffusion.diffusion.analytic.kinds import RowMixture
from skdiffusion.diffusion.conditional import rebuild
from skdiffusion.diffusion.denoiser import Denoiser, guided
from skdiffusion.diffusion.loss import NOISE_LAWS, denoising_loss, stratified_uniforms
from skdiffusion.diffusion.sde import SDE, SDES
from skdiffusion.diffusion.solve import STEPS, adaptive_flow, flow, log_levels, solve
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._conditions import CONDITIONS, conditional_loss, split_condition
from skdiffusion.estimators.density._gaps import RowCompleter, completed_copies
from skdiffusion.estimators.density._reader import TableReader
from skdiffusion.estimators.density._rows import grouped, repeated, split_groups
from skdiffusion.inputs.arguments import positive_int
from skdiffusion.nn.mlp import ResidualMLP
from skdiffusion.training import train

# In standard deviations of the data: below the first nothing is resolved, beyond the second
# nothing is left of the data but mean and covariance, which the prior has.
_MIN_LEVEL, _MAX_LEVEL = 1e-3, 80.0
_MAX_EXACT_FEATURES = 32
_N_PROBES = 16
# Runge-Kutta steps over the range of noise levels: for scores, for maps, for early stopping.
_SCORE_STEPS, _MAP_STEPS, _HELD_OUT_STEPS = 40, 80, 8
# Rows that are scored or moved together: fewer cost more each, more leave workers idle.
_CHUNK = 500
_SMALLER_BATCHES = "Too little memory to fit: lower batch_size or hidden_layer_sizes."
_FEWER_ROWS = "Too little memory for all rows at once: pass fewer rows of X in a call."
# Fewer rows do not tell a histogram from noise.
_MIN_MARGINAL_ROWS = 50
# A regression on the condition has an ensemble of trees for each column.
_MIN_REGRESSION_ROWS, _MAX_REGRESSION_FEATURES = 50, 8
# Share of training rows whose condition is dropped, so that one network knows both densities.
_UNCONDITIONAL_SHARE = 0.1
# Passes over the rows at most in training, whatever max_iter allows.
_MAX_EPOCHS = 300
# Rows from which "auto" tries networks: below, they gained nothing over averages of mixtures.
_MIN_NETWORK_ROWS = 1000
# Columns up to which a network alone has been seen to beat one on a base.
_MAX_UNIT_FEATURES = 3
# Columns up to which early stopping takes the exact trace, and directions of its estimate above.
_MAX_HELD_OUT_EXACT, _HELD_OUT_PROBES = 4, 2


class ScoreSDE(TableReader, RowCompleter, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Density model by score-based diffusion, on top of a density in closed form.

    A diffusion adds noise to the data until only noise is left; the model learns the score, the
    gradient of the log density at every noise level, and with it runs the diffusion backwards.
    Here the score starts from that of a Gaussian mixture or kernel estimate, known in closed form
    at every noise level, and a network learns what is left over.

    Columns are standardised inside; all results are in the units of ``X``.

    Parameters
    ----------
    sde : {"vp", "subvp", "ve", "cosine", "flow"} or SDE, default="vp"
        The diffusion. It sets the largest noise level (80 standard deviations at most) and the
        law of noise levels under ``noise_law="uniform"``.
    base : {"auto", "gaussian", "mixture", "kde", "regression"} or None, default="auto"
        The density in closed form that the network starts from; None starts from N(0, I).
        "auto" keeps what has the best likelihood on held-out rows: the best of mixture and kernel
        estimate, alone or, from 1000 rows, with a network, or a network alone. "regression", for
        ``condition="value"``, is a mixture that is moved and stretched to where gradient-boosted
        trees expect the row; "auto" tries it for up to 8 columns.
    marginals : {"auto", "histogram", "copula"} or None, default="auto"
        Map of every column to a smoother one, in whose coordinates the density is learnt.
        "histogram" makes columns nearly normal by the distribution function of a histogram with
        bins of unequal width, which follows spikes, grids and hard ends of columns. "copula"
        gives them the distribution that they have under the mixture of the columns as they are:
        then the columns of the model are the histograms, and the mixture says how they hang
        together; for ``base="mixture"`` or "auto", without ``condition``. None leaves the columns
        as they are; "auto" keeps what has the best held-out likelihood.
    condition : {"label", "value"} or None, default=None
        What ``y`` is. None ignores it, as pipelines and searches pass ``y`` to unsupervised steps
        as well, which must not change them. "label" learns the density given a class label,
        "value" that given one or several real numbers; the unconditional density is learnt along
        with it.
    dequantize : bool, default=True
        Take columns of integers, and columns on a grid that repeat more than half of their values,
        as discrete: uniform noise as wide as the grid goes in, values on the grid come out. Columns
        of labels of a DataFrame are always discrete.
    handle_missing : {"error", "impute"}, default="error"
        What ``fit`` does about NaN in X. "impute" fits a mixture to the incomplete rows and trains
        on three copies of every row whose gaps are drawn from its conditional density, which is
        right where values are missing at random. :meth:`transform` then takes gaps too.
    hidden_layer_sizes : tuple of int, default=(128, 128, 128)
        Widths of the hidden layers of the network.
    noise_law : {"lognormal", "loguniform", "uniform"}, default="lognormal"
        Law of the noise levels in training. "lognormal" is best for samples and for
        :meth:`score_samples`; "loguniform" is likelihood weighting with importance sampling
        and tightens :meth:`nll_bound`; "uniform" is uniform in the time of ``sde``.
    solver : str, default="dpmpp_3m"
        Solver of :meth:`sample`: "dpmpp_3m", "dpmpp_2m", "heun" and "ddim" for the
        probability-flow ODE, "ancestral", "euler_maruyama", "predictor_corrector" and
        "dpmpp_2m_sde" for the reverse SDE. "adaptive" follows the ODE by Runge-Kutta steps of
        adaptive length.
    n_steps : int, default=32
        Steps of the solver, whatever its kind; "adaptive" chooses its own number.
    max_iter : int, default=4000
        Training steps of a network at most; 0 leaves the base alone.
    batch_size : int, default=256
        Rows of a training step.
    learning_rate : float, default=2e-3
        Peak learning rate.
    ema_decay : float, default=0.995
        Decay of the averaged weights.
    early_stopping : bool, default=True
        Stop a network when the held-out likelihood no longer rises. The weights with the best
        held-out likelihood are kept in any case.
    validation_fraction : float, default=0.1
        Share of the rows held out; at least 100 rows where that is at most a quarter of them.
    n_iter_no_change : int, default=3
        Evaluations without gain, out of 20, before a network stops.
    tol : float, default=1e-3
        Gain in held-out log-likelihood, in nats a row, that counts, in training and to keep a
        network.
    warm_start : bool, default=False
        Start the network of a further ``fit`` from the weights of the one that was kept.
    network : callable, optional
        ``network(n_features, generator)`` returns a torch module that replaces the default
        network; it is called as ``module(x, log_s, base_noise, condition)`` and returns the shape
        of ``x``. Its last layer should start at zero.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    verbose : int, default=0
        Show progress bars.
    random_state : int, RandomState instance or None, default=None
        Fixes training, draws and bounds.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has names that are strings.
    base_ : str or None
        The base that was kept, "unit" for N(0, I).
    marginals_ : str or None
        The map of the columns that was kept.
    classes_ : ndarray of shape (n_classes,)
        Class labels, with ``condition="label"``.
    mean_, scale_ : ndarrays of shape (n_features,)
        Centre and scale of the columns.
    denoiser_ : Denoiser
        The fitted denoiser of the standardised columns.
    held_out_score_ : dict of str to float
        Mean held-out log-likelihood of every candidate, standardised columns.
    history_ : dict of str to dict
        Training history of every network.
    n_iter_ : int
        Training steps taken, of all networks together.

    See Also
    --------
    sklearn.mixture.GaussianMixture : One of the bases alone.
    sklearn.neighbors.KernelDensity : Another one.

    Notes
    -----
    The denoiser ``D(z, s)`` estimates the data from ``z = x + s eps``; ``grad log p_s(z) = (D(z,
    s) - z) / s**2``. See :mod:`skdiffusion.diffusion.likelihood` for the formulas behind the
    methods.

    References
    ----------
    .. [1] Y. Song et al., "Score-based generative modeling through stochastic differential
       equations", ICLR 2021.
    .. [2] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skdiffusion import ScoreSDE
    >>> X, _ = make_moons(500, noise=0.05, random_state=0)
    >>> model = ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(X)
    >>> model.sample(3).shape
    (3, 2)
    >>> bool(model.score(X) > -1)
    True
    """

    _parameter_constraints = {
        "sde": [StrOptions(set(SDES)), SDE],
        "base": [StrOptions({"auto", "gaussian", "mixture", "kde", "regression"}), None],
        "marginals": [StrOptions({"auto", "histogram", "copula"}), None],
        "condition": [StrOptions(set(CONDITIONS)), None],
        "dequantize": ["boolean"],
        "handle_missing": [StrOptions({"error", "impute"})],
        "hidden_layer_sizes": ["array-like"],
        "noise_law": [StrOptions(set(NOISE_LAWS))],
        "solver": [StrOptions(set(STEPS) | {"adaptive"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "network": [callable, None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        sde="vp",
        *,
        base="auto",
        marginals="auto",
        condition=None,
        dequantize=True,
        handle_missing="error",
        hidden_layer_sizes=(128, 128, 128),
        noise_law="lognormal",
        solver="dpmpp_3m",
        n_steps=32,
        max_iter=4000,
        batch_size=256,
        learning_rate=2e-3,
        ema_decay=0.995,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=3,
        tol=1e-3,
        warm_start=False,
        network=None,
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.sde = sde
        self.base = base
        self.marginals = marginals
        self.condition = condition
        self.dequantize = dequantize
        self.handle_missing = handle_missing
        self.hidden_layer_sizes = hidden_layer_sizes
        self.noise_law = noise_law
        self.solver = solver
        self.n_steps = n_steps
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.network = network
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    @memory_advice(_SMALLER_BATCHES)
    @one_thread()
    def fit(self, X, y=None, sample_weight=None):
        """Fit the density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of real numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row: labels of any kind with ``condition="label"``, real numbers
            with ``condition="value"``. Ignored without ``condition``.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, such that a weight of 2 is the row twice. Weights that are no
            integers are rounded to an eighth of their mean.

        Returns
        -------
        self : ScoreSDE
            The fitted estimator.
        """
        start = self._kept_network() if self.warm_start else None
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        codes = self._read(X, reset=True, ensure_min_samples=2)
        if y is not None and self.condition is not None:
            check_consistent_length(codes, y)
        if sample_weight is not None:
            codes, y, sample_weight = _weighted(codes, y, sample_weight)
        condition = self._learn_condition(y, len(codes))
        rows, groups = self._training_rows(codes, condition, sample_weight, seed)
        train_rows, held_out = self._split(rows, groups, seed)
        self._few_repeats = len(rows) - groups.max() - 1 < 0.05 * len(rows)
        self._start = start
        self._max_level = min(self._process().max_noise_level, _MAX_LEVEL)
        parts, bases, gain = self._choose_marginals(train_rows, held_out, rows, seed)
        train_rows, held_out, rows = parts
        self.prior_ = _bases.fit_gaussian(rows[:, : self.n_features_in_]).to(device)
        self.history_ = {}
        self._keep_the_best(bases, train_rows, held_out, seed, device)
        self.held_out_score_ = {k: v + gain for k, v in self.held_out_score_.items()}
        self.n_iter_ = sum(len(history["loss"]) for history in self.history_.values())
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    @memory_advice(_SMALLER_BATCHES)
    @one_thread()
    def partial_fit(self, X, y=None, sample_weight=None):
        """Train the network further on new rows, once over them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row, as in :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, as in :meth:`fit`.

        Returns
        -------
        self : ScoreSDE
            The estimator.

        Notes
        -----
        The first call is :meth:`fit`. Later ones keep the scale of the columns, the base and the
        known labels and values, and add a network where the base was alone; no rows are held out.
        Pass a first batch that shows what is to come.
        """
        if not hasattr(self, "denoiser_"):
            return self.fit(X, y, sample_weight)
        rows = self._further_rows(X, y, sample_weight)
        device = self.prior_.centre.device
        generator = torch_generator(draw_seed(self.random_state) + self.n_iter_)
        network = self.denoiser_.network or self._make_network(generator)
        model = Denoiser(_copy(self.denoiser_.base), network).to(device).float()
        model.requires_grad_(True)
        name = self.base_.split(" ")[0]
        n_steps = math.ceil(len(rows) / self.batch_size)
        self.history_[name] = train(
            model,
            self._loss(model, rows, generator, device, leave_out=False),
            n_steps=n_steps,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            ema_decay=self.ema_decay,
            progress=bool(self.verbose),
            description=f"ScoreSDE on {name}",
        )
        self.base_ = f"{name} + network"
        base = self.denoiser_.base
        self.denoiser_ = Denoiser(base, model.network).to(device).double().requires_grad_(False)
        self.n_iter_ += n_steps
        return self

    @memory_advice("Too little memory to draw: lower n_samples and draw several times.")
    @one_thread()
    def sample(self, n_samples=1, y=None, *, guidance=1.0, random_state=None):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of all rows or of each; None draws from the unconditional density. An error
            where the model was fitted without ``condition``.
        guidance : float, default=1.0
            How much the condition counts: 1 draws from the conditional density, more pushes the
            draws towards what is typical of ``y``, at the price of variety; 0 ignores ``y``.
            Not negative, and 1 where ``y`` is None.
        random_state : int, RandomState instance or None, default=None
            Randomness of this call; None takes that of the estimator.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units of the training data. A DataFrame with its names and types after
            ``set_output(transform="pandas")``, and for tables with labels in any case.

        Raises
        ------
        ValueError
            If a parameter is out of range, if ``y`` or a guidance other than 1 is given to a model
            that was fitted without ``condition``, or a guidance other than 1 without ``y``.

        Notes
        -----
        A base that was kept without a network is drawn from directly. Otherwise a point of the
        prior is solved down a list of ``n_steps`` noise levels. Guidance other than 1 replaces
        the denoiser by ``D(z, s) + guidance (D(z, s | y) - D(z, s))`` [1]_; what it draws from is
        sharper than the conditional density, and is not one that :meth:`score_samples` knows.

        References
        ----------
        .. [1] J. Ho, T. Salimans, "Classifier-free diffusion guidance", 2022.
        """
        check_is_fitted(self)
        n_samples = positive_int(n_samples, "n_samples")
        guidance = _finite_number(guidance, "guidance")
        if guidance < 0:
            raise ValueError(f"guidance={guidance!r} must not be negative.")
        if self._encoder is None and (y is not None or guidance != 1):
            raise ValueError(
                'The model knows no condition: set condition="label" or "value" before fit, or '
                "call sample without y and guidance."
            )
        if y is None and guidance != 1:
            raise ValueError(
                f"guidance={guidance!r} pushes draws towards a condition, but y is None: pass y "
                "or leave guidance at 1."
            )
        generator = self._generator(random_state)
        condition = self._encode_condition(y, n_samples)
        noise = lambda i=0, d=self.n_features_in_: self._tensor(  # noqa: E731
            torch.randn((n_samples, d), generator=generator, dtype=torch.float64)
        )
        if self.denoiser_.network is None and (condition is None or guidance == 1):
            rows = self._sample_base(n_samples, condition, generator, noise)
            return self._restore(self._to_units(rows))
        prior = _prior_given(self.prior_, self.denoiser_.base, condition)
        z = self._from_latent(noise()) + prior.mean() - self.prior_.mean()
        denoise = guided(self.denoiser_, condition, guidance)
        with torch.no_grad():
            return self._restore(self._to_units(self._solve(denoise, z, noise)))

    @one_thread()
    def score_samples(self, X, y=None):
        """Log-density of every row under the probability-flow ODE.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; None gives the unconditional density.
            Ignored where the model was fitted without ``condition``.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log density in nats, in the units of X.

        Notes
        -----
        ``log p(x) = log pi(z_T) + int (d - tr dD/dz) dlog s`` along the ODE, with the exact trace
        up to 32 columns; above, the trace of the network's share is Hutchinson's estimate from 16
        fixed directions. See
        :func:`skdiffusion.diffusion.likelihood.log_density`. A base that was kept without a
        network is evaluated directly.
        """
        check_is_fitted(self)
        X = self._validate(X)
        values = self._log_density(self._rows(X), self._encode_condition(y, len(X)))
        return values.cpu().numpy() + self._log_jacobian(X)

    @one_thread()
    def score(self, X, y=None):
        """Mean log-density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; ignored without ``condition``.

        Returns
        -------
        score : float
            Mean of :meth:`score_samples`, in nats; higher is better.
        """
        return float(self.score_samples(X, y).mean())

    @one_thread()
    def nll_bound(self, X, y=None, *, n_draws=64, return_std=False):
        """Upper bound on the negative log-likelihood of every row under the reverse SDE.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; None bounds the unconditional density.
            Ignored where the model was fitted without ``condition``.
        n_draws : int, default=64
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return standard errors.

        Returns
        -------
        bound : ndarray of shape (n_samples,)
            Unbiased estimate of the bound in nats, in the units of X.
        standard_error : ndarray of shape (n_samples,)
            Its standard error; only with ``return_std=True``.

        Notes
        -----
        ``-log p(x) <= L_DSM(x)``, see :func:`skdiffusion.diffusion.likelihood.nll_bound`. It
        bounds the likelihood of the SDE model, which is not the ODE model of
        :meth:`score_samples`: the two numbers need not be ordered.
        """
        X, _, bound, error = self._latent_bound(X, y, n_draws)
        bound = bound.cpu().numpy() - self._log_jacobian(X)
        return (bound, error.cpu().numpy()) if return_std else bound

    @one_thread()
    def score_matching_loss(self, X, y=None, *, n_draws=64, return_std=False):
        """Denoising score matching loss with the weighting of the likelihood bound.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model.
        n_draws : int, default=64
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        loss : float
            Loss; the same in whatever units the columns are.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``.

        Notes
        -----
        ``J_DSM = 1/2 int g**2 E|s_theta - grad log p(x_t | x)|**2 dt = int E|eps - e|**2 dlog s``,
        with half of the integrand at the smallest noise level added for the step to the data. It
        differs from score matching against the unknown score of the data, ``J_SM``, by a number
        that does not depend on the model, so that differences between models on the same
        coordinates are those of their bounds on the divergence. Where the score of the data is
        known, :func:`skdiffusion.diffusion.likelihood.score_matching_loss` gives ``J_SM`` itself.

        References
        ----------
        .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of
           score-based diffusion models", NeurIPS 2021, equation 9.
        """
        X, last, bound, _ = self._latent_bound(X, y, n_draws)
        span = math.log(self._max_level / _MIN_LEVEL)
        losses = bound - last + self.n_features_in_ * (span + 0.5)
        value, error = float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
        return (value, error) if return_std else value

    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def entropy(self, X, *, n_draws=64, return_std=False):
        """Differential entropy of the data's density by the entropy formula.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Draws from the density, held out from training.
        n_draws : int, default=64
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        entropy : float
            Entropy in nats, in the units of X.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``. It does not
            count what the learnt score gets wrong.

        Notes
        -----
        ``H(p) = H(p_T) - 1/2 int E[2 div f + g**2 |score|**2] dt`` with the learnt score; see
        :func:`skdiffusion.diffusion.likelihood.entropy`.
        """
        check_is_fitted(self)
        _check_draws(n_draws)
        X = self._validate(X, ensure_min_samples=2)
        rows = self._rows(X)
        with torch.no_grad():
            value, error = likelihood.entropy(
                self.denoiser_,
                rows,
                *self._row_noise(rows, n_draws),
                s_min=_MIN_LEVEL,
                s_max=self._max_level,
            )
        log_jacobian = self._log_jacobian(X)
        value -= float(log_jacobian.mean())
        error = math.hypot(error, log_jacobian.std(ddof=1) / math.sqrt(len(X)))
        return (value, error) if return_std else value

    @one_thread()
    def kl_bound(self, X, data_entropy, *, n_draws=64, return_std=False):
        """Upper bound on the divergence of the data from the SDE model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Draws from the data's density, held out from training.
        data_entropy : float
            Entropy of the data's density in nats, in the units of X; known for simulated data.
        n_draws : int, default=64
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        bound : float
            Estimate of an upper bound on ``KL(p || p_model)`` in nats.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``.

        Raises
        ------
        ValueError
            If ``data_entropy`` is not a finite number.

        Notes
        -----
        ``KL(p || p_model) = E[-log p_model] - H(p) <= E[L_DSM] - H(p) = J_SM + KL(p_T || pi)``;
        see :func:`skdiffusion.diffusion.likelihood.kl_bound` for the last form.
        """
        data_entropy = _finite_number(data_entropy, "data_entropy")
        bound = self.nll_bound(X, n_draws=n_draws)
        value = float(bound.mean() - data_entropy)
        error = float(bound.std(ddof=1) / math.sqrt(len(bound))) if len(bound) > 1 else math.nan
        return (value, error) if return_std else value

    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def log_density_gradient(self, X, noise_level=_MIN_LEVEL):
        """Gradient of the log density of noisy data, the score.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Noisy rows.
        noise_level : float, default=0.001
            Noise in every column, in its standard deviations, added to the mapped values of
            columns that are mapped (see ``marginals``).

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            Gradient by the columns of X.

        Raises
        ------
        ValueError
            If ``noise_level`` is not a finite positive number.
        """
        check_is_fitted(self)
        noise_level = _finite_number(noise_level, "noise_level")
        if not noise_level > 0:
            raise ValueError(f"noise_level={noise_level!r} must be positive.")
        X = self._validate(X)
        rows = self._rows(X)
        with torch.no_grad():
            score = (self.denoiser_(rows, noise_level) - rows) / noise_level**2
        slope, log_jacobian_slope = self._marginals.slopes(self._standardised(X))
        return (score.cpu().numpy() * slope + log_jacobian_slope) / self.scale_

    @one_thread()
    def transform(self, X):
        """Take rows along the probability-flow ODE to independent standard normals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. With ``handle_missing="impute"``, gaps are filled by a draw of :meth:`impute`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features)
            Latent rows, N(0, I) if the model is right.
        """
        check_is_fitted(self)
        codes = self._read(X, allow_nan=self.handle_missing == "impute")
        if np.isnan(codes).any():
            seed = draw_seed(self.random_state)
            codes = self._complete(codes, row_keys(codes, seed), 1)[0][:, 0]
        rows = self._rows(self._table.spread(codes, draw_seed(self.random_state)))
        z = self._move(rows, _MIN_LEVEL, self._max_level) - self.prior_.centre
        scale = (self.prior_.eigenvalues + self._max_level**2).sqrt()
        root = self.prior_.eigenvectors
        return ((z @ root) / scale @ root.T).cpu().numpy()

    @one_thread()
    def inverse_transform(self, X):
        """Take standard normals back to data, the inverse of :meth:`transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Latent rows.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Rows in the units of the training data.
        """
        check_is_fitted(self)
        Z = check_array(X, dtype=np.float64)
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {Z.shape[1]} columns, but the model {self.n_features_in_}.")
        z = self._from_latent(self._tensor(torch.as_tensor(Z)))
        return self._restore(self._to_units(self._move(z, self._max_level, _MIN_LEVEL)))

    @one_thread()
    def impute(self, X, n_draws=None, *, random_state=None):
        """Draw the missing values of every row given its observed ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN where a value is missing; any columns may be missing.
        n_draws : int, optional
            Draws of each row; None returns one.
        random_state : int, RandomState instance or None, default=None
            Randomness of this call; None takes that of the estimator.

        Returns
        -------
        X_completed : ndarray of shape (n_samples, n_features) or (n_samples, n_draws, n_features)
            Completed rows; observed values are unchanged. For a table with labels, a DataFrame or
            a list of ``n_draws`` of them.

        Raises
        ------
        ValueError
            If ``n_draws`` is not a positive integer.

        Notes
        -----
        Candidates are drawn from the conditional density of the analytic base, which is exact,
        and resampled with weights ``p_model / p_base`` (sampling-importance-resampling): right in
        the limit of many candidates whatever the network learnt, unlike replacing the observed
        values along a solver's path. The weights come from
        :func:`skdiffusion.diffusion.likelihood.log_density_ratio`; of at least 100 candidates and
        five for each draw, two fifths are weighed, and the others where fewer than half of these
        count. Where a base was kept alone the draws are exact. A conditional model draws from its
        unconditional density.

        References
        ----------
        .. [1] D. Rubin, "The calculation of posterior distributions by data augmentation:
           comment", JASA 1987.
        """
        check_is_fitted(self)
        n_copies = 1 if n_draws is None else positive_int(n_draws, "n_draws")
        codes = self._read(X, allow_nan=True)
        seed = draw_seed(self.random_state if random_state is None else random_state)
        completed, sizes = self._complete(codes, row_keys(codes, seed), n_copies)
        poor = int((sizes < 10).sum())
        if poor:
            warnings.warn(
                f"For {poor} of {len(codes)} rows fewer than 10 of the candidates of impute count: "
                "their draws repeat. The base describes these rows badly; more observed columns "
                'or base="mixture" help.',
                stacklevel=3,
            )
        if n_draws is None:
            return self._restore(completed[:, 0])
        if self._table.categories:
            return [self._restore(draw) for draw in completed.transpose(1, 0, 2)]
        return completed

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.condition is not None
        tags.input_tags.allow_nan = self.handle_missing == "impute"
        return tags

    def _learn_condition(self, y, n_rows):
        """Learn how y is encoded; return the encoded y, with no columns where it is ignored."""
        self._encoder = None
        if self.base == "regression" and self.condition != "value":
            raise ValueError('base="regression" requires condition="value".')
        if self.condition is None:
            return np.empty((n_rows, 0))
        if y is None:
            raise ValueError(
                f"condition={self.condition!r} requires y to be passed, but the target y is None."
            )
        self._encoder = CONDITIONS[self.condition](y)
        if self.condition == "label":
            self.classes_ = self._encoder.classes
        encoded = self._encoder.encode(y)
        check_consistent_length(encoded, np.empty(n_rows))
        return encoded

    def _regresses(self, n_rows):
        """Whether boosted trees learn location and scale given the condition."""
        affordable = (
            n_rows >= _MIN_REGRESSION_ROWS and self.n_features_in_ <= _MAX_REGRESSION_FEATURES
        )
        return self.base == "regression" or (
            self.base == "auto" and self.condition == "value" and affordable
        )

    def _encode_condition(self, y, n_rows):
        """Encoded y of a call, one row for each; None without a condition."""
        if y is None or self._encoder is None:
            return None
        y = np.asarray(y)
        encoded = self._encoder.encode(y[None] if y.ndim == 0 else y)
        if len(encoded) not in (1, n_rows):
            raise ValueError(f"y has {len(encoded)} rows, but {n_rows} are needed.")
        return self._tensor(torch.as_tensor(np.resize(encoded, (n_rows, encoded.shape[1]))))

    def _parts(self, rows):
        """Data and condition of joined rows."""
        return split_condition(rows, self.n_features_in_)

    def _process(self):
        """The SDE family."""
        return SDES[self.sde]() if isinstance(self.sde, str) else self.sde

    def _training_rows(self, codes, condition, sample_weight, seed):
        """Standardised complete rows joined with their condition, and their groups."""
        d = codes.shape[1]
        joined = np.hstack([codes, condition])
        if sample_weight is not None:
            joined = repeated(joined, sample_weight)
        values = self._table.spread(joined[:, :d], seed)
        joined, groups = grouped(np.hstack([values, joined[:, d:]]))
        self._warn_of_ties(joined[np.unique(groups, return_index=True)[1], :d])
        rows = np.hstack([self._standardise(joined[:, :d]), joined[:, d:]])
        if np.isnan(rows).any():
            rows, groups = completed_copies(rows, groups, seed)
        if self._regresses(len(rows)):
            rows = self._encoder.regress(rows, groups, seed % 2**31)
        return rows, groups

    def _further_rows(self, X, y, sample_weight):
        """Rows of a later batch in the coordinates of the model, joined with their condition."""
        codes = self._read(X)
        if self._encoder is not None and y is None:
            raise ValueError("The model is conditional: pass y.")
        condition = self._encode_condition(y, len(codes))
        condition = np.empty((len(codes), 0)) if condition is None else condition.cpu().numpy()
        joined = np.hstack([codes, condition])
        if sample_weight is not None:
            joined = repeated(joined, _check_sample_weight(sample_weight, codes))
        d = codes.shape[1]
        values = self._table.spread(joined[:, :d], draw_seed(self.random_state))
        return np.hstack([self._rows(values).cpu().numpy(), joined[:, d:]])

    def _split(self, rows, groups, seed):
        """Training and held-out rows."""
        n = groups.max() + 1
        if n < 10:
            return rows, rows
        wanted = max(1, round(self.validation_fraction * n), min(n // 4, 100))
        return split_groups(rows, groups, wanted, seed)

    def _choose_marginals(self, train_rows, held_out, rows, seed):
        """Map the columns as held-out rows like best.

        Returns the mapped parts, the bases fitted to them and the log-determinant that a mean
        held-out score of the mapped rows lacks.
        """
        options = self._marginal_options(len(rows))
        columns = () if options == [None] else range(self.n_features_in_)
        histograms = [fit_marginals(part, columns) for part in (train_rows, rows)]
        best_score, stack = -math.inf, None
        for option in options:
            maps, stacks = histograms, None
            if option is None:
                maps = [Marginals({})] * 2
            elif option == "copula":
                stack = stack or _bases.fit_stack(train_rows, held_out, seed)
                maps, stacks = _bases.fit_copulas(histograms, stack, (train_rows, rows))
            (train, _), (held, log_jacobian) = map(maps[0].transform, (train_rows, held_out))
            parts = train, held, maps[1].transform(rows)[0]
            bases, proposal, stacks = self._fit_bases(*parts, seed, stacks)
            if option is None and stacks is not None:
                stack = stacks[0]
            x, condition = self._parts(torch.as_tensor(held))
            gain = log_jacobian.mean()
            score = gain + max(
                float(base.given(condition).log_density(x).mean()) for base, _ in bases.values()
            )
            if score > best_score:
                best_score, self._marginals, self.marginals_ = score, maps[1], option
                best, self._proposal = (parts, bases, gain), proposal
        return best

    def _marginal_options(self, n_rows):
        """Maps of the columns to try."""
        no_copula = self._encoder is not None or self.base not in ("auto", "mixture")
        if self.marginals == "copula" and no_copula:
            raise ValueError(
                'marginals="copula" needs base="mixture" or "auto" and no condition; '
                'marginals="histogram" goes with any.'
            )
        if self.marginals != "auto":
            return [self.marginals]
        located = getattr(self._encoder, "regression", None) is not None
        if located or n_rows < _MIN_MARGINAL_ROWS:
            return [None]
        return [None, "histogram"] if no_copula else [None, "histogram", "copula"]

    def _fit_bases(self, train_rows, held_out, rows, seed, copulas=None):
        """Candidate bases by name, of training rows and of all rows.

        With them go a proposal for impute and the stacks of mixtures, where there are such. Stacks
        that the maps of the columns were aimed at are taken as they are.
        """
        n, d = len(rows), self.n_features_in_
        proposal, stacks = None, copulas
        unit = _bases.fit_unit(d)
        bases = {"unit": (unit, unit)} if self.base in ("auto", None) else {}
        if self._encoder is not None:
            fits = self._fit_conditional_base(train_rows, held_out, rows, seed)
            proposal = next(iter(fits.values()))[1].given()
            return bases | ({} if self.base is None else fits), proposal, None
        if self.base == "gaussian":
            bases["gaussian"] = tuple(map(_bases.fit_gaussian, (train_rows, rows)))
        if self.base in ("auto", "mixture", None):
            stacks = copulas or _bases.fit_stacks(train_rows, held_out, rows, seed)
            proposal = stacks[1].density
            if self.base is not None:
                bases["mixture"] = stacks[0].density, proposal
        # Copies of a point, which leaving it out leaves in, would fool a kernel estimate. On the
        # coordinates of a copula it is as good as on normal scores.
        small = self._few_repeats and d <= _bases.MAX_KDE_FEATURES and n <= _bases.MAX_KDE_ROWS
        if self.base == "kde" or (self.base == "auto" and small and copulas is None):
            bases["kde"] = _bases.fit_kde(train_rows, rows)
        return bases, proposal, stacks

    def _fit_conditional_base(self, train_rows, held_out, rows, seed):
        """The base given the condition, by name: fitted to the training rows, and to all rows."""
        if self.base == "kde":
            raise ValueError(
                'base="kde" has no conditional form here: use base="mixture" or "auto" with '
                f"condition={self.condition!r}."
            )
        names = ["mixture"] if self.base in ("auto", None) else [self.base]
        if self.base == "auto" and getattr(self._encoder, "regression", None) is not None:
            names.append("regression")
        return {
            name: self._encoder.fit_base(name, train_rows, held_out, rows, seed % 2**31)
            for name in names
        }

    def _keep_the_best(self, bases, train_rows, held_out, seed, device):
        """Train a network on the candidate bases and keep what held-out rows like best."""
        points = torch.as_tensor(held_out)
        x, condition = self._parts(points)
        densities = {
            name: fitted.given(condition).log_density(x) for name, (fitted, _) in bases.items()
        }
        score = {name: float(values.mean()) for name, values in densities.items()}
        bare = max(score, key=score.get)
        networks, gains = {bare: None}, {}
        n_rows = len(train_rows) + len(held_out)
        for name in self._to_train(bases, bare, n_rows):
            label = f"{name} + network"
            model = self._train(name, bases[name][0], train_rows, held_out, seed, device)
            ratio = self._held_out_ratios(model, points, device, 4 * _HELD_OUT_STEPS)
            values = ratio + densities[name]
            score[label], gains[label] = float(values.mean()), values - densities[bare]
            networks[label] = model.network
        self.held_out_score_ = score
        self.base_ = max(networks, key=score.get)
        # A network is slow to evaluate: a gain that may be chance does not pay for it.
        trained = self.base_ in gains
        if trained and self.base is not None and not _is_worth_it(gains[self.base_], self.tol):
            self.base_ = bare
        network = networks[self.base_]
        base = bases[self.base_.split(" ")[0]][1]
        if network is None or (self.base is not None and not self.base_.startswith("unit")):
            self._proposal = base.given(None)
        self.denoiser_ = Denoiser(base, network).to(device).double().requires_grad_(False)
        self._proposal = self._proposal.to(device)

    def _to_train(self, bases, bare, n_rows):
        """Names of the bases that a network is trained on.

        In few columns a network alone, on N(0, I), has a chance where normals are too smooth for
        the data, which shows in a kernel estimate that beats their mixture.
        """
        auto = self.base == "auto" and self.network is None
        if self.max_iter == 0 or (auto and n_rows < _MIN_NETWORK_ROWS):
            return []
        sharp = self.n_features_in_ <= _MAX_UNIT_FEATURES and bare == "kde"
        alone = "unit" in bases and bare != "unit" and (sharp or self.network is not None)
        return [bare, "unit"] if alone else [bare]

    def _make_network(self, generator):
        """Untrained network."""
        if self.network is not None:
            return _checked(self.network(self.n_features_in_, generator), self.n_features_in_)
        return ResidualMLP(
            self.n_features_in_,
            tuple(self.hidden_layer_sizes),
            n_conditions=0 if self._encoder is None else self._encoder.n_columns,
            generator=generator,
        )

    def _train(self, name, base, train_rows, held_out, seed, device):
        """Train a network on one base; return the denoiser with the best held-out score."""
        generator = torch_generator(seed)
        model = Denoiser(_copy(base), self._make_network(generator)).to(device).float()
        if self._start is not None and self._start[0] == name:
            _load_start(model.network, self._start[1])
        loss = self._loss(model, train_rows, generator, device, leave_out=name == "kde")
        few = torch.as_tensor(held_out[:300])
        self.history_[name] = train(
            model,
            loss,
            n_steps=min(self.max_iter, math.ceil(_MAX_EPOCHS * len(train_rows) / self.batch_size)),
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            ema_decay=self.ema_decay,
            validate=lambda module: (
                -float(self._held_out_ratios(module, few, device, _HELD_OUT_STEPS).mean())
            ),
            n_evaluations=20,
            patience=self.n_iter_no_change if self.early_stopping else None,
            tol=self.tol,
            progress=bool(self.verbose),
            description=f"ScoreSDE on {name}",
        )
        return model

    def _loss(self, model, rows, generator, device, leave_out):
        """Denoising loss of a random batch, as a function of the step."""
        rows = torch.as_tensor(rows, dtype=torch.float32)
        law, weight = NOISE_LAWS[self.noise_law]
        extra = {"sde": self._process()} if self.noise_law == "uniform" else {}
        size = self.batch_size

        def loss(step):
            index = torch.randint(len(rows), (size,), generator=generator)
            s = law(stratified_uniforms(size, generator), _MIN_LEVEL, self._max_level, **extra)
            noise = torch.randn(size, self.n_features_in_, generator=generator)
            kwargs = {"leave_out": index.to(device)} if leave_out else {}
            x, condition = self._parts(rows[index].to(device))
            s, noise = s.to(device), noise.to(device)
            one = partial(denoising_loss, model, weight=weight, **kwargs)
            if condition is None:
                return one(x, s, noise).mean()
            return conditional_loss(one, x, s, noise, condition, _UNCONDITIONAL_SHARE).mean()

        return loss

    def _kept_network(self):
        """Base and weights of the network of an earlier fit, or None."""
        model = getattr(self, "denoiser_", None)
        if model is None or model.network is None:
            return None
        return self.base_.split(" ")[0], to_numpy_state(model.network)

    def _held_out_ratios(self, model, points, device, n_steps):
        """Log-density of standardised rows over the base's, single precision."""
        x, condition = self._parts(points.to(device, torch.float32))
        directions = self._probes(x, _MAX_HELD_OUT_EXACT, _HELD_OUT_PROBES)
        return self._log_ratio(model, x, n_steps, directions, condition).double().cpu()

    def _log_ratio(self, model, x, n_steps, directions, condition=None, reference=None):
        """Log-density of rows along the ODE over that of a reference, by default the base."""
        base = model.base.given(condition)

        def shares(z, s):
            (denoised, trace), (residual, change) = model.shares(z, s, condition, directions)
            change = change.reshape(len(z), -1).mean(1)
            if reference is None:
                return denoised, residual, change
            own, own_trace = reference.denoise_and_divergence(z, s)
            return own, denoised + residual - own, trace + change - own_trace

        return likelihood.log_density_ratio(
            shares,
            x,
            prior=_prior_given(_copy(self.prior_).to(x.dtype), model.base, condition),
            reference=base if reference is None else reference,
            s_min=_MIN_LEVEL,
            s_max=self._max_level,
            n_steps=n_steps,
        )

    def _probes(self, x, max_exact=_MAX_EXACT_FEATURES, n_probes=_N_PROBES):
        """Random signs that are the same for every row; None where traces are exact."""
        if x.shape[1] <= max_exact:
            return None
        shape = (n_probes, 1, x.shape[1])
        signs = torch.randint(2, shape, generator=torch_generator(0)) * 2 - 1
        return signs.to(x)

    @memory_advice(_FEWER_ROWS)
    def _log_density(self, x, condition=None):
        """Log-density of standardised rows under the fitted model."""
        conditions = [None] * len(x) if condition is None else condition.split(_CHUNK)
        chunks = list(zip(x.split(_CHUNK), conditions))
        return torch.cat(spread(self._log_density_of_chunk, chunks))

    def _log_density_of_chunk(self, chunk):
        """Log-density of rows that fit in memory together."""
        x, condition = chunk
        density = self.denoiser_.base.given(condition).log_density(x)
        if self.denoiser_.network is None:
            return density
        return density + self._log_ratio(
            self.denoiser_, x, _SCORE_STEPS, self._probes(x), condition
        )

    def _sample_base(self, n_samples, condition, generator, noise):
        """Rows of the base alone."""
        base = rebuild(**_arrays_of(self.denoiser_.base))
        if condition is None:
            return base.given(None).sample(n_samples, generator)
        uniforms = torch.rand((n_samples, 1), generator=generator, dtype=torch.float64)
        return base.given(condition.cpu()).sample(uniforms, noise().cpu()[:, None])[:, 0]

    def _from_latent(self, noise):
        """Standard normals as points of the prior at the largest noise level."""
        scale = (self.prior_.eigenvalues + self._max_level**2).sqrt()
        root = self.prior_.eigenvectors
        return (noise @ root) * scale @ root.T + self.prior_.centre

    def _solve(self, denoise, z, noise):
        """Bring points of the prior to the data."""
        if self.solver != "adaptive":
            levels = log_levels(self.n_steps, 2 * _MIN_LEVEL, self._max_level)
            return solve(denoise, z, levels, step=self.solver, noise=noise)
        slope = lambda state, u: (state[0] - denoise(state[0], math.exp(u)),)  # noqa: E731
        ends = math.log(self._max_level), math.log(2 * _MIN_LEVEL)
        (z,) = adaptive_flow(slope, (z,), *ends, rtol=1e-4, atol=1e-4)
        return denoise(z, 2 * _MIN_LEVEL)

    @memory_advice(_FEWER_ROWS)
    def _move(self, z, start, stop):
        """Follow the probability-flow ODE from one noise level to another."""

        def slope(state, u):
            return (state[0] - self.denoiser_(state[0], math.exp(u)),)

        def move(part):
            return flow(slope, (part,), math.log(start), math.log(stop), _MAP_STEPS)[0]

        with torch.no_grad():
            return torch.cat(spread(move, z.split(_CHUNK)))

    @memory_advice(_FEWER_ROWS)
    def _latent_bound(self, X, y, n_draws):
        """Rows, their prior term, and bound and standard error in the model's coordinates."""
        check_is_fitted(self)
        _check_draws(n_draws)
        X = self._validate(X)
        rows, condition = self._rows(X), self._encode_condition(y, len(X))
        prior = _prior_given(self.prior_, self.denoiser_.base, condition)
        with torch.no_grad():
            bound, error = likelihood.nll_bound(
                partial(self.denoiser_, condition=condition),
                rows,
                *self._row_noise(rows, n_draws),
                prior=prior,
                s_min=_MIN_LEVEL,
                s_max=self._max_level,
            )
            last = likelihood.prior_cross_entropy(rows, prior, self._max_level)
        return X, last, bound, error

    def _row_noise(self, rows, n_draws):
        """Uniforms and normals that depend on a row's content only, not on its place."""
        keys = row_keys(rows.cpu().numpy(), draw_seed(self.random_state))[:, None]
        uniforms = torch.special.ndtr(normals(keys, torch.arange(n_draws), 0, 0, torch.float64))
        cells = torch.arange(rows.shape[1])
        noise = lambda i: self._tensor(normals(keys, i, 1, cells, torch.float64))  # noqa: E731
        return self._tensor(uniforms), noise

    def _generator(self, random_state):
        """Generator of one call."""
        return torch_generator(
            draw_seed(self.random_state if random_state is None else random_state)
        )

    def _standardised(self, X):
        """Standardised rows; far outside, squares must stay finite."""
        with np.errstate(over="ignore"):
            return np.clip((X - self.mean_) / self.scale_, -1e100, 1e100)

    def _rows(self, X):
        """Rows in the coordinates of the model, on the device."""
        return self._tensor(torch.as_tensor(self._marginals.transform(self._standardised(X))[0]))

    def _log_jacobian(self, X):
        """Log-determinant of the map from the user's units to the coordinates of the model."""
        log_jacobian = self._marginals.transform(self._standardised(X))[1]
        return log_jacobian - np.log(self.scale_).sum() + self._table.log_volume(X)

    def _tensor(self, values):
        """Float64 tensor on the device of the model."""
        return values.to(self.prior_.centre.device, torch.float64)

    def _to_units(self, rows):
        """Rows in the user's units, discrete columns on their values."""
        values = self._marginals.inverse_transform(rows.cpu().numpy()) * self.scale_ + self.mean_
        return self._table.snap(values)

    def __getstate__(self):
        """Numpy arrays in place of torch objects: pickles open on every machine."""
        state = super().__getstate__().copy()
        if "denoiser_" in state:
            state["denoiser_"] = _denoiser_state(state["denoiser_"])
            for name in ("prior_", "_proposal"):
                state[name] = _arrays_of(state[name])
        return state

    def __setstate__(self, state):
        """Rebuild the torch objects on the device of this machine."""
        super().__setstate__(state)
        if "denoiser_" not in state:
            return
        device = resolve_device("auto" if self.device != "cpu" else "cpu")
        base, weights = state["denoiser_"]
        network = self._make_network(torch_generator(0)) if weights is not None else None
        model = Denoiser(rebuild(**base), network).double()
        if weights is not None:
            load_numpy_state(model.network, weights)
        self.denoiser_ = model.to(device).requires_grad_(False)
        for name in ("prior_", "_proposal"):
            setattr(self, name, rebuild(**state[name]).to(device))


def _is_worth_it(gains, tol):
    """Whether the mean gain of the held-out rows counts: above ``tol`` and two standard errors.

    The same rows have chosen the best of twenty states of the network: without any gain on new
    rows, one to two standard errors were seen.
    """
    error = float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) > max(tol, 2 * error)


def _weighted(codes, y, sample_weight):
    """Rows that count, their y and their weights."""
    weight = _check_sample_weight(sample_weight, codes, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight is zero for all rows: nothing is left to fit.")
    kept = np.flatnonzero(weight > 0)
    return codes[kept], None if y is None else np.asarray(y)[kept], weight[kept]


def _check_draws(n_draws):
    """Refuse a number of draws that has no standard error."""
    if positive_int(n_draws, "n_draws") % 2:
        raise ValueError(f"n_draws={n_draws!r} must be an even number, 2 or more.")


def _finite_number(value, name):
    """A parameter as a float, refused unless it is one finite number."""
    array = np.asarray(None if isinstance(value, list | tuple) else value)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise ValueError(f"{name}={value!r} must be a finite number.")
    return float(array)


def _prior_given(prior, base, condition):
    """The prior around the mean that the base expects under each condition."""
    if condition is None:
        return prior
    means = base.given(condition).mean().expand(len(condition), -1)[:, None]
    weights = means.new_zeros(len(condition), 1)
    return RowMixture(weights, means, prior.eigenvalues[None], prior.eigenvectors[None])


def _copy(density):
    """An independent copy of an analytic density."""
    return rebuild(**density.arrays())


def _arrays_of(density):
    """Arrays of an analytic density as numpy."""
    return {
        name: None if value is None else value.cpu().numpy()
        for name, value in density.arrays().items()
    }


def _checked(network, n_features):
    """A user's network, tried on two rows."""
    x = torch.zeros(2, n_features)
    with torch.no_grad():
        answer = network(x, torch.zeros(2, 1), x, None)
    shape = getattr(answer, "shape", None)
    if shape != x.shape:
        raise ValueError(
            f"network must return a tensor of the shape of its first argument, here "
            f"{tuple(x.shape)}; it returned {type(answer).__name__} of shape "
            f"{None if shape is None else tuple(shape)}."
        )
    return network


def _load_start(network, weights):
    """Put the weights of an earlier network into one that must look alike."""
    try:
        load_numpy_state(network, weights)
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True needs a network like that of the fit before: the same columns, labels "
            "and hidden_layer_sizes. Clone the estimator to start afresh."
        ) from error


def _denoiser_state(denoiser):
    """Arrays of base and network."""
    network = None if denoiser.network is None else to_numpy_state(denoiser.network)
    return _arrays_of(denoiser.base), network
