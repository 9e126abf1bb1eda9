"""Networks for the density of every column given the columns before it.

Every column has a multilayer perceptron of its own, so that how well one is learnt takes nothing
from the others and each may stop learning by itself; all of them are evaluated together, in a few
batched products. What comes out are the parameters of a mixture in one dimension: see
:mod:`skdiffusion.diffusion.chain`.
"""

import math

import torch
from torch import nn

from skdiffusion.diffusion.chain import Components

# Components start at even places up to this one, with weights of a normal density of this width and
# scales of this logarithm: eight of them together are N(0, 1) within 3e-5 nats.
_REACH, _SPREAD, _LOG_SCALE = 2.158, 0.850, -1.197
# Hidden layers of a column: products of columns need two.
_N_HIDDEN = 2


class ColumnConditionals(nn.Module):
    """Mixture parameters of every column given those before it.

    Parameters
    ----------
    n_features : int
        Number of columns.
    n_views : int
        Number of inputs that stand for each column.
    width : int
        Width of the three hidden layers of each column.
    n_components : int
        Number of components of each mixture.
    generator : torch.Generator
        Source of the initial weights.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.nn.conditionals import ColumnConditionals
    >>> network = ColumnConditionals(3, 2, 16, 4, torch.Generator().manual_seed(0))
    >>> network(torch.zeros(5, 2, 3)).means.shape
    torch.Size([3, 5, 4])
    """

    def __init__(self, n_features, n_views, width, n_components, generator):
        super().__init__()
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        before = torch.ones(n_features, n_features).triu(1)
        self.register_buffer("before", before[:, :, None])
        n_inputs = (n_views * before.sum(0)).clamp_min(1.0)[:, None]
        self.first = nn.Parameter(draw(n_views, n_features, n_features, width) / n_inputs.sqrt())
        self.inner = nn.Parameter(draw(_N_HIDDEN, n_features, width, width) / math.sqrt(width))
        self.shifts = nn.Parameter(torch.zeros(1 + _N_HIDDEN, n_features, 1, width))
        self.last = nn.Parameter(torch.zeros(n_features, width, 3 * n_components))
        places = torch.linspace(-_REACH, _REACH, n_components)
        scales = torch.full_like(places, _LOG_SCALE)
        start = torch.cat([-0.5 * (places / _SPREAD) ** 2, places, scales])
        self.start = nn.Parameter(start.repeat(n_features, 1, 1))

    def forward(self, x):
        """Parameters of all columns.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_views, n_features)
            What stands for the columns.

        Returns
        -------
        components : Components
            Tensors of shape (n_features, n_samples, n_components).
        """
        n_features, width = self.first.shape[2:]
        weights = (self.first * self.before).reshape(-1, n_features * width)
        hidden = (x.flatten(1) @ weights).reshape(-1, n_features, width).transpose(0, 1)
        return self._components(hidden, slice(None))

    def column_axis(self, name):
        """Axis of a named tensor along which the columns lie.

        Parameters
        ----------
        name : str
            Name in ``state_dict``.

        Returns
        -------
        axis : int or None
            The axis; None for a tensor that is the same for all columns.
        """
        return {"first": 2, "inner": 1, "shifts": 1, "last": 0, "start": 0}.get(name)

    def column(self, j, x):
        """Parameters of one column.

        Parameters
        ----------
        j : int
            Number of the column.
        x : tensor of shape (n_samples, n_views, n_features)
            What stands for the columns, of which only those before ``j`` are looked at.

        Returns
        -------
        components : Components
            Tensors of shape (n_samples, n_components).
        """
        hidden = x[:, :, :j].flatten(1) @ self.first[:, :j, j].flatten(0, 1)
        parts = self._components(hidden[None], slice(j, j + 1))
        return Components(*(part[0] for part in parts))

    def _components(self, hidden, columns):
        """Layers after the first product, for some columns."""
        shifts = self.shifts[:, columns]
        hidden = nn.functional.silu(hidden + shifts[0])
        for shift, weights in zip(shifts[1:], self.inner[:, columns], strict=True):
            hidden = hidden + nn.functional.silu(torch.baddbmm(shift, hidden, weights))
        output = torch.baddbmm(self.start[columns], hidden, self.last[columns])
        logits, means, log_scales = output.chunk(3, 2)
        return Components(torch.log_softmax(logits, 2), means, log_scales)
