"""Self-supervised training of an imputation denoiser on windows of incomplete series."""

import torch

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.training._loop import train

# Training ends when so many validations in a row are no better than the best before. The one of
# the untrained network does not count: it may be passed only after some hundred steps.
_N_WITHOUT_GAIN = 3
# Validation shows about this many cells, in chunks of about so many.
_VALIDATION_CELLS, _CELLS_PER_CHUNK = 50_000, 10_000


def train_imputer(model, series, starts, held_out, strategy, *, batch_size, seed, **options):
    """Train ``model`` in place on random windows, hiding observed cells by ``strategy``.

    Parameters
    ----------
    model : ImputationDenoiser
        The denoiser.
    series : WindowedSeries
        The data, on the device of the model.
    starts : int64 tensor
        Windows to learn from.
    held_out : int64 tensor
        Windows to validate on; if empty the last weights are kept.
    strategy : callable
        Target strategy of :mod:`skdiffusion.training.masking`.
    batch_size : int
        Windows in a batch.
    seed : int
        Fixes windows, masks and noise.
    **options
        Passed to :func:`skdiffusion.training.train`.

    Returns
    -------
    history : dict
        As returned by :func:`skdiffusion.training.train`.
    """
    generator = torch_generator(seed)
    pool = lambda gen: lambda n: _observed(series, _choose(starts, n, gen))  # noqa: E731

    # Few windows are shown several times under different masks.
    n_cells = series.length * series.values.shape[1]
    repeated = held_out.repeat(max(1, round(_VALIDATION_CELLS / max(len(held_out) * n_cells, 1))))
    chunks = repeated.split(max(1, _CELLS_PER_CHUNK // n_cells))

    def batch_loss(module, chosen, gen, held_out=False):
        known = _observed(series, chosen)
        targets = strategy(known, gen, pool(gen))
        values = series.values[series.rows(chosen.to(series.values.device))]
        known, targets = known.to(values.device), targets.to(values.device)
        # Every window is a series of its own, as each hides other cells.
        shown = WindowedSeries.stack(values, known & ~targets)
        loss = module.held_out_loss if held_out else module.loss
        return loss(module.prepare(shown), shown.rows(shown.offsets[:-1]), values, targets, gen)

    def validate(module):
        # The same masks and noise every time: only the weights differ.
        gen = torch_generator(seed + 1)
        losses = [batch_loss(module, chunk, gen, held_out=True) * len(chunk) for chunk in chunks]
        return sum(losses) / len(repeated)

    return train(
        model,
        lambda step: batch_loss(model, _choose(starts, batch_size, generator), generator),
        validate=validate if len(held_out) else None,
        stop=_gains_no_more,
        **options,
    )


def _gains_no_more(trace):
    """Whether the last validations are no better than those of the trained network before."""
    losses = [loss for _, loss in trace[1:]]
    before, last = losses[:-_N_WITHOUT_GAIN], losses[-_N_WITHOUT_GAIN:]
    return len(before) > 0 and min(last) >= min(before)


def hides_nothing(series, starts, strategy, *, n_windows, seed):
    """Whether a strategy hides no observed cell of ``n_windows`` random windows.

    Parameters
    ----------
    series : WindowedSeries
        The data.
    starts : int64 tensor
        Windows to learn from.
    strategy : callable
        Target strategy of :mod:`skdiffusion.training.masking`.
    n_windows : int
        Number of windows, drawn with replacement.
    seed : int
        Fixes windows and masks.

    Returns
    -------
    nothing : bool
        True if training would have no target.
    """
    generator = torch_generator(seed)
    observed = _observed(series, _choose(starts, n_windows, generator))
    pool = lambda n: _observed(series, _choose(starts, n, generator))  # noqa: E731
    return not bool(strategy(observed, generator, pool).any())


def _observed(series, starts):
    """Observed masks (B, L, K) of windows, where the strategies work: on the CPU."""
    return series.observed[series.rows(starts.to(series.observed.device))].cpu()


def _choose(starts, n, generator):
    """Draw ``n`` windows."""
    return starts[torch.randint(len(starts), (n,), generator=generator)]
