"""Targets: what a sampler needs to know of a density."""

from skdiffusion.diffusion.target.recognise import (
    FunctionTarget,
    change_coordinates,
    from_distribution,
)
from skdiffusion.diffusion.target.targets import (
    Affine,
    DenoiserTarget,
    EstimatorTarget,
    MinibatchPosterior,
    MixtureTarget,
    Target,
)

__all__ = [
    "Affine",
    "DenoiserTarget",
    "EstimatorTarget",
    "FunctionTarget",
    "MinibatchPosterior",
    "MixtureTarget",
    "Target",
    "change_coordinates",
    "from_distribution",
]
