"""Made-up distributions."""

import numpy as np
import pytest

from skdiffusion.datasets import make_gaussian_mixture


def test_the_mixture_of_150_is_the_documented_one():
    mixture = make_gaussian_mixture(150, random_state=0)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(mixture.means_, rng.uniform(-20, 20, (150, 2)))
    np.testing.assert_array_equal(mixture.weights_, rng.dirichlet(np.ones(150)))
    X, component = mixture.sample(20_000)
    share = np.bincount(component, minlength=150) / len(X)
    assert np.abs(share - mixture.weights_).max() < 0.006
    assert (X - mixture.means_[component]).std() == pytest.approx(0.5, rel=0.02)
    heaviest = mixture.weights_.argmax()
    assert mixture.predict(mixture.means_[[heaviest]]) == heaviest


def test_log_density_of_one_component():
    mixture = make_gaussian_mixture(1, 3, scale=2.0, random_state=1)
    known = -1.5 * np.log(2 * np.pi * 4)
    assert mixture.score_samples(mixture.means_)[0] == pytest.approx(known)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"low": 3, "high": 3}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_gaussian_mixture(3, **wrong)
