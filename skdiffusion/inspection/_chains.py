"""Pictures of Markov chains."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.inspection._axes import count_of, method_of, numbers


class TrajectoryDisplay:
    """The cloud of all chains at a few moments.

    Parameters
    ----------
    trajectory : ndarray of shape (n_points, n_chains, n_features)
        Positions, such as ``sample(..., return_trajectory=True)`` returns.
    features : tuple of two int, default=(0, 1)
        Features on the axes.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One for each moment, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.inspection import TrajectoryDisplay
    >>> path = np.random.default_rng(0).normal(size=(10, 50, 2)).cumsum(0)
    >>> display = TrajectoryDisplay(path).plot(n_moments=3)  # doctest: +SKIP
    """

    def __init__(self, trajectory, *, features=(0, 1)):
        self.trajectory = _checked(trajectory)
        if np.ndim(features) != 1 or len(features) != 2 or not all(map(_is_whole, features)):
            raise ValueError(f"features must be the numbers of two features, got {features!r}")
        if not 0 <= min(features) <= max(features) < self.trajectory.shape[2]:
            raise ValueError(
                f"features={features} must lie in [0, {self.trajectory.shape[2] - 1}]; "
                "TraceDisplay shows a single feature"
            )
        self.features = features

    @classmethod
    def from_estimator(cls, sampler, n_chains=1000, *, random_state=None, features=(0, 1)):
        """Run chains of a fitted sampler.

        Parameters
        ----------
        sampler : LangevinSampler
            Fitted sampler.
        n_chains : int, default=1000
            Number of chains.
        random_state : int, RandomState instance or None, default=None
            Seed; None uses the sampler's.
        features : tuple of two int, default=(0, 1)
            Features on the axes.

        Returns
        -------
        display : TrajectoryDisplay
            The display, not plotted yet.
        """
        trajectory = _run(sampler, n_chains, random_state)
        return cls(trajectory, features=features)

    def plot(self, n_moments=5, *, axes=None, **scatter):
        """Scatter the chains at moments spread evenly over the run.

        Parameters
        ----------
        n_moments : int, default=5
            Number of moments, the first and the last among them.
        axes : sequence of matplotlib Axes, default=None
            Where to draw, one for each moment; None makes a row of them.
        **scatter : dict
            Passed on to ``Axes.scatter``.

        Returns
        -------
        display : TrajectoryDisplay
            The display.
        """
        import matplotlib.pyplot as plt

        n_moments = count_of(n_moments, "n_moments")
        if axes is None:
            size = (2.4 * n_moments, 2.6)
            axes = plt.subplots(1, n_moments, figsize=size, squeeze=False, layout="constrained")[1]
        self.axes_ = np.ravel(axes)
        self.figure_ = self.axes_[0].figure
        moments = np.linspace(0, len(self.trajectory) - 1, len(self.axes_)).round().astype(int)
        style = {"s": 1, "alpha": 0.4, "linewidths": 0, "rasterized": True} | scatter
        for ax, moment in zip(self.axes_, moments, strict=True):
            ax.scatter(*self.trajectory[moment][:, self.features].T, **style)
            ax.set_title(f"point {moment}", fontsize="medium")
        return self


class TraceDisplay:
    """Traces of a few chains, and the distribution of their draws beside them.

    Parameters
    ----------
    trajectory : ndarray of shape (n_points, n_chains, n_features)
        Positions, such as ``sample(..., return_trajectory=True)`` returns.
    feature : int, default=0
        Feature to show.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
        Traces and histogram, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.inspection import TraceDisplay
    >>> path = np.random.default_rng(0).normal(size=(100, 4, 2))
    >>> display = TraceDisplay(path, feature=1).plot()  # doctest: +SKIP
    """

    def __init__(self, trajectory, *, feature=0):
        self.trajectory = _checked(trajectory)
        if not _is_whole(feature) or not 0 <= feature < self.trajectory.shape[2]:
            raise ValueError(
                f"feature={feature!r} is none of the features of the trajectory, whose shape is "
                f"{self.trajectory.shape}"
            )
        self.feature = feature

    @classmethod
    def from_estimator(cls, sampler, n_chains=4, *, random_state=None, feature=0):
        """Run chains of a fitted sampler.

        Parameters
        ----------
        sampler : LangevinSampler
            Fitted sampler.
        n_chains : int, default=4
            Number of chains.
        random_state : int, RandomState instance or None, default=None
            Seed; None uses the sampler's.
        feature : int, default=0
            Feature to show.

        Returns
        -------
        display : TraceDisplay
            The display, not plotted yet.
        """
        trajectory = _run(sampler, n_chains, random_state)
        return cls(trajectory, feature=feature)

    def plot(self, *, axes=None, n_bins=50):
        """Draw the traces and, over the second half of them, a histogram for each chain.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            Where to draw; None makes a row of them.
        n_bins : int, default=50
            Bins of the histograms.

        Returns
        -------
        display : TraceDisplay
            The display.
        """
        import matplotlib.pyplot as plt

        if axes is None:
            ratios = {"width_ratios": [3, 1]}
            figure = plt.figure(figsize=(8, 2.6), layout="constrained")
            axes = figure.subplots(1, 2, sharey=True, gridspec_kw=ratios)
        self.axes_ = np.ravel(axes)
        self.figure_ = self.axes_[0].figure
        traces = self.trajectory[:, :, self.feature]
        self.axes_[0].plot(traces, linewidth=0.7)
        self.axes_[0].set(xlabel="point of the trajectory", ylabel=f"feature {self.feature}")
        bins = np.linspace(traces.min(), traces.max(), count_of(n_bins, "n_bins") + 1)
        for chain in traces[len(traces) // 2 :].T:
            self.axes_[1].hist(chain, bins, orientation="horizontal", histtype="step", density=True)
        self.axes_[1].set_xlabel("density, second half")
        return self


def _checked(trajectory):
    """Positions of chains as an array of numbers."""
    if np.ndim(trajectory) != 3:
        raise ValueError(
            "trajectory must have shape (n_points, n_chains, n_features), got shape "
            f"{np.shape(trajectory)}"
        )
    return numbers(trajectory, "trajectory")


def _is_whole(feature):
    return isinstance(feature, int | np.integer)


def _run(sampler, n_chains, random_state):
    """Trajectories of a fitted sampler."""
    method_of(sampler, "sample")
    check_is_fitted(sampler)
    if not hasattr(sampler, "target"):
        raise TypeError(f"{type(sampler).__name__} runs no chains: pass a LangevinSampler")
    return sampler.sample(n_chains, random_state=random_state, return_trajectory=True)[1]
