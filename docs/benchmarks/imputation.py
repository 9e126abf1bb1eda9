"""Imputers compared on the same hidden cells: accuracy, honesty of the bands and CPU-seconds.

Weather (three airports, 18 columns) and Beijing PM2.5 (12 stations), one year of hours each: 10 %
of the observed cells are hidden one by one (*points*), and in 5 % of the days three columns fail
for 24 hours (*blocks*). The seed of a run draws what is hidden and seeds the methods. Everyone is
scored on the same days: those touched by a block and 40 others, because some samplers are too
costly for a year. Columns are standardised by their visible cells, for all methods alike.

PhysioNet 2012 (set-a, 48 hours by 35 measurements, 80 % missing): run ``seed`` learns from the
``seed``-th 400 windows of the CSDI paper's first training fold and fills the ``seed``-th 100
windows of its first test fold, where 10 % of the observed cells are hidden by the paper's mask.
The first of these test windows are scored by themselves too: the costly samplers fill only them.
``physionet_fold`` is the whole fold, for methods that can.

The networks of the others get the CPU-seconds that the default ``CSDIImputer`` took to fit, in the
same run: ``network="csdi"`` after timing fits of 10 and 110 steps, PyPOTS after timing one epoch.

Each result is appended to ``--out`` as one line of JSON as soon as it is there; what the file has
is not computed again. ``--table`` writes the markdown pages of what one or several such files hold.
Needed in ``--data`` for all but the weather, which is shipped with the package:
``beijing_pm25_12stations_2016-03_2017-02.csv.gz`` (time and 12 columns), or
``physionet2012_set_a.npz`` and ``physionet2012_split.npz``. Of PyPOTS, what is not installed is
skipped.
"""

import argparse
import hashlib
import importlib.util
import math
import os
import platform
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from records import keep_record, read_records, versions
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import skdiffusion
from skdiffusion import CSDIImputer
from skdiffusion.datasets import load_nyc_weather
from skdiffusion.metrics import crps_loss, energy_score, interval_coverage, mean_absolute_error

HOURS = 24  # of a window and of a block
N_DRAWS, N_MANY_DRAWS = 20, 200
N_OTHER_DAYS, N_COSTLY_WINDOWS, N_MANY_WINDOWS = 40, 25, 100
RESULTS = Path(__file__).parent / "results"
TITLES = {
    "weather": "Weather at three airports, 18 columns, one year of hours",
    "beijing": "PM2.5 at 12 stations in Beijing, one year of hours",
    "physionet": "PhysioNet 2012, windows of 48 hours by 35 measurements",
    "physionet_fold": "PhysioNet 2012, the whole first fold of the CSDI paper",
}


# ------------------------------------------------------------------ problems


@dataclass
class Problem:
    """What is hidden where.

    Attributes
    ----------
    train, test : ndarray of shape (n_times, n_features) or (n_windows, n_times, n_features)
        What the methods learn from and what they fill, NaN where missing or hidden.
    truth : ndarray of the shape of ``test``
        Standardised values.
    sections : dict of ndarray of bool
        Cells that are scored together.
    blocks : list of (start, columns)
        Failed days.
    days : ndarray of int
        Scored days of a series.
    """

    train: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    sections: dict
    blocks: list = field(default_factory=list)
    days: np.ndarray = None

    @property
    def is_panel(self):
        return self.test.ndim == 3

    @property
    def window_length(self):
        return None if self.is_panel else HOURS

    def scored_runs(self):
        """Slices of unbroken scored days, with half a window more on either side."""
        ends = np.flatnonzero(np.diff(self.days, append=np.inf) > 1)
        starts = np.r_[0, ends[:-1] + 1]
        margin = HOURS // 2
        return [
            slice(max(0, HOURS * first - margin), min(len(self.test), HOURS * (last + 1) + margin))
            for first, last in zip(self.days[starts], self.days[ends])
        ]


def load_values(dataset, folder):
    """Year of one series, NaN where missing."""
    if dataset == "weather":
        return load_nyc_weather().data
    path = folder / "beijing_pm25_12stations_2016-03_2017-02.csv.gz"
    return np.genfromtxt(path, delimiter=",", skip_header=1, usecols=range(1, 13))


