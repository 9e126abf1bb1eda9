"""Funnels straightened: variables whose scale follows other variables, in units of that scale.

In a hierarchical model the spread ``exp(v / 2)`` of some variables is itself a variable ``v``. No
step suits both ends of such a funnel, and no covariance describes it. With ``y`` for the free
coordinates and ``z`` for new ones,

    ``y_j = z_j`` for most, and ``y_j = o_j + a_j . h + exp(b_j . (h - c)) z_j`` for *members*,

where ``h`` are those that are no members. With the right ``b`` the members no longer depend on the
others, which is the non-centred parameterisation [1]_; slopes between 0 and the right ones are the
partial ones, which suit members that data know well [2]_. Whatever the slopes, the map is one to
one and its Jacobian is known, so that chains in ``z`` sample the same density.

References
----------
.. [1] O. Papaspiliopoulos, G. Roberts, M. Sköld, "A general framework for the parametrization of
   hierarchical models", Statistical Science 2007.
.. [2] M. Gorinova, D. Moore, M. Hoffman, "Automatic reparameterisation of probabilistic programs",
   ICML 2020.
"""

import dataclasses

import torch

# Exponents are kept within: a factor of 10**13 either way.
LARGEST_EXPONENT = 30.0


@dataclasses.dataclass(frozen=True)
class NonCentred:
    """Map from ``z`` to free coordinates ``y``; see the module's introduction.

    Parameters
    ----------
    offset : array of shape (n_features,)
        ``o``, 0 for all but members.
    location : array of shape (n_features, n_features)
        ``a``, with rows of members and columns of the others, 0 elsewhere.
    log_scale : array of shape (n_features, n_features)
        ``b``, in the same place.
    centre : array of shape (n_features,)
        ``c``.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.target.noncentred import NonCentred
    >>> zero, slopes = torch.zeros(2), torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    >>> funnel = NonCentred(zero, 0 * slopes, slopes, zero)
    >>> y, log_jacobian = funnel(torch.tensor([[2.0, 1.0]]))
    >>> y, log_jacobian
    (tensor([[2.0000, 2.7183]]), tensor([1.]))
    """

    offset: object
    location: object
    log_scale: object
    centre: object

    @property
    def n_features(self):
        """Number of features."""
        return len(self.offset)

    n_free = n_features

    def __call__(self, z):
        """Free coordinates, and log-Jacobians."""
        exponent, middle = self._at(z)
        return middle + exponent.exp() * z, exponent.sum(1)

    def inverse(self, y):
        """The new coordinates of free ones."""
        exponent, middle = self._at(y)
        return (y - middle) * (-exponent).exp()

    def _at(self, x):
        """Exponents and centres of all columns; they follow columns that are the same in both."""
        offset, location, log_scale, centre = (
            torch.as_tensor(a, dtype=x.dtype, device=x.device) for a in dataclasses.astuple(self)
        )
        exponent = ((x - centre) @ log_scale.T).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
        return exponent, offset + x @ location.T
