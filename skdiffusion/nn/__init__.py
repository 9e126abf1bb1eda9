"""Networks: what a denoiser is made of."""

from skdiffusion.nn.csdi import CSDINetwork, load_csdi_checkpoint

__all__ = ["CSDINetwork", "load_csdi_checkpoint"]
