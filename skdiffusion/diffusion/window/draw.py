"""Joint draws of all missing cells of series, through overlapping windows.

All windows walk down the noise levels together. At each level the denoiser's answers are
averaged over the windows that share a cell, weighted towards the window where the cell lies in
the middle; the noisy state is one array over the cells of the series. Draws are therefore
coherent across window borders and through gaps longer than a window, and there is nothing left
to stitch at the end. Windows that share no missing cell, directly or through others, do not
influence each other and are solved one group after the other, in bounded memory.
"""

import torch

from skdiffusion.diffusion.solve import solve
from skdiffusion.diffusion.window.gaussian import pick
from skdiffusion.diffusion.window.series import alike, taper


def draw_missing(
    model,
    series,
    noise,
    *,
    n_draws,
    stride,
    noise_levels,
    step,
    cells_per_batch,
    windows_per_batch=64,
    on_step=None,
):
    """Draw the wanted cells of ``series`` given the observed ones.

    Parameters
    ----------
    model : ImputationDenoiser
        The denoiser.
    series : WindowedSeries
        The data, on the device of the model.
    noise : callable
        ``noise(cells, step)`` returns standard normals of shape ``(n_draws, len(cells))`` for
        numbers of wanted cells.
    n_draws : int
        Number of draws.
    stride : int
        Distance between windows.
    noise_levels : list of float
        Decreasing, ending at 0.
    step : str or callable
        Step of :func:`skdiffusion.diffusion.solve.solve`.
    cells_per_batch : int
        Most (cells times draws) denoised in one call; memory grows with it, no result changes.
    windows_per_batch : int, default=64
        Most windows encoded and denoised in one call; no result changes.
    on_step : callable, optional
        Called with the share of the work done, for a progress bar.

    Returns
    -------
    draws : float32 tensor of shape (n_draws, n_wanted)
        In the order of ``torch.nonzero(series.wanted)``.
    """
    n_wanted = int(series.wanted.sum())
    out = torch.empty((n_draws, n_wanted), device=series.values.device)
    number = torch.full(series.wanted.shape, -1, device=out.device)
    number[series.wanted] = torch.arange(n_wanted, device=out.device)
    groups = _groups(series, stride, max(1, cells_per_batch // n_draws))
    prepared = model.prepare(series)
    for i, starts in enumerate(groups):
        limits = cells_per_batch // n_draws, windows_per_batch
        windows = _Windows(model, prepared, series, number, starts, n_draws, limits)
        report = (lambda share, i=i: on_step((i + share) / len(groups))) if on_step else None
        out[:, windows.cells] = windows.solve(noise, noise_levels, step, report)
    return out


def _groups(series, stride, most_cells):
    """Runs of windows that must be solved together, joined up to about ``most_cells`` cells."""
    starts = series.regular_starts(stride).to(series.values.device)
    wanted = series.wanted[series.rows(starts)].flatten(1).sum(1)
    starts, wanted = starts[wanted > 0], wanted[wanted > 0]
    by_row = torch.cat([torch.zeros(1, dtype=torch.int64), series.wanted.any(1).cpu().cumsum(0)])
    starts_list, wanted = starts.tolist(), wanted.tolist()
    groups, first, size = [], 0, 0
    for i, start in enumerate(starts_list):
        shares = (
            i > 0
            and start < starts_list[i - 1] + series.length
            and (by_row[starts_list[i - 1] + series.length] > by_row[start])
        )
        if not shares and size >= most_cells:
            groups.append(starts[first:i])
            first, size = i, 0
        size += wanted[i]
    return groups + [starts[first:]] if starts_list else []


class _Windows:
    """Encoded windows that share missing cells, in batches of similar size."""

    def __init__(self, model, prepared, series, number, starts, n_draws, limits):
        self.model, self.prepared, self.n_draws = model, prepared, n_draws
        rows = series.rows(starts)
        self.cells = torch.unique(number[rows][series.wanted[rows]])
        local = torch.zeros(int(number.max()) + 1, dtype=torch.int64, device=rows.device)
        local[self.cells] = torch.arange(len(self.cells), device=rows.device)
        self.batches = []
        weights = taper(series.length).to(rows.device)
        for batch in _batches(series, rows, *limits):
            self.batches.append(self._encode(series, rows[batch], number, local, weights))
        self._average_heads()

    def _encode(self, series, rows, number, local, weights):
        """Encode a batch of windows; say where its targets lie and how much they weigh."""
        wanted = series.wanted[rows]
        cells, pad = pick(wanted.flatten(1))
        context = self.model.encode(self.prepared, rows, cells, pad)
        place = local[number[rows].flatten(1).gather(1, cells).clamp(min=0)]
        weight = weights[cells // wanted.shape[2]].masked_fill(pad, 0.0)
        return context, place.masked_fill(pad, 0), weight

    def _average_heads(self):
        """One location and scale for each cell, averaged over its windows."""
        zero = torch.zeros(len(self.cells), device=self.cells.device)
        location, log_scale, self.weight = zero.clone(), zero.clone(), zero.clone()
        for context, place, weight in self.batches:
            add = lambda total, x: total.index_add_(0, place.flatten(), x.flatten())  # noqa: B023, E731
            add(self.weight, weight)
            add(location, weight * context.location)
            add(log_scale, weight * context.scale.log())
        self.location = location / self.weight
        self.scale = torch.exp(log_scale / self.weight)

    def solve(self, noise, noise_levels, step, report):
        """Draw the cells of this group."""
        fresh = lambda i: noise(self.cells, i)  # noqa: E731
        done = [0]

        def denoise(z, s):
            done[0] += 1
            if report:
                report(min(1.0, done[0] / (len(noise_levels) - 1)))
            return self._denoise(z, s)

        z = noise_levels[0] * fresh(0)
        z = solve(denoise, z, noise_levels, step=step, noise=lambda i: fresh(i + 1))
        return self.location + self.scale * z

    def _denoise(self, z, s):
        """Average the denoiser over the windows that share a cell."""
        total = torch.zeros_like(z)
        for context, place, weight in self.batches:
            answer = self.model.denoise(context, z[:, place].transpose(0, 1), s)
            answer = (answer * weight[:, None]).transpose(0, 1).flatten(1)
            total.index_add_(1, place.flatten(), answer)
        return total / self.weight


def _batches(series, rows, most_cells, most_windows):
    """Windows in batches of similar numbers of missing cells, so that little is padding."""

    def fits(count, smallest, largest):
        return count <= most_windows and count * largest <= most_cells

    counts = series.wanted[rows].flatten(1).sum(1).cpu()
    return [batch.to(rows.device) for batch in alike(counts, fits)]
