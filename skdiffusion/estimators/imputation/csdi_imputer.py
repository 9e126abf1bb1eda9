"""Imputation of time series and tables by conditional diffusion."""

import copy
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array

from skdiffusion._device import resolve_device
from skdiffusion._random import draw_seed
from skdiffusion.columns.columns import Columns
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.estimators._removed import removed
from skdiffusion.estimators.imputation._diffusion_imputer import DiffusionImputer
from skdiffusion.estimators.imputation._fitting import (
    fit_imputation_model,
    learn_columns,
    nothing_trained,
    split_windows,
)
from skdiffusion.estimators.imputation._labels import learn_labels
from skdiffusion.estimators.imputation._model import Blueprint, ImputationModel
from skdiffusion.estimators.imputation._reading import SeriesReader
from skdiffusion.estimators.imputation._statics import StaticDraws
from skdiffusion.inputs.arguments import in_order, positive_int
from skdiffusion.inputs.encoding import Encoding
from skdiffusion.nn import load_csdi_checkpoint
from skdiffusion.training.masking import STRATEGIES


class CSDIImputer(DiffusionImputer):
    """Fill the gaps of time series and tables by conditional score-based diffusion.

    The imputer learns, from incomplete data, the distribution of missing cells given the
    observed ones, and draws from it. Training hides observed cells and asks for them
    (self-supervision), so no complete rows are needed.

    Parameters
    ----------
    method : {"diffusion", "gaussian"}, default="diffusion"
        ``"gaussian"`` stops at the closed form: a Gaussian over the cells of a series or a row,
        in tables a mixture of Gaussians where known cells are then predicted better, conditioned
        on whatever is observed. ``"diffusion"`` goes on from there, and keeps what predicts
        held-out windows best: the closed form; for series and tables, boosted trees that correct
        its mean and deviation cell by cell; or a network on top, which is not trained where the
        trees gain 2 % and more, nor on a mixture that has learnt from all rows of a table (8192
        at most).
    network : {"encoder", "csdi"}, default="encoder"
        ``"encoder"`` reads a window once and denoises the missing cells only, starting from the
        Gaussian. ``"csdi"`` is the network of the CSDI paper [1]_, which needs hours on a CPU;
        its published setting is ``n_layers=4, n_channels=64``.
    window_length : int, optional
        Number of time steps that the network sees together; the Gaussian sees whole series, and
        their season of the day, week or year where times are known. None means that the rows of
        a 2-D ``X`` are
        independent (a table), that the samples of a 3-D ``X`` are whole windows and that a list
        of series has windows of 24 steps or of its shortest series. With a number, a 2-D ``X``
        is one long series. When imputing windows overlap by half.
    panel_columns : str or pair, optional
        Columns of a plain long frame that name its series and their times: ``"patient"``,
        ``("patient", "hour")``, ``(["ward", "bed"], "hour")`` or ``(["ward", "bed"], None)``. They
        come back as they are. Without times the rows of a series are one step apart. Columns that
        do not change within a series, such as age and sex, are filled alike in all of its rows.
    direction : {"both", "past"}, default="both"
        What a cell of a series is filled from: the whole series, or only the rows up to its own,
        for data that arrive. With ``"past"`` the state space is used without a network; what comes
        later changes no draw, and ``score`` says how well the past alone does.
    target_strategy : {"block", "random", "historical", "mix", "feature"}, array-like of bool or \
            callable, default="block"
        Which observed cells are hidden in training. ``"block"``: half of the windows lose
        scattered cells, half lose runs of time steps in a few features; of long series with gaps
        trees, and the choice what to keep, see these gaps copied, too. ``"random"``: a share of
        the cells drawn from U(0, 1). ``"historical"``: what another window misses. ``"mix"``:
        half random, half historical. ``"feature"``: whole features. An array of shape (n_times,
        n_features) or (n_patterns, n_times, n_features) is the pattern to hide, or several; the
        columns of a frame are matched by name. A
        callable ``(observed, rng) -> hidden`` maps bool arrays (n_windows, n_times, n_features).
    statistic : {"median", "mean"}, default="median"
        Statistic of the draws that :meth:`transform` fills in: the median minimises the absolute
        error, the mean the squared error. Draws of columns with a few whole numbers alone, such as
        0 and 1, are whole numbers, also where their type is float; so is their median, and their
        mean is a share.
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
        Width of the network. Attention has a head for every 8 channels.
    scale : bool, default=True
        Standardise the features inside, on observed values; a few impossible records do not
        rule the scale. Features with heavier tails than a normal distribution are also bent
        towards one, and in a table all are mapped to normal scores where known cells are then
        predicted better; not for ``network="csdi"``. False is for data that are standardised
        already. All results are in the units of ``X`` either way.
    bounds : dict or pair, optional
        Smallest and largest value of columns, which draws keep: ``{"age": (0, 120)}`` by name (by
        number, in an array), or one pair for all columns of numbers; None in a pair is no bound.
        What was never negative stays so, and shares and percentages below 1 and 100, without it.
    missing_values : float, default=np.nan
        Placeholder of missing values.
    add_indicator : bool, default=False
        Append indicator columns for the features that had missing values in ``fit`` (2-D only).
    keep_empty_features : bool, default=False
        Keep features without any value in ``fit``, filled with 0, instead of dropping them.
    max_iter : int, default=400
        Number of optimisation steps.
    max_time : float, optional
        Seconds that ``fit`` may take. The Gaussian is always fitted to the end; training stops in
        time for the choice between the two, with the best weights so far, and a warning says so.
    batch_size : int, optional
        Windows, or rows of a table, in a batch. In training they are drawn with replacement, by
        default 8 windows or 256 rows, fewer if they have more than 8192 cells together. When
        drawing it bounds the memory and changes no result; by default 64.
    learning_rate : float, default=3e-3
        Peak learning rate.
    early_stopping : bool, default=True
        Hold out windows, keep the weights that were best on them, and stop when three in a row
        of the ten validations over ``max_iter`` are no better than an earlier one. Tables of fewer
        than 80 rows, or five for each real column, then get no network: it could not be judged.
    validation_fraction : float, default=0.1
        Share of the windows held out.
    warm_start : bool, default=False
        Continue from the weights of the previous call to ``fit``.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a GPU where there is one.
    verbose : int, default=0
        1 shows progress bars with the time left, of the Gaussian, the network, labels and draws.
        What was done is told to the logger ``skdiffusion`` at level INFO in any case.
    random_state : int, RandomState instance or None, default=None
        An int fixes training and draws. A row's draws depend on this and on the row alone.

    Attributes
    ----------
    mean_, scale_ : ndarrays of shape (n_features,)
        Centre and scale of the features; NaN for a feature without values and for labels.
    window_length_ : int
        Time steps of a window.
    time_step_ : float or None
        Step of the time grid in seconds, if times were given; the mean one for months. For the
        numbers of an index, their own unit.
    n_iter_ : int
        Number of optimisation steps taken; the closed form counts as one.
    history_ : dict
        ``"loss"``, ``"validation"`` and ``"best_step"`` of the training.
    method_ : {"diffusion", "trees", "gaussian"}
        What is used: the network, the closed form corrected by trees, or the closed form alone.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if ``X`` was a frame.

    See Also
    --------
    sklearn.impute.IterativeImputer : Regression of each feature on the others, row by row.

    Notes
    -----
    The Gaussian of series is a vector autoregression with noise, fitted by expectation
    maximisation with gaps; Kalman smoother and backward sampling fill a gap from both sides in
    time linear in the series. Columns with a spike at an end, such as no rain, keep it.

    With everything in noise-level coordinates ``z = r + s * eps``, one denoiser ``D(z, s)`` of
    the standardised residuals is trained by ``E |D(z, s) - r|^2``, and draws walk ``z`` from
    pure noise down to ``s = 0``. Windows that overlap share one noisy series and their
    denoisers are averaged at every step, so that draws agree where windows meet.

    A ``fit`` that fails or is interrupted leaves the imputer as it was.

    References
    ----------
    .. [1] Y. Tashiro, J. Song, Y. Song, S. Ermon, "CSDI: conditional score-based diffusion
       models for probabilistic time series imputation", NeurIPS 2021,
       https://arxiv.org/abs/2107.03502.

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
        "panel_columns": [str, tuple, list, None],
        "direction": [StrOptions({"both", "past"})],
        "target_strategy": [StrOptions(set(STRATEGIES)), callable, "array-like"],
        "statistic": [StrOptions({"median", "mean"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions({"auto", *STEPS})],
        "n_steps": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "scale": ["boolean"],
        "bounds": [dict, tuple, list, None],
        "missing_values": [Real],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @removed(
        n_heads="attention has a head for every 8 of n_channels",
        test_pattern="give the pattern as target_strategy",
        stride="windows always overlap by half; take a longer window_length for long gaps",
        ema_decay="it is 0.99",
        tol="early_stopping has a fixed rule",
        n_iter_no_change="early_stopping has a fixed rule",
    )
    def __init__(
        self,
        *,
        method="diffusion",
        network="encoder",
        window_length=None,
        panel_columns=None,
        direction="both",
        target_strategy="block",
        statistic="median",
        n_draws=50,
        solver="auto",
        n_steps=None,
        n_layers=2,
        n_channels=32,
        scale=True,
        bounds=None,
        missing_values=np.nan,
        add_indicator=False,
        keep_empty_features=False,
        max_iter=400,
        max_time=None,
        batch_size=None,
        learning_rate=3e-3,
        early_stopping=True,
        validation_fraction=0.1,
        warm_start=False,
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.method = method
        self.network = network
        self.window_length = window_length
        self.panel_columns = panel_columns
        self.direction = direction
        self.target_strategy = target_strategy
        self.statistic = statistic
        self.n_draws = n_draws
        self.solver = solver
        self.n_steps = n_steps
        self.n_layers = n_layers
        self.n_channels = n_channels
        self.scale = scale
        self.bounds = bounds
        self.missing_values = missing_values
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

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
            **parameters,
        )
        imputer._validate_params()
        mean, scale = (check_array(x, ensure_2d=False, dtype=float) for x in (mean, scale))
        if mean.shape != (n_features,) or scale.shape != (n_features,):
            raise ValueError(
                f"mean and scale must have shape ({n_features},), the features of the checkpoint."
            )
        length = positive_int(window_length, "window_length")
        columns, no_gaps = Columns(mean, scale), np.zeros(n_features, dtype=bool)
        kept = columns.valid | imputer.keep_empty_features
        encoding, seed = Encoding.of_numbers(n_features), draw_seed(imputer.random_state)
        reader = SeriesReader("panel", length, None, kept, no_gaps, encoding)
        sizes = {"n_layers": len(network.blocks), "n_channels": n_channels, "n_heads": n_heads}
        model = ImputationModel(network, Blueprint("csdi", length, n_features, sizes, seed))
        learner = copy.copy(imputer)
        learner.n_features_in_ = n_features
        return imputer._adopt(learner, reader, columns, model, seed, nothing_trained())

    def _fit(self, X, timestamps, go_on, course):
        """Learn, or with ``go_on`` train the fitted model further."""
        settings = Bunch(**self.get_params(deep=False))
        resolve_device(self.device)
        # scikit-learn writes the names of the columns on the estimator that it validates for.
        learner = copy.copy(self)
        if go_on:
            reader, columns, seed, previous = self._reader, self._columns, self._seed, self._model
            data = reader.read(learner, X, timestamps)
        else:
            reader, data = SeriesReader.learn(learner, X, timestamps)
        names = getattr(learner, "feature_names_in_", np.arange(learner.n_features_in_))
        settings.target_strategy = in_order(settings.target_strategy, names, "target_strategy")
        data = reader.with_statics(data)
        if not go_on:
            reader, columns = learn_columns(reader, data, settings, names)
            seed, previous = course.seed(self.random_state), None
        reader.require_length(data)
        windows = split_windows(reader.windows(data, columns), settings, seed)
        stationary, owner = reader.kind == "series", reader.encoding.owner
        shape = {"stationary": stationary, "previous": previous}
        model, history = fit_imputation_model(
            windows, columns, owner, settings, seed, course, **shape
        )
        if not go_on:
            known = reader, columns, model, data
            reader = replace(reader, statics=StaticDraws.learn(*known, settings, seed))
            labels = learn_labels(reader, columns, model, data, settings, seed)
            reader = replace(reader, labels=labels)
        course.close()
        return self._adopt(learner, reader, columns, model, seed, history)

    def _adopt(self, learner, reader, columns, model, seed, history):
        """Become fitted all at once: what interrupts leaves all of the old or all of the new."""
        self.__dict__ = {
            **vars(learner),
            "_reader": reader,
            "_columns": columns,
            "_model": model,
            "_seed": seed,
            "mean_": reader.encoding.of_features(columns.centre),
            "scale_": reader.encoding.of_features(columns.scale),
            "window_length_": reader.length,
            "time_step_": reader.step,
            "method_": "diffusion" if model.solves else model.name,
            "history_": history,
            "n_iter_": max(1, len(history["loss"])),
        }
        return self
