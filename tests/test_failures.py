"""What can go wrong, row by row, and what the user gets: an error or warning that says what to do.

Each row of the table is a call and what it must say. A call that says nothing must be right, which
the tests of its estimator show.
"""

import multiprocessing
import re
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils._param_validation import InvalidParameterError

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.estimators.density._nonsense import warn_nonsense
from skdiffusion.estimators.imputation._judging import Judged, warn_missed
from skdiffusion.metrics import get_scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
X[:, 1] += X[:, 0]
GAPS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
GAPS[:, 2] = X[:, 2]
Y = X.sum(1)
MIXED = np.array(["a", 1] * 40, dtype=object)
CLOSED = {"method": "gaussian", "n_draws": 5, "random_state": 0}
TRAINED = {"max_iter": 5, "n_channels": 8, "n_draws": 5, "random_state": 0, "early_stopping": False}
BASE = {"base": "gaussian", "max_iter": 0, "random_state": 0}
NETWORK = {"base": None, "max_iter": 30, "hidden_layer_sizes": (8,), "early_stopping": False}
NETWORK |= {"random_state": 0}
CHAINS = {"n_features": 2, "n_steps": 20, "method": "mala", "random_state": 0}


def normal(x):
    return -0.5 * x.square().sum(1)


NEW = {
    "imputer": lambda: CSDIImputer(**CLOSED),
    "density": lambda: ScoreSDE(**BASE),
    "sampler": lambda: LangevinSampler(random_state=0, n_steps=20, max_iter=0),
    "pool": lambda: MultipleImputation(NEW["imputer"](), LinearRegression(), 2, random_state=0),
}
DATA = {"imputer": GAPS, "density": X, "sampler": X, "pool": GAPS}


@cache
def fitted(name):
    return NEW[name]().fit(DATA[name], *([Y] if name == "pool" else []))


def fit(name, data):
    n_samples = data.shape[0] if hasattr(data, "shape") else len(data)
    return NEW[name]().fit(data, *([Y[:n_samples]] if name == "pool" else []))


def ask(name, data, model=None):
    model = fitted(name) if model is None else model
    method = {"density": "score_samples", "pool": "predict"}.get(name, "transform")
    return getattr(model, method)(data)


def with_value(value):
    data = X.copy()
    data[3, 1] = value
    return data


# Of every estimator: data, in fit and afterwards, and what must be said.
BAD_DATA = {
    "infinity": (with_value(np.inf), ValueError, r"contains infinity in the columns \[1\]"),
    "complex": (X + 1j, ValueError, "[Cc]omplex data not supported"),
    "sparse": (sparse.csr_matrix(X), TypeError, r"dense data is required.*toarray"),
    "one axis": (X[:, 0], ValueError, "reshape|expected"),
    "no rows": (X[:0], ValueError, "0 sample|minimum of"),
    "no columns": (X[:, :0], ValueError, "0 feature"),
    "text": (np.where(X > 1, "a", "b"), ValueError, r"hold text|not numeric|convert string"),
    "a mapping": ({"a": [1.0, 2.0]}, TypeError, r"X is a dict: pass pandas.DataFrame"),
    "a structured array": (
        np.zeros(80, dtype=[("a", float), ("b", float)]), TypeError, "X is a structured array",
    ),
    "unequal rows": ([[1.0, 2.0, 3.0], [1.0, 2.0]], ValueError, "unequal (length|parts)"),
    "words": ("abc", ValueError, "X is the text 'abc'"),
    "a column of times": (
        pd.DataFrame(X).assign(t=pd.date_range("2020", periods=80)).rename(columns=str),
        (TypeError, ValueError), r"Columns \['t'\] of X (hold times|are not numeric)",
    ),
    "times": (np.arange(240).reshape(80, 3).astype("M8[D]"), TypeError, "hold times"),
}  # fmt: skip


@pytest.mark.parametrize("when", ["in fit", "afterwards"])
@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("name", NEW)
def test_bad_data_is_named(name, kind, when):
    data, error, message = BAD_DATA[kind]
    with pytest.raises(error, match=message):
        fit(name, data) if when == "in fit" else ask(name, data)


