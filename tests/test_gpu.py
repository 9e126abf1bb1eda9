"""The same numbers on a GPU as on the CPU; skipped where there is none."""

import pickle

import numpy as np
import pytest
import torch

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 3)) @ rng.normal(size=(3, 3))


def on_cpu(model):
    return pickle.loads(pickle.dumps(model)).set_params(device="cpu")


@pytest.mark.parametrize("window_length", [None, 12])
@pytest.mark.parametrize("method", ["gaussian", "diffusion"])
def test_an_imputer_fills_alike(rows, method, window_length):
    rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    imputer = CSDIImputer(
        method=method, window_length=window_length, max_iter=30, device="cuda", random_state=0
    ).fit(rows)
    filled = imputer.transform(rows)
    np.testing.assert_allclose(filled, on_cpu(imputer).transform(rows), atol=1e-2)


@pytest.mark.parametrize("max_iter", [0, 100])
def test_a_density_scores_alike(rows, max_iter):
    model = ScoreSDE(base="gaussian", max_iter=max_iter, device="cuda", random_state=0).fit(rows)
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    assert model.sample(10).shape == (10, 3)
    there = ScoreSDE(base="gaussian", max_iter=max_iter, device="cpu", random_state=0).fit(rows)
    # Training takes other roundings on a GPU, closed forms hardly any.
    np.testing.assert_allclose(scores, there.score_samples(rows), atol=1e-6 if not max_iter else 1)


def test_chains_run(rows):
    sampler = LangevinSampler(lambda x: -0.5 * x.square().sum(1), device="cuda", random_state=0)
    assert np.isfinite(sampler.fit(rows).sample(100)).all()


def test_auto_takes_the_gpu(rows):
    model = ScoreSDE(base="gaussian", max_iter=0, random_state=0).fit(rows)
    assert model.denoiser_.base.origin.device.type == "cuda"
