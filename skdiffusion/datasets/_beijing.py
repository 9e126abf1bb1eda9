"""Beijing Multi-Site Air Quality: download and parse."""

import csv
import io
import zipfile
from pathlib import PurePosixPath

import numpy as np
from sklearn.utils import Bunch

from skdiffusion.datasets._files import (
    RemoteFile,
    data_folder,
    description,
    hourly_frame,
    local_copy,
    pandas_or_explain,
)

# The archive served today wraps the second one, which was served earlier.
_ARCHIVES = (
    RemoteFile(
        name="beijing+multi+site+air+quality+data.zip",
        url="https://archive.ics.uci.edu/static/public/501/beijing+multi+site+air+quality+data.zip",
        sha256="b04da438b2f331ac0ffd45aebdfec0d20d2367feb5f6948c4b1f7ce1191e33c4",
    ),
    RemoteFile(
        name="PRSA2017_Data_20130301-20170228.zip",
        url="https://archive.ics.uci.edu/ml/machine-learning-databases/00501/"
        "PRSA2017_Data_20130301-20170228.zip",
        sha256="d1b9261c54132f04c374f762f1e5e512af19f95c95fd6bfa1e8ac7e927e3b0b8",
    ),
)
# fmt: off
_VARIABLES = (
    "PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "wd", "WSPM",
)
_COMPASS = (
    "N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW",
    "NNW",
)
# fmt: on
_DEGREES = {point: 22.5 * k for k, point in enumerate(_COMPASS)}


def fetch_beijing_air_quality(
    *,
    variable="PM2.5",
    start=None,
    end=None,
    data_home=None,
    download_if_missing=True,
    as_frame=False,
):
    """Load four years of hourly air quality at 12 stations in Beijing, downloading if necessary.

    Parameters
    ----------
    variable : str or None, default="PM2.5"
        One of "PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "wd" and
        "WSPM": its series at the 12 stations side by side. None: all variables as a panel with
        one sample for each station.
    start, end : str or datetime-like, default=None
        First and last time of the period, both included, to the precision they are written in:
        ``start="2016-03", end="2017-02"`` is one year, the whole of February 2017 included.
        None means from the first and to the last hour.
    data_home : str or path-like, default=None
        Folder of downloaded datasets. None means the environment variable
        ``SKDIFFUSION_DATA``, or ``~/skdiffusion_data`` where it is not set. A copy of the
        archive (8 MB) in its subfolder ``beijing_air_quality`` is used without network, either
        as served today (``beijing+multi+site+air+quality+data.zip``) or as served earlier
        (``PRSA2017_Data_20130301-20170228.zip``).
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading.
    as_frame : bool, default=False
        If True, ``data`` is a pandas DataFrame.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        data : ndarray or DataFrame
            NaN where missing. Shape (n_times, 12), the stations as columns, for one variable;
            (12, n_times, 12), stations by times by variables, for ``variable=None``. As a frame
            with an hourly DatetimeIndex, or indexed by station and time.
        feature_names : list of str
            Stations for one variable, variables for ``variable=None``.
        station_names : list of str
            Names of the stations in alphabetical order.
        timestamps : ndarray of shape (n_times,), dtype datetime64[s]
            Hours of the clock of the source, without a time-zone label.
        frame : DataFrame
            The same as ``data``; only present with ``as_frame=True``.
        DESCR : str
            Description, units, source and licence.
        filename : str
            Path of the downloaded archive.

    Raises
    ------
    OSError
        If the archive is absent and may not or cannot be downloaded, or if its SHA-256 checksum
        is not the one of the original file.
    ValueError
        If ``variable`` is unknown or no hour lies between ``start`` and ``end``.

    Examples
    --------
    >>> from skdiffusion.datasets import fetch_beijing_air_quality
    >>> air = fetch_beijing_air_quality(start="2016-03", end="2017-02")  # doctest: +SKIP
    >>> air.data.shape  # doctest: +SKIP
    (8760, 12)
    """
    variables = _checked_variables(variable)
    folder = data_folder(data_home, "beijing_air_quality")
    present = (archive for archive in _ARCHIVES if (folder / archive.name).exists())
    path = local_copy(next(present, _ARCHIVES[0]), folder, download_if_missing)
    stations, timestamps, panel = _read_archive(path, variables)
    inside = _in_period(timestamps, start, end)
    timestamps, panel = timestamps[inside], panel[:, inside]
    bunch = Bunch(
        data=panel if variable is None else panel[..., 0].T.copy(),
        feature_names=list(variables) if variable is None else list(stations),
        station_names=list(stations),
        timestamps=timestamps,
        DESCR=description("beijing_air_quality"),
        filename=str(path),
    )
    if as_frame:
        bunch.data = bunch.frame = _frame(bunch)
    return bunch


