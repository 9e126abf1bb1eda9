"""How far draws of a density given values are from held-out rows.

Where values repeat, a narrow peak on one of them has a likelihood without bound, and a base that
says little of all other rows would be kept for it. The energy score, which is the CRPS in one
column, is bounded by what was seen.
"""

import torch

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.analytic.kinds import RowMixture
from skdiffusion.metrics import energy_score
from skdiffusion.training.density import split_condition

# Held-out rows that are drawn for at most, which would fill the memory by the ten thousand; draws
# of each; and how many times the smallest energy score is too far.
_MOST_ROWS, _N_DRAWS, _FAR_WORSE = 1000, 100, 1.25


def close_by(candidates, settings):
    """Leave out bases given values whose draws are far worse than those of another.

    Other densities are all kept.

    Parameters
    ----------
    candidates : list of Candidate
        Bases alone.
    settings : Settings
        Its encoder says what is given, its seed makes the draws.

    Returns
    -------
    near : list of Candidate
        Those that may be kept.
    """
    given = settings.encoder
    if given is None or given.kind != "value" or len(candidates) < 2:
        return candidates
    errors = [_energy(candidate, settings.seed) for candidate in candidates]
    near = _FAR_WORSE * min(errors)
    return [one for one, error in zip(candidates, errors, strict=True) if error <= near]


def _energy(candidate, seed):
    """Mean energy score of draws of the held-out rows."""
    rows = candidate.rows
    some = rows.held_out[:: -(-len(rows.held_out) // _MOST_ROWS)]
    x, condition = split_condition(torch.as_tensor(some), rows.n_features)
    shape, generator = (len(x), _N_DRAWS), torch_generator(seed)
    given = candidate.fitted.given(condition)
    if isinstance(given, RowMixture):
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64)
        noise = torch.randn((*shape, rows.n_features), generator=generator, dtype=torch.float64)
        draws = given.sample(uniforms, noise)
    else:
        draws = given.sample(shape[0] * shape[1], generator).reshape(*shape, -1)
    return energy_score(x.numpy(), draws.numpy())
