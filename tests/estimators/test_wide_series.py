"""Series wider than one state space takes: modelled by groups of columns."""

import pickle

import numpy as np
import pytest

from skdiffusion import CSDIImputer
from skdiffusion.diffusion.statespace import groups
from skdiffusion.estimators.imputation import _base


@pytest.fixture
def series(monkeypatch):
    """Three hidden walks, each seen by four columns; a fifth of the cells is missing."""
    monkeypatch.setattr(_base, "WIDEST", 6)
    monkeypatch.setattr(groups, "_OWN", 4)
    monkeypatch.setattr(groups, "_NEIGHBOURS", 2)
    rng = np.random.default_rng(0)
    hidden = np.zeros((600, 3))
    for t in range(1, 600):
        hidden[t] = 0.9 * hidden[t - 1] + rng.normal(size=3)
    x = np.tile(hidden, 4) + 0.3 * rng.normal(size=(600, 12))
    missing = rng.uniform(size=x.shape) < 0.2
    return x, missing, np.where(missing, np.nan, x)


def rmse(filled, x, missing):
    return np.sqrt(np.square(filled - x)[missing].mean())


@pytest.mark.slow
def test_gaps_are_filled_as_well_as_by_one_state_space(series, monkeypatch):
    x, missing, gappy = series
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0)
    grouped = imputer.fit(gappy).transform(gappy)
    assert type(imputer._model.denoiser.base).__name__ == "GroupedGaussian"
    monkeypatch.setattr(_base, "WIDEST", 48)
    whole = imputer.fit(gappy).transform(gappy)
    # What is known of a cell: three readings of its walk with noise .3, and those beside in time.
    assert rmse(grouped, x, missing) < 1.05 * rmse(whole, x, missing)
    assert rmse(grouped, x, missing) < 0.4


def test_groups_survive_a_pickle(series):
    _, _, gappy = series
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(gappy)
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(gappy[:100]), imputer.transform(gappy[:100]))


@pytest.mark.slow
def test_the_default_says_that_no_network_is_trained(series):
    _, _, gappy = series
    with pytest.warns(UserWarning, match="12 columns, more than the .* groups of columns"):
        imputer = CSDIImputer(window_length=24, random_state=0).fit(gappy)
    assert imputer.history_["loss"] == []


def test_a_panel_with_a_free_gaussian_keeps_its_network(monkeypatch):
    """However wide, its base is no state space."""
    monkeypatch.setattr(_base, "WIDEST", 2)
    x = np.random.default_rng(0).normal(size=(80, 3, 3)).cumsum(1)
    imputer = CSDIImputer(max_iter=3, n_layers=1, n_channels=8, random_state=0).fit(x)
    assert len(imputer.history_["loss"]) == 3