@pytest.mark.parametrize("name", NEW)
def test_names_that_repeat_are_named(name):
    with pytest.raises(ValueError, match=r"column names repeat: \['a'\]. Rename"):
        fit(name, pd.DataFrame(DATA[name], columns=["a", "a", "b"]))


@pytest.mark.parametrize("name", NEW)
def test_one_row_teaches_nothing(name):
    with pytest.raises(ValueError, match=r"minimum of 2|n_samples=1"):
        fit(name, X[:1])


@pytest.mark.parametrize("name", NEW)
def test_other_columns_than_in_fit_are_named(name):
    with pytest.raises(ValueError, match="X has 2 features, but"):
        ask(name, X[:, :2])
    frame = pd.DataFrame(DATA[name], columns=list("abc"))
    model = fit(name, frame)
    with pytest.raises(ValueError, match=r"feature names should match"):
        ask(name, frame.rename(columns={"a": "z"}), model)


@pytest.mark.parametrize("name", NEW)
def test_unfitted_estimators_say_so(name):
    with pytest.raises(NotFittedError):
        ask(name, X, NEW[name]())


@pytest.mark.parametrize("name", NEW)
def test_the_data_of_the_caller_stay_as_they_are(name):
    data = DATA[name].copy()
    ask(name, data, fit(name, data))
    np.testing.assert_array_equal(data, DATA[name])


@pytest.mark.parametrize("name", ["density", "sampler"])
def test_gaps_are_refused_with_a_remedy(name):
    with pytest.raises(ValueError, match=r"contains NaN.*[Ii]mput"):
        fit(name, GAPS)


CHANGED = [
    *[("imputer", p, v) for p, v in [("n_steps", 0), ("solver", "no"), ("batch_size", -1)]],
    *[("imputer", p, v) for p, v in [("n_draws", 0), ("statistic", "x"), ("random_state", "a")]],
    *[("density", p, v) for p, v in [("n_steps", 0), ("n_steps", "8"), ("solver", "no")]],
    *[("density", p, v) for p, v in [("random_state", "a"), ("handle_missing", 3)]],
    *[("sampler", p, v) for p, v in [("n_chains", -1), ("n_chains", "a"), ("thin", 0)]],
    *[("sampler", p, v) for p, v in [("n_steps", 0), ("dtype", "f"), ("random_state", "a")]],
    *[(name, "device", "tpu") for name in ("imputer", "sampler")],
]


@pytest.mark.parametrize(("name", "parameter", "value"), CHANGED)
def test_parameters_changed_after_fit_are_checked(name, parameter, value):
    model = fit(name, DATA[name]).set_params(**{parameter: value})
    draw = model.sample if name != "imputer" else lambda: model.transform(GAPS)
    for call in (draw, lambda: ask(name, DATA[name], model)):
        with pytest.raises(InvalidParameterError, match=parameter):
            call()


def chains(target=normal, **parameters):
    return LangevinSampler(target, **CHAINS | parameters).fit()


def network(**parameters):
    return ScoreSDE(**NETWORK | parameters).fit(X)


@cache
def trained(**parameters):
    return network(**parameters)


@cache
def network_imputer():
    return CSDIImputer(**TRAINED, network="csdi").fit(GAPS)


def mixture(attribute, value):
    """Mixture of scikit-learn whose second component has one thing wrong."""
    model = GaussianMixture(2, random_state=0).fit(X)
    getattr(model, attribute)[1] = value
    return model


def imputed(data, **parameters):
    return CSDIImputer(**CLOSED | parameters).fit(data)


