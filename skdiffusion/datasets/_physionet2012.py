"""PhysioNet Challenge 2012, set A: download and parse."""

import tarfile
from pathlib import PurePosixPath

import numpy as np
from sklearn.utils import Bunch

from skdiffusion.datasets._files import (
    RemoteFile,
    data_folder,
    description,
    local_copy,
    pandas_or_explain,
)

_ARCHIVE = RemoteFile(
    name="set-a.tar.gz",
    url="https://physionet.org/files/challenge-2012/1.0.0/set-a.tar.gz",
    sha256="8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920",
)
_N_HOURS = 48
# Features and order of the CSDI paper, so that published weights and splits fit.
# fmt: off
_FEATURES = (
    "DiasABP", "HR", "Na", "Lactate", "NIDiasABP", "PaO2", "WBC", "pH", "Albumin", "ALT",
    "Glucose", "SaO2", "Temp", "AST", "Bilirubin", "HCO3", "BUN", "RespRate", "Mg", "HCT",
    "SysABP", "FiO2", "K", "GCS", "Cholesterol", "NISysABP", "TroponinT", "MAP", "TroponinI",
    "PaCO2", "Platelets", "Urine", "NIMAP", "Creatinine", "ALP",
)


def fetch_physionet2012(*, data_home=None, download_if_missing=True, as_frame=False):
    """Load set A of the PhysioNet Challenge 2012 (intensive care), downloading it if necessary.

    A panel of 4000 stays, 48 hours and 35 measured quantities, 80.5 % of the cells missing.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder of downloaded datasets. None means the environment variable
        ``SKDIFFUSION_DATA``, or ``~/skdiffusion_data`` where it is not set. A copy of
        ``set-a.tar.gz`` (6.6 MB) in its subfolder ``physionet2012`` is used without network.
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading.
    as_frame : bool, default=False
        If True, ``data`` is a pandas DataFrame with one row for each stay and hour.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes

        data : ndarray of shape (4000, 48, 35) or DataFrame of shape (192000, 35)
            Measured values in the units of the source; NaN where missing.
        feature_names : list of str
            Names of the measured quantities.
        patient_id : ndarray of shape (4000,)
            Record numbers, increasing.
        frame : DataFrame
            The same as ``data``, indexed by ``patient_id`` and ``hour``; only present with
            ``as_frame=True``.
        DESCR : str
            Description, source and licence.
        filename : str
            Path of the downloaded archive.

    Raises
    ------
    OSError
        If the archive is absent and may not or cannot be downloaded, or if its SHA-256 checksum
        is not the one of the original file.

    Notes
    -----
    A value belongs to the hour in front of the colon of its time stamp, the last value of an hour
    counts, values at hour 48 are left out and outliers are kept, as in the CSDI paper.

    Examples
    --------
    >>> from skdiffusion.datasets import fetch_physionet2012
    >>> icu = fetch_physionet2012()  # doctest: +SKIP
    >>> icu.data.shape  # doctest: +SKIP
    (4000, 48, 35)
    """
    folder = data_folder(data_home, "physionet2012")
    path = local_copy(_ARCHIVE, folder, download_if_missing)
    patient_id, values = _read_archive(path)
    bunch = Bunch(
        data=values,
        feature_names=list(_FEATURES),
        patient_id=patient_id,
        DESCR=description("physionet2012"),
        filename=str(path),
    )
    if as_frame:
        bunch.data = bunch.frame = _long_frame(patient_id, values)
    return bunch




def _read_archive(path):
    """Record numbers and values of all stays, in the order of the numbers."""
    records = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and name.suffix == ".txt" and name.stem.isdigit():
                lines = archive.extractfile(member).read().decode().splitlines()
                records[int(name.stem)] = _read_record(lines[1:])
    patient_id = np.array(sorted(records))
    return patient_id, np.stack([records[number] for number in patient_id])


_COLUMN = {name: k for k, name in enumerate(_FEATURES)}


def _read_record(lines):
    """Hours by features of one stay from its lines ``hh:mm,parameter,value``."""
    values = np.full((_N_HOURS, len(_FEATURES)), np.nan)
    for line in lines:
        time, parameter, value = line.split(",")
        column, hour = _COLUMN.get(parameter), int(time.split(":")[0])
        if column is not None and hour < _N_HOURS:
            values[hour, column] = float(value)
    return values




def _long_frame(patient_id, values):
    """One row for each stay and hour."""
    pandas = pandas_or_explain()
    index = pandas.MultiIndex.from_product(
        [patient_id, range(_N_HOURS)], names=["patient_id", "hour"]
    )
    return pandas.DataFrame(values.reshape(-1, len(_FEATURES)), index=index, columns=_FEATURES)
