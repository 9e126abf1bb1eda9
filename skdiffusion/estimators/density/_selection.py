"""What a density model consists of, chosen by the likelihood of held-out rows.

First the map of the columns, together with the densities in closed form that go with it; then,
on its coordinates, which of these densities is kept, alone or with a network on it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from skdiffusion._device import load_numpy_state
from skdiffusion._random import torch_generator
from skdiffusion.columns.marginals import Marginals, fit_marginals
from skdiffusion.diffusion.conditional import copied
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._rows import Rows
from skdiffusion.training.density import (
    HELD_OUT_STEPS,
    TOLERANCE,
    Recipe,
    held_out_ratios,
    split_condition,
    train_residual,
)

# In standard deviations of the data: below the first nothing is resolved, beyond the second
# nothing is left of the data but mean and covariance, which the prior has.
MIN_LEVEL, MAX_LEVEL = 1e-3, 80.0
# Fewer rows do not tell a histogram from noise.
_MIN_MARGINAL_ROWS = 50
# Rows from which "auto" tries networks: below, they gained nothing over averages of mixtures.
_MIN_NETWORK_ROWS = 1000
# Columns up to which a network alone has been seen to beat one on a base.
_MAX_UNIT_FEATURES = 3
# The choice of a network deserves a finer likelihood than the states of its training.
_CHOICE_STEPS = 4 * HELD_OUT_STEPS
# Without any gain on new rows, one to two standard errors were seen: see _is_worth_it.
_N_ERRORS = 2


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
        Log-densities of the held-out rows.
    network : torch.nn.Module, optional
        Network on the base.
    """

    name: str
    fitted: Any
    base: Any
    log_densities: torch.Tensor
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
    marginals : Marginals
        The map, of all rows.
    rows : Rows
        Mapped rows; the training and the held-out part by the map of the training rows.
    candidates : list of Candidate
        Bases alone.
    proposal : Mixture or None
        Mixture that rows are completed with where the base is N(0, I).
    gain : float
        Mean log-determinant of the held-out rows.
    stack : Stack or None
        Mixtures of the training rows, where there are any.
    """

    option: str | None
    marginals: Marginals
    rows: Rows
    candidates: list
    proposal: Any
    gain: float
    stack: Any

    @property
    def score(self):
        """Mean held-out log-likelihood of the best base, in the coordinates before the map."""
        return self.gain + max(candidate.score for candidate in self.candidates)


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
        alone = self.kept.network is None or self.kept.name != "unit"
        return None if alone else self.mapped.proposal.to(self.model.device)


def choose(rows, settings):
    """Choose maps, base and network as the held-out rows like best.

    Parameters
    ----------
    rows : Rows
        Standardised rows.
    settings : Settings
        What may be chosen from, and how networks are trained.

    Returns
    -------
    choice : Choice
        What was chosen.
    """
    mapped = _choose_map(rows, settings)
    prior = _bases.fit_gaussian(mapped.rows.data).to(settings.device)
    bare = max(mapped.candidates, key=lambda candidate: candidate.score)
    trained, history = [], {}
    for candidate in _to_train(mapped.candidates, bare, rows, settings):
        network, history[candidate.name] = _with_network(candidate, mapped.rows, prior, settings)
        trained.append(network)
    kept = max([bare, *trained], key=lambda candidate: candidate.score)
    # A network is slow to evaluate: a gain that may be chance does not pay for it.
    if (
        settings.base is not None
        and kept is not bare
        and not _is_worth_it(kept.log_densities - bare.log_densities)
    ):
        kept = bare
    scores = {one.label: one.score + mapped.gain for one in [*mapped.candidates, *trained]}
    denoiser = Denoiser(kept.base, kept.network).to(settings.device).double().requires_grad_(False)
    model = DensityModel(denoiser, prior, MIN_LEVEL, settings.max_level)
    return Choice(kept, mapped, scores, history, model)


def _choose_map(rows, settings):
    """Map the columns as held-out rows like best."""
    options = _map_options(rows, settings)
    columns = () if options == [None] else range(rows.n_features)
    histograms = [fit_marginals(part, columns) for part in (rows.train, rows.all)]
    best = stack = None
    for option in options:
        maps, stacks = histograms, None
        if option is None:
            maps = [Marginals({})] * 2
        elif option == "copula":
            stack = stack or _bases.fit_stack(rows.train, rows.held_out, settings.seed)
            maps, stacks = _bases.fit_copulas(histograms, stack, (rows.train, rows.all))
        mapped = _mapped(option, maps, rows, stacks, settings)
        if option is None:
            stack = mapped.stack
        if best is None or mapped.score > best.score:
            best = mapped
    return best


def _mapped(option, maps, rows, stacks, settings):
    """Rows under one map, and the bases fitted to them."""
    (train, _), (held_out, log_jacobian) = map(maps[0].forward, (rows.train, rows.held_out))
    there = replace(rows, train=train, held_out=held_out, all=maps[1].forward(rows.all)[0])
    bases, proposal, stacks = _fit_bases(there, stacks, settings)
    x, condition = split_condition(torch.as_tensor(held_out), rows.n_features)
    candidates = [
        Candidate(name, fitted, base, fitted.given(condition).log_density(x))
        for name, (fitted, base) in bases.items()
    ]
    stack = None if stacks is None else stacks[0]
    return Mapped(option, maps[1], there, candidates, proposal, log_jacobian.mean(), stack)


def _map_options(rows, settings):
    """Maps of the columns to try."""
    no_copula = settings.encoder is not None or settings.base not in ("auto", "mixture")
    if settings.marginals == "copula" and no_copula:
        raise ValueError(
            'marginals="copula" needs base="mixture" or "auto" and no condition; '
            'marginals="histogram" goes with any.'
        )
    if settings.marginals != "auto":
        return [settings.marginals]
    located = settings.encoder is not None and settings.encoder.regression is not None
    if located or len(rows.all) < _MIN_MARGINAL_ROWS:
        return [None]
    return [None, "histogram"] if no_copula else [None, "histogram", "copula"]


def _fit_bases(rows, copulas, settings):
    """Bases by name, of training rows and of all rows, a proposal for impute, and the stacks.

    Stacks that the maps of the columns were aimed at are taken as they are.
    """
    base, parts = settings.base, (rows.train, rows.held_out, rows.all)
    unit = _bases.fit_unit(rows.n_features)
    bases = {"unit": (unit, unit)} if base in ("auto", None) else {}
    if settings.encoder is not None:
        fits = _fit_conditional_bases(parts, settings)
        proposal = next(iter(fits.values()))[1].given()
        return bases | ({} if base is None else fits), proposal, None
    proposal, stacks = None, copulas
    if base == "gaussian":
        bases["gaussian"] = tuple(map(_bases.fit_gaussian, (rows.train, rows.all)))
    if base in ("auto", "mixture", None):
        stacks = copulas or _bases.fit_stacks(*parts, settings.seed)
        proposal = stacks[1].density
        if base is not None:
            bases["mixture"] = stacks[0].density, proposal
    # Copies of a point, which leaving it out leaves in, would fool a kernel estimate. On the
    # coordinates of a copula it is as good as on normal scores.
    small = rows.n_features <= _bases.MAX_KDE_FEATURES and len(rows.all) <= _bases.MAX_KDE_ROWS
    if base == "kde" or (base == "auto" and rows.few_repeats and small and copulas is None):
        bases["kde"] = _bases.fit_kde(rows.train, rows.all)
    return bases, proposal, stacks


def _fit_conditional_bases(parts, settings):
    """Bases given the condition, by name: of the training rows, and of all rows."""
    if settings.base == "kde":
        raise ValueError(
            'base="kde" has no conditional form here: use base="mixture" or "auto" with '
            "a condition."
        )
    names = ["mixture"] if settings.base in ("auto", None) else [settings.base]
    if settings.base == "auto" and settings.encoder.regression is not None:
        names.append("regression")
    seed = settings.seed % 2**31
    return {name: settings.encoder.fit_base(name, *parts, seed) for name in names}


def _to_train(candidates, bare, rows, settings):
    """Bases that a network is trained on.

    In few columns a network alone, on N(0, I), has a chance where normals are too smooth for
    the data, which shows in a kernel estimate that beats their mixture.
    """
    auto = settings.base == "auto" and not settings.own_network
    n_rows = len(rows.train) + len(rows.held_out)
    if settings.max_iter == 0 or (auto and n_rows < _MIN_NETWORK_ROWS):
        return []
    sharp = rows.n_features <= _MAX_UNIT_FEATURES and bare.name == "kde"
    unit = [candidate for candidate in candidates if candidate.name == "unit"]
    alone = bare.name != "unit" and (sharp or settings.own_network)
    return [bare, *unit] if alone else [bare]


def _with_network(candidate, rows, prior, settings):
    """The candidate with a network trained on it, and the history of the training."""
    generator = torch_generator(settings.seed)
    network = settings.make_network(generator)
    denoiser = Denoiser(copied(candidate.fitted), network).to(settings.device).float()
    if settings.start is not None and settings.start[0] == candidate.name:
        _load_start(network, settings.start[1])
    model = DensityModel(denoiser, prior, MIN_LEVEL, settings.max_level)
    history = train_residual(
        model,
        rows.train,
        settings.recipe,
        generator,
        n_steps=settings.max_iter,
        held_out=rows.held_out,
        leave_out=candidate.name == "kde",
        name=candidate.name,
    )
    ratio = held_out_ratios(model, torch.as_tensor(rows.held_out), _CHOICE_STEPS)
    log_densities = ratio + candidate.log_densities
    return replace(candidate, log_densities=log_densities, network=network), history


def _is_worth_it(gains):
    """Whether the mean gain of held-out rows counts: above the tolerance and two standard errors.

    The same rows have chosen the best of twenty states of the network: without any gain on new
    rows, one to two standard errors were seen.
    """
    error = float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) > max(TOLERANCE, _N_ERRORS * error)


def _load_start(network, weights):
    """Put the weights of an earlier network into one that must look alike."""
    try:
        load_numpy_state(network, weights)
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True needs a network like that of the fit before: the same columns, labels "
            "and hidden_layer_sizes. Clone the estimator to start afresh."
        ) from error
