"""Limits of time and files of fits: what is kept, how long it takes, where a fit goes on.

Clocks are counters here: no test waits, and none depends on how busy a machine is.
"""

import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdiffusion import CSDIImputer, ScoreSDE, _file, load, save
from skdiffusion.diffusion import VPSDE
from skdiffusion.estimators.density import _selection
from skdiffusion.persistence import ModelFileError
from skdiffusion.training import _loop, chain, checkpoint, course, train
from skdiffusion.training.checkpoint import digest
from skdiffusion.training.course import Course

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3)) ** 3
SHARP = np.c_[X, X[:, 0] * X[:, 1]]
SERIES = np.sin(np.arange(120) / 3)[:, None] + 0.1 * RNG.normal(size=(120, 2))
SERIES[RNG.random(SERIES.shape) < 0.1] = np.nan
GAPS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 30, "random_state": 0, "early_stopping": False}
FEW = {"max_iter": 16, "n_channels": 8, "n_layers": 1, "n_draws": 5, "random_state": 0}


def everything(model):
    return [model.transform(GAPS if model.n_features_in_ == 3 else SERIES), model.history_["loss"]]


# A fit of every kind of training: estimator, data, and what it answers.
FITS = {
    "density": (lambda: ScoreSDE(base=None, **SMALL), X, lambda m: [m.sample(4), m.n_iter_]),
    "density, ended early": (
        lambda: ScoreSDE(base="gaussian", **SMALL | {"early_stopping": True, "max_iter": 60}),
        X,
        lambda m: [m.score_samples(X), m.n_iter_],
    ),
    "chain and networks": (
        lambda: ScoreSDE(**SMALL),
        SHARP,
        lambda m: [m.sample(4), list(m.held_out_score_.values())],
    ),
    "table": (lambda: CSDIImputer(**FEW), GAPS, everything),
    "series": (lambda: CSDIImputer(**FEW, window_length=8), SERIES, everything),
    "published network": (
        lambda: CSDIImputer(**FEW | {"max_iter": 8}, network="csdi", window_length=8, n_steps=3),
        SERIES,
        everything,
    ),
}


@pytest.fixture(autouse=True)
def small_chains(monkeypatch):
    monkeypatch.setattr(chain, "_MOST", 25)
    monkeypatch.setattr(_selection, "_MIN_NETWORK_ROWS", 50)


@pytest.fixture
def always(monkeypatch):
    """States are written after every step."""
    monkeypatch.setattr(course, "INTERVAL", 0.0)
    monkeypatch.setattr(_file.os, "fsync", lambda number: None)


def fit(kind, **options):
    make, data, answers = FITS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return answers(make().fit(data, **options))


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def interrupted_after(n_steps, monkeypatch, error=KeyboardInterrupt):
    """Training that breaks in the middle of a step."""
    step, count = _loop._step, iter(range(10**9))

    def broken(loss, *args):
        if next(count) == n_steps:
            loss(0)  # random numbers are drawn, and lost
            raise error
        return step(loss, *args)

    monkeypatch.setattr(_loop, "_step", broken)


@pytest.mark.parametrize("kind", FITS)
def test_an_interrupted_fit_ends_as_one_without_a_break(kind, tmp_path, monkeypatch, always):
    expected, path = fit(kind), tmp_path / "fit"
    for n_steps in (1, 25, 30) if kind == "chain and networks" else (1, 2, 3):
        with monkeypatch.context() as patch:
            interrupted_after(n_steps, patch)
            with pytest.raises(KeyboardInterrupt):
                fit(kind, checkpoint=path, resume=True)
    same(fit(kind, checkpoint=path, resume=True), expected)
    # All is done: nothing is trained again.
    interrupted_after(0, monkeypatch)
    same(fit(kind, checkpoint=path, resume=True), expected)


@pytest.mark.slow
def test_writing_states_changes_nothing(tmp_path, always):
    for kind in ("density", "series"):
        same(fit(kind, checkpoint=tmp_path / kind), fit(kind))


