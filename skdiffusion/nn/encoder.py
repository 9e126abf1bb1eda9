r"""The default imputation network: encode a window once, denoise its missing cells only.

A Gaussian over the window (:mod:`skdiffusion.diffusion.window`) says what linear
dependence says. The encoder reads the window once and corrects, cell by cell, the conditional
mean and standard deviation; the denoiser then works on the residuals
``r = (y - location) / scale`` of the target cells alone. With the conditional correlation of the
targets ``R = U diag(lambda) U'`` and noise level ``s`` it is

.. math::

    D(z, s) = U \frac{\lambda}{\lambda + s^2} U' z
            + U \Big(\frac{\lambda s^2}{\lambda + s^2}\Big)^{1/2} U' F(z, s),

whose first term is the exact denoiser of N(0, R) and whose second has, for ``F`` of unit size,
the size of what that denoiser cannot know. All heads start at zero: the untrained network *is*
the Gaussian, so that training can only be asked to improve on it.
"""

import torch
from torch import nn

from skdiffusion.diffusion.loss import noise_levels
from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.gaussian import pick
from skdiffusion.diffusion.window.series import interpolate
from skdiffusion.nn._init import MLP, SelfAttention, embedding, linear

# Residuals have unit size: 8 of them is beyond all that training has seen, and stays finite.
_RESIDUAL_BOUND = 8.0
# Targets that a step of training looks at in each window: joint draws of more cost their cube.
_TARGETS_PER_WINDOW = 96


class EncoderDenoiser(GaussianDenoiser):
    """Window Gaussian, axial encoder and light denoiser of the missing cells.

    Parameters
    ----------
    base : WindowBase or SeriesGaussian
        Gaussian over the cells of a window, or of whole series.
    length, n_features : int
        Size of the window.
    n_layers : int, default=2
        Axial layers of the encoder; each attends over time, then over features.
    n_channels : int, default=32
        Width.
    n_heads : int, default=4
        Attention heads; divides ``n_channels``.
    n_draws : int, default=4
        Noise levels drawn for each encoded window in training.
    generator : torch.Generator
        Source of the initial weights.
    """

    name = "encoder"

    def __init__(
        self,
        base,
        length,
        n_features,
        *,
        n_layers=2,
        n_channels=32,
        n_heads=4,
        n_draws=4,
        generator,
    ):
        super().__init__(base)
        self.n_draws = n_draws
        self.encoder = WindowEncoder(length, n_features, n_layers, n_channels, n_heads, generator)
        self.denoiser = CellDenoiser(n_channels, generator)

    def _is_exact(self):
        """The network has learnt something."""
        return False

    def _heads(self, prepared, rows, mean, sd, cells):
        """Code of the targets, corrected mean and standard deviation of every cell."""
        code, mean, sd = self._corrected(prepared, rows, mean, sd)
        code = code.flatten(1, 2).gather(1, cells[..., None].expand(-1, -1, code.shape[-1]))
        return self.denoiser.prepare(code), mean, sd

    def _corrected(self, prepared, rows, mean, sd):
        """Code of every cell; the Gaussian's mean and standard deviation, corrected."""
        values, observed = prepared.values[rows], prepared.observed[rows]
        code, shift, stretch = self.encoder(values, observed, mean, sd)
        # Where the Gaussian is sure the correction is small, so that training starts gently.
        mean = mean + sd * shift
        return code, mean, (sd * torch.exp(stretch.clamp(-3, 2))).clamp(min=0.01)

    def _numerator(self, context, rotated, total, s):
        """Add what the network knows to the shrunk residuals of the Gaussian."""
        shrunk = super()._numerator(context, rotated, total, s)
        residual = self._residual(context, rotated / total.sqrt(), s) @ context.eigenvectors
        return shrunk + (context.eigenvalues * total).sqrt() * s * residual

    def _residual(self, context, whitened, s):
        """The network F of the noisy residuals, whitened in the basis of the targets."""
        x = whitened @ context.eigenvectors.transpose(1, 2)
        return self.denoiser(context.code, x * context.present, s.log()) * context.present

    def loss(self, prepared, rows, values, targets, generator):
        """Likelihood of the heads plus the denoising loss; see :meth:`ImputationDenoiser.loss`."""
        cells, pad = _some_targets(targets, generator)
        context, mean, sd = self._encode(prepared, rows, cells, pad)
        likelihood = _huber_likelihood((values - mean) / sd, sd)
        heads = (likelihood * targets).sum() / targets.sum().clamp(min=1)
        return heads + self._denoising_loss(context, values.flatten(1).gather(1, cells), generator)

    def held_out_loss(self, prepared, rows, values, targets, generator=None):
        """CRPS of the two heads on held-out windows, taken as a normal distribution.

        The likelihood that trains them would be ruled by a few cells where they are too sure.

        Parameters
        ----------
        prepared, rows, values, targets, generator
            As for :meth:`ImputationDenoiser.loss`; nothing is random.

        Returns
        -------
        loss : tensor
            Mean over the targets.
        """
        mean, sd, _ = self.base.given(prepared, rows)
        _, mean, sd = self._corrected(prepared, rows, mean, sd)
        crps = normal_crps(values - mean, sd)
        return (crps * targets).sum() / targets.sum().clamp(min=1)

    def _denoising_loss(self, context, truth, generator):
        """Squared error of F, every eigen-direction and noise level weighted alike."""
        # The denoiser must not pull on the heads, which have a loss of their own.
        residual = (truth - context.location.detach()) / context.scale.detach()
        residual = residual.clamp(-_RESIDUAL_BOUND, _RESIDUAL_BOUND)[:, None] * context.present
        shape = (len(truth), self.n_draws, truth.shape[1])
        s = noise_levels(shape[:2], generator)[..., None].to(truth.device)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(truth.device)
        noisy = residual + s * noise * context.present
        rotated = noisy @ context.eigenvectors
        values, total = context.eigenvalues, context.eigenvalues + s * s
        wanted = residual @ context.eigenvectors - rotated * values / total
        wanted = (wanted * (total / values).sqrt() / s) @ context.eigenvectors.transpose(1, 2)
        error = self._residual(context, rotated / total.sqrt(), s) - wanted
        # A few residuals far in the tails would otherwise rule the gradient.
        error = error.clamp(-6, 6).square() * context.present
        return error.sum() / (context.present.sum() * self.n_draws).clamp(min=1)


