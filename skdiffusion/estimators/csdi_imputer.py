"""Imputation of time series and tables by conditional diffusion."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from tqdm.auto import tqdm

from skdiffusion._arrays import column_moments, load_numpy_state, resolve_device, to_numpy_state
from skdiffusion._random import draw_seed, normals, row_keys, torch_generator
from skdiffusion.diffusion.impute import draw_missing
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.diffusion.window_gaussian import free_gaussian, stationary_gaussian, window_base
from skdiffusion.diffusion.windows import WindowedSeries
from skdiffusion.estimators._series import (
    SeriesInput,
    has_times,
    is_frame,
    n_dimensions,
    numeric_frame,
    recognise,
    rows_of,
    time_grid,
)
from skdiffusion.metrics import crps_loss
from skdiffusion.nn import CSDINetwork, load_csdi_checkpoint
from skdiffusion.nn.encoder import EncoderDenoiser, GaussianDenoiser
from skdiffusion.training.imputation import train_imputer
from skdiffusion.training.masking import STRATEGIES, pattern_targets

# Standardised values beyond this are pulled in before the model sees them.
_FAR, _FAR_UNSCALED = 20.0, 1e4
# Share of the observed cells that score() hides where no truth is given.
_HIDDEN_SHARE = 0.1
# With fewer windows than this there is nothing to spare for validation.
_FEWEST_WINDOWS = 10
# Windows are compared on at most this many, with so many draws.
_N_HELD_OUT, _N_HELD_OUT_DRAWS = 64, 16
# Default size of a training batch: so many windows or rows, fewer if they have many cells.
_LARGEST_BATCH, _LARGEST_TABLE_BATCH, _CELLS_PER_BATCH = 8, 256, 8192
# Above this many features "csdi" attends to 32 inducing points instead of all pairs.
_FULL_ATTENTION, _N_INDUCING = 128, 32
# Panels with more cells in a sample share the covariance of stationary series.
_LARGEST_PANEL = 2500
_SOLVERS = {
    "gaussian": ("dpmpp_2m_sde", 8),
    "encoder": ("dpmpp_2m_sde", 8),
    "csdi": ("dpmpp_2m_sde", 12),
}
_FORMS = {
    "table": "(n_samples, n_features), independent rows",
    "panel": "(n_samples, n_times, n_features)",
    "series": "(n_times, n_features) with window_length, or a list of such",
}
_HINT_WINDOW_LENGTH = (
    "X has a DatetimeIndex, but window_length is None: its rows are imputed as independent "
    "samples. Set window_length (for example 24 for hourly data) to use the order in time."
)


class CSDIImputer(TransformerMixin, BaseEstimator):
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
    solver : {"auto", "ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde"}, default="auto"
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
        rule the scale. False is for data that are standardised already. All results are in the
        units of ``X`` either way.
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

    # ------------------------------------------------------------------ public methods

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

    def partial_fit(self, X, y=None, *, timestamps=None):
        """Train ``max_iter`` more steps on ``X``; scales and the Gaussian stay as first fitted.

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
        n_draws = self.n_draws if n_draws is None else _positive_int(n_draws, "n_draws")
        data = self._checked(X, timestamps)
        filled = self._fill(data, lambda draws: draws, n_draws, random_state)
        return data.restore_draws(self._keep(filled))

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
                stacklevel=2,
            )
        data = self._checked(X, timestamps)
        # The m-th of n exchangeable draws lies, in expectation, at level m / (n + 1).
        of = lambda draws: np.quantile(draws, levels, axis=0, method="weibull")  # noqa: E731
        return data.restore_draws(self._keep(self._fill(data, of, self.n_draws)))

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
        imputer.window_length_ = _positive_int(window_length, "window_length")
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

    # ------------------------------------------------------------------ input and output

    def _checked(self, X, timestamps):
        """Read ``X`` for a fitted imputer, whose parameters may have been set since."""
        check_is_fitted(self)
        self._validate_params()
        self._check_sizes(self.window_length_)
        return self._read(X, timestamps, reset=False)

    def _read(self, X, timestamps, reset):
        """Validate ``X`` and find its samples."""
        fitted_length = self.window_length_ if not reset and self._kind == "series" else None
        kind, form, parts = recognise(X, self.window_length if reset else fitted_length)
        if not reset:
            kind = self._require_kind(kind, form, X)
        frames = parts if all(is_frame(part) for part in parts) else None
        if reset and kind == "table" and frames and has_times(parts[0]):
            warnings.warn(_HINT_WINDOW_LENGTH, UserWarning, stacklevel=4)
        if self.add_indicator and form in ("3-D array", "list"):
            raise ValueError("add_indicator=True works for a 2-D X only: set it to False.")
        parts = [self._validated(part, reset and i == 0, kind) for i, part in enumerate(parts)]
        data = SeriesInput(kind, form, rows_of(X, form, parts), frames)
        if reset:
            return time_grid(data, timestamps, None, self._window_rows(data))
        return time_grid(data, timestamps, self.time_step_, self.window_length_)

    def _require_kind(self, kind, form, X):
        """Compare the form of ``X`` with that seen in ``fit``; samples may serve as series."""
        if form == "3-D array" and self._kind == "series":
            return "series"
        if kind != self._kind:
            raise ValueError(
                f"X is of the form {_FORMS[kind]}, but {type(self).__name__} was fitted on "
                f"{_FORMS[self._kind]}: reshape X or fit again."
            )
        n_times = np.asarray(X).shape[1] if kind == "panel" else None
        if kind == "panel" and n_times != self.window_length_:
            raise ValueError(
                f"X has samples of {n_times} time steps, but {type(self).__name__} was "
                f"fitted on samples of {self.window_length_}: set window_length before fit to "
                "impute samples of any length."
            )
        return kind

    def _validated(self, part, reset, kind):
        """Validate one 2-D part; return floats with NaN where missing."""
        part = numeric_frame(part) if is_frame(part) else part
        by_nan = bool(np.isnan(self.missing_values))
        array = validate_data(
            self,
            part,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if by_nan else True,
            ensure_min_samples=2 if reset and kind == "table" else 1,
        )
        return array if by_nan else np.where(array == self.missing_values, np.nan, array)

    def _fill(self, data, reduce, n_draws, random_state=None):
        """Complete ``data``; ``reduce`` maps draws (n_draws, n_missing) to what is filled in."""
        flat = data.flat
        missing = np.isnan(flat)
        asked = missing & self._valid
        if asked.any():
            values = reduce(self._draw(data, n_draws, random_state))
        else:
            values = reduce(np.zeros((n_draws, 1)))[..., :0]
        out = np.broadcast_to(flat, (*values.shape[:-1], *flat.shape)).copy()
        out[..., asked] = values
        out[..., missing & ~self._valid] = 0.0
        return data.split(out)

    def _draw(self, data, n_draws, random_state):
        """Draws (n_draws, n_missing) of the missing cells of valid features, in X's units."""
        self._warn_empty(data)
        series = self._windows(data)
        seed = self._seed if random_state is None else draw_seed(random_state)
        keys = row_keys(data.rows, seed)
        draws = self._draw_standardised(self._model_on_device(), series, keys, n_draws)
        feature = np.nonzero(np.isnan(data.flat[:, self._valid]))[1]
        scale, mean = self.scale_[self._valid][feature], self.mean_[self._valid][feature]
        largest = np.finfo(data.flat.dtype).max
        with np.errstate(over="ignore"):
            return np.clip(mean + scale * draws.cpu().numpy().astype(float), -largest, largest)

    def _warn_empty(self, data):
        """Say so when a sample offers nothing to condition on."""
        empty = sum(bool(np.isnan(x[:, self._valid]).all()) for x in data.rows)
        if empty:
            warnings.warn(
                f"{empty} of {len(data.rows)} samples of X have no observed value: their draws "
                "are unconditional.",
                UserWarning,
                stacklevel=5,
            )

    def _output(self, data, filled):
        """Completed data in the user's form: kept features, indicators, frames."""
        if data.form in ("3-D array", "list"):
            container = _get_output_config("transform", self)["dense"]
            if container != "default":
                raise ValueError(
                    f"set_output(transform={container!r}) works for a 2-D X only: "
                    'set it to "default".'
                )
        out = data.restore(self._keep(filled))
        if self.add_indicator:
            indicators = np.isnan(data.flat[:, self._indicated]).astype(out.dtype)
            out = np.concatenate([out, indicators], axis=1)
        if data.frames is None:
            return out
        frames = out if data.form == "list" else [out]
        frames = [
            self._frame(frame, x, np.isnan(given).any(axis=0))
            for frame, x, given in zip(data.frames, frames, data.parts)
        ]
        return frames if data.form == "list" else frames[0]

    def _keep(self, samples):
        """Drop the features without values in ``fit``."""
        if isinstance(samples, np.ndarray):
            return samples[..., self._kept]
        return [x[..., self._kept] for x in samples]

    def _frame(self, given, values, had_gaps):
        """A frame like the given one: its index, its columns and the types of its floats."""
        names = self.get_feature_names_out()
        frame = type(given)(values, index=given.index, columns=names)
        for i, source in enumerate(np.flatnonzero(self._kept)):
            column = given.iloc[:, source]
            if not had_gaps[source]:
                frame.isetitem(i, column)
            elif column.dtype.kind == "f":
                frame.isetitem(i, frame.iloc[:, i].astype(column.dtype))
        return frame

    # ------------------------------------------------------------------ learning

    def _fit(self, X, timestamps, keep):
        """Fit, or train what is there further with ``keep``."""
        device = resolve_device(self.device)
        if not keep:
            # Until the end of this method the imputer counts as not fitted.
            vars(self).pop("history_", None)
        data = self._read(X, timestamps, reset=not keep)
        if not keep:
            self._learn_columns(data.flat)
            self._seed = draw_seed(self.random_state)
            self._kind, self.time_step_ = data.kind, data.step
            self.window_length_ = self._window_rows(data)
        self._check_sizes(self.window_length_)
        self._check_length(data)
        series, strategy = self._windows(data), self._strategy(self.window_length_)
        starts, held_out = self._split(series)
        few = not keep and len(starts) + len(held_out) < _FEWEST_WINDOWS
        model = self._kept_model() if keep else self._new_model(series, starts, few)
        history = {"loss": [], "validation": [], "best_step": 0}
        if self.method == "diffusion" and few:
            warnings.warn(
                f"X has only {len(starts)} windows, too few to train a network and to check it: "
                "the Gaussian over the window is used alone.",
                UserWarning,
                stacklevel=3,
            )
        elif self.method == "diffusion":
            model, series = model.to(device), series.to(device)
            history = self._train(model, series, starts, held_out, strategy)
            model = self._better(model, series, held_out, strategy)
        return self._adopt(model, history)

    def _window_rows(self, data):
        """Number of time steps of a window."""
        if data.kind != "series":
            if data.kind == "panel" and len(data.rows) < 2:
                raise ValueError("X has n_samples=1, while a minimum of 2 samples is required.")
            return len(data.rows[0])
        return self.window_length or min(24, min(len(x) for x in data.rows))

    def _check_length(self, data):
        """At least one of several series must fill a window."""
        longest = max(data.sizes)
        if longest < self.window_length_:
            raise ValueError(
                f"window_length={self.window_length_} is longer than the longest series of X "
                f"({longest} time steps): lower window_length."
            )

    def _check_sizes(self, length):
        """Compare parameters with each other."""
        if self.n_channels % self.n_heads:
            raise ValueError(
                f"n_channels={self.n_channels} must be a multiple of n_heads={self.n_heads}."
            )
        if self.stride is not None and self.stride > length:
            raise ValueError(
                f"stride={self.stride} leaves gaps between windows of {length} rows: lower it."
            )

    def _learn_columns(self, flat):
        """Centre and scale of the features with values."""
        n_features = flat.shape[1]
        valid = ~np.isnan(flat).all(axis=0)
        if not valid.any():
            raise ValueError("X has no observed value: there is nothing to learn from.")
        mean, scale = np.full((2, n_features), np.nan)
        mean[valid], scale[valid] = column_moments(flat[:, valid].astype(float))
        if not self.scale:
            self._warn_unscaled(mean, scale)
            mean[valid], scale[valid] = 0.0, np.where(scale[valid] > 0, 1.0, 0.0)
        self._set_columns(mean, scale, np.isnan(flat).any(axis=0))
        if not valid.all():
            fate = "filled with 0" if self.keep_empty_features else "dropped"
            warnings.warn(
                f"Features {self._names(~valid)} have no observed value and are {fate}: "
                "see keep_empty_features.",
                UserWarning,
                stacklevel=4,
            )

    def _warn_unscaled(self, mean, scale):
        """Say so where ``scale=False`` meets data that are not standardised."""
        off = (np.abs(mean) > 3) | (scale > 10) | ((scale > 0) & (scale < 0.1))
        if off.any():
            warnings.warn(
                f"Features {self._names(off)} are far from mean 0 and standard deviation 1, which "
                "scale=False expects: set scale=True.",
                UserWarning,
                stacklevel=5,
            )

    def _names(self, mask):
        """Names, or else numbers, of some features, for messages."""
        named = hasattr(self, "feature_names_in_")
        return (self.feature_names_in_[mask] if named else np.flatnonzero(mask)).tolist()

    def _set_columns(self, mean, scale, indicated):
        """Store what is known of the columns."""
        self.mean_, self.scale_ = mean, scale
        self._valid = ~np.isnan(mean)
        self._kept = self._valid | self.keep_empty_features
        self._indicated = indicated

    def _windows(self, data):
        """Standardised valid features of ``data`` as series cut into windows."""
        mean, scale = self.mean_[self._valid], self.scale_[self._valid]
        unit, far = np.where(scale > 0, scale, 1.0), _FAR if self.scale else _FAR_UNSCALED

        def standardised(x):
            z = np.clip((x[..., self._valid].astype(float) - mean) / unit, -far, far)
            # What a constant feature does later says nothing about the others.
            z = z * (scale > 0)
            return torch.from_numpy(z), torch.from_numpy(~np.isnan(z))

        if data.kind != "series":
            return WindowedSeries.stack(*standardised(data.rows))
        triples = []
        for x, real in data.on_grid():
            values, seen = standardised(x)
            triples.append((values, seen, ~seen & torch.from_numpy(real)[:, None]))
        return WindowedSeries.join(triples, self.window_length_)

    def _strategy(self, length):
        """Target strategy as a function of observed masks."""
        if callable(self.target_strategy):
            return _user_strategy(self.target_strategy)
        if self.target_strategy != "test_pattern":
            return STRATEGIES[self.target_strategy]
        if self.test_pattern is None:
            raise ValueError('target_strategy="test_pattern" needs the parameter test_pattern.')
        pattern = np.asarray(self.test_pattern, dtype=bool)
        pattern = pattern[None] if pattern.ndim == 2 else pattern
        if pattern.shape[1:] != (length, len(self._valid)):
            raise ValueError(
                f"test_pattern has shape {np.shape(self.test_pattern)}; expected "
                f"{(length, len(self._valid))}, times and features of a window."
            )
        return pattern_targets(torch.from_numpy(pattern[..., self._valid]))

    def _split(self, series):
        """Windows to learn from and windows held out, which share no row."""
        starts = series.all_starts()
        if not (self.early_stopping and self.method == "diffusion"):
            return starts, starts[:0]
        candidates = series.regular_starts(series.length)
        n_held_out = max(1, round(self.validation_fraction * len(candidates)))
        if len(candidates) < _FEWEST_WINDOWS:
            return candidates, candidates[:0]
        order = torch.randperm(len(candidates), generator=torch_generator(self._seed))
        held_out = candidates[order[:n_held_out].sort().values]
        taken = torch.zeros(len(series.values) + 1, dtype=torch.int64)
        taken[series.rows(held_out).flatten() + 1] = 1
        before = taken.cumsum(0)
        starts = starts[before[starts + series.length] == before[starts]]
        if len(starts) == 0:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves no window to learn from: "
                "lower it or set early_stopping=False."
            )
        return starts, held_out

    def _new_model(self, series, starts, few):
        """Untrained model; its Gaussian is fitted to the windows to learn from."""
        kind = "gaussian" if few else self._wanted()
        base = None if kind == "csdi" else self._fit_base(series, starts)
        return self._build(kind, base, self._sizes(kind))

    def _kept_model(self):
        """The fitted model, free to be trained further."""
        kind, base = self._wanted(), self._fitted_base()
        if kind == self._architecture and self._sizes(kind) == self._fitted_sizes:
            return load_numpy_state(self._build(kind, base, self._fitted_sizes), self._weights)
        if kind == self._architecture or kind == "csdi" or base is None:
            raise ValueError(
                "Training cannot go on after a change of network, n_layers, n_channels or n_heads: "
                "call fit with warm_start=False."
            )
        return self._build(kind, base, self._sizes(kind))

    def _wanted(self):
        """Kind of model that the parameters ask for."""
        return "gaussian" if self.method == "gaussian" else self.network

    def _build(self, kind, base, sizes):
        """An untrained model."""
        n_features, generator = int(self._valid.sum()), torch_generator(self._seed)
        if kind == "gaussian":
            return GaussianDenoiser(base)
        if kind == "csdi":
            return CSDINetwork(n_features, **sizes, generator=generator)
        return EncoderDenoiser(base, self.window_length_, n_features, **sizes, generator=generator)

    def _sizes(self, kind):
        """Size parameters of a network."""
        if kind == "gaussian":
            return {}
        sizes = {name: getattr(self, name) for name in ("n_layers", "n_channels", "n_heads")}
        if kind == "csdi" and self._valid.sum() > _FULL_ATTENTION:
            sizes["n_inducing"] = _N_INDUCING
        return sizes

    def _fit_base(self, series, starts):
        """Gaussian over a window: stationary for series, else with a free covariance."""
        values = series.values.double()
        large = series.length > 1 and series.length * values.shape[1] > _LARGEST_PANEL
        if self._kind == "series" or large:
            runs = _runs(series, starts)
            return stationary_gaussian(
                [(values[run], series.observed[run]) for run in runs], series.length
            )
        rows = series.rows(starts)
        return free_gaussian(values[rows], series.observed[rows])

    def _train(self, model, series, starts, held_out, strategy):
        """Train ``model`` in place; return the history."""
        n_cells = series.length * series.values.shape[1]
        most = _LARGEST_BATCH if series.length > 1 else _LARGEST_TABLE_BATCH
        batch_size = self.batch_size or max(1, min(most, _CELLS_PER_BATCH // n_cells))
        return train_imputer(
            model,
            series,
            starts,
            held_out,
            strategy,
            batch_size=batch_size,
            seed=self._seed,
            n_steps=self.max_iter,
            learning_rate=self.learning_rate,
            ema_decay=self.ema_decay,
            patience=self.n_iter_no_change,
            tol=self.tol,
            progress=self.verbose > 0,
            description="Learning",
        )

    def _better(self, model, series, held_out, strategy):
        """The trained model, or its Gaussian if that predicts held-out cells better."""
        if len(held_out) == 0 or not hasattr(model, "base"):
            return model
        alone = GaussianDenoiser(model.base)
        losses = [self._held_out_crps(m, series, held_out, strategy) for m in (model, alone)]
        return model if losses[0] <= losses[1] else alone

    def _held_out_crps(self, model, series, held_out, strategy):
        """Mean CRPS of cells hidden in held-out windows, with fixed masks and noise."""
        generator = torch_generator(self._seed)
        rows = series.rows(held_out[:_N_HELD_OUT].to(series.values.device))
        known = series.observed[rows]
        pool = lambda n: known.cpu()[torch.randint(len(rows), (n,), generator=generator)]  # noqa: E731
        hidden = strategy(known.cpu(), generator, pool).to(known.device)
        windows = WindowedSeries.stack(series.values[rows], known & ~hidden)
        windows.wanted = hidden.flatten(0, 1)
        if not bool(hidden.any()):
            return 0.0
        keys = row_keys(rows.cpu().numpy(), self._seed)
        draws = self._draw_standardised(model, windows, keys, _N_HELD_OUT_DRAWS).cpu().numpy()
        return crps_loss(series.values[rows][hidden].cpu().numpy(), draws.T, method="fair")

    # ------------------------------------------------------------------ the fitted model

    def _adopt(self, model, history):
        """Keep the fitted model as numpy arrays."""
        model = model.eval().requires_grad_(False)
        self._weights, self._base = to_numpy_state(model), None
        if hasattr(model, "base"):
            self._base = tuple(x.cpu().numpy() for x in (model.base.mean, model.base.covariance))
        self._architecture = _architecture(model)
        self._fitted_sizes = self._sizes(self._architecture)
        self.method_ = "gaussian" if self._architecture == "gaussian" else "diffusion"
        self._model, self.history_, self.n_iter_ = model, history, max(1, len(history["loss"]))
        return self

    def _model_on_device(self):
        """The fitted model, rebuilt after unpickling, on the device of the moment."""
        if "_model" not in vars(self):
            model = self._build(self._architecture, self._fitted_base(), self._fitted_sizes)
            self._model = load_numpy_state(model, self._weights).eval().requires_grad_(False)
        return self._model.to(resolve_device(self.device))

    def _fitted_base(self):
        """The Gaussian over a window, if the model has one."""
        if self._base is None:
            return None
        moments = (torch.from_numpy(x) for x in self._base)
        return window_base(*moments, self.window_length_, int(self._valid.sum()))

    def _draw_standardised(self, model, series, keys, n_draws):
        """Draws (n_draws, n_wanted) of the wanted cells of standardised series."""
        device = resolve_device(self.device)
        series, keys = series.to(device), keys.to(device)
        number, cell = series.address()
        solver, n_steps = _SOLVERS[_architecture(model)]
        solver = solver if self.solver == "auto" else self.solver
        n_steps = self.n_steps or n_steps

        def noise(cells, draws, step):
            return normals(keys[number[cells]], draws[:, None], step, cell[cells])

        with (
            torch.inference_mode(),
            tqdm(total=100, desc="Drawing", disable=self.verbose == 0, leave=False) as bar,
        ):
            return draw_missing(
                model,
                series,
                noise,
                n_draws=n_draws,
                stride=self.stride or max(1, series.length // 2),
                noise_levels=model.noise_levels(n_steps, solver),
                step=solver,
                cells_per_batch=2**20 if device.type == "cuda" else 24_000,
                windows_per_batch=self.batch_size or 64,
                on_step=lambda share: bar.update(round(100 * share) - bar.n),
            )


def _architecture(model):
    """Name of the kind of model."""
    if isinstance(model, CSDINetwork):
        return "csdi"
    return "encoder" if isinstance(model, EncoderDenoiser) else "gaussian"


def _runs(series, starts):
    """Rows covered by windows, in unbroken runs (a list of index tensors)."""
    covered = torch.zeros(len(series.values), dtype=torch.bool)
    covered[series.rows(starts).flatten()] = True
    rows = torch.nonzero(covered)[:, 0]
    number, _, _ = series.place(rows)
    breaks = torch.nonzero((rows.diff() != 1) | (number.diff() != 0))[:, 0] + 1
    return torch.tensor_split(rows, breaks)


def _user_strategy(function):
    """Wrap a target strategy of the user's and check what it returns."""

    def strategy(observed, generator, pool=None):
        seed = int(torch.randint(2**31, (1,), generator=generator))
        hidden = np.asarray(function(observed.numpy().copy(), np.random.default_rng(seed)))
        if hidden.shape != observed.shape or hidden.dtype != bool:
            raise ValueError(
                f"target_strategy returned {hidden.dtype} of shape {hidden.shape}; expected bool "
                f"of shape {tuple(observed.shape)}."
            )
        return observed & torch.from_numpy(hidden)

    return strategy


def _positive_int(value, name):
    """Check a positive integer argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)
