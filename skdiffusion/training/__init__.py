"""Training: one loop for every network of the package."""

from skdiffusion.training._loop import train

__all__ = ["train"]
