"""What the swaps of a tempered chain say of its ladder of temperatures."""

import torch


class Swaps:
    """Counts refused swaps and round trips of replicas.

    A round trip leads a replica from the coldest temperature to the hottest one and back: each
    brings the chain a position that has forgotten where it came from [1]_.

    Parameters
    ----------
    n_temperatures : int
        Number of temperatures.

    References
    ----------
    .. [1] S. Syed, A. Bouchard-Côté, G. Deligiannidis, A. Doucet, "Non-reversible parallel
       tempering: a scalable highly parallel MCMC scheme", JRSS B 2022,
       https://doi.org/10.1111/rssb.12464.
    """

    def __init__(self, n_temperatures):
        self.n_temperatures = n_temperatures
        self.round_trips = 0
        self._tried, self._refused = 0.0, 0.0
        self._replica, self._was_hot, self._began = None, None, None

    def __call__(self, info):
        """Note the swaps of one step of all chains."""
        if info is None or info.swapped is None:
            return
        tried = ~info.swap_acceptance.isnan()
        refused = (1 - info.swap_acceptance).nan_to_num(0.0)
        self._tried = self._tried + tried.double().sum((0, 2))
        self._refused = self._refused + refused.double().sum((0, 2))
        for swapped in info.swapped:
            self._follow(swapped)

    def start_over(self):
        """Forget which replicas are where: other chains come, whose swaps are added."""
        self._replica, self._was_hot, self._began = None, None, None

    @property
    def rejections(self):
        """Share of refused swaps of every pair of neighbours."""
        return torch.as_tensor(self._refused / self._tried).reshape(-1)

    @property
    def barrier(self):
        """Communication barrier, the sum of the rejections: it hardly depends on the ladder."""
        return float(self.rejections.sum())

    def _follow(self, swapped):
        """Move the labels of replicas, and count those that are back from the hottest end."""
        level = torch.arange(self.n_temperatures, device=swapped.device)[:, None]
        if self._replica is None:
            self._replica = level.repeat(1, swapped.shape[1])
            self._was_hot = torch.zeros_like(self._replica, dtype=torch.bool)
            # Only what began at the cold end counts.
            self._began = self._was_hot.clone()
        no = torch.zeros_like(swapped[:1])
        source = level + torch.cat([swapped, no]).long() - torch.cat([no, swapped]).long()
        self._replica = self._replica.gather(0, source)
        self._was_hot = self._was_hot.gather(0, source)
        self._began = self._began.gather(0, source)
        self.round_trips += int((self._was_hot[0] & self._began[0]).sum())
        self._began[0], self._was_hot[0] = True, False
        self._was_hot[-1] |= self._began[-1]


def equal_rejections(inverse_temperatures, rejections, n_temperatures):
    """Ladder on which neighbours refuse swaps equally often.

    Parameters
    ----------
    inverse_temperatures : sequence of float
        Ladder in use, decreasing.
    rejections : sequence of float
        Share of refused swaps of every pair of neighbours.
    n_temperatures : int
        Temperatures of the new ladder.

    Returns
    -------
    inverse_temperatures : list of float
        New ladder with the same ends: equal steps of the cumulative rejection, which is
        interpolated in the logarithm of the temperature [1]_.

    References
    ----------
    .. [1] S. Syed, A. Bouchard-Côté, G. Deligiannidis, A. Doucet, "Non-reversible parallel
       tempering: a scalable highly parallel MCMC scheme", JRSS B 2022,
       https://doi.org/10.1111/rssb.12464.

    Examples
    --------
    >>> from skdiffusion.diffusion.langevin import equal_rejections
    >>> [round(b, 3) for b in equal_rejections([1.0, 0.1, 0.01], [0.2, 0.6], 5)]
    [1.0, 0.1, 0.046, 0.022, 0.01]
    """
    logs = torch.as_tensor(inverse_temperatures, dtype=torch.float64).log()
    # No pair is without any barrier, or its temperatures would drift apart for good.
    steps = torch.as_tensor(rejections, dtype=torch.float64).clamp(min=0.02)
    barrier = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    wanted = torch.linspace(0, float(barrier[-1]), n_temperatures, dtype=torch.float64)
    right = torch.searchsorted(barrier, wanted).clamp(1, len(logs) - 1)
    share = (wanted - barrier[right - 1]) / steps[right - 1]
    new = (logs[right - 1] + share * (logs[right] - logs[right - 1])).exp().tolist()
    return [float(inverse_temperatures[0]), *new[1:-1], float(inverse_temperatures[-1])]
