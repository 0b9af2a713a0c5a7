"""The corpus run compares what is read with other readers, and says what is refused."""

from __future__ import annotations

import numpy as np

from benchmarks.corpus import agrees, rows_of, summary
from medclipad.volume import Volume, write_volume
from tests.volume.volume_cases import affine_of, ramp, series

AFFINE = affine_of(spacing=(1, 2, 3), degrees=(10, 20, 30), origin=(5, 6, 7))


def test_rows_and_summary(tmp_path):
    for name in ("a.nii.gz", "b.nrrd", "c.mha"):
        write_volume(Volume(ramp((4, 5, 6)), AFFINE), tmp_path / name)
    (tmp_path / "damaged.nii").write_bytes(b"none")
    series(tmp_path / "dicom", [0, 2, 4] * 2, each=lambda n: {"EchoTime": 4 + n // 3})
    rows = {row.name: row for row in rows_of(tmp_path)}
    assert rows["a.nii.gz"].others == {"ITK": "agrees", "nibabel": "agrees"}
    assert rows["b.nrrd"].others == rows["c.mha"].others == {"ITK": "agrees"}
    assert rows["damaged.nii"].outcome == "refused" and "damaged" in rows["damaged.nii"].text
    for echo in (4, 5):
        assert rows[f"dicom T1 axial echo={echo}"].others["GDCM"] == "agrees"
    text = summary(list(rows.values()))
    assert "| ITK | 3 | 0 | 0 |" in text and "| damaged.nii | refused |" in text


def test_other_values_and_places_differ():
    volume = Volume(ramp((4, 5, 6)), AFFINE)
    assert agrees(volume, (volume.array, AFFINE))
    assert agrees(volume, (volume.array[::-1], AFFINE @ np.array([[-1, 0, 0, 3], *np.eye(4)[1:]])))
    assert not agrees(volume, (volume.array + 1, AFFINE))
    moved = AFFINE.copy()
    moved[0, 3] += 0.1
    assert not agrees(volume, (volume.array, moved))
    assert not agrees(volume, (volume.array[:2], AFFINE))
