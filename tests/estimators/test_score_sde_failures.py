"""What can go wrong around a density model, and what the user gets: rows of the failure list."""

import copy
import datetime
import hashlib
import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE
from skdiffusion.diffusion import VPSDE
from skdiffusion.estimators.density._fitting import new_network
from skdiffusion.nn.mlp import ResidualMLP

ROWS = np.random.default_rng(0).multivariate_normal([1, 2], [[1, 0.5], [0.5, 2]], 80)


def small(**kwargs):
    settings = {"base": "gaussian", "hidden_layer_sizes": (8,), "max_iter": 0, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


def with_value(value):
    X = ROWS.copy()
    X[3, 1] = value
    return X


REFUSED = {
    "nan": (with_value(np.nan), ValueError, "contains NaN"),
    "inf": (with_value(np.inf), ValueError, r"infinity in the columns \[1\].*missing"),
    "constant": (np.c_[ROWS, np.ones(80)], ValueError, r"\[2\].*constant"),
    "all rows equal": (np.repeat(ROWS[:1], 30, 0), ValueError, "constant"),
    "one row": (ROWS[:1], ValueError, "minimum of 2"),
    "no rows": (ROWS[:0], ValueError, "0 sample"),
    "no columns": (ROWS[:, :0], ValueError, "0 feature"),
    "complex": (ROWS + 1j, ValueError, "Complex data not supported"),
    "sparse": (scipy.sparse.csr_matrix(ROWS), TypeError, "dense"),
    "one dimension": (ROWS[:, 0], ValueError, "[Rr]eshape"),
    "three dimensions": (ROWS[None], ValueError, "dim 3"),
    "text": (np.array([["a", "b"]] * 30), ValueError, "could not convert string to float"),
    "objects": (np.array([[{}, 1.0]] * 30, dtype=object), TypeError, "must be a string or"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_entry(name):
    X, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        small().fit(X)


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.tolist(),
        lambda X: np.asfortranarray(X),
        lambda X: X[:, ::-1][:, ::-1],
        lambda X: X.astype(">f8"),
        lambda X: X.astype(object),
        lambda X: X.astype(np.float32),
        lambda X: X.astype(np.float16),
        lambda X: pd.DataFrame(X).astype("Float64"),
        lambda X: np.lib.stride_tricks.as_strided(X, X.shape, X.strides, writeable=False),
    ],
    ids=[
        "list",
        "fortran",
        "reversed",
        "big-endian",
        "object",
        "float32",
        "float16",
        "nullable",
        "read-only",
    ],
)
def test_every_kind_of_numbers_gives_the_same_model(convert):
    expected = small().fit(ROWS).score_samples(ROWS)
    values = small().fit(convert(ROWS)).score_samples(convert(ROWS))
    np.testing.assert_allclose(values, expected, atol=0.02)
    assert values.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool])
def test_whole_numbers_are_discrete(dtype):
    X = (np.random.default_rng(0).integers(0, 2, (60, 2)) * [1, 1]).astype(dtype)
    draws = small().fit(X).sample(50)
    assert set(np.unique(draws)) == {0.0, 1.0}


def test_missing_values_of_nullable_columns_count_as_missing():
    frame = pd.DataFrame(ROWS, columns=["a", "b"]).astype("Float64")
    frame.loc[3, "a"] = pd.NA
    with pytest.raises(ValueError, match="contains NaN"):
        small().fit(frame)
    assert np.isfinite(small(handle_missing="impute").fit(frame).score(ROWS))


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("shift", [0.0, 1e9])
def test_units_do_not_matter(scale, shift):
    expected = small().fit(ROWS).score(ROWS) - 2 * math.log(scale)
    X = (ROWS + shift) * scale
    assert small().fit(X).score(X) == pytest.approx(expected, abs=1e-3)


def test_one_impossible_record_is_named_and_bounded():
    with pytest.warns(UserWarning, match=r"\[1\].*far outside"):
        model = small().fit(with_value(1e300))
    assert np.isfinite(model.score_samples(ROWS)).all()


def test_duplicated_rows_count_twice_and_stay_finite():
    X = np.r_[ROWS, ROWS[:20]]
    weight = np.r_[np.full(20, 2), np.ones(60)]
    model = ScoreSDE(max_iter=0, random_state=0).fit(X)
    assert "kde" not in model.held_out_score_
    again = ScoreSDE(max_iter=0, random_state=0).fit(ROWS, sample_weight=weight)
    np.testing.assert_allclose(model.score_samples(X), again.score_samples(X))


def test_fewer_rows_than_a_batch():
    model = small(max_iter=3, batch_size=500).fit(ROWS[:5])
    assert np.isfinite(model.score_samples(ROWS)).all()


def test_columns_renamed_reordered_or_missing():
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    model = small().fit(frame)
    for wrong in (frame[["b", "a"]], frame.rename(columns={"a": "c"})):
        with pytest.raises(ValueError, match="feature names"):
            model.score_samples(wrong)
    for method in ("score_samples", "transform", "nll_bound", "impute", "entropy"):
        with pytest.raises(ValueError, match="features"):
            getattr(model, method)(ROWS[:, :1])