def test_states_are_written_once_in_an_interval(tmp_path, monkeypatch):
    clock = iter(range(10**9))
    monkeypatch.setattr(course, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(course, "INTERVAL", 10.0)
    written = []
    monkeypatch.setattr(checkpoint, "write_file", lambda path, parts: written.append(path))
    fit("density", checkpoint=tmp_path / "fit")
    # At steps 10, 20 and 30, and at the end.
    assert len(written) == 4


CHILD = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {folder!r})
import test_course
from skdiffusion.training import _loop, chain, checkpoint, course
chain._MOST = 25
course.INTERVAL = {interval}
{patch}
test_course.fit({kind!r}, checkpoint={path!r})
"""
KILLED = """
write, count = checkpoint.write_file, iter(range({n}, -1, -1))
def write_and_die(*args):
    write(*args)
    if next(count) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.write_file = write_and_die
"""
TERMINATED = """
step, count = _loop._step, iter(range({n}, -10**9, -1))
def step_and_ask(*args):
    if next(count) == 0:
        os.kill(os.getpid(), signal.{name})
    return step(*args)
_loop._step = step_and_ask
"""


def in_child(kind, path, patch, interval):
    text = CHILD.format(
        folder=os.path.dirname(__file__), interval=interval, kind=kind, path=str(path), patch=patch
    )
    return subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True)


def steps_in(path):
    _, tensors = checkpoint.read_file(path)
    return [len(x) for name, x in tensors.items() if name.endswith("run/losses")]


def test_a_killed_fit_loses_no_more_than_an_interval(tmp_path):
    path = tmp_path / "fit"
    child = in_child("series", path, KILLED.format(n=4), 0.0)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert steps_in(path) == [5]
    same(fit("series", checkpoint=path, resume=True), fit("series"))


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_fit_that_is_asked_to_end_writes_the_step_it_is_at(name, tmp_path):
    path = tmp_path / "fit"
    child = in_child("density", path, TERMINATED.format(n=7, name=name), 1e9)
    ended = -signal.SIGTERM if name == "SIGTERM" else None
    assert child.returncode == ended or b"KeyboardInterrupt" in child.stderr, child.stderr
    assert steps_in(path) == [8]
    same(fit("density", checkpoint=path, resume=True), fit("density"))


def test_handlers_of_signals_are_what_they_were(tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    fit("density", checkpoint=tmp_path / "a")
    interrupted_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit("density", checkpoint=tmp_path / "b")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_handler_of_the_user_is_asked_and_may_let_the_fit_go_on(tmp_path, monkeypatch):
    asked = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    step = _loop._step

    def step_and_ask(loss, i, *args):
        if i == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(loss, i, *args)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(_loop, "_step", step_and_ask)
            found = fit("density", checkpoint=tmp_path / "fit")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [signal.SIGTERM]
    same(found, fit("density"))


def test_threads_write_states_too(tmp_path, always):
    found = []
    worker = threading.Thread(
        target=lambda: found.extend(fit("density", checkpoint=tmp_path / "fit"))
    )
    worker.start()
    worker.join()
    same(found, fit("density"))
    assert (tmp_path / "fit").exists()


def density(**parameters):
    return ScoreSDE(base=None, **SMALL | parameters)


@pytest.fixture
def started(tmp_path, monkeypatch, always):
    """A fit that was interrupted."""
    path = tmp_path / "fit"
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            density().fit(X, checkpoint=path)
    return path


REFUSED = {
    "other data": (lambda p: density().fit(X + 1e-9, checkpoint=p, resume=True), "other data"),
    "other rows": (lambda p: density().fit(X[1:], checkpoint=p, resume=True), "other data"),
    "other steps": (
        lambda p: density(max_iter=31).fit(X, checkpoint=p, resume=True), "other max_iter:",
    ),
    "two others": (
        lambda p: density(batch_size=9, noise_law=VPSDE()).fit(X, checkpoint=p, resume=True),
        "other batch_size, noise_law:",
    ),
    "another seed": (
        lambda p: density(random_state=1).fit(X, checkpoint=p, resume=True), "other random_state",
    ),
    "another estimator": (
        lambda p: CSDIImputer().fit(X, checkpoint=p, resume=True), "by estimator ScoreSDE, this is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_fits_of_others_are_not_resumed(kind, started):
    call, message = REFUSED[kind]
    before = started.read_bytes()
    with pytest.raises(ValueError, match=message):
        call(started)
    assert started.read_bytes() == before


def test_what_does_not_count_may_be_another(started):
    model = density(verbose=0, max_time=1e6, device="cpu").fit(X, checkpoint=started, resume=True)
    np.testing.assert_array_equal(model.sample(3), density().fit(X).sample(3))


def test_a_seed_that_nobody_chose_is_kept(tmp_path, monkeypatch, always):
    path, seeds = tmp_path / "fit", []
    seed = checkpoint.draw_seed
    monkeypatch.setattr(checkpoint, "draw_seed", lambda r: seeds.append(seed(r)) or seeds[-1])
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            density(random_state=None).fit(X, checkpoint=path)
    model = density(random_state=None).fit(X, checkpoint=path, resume=True)
    monkeypatch.setattr("skdiffusion.training.course.draw_seed", lambda r: seeds[0])
    expected = density(random_state=None).fit(X)
    assert seeds[0] != seeds[1]
    np.testing.assert_array_equal(model.score_samples(X), expected.score_samples(X))


def test_a_file_that_is_there_is_not_lost(started):
    before = started.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True"):
        density().fit(X, checkpoint=started)
    assert started.read_bytes() == before


def test_paths_that_cannot_be_are_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("skdiffusion.estimators.density.score_sde.fit_density", None)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        density().fit(X, checkpoint=tmp_path)
    with pytest.raises(FileNotFoundError, match="folder that is not there"):
        density().fit(X, checkpoint=tmp_path / "none" / "fit")
    with pytest.raises(ValueError, match=r"resume=True.*name it as checkpoint"):
        density().fit(X, resume=True)


def test_damaged_files_and_models_are_refused(started, tmp_path):
    data = bytearray(started.read_bytes())
    data[-5] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"checksum.*start anew"):
        density().fit(X, checkpoint=tmp_path / "damaged", resume=True)
    save(density(), tmp_path / "model")
    with pytest.raises(ModelFileError, match="no fit that could go on"):
        density().fit(X, checkpoint=tmp_path / "model", resume=True)
    with pytest.raises(ModelFileError, match="checkpoint of a fit"):
        load(started)


def test_a_full_disk_ends_the_fit_and_leaves_what_was_there(tmp_path, monkeypatch):
    def full(path, parts):
        raise OSError(28, "no space")

    model = density().fit(X)
    before = model.sample(3)
    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(OSError, match="no space"):
        model.fit(X[:50], checkpoint=tmp_path / "fit")
    np.testing.assert_array_equal(model.sample(3), before)


def test_pipelines_pass_the_file_on(tmp_path):
    pipeline = make_pipeline(StandardScaler(), density())
    pipeline.fit(X, scoresde__checkpoint=tmp_path / "fit")
    assert steps_in(tmp_path / "fit") == [30]


def test_digests_tell_values_apart():
    values = [
        None,
        1,
        1.0,
        True,
        "1",
        [1],
        (1,),
        {"a": 1},
        np.ones(1),
        np.ones(1, "f4"),
        np.ones(2),
    ]
    values += [np.ones((1, 1)), VPSDE(), VPSDE(beta_max=10.0), np.log, np.exp, torch.ones(1)]
    values += [np.array([1, None]), {"a": [1, 2]}, {"a": [2, 1]}, "a1", ["a", "1"], ["a1"]]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": VPSDE()}) == digest({"b": VPSDE(), "a": 1})


class Clock:
    """Time that passes where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in (course, _loop):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)

    def taking(self, seconds, function):
        def slow(*args, **kwargs):
            self.now += seconds
            return function(*args, **kwargs)

        return slow


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([5.0]))


