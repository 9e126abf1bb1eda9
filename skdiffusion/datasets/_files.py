"""Files of the datasets: shipped ones, downloaded ones and how their integrity is kept.

A download is written beside its final place, compared with the checksum known to the package and
only then renamed, so a file that exists under its final name is whole. The checksum is compared
again whenever the file is read.
"""

import hashlib
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.request import urlopen

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web and the SHA-256 digest of its content."""

    name: str
    url: str
    sha256: str


def description(name):
    """Text of ``descr/<name>.rst``."""
    folder = resources.files("skdiffusion.datasets") / "descr"
    return (folder / f"{name}.rst").read_text(encoding="utf-8")


def data_folder(data_home, name):
    """Folder of one dataset below ``data_home``, $SKDIFFUSION_DATA or ~/skdiffusion_data."""
    if data_home is not None and not isinstance(data_home, str | os.PathLike):
        raise TypeError(f"data_home={data_home!r} must be the path of a folder")
    home = data_home or os.environ.get("SKDIFFUSION_DATA") or Path("~") / "skdiffusion_data"
    return Path(home).expanduser() / name


def local_copy(remote, folder, download_if_missing=True):
    """Path of an intact copy of ``remote`` in ``folder``, downloaded first if need be."""
    path = folder / remote.name
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, but should be a file: move it away")
    for above in (folder, *folder.parents):
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(f"data_home leads to {above}, which is no folder")
    if not path.exists():
        if not download_if_missing:
            raise OSError(
                f"{path} not found; set download_if_missing=True, or download {remote.url} "
                "yourself and put it there"
            )
        _download(remote, path)
    found = _sha256(path)
    if found != remote.sha256:
        raise OSError(
            f"{path} is corrupt or not the original file: its SHA-256 is {found}, expected "
            f"{remote.sha256}; delete it and call again to download it anew"
        )
    return path


def _download(remote, path):
    """Write ``remote`` to ``path``, or leave nothing behind and raise."""
    logger.info("Downloading %s to %s", remote.url, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with _opened(remote, path) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target)
        found = _sha256(part)
        if found != remote.sha256:
            raise OSError(
                f"the download of {remote.url} for {path} is truncated or not the expected file: "
                f"{part.stat().st_size} bytes with SHA-256 {found}, expected {remote.sha256}; "
                "try again later, or put the original file there yourself"
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _opened(remote, path):
    """Open the address of ``remote``; say what to do when it cannot be reached."""
    try:
        return urlopen(remote.url, timeout=60)
    except OSError as error:
        raise OSError(
            f"could not download {remote.url}: {error}; check the connection, or put the file "
            f"at {path} yourself"
        ) from error


def _sha256(path):
    """Hexadecimal SHA-256 digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pandas_or_explain():
    """Import pandas, or say which parameter wants it."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("as_frame=True requires pandas: pip install pandas") from error
    return pandas


def hourly_frame(values, timestamps, columns):
    """DataFrame with an hourly DatetimeIndex named ``datetime``."""
    pandas = pandas_or_explain()
    index = pandas.DatetimeIndex(timestamps, freq="infer", name="datetime")
    return pandas.DataFrame(values, index=index, columns=columns)
