"""The fitted model of an imputer: a denoiser that draws, and pickles as numpy arrays."""

import copy
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from skdiffusion._device import load_numpy_state, memory_advice, resolve_device, to_numpy_state
from skdiffusion._random import normals, torch_generator
from skdiffusion.diffusion.statespace.base import SeriesGaussian
from skdiffusion.diffusion.statespace.groups import GroupedGaussian
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.estimators.imputation._trees import TreeDenoiser
from skdiffusion.nn import CSDINetwork
from skdiffusion.nn.encoder import EncoderDenoiser

# Cells times draws denoised in one call. They bound the memory and change no result.
_CELLS_ON_GPU, _CELLS_ON_CPU = 2**20, 24_000
_BASES = {base.__name__: base for base in (WindowBase, RowMixture, SeriesGaussian, GroupedGaussian)}
# Windows encoded in one call, if batch_size does not say otherwise.
_WINDOWS_PER_BATCH = 64
# Rows after which nothing is left of where a piece of a series begins. A state space cuts series by
# itself, and leaves half of this.
_FORGOTTEN = 512


@dataclass(frozen=True)
class Blueprint:
    """What a denoiser is built from, besides its Gaussian and its weights.

    Attributes
    ----------
    name : {"gaussian", "trees", "encoder", "csdi"}
        Kind of denoiser.
    length, n_features : int
        Size of a window.
    sizes : dict
        Sizes of the network.
    seed : int
        Fixes its initial weights.
    """

    name: str
    length: int
    n_features: int
    sizes: dict
    seed: int

    def build(self, base):
        """Return the untrained denoiser on ``base``, a Gaussian over the window or None."""
        generator = torch_generator(self.seed)
        if self.name == "gaussian":
            return GaussianDenoiser(base)
        if self.name == "trees":
            return TreeDenoiser(base, None)
        if self.name == "csdi":
            return CSDINetwork(self.n_features, **self.sizes, generator=generator)
        return EncoderDenoiser(
            base, self.length, self.n_features, **self.sizes, generator=generator
        )