def _checked_variables(variable):
    """Variables to read, as a tuple."""
    if variable is None:
        return _VARIABLES
    if variable not in _VARIABLES:
        raise ValueError(f"variable must be None or one of {_VARIABLES}, got {variable!r}")
    return (variable,)


def _in_period(timestamps, start, end):
    """Which times lie in the period; the last unit written in ``end`` belongs to it."""
    inside = np.ones(len(timestamps), dtype=bool)
    if start is not None:
        inside &= timestamps >= _time(start, "start")
    if end is not None:
        inside &= timestamps < _time(end, "end") + 1
    if not inside.any():
        raise ValueError(
            f"no hour between start={start!r} and end={end!r}: the data run from "
            f"{timestamps[0]} to {timestamps[-1]}"
        )
    return inside


def _time(value, name):
    """Time of a parameter."""
    try:
        return np.datetime64(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r} must be a time such as '2016-03': {error}") from error


def _read_archive(path, variables):
    """Stations, hours and values of shape (n_stations, n_times, n_variables)."""
    with zipfile.ZipFile(path) as archive:
        tables = dict(_read_table(text, variables) for text in _station_files(archive))
    stations = sorted(tables)
    first = min(hours.min() for hours, _ in tables.values())
    last = max(hours.max() for hours, _ in tables.values())
    timestamps = np.arange(first, last + 1)
    panel = np.full((len(stations), len(timestamps), len(variables)), np.nan)
    for values, station in zip(panel, stations):
        hours, observed = tables[station]
        values[(hours - first).astype(int)] = observed
    return stations, timestamps.astype("datetime64[s]"), panel


def _station_files(archive):
    """Text of every station's file, also from archives inside the archive."""
    for name in archive.namelist():
        file = PurePosixPath(name)
        if file.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(archive.read(name))) as inner:
                yield from _station_files(inner)
        elif file.suffix == ".csv" and file.name.startswith("PRSA_Data_"):
            yield io.StringIO(archive.read(name).decode("utf-8"))


def _read_table(text, variables):
    """Station, hours and values of shape (n_rows, n_variables) of one file."""
    header, *rows = csv.reader(text)
    columns = dict(zip(header, zip(*rows)))
    values = np.column_stack([_numbers(columns[name]) for name in variables])
    return columns["station"][0], (_hours(columns), values)


def _numbers(column):
    """Column as floats: NA is missing, a compass point its angle."""
    missing_or_compass = {"NA": np.nan, **_DEGREES}
    return [missing_or_compass[c] if c in missing_or_compass else float(c) for c in column]


def _hours(columns):
    """Time of each row from its year, month, day and hour."""
    year, month, day, hour = (
        np.array(columns[unit]).astype(int) for unit in ("year", "month", "day", "hour")
    )
    months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    days = months.astype("datetime64[D]") + (day - 1)
    return days.astype("datetime64[h]") + hour


def _frame(bunch):
    """Times by stations, or stations and times by variables."""
    if bunch.data.ndim == 2:
        return hourly_frame(bunch.data, bunch.timestamps, bunch.feature_names)
    frames = (hourly_frame(x, bunch.timestamps, bunch.feature_names) for x in bunch.data)
    return pandas_or_explain().concat(dict(zip(bunch.station_names, frames)), names=["station"])
