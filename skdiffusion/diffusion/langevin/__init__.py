"""Langevin kernels, the loop that runs them, and what adapts them."""

from skdiffusion.diffusion.langevin.annealing import anneal, relax
from skdiffusion.diffusion.langevin.chains import Chains, Divergence, Plan, run
from skdiffusion.diffusion.langevin.kernels import (
    Info,
    State,
    acceptance_probability,
    autograd,
    mala,
    minibatch_gradient,
    start,
    ula,
    underdamped,
)
from skdiffusion.diffusion.langevin.tempering import Bridge, tempered
from skdiffusion.diffusion.langevin.tuning import adapt, curvature, roundness, tune

__all__ = [
    "Bridge",
    "Chains",
    "Divergence",
    "Info",
    "Plan",
    "State",
    "acceptance_probability",
    "adapt",
    "anneal",
    "autograd",
    "curvature",
    "mala",
    "minibatch_gradient",
    "relax",
    "roundness",
    "run",
    "start",
    "tempered",
    "tune",
    "ula",
    "underdamped",
]
