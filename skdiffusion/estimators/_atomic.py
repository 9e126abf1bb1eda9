"""All or nothing: an estimator whose fit fails is the estimator that it was."""

from contextlib import contextmanager


@contextmanager
def all_or_nothing(estimator):
    """Put the attributes of an estimator back where the block fails or is interrupted.

    The block must replace the values of attributes, not change them in place.

    Parameters
    ----------
    estimator : estimator
        The estimator.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> from skdiffusion.estimators._atomic import all_or_nothing
    >>> estimator = BaseEstimator()
    >>> estimator.mean_ = 0
    >>> try:
    ...     with all_or_nothing(estimator):
    ...         estimator.mean_ = 1
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     print(estimator.mean_)
    0
    """
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise
