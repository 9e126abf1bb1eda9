"""Rows in chunks: the same answers as for all rows at once, lazily.

The noise of a row follows from its content, from how many equal rows stand before it and, in a
series, from its number. A chunk is told the last two (:class:`skdiffusion._random.Place`), so that
its draws are those that it has in the whole. Rows of a table need no other; a chunk of a series is
answered together with the rows around it.

What a chunk is told is found in one pass when the method is called, not lazily: a task that waits
for all chunks would keep all of them in memory.
"""

import functools
import inspect
import itertools

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion._random import Place, digest_starts, placed, row_digests, series_digest
from skdiffusion.estimators._tables import container_of
from skdiffusion.inputs.chunks import Chunks, computed, each_chunk, is_chunked, is_stream, sample_of

# Rows of which an answer is computed at once; chunks of so many, or multiples, are computed alike.
ROWS_OF_A_PIECE = 2**13
# Rows of a run of a series that a fit takes.
_RUN = 2048


def by_chunks(shape, rows, margin=None, frames=False, noisy=lambda estimator: True):
    """Decorate a method of a fitted estimator to take rows in chunks.

    Parameters
    ----------
    shape : callable
        ``shape(estimator, inner, arguments)`` gives the shape of the answer for a row, ``inner``
        being that of a row of X short of its columns.
    rows : callable
        ``rows(estimator, X)`` gives the rows on whose content noise depends, as the method has
        them.
    margin : callable, optional
        ``margin(estimator)`` gives the rows around a chunk that say something of it; None for
        rows that are independent.
    frames : bool, default=False
        Whether frames give frames.
    noisy : callable, optional
        ``noisy(estimator)`` says whether there is noise at all.
    """

    def decorate(method):
        @functools.wraps(method)
        def answer(self, X, *args, **options):
            if not (is_chunked(X) or is_stream(X)):
                return method(self, X, *args, **options)
            check_is_fitted(self)
            given = inspect.signature(method).bind(self, X, *args, **options)
            given.apply_defaults()
            options = dict(list(given.arguments.items())[2:])
            _require_none(options)
            _require_default_output(self)
            around = margin(self) if margin else None
            call = _Call(self, method.__name__, options, rows)
            if is_stream(X):
                return call.stream(X, around)
            chunks = Chunks.of(X, ROWS_OF_A_PIECE)
            of_frame = chunks.is_frame and frames
            inner = () if chunks.is_frame else chunks.source.shape[1:-1]
            meta = _like(self, chunks.source) if of_frame else None
            return call.lazily(chunks, around, meta, shape(self, inner, options), noisy(self))

        return answer

    return decorate


def fits_a_sample(most, in_runs=lambda estimator: False):
    """Decorate ``fit`` to take rows in chunks, of which it learns from some.

    Parameters
    ----------
    most : int
        Number of rows.
    in_runs : callable, optional
        ``in_runs(estimator)`` says whether the rows are those of one long series.
    """

    def decorate(fit):
        @functools.wraps(fit)
        def fit_some(self, X, y=None, *args, **options):
            if not (is_chunked(X) or is_stream(X)):
                return fit(self, X, y, *args, **options)
            _require_none({k: v for k, v in options.items() if k != "sample_weight"})
            if getattr(self, "panel_columns", None) is not None:
                raise ValueError(
                    "Panels cannot be read in chunks, which may cut a series: compute some series, "
                    "and fit to these."
                )
            series = in_runs(self)
            sample, places, n_rows = sample_of(X, most, _RUN if series else 1)
            if series and np.ndim(sample) == 2 and n_rows > len(places):
                sample = _runs(sample, places, self.window_length)
            y, *args = (_of_rows(v, places, n_rows) for v in (y, *args))
            options = {name: _of_rows(v, places, n_rows) for name, v in options.items()}
            return fit(self, sample, y, *args, **options)

        return fit_some

    return decorate


def chunk_by_chunk(partial_fit):
    """Decorate ``partial_fit`` to take rows in chunks, one after the other."""

    @functools.wraps(partial_fit)
    def fit_all(self, X, y=None, *args, **options):
        if not (is_chunked(X) or is_stream(X)):
            return partial_fit(self, X, y, *args, **options)
        _require_none(options | {"y": y})
        parts = (
            each_chunk(X) if is_stream(X) else (computed([part])[0] for part in Chunks.of(X).parts)
        )
        for part in parts:
            if len(part):
                partial_fit(self, part)
        return self

    return fit_all