HUGE = 10**12
ERRORS = {
    "rows of a density": (lambda: fitted("density").sample(HUGE), MemoryError, r"n_samples=1.* GB"),
    "rows beyond 64 bits": (lambda: fitted("density").sample(10**20), MemoryError, r"GB.*several"),
    "rows of a sampler": (lambda: chains().sample(HUGE), MemoryError, r"n_samples=1.* GB.*several"),
    "draws of an imputer": (
        lambda: fitted("imputer").sample(GAPS, HUGE), MemoryError, r"n_draws=1.* GB",
    ),
    "draws of gaps": (lambda: fitted("density").impute(GAPS, HUGE), MemoryError, r"n_draws=1.* GB"),
    "draws of a bound": (
        lambda: fitted("density").nll_bound(X, n_draws=HUGE), MemoryError, r"n_draws=1.* GB",
    ),
    "width of a layer": (lambda: network(hidden_layer_sizes=(-1,)), ValueError, r"\(-1,\) must be"),
    "half a layer": (lambda: network(hidden_layer_sizes=(2.5,)), ValueError, r"\(2\.5,\) must be"),
    "layers too wide": (
        lambda: network(hidden_layer_sizes=(10**9,) * 2), MemoryError, "lower .*hidden_layer_sizes",
    ),
    "network that is none": (
        lambda: network(network=lambda n, g: 3), TypeError, r"must return a torch.nn.Module.* int",
    ),
    "network without arguments": (
        lambda: network(network=lambda: 3), TypeError, r"\(n_features, generator\), but takes",
    ),
    "network of another call": (
        lambda: network(network=lambda d, generator: torch.nn.Linear(d, d)),
        TypeError, r"module\(x, log_s, base_noise, condition\)",
    ),
    "strategy without arguments": (
        lambda: CSDIImputer(**TRAINED, target_strategy=lambda: 3).fit(GAPS),
        TypeError, r"target_strategy\(observed, rng\), but takes \(\)",
    ),
    "starts without arguments": (
        lambda: chains(init=lambda: 3), TypeError, r"init\(n_chains, rng\), but takes",
    ),
    "starts of other features": (
        lambda: chains().set_params(init=np.zeros((2, 5))).sample(3), ValueError, r"n_points, 2\)",
    ),
    "target without arguments": (lambda: chains(lambda: 3), TypeError, r"\(x\), but takes \(\)"),
    "target of two arguments": (lambda: chains(lambda a, b: 3), TypeError, r"takes \(a, b\)"),
    "labels of two types": (
        lambda: ScoreSDE(**BASE, condition="label").fit(X, MIXED),
        ValueError, r"\['int', 'str'\].*astype",
    ),
    "cells of two types": (
        lambda: ScoreSDE(**BASE).fit(pd.DataFrame({"a": X[:, 0], "b": MIXED})),
        ValueError, "Column 'b' of X mixes text",
    ),
    "an offset without digits": (
        lambda: ScoreSDE(**BASE).fit(1e15 + X), ValueError, "double precision.*subtract their",
    ),
    "subnormal columns": (
        lambda: ScoreSDE(**BASE).fit(1e-310 * X), ValueError, "double precision.*other units",
    ),
    "subnormal columns of a sampler": (
        lambda: fit("sampler", 1e-310 * X), ValueError, r"Columns \[0, 1, 2\].*double precision",
    ),
    "a mixture with NaN": (
        lambda: LangevinSampler(mixture("means_", np.nan)).fit(),
        ValueError, r"Components \[1\] of",
    ),
    "a singular mixture": (
        lambda: LangevinSampler(mixture("covariances_", 0.0)).fit(),
        ValueError, r"Components \[1\] of.*no inverse.*reg_covar",
    ),
    "a mixture with a negative weight": (
        lambda: LangevinSampler(mixture("weights_", -1.0)).fit(),
        ValueError, r"Components \[1\] of",
    ),
    "a function without inverse ahead of a scorer": (
        lambda: get_scorer("neg_crps")(
            make_pipeline(FunctionTransformer(np.log), imputed(np.exp(GAPS))).fit(np.exp(GAPS)),
            np.exp(GAPS),
        ),
        ValueError, "needs inverse_func",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ERRORS)
def test_what_cannot_be_done_is_refused(kind):
    call, error, message = ERRORS[kind]
    with pytest.raises(error, match=message):
        call()


UNEVEN = RNG.choice([0.0, 1.0, 2.7, 3.1, 7.77], size=(200, 2))
TOGETHER = np.c_[X, 2 * X[:, 0] + X[:, 1]]
WARNINGS = {
    "an offset without digits": (lambda: imputed(1e15 + GAPS), "Features .* double precision"),
    "subnormal columns": (lambda: imputed(1e-310 * GAPS), "Features .* double precision"),
    "other units": (lambda: fitted("imputer").transform(10 * GAPS + 1000), "units of fit"),
    "collinear columns": (lambda: ScoreSDE(**BASE).fit(TOGETHER), r"Columns \[0, 1, 3\].*no bound"),
    "collinear columns of a sampler": (lambda: fit("sampler", TOGETHER), r"Columns \[0, 1, 3\]"),
    "values that lie on no grid": (lambda: ScoreSDE(**BASE).fit(UNEVEN), "discrete values"),
    "two steps of Heun": (
        lambda: clone_with(trained(), solver="heun", n_steps=2).sample(30), "fewer than 6 steps",
    ),
    "four steps of Euler and Maruyama": (
        lambda: clone_with(trained(), solver="euler_maruyama", n_steps=4).sample(30), "than 11",
    ),
    "two steps of the default solver": (
        lambda: clone_with(trained(), n_steps=2).sample(30), "with standard deviation 0.*Raise n_s",
    ),
    "few steps of an imputer": (
        lambda: clone_with(network_imputer(), solver="heun", n_steps=2).transform(GAPS),
        "n_steps=2 are too few for solver='heun'",
    ),
    "one step of an imputer": (
        lambda: clone_with(network_imputer(), n_steps=1).transform(GAPS), "n_steps=1 are too few",
    ),
    "a network that lost to its start": (
        lambda: ScoreSDE(**NETWORK | {"learning_rate": 1e3}).fit(X), "did not raise the held-out",
    ),
    "bands that miss": (
        lambda: warn_missed(Judged(0.5, 0.4, 1000)), "Bands made for 88% .* hold 40% of 1000",
    ),
    "draws far outside": (
        lambda: warn_nonsense(torch.full((30, 2), 50.0), torch.nn.Identity(), "heun", 32),
        "standard deviations from the centre of the training data.*raise n_steps",
    ),
    "one start and one step": (
        lambda: chains(init=np.full((1, 2), 1000.0), n_steps=1), "two kinds of start disagree",
    ),
    "a condition far away": (
        lambda: ScoreSDE(**BASE, condition="value").fit(X, Y).sample(2, 1e6),
        "nothing is known out there",
    ),
}  # fmt: skip


def clone_with(model, **parameters):
    """The same fitted model with other parameters."""
    again = clone(model)
    again.__dict__ = vars(model) | parameters
    return again


@pytest.mark.parametrize("kind", WARNINGS)
def test_what_is_not_right_is_said_once(kind):
    call, message = WARNINGS[kind]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    found = [str(w.message) for w in said]
    matching = [text for text in found if re.search(message, text)]
    assert len(matching) == (3 if kind == "other units" else 1), found


def test_batches_larger_than_the_data_are_cut():
    assert np.isfinite(CSDIImputer(**TRAINED, batch_size=HUGE).fit(GAPS).transform(GAPS)).all()
    assert np.isfinite(network(batch_size=HUGE, max_iter=2).sample(3)).all()


def answers():
    imputer = CSDIImputer(**TRAINED).fit(GAPS)
    density = ScoreSDE(**NETWORK | {"max_iter": 3}).fit(X)
    density.partial_fit(X)
    return [
        imputer.transform(GAPS),
        density.sample(3),
        density.score_samples(X[:3]),
        chains().sample(3),
    ]


@cache
def plain_answers():
    return answers()


SESSIONS = {
    "double precision": lambda: torch.set_default_dtype(torch.float64),
    "another device": lambda: torch.set_default_device("meta"),
    "no gradients": torch.no_grad().__enter__,
    "inference": torch.inference_mode().__enter__,
}


@pytest.mark.parametrize("name", SESSIONS)
def test_settings_of_torch_change_nothing(name):
    expected = plain_answers()
    try:
        with torch.enable_grad(), torch.inference_mode(False):
            if name == "no gradients":
                with torch.no_grad():
                    found = answers()
            elif name == "inference":
                with torch.inference_mode():
                    found = answers()
            else:
                SESSIONS[name]()
                before = torch.get_default_dtype(), torch.get_default_device()
                found = answers()
                assert (torch.get_default_dtype(), torch.get_default_device()) == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


def fork_and_fit(queue):
    torch.set_num_threads(1)
    queue.put(ScoreSDE(**NETWORK | {"max_iter": 3}).fit(X).sample(2))


@pytest.mark.filterwarnings("ignore")
def test_a_fork_after_threads_of_torch_trains():
    expected = ScoreSDE(**NETWORK | {"max_iter": 3}).fit(X).sample(2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.rand(500, 500) @ torch.rand(500, 500)
    torch.set_num_threads(before)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=fork_and_fit, args=(queue,), daemon=True)
    child.start()
    try:
        np.testing.assert_allclose(queue.get(timeout=120), expected, rtol=1e-5)
    finally:
        child.kill()


@pytest.mark.parametrize("offset", [0.0, 1e5, 1e9])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_pooled_errors_do_not_depend_on_the_units(scale, offset):
    """Least squares in closed form: slopes scale, and an offset moves the intercept alone."""
    from skdiffusion.estimators.imputation._estimates import variance_formula

    y = Y + np.random.default_rng(1).normal(size=len(Y))
    design = np.c_[np.ones(len(X)), X]
    residual = y - design @ np.linalg.lstsq(design, y)[0]
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual / (len(y) - 4))
    moved = scale * (X + offset)
    model = LinearRegression().fit(moved, y)
    _, variances = variance_formula(model, y)(model, moved, y)
    rtol = 1e-6 if offset < 1e9 else 1e-4
    np.testing.assert_allclose(variances[1:] * scale**2, np.diag(covariance)[1:], rtol=rtol)
    weights = np.r_[1.0, np.full(3, -offset)]
    np.testing.assert_allclose(variances[0], weights @ covariance @ weights, rtol=rtol)


