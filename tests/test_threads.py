"""One thread inside every public call, and nothing changed outside."""

import threading
import time

import numpy as np
import pytest
import torch
from joblib import cpu_count
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch.overrides import TorchFunctionMode

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE
from skdiffusion._threads import _libraries, _mkl_threads, one_blas_thread, one_thread, spread
from skdiffusion.training import train

X = np.random.default_rng(0).normal(size=(60, 2))
GAPS = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
SMALL = {"max_iter": 3, "random_state": 0}


@pytest.fixture
def threads():
    """Set the number of threads of torch for a test: ``threads(2)``."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def counts():
    """Threads of torch's own loops and of its matrix products."""
    return torch.get_num_threads(), _mkl_threads()


def elsewhere(function):
    """What a function returns in a thread that starts now."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


class Spy(TorchFunctionMode):
    """Remember how many threads the functions of torch were called with."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.add(counts())
        return func(*args, **(kwargs or {}))


# ------------------------------------------------------------------ the limit


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_limit_is_lifted(threads, n_threads):
    threads(n_threads)
    outside = counts()
    with one_thread():
        assert counts() == (1, 1)
    assert counts() == outside == (n_threads, outside[1])


def test_the_limit_is_lifted_after_an_error(threads):
    threads(2)
    outside = counts()
    with pytest.raises(KeyboardInterrupt), one_thread():
        raise KeyboardInterrupt
    assert counts() == outside


def test_limits_may_be_nested(threads):
    threads(2)
    outside = counts()
    with one_thread():
        with one_thread():
            assert counts() == (1, 1)
        assert counts() == (1, 1)
    assert counts() == outside


def test_other_threads_are_not_limited(threads):
    """Neither those that run already nor those that start meanwhile."""
    threads(2)
    outside, started, inside, seen = counts(), threading.Event(), threading.Event(), []

    def runs_already():
        seen.append(counts())
        started.set()
        inside.wait(10)
        seen.append(counts())

    other = threading.Thread(target=runs_already)
    other.start()
    started.wait(10)
    with one_thread():
        assert elsewhere(counts) == outside
        inside.set()
        other.join()
    assert seen == [outside, outside]
    assert elsewhere(counts) == outside


def test_limits_in_several_threads_do_not_meet(threads):
    threads(2)
    outside, barrier, seen = counts(), threading.Barrier(3, timeout=10), []

    def nap(last):
        with one_thread():
            barrier.wait()  # all are inside
            if last:
                barrier.wait()  # all others are out again
            seen.append(counts())
        if not last:
            barrier.wait()
        seen.append(counts())

    both = [threading.Thread(target=nap, args=(last,)) for last in (False, True, False)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(seen) == [(1, 1)] * 3 + [outside] * 3


def blas_threads():
    """Threads of the BLAS of numpy and scipy."""
    return [one.num_threads for one in _libraries().select(user_api="blas").lib_controllers]


def test_products_of_numpy_have_one_thread_and_then_theirs_again():
    libraries, before = _libraries().select(user_api="blas").lib_controllers, blas_threads()
    barrier, seen = threading.Barrier(2, timeout=10), []

    def nap():
        barrier.wait()
        with one_blas_thread():
            seen.append(blas_threads())
            time.sleep(0.05)

    def set_to(numbers):
        for library, number in zip(libraries, numbers):
            library.set_num_threads(number)
        with threadpool_limits():
            pass  # who has set a number has the say in all threads, until a context of theirs ends

    set_to([2] * len(libraries))
    try:
        both = [threading.Thread(target=nap) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert seen == [[1] * len(libraries)] * 2
        assert blas_threads() == [2] * len(libraries)
    finally:
        set_to(before)


def test_a_decorated_function_is_the_same_to_the_eye():
    assert train.__name__ == "train"
    assert "n_steps" in train.__doc__


# ------------------------------------------------------------------ workers


def test_workers_are_as_many_as_the_threads_outside(threads):
    """Each with one thread, without workers of its own, and with the caller's gradients."""

    def look(item):
        met.wait()
        inside = spread(lambda _: threading.get_ident(), range(3))
        return item, counts(), torch.is_grad_enabled(), set(inside) == {threading.get_ident()}

    threads(2)
    met = threading.Barrier(min(2, cpu_count()), timeout=10)
    outside = counts()
    with one_thread(), torch.no_grad():
        found = spread(look, range(4))
    assert found == [(item, (1, 1), False, True) for item in range(4)]
    assert counts() == outside


def test_without_threads_outside_there_are_no_workers(threads):
    threads(1)
    here = threading.get_ident()
    with one_thread():
        assert spread(lambda _: threading.get_ident(), range(3)) == [here] * 3
    assert spread(lambda _: threading.get_ident(), range(3)) == [here] * 3


def test_an_error_in_a_worker_is_raised(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError), one_thread():
        spread(lambda item: 1 / item, [1, 0, 2])


# ------------------------------------------------------------------ the estimators

MIXTURE = GaussianMixture(2, random_state=0).fit(X)
CALLS = {
    LangevinSampler: {
        "fit": (),
        "sample": (5,),
        "transform": (X[:5],),
        "score_samples": (X[:5],),
        "score": (X[:5],),
        "log_density_gradient": (X[:5],),
        "to_inference_data": (2, 5),
    },
    ScoreSDE: {
        "fit": (X,),
        "partial_fit": (X,),
        "sample": (5,),
        "score_samples": (X[:5],),
        "score": (X[:5],),
        "nll_bound": (X[:5],),
        "score_matching_loss": (X[:5],),
        "entropy": (X[:5],),
        "kl_bound": (X[:5], 2.8),
        "log_density_gradient": (X[:5],),
        "transform": (X[:5],),
        "inverse_transform": (X[:5],),
        "impute": (GAPS[:5],),
    },
    CSDIImputer: {
        "fit": (GAPS,),
        "fit_transform": (GAPS,),
        "partial_fit": (GAPS,),
        "transform": (GAPS,),
        "sample": (GAPS,),
        "predict_quantiles": (GAPS, [0.5]),
        "score": (GAPS,),
    },
}
ESTIMATORS = {
    LangevinSampler: lambda: LangevinSampler(MIXTURE, n_steps=5, random_state=0),
    ScoreSDE: lambda: ScoreSDE(base=None, **SMALL),
    CSDIImputer: lambda: CSDIImputer(n_draws=20, **SMALL),
}
# What draws or computes nothing.
QUICK = {
    "fit_predict",
    "from_published_weights",
    "get_feature_names_out",
    "get_metadata_routing",
    "get_params",
    "set_output",
    "set_params",
}


@pytest.fixture(scope="module")
def fitted():
    """An estimator of every class, fitted."""
    return {kind: make().fit(*CALLS[kind]["fit"]) for kind, make in ESTIMATORS.items()}


@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_all_public_methods_are_looked_at(kind):
    methods = {name for name in dir(kind) if not name.startswith("_")}
    methods = {name for name in methods if not name.endswith(("_", "_request"))}
    # Probabilities of labels, of which there are none here, are counted from draws.
    # A forecast is a draw, as those of sample.
    assert methods - QUICK - set(CALLS[kind]) <= {"fit_transform", "predict_proba", "forecast"}


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, method) for kind, methods in CALLS.items() for method in methods],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.filterwarnings("ignore")
def test_every_method_runs_with_one_thread_inside(kind, method, fitted, threads):
    if method == "to_inference_data":
        pytest.importorskip("arviz_base")
    estimator = ESTIMATORS[kind]() if "fit" in method else fitted[kind]
    threads(2)
    outside, spy = counts(), Spy()
    with spy:
        getattr(estimator, method)(*CALLS[kind][method])
    assert spy.seen <= {(1, 1)}
    assert spy.seen or method == "score"
    assert counts() == outside


