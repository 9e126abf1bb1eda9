"""Training of the residual network of a density model, with or without a held-out part.

Rows are joined with their condition: the first columns are data, those after them the condition.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from skdiffusion.diffusion.likelihood import trace_directions
from skdiffusion.diffusion.loss import denoising_loss, stratified_uniforms
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.training._loop import train
from skdiffusion.training.course import Course, GeneratorState

# Share of training rows whose condition is dropped, so that one network knows both densities. Of
# images, shares of 0.1 and 0.2 drew equally well and 0.5 worse (J. Ho, T. Salimans 2022, table 1).
_UNCONDITIONAL_SHARE = 0.1
# Passes over the rows at most, whatever the number of steps: few rows are learnt by heart.
_MAX_EPOCHS = 300
# Evaluations of the held-out rows over the whole training, and rows of each: both bound what
# validation costs.
_N_EVALUATIONS, _N_HELD_OUT = 20, 300
# Decay of the averaged weights: over some 200 steps, a twentieth of the default training.
_EMA_DECAY = 0.995
# Evaluations without gain before a network stops, and the gain in nats a row that counts: less is
# not told from chance by the held-out rows of one evaluation.
_PATIENCE, TOLERANCE = 3, 1e-3
# Runge-Kutta steps of the held-out likelihood: the ratio to the base is smooth.
HELD_OUT_STEPS = 12
# Columns up to which it takes the exact trace, and directions of its estimate above, other ones for
# every row: states of a network are compared by averages over rows, in which the noise of single
# rows cancels. With the same two for all rows it did not, and networks on chains of nine columns
# were kept for gains of .03 and .04 nats a row that are losses of .003 and .016.
_MAX_HELD_OUT_EXACT, _HELD_OUT_PROBES = 4, 2


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    law : callable
        ``law(u, s_min, s_max) -> s``: noise levels from uniforms.
    weight : callable
        Weight of the squared error at a noise level.
    batch_size : int
        Rows of a step.
    learning_rate : float
        Peak learning rate.
    early_stopping : bool
        Stop where held-out rows no longer gain.
    progress : bool
        Show a progress bar.
    course : Course
        Time and file of the fit.
    """

    law: Callable
    weight: Callable
    batch_size: int
    learning_rate: float
    early_stopping: bool
    progress: bool
    course: Course = field(default_factory=Course)


def train_residual(
    model, rows, recipe, generator, *, name, n_steps, held_out=None, leave_out=False
):
    """Train the network of a model in place.

    Parameters
    ----------
    model : DensityModel
        Model with a network, in single precision.
    rows : array-like of shape (n_samples, n_features + n_conditions)
        Training rows joined with their condition.
    recipe : Recipe
        How to train.
    generator : torch.Generator
        Source of the batches.
    name : str
        Name of the base, for the progress bar.
    n_steps : int
        Number of steps at most; no more than 300 passes over the rows where some are held out.
    held_out : array-like of shape (n_held_out, n_features + n_conditions), optional
        Rows whose likelihood decides which weights are kept and when to stop; None keeps the last.
    leave_out : bool, default=False
        Leave out the component of the base that belongs to a row: rows and components agree.

    Returns
    -------
    history : dict
        See :func:`skdiffusion.training.train`.
    """
    options = {}
    if held_out is not None:
        n_steps = min(n_steps, math.ceil(_MAX_EPOCHS * len(rows) / recipe.batch_size))
        few = torch.as_tensor(held_out[:_N_HELD_OUT])
        options["validate"] = partial(_held_out_loss, model, few)
        # The choice of a network takes the likelihood of all of them in twice as many steps.
        n_looks = 2 * len(held_out) / len(few)
        recipe.course.set_aside(n_looks, held_out_ratios, model, few)
        options |= {
            "n_evaluations": _N_EVALUATIONS,
            "patience": _PATIENCE if recipe.early_stopping else None,
        }
    return train(
        model.denoiser,
        _residual_loss(model, rows, recipe, generator, leave_out),
        n_steps=n_steps,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        ema_decay=_EMA_DECAY,
        tol=TOLERANCE,
        carried=(GeneratorState(generator),),
        course=recipe.course,
        progress=recipe.progress,
        description=f"ScoreSDE on {name}",
        **options,
    )


def _held_out_loss(model, points, denoiser):
    """Held-out loss of a state of the model's denoiser."""
    state = DensityModel(denoiser, model.prior, model.s_min, model.s_max)
    return -float(held_out_ratios(state, points).mean())


def _residual_loss(model, rows, recipe, generator, leave_out):
    """Denoising loss of a random batch, as a function of the step."""
    rows, n = torch.as_tensor(rows, dtype=torch.float32), recipe.batch_size
    d, device = model.prior.n_features, model.device

    def loss(step):
        index = torch.randint(len(rows), (n,), generator=generator)
        s = recipe.law(stratified_uniforms(n, generator), model.s_min, model.s_max)
        noise = torch.randn(n, d, generator=generator)
        kwargs = {"leave_out": index.to(device)} if leave_out else {}
        x, condition = split_condition(rows[index].to(device), d)
        one = partial(denoising_loss, model.denoiser, weight=recipe.weight, **kwargs)
        return _conditional_loss(one, x, s.to(device), noise.to(device), condition).mean()

    return loss


def held_out_ratios(model, points, n_steps=HELD_OUT_STEPS):
    """Log-density of rows joined with their condition over the base's, in single precision.

    Parameters
    ----------
    model : DensityModel
        Model with a network, in single precision.
    points : tensor of shape (n_samples, n_features + n_conditions)
        Rows joined with their condition.
    n_steps : int, default=12
        Runge-Kutta steps.

    Returns
    -------
    log_ratio : float64 tensor of shape (n_samples,)
        Log-ratios in nats, on the CPU.
    """
    x, condition = split_condition(points.to(model.device, torch.float32), model.prior.n_features)
    directions = trace_directions(x, _MAX_HELD_OUT_EXACT, _HELD_OUT_PROBES, own=True)
    return model.given(condition).log_ratio(x, n_steps, directions).double().cpu()


def split_condition(rows, n_features):
    """Columns of the data, and of the condition or None."""
    x = rows[:, :n_features]
    return (x, rows[:, n_features:]) if rows.shape[1] > n_features else (x, None)


def _conditional_loss(loss, x, s, noise, condition):
    """``loss`` of each row, the first of which are trained without their condition."""
    if condition is None:
        return loss(x, s, noise)
    n_free = round(_UNCONDITIONAL_SHARE * len(x))
    free = loss(x[:n_free], s[:n_free], noise[:n_free], condition=None)
    rest = loss(x[n_free:], s[n_free:], noise[n_free:], condition=condition[n_free:])
    return torch.cat([free, rest])
