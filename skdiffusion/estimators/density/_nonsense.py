"""Draws that cannot be right, and what brings them about."""

from skdiffusion._warn import warn
from skdiffusion.diffusion.solve import NORMAL_SPREADS, log_levels, spread_of_normal

# Standard deviations beyond which few of the training rows lie, whatever their distribution, and
# the share of the draws that may lie there.
_FAR, _MOST_FAR = 12.0, 0.05
# Steps that a solver needs over the range of noise levels; with fewer, draws leave the data.
_FEWEST_STEPS = {"heun": 6, "euler_maruyama": 11}
# About the range of noise levels that draws go through.
_RANGE = 0.002, 80.0


def warn_nonsense(rows, network, solver, n_steps):
    """Warn of draws of a network that lie far outside the training data, or are bound to.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_features)
        Draws, in standard deviations of the training data.
    network : torch.nn.Module or None
        The network; draws of a base alone are exact.
    solver : str
        Name of the solver.
    n_steps : int
        Its steps.
    """
    if network is None:
        return
    if n_steps < (needed := _FEWEST_STEPS.get(solver, 0)):
        warn(
            f"n_steps={n_steps} are too few for solver={solver!r}, whose draws leave the data with "
            f"fewer than {needed} steps: raise n_steps."
        )
        return
    if solver != "adaptive":
        spread = spread_of_normal(solver, tuple(log_levels(n_steps, *_RANGE)))
        if spread < NORMAL_SPREADS[0]:
            warn(
                f"n_steps={n_steps} are too few for solver={solver!r}: of a standard normal it "
                f"would draw with standard deviation {spread:.2g}. Raise n_steps."
            )
            return
    n_far = int((rows.abs() > _FAR).any(1).sum())
    if n_far > max(1, _MOST_FAR * len(rows)):
        warn(
            f"{n_far} of {len(rows)} draws lie more than {_FAR:g} standard deviations from the "
            f"centre of the training data, which cannot be right: raise n_steps (now {n_steps}) "
            "or train the network for longer (max_iter), or start from a density (base='auto')."
        )
