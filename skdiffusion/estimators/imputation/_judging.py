"""How denoisers predict held-out cells, and whether their bands hold."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from skdiffusion._random import row_keys, torch_generator
from skdiffusion._warn import warn
from skdiffusion.estimators.imputation._model import draw_standardised
from skdiffusion.estimators.imputation._stretches import hidden_stretches, misses_stretches
from skdiffusion.metrics import crps_loss
from skdiffusion.training.imputation import Masked

# Denoisers are compared on windows with about so many observed cells, some of them
# hidden, the same windows under several masks if need be, but at most so often, with so many draws.
# On 64 windows, some hundred hidden cells of a table, the choice was little more than chance.
_CELLS_HELD_OUT, _MOST_MASKS, _N_HELD_OUT_DRAWS = 20_000, 8, 16
# Cells hidden as others are missing by which denoisers are compared, on so many draws of what is
# hidden at most.
_CELLS_OF_GAPS, _MOST_GAPS = 3000, 4
# Of that work, one part in so many is tried beforehand where time is limited.
SHARE = 8
# Draws and truth are exchangeable where the draws are right: this share of the cells then lies
# between the lowest and the highest of them. So much less is said, of so many cells.
_NOMINAL = (_N_HELD_OUT_DRAWS - 1) / (_N_HELD_OUT_DRAWS + 1)
_LEAST_COVERAGE, _FEWEST_CELLS = 0.7, 300


class Judged(NamedTuple):
    """How draws predict held-out cells.

    Attributes
    ----------
    crps : float
        Mean CRPS.
    coverage : float
        Share of the cells between the lowest and the highest draw.
    n_cells : int
        Number of cells.
    parts : tuple of float
        Mean CRPS of each way to hide them.
    """

    crps: float
    coverage: float
    n_cells: int
    parts: tuple = ()

    def loss(self, base):
        """CRPS in units of that of a base, in the way to hide cells where it is highest.

        What gains in scattered cells and loses in long gaps, or the other way round, is no gain:
        nobody says what will be missing.
        """
        both = zip(self.parts or (self.crps,), base.parts or (base.crps,))
        return max((own + 1e-12) / (other + 1e-12) for own, other in both)


@dataclass(frozen=True, eq=False)
class Judge:
    """Compares denoisers on cells hidden in held-out windows, with fixed masks and noise.

    Parameters
    ----------
    windows : Windows
        The windows.
    columns : Columns
        Their columns.
    strategy : callable
        Target strategy.
    settings : Bunch
        Parameters of the imputer.
    seed : int
        Fixes masks and noise.
    """

    windows: Any
    columns: Any
    strategy: Any
    settings: Any
    seed: int

    @property
    def can(self):
        """Whether there is anything to judge by."""
        return len(self.windows.held_out) > 0

    def try_share(self, denoiser):
        """Do a share of the work of judging, to see how long all of it will take."""
        trained = deepcopy(denoiser)
        with torch.no_grad():
            # As after training: untrained networks are known to be their closed form.
            for weight in trained.parameters():
                weight.add_(1e-3)
        self(trained, SHARE)

    @property
    def as_missing(self):
        """Whether cells of long series are hidden as others are missing, too.

        Windows have no gaps longer than themselves, and the default hides no whole rows.
        """
        name = self.settings.target_strategy
        return isinstance(name, str) and name == "block" and misses_stretches(self.windows)

    def __call__(self, denoiser, share=1):
        """How a denoiser predicts the cells, of one window in ``share``."""
        judged = [self._of_windows(denoiser, share)]
        if self.as_missing:
            judged.append(self._of_gaps(denoiser, max(1, _MOST_GAPS // share)))
        judged = [one for one in judged if one.n_cells]
        n_cells = sum(one.n_cells for one in judged)
        crps = sum(one.crps for one in judged) / max(1, len(judged))
        coverage = sum(one.coverage * one.n_cells for one in judged) / max(1, n_cells)
        parts = tuple(one.crps for one in judged)
        return Judged(crps, coverage if n_cells else 1.0, n_cells, parts)

    def _of_gaps(self, denoiser, most):
        """How a denoiser predicts cells of gaps copied from other rows."""
        generator, pairs, n_cells = torch_generator(self.seed + 4), [], 0
        for i in range(most):
            shown, values, _ = hidden_stretches(self.windows, None, generator, held_out=True)
            if not bool(shown.wanted.any()):
                continue
            keys = row_keys(shown.offsets[:-1, None].cpu().numpy(), self.seed + i)
            draws = draw_standardised(denoiser, shown, keys, _N_HELD_OUT_DRAWS, self.settings)
            feature = torch.nonzero(shown.wanted)[:, 1].cpu().numpy()
            pairs.append((values[shown.wanted], draws, feature))
            n_cells += len(feature)
            if n_cells >= _CELLS_OF_GAPS:
                break
        return self._scored(pairs)

    def _scored(self, pairs):
        """Scores of values and draws of features."""
        if not pairs:
            return Judged(0.0, 1.0, 0)
        truth, drawn = [], []
        for values, draws, feature in pairs:
            truth.append(self.columns.standard(values.cpu().numpy(), feature))
            drawn.append(self.columns.standard(draws.cpu().numpy(), feature))
        truth, draws = np.concatenate(truth), np.concatenate(drawn, 1)
        inside = (draws.min(0) <= truth) & (truth <= draws.max(0))
        crps = crps_loss(truth, draws.T, method="fair")
        return Judged(crps, float(inside.mean()), len(truth))

    def _of_windows(self, denoiser, share):
        """How a denoiser predicts cells of held-out windows."""
        series, generator = self.windows.series, torch_generator(self.seed)
        masked = Masked(denoiser, series, self.windows.held_out, self.strategy)
        n_cells = max(1.0, float(series.observed.sum()) / len(series.values) * series.length)
        n_windows = max(1, int(_CELLS_HELD_OUT / n_cells))
        chosen = self.windows.held_out[:n_windows]
        n_masks = min(_MOST_MASKS, max(1, n_windows // len(chosen)))
        shown, _, values, hidden = masked.hide(chosen.repeat(n_masks)[::share], generator)
        if not bool(hidden.any()):
            return Judged(0.0, 1.0, 0)
        keys = row_keys(shown.offsets[:-1, None].cpu().numpy(), self.seed)
        draws = draw_standardised(denoiser, shown, keys, _N_HELD_OUT_DRAWS, self.settings)
        feature = torch.nonzero(hidden)[:, -1].cpu().numpy()
        return self._scored([(values[hidden], draws, feature)])


def warn_missed(judged):
    """Say so if the bands of the draws miss held-out cells much too often."""
    if judged.n_cells >= _FEWEST_CELLS and judged.coverage < _LEAST_COVERAGE:
        warn(
            f"Bands made for {_NOMINAL:.0%} of the cells hold {judged.coverage:.0%} of "
            f"{judged.n_cells} held-out ones: intervals are too narrow. Give more data, raise "
            "max_iter, or widen them by conformalize."
        )
