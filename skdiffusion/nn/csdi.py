"""The network of CSDI, conditional score-based diffusion for imputation [1]_.

A window of a series is a grid of L times and K features, some cells observed. The network sees
the observed values and, in every other cell, a noisy value ``x_t = alpha_t x + sigma_t eps``, and
predicts ``eps``. Each residual block mixes information along time, then along features, by one
transformer layer each, and adds what never changes within a window: where a cell is in time,
which feature it belongs to and whether it is observed.

Arrays are channels-last, ``(n_windows, n_draws, L, K, channels)``, so that every 1x1 convolution
of the published network is a plain linear map of the last axis. All that depends on neither the
draw nor the step is computed once per window by :meth:`CSDINetwork.encode`.

Of the coordinate ``z = r + s eps`` with ``r = (y - location) / scale`` of an imputation denoiser
(:mod:`skdiffusion.diffusion.window`) here ``location = 0`` and ``scale = 1``, and
``x_t = z / sqrt(1 + s**2)``.

References
----------
.. [1] Y. Tashiro, J. Song, Y. Song, S. Ermon, "CSDI: conditional score-based diffusion models
   for probabilistic time series imputation", NeurIPS 2021, https://arxiv.org/abs/2107.03502.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from skdiffusion.diffusion.solve import log_levels
from skdiffusion.diffusion.window.denoiser import ImputationDenoiser
from skdiffusion.nn._init import embedding, linear
from skdiffusion.nn.csdi_layers import N_LEVELS, Block, StepEmbedding, normal_linear

# Of the published model, as are its 50 levels.
_BETA_RANGE = (1e-4, 0.5)
# With the published weights and 12 stochastic second-order steps this range gives the bands of
# the chain; going lower widens them, as the network does not see noise that small well.
_FEW_STEP_RANGE = (0.1, 20.0)


def _chain_levels():
    """Noise levels of the published chain, increasing, float64."""
    low, high = (math.sqrt(beta) for beta in _BETA_RANGE)
    beta = torch.linspace(low, high, N_LEVELS, dtype=torch.float64) ** 2
    log_alpha_bar = torch.log1p(-beta).cumsum(0)
    return torch.expm1(-log_alpha_bar).sqrt()


class CSDIContext(NamedTuple):
    """What the network keeps of a batch of windows for all draws and steps.

    Attributes
    ----------
    location, scale : tensor of shape (n_windows, n_targets)
        Origin and unit of the coordinate ``r = (y - location) / scale``: zeros and ones.
    cells : int64 tensor of shape (n_windows, n_targets)
        Flat indices of the target cells.
    pad : bool tensor of shape (n_windows, n_targets)
        Where a row of ``cells`` is only filled up.
    inputs : tensor of shape (n_windows, 1, n_times, n_features, n_channels)
        Input projection of the observed values.
    sides : list of tensors of shape (n_windows, 1, n_times, n_features, 2 * n_channels)
        Projection of time, feature and mask, one a block.
    """

    location: torch.Tensor
    scale: torch.Tensor
    cells: torch.Tensor
    pad: torch.Tensor
    inputs: torch.Tensor
    sides: list


class CSDINetwork(ImputationDenoiser):
    r"""Network of CSDI as an imputation denoiser.

    Parameters
    ----------
    n_features : int
        Number of features K of a window.
    n_layers : int, default=4
        Number of residual blocks.
    n_channels : int, default=64
        Width, a multiple of ``n_heads``.
    n_heads : int, default=8
        Attention heads.
    n_diffusion_embedding : int, default=128
        Size of the embedding of the noise level, even.
    n_time_embedding : int, default=128
        Size of the embedding of the time in the window, even.
    n_feature_embedding : int, default=16
        Size of the learned embedding of the feature.
    n_inducing : int, optional
        Number of inducing points of the attention among features, whose cost then grows linearly
        with ``n_features``. The default is the full attention of the paper.
    generator : torch.Generator
        Source of the initial weights, on the CPU.

    Notes
    -----
    The network knows the 50 noise levels of the published chain,
    :math:`s_k^2 = (1 - \bar\alpha_k) / \bar\alpha_k` with :math:`\sqrt{\beta_k}` linear from
    :math:`\sqrt{10^{-4}}` to :math:`\sqrt{0.5}`. Levels in between are placed on that table
    linearly in :math:`\log s`. The dropout of the published training is left out: PyTorch's takes
    no generator.

    References
    ----------
    .. [1] Y. Tashiro, J. Song, Y. Song, S. Ermon, "CSDI: conditional score-based diffusion
       models for probabilistic time series imputation", NeurIPS 2021,
       https://arxiv.org/abs/2107.03502.
    .. [2] J. Lee et al., "Set Transformer: a framework for attention-based
       permutation-invariant neural networks", ICML 2019, https://arxiv.org/abs/1810.00825.

    Examples
    --------
    The setting of the paper for PhysioNet:

    >>> import torch
    >>> from skdiffusion.nn import CSDINetwork
    >>> network = CSDINetwork(35, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in network.parameters())
    414065
    """

    name = "csdi"
    default_steps = 12

    def __init__(
        self,
        n_features,
        *,
        n_layers=4,
        n_channels=64,
        n_heads=8,
        n_diffusion_embedding=128,
        n_time_embedding=128,
        n_feature_embedding=16,
        n_inducing=None,
        generator,
    ):
        super().__init__()
        if n_channels % n_heads:
            raise ValueError(
                f"n_channels={n_channels} must be a multiple of n_heads={n_heads}; "
                "change one of them."
            )
        n_side = n_time_embedding + n_feature_embedding + 1
        self.n_time_embedding = n_time_embedding
        self.features = embedding(n_features, n_feature_embedding, std=1.0, generator=generator)
        self.step_embedding = StepEmbedding(n_diffusion_embedding, generator)
        self.input = normal_linear(2, n_channels, generator)
        self.blocks = nn.ModuleList(
            Block(n_channels, n_heads, n_diffusion_embedding, n_side, n_inducing, generator)
            for _ in range(n_layers)
        )
        self.output1 = normal_linear(n_channels, n_channels, generator)
        self.output2 = linear(n_channels, 1, generator)
        nn.init.zeros_(self.output2.weight)
        self.register_buffer("levels", _chain_levels().float(), persistent=False)

    def encode(self, prepared, rows, cells, pad):
        """Compute once what all draws and steps share.

        Parameters
        ----------
        prepared : WindowedSeries
            The series.
        rows, cells, pad
            As for :meth:`ImputationDenoiser.encode`. All cells to be imputed belong to one call:
            those that are neither observed nor listed carry 0.

        Returns
        -------
        context : CSDIContext
            Argument of :meth:`denoise`.
        """
        values, observed = prepared.values[rows], prepared.observed[rows]
        inputs, sides = self._condition(values, observed)
        location = values.new_zeros(cells.shape)
        return CSDIContext(location, torch.ones_like(location), cells, pad, inputs, sides)

    def denoise(self, context, z, s):
        """Estimate the target cells from noisy ones.

        Parameters
        ----------
        context : CSDIContext
            Result of :meth:`encode`.
        z : tensor of shape (n_windows, n_draws, n_targets)
            Noisy points ``r + s * eps``.
        s : float or tensor broadcastable to (n_windows, n_draws, 1)
            Noise level.

        Returns
        -------
        denoised : tensor of shape (n_windows, n_draws, n_targets)
            Estimate of ``r``, 0 where padded.
        """
        s = torch.as_tensor(s, dtype=z.dtype, device=z.device)
        # torch.broadcast_shapes would import sympy.
        s = s[(None,) * (3 - s.ndim)]
        pad = context.pad.unsqueeze(1)
        index = context.cells.unsqueeze(1).expand_as(z)
        noisy = (z / torch.sqrt(1 + s**2)).masked_fill(pad, 0)
        grid_shape = context.inputs.shape[2:4]
        grid = z.new_zeros(*z.shape[:2], math.prod(grid_shape))
        # Padding adds 0 to the first cell, so that the order of writing cannot matter.
        grid = grid.scatter_add(-1, index, noisy).unflatten(-1, grid_shape)
        eps = self._predict(grid, self._step(s).squeeze(-1), context.inputs, context.sides)
        return (z - s * eps.flatten(-2).gather(-1, index)).masked_fill(pad, 0)

    def loss(self, prepared, rows, values, targets, generator):
        """Mean squared error of the predicted noise, the training loss of the paper.

        Parameters
        ----------
        prepared : WindowedSeries
            The series with the targets hidden.
        rows, values
            As for :meth:`ImputationDenoiser.loss`.
        targets : bool tensor of shape (n_windows, n_times, n_features)
            Known cells hidden from it, over which the error is averaged. Cells neither observed
            nor targets are unknown and carry noise around 0, as in the paper.
        generator : torch.Generator
            Source of the noise levels, one a window and uniform over the table, and of the noise.

        Returns
        -------
        loss : tensor
            Scalar, 0 for a batch without targets.
        """
        device, observed = generator.device, prepared.observed[rows]
        step = torch.randint(N_LEVELS, (len(values),), generator=generator, device=device)
        noise = torch.randn(values.shape, generator=generator, device=device).to(values)
        step = step.to(values.device)
        s = self.levels[step, None, None]
        clean = values.masked_fill(~targets, 0)
        noisy = ((clean + s * noise) / torch.sqrt(1 + s**2)).masked_fill(observed, 0)
        conditions = self._condition(prepared.values[rows], observed)
        eps = self._predict(noisy.unsqueeze(1), step[:, None].to(values), *conditions).squeeze(1)
        return ((noise - eps) ** 2 * targets).sum() / targets.sum().clamp(min=1)

    def noise_levels(self, n_steps, solver):
        """Grid of noise levels for a solver.

        Parameters
        ----------
        n_steps : int
            Number of steps, at least 1.
        solver : str
            Name of a step of the module ``skdiffusion.diffusion.solve``.

        Returns
        -------
        levels : list of float
            ``n_steps`` decreasing levels, then 0: for 50 ancestral steps the published chain,
            otherwise equally spaced in log s from 20 to 0.1.
        """
        if solver == "ancestral" and n_steps == N_LEVELS:
            return [*reversed(_chain_levels().tolist()), 0.0]
        return log_levels(n_steps, *_FEW_STEP_RANGE)

    def _condition(self, values, observed):
        """Project what is constant over draws and steps: observed values, time, feature, mask."""
        mask = observed.to(values).unsqueeze(-1)
        n_times, n_features = values.shape[1:]
        shown = values.masked_fill(~observed, 0).unsqueeze(-1)
        clean = shown * self.input.weight[:, 0] + self.input.bias
        time = self._time_embedding(n_times, values)[:, None].expand(-1, n_features, -1)
        place = torch.cat([time, self.features.expand(n_times, -1, -1)], dim=-1)
        sides = []
        for block in self.blocks:
            weight = block.side.weight
            side = F.linear(place, weight[:, :-1], block.side.bias) + mask * weight[:, -1]
            sides.append(side.unsqueeze(1))
        return clean.unsqueeze(1), sides

    def _time_embedding(self, n_times, like):
        """Sines and cosines of the time index, interleaved."""
        exponent = torch.arange(0, self.n_time_embedding, 2, device=like.device)
        rate = 1 / torch.pow(10000.0, exponent / self.n_time_embedding)
        angle = torch.arange(n_times, device=like.device, dtype=like.dtype)[:, None] * rate
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(like)

    def _step(self, s):
        """Place noise levels on the table, between two levels linearly in log s."""
        levels = self.levels.log()
        log_s = s.log()
        high = torch.searchsorted(levels, log_s.contiguous()).clamp(1, N_LEVELS - 1)
        low = high - 1
        fraction = (log_s - levels[low]) / (levels[high] - levels[low])
        return (low + fraction).clamp(0, N_LEVELS - 1)

    def _predict(self, noisy, step, inputs, sides):
        """Predict the noise of (n_windows, n_draws, n_times, n_features) noisy cells."""
        embedding = self.step_embedding(step)[:, :, None, None]
        x = F.relu(inputs + noisy.unsqueeze(-1) * self.input.weight[:, 1])
        total = 0
        for block, side in zip(self.blocks, sides):
            x, skip = block(x, side, embedding)
            total = total + skip
        hidden = F.relu(self.output1(total / math.sqrt(len(self.blocks))))
        return self.output2(hidden).squeeze(-1)