class ImputationModel:
    """A fitted denoiser, on the device of the moment; numpy arrays where it is pickled.

    Parameters
    ----------
    denoiser : ImputationDenoiser
        The denoiser.
    blueprint : Blueprint
        What it was built from.
    """

    def __init__(self, denoiser, blueprint):
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.blueprint = blueprint

    @property
    def name(self):
        """Kind of denoiser."""
        return self.denoiser.name

    @property
    def solves(self):
        """Whether draws take the steps of a solver."""
        return self.name not in ("gaussian", "trees")

    def reach(self, settings):
        """Rows around a piece of a series that say something of its draws."""
        base = getattr(self.denoiser.closed_form(), "base", None)
        forgotten = 2 * getattr(base, "forgotten", _FORGOTTEN // 2)
        if not self.solves:
            return forgotten
        # A step of a solver asks twice at most, and every answer joins cells of a window.
        n_steps = settings.n_steps or self.denoiser.default_steps
        return forgotten + 2 * n_steps * self.blueprint.length

    def draw(self, series, keys, n_draws, settings):
        """Draw the wanted cells of ``series``; see :func:`draw_standardised`."""
        return draw_standardised(self.denoiser, series, keys, n_draws, settings)

    def without_network(self):
        """The model with its Gaussian alone; this one where there is none."""
        alone = self.denoiser.closed_form()
        if alone is None or self.name == "gaussian":
            return self
        return ImputationModel(alone, replace(self.blueprint, name="gaussian", sizes={}))

    def weights(self):
        """Weights of the network as a dict of numpy arrays."""
        return to_numpy_state(self.denoiser)

    def base_arrays(self):
        """Kind of the Gaussian and its numbers as numpy arrays, None if there is none."""
        alone = self.denoiser.closed_form()
        if alone is None:
            return None
        arrays = {name: x.cpu().numpy() for name, x in alone.base.arrays().items()}
        return type(alone.base).__name__, arrays

    def continued(self, blueprint):
        """Return a denoiser to train further: this one, or a new network on its Gaussian.

        Parameters
        ----------
        blueprint : Blueprint
            What the parameters ask for now.

        Returns
        -------
        denoiser : ImputationDenoiser
            Free to be trained; this model stays as it is.

        Raises
        ------
        ValueError
            If a network of this kind, but of other sizes, is there.
        """
        if blueprint == self.blueprint:
            return copy.deepcopy(self.denoiser).requires_grad_(True)
        alone = self.denoiser.closed_form()
        if blueprint.name in (self.name, "csdi") or alone is None:
            raise ValueError(
                "Training cannot go on after a change of network, n_layers or n_channels: call "
                "fit with warm_start=False."
            )
        return blueprint.build(alone.base)

    def __getstate__(self):
        return {
            "blueprint": self.blueprint,
            "base": self.base_arrays(),
            "weights": self.weights(),
            "trees": getattr(self.denoiser, "trees", None),
        }

    def __setstate__(self, state):
        self.blueprint, base = state["blueprint"], None
        if state["base"] is not None:
            kind, arrays = state["base"]
            base = _BASES[kind].from_arrays(**{k: torch.from_numpy(x) for k, x in arrays.items()})
        denoiser = load_numpy_state(self.blueprint.build(base), state["weights"])
        if self.blueprint.name == "trees":
            denoiser.trees = state["trees"]
        self.denoiser = denoiser.eval().requires_grad_(False)


def draw_standardised(denoiser, series, keys, n_draws, settings):
    """Draw the wanted cells of standardised series.

    Parameters
    ----------
    denoiser : ImputationDenoiser
        Moved to the device of ``settings``.
    series : WindowedSeries
        The data.
    keys : tensor of shape (n_series, ...)
        Keys of the noise of every series, from :func:`skdiffusion._random.row_keys`.
    n_draws : int
        Number of draws.
    settings : Bunch
        Parameters of the imputer: ``device``, ``solver``, ``n_steps``, ``batch_size``, ...

    Returns
    -------
    draws : float32 tensor of shape (n_draws, n_wanted)
        In the order of ``torch.nonzero(series.wanted)``.
    """
    device = resolve_device(settings.device)
    past = settings.direction == "past"
    denoiser = _causal(denoiser) if past else denoiser
    denoiser, series, keys = denoiser.to(device), series.to(device), keys.to(device)
    solver = denoiser.default_solver if settings.solver == "auto" else settings.solver
    n_steps = settings.n_steps or denoiser.default_steps
    draws = torch.arange(n_draws, device=device)[:, None]

    def noise(number, place, kind, size):
        cell = (place[:, None] * size + torch.arange(size, device=device)).flatten()
        key = keys[number].repeat_interleave(size)
        return normals(key, draws, kind, cell).unflatten(1, (len(number), size))

    with (
        memory_advice("Too little memory to draw: lower batch_size or n_draws."),
        torch.inference_mode(),
        tqdm(total=100, desc="Drawing", disable=settings.verbose == 0, leave=False) as bar,
    ):
        if past:
            return denoiser.base.draw(series, noise, n_draws, past=True)
        return denoiser.draw(
            series,
            noise,
            n_draws,
            stride=max(1, series.length // 2),
            noise_levels=denoiser.noise_levels(n_steps, solver),
            step=solver,
            cells_per_batch=_CELLS_ON_GPU if device.type == "cuda" else _CELLS_ON_CPU,
            windows_per_batch=settings.batch_size or _WINDOWS_PER_BATCH,
            on_step=lambda share: bar.update(round(100 * share) - bar.n),
        )


def _causal(denoiser):
    """The part of a denoiser that can draw each row from the rows before it."""
    alone = denoiser.closed_form()
    if alone is None or not alone.base.causal:
        raise ValueError(
            'direction="past" needs the state space of series: fit on one long series (with '
            "window_length), a list of series or a long frame, and not with "
            'network="csdi"; rows of a table have no past.'
        )
    return alone
