"""Small estimators of every kind, with what they answer."""

import numpy as np
import pandas as pd
import torch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from torch import distributions as td

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.diffusion import VPSDE
from skdiffusion.estimators import conformalize
from skdiffusion.nn import ResidualMLP

RNG = np.random.default_rng(0)
N = 80
X = RNG.normal(size=(N, 3)) @ [[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]]
GAPS = np.where(RNG.random(X.shape) < 0.15, np.nan, X)
GAPS[:, 2] = X[:, 2]
Y = X.sum(axis=1) + RNG.normal(size=N)
LABELS = np.where(Y > 0, "high", "low")
FRAME = pd.DataFrame(
    {
        "real": X[:, 0],
        "count": RNG.poisson(3, N),
        "flag": X[:, 1] > 0,
        "word": np.where(X[:, 2] > 0, "up", "down"),
        "grade": pd.Categorical(np.array(["a", "b", "c"])[RNG.integers(0, 3, N)]),
    }
)
HOLES = FRAME.copy()
HOLES.loc[::7, "real"] = np.nan
HOLES.loc[::9, "word"] = None
HOURS = pd.DataFrame(
    np.cumsum(RNG.normal(size=(N, 3)), axis=0),
    pd.date_range("2024-01-01", periods=N, freq="h"),
    list("abc"),
)
HOURS.iloc[5:9, 0] = np.nan
SMALL = {"max_iter": 10, "n_draws": 5, "n_channels": 8, "random_state": 0}
CLOSED = {"method": "gaussian", "n_draws": 5, "random_state": 0}
DENSITY = {"max_iter": 10, "hidden_layer_sizes": (8,), "n_steps": 6, "random_state": 0}
BASE = DENSITY | {"base": "gaussian", "early_stopping": False}
CHAINS = {"n_steps": 20, "random_state": 0}
MODES = td.MixtureSameFamily(
    td.Categorical(torch.tensor([0.25, 0.75])),
    td.Independent(td.Normal(torch.tensor([[-4.0, 0.0], [4.0, 1.0]]), 1.0), 1),
)


def imputer(data=GAPS, **parameters):
    fitted = CSDIImputer(**SMALL | parameters).fit(data)
    return fitted, lambda m: [m.transform(data), m.sample(data, 2)]


def density(data=X, y=None, **parameters):
    fitted = ScoreSDE(**DENSITY | parameters).fit(data, y)
    few, given = data[:5], None if y is None else y[:5]

    def answers(m):
        draws = [m.sample(5, given)]
        return draws if m.handle_missing == "impute" else [*draws, m.score_samples(few, given)]

    return fitted, answers


def sampler(target=None, data=None, **parameters):
    fitted = LangevinSampler(target, **CHAINS | parameters).fit(data)
    return fitted, lambda m: [m.sample(5), m.score_samples(m.sample(3, 1))]


def pooled(estimator, y, inner=None):
    inner = inner or CSDIImputer(**CLOSED)
    fitted = MultipleImputation(inner, estimator, 2, random_state=0).fit(GAPS, y)
    return fitted, lambda m: [m.predict(GAPS)]


def piped(*steps, data=GAPS, y=None, method="transform"):
    fitted = make_pipeline(*steps).fit(data, y)
    return fitted, lambda m: [getattr(m, method)(data)]


def conformal():
    fitted = conformalize(CSDIImputer(**CLOSED).fit(GAPS), X, missing_rate=0.3, n_draws=20)
    return fitted, lambda m: [m.predict_quantiles(GAPS)]


COLUMNS = ColumnTransformer(
    [
        ("power", PowerTransformer(), [0]),
        ("ranks", QuantileTransformer(n_quantiles=20), [1]),
        ("robust", RobustScaler(), slice(2, 3)),
    ]
)
WORDS = ColumnTransformer(
    [
        ("words", OneHotEncoder(sparse_output=False), ["word", "grade"]),
        ("reals", StandardScaler(), make_column_selector(dtype_include=float)),
    ]
)
TARGET = TransformedTargetRegressor(
    HistGradientBoostingRegressor(max_iter=3), func=np.arcsinh, inverse_func=np.sinh
)
FILL = CSDIImputer(**CLOSED)

