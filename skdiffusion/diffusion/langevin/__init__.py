"""Langevin kernels, the loop that runs them, and what adapts them."""

from skdiffusion.diffusion.langevin.annealing import Annealed, anneal, ladder, relax
from skdiffusion.diffusion.langevin.chains import Chains, Divergence, Plan, run
from skdiffusion.diffusion.langevin.gradients import autograd, minibatch_gradient
from skdiffusion.diffusion.langevin.kernels import (
    Info,
    Kernel,
    State,
    acceptance_probability,
    start,
)
from skdiffusion.diffusion.langevin.mala import MALA, mala
from skdiffusion.diffusion.langevin.tempering import Bridge, Tempered, tempered
from skdiffusion.diffusion.langevin.tuning import adapt, curvature, roundness, tune
from skdiffusion.diffusion.langevin.ula import ULA, ula
from skdiffusion.diffusion.langevin.underdamped import Underdamped, underdamped

KERNELS = {
    "ula": ULA,
    "mala": MALA,
    "underdamped": Underdamped,
    "annealed": Annealed,
    "tempered": Tempered,
}

__all__ = [
    "KERNELS",
    "MALA",
    "ULA",
    "Annealed",
    "Bridge",
    "Chains",
    "Divergence",
    "Info",
    "Kernel",
    "Plan",
    "State",
    "Tempered",
    "Underdamped",
    "acceptance_probability",
    "adapt",
    "anneal",
    "autograd",
    "curvature",
    "ladder",
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
