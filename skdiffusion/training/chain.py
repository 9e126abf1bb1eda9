"""Training of the conditional densities of columns, each of which keeps its own best weights."""

import copy
import math

import torch

from skdiffusion.diffusion.chain import factors
from skdiffusion.training._loop import train
from skdiffusion.training.course import GeneratorState

# Rows of a step; passes over the rows, and steps at least and at most.
_BATCH, _EPOCHS, _FEWEST, _MOST = 128, 40, 2000, 10_000
# Looks at the held-out rows; an average over the last 200 steps, a half to a tenth of the way
# between looks; decay usual for networks of this width.
_N_EVALUATIONS, _EMA_DECAY, _WEIGHT_DECAY = 20, 0.995, 1e-2
_LEARNING_RATE = 8e-3
# Evaluations in a row without a gain of so many nats a row in all columns together: then it stops.
_PATIENCE, _TOLERANCE = 4, 1e-3
# Standard errors of a column's held-out gain below which it is taken as independent of the others.
_N_ERRORS = 2


def train_conditionals(network, sides, generator, *, cells=None, course=None, progress=False):
    """Train a network of columns by maximum likelihood, in place.

    Parameters
    ----------
    network : ColumnConditionals
        The network.
    sides : pair of (float32 tensor, float32 tensor)
        What stands for the columns, of shape (n_samples, n_views, n_features), and the values, of
        shape (n_samples, n_features): of rows to train on, and of rows whose likelihood decides,
        for every column by itself, which weights are kept.
    generator : torch.Generator
        Source of the batches.
    cells : dict of int to float32 tensor, optional
        Where cells end, of columns of labels.
    course : Course, optional
        Time and file of the fit.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    history : dict
        See :func:`skdiffusion.training.train`; the validation loss is that of the best weights
        of every column so far.
    """
    (inputs, values), held_out = sides
    cells = {} if cells is None else cells
    keeper = _ColumnKeeper(network, *held_out, cells)

    def loss(step):
        index = torch.randint(len(values), (_BATCH,), generator=generator)
        return -factors(network(inputs[index]), values[index].T, cells).mean()

    history = train(
        network,
        loss,
        n_steps=min(max(math.ceil(_EPOCHS * len(values) / _BATCH), _FEWEST), _MOST),
        learning_rate=_LEARNING_RATE,
        weight_decay=_WEIGHT_DECAY,
        ema_decay=_EMA_DECAY,
        validate=keeper.look,
        n_evaluations=_N_EVALUATIONS,
        carried=(GeneratorState(generator), keeper),
        course=course,
        patience=_PATIENCE,
        tol=_TOLERANCE,
        progress=progress,
        description="ScoreSDE, chain",
    )
    network.load_state_dict(keeper.best_state())
    return history


class _ColumnKeeper:
    """Remember, for every column, the weights with the best held-out likelihood."""

    def __init__(self, network, inputs, values, cells):
        self.inputs, self.values, self.cells = inputs, values, cells
        self.axis, self.first = network.column_axis, copy.deepcopy(network.state_dict())
        self.weights = self.first
        self.start = self.best = self._log_densities(network)

    def look(self, network):
        """Evaluate a state of the network; return the loss of the best one so far."""
        found = self._log_densities(network)
        better = found.mean(1) > self.best.mean(1)
        self.best = torch.where(better[:, None], found, self.best)
        self.weights = self._mixed(network.state_dict(), better)
        return -float(self.best.mean(1).sum())

    def best_state(self):
        """Best weights, and those of the start where what has been gained may be chance."""
        gains = self.best - self.start
        error = gains.std(1) / math.sqrt(gains.shape[1])
        return self._mixed(self.first, gains.mean(1) <= _N_ERRORS * error)

    def state(self):
        """What was best so far, as tensors by name."""
        weights = {f"weights {name}": tensor for name, tensor in self.weights.items()}
        return {"log densities": self.best} | weights

    def restore(self, state):
        """Take back what :meth:`state` returned."""
        self.best = state["log densities"]
        self.weights = {name: state[f"weights {name}"] for name in self.first}

    def _mixed(self, other, columns):
        """The weights that are kept, for some columns those of another state."""
        mixed = {name: tensor.clone() for name, tensor in self.weights.items()}
        for name, tensor in mixed.items():
            axis = self.axis(name)
            if axis is not None:
                tensor.movedim(axis, 0)[columns] = other[name].movedim(axis, 0)[columns]
        return mixed

    def _log_densities(self, network):
        """Log-densities of the held-out values, of shape (n_features, n_samples)."""
        with torch.no_grad():
            return factors(network(self.inputs), self.values.T, self.cells)
