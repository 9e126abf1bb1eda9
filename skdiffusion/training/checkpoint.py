"""Files that a fit can go on from: the states of its trainings, of which fit and on which data."""

import hashlib
import os
import signal
import threading
from numbers import Integral

import numpy as np
import torch

from skdiffusion._file import ModelFileError, file_bytes, read_file, write_file
from skdiffusion._random import draw_seed
from skdiffusion._version import __version__

_FORMAT = 1
# Parameters that may be others when a fit goes on; the seed stands in the file instead of its own.
_FREE = {"device", "max_time", "random_state", "verbose"}


class Checkpoint:
    """File with the states of the trainings of one fit.

    Parameters
    ----------
    path : str or path-like
        The file.
    estimator : estimator
        What is fitted.
    resume : bool
        Whether to go on from a file that is there.

    Raises
    ------
    FileExistsError
        If there is a file, and ``resume`` is False.
    ModelFileError
        If the file is damaged or none of a fit.
    ValueError
        If it is that of a fit with other parameters.
    """

    def __init__(self, path, estimator, resume):
        self._path, self._states = os.path.abspath(path), {}
        parameters = estimator.get_params(deep=False)
        self._header = {
            "checkpoint": _FORMAT,
            "skdiffusion": __version__,
            "estimator": type(estimator).__name__,
            "parameters": {k: digest(v) for k, v in parameters.items() if k not in _FREE},
        }
        if os.path.isdir(path):
            raise IsADirectoryError(f"checkpoint={path!r} is a folder: name a file in it.")
        if not os.path.isdir(os.path.dirname(self._path)):
            raise FileNotFoundError(f"checkpoint={path!r} is in a folder that is not there.")
        if not os.path.lexists(path):
            return
        if not resume:
            raise FileExistsError(
                f"checkpoint={path!r} is there already: set resume=True to go on from it, or "
                "delete it."
            )
        header, tensors = self._read()
        self._require(header)
        self._header = header
        for name, x in tensors.items():
            training, _, name = name.partition("/")
            self._states.setdefault(training, {})[name] = x

    def seed(self, random_state):
        """Seed of the fit: that of the file where no int fixes another one."""
        seed = draw_seed(random_state)
        before = self._header.setdefault("seed", seed)
        if before != seed and isinstance(random_state, Integral):
            raise ValueError(self._other("random_state"))
        return before

    def require_data(self, *arrays):
        """Raise if the file is that of a fit to other data."""
        found = digest(arrays)
        if self._header.setdefault("data", found) != found:
            raise ValueError(self._other("data"))

    def state(self, training):
        """State of a training, tensors by name; None where it has not begun."""
        state = self._states.get(training)
        return state and {name: torch.tensor(x) for name, x in state.items()}

    def write(self, training, state):
        """Write the file anew, with another state of a training."""
        # The copies stay what they are while training goes on.
        self._states[training] = {
            name: np.array(x.detach().cpu().numpy(), order="C") for name, x in state.items()
        }
        tensors = {f"{j}/{k}": x for j, one in self._states.items() for k, x in one.items()}
        write_file(self._path, file_bytes(self._header, tensors))

    def _read(self):
        try:
            return read_file(self._path)
        except ModelFileError as error:
            raise ModelFileError(
                f"checkpoint={self._path!r} cannot be resumed: {error}. Delete it to start anew."
            ) from error

    def _require(self, header):
        """Refuse files of other kinds, versions, estimators and parameters."""
        if not isinstance(header, dict) or header.get("checkpoint") != _FORMAT:
            raise ModelFileError(
                f"checkpoint={self._path!r} holds no fit that could go on: name another file."
            )
        for name in ("skdiffusion", "estimator"):
            if header[name] != self._header[name]:
                raise ValueError(
                    f"checkpoint={self._path!r} was written by {name} {header[name]}, this is "
                    f"{self._header[name]}: finish the fit with that, or delete the file."
                )
        before, now = header["parameters"], self._header["parameters"]
        others = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if others:
            raise ValueError(self._other(", ".join(others)))

    def _other(self, what):
        return (
            f"checkpoint={self._path!r} is that of a fit with other {what}: give it the same, or "
            "name another file."
        )


def digest(value):
    """SHA-256 of the content of parameters and arrays, of functions by their names.

    Parameters
    ----------
    value : object
        Numbers, texts, arrays, containers of them, or objects with attributes of that kind.

    Returns
    -------
    digest : str
        In hexadecimal.

    Examples
    --------
    >>> from skdiffusion.training.checkpoint import digest
    >>> digest({"a": [1.0, None]}) == digest({"a": [1.0, None]})
    True
    >>> digest([1, 2]) == digest([1, 3])
    False
    """
    found = hashlib.sha256()
    for part in _told(value):
        found.update(part)
    return found.hexdigest()


def _told(value):
    """Bytes that tell a value from others."""
    kind = type(value)
    yield f"<{kind.__module__}.{kind.__qualname__}>".encode()
    if torch.is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, np.ndarray | list | tuple):
        yield str(len(value)).encode()
        for one in value:
            yield from _told(one)
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from _told(value[key])
    elif hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}".encode()
    elif hasattr(value, "__dict__"):
        yield from _told(vars(value))
    else:
        yield repr(value).encode()


class Postponed:
    """Ctrl-C and SIGTERM wait for the end of a training step, so that it can be written down.

    A second one of the same kind does not wait. Threads other than the main one get no signals.
    """

    def __init__(self):
        self._before, self._came = {}, []

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def came(self):
        """Whether one is waiting."""
        return bool(self._came)

    def deliver(self):
        """Do now what would have been done at once."""
        waiting, self._came = self._came, []
        for number in waiting:
            self._do(number)

    def _note(self, number, frame):
        if number in self._came:
            self._do(number)
        self._came.append(number)

    def _do(self, number):
        handler = self._before[number]
        if callable(handler):
            handler(number, None)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)
