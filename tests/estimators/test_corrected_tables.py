"""Trees that correct what a mixture says of the rows of a table."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import make_friedman1

import skdiffusion
from skdiffusion import CSDIImputer
from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.gaussian import WindowGaussian
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.estimators.imputation._row_trees import RowTrees
from skdiffusion.estimators.imputation._trees import TreeDenoiser, Trees
from skdiffusion.metrics import crps_loss


class Constant:
    """Stands for trees: one answer for every cell."""

    def __init__(self, value):
        self.value = value

    def predict(self, inputs):
        return np.full(len(inputs), self.value)


def law(n=3000):
    """Rows of the first law of Friedman 1991, with a fifth of its answer hidden."""
    X, y = make_friedman1(n, n_features=5, noise=1.0, random_state=0)
    X, hidden = np.column_stack([X, y]), np.zeros((n, 6), dtype=bool)
    hidden[:, 5] = np.random.default_rng(0).random(n) < 0.2
    return X, np.where(hidden, np.nan, X), hidden


@pytest.fixture(scope="module")
def fitted():
    X, Z, hidden = law()
    return CSDIImputer(n_draws=40, random_state=0).fit(Z), X, Z, hidden


def test_trees_come_nearer_to_the_floor_of_a_known_law_than_the_mixture(fitted):
    imputer, X, Z, hidden = fitted
    assert imputer.method_ == "trees"
    alone = CSDIImputer(method="gaussian", n_draws=40, random_state=0).fit(Z)
    ours, theirs = (crps_loss(X, one.sample(Z), mask=hidden) for one in (imputer, alone))
    # CRPS of a standard normal law at draws of its own.
    floor = 1 / np.sqrt(np.pi)
    assert floor < ours < 0.92 * theirs
    # Bands of 40 draws hold 87.8 % of as many cells, but for some percent by chance.
    draws = imputer.sample(Z)[:, :, 5][hidden[:, 5]]
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    inside = np.mean((X[hidden[:, 5], 5] >= low) & (X[hidden[:, 5], 5] <= high))
    assert abs(inside - 0.878) < 5 * np.sqrt(0.878 * 0.122 / hidden.sum())


def test_columns_that_nothing_tells_lose_nothing():
    X = np.random.default_rng(1).normal(size=(1000, 4))
    hidden = np.random.default_rng(0).random(X.shape) < 0.2
    Z = np.where(hidden, np.nan, X)
    ours, theirs = (
        crps_loss(X, one.fit(Z).sample(Z), mask=hidden)
        for one in (
            CSDIImputer(n_draws=40, max_iter=1, random_state=0),
            CSDIImputer(method="gaussian", n_draws=40, random_state=0),
        )
    )
    assert ours < 1.02 * theirs


def test_rows_do_not_hang_on_other_rows(fitted):
    imputer, _, Z, _ = fitted
    some = np.flatnonzero(np.isnan(Z).any(1))[5:25]
    np.testing.assert_allclose(imputer.sample(Z[some]), imputer.sample(Z)[some], atol=1e-5)


def test_a_table_with_trees_survives_pickle_and_file(fitted, tmp_path):
    imputer, _, Z, _ = fitted
    path = tmp_path / "table.skd"
    skdiffusion.save(imputer, path)
    for again in (pickle.loads(pickle.dumps(imputer)), skdiffusion.load(path)):
        np.testing.assert_array_equal(again.transform(Z[:50]), imputer.transform(Z[:50]))


def test_more_training_does_not_lose_the_trees_of_a_table(fitted):
    imputer, _, Z, _ = fitted
    again = copy.deepcopy(imputer).set_params(max_iter=2).partial_fit(Z)
    assert again.method_ == "trees"
    np.testing.assert_array_equal(again.transform(Z[:50]), imputer.transform(Z[:50]))


def rows_with_gaps(n=300, n_columns=3, seed=0):
    """Rows with cells to draw."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=(n, 1, n_columns))).float()
    return WindowedSeries.stack(values, torch.from_numpy(rng.random(values.shape) < 0.6))


def noise(number, place, kind, size):
    """Noise by row, column and draw."""
    cell = (place[:, None] * size + torch.arange(size)).flatten()
    key = row_keys(np.arange(300.0)[:, None], 0)[number].repeat_interleave(size)
    return normals(key, torch.arange(50)[:, None], kind, cell).unflatten(1, (len(number), size))


def test_trees_that_know_nothing_change_no_draw_of_a_gaussian():
    root = torch.tensor(np.random.default_rng(0).normal(size=(3, 3)))
    base = WindowBase(
        WindowGaussian(torch.zeros(3).double(), root @ root.T + 0.1 * torch.eye(3)), 1, 3
    )
    series, plain = rows_with_gaps(), Shape.normal(3)
    trees = RowTrees([Constant(0.0), None, Constant(0.0)], Trees(None, Constant(1.0), plain))
    found = TreeDenoiser(base, trees).draw(series, noise, 50)
    torch.testing.assert_close(found, base.draw(series, noise, 50), atol=2e-3, rtol=1e-3)


def test_location_and_scale_move_the_draws_of_a_mixture_in_its_deviations():
    means = torch.tensor([[-2.0, 1.0, 0.0], [2.0, 0.5, 1.0]]).double()
    covariances = torch.stack([0.2 * torch.eye(3), 0.6 * torch.eye(3) + 0.2]).double()
    mixture = RowMixture(torch.tensor([0.3, 0.7]).double(), means, covariances)
    series = rows_with_gaps()
    drawn = mixture.draw(series, noise, 50)
    trees = RowTrees([Constant(2.0), None, None], Trees(None, Constant(3.0**0.5), None))
    found = TreeDenoiser(mixture, trees).draw(series, noise, 50)
    row, column = torch.nonzero(series.wanted, as_tuple=True)
    moments = mixture.parts(series.values, series.observed).moments()
    mean = moments[0][row, column]
    sd = torch.diagonal(moments[1], dim1=1, dim2=2)[row, column].sqrt()
    first = column == 0
    before, after = ((x - mean) / sd for x in (drawn, found))
    torch.testing.assert_close(after[:, first], 2 + 3 * before[:, first], atol=1e-4, rtol=1e-4)
    assert torch.equal(found[:, ~first], drawn[:, ~first])
