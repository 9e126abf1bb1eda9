"""Levels, slopes and seasons that move: their likelihood, their search, when they are chosen."""

import math

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.statespace import structural
from skdiffusion.diffusion.statespace.compare import compare
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.judge import judged
from skdiffusion.diffusion.statespace.kalman import log_likelihood
from skdiffusion.diffusion.statespace.pieces import Pieces
from skdiffusion.diffusion.statespace.structural import fit_structural

WAVES = [2 * math.pi * j / 12 for j in range(1, 7)]
THETA = torch.tensor([-3.0, -5.0, -9.0, -6.0, -2.5, -1.0, 1.0, 3.0]).double()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pieces_of(x, observed=None):
    """Standardised columns as one piece."""
    x = torch.as_tensor(np.asarray(x, dtype=float))
    observed = torch.ones(x.shape, dtype=torch.bool) if observed is None else observed
    x = (x - x.mean(0)) / x.std(0)
    return Pieces.cut(torch.where(observed, x, 0.0), observed, torch.tensor([0, len(x)]), len(x))


def growing(n_rows, n_columns=1, seed=0, season=1.0):
    """Columns with a common walk, slopes of their own, and months whose amplitudes walk."""
    rng = np.random.default_rng(seed)
    month = 2 * np.pi * np.arange(n_rows)[:, None] / 12
    level = 0.1 * rng.normal(size=(n_rows, 1)).cumsum(0) + 0.02 * np.arange(n_rows)[:, None]
    amplitude = season + 0.05 * rng.normal(size=(n_rows, n_columns)).cumsum(0)
    waves = amplitude * np.cos(month) + 0.5 * amplitude * np.sin(2 * month)
    return level + waves + 0.1 * rng.normal(size=(n_rows, n_columns))


@pytest.mark.parametrize(("waves", "slope"), [([], False), ([], True), (WAVES, True)])
def test_the_likelihood_of_columns_is_that_of_their_state_space(waves, slope):
    theta = THETA + 0.3 * torch.randn((3, 8), generator=generator(1)).double()
    columns = structural._Columns.of(theta, waves, slope)
    values = torch.randn((3, 2, 30), generator=generator(2)).double()
    observed = torch.rand(values.shape, generator=generator(3)) < 0.7
    found = columns.likelihood(values * observed, observed.double())
    for k in range(3):
        one = structural._Columns.of(theta[k : k + 1], waves, slope)
        model, _ = structural._joined([one])
        seen = observed[k, ..., None]
        assert math.isclose(
            float(found[k]), log_likelihood(model, values[k, ..., None] * seen, seen), rel_tol=1e-9
        )


