"""Files: what they look like, how they are written whole or not at all, how they are checked.

A file is a mark of 8 bytes, the SHA-256 of all that follows, the lengths of header and arrays as
two numbers of 64 bits, the header in JSON, and the arrays as a safetensors file.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import struct

from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes

_MARK = b"skdiff\r\n"
_DIGEST, _LENGTHS = hashlib.sha256().digest_size, struct.Struct("<QQ")
_PREFIX = len(_MARK) + _DIGEST
_HASHED_AT_ONCE = 2**24


class ModelFileError(ValueError):
    """A file is damaged, is no file of a model, or holds what is not read.

    Examples
    --------
    >>> import pathlib, skdiffusion, tempfile
    >>> from skdiffusion.persistence import ModelFileError
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model")
    >>> _ = path.write_text("something else")
    >>> try:
    ...     skdiffusion.load(path)
    ... except ModelFileError as error:
    ...     print("no model" in str(error))
    True
    """


def file_bytes(header, tensors):
    """The bytes of a file.

    Parameters
    ----------
    header : dict
        What JSON can hold.
    tensors : dict of str to ndarray
        Arrays without gaps.

    Returns
    -------
    parts : list of bytes
        What is to be written, one after the other.
    """
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    arrays = tensor_bytes(tensors)
    rest = [_LENGTHS.pack(len(text), len(arrays)), text, arrays]
    digest = hashlib.sha256()
    for part in rest:
        digest.update(part)
    return [_MARK, digest.digest(), *rest]


def read_file(path):
    """Header and arrays of a file that is whole.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    header : dict
        Its header.
    tensors : dict of str to ndarray
        Its arrays.

    Raises
    ------
    ModelFileError
        If it is no file of a model, is cut off or was changed.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("it is no regular file")
        if file.read(len(_MARK)) != _MARK:
            raise ModelFileError("it holds no model of skdiffusion: it was not written by save()")
        digest, lengths = file.read(_DIGEST), file.read(_LENGTHS.size)
        sizes = _LENGTHS.unpack(lengths) if len(lengths) == _LENGTHS.size else None
        if sizes is None or _PREFIX + _LENGTHS.size + sum(sizes) != status.st_size:
            raise ModelFileError("its length is wrong, as after a download that was cut off")
        file.seek(_PREFIX)
        if _digest_of(file) != digest:
            raise ModelFileError("its checksum is wrong: it was damaged or changed")
        file.seek(_PREFIX + _LENGTHS.size)
        text, arrays = file.read(sizes[0]), file.read(sizes[1])
    return json.loads(text), read_tensors(arrays)


def _digest_of(file):
    digest = hashlib.sha256()
    while part := file.read(_HASHED_AT_ONCE):
        digest.update(part)
    return digest.digest()


def write_file(path, parts):
    """Write a file whole, or leave what was there.

    Parameters
    ----------
    path : str or path-like
        The file.
    parts : list of bytes
        What is to be written.

    Raises
    ------
    OSError
        If there is no space, or the folder cannot be written to.
    """
    # What a link leads to is replaced, not the link.
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(beside, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            size = sum(map(len, parts)) / 1e6
            raise OSError(
                error.errno, f"no space: {size:.1f} MB are needed; what was there is kept", path
            ) from error
        raise
    _sync_folder(folder)


def _sync_folder(folder):
    """Have the new name reach the disk, where a system lets folders be opened."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(number)
    os.close(number)
