"""Picture of the losses of a training."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.inspection._axes import axes_for, method_of, numbers

# The training loss of single steps is noise; it is averaged over this share of the training.
_SMOOTHED_SHARE = 0.02


class LossCurveDisplay:
    """Training loss step by step, and the loss on held-out rows.

    Parameters
    ----------
    history : dict
        ``"loss"``: training loss of every step; ``"validation"``: pairs of a step and the
        held-out loss there; ``"best_step"``: the step whose weights were kept.
    name : str, default=None
        Name of the model, for the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure, after :meth:`plot`.
    line_, validation_ : matplotlib Line2D
        Training and held-out loss; the latter is None without validation.

    Examples
    --------
    >>> from skdiffusion.inspection import LossCurveDisplay
    >>> history = {"loss": [3.0, 2.0, 1.5], "validation": [(1, 2.5), (3, 1.8)], "best_step": 3}
    >>> display = LossCurveDisplay(history).plot()  # doctest: +SKIP
    """

    def __init__(self, history, *, name=None):
        if not isinstance(history, dict):
            raise TypeError(f"history must be a dict, got {history!r}: from_estimator takes it")
        if not {"loss", "validation", "best_step"} <= set(history):
            raise ValueError(
                'history must have the keys "loss", "validation" and "best_step", got '
                f"{sorted(history)}"
            )
        if len(history["loss"]) == 0:
            raise ValueError("history holds no step: the model was fitted in closed form")
        self.history, self.name = history, name

    @classmethod
    def from_estimator(cls, estimator, network=None):
        """Take the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with ``history_``.
        network : str, default=None
            Which of several networks, a key of ``history_``; None takes the only one.

        Returns
        -------
        display : LossCurveDisplay
            The display, not plotted yet.
        """
        check_is_fitted(estimator)
        history = method_of(estimator, "history_")
        if not history:
            raise ValueError("history_ holds no training: the model was fitted in closed form")
        if "best_step" in history:
            return cls(history, name=type(estimator).__name__)
        if network is None and len(history) == 1:
            network = next(iter(history))
        if network not in history:
            raise ValueError(f"network={network!r} must be one of {sorted(history)}")
        return cls(history[network], name=f"{type(estimator).__name__}, {network}")

    def plot(self, ax=None):
        """Draw the losses and mark the step that was kept.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : LossCurveDisplay
            The display.
        """
        ax, self.figure_ = axes_for(ax, (6, 3.2))
        self.ax_ = ax
        loss = numbers(self.history["loss"], "history['loss']", 1)
        width = max(1, round(_SMOOTHED_SHARE * len(loss)))
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        label = f"training, mean of {width} steps" if width > 1 else "training"
        self.line_ = ax.plot(np.arange(width, len(loss) + 1), smooth, color="C0", label=label)[0]
        self.validation_ = None
        if len(self.history["validation"]):
            pairs = numbers(self.history["validation"], "history['validation']", 2)
            steps, values = pairs.T
            self.validation_ = ax.plot(steps, values, "o-", color="C1", ms=4, label="held out")[0]
            style = {"color": "0.4", "ls": ":", "label": "weights kept"}
            ax.axvline(self.history["best_step"], **style)
        ax.set(xlabel="optimisation step", ylabel="denoising loss", title=self.name or "")
        ax.legend(fontsize="small")
        return self
