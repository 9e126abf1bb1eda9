"""Series filled from their past alone, and draws beyond their ends."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from skdiffusion import CSDIImputer, load, save

FALSE_ALARM = 1e-6


def series(n_rows=240, missing=0.2, seed=0):
    """Two columns of a slow autoregression with gaps."""
    rng = np.random.default_rng(seed)
    X = np.zeros((n_rows, 2))
    for t in range(1, n_rows):
        X[t] = 0.9 * X[t - 1] + 0.3 * rng.standard_normal(2)
    X[rng.random(X.shape) < missing] = np.nan
    return X


def frame(n_rows=240, freq="h", **options):
    index = pd.date_range("2024-01-01", periods=n_rows, freq=freq)
    return pd.DataFrame(series(n_rows, **options), index=index, columns=["a", "b"])


def gaussian(direction="past", window_length=12, **parameters):
    return CSDIImputer(
        method="gaussian",
        direction=direction,
        window_length=window_length,
        n_draws=8,
        random_state=0,
        **parameters,
    )


@pytest.fixture(scope="module")
def fitted():
    return gaussian().fit(series())


def test_what_comes_later_changes_nothing_of_what_came_before(fitted):
    X = series(seed=1)
    early, late = fitted.sample(X[:150]), fitted.sample(X)
    np.testing.assert_array_equal(early, late[:150])


def test_both_directions_do_look_ahead(fitted):
    """The law above has power."""
    both = gaussian("both").fit(series())
    X = series(seed=1)
    assert not np.array_equal(both.sample(X[:150]), both.sample(X)[:150])
    # Not by their noise alone: between two known rows the smoother knows more.
    assert both.score(X) > fitted.score(X)


def test_an_arrived_series_is_filled_alike_alone_and_among_others():
    parts = [series(80, seed=2), series(60, seed=3)]
    imputer = gaussian(window_length=None).fit(parts)
    np.testing.assert_array_equal(imputer.sample(parts)[1], imputer.sample(parts[1:])[0])


@pytest.mark.parametrize("direction", ["past", "both"])
def test_a_forecast_is_what_fills_a_trailing_gap(direction):
    X = frame()
    imputer = gaussian(direction).fit(X)
    longer = X.reindex(pd.date_range(X.index[0], periods=len(X) + 6, freq="h"))
    draws = imputer.forecast(X, 6)
    assert draws.shape == (6, 8, 2)
    np.testing.assert_array_equal(draws, imputer.sample(longer)[-6:])


@pytest.mark.parametrize("freq", ["MS", "B"])
def test_steps_of_a_forecast_are_those_of_the_calendar(freq):
    X = frame(freq=freq)
    imputer = gaussian("both").fit(X)
    longer = X.reindex(pd.date_range(X.index[0], periods=len(X) + 3, freq=freq))
    np.testing.assert_allclose(
        imputer.forecast(X, 3).mean(1), imputer.sample(longer)[-3:].mean(1), atol=0.05
    )


def test_forecasts_of_every_form_of_series(fitted):
    parts = [series(80, seed=2), series(60, seed=3)]
    several = gaussian(window_length=None).fit(parts)
    draws = several.forecast(parts, 4, n_draws=3)
    assert [x.shape for x in draws] == [(4, 3, 2)] * 2
    index = pd.MultiIndex.from_product([["x", "y"], range(50)], names=["who", "t"])
    long = pd.DataFrame(np.vstack([series(50, seed=4), series(50, seed=5)]), index=index)
    draws = gaussian().fit(long).forecast(long, 2)
    assert [x.shape for x in draws] == [(2, 8, 2)] * 2
    samples = np.stack([series(40, seed=s) for s in range(3)])
    assert fitted.forecast(samples, 5).shape == (3, 8, 5, 2)


@pytest.mark.slow
def test_bands_of_an_autoregression_beyond_its_end_are_right():
    """Phi**k times the last value, with variance sigma**2 (1 - phi**2k) / (1 - phi**2)."""
    phi, sigma, n = 0.8, 0.5, 4000
    rng = np.random.default_rng(0)
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = phi * x[t - 1] + sigma * rng.standard_normal()
    imputer = gaussian("both").fit(x[:, None])
    n_draws = 2000
    draws = imputer.forecast(x[:, None], 6, n_draws=n_draws)[..., 0]
    k = np.arange(1, 7)
    mean, sd = phi**k * x[-1], sigma * np.sqrt((1 - phi ** (2 * k)) / (1 - phi**2))
    # The error of the estimated parameters, each known to about 1 / sqrt(n), comes on top.
    allowed = norm.isf(FALSE_ALARM / 12) * (1 / np.sqrt(n_draws) + 3 / np.sqrt(n))
    assert (np.abs(draws.mean(1) - mean) / sd < allowed).all()
    assert (np.abs(draws.std(1) / sd - 1) < allowed).all()


def test_static_columns_are_known_once_they_were_seen():
    rng = np.random.default_rng(0)
    ages, parts = rng.normal(50, 10, 12), []
    for age in ages:
        x = np.c_[series(40, seed=int(age * 10))[:, 0], np.full(40, age)]
        x[:20, 1] = np.nan
        parts.append(x)
    imputer = gaussian(window_length=None).fit(parts)
    filled = imputer.transform(parts)
    early = np.array([x[0, 1] for x in filled])
    assert all(x[-1, 1] == age for x, age in zip(filled, ages))
    assert not np.any(early == ages)
    both = imputer.set_params(direction="both").transform(parts)
    np.testing.assert_allclose([x[0, 1] for x in both], ages)


def test_the_direction_may_change_after_fit():
    """A network that was trained is left out, as it sees both sides."""
    X = series(400)
    imputer = CSDIImputer(window_length=12, max_iter=20, n_draws=4, random_state=0).fit(X)
    imputer.set_params(direction="past")
    np.testing.assert_array_equal(imputer.sample(X[:100]), imputer.sample(X)[:100])


def test_it_survives_a_file(fitted, tmp_path):
    save(fitted, tmp_path / "model")
    X = series(seed=6)
    np.testing.assert_array_equal(load(tmp_path / "model").forecast(X, 2), fitted.forecast(X, 2))


def test_what_has_no_past_is_refused():
    X = series()
    with pytest.raises(ValueError, match="window_length"):
        gaussian(window_length=None).fit(X)
    with pytest.raises(ValueError, match="window_length"):
        gaussian(window_length=None).fit(X.reshape(20, 12, 2))
    with pytest.raises(ValueError, match="encoder"):
        gaussian(network="csdi").fit(X)
    table = gaussian("both", window_length=None).fit(X)
    with pytest.raises(ValueError, match="window_length"):
        table.forecast(X)
    with pytest.raises(ValueError, match="past"):
        table.set_params(direction="past").transform(X)
    with pytest.raises(ValueError, match="n_steps"):
        gaussian().fit(X).forecast(X, 0)


def test_labels_are_forecast_by_appended_rows():
    X = frame()
    X["state"] = np.where(np.arange(len(X)) % 24 < 12, "day", "night")
    imputer = gaussian("both").fit(X)
    with pytest.raises(ValueError, match="append rows"):
        imputer.forecast(X)


@pytest.mark.parametrize("times", ["none", "regular", "gaps"])
def test_a_forecast_of_a_long_series_is_told_by_its_last_rows(times):
    """The rows before them have been forgotten; their noise keeps its place."""
    X, n = series(3000), 3000
    if times != "none":
        index = pd.date_range("2024-01-01", periods=n, freq="h")
        kept = np.arange(n) % 7 != 3 if times == "gaps" else np.full(n, True)
        X = pd.DataFrame(X, index=index).loc[kept]
    imputer = gaussian().fit(X[-400:])
    whole = imputer.forecast(X, 5)
    imputer._model.reach = lambda settings: None  # nothing is cut
    np.testing.assert_allclose(imputer.forecast(X, 5), whole, rtol=0, atol=1e-5)
    imputer._model.reach = lambda settings: 5  # too little is left
    assert np.abs(imputer.forecast(X, 5) - whole).max() > 1e-3
