"""PhysioNet 2012: the parser on archives of the original layout."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from skdiffusion.datasets import _physionet2012, fetch_physionet2012
from skdiffusion.datasets._files import RemoteFile

HEADER = """Time,Parameter,Value
00:00,RecordID,{number}
00:00,Age,54
00:00,Gender,0
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,-1
"""

RECORDS = {
    132540: "00:07,HR,73\n00:37,HR,77\n00:42,pH,7.4\n47:59,Urine,60\n48:00,Urine,999\n",
    132539: "10:59,GCS,15\n11:00,GCS,14\n23:10,Temp,-17.8\n23:10,MechVent,1\n23:10,,5\n",
    140501: "",
}


def write_archive(path, records):
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(folder_entry("./set-a"))
        for number, lines in records.items():
            content = (HEADER.format(number=number) + lines).encode()
            entry = tarfile.TarInfo(f"./set-a/{number}.txt")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def folder_entry(name):
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    return entry


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve records from a folder as if they were the original archive."""

    def _serve(records):
        source = tmp_path / "set-a.tar.gz"
        write_archive(source, records)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        remote = RemoteFile("set-a.tar.gz", source.as_uri(), digest)
        monkeypatch.setattr(_physionet2012, "_ARCHIVE", remote)
        return tmp_path / "home"

    return _serve


def expected_value(icu, number, hour, feature):
    sample = list(icu.patient_id).index(number)
    return icu.data[sample, hour, icu.feature_names.index(feature)]


def test_layout_hours_and_last_values(serve):
    icu = fetch_physionet2012(data_home=serve(RECORDS))
    assert icu.data.shape == (3, 48, 35)
    np.testing.assert_array_equal(icu.patient_id, [132539, 132540, 140501])
    assert expected_value(icu, 132540, 0, "HR") == 77
    assert expected_value(icu, 132540, 0, "pH") == 7.4
    assert expected_value(icu, 132540, 47, "Urine") == 60
    assert expected_value(icu, 132539, 10, "GCS") == 15
    assert expected_value(icu, 132539, 11, "GCS") == 14
    assert expected_value(icu, 132539, 23, "Temp") == -17.8
    assert np.count_nonzero(~np.isnan(icu.data)) == 6


def test_as_frame_is_indexed_by_stay_and_hour(serve):
    pytest.importorskip("pandas")
    icu = fetch_physionet2012(data_home=serve(RECORDS), as_frame=True)
    assert icu.frame is icu.data
    assert icu.frame.shape == (3 * 48, 35)
    assert icu.frame.loc[(132540, 0), "HR"] == 77
    assert list(icu.frame.index.names) == ["patient_id", "hour"]


def test_a_downloaded_copy_needs_no_server(serve, tmp_path):
    home = serve(RECORDS)
    first = fetch_physionet2012(data_home=home)
    (tmp_path / "set-a.tar.gz").unlink()
    second = fetch_physionet2012(data_home=home, download_if_missing=False)
    np.testing.assert_array_equal(first.data, second.data)


def test_a_truncated_copy_is_named(serve):
    home = serve(RECORDS)
    path = home / "physionet2012" / "set-a.tar.gz"
    fetch_physionet2012(data_home=home)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OSError, match=r"set-a.tar.gz is corrupt .* delete it"):
        fetch_physionet2012(data_home=home)


def test_features_and_values_of_the_published_preprocessing(serve, research_data):
    """Stays of the published arrays, written in the original format and read back."""
    reference = np.load(research_data / "physionet2012_set_a.npz")
    names = list(reference["attributes"])
    values, numbers = reference["values"][:20], reference["patient_id"][:20]
    icu = fetch_physionet2012(data_home=serve(dict(zip(numbers, map(as_lines(names), values)))))
    assert icu.feature_names == names
    np.testing.assert_array_equal(icu.patient_id, numbers)
    np.testing.assert_array_equal(icu.data.astype(np.float32), values)


def as_lines(names):
    def lines(stay):
        cells = np.argwhere(~np.isnan(stay))
        return "".join(f"{t:02d}:30,{names[k]},{stay[t, k]!s}\n" for t, k in cells)

    return lines