class WindowEncoder(nn.Module):
    """Axial transformer over the window; gives a code and two heads for every cell."""

    def __init__(self, length, n_features, n_layers, n_channels, n_heads, generator):
        super().__init__()
        self.read = linear(6, n_channels, generator)
        self.time = embedding(length, 1, n_channels, std=0.1, generator=generator)
        self.feature = embedding(n_features, n_channels, std=0.3, generator=generator)
        self.layers = nn.ModuleList(
            AxialLayer(n_channels, n_heads, length > 1, generator) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(n_channels)
        self.heads = linear(n_channels, 2, generator, zero=True)

    def forward(self, values, observed, mean, sd):
        """Return codes (B, L, K, C), shifts of the mean and of the log standard deviation."""
        interpolated, before, after = neighbours(values, observed)
        inputs = (interpolated, observed.to(values.dtype), before, after, mean, sd)
        x = self.read(torch.stack(inputs, -1)) + self.time + self.feature
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return x, *self.heads(x).unbind(-1)


class AxialLayer(nn.Module):
    """Attention over time, attention over features, a multilayer perceptron; pre-norm."""

    def __init__(self, n_channels, n_heads, over_time, generator):
        super().__init__()
        n_parts = 3 if over_time else 2
        self.norms = nn.ModuleList(nn.LayerNorm(n_channels) for _ in range(n_parts))
        self.over_time = SelfAttention(n_channels, n_heads, generator) if over_time else None
        self.over_features = SelfAttention(n_channels, n_heads, generator)
        self.mlp = MLP(n_channels, 2 * n_channels, generator)

    def forward(self, x):
        """Mix the cells of (B, L, K, C)."""
        if self.over_time is not None:
            columns = self.norms[2](x).transpose(1, 2).flatten(0, 1)
            mixed = self.over_time(columns).unflatten(0, (x.shape[0], x.shape[2]))
            x = x + mixed.transpose(1, 2)
        rows = self.norms[0](x).flatten(0, 1)
        x = x + self.over_features(rows).view_as(x)
        return x + self.mlp(self.norms[1](x))


class CellDenoiser(nn.Module):
    """Per-cell perceptron whose layer norm is modulated by the noise level."""

    def __init__(self, n_channels, generator):
        super().__init__()
        self.read_code = linear(n_channels, n_channels, generator)
        self.read_value = linear(1, n_channels, generator, bias=False)
        self.level = nn.Sequential(
            linear(32, n_channels, generator),
            nn.SiLU(),
            linear(n_channels, n_channels, generator),
            nn.SiLU(),
            linear(n_channels, 2 * n_channels, generator, zero=True),
        )
        self.norm = nn.LayerNorm(n_channels, elementwise_affine=False)
        self.mlp = MLP(n_channels, 2 * n_channels, generator)
        self.out_norm = nn.LayerNorm(n_channels)
        self.out = linear(n_channels, 1, generator, zero=True)
        self.register_buffer("frequencies", torch.exp(torch.linspace(-1.5, 2.5, 16)))

    def prepare(self, code):
        """Project the code of each target once."""
        return self.read_code(code)

    def forward(self, code, x, log_level):
        """Map codes (B, N, C), values (B, M, N) and log levels (B, M, 1) to (B, M, N)."""
        angles = log_level * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        scale, shift = self.level(waves)[:, :, None].chunk(2, -1)
        h = code[:, None] + self.read_value(x[..., None])
        h = h + self.mlp(self.norm(h) * (1 + scale) + shift)
        return self.out(self.out_norm(h))[..., 0]


def neighbours(values, observed):
    """Interpolate each column inside its window and say how far the nearest observations are.

    Returns
    -------
    interpolated, before, after : tensors of shape (B, L, K)
        Linear interpolation (0 in a column without observations), and exp(-distance / 3) to
        the previous and the next observation (0 where there is none).
    """
    interpolated, before, after = interpolate(values, observed)
    return interpolated, torch.exp(-before / 3), torch.exp(-after / 3)


def _huber_likelihood(z, sd):
    """Negative Gaussian log-density, linear beyond four standard deviations."""
    far = z.abs()
    return sd.log() + torch.where(far < 4, 0.5 * z * z, 4 * far - 8)


def _some_targets(targets, generator):
    """List at most 96 targets a window; half of the time whole columns go first."""
    batch, _, n_features = targets.shape
    draw = lambda *shape: torch.rand(*shape, generator=generator, device=generator.device)  # noqa: E731
    by_cell = draw(*targets.shape)
    by_column = draw(batch, 1, n_features) + 0.02 * by_cell
    priority = torch.where(draw(batch, 1, 1) < 0.5, by_column, by_cell).to(targets.device)
    priority = torch.where(targets, priority, -1.0).flatten(1)
    width = min(_TARGETS_PER_WINDOW, max(int(targets.sum((1, 2)).max()), 1))
    threshold = priority.topk(width, 1).values[:, -1:]
    return pick((priority >= threshold) & (priority >= 0))
