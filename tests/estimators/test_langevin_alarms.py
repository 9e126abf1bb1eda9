"""Failures that are planted must be told by name; docs/benchmarks/langevin_alarms.py has more."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skdiffusion.estimators import LangevinSampler


def normal(x):
    return -0.5 * x.square().sum(1)


def apart(distance):
    """Normals at 0, a quarter of the mass, and at a distance."""
    return lambda x: torch.logaddexp(
        normal(x), math.log(3) - 0.5 * (x[:, 0] - distance) ** 2 - 0.5 * x[:, 1:].square().sum(1)
    )


def both_sides(x):
    return apart(16.0)(x + torch.tensor([8.0, 0.0], dtype=x.dtype))


def narrow(n, rng):
    return 0.1 * rng.normal(size=(n, 2))


def cauchy(x):
    return -torch.log1p(x.square()).sum(1)


def jump(x):
    return normal(x) - 3.0 * (x[:, 0] > 0.3)


def wall(x):
    return torch.where(x[:, 0] > 0, normal(x), -math.inf)


def swirl(x):
    return torch.stack([-x[:, 0] + x[:, 1], -x[:, 1] - 0.5 * x[:, 0]], 1)


def doubled(x):
    return normal(x), -2 * x


PLANTED = {
    "halves": (both_sides, {"method": "mala"}, "disagree|do not mix.*shares of the parts"),
    "one mode": (apart(30.0), {"method": "mala", "init": narrow}, "not reached all modes"),
    "one start": (apart(12.0), {"method": "mala", "init": [[0.0, 0.0]]}, "not reached all modes"),
    "long": (normal, {"method": "mala", "step_size": 1e6}, "lower step_size"),
    "short": (normal, {"method": "mala", "step_size": 1e-5}, "raise step_size"),
    "wide": (normal, {"method": "ula", "step_size": 1.2}, "widen the density: lower step_size"),
    "constant": (normal, {"method": "ula", "step_size": 1e-12}, "disagree after"),
    "sum": (lambda x: -((x[:, 0] + x[:, 1]) ** 2), {"method": "mala"}, "disagree|do not mix"),
    "Cauchy": (cauchy, {"method": "mala"}, "heavy tails.*use medians"),
    "few": (normal, {"method": "mala", "n_steps": 2, "step_size": 0.1}, "raise n_steps"),
    "gradient": (doubled, {"method": "mala"}, "gradient is not that of the log density"),
    "swirl": (swirl, {"method": "ula"}, "the gradient of no density"),
    "jump": (jump, {"method": "mala"}, "log density jumps"),
    "wall": (wall, {"method": "mala"}, "ends at a wall"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_failures_are_told_with_their_remedy(name):
    target, parameters, words = PLANTED[name]
    with pytest.warns(ConvergenceWarning, match=words):
        LangevinSampler(target, n_features=2, random_state=0, **parameters).fit()


def test_few_chains_in_different_places_are_told_by_sample():
    options = {"method": "mala", "n_features": 2, "n_chains": 4, "random_state": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = LangevinSampler(both_sides, **options).fit()
    with pytest.warns(ConvergenceWarning, match="worth . independent ones in feature 0"):
        sampler.sample(2000)


@pytest.mark.parametrize("method", ["mala", "hmc", "tempered"])
@pytest.mark.parametrize("seed", range(2))
def test_healthy_runs_are_quiet(method, seed):
    scales = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    student = lambda x: -3 * torch.log1p((x / scales).square() / 5).sum(1)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(student, n_features=3, method=method, random_state=seed).fit()
        sampler.sample(100)
    assert sampler.diagnostics_["warnings"] == []
    assert np.all(sampler.diagnostics_["rhat_second_half"] < 1.5)


def test_the_swaps_of_tempering_are_reported():
    sampler = LangevinSampler(both_sides, n_features=2, method="tempered", random_state=0).fit()
    found = sampler.diagnostics_
    assert len(found["swap_rejections"]) == len(sampler.inverse_temperatures_) - 1
    assert found["barrier"] == pytest.approx(found["swap_rejections"].sum())
    assert found["round_trips"] > 1
    # The ladder is spaced by its own swaps.
    assert np.ptp(found["swap_rejections"]) < 0.2
