"""Results of many settings, bit for bit: a safety net for changes that must not change any.

``digests.json`` holds a SHA-256 and a few moments of everything a case returns. On the machine
that recorded them (same processor, same versions) the hashes must agree, elsewhere the moments.

``python tests/test_digests.py --record`` records the cases that are missing, after names of cases
only those, after ``all`` every one.
"""

import hashlib
import json
import os
import pickle
import platform
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest
import scipy
import sklearn
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch import distributions as td

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.diffusion import VPSDE
from skdiffusion.diffusion.target import MinibatchPosterior
from skdiffusion.estimators import conformalize

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RECORD = Path(__file__).with_name("digests.json")


def walk(n_times, seed, n_features=3):
    """Random walk with scattered gaps and one run."""
    rng = np.random.default_rng(seed)
    x = 10 + np.cumsum(rng.standard_normal((n_times, n_features)), axis=0)
    x[rng.random(x.shape) < 0.15] = np.nan
    x[n_times // 3 : n_times // 3 + 3, 0] = np.nan
    return x


def rows(n=120, seed=0):
    """Two clusters of correlated rows with a heavy-tailed third column."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2)) @ [[1.0, 0.5], [0.0, 0.4]] + 4.0 * (np.arange(n) % 2)[:, None]
    return np.column_stack([x, np.exp(x[:, 0] / 3 + 0.3 * rng.standard_normal(n))])


def ring(n=400):
    """Rows round a circle, for which a mixture is not enough: its network is kept."""
    angle = np.random.default_rng(0).uniform(0, 6.3, n)
    noise = np.random.default_rng(1).standard_normal((n, 2))
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * noise


def gappy(X, share=0.2, seed=1):
    X = np.where(np.random.default_rng(seed).random(X.shape) < share, np.nan, X)
    X[:, -1] = np.where(np.isnan(X).all(axis=1), 1.0, X[:, -1])
    return X


def mixed(n=120):
    """Frame of real numbers, integers, booleans, words and categories."""
    X, rng = rows(n), np.random.default_rng(2)
    return pd.DataFrame({
        "real": X[:, 0],
        "count": rng.poisson(3, n),
        "flag": X[:, 1] > 1,
        "word": np.where(X[:, 0] + rng.standard_normal(n) > 2, "high", "low"),
        "grade": pd.Categorical(np.array(["a", "b", "c"])[rng.integers(0, 3, n)]),
    })  # fmt: skip


def timed():
    """Hourly frame, some hours of which are absent."""
    hours = pd.date_range("2024-01-01", periods=90, freq="h")
    frame = pd.DataFrame(walk(90, 4), hours, list("abc"))
    return frame.drop(frame.index[[7, 8, 40, 41, 42, 77]])


def hidden_corner(observed, rng):
    return observed & (rng.random(observed.shape) < 0.3)


TABLE = gappy(rows(60))
EMPTY = np.insert(TABLE, 1, np.nan, axis=1)
PANEL = np.stack([walk(8, seed) for seed in range(14)])
LIST = [walk(n, n) for n in (40, 25, 33, 9)]
SERIES = walk(70, 0)
SMALL = {"max_iter": 10, "n_draws": 20, "n_channels": 8, "random_state": 0, "device": "cpu"}


def impute(X, *, refit=None, reload=False, **parameters):
    """Everything that an imputer answers; without validation the network stays in charge."""
    imputer = CSDIImputer(**{**SMALL, "early_stopping": False, **parameters}).fit(X)
    if refit:
        getattr(imputer, refit)(X)
    if reload:
        imputer = pickle.loads(pickle.dumps(imputer))
    return {
        "transform": imputer.transform(X),
        "sample": imputer.sample(X, 3),
        "reseeded": imputer.sample(X, 3, random_state=7),
        "quantiles": imputer.predict_quantiles(X, (0.1, 0.5, 0.9)),
        "score": imputer.score(X),
        "scale": [imputer.mean_, imputer.scale_],
        "loss": imputer.history_["loss"],
    }


def conformal():
    imputer = CSDIImputer(**{**SMALL, "method": "gaussian"}).fit(TABLE)
    adjusted = conformalize(imputer, gappy(rows(80, 5)), missing_rate=0.3, n_draws=30)
    return {"quantiles": adjusted.predict_quantiles(TABLE), "transform": adjusted.transform(TABLE)}


def pool(estimator, y, imputer=None, **parameters):
    imputer = imputer or CSDIImputer(**{**SMALL, "method": "gaussian"})
    model = MultipleImputation(imputer, estimator, 4, random_state=0, **parameters).fit(TABLE, y)
    results = {"predict": model.predict(TABLE), "score": model.score(TABLE, y)}
    if hasattr(model, "pooled_"):
        results["pooled"] = [model.pooled_.estimate, model.pooled_.standard_error]
    return results


def learn(X, y=None, *, refit=None, reload=False, fit=None, guidance=1.0, **parameters):
    """Everything that a density model answers."""
    settings = {"marginals": None, "hidden_layer_sizes": (16,), "max_iter": 20, "n_steps": 8}
    settings |= {"early_stopping": False, "random_state": 0, "device": "cpu"}
    model = ScoreSDE(**(settings | parameters)).fit(X, y, **(fit or {}))
    if refit:
        getattr(model, refit)(X, y)
    if reload:
        model = pickle.loads(pickle.dumps(model))
    few, labels = X[:12], None if y is None else y[:12]
    results = {
        "sample": model.sample(12, labels, guidance=guidance),
        "reseeded": model.sample(4, random_state=7),
        "held_out": list(model.held_out_score_.values()),
    }
    if model.handle_missing == "error":
        results["log_density"] = model.score_samples(few, labels)
        results["bound"] = model.nll_bound(few, labels, n_draws=4, return_std=True)
    if isinstance(X, pd.DataFrame):
        holes = few.copy()
        holes.iloc[::2, 0] = np.nan
        return {**results, "impute": model.impute(holes)}
    results["impute"] = model.impute(gappy(few), 2)
    latent = model.transform(few)
    results |= {"transform": latent, "inverse": model.inverse_transform(latent)}
    if not np.isnan(few).any():
        results["entropy"] = model.entropy(few, n_draws=4, return_std=True)
        results["kl"] = model.kl_bound(few, 3.0, n_draws=4, return_std=True)
        results["matching"] = model.score_matching_loss(few, labels, n_draws=4)
        results["gradient"] = model.log_density_gradient(few, 0.1)
    return results


class Features(torch.nn.Module):
    """A small network: trained sums of fixed random features."""

    def __init__(self, n_features, generator):
        super().__init__()
        self.register_buffer("features", torch.randn(n_features, 16, generator=generator))
        self.weight = torch.nn.Parameter(torch.zeros(16, n_features))

    def forward(self, x, log_s, base_noise, condition):
        return torch.tanh(x @ self.features) @ self.weight


def two_modes(x):
    left, right = (-2 * (x[:, 0] - m) ** 2 for m in (-3.0, 3.0))
    return torch.logaddexp(left, right + 1) - 20 * x[:, 1] ** 2


def slope(x):
    return -(x - 1.0) / torch.tensor([1.0, 4.0], dtype=x.dtype)


def likelihood(x, batch):
    return -0.5 * (x[:, None] - batch).square().sum((1, 2))


def prior(x):
    return -0.5 * x.square().sum(1)


def scattered(n_chains, rng):
    return rng.normal(size=(n_chains, 2))


def walks(target, X=None, *, density=True, reload=False, n_features=2, **parameters):
    """Everything that a sampler answers."""
    settings = {"n_steps": 20, "n_features": n_features, "random_state": 0, "device": "cpu"}
    sampler = LangevinSampler(target, **(settings | parameters)).fit(X)
    if reload:
        sampler = pickle.loads(pickle.dumps(sampler))
    points = rows(6, 3)[:, :n_features]
    results = {
        "sample": sampler.sample(12),
        "reseeded": sampler.sample(3, random_state=7),
        "transform": sampler.transform(points),
        "gradient": sampler.log_density_gradient(points),
        "tuning": [sampler.step_size_, sampler.noise_levels_, sampler.inverse_temperatures_],
        "diagnostics": [
            *(sampler.acceptance_rate_, sampler.rhat_, sampler.nested_rhat_),
            *(sampler.energy_nested_rhat_, sampler.ess_, sampler.ess_tail_),
        ],
    }
    return {**results, "log_density": sampler.score_samples(points)} if density else results


def normal():
    return td.MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[2.0, 0.9], [0.9, 0.5]]))


def torch_mixture():
    parts = td.Independent(td.Normal(torch.tensor([[-4.0, 0.0], [4.0, 1.0]]), 1.0), 1)
    return td.MixtureSameFamily(td.Categorical(torch.tensor([0.25, 0.75])), parts)


PAIRS = rows()[:, :2]
LABELS = np.where(PAIRS[:, 0] > 2, "far", "near")
WINDOWED = {"window_length": 10}
GAUSSIAN = {"method": "gaussian"}
BARE = {"max_iter": 0}

SOLVERS = (
    *("ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"),
    *("euler_maruyama", "predictor_corrector"),
)

CASES = {
    "imputer-table": lambda: impute(TABLE),
    "imputer-table-validated": lambda: impute(TABLE, early_stopping=True, max_iter=40),
    "imputer-table-gaussian": lambda: impute(TABLE, **GAUSSIAN),
    "imputer-series": lambda: impute(SERIES, **WINDOWED),
    "imputer-series-gaussian": lambda: impute(SERIES, **WINDOWED, **GAUSSIAN),
    "imputer-panel": lambda: impute(PANEL),
    "imputer-panel-gaussian-unscaled": lambda: impute(PANEL, **GAUSSIAN, scale=False),
    "imputer-list": lambda: impute(LIST, **WINDOWED),
    "imputer-list-auto-window": lambda: impute(LIST, **GAUSSIAN),
    "imputer-frame-of-times": lambda: impute(timed(), **WINDOWED),
    "imputer-csdi-network": lambda: impute(PANEL, network="csdi", n_steps=4),
    "imputer-csdi-series": lambda: impute(SERIES, network="csdi", n_steps=4, **WINDOWED),
    "imputer-unscaled-mean": lambda: impute(TABLE, scale=False, statistic="mean"),
    "imputer-shape": lambda: impute(PANEL, n_layers=1, batch_size=3, learning_rate=1e-2),
    "imputer-indicator": lambda: impute(TABLE, add_indicator=True),
    "imputer-empty-dropped": lambda: impute(EMPTY, **GAUSSIAN),
    "imputer-empty-kept": lambda: impute(EMPTY, keep_empty_features=True),
    "imputer-placeholder": lambda: impute(np.nan_to_num(TABLE, nan=-9.0), missing_values=-9.0),
    "imputer-warm-start": lambda: impute(TABLE, refit="fit", warm_start=True),
    "imputer-partial-fit": lambda: impute(SERIES, refit="partial_fit", **WINDOWED),
    "imputer-pickled": lambda: impute(PANEL, reload=True),
    "imputer-targets-pattern": lambda: impute(
        PANEL, target_strategy=np.arange(24).reshape(8, 3) % 4 == 0
    ),
    **{
        f"imputer-targets-{strategy}": lambda strategy=strategy: impute(
            PANEL, target_strategy=strategy
        )
        for strategy in ("random", "historical", "mix", "feature")
    },
    "imputer-targets-callable": lambda: impute(PANEL, target_strategy=hidden_corner),
    **{
        f"imputer-{solver}": lambda solver=solver: impute(PANEL, solver=solver)
        for solver in SOLVERS
    },
    "conformal": conformal,
    "pool-linear": lambda: pool(LinearRegression(), rows(60)[:, 0]),
    "pool-logistic-once": lambda: pool(
        LogisticRegression(C=np.inf), LABELS[:60], CSDIImputer(**SMALL), bootstrap=False
    ),
    "pool-forest-of-densities": lambda: pool(
        RandomForestRegressor(5, random_state=0),
        rows(60)[:, 1],
        ScoreSDE(base="mixture", handle_missing="impute", max_iter=0, device="cpu"),
    ),
    **{
        f"density-{base}-{kind}": lambda base=base, steps=steps: learn(
            PAIRS, base=base, max_iter=steps
        )
        for base in ("gaussian", "mixture", "kde", "auto", None)
        for kind, steps in (("bare", 0), ("network", 20))
        if base is not None or steps
    },
    "density-defaults": lambda: learn(rows(), base="auto", marginals="auto", early_stopping=True),
    "density-auto-of-many": lambda: learn(
        rows(1100), base="auto", marginals="auto", early_stopping=True, max_iter=40
    ),
    "density-histogram": lambda: learn(rows(), base="mixture", marginals="histogram"),
    "density-copula": lambda: learn(rows(), base="mixture", marginals="copula"),
    "density-loguniform": lambda: learn(PAIRS, base="gaussian", noise_law="loguniform"),
    "density-uniform": lambda: learn(PAIRS, base="gaussian", noise_law=VPSDE(), n_steps=5),
    "density-own-network": lambda: learn(
        PAIRS, base="gaussian", network=Features, max_iter=60, learning_rate=0.05
    ),
    "density-labels": lambda: learn(
        PAIRS, LABELS, base="mixture", condition="label", guidance=2.0
    ),
    "density-values": lambda: learn(
        PAIRS, rows()[:, 2], base="mixture", condition="value", guidance=1.5
    ),
    "density-regression": lambda: learn(
        PAIRS, rows()[:, 2], base="regression", condition="value"
    ),
    "density-auto-values": lambda: learn(
        PAIRS, rows()[:, 2:], base="auto", marginals="auto", condition="value"
    ),
    "density-gaps": lambda: learn(
        gappy(ring()), base="mixture", handle_missing="impute", max_iter=40, learning_rate=1e-2
    ),
    "density-mixture-kept-network": lambda: learn(
        ring(), base="mixture", max_iter=40, learning_rate=1e-2
    ),
    "density-gaps-bare": lambda: learn(gappy(rows()), base="auto", handle_missing="impute", **BARE),
    "density-mixed": lambda: learn(mixed(), base="mixture", marginals="auto"),
    "density-integers": lambda: learn(np.round(3 * PAIRS), base="auto", marginals="histogram"),
    "density-not-dequantized": lambda: learn(
        np.round(3 * PAIRS), base="gaussian", dequantize=False
    ),
    "density-repeated": lambda: learn(np.tile(PAIRS, (2, 1)), base="auto", early_stopping=True),
    "density-weights": lambda: learn(
        PAIRS, base="auto", fit={"sample_weight": np.arange(120) % 5 + 0.5}
    ),
    "density-warm-start": lambda: learn(PAIRS, base="gaussian", refit="fit", warm_start=True),
    "density-partial-fit": lambda: learn(PAIRS, base="gaussian", refit="partial_fit"),
    "density-pickled": lambda: learn(PAIRS, base="mixture", marginals="copula", reload=True),
    **{
        f"density-{solver}": lambda solver=solver: learn(PAIRS, base="gaussian", solver=solver)
        for solver in (*SOLVERS, "adaptive")
    },
    "sampler-function": lambda: walks(two_modes),
    "sampler-gradient": lambda: walks(slope, density=False),
    **{
        f"sampler-{method}": lambda method=method: walks(two_modes, method=method)
        for method in ("ula", "mala", "underdamped", "tempered")
    },
    "sampler-annealed": lambda: walks(torch_mixture(), method="annealed", noise_levels=6),
    "sampler-ladder": lambda: walks(torch_mixture(), noise_levels=[8.0, 3.0, 1.0, 0.4]),
    "sampler-distribution": lambda: walks(normal(), method="mala"),
    "sampler-tempered-mixture": lambda: walks(torch_mixture(), method="tempered"),
    "sampler-hot": lambda: walks(normal(), method="ula", temperature=2.0, step_size=0.05),
    "sampler-ascent": lambda: walks(normal(), method="ula", temperature=0.0, step_size=0.05),
    "sampler-covariance": lambda: walks(
        normal(), method="mala", preconditioner=[[2.0, 0.9], [0.9, 0.5]]
    ),
    "sampler-diagonal": lambda: walks(two_modes, method="tempered", preconditioner=[9.0, 0.03]),
    "sampler-pilot": lambda: walks(normal(), method="underdamped", preconditioner="pilot"),
    "sampler-unscaled": lambda: walks(normal(), method="ula", preconditioner=None, thin=3),
    "sampler-start-data": lambda: walks(two_modes, PAIRS, init="data", method="mala"),
    "sampler-start-function": lambda: walks(two_modes, init=scattered, n_chains=4, thin=2),
    "sampler-start-array": lambda: walks(two_modes, init=PAIRS[:9], method="ula", n_chains=3),
    "sampler-single": lambda: walks(torch_mixture(), dtype="float32"),
    "sampler-double": lambda: walks(torch_mixture(), dtype="float64", reload=True),
    "sampler-sklearn-mixture": lambda: walks(GaussianMixture(2, random_state=0).fit(PAIRS)),
    "sampler-sklearn-kernels": lambda: walks(KernelDensity(bandwidth=0.4).fit(PAIRS)),
    "sampler-fitted-density": lambda: walks(
        ScoreSDE(hidden_layer_sizes=(16,), max_iter=20, random_state=0, device="cpu").fit(PAIRS)
    ),
    "sampler-data": lambda: walks(None, PAIRS, max_iter=0),
    "sampler-data-columns": lambda: walks(None, rows(), max_iter=20, n_features=3),
    "sampler-minibatches": lambda: walks(
        MinibatchPosterior(likelihood, prior, torch.tensor(PAIRS), 2, batch_size=20),
        method="ula",
        density=False,
    ),
}  # fmt: skip


def flat(result):
    """All numbers of a result in one array; words become their places in the alphabet."""
    if isinstance(result, pd.DataFrame):
        result = [result[name].to_numpy() for name in result]
    if isinstance(result, (list, tuple)):
        parts = [flat(part) for part in result]
        return np.concatenate(parts) if parts else np.empty(0)
    array = np.ascontiguousarray(result)
    if array.dtype.kind not in "fiub":
        array = np.unique(array.astype(str), return_inverse=True)[1]
    return array.ravel()


def summary(result):
    numbers = flat(result)
    finite = numbers[np.isfinite(numbers)].astype(float)
    moments = [finite.mean(), finite.std(), np.abs(finite).max()] if finite.size else []
    return {
        "sha256": hashlib.sha256(f"{numbers.dtype}{numbers.shape}".encode() + numbers.tobytes())
        .hexdigest(),
        "size": [numbers.size, finite.size],
        "moments": [float(f"{moment:.12g}") for moment in moments],
    }  # fmt: skip


def summaries(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {key: summary(result) for key, result in CASES[name]().items()}


def machine():
    """What rounding depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = [f"{m.__name__} {m.__version__}" for m in (torch, np, scipy, sklearn)]
    processor = models[0] if models else platform.processor()
    threads = f"{os.environ['OMP_NUM_THREADS']} thread"
    return ", ".join([platform.machine(), processor, *versions, threads])


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_recorded(name):
    record = json.loads(RECORD.read_text())
    expected, found = record["cases"][name], summaries(name)
    if record["machine"] == machine():
        assert found == expected
        return
    assert found.keys() == expected.keys()
    for key, result in found.items():
        assert result["size"] == expected[key]["size"], key
        moments = pytest.approx(expected[key]["moments"], rel=1e-5, abs=1e-9)
        assert result["moments"] == moments, key


def record(names):
    """Write the summaries of the cases ``names``, of those missing, or of ``["all"]``."""
    torch.set_num_threads(1)
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {"cases": {}}
    if names == ["all"] or known.get("machine") != machine():
        known, names = {"machine": machine(), "cases": {}}, list(CASES)
    names = names or [name for name in CASES if name not in known["cases"]]
    cases = known["cases"] | {name: summaries(name) for name in names}
    known["cases"] = {name: cases[name] for name in CASES if name in cases}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in known["cases"].items())
    machine_line = json.dumps(known["machine"])
    RECORD.write_text(f'{{"machine": {machine_line}, "cases": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    if sys.argv[1:2] != ["--record"]:
        sys.exit(__doc__)
    record(sys.argv[2:])
