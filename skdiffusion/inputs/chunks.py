"""Rows in chunks: arrays and frames of Dask, paths of files that Dask opens, streams of chunks.

All are read as :class:`Chunks`, a list of delayed parts. Dask is imported where it is used.
"""

import os
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Constants of SplitMix64.
_GOLDEN, _MIX = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def is_chunked(X):
    """Whether ``X`` is a collection of Dask, or a path of a file that Dask opens."""
    # Arrays of xarray have the methods of a collection, too, but are read as frames.
    return isinstance(X, (str, os.PathLike)) or type(X).__module__.split(".")[0] == "dask"


def is_stream(X):
    """Whether ``X`` gives chunks one after the other, once."""
    return isinstance(X, Iterator)


def each_chunk(X):
    """Chunks of a stream, one after the other; each must be an array or a frame of rows."""
    for number, part in enumerate(X):
        if len(getattr(part, "shape", ())) < 2:
            raise ValueError(
                f"Chunk {number} of X is {part!r:.60}: an iterator must give arrays or frames of "
                "shape (n_rows, n_features)."
            )
        yield part


@dataclass(frozen=True)
class Chunks:
    """Rows in chunks.

    Attributes
    ----------
    parts : list of Delayed
        The chunks, arrays or frames.
    sizes : list of int or None
        Their numbers of rows, if known.
    source : dask array or frame
        What they are parts of.
    """

    parts: list
    sizes: list | None
    source: object

    @classmethod
    def of(cls, X, multiple=1):
        """Read ``X``; arrays are cut anew where their chunks are no multiples of some rows."""
        X = opened(X)
        if hasattr(X, "to_dask_array"):
            return cls(list(np.ravel(X.to_delayed())), None, X)
        if not hasattr(X, "chunks") or X.ndim < 2:
            raise ValueError(
                "X must be an array of Dask of two dimensions or more, or a DataFrame of Dask."
            )
        known = not np.isnan(np.array(X.chunks[0], dtype=float)).any()
        rows = X.chunks[0]
        if known and any(size % multiple for size in rows[:-1]):
            rows = max(1, round(np.mean(rows) / multiple)) * multiple
        X = X.rechunk({0: rows, **dict.fromkeys(range(1, X.ndim), -1)})
        return cls(list(X.to_delayed().ravel()), list(X.chunks[0]) if known else None, X)

    @property
    def is_frame(self):
        """Whether the chunks are frames."""
        return hasattr(self.source, "to_dask_array")

    def counted(self):
        """The numbers of rows of the chunks, computed where they are not known."""
        if self.sizes is not None:
            return self.sizes
        import dask

        return list(computed([dask.delayed(len)(part) for part in self.parts]))

    def runs(self, margin):
        """Every chunk with the rows around it, where it begins in these, and their first row."""
        ends = np.cumsum(self.sizes)
        for end, size in zip(ends.tolist(), self.sizes):
            first = max(0, end - size - margin)
            part = self.source[first : end + margin]
            (part,) = part.rechunk(part.shape).to_delayed().ravel()
            yield part, end - size - first, first

    def joined(self, parts, meta, shape):
        """Delayed answers as one frame like ``meta``, or as one array of rows of a shape."""
        if meta is not None:
            import dask.dataframe as dd

            return dd.from_delayed(
                parts, meta=meta, divisions=self.source.divisions, verify_meta=False
            )
        import dask.array as da

        sizes = self.sizes or [np.nan] * len(parts)
        empty = np.empty((0,) * (1 + len(shape)))
        arrays = [da.from_delayed(x, (n, *shape), meta=empty) for x, n in zip(parts, sizes)]
        return da.concatenate(arrays, allow_unknown_chunksizes=True)


def opened(X):
    """The collection of Dask behind a path of a zarr or parquet file; others as they are."""
    if not isinstance(X, (str, os.PathLike)):
        return X
    path = os.fspath(X)
    end = path.rstrip("/").rpartition(".")[2]
    with _installed(path):
        if end == "zarr":
            import dask.array as da

            return da.from_zarr(path)
        if end in ("parquet", "pq"):
            import dask.dataframe as dd

            return dd.read_parquet(path)
    raise ValueError(
        f"X is the text {path!r}. A path must end with .zarr or .parquet; open other files first, "
        'for example by np.load(path, mmap_mode="r") or dask.dataframe.read_csv(path).'
    )


