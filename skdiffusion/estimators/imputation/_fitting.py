"""How CSDIImputer learns: columns, windows, the Gaussian over a window, the network on top."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skdiffusion._device import load_numpy_state, memory_advice, resolve_device
from skdiffusion._random import draw_seed, row_keys, torch_generator
from skdiffusion.columns.bend import bend, fit_bend
from skdiffusion.columns.standard import column_moments
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.fit import free_gaussian, stationary_gaussian
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.metrics import crps_loss
from skdiffusion.training.imputation import hides_nothing, train_imputer
from skdiffusion.training.masking import STRATEGIES, pattern_targets, user_strategy

# Standardised values beyond this are pulled in before the model sees them.
_FAR, _FAR_UNSCALED = 20.0, 1e4
# With fewer windows than this there is nothing to spare for validation.
_FEWEST_WINDOWS = 10
# Windows are compared on at most this many, with so many draws.
_N_HELD_OUT, _N_HELD_OUT_DRAWS = 64, 16
# Default size of a training batch: so many windows or rows, fewer if they have many cells.
_LARGEST_BATCH, _LARGEST_TABLE_BATCH, _CELLS_PER_BATCH = 8, 256, 8192
# A target strategy that hides nothing in so many windows, fewer if they are large, is refused.
_MOST_WINDOWS_TO_ASK, _FEWEST_WINDOWS_TO_ASK, _CELLS_TO_ASK = 512, 32, 500_000
# Panels with more cells in a sample share the covariance of stationary series.
_LARGEST_PANEL = 2500


class ImputerFit:
    """Learning of :class:`CSDIImputer`."""

    def _fit(self, X, timestamps, keep):
        """Fit, or train what is there further with ``keep``."""
        device = resolve_device(self.device)
        if not keep:
            # Until the end of this method the imputer counts as not fitted.
            vars(self).pop("history_", None)
        data = self._read(X, timestamps, reset=not keep)
        if not keep:
            self._learn_columns(data.flat)
            self._seed = draw_seed(self.random_state)
            self._kind, self.time_step_ = data.kind, data.step
            self.window_length_ = self._window_rows(data)
        self._check_sizes(self.window_length_)
        self._check_length(data)
        series, strategy = self._windows(data), self._strategy(self.window_length_)
        starts, held_out = self._split(series)
        few = not keep and len(starts) + len(held_out) < _FEWEST_WINDOWS
        model = self._kept_model() if keep else self._new_model(series, starts, few)
        history = {"loss": [], "validation": [], "best_step": 0}
        if self.method == "diffusion" and few:
            warnings.warn(
                f"X has only {len(starts)} windows, too few to train a network and to check it: "
                "the Gaussian over the window is used alone.",
                UserWarning,
                stacklevel=4,
            )
        elif self.method == "diffusion":
            self._require_targets(series, starts, strategy)
            model, series = model.to(device), series.to(device)
            history = self._train(model, series, starts, held_out, strategy)
            self._warn_useless(model, history)
            model = self._better(model, series, held_out, strategy)
        return self._adopt(model, history)

    def _window_rows(self, data):
        """Number of time steps of a window."""
        if data.kind != "series":
            if data.kind == "panel" and len(data.rows) < 2:
                raise ValueError("X has n_samples=1, while a minimum of 2 samples is required.")
            return len(data.rows[0])
        return self.window_length or min(24, min(len(x) for x in data.rows))

    def _check_length(self, data):
        """At least one of several series must fill a window."""
        longest = max(data.sizes)
        if longest < self.window_length_:
            raise ValueError(
                f"window_length={self.window_length_} is longer than the longest series of X "
                f"({longest} time steps): lower window_length."
            )

    def _check_sizes(self, length):
        """Compare parameters with each other."""
        if self.n_channels % self.n_heads:
            raise ValueError(
                f"n_channels={self.n_channels} must be a multiple of n_heads={self.n_heads}."
            )
        if self.stride is not None and self.stride > length:
            raise ValueError(
                f"stride={self.stride} leaves gaps between windows of {length} rows: lower it."
            )

    def _learn_columns(self, flat):
        """Centre and scale of the features with values."""
        n_features = flat.shape[1]
        valid = ~np.isnan(flat).all(axis=0)
        if not valid.any():
            raise ValueError("X has no observed value: there is nothing to learn from.")
        mean, scale = np.full((2, n_features), np.nan)
        mean[valid], scale[valid] = column_moments(flat[:, valid].astype(float))
        if not self.scale:
            self._warn_unscaled(mean, scale)
            mean[valid], scale[valid] = 0.0, np.where(scale[valid] > 0, 1.0, 0.0)
        self._set_columns(mean, scale, np.isnan(flat).any(axis=0))
        # The paper's network gets the standardised values of the paper.
        if self.scale and self._wanted() != "csdi":
            self._bend = fit_bend(self._in_units(flat))
        if not valid.all():
            fate = "filled with 0" if self.keep_empty_features else "dropped"
            warnings.warn(
                f"Features {self._names(~valid)} have no observed value and are {fate}: "
                "see keep_empty_features.",
                UserWarning,
                stacklevel=5,
            )

    def _warn_unscaled(self, mean, scale):
        """Say so where ``scale=False`` meets data that are not standardised."""
        off = (np.abs(mean) > 3) | (scale > 10) | ((scale > 0) & (scale < 0.1))
        if off.any():
            warnings.warn(
                f"Features {self._names(off)} are far from mean 0 and standard deviation 1, which "
                "scale=False expects: set scale=True.",
                UserWarning,
                stacklevel=6,
            )

    def _names(self, mask):
        """Names, or else numbers, of some features, for messages."""
        named = hasattr(self, "feature_names_in_")
        return (self.feature_names_in_[mask] if named else np.flatnonzero(mask)).tolist()

    def _set_columns(self, mean, scale, indicated):
        """Store what is known of the columns."""
        self.mean_, self.scale_ = mean, scale
        self._valid = ~np.isnan(mean)
        self._kept = self._valid | self.keep_empty_features
        self._indicated, self._bend = indicated, None

    def _in_units(self, x):
        """Valid features of ``x`` in their standard units, the far ones pulled in."""
        mean, scale = self.mean_[self._valid], self.scale_[self._valid]
        far = _FAR if self.scale else _FAR_UNSCALED
        x = x[..., self._valid].astype(float)
        u = np.clip((x - mean) / np.where(scale > 0, scale, 1.0), -far, far)
        # What a constant feature does later says nothing about the others.
        return u * (scale > 0)

    def _windows(self, data):
        """Standardised valid features of ``data`` as series cut into windows."""

        def standardised(x):
            u = self._in_units(x)
            z = u if self._bend is None else bend(u, self._bend)
            return torch.from_numpy(z), torch.from_numpy(~np.isnan(z))

        if data.kind != "series":
            return WindowedSeries.stack(*standardised(data.rows))
        triples = []
        for x, real in data.on_grid():
            values, seen = standardised(x)
            triples.append((values, seen, ~seen & torch.from_numpy(real)[:, None]))
        return WindowedSeries.join(triples, self.window_length_)

    def _strategy(self, length):
        """Target strategy as a function of observed masks."""
        if self.test_pattern is not None and self.target_strategy != "test_pattern":
            warnings.warn(
                'test_pattern is not used: set target_strategy="test_pattern".',
                UserWarning,
                stacklevel=5,
            )
        if callable(self.target_strategy):
            return user_strategy(self.target_strategy)
        if self.target_strategy != "test_pattern":
            return STRATEGIES[self.target_strategy]
        if self.test_pattern is None:
            raise ValueError('target_strategy="test_pattern" needs the parameter test_pattern.')
        pattern = np.asarray(self.test_pattern, dtype=bool)
        pattern = pattern[None] if pattern.ndim == 2 else pattern
        if pattern.shape[1:] != (length, len(self._valid)):
            raise ValueError(
                f"test_pattern has shape {np.shape(self.test_pattern)}; expected "
                f"{(length, len(self._valid))}, times and features of a window."
            )
        return pattern_targets(torch.from_numpy(pattern[..., self._valid]))

    def _require_targets(self, series, starts, strategy):
        """Raise for a strategy of the user's, or of past gaps, that leaves nothing to learn."""
        given = callable(self.target_strategy) or self.target_strategy == "test_pattern"
        # Those drawn at random hide something sooner or later; past gaps need gaps.
        if not given and not (self.target_strategy == "historical" and series.observed.all()):
            return
        n = _CELLS_TO_ASK // (series.length * series.values.shape[1])
        n = min(_MOST_WINDOWS_TO_ASK, max(_FEWEST_WINDOWS_TO_ASK, n))
        if hides_nothing(series, starts, strategy, n_windows=n, seed=self._seed):
            raise ValueError(
                f"target_strategy hides no observed cell of {n} windows of X, so that there is "
                'nothing to learn: hide some, or take target_strategy="block".'
            )

    def _split(self, series):
        """Windows to learn from and windows held out, which share no row."""
        starts = series.all_starts()
        if not (self.early_stopping and self.method == "diffusion"):
            return starts, starts[:0]
        candidates = series.regular_starts(series.length)
        n_held_out = max(1, round(self.validation_fraction * len(candidates)))
        if len(candidates) < _FEWEST_WINDOWS:
            return candidates, candidates[:0]
        order = torch.randperm(len(candidates), generator=torch_generator(self._seed))
        held_out = candidates[order[:n_held_out].sort().values]
        taken = torch.zeros(len(series.values) + 1, dtype=torch.int64)
        taken[series.rows(held_out).flatten() + 1] = 1
        before = taken.cumsum(0)
        starts = starts[before[starts + series.length] == before[starts]]
        if len(starts) == 0:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves no window to learn from: "
                "lower it or set early_stopping=False."
            )
        return starts, held_out

    def _new_model(self, series, starts, few):
        """Untrained model; its Gaussian is fitted to the windows to learn from."""
        kind = "gaussian" if few else self._wanted()
        base = None if kind == "csdi" else self._fit_base(series, starts)
        return self._build(kind, base, self._sizes(kind))

    def _kept_model(self):
        """The fitted model, free to be trained further."""
        kind, base = self._wanted(), self._fitted_base()
        if kind == self._architecture and self._sizes(kind) == self._fitted_sizes:
            return load_numpy_state(self._build(kind, base, self._fitted_sizes), self._weights)
        if kind == self._architecture or kind == "csdi" or base is None:
            raise ValueError(
                "Training cannot go on after a change of network, n_layers, n_channels or n_heads: "
                "call fit with warm_start=False."
            )
        return self._build(kind, base, self._sizes(kind))

    def _fit_base(self, series, starts):
        """Gaussian over a window: stationary for series, else with a free covariance."""
        values = series.values.double()
        large = series.length > 1 and series.length * values.shape[1] > _LARGEST_PANEL
        if self._kind == "series" or large:
            runs = _runs(series, starts)
            return stationary_gaussian(
                [(values[run], series.observed[run]) for run in runs], series.length
            )
        rows = series.rows(starts)
        return free_gaussian(values[rows], series.observed[rows])

    def _train(self, model, series, starts, held_out, strategy):
        """Train ``model`` in place; return the history."""
        n_cells = series.length * series.values.shape[1]
        most = _LARGEST_BATCH if series.length > 1 else _LARGEST_TABLE_BATCH
        batch_size = self.batch_size or max(1, min(most, _CELLS_PER_BATCH // n_cells))
        with memory_advice("Too little memory to train: lower batch_size or n_channels."):
            return train_imputer(
                model,
                series,
                starts,
                held_out,
                strategy,
                batch_size=batch_size,
                seed=self._seed,
                n_steps=self.max_iter,
                learning_rate=self.learning_rate,
                ema_decay=self.ema_decay,
                patience=self.n_iter_no_change,
                tol=self.tol,
                progress=self.verbose > 0,
                description="Learning",
            )

    def _warn_useless(self, model, history):
        """Say so if training led nowhere and there is no Gaussian to answer instead."""
        if history["validation"] and history["best_step"] == 0 and not hasattr(model, "base"):
            warnings.warn(
                f"{len(history['loss'])} training steps did not lower the loss on held-out windows "
                "(see history_): raise max_iter or lower learning_rate.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _better(self, model, series, held_out, strategy):
        """The trained model, or its Gaussian if that predicts held-out cells better."""
        if len(held_out) == 0 or not hasattr(model, "base"):
            return model
        alone = GaussianDenoiser(model.base)
        losses = [self._held_out_crps(m, series, held_out, strategy) for m in (model, alone)]
        return model if losses[0] <= losses[1] else alone

    def _held_out_crps(self, model, series, held_out, strategy):
        """Mean CRPS of cells hidden in held-out windows, with fixed masks and noise."""
        generator = torch_generator(self._seed)
        rows = series.rows(held_out[:_N_HELD_OUT].to(series.values.device))
        known = series.observed[rows]
        pool = lambda n: known.cpu()[torch.randint(len(rows), (n,), generator=generator)]  # noqa: E731
        hidden = strategy(known.cpu(), generator, pool).to(known.device)
        windows = WindowedSeries.stack(series.values[rows], known & ~hidden)
        windows.wanted = hidden.flatten(0, 1)
        if not bool(hidden.any()):
            return 0.0
        keys = row_keys(rows.cpu().numpy(), self._seed)
        draws = self._draw_standardised(model, windows, keys, _N_HELD_OUT_DRAWS).cpu().numpy()
        truth = series.values[rows][hidden].cpu().numpy()
        feature = torch.nonzero(hidden)[:, -1].cpu().numpy()
        truth, draws = (self._unbent(z, feature) for z in (truth, draws))
        return crps_loss(truth, draws.T, method="fair")


def _runs(series, starts):
    """Rows covered by windows, in unbroken runs (a list of index tensors)."""
    covered = torch.zeros(len(series.values), dtype=torch.bool)
    covered[series.rows(starts).flatten()] = True
    rows = torch.nonzero(covered)[:, 0]
    number, _, _ = series.place(rows)
    breaks = torch.nonzero((rows.diff() != 1) | (number.diff() != 0))[:, 0] + 1
    return torch.tensor_split(rows, breaks)