class _Call:
    """A method of an estimator, to be called on chunks."""

    def __init__(self, estimator, method, options, rows):
        self.estimator, self.method, self.options, self.rows = estimator, method, options, rows

    def __call__(self, part, place, own=slice(None), empty=None):
        """Answer for one chunk, or for its own rows of those given."""
        if not len(part):
            return empty
        with placed(place):
            answer = getattr(self.estimator, self.method)(part, **self.options)
        if isinstance(answer, list):
            raise ValueError(
                f"{self.method} gives a list for tables with labels, which is no chunk: call it on "
                "each partition."
            )
        return answer[own]

    def digests(self, part):
        """What tells the rows of a chunk apart, and how often each is there."""
        rows = self._as_read(part) if len(part) else part
        if not len(rows):
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        return np.unique(digest_starts(row_digests(rows)), return_counts=True)

    def lazily(self, chunks, margin, meta, shape, noisy):
        """Answers of the chunks, computed when they are asked for."""
        import dask

        empty = np.empty((0, *shape)) if meta is None else meta
        call = dask.delayed(self)
        if margin is None:
            earlier = [{}] * len(chunks.parts)
            if noisy and len(earlier) > 1:
                found = [dask.delayed(_digests)(call, x, i) for i, x in enumerate(chunks.parts)]
                earlier = _earlier(computed(found))
            tasks = [
                dask.delayed(_table_chunk)(call, part, earlier[i], empty, i)
                for i, part in enumerate(chunks.parts)
            ]
            return chunks.joined(tasks, meta, shape)
        if chunks.is_frame or chunks.sizes is None:
            raise ValueError(
                "A series in chunks must be an array of Dask with known chunk sizes: take "
                "X.to_dask_array(lengths=True), or X.compute_chunk_sizes()."
            )
        # The noise of a series depends on all of it: one pass now, chunk by chunk.
        digest = series_digest(self._as_read(computed([part])[0]) for part in chunks.parts)
        runs = list(chunks.runs(margin))
        tasks = [
            dask.delayed(_series_chunk)(call, part, begin, size, Place({}, digest, first), i)
            for i, ((part, begin, first), size) in enumerate(zip(runs, chunks.sizes))
        ]
        return chunks.joined(tasks, meta, shape)

    def stream(self, X, margin):
        """Answers of chunks, one after the other."""
        if margin is not None:
            raise ValueError(
                "A long series cannot be answered in one pass, as its noise depends on all of it: "
                "pass a memory-mapped array or an array of Dask."
            )
        return self._stream(X)

    def _stream(self, X):
        seen = {}
        for number, part in enumerate(each_chunk(X)):
            starts, counts = self.digests(part)
            earlier = {s: seen[s] for s in map(int, starts) if s in seen}
            for start, count in zip(map(int, starts), map(int, counts)):
                seen[start] = seen.get(start, 0) + count
            if len(part):
                yield _named(number, self, part, Place(earlier))

    def _as_read(self, part):
        """The rows of a chunk as the method has them."""
        return self.rows(self.estimator, part)


def _digests(call, part, number):
    return _named(number, call.digests, part)


def _table_chunk(call, part, earlier, empty, number):
    """Answer for one chunk of independent rows."""
    return _named(number, call, part, Place(earlier), slice(None), empty)


def _series_chunk(call, part, begin, size, place, number):
    """Answer for one chunk of a series, which comes with the rows around it."""
    return _named(number, call, part, place, slice(begin, begin + size))


def _named(number, call, *args):
    """Call, and say of which chunk an error is."""
    try:
        return call(*args)
    except (ValueError, TypeError) as error:
        raise type(error)(f"Chunk {number} of X: {error}") from error


def _earlier(found):
    """For every chunk, how often its rows stand in the chunks before it."""
    starts = np.concatenate([s for s, _ in found])
    order = np.argsort(starts, kind="stable")
    same = np.zeros(len(starts), dtype=bool)
    equal = starts[order[1:]] == starts[order[:-1]]
    same[order[1:]] |= equal
    same[order[:-1]] |= equal
    seen, answers, at = {}, [], 0
    for values, counts in found:
        again = same[at : at + len(values)]
        at += len(values)
        pairs = list(zip(values[again].tolist(), counts[again].tolist()))
        answers.append({value: seen[value] for value, _ in pairs if value in seen})
        for value, count in pairs:
            seen[value] = seen.get(value, 0) + count
    return answers


def _like(estimator, frame):
    """A frame without rows like those that ``transform`` returns."""
    import pandas as pd

    known = frame.dtypes.to_dict()
    names = estimator.get_feature_names_out()
    return pd.DataFrame({name: pd.Series(dtype=known.get(name, float)) for name in names})


def _require_default_output(estimator):
    """Refuse containers that only rows in memory have."""
    if container_of(estimator) != "default":
        raise ValueError(
            'X in chunks gives arrays, or frames for frames: call set_output(transform="default").'
        )


def _require_none(options):
    """Refuse what stands beside X."""
    for name in ("y", "timestamps", "sample_weight"):
        if options.get(name) is not None:
            raise ValueError(f"{name} cannot be given with X in chunks: leave it out.")


def _of_rows(values, places, n_rows):
    """What stands beside the chosen rows."""
    if values is None:
        return None
    values = np.asarray(values)
    if len(values) != n_rows:
        raise ValueError(f"X has {n_rows} rows, but what stands beside it has {len(values)}.")
    return values[places]


def _runs(sample, places, length):
    """Rows of a series as a list of its runs, short of those that fill no window."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    bounds = [0, *breaks.tolist(), len(places)]
    cut = sample.iloc if hasattr(sample, "iloc") else sample
    runs = [cut[a:b] for a, b in itertools.pairwise(bounds)]
    return [run for run in runs if len(run) >= length]
