"""Rows in chunks: what Dask and streams give is what one call gives."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skdiffusion import CSDIImputer, ScoreSDE
from skdiffusion.estimators import _chunks
from skdiffusion.estimators.density import _pieces
from skdiffusion.estimators.imputation import _filling
from skdiffusion.inputs.chunks import sample_of

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
dask = pytest.importorskip("dask")

# Rows that are worked on at once, in place of thousands.
PIECE = 512
# Draws are single precision: what is left of the order in which rows were multiplied.
CLOSE = 1e-4


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    for module in (_chunks, _pieces, _filling):
        monkeypatch.setattr(module, "ROWS_OF_A_PIECE", PIECE)


@pytest.fixture(autouse=True)
def one_process():
    with dask.config.set(scheduler="synchronous"):
        yield


def gappy(n, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)) @ rng.normal(size=(n_features, n_features))
    X[rng.random(X.shape) < 0.15] = np.nan
    return X


def walk(n, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = np.empty((n, n_features))
    X[0] = rng.normal(size=n_features)
    for t in range(1, n):
        X[t] = 0.9 * X[t - 1] + rng.normal(size=n_features)
    X[rng.random(X.shape) < 0.15] = np.nan
    return X


@pytest.fixture(scope="module")
def table():
    X = gappy(3 * PIECE + 77)
    # Equal rows in several chunks, whose draws must differ all the same.
    X[::100] = [np.nan, 1.0, np.nan]
    return X, CSDIImputer(method="gaussian", n_draws=4, random_state=0).fit(X[:2000])


@pytest.fixture(scope="module")
def density():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2 * PIECE + 5, 2))
    X[:, 1] = X[:, 1].round() + (X[:, 0] > 0)
    return X, ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(X[:500])


@pytest.mark.parametrize("rows", [PIECE, 2 * PIECE, 300])
@pytest.mark.parametrize("method", ["transform", "sample", "predict_quantiles"])
def test_a_chunked_table_is_filled_bit_for_bit(table, method, rows):
    X, imputer = table
    lazy = getattr(imputer, method)(da.from_array(X, chunks=(rows, 2)))
    whole = getattr(imputer, method)(X)
    assert lazy.shape == whole.shape
    np.testing.assert_array_equal(lazy.compute(), whole)


@pytest.mark.parametrize("method", ["transform", "score_samples"])
def test_a_chunked_density_is_evaluated_bit_for_bit(density, method):
    X, model = density
    lazy = getattr(model, method)(da.from_array(X, chunks=(PIECE, 1)))
    whole = getattr(model, method)(X)
    assert lazy.shape == whole.shape
    np.testing.assert_array_equal(lazy.compute(), whole)


def test_equal_rows_of_different_chunks_have_their_own_draws(table):
    X, imputer = table
    filled = imputer.transform(da.from_array(X, chunks=(PIECE, 3))).compute()
    assert len(np.unique(filled[::100, 0])) == len(filled[::100])


def test_chunks_of_unknown_size_and_empty_ones_are_filled_alike(table):
    X, imputer = table
    rows = da.from_array(X[:900], chunks=(300, 3))
    some = rows[da.from_array(np.arange(900) // 300 != 1, chunks=300)]
    kept = np.concatenate([X[:300], X[600:900]])
    answer = imputer.transform(some).compute()
    np.testing.assert_allclose(answer, imputer.transform(kept), atol=CLOSE)


def test_frames_are_filled_by_partitions():
    X = pd.DataFrame(gappy(900), columns=list("abc"))
    X["count"] = pd.array(np.arange(900) % 7, dtype="Int64")
    X.loc[::9, "count"] = pd.NA
    imputer = CSDIImputer(method="gaussian", n_draws=4, random_state=0).fit(X)
    lazy = imputer.transform(dd.from_pandas(X, npartitions=4))
    whole = imputer.transform(X)
    assert lazy.dtypes.to_dict() == whole.dtypes.to_dict()
    pd.testing.assert_frame_equal(lazy.compute(), whole, atol=CLOSE, rtol=0)
    quantiles = imputer.predict_quantiles(dd.from_pandas(X, npartitions=4), [0.3, 0.6])
    np.testing.assert_allclose(
        quantiles.compute(), imputer.predict_quantiles(X, [0.3, 0.6]), atol=CLOSE
    )


def test_a_density_scores_frames_with_labels():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=600), "kind": rng.choice(["a", "b"], 600)})
    model = ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(X)
    for method in ("score_samples", "transform"):
        lazy = getattr(model, method)(dd.from_pandas(X, npartitions=3)).compute()
        np.testing.assert_allclose(lazy, getattr(model, method)(X), atol=1e-8)


@pytest.mark.parametrize(
    "method",
    [
        "sample",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("transform", "predict_quantiles")),
    ],
)
def test_a_chunked_series_is_the_whole_one(method):
    X = walk(2500)
    imputer = CSDIImputer(method="gaussian", window_length=24, n_draws=4, random_state=0).fit(X)
    lazy = getattr(imputer, method)(da.from_array(X, chunks=(700, 3)))
    whole = getattr(imputer, method)(X)
    assert lazy.shape == whole.shape
    np.testing.assert_allclose(lazy.compute(), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_network_fills_a_chunked_series_alike():
    X = walk(2500)
    imputer = CSDIImputer(
        window_length=12, n_draws=4, n_steps=4, max_iter=30, early_stopping=False, random_state=0
    ).fit(X)
    assert imputer.method_ == "diffusion"
    lazy = imputer.transform(da.from_array(X, chunks=(900, 3))).compute()
    np.testing.assert_allclose(lazy, imputer.transform(X), atol=CLOSE)


@pytest.mark.slow
def test_long_series_in_memory_are_cut_without_a_trace():
    X = walk(4 * PIECE)
    imputer = CSDIImputer(method="gaussian", window_length=24, n_draws=2, random_state=0).fit(X)
    lazy = imputer.transform(da.from_array(X, chunks=(PIECE - 100, 3)))
    np.testing.assert_allclose(lazy.compute(), imputer.transform(X), rtol=1e-6, atol=1e-6)


def test_streams_give_streams(table, density):
    X, imputer = table
    parts = [X[i : i + PIECE] for i in range(0, len(X), PIECE)]
    answers = np.concatenate(list(imputer.transform(iter(parts))))
    np.testing.assert_array_equal(answers, imputer.transform(X))
    X, model = density
    scores = np.concatenate(list(model.score_samples(iter([X[:PIECE], X[PIECE:]]))))
    np.testing.assert_array_equal(scores, model.score_samples(X))


@pytest.mark.parametrize("window_length", [None, 24])
def test_a_fit_on_all_chunks_is_the_fit_in_memory(window_length):
    X = walk(1500)
    imputer = CSDIImputer(method="gaussian", window_length=window_length, n_draws=2, random_state=0)
    whole = imputer.fit(X).transform(X)
    for chunked in (da.from_array(X, chunks=(400, 2)), iter([X[:10], X[10:]])):
        np.testing.assert_array_equal(imputer.fit(chunked).transform(X), whole)


def test_what_a_fit_takes_does_not_depend_on_chunks():
    X = np.arange(20_000.0)[:, None]
    samples = [sample_of(da.from_array(X, chunks=(n, 1)), 1500) for n in (333, 20_000)]
    samples.append(sample_of((X[i : i + 777] for i in range(0, 20_000, 777)), 1500))
    for rows, places, n_rows in samples:
        np.testing.assert_array_equal(rows[:, 0], places)
        np.testing.assert_array_equal(places, samples[0][1])
        assert n_rows == 20_000
        assert len(places) == 1500
    # A sample at random: its mean is within five standard errors of the mean of all.
    assert abs(samples[0][1].mean() - 9999.5) < 5 * 20_000 / np.sqrt(12 * 1500)


def test_runs_of_a_series_stay_together():
    X = np.arange(50_000.0)[:, None]
    rows, places, _ = sample_of(da.from_array(X, chunks=(7000, 1)), 8192, 2048)
    assert len(places) == 8192
    np.testing.assert_array_equal(rows[:, 0], places)
    assert (np.diff(places) != 1).sum() <= 3


def test_a_density_learns_from_chunks(density):
    X, _ = density
    model = ScoreSDE(base="gaussian", max_iter=0, random_state=0)
    model.partial_fit(da.from_array(X[:1000], chunks=(500, 2)))
    assert model.n_iter_ > 0
    assert np.isfinite(model.score(X[:100]))


def test_files_are_opened_by_their_names(tmp_path, table):
    X, imputer = table
    frame = pd.DataFrame(X[:500], columns=["x0", "x1", "x2"])
    frame.to_parquet(tmp_path / "rows.parquet")
    filled = imputer.predict_quantiles(tmp_path / "rows.parquet", [0.5]).compute()
    np.testing.assert_allclose(filled, imputer.predict_quantiles(X[:500], [0.5]), atol=CLOSE)
    pytest.importorskip("zarr")
    da.from_array(X, chunks=(PIECE, 3)).to_zarr(str(tmp_path / "rows.zarr"))
    filled = imputer.transform(str(tmp_path / "rows.zarr")).compute()
    np.testing.assert_array_equal(filled, imputer.transform(X))


def test_a_chunk_without_values_is_filled(table):
    _, imputer = table
    X = np.full((600, 3), np.nan)
    X[:300] = gappy(300)
    with pytest.warns(UserWarning, match="no observed value"):
        filled = imputer.transform(da.from_array(X, chunks=(300, 3))).compute()
    assert np.isfinite(filled).all()


def test_chunks_with_other_columns_are_refused():
    X = pd.DataFrame(gappy(400), columns=list("abc"))
    imputer = CSDIImputer(method="gaussian", n_draws=2, random_state=0).fit(X)
    parts = [dask.delayed(X[:200]), dask.delayed(X[200:].rename(columns={"c": "d"}))]
    odd = dd.from_delayed(parts, meta=X[:0], verify_meta=False)
    with pytest.raises(ValueError, match=r"(?s)Chunk 1 of X.*feature names.*d"):
        imputer.transform(odd).compute()
    with pytest.raises(ValueError, match="other columns"):
        CSDIImputer(method="gaussian").fit(iter([X[:200], X[200:].rename(columns={"c": "d"})]))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("rows.csv", r"must end with \.zarr or \.parquet"),
        (da.zeros(5), "two dimensions"),
        (iter([]), "no chunk with rows"),
        (iter([np.zeros((9, 2)), "x"]), "Chunk 1 of X is 'x': an iterator must give arrays"),
        (iter(np.zeros((9, 2))), "Chunk 0 of X is array"),
    ],
)
def test_what_is_no_table_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        CSDIImputer(method="gaussian").fit(X)


def test_series_that_cannot_be_cut_are_refused():
    X = walk(300)
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(X)
    with pytest.raises(ValueError, match="to_dask_array"):
        imputer.transform(dd.from_pandas(pd.DataFrame(X), npartitions=2))
    with pytest.raises(ValueError, match="one pass"):
        imputer.transform(iter([X]))
    with pytest.raises(ValueError, match="set_output"):
        clone(imputer).fit(X).set_output(transform="pandas").transform(da.from_array(X, chunks=100))
    with pytest.raises(ValueError, match="timestamps cannot be given"):
        imputer.transform(da.from_array(X, chunks=100), timestamps=np.arange(300))


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**options, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        dask.config.set(scheduler=None),
    ):
        yield cluster, client


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(table, cluster):
    X, imputer = table
    _, client = cluster
    lazy = imputer.transform(da.from_array(np.tile(X, (20, 1)), chunks=(PIECE, 3)))
    answer = client.compute(lazy)
    victim = next(iter(client.run(os.getpid).values()))
    while not any(client.has_what().values()):
        time.sleep(0.01)
    os.kill(victim, signal.SIGKILL)
    np.testing.assert_array_equal(
        answer.result(timeout=300), imputer.transform(np.tile(X, (20, 1)))
    )


@pytest.mark.slow
def test_a_scheduler_that_is_gone_is_named(tmp_path):
    distributed = pytest.importorskip("distributed")
    where = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    scheduler = subprocess.Popen([*command, "--no-dashboard", "--scheduler-file", str(where)])
    try:
        while not where.exists():
            time.sleep(0.05)
        X = da.from_array(walk(300), chunks=(100, 3))
        # It has no workers: fit waits for some until the scheduler dies.
        threading.Timer(1, scheduler.kill).start()
        with (
            dask.config.set({"scheduler": None, "distributed.comm.timeouts.connect": "2s"}),
            distributed.Client(scheduler_file=str(where)),
            pytest.raises(RuntimeError, match="Start a new Client"),
        ):
            CSDIImputer(method="gaussian").fit(X)
    finally:
        scheduler.kill()
