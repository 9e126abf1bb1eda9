"""The one training loop: AdamW, warm-up and cosine decay, clipping, averaged weights."""

import copy
import math

import torch
from tqdm.auto import tqdm

from skdiffusion._threads import one_thread


@one_thread()
def train(
    module,
    loss,
    *,
    n_steps,
    learning_rate,
    weight_decay=1e-4,
    ema_decay=0.99,
    max_grad_norm=1.0,
    n_warm_up=50,
    validate=None,
    n_evaluations=10,
    patience=None,
    tol=0.0,
    stop=None,
    progress=False,
    description="fit",
):
    """Train a module in place and leave the best averaged weights in it.

    Parameters
    ----------
    module : torch.nn.Module
        What is trained.
    loss : callable
        ``loss(step)`` returns the scalar training loss of one batch.
    n_steps : int
        Number of optimisation steps; the learning rate falls to nearly 0 over them.
    learning_rate : float
        Peak learning rate of AdamW.
    weight_decay : float, default=1e-4
        Decoupled weight decay.
    ema_decay : float, default=0.99
        Decay of the exponential moving average of the weights, which is what is kept.
    max_grad_norm : float, default=1.0
        Gradients are clipped to this norm.
    n_warm_up : int, default=50
        Steps over which the learning rate rises.
    validate : callable, optional
        ``validate(module)`` returns the held-out loss. It is called on the averaged weights
        before the first step and then ``n_evaluations`` times; the best weights are kept.
    n_evaluations : int, default=10
        Number of validations.
    patience : int, optional
        Stop after this many validations in a row without a gain of ``tol``.
    tol : float, default=0.0
        Smallest gain that counts.
    stop : callable, optional
        ``stop(trace)`` gets the list of (step, held-out loss) and says whether to stop.
    progress : bool, default=False
        Show a progress bar.
    description : str, default="fit"
        Its label.

    Returns
    -------
    history : dict
        ``"loss"``: training loss of each step; ``"validation"``: list of (step, held-out loss);
        ``"best_step"``: the step whose averaged weights were kept.

    Raises
    ------
    FloatingPointError
        If the loss is not finite; the message names the step and the remedies.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.training import train
    >>> x = torch.linspace(-1, 1, 50)[:, None]
    >>> line = torch.nn.Linear(1, 1)
    >>> history = train(
    ...     line, lambda step: ((line(x) - 2 * x) ** 2).mean(), n_steps=400, learning_rate=0.05
    ... )
    >>> round(line.weight.item(), 1)
    2.0
    """
    averaged = copy.deepcopy(module).requires_grad_(False)
    pairs = [
        (average, weight)
        for average, weight in zip(averaged.parameters(), module.parameters())
        if weight.requires_grad
    ]
    averages, weights = [list(side) for side in zip(*pairs)]
    optimizer = torch.optim.AdamW(
        weights, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True
    )
    keeper = _Keeper(averaged, validate, tol)
    interval = max(1, math.ceil(n_steps / n_evaluations))
    losses = []
    with tqdm(total=n_steps, desc=description, disable=not progress) as bar:
        for step in range(n_steps):
            rate = learning_rate * _schedule(step, n_steps, n_warm_up)
            losses.append(_step(loss, step, optimizer, weights, rate, max_grad_norm))
            decay = min(ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(averages, [w.detach() for w in weights], 1 - decay)
            bar.update()
            if (step + 1) % interval == 0 or step + 1 == n_steps:
                keeper.look(averaged, step + 1)
                bar.set_postfix(loss=f"{losses[-1]:.3g}", validation=f"{keeper.latest:.4g}")
                if patience is not None and keeper.n_without_gain >= patience:
                    break
                if stop is not None and stop(keeper.trace):
                    break
    module.load_state_dict(keeper.state)
    return {"loss": losses, "validation": keeper.trace, "best_step": keeper.step}


def _schedule(step, n_steps, n_warm_up):
    """Share of the peak learning rate: linear warm-up, cosine decay to 2 %."""
    n_warm_up = min(n_warm_up, max(1, n_steps // 5))
    decay = 0.02 + 0.49 * (1 + math.cos(math.pi * step / n_steps))
    return min(1.0, (step + 1) / n_warm_up) * decay


def _step(loss, step, optimizer, weights, rate, max_grad_norm):
    """One optimisation step; return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    value = loss(step)
    number = float(value.detach())
    if not math.isfinite(number):
        raise FloatingPointError(
            f"The training loss is {number} at step {step + 1}: lower learning_rate "
            f"(now {rate:.3g} at this step) or look for extreme values in X."
        )
    value.backward()
    torch.nn.utils.clip_grad_norm_(weights, max_grad_norm)
    optimizer.step()
    return number


class _Keeper:
    """Remember the averaged weights with the smallest held-out loss."""

    def __init__(self, module, validate, tol):
        self.validate, self.tol = validate, tol
        self.trace, self.best, self.n_without_gain = [], math.inf, 0
        self.latest = math.nan
        self.look(module, 0)

    def look(self, module, step):
        """Validate; without a validation the newest weights win."""
        if self.validate is not None:
            with torch.no_grad():
                self.latest = float(self.validate(module))
            self.trace.append((step, self.latest))
        gain = self.validate is None or self.latest < self.best - self.tol
        self.n_without_gain = 0 if gain else self.n_without_gain + 1
        if gain:
            self.best, self.step = self.latest, step
            self.state = copy.deepcopy(module.state_dict())
