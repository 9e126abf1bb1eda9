"""Missing columns given the others: sampling-importance-resampling on top of a closed form."""

import copy
import math

import numpy as np
import torch

from skdiffusion._random import draw_seed, normals
from skdiffusion.estimators._training_rows import conditional_draws, patterns

# Runge-Kutta steps and random directions for the weights of candidates, rows at once.
_WEIGHT_STEPS, _N_PROBES, _CHUNK = 16, 16, 2000


class RowCompleter:
    """Part of ScoreSDE that draws the missing columns of rows."""

    def _complete(self, codes, keys, n_draws):
        """Draws of completed rows, and the effective number of candidates behind each row's."""
        completed = np.repeat(codes[:, None], n_draws, axis=1)
        sizes = np.full(len(codes), np.inf)
        rows = self._rows(self._table.spread(codes, draw_seed(self.random_state))).cpu()
        for missing, chosen in patterns(codes):
            n_parts = math.ceil(len(chosen) / self._rows_at_once(n_draws))
            for part in np.array_split(chosen, n_parts):
                draws, sizes[part] = self._draw_missing(rows[part], keys[part], missing, n_draws)
                full = torch.zeros(len(part) * n_draws, codes.shape[1], dtype=torch.float64)
                full[:, missing] = draws.flatten(0, 1)
                values = self._to_units(full)[:, missing].reshape(draws.shape)
                completed[np.ix_(part, range(n_draws), missing)] = values
        return completed, sizes

    def _n_candidates(self, n_draws):
        """Draws of the proposal for each row."""
        return n_draws if self.denoiser_.network is None else max(100, 5 * n_draws)

    def _rows_at_once(self, n_draws):
        """Rows completed together, in some 100 MB."""
        a_row = max(self._proposal.n_components, self._n_candidates(n_draws))
        return max(1, 10**7 // (a_row * self.n_features_in_))

    def _draw_missing(self, rows, keys, missing, n_draws):
        """Draws of the missing columns of rows with one pattern, and effective sizes."""
        proposal = copy.deepcopy(self._proposal).cpu()
        n = self._n_candidates(n_draws)
        draws = conditional_draws(proposal, rows, keys, missing, n)
        if self.denoiser_.network is None:
            return draws, np.inf
        full = rows[:, None].repeat(1, n, 1)
        full[:, :, missing] = draws
        keys = keys[:, None]
        weights = self._importance(full)
        start = torch.special.ndtr(normals(keys, 0, 2, 0, torch.float64))
        steps = (start + torch.arange(n_draws)) / n_draws
        chosen = torch.searchsorted(weights.cumsum(1), steps).clamp_max(n - 1)
        # Systematic resampling leaves the draws in the order of the candidates.
        shuffled = normals(keys, torch.arange(n_draws), 3, 0).argsort(1)
        chosen = chosen.gather(1, shuffled)
        draws = draws.gather(1, chosen[:, :, None].expand(-1, -1, draws.shape[2]))
        return draws, (1 / weights.square().sum(1)).numpy()

    def _importance(self, candidates):
        """Normalised weights of each row's candidates, model over proposal."""
        x = self._tensor(candidates.flatten(0, 1))
        # Weights need no more than a few hundredths of a nat, at a third of the cost.
        model, prior = copy.deepcopy(self.denoiser_).float(), copy.deepcopy(self.prior_).float()
        parts = [
            self._ode_density(model, part.float(), prior, _WEIGHT_STEPS, _N_PROBES)[0]
            for part in x.split(_CHUNK)
        ]
        ratio = torch.cat(parts).double() - self._proposal.log_density(x)
        return torch.softmax(ratio.reshape(candidates.shape[:2]).cpu(), 1)