@pytest.mark.parametrize("max_time", [50, 100, 400])
@pytest.mark.parametrize("looking", [0.0, 3.0])
def test_training_stops_in_time_with_the_best_so_far(clock, max_time, looking):
    point = Point()
    loss = clock.taking(1.0, lambda step: (point.x - 2).square().sum())
    judged = clock.taking(looking, lambda m: (m.x - 2).square().sum())
    limit = Course(max_time)
    clock.now += 20
    limit.set_aside(4, clock.taking(2.0, lambda: None))
    history = train(
        point,
        loss,
        n_steps=1000,
        learning_rate=0.1,
        validate=judged,
        course=limit,
        n_evaluations=50,
    )
    clock.now += 8
    assert 0.9 * max_time - 2 * looking - 2 <= clock.now <= 1.1 * max_time
    losses = [value for _, value in history["validation"]]
    assert float((point.x.detach() - 2) ** 2) == pytest.approx(min(losses), rel=1e-5)
    assert history["validation"][-1][0] == len(history["loss"])
    with pytest.warns(ConvergenceWarning, match=rf"max_time={max_time} .*step \d+ of 1000"):
        limit.close()


def test_time_is_divided_among_trainings(clock):
    limit, steps = Course(100.0), []
    limit.expect(3)
    for n_steps in (1000, 10, 1000):
        point = Point()
        loss = clock.taking(1.0, lambda step, point=point: point.x.square().sum())
        history = train(point, loss, n_steps=n_steps, learning_rate=0.1, course=limit)
        steps.append(len(history["loss"]))
    # A third of all, what is needed, and what is left.
    assert abs(steps[0] - 33) <= 2
    assert steps[1] == 10
    assert abs(sum(steps) - 100) <= 3


