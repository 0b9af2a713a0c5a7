"""Sources of DICOM series: zip archives (from anyone), DICOMDIR, and folders with several series."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from medclipad.errors import VolumeError
from medclipad.volume import list_series, read_volume
from medclipad.volume.readers import archives
from tests.volume.volume_cases import fault, series

HEIGHTS = [4.0, 0.0, 2.0]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


@pytest.fixture
def members(tmp_path) -> dict[str, bytes]:
    series(tmp_path / "s", HEIGHTS)
    return {f"study/{file.stem}/IM": file.read_bytes() for file in sorted((tmp_path / "s").iterdir())}


def no_file_left(folder: Path) -> bool:
    return not any(path.is_file() for path in folder.rglob("*"))


# --- zip ---------------------------------------------------------------------------------------------------------


def test_a_zip_is_read_as_its_folder(tmp_path, members):
    """Equal names in different folders, files that are not DICOM and folders do not matter."""
    path = pack(tmp_path / "case.ZIP", {**members, "study/": b"", "README.txt": b"x" * 500, "empty": b""})
    folder, read = read_volume(tmp_path / "s"), read_volume(path)
    assert np.array_equal(read.array, folder.array)
    assert np.array_equal(read.affine, folder.affine)
    assert read.metadata["dicom"] == folder.metadata["dicom"]


def test_a_zip_leaves_nothing_behind(tmp_path, members, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert read_volume(pack(tmp_path / "case.zip", members)).name == "case"
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("name", ["../evil.dcm", "a/../../evil.dcm", "/evil.dcm", "..\\evil.dcm", "C:\\evil.dcm"])
def test_member_names_outside_the_archive_are_refused(tmp_path, members, name):
    path = pack(tmp_path / "case.zip", {**members, name: next(iter(members.values()))})
    assert "the archive holds a name that points outside it; pack it again" in fault(path)
    (tmp_path / "out").mkdir()
    with pytest.raises(VolumeError):
        archives.unpack_dicom(path, tmp_path / "out")
    assert no_file_left(tmp_path / "out")


def test_links_are_refused(tmp_path, members):
    path = pack(tmp_path / "case.zip", members)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    assert "the archive holds a link instead of a file" in fault(path)


def test_encrypted_archives_are_refused(tmp_path, members):
    path = pack(tmp_path / "case.zip", members)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of members
    path.write_bytes(content)
    assert "the archive is encrypted; pack it again without a password" in fault(path)


def test_bombs_are_refused_before_anything_is_written(tmp_path, members):
    bomb = next(iter(members.values())) + bytes(80 * 1024**2)
    path = pack(tmp_path / "case.zip", {"IM": bomb})
    assert path.stat().st_size < 200_000
    (tmp_path / "out").mkdir()
    with pytest.raises(VolumeError, match="unpacks to more than 8 GiB or 200 times its size; unpack it yourself"):
        archives.unpack_dicom(path, tmp_path / "out")
    assert no_file_left(tmp_path / "out")


def test_the_real_size_counts_not_the_declared_one(tmp_path, members, monkeypatch):
    """An archive may declare small members; they are cut at their declared end, and their checksum is then wrong."""
    path = pack(tmp_path / "case.zip", {"IM": next(iter(members.values())) + bytes(80 * 1024**2)})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 1000)
    path.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(VolumeError, match=r"the archive cannot be unpacked \(Bad CRC-32"):
        archives.unpack_dicom(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 1000
    monkeypatch.setattr(archives, "_require_harmless", lambda *_: None)  # without the check of the declared size
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    path = pack(tmp_path / "other.zip", {f"IM{n}": next(iter(members.values())) + bytes(9000) for n in range(9)})
    with pytest.raises(VolumeError, match="unpacks to more than"):
        archives.unpack_dicom(path, tmp_path / "out")


def test_too_many_files_are_refused(tmp_path, members, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    assert "the archive holds 3 files, more than 2; pack fewer" in fault(pack(tmp_path / "case.zip", members))


def test_archives_without_dicom_and_damaged_ones_are_refused(tmp_path, members):
    assert "the archive holds no DICOM files" in fault(pack(tmp_path / "a.zip", {"case.nii.gz": b"x" * 500}))
    assert "the archive holds no DICOM files" in fault(pack(tmp_path / "b.zip", {}))
    path = pack(tmp_path / "c.zip", members)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive at all", whole[:200] + b"\xff" * 40 + whole[240:]):
        path.write_bytes(content)
        assert "the archive cannot be unpacked" in fault(path)


# --- DICOMDIR ----------------------------------------------------------------------------------------------------


@pytest.fixture
def medium(tmp_path) -> Path:
    series(
        tmp_path / "s",
        HEIGHTS,
        PatientName="X",
        StudyDate="20200101",
        StudyTime="120000",
        InstanceNumber=1,
        StudyID="1",
        SeriesNumber=1,
    )
    files = FileSet()
    for file in (tmp_path / "s").iterdir():
        files.add(pydicom.dcmread(file))
    files.write(tmp_path / "cd")
    return tmp_path / "cd"


def test_a_dicomdir_is_followed(tmp_path, medium):
    (medium / "stray.dcm").write_bytes(b"\0" * 128 + b"DICMgarbage")  # not on its list
    read = read_volume(medium / "DICOMDIR")
    assert np.array_equal(read.array, read_volume(tmp_path / "s").array)
    assert read.name == "cd"
    assert [info.images for info in list_series(medium / "DICOMDIR")] == [3]
    (medium / "stray.dcm").unlink()
    assert np.array_equal(read_volume(medium).array, read.array)


def test_a_dicomdir_that_lists_missing_files_is_refused(medium):
    next(path for path in medium.rglob("*") if path.is_file() and path.name != "DICOMDIR").unlink()
    assert "which is missing; copy the whole medium, or pass the folder" in fault(medium / "DICOMDIR")


def test_a_dicomdir_that_points_outside_its_folder_is_refused(medium):
    listing = pydicom.dcmread(medium / "DICOMDIR")
    for record in listing.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "s", "0.dcm"]
    listing.save_as(medium / "DICOMDIR")
    assert "it lists a file outside its folder" in fault(medium / "DICOMDIR")


# --- which series there are --------------------------------------------------------------------------------------


def test_list_series_describes_each_series(tmp_path):
    series(tmp_path / "case" / "a", HEIGHTS)
    series(tmp_path / "case" / "b", [0, 2, 6], SeriesInstanceUID="1.9", SeriesDescription="T2 with a gap")
    found = list_series(tmp_path / "case")
    assert [(info.uid, info.description, info.modality, info.images) for info in found] == [
        ("1.2.3.4", "T1 axial", "MR", 3),
        ("1.9", "T2 with a gap", "MR", 3),
    ]
    assert (found[0].size, found[0].spacing, found[0].problem) == ((5, 4, 3), (0.75, 0.5, 2.0), None)
    assert (found[1].size, found[1].spacing) == (None, None)
    assert str(found[1].problem).startswith("T2 with a gap: 1 slice is missing")
    assert np.array_equal(
        read_volume(tmp_path / "case", series=found[0].uid).array, read_volume(tmp_path / "case" / "a").array
    )
    (tmp_path / "empty").mkdir()
    for source, why in ((tmp_path / "empty", "it holds no DICOM images"), (tmp_path / "none", "there is no such file")):
        with pytest.raises(VolumeError, match=why):
            list_series(source)