def test_it_is_the_structural_model_of_statsmodels():
    """Level, slope, moving season and damped rest, term by term, on a series with gaps."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    theta = THETA.clone()
    # Their slope is not damped; their wave of two rows has a second phase, which is never seen.
    theta[7] = 40.0
    values = torch.as_tensor(growing(60)[:, 0])
    observed = torch.rand(60, generator=generator(3)) < 0.8
    columns = structural._Columns.of(theta[None], WAVES, True)
    model, _ = structural._joined([columns])
    found = log_likelihood(model, (values * observed)[None, :, None], observed[None, :, None])

    theirs = UnobservedComponents(
        np.where(observed, values, np.nan),
        "local linear trend",
        freq_seasonal=[{"period": 12}],
        autoregressive=1,
    )
    variance = theta.exp()
    by_name = {
        "sigma2.irregular": variance[0],
        "sigma2.level": variance[1],
        "sigma2.trend": variance[2],
        "sigma2.freq_seasonal_12(6)": variance[3],
        "sigma2.ar": variance[4],
        "ar.L1": theta[6].sigmoid(),
    }
    rest = float(variance[4] / (1 - theta[6].sigmoid() ** 2))
    first = [structural._FIRST_LEVEL, structural._FIRST_SLOPE] + [float(variance[5])] * 12 + [rest]
    theirs.ssm.initialize_known(np.zeros(15), np.diag(first))
    theirs.ssm.loglikelihood_burn = 0
    expected = theirs.loglike([float(by_name[name]) for name in theirs.param_names])
    assert math.isclose(found, expected, rel_tol=1e-6)


def ahead(model, pieces, n_ahead):
    """CRPS of the last rows, given those before."""
    row = torch.arange(pieces.values.shape[1])[:, None]
    return judged(model, pieces, pieces.observed & (row >= len(row) - n_ahead))[0].crps


def test_what_follows_is_found_nearly_as_well_as_with_the_true_numbers():
    x = growing(240)
    pieces = pieces_of(x)
    found, _ = fit_structural(pieces, 12, generator())
    scale = 2 * math.log(float(torch.as_tensor(x).std()))
    truth = torch.tensor([math.log(0.01), math.log(0.01), -18.0, math.log(0.05**2)])
    truth = torch.cat([truth, torch.tensor([-20.0, 0.0])]).double() - scale
    truth = torch.cat([truth, torch.tensor([0.0, 40.0]).double()])
    oracle, _ = structural._joined([structural._Columns.of(truth[None], WAVES, True)])
    assert ahead(found, pieces, 24) < 1.25 * ahead(oracle, pieces, 24)
    # With another season, as of calendar months of a median length, nothing is found.
    wrong, _ = fit_structural(pieces, 11.8, generator())
    assert ahead(wrong, pieces, 24) > 1.15 * ahead(found, pieces, 24)


def test_a_column_has_no_more_states_than_pay():
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(300, 1)).cumsum(0)
    model, known = fit_structural(pieces_of(walk), 12, generator())
    assert [kind for _, kind in known] == [0]
    assert model.n_states == 2
    _, known = fit_structural(pieces_of(growing(240)), 12, generator())
    assert known[0][1] >= 2


def test_what_drives_columns_together_is_learnt():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(300, 1)).cumsum(0)
    x = common + 0.3 * rng.normal(size=(300, 3)).cumsum(0) + 0.1 * rng.normal(size=(300, 3))
    model, _ = fit_structural(pieces_of(x), 0, generator())
    level = torch.nonzero(model.transition.diagonal() == 1.0)[:, 0]
    spread = model.innovation[level][:, level]
    correlation = spread / spread.diagonal().outer(spread.diagonal()).sqrt()
    # Of the truth 1 / 1.09.
    assert 0.75 < float(correlation[0, 1]) < 0.99


def test_known_numbers_are_where_the_search_goes_on():
    pieces = pieces_of(growing(160, 2))
    model, known = fit_structural(pieces, 12, generator())
    again, followed = fit_structural(pieces, 12, generator(1), known)
    assert [kind for _, kind in followed] == [kind for _, kind in known]
    better = log_likelihood(again, pieces.values, pieces.observed)
    assert better > log_likelihood(model, pieces.values, pieces.observed) - 2.0


def test_growth_and_moving_months_are_told_from_what_comes_back():
    """The kind is chosen by what it says of gaps and ends that it has not seen."""
    model = fit_state_space(pieces_of(growing(140)), generator=generator(), period=12).model
    assert model.n_states > 2
    rng = np.random.default_rng(1)
    x = np.zeros((250, 2))
    mix = np.array([[0.6, 0.3], [-0.3, 0.6]])
    for t in range(1, 250):
        x[t] = mix @ x[t - 1] + rng.normal(size=2)
    model = fit_state_space(pieces_of(x), generator=generator(), period=12).model
    assert model.n_states == 2
    np.testing.assert_allclose(model.transition[:, :2], mix, atol=0.2)


def test_a_kind_that_cheats_by_what_it_has_seen_is_not_taken():
    """Both are fitted without what they are asked for: a copy of the values gains nothing."""
    pieces = pieces_of(growing(200))
    honest, _ = fit_structural(pieces, 12, generator())

    def knowing(left):
        assert bool((left.observed & ~pieces.observed).sum() == 0)
        assert int(left.observed.sum()) < int(pieces.observed.sum())
        return honest

    def lost(left):
        return fit_structural(left, 7.3, generator())[0]

    best, unseen = compare([lost, knowing], pieces, generator())
    assert best == 1
    assert len(unseen.crps) == 3
    assert all(np.isfinite(unseen.crps))


def test_bands_beyond_the_end_hold_what_they_say():
    """Over 24 series: 12 rows ahead of each."""
    inside = []
    for seed in range(24):
        x = growing(96, seed=seed)
        pieces = pieces_of(x[:84])
        model, _ = fit_structural(pieces, 12, generator())
        mean, deviation = torch.as_tensor(x[:84]).mean(0), torch.as_tensor(x[:84]).std(0)
        whole = (torch.as_tensor(x) - mean) / deviation
        hidden = (torch.arange(96) >= 84)[None, :, None]
        asked = Pieces(whole[None], torch.ones((1, 96, 1), dtype=torch.bool), torch.ones(1, 96) > 0)
        fit, _ = judged(model, asked, hidden)
        inside.append(float(((fit.error / fit.deviation).abs() < 1.645).double().mean()))
    # A series' twelve errors go together: 24 of them have a standard error of about .04.
    assert abs(np.mean(inside) - 0.9) < 0.2
