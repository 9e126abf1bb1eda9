"""Missing columns given the others: sampling-importance-resampling on top of a closed form."""

import copy
import math

import numpy as np
import torch

from skdiffusion._arrays import memory_advice
from skdiffusion._random import draw_seed, normals
from skdiffusion.estimators._training_rows import conditional_draws, patterns

# Runge-Kutta steps for the weights of candidates, candidates at once.
_WEIGHT_STEPS, _CHUNK = 12, 2000
# Share of the candidates that is weighed first, and that of them that must count to be enough.
_FIRST_SHARE, _ENOUGH = 0.4, 0.5


class RowCompleter:
    """Part of ScoreSDE that draws the missing columns of rows."""

    @memory_advice("Too little memory to draw: lower n_draws or pass fewer rows of X in a call.")
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
        weights = torch.softmax(self._log_weights(full), 1)
        start = torch.special.ndtr(normals(keys, 0, 2, 0, torch.float64))
        cumulative = weights.cumsum(1)
        steps = (start + torch.arange(n_draws)) / n_draws * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, steps)
        # Systematic resampling leaves the draws in the order of the candidates.
        shuffled = normals(keys, torch.arange(n_draws), 3, 0).argsort(1)
        chosen = chosen.gather(1, shuffled)
        draws = draws.gather(1, chosen[:, :, None].expand(-1, -1, draws.shape[2]))
        return draws, _effective_size(weights).numpy()

    def _log_weights(self, candidates):
        """Log-weights of each row's candidates, minus infinity for those that are not needed.

        Where the base describes a row well, a part of the candidates is as good as all.
        """
        first = math.ceil(_FIRST_SHARE * candidates.shape[1])
        log_weights = torch.full(candidates.shape[:2], -math.inf, dtype=torch.float64)
        log_weights[:, :first] = self._log_ratios(candidates[:, :first])
        sizes = _effective_size(torch.softmax(log_weights[:, :first], 1))
        poor = sizes < _ENOUGH * first
        if poor.any():
            log_weights[poor, first:] = self._log_ratios(candidates[poor, first:])
        return log_weights

    def _log_ratios(self, candidates):
        """Log-density of the model over that of the proposal, one for each candidate."""
        # Weights need no more than a few hundredths of a nat, at a third of the cost.
        model = copy.deepcopy(self.denoiser_).float()
        unit = self.base_.startswith("unit")
        proposal = copy.deepcopy(self._proposal).float() if unit else None
        parts = [
            self._log_ratio(model, x, _WEIGHT_STEPS, self._probes(x), reference=proposal)
            for x in self._tensor(candidates.flatten(0, 1)).float().split(_CHUNK)
        ]
        return torch.cat(parts).double().reshape(candidates.shape[:2]).cpu()


def _effective_size(weights):
    """Effective number of candidates behind normalised weights."""
    return 1 / weights.square().sum(1)