CASES = {
    "imputer": imputer,
    "imputer, network": lambda: imputer(early_stopping=False),
    "imputer, published network": lambda: imputer(network="csdi", n_steps=3),
    "imputer, frame": lambda: imputer(HOLES),
    "imputer, times": lambda: imputer(HOURS, window_length=12),
    "imputer, pattern": lambda: imputer(target_strategy=np.eye(1, 3) > 0),
    "imputer, frames out": lambda: piped(
        StandardScaler(), CSDIImputer(**CLOSED).set_output(transform="pandas")
    ),
    "density": density,
    **{
        f"density, {base}": lambda base=base: density(base=base, early_stopping=False)
        for base in ("gaussian", "mixture", "kde", None)
    },
    "density, histogram": lambda: density(marginals="histogram"),
    "density, copula": lambda: density(marginals="copula"),
    "density, labels": lambda: density(y=LABELS, condition="label"),
    "density, values": lambda: density(X[:45], Y[:45], condition="value"),
    "density, regression": lambda: density(y=Y, condition="value", base="regression"),
    "density, mixed": lambda: density(FRAME),
    "density, gaps": lambda: density(GAPS, handle_missing="impute"),
    "density, process": lambda: density(noise_law=VPSDE(beta_max=10.0)),
    "sampler, mixture": lambda: sampler(MODES),
    "sampler, gamma": lambda: sampler(
        td.Independent(td.Gamma(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0])), 1)
    ),
    "sampler, simplex": lambda: sampler(td.Dirichlet(2 * torch.ones(3))),
    "sampler, data": lambda: sampler(data=X, max_iter=0),
    "sampler, rows": lambda: sampler(MODES, X[:, :2], init="data", method="mala"),
    "sampler, fitted": lambda: sampler(GaussianMixture(2, random_state=0).fit(X)),
    "sampler, kernels": lambda: sampler(KernelDensity(bandwidth=0.3).fit(X)),
    "sampler, frozen": lambda: sampler(FrozenEstimator(ScoreSDE(**BASE).fit(X))),
    "sampler, bounds": lambda: sampler(MODES, method="mala", bounds=[(0, None), None]),
    "sampler, constraint": lambda: sampler(MODES, method="mala", bounds=td.constraints.positive),
    "pool, linear": lambda: pooled(LinearRegression(), Y),
    "pool, forest": lambda: pooled(RandomForestClassifier(3, random_state=0), LABELS),
    "pool, others": lambda: pooled(
        LogisticRegression(C=np.inf),
        LABELS,
        IterativeImputer(sample_posterior=True, max_iter=2),
    ),
    "conformal": conformal,
    "pipe, linear": lambda: piped(StandardScaler(), FILL, PCA(2), Ridge(), y=Y, method="predict"),
    "pipe, columns": lambda: piped(COLUMNS, FILL),
    "pipe, words": lambda: piped(WORDS, FILL, data=FRAME),
    "pipe, function": lambda: piped(
        FunctionTransformer(np.arcsinh, np.sinh),
        SimpleImputer(),
        ScoreSDE(**BASE),
        method="score_samples",
    ),
    "pipe, choice": lambda: piped(
        KNNImputer(), SelectKBest(f_classif, k=2), ScoreSDE(**BASE), y=LABELS, method="transform"
    ),
    "pipe, boosted": lambda: piped(FILL, TARGET, y=Y, method="predict"),
}

UNFITTED = {
    "imputer": CSDIImputer(window_length=24, missing_values=-1.0, target_strategy=np.eye(2) > 0),
    "density": ScoreSDE(
        noise_law=VPSDE(), network=ResidualMLP, random_state=np.random.RandomState(3)
    ),
    "sampler": LangevinSampler(MODES, noise_levels=[3.0, 1.0], bounds="simplex"),
    "pool": MultipleImputation(CSDIImputer(), Ridge()),
    "pipe": make_pipeline(COLUMNS, CSDIImputer(device=torch.device("cpu"))),
}
