r"""Rows with gaps under a model: draws of what is missing, and the density of what is there.

Letters. A row splits into ``o``, what is observed, and ``u``, what is missing. Candidates of ``u``
come from a density ``q(u | o)`` that is known, and count by their weights

    w = p(o, u) / q(u | o) ,      E_q[w] = p(o) :

in proportion to them candidates are draws from the model [1]_, and their mean estimates the
marginal density of what is observed without bias.

Without a chain ``q`` is the conditional density of a Gaussian mixture. Where the model is that
mixture alone, weights are constant, and both answers exact. A chain draws ``u`` column after column
from its own factors, which is exact where all that is missing comes last, and blind to columns that
come later; the mixture looks both ways, and is blunt. So half of the candidates come from each, and
``q`` is the average of the two [2]_.

References
----------
.. [1] D. Rubin, "The calculation of posterior distributions by data augmentation: comment", JASA
   1987.
.. [2] E. Veach, L. Guibas, "Optimally combining sampling techniques for Monte Carlo rendering",
   SIGGRAPH 1995: the balance heuristic, https://doi.org/10.1145/218380.218498.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skdiffusion._random import normals
from skdiffusion.diffusion.analytic.build import marginal
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators.density._gaps import (
    conditional_draws,
    effective_size,
    log_ratios,
    log_weights,
    patterns,
    resampled,
)

# Candidates for each draw, and for each row at least, where they are weighed; for a chain.
_PER_DRAW, _FEWEST, _FEWEST_OF_CHAIN = 5, 100, 400
# Numbers of a batch of rows: float64 arrays of some 100 MB.
_MAX_NUMBERS = 10**7
# Rows whose densities are evaluated at once.
_CHUNK = 2000
# Number of the stream of the noise of a chain; conditional_draws has 0 and 1, _gaps 2 and 3.
_OF_CHAIN = 4


@dataclass(frozen=True)
class Completion:
    """Completes rows by draws from a model.

    Parameters
    ----------
    model : DensityModel
        The model, without condition.
    chain : Chain or None
        Map of the rows to those of the model.
    proposal : Mixture or None
        Mixture of the rows; None takes the base of the model.
    """

    model: DensityModel
    chain: Any
    proposal: Any

    def draw(self, rows, keys, n_draws):
        """Rows with their gaps filled by draws.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_columns)
            Rows, NaN where missing.
        keys : int64 tensor of shape (n_samples,)
            Noise keys of the rows.
        n_draws : int
            Number of draws.

        Returns
        -------
        completed : ndarray of shape (n_samples, n_draws, n_columns)
            Completed rows.
        sizes : ndarray of shape (n_samples,)
            Effective number of candidates behind the draws of each row; infinite where they are
            exact.
        """
        completed, sizes = np.repeat(rows[:, None], n_draws, axis=1), np.full(len(rows), np.inf)
        for missing, part in self._parts(rows, n_draws):
            given = torch.as_tensor(rows[part])
            if self._is_exact(missing):
                draws = self._exact_draws(given, keys[part], missing, n_draws)
            else:
                draws, values = self._candidates(given, keys[part], missing, n_draws)
                weights = torch.softmax(values, 1)
                draws = resampled(draws, weights, keys[part][:, None], n_draws)
                sizes[part] = effective_size(weights).numpy()
            completed[np.ix_(part, range(n_draws), missing)] = draws.numpy()
        return completed, sizes

    def log_density(self, rows, keys):
        """Log-density of what is observed of rows with gaps.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_columns)
            Rows, NaN where missing.
        keys : int64 tensor of shape (n_samples,)
            Noise keys of the rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Marginal log-densities, 0 for a row without any value; exact for a mixture alone, else
            by the mean weight of candidates.
        """
        values = np.zeros(len(rows))
        for missing, part in self._parts(rows, 1):
            given = torch.as_tensor(rows[part])
            if missing.all():
                continue
            if self.chain is None and self.model.denoiser.network is None:
                values[part] = _marginal_log_density(self._mixture(), given, missing)
                continue
            weights = self._candidates(given, keys[part], missing, 1)[1]
            counted = weights.isfinite().sum(1)
            values[part] = (torch.logsumexp(weights, 1) - counted.log()).numpy()
        return values

    def _parts(self, rows, n_draws):
        """Rows that share a pattern, few enough to be drawn at once."""
        mixture = self.model.base if self.proposal is None else self.proposal
        n_numbers = max(mixture.n_components, self._n_candidates(n_draws)) * rows.shape[1]
        at_once = max(1, _MAX_NUMBERS // n_numbers)
        for missing, chosen in patterns(rows):
            for part in np.array_split(chosen, math.ceil(len(chosen) / at_once)):
                yield missing, part

    def _mixture(self):
        """Mixture that looks both ways, on the CPU."""
        mixture = self.model.base if self.proposal is None else self.proposal
        return copy.deepcopy(mixture).cpu()

    def _is_exact(self, missing):
        """Whether draws of missing columns need no weights."""
        if self.model.denoiser.network is not None:
            return False
        return self.chain is None or not (np.diff(missing[self.chain.order].astype(int)) < 0).any()

    def _n_candidates(self, n_draws):
        """Number of candidates for each row."""
        fewest = _FEWEST if self.chain is None else _FEWEST_OF_CHAIN
        return max(fewest, _PER_DRAW * n_draws)

    def _exact_draws(self, given, keys, missing, n_draws):
        """Draws of the missing columns that need no weights."""
        if self.chain is None:
            return conditional_draws(self._mixture(), given, keys, missing, n_draws)
        return self._chain_draws(given, keys, n_draws)[:, :, missing]

    def _chain_draws(self, given, keys, n_draws):
        """Rows completed in the order of the chain, by its own factors."""
        draws, columns = torch.arange(n_draws), torch.arange(given.shape[1])
        scores = normals(keys[:, None, None], draws[:, None], _OF_CHAIN, columns, torch.float64)
        repeated = given[:, None].expand(-1, n_draws, -1)
        return self.chain.completed(repeated.flatten(0, 1), scores.flatten(0, 1)).reshape(
            len(given), n_draws, -1
        )

    def _candidates(self, given, keys, missing, n_draws):
        """Candidates of the missing columns and their log-weights, minus infinity if not needed."""
        n, mixture = self._n_candidates(n_draws), self._mixture()
        if self.chain is None:
            draws = conditional_draws(mixture, given, keys, missing, n)
            full = _filled(given, draws, missing)
            values = log_weights(self.model, self.proposal, full)
            return draws, values + _marginal_log_density(mixture, given, missing)[:, None]
        draws = conditional_draws(mixture, given, keys, missing, n // 2)
        full = torch.cat(
            [_filled(given, draws, missing), self._chain_draws(given, keys, n - n // 2)], 1
        )
        return full[:, :, missing], self._chain_weights(mixture, given, full, missing)

    def _chain_weights(self, mixture, given, full, missing):
        """Log-weights of candidates, half from a mixture and half from the chain."""
        flat = full.flatten(0, 1)
        factors = self.chain.log_factors(flat).reshape(full.shape)
        by_mixture = torch.cat([mixture.log_density(part) for part in flat.split(_CHUNK)])
        by_mixture = by_mixture.reshape(full.shape[:2])
        by_mixture = by_mixture - _marginal_log_density(mixture, given, missing)[:, None]
        by_chain = factors[:, :, torch.as_tensor(missing)].sum(2)
        values = factors.sum(2) - torch.logaddexp(by_mixture, by_chain) + math.log(2)
        if self.model.denoiser.network is None:
            return values
        scores = torch.as_tensor(self.chain.forward(flat.numpy())[0]).reshape(full.shape)
        return values + log_ratios(self.model, None, scores)


def _filled(given, draws, missing):
    """Rows with the draws of their missing columns."""
    full = given[:, None].repeat(1, draws.shape[1], 1)
    full[:, :, torch.as_tensor(missing)] = draws
    return full


def _marginal_log_density(mixture, given, missing):
    """Log-density of the observed columns of rows that share a pattern under a mixture."""
    kept = ~torch.as_tensor(missing)
    if not kept.any():
        return torch.zeros(len(given), dtype=torch.float64)
    return marginal(mixture, kept).log_density(given[:, kept], 0.0)
