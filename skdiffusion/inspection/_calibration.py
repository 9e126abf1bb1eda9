"""Pictures of calibration: ranks of the truth among the draws."""

import numpy as np
from scipy import stats

from skdiffusion.inspection._axes import axes_for, count_of, numbers
from skdiffusion.metrics import make_imputation_scorer, pit_values


class _CalibrationDisplay:
    """What the displays of calibration share: values that are uniform if the draws are right."""

    def __init__(self, values, *, name=None):
        self.values, self.name = np.asarray(values), name
        if self.values.size == 0:
            raise ValueError("values is empty: no cell with a known truth was scored")
        self.values = numbers(values, "values", allow_nan=True)
        if self.values.ndim != 1 or not ((self.values >= 0) & (self.values <= 1)).all():
            raise ValueError(
                "values must be a 1-D array of probability integral transforms in [0, 1]; "
                "from_draws computes them"
            )

    @classmethod
    def from_estimator(
        cls, imputer, X, y=None, *, missing_rate=0.1, mechanism="mcar", n_draws=99, random_state=0
    ):
        """Hide known cells, draw them with a fitted imputer, and rank the truth.

        Parameters
        ----------
        imputer : estimator
            Fitted imputer that draws, or a pipeline that ends in one.
        X : array-like
            Data that the imputer was not fitted on.
        y : array-like of the shape of ``X``, default=None
            Truth; the cells missing in ``X`` and known in ``y`` are ranked. Without it a share of
            the observed cells of ``X`` is hidden.
        missing_rate : float, default=0.1
            Share of the observed cells to hide.
        mechanism : {"mcar", "block", "tail", "feature"}, default="mcar"
            Which cells are hidden, see :func:`skdiffusion.datasets.ampute`.
        n_draws : int, default=99
            Number of draws.
        random_state : int, default=0
            Fixes the hidden cells and the draws.

        Returns
        -------
        display : object of this class
            The display, not plotted yet.
        """
        scorer = make_imputation_scorer(
            missing_rate=missing_rate,
            mechanism=mechanism,
            n_draws=n_draws,
            random_state=random_state,
        )
        truth, draws, scored = scorer.held_out(imputer, X, y).of_numbers()
        return cls.from_draws(truth, draws, mask=scored, random_state=random_state)

    @classmethod
    def from_draws(cls, y_true, y_draws, *, mask=None, random_state=0, name=None):
        """Rank the truth among draws.

        Parameters
        ----------
        y_true : array-like of shape (n_samples, ...)
            True values. NaN cells are not used.
        y_draws : array-like of shape (n_samples, n_draws, ...)
            Draws for every cell.
        mask : array-like of bool of the shape of ``y_true``, default=None
            True for the cells to use.
        random_state : int, default=0
            Randomness inside the place of the truth, see :func:`skdiffusion.metrics.pit_values`.
        name : str, default=None
            Name in the legend.

        Returns
        -------
        display : object of this class
            The display, not plotted yet.
        """
        values = pit_values(y_true, y_draws, mask=mask, random_state=random_state)
        return cls(values, name=name)


