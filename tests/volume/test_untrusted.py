"""Files of unknown origin: no header ends the process that asks for it, and what ends its child is refused."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medclipad.errors import VolumeError, VolumeSizeError
from medclipad.volume import (
    Volume,
    list_series,
    list_untrusted_series,
    read_untrusted,
    read_volume,
    untrusted,
    write_volume,
)
from tests.volume.format_case import Case
from tests.volume.test_volume_formats import CASES, READ
from tests.volume.volume_cases import save, series, slice_header

NRRD = (
    "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 8\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 8 8 8\n"
    "ElementType = MET_UCHAR\n"
)
LONG = "x" * 5000
HOSTILE = {
    **{f"dimensions {n}": META.replace("NDims = 3", f"NDims = {n}") for n in ("-1", "0", "11", "100", "99999999999")},
    **{f"MetaImage {key}": f"{META}{key} = {LONG}\n" for key in ("Name", "ID", "Comment", "AnatomicalOrientation")},
    "MetaImage key": f"{META}{LONG} = 1\n",
    **{f"NRRD {line[:12]}": f"{NRRD}{line}\n" for line in (
        f"a: {LONG}", f"Segment0_Tags: :={LONG}", LONG, f"content:{LONG}", f"kinds: {LONG}", f"centerings: {LONG}",
        f"endian: {LONG}", f"old min: {LONG}", f"axis mins: {'1' * 5000}", f"thicknesses: {'1' * 5000}",
        f"space dimension: {'3' * 5000}", f"measurement frame: {LONG}", f" # {LONG}", f"a:=b\rfoo: {LONG}",
    )},
}  # fmt: skip


def hostile(folder: Path, name: str) -> Path:
    """Write a hostile header with the voxels that it announces."""
    text = HOSTILE[name]
    path = folder / ("x.nrrd" if text.startswith("NRRD") else "x.mha")
    path.write_bytes(f"{text}{'' if path.suffix == '.nrrd' else 'ElementDataFile = LOCAL'}\n".encode() + bytes(512))
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_would_crash_itk_is_refused_before_itk_sees_it(name, tmp_path):
    """In this process: if ITK saw it, the test run would end here."""
    with pytest.raises(VolumeError, match="the file is damaged or not what its name says"):
        read_volume(hostile(tmp_path, name))


def test_long_key_value_pairs_as_slicer_writes_them_are_read(tmp_path):
    path = tmp_path / "case.nrrd"
    path.write_bytes(f"{NRRD}Segmentation_ConversionParameters:=a: b|{LONG}\n# {LONG}\n\n".encode() + bytes(512))
    assert read_volume(path).shape == (8, 8, 8)


@pytest.mark.parametrize("case", READ[::3], ids=lambda case: case.name)
def test_a_child_returns_what_this_process_reads(case: Case, tmp_path):
    source = case.make(tmp_path)
    here, there = read_volume(source, **case.options), read_untrusted(source, **case.options)
    np.testing.assert_array_equal(there.array, here.array)
    assert there.array.dtype == here.array.dtype and there.array.flags.writeable
    np.testing.assert_array_equal(there.affine, here.affine)
    assert (there.name, there.modality, there.notes) == (here.name, here.modality, here.notes)


@pytest.mark.parametrize("case", [case for case in CASES if case.refused][::4], ids=lambda case: case.name)
def test_a_child_says_the_same_sentence(case: Case, tmp_path):
    source = case.make(tmp_path)
    sentences = []
    for read in (read_volume, read_untrusted):
        with pytest.raises(VolumeError) as caught:
            read(source, **case.options)
        sentences.append((str(caught.value), type(caught.value)))
    assert sentences[0] == sentences[1]


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(VolumeError, match="there is no such file") as caught:
        read_untrusted(tmp_path / "none.nii")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_child_lists_series(tmp_path):
    series(tmp_path / "s", [0, 2, 4])
    assert list_untrusted_series(tmp_path / "s") == list_series(tmp_path / "s")


def large(path: Path) -> Path:
    """Write a volume that takes a second to inflate."""
    noise = np.random.default_rng(0).integers(0, 8, (512, 512, 4), dtype=np.uint8)
    with gzip.open(path, "wb", 1) as stream:
        stream.write(nib.Nifti1Image(np.tile(noise, (1, 1, 100)), np.eye(4)).to_bytes())
    return path


def child_that_reads(path: Path) -> psutil.Process:
    """Return the child of this process that has a file open."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for child in psutil.Process().children():
            if str(path) in [file.path for file in child.open_files()]:
                return child
    raise AssertionError("no child reads the file")


def test_a_file_that_ends_its_child_is_refused_and_not_tried_again(tmp_path):
    write_volume(Volume(np.ones((4, 5, 3), np.int16), np.eye(4)), tmp_path / "small.nii")
    read_untrusted(tmp_path / "small.nii")  # a warm child
    path, said = large(tmp_path / "large.nii.gz"), []

    def read() -> None:
        with pytest.raises(VolumeError) as caught:
            read_untrusted(path)
        said.append(str(caught.value))

    reading = threading.Thread(target=read)
    reading.start()
    child_that_reads(path).send_signal(signal.SIGSEGV)  # as native code that reads beyond its memory
    reading.join(30)
    assert said == [
        "large.nii.gz: it crashed the program that reads such files, or kept it busy without end, and is not tried "
        "again; export it again from its source."
    ]
    began = time.monotonic()
    read()
    assert said[1] == said[0] and time.monotonic() - began < 0.5
    (tmp_path / "copy.nii.gz").write_bytes(path.read_bytes())
    with pytest.raises(VolumeError, match=r"copy\.nii\.gz: it crashed"):
        read_untrusted(tmp_path / "copy.nii.gz")
    assert read_untrusted(tmp_path / "small.nii").shape == (4, 5, 3)