def computed(parts):
    """Compute delayed values; say so where the scheduler cannot be reached."""
    import dask

    try:
        return dask.compute(*parts)
    except (CancelledError, ConnectionError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise RuntimeError(
            "Dask did not finish: its scheduler or its workers are gone "
            f"({type(error).__name__}: {error}). Start a new Client, and call again."
        ) from error


@contextmanager
def _installed(path):
    """Say what to install where a library is missing."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{path!r} is opened by Dask, of which a part is missing ({error}): "
            'pip install "skdiffusion[scale]".'
        ) from error


def sample_of(X, most, run=1):
    """Rows of a large table or series, chosen by their number alone.

    Rows come in runs; those runs are taken whose numbers have the smallest hashes. What is chosen
    does not depend on how the rows are cut into chunks.

    Parameters
    ----------
    X : collection of Dask, path or iterator of chunks
        The rows.
    most : int
        Largest number of rows; with so many or fewer, all.
    run : int, default=1
        Rows of a run.

    Returns
    -------
    rows : ndarray or DataFrame
        Chosen rows in their order.
    places : int64 ndarray of shape (n_chosen,)
        Their numbers.
    n_rows : int
        Number of all rows.
    """
    if is_stream(X):
        return _sample_of_stream(X, most, run)
    import dask

    chunks = Chunks.of(X)
    sizes = chunks.counted()
    n_rows = int(sum(sizes))
    if n_rows == 0:
        raise ValueError("X has 0 rows.")
    n_runs = -(-n_rows // run)
    below = np.uint64(2**64 - 1)
    if n_rows > most:
        # The hashes of so many runs, in memory of 8 bytes each.
        below = np.partition(_hash(np.arange(n_runs)), most // run)[most // run]
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    chosen = [
        dask.delayed(_chosen)(part, first, run, below) for part, first in zip(chunks.parts, firsts)
    ]
    found = [one for one in computed(chosen) if len(one[1])]
    return _joined([x for x, _ in found]), np.concatenate([at for _, at in found]), n_rows


def _sample_of_stream(X, most, run):
    """The same of chunks that come once."""
    kept, places, n_rows, below = [], np.empty(0, dtype=np.int64), 0, np.uint64(2**64 - 1)
    for part in each_chunk(X):
        rows, at = _chosen(part, n_rows, run, below)
        n_rows += len(part)
        kept, places = [*kept, rows], np.concatenate([places, at])
        # Cut in batches: every cut copies all that is kept.
        if len(places) > 1.5 * most:
            kept, places, limit = _cut(kept, places, most, run)
            below = min(below, limit)
    if n_rows == 0:
        raise ValueError("X has no chunk with rows.")
    if n_rows > most:
        kept, places, _ = _cut(kept, places, most, run)
    return _joined(kept), places, n_rows


def _cut(kept, places, most, run):
    """The rows of the runs with the smallest hashes, and the first hash that is too large."""
    hashes = _hash(places // run)
    sizes = np.unique(hashes)
    below = sizes[most // run] if len(sizes) > most // run else np.uint64(2**64 - 1)
    chosen = hashes < below
    return [_taken(_joined(kept), chosen)], places[chosen], below


def _chosen(part, first, run, below):
    """Rows of a chunk whose run has a small hash, and their numbers."""
    places = first + np.arange(len(part))
    chosen = _hash(places // run) < below
    return _taken(part, chosen), places[chosen]


def _taken(rows, chosen):
    return rows[chosen] if isinstance(rows, np.ndarray) else rows.loc[chosen]


def _joined(parts):
    """Arrays or frames one below the other."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    import pandas as pd

    wrong = [list(x.columns) for x in parts if list(x.columns) != list(parts[0].columns)]
    if wrong:
        raise ValueError(
            f"Chunks of X have other columns: {list(parts[0].columns)} and {wrong[0]}; select and "
            "order the columns of every chunk alike."
        )
    return pd.concat(parts)


def _hash(numbers):
    """SplitMix64 of numbers, as uint64."""
    with np.errstate(over="ignore"):
        x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX[0])
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX[1])
    return x ^ (x >> np.uint64(31))
