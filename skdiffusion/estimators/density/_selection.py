"""What a density model consists of, chosen by the likelihood of held-out rows.

First the map of the columns, together with the densities in closed form that go with it; then,
on its coordinates, which of these densities is kept, alone or with a network on it.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skdiffusion._device import load_numpy_state
from skdiffusion._random import torch_generator
from skdiffusion._warn import warn
from skdiffusion.columns.marginals import Marginals, fit_marginals
from skdiffusion.diffusion.conditional import copied
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._chain import fit_chain
from skdiffusion.estimators.density._choice import Candidate, Choice, Mapped
from skdiffusion.estimators.density._closeness import close_by
from skdiffusion.training.density import (
    HELD_OUT_STEPS,
    TOLERANCE,
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
# Fewer training steps are a trial, from which nobody expects a gain.
_FEWEST_STEPS = 25
# Columns up to which a network alone has been seen to beat one on a base.
_MAX_UNIT_FEATURES = 3
# Beside a chain mixtures are first sketched, on so many rows. Where it is ahead of these by so
# much, in nats a row and in standard errors, they are left as they are.
_SKETCH_ROWS, _FAR_AHEAD, _FAR_ERRORS = 3000, 1.0, 3
# Rows that a network on a chain learns from at most.
_MOST_ROWS = 200_000
# The choice of a network deserves a finer likelihood than the states of its training.
_CHOICE_STEPS = 2 * HELD_OUT_STEPS
# Gain in nats a row below which a network, which makes scores a hundred times as slow, is not kept.
_LEAST_GAIN = 0.01
# Without any gain on new rows, one to two standard errors were seen: see _is_worth_it.
_N_ERRORS = 2


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
    history, trained, chained = {}, [], None
    wants_chain, options = _wants_chain(rows, settings), _map_options(rows, settings)
    tried = _try_maps(options, rows, settings, sketched=wants_chain)
    mapped = max(tried, key=lambda mapped: mapped.score)
    course = settings.recipe.course
    if wants_chain:
        # Histograms know the ends of columns, which no smooth density of a column does.
        behind = next((one for one in tried if one.option == "histogram"), mapped)
        # It is learnt behind the maps of the training rows, and stays there: those of all rows move
        # sharp edges of columns (1.6 and 3.7 nats on other rows of a table with grids).
        behind = replace(behind, marginals=behind.fitted_marginals)
        chained, history["columns"] = _with_chain(behind, settings)
    if wants_chain and settings.base == "auto" and not _is_far_ahead(chained, mapped.best):
        options = _not_behind(tried, mapped)
        mapped = max(_try_maps(options, rows, settings), key=lambda mapped: mapped.score)
    candidates = [] if settings.base == "chain" else mapped.candidates
    candidates = candidates if chained is None else [*candidates, chained]
    candidates = close_by(candidates, settings)
    bare = max(candidates, key=lambda candidate: candidate.score)
    to_train = _to_train(candidates, bare, rows, settings)
    course.expect(len(to_train))
    for candidate in to_train:
        if not course.has_time():
            course.skip(candidate.name)
            continue
        network, history[candidate.name] = _with_network(candidate, settings)
        trained.append(network)
    kept = max([bare, *trained], key=lambda candidate: candidate.score)
    # A network is slow to evaluate: a gain that is small or may be chance does not pay for it.
    if (
        settings.base is not None
        and kept is not bare
        and not _is_worth_it(kept.log_densities - bare.log_densities, _LEAST_GAIN)
    ):
        kept = bare
    if settings.base is None and trained:
        _warn_useless(history[bare.name])
    scores = {one.label: one.score for one in [*candidates, *trained]}
    mapped = mapped if kept.chain is None else behind
    denoiser = Denoiser(kept.base, kept.network).to(settings.device).double().requires_grad_(False)
    return Choice(kept, mapped, scores, history, _model(denoiser, kept, settings))


def _try_maps(options, rows, settings, *, sketched=False):
    """Rows under some maps of the columns, with their bases.

    The mixtures among these are sketched, of some rows from one start, or fitted in full.
    """
    few = rows.sketch(_SKETCH_ROWS) if sketched else rows
    columns = () if options == [None] else range(rows.n_features)
    histograms = [fit_marginals(part, columns) for part in (rows.train, rows.all)]
    tried, stack = [], None
    for option in options:
        maps, stacks = histograms, None
        if option is None:
            maps = [Marginals({})] * 2
        elif option == "copula":
            stack = stack or _bases.fit_stack(few.train, few.held_out, settings.seed, sketched)
            maps, stacks = _bases.fit_copulas(histograms, stack, (few.train, few.all))
        tried.append(_mapped(option, maps, rows, stacks, settings, sketched))
        if option is None:
            stack = tried[-1].stack
    return tried


def _mapped(option, maps, rows, stacks, settings, sketched):
    """Rows under one map, and the bases fitted to them."""
    (train, _), (held_out, log_jacobian) = map(maps[0].forward, (rows.train, rows.held_out))
    there = replace(rows, train=train, held_out=held_out, all=maps[1].forward(rows.all)[0])
    bases, proposal, stacks = _fit_bases(there, stacks, settings, sketched)
    x, condition = split_condition(torch.as_tensor(held_out), rows.n_features)
    log_jacobian = torch.as_tensor(log_jacobian)
    candidates = [
        Candidate(
            name, fitted, base, _bases.log_densities(fitted, x, condition) + log_jacobian, there
        )
        for name, (fitted, base) in bases.items()
    ]
    stack = None if stacks is None else stacks[0]
    return Mapped(option, maps[1], maps[0], there, candidates, proposal, log_jacobian, stack)


def _not_behind(tried, best):
    """Names of the best map and of those whose mixtures held-out rows do not clearly like less.

    Sketches are compared with sketches: a kernel estimate, which is of all rows, was ahead of that
    of a copula which, of all rows too, is .05 nats a row ahead of it (a checkerboard).
    """
    sketches = [
        next(one.log_densities for one in mapped.candidates if one.name == "mixture")
        for mapped in tried
    ]
    first = max(sketches, key=lambda log_densities: float(log_densities.mean()))
    return [
        mapped.option
        for mapped, sketch in zip(tried, sketches, strict=True)
        if mapped is best or not _is_worth_it(first - sketch)
    ]


def require_consistent(base, marginals, encoder):
    """Raise for parameters that do not go together, before the work begins."""
    if marginals == "copula" and _refuses_copula(base, encoder):
        raise ValueError(
            'marginals="copula" needs base="mixture" or "auto" and no condition; '
            'marginals="histogram" goes with any.'
        )
    if encoder is not None and base in ("kde", "chain"):
        raise ValueError(
            f'base="{base}" has no conditional form here: use base="mixture" or "auto" with a '
            "condition."
        )


def _refuses_copula(base, encoder):
    """Whether there is no mixture of all columns for maps to be aimed at."""
    return encoder is not None or base not in ("auto", "mixture", "chain")


def _map_options(rows, settings):
    """Maps of the columns to try."""
    no_copula = _refuses_copula(settings.base, settings.encoder)
    if settings.marginals != "auto":
        return [settings.marginals]
    located = settings.encoder is not None and settings.encoder.regression is not None
    if located or len(rows.all) < _MIN_MARGINAL_ROWS:
        return [None]
    if settings.base == "chain":
        return ["histogram"]
    return [None, "histogram"] if no_copula else [None, "histogram", "copula"]


def _fit_bases(rows, copulas, settings, sketched):
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
    if base in ("auto", "mixture", "chain", None):
        few = rows.sketch(_SKETCH_ROWS) if sketched else rows
        few, progress = (few.train, few.held_out, few.all), settings.recipe.progress
        stacks = copulas or _bases.fit_stacks(*few, settings.seed, sketched, progress)
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
    names = ["mixture"] if settings.base in ("auto", None) else [settings.base]
    if settings.base == "auto" and settings.encoder.regression is not None:
        names.append("regression")
    seed = settings.seed % 2**31
    progress = settings.recipe.progress
    return {name: settings.encoder.fit_base(name, *parts, seed, progress) for name in names}


def _to_train(candidates, bare, rows, settings):
    """Bases that a network is trained on.

    In few columns a network alone, on N(0, I), has a chance where normals are too smooth for
    the data, which shows in a kernel estimate that beats their mixture. What is not far behind a
    chain has its chance too: a network can add more to it than to the chain.
    """
    auto = settings.base == "auto" and not settings.own_network
    n_rows = len(rows.train) + len(rows.held_out)
    if settings.max_iter == 0 or (auto and n_rows < _MIN_NETWORK_ROWS):
        return []
    sharp = rows.n_features <= _MAX_UNIT_FEATURES and bare.name == "kde"
    unit = [candidate for candidate in candidates if candidate.name == "unit"]
    alone = bare.name != "unit" and (sharp or settings.own_network)
    rivals = [candidate for candidate in candidates if candidate.chain is None]
    rival = max(rivals, key=lambda candidate: candidate.score, default=bare)
    chased = bare.chain is not None and rival is not bare and not _is_far_ahead(bare, rival)
    return [bare, *([rival] if chased else []), *(unit if alone else [])]


def _wants_chain(rows, settings):
    """Whether a chain of columns is to be tried."""
    if settings.base == "chain":
        return True
    enough = rows.n_features > 1 and len(rows.train) + len(rows.held_out) >= _MIN_NETWORK_ROWS
    plain = settings.base == "auto" and settings.encoder is None and not settings.own_network
    return plain and enough and settings.max_iter > 0 and settings.recipe.course.has_time()


def _is_far_ahead(chained, other):
    """Whether a chain is so far ahead of a density that more work on that one is in vain."""
    gains = chained.log_densities - other.log_densities
    error = float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) > max(_FAR_AHEAD, _FAR_ERRORS * error)


def _with_chain(mapped, settings):
    """Candidate of N(0, I) behind a chain of columns, and the history of its training."""
    rows = mapped.rows
    fitted, final = (
        {j: _mapped_ends(ends, j, rows.n_features, marginals) for j, ends in settings.cells.items()}
        for marginals in (mapped.fitted_marginals, mapped.marginals)
    )
    recipe, n_after = settings.recipe, int(settings.max_iter > 0)
    options = settings.seed, recipe.course, recipe.progress, n_after, fitted
    chain, history = fit_chain(rows.train, rows.held_out, *options)
    held_out, log_jacobian = chain.forward(rows.held_out)
    train = chain.forward(rows.train[:_MOST_ROWS])[0]
    # The network learns from the training rows, and so may the prior.
    there = replace(rows, train=train, held_out=held_out, all=train)
    unit = _bases.fit_unit(rows.n_features)
    log_densities = unit.log_density(torch.as_tensor(held_out)) + torch.as_tensor(log_jacobian)
    log_densities = log_densities + mapped.log_jacobian
    chain = chain.with_cells(final)
    return Candidate("chain", unit, unit, log_densities, there, chain), history


def _mapped_ends(ends, column, n_features, marginals):
    """Ends of the cells of a column under a map of the columns."""
    rows = np.zeros((len(ends), n_features))
    rows[:, column] = ends
    return marginals.forward(rows)[0][:, column].copy()


def _model(denoiser, candidate, settings):
    """Model of a denoiser in the coordinates of a candidate."""
    prior = _bases.fit_gaussian(candidate.rows.data).to(settings.device)
    return DensityModel(denoiser, prior, MIN_LEVEL, settings.max_level)


def _with_network(candidate, settings):
    """The candidate with a network trained on it, and the history of the training."""
    rows = candidate.rows
    generator = torch_generator(settings.seed)
    network = settings.make_network(generator)
    denoiser = Denoiser(copied(candidate.fitted), network).to(settings.device).float()
    if settings.start is not None and settings.start[0] == candidate.name:
        _load_start(network, settings.start[1])
    model = _model(denoiser, candidate, settings)
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


def _warn_useless(history):
    """Say so if no state of a network alone was better than the untrained one, N(0, I)."""
    if len(history["loss"]) >= _FEWEST_STEPS and history["best_step"] == 0:
        warn(
            f"{len(history['loss'])} training steps did not raise the held-out likelihood above "
            "that of N(0, I), which is what is kept (see history_): lower learning_rate, raise "
            "max_iter, or start from a density (base='auto').",
            ConvergenceWarning,
        )


def _is_worth_it(gains, least=TOLERANCE):
    """Whether the mean gain of held-out rows counts: above ``least`` and two standard errors.

    The same rows have chosen the best of twenty states of the network: without any gain on new
    rows, one to two standard errors were seen.
    """
    error = float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) > max(least, _N_ERRORS * error)


def _load_start(network, weights):
    """Put the weights of an earlier network into one that must look alike."""
    try:
        load_numpy_state(network, weights)
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True needs a network like that of the fit before: the same columns, labels "
            "and hidden_layer_sizes. Clone the estimator to start afresh."
        ) from error