@pytest.mark.parametrize("kwargs", [{}, {"max_iter": 2}, {"condition": "label"}])
def test_the_callers_arrays_never_change(kwargs):
    X, y, weight = ROWS.copy(), (ROWS[:, 0] > 1).astype(int), np.ones(80)
    digest = lambda: [hashlib.sha256(a.tobytes()).hexdigest() for a in (X, y, weight)]  # noqa: E731
    before = digest()
    model = small(**kwargs).fit(X, y, weight)
    for method in ("score_samples", "transform", "nll_bound", "impute", "entropy"):
        getattr(model, method)(X)
    assert digest() == before


def test_a_network_of_the_wrong_shape_is_named():
    class Wrong(torch.nn.Module):
        def forward(self, x, log_s, base_noise, condition=None):
            return x[:, :1]

    with pytest.raises(ValueError, match=r"network must return.*\(2, 2\).*\(2, 1\)"):
        small(max_iter=2, network=lambda d, generator: Wrong()).fit(ROWS)


def test_a_network_of_nan_stops_with_advice():
    class Nan(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(math.nan))

        def forward(self, x, log_s, base_noise, condition=None):
            return x * self.weight

    with pytest.raises(FloatingPointError, match="learning_rate"):
        small(max_iter=2, network=lambda d, generator: Nan()).fit(ROWS)


def test_training_without_gain_keeps_the_base():
    """Weights of no use are not kept, and the history says what happened."""
    model = small(max_iter=40, learning_rate=1e-12).fit(ROWS)
    assert model.base_ == "gaussian"
    assert set(model.held_out_score_) == {"gaussian", "gaussian + network"}
    assert len(model.history_["gaussian"]["validation"]) >= 2


def test_the_standard_error_of_the_bound_shrinks_and_is_finite():
    model = small(base="mixture").fit(np.r_[ROWS, ROWS + 6])
    errors = [model.nll_bound(ROWS, n_draws=n, return_std=True)[1].mean() for n in (16, 256)]
    assert errors[1] < errors[0] / 2
    far = np.array([[1e6, -1e6]])
    assert np.isfinite(model.nll_bound(far)).all()


def test_adaptive_solver_never_returns_half_of_a_path(monkeypatch):
    from skdiffusion.diffusion import model as score_model

    def impatient(*args, **kwargs):
        return adaptive(*args, **kwargs | {"max_evaluations": 3})

    adaptive = score_model.adaptive_flow
    monkeypatch.setattr(score_model, "adaptive_flow", impatient)
    model = small(solver="adaptive").fit(ROWS)
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    with pytest.raises(RuntimeError, match="solver with fixed steps"):
        model.sample(3)


def test_a_model_for_a_gpu_opens_without_one():
    model = small(max_iter=2).fit(ROWS)
    state = copy.deepcopy(model.__getstate__())
    again = small()
    with pytest.warns(UserWarning, match=r"device='cuda:99' is not on this machine"):
        again.__setstate__(state | {"device": "cuda:99"})
    assert again.device == "auto"
    np.testing.assert_array_equal(again.score_samples(ROWS), model.score_samples(ROWS))
    assert pickle.loads(pickle.dumps(model)).sample(2).shape == (2, 2)