def test_pooled_errors_of_a_logistic_regression_are_those_of_fisher():
    from skdiffusion.estimators.imputation._estimates import variance_formula

    y = Y + np.random.default_rng(1).normal(size=len(Y)) > 0
    model = LogisticRegression(C=np.inf).fit(X, y)
    p, design = model.predict_proba(X)[:, 1], np.c_[np.ones(len(X)), X]
    information = (design * (p * (1 - p))[:, None]).T @ design
    _, variances = variance_formula(model, y)(model, X, y)
    np.testing.assert_allclose(variances, np.diag(np.linalg.inv(information)), rtol=1e-8)


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()], ids=repr)
def test_a_failed_refit_of_multiple_imputation_changes_nothing(error, monkeypatch):
    model = fit("pool", GAPS)
    before = model.predict(GAPS)

    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(LinearRegression, "fit", broken)
    with pytest.raises(type(error)):
        model.fit(GAPS[:, :2], Y)
    np.testing.assert_array_equal(model.predict(GAPS), before)


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


INTERRUPTS = {
    "imputer": ("skdiffusion.estimators.imputation._model.normals", lambda m: m.transform(GAPS)),
    "density": ("skdiffusion.diffusion.model._sample_base", lambda m: m.sample(3)),
    "sampler": ("skdiffusion.estimators.sampling._running.run", lambda m: m.sample(3)),
}


