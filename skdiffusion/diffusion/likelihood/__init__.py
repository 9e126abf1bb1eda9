"""Likelihood, bounds and entropy of a diffusion, formula by formula."""

from skdiffusion.diffusion.likelihood.bounds import (
    entropy,
    implicit_nll_bound,
    kl_bound,
    nll_bound,
    prior_cross_entropy,
    score_matching_loss,
)
from skdiffusion.diffusion.likelihood.integral import entropy_terms
from skdiffusion.diffusion.likelihood.ode import (
    hutchinson,
    log_density,
    log_density_ratio,
    trace_directions,
)

__all__ = [
    "entropy",
    "entropy_terms",
    "hutchinson",
    "implicit_nll_bound",
    "kl_bound",
    "log_density",
    "log_density_ratio",
    "nll_bound",
    "prior_cross_entropy",
    "score_matching_loss",
    "trace_directions",
]
