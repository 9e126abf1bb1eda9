"""The model inside CSDIImputer: building it, keeping it as numpy arrays, drawing from it."""

import numpy as np
import torch
from tqdm.auto import tqdm

from skdiffusion._device import load_numpy_state, memory_advice, resolve_device, to_numpy_state
from skdiffusion._random import draw_seed, normals, row_keys, torch_generator
from skdiffusion.columns.bend import unbend
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.draw import draw_missing
from skdiffusion.diffusion.window.local import window_base
from skdiffusion.nn import CSDINetwork
from skdiffusion.nn.encoder import EncoderDenoiser

# Above this many features "csdi" attends to 32 inducing points instead of all pairs.
_FULL_ATTENTION, _N_INDUCING = 128, 32
_SOLVERS = {
    "gaussian": ("dpmpp_2m_sde", 8),
    "encoder": ("dpmpp_2m_sde", 8),
    "csdi": ("dpmpp_2m_sde", 12),
}


class ImputerModel:
    """Model and draws of :class:`CSDIImputer`."""

    def _wanted(self):
        """Kind of model that the parameters ask for."""
        return "gaussian" if self.method == "gaussian" else self.network

    def _build(self, kind, base, sizes):
        """An untrained model."""
        n_features, generator = int(self._valid.sum()), torch_generator(self._seed)
        if kind == "gaussian":
            return GaussianDenoiser(base)
        if kind == "csdi":
            return CSDINetwork(n_features, **sizes, generator=generator)
        return EncoderDenoiser(base, self.window_length_, n_features, **sizes, generator=generator)

    def _sizes(self, kind):
        """Size parameters of a network."""
        if kind == "gaussian":
            return {}
        sizes = {name: getattr(self, name) for name in ("n_layers", "n_channels", "n_heads")}
        if kind == "csdi" and self._valid.sum() > _FULL_ATTENTION:
            sizes["n_inducing"] = _N_INDUCING
        return sizes

    def _adopt(self, model, history):
        """Keep the fitted model as numpy arrays."""
        model = model.eval().requires_grad_(False)
        self._weights, self._base = to_numpy_state(model), None
        if hasattr(model, "base"):
            self._base = tuple(x.cpu().numpy() for x in (model.base.mean, model.base.covariance))
        self._architecture = _architecture(model)
        self._fitted_sizes = self._sizes(self._architecture)
        self.method_ = "gaussian" if self._architecture == "gaussian" else "diffusion"
        self._model, self.history_, self.n_iter_ = model, history, max(1, len(history["loss"]))
        return self

    def _model_on_device(self):
        """The fitted model, rebuilt after unpickling, on the device of the moment."""
        if "_model" not in vars(self):
            model = self._build(self._architecture, self._fitted_base(), self._fitted_sizes)
            self._model = load_numpy_state(model, self._weights).eval().requires_grad_(False)
        return self._model.to(resolve_device(self.device))

    def _fitted_base(self):
        """The Gaussian over a window, if the model has one."""
        if self._base is None:
            return None
        moments = (torch.from_numpy(x) for x in self._base)
        return window_base(*moments, self.window_length_, int(self._valid.sum()))

    def _fill(self, data, reduce, n_draws, random_state=None):
        """Complete ``data``; ``reduce`` maps draws (n_draws, n_missing) to what is filled in."""
        flat = data.flat
        missing = np.isnan(flat)
        asked = missing & self._valid
        if asked.any():
            values = reduce(self._draw(data, n_draws, random_state))
        else:
            values = reduce(np.zeros((n_draws, 1)))[..., :0]
        out = np.broadcast_to(flat, (*values.shape[:-1], *flat.shape)).copy()
        out[..., asked] = values
        out[..., missing & ~self._valid] = 0.0
        return data.split(out)

    def _draw(self, data, n_draws, random_state):
        """Draws (n_draws, n_missing) of the missing cells of valid features, in X's units."""
        self._warn_empty(data)
        series = self._windows(data)
        seed = self._seed if random_state is None else draw_seed(random_state)
        keys = row_keys(data.rows, seed)
        draws = self._draw_standardised(self._model_on_device(), series, keys, n_draws)
        feature = np.nonzero(np.isnan(data.flat[:, self._valid]))[1]
        scale, mean = self.scale_[self._valid][feature], self.mean_[self._valid][feature]
        largest = np.finfo(data.flat.dtype).max
        draws = self._unbent(draws.cpu().numpy(), feature)
        with np.errstate(over="ignore"):
            return np.clip(mean + scale * draws, -largest, largest)

    def _unbent(self, z, feature):
        """Model values in standard units; ``feature`` says whose they are along the last axis."""
        z = z.astype(float)
        return z if self._bend is None else unbend(z, self._bend[:, feature])

    def _draw_standardised(self, model, series, keys, n_draws):
        """Draws (n_draws, n_wanted) of the wanted cells of standardised series."""
        device = resolve_device(self.device)
        series, keys = series.to(device), keys.to(device)
        number, cell = series.address()
        solver, n_steps = _SOLVERS[_architecture(model)]
        solver = solver if self.solver == "auto" else self.solver
        n_steps = self.n_steps or n_steps

        def noise(cells, draws, step):
            return normals(keys[number[cells]], draws[:, None], step, cell[cells])

        with (
            memory_advice("Too little memory to draw: lower batch_size or n_draws."),
            torch.inference_mode(),
            tqdm(total=100, desc="Drawing", disable=self.verbose == 0, leave=False) as bar,
        ):
            return draw_missing(
                model,
                series,
                noise,
                n_draws=n_draws,
                stride=self.stride or max(1, series.length // 2),
                noise_levels=model.noise_levels(n_steps, solver),
                step=solver,
                cells_per_batch=2**20 if device.type == "cuda" else 24_000,
                windows_per_batch=self.batch_size or 64,
                on_step=lambda share: bar.update(round(100 * share) - bar.n),
            )


def _architecture(model):
    """Name of the kind of model."""
    if isinstance(model, CSDINetwork):
        return "csdi"
    return "encoder" if isinstance(model, EncoderDenoiser) else "gaussian"
