"""Pictures of filled gaps."""

import numpy as np

from skdiffusion.inputs.imputers import answers
from skdiffusion.inspection._axes import axes_for, numbers


class ImputationDisplay:
    """One feature of a series: what was observed, and bands of draws where it was not.

    Parameters
    ----------
    observed : array-like of shape (n_times,)
        Observed values in the units of the data, NaN in the gaps.
    draws : array-like of shape (n_times, n_draws)
        Draws of every value; read in the gaps only.
    times : array-like of shape (n_times,), default=None
        Times or positions of the rows; None numbers them.
    truth : array-like of shape (n_times,), default=None
        True values, shown in the gaps where they are known.
    name : str, default=None
        Name of the feature, with its unit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.
    bands_ : list of matplotlib artists
        The bands, widest first.
    median_, observed_ : matplotlib Line2D
        Median of the draws and observed values.
    truth_ : matplotlib Line2D or None
        True values in the gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.inspection import ImputationDisplay
    >>> observed = np.sin(np.arange(30) / 5)
    >>> observed[10:15] = np.nan
    >>> draws = np.nan_to_num(observed)[:, None] + np.random.default_rng(0).normal(size=(30, 50))
    >>> display = ImputationDisplay(observed, draws).plot()  # doctest: +SKIP
    """

    def __init__(self, observed, draws, *, times=None, truth=None, name=None):
        self.observed = numbers(observed, "observed", allow_nan=True)
        self.draws = numbers(draws, "draws", allow_nan=True)
        self.times = np.arange(len(self.observed)) if times is None else np.asarray(times)
        self.truth = None if truth is None else np.asarray(truth, dtype=float)
        self.name = name
        if self.observed.ndim != 1 or self.draws.ndim != 2:
            raise ValueError(
                "observed must have shape (n_times,) and draws (n_times, n_draws), got "
                f"{self.observed.shape} and {self.draws.shape}; from_draws picks one feature"
            )
        lengths = {"draws": self.draws, "times": self.times, "truth": self.truth}
        for what, values in lengths.items():
            if values is not None and len(values) != len(self.observed):
                raise ValueError(
                    f"{what} has {len(values)} rows, but observed has {len(self.observed)}"
                )
        if np.isnan(self.draws[np.isnan(self.observed)]).any():
            raise ValueError("draws contains NaN in the gaps: these are not filled")

    @classmethod
    def from_estimator(
        cls, imputer, X, feature=0, *, rows=None, truth=None, n_draws=100, random_state=None
    ):
        """Draw the gaps of one long series.

        Parameters
        ----------
        imputer : estimator
            Fitted imputer that draws, such as :class:`~skdiffusion.estimators.CSDIImputer`.
        X : array-like of shape (n_times, n_features)
            The series, NaN in its gaps.
        feature : int or str, default=0
            Number of the feature, or its name in a frame.
        rows : slice, default=None
            Part of the series to show; all of it goes to the imputer.
        truth : array-like of shape (n_times, n_features), default=None
            True values.
        n_draws : int, default=100
            Number of draws.
        random_state : int or None, default=None
            Seed of the draws; None takes that of the imputer.

        Returns
        -------
        display : ImputationDisplay
            The display, not plotted yet.
        """
        draws = answers(imputer, X, n_draws, random_state)
        return cls.from_draws(X, draws, feature, rows=rows, truth=truth)

    @classmethod
    def from_draws(cls, X, draws, feature=0, *, rows=None, truth=None, times=None):
        """Pick one feature of a series and of its draws.

        Parameters
        ----------
        X : array-like of shape (n_times, n_features)
            The series, NaN in its gaps. The index of a frame tells the times.
        draws : array-like of shape (n_times, n_draws, n_features)
            What the ``sample`` of an imputer returns.
        feature : int or str, default=0
            Number of the feature, or its name in a frame.
        rows : slice, default=None
            Part of the series to show.
        truth : array-like of shape (n_times, n_features), default=None
            True values.
        times : array-like of shape (n_times,), default=None
            Times of the rows.

        Returns
        -------
        display : ImputationDisplay
            The display, not plotted yet.
        """
        rows = slice(None) if rows is None else rows
        column, name = _column(X, feature)
        times = getattr(X, "index", None) if times is None else times
        return cls(
            np.asarray(X, dtype=float)[rows, column],
            np.asarray(draws)[rows, :, column],
            times=None if times is None else np.asarray(times)[rows],
            truth=None if truth is None else np.asarray(truth, dtype=float)[rows, column],
            name=name,
        )

    def plot(self, ax=None, *, levels=(0.9, 0.5)):
        """Draw the bands, the median, the observed values and the truth.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        levels : sequence of float, default=(0.9, 0.5)
            Probabilities of the bands.

        Returns
        -------
        display : ImputationDisplay
            The display.
        """
        ax, self.figure_ = axes_for(ax, (8, 3))
        self.ax_ = ax
        shades = np.linspace(0.2, 0.4, max(2, len(levels)))
        self.bands_ = [self._band(*p) for p in zip(sorted(levels, reverse=True), shades)]
        median = np.where(self._near(), np.median(self._values(), axis=1), np.nan)
        self.median_ = ax.plot(self.times, median, color="C0", label="median of the draws")[0]
        self.observed_ = ax.plot(
            self.times, self.observed, ".-", color="k", lw=1.2, ms=2, label="observed"
        )[0]
        self.truth_ = None if self.truth is None else self._plot_truth()
        ax.set(xlabel="row", ylabel=self.name or "value", xlim=(self.times[0], self.times[-1]))
        if np.issubdtype(self.times.dtype, np.datetime64):
            _date_axis(ax)
        ax.legend(fontsize="small")
        return self

    def _band(self, level, alpha):
        """Central interval of the draws."""
        # Of n exchangeable draws the m-th lies, in expectation, at level m / (n + 1).
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(self._values(), ends, axis=1, method="weibull")
        style = {"color": "C0", "alpha": alpha, "lw": 0, "label": f"{100 * level:g} % band"}
        return self.ax_.fill_between(self.times, low, high, self._near(), **style)

    def _plot_truth(self):
        """Mark the true values of the gaps."""
        hidden = np.where(np.isnan(self.observed), self.truth, np.nan)
        style = {"color": "C3", "ms": 3.5, "label": "true value, hidden"}
        return self.ax_.plot(self.times, hidden, "o", **style)[0]

    def _values(self):
        """Draws in the gaps; elsewhere all are the observed value."""
        missing = np.isnan(self.observed)[:, None]
        return np.where(missing, self.draws, self.observed[:, None])

    def _near(self):
        """The gaps and one observed value on either side, so that the bands close on the data."""
        missing = np.concatenate([[False], np.isnan(self.observed), [False]])
        return missing[:-2] | missing[1:-1] | missing[2:]


def _column(X, feature):
    """Number and name of a feature."""
    names = list(getattr(X, "columns", range(np.shape(X)[1])))
    if feature in names:
        return names.index(feature), feature if isinstance(feature, str) else f"feature {feature}"
    if isinstance(feature, int) and 0 <= feature < len(names):
        return feature, str(names[feature])
    raise ValueError(f"feature={feature!r} is none of the columns of X: {names}")


def _date_axis(ax):
    """Short dates on the horizontal axis."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.set_xlabel("")