class PITDisplay(_CalibrationDisplay):
    """Histogram of the places of the truth among the draws; flat if the draws are right.

    A U means draws that are too narrow, a hump draws that are too wide, a slope draws that are
    too low or too high. Bars outside the grey range, taken one at a time, would occur by chance
    once in twenty if the cells were independent.

    Parameters
    ----------
    values : array-like of shape (n_cells,)
        Probability integral transforms, see :func:`skdiffusion.metrics.pit_values`.
    name : str, default=None
        Name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.
    bars_ : matplotlib BarContainer
        The bars.

    See Also
    --------
    ReliabilityDisplay : Coverage of intervals, level by level.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.inspection import PITDisplay
    >>> rng = np.random.default_rng(0)
    >>> y_true, y_draws = rng.normal(size=500), rng.normal(size=(500, 99))
    >>> display = PITDisplay.from_draws(y_true, y_draws).plot()  # doctest: +SKIP
    """

    def plot(self, ax=None, *, n_bins=20):
        """Draw the histogram and the range of chance.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        n_bins : int, default=20
            Number of bars.

        Returns
        -------
        display : PITDisplay
            The display.
        """
        ax, self.figure_ = axes_for(ax, (5, 3.2))
        self.ax_ = ax
        n, n_bins = len(self.values), count_of(n_bins, "n_bins")
        counts = np.histogram(self.values, n_bins, (0, 1))[0]
        left = np.arange(n_bins) / n_bins
        label = self.name or "observed"
        self.bars_ = ax.bar(
            left, counts / n * n_bins, 1 / n_bins, align="edge", alpha=0.7, ec="w", label=label
        )
        low, high = np.array(stats.binom.interval(0.95, n, 1 / n_bins)) / n * n_bins
        label = "right draws, 95 % of the time"
        ax.axhspan(low, high, color="0.5", alpha=0.3, lw=0, label=label)
        ax.axhline(1, color="k", lw=1, ls="--")
        ax.set(
            xlabel="place of the true value among its draws (0: lowest, 1: highest)",
            ylabel="density",
            title=f"Calibration over {n} cells: flat is right",
            xlim=(0, 1),
        )
        ax.legend(fontsize="small")
        return self


class ReliabilityDisplay(_CalibrationDisplay):
    """Coverage of central intervals, or of quantiles, against their nominal level.

    On the diagonal what happens is what was promised. Coverage below it means that the intervals
    are too narrow. The grey range holds right draws 95 % of the time at each level if cells are
    independent; it is too narrow for cells that move together.

    Parameters
    ----------
    values : array-like of shape (n_cells,)
        Probability integral transforms, see :func:`skdiffusion.metrics.pit_values`.
    name : str, default=None
        Name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    PITDisplay : The same values as a histogram.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.inspection import ReliabilityDisplay
    >>> rng = np.random.default_rng(0)
    >>> y_true, y_draws = rng.normal(size=500), rng.normal(size=(500, 99))
    >>> display = ReliabilityDisplay.from_draws(y_true, y_draws).plot()  # doctest: +SKIP
    """

    def plot(self, ax=None, *, kind="intervals"):
        """Draw the curve, the diagonal and the range of chance.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure. The axes of another display compare the two.
        kind : {"intervals", "quantiles"}, default="intervals"
            ``"intervals"``: share of the truth inside central intervals. ``"quantiles"``: share
            of the truth below each quantile, which shows a bias, too.

        Returns
        -------
        display : ReliabilityDisplay
            The display.
        """
        if kind not in ("intervals", "quantiles"):
            raise ValueError(f'kind must be "intervals" or "quantiles", got {kind!r}')
        ax, self.figure_ = axes_for(ax, (4.2, 4))
        self.ax_ = ax
        u = np.abs(2 * self.values - 1) if kind == "intervals" else self.values
        levels = np.linspace(0, 1, 101)
        shares = np.searchsorted(np.sort(u), levels, side="right") / len(u)
        if not ax.lines:
            self._plot_reference(levels, len(u))
        self.line_ = ax.plot(levels, shares, label=self.name or "observed")[0]
        what = {
            "intervals": ("nominal level of the central interval", "share of true values inside"),
            "quantiles": ("level of the quantile", "share of true values below it"),
        }[kind]
        ax.set(xlabel=what[0], ylabel=what[1], xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set_title(f"Calibration over {len(u)} cells")
        ax.legend(fontsize="small")
        return self

    def _plot_reference(self, levels, n):
        """The diagonal, and how far right draws stray from it."""
        self.ax_.plot([0, 1], [0, 1], "--", color="k", lw=1, label="perfect calibration")
        low, high = np.array(stats.binom.interval(0.95, n, levels)) / n
        label = "right draws, 95 % of the time"
        self.ax_.fill_between(levels, low, high, color="0.5", alpha=0.3, lw=0, label=label)
