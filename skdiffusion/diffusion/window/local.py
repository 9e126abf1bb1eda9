"""The Gaussian of a window that slides over a series, for windows of many cells."""

import torch

from skdiffusion.diffusion.window.gaussian import Conditional, WindowGaussian, identity_on, pick


class LocalGaussian:
    """A short window Gaussian slid along a longer window.

    The window is cut into blocks; the cells of a block are conditioned on the observed cells of
    the block and of a margin on both sides, and are independent of the other blocks' given
    those. This bounds the cost for long windows and for many features.

    Parameters
    ----------
    short : WindowGaussian
        Gaussian over ``reach`` time steps.
    length, n_features : int
        Size of the long window.
    reach : int
        Number of time steps of ``short``, at most ``length``.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.window import LocalGaussian, WindowGaussian
    >>> step = torch.arange(3.0, dtype=torch.float64)
    >>> covariance = 0.9 ** (step[:, None] - step).abs()
    >>> short = WindowGaussian(torch.zeros(3, dtype=torch.float64), covariance)
    >>> base = LocalGaussian(short, length=9, n_features=1, reach=3)
    >>> observed = torch.ones(1, 9, dtype=torch.bool)
    >>> observed[0, 4] = False
    >>> given = base.condition(torch.ones(1, 9), observed)
    >>> round(float(given.mean[0, 4]), 3)
    0.994
    """

    def __init__(self, short, length, n_features, reach):
        self.short, self.length, self.n_features, self.reach = short, length, n_features, reach
        self.margin = reach // 4 if reach > 4 else (reach - 1) // 2
        self.core = reach - 2 * self.margin

    def __deepcopy__(self, memo):
        """Share the matrices: they are never changed."""
        return self

    @property
    def mean(self):
        """Mean of the short window."""
        return self.short.mean

    @property
    def covariance(self):
        """Covariance of the short window."""
        return self.short.covariance

    def map(self, function):
        """Return the same distribution with ``function`` applied to its tensors."""
        return LocalGaussian(self.short.map(function), self.length, self.n_features, self.reach)

    def condition(self, values, observed, cells=None, pad=None):
        """Condition a batch of windows; see :meth:`WindowGaussian.condition`."""
        asked = torch.zeros_like(observed)
        if cells is not None:
            count = torch.zeros(observed.shape, dtype=torch.int64, device=cells.device)
            asked = count.scatter_add(1, cells, (~pad).long()) > 0
        blocks, empty = pick(self._blocks(asked, with_margin=False))
        given = self.short.condition(
            self._blocks(values),
            self._blocks(observed),
            blocks,
            empty if cells is not None else None,
        )
        mean, sd = self._whole(given.mean), self._whole(given.sd)
        if cells is None:
            return Conditional(mean, sd, None)
        return Conditional(mean, sd, self._assemble(given.covariance, blocks, empty, cells, pad))

    def _blocks(self, x, with_margin=True):
        """Cut windows (B, P) into blocks (B * n_blocks, reach * K); beyond the ends is 0."""
        x = x.view(len(x), self.length, self.n_features)
        n_blocks = -(-self.length // self.core)
        behind = n_blocks * self.core - self.length + self.margin
        x = torch.nn.functional.pad(x, (0, 0, self.margin, behind))
        x = x.unfold(1, self.reach, self.core).transpose(2, 3)
        if not with_margin:
            inside = torch.zeros(self.reach, 1, dtype=torch.bool, device=x.device)
            inside[self.margin : self.margin + self.core] = True
            x = x & inside
        return x.flatten(0, 1).flatten(1)

    def _whole(self, blocks):
        """Put the cores of blocks together again."""
        x = blocks.unflatten(1, (self.reach, self.n_features))
        x = x[:, self.margin : self.margin + self.core]
        n_blocks = -(-self.length // self.core)
        return x.reshape(-1, n_blocks * self.core, self.n_features)[:, : self.length].flatten(1)

    def _assemble(self, covariance, blocks, empty, cells, pad):
        """Block-diagonal covariance (B, N, N) of the asked cells."""
        batch, width = cells.shape
        n_blocks = len(blocks) // batch
        number = torch.arange(len(blocks), device=cells.device)[:, None]
        shift = ((number % n_blocks) * self.core - self.margin) * self.n_features
        place = torch.zeros(
            batch, self.length * self.n_features, dtype=torch.int64, device=cells.device
        )
        order = torch.arange(width, device=cells.device).expand_as(cells)
        place = place.scatter_add(1, cells, order.masked_fill(pad, 0))
        place = place[number // n_blocks, (blocks + shift).masked_fill(empty, 0)]
        outside = empty[:, :, None] | empty[:, None]
        flat = (
            (number // n_blocks)[..., None] * width**2 + place[:, :, None] * width + place[:, None]
        )
        total = torch.zeros(batch * width**2, dtype=covariance.dtype, device=cells.device)
        total.index_add_(0, flat.flatten(), covariance.masked_fill(outside, 0.0).flatten())
        return identity_on(total.view(batch, width, width), pad)


def window_base(mean, covariance, length, n_features):
    """Gaussian of a window from its moments, or from those of a shorter window.

    Parameters
    ----------
    mean : float64 tensor of shape (n_cells,)
        Mean over ``n_cells / n_features`` time steps.
    covariance : float64 tensor of shape (n_cells, n_cells)
        Covariance.
    length, n_features : int
        Size of the window.

    Returns
    -------
    base : WindowGaussian or LocalGaussian
        The latter if ``n_cells`` is less than ``length * n_features``.
    """
    short, reach = WindowGaussian(mean, covariance), len(mean) // n_features
    return short if reach == length else LocalGaussian(short, length, n_features, reach)