@pytest.mark.filterwarnings("ignore")
def test_what_users_pass_runs_with_one_thread(threads):
    """Targets, networks and strategies of the user are called inside, too."""
    seen = set()

    def target(x):
        seen.add(("target", *counts()))
        return -0.5 * (x**2).sum(-1)

    class Network(torch.nn.Linear):
        def forward(self, z, *level):
            seen.add(("network", *counts()))
            return super().forward(z)

    def strategy(observed, rng):
        seen.add(("strategy", *counts()))
        return observed & (rng.random(observed.shape) < 0.3)

    threads(2)
    LangevinSampler(target, n_features=2, method="mala", n_steps=5, random_state=0).fit().sample(3)
    ScoreSDE(base=None, network=lambda d, generator: Network(d, d), **SMALL).fit(X).score_samples(X)
    CSDIImputer(target_strategy=strategy, **SMALL).fit(GAPS)
    assert seen == {("target", 1, 1), ("network", 1, 1), ("strategy", 1, 1)}


def test_an_error_in_a_fit_lifts_the_limit(threads):
    def target(x):
        raise RuntimeError("no density")

    threads(2)
    outside = counts()
    with pytest.raises(RuntimeError, match="no density"):
        LangevinSampler(target, n_features=2).fit()
    assert counts() == outside


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_draws_do_not_depend_on_the_number_of_threads(kind, threads):
    def draws(n_threads):
        threads(n_threads)
        estimator = ESTIMATORS[kind]().fit(*CALLS[kind]["fit"])
        return estimator.sample(*CALLS[kind]["sample"])

    np.testing.assert_array_equal(draws(2), draws(1))


def test_blocks_of_chains_in_workers_are_the_same_draws(threads):
    """Several blocks, of draws and of rows."""
    sampler = LangevinSampler(MIXTURE, n_steps=2, random_state=0).fit()
    density = ScoreSDE(base=None, **SMALL).fit(X)
    rows = np.random.default_rng(2).normal(size=(1100, 2))

    def results(n_threads):
        threads(n_threads)
        draws, path = sampler.sample(9000, return_trajectory=True)
        return draws, path, sampler.transform(rows), density.score_samples(rows)

    for two, one in zip(results(2), results(1), strict=True):
        np.testing.assert_array_equal(two, one)


@pytest.mark.filterwarnings("ignore")
def test_two_fits_at_once(threads):
    """Each is what it would be alone, and leaves the threads as they were."""
    threads(2)
    outside, expected, results = counts(), ScoreSDE(base=None, **SMALL).fit(X).sample(5), []

    def fit():
        results.append(ScoreSDE(base=None, **SMALL).fit(X).sample(5))
        results.append(counts())

    both = [threading.Thread(target=fit) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(results) == 4
    for result in results:
        if isinstance(result, tuple):
            assert result == outside
        else:
            np.testing.assert_array_equal(result, expected)
