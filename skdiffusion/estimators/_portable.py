"""Estimators that come from another machine."""

from sklearn.base import BaseEstimator

from skdiffusion._device import is_available
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
        if "device" in state and not is_available(self.device):
            warn(f"device={self.device!r} is not on this machine: it is set to 'auto'.")
            self.device = "auto"
