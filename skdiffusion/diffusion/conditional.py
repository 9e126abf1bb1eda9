"""Mixtures given a condition, in closed form.

Letters. The features split into ``o``, whose values are given, and ``u``, whose density is wanted.
Given ``x_o``, the component ``k`` of a Gaussian mixture has

* the weight ``w_k N(x_o; m_ko, C_koo)``, up to a common factor,
* the mean ``m_ku + G_k (x_o - m_ko)`` with the gain ``G_k = C_kuo C_koo^{-1}``,
* the covariance ``C_kuu - G_k C_kou``, the same for every ``x_o``.

So the conditional of a mixture is a mixture whose weights and means differ from row to row, and all
that :mod:`.analytic` says of noisy versions holds for it. With ``u`` the data and ``o`` a target
this is the base of a conditional model; with ``u`` the missing columns and ``o`` the observed ones
it completes rows. For class labels nothing is to be computed: each class has its own mixture.

Where a regression tells the location ``m(c)`` and scale ``s(c)`` of the data given a condition
``c``, a mixture of ``u = (x - m(c)) / s(c)`` with weights ``w_k``, means ``m_k`` and covariances
``C_k`` gives ``x`` the same weights, the means ``m(c) + s(c) m_k`` and the covariances
``s(c)**2 C_k``.
"""

import torch
from torch import nn

from skdiffusion.diffusion.analytic.build import from_arrays, marginal
from skdiffusion.diffusion.analytic.kinds import FreeMixture, RowMixture


class ConditionalMixture(nn.Module):
    """Gaussian mixture of some features given the others.

    Parameters
    ----------
    joint : Mixture
        Mixture of all features.
    observed : bool array-like of shape (n_features,)
        The features that are given, at least one and not all.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import ConditionalMixture
    >>> joint = gaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    >>> density = ConditionalMixture(joint, [False, True])
    >>> given = density.given(torch.tensor([[1.0]], dtype=torch.float64))
    >>> given.mean()
    tensor([[0.8000]], dtype=torch.float64)
    """

    def __init__(self, joint, observed):
        super().__init__()
        observed = torch.as_tensor(observed)
        covariances = joint.covariances()
        cross = covariances[:, ~observed][:, :, observed]
        root = torch.linalg.cholesky(covariances[:, observed][:, :, observed])
        gain = torch.cholesky_solve(cross.transpose(1, 2), root).transpose(1, 2)
        inner = covariances[:, ~observed][:, :, ~observed] - gain @ cross.transpose(1, 2)
        eigenvalues, eigenvectors = torch.linalg.eigh(inner)
        self.joint, self.marginal = joint, marginal(joint, ~observed)
        means = joint.means
        self.register_buffer("observed", observed)
        self.register_buffer("given_means", means[:, observed])
        self.register_buffer("other_means", means[:, ~observed])
        self.register_buffer("root", root)
        self.register_buffer("gain", gain)
        self.register_buffer("eigenvalues", eigenvalues.clamp_min(0.0))
        self.register_buffer("eigenvectors", eigenvectors)

    def given(self, condition=None):
        """Density of the other features given values of the observed ones.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_observed or more), optional
            One condition a row; further columns are ignored. None returns the marginal density.

        Returns
        -------
        density : Mixture
            Its methods take points of shape (n_samples, n_others), in the order of the conditions.
        """
        if condition is None:
            return self.marginal
        condition = condition[:, None, : self.given_means.shape[1]]
        residual = condition - self.given_means
        white = torch.linalg.solve_triangular(self.root, residual.permute(1, 2, 0), upper=False)
        logdet = self.root.diagonal(dim1=1, dim2=2).log().sum(1)
        logits = self.joint.log_weights - 0.5 * white.square().sum(1).T - logdet
        shift = (self.gain @ residual.permute(1, 2, 0)).permute(2, 0, 1)
        log_weights = torch.log_softmax(logits, 1)
        return RowMixture(
            log_weights, self.other_means + shift, self.eigenvalues, self.eigenvectors
        )

    def arrays(self):
        """Return what :func:`rebuild` needs.

        Returns
        -------
        arrays : dict of str to tensor or None
            The arrays of the joint mixture and the mask of the given features.
        """
        return self.joint.arrays() | {"observed": self.observed}


class LocatedMixture(nn.Module):
    """Mixture that the condition moves and stretches.

    Parameters
    ----------
    shape : Mixture
        Density of the data minus location, divided by scale.
    marginal : Mixture
        Density of the data without a condition.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import LocatedMixture
    >>> unit = gaussian([0.0], [[1.0]])
    >>> density = LocatedMixture(unit, unit).given(torch.tensor([[3.0, 0.0]]).double())
    >>> density.log_density(torch.tensor([[3.0]]).double())
    tensor([-0.9189], dtype=torch.float64)
    """

    def __init__(self, shape, marginal):
        super().__init__()
        self.shape, self.marginal = shape, marginal
        eigenvalues, eigenvectors = torch.linalg.eigh(shape.covariances())
        self.register_buffer("eigenvalues", eigenvalues.clamp_min(0.0))
        self.register_buffer("eigenvectors", eigenvectors)
        self.register_buffer("means", shape.means)

    def given(self, condition=None):
        """Density at the location and scale of each row.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_features + 1 or more), optional
            The last columns are the location and the logarithm of the scale; columns before them
            are ignored. None returns the marginal density.

        Returns
        -------
        density : Mixture
            Its methods take points of shape (n_samples, n_features), one for each condition.
        """
        if condition is None:
            return self.marginal
        location = condition[:, None, -1 - self.means.shape[1] : -1]
        scale = condition[:, None, -1:].exp()
        return RowMixture(
            self.shape.log_weights.expand(len(condition), -1),
            location + scale * self.means,
            scale.square() * self.eigenvalues,
            self.eigenvectors,
        )

    def arrays(self):
        """Return what :func:`rebuild` needs.

        Returns
        -------
        arrays : dict of str to tensor or None
            The arrays of the shape, and those of the marginal with a prefix.
        """
        marginal = {f"marginal_{name}": value for name, value in self.marginal.arrays().items()}
        return self.shape.arrays() | marginal


