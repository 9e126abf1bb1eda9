"""Draws from a fitted density: new rows, and what is missing of rows given the rest."""

import numpy as np
import torch

from skdiffusion._device import DRAW_OFTEN, memory_advice, require_memory
from skdiffusion._random import draw_seed, row_keys, torch_generator
from skdiffusion._threads import one_thread, spread
from skdiffusion._warn import warn
from skdiffusion.estimators._tables import container_of
from skdiffusion.estimators.density._completion import Completion
from skdiffusion.estimators.density._conditions import checked_guidance
from skdiffusion.estimators.density._diffusion_density import DiffusionDensity
from skdiffusion.estimators.density._nonsense import warn_nonsense
from skdiffusion.inputs.arguments import positive_int

# Candidates of impute that must count: fewer make draws that repeat.
_FEWEST_CANDIDATES = 10


class DrawingDensity(DiffusionDensity):
    """Density that draws, with what a fit of a table leaves behind.

    That is ``_reader``, the look of the table, ``_encoder``, that of the condition, and
    ``_proposal``, a mixture to complete rows with; ``solver`` and ``n_steps`` are parameters.
    """

    @property
    def mean_(self):
        """Centre of the columns."""
        return self.coordinates_.mean

    @property
    def scale_(self):
        """Scale of the columns."""
        return self.coordinates_.scale

    @memory_advice("Too little memory to draw: lower n_samples and draw several times.")
    @one_thread()
    def sample(self, n_samples=1, y=None, *, given=None, guidance=1.0, random_state=None):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of all rows or of each; None draws from the unconditional density. An error
            where the model was fitted without ``condition``.
        given : dict, optional
            Values of some columns by name or number, labels included: the others are drawn given
            these, from the unconditional density where the model has a condition.
        guidance : float, default=1.0
            How much the condition counts: 1 draws from the conditional density, more pushes the
            draws towards what is typical of ``y``, at the price of variety; 0 ignores ``y``.
            Not negative, and 1 where ``y`` is None.
        random_state : int, RandomState instance or None, default=None
            Randomness of this call; None takes that of the estimator.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units of the training data. A DataFrame with its names and types after
            ``set_output(transform="pandas")``, and for tables with labels in any case.

        Raises
        ------
        ValueError
            If a parameter is out of range, if ``given`` names a column or a label that ``fit`` has
            not seen, if ``y`` or a guidance other than 1 is given to a model
            that was fitted without ``condition``, or a guidance other than 1 without ``y``.

        Notes
        -----
        With ``given``, rows are drawn as :meth:`impute` fills gaps. Where many rows have the least
        or the largest value of a column exactly, such as no rain, so have draws, and none is
        beyond it.

        A base that was kept without a network is drawn from directly. Otherwise a point of the
        prior is solved down a list of ``n_steps`` noise levels. Guidance other than 1 replaces
        the denoiser by ``D(z, s) + guidance (D(z, s | y) - D(z, s))`` [1]_; what it draws from is
        sharper than the conditional density, and is not one that :meth:`score_samples` knows.

        References
        ----------
        .. [1] J. Ho, T. Salimans, "Classifier-free diffusion guidance", 2022,
           https://arxiv.org/abs/2207.12598.
        """
        self._require_fitted()
        n_samples = positive_int(n_samples, "n_samples")
        require_memory(n_samples * self.n_features_in_, f"n_samples={n_samples}", DRAW_OFTEN)
        guidance = checked_guidance(guidance, y, self._encoder)
        if given is not None:
            return self._sample_given(n_samples, y, given, random_state)
        model, seed = (
            self.model_.given(self._encode(y, n_samples)),
            self._seed_of_call(random_state),
        )
        rows = self._draw(model, n_samples, seed, guidance)
        if y is None:
            warn_nonsense(rows, self.model_.denoiser.network, self.solver, self.n_steps)
        return self._restore(self.coordinates_.inverse(rows.cpu().numpy(), drawn=True))

    def _draw(self, model, n_samples, seed, guidance):
        """Rows of the model, parts of them spread over workers, each with noise of its own."""
        options = {"solver": self.solver, "n_steps": self.n_steps, "guidance": guidance}
        if model.denoiser.network is None or self.solver == "adaptive":
            # A solver that adapts its steps looks at the errors of all rows together.
            return model.sample(n_samples, torch_generator(seed), **options)
        parts = model.parts(torch.empty(n_samples, 0))
        seeds = torch.randint(2**62, (len(parts),), generator=torch_generator(seed)).tolist()

        def of_part(item):
            (of_these, rows), own = item
            return of_these.sample(len(rows), torch_generator(own), **options)

        return torch.cat(spread(of_part, list(zip(parts, seeds, strict=True))))

    @one_thread()
    def impute(self, X, n_draws=None, *, random_state=None):
        """Draw the missing values of every row given its observed ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN where a value is missing; any columns may be missing. A row without any
            value is drawn from the density, as by :meth:`sample`.
        n_draws : int, optional
            Draws of each row; None returns one.
        random_state : int, RandomState instance or None, default=None
            Randomness of this call; None takes that of the estimator.

        Returns
        -------
        X_completed : ndarray of shape (n_samples, n_features) or (n_samples, n_draws, n_features)
            Completed rows; observed values are unchanged. For a table with labels, or after
            ``set_output``, a frame or a list of ``n_draws`` of them.

        Raises
        ------
        ValueError
            If ``n_draws`` is not a positive integer.

        Notes
        -----
        Candidates are drawn from the conditional density of the analytic base, which is exact,
        and resampled with weights ``p_model / p_base`` (sampling-importance-resampling): right in
        the limit of many candidates whatever the network learnt, unlike replacing the observed
        values along a solver's path. The weights come from
        :func:`skdiffusion.diffusion.likelihood.log_density_ratio`; of at least 100 candidates and
        five for each draw, two fifths are weighed, and the others where fewer than half of these
        count. Where a base was kept alone the draws are exact. With a chain half of 400 candidates
        come from a mixture and half from the chain, whose draws are exact where what is missing
        comes last in its order. A conditional model draws from its unconditional density.

        References
        ----------
        .. [1] D. Rubin, "The calculation of posterior distributions by data augmentation:
           comment", JASA 1987.
        """
        self._require_fitted()
        n_copies = 1 if n_draws is None else positive_int(n_draws, "n_draws")
        codes = self._reader.read(self, X, allow_nan=True)
        require_memory(n_copies * codes.size, f"n_draws={n_draws}", DRAW_OFTEN)
        completed, sizes = self._complete(codes, self._seed_of_call(random_state), n_copies)
        poor = int((sizes < _FEWEST_CANDIDATES).sum())
        if poor:
            warn(
                f"For {poor} of {len(codes)} rows fewer than 10 of the candidates of impute count: "
                "their draws repeat. The base describes these rows badly; more observed columns "
                'or base="mixture" help.',
            )
        if n_draws is None:
            return self._restore(completed[:, 0])
        if self._reader.table.categories or container_of(self) != "default":
            return [self._restore(draw) for draw in completed.transpose(1, 0, 2)]
        return completed

    def _sample_given(self, n_samples, y, given, random_state):
        """Rows that have the given values in some columns."""
        if y is not None:
            raise ValueError("given draws from the unconditional density: leave y out, or given.")
        codes = self._reader.given(self, given)
        completed, sizes = self._complete(codes, self._seed_of_call(random_state), n_samples)
        if sizes[0] < _FEWEST_CANDIDATES:
            warn(
                f"Fewer than 10 of the candidates count with given={given!r}: the draws repeat. "
                "Such rows are very unlikely under the model; give fewer columns.",
            )
        return self._restore(completed[0])

    def _completion(self):
        """What completes rows in the coordinates of columns."""
        return Completion(self.model_, self.coordinates_.chain, self._proposal)

    def _score_gaps(self, codes):
        """Log-density of what is observed of rows with gaps."""
        rows, log_jacobian = self.coordinates_.of_columns.forward(codes, self._spreading(codes))
        keys = row_keys(codes, draw_seed(self.random_state))
        return self._completion().log_density(rows, keys) + log_jacobian

    @memory_advice("Too little memory to draw: lower n_draws or pass fewer rows of X in a call.")
    def _complete(self, codes, seed, n_draws):
        """Draws of completed rows, and the effective number of candidates behind each row's."""
        completed, sizes = np.repeat(codes[:, None], n_draws, axis=1), np.full(len(codes), np.inf)
        chosen = np.flatnonzero(np.isnan(codes).any(1))
        coordinates = self.coordinates_.of_columns
        rows, _ = coordinates.forward(codes, self._spreading(codes))
        keys = row_keys(codes, seed)[chosen]
        draws, sizes[chosen] = self._completion().draw(rows[chosen], keys, n_draws)
        values = coordinates.inverse(draws.reshape(-1, codes.shape[1]), drawn=True)
        values = values.reshape(draws.shape)
        known = ~np.isnan(completed[chosen])
        completed[chosen] = np.where(known, completed[chosen], values)
        return completed, sizes

    def _read(self, X, gaps="refuse", **checks):
        """Numbers and codes of a table; gaps are left or filled where ``fit`` took gaps too."""
        allow_nan = gaps != "refuse" and self.handle_missing == "impute"
        codes = self._reader.read(self, X, allow_nan=allow_nan, **checks)
        if gaps != "fill" or not np.isnan(codes).any():
            return codes
        return self._complete(codes, draw_seed(self.random_state), 1)[0][:, 0]
