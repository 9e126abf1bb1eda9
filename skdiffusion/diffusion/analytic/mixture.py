"""Gaussian mixtures by their parameters; what noise makes of them is in :mod:`.noisy`."""

from abc import abstractmethod

import torch

from skdiffusion.diffusion.analytic.noisy import NoisyMixture


class Mixture(NoisyMixture):
    """Gaussian mixture seen through Gaussian noise of any level.

    Built by :func:`gaussian`, :func:`gaussian_mixture` and :func:`kernel_density`. Its tensors
    are buffers, so that ``.to(device, dtype)`` and ``state_dict`` work as for any module.

    Parameters
    ----------
    weights : tensor of shape (n_components,)
        Positive weights that sum to one.
    means : tensor of shape (n_components, n_features)
        Component means.
    eigenvalues : tensor
        Eigenvalues of the component covariances.
    eigenvectors : tensor or None
        Eigenvectors in columns; None where the covariances are diagonal.

    Notes
    -----
    Means are kept around the mean of the density, where squares lose no digits.
    """

    def __init__(self, weights, means, eigenvalues, eigenvectors):
        super().__init__()
        self.register_buffer("log_weights", weights.log())
        self.register_buffer("origin", weights @ means)
        # Stored by columns: the product with the responsibilities is then four times as fast.
        self.register_buffer("centred", (means - self.origin).T.contiguous().T)
        self.register_buffer("eigenvalues", eigenvalues)
        self.register_buffer("eigenvectors", eigenvectors)

    @property
    def n_features(self):
        """Number of features."""
        return self.centred.shape[1]

    @property
    def n_components(self):
        """Number of components."""
        return len(self.log_weights)

    @property
    def means(self):
        """Means of the components, of shape (n_components, n_features)."""
        return self.centred + self.origin

    def mean(self):
        """Mean of the density.

        Returns
        -------
        mean : tensor of shape (n_features,)
            Mean.
        """
        return self.origin

    def marginals(self):
        """Density of single columns, a mixture in one dimension each.

        Returns
        -------
        weights : tensor of shape (n_components,)
            Weights of the components, the same for all columns.
        means : tensor of shape (n_components, n_features)
            Their means.
        deviations : tensor of shape (n_components, n_features)
            Their standard deviations.
        """
        variances = torch.diagonal(self.covariances(), dim1=1, dim2=2)
        means = self.means
        return self.log_weights.exp(), means, variances.sqrt().expand_as(means)

    @abstractmethod
    def covariances(self):
        """Covariances of the components.

        Returns
        -------
        covariances : tensor of shape (n_components or 1, n_features, n_features)
            Covariances; a single one where all are the same.
        """

    def sample(self, n_samples, generator):
        """Draw from the density without noise.

        Parameters
        ----------
        n_samples : int
            Number of draws.
        generator : torch.Generator
            Source of randomness, on the device of the buffers.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Independent draws.
        """
        component = torch.multinomial(
            self.log_weights.exp(), n_samples, replacement=True, generator=generator
        )
        return self.sample_components(component, generator)

    def given(self, condition=None):
        """Return the density itself, which has no condition.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_conditions), optional
            Ignored; :mod:`.conditional` has the densities that look at it.

        Returns
        -------
        density : Mixture
            This density.
        """
        return self

    def arrays(self):
        """Return what :func:`from_arrays` needs to rebuild the density.

        Returns
        -------
        arrays : dict of str to tensor or None
            Weights, means, eigenvalues and eigenvectors.
        """
        return {
            "weights": self.log_weights.exp(),
            "means": self.means,
            "eigenvalues": self.eigenvalues,
            "eigenvectors": self.eigenvectors,
        }

    def sample_components(self, component, generator):
        """Draw one point from each named component.

        Parameters
        ----------
        component : int64 tensor of shape (n_samples,)
            Components.
        generator : torch.Generator
            Source of randomness, on the device of the buffers.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Independent draws.
        """
        shape = (len(component), self.n_features)
        noise = torch.randn(
            shape, generator=generator, dtype=self.origin.dtype, device=self.origin.device
        )
        return self._colour(component, noise) + self.origin

    @abstractmethod
    def _colour(self, component, noise):
        """Centred draws from named components, of standard normals."""
