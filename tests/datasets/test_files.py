"""Downloads: whole or not at all, and never trusted without their checksum."""

import hashlib

import pytest

from skdiffusion.datasets._files import RemoteFile, data_folder, local_copy

CONTENT = b"the original content"


@pytest.fixture
def remote(tmp_path):
    """A file on a server that is a folder."""
    source = tmp_path / "server" / "archive.zip"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    return RemoteFile("archive.zip", source.as_uri(), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "home" / "dataset"


def server_file(folder):
    return folder.parents[1] / "server" / "archive.zip"


def test_download_creates_the_folder_and_leaves_only_the_file(remote, folder):
    path = local_copy(remote, folder)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in folder.iterdir()] == ["archive.zip"]


def test_an_intact_copy_is_used_without_network(remote, folder):
    local_copy(remote, folder)
    server_file(folder).unlink()
    path = local_copy(remote, folder, download_if_missing=False)
    assert path.read_bytes() == CONTENT


def test_a_truncated_download_is_refused_and_removed(remote, folder):
    server_file(folder).write_bytes(CONTENT[:-3])
    with pytest.raises(OSError, match=r"archive.zip is truncated .* 17 bytes .* expected"):
        local_copy(remote, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-3], b"", b"X" + CONTENT[1:]])
def test_a_corrupt_copy_names_the_file_and_the_remedy(remote, folder, content):
    local_copy(remote, folder).write_bytes(content)
    with pytest.raises(OSError, match=r"home/dataset/archive.zip is corrupt .* delete it"):
        local_copy(remote, folder)


def test_absent_and_not_to_be_downloaded(remote, folder):
    with pytest.raises(OSError, match=r"archive.zip not found; set download_if_missing=True"):
        local_copy(remote, folder, download_if_missing=False)
    assert not folder.exists()


def test_an_unreachable_server_names_the_remedy(remote, folder):
    server_file(folder).unlink()
    with pytest.raises(OSError, match=r"could not download file:.* put the file at .*archive.zip"):
        local_copy(remote, folder)
    assert list(folder.iterdir()) == []


def test_folder_of_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("SKDIFFUSION_DATA", str(tmp_path / "elsewhere"))
    assert data_folder(None, "beijing") == tmp_path / "elsewhere" / "beijing"
    assert data_folder(tmp_path, "beijing") == tmp_path / "beijing"
    monkeypatch.delenv("SKDIFFUSION_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder(None, "beijing") == tmp_path / "skdiffusion_data" / "beijing"
