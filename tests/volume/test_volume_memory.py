"""Memory: known before the work starts, and no second copy of a volume is made."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import medclipad.detection.slice_frames as framing
from medclipad.detection.slice_frames import FramedVolume, detection_memory, smooth
from medclipad.errors import VolumeError
from medclipad.volume import Volume, memory_budget, read_volume, write_volume
from medclipad.volume.blocks import blocks, finite_range, finite_sample
from tests.volume.format_cases_dicom import stack
from tests.volume.volume_cases import affine_of, slice_header

GB = 10**9


@pytest.fixture
def little_memory(monkeypatch):
    """Simulate a machine with 100 bytes free."""
    monkeypatch.setattr(memory_budget, "free_memory", lambda: 100)


def test_a_volume_larger_than_free_memory_is_refused_before_it_is_read(tmp_path, little_memory):
    volume = Volume(np.ones((30, 31, 32), np.int16), np.eye(4), name="case")
    for name in ("case.nii", "case.nii.gz", "case.nrrd", "case.mha"):
        write_volume(volume, tmp_path / name)
        with pytest.raises(
            VolumeError, match=rf"{name}: reading 30 x 31 x 32 voxels needs about \d+ MB of memory, but only"
        ):
            read_volume(tmp_path / name)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((30, 31), np.uint8)), str(tmp_path / "case.png"))
    with pytest.raises(VolumeError, match=r"case.png: reading 31 x 30 x 1 voxels needs .* crop or downsample the vol"):
        read_volume(tmp_path / "case.png")
    with pytest.raises(
        VolumeError, match="case: reading 24 x 20 x 5 voxels needs about 1 MB of memory, but only 1 MB is"
    ):
        read_volume(stack()(tmp_path / "series"))


LARGE = (2000, 2000, 1200)
LARGE_BYTES = 2 * 2000 * 2000 * 1200


def large_nifti(folder: Path) -> Path:
    header = nib.Nifti1Header()
    header.set_data_shape(LARGE)
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with (folder / "large.nii").open("wb") as stream:
        stream.write(header.binaryblock)
        stream.truncate(352 + LARGE_BYTES)
    return folder / "large.nii"


def large_mha(folder: Path) -> Path:
    header = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        b"ElementSpacing = 0.5 0.5 0.5\nDimSize = 2000 2000 1200\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    with (folder / "large.mha").open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + LARGE_BYTES)
    return folder / "large.mha"


def large_dicom(folder: Path) -> Path:
    (folder / "large").mkdir()
    template = io.BytesIO()
    header = slice_header(Rows=2000, Columns=2000, PixelData=None, ImagePositionPatient=[0, 0, 100.5])
    header.save_as(template, enforce_file_format=True)
    start = template.getvalue() + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, LARGE_BYTES // 1200)
    for n in range(1200):
        with (folder / "large" / f"{n}.dcm").open("wb") as stream:
            stream.write(start.replace(b"100.5", b"%05.1f" % (n / 2)))
            stream.truncate(len(start) + LARGE_BYTES // 1200)
    return folder / "large"


@pytest.mark.parametrize(
    ("make", "needed"),
    [(large_nifti, "9.6"), (large_mha, "19.2"), pytest.param(large_dicom, "9.6", marks=pytest.mark.long)],
)
def test_headers_are_enough_to_refuse_2000_x_2000_x_1200(tmp_path, make, needed):
    """The files are sparse: their 9.6 GB take no space on the disk."""
    path = make(tmp_path)
    code = (
        "import resource, warnings; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "warnings.simplefilter('ignore')\n"
        "from medclipad.volume import read_volume\n"
        "from medclipad.errors import VolumeError\n"
        f"try: read_volume({path.name!r})\n"
        "except VolumeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{path.name}: reading 2000 x 2000 x 1200 voxels needs about {needed} GB of memory, but only" in done.stdout
    assert "is free; use a machine with more memory, or crop or downsample the volume first." in done.stdout
    assert done.stdout.count("\n") == 1


def test_memory_of_a_detection_follows_from_the_grid():
    volume = Volume(np.broadcast_to(np.int16(0), (2000, 2000, 1200)), affine_of(spacing=(0.5, 0.5, 0.5)))
    assert 33 * GB < detection_memory(volume, ["axial"], 4.0, 16) < 42 * GB
    assert 33 * GB < detection_memory(volume, ["axial"], 0.0, 16) < 35 * GB


def test_free_memory_respects_the_limits_of_process_and_container(tmp_path, monkeypatch):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from medclipad.volume.memory_budget import free_memory; print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 3 << 30
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 50000\n")
    monkeypatch.setattr(memory_budget, "_groups", lambda: iter([tmp_path / "none", tmp_path]))
    assert memory_budget.free_memory() == 350000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_budget.free_memory() > 10_000_000


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.floats(width=32)),
    order=st.permutations(range(3)),
    most=st.integers(1, 40),
)
def test_blocks_see_each_voxel_once(array, order, most):
    array = array.transpose(order)
    finite = array[np.isfinite(array)]
    assert sum(block.size for (block,) in blocks(array)) == array.size
    assert finite_range(array) == ((finite.min(), finite.max()) if finite.size else None)
    some = finite_sample(array, most)
    assert len(some) == min(most, finite.size)
    assert np.isin(some, finite).all()
    assert sorted(finite_sample(array, array.size)) == sorted(finite.astype(float))
    above = array > 0
    assert sorted(finite_sample(array, array.size, above)) == sorted(array[above & np.isfinite(array)].astype(float))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_smoothing_in_slabs_equals_smoothing_at_once(plane, monkeypatch):
    rng = np.random.default_rng(0)
    array = rng.normal(3, 1, (90, 17, 13)).astype(np.float32)
    array[:5] = array[:, :3] = 0
    framed = FramedVolume(Volume(array, np.diag((0.7, 2, 1.5, 1))), plane, "mr", 32)
    weight, wanted = framed.flags(framed.analysed[2::2]), framed.flags(framed.analysed[2:])
    whole = rng.random(array.shape).astype(np.float32) * framed.foreground
    slabs = whole.copy()
    smooth(whole, weight, wanted, framed.foreground, framed.volume.spacing, 3.0)
    monkeypatch.setattr(framing, "SLAB", 1)
    smooth(slabs, weight, wanted, framed.foreground, framed.volume.spacing, 3.0)
    assert np.array_equal(whole, slabs) and whole.any()


def test_framing_a_volume_does_not_copy_it():
    array = np.random.default_rng(0).integers(1, 900, (256, 256, 160), dtype=np.int16)
    array[:40] = 0
    volume = Volume(np.asfortranarray(array), np.eye(4))
    tracemalloc.start()
    FramedVolume(volume, "axial", "mr", 64)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the mask of the body, and the sample of 2^22 values for the percentiles
    assert most < array.size + 5 * 2**22 * 8, most / 1e6
