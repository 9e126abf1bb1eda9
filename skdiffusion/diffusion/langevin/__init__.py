"""Langevin kernels, the loop that runs them, and what adapts them."""

from skdiffusion.diffusion.langevin.annealing import Annealed, anneal, ladder, relax
from skdiffusion.diffusion.langevin.chains import Chains, Divergence, Plan, run
from skdiffusion.diffusion.langevin.gradients import autograd, minibatch_gradient
from skdiffusion.diffusion.langevin.hmc import HMC, hmc
from skdiffusion.diffusion.langevin.jumps import Jumping, jump
from skdiffusion.diffusion.langevin.kernels import (
    Info,
    Kernel,
    State,
    acceptance_probability,
    start,
)
from skdiffusion.diffusion.langevin.mala import MALA, mala, truncated
from skdiffusion.diffusion.langevin.swaps import Swaps, equal_rejections
from skdiffusion.diffusion.langevin.tempering import Bridge, Tempered, tempered
from skdiffusion.diffusion.langevin.tuning import adapt, choose, curvature, roundness, tune
from skdiffusion.diffusion.langevin.ula import ULA, ula
from skdiffusion.diffusion.langevin.underdamped import Underdamped, underdamped

KERNELS = {
    "ula": ULA,
    "mala": MALA,
    "underdamped": Underdamped,
    "hmc": HMC,
    "annealed": Annealed,
    "tempered": Tempered,
}

__all__ = [
    "HMC",
    "KERNELS",
    "MALA",
    "ULA",
    "Annealed",
    "Bridge",
    "Chains",
    "Divergence",
    "Info",
    "Jumping",
    "Kernel",
    "Plan",
    "State",
    "Swaps",
    "Tempered",
    "Underdamped",
    "acceptance_probability",
    "adapt",
    "anneal",
    "autograd",
    "choose",
    "curvature",
    "equal_rejections",
    "hmc",
    "jump",
    "ladder",
    "mala",
    "minibatch_gradient",
    "relax",
    "roundness",
    "run",
    "start",
    "tempered",
    "truncated",
    "tune",
    "ula",
    "underdamped",
]
