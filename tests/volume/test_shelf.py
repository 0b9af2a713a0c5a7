"""Arrays and volumes on the disk: the same values in the same order, and no memory while nobody looks."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import psutil
import pytest

from medclipad.errors import VolumeError
from medclipad.volume import Volume
from medclipad.volume.shelf import Shelf, beside


@pytest.mark.parametrize("dtype", [np.int16, ">i2", np.float32, np.uint8, bool])
@pytest.mark.parametrize("order", ["C", "F", "middle first", "strided", "empty"])
def test_arrays_come_back_as_they_were(dtype, order):
    array = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(dtype)
    array = {
        "C": array,
        "F": np.asfortranarray(array),
        "middle first": np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2),
        "strided": array[::2, 1:],
        "empty": array[:0],
    }[order]
    shelf = Shelf()
    before, shelved, after = shelf.put(array + array), shelf.put(array), shelf.put(array[:1])
    again = shelved.open()
    assert np.array_equal(again, array) and again.dtype == array.dtype and shelved.shape == array.shape
    if order not in ("strided", "empty"):
        assert again.strides == array.strides, "sums over it are rounded as before"
    assert np.array_equal(before.open(), array + array) and np.array_equal(after.open(), array[:1])
    assert array.size == 0 or not again.flags.writeable


def test_a_volume_on_the_shelf_is_the_volume(head):
    volume, shelf = replace(head(1), modality="MR"), Shelf()
    shelved = shelf.put_volume(volume)
    assert np.array_equal(shelved.array, volume.array) and shelved.shape == volume.shape
    assert (shelved.affine == volume.affine).all() and (shelved.name, shelved.modality) == (volume.name, "MR")
    renamed = replace(shelved, name="other")
    assert renamed.name == "other" and np.array_equal(renamed.array, volume.array)
    assert np.array_equal(shelved.with_array(volume.array * 2).array, volume.array * 2)
    assert not beside(shelved, volume.array > 0).open().flags.writeable, "on the same shelf"
    kept = volume.array > 0
    assert beside(volume, kept).open() is kept, "what is in memory stays there"


def test_what_nobody_looks_at_takes_no_memory():
    shelf, process = Shelf(), psutil.Process()
    before = process.memory_info().rss
    volumes = [shelf.put_volume(Volume(np.full((64, 256, 256), n, np.int16), np.eye(4))) for n in range(30)]
    assert [int(volume.array.max()) for volume in volumes] == list(range(30))
    assert process.memory_info().rss - before < 60e6, "30 volumes of 8 MB"


def test_a_full_disk_is_said_in_a_sentence():
    shelf, limits = Shelf(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(VolumeError, match=r"cannot hold 2 MB of volumes .*TMPDIR to another folder\.$"):
            shelf.put(np.zeros(2 << 20, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