@pytest.mark.parametrize("name", INTERRUPTS)
def test_an_interrupt_while_drawing_leaves_an_estimator_that_draws(name, monkeypatch):
    place, draw = INTERRUPTS[name]
    model = fitted(name)
    before = draw(model)
    with monkeypatch.context() as patch:
        patch.setattr(place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw(model)
    np.testing.assert_array_equal(draw(model), before)


@pytest.mark.parametrize("stage", ["learn_columns", "split_windows", "fit_imputation_model"])
def test_an_interrupted_refit_of_an_imputer_changes_nothing(stage, monkeypatch):
    model = fit("imputer", GAPS)
    before = model.transform(GAPS)
    with monkeypatch.context() as patch:
        patch.setattr(f"skdiffusion.estimators.imputation.csdi_imputer.{stage}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(pd.DataFrame(X, columns=list("abc")))
    np.testing.assert_array_equal(model.transform(GAPS), before)
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("stage", ["find_candidates", "first_sound", "first_coordinates"])
def test_an_interrupted_refit_of_a_sampler_changes_nothing(stage, monkeypatch):
    model = fit("sampler", X)
    before = model.sample(3)
    with monkeypatch.context() as patch:
        patch.setattr(f"skdiffusion.estimators.sampling.langevin_sampler.{stage}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X[:, :2])
    np.testing.assert_array_equal(model.sample(3), before)
