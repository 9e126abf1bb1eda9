"""Warnings name the line of the user, through decorators, searches and pipelines."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion._warn import warn
from skdiffusion.metrics import crps_loss, make_imputation_scorer

X = np.random.default_rng(0).normal(size=(60, 2))
GAPS = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
EMPTY = np.c_[GAPS, np.full(60, np.nan)]
TIED = np.c_[X, np.where(np.arange(60) % 3, np.pi, X[:, 0])]
FAR = np.r_[X, [[1e6, 0.0]]]
TIMES = pd.date_range("2024", periods=60, freq="h")


def imputer(**parameters):
    return CSDIImputer(method="gaussian", n_draws=20, random_state=0, **parameters)


def density(**parameters):
    return ScoreSDE(base="gaussian", max_iter=0, random_state=0, **parameters)


def not_a_log(x):
    return torch.exp(-(x**2).sum(-1))


def stuck(x):
    """Finite at the origin only: every step is refused."""
    return torch.where((x == 0).all(-1), 0.0, -1e9 * (x**2).sum(-1))


def sample_stuck():
    sampler = LangevinSampler(stuck, n_features=2, method="mala", step_size=10.0, n_steps=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler.fit()
    sampler.transform(np.ones((5, 2)))


WARNED = {
    "imputer fit": lambda: imputer().fit(EMPTY),
    "imputer fit_transform": lambda: imputer().fit_transform(EMPTY),
    "imputer unscaled": lambda: imputer(scale=False).fit(100 + GAPS),
    "imputer few windows": lambda: CSDIImputer(max_iter=3).fit(GAPS[:5]),
    "imputer transform": lambda: imputer().fit(GAPS).transform([[np.nan, np.nan]]),
    "imputer sample": lambda: imputer().fit(GAPS).sample([[np.nan, np.nan]], 2),
    "imputer quantiles": lambda: imputer().fit(GAPS).predict_quantiles(GAPS, [0.01]),
    "imputer score": lambda: imputer().fit(GAPS).score(np.r_[GAPS, [[np.nan, np.nan]]]),
    "imputer index": lambda: imputer().fit(pd.DataFrame(GAPS, index=TIMES)),
    "imputer lost times": lambda: (
        imputer(window_length=12).fit(GAPS, timestamps=np.arange(60)).transform(GAPS)
    ),
    "density tied": lambda: density(dequantize=False).fit(TIED),
    "density far": lambda: density().fit(FAR),
    "sampler gradients": lambda: LangevinSampler(lambda x: -x, n_features=2).fit(),
    "sampler no log": lambda: LangevinSampler(not_a_log, n_features=2, n_steps=50).fit(),
    "sampler stuck": sample_stuck,
    "metric": lambda: crps_loss(X, np.stack([X] * 5, 1), method="quantile"),
    "scorer": lambda: make_imputation_scorer("mae", n_draws=2)(imputer().fit(GAPS), GAPS),
    "collinear": lambda: (
        MultipleImputation(imputer(), LinearRegression(), n_imputations=2)
        .fit(np.c_[GAPS, X[:, :1], X[:, :1]], X[:, 0])
        .pooled_
    ),
    "pipeline": lambda: make_pipeline("passthrough", imputer()).fit_transform(EMPTY),
    "cross validation": lambda: cross_val_score(density(dequantize=False), TIED, cv=2),
    "search": lambda: GridSearchCV(imputer(), {"statistic": ["mean", "median"]}, cv=2).fit(EMPTY),
}


@pytest.mark.parametrize("reason", WARNED)
def test_warnings_name_the_line_of_the_user(reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WARNED[reason]()
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_is_shown_once_for_every_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            warn("Rows are few.")
        warn("Rows are few.")
    first, second = caught
    assert second.lineno == first.lineno + 1


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_worker_has_no_line_of_the_user(backend):
    """There it must not be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Parallel(2, backend=backend)(delayed(warn)("of a worker") for _ in range(2))


def test_a_thread_of_the_user():
    thread = threading.Thread(target=lambda: warn("of a thread", FutureWarning))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.start()
        thread.join()
    assert [(w.filename, w.category) for w in caught] == [(__file__, FutureWarning)]


def test_where_every_line_is_of_the_package():
    """As in a module of it that is run as a program: the outermost line is named."""
    source = "__name__ = 'skdiffusion.x'\nfrom skdiffusion._warn import warn\nwarn('alone')"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0
    assert "<string>:3: UserWarning: alone" in done.stderr