@pytest.mark.parametrize("kind", ["density", "chain and networks", "table", "series"])
def test_a_fit_takes_no_longer_than_it_may(kind, clock, monkeypatch):
    make, data, answers = FITS[kind]
    monkeypatch.setattr(_loop, "_step", clock.taking(1.0, _loop._step))
    estimator = make().set_params(max_time=15.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = estimator.fit(data)
    assert 10 <= clock.now <= 16.5
    assert sum("max_time" in str(w.message) for w in said) == 1
    assert all(np.isfinite(np.asarray(a)).all() for a in answers(model))


@pytest.mark.parametrize("kind", ["density", "chain and networks", "table"])
def test_the_closed_form_ends_whatever_the_time(kind, clock, monkeypatch):
    make, data, answers = FITS[kind]
    place = "skdiffusion.estimators.density._selection._try_maps"
    if kind == "table":
        place = "skdiffusion.estimators.imputation._fitting.fit_base"
    module, _, name = place.rpartition(".")
    monkeypatch.setattr(place, clock.taking(99.0, getattr(sys.modules[module], name)))
    with pytest.warns(ConvergenceWarning, match="seconds.*longer than max_time=15.*No network"):
        model = make().set_params(max_time=15.0).fit(data)
    assert all(np.isfinite(np.asarray(a)).all() for a in answers(model)[:1])


@pytest.mark.slow
def test_time_enough_changes_nothing():
    for kind in ("density", "series"):
        make, data, answers = FITS[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            same(answers(make().set_params(max_time=1e6).fit(data)), fit(kind))


@pytest.mark.slow
def test_a_fit_that_time_ended_goes_on_where_it_was(clock, monkeypatch, tmp_path):
    monkeypatch.setattr(_loop, "_step", clock.taking(1.0, _loop._step))
    path, expected = tmp_path / "fit", density().fit(X)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="max_time"):
            density(max_time=12.0).fit(X, checkpoint=path, resume=True)
    model = density(max_time=12.0).fit(X, checkpoint=path, resume=True)
    np.testing.assert_array_equal(model.sample(3), expected.sample(3))


def test_partial_fit_stops_in_time(clock, monkeypatch):
    model = density(batch_size=4).fit(X)
    monkeypatch.setattr(_loop, "_step", clock.taking(1.0, _loop._step))
    before = model.n_iter_
    with pytest.warns(ConvergenceWarning, match="max_time=9"):
        model.set_params(max_time=9.0).partial_fit(X)
    assert 5 <= model.n_iter_ - before <= 9


@pytest.mark.parametrize("value", [0, -1.0, "1", np.nan])
@pytest.mark.parametrize("make", [density, CSDIImputer])
def test_times_that_are_none_are_refused(make, value):
    with pytest.raises(ValueError, match="max_time"):
        make().set_params(max_time=value).fit(X)


def test_searches_need_no_file():
    search = GridSearchCV(density(), {"max_iter": [2, 3]}, cv=2).fit(X)
    assert search.best_params_["max_iter"] in (2, 3)
