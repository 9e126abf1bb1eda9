"""Diagnostics of Markov chains."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.stats import norm, rankdata


def r_hat(draws):
    r"""Rank-normalised split R-hat of Markov chains.

    Parameters
    ----------
    draws : array-like of shape (n_chains, n_draws) or (n_chains, n_draws, n_features)
        At least four draws of each chain.

    Returns
    -------
    r_hat : float or ndarray of shape (n_features,)
        1 where chains agree; above 1.01 they need more steps. It sees only what the chains saw:
        chains that all miss the same mode agree. Infinite where chains stand still at several
        places, NaN where all stand still at one.

    See Also
    --------
    nested_r_hat : For many short chains.

    Notes
    -----
    Chains are split in half, values replaced by normal scores of their ranks, and
    :math:`\hat R = \sqrt{((n - 1) W / n + B / n) / W}` computed from the variance within and
    between half-chains; the larger of that and the same of the values folded about their median
    is returned, so that chains of different spread are seen, too [1]_.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, "Rank-normalization,
       folding, and localization: an improved R-hat", Bayesian Analysis 2021,
       https://doi.org/10.1214/20-BA1221.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import r_hat
    >>> rng = np.random.default_rng(0)
    >>> draws = rng.normal(size=(4, 1000))
    >>> bool(r_hat(draws) < 1.01)
    True
    >>> draws[0] += 1
    >>> bool(r_hat(draws) > 1.05)
    True
    """
    return _each_feature(draws, _r_hat)


def nested_r_hat(draws, superchains):
    r"""Rank-normalised nested R-hat of many short chains.

    Parameters
    ----------
    draws : array-like of shape (n_chains, n_draws) or (n_chains, n_draws, n_features)
        Draws; one of each chain is enough.
    superchains : array-like of shape (n_chains,)
        Label of the group of each chain. The chains of a superchain start at the same place, or
        at one kind of start; at least two groups, all of one size.

    Returns
    -------
    nested_r_hat : float or ndarray of shape (n_features,)
        1 where the groups agree.

    Notes
    -----
    With the variance :math:`B` of the means of superchains and the mean over superchains
    :math:`W` of the variance between their chains plus that within their chains, it is
    :math:`\sqrt{1 + B / W}` [1]_. With :math:`m` independent chains a superchain it
    is about :math:`1 + 1 / (2 m)` for perfect chains. As in :func:`r_hat` the larger one of the
    values for location and for spread is returned.

    References
    ----------
    .. [1] C. Margossian et al., "Nested R-hat: assessing the convergence of Markov chain Monte
       Carlo when running many short chains", Bayesian Analysis 2024,
       https://arxiv.org/abs/2110.13017.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import nested_r_hat
    >>> draws = np.random.default_rng(0).normal(size=(200, 1))
    >>> groups = np.repeat([0, 1], 100)
    >>> bool(nested_r_hat(draws, groups) < 1.05)
    True
    >>> bool(nested_r_hat(draws + 3 * groups[:, None], groups) > 1.5)
    True
    """
    labels, group = np.unique(np.asarray(superchains), return_inverse=True)
    sizes = np.bincount(group)
    if len(labels) < 2 or (sizes != sizes[0]).any():
        raise ValueError(
            f"superchains must name at least two groups of one size, got sizes {sizes.tolist()}"
        )
    order = np.argsort(group, kind="stable")

    def one(values):
        if len(values) != len(group):
            raise ValueError(f"superchains has {len(group)} labels for {len(values)} chains")
        values = values[order].reshape(len(labels), sizes[0], -1)
        folded = np.abs(values - np.median(values))
        return np.fmax(*(_plain_nested_r_hat(_normal_scores(v)) for v in (values, folded)))

    return _each_feature(draws, one, n_least=1)


def effective_sample_size(draws, kind="bulk"):
    r"""Effective number of independent draws in Markov chains.

    Parameters
    ----------
    draws : array-like of shape (n_chains, n_draws) or (n_chains, n_draws, n_features)
        At least four draws of each chain.
    kind : {"bulk", "tail", "mean"}, default="bulk"
        "bulk" after rank normalisation, good for location; "tail" the smaller one of the
        indicators of the 5 % and 95 % quantiles; "mean" of the values as they are.

    Returns
    -------
    effective_sample_size : float or ndarray of shape (n_features,)
        Between 0 and, for chains that alternate, more than the number of draws; NaN where no
        chain ever moves and all are at one place.

    Notes
    -----
    ``n_chains * n_draws / tau`` over split chains, with the autocorrelation time
    :math:`\tau = -1 + 2 \sum_k (\rho_{2k} + \rho_{2k+1})`, the pairs summed while positive and
    made to fall (Geyer's initial monotone sequence), and autocorrelations that count the
    differences between chains [1]_.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, "Rank-normalization,
       folding, and localization: an improved R-hat", Bayesian Analysis 2021,
       https://doi.org/10.1214/20-BA1221.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import effective_sample_size
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3500 < effective_sample_size(draws) < 4500)
    True
    """
    if kind == "bulk":
        return _each_feature(draws, lambda values: _ess(_normal_scores(_split(values))))
    if kind == "mean":
        return _each_feature(draws, lambda values: _ess(_split(values)))
    if kind == "tail":
        return _each_feature(draws, _tail_ess)
    raise ValueError(f"kind must be 'bulk', 'tail' or 'mean', got {kind!r}")


def _each_feature(draws, statistic, n_least=4):
    """Apply a statistic of (n_chains, n_draws) to every feature."""
    draws = np.asarray(draws, dtype=float)
    if draws.ndim not in (2, 3) or draws.shape[1] < n_least or 0 in draws.shape:
        raise ValueError(
            f"draws must have shape (n_chains, n_draws) or (n_chains, n_draws, n_features) with "
            f"at least {n_least} draws, got {draws.shape}"
        )
    if not np.isfinite(draws).all():
        raise ValueError("draws contains NaN or infinity: remove the chains that diverged")
    if draws.ndim == 2:
        return float(statistic(draws))
    return np.array([statistic(draws[:, :, k]) for k in range(draws.shape[2])])


def _split(values):
    """First and last halves of every chain as chains of their own."""
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, -half:]])


def _normal_scores(values):
    """Normal scores of the ranks over all chains."""
    ranks = rankdata(values, method="average").reshape(values.shape)
    return norm.ppf((ranks - 0.375) / (values.size + 0.25))


def _r_hat(values):
    """Larger one of the R-hat of location and of spread."""
    halves = _split(values)
    folded = np.abs(halves - np.median(halves))
    return np.fmax(*(_plain_r_hat(_normal_scores(v)) for v in (halves, folded)))


def _plain_r_hat(values):
    """R-hat of Gelman and Rubin."""
    n_draws = values.shape[1]
    within, between = values.var(1, ddof=1).mean(), values.mean(1).var(ddof=1)
    if within == 0:
        return np.inf if between > 0 else np.nan
    return np.sqrt((n_draws - 1) / n_draws + between / within)


def _plain_nested_r_hat(values):
    """Nested R-hat of values of shape (n_superchains, n_chains, n_draws)."""
    means = values.mean(2)
    within = values.var(2, ddof=1).mean(1) if values.shape[2] > 1 else 0.0
    between = means.var(1, ddof=1) if values.shape[1] > 1 else 0.0
    total = float(np.mean(within + between))
    apart = means.mean(1).var(ddof=1)
    if total == 0:
        return np.inf if apart > 0 else np.nan
    return np.sqrt(1 + apart / total)


def _tail_ess(values):
    """Smaller effective sample size of the two tails."""
    low, high = np.quantile(values, [0.05, 0.95])
    return min(_ess(_split((values <= q).astype(float))) for q in (low, high))


def _ess(values):
    """Effective sample size of chains that are already split."""
    n_chains, n_draws = values.shape
    if np.ptp(values) < 1e-300:
        return np.nan
    covariance = _autocovariance(values).mean(0)
    within = covariance[0] * n_draws / (n_draws - 1)
    total = covariance[0] + (values.mean(1).var(ddof=1) if n_chains > 1 else 0.0)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    n_pairs = max((n_draws - 1) // 2, 1)
    pairs = rho[: 2 * n_pairs].reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs <= 0)
    last = negative[0] if len(negative) else len(pairs) - 1
    time = -1 + 2 * np.minimum.accumulate(pairs[:last]).sum() + max(rho[2 * last], 0.0)
    return values.size / max(time, 1 / np.log10(values.size))


def _autocovariance(values):
    """Autocovariances of every chain at all lags, divided by the number of draws."""
    n_draws = values.shape[1]
    size = next_fast_len(2 * n_draws, real=True)
    spectrum = rfft(values - values.mean(1, keepdims=True), size, axis=1)
    return irfft(np.abs(spectrum) ** 2, size, axis=1)[:, :n_draws] / n_draws
