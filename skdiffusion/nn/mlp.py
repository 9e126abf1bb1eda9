"""Networks for rows of a table.

The residual of a denoiser is a function of a few numbers with structure at every scale. A plain
multilayer perceptron learns the fine scales last; random Fourier features of its input [1]_ let
it see them from the first step.

References
----------
.. [1] M. Tancik et al., "Fourier features let networks learn high frequency functions in low
   dimensional domains", NeurIPS 2020, https://arxiv.org/abs/2006.10739.
"""

import itertools
import math

import torch
from torch import nn

from skdiffusion.nn._init import linear


class ResidualMLP(nn.Module):
    """Residual multilayer perceptron with Fourier features of its input.

    Parameters
    ----------
    n_features : int
        Number of columns of the data.
    hidden_layer_sizes : sequence of int, default=(128, 128, 128)
        Widths of the hidden layers; layers of equal width are joined by residual connections.
    n_conditions : int, default=0
        Number of columns of the condition.
    n_frequencies : int, default=64
        Number of random frequencies of the input.
    bandwidth : float, default=3.0
        Typical length of the frequencies, in radians per standard deviation.
    generator : torch.Generator
        Source of the initial weights.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.nn.mlp import ResidualMLP
    >>> network = ResidualMLP(2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.ones(3, 2)
    >>> network(x, torch.zeros(3, 1), x).abs().max()
    tensor(0., grad_fn=<MaxBackward1>)
    """

    def __init__(
        self,
        n_features,
        hidden_layer_sizes=(128, 128, 128),
        *,
        n_conditions=0,
        n_frequencies=64,
        bandwidth=3.0,
        generator,
    ):
        super().__init__()
        self.n_conditions = n_conditions
        scale = bandwidth / math.sqrt(n_features)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        self.register_buffer("input_frequencies", scale * draw(n_features, n_frequencies))
        self.register_buffer("level_frequencies", draw(1, 16))
        n_level = 1 + 2 * self.level_frequencies.shape[1]
        n_inputs = 2 * n_features + 2 * n_frequencies
        if n_conditions:
            # One more column tells "no condition" from zeros.
            n_inputs += n_conditions + 2 * 16 + 1
            scale = bandwidth / math.sqrt(n_conditions)
            self.register_buffer("condition_frequencies", scale * draw(n_conditions, 16))
        widths = [n_inputs, *hidden_layer_sizes]
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairs)
        self.levels = nn.ModuleList(linear(n_level, b, generator) for _, b in pairs)
        self.output = linear(widths[-1], n_features, generator, zero=True)

    def forward(self, x, log_s, base_noise, condition=None):
        """Evaluate the network.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Noisy data scaled to unit variance.
        log_s : tensor of shape (n_samples, 1)
            Logarithm of the noise level.
        base_noise : tensor of shape (n_samples, n_features)
            The base's estimate of the noise.
        condition : tensor of shape (n_samples, n_conditions), optional
            Condition; a row of NaN, or None, stands for no condition.

        Returns
        -------
        output : tensor of shape (n_samples, n_features)
            Residual in units of its own standard deviation.
        """
        phase = x @ self.input_frequencies
        inputs = [x, base_noise, phase.sin(), phase.cos()]
        if self.n_conditions:
            inputs.append(self._condition(x, condition))
        level = 0.5 * log_s
        phase = level @ self.level_frequencies
        level = torch.cat([level, phase.sin(), phase.cos()], 1)
        hidden = torch.cat(inputs, 1)
        for layer, modulate in zip(self.layers, self.levels, strict=True):
            update = nn.functional.silu(layer(hidden) + modulate(level))
            hidden = hidden + update if hidden.shape == update.shape else update
        return self.output(hidden)

    def _condition(self, x, condition):
        """Condition, its Fourier features and a flag; all zeros for no condition."""
        if condition is None:
            condition = x.new_full((len(x), self.n_conditions), math.nan)
        known = ~condition.isnan().any(1, keepdim=True)
        condition = condition.nan_to_num(0.0)
        phase = condition @ self.condition_frequencies
        inputs = torch.cat(
            [condition, phase.sin(), phase.cos(), torch.ones_like(condition[:, :1])], 1
        )
        return inputs * known


def residual_network(network, n_features, hidden_layer_sizes, n_conditions, generator):
    """Untrained network of a density model.

    Parameters
    ----------
    network : callable or None
        The user's ``network(n_features, generator)``; None makes a :class:`ResidualMLP`.
    n_features : int
        Number of columns of the data.
    hidden_layer_sizes : sequence of int
        Widths of the hidden layers of the default network.
    n_conditions : int
        Number of columns of the condition of the default network.
    generator : torch.Generator
        Source of the initial weights.

    Returns
    -------
    network : torch.nn.Module
        The network; the user's was tried on two rows.
    """
    if network is not None:
        return _checked(network(n_features, generator), n_features)
    sizes = tuple(hidden_layer_sizes)
    return ResidualMLP(n_features, sizes, n_conditions=n_conditions, generator=generator)


def _checked(network, n_features):
    """A user's network, tried on two rows."""
    if not isinstance(network, torch.nn.Module):
        raise TypeError(
            f"network must return a torch.nn.Module, but it returned {type(network).__name__}."
        )
    x = torch.zeros(2, n_features)
    with torch.no_grad():
        try:
            answer = network(x, torch.zeros(2, 1), x, None)
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                "network must return a module that is called as module(x, log_s, base_noise, "
                f"condition), here with x of shape {tuple(x.shape)}; it raised {error}"
            ) from error
    shape = getattr(answer, "shape", None)
    if shape != x.shape:
        raise ValueError(
            f"network must return a tensor of the shape of its first argument, here "
            f"{tuple(x.shape)}; it returned {type(answer).__name__} of shape "
            f"{None if shape is None else tuple(shape)}."
        )
    return network
