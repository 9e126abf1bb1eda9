"""The held-out likelihood that decides on networks."""

import torch

from skdiffusion.diffusion.analytic import gaussian
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.training.density import held_out_ratios


class Shear(torch.nn.Module):
    """Moves every column by a share of all others, which leaves the trace at zero."""

    def forward(self, x, log_s, base_noise, condition=None):
        return 0.2 * (x.sum(1, keepdim=True) - x)


def test_held_out_likelihoods_are_right_on_average_over_rows():
    """Estimates of traces whose directions all rows share err in all rows alike."""
    base = gaussian(torch.zeros(6), torch.eye(6)).float()
    model = DensityModel(Denoiser(base, Shear()).float(), base, 1e-3, 80.0)
    rows = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1))
    estimated, exact = held_out_ratios(model, rows), model.log_ratio(rows, 12)
    errors = estimated - exact
    assert errors.std() > 0.1
    assert abs(errors.mean()) < 4 * errors.std() / len(rows) ** 0.5
