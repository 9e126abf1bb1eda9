"""Layers initialised from a generator, so that the global one is never touched."""

import math

import torch
from torch import nn


def linear(n_inputs, n_outputs, generator, *, bias=True, zero=False):
    """Return a linear layer with LeCun-uniform weights, or all zeros."""
    layer = nn.utils.skip_init(nn.Linear, n_inputs, n_outputs, bias=bias)
    bound = 0.0 if zero else 1 / math.sqrt(n_inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def embedding(*shape, std, generator):
    """Return a table of learnt vectors."""
    return nn.Parameter(std * torch.randn(*shape, generator=generator))


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, n_channels, n_hidden, generator):
        super().__init__(
            linear(n_channels, n_hidden, generator),
            nn.GELU(),
            linear(n_hidden, n_channels, generator),
        )


class SelfAttention(nn.Module):
    """Multi-head self-attention over the second-last axis."""

    def __init__(self, n_channels, n_heads, generator):
        super().__init__()
        self.n_heads = n_heads
        self.project = linear(n_channels, 3 * n_channels, generator)
        self.out = linear(n_channels, n_channels, generator)

    def forward(self, x):
        """Attend within (batch, tokens, channels)."""
        batch, tokens, channels = x.shape
        qkv = self.project(x).view(batch, tokens, 3, self.n_heads, channels // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, channels))
