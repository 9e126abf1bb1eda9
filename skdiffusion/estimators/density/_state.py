"""Fitted score models as numpy arrays: pickles open on every machine."""

from types import SimpleNamespace

from skdiffusion._device import available_device, load_numpy_state
from skdiffusion._random import torch_generator
from skdiffusion.diffusion.conditional import density_arrays, rebuild
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.model import DensityModel
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
    model = _model(**state["model_"], untrained=network, device=device)
    proposal = None if proposal is None else rebuild(**proposal).to(device)
    return state | {"model_": model, "_proposal": proposal}


def _model(base, network, prior, s_min, s_max, *, untrained, device):
    """Model from its arrays and a network that takes the weights, in double precision."""
    denoiser = Denoiser(rebuild(**base), untrained).double()
    if network is not None:
        load_numpy_state(denoiser.network, network)
    denoiser = denoiser.to(device).requires_grad_(False)
    return DensityModel(denoiser, rebuild(**prior).to(device), s_min, s_max)
