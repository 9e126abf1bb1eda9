"""Picture of a density over two columns."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.inspection._axes import axes_for, count_of, method_of, numbers


class DensityDisplay:
    """Density over two features.

    Parameters
    ----------
    edges : tuple of two ndarrays of shapes (n_x + 1,) and (n_y + 1,)
        Edges of the cells, in the units of the data.
    density : ndarray of shape (n_x, n_y)
        Density of every cell.
    names : tuple of two str, default=("feature 0", "feature 1")
        Names of the features.
    points : array-like of shape (n_points, 2), default=None
        Points drawn on top.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.
    mesh_ : matplotlib QuadMesh
        The density.
    points_ : matplotlib PathCollection or None
        The points.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skdiffusion.inspection import DensityDisplay
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> display = DensityDisplay.from_estimator(GaussianMixture().fit(X), X)
    >>> display.plot()  # doctest: +SKIP
    """

    def __init__(self, edges, density, *, names=("feature 0", "feature 1"), points=None):
        self.edges = tuple(np.asarray(edge, dtype=float) for edge in edges)
        self.density = numbers(density, "density", 2)
        self.names, self.points = names, points
        if self.density.shape != tuple(len(edge) - 1 for edge in self.edges):
            raise ValueError(
                f"density has shape {self.density.shape}, but edges tell of "
                f"{tuple(len(edge) - 1 for edge in self.edges)} cells"
            )

    @classmethod
    def from_estimator(cls, estimator, X, features=(0, 1), *, n_cells=100, n_draws=100_000):
        """Evaluate the density of a fitted estimator over the range of the data.

        Two features are evaluated on a grid by ``score_samples``. Of more features the density
        of a pair is that of draws: ``sample(n_draws)`` counted in the cells of the grid.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with ``score_samples``, and with ``sample`` for more than two
            features, such as :class:`~skdiffusion.estimators.ScoreSDE` or those of scikit-learn.
        X : array-like of shape (n_samples, n_features)
            Data, which give the range and are drawn on top.
        features : tuple of two int or str, default=(0, 1)
            Features on the axes.
        n_cells : int, default=100
            Cells along each axis.
        n_draws : int, default=100000
            Number of draws for more than two features.

        Returns
        -------
        display : DensityDisplay
            The display, not plotted yet.
        """
        check_is_fitted(estimator)
        columns, names = _pair(X, features)
        points = numbers(X, "X", 2)[:, columns]
        edges = _edges(points, n_cells)
        if np.shape(X)[1] == 2:
            density = _on_grid(estimator, edges, columns, X)
        else:
            draws = method_of(estimator, "sample")(n_draws)
            # Mixtures of scikit-learn return the components beside the draws.
            draws = draws[0] if isinstance(draws, tuple) else draws
            density = _counted(np.asarray(draws)[:, columns], edges)
        return cls(edges, density, names=names, points=points)

    @classmethod
    def from_draws(cls, draws, features=(0, 1), *, n_cells=50):
        """Count draws in the cells of a grid.

        Parameters
        ----------
        draws : array-like of shape (n_draws, n_features)
            Draws from the density.
        features : tuple of two int or str, default=(0, 1)
            Features on the axes.
        n_cells : int, default=50
            Cells along each axis.

        Returns
        -------
        display : DensityDisplay
            The display, not plotted yet.
        """
        columns, names = _pair(draws, features)
        pair = numbers(draws, "draws", 2)[:, columns]
        edges = _edges(pair, n_cells)
        return cls(edges, _counted(pair, edges), names=names)

    def plot(self, ax=None, *, cmap="Blues", colorbar=True):
        """Draw the density and the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        cmap : str, default="Blues"
            Colours.
        colorbar : bool, default=True
            Show what the colours mean.

        Returns
        -------
        display : DensityDisplay
            The display.
        """
        ax, self.figure_ = axes_for(ax, (5, 4))
        self.ax_ = ax
        self.mesh_ = ax.pcolormesh(*self.edges, self.density.T, cmap=cmap, vmin=0, rasterized=True)
        self.points_ = None
        if self.points is not None:
            style = {"s": 2, "color": "k", "alpha": 0.3, "linewidths": 0, "label": "data"}
            self.points_ = ax.scatter(*np.asarray(self.points).T, **style)
            ax.legend(fontsize="small", markerscale=3)
        if colorbar:
            self.figure_.colorbar(self.mesh_, ax=ax, label="density")
        limits = {"xlim": self.edges[0][[0, -1]], "ylim": self.edges[1][[0, -1]]}
        ax.set(xlabel=self.names[0], ylabel=self.names[1], **limits)
        return self


def _pair(X, features):
    """Numbers and names of two features."""
    if np.ndim(X) != 2:
        raise ValueError(f"X must have shape (n_samples, n_features), got {np.shape(X)}")
    known = list(getattr(X, "columns", range(np.shape(X)[1])))
    if np.ndim(features) != 1 or len(features) != 2 or features[0] == features[1]:
        raise ValueError(f"features must name two features, got {features!r}")
    missing = [f for f in features if f not in known and not _is_number(f, len(known))]
    if missing:
        raise ValueError(f"features has {missing}, which X does not have: it has {known}")
    columns = [known.index(f) if f in known else f for f in features]
    return columns, tuple(
        known[k] if isinstance(known[k], str) else f"feature {k}" for k in columns
    )


def _is_number(feature, n_features):
    return isinstance(feature, int) and 0 <= feature < n_features


def _edges(points, n_cells):
    """Edges of cells that cover the points and a tenth of their range around them."""
    n_cells = count_of(n_cells, "n_cells")
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 0.5)
    return [np.linspace(a, b, n_cells + 1) for a, b in zip(low - margin, high + margin)]


def _on_grid(estimator, edges, columns, X):
    """Density at the middles of the cells."""
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid[:, np.argsort(columns)]
    if hasattr(estimator, "feature_names_in_"):
        grid = type(X)(grid, columns=X.columns)
    shape = [len(middle) for middle in middles]
    return np.exp(np.asarray(method_of(estimator, "score_samples")(grid))).reshape(shape)


def _counted(points, edges):
    """Density of points in the cells; those outside count in the total."""
    counts = np.histogram2d(*points.T, bins=edges)[0]
    area = np.diff(edges[0])[:, None] * np.diff(edges[1])
    return counts / len(points) / area
