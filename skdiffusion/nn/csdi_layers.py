"""The layers of the CSDI network."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from skdiffusion.nn._init import SelfAttention, embedding, linear

# Sizes of the published network.
_FEEDFORWARD = 64
N_LEVELS = 50


def normal_linear(n_inputs, n_outputs, generator):
    """Linear map with He-normal weights, as the 1x1 convolutions of the published network."""
    layer = linear(n_inputs, n_outputs, generator)
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / n_inputs), generator=generator)
    return layer


class _Attention(SelfAttention):
    """Attention of a set to itself, or to ``memory``, with the initial weights of the paper."""

    def __init__(self, n_channels, n_heads, generator):
        super().__init__(n_channels, n_heads, generator)
        nn.init.xavier_uniform_(self.project.weight, generator=generator)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, memory=None):
        if memory is None:
            return super().forward(x)
        weights = self.project.weight.chunk(3), self.project.bias.chunk(3)
        parts = zip((x, memory, memory), *weights)
        heads = (F.linear(*part).unflatten(-1, (self.n_heads, -1)) for part in parts)
        mixed = F.scaled_dot_product_attention(*(head.transpose(1, 2) for head in heads))
        return self.out(mixed.transpose(1, 2).flatten(-2))


class _Transformer(nn.Module):
    """Post-norm transformer layer along the last axis but one.

    With ``n_inducing`` points the elements attend to that many summaries of the set, which
    attend to the elements (Lee et al., "Set Transformer", ICML 2019): cost linear in the length.
    """

    def __init__(self, n_channels, n_heads, n_inducing, generator):
        super().__init__()
        self.attention = _Attention(n_channels, n_heads, generator)
        self.inducing = self.summary = None
        if n_inducing is not None:
            self.summary = _Attention(n_channels, n_heads, generator)
            self.inducing = embedding(n_inducing, n_channels, std=1.0, generator=generator)
        self.norm1 = nn.LayerNorm(n_channels)
        self.norm2 = nn.LayerNorm(n_channels)
        self.linear1 = linear(n_channels, _FEEDFORWARD, generator)
        self.linear2 = linear(_FEEDFORWARD, n_channels, generator)

    def _attend(self, x):
        """Let every element see all others, directly or through the summaries."""
        if self.inducing is None:
            return self.attention(x)
        points = self.inducing.expand(len(x), -1, -1)
        return self.attention(x, points + self.summary(points, x))

    def forward(self, x):
        x = self.norm1(x + self._attend(x))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class Block(nn.Module):
    """Residual block: time, then features, then a gate shifted by what is known of each cell."""

    def __init__(self, n_channels, n_heads, n_embedding, n_side, n_inducing, generator):
        super().__init__()
        self.diffusion = linear(n_embedding, n_channels, generator)
        self.side = normal_linear(n_side, 2 * n_channels, generator)
        self.mid = normal_linear(n_channels, 2 * n_channels, generator)
        self.output = normal_linear(n_channels, 2 * n_channels, generator)
        self.time = _Transformer(n_channels, n_heads, None, generator)
        self.feature = _Transformer(n_channels, n_heads, n_inducing, generator)

    def forward(self, x, side, embedding):
        y = x + self.diffusion(embedding)
        n_times, n_features = x.shape[2:4]
        # The published network leaves out a layer over an axis of length one.
        if n_times > 1:
            y = y.transpose(2, 3)
            y = self.time(y.flatten(0, 2)).view(y.shape).transpose(2, 3)
        if n_features > 1:
            y = self.feature(y.flatten(0, 2)).view(x.shape)
        gate, content = (self.mid(y) + side).chunk(2, dim=-1)
        residual, skip = self.output(gate.sigmoid() * content.tanh()).chunk(2, dim=-1)
        return (x + residual) * math.sqrt(0.5), skip


class StepEmbedding(nn.Module):
    """Embedding of the place of a noise level in the table of levels the network knows."""

    def __init__(self, n_embedding, generator):
        super().__init__()
        half = n_embedding // 2
        frequencies = 10.0 ** (torch.arange(half) / (half - 1) * 4.0)
        angles = torch.arange(N_LEVELS)[:, None] * frequencies
        table = torch.cat([angles.sin(), angles.cos()], dim=1)
        self.register_buffer("table", table, persistent=False)
        self.linear1 = linear(n_embedding, n_embedding, generator)
        self.linear2 = linear(n_embedding, n_embedding, generator)

    def forward(self, step):
        # Rows of neighbours are mixed: the fast sines say nothing between two integers.
        low = step.floor().clamp(0, N_LEVELS - 2)
        index = low.long()
        row = torch.lerp(self.table[index], self.table[index + 1], (step - low).unsqueeze(-1))
        return F.silu(self.linear2(F.silu(self.linear1(row))))
