r"""Labels of series, drawn as chains given the completed rows.

In a table the other columns of its row tell a label; in a series the labels before and after it do,
too. With the matrix :math:`A` of transitions from one step to the next, shares :math:`\pi` of the
categories, and the probabilities :math:`q_t` that a classifier gives for the other columns of row
t and the time of the clock, all gaps of a label are drawn together from

.. math:: p(s) \propto \prod_t A(s_{t-1}, s_t) \left(q_t(s_t) / \pi(s_t)\right)^b ,

a hidden Markov model with likelihood ratios of the classifier as emissions [1]_. Known labels cut
it into runs of gaps, each drawn backwards after a pass forward. Neighbouring rows say the same
thing twice where the other columns last as long as the label: the weight ``b`` is the one, and the
chain is used at all, if known labels that were held out are likelier so.

References
----------
.. [1] H. Bourlard, N. Morgan, "Connectionist speech recognition: a hybrid approach", Kluwer, 1994.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr

from skdiffusion._random import normals
from skdiffusion.columns.columns import Columns
from skdiffusion.estimators.imputation._label_draws import (
    CELLS,
    STREAM,
    LabelModel,
    as_columns,
    fit_label_model,
    label_codes,
)
from skdiffusion.inputs.encoding import Encoding

# Rows to learn from, and rows of a block that is held out as a whole, because neighbours tell each
# other.
_MOST_ROWS, _BLOCK = 4000, 50
# Share of the blocks held out, whose labels are predicted in two halves, each from the other.
_HELD_OUT, _WEIGHTS = 0.4, (0.0, 0.5, 1.0)
# Pairs of neighbours from which transitions are counted; fewer tell only how long labels last.
_FEWEST_PAIRS = 30
# Steps after which a chain has forgotten its start.
_MOST_STEPS = 64


@dataclass(frozen=True, eq=False)
class Chain:
    """Law of one label along a series.

    Attributes
    ----------
    model : LabelModel
        Probabilities given the row.
    powers : ndarray of shape (n_steps + 1, n_categories, n_categories)
        Powers of the matrix of transitions, for gaps between rows.
    weight : float
        Exponent of the ratios of the classifier.
    """

    model: LabelModel
    powers: np.ndarray
    weight: float

    def ratios(self, x):
        """Likelihood ratios (..., n_categories) of rows (..., n_inputs)."""
        shares = self.model.shares
        if self.weight == 0:
            return np.ones((*x.shape[:-1], len(shares)))
        p = self.model.probabilities(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return (p / shares) ** self.weight

    def ends(self, run):
        """What is known before and after runs: two arrays (n_runs, n_categories)."""
        before, after = self.powers[run.steps[:, 0]], self.powers[run.steps[:, -1]]
        number = np.arange(len(run.rows))
        start = np.where(run.left[:, None] < 0, self.model.shares, before[number, run.left])
        end = np.where(run.right[:, None] < 0, 1.0, after[number, :, run.right])
        return start, end

    def forward(self, ratios, run):
        """Forward messages (n_positions, n_draws, n_runs, n_categories), each a distribution."""
        message = self.ends(run)[0] * ratios[:, :, 0]
        messages = [message / message.sum(-1, keepdims=True)]
        for i in range(1, run.rows.shape[1]):
            step = self.powers[run.steps[:, i]]
            message = (messages[-1][..., None, :] @ step)[..., 0, :] * ratios[:, :, i]
            messages.append(message / message.sum(-1, keepdims=True))
        return messages

    def draw(self, ratios, run, uniform, past=False):
        """Joint draws (n_draws, n_runs, n_positions) of categories; with ``past`` each given the
        rows up to its own.
        """
        messages, out = self.forward(ratios, run), np.empty(uniform.shape, dtype=int)
        number, ahead = np.arange(len(run.rows)), 1.0 if past else self.ends(run)[1]
        for i in reversed(range(uniform.shape[-1])):
            below = np.cumsum(messages[i] * ahead, axis=-1)
            out[..., i] = (below[..., :-1] < (uniform[..., i] * below[..., -1])[..., None]).sum(-1)
            if past:
                continue
            # Of the step into position i, the column of what was drawn there.
            ahead = self.powers[run.steps[:, i]].swapaxes(1, 2)[number, out[..., i]]
        return out

    def marginals(self, ratios, run):
        """Probabilities (n_draws, n_runs, n_positions, n_categories) of every gap."""
        messages, back = self.forward(ratios, run), self.ends(run)[1]
        out = np.empty(ratios.shape)
        for i in reversed(range(ratios.shape[2])):
            both = messages[i] * back
            out[:, :, i] = both / both.sum(-1, keepdims=True)
            back = ((back * ratios[:, :, i])[..., None, :] @ np.swapaxes(
                self.powers[run.steps[:, i]], 1, 2
            ))[..., 0, :]  # fmt: skip
            back = back / back.sum(-1, keepdims=True)
        return out


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of gaps of one length.

    Attributes
    ----------
    rows : int ndarray of shape (n_runs, n_positions)
        Numbers of their rows.
    steps : int ndarray of shape (n_runs, n_positions + 1)
        Time steps ahead of each row, and after the last.
    left, right : int ndarrays of shape (n_runs,)
        Categories of the rows before and after, -1 where there is none.
    """

    rows: np.ndarray
    steps: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, codes, step, asked):
        """Runs of the gaps among labels, by length.

        Parameters
        ----------
        codes : float ndarray of shape (n_rows,)
            Categories, NaN where missing.
        step : int ndarray of shape (n_rows,)
            Time steps since the row before, 0 for the first row of a series.
        asked : bool ndarray of shape (n_rows,)
            Rows to draw; runs without any are left out.
        """
        missing = np.isnan(codes)
        begins = missing & ~(np.r_[False, missing[:-1]] & (step > 0))
        number = np.cumsum(begins)[missing] - 1
        if not len(number):
            return []
        rows, first = np.flatnonzero(missing), np.flatnonzero(begins)
        length = np.bincount(number)
        wanted = np.bincount(number, asked[rows]) > 0
        known = np.where(missing, -1, codes).astype(int)
        step = np.minimum(np.r_[step, 0], _MOST_STEPS)
        runs = []
        for n in np.unique(length[wanted]):
            start = first[wanted & (length == n)]
            after = step[start + n]
            left = np.where(step[start] > 0, known[start - 1], -1)
            right = np.where(after > 0, np.r_[known, -1][start + n], -1)
            place = start[:, None] + np.arange(n)
            runs.append(cls(place, np.column_stack([step[place], after]), left, right))
        return runs

    def parts(self, size):
        """The same in parts of at most ``size`` rows, or single runs."""
        each = max(1, size // self.rows.shape[1])
        for i in range(0, len(self.rows), each):
            own = slice(i, i + each)
            yield Runs(self.rows[own], self.steps[own], self.left[own], self.right[own])


@dataclass(frozen=True, eq=False)
class LabelChains:
    """Draws the labels of series anew.

    Attributes
    ----------
    columns : Columns
        From the units of the series to what models are given.
    encoding : Encoding
        What the features are.
    periods : tuple of float
        Periods of the clock, in the unit of the times.
    chains : dict of int to Chain
        One for every feature of labels or booleans that could be learnt.
    """

    columns: Columns
    encoding: Encoding
    periods: tuple
    chains: dict

    @classmethod
    def learn(cls, data, copies, columns, encoding, periods, wanted, seed):
        """Learn the laws of the labels of series.

        Parameters
        ----------
        data : SeriesInput
            The series.
        copies : ndarray of shape (n_copies, n_rows, n_columns)
            Completed copies.
        columns : Columns
            Their columns.
        encoding : Encoding
            What the features are.
        periods : tuple of float
            Periods of the clock.
        wanted : iterable of (int, bool ndarray of shape (n_valid,))
            The features to learn and the columns that tell them.
        seed : int
            Fixes rows and trees.
        """
        blank, rng = cls(columns, encoding, periods, {}), np.random.default_rng(seed)
        step, clock, chains = _steps(data), _clock(data, periods), {}
        for j, inputs in wanted:
            codes = label_codes(data.flat, encoding, j)
            codes = np.where(np.isnan(data.flat[:, encoding.first[j]]), np.nan, codes)
            # Where nothing else is missing all copies are alike.
            others = data.flat[:, columns.valid][:, inputs]
            mine = copies if np.isnan(others).any() else copies[:1]

            def x(rows, mine=mine, inputs=inputs):
                return blank.inputs(mine[:, rows], clock[rows], inputs)

            n_categories = int(encoding.columns[j].most) + 1
            chains[j] = _learn_chain(codes, step, x, n_categories, inputs, rng, seed)
        return cls(columns, encoding, periods, chains)

    def inputs(self, full, clock, inputs):
        """What classifiers are given: other columns (n_draws, n_rows, ...) and the clock."""
        z = self.columns.forward(full)[..., inputs]
        x = np.concatenate([z, np.broadcast_to(clock, (len(z), *clock.shape))], axis=-1)
        return x if x.shape[-1] else np.zeros((*x.shape[:-1], 1))

    def redraw(self, data, draws, asked, keys, past=False):
        """Draw the labels anew; arguments as for :class:`LabelDraws`, keys of the series.

        With ``past`` each given the rows up to its own alone.
        """
        flat, step, clock = data.flat, _steps(data), _clock(data, self.periods)
        sizes = [len(x) for x in data.rows]
        series = np.repeat(np.arange(len(sizes)), sizes)
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        in_series = data.first + np.arange(len(flat)) - starts
        place = np.full(asked.shape, -1)
        place[asked] = np.arange(asked.sum())
        for j, chain in self.chains.items():
            gaps = place[:, self.encoding.first[j]] >= 0
            codes = np.where(gaps, np.nan, label_codes(flat, self.encoding, j))
            size = max(1, CELLS // (len(draws) * flat.shape[1]))
            for run in (part for runs in Runs.of(codes, step, gaps) for part in runs.parts(size)):
                rows = run.rows.ravel()
                cell = torch.from_numpy(in_series[rows] * len(self.encoding.columns) + j)
                number = torch.arange(len(draws))[:, None]
                uniform = ndtr(normals(keys[series[rows]], number, STREAM, cell).numpy())
                full = np.repeat(flat[rows][None], len(draws), axis=0)
                full[:, place[rows] >= 0] = draws[:, place[rows][place[rows] >= 0]]
                shape = (len(draws), *run.rows.shape)
                x = self.inputs(full, clock[rows], chain.model.inputs)
                ratios = chain.ratios(x).reshape(*shape, -1)
                drawn = chain.draw(ratios, run, uniform.reshape(shape), past)
                self._write(draws, drawn.reshape(len(draws), -1), j, place[rows])
        return draws

    def _write(self, draws, codes, j, place):
        """Put categories (n_draws, n_rows) in their places among draws."""
        first, width = self.encoding.first[j], self.encoding.columns[j].width
        draws[:, place[:, first : first + width]] = as_columns(codes, width)


def _learn_chain(codes, step, x, n_categories, inputs, rng, seed):
    """Law of one label from its known cells; ``x(rows)`` returns what tells them."""
    known = np.flatnonzero(~np.isnan(codes))
    block = max(1, min(_BLOCK, len(known) // 20))
    blocks = np.array_split(known, max(1, len(known) // block))
    order = rng.permutation(len(blocks))
    n_held_out = max(1, int(_HELD_OUT * len(blocks)))
    fit = lambda rows: fit_label_model(x(rows), codes[rows].astype(int), n_categories, inputs, seed)  # noqa: E731
    rows = lambda chosen: np.concatenate([blocks[i] for i in chosen])[:_MOST_ROWS]  # noqa: E731
    trial, held_out = fit(rows(order[n_held_out:])), np.sort(rows(order[:n_held_out]))
    half = rng.random(len(held_out)) < 0.5
    losses = np.zeros((2, len(_WEIGHTS)))
    for hidden in (held_out[half], held_out[~half]):
        shown = codes.copy()
        shown[hidden] = np.nan
        counted = _transitions(shown, step, trial.shares)
        for i, matrix in enumerate((counted, np.broadcast_to(trial.shares, counted.shape))):
            powers = _powers(matrix)
            for k, weight in enumerate(_WEIGHTS):
                losses[i, k] += _loss(Chain(trial, powers, weight), codes, shown, step, x, hidden)
    free, best = np.unravel_index(losses.argmin(), losses.shape)
    model = fit(rows(order))
    matrix = _transitions(codes, step, model.shares)
    matrix = np.broadcast_to(model.shares, matrix.shape) if free else matrix
    return Chain(model, _powers(matrix), _WEIGHTS[best])


def _loss(chain, codes, shown, step, x, hidden):
    """Negative log-probability of hidden labels, their sum."""
    asked, p = np.zeros(len(codes), dtype=bool), np.ones(len(codes))
    asked[hidden] = True
    for runs in Runs.of(shown, step, asked):
        for run in runs.parts(CELLS // 64):
            rows = run.rows.ravel()
            ratios = chain.ratios(x(rows)).reshape(-1, *run.rows.shape, chain.powers.shape[-1])
            found = chain.marginals(ratios, run).mean(axis=0).reshape(len(rows), -1)
            truth = np.where(np.isnan(codes[rows]), 0, codes[rows]).astype(int)
            p[rows] = found[np.arange(len(rows)), truth]
    return -np.log(np.maximum(p[hidden], 1e-12)).sum()


def _transitions(codes, step, shares):
    """Matrix of transitions over one step, counted, or by how long labels last."""
    known, n = np.flatnonzero(~np.isnan(codes)), len(shares)
    near = known[1:][(np.diff(known) == 1) & (step[known[1:]] == 1)]
    if len(near) >= _FEWEST_PAIRS:
        pairs = codes[near - 1].astype(int) * n + codes[near].astype(int)
        counts = np.bincount(pairs, minlength=n * n).reshape(n, n) + shares
        return counts / counts.sum(axis=1, keepdims=True)
    at, series = np.cumsum(step), np.cumsum(step == 0)
    later, before = known[1:], known[:-1]
    same = series[later] == series[before]
    later, before = later[same], before[same]
    equal, distance = codes[later] == codes[before], at[later] - at[before]
    lasts = np.linspace(0, 0.99, 34)[:, None] ** distance
    share = shares[codes[later].astype(int)]
    chance = np.log(np.where(equal, lasts, 0) + (1 - lasts) * share + 1e-12).sum(axis=1)
    lasting = np.linspace(0, 0.99, 34)[chance.argmax()]
    return lasting * np.eye(n) + (1 - lasting) * shares


def _powers(matrix):
    """Powers of a matrix of transitions, from the zeroth."""
    powers = [np.eye(len(matrix))]
    for _ in range(_MOST_STEPS):
        powers.append(powers[-1] @ matrix)
    return np.array(powers)


def _steps(data):
    """Time steps of every row since the one before, 0 for the first of a series."""
    if data.slots is None:
        return np.concatenate([np.minimum(np.arange(len(x)), 1) for x in data.rows])
    return np.concatenate([np.diff(slots, prepend=slots[:1]) for slots in data.slots])


def _clock(data, periods):
    """Cosine and sine of the place of every row in each period; 0 where times are unknown."""
    if not periods or (clock := data.clock()) is None:
        return np.zeros((sum(len(x) for x in data.rows), 2 * len(periods)))
    angle = 2 * np.pi * np.concatenate(clock)[:, None] / np.array(periods)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
