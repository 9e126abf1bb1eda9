"""Files of earlier versions load, and answer as they did.

``python tests/persistence/test_kept_files.py`` writes the file of this version, if it is not there.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdiffusion
from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.estimators import conformalize

FOLDER = Path(__file__).parents[1] / "data"
FILES = sorted(FOLDER.glob("*.skdiffusion"))


def series():
    rng = np.random.default_rng(0)
    X = np.sin(np.arange(60) / 3)[:, None] + 0.1 * rng.standard_normal((60, 2))
    return np.where(rng.random(X.shape) < 0.1, np.nan, X)


def answers(kept):
    """Numbers of everything in a file."""
    X, rows = kept["series"], kept["rows"]
    density = kept["density"]
    return {
        "filled": kept["imputer"].transform(X),
        "draws": kept["imputer"][-1].sample(X, 2),
        "quantiles": kept["conformal"].predict_quantiles(X),
        "rows": density.sample(4),
        "densities": density.score_samples(rows),
        "labelled": kept["labelled"].sample(3, "high"),
        "chains": kept["sampler"].sample(3),
        "predicted": kept["pool"].predict(X),
    }


def content():
    X, rows = series(), np.random.default_rng(1).normal(size=(60, 2))
    small = {"hidden_layer_sizes": (4,), "max_iter": 5, "early_stopping": False, "random_state": 0}
    closed = {"method": "gaussian", "n_draws": 5, "random_state": 0}
    network = CSDIImputer(
        max_iter=5, n_layers=1, n_channels=8, n_draws=5, early_stopping=False, random_state=0,
        window_length=6,
    )  # fmt: skip
    known = np.where(np.isnan(X), 0.5, X)
    kept = {
        "series": X,
        "rows": rows[:5],
        "imputer": make_pipeline(StandardScaler(), network).fit(X),
        "conformal": conformalize(
            CSDIImputer(**closed).fit(X), known, n_draws=10, missing_rate=0.4
        ),
        "density": ScoreSDE(**small, base="mixture", marginals="copula").fit(rows),
        "labelled": ScoreSDE(**small, base="gaussian", condition="label").fit(
            rows, np.where(rows[:, 0] > 0, "high", "low")
        ),
        "sampler": LangevinSampler(n_steps=10, max_iter=0, random_state=0).fit(rows),
        "pool": MultipleImputation(
            CSDIImputer(**closed), LinearRegression(), 2, random_state=0
        ).fit(X, known.sum(1)),
    }
    return kept | {"answers": answers(kept)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kept_files_answer_as_they_did(path):
    kept = skdiffusion.load(path)
    for name, found in answers(kept).items():
        np.testing.assert_allclose(found, kept["answers"][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_file_of_every_version_is_kept():
    assert FILES
    assert sum(path.stat().st_size for path in FILES) < 300_000


if __name__ == "__main__":
    target = FOLDER / f"{skdiffusion.__version__}.skdiffusion"
    skdiffusion.save(content(), target)
    print(target, target.stat().st_size)
