"""Self-supervised training of an imputation denoiser on windows of incomplete series."""

from typing import NamedTuple

import torch

from skdiffusion._random import torch_generator
from skdiffusion.training._loop import train

# Training ends when so many validations in a row are no better than the best before, of five at
# least: while the learning rate is high the losses wander, and what a network gains on its Gaussian
# it gains late. The validation of the untrained network does not count.
_FEWEST_BEFORE = 5
_N_WITHOUT_GAIN = 3
# Validation shows about this many cells, in chunks of about so many.
_VALIDATION_CELLS, _CELLS_PER_CHUNK = 50_000, 10_000
# Batches whose windows are prepared in one call, where a denoiser shows them several times.
_BATCHES_AHEAD = 8


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
    # Few windows are shown several times under different masks.
    n_cells = series.length * series.values.shape[1]
    repeated = held_out.repeat(max(1, round(_VALIDATION_CELLS / max(len(held_out) * n_cells, 1))))
    chunks = repeated.split(max(1, _CELLS_PER_CHUNK // n_cells))
    masked = Masked(model, series, starts, strategy)
    batches = _Batches(masked, starts, batch_size, generator)

    def validate(module):
        # The same masks and noise every time: only the weights differ.
        gen = torch_generator(seed + 2)
        losses = [module.held_out_loss(*windows, gen) * len(windows.rows) for windows in judged]
        return sum(losses) / len(repeated)

    masks = torch_generator(seed + 1)
    judged = [masked(chunk, masks) for chunk in chunks if len(held_out)]
    return train(
        model,
        lambda step: model.loss(*batches(step), generator),
        carried=(batches,),
        validate=validate if len(held_out) else None,
        stop=_gains_no_more,
        **options,
    )


class ShownWindows(NamedTuple):
    """Windows with hidden targets, prepared by a denoiser: the arguments of its loss.

    Attributes
    ----------
    prepared : object
        From the denoiser.
    rows : int64 tensor of shape (B, L)
        Rows of the windows in what was prepared.
    values : tensor of shape (B, L, K)
        Their values.
    targets : bool tensor of shape (B, L, K)
        Which of them are hidden.
    """

    prepared: object
    rows: torch.Tensor
    values: torch.Tensor
    targets: torch.Tensor

    def some(self, n, generator):
        """Return ``n`` of the windows, drawn with replacement."""
        chosen = torch.randint(len(self.rows), (n,), generator=generator).to(self.rows.device)
        return ShownWindows(self.prepared, *(x[chosen] for x in self[1:]))


class Masked:
    """Hides targets of windows and lets a denoiser prepare what is left.

    Parameters
    ----------
    model : ImputationDenoiser
        The denoiser.
    series : WindowedSeries
        The data.
    starts : int64 tensor
        Windows whose gaps a strategy may copy.
    strategy : callable
        Target strategy of :mod:`skdiffusion.training.masking`.
    """

    def __init__(self, model, series, starts, strategy):
        self.model, self.series, self.starts, self.strategy = model, series, starts, strategy

    def __call__(self, chosen, generator):
        """Return the windows that begin at ``chosen`` as :class:`ShownWindows`."""
        apart, rows, values, targets = self.hide(chosen, generator)
        with torch.no_grad():
            prepared = self.model.prepare(apart)
        return ShownWindows(prepared, rows, values, targets)

    def hide(self, chosen, generator):
        """Series of their own for the windows, with the targets hidden, and what they hide.

        Returns
        -------
        apart : WindowedSeries
            One series a window, as each hides other cells; wanted are the targets.
        rows, values, targets
            As in :class:`ShownWindows`.
        """
        series, margin = self.series, self.model.margin
        pool = lambda n: _observed(series, _choose(self.starts, n, generator))  # noqa: E731
        targets = self.strategy(_observed(series, chosen), generator, pool)
        targets = targets.to(series.values.device)
        apart = series.around(chosen, margin)
        rows = apart.rows(apart.offsets[:-1] + margin)
        values = apart.values[rows]
        apart.observed[rows] &= ~targets
        apart.values[rows] = values.masked_fill(targets, 0.0)
        apart.wanted[:] = False
        apart.wanted[rows] = targets
        return apart, rows, values, targets


class _Batches:
    """Batches of windows, several of which are prepared in one call.

    Parameters
    ----------
    masked : Masked
        Hides and prepares.
    starts : int64 tensor
        Windows to choose from.
    size : int
        Windows of a batch.
    generator : torch.Generator
        Source of windows and masks.
    """

    def __init__(self, masked, starts, size, generator):
        self.masked, self.starts, self.size, self.generator = masked, starts, size, generator
        self.repeats, self.before, self.shown = masked.model.repeats, None, None

    def __call__(self, step):
        """Batch of a step, as :class:`ShownWindows`."""
        repeated = self.repeats > 1
        if not repeated or step % (_BATCHES_AHEAD * self.repeats) == 0:
            self._prepare()
        return self.shown.some(self.size, self.generator) if repeated else self.shown

    def state(self):
        """Generator now, and before the last windows were chosen."""
        before = {} if self.before is None else {"before": self.before}
        return {"generator": self.generator.get_state()} | before

    def restore(self, state):
        """Choose these windows again, and go on from there."""
        if "before" in state:
            self.generator.set_state(state["before"])
            self._prepare()
        self.generator.set_state(state["generator"])

    def _prepare(self):
        """Choose windows and hide targets of them."""
        self.before = self.generator.get_state()
        n = self.size * (_BATCHES_AHEAD if self.repeats > 1 else 1)
        self.shown = self.masked(_choose(self.starts, n, self.generator), self.generator)


def _gains_no_more(trace):
    """Whether the last validations are no better than those of the trained network before."""
    losses = [loss for _, loss in trace[1:]]
    before, last = losses[:-_N_WITHOUT_GAIN], losses[-_N_WITHOUT_GAIN:]
    return len(before) >= _FEWEST_BEFORE and min(last) >= min(before)


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