def series_problem(dataset, folder, seed):
    """Hide points and blocks of a series."""
    values = load_values(dataset, folder)
    observed, rng = ~np.isnan(values), np.random.default_rng(seed)
    points = observed & (rng.random(values.shape) < 0.1)
    n_days = len(values) // HOURS
    failed = np.sort(rng.choice(n_days - 2, round(0.05 * n_days), replace=False))
    blocks, in_block = [], np.zeros_like(observed)
    for day in failed:
        start = HOURS * day + rng.integers(0, HOURS)
        columns = rng.choice(values.shape[1], 3, replace=False)
        in_block[start : start + HOURS, columns] = True
        blocks.append((start, columns))
    touched = np.unique(np.nonzero(in_block & observed)[0] // HOURS)
    others = rng.choice(np.setdiff1d(np.arange(n_days), touched), N_OTHER_DAYS, replace=False)
    days = np.union1d(touched, others)
    scored = np.isin(np.arange(len(values)) // HOURS, days)[:, None]
    visible = np.where(points | in_block, np.nan, values)
    mean, std = np.nanmean(visible, axis=0), np.nanstd(visible, axis=0)
    truth, visible = (values - mean) / std, (visible - mean) / std
    sections = {"points": points & ~in_block & scored, "blocks": in_block & observed & scored}
    return Problem(visible, visible, truth, sections, blocks, days)


def panel_problem(dataset, folder, seed):
    """Windows of PhysioNet, some or all, with the cells hidden by the paper's mask."""
    data = np.load(folder / "physionet2012_set_a.npz")
    split = np.load(folder / "physionet2012_split.npz")
    shape = tuple(split["mask_shape"])
    visible = np.unpackbits(split["conditional_mask_10"])[: np.prod(shape)].reshape(shape)
    values = (data["values"] - data["mean"]) / data["std"]
    train, rows = values[split["train_fold0"]], split["test_fold0"]
    if dataset == "physionet":
        train, rows = train[400 * seed : 400 * (seed + 1)], rows[100 * seed : 100 * (seed + 1)]
    truth, seen = values[rows].astype(float), visible[rows].astype(bool)
    hidden = ~seen & ~np.isnan(truth)
    costly = np.arange(len(rows))[:, None, None] < N_COSTLY_WINDOWS
    sections = {
        f"all {len(rows)} windows": hidden,
        f"first {N_COSTLY_WINDOWS} windows": hidden & costly,
    }
    return Problem(train.astype(float), np.where(seen, truth, np.nan), truth, sections)


PROBLEMS = {
    "weather": series_problem,
    "beijing": series_problem,
    "physionet": panel_problem,
    "physionet_fold": panel_problem,
}


# ------------------------------------------------------------------ methods


@dataclass
class Outcome:
    """Draws (n, n_draws, ...) of the test set, NaN where the method was too costly."""

    draws: np.ndarray
    fit_seconds: float
    sample_seconds: float
    facts: dict = field(default_factory=dict)
    many_draws: np.ndarray = None


def cpu_seconds():
    """CPU time of this process and its children."""
    return sum(os.times()[:4])


def timed(function):
    """Result of a call and the CPU-seconds it took."""
    start = cpu_seconds()
    result = function()
    return result, cpu_seconds() - start


def as_windows(x):
    """Series as a panel of one window."""
    return x if x.ndim == 3 else x[None]


def interpolated(column):
    """Linear interpolation of a column; 0, its mean, where nothing is observed."""
    known = np.flatnonzero(~np.isnan(column))
    if len(known) == 0:
        return np.zeros_like(column)
    return np.interp(np.arange(len(column)), known, column[known])


def linear_interpolation(problem, seed, budget):
    """Straight lines between the observations of a column."""

    def fill():
        filled = [np.apply_along_axis(interpolated, 0, x) for x in as_windows(problem.test)]
        return np.reshape(filled, problem.test.shape)[:, None]

    draws, seconds = timed(fill)
    return Outcome(draws, 0.0, seconds)


def rows_of(x, lags):
    """Hours as rows: their own columns, then those of the hours at the other lags."""
    windows = as_windows(x)
    n_times = windows.shape[1]
    # NaN before the first hour and after the last, as many as the lags need.
    padded = np.pad(windows, ((0, 0), (1, 1), (0, 0)), constant_values=np.nan)
    parts = [padded[:, 1 - lag : 1 - lag + n_times] for lag in lags]
    return np.concatenate(parts, axis=2).reshape(-1, len(lags) * x.shape[-1])


def by_rows(imputer, problem, lags, n_draws):
    """Outcome of an imputer of rows."""
    train, test = rows_of(problem.train, lags), rows_of(problem.test, lags)
    n_features = problem.test.shape[-1]
    _, fit_seconds = timed(lambda: imputer.fit(train))
    draw = lambda: imputer.transform(test)[:, :n_features].reshape(problem.test.shape)  # noqa: E731
    draws, seconds = timed(lambda: np.stack([draw() for _ in range(n_draws)], axis=1))
    return Outcome(draws, fit_seconds, seconds)


def nearest_rows(problem, seed, budget):
    """Mean of the five nearest rows."""
    return by_rows(KNNImputer(keep_empty_features=True), problem, [0], 1)


def chained_regressions(problem, seed, budget, lags=(0,)):
    """Bayesian regressions of each column on the others, drawn from their posteriors."""
    imputer = IterativeImputer(sample_posterior=True, keep_empty_features=True, random_state=seed)
    return by_rows(imputer, problem, lags, N_DRAWS)


def chained_regressions_with_lags(problem, seed, budget):
    """The same with the columns of the hour before and of the hour after."""
    return chained_regressions(problem, seed, budget, lags=(0, 1, -1))


def ours(problem, seed, **parameters):
    """CSDIImputer on everything; many draws, for the coverage, on what is scored."""
    imputer = CSDIImputer(
        window_length=problem.window_length, device="cpu", random_state=seed, **parameters
    )
    _, fit_seconds = timed(lambda: imputer.fit(problem.train))
    draws, seconds = timed(lambda: imputer.sample(problem.test, n_draws=N_DRAWS))
    many, _ = sample_scored(imputer, problem, N_MANY_DRAWS, min(len(problem.test), N_MANY_WINDOWS))
    facts = {"used": imputer.method_, "kept step": imputer.history_["best_step"]}
    return Outcome(draws, fit_seconds, seconds, facts, many)


def default(problem, seed, budget):
    """CSDIImputer as it is."""
    return ours(problem, seed)


def window_gaussian(problem, seed, budget):
    """The Gaussian over a window alone."""
    return ours(problem, seed, method="gaussian")


def sample_scored(imputer, problem, n_draws, n_windows):
    """Draws of the scored days, or of the first windows, and CPU-seconds scaled to everything."""
    # In double precision, or a draw of a spike's value would not equal it.
    out = np.full((len(problem.test), n_draws, *problem.test.shape[1:]), np.nan)
    if problem.is_panel:
        pieces, given = [slice(n_windows)], problem.test[:n_windows]
    else:
        pieces = problem.scored_runs()
        given = [problem.test[piece] for piece in pieces]
    drawn, seconds = timed(lambda: imputer.sample(given, n_draws=n_draws))
    for piece, draws in zip(pieces, [drawn] if problem.is_panel else drawn):
        out[piece] = draws
    n_filled = sum(len(problem.test[piece]) for piece in pieces)
    return out, seconds * len(problem.test) / n_filled


def csdi_network(problem, seed, budget):
    """Network of the CSDI paper in the sizes that are the default here, for the given seconds."""
    imputer = CSDIImputer(
        network="csdi",
        window_length=problem.window_length,
        # As many steps as the seconds allow; the best weights on held-out windows are kept.
        device="cpu",
        random_state=seed,
    )
    fit_seconds = lambda n: timed(lambda: imputer.set_params(max_iter=n).fit(problem.train))[1]  # noqa: E731
    fit_seconds(10)  # the first fit of a process pays for warming up
    few, more = fit_seconds(10), fit_seconds(110)
    n_steps = max(10, 10 + round(100 * (budget - few) / (more - few)))
    spent = fit_seconds(n_steps)
    draws, sample_seconds = sample_scored(imputer, problem, N_DRAWS, N_COSTLY_WINDOWS)
    facts = {"steps": n_steps, "kept step": imputer.history_["best_step"]}
    return Outcome(draws, spent, sample_seconds, facts)


# ------------------------------------------------------------------ PyPOTS


def pypots_windows(problem):
    """Windows to learn from (starting every 12 hours of a series) and to fill."""
    if problem.is_panel:
        return problem.train, problem.test
    starts = np.arange(0, len(problem.train) - HOURS + 1, HOURS // 2)
    train, test = (
        x[first[:, None] + np.arange(HOURS)]
        for x, first in [(problem.train, starts), (problem.test, HOURS * problem.days)]
    )
    return train, test


def pypots_csdi(windows, epochs, batch_size=16):
    """PyPOTS CSDI: network sizes of our default, the paper's recipe of training."""
    from pypots.imputation import CSDI
    from pypots.optim import Adam
    from pypots.optim.lr_scheduler import MultiStepLR

    # Its schedulers advance with every batch, not with every epoch.
    n_steps = epochs * math.ceil(len(windows) / batch_size)
    decay = MultiStepLR(milestones=[int(0.75 * n_steps), int(0.9 * n_steps)], gamma=0.1)
    return CSDI(
        *windows.shape[1:],
        n_layers=2,
        n_heads=4,
        n_channels=32,
        d_time_embedding=128,
        d_feature_embedding=16,
        d_diffusion_embedding=128,
        batch_size=batch_size,
        epochs=epochs,
        optimizer=Adam(lr=1e-3, weight_decay=1e-6, lr_scheduler=decay),
        device="cpu",
        verbose=False,
    )


def pypots_saits(windows, epochs):
    """PyPOTS SAITS in the sizes of its examples."""
    from pypots.imputation import SAITS

    return SAITS(
        *windows.shape[1:],
        n_layers=2,
        d_model=256,
        n_heads=4,
        d_k=64,
        d_v=64,
        d_ffn=128,
        dropout=0.1,
        epochs=epochs,
        device="cpu",
        verbose=False,
    )


def pypots(problem, seed, budget, make, n_windows=None, **sampling):
    """Outcome of a PyPOTS imputer given the seconds to fit."""
    from pypots.utils.random import set_random_seed

    train, test = pypots_windows(problem)
    test = test[:n_windows]

    def fitted(epochs):
        set_random_seed(seed)
        model = make(train, epochs)
        return model, timed(lambda: model.fit({"X": train}))[1]

    epochs = math.ceil(budget / fitted(1)[1])
    model, fit_seconds = fitted(epochs)
    filled, seconds = timed(lambda: np.asarray(model.impute({"X": test}, **sampling)))
    filled = filled if filled.ndim == 4 else filled[:, None]
    scale = problem.test[..., 0].size / (len(test) * test.shape[1])
    return Outcome(in_place(filled, problem), fit_seconds, seconds * scale, {"epochs": epochs})


def in_place(filled, problem):
    """Filled windows (n_windows, n_draws, n_times, n_features) in their place in the test set."""
    n_draws = filled.shape[1]
    # In double precision, or a draw of a spike's value would not equal it.
    out = np.full((len(problem.test), n_draws, *problem.test.shape[1:]), np.nan)
    if problem.is_panel:
        out[: len(filled)] = filled
    else:
        out[problem.days[:, None] * HOURS + np.arange(HOURS)] = filled.swapaxes(1, 2)
    return out


def pypots_csdi_method(problem, seed, budget):
    """PyPOTS CSDI, 20 draws."""
    few = N_COSTLY_WINDOWS if problem.is_panel else None
    return pypots(problem, seed, budget, pypots_csdi, few, n_sampling_times=N_DRAWS)


def pypots_saits_method(problem, seed, budget):
    """PyPOTS SAITS, one answer."""
    return pypots(problem, seed, budget, pypots_saits)


# Name in the results -> (name on the command line, function). The default comes first: its
# CPU-seconds are what the networks below it are given.
METHODS = {
    "default": ("**CSDIImputer, default**", default),
    "gaussian": ('CSDIImputer(method="gaussian")', window_gaussian),
    "linear": ("linear interpolation", linear_interpolation),
    "knn": ("KNNImputer, rows", nearest_rows),
    "iterative": ("IterativeImputer, rows", chained_regressions),
    "iterative_lags": ("IterativeImputer, lag and lead", chained_regressions_with_lags),
    "csdi": ('CSDIImputer(network="csdi")', csdi_network),
    "pypots_saits": ("PyPOTS SAITS", pypots_saits_method),
    "pypots_csdi": ("PyPOTS CSDI", pypots_csdi_method),
}
SAME_SECONDS = {"csdi", "pypots_saits", "pypots_csdi"}
OURS = {"default", "gaussian", "csdi"}


# ------------------------------------------------------------------ scores


def cell_scores(truth, draws, mask, with_quantiles):
    """Scores of single cells."""
    mae = mean_absolute_error(truth, np.median(draws, axis=1), mask=mask)
    n_draws = draws.shape[1]
    scores = {"CRPS": mae, "MAE": mae}
    if n_draws > 1:
        scores["CRPS"] = crps_loss(truth, draws, mask=mask)
        scores |= {
            f"{level:.0%} band": interval_coverage(truth, draws, level=level, mask=mask)
            for level in (0.5, 0.9)
        }
    if with_quantiles:
        scores["paper's CRPS"] = crps_loss(truth, draws, mask=mask, method="quantile")
    return scores


def block_scores(problem, draws):
    """Energy scores of whole blocks, and of the hourly increments of a column in a block."""
    method = "fair" if draws.shape[1] > 1 else "ensemble"
    hidden = np.where(problem.sections["blocks"], problem.truth, np.nan)
    hours = np.arange(HOURS)[:, None]
    truth = np.stack([hidden[start + hours, columns] for start, columns in problem.blocks])
    cells = np.stack([draws[start + hours, :, columns] for start, columns in problem.blocks])
    cells = cells.transpose(0, 3, 1, 2)
    steps, step_draws = np.diff(truth, axis=1), np.diff(cells, axis=2)
    # One row for each column of a block.
    steps = steps.swapaxes(1, 2).reshape(-1, HOURS - 1)
    step_draws = step_draws.transpose(0, 3, 1, 2).reshape(len(steps), -1, HOURS - 1)
    return {
        "energy score": energy_score(truth, cells, method=method),
        "of increments": energy_score(steps, step_draws, method=method),
    }


def complete(draws, mask):
    """Whether there are draws of all these cells."""
    return np.isfinite(np.moveaxis(draws, 1, -1)[mask]).all()


def scored(problem, outcome):
    """All scores of a method, section by section; a section it did not fill is left out."""
    scores = {}
    for name, mask in problem.sections.items():
        if not complete(outcome.draws, mask):
            continue
        scores[name] = cell_scores(problem.truth, outcome.draws, mask, problem.is_panel)
        if name == "blocks":
            scores[name] |= block_scores(problem, outcome.draws)
        if outcome.many_draws is not None and complete(outcome.many_draws, mask):
            scores[name][f"90% band, {N_MANY_DRAWS} draws"] = interval_coverage(
                problem.truth, outcome.many_draws, mask=mask
            )
    return scores


# ------------------------------------------------------------------ records


def key(record):
    """What a record is about."""
    return record["dataset"], record["seed"], record["method"]


def all_versions():
    """Versions the result depends on."""
    found = versions("scikit-learn", "numpy", "torch", "pypots")
    own = {"skdiffusion": skdiffusion.__version__, "sources of skdiffusion": sources()}
    return {"python": platform.python_version()} | found | own


def sources():
    """Digest of the package's code: results of different code must not share a row unnoticed."""
    files = sorted(Path(skdiffusion.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]


def versions_of(records):
    """Every version that records name, of the methods it matters for."""
    found = {}
    for record in records:
        for name, version in record["versions"].items():
            if name != "sources of skdiffusion" or record["method"] in OURS:
                found.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())


def run(method, problem, dataset, seed, budget):
    """Record of one method on one problem."""
    outcome = METHODS[method][1](problem, seed, budget)
    return {
        "dataset": dataset,
        "seed": seed,
        "method": method,
        "fit_seconds": outcome.fit_seconds,
        "sample_seconds": outcome.sample_seconds,
        "facts": outcome.facts,
        "cells": {name: int(mask.sum()) for name, mask in problem.sections.items()},
        "scores": scored(problem, outcome),
        "versions": all_versions(),
    }


def seconds_given(records, dataset, seed):
    """CPU-seconds that the default took to fit in this run, None if it is not there."""
    wanted = dataset, seed, "default"
    return next((r["fit_seconds"] for r in records if key(r) == wanted), None)


def run_all(options):
    """Run what is asked for and not there yet."""
    for seed in options.seeds:
        problem = PROBLEMS[options.dataset](options.dataset, options.data, seed)
        for method in options.methods:
            records = read_records(options.out)
            if (options.dataset, seed, method) in map(key, records):
                continue
            if method.startswith("pypots") and importlib.util.find_spec("pypots") is None:
                print(f"{method}: skipped, PyPOTS is not installed")
                continue
            budget = options.seconds or seconds_given(records, options.dataset, seed)
            if method in SAME_SECONDS and budget is None:
                print(f"{method}: skipped, run the method default before it or give --seconds")
                continue
            record = run(method, problem, options.dataset, seed, budget)
            keep_record(record, options.out)


# ------------------------------------------------------------------ pages


def spread(values, digits=3):
    """Median of the runs and, of several, the smallest and the largest."""
    text = [f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values))]
    return text[0] if len(values) == 1 else f"{text[0]} ({text[1]}-{text[2]})"


def markdown(header, rows):
    """Lines of a markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    return [lines[0], "|" + "---|" * len(header), *lines[1:], ""]


def section_table(records, section):
    """Table of the scores of a section, methods as rows."""
    measures = list(dict.fromkeys(m for r in records for m in r["scores"].get(section, {})))
    rows = []
    for method, (title, _) in METHODS.items():
        found = [r for r in records if r["method"] == method and section in r["scores"]]
        values = [
            [r["scores"][section][m] for r in found if m in r["scores"][section]] for m in measures
        ]
        if found:
            rows.append([title, str(len(found)), *(spread(v) if v else "-" for v in values)])
    return markdown(["method", "runs", *measures], rows)


def seconds_table(records):
    """Table of the CPU-seconds and of what was trained."""
    rows = []
    for method, (title, _) in METHODS.items():
        found = [r for r in records if r["method"] == method]
        if not found:
            continue
        seconds = [
            spread([r[name] for r in found], 1) for name in ("fit_seconds", "sample_seconds")
        ]
        facts = "; ".join(
            ", ".join(f"{k} {v}" for k, v in r["facts"].items()) for r in found if r["facts"]
        )
        rows.append([title, *seconds, facts or "-"])
    return markdown(["method", "fit", f"{N_DRAWS} draws of everything", "each run"], rows)


def ratio_table(records):
    """Fair CRPS of the default divided by that of every other method, run by run."""
    by_run = {(r["method"], r["seed"]): r["scores"] for r in records}
    sections = list(records[0]["cells"])
    rows = []
    for method in list(METHODS)[1:]:
        cells = [
            spread(ratios) if (ratios := ratios_of(by_run, method, section)) else "-"
            for section in sections
        ]
        if set(cells) != {"-"}:
            rows.append([METHODS[method][0], *cells])
    return markdown(["default / method", *sections], rows)


def ratios_of(by_run, method, section):
    """Ratio of the CRPS of the default to that of a method in each run that has both."""
    return [
        by_run["default", seed][section]["CRPS"] / scores[section]["CRPS"]
        for (name, seed), scores in by_run.items()
        if name == method and section in scores and section in by_run.get(("default", seed), {})
    ]


SERIES_PROTOCOL = """\
Hidden are 10 % of the observed cells one by one (points), and three columns for 24 hours in 5 % of
the days (blocks). All methods are scored on the same days: those touched by a block and 40 others.
The seed of a run draws what is hidden. `energy score` and `of increments` judge blocks as a whole
and the hour-to-hour steps of a column in a block; of a method without draws they are the scaled
distance to the truth. `network="csdi"` and PyPOTS filled the scored days only; their seconds are
scaled to the year. PyPOTS learns from windows of 24 hours that start every 12 hours, and fills
calendar days."""
PANEL_PROTOCOL = """\
Of PhysioNet 2012 set-a, run 0, 1, 2 learn from the first, second, third 400 windows of the CSDI
paper's first training fold, and fill the first, second, third 100 windows of its first test fold,
with the paper's 10 % of the observed cells hidden. `network="csdi"` and PyPOTS CSDI filled only the
first windows; their seconds are scaled to 100. For KNNImputer and IterativeImputer each hour is a
row. `paper's CRPS` is the CSDI paper's formula over 19 quantiles, inflated by few draws."""
COMMON_PROTOCOL = """\
Columns are standardised, so that errors are in standard deviations. {n_draws} draws; CRPS and
energy score are fair estimates. For methods without draws, CRPS is the MAE. Bands are central
intervals of the draws, corrected for their number: 50 % and 90 % are right. `network="csdi"` and
PyPOTS were given as many CPU-seconds as the default took to fit, or more (PyPOTS in whole epochs):
see the last table. The PyPOTS CSDI network has the sizes of `network="csdi"` here: 2 layers, 32
channels, 4 heads. One thread; CPU-seconds. Figures are medians of the runs (smallest-largest)."""


FOLD_PROTOCOL = """\
All windows of the CSDI paper's first fold of PhysioNet 2012 set-a: 2800 to learn from, 800 to fill,
with the paper's 10 % of the observed cells hidden. The published network has an MAE of 0.217
and the paper's CRPS of 0.238 on five such folds, from 100 draws and hours of training on a GPU."""
PROTOCOLS = {"physionet": PANEL_PROTOCOL, "physionet_fold": FOLD_PROTOCOL}


def page(dataset, records):
    """Markdown page of a data set."""
    records = sorted(records, key=key)
    protocol = PROTOCOLS.get(dataset, SERIES_PROTOCOL)
    cells = records[0]["cells"]
    seeds = sorted({r["seed"] for r in records})
    lines = [f"# Imputation: {TITLES[dataset]}", "", protocol, ""]
    lines += [COMMON_PROTOCOL.format(n_draws=N_DRAWS), ""]
    lines += [
        f"Seeds {', '.join(map(str, seeds))}. Made by `docs/benchmarks/imputation.py` with "
        + f"{versions_of(records)}.",
        "",
    ]
    for section in cells:
        counts = sorted({r["cells"][section] for r in records})
        lines += [
            f"## {section.capitalize()}",
            "",
            f"{counts[0]} to {counts[-1]} hidden cells.",
            "",
        ]
        lines += section_table(records, section)
    lines += ["## Fair CRPS of the default relative to the others", "", "Below 1 it is better.", ""]
    lines += ratio_table(records)
    lines += ["## CPU-seconds", "", *seconds_table(records)]
    return "\n".join(lines).rstrip() + "\n"


def write_pages(paths):
    """Write a page for every data set in the files."""
    records = list({key(r): r for path in paths for r in read_records(path)}.values())
    for dataset in sorted({r["dataset"] for r in records}):
        text = page(dataset, [r for r in records if r["dataset"] == dataset])
        (RESULTS / f"imputation_{dataset}.md").write_text(text)
        print(text)


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets that are not shipped")
    parser.add_argument("--dataset", choices=list(PROBLEMS), default="weather")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seconds", type=float, help="seconds for the networks of the others")
    parser.add_argument("--out", type=Path, default=RESULTS / "imputation.jsonl")
    parser.add_argument("--table", type=Path, nargs="+", help="write the pages of such files")
    return parser.parse_args()


def main():
    """Run or tabulate."""
    options = parse()
    torch.set_num_threads(1)
    for message in ('method="quantile"', ".*have no observed value"):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    if options.table:
        write_pages(options.table)
    else:
        run_all(options)


if __name__ == "__main__":
    main()
