"""Parameters that are gone: an error that says what to use instead."""

import functools


def removed(**advice):
    """Decorate ``__init__`` so that removed parameters raise a TypeError with advice.

    Parameters
    ----------
    **advice : str
        Name of a removed parameter, and what to do without it.

    Returns
    -------
    decorate : callable
        Decorator; ``inspect.signature``, and so scikit-learn, see the undecorated ``__init__``.

    Examples
    --------
    >>> from skdiffusion.estimators._removed import removed
    >>> class Model:
    ...     @removed(tol="training stops by a fixed rule; leave it out")
    ...     def __init__(self, max_iter=10):
    ...         self.max_iter = max_iter
    >>> Model(tol=0.1)
    Traceback (most recent call last):
    TypeError: Model has no parameter tol: training stops by a fixed rule; leave it out.
    """

    def decorate(init):
        @functools.wraps(init)
        def checked(self, *args, **parameters):
            for name in parameters:
                if name in advice:
                    raise TypeError(
                        f"{type(self).__name__} has no parameter {name}: {advice[name]}."
                    )
            init(self, *args, **parameters)

        return checked

    return decorate
