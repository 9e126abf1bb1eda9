r"""Where a column lies given a condition that it follows smoothly: a Gaussian process.

Trees make steps of what is smooth, and with few rows the steps are wide. A Gaussian process with
the covariance

.. math:: k(c, c') = a \exp(-\tfrac12 \sum_j (c_j - c'_j)^2 / l_j^2) + b\,(1 + c^\top c')
   + v\,[c = c']

is linear where the condition says no more, and as bent as the rows bear out. With the covariance
matrix ``K`` of the rows and a group ``g`` of them, the residual of the prediction of ``g`` from all
others is ``[K^{-1}]_{gg}^{-1} [K^{-1} y]_g`` ([1]_, section 5.4.2): no folds are needed.

References
----------
.. [1] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
   2006, http://gaussianprocess.org/gpml.
"""

import warnings

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, solve
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.preprocessing import PowerTransformer

from skdiffusion._threads import one_blas_thread

# Rows that the letters of the covariance are learnt from, and those that the process knows: their
# cost is the cube, many times over for the letters.
_N_LEARNING, _N_ROWS = 400, 1500
# Folds for what the letters of few rows are taught by, and rows that teach nothing.
_N_FOLDS, _FEWEST = 3, 10
# Added to the diagonal of covariance matrices, in units of the variance of the target.
_JITTER = 1e-8
# More columns have one length together: every length adds to the cost of each step.
_MOST_LENGTHS = 30
# Columns of more values than this may be made symmetric.
_FEW_VALUES = 5
# Standard deviations beyond which a column made symmetric is not followed.
_FAR = 10.0
# Numbers of the covariance with new rows that are kept at once.
_AT_ONCE = 2**22


