"""Between numpy and torch: devices, memory advice, the state of networks as arrays."""

import math
import os
from contextlib import contextmanager

import torch
from sklearn.utils._param_validation import InvalidParameterError


def resolve_device(device):
    """Return the torch device of a ``device`` parameter; "auto" takes a GPU where there is one."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        # Gaussians need double precision, and results must come back.
        torch.empty(0, device=resolved, dtype=torch.float64).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidParameterError(
            f"device={device!r} cannot be used on this machine ({str(error).splitlines()[0]}). "
            'Use device="auto" or "cpu".'
        ) from error
    return resolved


def is_available(device):
    """Whether this machine has the device of a parameter."""
    try:
        resolve_device(device)
    except InvalidParameterError:
        return False
    return True


def available_device(device):
    """Return the device that an unpickled model goes to: its own where this machine has it."""
    return resolve_device(device if is_available(device) else "auto")


#: Remedy of draws that are too many for the memory.
DRAW_OFTEN = "draw fewer, several times, with another random_state each"


class NotEnoughMemory(MemoryError):
    """More memory is asked for than there is; said before the work starts."""


@contextmanager
def memory_advice(remedy):
    """Say what to do when the device or the machine runs out of memory."""
    try:
        yield
    except NotEnoughMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        on_device = isinstance(error, torch.cuda.OutOfMemoryError)
        on_machine = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not (on_device or on_machine):
            raise
        kind = torch.cuda.OutOfMemoryError if on_device else MemoryError
        raise kind(f"{remedy} ({str(error).partition(chr(10))[0]})") from error


def require_memory(n_numbers, what, remedy):
    """Refuse work whose results alone are larger than the memory of this machine.

    Parameters
    ----------
    n_numbers : int
        Numbers of 8 bytes in the results.
    what : str
        What was asked for, for the message.
    remedy : str
        What to do.
    """
    needed, there = 8 * n_numbers, _memory()
    if needed > there:
        raise NotEnoughMemory(
            f"{what} takes {needed / 1e9:.3g} GB at least, but there are {there / 1e9:.3g} GB for "
            f"this process: {remedy}."
        )


def _memory():
    """Bytes that this process can have; infinity where the system does not say."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        import resource
    except (AttributeError, ValueError, ImportError):
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return there if limit == resource.RLIM_INFINITY else min(there, limit)


def to_numpy_state(module):
    """Return the weights of a module as numpy arrays, which every machine can unpickle."""
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def load_numpy_state(module, state):
    """Put weights saved by :func:`to_numpy_state` into a module."""
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return module
