"""Networks: what a denoiser is made of."""

from skdiffusion.nn.csdi import CSDINetwork
from skdiffusion.nn.csdi_checkpoint import load_csdi_checkpoint
from skdiffusion.nn.mlp import ResidualMLP

__all__ = ["CSDINetwork", "ResidualMLP", "load_csdi_checkpoint"]
