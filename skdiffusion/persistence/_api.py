"""Save an estimator to a file, and load it again."""

import os
import platform
from importlib.metadata import version

from skdiffusion._file import ModelFileError, file_bytes, read_file, write_file
from skdiffusion._version import __version__
from skdiffusion.persistence._arrays import ArrayStore
from skdiffusion.persistence._decode import Decoder
from skdiffusion.persistence._encode import Encoder

# Version of the format: it rises where older versions of this package could not read a file.
FORMAT = 1
_PACKAGES = ("numpy", "scikit-learn", "torch")


def save(estimator, path, overwrite=False):
    """Save an estimator, fitted or not, to a file that holds data and no code.

    Parameters
    ----------
    estimator : estimator
        An estimator of this package, alone, inside a :class:`~sklearn.pipeline.Pipeline` or
        :class:`~sklearn.compose.ColumnTransformer` of scikit-learn, or beside others in a list or
        dict. It is not changed.
    path : str or path-like
        The file. Its folder must be there.
    overwrite : bool, default=False
        Whether a file that is there may be replaced.

    Raises
    ------
    FileExistsError
        If there is a file, and ``overwrite`` is False.
    TypeError
        If a part cannot be written, such as a function or network of your own; it is named.
    OSError
        If there is no space. What was there is kept.

    See Also
    --------
    load : The way back.

    Notes
    -----
    The file has a header in JSON with types, parameters and versions, the arrays in the safetensors
    format [1]_, and a SHA-256 over all. It is written beside ``path``, synced and renamed: whatever
    happens, ``path`` holds the old file or the new one.

    References
    ----------
    .. [1] https://github.com/huggingface/safetensors

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import skdiffusion
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> model = skdiffusion.ScoreSDE(base="gaussian", max_iter=0, random_state=0).fit(X)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "density.skdiffusion")
    >>> skdiffusion.save(model, path)
    >>> again = skdiffusion.load(path)
    >>> bool((again.sample(3) == model.sample(3)).all())
    True
    """
    if isinstance(estimator, type):
        raise TypeError(f"estimator is the class {estimator.__name__}: save an instance of it.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"path={os.fspath(path)!r} is a folder: name a file in it.")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"path={os.fspath(path)!r} is there already: set overwrite=True to replace it."
        )
    store = ArrayStore()
    header = {"format": FORMAT, "skdiffusion": __version__, "made with": _versions()}
    header["content"] = Encoder(store).encode(estimator)
    write_file(path, file_bytes(header, store.tensors))


def load(path):
    """Load an estimator from a file written by :func:`save`.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : estimator
        As it was saved: draws, filled values and densities are the same. Where this machine lacks
        its ``device``, that becomes "auto", with a warning.

    Raises
    ------
    ModelFileError
        If the file is no model, is damaged, was written by a later format, or refers to what is not
        on the list of known types. A kind of :class:`ValueError`.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    save : The way there.

    Notes
    -----
    No pickle is read and no name from the file is imported: classes are looked up in a fixed list.
    A file of an earlier version of this package loads; one with estimators of another version of
    scikit-learn warns, as its pickles do.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import skdiffusion
    >>> path = pathlib.Path(tempfile.mkdtemp(), "imputer.skdiffusion")
    >>> skdiffusion.save(skdiffusion.CSDIImputer(window_length=24), path)
    >>> skdiffusion.load(path)
    CSDIImputer(window_length=24)
    """
    try:
        header, tensors = read_file(path)
        _require_known(header)
        return Decoder(ArrayStore(tensors)).decode(header["content"])
    except OSError:
        raise
    except MemoryError as error:
        size = os.path.getsize(path) / 1e6
        raise ModelFileError(
            f"{_name(path)} has {size:.0f} MB: too much for this memory."
        ) from error
    except ModelFileError as error:
        raise ModelFileError(f"{_name(path)} cannot be loaded: {error}.") from error.__cause__
    except Exception as error:
        raise ModelFileError(
            f"{_name(path)} cannot be loaded: it holds what no file of save() does "
            f"({type(error).__name__}: {error})."
        ) from error


def _require_known(header):
    """Refuse formats that this version does not know."""
    if isinstance(header, dict) and "checkpoint" in header:
        raise ModelFileError(
            "it is the checkpoint of a fit: go on by fit(..., checkpoint=path, resume=True)"
        )
    known = isinstance(header, dict) and isinstance(header.get("format"), int)
    if not known or header["format"] < 1:
        raise ModelFileError("its header is none")
    if header["format"] > FORMAT:
        raise ModelFileError(
            f"it has format {header['format']} of skdiffusion {header.get('skdiffusion')}, "
            f"but this is {__version__}, which reads up to {FORMAT}: install a later version"
        )


def _name(path):
    return f"The file {os.fspath(path)!r}"


def _versions():
    """What may matter to somebody who cannot load a file."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
