"""Wide series: state spaces of groups of columns that go together.

The cost of a state space is the cube of its columns, and its transition has their square of
numbers to learn. Wide series are therefore divided into groups of columns that are most
correlated; each group is modelled together with those columns outside it that say most of it.
Every column is filled by the one group it belongs to, and the draws of two groups depend on each
other only through what is observed.
"""

from dataclasses import dataclass, replace

import torch

from skdiffusion.diffusion.statespace.base import SeriesGaussian

# Columns of a group, and columns outside it that are modelled with it. With 207 columns this is a
# twentieth of the cost of all at once.
_OWN, _NEIGHBOURS = 24, 12
# Groups draw from noises of their own: more than the kinds of noise of one.
_KINDS = 8


@dataclass(frozen=True)
class Group:
    """Columns that are modelled together.

    Attributes
    ----------
    own : int64 tensor of shape (n_own,)
        Rising numbers of the columns that the group fills.
    neighbours : int64 tensor of shape (n_neighbours,)
        Of those that it only reads.
    """

    own: torch.Tensor
    neighbours: torch.Tensor

    @property
    def columns(self):
        """All columns of the group, its own ones first."""
        return torch.cat([self.own, self.neighbours])


def group_columns(values, observed):
    """Divide columns into groups by their correlations.

    Parameters
    ----------
    values : tensor of shape (n_rows, K)
        Standardised values, 0 where unobserved.
    observed : bool tensor of shape (n_rows, K)
        Which are known.

    Returns
    -------
    groups : list of Group
        Every column is the own one of exactly one group.
    """
    seen = observed.double()
    x = values.double() * seen
    shared = (seen.T @ seen).clamp(min=1)
    size = (x.square().T @ seen / shared).sqrt().clamp(min=1e-6)
    # Pairs that are rarely seen together say little.
    strength = (x.T @ x / shared / (size * size.T)).abs() * (shared / (shared + 30))
    strength.fill_diagonal_(0.0)
    left = torch.ones(len(strength), dtype=torch.bool)
    groups = []
    while bool(left.any()):
        among = strength.masked_fill(~left, 0.0)
        first = among.sum(1).masked_fill(~left, -1.0).argmax()
        order = among[first].masked_fill(~left, -1.0)
        order[first] = torch.inf
        own = order.topk(min(_OWN, int(left.sum()))).indices.sort().values
        left[own] = False
        reach = strength[own].amax(0)
        reach[own] = -1.0
        n_neighbours = min(_NEIGHBOURS, len(reach) - len(own))
        groups.append(Group(own, reach.topk(n_neighbours).indices))
    return groups


@dataclass(frozen=True)
class GroupedGaussian:
    """Gaussian over all cells of wide series, by groups of columns.

    Attributes
    ----------
    groups : list of Group
        Which columns go together.
    parts : list of SeriesGaussian
        What each group says.
    """

    groups: list
    parts: list

    #: As those of :class:`SeriesGaussian`; there is no network for wide series to train.
    direct, causal, margin, repeats = True, True, 0, 1

    def __deepcopy__(self, memo):
        """Share the tensors: they are never changed."""
        return self

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        groups = [Group(function(g.own), function(g.neighbours)) for g in self.groups]
        return GroupedGaussian(groups, [part.map(function) for part in self.parts])

    def arrays(self):
        """Return a dict of tensors from which :meth:`from_arrays` rebuilds the Gaussian."""
        found = {}
        for i, (group, part) in enumerate(zip(self.groups, self.parts)):
            arrays = {"own": group.own, "neighbours": group.neighbours, **part.arrays()}
            found.update({f"{i}.{name}": x for name, x in arrays.items()})
        return found

    @classmethod
    def from_arrays(cls, **arrays):
        """Rebuild what :meth:`arrays` took apart."""
        split = {}
        for key, x in arrays.items():
            i, name = key.split(".")
            split.setdefault(int(i), {})[name] = x
        kept = [split[i] for i in range(len(split))]
        groups = [Group(part.pop("own"), part.pop("neighbours")) for part in kept]
        return cls(groups, [SeriesGaussian.from_arrays(**part) for part in kept])

    @property
    def n_features(self):
        """Number of columns."""
        return sum(len(group.own) for group in self.groups)

    @property
    def forgotten(self):
        """Rows after which nothing is left of where a piece of a series began."""
        return max(part.forgotten for part in self.parts)

    def plain(self):
        """The same with normal errors."""
        return replace(self, parts=[part.plain() for part in self.parts])

    def moments(self, series):
        """Mean and deviation of every cell; see :meth:`.base.SeriesGaussian.moments`."""
        found = torch.zeros((2, *series.values.shape), device=series.values.device)
        for group, part in zip(self.groups, self.parts):
            moments = torch.stack(part.moments(_columns(series, group)))
            found[..., group.own] = moments[..., : len(group.own)]
        return tuple(found)

    def draw(self, series, normals, n_draws, past=False):
        """Draw the wanted cells of series; see :meth:`.base.SeriesGaussian.draw`."""
        out = series.values.new_empty((n_draws, int(series.wanted.sum())))
        column = torch.nonzero(series.wanted)[:, 1]
        for i, (group, part) in enumerate(zip(self.groups, self.parts)):
            chosen = torch.isin(column, group.own)
            if bool(chosen.any()):
                own, noise = _columns(series, group), _apart(normals, i)
                out[:, chosen] = part.draw(own, noise, n_draws, past)
        return out


def _columns(series, group):
    """The columns of a group, of which its own ones are wanted."""
    wanted = series.wanted[:, group.columns].clone()
    wanted[:, len(group.own) :] = False
    values, observed = series.values[:, group.columns], series.observed[:, group.columns]
    return replace(series, values=values, observed=observed, wanted=wanted)


def _apart(normals, i):
    """The noise of group ``i``."""
    return lambda number, place, kind, size: normals(number, place, kind + _KINDS * i, size)