def test_a_child_that_the_system_stops_is_not_the_fault_of_the_file(tmp_path):
    path, said = large(tmp_path / "large.nii.gz"), []

    def read() -> None:
        with pytest.raises(VolumeError) as caught:
            read_untrusted(path)
        said.append(str(caught.value))

    reading = threading.Thread(target=read)
    reading.start()
    child_that_reads(path).kill()  # as the system does when the memory is full
    reading.join(30)
    assert "the system stopped the process that read it" in said[0]
    assert read_untrusted(path).shape == (512, 512, 400)


def test_a_child_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    path = large(tmp_path / "slow.nii.gz")
    path.write_bytes(path.read_bytes() + bytes(1))  # another content than that of the other tests
    monkeypatch.setattr(untrusted, "_WALL", 0.005)  # 0.2 s for any file
    with pytest.raises(VolumeError, match="kept it busy without end"):
        read_untrusted(path)


def test_a_reading_that_nobody_wants_any_more_is_stopped_and_held_against_nobody(tmp_path):
    class UnwantedError(Exception):
        pass

    def check() -> None:
        if seen.is_set():
            raise UnwantedError

    path = large(tmp_path / "large.nii.gz")
    stopped: list[str] = []
    seen = threading.Event()

    def read() -> None:
        with pytest.raises(UnwantedError) as caught:
            read_untrusted(path, check=check)
        stopped.append(caught.typename)

    reading = threading.Thread(target=read)
    reading.start()
    child = child_that_reads(path)
    seen.set()
    reading.join(10)
    assert stopped == ["UnwantedError"] and not child.is_running()
    started = {process.pid for process in psutil.Process().children()}
    assert read_untrusted(path, check=lambda: None).shape == (512, 512, 400)
    assert {process.pid for process in psutil.Process().children()} <= started, "the next one was waiting already"


def test_children_leave_no_files_and_end_with_their_parent(tmp_path):
    """A program that reads a volume and is killed: its child ends too, and removes its folder."""
    write_volume(Volume(np.ones((4, 5, 3), np.int16), np.eye(4)), tmp_path / "case.nii")
    (tmp_path / "tmp").mkdir()
    program = (
        "import sys, time; from medclipad.volume import read_untrusted; read_untrusted(sys.argv[1]);"
        "print('read', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "case.nii")],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"read\n"
    (child,) = psutil.Process(parent.pid).children()
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    parent.kill()
    parent.wait()
    child.wait(10)
    assert not list((tmp_path / "tmp").iterdir())


def test_bytes_are_limited_not_voxels(tmp_path):
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        write_volume(Volume(np.zeros((64, 64, 40), np.float64), np.eye(4)), tmp_path / name)
        assert read_untrusted(tmp_path / name, voxel_bytes=64 * 64 * 40 * 8).array.dtype == np.float64
        with pytest.raises(VolumeSizeError, match="its 64 x 64 x 40 voxels take 1 MB, more than the 1 MB that may"):
            read_untrusted(tmp_path / name, voxel_bytes=64 * 64 * 40 * 8 - 1)
    series(tmp_path / "dicom", [0, 2, 4])
    with pytest.raises(VolumeSizeError, match="more than the 1 MB that may be read here; crop it"):
        read_untrusted(tmp_path / "dicom", voxel_bytes=100)


def test_a_nifti_that_decompresses_to_far_more_than_its_header_says_is_refused_early(tmp_path):
    write_volume(Volume(np.zeros((64, 64, 40), np.int16), np.eye(4)), tmp_path / "a.nii")
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb", 1) as stream:
        stream.write((tmp_path / "a.nii").read_bytes())
        for _ in range(80):
            stream.write(bytes(1 << 20))
    with pytest.raises(VolumeSizeError, match="it decompresses to more than its header declares"):
        read_volume(bomb)


def test_a_deflated_dicom_is_inflated_up_to_a_limit(tmp_path):
    dataset = slice_header()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    good = save(dataset, tmp_path / "good" / "0.dcm")
    assert read_volume(good).shape == (5, 4, 1)
    data = good.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")  # (0002,0000), the length of the meta header
    body = zlib.decompressobj(-15).decompress(data[start:])
    (tmp_path / "bomb").mkdir()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    with (tmp_path / "bomb" / "0.dcm").open("wb") as stream:
        stream.write(data[:start] + packer.compress(body))
        for _ in range(70):
            stream.write(packer.compress(bytes(1 << 20)))
        stream.write(packer.flush())
    for look in (read_volume, read_untrusted, list_series):
        with pytest.raises(VolumeSizeError, match=r"0\.dcm: it inflates to more than 67 MB, as no image"):
            look(tmp_path / "bomb")
