"""Labels of series are drawn with the probabilities that the whole series gives them."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer
from skdiffusion.estimators.imputation import _filling

A = np.array([[0.9, 0.08, 0.02], [0.05, 0.9, 0.05], [0.15, 0.05, 0.8]])
MEANS = np.array([0.0, 1.0, -1.0])
N = 900


def imputer(**options):
    return CSDIImputer(
        **{"method": "gaussian", "window_length": 24, "n_draws": 100, "random_state": 0, **options}
    )


def states(n, rng):
    found = [0]
    for u in rng.random(n - 1):
        found.append(int((np.cumsum(A[found[-1]]) < u).sum()))
    return np.array(found)


def posterior(codes, like):
    """Probabilities of the states of the chain ``A`` given some of them and likelihoods."""
    known = ~np.isnan(codes)
    like = np.where(known[:, None], np.arange(3) == np.nan_to_num(codes)[:, None], like)
    forward, back, out = [np.ones(3) / 3 * like[0]], np.ones(3), []
    for row in like[1:]:
        message = (forward[-1] @ A) * row
        forward.append(message / message.sum())
    for message, row in zip(forward[::-1], like[::-1]):
        out.append(message * back / (message @ back))
        back = A @ (back * row)
        back /= back.sum()
    return np.array(out[::-1])


def hidden_chain(spread, gaps):
    """A Markov chain seen through noise, with gaps in its labels, and the posterior of these."""
    rng = np.random.default_rng(0)
    s = states(N, rng)
    x = spread * MEANS[s] + rng.normal(size=N)
    hidden = rng.random(N) < 0.4 if gaps == "scattered" else np.arange(N) // 8 % 3 == 1
    label = pd.Series(np.array(["a", "b", "c"])[s]).mask(hidden)
    like = np.exp(-0.5 * (x[:, None] - spread * MEANS) ** 2)
    truth = posterior(np.where(hidden, np.nan, s), like)
    return pd.DataFrame({"x": x, "s": label}), hidden, s, truth


@pytest.mark.parametrize(
    ("spread", "gaps"),
    [(0.0, "runs"), pytest.param(1.5, "runs", marks=pytest.mark.slow), (1.5, "scattered")],
)
def test_probabilities_are_the_posterior_of_a_markov_chain(spread, gaps):
    frame, hidden, s, truth = hidden_chain(spread, gaps)
    fitted = imputer().fit(frame)
    found = fitted.predict_proba(frame)["s"].to_numpy()
    # 100 draws have an error of up to 0.05; the largest indicator of a Gaussian has 0.2 here.
    assert np.sqrt(np.mean((found - truth)[hidden] ** 2)) < 0.075
    brier = [np.square(p[hidden] - np.eye(3)[s[hidden]]).sum(1).mean() for p in (found, truth)]
    assert brier[0] < brier[1] + 0.02
    # Calibrated: the sum over cells of 1[s = k] - p_k is that of independent errors, nearly.
    for k in range(3):
        p = found[hidden, k]
        error = (s[hidden] == k).sum() - p.sum()
        assert abs(error) < 4.9 * np.sqrt(3 * (p * (1 - p)).sum() + 10)


@pytest.mark.slow
def test_draws_are_joint_along_the_series():
    frame, hidden, _, _ = hidden_chain(0.0, "runs")
    draws = imputer().fit(frame).sample(frame, 40)
    inside = hidden[1:] & hidden[:-1]
    changes = np.mean([
        (copy["s"].to_numpy()[1:] != copy["s"].to_numpy()[:-1])[inside].mean() for copy in draws
    ])  # fmt: skip
    # The chain changes at 12 % of its steps; cells drawn one by one would at about half.
    assert 0.07 < changes < 0.18


def test_draws_depend_on_their_series_alone_and_observed_labels_stay():
    frame = hidden_chain(1.5, "scattered")[0]
    parts = [frame[:120].reset_index(drop=True), frame[120:280].reset_index(drop=True)]
    fitted = imputer(n_draws=5).fit(parts)
    both, alone = fitted.sample(parts, 5), fitted.sample(parts[1:], 3)
    for of_both, of_one in zip(both, alone):
        pd.testing.assert_frame_equal(of_both[1], of_one[0])
        seen = parts[1]["s"].notna()
        assert (of_both[1]["s"] == parts[1]["s"])[seen].all()


def test_a_label_of_the_clock_is_told_by_the_clock():
    hours = pd.date_range("2024-01-01", periods=24 * 20, freq="h")
    shift = np.where((hours.hour >= 8) & (hours.hour < 20), "day", "night")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=len(hours)), "shift": shift}, index=hours)
    hidden = np.arange(len(hours)) // 30 % 3 == 1
    gaps = frame.assign(shift=frame["shift"].mask(hidden))
    fitted = imputer(n_draws=20).fit(gaps)
    found = fitted.predict_proba(gaps)["shift"]
    right = np.where(shift == "day", found["day"], found["night"])
    assert right[hidden].mean() > 0.9
    later = gaps.iloc[5:120]
    assert (fitted.transform(later)["shift"] == shift[5:120]).mean() > 0.9


def test_a_lone_label_and_gaps_between_rows():
    n = N // 2
    _, hidden, s, _ = (part[:n] for part in hidden_chain(0.0, "scattered"))
    hours = pd.Timestamp("2024") + pd.to_timedelta(np.arange(n), unit="h")
    frame = pd.DataFrame({"s": pd.Categorical.from_codes(s, list("abc"))}, hours)
    kept = np.arange(n) % 5 > 0
    gaps = frame.mask(hidden[:, None])[kept]
    out = imputer(n_draws=20).fit(gaps).predict_proba(gaps)["s"].to_numpy()
    assert np.square(out - np.eye(3)[s][kept]).sum(1)[hidden[kept]].mean() < 0.3


def sticky(n=300, seed=3):
    """A frame of a label that lasts, a number that tells it, and gaps in both."""
    rng = np.random.default_rng(seed)
    s = states(n, rng)
    X = pd.DataFrame(
        {"a": MEANS[s] + 0.7 * rng.normal(size=n), "state": np.array(["x", "y", "z"])[s]},
        index=pd.date_range("2024", periods=n, freq="h"),
    )
    return X.mask(rng.random(X.shape) < 0.3)


def labels_of(copies):
    return np.array([copy["state"].to_numpy() for copy in copies])


def test_labels_of_the_past_do_not_know_what_follows():
    X = sticky()
    # The end of what is known first lies in a gap of the label.
    X.loc[X.index[135:165], "state"] = None
    live = imputer(direction="past", n_draws=20).fit(X)
    whole, early = labels_of(live.sample(X)), labels_of(live.sample(X.iloc[:150]))
    assert (whole[:, :150] == early).all()
    live.set_params(direction="both")
    whole, early = labels_of(live.sample(X)), labels_of(live.sample(X.iloc[:150]))
    assert (whole[:, :150] != early).any()


def test_pieces_of_a_long_series_change_no_label(monkeypatch):
    X = sticky(700)
    fitted = imputer(n_draws=20).fit(X)
    whole = labels_of(fitted.sample(X))
    monkeypatch.setattr(_filling, "ROWS_OF_A_PIECE", 300)
    # Single precision may turn a draw that lies on an edge.
    assert (labels_of(fitted.sample(X)) != whole).mean() < 1e-3
