"""Beijing air quality: the parser on archives of the original layouts."""

import hashlib
import io
import zipfile

import numpy as np
import pytest

from skdiffusion.datasets import _beijing, fetch_beijing_air_quality
from skdiffusion.datasets._files import RemoteFile

HEADER = (
    '"No","year","month","day","hour","PM2.5","PM10","SO2","NO2","CO","O3","TEMP","PRES","DEWP",'
    '"RAIN","wd","WSPM","station"\n'
)
OUTER, INNER = "beijing+multi+site+air+quality+data.zip", "PRSA2017_Data_20130301-20170228.zip"
STATIONS = ("Wanliu", "Aotizhongxin", "Dongsi")  # not in alphabetical order, as in no archive


def station_file(offset):
    """Three days over the end of a month; PM2.5 counts the hours from the station's offset."""
    lines = []
    for k in range(72):
        time = np.datetime64("2013-02-27T00") + k
        date, hour = str(time).split("T")
        stamp = ",".join(str(int(part)) for part in date.split("-")) + f",{int(hour)}"
        pm25 = "NA" if k == 5 else offset + k
        wind = '"NNW"' if k % 2 else "NA"
        lines.append(f'{k + 1},{stamp},{pm25},8,4,7,300,77,-0.7,1023,-18.8,0,{wind},4.4,"{{}}"\n')
    return HEADER + "".join(lines)


def inner_archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, station in enumerate(STATIONS):
            name = f"PRSA_Data_20130301-20170228/PRSA_Data_{station}_20130301-20170228.csv"
            archive.writestr(name, station_file(100 * index).replace("{}", station))
    return stream.getvalue()


def outer_archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.csv", "unrelated,example\n1,2\n")
        archive.writestr(INNER, inner_archive())
    return stream.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Serve both layouts from a folder; return an empty data home."""
    contents = {OUTER: outer_archive(), INNER: inner_archive()}
    server = tmp_path / "server"
    server.mkdir()
    for name, content in contents.items():
        (server / name).write_bytes(content)
    remotes = [
        RemoteFile(name, (server / name).as_uri(), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    ]
    monkeypatch.setattr(_beijing, "_ARCHIVES", tuple(remotes))
    return tmp_path / "home"


def test_one_variable_is_wide(home):
    air = fetch_beijing_air_quality(data_home=home)
    assert air.feature_names == air.station_names == ["Aotizhongxin", "Dongsi", "Wanliu"]
    expected = np.arange(72.0)[:, None] + [100, 200, 0]
    expected[5] = np.nan
    np.testing.assert_array_equal(air.data, expected)
    assert air.timestamps[0] == np.datetime64("2013-02-27T00:00")
    assert air.timestamps[-1] == np.datetime64("2013-03-01T23:00")
    assert air.filename.endswith(OUTER)


def test_all_variables_are_a_panel(home):
    air = fetch_beijing_air_quality(variable=None, data_home=home)
    assert air.data.shape == (3, 72, 12)
    assert air.feature_names[0] == "PM2.5"
    assert air.feature_names[-2:] == ["wd", "WSPM"]
    np.testing.assert_array_equal(
        air.data[1, 1], [201, 8, 4, 7, 300, 77, -0.7, 1023, -18.8, 0, 337.5, 4.4]
    )
    assert np.isnan(air.data[:, ::2, 10]).all()


def test_compass_points_are_angles(home):
    degrees = _beijing._DEGREES
    assert (degrees["N"], degrees["E"], degrees["S"], degrees["W"]) == (0, 90, 180, 270)
    assert degrees["SSW"] == 202.5
    assert len(degrees) == 16


@pytest.mark.parametrize(
    ("start", "end", "n_hours"),
    [
        (None, "2013-02", 48),
        ("2013-03", None, 24),
        ("2013-02-28", "2013-02-28", 24),
        ("2013-02-28T05", "2013-02-28T07", 3),
        (np.datetime64("2013-03-01T22:00"), None, 2),
    ],
)
def test_the_period_includes_both_ends(home, start, end, n_hours):
    air = fetch_beijing_air_quality(start=start, end=end, data_home=home)
    assert len(air.timestamps) == len(air.data) == n_hours


def test_frames(home):
    pandas = pytest.importorskip("pandas")
    wide = fetch_beijing_air_quality(data_home=home, as_frame=True)
    assert wide.data is wide.frame
    assert wide.frame.loc["2013-03-01 00:00", "Dongsi"] == 248
    long = fetch_beijing_air_quality(variable=None, data_home=home, as_frame=True)
    assert long.frame.shape == (3 * 72, 12)
    assert long.frame.loc[("Wanliu", pandas.Timestamp("2013-02-27 01:00")), "wd"] == 337.5


def test_both_downloaded_layouts_are_read_without_network(home):
    expected = fetch_beijing_air_quality(data_home=home).data
    folder = home / "beijing_air_quality"
    (folder / OUTER).unlink()
    (folder / INNER).write_bytes(inner_archive_on(home))
    air = fetch_beijing_air_quality(data_home=home, download_if_missing=False)
    np.testing.assert_array_equal(air.data, expected)
    assert air.filename.endswith(INNER)


def inner_archive_on(home):
    return (home.parent / "server" / INNER).read_bytes()


def test_a_corrupt_copy_is_named(home):
    fetch_beijing_air_quality(data_home=home)
    (home / "beijing_air_quality" / OUTER).write_bytes(b"<html>please log in</html>")
    with pytest.raises(OSError, match=r"data.zip is corrupt or not the original .* delete it"):
        fetch_beijing_air_quality(data_home=home)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "PM1"}, "variable must be None or one of"),
        ({"start": "2018"}, "no hour between start='2018'"),
    ],
)
def test_wrong_parameters_are_named(home, options, message):
    with pytest.raises(ValueError, match=message):
        fetch_beijing_air_quality(data_home=home, **options)
