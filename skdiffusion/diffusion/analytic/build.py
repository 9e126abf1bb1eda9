"""Closed-form densities from their parameters: Gaussians, mixtures, kernel estimates, unions."""

import torch

from skdiffusion.diffusion.analytic.kinds import FreeMixture, SharedMixture


def gaussian(mean, covariance):
    """Gaussian density.

    Parameters
    ----------
    mean : array-like of shape (n_features,)
        Mean.
    covariance : array-like of shape (n_features, n_features)
        Positive semi-definite covariance.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> density = gaussian([0.0], [[1.0]])
    >>> density.denoise(torch.tensor([[1.0]], dtype=torch.float64), 1.0)
    tensor([[0.5000]], dtype=torch.float64)
    """
    return gaussian_mixture([1.0], _tensor(mean)[None], covariance, "tied")


def gaussian_mixture(weights, means, covariances, covariance_type="full"):
    """Gaussian mixture from the arrays of a fitted scikit-learn ``GaussianMixture``.

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Positive weights; they are normalised.
    means : array-like of shape (n_components, n_features)
        Component means.
    covariances : array-like
        Covariances in the shape that belongs to ``covariance_type``.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Shape (n_components, n_features, n_features), (n_features, n_features),
        (n_components, n_features) or (n_components,).

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian_mixture
    >>> density = gaussian_mixture([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0], "spherical")
    >>> z = torch.tensor([[0.0]], dtype=torch.float64)
    >>> density.log_density(z, 0.0)
    tensor([-2.9189], dtype=torch.float64)
    """
    weights, means, covariances = _tensor(weights), _tensor(means), _tensor(covariances)
    weights = weights / weights.sum()
    if covariance_type in ("full", "tied"):
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
        eigenvalues = eigenvalues.clamp_min(0.0)
        kind = SharedMixture if covariance_type == "tied" else FreeMixture
        if covariance_type == "full" and len(weights) == 1:
            kind, eigenvalues, eigenvectors = SharedMixture, eigenvalues[0], eigenvectors[0]
        return kind(weights, means, eigenvalues, eigenvectors)
    if covariance_type not in ("diag", "spherical"):
        raise ValueError(
            "covariance_type must be 'full', 'tied', 'diag' or 'spherical', "
            f"got {covariance_type!r}"
        )
    eigenvalues = covariances.reshape(len(weights), -1)
    if (eigenvalues == eigenvalues[0]).all():
        return SharedMixture(weights, means, eigenvalues[0], None)
    return FreeMixture(weights, means, eigenvalues.expand_as(means).contiguous(), None)


def kernel_density(points, bandwidth):
    """Gaussian kernel density estimate, one component on each point.

    Parameters
    ----------
    points : array-like of shape (n_points, n_features)
        Points.
    bandwidth : float
        Standard deviation of the kernel.

    Returns
    -------
    density : Mixture
        The density, in float64. Component ``i`` is point ``i``: pass row indices as
        ``leave_out`` for the leave-one-out estimate.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import kernel_density
    >>> density = kernel_density([[0.0], [1.0]], 1.0)
    >>> z = torch.tensor([[0.0]], dtype=torch.float64)
    >>> density.log_density(z, 0.0, leave_out=torch.tensor([0]))
    tensor([-1.4189], dtype=torch.float64)
    """
    points = _tensor(points)
    weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    return SharedMixture(weights, points, _tensor([float(bandwidth) ** 2]), None)


def union(weights, densities):
    """Average of mixtures, which is the mixture of all their components.

    Parameters
    ----------
    weights : array-like of shape (n_densities,)
        Positive weights; they are normalised.
    densities : sequence of Mixture
        The densities.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian, union
    >>> density = union([0.5, 0.5], [gaussian([-2.0], [[1.0]]), gaussian([2.0], [[1.0]])])
    >>> density.log_density(torch.tensor([[0.0]], dtype=torch.float64), 0.0)
    tensor([-2.9189], dtype=torch.float64)
    """
    if len(densities) == 1:
        return densities[0]
    weights = _tensor(weights) / _tensor(weights).sum()
    means, eigenvalues, eigenvectors = [], [], []
    for density in densities:
        arrays = density.arrays()
        means.append(arrays["means"])
        k, d = arrays["means"].shape
        eigenvalues.append(arrays["eigenvalues"].expand(k, d))
        basis = arrays["eigenvectors"]
        eigenvectors.append(
            (torch.eye(d).to(means[-1]) if basis is None else basis).expand(k, d, d)
        )
    diagonal = all(density.eigenvectors is None for density in densities)
    return FreeMixture(
        torch.cat([w * density.log_weights.exp() for w, density in zip(weights, densities)]),
        torch.cat(means),
        torch.cat(eigenvalues),
        None if diagonal else torch.cat(eigenvectors),
    )


def from_arrays(weights, means, eigenvalues, eigenvectors):
    """Rebuild a density from :meth:`Mixture.arrays`.

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Weights.
    means : array-like of shape (n_components, n_features)
        Means.
    eigenvalues : array-like
        Eigenvalues of the covariances.
    eigenvectors : array-like or None
        Their eigenvectors.

    Returns
    -------
    density : Mixture
        The density, in float64.

    Examples
    --------
    >>> from skdiffusion.diffusion.analytic import from_arrays, gaussian
    >>> from_arrays(**gaussian([0.0], [[1.0]]).arrays()).n_features
    1
    """
    eigenvalues = _tensor(eigenvalues)
    kind = SharedMixture if eigenvalues.ndim == 1 else FreeMixture
    eigenvectors = None if eigenvectors is None else _tensor(eigenvectors)
    return kind(_tensor(weights), _tensor(means), eigenvalues, eigenvectors)


def _tensor(values):
    """Float64 copy as a tensor."""
    return torch.as_tensor(values, dtype=torch.float64).clone()


def marginal(joint, kept):
    """Mixture of some features alone.

    Parameters
    ----------
    joint : Mixture
        Mixture of all features.
    kept : bool tensor of shape (n_features,)
        The features to keep.

    Returns
    -------
    density : Mixture
        Their marginal density.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import marginal
    >>> density = marginal(gaussian([0.0, 1.0], torch.eye(2)), torch.tensor([False, True]))
    >>> density.n_features
    1
    """
    covariances = joint.covariances()[:, kept][:, :, kept]
    means = joint.means[:, kept]
    kind = "full" if len(covariances) == joint.n_components else "tied"
    covariances = covariances if kind == "full" else covariances[0]
    return gaussian_mixture(joint.log_weights.exp(), means, covariances, kind).to(means)
