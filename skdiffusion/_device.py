"""Between numpy and torch: devices, memory advice, the state of networks as arrays."""

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


@contextmanager
def memory_advice(remedy):
    """Say what to do when the device runs out of memory."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise torch.cuda.OutOfMemoryError(f"{remedy} ({reason})") from error


def to_numpy_state(module):
    """Return the weights of a module as numpy arrays, which every machine can unpickle."""
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def load_numpy_state(module, state):
    """Put weights saved by :func:`to_numpy_state` into a module."""
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return module