class LabelledMixture(nn.Module):
    """One Gaussian mixture for each class.

    Parameters
    ----------
    marginal : Mixture
        The components of all classes, weighted by the shares of the classes.
    log_weights : tensor of shape (n_classes, n_components)
        Weights of the components in each class, minus infinity for those of other classes.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import labelled_mixture
    >>> density = labelled_mixture([gaussian([0.0], [[1.0]]), gaussian([5.0], [[1.0]])], [0.5, 0.5])
    >>> density.given(torch.tensor([[0.0, 1.0]])).mean()
    tensor([[5.]], dtype=torch.float64)
    """

    def __init__(self, marginal, log_weights):
        super().__init__()
        self.marginal = marginal
        self.register_buffer("class_log_weights", log_weights)

    def given(self, condition=None):
        """Density given a class.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_classes), optional
            Classes, one-hot; None returns the density of all classes together.

        Returns
        -------
        density : Mixture
            Its methods take points of shape (n_samples, n_features), in the order of the classes.
        """
        if condition is None:
            return self.marginal
        weights = self.class_log_weights[condition.argmax(1)]
        means = self.marginal.means[None]
        return RowMixture(weights, means, self.marginal.eigenvalues, self.marginal.eigenvectors)

    def arrays(self):
        """Return what :func:`rebuild` needs.

        Returns
        -------
        arrays : dict of str to tensor or None
            The arrays of the mixture of all classes, and the weights within each class.
        """
        return self.marginal.arrays() | {"class_log_weights": self.class_log_weights}


def labelled_mixture(densities, shares):
    """Join one mixture for each class.

    Parameters
    ----------
    densities : list of Mixture
        The density of each class.
    shares : array-like of shape (n_classes,)
        Shares of the classes; they are normalised.

    Returns
    -------
    density : LabelledMixture
        The density given a class, in float64.

    Examples
    --------
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import labelled_mixture
    >>> labelled_mixture([gaussian([0.0], [[1.0]])] * 2, [1, 3]).marginal.log_weights.exp()
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    shares = torch.as_tensor(shares, dtype=torch.float64)
    weights = torch.block_diag(*(density.log_weights.exp()[None] for density in densities))
    means = torch.cat([density.means for density in densities])
    covariances = torch.cat(
        [density.covariances().expand(density.n_components, -1, -1) for density in densities]
    )
    eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
    total = (shares / shares.sum()) @ weights
    joined = FreeMixture(total, means, eigenvalues.clamp_min(0.0), eigenvectors)
    return LabelledMixture(joined, weights.log())


def rebuild(observed=None, class_log_weights=None, exact=None, **arrays):
    """Rebuild a density from its ``arrays()``, conditional or not.

    Parameters
    ----------
    observed : bool array-like of shape (n_features,), optional
        Mask of a :class:`ConditionalMixture`.
    class_log_weights : array-like of shape (n_classes, n_components), optional
        Weights of a :class:`LabelledMixture`.
    exact : dict of str to array-like, optional
        Buffers that are restored bit for bit, from :func:`density_arrays`.
    **arrays
        Arrays of the mixture itself, see :func:`skdiffusion.diffusion.analytic.from_arrays`; with
        the prefix ``marginal_`` those of the marginal of a :class:`LocatedMixture`.

    Returns
    -------
    density : Mixture, ConditionalMixture, LabelledMixture or LocatedMixture
        The density, in float64.

    Examples
    --------
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.conditional import rebuild
    >>> rebuild(**gaussian([0.0], [[1.0]]).arrays()).n_features
    1
    """
    density = _rebuilt(observed, class_log_weights, arrays)
    if exact is not None:
        density.load_state_dict({n: torch.as_tensor(x) for n, x in exact.items()}, strict=False)
    return density


def _rebuilt(observed, class_log_weights, arrays):
    """A density from its ``arrays()``, up to rounding."""
    marginal = {
        name.removeprefix("marginal_"): arrays.pop(name)
        for name in list(arrays)
        if name.startswith("marginal_")
    }
    density = from_arrays(**arrays)
    if marginal:
        return LocatedMixture(density, from_arrays(**marginal))
    if observed is not None:
        return ConditionalMixture(density, torch.as_tensor(observed))
    if class_log_weights is not None:
        weights = torch.as_tensor(class_log_weights, dtype=torch.float64)
        return LabelledMixture(density, weights)
    return density


def copied(density):
    """An independent copy of a density in closed form, conditional or not."""
    return rebuild(**density.arrays())


def density_arrays(density):
    """Arrays of a density in closed form as numpy, from which it is rebuilt bit for bit."""
    arrays = density.arrays()
    # Weights and means are rounded on their way; all else follows from the arrays as it was.
    rounded = rebuild(**arrays).state_dict()
    buffers = density.state_dict().items()
    exact = {name: x for name, x in buffers if not torch.equal(x, rounded[name].to(x.device))}
    return numpy_arrays(arrays) | {"exact": numpy_arrays(exact)}


def numpy_arrays(tensors):
    """Named tensors as numpy arrays; None stays None."""
    return {n: None if value is None else value.cpu().numpy() for n, value in tensors.items()}
