"""Imputation of time series and tables by conditional diffusion."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_array,
    check_consistent_length,
    check_is_fitted,
)

from skdiffusion._random import draw_seed
from skdiffusion._threads import one_thread
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.estimators.imputation._fitting import ImputerFit
from skdiffusion.estimators.imputation._model import ImputerModel
from skdiffusion.estimators.imputation._reading import ImputerInput
from skdiffusion.inputs.arguments import positive_int
from skdiffusion.inputs.series import n_dimensions, require_alike
from skdiffusion.metrics import crps_loss
from skdiffusion.nn import load_csdi_checkpoint
from skdiffusion.training.masking import STRATEGIES

# Share of the observed cells that score() hides where no truth is given.
_HIDDEN_SHARE = 0.1


class CSDIImputer(ImputerInput, ImputerFit, ImputerModel, TransformerMixin, BaseEstimator):
    """Fill the gaps of time series and tables by conditional score-based diffusion.

    The imputer learns, from incomplete data, the distribution of missing cells given the
    observed ones, and draws from it. Training hides observed cells and asks for them
    (self-supervision), so no complete rows are needed.

    Parameters
    ----------
    method : {"diffusion", "gaussian"}, default="diffusion"
        ``"gaussian"`` stops at the closed form: a Gaussian over the cells of a window,
        conditioned on whatever is observed. ``"diffusion"`` trains a network on top; where that
        does not help on held-out windows, the Gaussian alone is kept.
    network : {"encoder", "csdi"}, default="encoder"
        ``"encoder"`` reads a window once and denoises the missing cells only, starting from the
        Gaussian. ``"csdi"`` is the network of the CSDI paper [1]_, which needs hours on a CPU;
        its published setting is ``n_layers=4, n_channels=64, n_heads=8``.
    window_length : int, optional
        Number of time steps that are seen together. None means that the rows of a 2-D ``X`` are
        independent (a table), that the samples of a 3-D ``X`` are whole windows and that a list
        of series has windows of 24 steps or of its shortest series. With a number, a 2-D ``X``
        is one long series.
    stride : int, optional
        Distance between overlapping windows when imputing; half a window by default.
    target_strategy : {"block", "random", "historical", "mix", "feature", "test_pattern"} or \
            callable, default="block"
        Which observed cells are hidden in training. ``"block"``: half of the windows lose
        scattered cells, half lose runs of time steps in a few features. ``"random"``: a share of
        the cells drawn from U(0, 1). ``"historical"``: what another window misses. ``"mix"``:
        half random, half historical. ``"feature"``: whole features. ``"test_pattern"``: the
        masks in ``test_pattern``. A callable ``(observed, rng) -> hidden`` maps bool arrays
        (n_windows, n_times, n_features).
    test_pattern : array-like of bool, optional
        Cells to hide, of shape (n_times, n_features) or (n_patterns, n_times, n_features), for
        ``target_strategy="test_pattern"``.
    statistic : {"median", "mean"}, default="median"
        Statistic of the draws that :meth:`transform` fills in: the median minimises the absolute
        error, the mean the squared error.
    n_draws : int, default=50
        Number of draws behind :meth:`transform`, and the default of :meth:`sample`.
    solver : {"auto", "ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", \
            "euler_maruyama", "predictor_corrector"}, default="auto"
        Step of :func:`skdiffusion.diffusion.solve.solve`. ``"auto"`` takes the one whose bands
        are neither narrowed nor widened by few steps.
    n_steps : int, optional
        Number of solver steps; by default 8, and 12 for ``network="csdi"``.
    n_layers : int, default=2
        Layers of the network.
    n_channels : int, default=32
        Width of the network, a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads.
    scale : bool, default=True
        Standardise the features inside, on observed values; a few impossible records do not
        rule the scale. Features with heavier tails than a normal distribution are also bent
        towards one, except for ``network="csdi"``. False is for data that are standardised
        already. All results are in the units of ``X`` either way.
    missing_values : float, default=np.nan
        Placeholder of missing values.
    add_indicator : bool, default=False
        Append indicator columns for the features that had missing values in ``fit`` (2-D only).
    keep_empty_features : bool, default=False
        Keep features without any value in ``fit``, filled with 0, instead of dropping them.
    max_iter : int, default=400
        Number of optimisation steps.
    batch_size : int, optional
        Windows, or rows of a table, in a batch. In training they are drawn with replacement, by
        default 8 windows or 256 rows, fewer if they have more than 8192 cells together. When
        drawing it bounds the memory and changes no result; by default 64.
    learning_rate : float, default=3e-3
        Peak learning rate.
    ema_decay : float, default=0.99
        Decay of the moving average of the weights.
    early_stopping : bool, default=True
        Hold out windows, keep the weights that were best on them and stop when they get worse.
    validation_fraction : float, default=0.1
        Share of the windows held out.
    n_iter_no_change : int, default=10
        Number of validations without improvement, of ten over ``max_iter``, that end training.
        The default does not end it early: a network often passes its Gaussian only after some
        hundred steps.
    tol : float, default=0.0
        Smallest improvement that counts.
    warm_start : bool, default=False
        Continue from the weights of the previous call to ``fit``.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a GPU where there is one.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        An int fixes training and draws. A row's draws depend on this and on the row alone.

    Attributes
    ----------
    mean_, scale_ : ndarrays of shape (n_features,)
        Centre and scale of the features; NaN for a feature without values.
    window_length_ : int
        Time steps of a window.
    time_step_ : float or None
        Step of the time grid in seconds, if times were given.
    n_iter_ : int
        Number of optimisation steps taken; the closed form counts as one.
    history_ : dict
        ``"loss"``, ``"validation"`` and ``"best_step"`` of the training.
    method_ : {"diffusion", "gaussian"}
        What is used: ``"gaussian"`` if the network did not help on held-out windows.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if ``X`` was a frame.

    See Also
    --------
    sklearn.impute.IterativeImputer : Regression of each feature on the others, row by row.

    Notes
    -----
    With everything in noise-level coordinates ``z = r + s * eps``, one denoiser ``D(z, s)`` of
    the standardised residuals is trained by ``E |D(z, s) - r|^2``, and draws walk ``z`` from
    pure noise down to ``s = 0``. Windows that overlap share one noisy series and their
    denoisers are averaged at every step, so that draws agree where windows meet.

    An interrupted ``fit`` leaves the imputer unfitted.

    References
    ----------
    .. [1] Y. Tashiro, J. Song, Y. Song, S. Ermon, "CSDI: conditional score-based diffusion
       models for probabilistic time series imputation", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import CSDIImputer
    >>> rng = np.random.default_rng(0)
    >>> X = np.sin(np.arange(200) / 5)[:, None] + 0.1 * rng.standard_normal((200, 3))
    >>> X[50:60, 0] = np.nan
    >>> imputer = CSDIImputer(window_length=20, max_iter=50, random_state=0).fit(X)
    >>> imputer.transform(X).shape
    (200, 3)
    >>> imputer.sample(X, n_draws=5).shape
    (200, 5, 3)
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"diffusion", "gaussian"})],
        "network": [StrOptions({"encoder", "csdi"})],
        "window_length": [Interval(Integral, 1, None, closed="left"), None],
        "stride": [Interval(Integral, 1, None, closed="left"), None],
        "target_strategy": [StrOptions({*STRATEGIES, "test_pattern"}), callable],
        "test_pattern": ["array-like", None],
        "statistic": [StrOptions({"median", "mean"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions({"auto", *STEPS})],
        "n_steps": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "scale": ["boolean"],
        "missing_values": [Real],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        method="diffusion",
        network="encoder",
        window_length=None,
        stride=None,
        target_strategy="block",
        test_pattern=None,
        statistic="median",
        n_draws=50,
        solver="auto",
        n_steps=None,
        n_layers=2,
        n_channels=32,
        n_heads=4,
        scale=True,
        missing_values=np.nan,
        add_indicator=False,
        keep_empty_features=False,
        max_iter=400,
        batch_size=None,
        learning_rate=3e-3,
        ema_decay=0.99,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=0.0,
        warm_start=False,
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.method = method
        self.network = network
        self.window_length = window_length
        self.stride = stride
        self.target_strategy = target_strategy
        self.test_pattern = test_pattern
        self.statistic = statistic
        self.n_draws = n_draws
        self.solver = solver
        self.n_steps = n_steps
        self.n_layers = n_layers
        self.n_channels = n_channels
        self.n_heads = n_heads
        self.scale = scale
        self.missing_values = missing_values
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @one_thread()
    def fit(self, X, y=None, *, timestamps=None):
        """Learn the distribution of missing cells given observed ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), (n_samples, n_times, n_features), \
                (n_times, n_features) with ``window_length``, or list of 2-D arrays
            Data with missing values.
        y : Ignored
            Not used, present for the scikit-learn interface.
        timestamps : array-like of shape (n_times,), or list of such, optional
            Times of the rows, for irregular series; a DatetimeIndex is used by itself.

        Returns
        -------
        self : CSDIImputer
            The fitted imputer.
        """
        self._validate_params()
        keep = self.warm_start and hasattr(self, "history_")
        return self._fit(X, timestamps, keep)

    def fit_transform(self, X, y=None, *, timestamps=None):
        """Fit, then fill the gaps of the same data.

        Parameters
        ----------
        X : array-like
            Data as for :meth:`fit`.
        y : Ignored
            Not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        X_imputed : ndarray, DataFrame or list
            As returned by :meth:`transform`.
        """
        return self.fit(X, y, timestamps=timestamps).transform(X, timestamps=timestamps)

    @one_thread()
    def partial_fit(self, X, y=None, *, timestamps=None):
        """Train ``max_iter`` more steps on ``X``; scales and the Gaussian stay as first fitted.

        A network that was dropped because it did not help on held-out windows starts anew.

        Parameters
        ----------
        X : array-like
            Data as for :meth:`fit`.
        y : Ignored
            Not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        self : CSDIImputer
            The fitted imputer.
        """
        self._validate_params()
        return self._fit(X, timestamps, hasattr(self, "history_"))

    @one_thread()
    def transform(self, X, *, timestamps=None):
        """Fill every missing cell with the median or mean of ``n_draws`` draws.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        X_imputed : ndarray, DataFrame or list
            ``X`` with its missing cells filled, in its own units; observed cells are bit for
            bit those of ``X``. A frame comes back as a frame.
        """
        data = self._checked(X, timestamps)
        statistic = np.median if self.statistic == "median" else np.mean
        filled = self._fill(data, lambda draws: statistic(draws, axis=0), self.n_draws)
        return self._output(data, filled)

    @one_thread()
    def sample(self, X, n_draws=None, *, timestamps=None, random_state=None):
        """Draw completed copies of ``X``.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        n_draws : int, optional
            Number of draws, by default the parameter ``n_draws``.
        timestamps : array-like, optional
            As for :meth:`fit`.
        random_state : int, RandomState instance or None, default=None
            By default the draws are those behind :meth:`transform`.

        Returns
        -------
        draws : ndarray of shape (n_samples, n_draws, n_features), \
                (n_samples, n_draws, n_times, n_features) for panels, or list
            Joint draws in the units of ``X``; observed cells are the same in all of them. For
            one long series ``n_samples`` is its number of rows.
        """
        n_draws = self.n_draws if n_draws is None else positive_int(n_draws, "n_draws")
        data = self._checked(X, timestamps)
        filled = self._fill(data, lambda draws: draws, n_draws, random_state)
        return data.restore_draws(self._keep(filled))

    @one_thread()
    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95), *, timestamps=None):
        """Quantiles of every missing cell, from ``n_draws`` draws.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels between 0 and 1.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        quantiles : ndarray of shape (n_samples, n_quantiles, ...)
            Laid out as the draws of :meth:`sample`; observed cells repeat their value.
        """
        levels = np.atleast_1d(np.asarray(quantiles, dtype=float))
        if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles={quantiles!r} must be levels strictly between 0 and 1.")
        needed = int(np.ceil(1 / min(levels.min(), 1 - levels.max()) - 1e-9)) - 1
        if needed > self.n_draws:
            warnings.warn(
                f"n_draws={self.n_draws} draws cannot resolve the outermost of these quantiles: "
                f"set n_draws to {needed} or more.",
                UserWarning,
                stacklevel=3,
            )
        data = self._checked(X, timestamps)
        # The m-th of n exchangeable draws lies, in expectation, at level m / (n + 1).
        of = lambda draws: np.quantile(draws, levels, axis=0, method="weibull")  # noqa: E731
        return data.restore_draws(self._keep(self._fill(data, of, self.n_draws)))

    @one_thread()
    def score(self, X, y=None, *, timestamps=None):
        """Minus the continuous ranked probability score, in standard deviations of each feature.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        y : array-like of the shape of ``X``, optional
            Truth; the cells missing in ``X`` and known in ``y`` are scored. Without it, 10 % of
            the observed cells are hidden, always the same for one ``random_state``, and scored.
            A 1-D ``y``, the target of a later step of a pipeline, is no truth and not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        score : float
            Minus the mean CRPS (fair, from ``n_draws`` draws); higher is better.
        """
        if self.n_draws < 2:
            raise ValueError(f"n_draws={self.n_draws}: the score needs at least 2 draws.")
        data = self._checked(X, timestamps)
        given = data.flat
        if y is not None and n_dimensions(y, "y") == 1 and data.form != "list":
            check_consistent_length(X, y)
            y = None
        if y is None:
            truth = given
            rng = np.random.default_rng(self._seed)
            hidden = ~np.isnan(truth) & (rng.random(truth.shape) < _HIDDEN_SHARE)
            data = data.with_flat(np.where(hidden, np.nan, given))
        else:
            require_alike(X, y)
            truth = self._checked(y, timestamps).flat
            if truth.shape != given.shape:
                raise ValueError(f"y has {truth.shape} rows and features, X has {given.shape}.")
            hidden = np.isnan(given) & ~np.isnan(truth)
        missing = np.isnan(data.flat) & self._valid
        scored = hidden[missing] & (self.scale_ > 0)[np.nonzero(missing)[1]]
        if not scored.any():
            raise ValueError(
                "There is nothing to score: X must have missing cells that y knows or, without "
                "y, enough observed cells to hide some of them."
            )
        unit = self.scale_[np.nonzero(missing)[1]][scored]
        draws = self._draw(data, self.n_draws, None)[:, scored] / unit
        return -float(crps_loss(truth[missing][scored] / unit, draws.T, method="fair"))

    def get_feature_names_out(self, input_features=None):
        """Names of the output columns.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the features; by default those seen in ``fit``.

        Returns
        -------
        names : ndarray of str
            Kept features, then indicators.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        out = names[self._kept]
        if self.add_indicator:
            out = np.concatenate([out, [f"missingindicator_{n}" for n in names[self._indicated]]])
        return np.asarray(out, dtype=object)

    @classmethod
    def from_published_weights(cls, path, *, mean, scale, window_length, n_heads=8, **parameters):
        """Imputer with the weights of a CSDI checkpoint, ready to draw.

        Parameters
        ----------
        path : str or path-like
            Checkpoint saved by the authors' code; read without executing anything in it.
        mean, scale : array-like of shape (n_features,)
            Centre and scale of the features in the units of the data to impute.
        window_length : int
            Time steps of the windows it was trained on.
        n_heads : int, default=8
            Attention heads of the network, which the file does not tell.
        **parameters
            Other parameters of the imputer.

        Returns
        -------
        imputer : CSDIImputer
            Fitted.
        """
        network = load_csdi_checkpoint(path, n_heads=n_heads)
        n_features, n_channels = len(network.features), network.output1.in_features
        imputer = cls(
            network="csdi",
            n_layers=len(network.blocks),
            n_channels=n_channels,
            n_heads=n_heads,
            **parameters,
        )
        imputer._validate_params()
        mean, scale = (check_array(x, ensure_2d=False, dtype=float) for x in (mean, scale))
        if mean.shape != (n_features,) or scale.shape != (n_features,):
            raise ValueError(
                f"mean and scale must have shape ({n_features},), the features of the checkpoint."
            )
        imputer.n_features_in_ = n_features
        imputer._kind, imputer.time_step_ = "panel", None
        imputer.window_length_ = positive_int(window_length, "window_length")
        imputer._set_columns(mean, scale, np.zeros(n_features, dtype=bool))
        imputer._seed = draw_seed(imputer.random_state)
        imputer._adopt(network, {"loss": [], "validation": [], "best_step": 0})
        return imputer

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(np.isnan(self.missing_values))
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "history_")

    def __getstate__(self):
        state = dict(super().__getstate__())
        # Rebuilt from the numpy weights on whatever device the loading machine has.
        state.pop("_model", None)
        return state
