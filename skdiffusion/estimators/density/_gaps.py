"""Missing columns of rows given the others: patterns, exact draws, resampling."""

import copy
import math

import numpy as np
import torch

from skdiffusion._device import memory_advice
from skdiffusion._random import draw_seed, normals, row_keys
from skdiffusion.diffusion.analytic.build import gaussian
from skdiffusion.diffusion.conditional import ConditionalMixture
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._rows import split_groups

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
        rows = self._rows(self._spread(codes, draw_seed(self.random_state))).cpu()
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


_N_COPIES = 3
_N_EM_STEPS, _N_ROUNDS = 20, 2


def completed_copies(rows, groups, seed):
    """Copies of rows whose gaps are filled by draws from a mixture.

    A Gaussian is fitted to the incomplete rows by expectation maximisation [1]_; then, twice,
    gaps are drawn from the conditional density, and a mixture fitted to the completed rows, which
    is stochastic expectation maximisation [2]_. The copies differ in their draws, so that what is
    trained on them sees how little is known of a gap.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Standardised rows, NaN where missing.
    groups : ndarray of shape (n_samples,)
        Group of each row.
    seed : int
        Seed of the draws.

    Returns
    -------
    rows, groups : ndarrays
        Three copies of every row, and their groups.

    References
    ----------
    .. [1] A. Dempster, N. Laird, D. Rubin, "Maximum likelihood from incomplete data via the EM
       algorithm", JRSS B 1977.
    .. [2] G. Celeux, J. Diebolt, "The SEM algorithm", Computational Statistics Quarterly 1985.
    """
    density = gaussian_of_incomplete(rows)
    for i in range(_N_ROUNDS):
        full = complete(density, rows, row_keys(rows, seed + i), 1)[:, 0]
        train, held_out = split_groups(full, groups, max(1, (groups.max() + 1) // 5), seed)
        density = _bases.fit_mixture(train, held_out, full, seed)[1]
    copies = complete(density, rows, row_keys(rows, seed + _N_ROUNDS), _N_COPIES)
    return copies.reshape(-1, rows.shape[1]), np.repeat(groups, _N_COPIES)


def gaussian_of_incomplete(rows):
    """Gaussian of rows with gaps, by expectation maximisation.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing; no column is missing altogether.

    Returns
    -------
    density : Mixture
        The Gaussian.
    """
    mean, covariance = np.nanmean(rows, axis=0), np.diag(np.nanvar(rows, axis=0))
    for _ in range(_N_EM_STEPS):
        density = gaussian(mean, covariance + 1e-6 * np.eye(len(mean)))
        full, extra = rows.copy(), np.zeros_like(covariance)
        for missing, chosen in patterns(rows):
            conditional = ConditionalMixture(density, ~missing)
            given = conditional.given(torch.as_tensor(rows[chosen][:, ~missing]))
            full[np.ix_(chosen, missing)] = given.mean().numpy()
            spread = conditional.eigenvectors[0] * conditional.eigenvalues[0]
            extra[np.ix_(missing, missing)] += (
                len(chosen) * (spread @ conditional.eigenvectors[0].T).numpy()
            )
        mean = full.mean(0)
        centred = full - mean
        covariance = (centred.T @ centred + extra) / len(rows)
    return gaussian(mean, covariance + 1e-6 * np.eye(len(mean)))


def patterns(rows):
    """Patterns of missing columns and the rows that have them; complete rows are left out.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing.

    Yields
    ------
    missing : bool ndarray of shape (n_columns,)
        The missing columns.
    chosen : int ndarray
        Numbers of the rows.
    """
    masks, which = np.unique(np.isnan(rows), axis=0, return_inverse=True)
    for i, missing in enumerate(masks):
        if missing.any():
            yield missing, np.flatnonzero(which.ravel() == i)


def conditional_draws(density, rows, keys, missing, n_draws):
    """Draws of the missing columns of rows that share one pattern.

    Parameters
    ----------
    density : Mixture
        Density of all columns, on the CPU.
    rows : tensor of shape (n_samples, n_columns)
        Rows.
    keys : int64 tensor of shape (n_samples,)
        Noise keys of the rows.
    missing : bool ndarray of shape (n_columns,)
        The missing columns.
    n_draws : int
        Number of draws.

    Returns
    -------
    draws : tensor of shape (n_samples, n_draws, n_missing)
        Draws from the exact conditional density, which depend on a row alone.
    """
    order, columns = torch.arange(n_draws), torch.arange(int(missing.sum()))
    noise = normals(keys[:, None, None], order[:, None], 0, columns, torch.float64)
    uniforms = torch.special.ndtr(normals(keys[:, None], order, 1, 0, torch.float64))
    given = ConditionalMixture(density, ~missing).given(rows[:, ~missing])
    return given.sample(uniforms, noise)


def complete(density, rows, keys, n_draws):
    """Rows with their gaps filled by draws.

    Parameters
    ----------
    density : Mixture
        Density of all columns, on the CPU.
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
    """
    completed = np.repeat(rows[:, None], n_draws, axis=1)
    for missing, chosen in patterns(rows):
        part = torch.as_tensor(rows[chosen])
        draws = conditional_draws(density, part, keys[chosen], missing, n_draws)
        completed[np.ix_(chosen, range(n_draws), missing)] = draws.numpy()
    return completed
