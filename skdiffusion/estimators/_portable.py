"""What every estimator does after ``fit``, perhaps on another machine, with other parameters."""

from inspect import Parameter, signature

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skdiffusion._device import is_available
from skdiffusion._random import draw_seed
from skdiffusion._warn import warn


class PortableEstimator(BaseEstimator):
    """Estimator with a parameter ``device``, which becomes "auto" where a machine lacks it.

    Examples
    --------
    >>> import pickle
    >>> from skdiffusion import CSDIImputer
    >>> pickle.loads(pickle.dumps(CSDIImputer(device="cpu"))).device
    'cpu'
    """

    def __setstate__(self, state):
        super().__setstate__(state)
        # A file of an earlier version lacks the parameters that are new; their defaults are what
        # it did.
        for name, parameter in signature(type(self).__init__).parameters.items():
            if name not in state and parameter.kind is Parameter.KEYWORD_ONLY:
                setattr(self, name, parameter.default)
        if "device" in state and not is_available(self.device):
            warn(f"device={self.device!r} is not on this machine: it is set to 'auto'.")
            self.device = "auto"

    def _require_fitted(self):
        """Raise unless fitted, with parameters that are allowed: they may have been set since."""
        check_is_fitted(self)
        self._validate_params()

    def _seed_of_call(self, random_state):
        """Seed of one call, by default that of the estimator."""
        return draw_seed(self.random_state if random_state is None else random_state)
