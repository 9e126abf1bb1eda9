"""Running many chains in blocks that fit into the processor's cache."""

import numpy as np
import torch
from tqdm import tqdm

from skdiffusion._device import memory_advice, resolve_device
from skdiffusion._random import ChainNoise
from skdiffusion._threads import spread
from skdiffusion.diffusion.langevin.chains import Divergence, run
from skdiffusion.diffusion.target.targets import DenoiserTarget, MixtureTarget

# Bytes of the largest matrix of a block: more and it leaves the processor's cache.
_BLOCK_BYTES = 2_000_000
# Fewer chains make the overhead of a call felt, more gain nothing; a GPU wants all it can hold.
_SMALLEST_BLOCK, _LARGEST_BLOCK, _GPU_BLOCK = 64, 4096, 2**17
# Odd number by which the noise keys of the temperatures differ.
_REPLICA_KEY = 0x632BE59BD9B4E019


def block_size(target, dtype, device):
    """Chains that run together."""
    if device.type != "cpu":
        return _GPU_BLOCK
    n_chains = _BLOCK_BYTES / dtype.itemsize / target.width
    return int(min(max(n_chains, _SMALLEST_BLOCK), _LARGEST_BLOCK))


def chain_noise(keys, kernel, target, dtype):
    """Noise of the chains; every replica of a chain has a stream of its own."""
    if kernel.n_replicas > 1:
        level = torch.arange(kernel.n_replicas, device=keys.device)[:, None]
        keys = (keys + level * _REPLICA_KEY).reshape(-1)
    return ChainNoise(keys, target.n_features, dtype)


@memory_advice("Too little memory for all chains at once: lower n_chains or n_samples.")
def run_in_blocks(
    coordinates, plan, X, keys, n_draws=1, *, dtype, device, verbose=0, with_trajectory=False
):
    """Run chains that start at X.

    Parameters
    ----------
    coordinates : ChainCoordinates
        Where they run and what they sample.
    plan : Plan
        What to run.
    X : ndarray of shape (n_chains, n_features)
        Starting points in the user's coordinates.
    keys : callable
        ``keys(first, last)`` returns the noise keys of some chains.
    n_draws : int, default=1
        Draws of each chain.
    dtype : str
        Type of the chains.
    device : torch.device or str
        Where to compute.
    verbose : int, default=0
        Whether to show a progress bar.
    with_trajectory : bool, default=False
        Whether to keep where the chains were.

    Returns
    -------
    draws : ndarray of shape (n_draws, n_chains, n_features)
        Draws in the user's coordinates.
    trajectory : ndarray of shape (n_points, n_chains, n_features) or None
        Start, every ``thin`` steps, and end.
    rates : ndarray of shape (n_chains,) or None
        Mean acceptance of each chain; None where no step is refused.
    """
    dtype, device = getattr(torch, dtype), resolve_device(device)
    target = coordinates.target(dtype, device)
    block = block_size(target, dtype, device) // plan.kernel.n_replicas or 1
    n_steps = plan.total_steps(n_draws)
    starts = range(0, len(X), block)
    bar = tqdm(total=n_steps * len(starts), disable=not verbose, desc="LangevinSampler")

    def run_block(first):
        last = min(first + block, len(X))
        u = coordinates.forward(X[first:last], dtype, device)
        noise = chain_noise(keys(first, last).to(u.device), plan.kernel, target, dtype)
        path = Path(plan.thin, n_steps) if with_trajectory else None
        try:
            draws, rate = run(target, plan, u, noise, n_draws, path, bar.update)
        except Divergence as error:
            raise Divergence(f"block of chains from {first}: {error}") from None
        points = coordinates.inverse(path.points()) if with_trajectory else None
        return coordinates.inverse(draws), points, None if rate is None else rate.cpu().numpy()

    # A function of the user's need not bear being called by two workers at once.
    ours = isinstance(target, MixtureTarget | DenoiserTarget)
    with bar:
        results = list((spread if ours else map)(run_block, starts))
    draws, paths, rates = zip(*results, strict=True)
    trajectory = np.concatenate(paths, 1) if with_trajectory else None
    refuses = rates[0] is not None
    return np.concatenate(draws, 1), trajectory, np.concatenate(rates) if refuses else None


class Path:
    """Positions every ``thin`` steps, with the first and the last."""

    def __init__(self, thin, n_steps):
        self._thin, self._n_steps, self._count, self._kept = thin, n_steps, 0, []

    def __call__(self, step, x, acceptance):
        """Note a position."""
        if self._count % self._thin == 0 or self._count == self._n_steps:
            self._kept.append(x.clone())
        self._count += 1

    def points(self):
        """All positions kept."""
        return torch.stack(self._kept)
