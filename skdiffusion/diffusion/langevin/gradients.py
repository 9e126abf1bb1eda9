"""Gradients of log densities, exact or estimated on some of the rows."""

import torch


def autograd(log_density, x):
    """Log density and its gradient by automatic differentiation.

    Parameters
    ----------
    log_density : callable
        ``log_density(x) -> tensor of shape (n_chains,)``, each value from its own row only.
    x : tensor of shape (n_chains, n_features)
        Points.

    Returns
    -------
    log_density : tensor of shape (n_chains,)
        Values.
    gradient : tensor of shape (n_chains, n_features)
        Gradients.
    """
    with torch.enable_grad():
        # The function may want rows that lie together in memory.
        x = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
        value = log_density(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), chains_last(gradient)


def chains_last(x):
    """Rows of ``x`` as columns in memory: sums over a few features are then sums of vectors.

    Parameters
    ----------
    x : tensor of shape (n_chains, n_features)
        Points or gradients.

    Returns
    -------
    x : tensor of the same shape
        The same numbers.
    """
    return x.T.contiguous().T


def minibatch_gradient(log_likelihood, log_prior, data, rows):
    """Gradient of a log posterior estimated on some of the data.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(x, data) -> tensor of shape (n_chains,)``, summed over the rows of
        ``data``.
    log_prior : callable
        ``log_prior(x) -> tensor of shape (n_chains,)``.
    data : tensor of shape (n_rows, ...)
        All the data.
    rows : int64 tensor of shape (batch_size,)
        Rows of the minibatch.

    Returns
    -------
    evaluate : callable
        ``evaluate(x) -> (None, gradient)``. The average of the gradient over minibatches is the
        gradient of the log posterior; the noise of the estimate widens the stationary law of
        :func:`ula` by a term of the order of the step size.
    """
    factor = len(data) / len(rows)

    def log_posterior(x):
        return log_prior(x) + factor * log_likelihood(x, data[rows])

    return lambda x: (None, autograd(log_posterior, x)[1])
