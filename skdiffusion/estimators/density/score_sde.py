"""A density model that learns the score of noisy data."""

from numbers import Integral, Real

import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from skdiffusion._device import memory_advice
from skdiffusion._random import draw_seed
from skdiffusion._threads import one_thread
from skdiffusion.diffusion.loss import NOISE_LAWS
from skdiffusion.diffusion.sde import SDE
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.estimators._atomic import all_or_nothing
from skdiffusion.estimators._chunks import chunk_by_chunk, fits_a_sample
from skdiffusion.estimators._removed import removed
from skdiffusion.estimators.density._conditions import CONDITIONS, encoded_rows
from skdiffusion.estimators.density._drawing_density import DrawingDensity
from skdiffusion.estimators.density._fitting import fit_density, further_rows, train_further
from skdiffusion.estimators.density._pieces import tensor_for
from skdiffusion.estimators.density._state import as_arrays, as_torch
from skdiffusion.training.course import Course

# Rows in chunks that a fit learns from: those of a mixture of 20 components of 20 columns, whose
# 4600 numbers then cost 4600 / (2 n) = 0.035 nats a row.
_MOST_ROWS = 2**16
_SMALLER_BATCHES = "Too little memory to fit: lower batch_size or hidden_layer_sizes."


class ScoreSDE(DrawingDensity):
    """Density model by score-based diffusion, on top of a density in closed form.

    A diffusion adds noise to the data until only noise is left; the model learns the score, the
    gradient of the log density at every noise level, and with it runs the diffusion backwards.
    Here the score starts from that of a Gaussian mixture or kernel estimate, known in closed form
    at every noise level, and a network learns what is left over.

    Columns are standardised inside; all results are in the units of ``X``.

    Parameters
    ----------
    base : {"auto", "gaussian", "mixture", "kde", "chain", "regression"} or None, default="auto"
        The density in closed form that the network starts from; None starts from N(0, I).
        "auto" keeps what has the best likelihood on held-out rows: the best of mixture and kernel
        estimate, alone or, from 1000 rows, with a network, a chain or a network alone. "chain" is
        an exact autoregressive density: every column given those before it, by small networks,
        for columns that are sharp functions of others; it goes without ``condition``.
        "regression", for ``condition="value"``, is a mixture that is moved and stretched to where
        gradient-boosted trees and a Gaussian process expect the row; "auto" tries it for up to 8
        columns.
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
        right where values are missing at random. :meth:`transform` and :meth:`score_samples`
        then take gaps too.
    hidden_layer_sizes : tuple of int, default=(128, 128, 128)
        Widths of the hidden layers of the network.
    noise_law : {"lognormal", "loguniform"} or SDE, default="lognormal"
        Law of the noise levels in training. "lognormal" is best for samples and for
        :meth:`score_samples`; "loguniform" is likelihood weighting with importance sampling
        and tightens :meth:`nll_bound`; an :class:`~skdiffusion.diffusion.SDE` is uniform in its
        time. Levels end at 80 standard deviations, or where the SDE ends.
    solver : str, default="dpmpp_3m"
        Solver of :meth:`sample`: "dpmpp_3m", "dpmpp_2m", "heun" and "ddim" for the
        probability-flow ODE, "ancestral", "euler_maruyama", "predictor_corrector" and
        "dpmpp_2m_sde" for the reverse SDE. "adaptive" follows the ODE by Runge-Kutta steps of
        adaptive length.
    n_steps : int, default=32
        Steps of the solver, whatever its kind; "adaptive" chooses its own number.
    max_iter : int, default=4000
        Training steps of a network at most; 0 leaves the base alone.
    max_time : float, optional
        Seconds that ``fit`` may take. Densities in closed form are always fitted to the end;
        training stops in time for the choice, with the best weights so far, and a warning says so.
    batch_size : int, default=256
        Rows of a training step.
    learning_rate : float, default=2e-3
        Peak learning rate.
    early_stopping : bool, default=True
        Stop a network when the held-out log-likelihood has not risen by 0.001 nats a row in three
        evaluations, out of 20. The weights with the best held-out likelihood are kept in any case.
    validation_fraction : float, default=0.1
        Share of the rows held out; at least 100 rows where that is at most a quarter of them.
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
        Training history of every network by its base, and of the columns of a chain, "columns".
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
       equations", ICLR 2021, https://arxiv.org/abs/2011.13456.
    .. [2] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021, https://arxiv.org/abs/2101.09258.

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
        "base": [StrOptions({"auto", "gaussian", "mixture", "kde", "chain", "regression"}), None],
        "marginals": [StrOptions({"auto", "histogram", "copula"}), None],
        "condition": [StrOptions(set(CONDITIONS)), None],
        "dequantize": ["boolean"],
        "handle_missing": [StrOptions({"error", "impute"})],
        "hidden_layer_sizes": ["array-like"],
        "noise_law": [StrOptions(set(NOISE_LAWS)), SDE],
        "solver": [StrOptions(set(STEPS) | {"adaptive"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "network": [callable, None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @removed(
        sde="pass an SDE as noise_law, for times uniform in it; other laws never asked for it",
        ema_decay="weights are averaged with decay 0.995; leave it out",
        n_iter_no_change="networks stop after three evaluations without gain; early_stopping=False "
        "never stops them",
        tol="a gain of 0.001 nats a row counts; leave it out",
    )
    def __init__(
        self,
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
        max_time=None,
        batch_size=256,
        learning_rate=2e-3,
        early_stopping=True,
        validation_fraction=0.1,
        warm_start=False,
        network=None,
        device="auto",
        verbose=0,
        random_state=None,
    ):
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
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.network = network
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @fits_a_sample(_MOST_ROWS)
    @_fit_context(prefer_skip_nested_validation=True)
    @memory_advice(_SMALLER_BATCHES)
    @one_thread()
    def fit(self, X, y=None, sample_weight=None, *, checkpoint=None, resume=False):
        """Fit the density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of real numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row: labels of any kind with ``condition="label"``; with
            ``condition="value"`` real numbers, and in a DataFrame text and categories too, of which
            a row may lack some but not all. Ignored without ``condition``.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, such that a weight of 2 is the row twice. Weights that are no
            integers are rounded to an eighth of their mean.
        checkpoint : str or path-like, optional
            File that the state of training is written to, every 30 seconds at most, and where
            Ctrl-C or SIGTERM end it. Delete it when the fitted model is saved.
        resume : bool, default=False
            Whether to go on from that file where it is there: the result is that of a fit without
            a break. Parameters and data must be the same.

        Returns
        -------
        self : ScoreSDE
            The fitted estimator.
        """
        with all_or_nothing(self):
            course = Course.of(self, checkpoint, resume)
            fitted = fit_density(self, X, y, sample_weight, course)
            self.model_, self.coordinates_ = fitted.choice.model, fitted.coordinates
            self._reader, self._encoder = fitted.reader, fitted.encoder
            self._proposal = fitted.choice.proposal
            self.base_, self.marginals_ = fitted.choice.kept.label, fitted.choice.mapped.option
            self.held_out_score_, self.history_ = fitted.choice.scores, fitted.choice.history
            self.n_iter_ = sum(len(history["loss"]) for history in self.history_.values())
        return self

    @chunk_by_chunk
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
        if not hasattr(self, "model_"):
            return self.fit(X, y, sample_weight)
        with all_or_nothing(self):
            learnt, seed = (self._encoder, self.coordinates_), draw_seed(self.random_state)
            rows = further_rows(self._read(X), y, sample_weight, *learnt, seed)
            course = Course(self.max_time)
            base, history, model = train_further(self, rows, self._encoder, course)
            self.model_, self.base_ = model, f"{base} + network"
            self.history_ = self.history_ | {base: history}
            self.n_iter_ += len(history["loss"])
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.condition is not None
        tags.input_tags.allow_nan = self.handle_missing == "impute"
        return tags

    @property
    def classes_(self):
        """Class labels, with ``condition="label"``."""
        return self._encoder.classes

    def _restore(self, codes):
        """Numbers and codes as a table of the user's kind."""
        return self._reader.restore(self, codes)

    def _encode(self, y, n_rows):
        """Encoded condition of every row; None without a condition."""
        encoded = encoded_rows(self._encoder, y, n_rows)
        return None if encoded is None else tensor_for(encoded, self.model_)

    def __getstate__(self):
        """Numpy arrays in place of torch objects: pickles open on every machine."""
        return as_arrays(super().__getstate__())

    def __setstate__(self, state):
        """Rebuild the torch objects on the device that was chosen, or on what this machine has."""
        super().__setstate__(as_torch(state))
