"""Targets: what a sampler needs to know of a density."""

from skdiffusion.diffusion.target.recognise import (
    FunctionTarget,
    change_coordinates,
    from_distribution,
)
from skdiffusion.diffusion.target.supports import (
    Blocks,
    Box,
    Ordered,
    Supported,
    Transformed,
    support_of,
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
    "Blocks",
    "Box",
    "DenoiserTarget",
    "EstimatorTarget",
    "FunctionTarget",
    "MinibatchPosterior",
    "MixtureTarget",
    "Ordered",
    "Supported",
    "Target",
    "Transformed",
    "change_coordinates",
    "from_distribution",
    "support_of",
]
