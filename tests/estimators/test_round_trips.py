"""Whatever the types, the index and the gaps: what was observed comes back, of its type."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdiffusion import CSDIImputer

N = 24
INDEXES = {
    "range": pd.RangeIndex(N),
    "text": pd.Index([f"r{i}" for i in range(N)]),
    "repeated": pd.Index([i // 2 for i in range(N)]),
    "hours": pd.date_range("2024-03-30", periods=N, freq="h", tz="Europe/Berlin"),
    "months": pd.period_range("2020-01", periods=N, freq="M"),
    "two levels": pd.MultiIndex.from_product([list("ab"), range(N // 2)]),
}
VALUES = {
    "float64": lambda rng: pd.array(rng.normal(size=N), dtype="float64"),
    "Float32": lambda rng: pd.array(rng.normal(size=N), dtype="Float32"),
    "Int64": lambda rng: pd.array(rng.integers(2**60, 2**60 + 9, N), dtype="Int64"),
    "UInt8": lambda rng: pd.array(rng.integers(0, 256, N), dtype="UInt8"),
    "boolean": lambda rng: pd.array(rng.random(N) < 0.5, dtype="boolean"),
    "text": lambda rng: pd.array(rng.choice(["a", "b", "c"], N), dtype="string"),
    "object": lambda rng: pd.Series(rng.choice(["a", "b"], N), dtype=object).array,
    "category": lambda rng: pd.Categorical(rng.choice([3, 1, 2], N), [3, 1, 2]),
    "ordered": lambda rng: pd.Categorical(rng.choice(["x", "y"], N), ["y", "x"], ordered=True),
}


@st.composite
def frames(draw):
    """A frame of a few columns, with gaps that leave something of every column."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=2, max_size=4))
    index = INDEXES[draw(st.sampled_from(sorted(INDEXES)))]
    frame = pd.DataFrame({f"c{i}": VALUES[k](rng) for i, k in enumerate(kinds)})
    rate = draw(st.sampled_from([0.0, 0.1, 0.5]))
    frame = frame.mask(rng.random(frame.shape) < rate) if rate else frame
    return frame.set_axis(index)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(frame=frames(), window_length=st.sampled_from([None, 6]))
def test_what_was_observed_comes_back_equal_type_included(frame, window_length):
    before = frame.copy(deep=True)
    usable = frame.notna().sum() > 1
    frame = frame.loc[:, usable.to_numpy()]
    if frame.shape[1] == 0 or (window_length and not frame.index.is_unique):
        return
    imputer = CSDIImputer(method="gaussian", window_length=window_length, n_draws=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = imputer.fit(frame).transform(frame)
    pd.testing.assert_frame_equal(before.loc[:, usable.to_numpy()], frame)
    assert out.index.equals(frame.index)
    assert out.columns.equals(frame.columns)
    assert (out.dtypes == frame.dtypes).all()
    assert out.notna().all(axis=None)
    for name in frame:
        seen = frame[name].notna().to_numpy()
        pd.testing.assert_series_equal(out[name][seen], frame[name][seen])
