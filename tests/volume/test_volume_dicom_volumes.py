"""Several volumes in one DICOM series: each is told apart, listed and read by its number or by what it says."""

from __future__ import annotations

import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from medclipad.volume import list_series, read_volume
from tests.volume.volume_cases import enhanced, fault, functional, save, series, slice_header, world

HEIGHTS = [0, 2, 4]


def labels(folder: Path) -> list[str]:
    (found,) = list_series(folder)
    return [volume.label for volume in found.volumes]


def several(folder: Path, *tags: dict) -> list[np.ndarray]:
    """Write a series with one volume for each of some tags, and return their voxels."""
    count = len(HEIGHTS)
    values = series(folder, HEIGHTS * len(tags), each=lambda n: {"InstanceNumber": n, **tags[n // count]})
    return [values[n * count : (n + 1) * count].T for n in range(len(tags))]


M, P = ["ORIGINAL", "PRIMARY", "M", "NORM"], ["ORIGINAL", "PRIMARY", "P", "NORM"]
X, Y = [1.0, 0.0, 0.0], [0.0, 0.70710678, 0.70710678]
KINDS = {
    "time": ([{"TemporalPositionIdentifier": n} for n in (1, 2, 10)], ["time=1", "time=2", "time=10"]),
    "echoes and parts": (
        [{"EchoTime": echo, "ImageType": part} for echo in (4.6, 9.2) for part in (M, P)],
        [f"echo={echo}, type={part}" for echo in (4.6, 9.2) for part in ("magnitude", "phase")],
    ),
    "b-values": ([{}, {"DiffusionBValue": 500.0}, {"DiffusionBValue": 1000.0}], ["b=0", "b=500", "b=1000"]),
    "directions": (
        [{"DiffusionBValue": 0.0}, *({"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": v} for v in (Y, X))],
        ["b=0", "b=1000, direction=0 0.707 0.707", "b=1000, direction=1 0 0"],
    ),
    "flip angles": ([{"FlipAngle": 5}, {"FlipAngle": 26}], ["flip=5", "flip=26"]),
    "energies": ([{"KVP": 80}, {"KVP": 140}], ["kvp=80", "kvp=140"]),
    "contrast": ([{"AcquisitionNumber": 2}, {"AcquisitionNumber": 3}], ["acquisition=2", "acquisition=3"]),
    "instance numbers alone": ([{}, {}, {}], ["order=0", "order=1", "order=2"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_are_listed_and_read(kind, tmp_path):
    tags, said = KINDS[kind]
    wanted = several(tmp_path, *tags)
    assert sorted(labels(tmp_path)) == sorted(said)
    for number, label in enumerate(labels(tmp_path)):
        truth = wanted[said.index(label)]
        assert np.array_equal(read_volume(tmp_path, component=number).array, truth)
        assert np.array_equal(read_volume(tmp_path, component=label).array, truth)
        assert np.array_equal(read_volume(tmp_path, component=str(number)).array, truth)
    assert f"it has {len(said)} volumes (0: {labels(tmp_path)[0]}; 1: " in fault(tmp_path)


def test_a_label_that_fits_none_or_several_is_refused_with_the_choice(tmp_path):
    several(tmp_path, *KINDS["directions"][0])
    assert "component 'b=1000' fits 2 of its volumes (0: b=0; 1: b=1000, direction=0 0.707" in fault(
        tmp_path, component="b=1000"
    )
    text = fault(tmp_path, component="phase")
    assert "component 'phase' fits none of its volumes" in text and text.endswith("; choose one by its number, 0 to 2.")
    assert "component 7 does not exist; choose one of 0 to 2" in fault(tmp_path, component=7)


def test_words_for_the_parts_of_complex_images(tmp_path):
    wanted = several(tmp_path, {"ImageType": M}, {"ImageType": P})
    assert np.array_equal(read_volume(tmp_path, component="phase").array, wanted[1])
    assert np.array_equal(read_volume(tmp_path, component="type=magnitude").array, wanted[0])


def test_what_labels_leave_together_is_put_in_order(tmp_path):
    """Magnitude and phase over time, of which no tag but the instance number tells the time."""
    wanted = several(tmp_path, {"ImageType": M}, {"ImageType": P}, {"ImageType": M}, {"ImageType": P})
    said = [f"type={part}, order={order}" for part in ("magnitude", "phase") for order in (0, 1)]
    assert labels(tmp_path) == said
    for label, truth in zip(said, (wanted[0], wanted[2], wanted[1], wanted[3]), strict=True):
        assert np.array_equal(read_volume(tmp_path, component=label).array, truth)


def test_trigger_times_order_the_images_of_each_place(tmp_path):
    """As in a cine series: other times at every place, and instance numbers that run place by place."""
    values = series(
        tmp_path,
        [0, 0, 0, 2, 2, 2],
        each=lambda n: {"TriggerTime": 10.5 * (2 - n % 3) + n // 3, "InstanceNumber": n + 1},
    )
    for phase in range(3):
        assert np.array_equal(read_volume(tmp_path, component=phase).array, values[[2 - phase, 5 - phase]].T)


@pytest.mark.parametrize(
    ("maker", "creator", "tags"),
    [
        ("SIEMENS", "SIEMENS MR HEADER", [(0x0019, 0x0C, "IS", "{b}")]),
        ("GE MEDICAL SYSTEMS", "GEMS_PARM_01", [(0x0043, 0x39, "IS", ["{b}", "8", "0", "0"])]),
        ("Philips Medical Systems", "Philips Imaging DD 001", [(0x2001, 0x03, "FL", "{b}")]),
    ],
)
def test_private_b_values(maker, creator, tags, tmp_path):
    for n, (height, b) in enumerate([(0, 0), (2, 0), (0, 1000), (2, 1000)]):
        own = slice_header(
            Manufacturer=maker, ImagePositionPatient=[0, 0, height], InstanceNumber=n, PixelData=bytes([n]) * 40
        )
        for group, element, vr, value in tags:
            block = own.private_block(group, creator, create=True)
            filled = [text.format(b=b) for text in value] if isinstance(value, list) else value.format(b=b)
            block.add_new(element, vr, float(filled) if vr == "FL" else filled)
        save(own, tmp_path / f"{n}.dcm")
    assert labels(tmp_path) == ["b=0", "b=1000"]
    assert (read_volume(tmp_path, component="b=1000").array[..., 0] == 0x0202).all()


def test_philips_arterial_spin_labels(tmp_path):
    for n, (height, label) in enumerate([(0, "CONTROL"), (2, "CONTROL"), (0, "LABEL"), (2, "LABEL")]):
        own = slice_header(Manufacturer="Philips", ImagePositionPatient=[0, 0, height], PixelData=bytes([n]) * 40)
        own.add_new((0x2005, 0x0014), "LO", "Philips MR Imaging DD 005")
        own.add_new((0x2005, 0x1429), "CS", label)
        save(own, tmp_path / f"{n}.dcm")
    assert labels(tmp_path) == ["asl=CONTROL", "asl=LABEL"]


def test_enhanced_directions(tmp_path):
    """The direction lies in a sequence within a sequence."""
    frames = [
        slice_header(ImagePositionPatient=[0, 0, height], PixelData=bytes([n]) * 40)
        for n, height in enumerate([0, 2] * 2)
    ]
    dataset = enhanced(frames)
    for n, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.update(functional(MRDiffusionSequence={"DiffusionBValue": 700.0}))
        inner = Dataset()
        inner.DiffusionGradientOrientation = X if n < 2 else Y
        groups.MRDiffusionSequence[0].DiffusionGradientDirectionSequence = [inner]
    path = save(dataset, tmp_path / "e.dcm")
    assert labels(path) == ["direction=0 0.707 0.707", "direction=1 0 0"]
    assert (read_volume(path, component="direction=1 0 0").array[..., 1] == 0x0101).all()


def test_a_scan_that_was_stopped_keeps_its_whole_volumes(tmp_path):
    values = several(tmp_path, *({"TemporalPositionIdentifier": n} for n in (1, 2, 3)))
    (tmp_path / "7.dcm").unlink()
    (tmp_path / "8.dcm").unlink()
    assert labels(tmp_path) == ["time=1", "time=2", "time=3"]
    assert np.array_equal(read_volume(tmp_path, component=1).array, values[1])
    assert read_volume(tmp_path, component=2).shape[2] == 1


# --- copies ---------------------------------------------------------------------------------------------------------


def test_copies_are_left_out_with_a_note(tmp_path):
    values = series(tmp_path / "export", HEIGHTS)
    shutil.copytree(tmp_path / "export", tmp_path / "export (copy)")
    rewritten = pydicom.dcmread(tmp_path / "export (copy)" / "1.dcm")
    rewritten.PatientName = "Another^Name"
    rewritten.save_as(tmp_path / "export (copy)" / "1.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, values.T)
    assert volume.notes == ("3 files are copies and were left out (same SOP Instance UID and pixels)",)
    (found,) = list_series(tmp_path)
    assert (found.images, found.size, found.problem) == (3, (5, 4, 3), None)


def test_one_uid_for_other_pixels_is_refused_and_for_all_images_is_not(tmp_path):
    series(tmp_path / "a", HEIGHTS, SOPInstanceUID="1.2.9")
    assert read_volume(tmp_path / "a").shape == (5, 4, 3)
    changed = pydicom.dcmread(tmp_path / "a" / "0.dcm")
    changed.PixelData = bytes([9]) * 40
    changed.save_as(tmp_path / "a" / "9.dcm")
    assert "9.dcm: it has the same SOP Instance UID and place as 0.dcm, but other pixels" in fault(tmp_path / "a")


# --- mosaics --------------------------------------------------------------------------------------------------------


def csa(**values: list[str]) -> bytes:
    """Return a Siemens CSA header of some elements, as scanners write it."""
    data = b"SV10\4\3\2\1" + struct.pack("<2I", len(values), 77)
    for name, items in values.items():
        data += name.encode().ljust(64, b"\0") + struct.pack("<i4s3i", len(items), _kind(name), 0, 6, 77)
        for n in range(6):
            text = items[n].encode() + b"\0" if n < len(items) else b""
            data += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return data


def _kind(name: str) -> bytes:
    return {"AcquisitionMatrixText": b"SH\0\0", "NumberOfImagesInMosaic": b"US\0\0"}.get(name, b"FD\0\0")


def mosaic(slices: int, reverse: bool = False, **tags) -> Dataset:
    """Return a mosaic of slices of 4 rows x 5 columns, tilted in space."""
    side = int(np.ceil(np.sqrt(slices)))
    tiles = np.zeros((side * side, 4, 5), np.uint16)
    tiles[:slices] = np.arange(1, slices * 20 + 1).reshape(-1, 4, 5)
    picture = tiles.reshape(side, side, 4, 5).swapaxes(1, 2).reshape(side * 4, side * 5)
    row, column = np.array([1, 0, 0]), np.array([0, 0.8, 0.6])
    normal = np.cross(row, column) * (-1 if reverse else 1)
    dataset = slice_header(
        **{
            "Manufacturer": "SIEMENS",
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
            "Rows": side * 4,
            "Columns": side * 5,
            "ImagePositionPatient": [-11.5, 7.25, 30],
            "ImageOrientationPatient": [*row.tolist(), *column.tolist()],
            "SpacingBetweenSlices": 3.6,
            "PixelData": picture.tobytes(),
            **tags,
        }
    )
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", slices)
    elements = {
        "NumberOfImagesInMosaic": [str(slices)],
        "SliceNormalVector": [f"{x:.8f}" for x in normal],
        "AcquisitionMatrixText": ["4p*5"],  # by which nibabel knows a mosaic
    }
    dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa(**elements))
    return dataset


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("slices", [4, 7, 36])
@pytest.mark.parametrize("by", ["element", "CSA header"])
def test_a_mosaic_is_read_as_its_slices_where_nibabel_puts_them(slices, reverse, by, tmp_path):
    """With the count from Siemens's element or, without it, from the CSA header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its reader experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    dataset = mosaic(slices, reverse)
    truth = wrapper_from_data(dataset)
    if by == "CSA header":
        del dataset[0x0019, 0x0010], dataset[0x0019, 0x100A]
    volume = read_volume(save(dataset, tmp_path / "m.dcm"))
    assert volume.shape == (5, 4, slices) and volume.notes == ()
    index = np.indices(volume.shape).reshape(3, -1).T
    to_ras = np.diag([-1, -1, 1, 1]) @ truth.affine
    there = np.linalg.solve(to_ras, np.column_stack([world(volume.affine, index), np.ones(len(index))]).T)[:3].T
    theirs = np.asarray(truth.get_data())[tuple(np.round(there).astype(int).T)]
    assert abs(there - np.round(there)).max() < 1e-3
    assert np.array_equal(theirs, volume.array[tuple(index.T)])


def test_mosaics_over_time_are_several_volumes(tmp_path):
    for n in range(3):
        save(mosaic(4, InstanceNumber=n + 1, SOPInstanceUID=generate_uid()), tmp_path / f"{n}.dcm")
    assert labels(tmp_path) == ["order=0", "order=1", "order=2"]
    assert read_volume(tmp_path, component=2).shape == (5, 4, 4)


def test_what_is_called_a_mosaic_and_is_none(tmp_path):
    """Slices that only inherited the word are read; a picture that has lost its header is refused."""
    values = series(tmp_path / "slices", HEIGHTS, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert np.array_equal(read_volume(tmp_path / "slices").array, values.T)
    stripped = mosaic(4)
    stripped.remove_private_tags()
    assert "its ImageType says that it is a mosaic, but the private Siemens elements" in fault(
        save(stripped, tmp_path / "stripped.dcm")
    )
    odd = mosaic(4)
    odd.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value = 7
    assert "it is a mosaic of 7 slices, but its 10 x 8 pixels are not 3 x 3 tiles" in fault(
        save(odd, tmp_path / "odd.dcm")
    )
    headless = mosaic(4)
    del headless[0x0029, 0x1010]
    assert "it is a mosaic of 4 slices, but its private Siemens header" in fault(
        save(headless, tmp_path / "headless.dcm")
    )


# --- objects without an image, and wrong transfer syntaxes --------------------------------------------------------


def spectroscopy() -> Dataset:
    return slice_header(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2", PixelData=None, Rows=1, Columns=1, SeriesInstanceUID="1.9"
    )


def test_objects_without_pixels_are_left_out_with_a_note(tmp_path):
    values = series(tmp_path, HEIGHTS)
    spectrum = save(spectroscopy(), tmp_path / "mrs.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, values.T)
    assert volume.notes == ("1 DICOM object without an image was left out (MR Spectroscopy)",)
    assert [found.uid for found in list_series(tmp_path)] == ["1.2.3.4"]
    assert "mrs.dcm: it is MR Spectroscopy, which holds no image; pass image files" in fault(spectrum)


def test_an_image_without_its_pixels_is_damaged_not_left_out(tmp_path):
    series(tmp_path, HEIGHTS)
    cut = pydicom.dcmread(tmp_path / "1.dcm")
    del cut.PixelData
    cut.save_as(tmp_path / "1.dcm")
    assert "its pixels (Explicit VR Little Endian) cannot be decoded" in fault(tmp_path)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_transfer_syntax_that_is_not_what_the_file_is_in(implicit, tmp_path):
    """Forwarded without an update of the meta header, as pydicom and GDCM read it."""
    values = series(tmp_path, HEIGHTS, SpecificCharacterSet="ISO_IR 100")
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.save_as(path, enforce_file_format=True)
        data = path.read_bytes()
        elements = b"UI\x12\0" + b"1.2.840.10008.1.2\0", b"UI\x14\0" + b"1.2.840.10008.1.2.1\0"
        old, new = elements if implicit else elements[::-1]
        assert data.count(old) == 1
        length = int.from_bytes(data[140:144], "little") + len(new) - len(old)
        data = data[:140] + length.to_bytes(4, "little") + data[144:].replace(old, new)
        path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, that it found another one
        assert np.array_equal(read_volume(tmp_path).array, values.T)
