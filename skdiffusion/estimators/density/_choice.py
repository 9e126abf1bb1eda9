"""What may be chosen for a density model, and what was."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from skdiffusion.columns.marginals import Marginals
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators.density._rows import Rows
from skdiffusion.training.density import Recipe


@dataclass(frozen=True)
class Settings:
    """What of an estimator decides on its model.

    Parameters
    ----------
    base, marginals : str or None
        As in ScoreSDE.
    encoder : Labels, Values or None
        The condition.
    max_iter : int
        Training steps of a network at most; 0 tries none.
    own_network : bool
        Whether the network is the user's, which is then always tried.
    make_network : callable
        ``make_network(generator)`` returns an untrained network.
    recipe : Recipe
        How networks are trained.
    start : tuple of str and dict, optional
        Base and weights of the network of an earlier fit.
    max_level : float
        Largest noise level.
    seed : int
        Seed of everything random.
    device : torch.device
        Where networks are trained.
    cells : dict of int to ndarray
        Where the cells of labels end, by column, in standardised rows.
    """

    base: str | None
    marginals: str | None
    encoder: Any
    max_iter: int
    own_network: bool
    make_network: Callable
    recipe: Recipe
    start: tuple | None
    max_level: float
    seed: int
    device: torch.device
    cells: dict


@dataclass(frozen=True)
class Candidate:
    """A density that may be kept.

    Parameters
    ----------
    name : str
        Name of the base.
    fitted, base : Mixture, ConditionalMixture, LabelledMixture or LocatedMixture
        The base of the training rows and that of all rows.
    log_densities : tensor of shape (n_held_out,)
        Log-densities of the held-out rows, in the coordinates before all maps.
    rows : Rows
        The rows in the coordinates of the base.
    chain : Chain, optional
        The way to them from the mapped columns.
    network : torch.nn.Module, optional
        Network on the base.
    """

    name: str
    fitted: Any
    base: Any
    log_densities: torch.Tensor
    rows: Rows
    chain: Any = None
    network: Any = None

    @property
    def label(self):
        """Name of base and network together."""
        return self.name if self.network is None else f"{self.name} + network"

    @property
    def score(self):
        """Mean held-out log-likelihood."""
        return float(self.log_densities.mean())


@dataclass(frozen=True)
class Mapped:
    """Rows in the coordinates of one map of the columns, with the bases that may be kept there.

    Parameters
    ----------
    option : str or None
        Name of the map.
    marginals, fitted_marginals : Marginals
        The map, of all rows and of the training rows.
    rows : Rows
        Mapped rows; the training and the held-out part by the map of the training rows.
    candidates : list of Candidate
        Bases alone.
    proposal : Mixture or None
        Mixture that rows are completed with where the base is N(0, I), or behind a chain.
    log_jacobian : tensor of shape (n_held_out,)
        Log-determinant of the map at the held-out rows.
    stack : Stack or None
        Mixtures of the training rows, where there are any.
    """

    option: str | None
    marginals: Marginals
    fitted_marginals: Marginals
    rows: Rows
    candidates: list
    proposal: Any
    log_jacobian: torch.Tensor
    stack: Any

    @property
    def best(self):
        """The base with the best held-out likelihood."""
        return max(self.candidates, key=lambda candidate: candidate.score)

    @property
    def score(self):
        """Mean held-out log-likelihood of the best base."""
        return self.best.score


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Parameters
    ----------
    kept : Candidate
        The density.
    mapped : Mapped
        Its coordinates.
    scores : dict of str to float
        Mean held-out log-likelihood of all candidates, in the coordinates before the map.
    history : dict of str to dict
        Training history of every network.
    model : DensityModel
        The density of all rows.
    """

    kept: Candidate
    mapped: Mapped
    scores: dict
    history: dict
    model: DensityModel

    @property
    def proposal(self):
        """Mixture that rows are completed with; None where the base serves."""
        unit_and_network = self.kept.name == "unit" and self.kept.network is not None
        needed = unit_and_network or self.kept.chain is not None
        return self.mapped.proposal.to(self.model.device) if needed else None
