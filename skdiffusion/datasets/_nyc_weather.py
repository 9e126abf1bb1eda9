"""The weather series shipped with the package."""

import csv
import gzip
from importlib import resources

import numpy as np
from sklearn.utils import Bunch

from skdiffusion.datasets._files import description, hourly_frame

_FILE = "nyc_weather_3airports_2013.csv.gz"


def load_nyc_weather(*, as_frame=False):
    """Load the hourly weather of 2013 at the three airports of New York City.

    One series of 8730 hours and 18 columns with natural gaps: 10.7 % of the pressures and 0.3 %
    of the other cells are missing. It is shipped with the package (CC0). One physically
    impossible wind speed of the source (1048 mph) is marked missing.

    Parameters
    ----------
    as_frame : bool, default=False
        If True, ``data`` is a pandas DataFrame with an hourly DatetimeIndex.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        data : ndarray of shape (8730, 18) or DataFrame
            Temperature and dew point (°F), humidity (%), wind speed (mph), pressure (mbar) and
            visibility (miles) at each airport; NaN where missing.
        feature_names : list of str
            Names of the columns, ``<airport>_<quantity>``.
        timestamps : ndarray of shape (8730,), dtype datetime64[s]
            Hours in UTC, without a time-zone label.
        frame : DataFrame
            The same as ``data``; only present with ``as_frame=True``.
        DESCR : str
            Description, source and licence.
        filename : str
            Path of the file.

    Examples
    --------
    >>> from skdiffusion.datasets import load_nyc_weather
    >>> weather = load_nyc_weather()
    >>> weather.data.shape
    (8730, 18)
    >>> weather.feature_names[:2]
    ['EWR_temp', 'EWR_dewp']
    """
    path = resources.files("skdiffusion.datasets") / "data" / _FILE
    with path.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as text:
        header, *rows = csv.reader(text)
    timestamps = np.array([row[0] for row in rows], dtype="datetime64[s]")
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])
    bunch = Bunch(
        data=values,
        feature_names=header[1:],
        timestamps=timestamps,
        DESCR=description("nyc_weather"),
        filename=str(path),
    )
    if as_frame:
        bunch.data = bunch.frame = hourly_frame(values, timestamps, header[1:])
    return bunch
