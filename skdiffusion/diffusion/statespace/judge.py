"""What a fitted state space says of cells that it did not see, and how good that is."""

import math
from dataclasses import dataclass

import torch

from skdiffusion.diffusion.statespace.kalman import StateSpace
from skdiffusion.diffusion.statespace.smoother import smooth


@dataclass
class Fit:
    """A fitted model and what it says of cells that it did not see.

    Attributes
    ----------
    model : StateSpace
        The model.
    crps : float
        Mean CRPS of the hidden cells.
    error, deviation, column : tensors
        Of each hidden cell: error of the mean, predicted standard deviation, and its column.
    completed : tensor of shape (B, T, K)
        The values that were seen, and the smoother's means in place of the others.
    deep : tuple (error, deviation, column)
        The same of cells deep in gaps of all columns.
    n_gaps : int
        Number of these gaps.
    """

    model: StateSpace
    crps: float
    error: torch.Tensor
    deviation: torch.Tensor
    column: torch.Tensor
    completed: torch.Tensor
    deep: tuple = ()
    n_gaps: int = 0

    @property
    def surprise(self):
        """Mean negative log-density of the hidden cells, linear beyond three deviations.

        It sees a wrong spread, which the CRPS hardly does; far errors are the shape's matter.
        """
        z = (self.error / self.deviation).abs()
        return float((torch.where(z < 3, 0.5 * z * z, 3 * z - 4.5) + self.deviation.log()).mean())


def clearly_better(one, other, gain=0.0):
    """Whether a fit has a lower CRPS by this share and by a standard error of the difference."""
    difference = normal_crps(other.error, other.deviation) - normal_crps(one.error, one.deviation)
    error = float(difference.std()) / math.sqrt(len(difference))
    return other.crps - one.crps > max(gain * other.crps, error)


def judged(model, pieces, hidden):
    """The fit of a model and its smoothed states: these are without hidden cells, which it is
    compared with.
    """
    seen = pieces.observed & ~hidden
    smoothed = smooth(model, pieces.values * seen, seen)
    mean, variance = model.cells(smoothed.mean, smoothed.covariance)
    deviation = (variance + model.noise).sqrt()[hidden]
    error = (pieces.values - mean)[hidden]
    column = torch.nonzero(hidden)[:, -1]
    crps = float(normal_crps(error, deviation).mean())
    completed = torch.where(seen, pieces.values, mean)
    return Fit(model, crps, error, deviation, column, completed), smoothed


def normal_crps(error, deviation):
    """CRPS of normal distributions (Gneiting & Raftery 2007, equation 21, negated)."""
    z = error / deviation
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return deviation * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