class SmoothLocation:
    """Mean of a Gaussian process.

    Parameters
    ----------
    symmetric : bool
        Whether columns of conditions are made symmetric first, by a power transform: what follows
        a size or an income follows its logarithm more often than itself.
    """

    def __init__(self, symmetric):
        self.symmetric = symmetric

    def fit(self, condition, target, groups, seed):
        """Fit to the rows, or to some where they are many.

        Parameters
        ----------
        condition : ndarray of shape (n_samples, n_conditions)
            Conditions in standard units.
        target : ndarray of shape (n_samples,)
            What is to be located.
        groups : ndarray of shape (n_samples,)
            Rows of one group are predicted from the other groups.
        seed : int
            Says which rows are taken.

        Returns
        -------
        predicted : ndarray of shape (n_samples,)
            Location of every row from other rows.
        """
        rows = _some_rows(groups, seed)
        self.varied = _varied(condition)
        self.powers = None
        if self.symmetric:
            self.powers = PowerTransformer().fit(condition[:, self.varied])
        self.centre, self.scale = target.mean(), target.std() or 1.0
        self.low, self.high = target.min() - np.ptp(target), target.max() + np.ptp(target)
        self.rows = self._mapped(condition[rows])
        known = (target[rows] - self.centre) / self.scale
        process = _process(known, self.rows, _learnt(known, self.rows))
        letters = process.kernel_.k1
        self.amplitude = letters.k1.k1.constant_value
        self.lengths = np.broadcast_to(letters.k1.k2.length_scale, condition.shape[1:])
        self.slope = letters.k2.k1.constant_value
        self.weights = process.alpha_
        predicted = np.empty(len(target))
        left = np.ones(len(target), dtype=bool)
        left[rows] = False
        predicted[rows] = target[rows] - self.scale * _left_out(
            known, self.rows, groups[rows], process
        )
        if left.any():
            predicted[left] = self.predict(condition[left])
        return predicted

    def predict(self, condition):
        """Location of new rows, not far beyond what was seen."""
        size = max(1, _AT_ONCE // len(self.rows))
        parts = [self._mean(condition[i : i + size]) for i in range(0, len(condition), size)]
        return np.clip(self.centre + self.scale * np.concatenate(parts), self.low, self.high)

    def _mean(self, condition):
        """Mean of the process in its own units."""
        condition = self._mapped(condition)
        distances = cdist(condition / self.lengths, self.rows / self.lengths, "sqeuclidean")
        bent = self.amplitude * np.exp(-0.5 * distances) @ self.weights
        straight = self.slope * (self.weights.sum() + condition @ (self.rows.T @ self.weights))
        return bent + straight

    def _mapped(self, condition):
        if self.powers is None:
            return condition
        condition = condition.copy()
        # Far beyond what was seen a power may be infinite.
        mapped = np.nan_to_num(self.powers.transform(condition[:, self.varied]))
        condition[:, self.varied] = mapped.clip(-_FAR, _FAR)
        return condition


def smooth_location(condition, target, groups, seed):
    """Predictions of every row from other rows, and the process; the better of both ways.

    None where no covariance could be inverted.
    """
    fits = []
    for symmetric in (False, True) if _varied(condition).any() else (False,):
        process = SmoothLocation(symmetric)
        with one_blas_thread(), warnings.catch_warnings():
            # A length at the end of its range says that its column does not count.
            warnings.simplefilter("ignore")
            try:
                fits.append((process.fit(condition, target, groups, seed), process))
            except LinAlgError:
                continue
    return min(fits, key=lambda fit: np.abs(fit[0] - target).mean(), default=None)


def _varied(condition):
    """Which columns have so many values that they may be made symmetric."""
    return np.array([len(np.unique(column)) > _FEW_VALUES for column in condition.T])


def _some_rows(groups, seed):
    """Whole groups, in an order drawn by chance, up to the number of rows that is affordable."""
    order = np.random.default_rng(seed).permutation(groups.max() + 1)[groups]
    return np.argsort(order, kind="stable")[:_N_ROWS]


def _learnt(target, rows):
    """Covariance with letters that make the first rows likeliest."""
    n = rows.shape[1]
    lengths = np.full(n, n**0.5) if n <= _MOST_LENGTHS else n**0.5
    bent = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(lengths, (0.1, 1e3))
    straight = ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, "fixed")
    noise = WhiteKernel(0.1, (1e-6, 1e1))
    process = GaussianProcessRegressor(bent + straight + noise, alpha=_JITTER)
    return process.fit(rows[:_N_LEARNING], target[:_N_LEARNING]).kernel_


def _process(target, rows, covariance):
    """Process of the rows with a covariance as it is."""
    return GaussianProcessRegressor(covariance, alpha=_JITTER, optimizer=None).fit(rows, target)


def _left_out(target, rows, groups, process):
    """Targets less their predictions from the rows of other groups.

    The letters of the covariance fit few rows more closely than new ones: where most rows have
    taught them, each third of the rows is predicted with letters that the others teach.
    """
    # Rows of a group follow one another, in an order drawn by chance.
    number = np.cumsum(np.diff(groups, prepend=groups[0]) != 0)
    fold = number * _N_FOLDS // (number[-1] + 1)
    if len(rows) > 2 * _N_LEARNING or number[-1] < _FEWEST:
        return _residuals(process, groups)
    residuals = np.empty(len(rows))
    for k in range(_N_FOLDS):
        mine = fold == k
        taught = _process(target, rows, _learnt(target[~mine], rows[~mine]))
        residuals[mine] = _residuals(taught, groups)[mine]
    return residuals


def _residuals(process, groups):
    """Targets less their predictions from the rows of other groups."""
    inverse = cho_solve((process.L_, True), np.eye(len(groups)))
    residuals = process.alpha_ / np.diag(inverse)
    values, sizes = np.unique(groups, return_counts=True)
    for group in values[sizes > 1]:
        mine = np.flatnonzero(groups == group)
        residuals[mine] = solve(inverse[np.ix_(mine, mine)], process.alpha_[mine], assume_a="pos")
    return residuals
