"""What every density with a fitted diffusion model and column coordinates can do."""

import math
from abc import abstractmethod

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array

from skdiffusion._device import memory_advice
from skdiffusion._random import draw_seed
from skdiffusion._threads import one_thread, spread
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators._chunks import by_chunks
from skdiffusion.estimators._portable import PortableEstimator
from skdiffusion.estimators.density._pieces import is_noisy, pieces_of, tensor_for, with_noise
from skdiffusion.estimators.density._row_noise import noise_keys, noise_of, spreading
from skdiffusion.inputs.arguments import even_number, finite_number

_FEWER_ROWS = "Too little memory for all rows at once: pass fewer rows of X in a call."


def _chunkwise(lead):
    """Let a method take rows in chunks; ``lead`` gives the shape of the answer to a row."""
    return by_chunks(lead, lambda self, X: with_noise(self._read(X, "leave"), self), noisy=is_noisy)


class DiffusionDensity(OneToOneFeatureMixin, TransformerMixin, PortableEstimator):
    """Density estimator whose answers follow from two fitted objects.

    ``model_`` is a :class:`~skdiffusion.diffusion.model.DensityModel` of rows, ``coordinates_``
    the :class:`~skdiffusion.columns.coordinates.Coordinates` between rows and the user's table. A
    subclass has a parameter ``random_state`` and reads and writes tables.
    """

    @abstractmethod
    def _read(self, X, gaps="refuse", **checks):
        """Numbers and codes of a table, whose gaps to "refuse", "leave" or "fill"."""

    @abstractmethod
    def _score_gaps(self, codes):
        """Log-density of what is observed of rows with gaps."""

    @abstractmethod
    def _restore(self, codes):
        """Numbers and codes as a table of the user's kind."""

    @abstractmethod
    def _encode(self, y, n_rows):
        """Encoded condition of every row as a tensor of the model; None without a condition."""

    @property
    def denoiser_(self):
        """Fitted denoiser of the rows."""
        return self.model_.denoiser

    @property
    def prior_(self):
        """Gaussian of the rows whose noisy version is the prior."""
        return self.model_.prior

    @_chunkwise(lambda *_: ())
    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def score_samples(self, X, y=None):
        """Log-density of every row under the probability-flow ODE.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. With ``handle_missing="impute"`` they may have gaps.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; None gives the unconditional density.
            Ignored where the model was fitted without ``condition``.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log density in nats, in the units of X; of what is observed for a row with gaps.

        Raises
        ------
        ValueError
            If rows have gaps that ``fit`` would have refused, or gaps and a condition.

        Notes
        -----
        ``log p(x) = log pi(z_T) + int (d - tr dD/dz) dlog s`` along the ODE, with the exact trace
        up to 32 columns; above, the trace of the network's share is Hutchinson's estimate from 16
        fixed directions. See
        :func:`skdiffusion.diffusion.likelihood.log_density`. A base that was kept without a
        network is evaluated directly.

        Of rows with gaps it is the marginal density of what is observed: in closed form for a
        mixture or kernel estimate alone, else the mean weight of the candidates of
        :meth:`impute`, an estimate that is the same in every call.
        """
        self._require_fitted()
        codes = self._read(X, gaps="leave")
        gaps, condition = np.isnan(codes).any(1), self._encode(y, len(codes))
        if not gaps.any():
            return self._score_complete(codes, condition)
        if condition is not None:
            raise ValueError("Rows with gaps have no density given y here: leave y out.")
        values = np.empty(len(codes))
        values[gaps] = self._score_gaps(codes[gaps])
        values[~gaps] = self._score_complete(codes[~gaps], None)
        return values

    @one_thread()
    def score(self, X, y=None):
        """Mean log-density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; ignored without ``condition``.

        Returns
        -------
        score : float
            Mean of :meth:`score_samples`, in nats; higher is better.
        """
        return float(self.score_samples(X, y).mean())

    @one_thread()
    def nll_bound(self, X, y=None, *, n_draws=128, return_std=False):
        """Upper bound on the negative log-likelihood of every row under the reverse SDE.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model; None bounds the unconditional density.
            Ignored where the model was fitted without ``condition``.
        n_draws : int, default=128
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return standard errors.

        Returns
        -------
        bound : ndarray of shape (n_samples,)
            Unbiased estimate of the bound in nats, in the units of X.
        standard_error : ndarray of shape (n_samples,)
            Its standard error; only with ``return_std=True``.

        Notes
        -----
        ``-log p(x) <= L_DSM(x)``, see :func:`skdiffusion.diffusion.likelihood.nll_bound`. It
        bounds the likelihood of the SDE model, which is not the ODE model of
        :meth:`score_samples`: the two numbers need not be ordered.
        """
        bound, error, _, log_jacobian = self._bound(X, y, n_draws)
        bound = bound.cpu().numpy() - log_jacobian
        return (bound, error.cpu().numpy()) if return_std else bound

    @one_thread()
    def score_matching_loss(self, X, y=None, *, n_draws=128, return_std=False):
        """Denoising score matching loss with the weighting of the likelihood bound.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Condition of every row of a conditional model.
        n_draws : int, default=128
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        loss : float
            Loss; the same in whatever units the columns are.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``.

        Notes
        -----
        ``J_DSM = 1/2 int g**2 E|s_theta - grad log p(x_t | x)|**2 dt = int E|eps - e|**2 dlog s``,
        with half of the integrand at the smallest noise level added for the step to the data. It
        differs from score matching against the unknown score of the data, ``J_SM``, by a number
        that does not depend on the model, so that differences between models on the same
        coordinates are those of their bounds on the divergence. Where the score of the data is
        known, :func:`skdiffusion.diffusion.likelihood.score_matching_loss` gives ``J_SM`` itself.

        References
        ----------
        .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of
           score-based diffusion models", NeurIPS 2021, equation 9,
           https://arxiv.org/abs/2101.09258.
        """
        bound, _, last, _ = self._bound(X, y, n_draws)
        span = math.log(self.model_.s_max / self.model_.s_min)
        losses = bound - last + self.n_features_in_ * (span + 0.5)
        return _mean(losses.cpu().numpy(), return_std)

    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def entropy(self, X, *, n_draws=128, return_std=False):
        """Differential entropy of the data's density by the entropy formula.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Draws from the density, held out from training.
        n_draws : int, default=128
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        entropy : float
            Entropy in nats, in the units of X.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``. It does not
            count what the learnt score gets wrong.

        Notes
        -----
        ``H(p) = H(p_T) - 1/2 int E[2 div f + g**2 |score|**2] dt`` with the learnt score; see
        :func:`skdiffusion.diffusion.likelihood.entropy`.
        """
        self._require_fitted()
        even_number(n_draws, "n_draws")
        rows, log_jacobian = self._rows(self._read(X, ensure_min_samples=2))
        noise = noise_of(noise_keys(rows, n_draws, self.random_state), n_draws, rows)
        terms = self.model_.entropy_terms(rows, *noise).cpu().numpy() - log_jacobian
        return _mean(terms, return_std)

    @one_thread()
    def kl_bound(self, X, data_entropy, *, n_draws=128, return_std=False):
        """Upper bound on the divergence of the data from the SDE model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Draws from the data's density, held out from training.
        data_entropy : float
            Entropy of the data's density in nats, in the units of X; known for simulated data.
        n_draws : int, default=128
            Even number of noise levels a row.
        return_std : bool, default=False
            Also return the standard error.

        Returns
        -------
        bound : float
            Estimate of an upper bound on ``KL(p || p_model)`` in nats.
        standard_error : float
            Its standard error over rows and draws; only with ``return_std=True``.

        Raises
        ------
        ValueError
            If ``data_entropy`` is not a finite number.

        Notes
        -----
        ``KL(p || p_model) = E[-log p_model] - H(p) <= E[L_DSM] - H(p) = J_SM + KL(p_T || pi)``;
        see :func:`skdiffusion.diffusion.likelihood.kl_bound` for the last form.
        """
        data_entropy = finite_number(data_entropy, "data_entropy")
        return _mean(self.nll_bound(X, n_draws=n_draws) - data_entropy, return_std)

    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def log_density_gradient(self, X, noise_level=1e-3):
        """Gradient of the log density of noisy data, the score.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Noisy rows.
        noise_level : float, default=0.001
            Noise in every column, in its standard deviations, added to the mapped values of
            columns that are mapped (see ``marginals``).

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            Gradient by the columns of X.

        Raises
        ------
        ValueError
            If ``noise_level`` is not a finite positive number.
        """
        self._require_fitted()
        noise_level = finite_number(noise_level, "noise_level")
        if not noise_level > 0:
            raise ValueError(f"noise_level={noise_level!r} must be positive.")
        codes = self._read(X)
        uniforms = self._spreading(codes)
        rows = tensor_for(self.coordinates_.forward(codes, uniforms)[0], self.model_)
        gradient = self.model_.gradient(rows, noise_level).cpu().numpy()
        return self.coordinates_.pull_back(codes, gradient, uniforms)

    @_chunkwise(lambda self, *_: (self.n_features_in_,))
    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def transform(self, X):
        """Take rows along the probability-flow ODE to independent standard normals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. With ``handle_missing="impute"``, gaps are filled by a draw of :meth:`impute`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features)
            Latent rows, N(0, I) if the model is right.
        """
        self._require_fitted()
        codes = self._read(X, gaps="fill")
        latent, uniforms = np.empty(codes.shape), self._spreading(codes)
        for piece, rows, _ in pieces_of(self.coordinates_, codes, uniforms):
            latent[piece] = self._spread(
                DensityModel.to_latent, tensor_for(rows, self.model_)
            ).cpu()
        return latent

    @memory_advice(_FEWER_ROWS)
    @one_thread()
    def inverse_transform(self, X):
        """Take standard normals back to data, the inverse of :meth:`transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Latent rows.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Rows in the units of the training data.
        """
        self._require_fitted()
        Z = check_array(X, dtype=np.float64)
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {Z.shape[1]} columns, but the model {self.n_features_in_}.")
        rows = self._spread(DensityModel.from_latent, tensor_for(Z, self.model_)).cpu().numpy()
        return self._restore(self.coordinates_.inverse(rows))

    @memory_advice(_FEWER_ROWS)
    def _bound(self, X, y, n_draws):
        """Bound, its standard error and prior term, and the log-determinant of each row."""
        self._require_fitted()
        even_number(n_draws, "n_draws")
        rows, log_jacobian = self._rows(self._read(X))
        keys = noise_keys(rows, n_draws, self.random_state)

        def of_part(part):
            (model, some), own = part
            return model.bound(some, *noise_of(own, n_draws, some))

        parts = self.model_.given(self._encode(y, len(rows))).parts(rows)
        own = keys.split([len(some) for _, some in parts])
        answers = spread(of_part, list(zip(parts, own, strict=True)))
        return *(torch.cat(answer) for answer in zip(*answers, strict=True)), log_jacobian

    def _score_complete(self, codes, condition):
        """Log-density of complete rows."""
        if not len(codes):
            return np.empty(0)
        values, uniforms = np.empty(len(codes)), self._spreading(codes)
        for piece, rows, log_jacobian in pieces_of(self.coordinates_, codes, uniforms):
            given = None if condition is None else condition[piece]
            rows = tensor_for(rows, self.model_)
            density = self._spread(DensityModel.log_density, rows, given)
            values[piece] = density.cpu().numpy() + log_jacobian
        return values

    def _spread(self, method, rows, condition=None):
        """Answer of a method of the model, parts of the rows spread over workers."""
        parts = self.model_.given(condition).parts(rows)
        return torch.cat(spread(lambda part: method(*part), parts))

    def _spreading(self, codes):
        """Noise that spreads discrete columns."""
        return spreading(codes, self.coordinates_.discrete, draw_seed(self.random_state))

    def _rows(self, codes):
        """Rows of the model, on its device, and the log-determinants."""
        rows, log_jacobian = self.coordinates_.forward(codes, self._spreading(codes))
        return tensor_for(rows, self.model_), log_jacobian


def _mean(terms, return_std):
    """Mean of what rows add and, where asked for, its standard error, NaN for a single row."""
    error = float(terms.std(ddof=1)) / math.sqrt(len(terms)) if len(terms) > 1 else math.nan
    return (float(terms.mean()), error) if return_std else float(terms.mean())
