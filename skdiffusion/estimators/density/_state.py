"""Fitted score models as numpy arrays: pickles open on every machine."""

from types import SimpleNamespace

from skdiffusion._device import available_device
from skdiffusion._random import torch_generator
from skdiffusion.diffusion.conditional import density_arrays, rebuild
from skdiffusion.diffusion.model import from_arrays
from skdiffusion.estimators.density._fitting import new_network


def as_arrays(state):
    """State of an estimator with numpy arrays in place of torch objects."""
    if "model_" not in state:
        return state
    proposal = state["_proposal"]
    proposal = None if proposal is None else density_arrays(proposal)
    return state | {"model_": state["model_"].arrays(), "_proposal": proposal}


def as_torch(state):
    """State from :func:`as_arrays`, its models on the device that was chosen.

    Where this machine does not have that device, they go to what ``device="auto"`` takes.
    """
    if "model_" not in state:
        return state
    device, network, proposal = available_device(state["device"]), None, state["_proposal"]
    if state["model_"]["network"] is not None:
        parameters = SimpleNamespace(**state)
        network = new_network(parameters, state["_encoder"], torch_generator(0))
    model = from_arrays(**state["model_"], untrained=network, device=device)
    proposal = None if proposal is None else rebuild(**proposal).to(device)
    return state | {"model_": model, "_proposal": proposal}
