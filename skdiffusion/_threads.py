"""One thread inside computations that gain nothing from more.

Diffusion models are thousands of small operations one after the other. Torch would split each of
them over all cores and wait, spinning, until the last core is done: on an idle machine that gains
little, and where a core has other work to do every operation waits for it.

OpenMP, on whose threads torch and the trees of scikit-learn run, keeps the number of threads for
each thread of Python. A limit therefore holds for the calling thread alone: several fits in several
threads do not meet, and nothing of the process changes. The BLAS of numpy and scipy has one number
for the whole process, and is left alone but for short fits of many small products.
"""

import functools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import torch
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import ThreadpoolController

from skdiffusion._session import plain_torch

# Not "vcomp" of Visual C++: its number of threads is one for the whole process.
_OF_A_THREAD = ["libgomp", "libiomp", "libomp"]
_setting, _one_blas_thread = threading.Lock(), threading.Lock()
# How many threads the thread of Python had outside, the outermost of nested limits.
_here = threading.local()


@contextmanager
def one_thread():
    """Run what is inside with one thread and the defaults of torch; also a decorator of functions.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion._threads import one_thread
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    # A new thread takes over torch's number at the first question, and must do so neither inside
    # nor while another thread is at _set_torch_threads.
    with _setting:
        n_workers = torch.get_num_threads()
    outside = getattr(_here, "n_workers", None)
    _here.n_workers = n_workers if outside is None else outside
    # What our own code sets holds for the calls inside.
    session = plain_torch() if outside is None else nullcontext()
    with _openmp().limit(limits=1, user_api="openmp"):
        n_threads = _mkl_threads()
        if n_threads > 1:
            _set_torch_threads(1)
        try:
            with session:
                yield
        finally:
            if n_threads > 1:
                _set_torch_threads(n_threads)
            _here.n_workers = outside


@contextmanager
def one_blas_thread():
    """Run short fits of scikit-learn or scipy with one thread in their products.

    Beside other work a logistic regression of ten columns takes half a second instead of a
    millisecond otherwise. Fits in several threads come one after the other: the second would take
    the limit of the first for what was set before, and leave it.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion._threads import one_blas_thread
    >>> with one_blas_thread():
    ...     np.eye(2) @ np.ones(2)
    array([1., 1.])
    """
    with _one_blas_thread, _libraries().limit(limits=1, user_api="blas"):
        yield


def spread(function, items, worth=True):
    """Apply a function to independent items, in as many workers as there were threads outside.

    Workers do not wait for each other at every operation, so that a busy core delays no other.
    What they return must not depend on which items run at once.

    Parameters
    ----------
    function : callable
        What to compute, of one item, with one thread.
    items : sequence
        Items, each worth some milliseconds at least.
    worth : bool, default=True
        Whether to have workers at all. Operations of a few microseconds are slower in several,
        which wait for each other at the lock of the interpreter.

    Returns
    -------
    results : list
        In the order of the items.

    Examples
    --------
    >>> from skdiffusion._threads import spread
    >>> spread(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    n_workers = min(getattr(_here, "n_workers", None) or 1, len(items) if worth else 1)
    if n_workers > 1:
        # Of a quota of processor time OpenMP knows nothing.
        n_workers = min(n_workers, cpu_count())
    if n_workers <= 1:
        return [function(item) for item in items]
    worker = delayed(functools.partial(_work, function, torch.is_grad_enabled()))
    return Parallel(n_workers, require="sharedmem")(worker(item) for item in items)


def _work(function, with_gradients, item):
    """Call a function in a worker, where it has no workers of its own."""
    with one_thread(), torch.set_grad_enabled(with_gradients):
        _here.n_workers = 1
        return function(item)


@functools.cache
def _libraries():
    """Libraries with threads in the process; looking for them takes longer than many a call."""
    return ThreadpoolController()


@functools.cache
def _openmp():
    """OpenMP libraries whose number of threads is that of a thread of Python."""
    return _libraries().select(prefix=_OF_A_THREAD)


def _mkl_threads():
    """Threads of MKL in this thread: those of OpenMP until ``torch.set_num_threads`` is called."""
    found = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    return int(found[1]) if found else 1


def _set_torch_threads(n_threads):
    """``torch.set_num_threads`` for this thread, and not for those that are still to start.

    One that asks torch for the first time within these lines, and is not ours, gets the number
    meant for this one.
    """
    with _setting, ThreadPoolExecutor(1) as new_thread:
        default = new_thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(n_threads)
        new_thread.submit(torch.set_num_threads, default).result()
