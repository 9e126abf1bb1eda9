"""The one training loop: AdamW, warm-up and cosine decay, clipping, averaged weights."""

import copy
import math
from time import monotonic

import torch
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from skdiffusion._threads import one_thread
from skdiffusion._warn import warn
from skdiffusion.training.course import Course


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
    carried=(),
    course=None,
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
    carried : sequence, optional
        What ``loss`` and ``validate`` carry from step to step, such as generators: objects with
        ``state()``, which returns tensors by name, and ``restore(state)``.
    course : Course, optional
        How long the training may take, and the file that it can go on from.
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
    course = Course() if course is None else course
    averaged = copy.deepcopy(module).requires_grad_(False)
    keeper = _Keeper(averaged, validate, tol, patience, stop)
    interval = max(1, math.ceil(n_steps / n_evaluations))
    optimizer = _optimizer(module, learning_rate, weight_decay)
    run = _Run(module, averaged, optimizer, keeper, carried, n_steps, interval)
    weights = optimizer.param_groups[0]["params"]
    averages = [
        average
        for average, weight in zip(averaged.parameters(), module.parameters())
        if weight.requires_grad
    ]
    with (
        tqdm(total=n_steps, desc=description, disable=not progress) as bar,
        course.leg(run, description) as leg,
    ):
        bar.update(run.step)
        while not run.ended and leg.has_time(keeper.seconds):
            rate = learning_rate * _schedule(run.step, n_steps, n_warm_up)
            run.losses.append(_step(loss, run.step, optimizer, weights, rate, max_grad_norm))
            decay = min(ema_decay, (1 + run.step) / (10 + run.step))
            torch._foreach_lerp_(averages, [w.detach() for w in weights], 1 - decay)
            bar.update()
            if run.look_if_due():
                bar.set_postfix(loss=f"{run.losses[-1]:.3g}", validation=f"{keeper.latest:.4g}")
            leg.note()
        leg.write()
        if not run.ended:
            # Time is up; what is written goes on as if it were not.
            keeper.look(averaged, run.step)
    module.load_state_dict(keeper.state)
    _warn_diverged(keeper, learning_rate, description)
    return {"loss": run.losses, "validation": keeper.trace, "best_step": keeper.step}


def _schedule(step, n_steps, n_warm_up):
    """Share of the peak learning rate: linear warm-up, cosine decay to 2 %."""
    n_warm_up = min(n_warm_up, max(1, n_steps // 5))
    decay = 0.02 + 0.49 * (1 + math.cos(math.pi * step / n_steps))
    return min(1.0, (step + 1) / n_warm_up) * decay


def _warn_diverged(keeper, learning_rate, description):
    """Say so if the weights left the numbers while the loss of each batch was still one."""
    lost = [step for step, loss in keeper.trace if not math.isfinite(loss)]
    if lost:
        warn(
            f"{description} diverged: the held-out loss is not finite from step {lost[0]} on, and "
            f"the weights of step {keeper.step} are kept: lower learning_rate (now "
            f"{learning_rate:.3g}).",
            ConvergenceWarning,
        )


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


def _optimizer(module, learning_rate, weight_decay):
    """AdamW of the weights that are trained."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        weights, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True
    )


class _Run:
    """Where a training is: all that its next steps depend on."""

    def __init__(self, module, averaged, optimizer, keeper, carried, n_steps, interval):
        self.module, self.averaged, self.optimizer = module, averaged, optimizer
        self.keeper, self.carried, self.n_steps = keeper, carried, n_steps
        self.interval, self.losses = interval, []

    @property
    def step(self):
        """Steps taken."""
        return len(self.losses)

    @property
    def ended(self):
        """Whether the training is over."""
        return self.step >= self.n_steps or self.keeper.stopped

    def look_if_due(self):
        """Validate where that is due; return whether it was."""
        due = self.step % self.interval == 0 or self.step == self.n_steps
        if due:
            self.keeper.look(self.averaged, self.step)
            self.keeper.judge()
        return due

    def state(self):
        """Tensors by name; of a training that is over, its results alone."""
        parts = {"keeper": self.keeper.numbers(), "best": self.keeper.state}
        parts |= {f"carried {i}": one.state() for i, one in enumerate(self.carried)}
        parts["run"] = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        if not self.ended:
            parts |= {"module": self.module.state_dict(), "averaged": self.averaged.state_dict()}
            moments = self.optimizer.state_dict()["state"]
            parts |= {f"moments {i}": one for i, one in moments.items()}
        return {f"{part}/{name}": x for part, of in parts.items() for name, x in of.items()}

    def restore(self, state):
        """Take back what :meth:`state` returned."""
        parts = {}
        for name, x in state.items():
            part, _, name = name.partition("/")
            parts.setdefault(part, {})[name] = x
        self.losses = parts["run"]["losses"].tolist()
        self.keeper.restore(parts["keeper"], parts["best"])
        for i, one in enumerate(self.carried):
            one.restore(parts[f"carried {i}"])
        if not self.ended:
            self.module.load_state_dict(parts["module"])
            self.averaged.load_state_dict(parts["averaged"])
            moments = {int(k.split()[1]): of for k, of in parts.items() if k.startswith("moments")}
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})


class _Keeper:
    """Remember the averaged weights with the smallest held-out loss, and say when to stop."""

    def __init__(self, module, validate, tol, patience, stop):
        self.validate, self.tol, self.patience, self.stop = validate, tol, patience, stop
        self.trace, self.best, self.n_without_gain = [], math.inf, 0
        self.latest, self.stopped, self.seconds = math.nan, False, 0.0
        # Kept where no look gives a number.
        self.step, self.state = 0, copy.deepcopy(module.state_dict())
        start = monotonic()
        self.look(module, 0)
        self.seconds = monotonic() - start

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

    def judge(self):
        """Decide whether to stop."""
        patient = self.patience is None or self.n_without_gain < self.patience
        self.stopped = not patient or (self.stop is not None and bool(self.stop(self.trace)))

    def numbers(self):
        """All but the weights, as tensors by name."""
        numbers = [self.best, self.latest, self.step, self.n_without_gain, self.stopped]
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            "trace": torch.tensor(self.trace, dtype=torch.float64).reshape(len(self.trace), 2),
        }

    def restore(self, numbers, weights):
        """Take back what :meth:`numbers` returned, and the best weights."""
        self.best, self.latest, *counts = numbers["numbers"].tolist()
        self.step, self.n_without_gain, self.stopped = int(counts[0]), int(counts[1]), counts[2] > 0
        self.trace = [(int(step), loss) for step, loss in numbers["trace"].tolist()]
        self.state = weights