def test_search_over_process_base_and_law_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), small(max_iter=3))
    grid = {
        "scoresde__base": ["gaussian", None],
        "scoresde__noise_law": ["loguniform", VPSDE(beta_max=10.0)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(pipeline, grid, cv=2).fit(ROWS, ROWS[:, 0])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.transform(ROWS).shape == ROWS.shape


@pytest.mark.parametrize("kwargs", [{"y": 1}, {"y": "a"}, {"guidance": 2.0}, {"guidance": 0}])
def test_a_model_without_condition_does_not_sample_as_if_it_had_one(kwargs):
    model = small().fit(ROWS, ROWS[:, 0])
    with pytest.raises(ValueError, match='set condition="label" or "value" before fit'):
        model.sample(3, **kwargs)
    expected = model.score_samples(ROWS)
    np.testing.assert_array_equal(model.score_samples(ROWS, ROWS[:, 0]), expected)


@pytest.mark.parametrize("labels", [False, True])
def test_infinity_of_a_frame_names_its_columns(labels):
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    if labels:
        frame["label"] = ["x", "y"] * 40
    model, imputer = small().fit(frame), CSDIImputer(method="gaussian")
    wrong = frame.copy()
    wrong.loc[3, "b"] = -np.inf
    calls = [lambda: small().fit(wrong), lambda: model.score_samples(wrong)]
    for call in calls if labels else [*calls, lambda: imputer.fit(wrong)]:
        with pytest.raises(ValueError, match=r"infinity in the columns \['b'\].*NaN"):
            call()


@pytest.mark.parametrize("n_samples", [2.5, 1e1, True, "3", [3], 0, None])
def test_number_of_draws_is_a_positive_integer(n_samples):
    with pytest.raises(ValueError, match=r"n_samples=.* must be a positive integer"):
        small().fit(ROWS).sample(n_samples)


@pytest.mark.parametrize("n_draws", [2.5, 4.0, True, "4", [4], 0, -2])
def test_numbers_of_draws_are_positive_integers(n_draws):
    model = small().fit(ROWS)
    for method in ("impute", "nll_bound", "score_matching_loss", "entropy"):
        with pytest.raises(ValueError, match=r"n_draws=.* must be a positive integer"):
            getattr(model, method)(ROWS, n_draws=n_draws)
    with pytest.raises(ValueError, match=r"n_draws=.* must be a positive integer"):
        model.kl_bound(ROWS, 1.0, n_draws=n_draws)


def test_a_full_device_is_answered_with_advice(monkeypatch):
    """In the words of the allocator, after the parameter to change."""

    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    model = small(max_iter=2).fit(ROWS)
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    gaps = np.array([[np.nan, 1.0]])
    with monkeypatch.context() as patch:
        patch.setattr(ResidualMLP, "forward", full)
        calls = {
            "lower batch_size or hidden_layer_sizes": [lambda: small(max_iter=2).fit(ROWS)],
            "lower n_samples": [lambda: model.sample(3)],
            "lower n_draws or pass fewer rows of X": [lambda: model.impute(gaps)],
            "pass fewer rows of X": [
                lambda name=name: getattr(model, name)(ROWS)
                for name in ("score_samples", "nll_bound", "entropy", "transform")
            ]
            + [lambda: model.log_density_gradient(ROWS), lambda: model.inverse_transform(ROWS)],
        }
        for advice, failing in calls.items():
            for call in failing:
                with pytest.raises(torch.OutOfMemoryError, match=f"{advice}.*20 GiB"):
                    call()
    assert np.isfinite(model.impute(gaps)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, "2", [2.0], [[1], [1, 2]], None, True])
def test_scalars_of_a_call_are_finite_numbers(value):
    model = small(condition="label").fit(ROWS, ROWS[:, 0] > 1)
    calls = {
        "guidance": lambda: model.sample(2, y=True, guidance=value),
        "noise_level": lambda: model.log_density_gradient(ROWS, value),
        "data_entropy": lambda: model.kl_bound(ROWS, value),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}=.* must be a finite number"):
            call()


def test_signs_of_guidance_and_noise_level():
    model = small(condition="label").fit(ROWS, ROWS[:, 0] > 1)
    with pytest.raises(ValueError, match=r"guidance=-1.0 must not be negative"):
        model.sample(2, y=True, guidance=-1)
    with pytest.raises(ValueError, match=r"guidance=2.0 .* y is None: pass y"):
        model.sample(2, guidance=2.0)
    with pytest.raises(ValueError, match=r"noise_level=0.0 must be positive"):
        model.log_density_gradient(ROWS, 0)
    entropy = torch.tensor(2.0)
    assert model.kl_bound(ROWS, entropy) == model.kl_bound(ROWS, 2)


def test_labels_that_are_continuous_missing_or_new():
    names = np.where(ROWS[:, 0] > 1, "a", "b")
    model = small(condition="label")
    with pytest.raises(ValueError, match=r"continuous y .* use condition='value'"):
        model.fit(ROWS, ROWS[:, 0])
    for gap in (None, np.nan, pd.NA):
        y = names.astype(object)
        y[3] = gap
        with pytest.raises(ValueError, match="y contains NaN"):
            model.fit(ROWS, y)
    with pytest.raises(ValueError, match=r"the label 'q', which .* knows \['a', 'b'\]"):
        model.fit(ROWS, names).sample(2, y="q")
    assert model.fit(ROWS, (ROWS[:, 0] > 1).astype(float)).classes_.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("label", [None, "a"])
def test_frames_with_repeated_names_or_times(label):
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    if label:
        frame["label"] = label
    with pytest.raises(ValueError, match=r"column names repeat: \['a'\]"):
        small().fit(frame.set_axis(["a", "a", *frame.columns[2:]], axis=1))
    days = pd.date_range("2020", periods=len(frame))
    for times in (days, days.tz_localize("UTC"), days - days[0]):
        for column in (times, pd.Series(list(times), dtype=object)):
            with pytest.raises(TypeError, match=r"Columns \['when'\] of X hold times.*numbers"):
                small().fit(frame.assign(when=column))
    with pytest.raises(TypeError, match=r"Columns \[1\] of X hold times"):
        small().fit(np.array([[1.0, datetime.date(2020, 1, 1 + i)] for i in range(9)], object))


def test_a_model_of_labels_is_no_target_of_a_sampler():
    frame = pd.DataFrame(ROWS, columns=["a", "b"]).assign(label=["x", "y"] * 40)
    model = small().fit(frame)
    for X in (None, np.c_[ROWS, ROWS[:, 0]]):
        with pytest.raises(ValueError, match=r"target has label columns \['label'\]"):
            LangevinSampler(model, random_state=0).fit(X)
