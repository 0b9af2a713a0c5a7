"""DICOM series sent as a zip."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from live_server import head

from medclipad.client import Client, ServerError
from medclipad.volume import Volume, read_volume
from sample_data.dicom import write_series


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two heads as DICOM series."""
    folder = tmp_path_factory.mktemp("dicom") / "x"
    folder.mkdir()
    for seed in (1, 2):
        array = head(seed)[0].array.clip(0).astype(np.uint16)
        volume = Volume(array, np.diag((-3.0, -3.0, 5.0, 1.0)), name=f"h{seed}")
        write_series(volume, folder / f"s{seed}", f"head {seed}", seed=0)
    return sorted(folder.iterdir())


def pack(path: Path, folders: list[Path], **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for folder in folders:
            for file in folder.iterdir():
                opened.write(file, f"{folder.name}/{file.name}")
        for name, content in others.items():
            opened.writestr(name, content)
    return path


def send(client: Client, path: Path, **query: str) -> dict:
    with path.open("rb") as stream:
        return client.json("PUT", "/datastore/image", params=query, files={"file": (path.name, stream)}, timeout=120)


def refused(call: Callable[[], object]) -> tuple[int | None, str]:
    with pytest.raises(ServerError) as caught:
        call()
    return caught.value.status, str(caught.value)


def test_a_series_becomes_a_dicom_image(client, server, trained, series, tmp_path):
    path = pack(tmp_path / "case 7.zip", series[:1], **{"notes.txt": b"x" * 500})
    assert send(client, path) == {"image": "case 7", "images": ["case 7"], "left_out": []}
    try:
        assert "case 7" in client.images()
        expected = read_volume(series[0])
        read = read_volume(client.download_image("case 7", tmp_path / "back.nii.gz"))
        assert np.array_equal(read.array, expected.array)
        np.testing.assert_allclose(read.affine, expected.affine, atol=1e-5)
        assert {file.suffix for file in (server.studies / "case 7").iterdir()} == {".dcm"}
        assert refused(lambda: send(client, path))[0] == 409
        answer = client.request(
            "POST", "/infer/mediclip", params={"image": "case 7", "output": "dicom_map"}, timeout=120
        )
        made = pydicom.dcmread(io.BytesIO(answer.content))
        assert made.StudyInstanceUID == expected.metadata["dicom"]["StudyInstanceUID"]
    finally:
        client.json("DELETE", "/datastore/image", params={"id": "case 7"})
    assert not (server.studies / "case 7").exists()


def test_a_damaged_slice_is_not_lost_in_silence(client, server, trained, series, tmp_path):
    """Without a suffix it may be anything and is told; named .dcm it is refused."""
    path = pack(tmp_path / "case 8.zip", series[:1], IM8=b"x" * 500)
    answer = send(client, path)
    try:
        assert [note.partition(" (")[0] for note in answer["left_out"]] == ["1 file that is not DICOM was left out"]
        assert "IM8" in answer["left_out"][0]
    finally:
        client.json("DELETE", "/datastore/image", params={"id": "case 8"})
    status, text = refused(lambda: send(client, pack(tmp_path / "c.zip", series[:1], **{"IM8.dcm": b"x" * 500})))
    assert status == 422 and "IM8.dcm" in text


def test_several_series_become_several_images(client, server, series, tmp_path):
    """What is no volume is said, and costs the others nothing."""
    lone = pydicom.dcmread(next(series[0].iterdir()))
    lone.SeriesInstanceUID, lone.SeriesDescription = "1.2.3", "Scout"
    del lone.ImagePositionPatient
    buffer = io.BytesIO()
    lone.save_as(buffer)
    answer = send(client, pack(tmp_path / "study.zip", series, scout=buffer.getvalue()), image="study")
    try:
        assert answer["images"] == ["study_1", "study_2"]
        (why,) = answer["left_out"]
        assert why.startswith("Scout: it does not say where in the patient its pixels lie; export")
        assert set(answer["images"]) <= set(client.images())
    finally:
        for image in answer["images"]:
            client.json("DELETE", "/datastore/image", params={"id": image})


def test_archives_that_are_refused(client, server, series, tmp_path):
    before = {path.name for path in server.studies.iterdir()}
    first = next(series[0].iterdir()).read_bytes()
    cases = {
        "points outside it": pack(tmp_path / "a.zip", series[:1], **{"../../evil.dcm": first}),
        "holds no DICOM images": pack(tmp_path / "b.zip", [], note=b"x" * 500),
        "200 times its size": pack(tmp_path / "c.zip", [], bomb=first + bytes(80 * 1024**2)),
        "cannot be unpacked": tmp_path / "d.zip",
        "none of its 1 series is a volume": pack(tmp_path / "e.zip", [], one=_without_place(first)),
    }
    cases["cannot be unpacked"].write_bytes(b"PK\x03\x04 no archive")
    for why, path in cases.items():
        code, text = refused(lambda path=path: send(client, path))
        assert (code, why in text) == (413 if "times" in why else 422, True), text
        assert "\n" not in text
    assert refused(lambda: send(client, cases["points outside it"], image="../up"))[0] == 400
    assert {path.name for path in server.studies.iterdir()} == before


def test_a_zip_sent_along_is_analysed_and_forgotten(client, trained, series, tmp_path):
    path = pack(tmp_path / "case.zip", series[:1])
    before = client.images()
    with path.open("rb") as stream:
        answer = client.request(
            "POST", "/infer/mediclip", params={"output": "dicom_seg"}, files={"file": ("case.zip", stream)}, timeout=120
        )
    made = pydicom.dcmread(io.BytesIO(answer.content))
    assert made.Modality == "SEG"
    assert int(made.NumberOfFrames) == read_volume(series[0]).shape[2]
    assert client.images() == before


def test_a_file_that_is_no_dicom_has_no_dicom_answer(client, trained):
    code, text = refused(
        lambda: client.request(
            "POST", "/infer/mediclip", params={"image": "normal_1", "output": "dicom_seg"}, timeout=120
        )
    )
    assert code == 422
    assert "does not lie on the images of a DICOM series" in text


def _without_place(content: bytes) -> bytes:
    image = pydicom.dcmread(io.BytesIO(content))
    del image.ImagePositionPatient
    buffer = io.BytesIO()
    image.save_as(buffer)
    return buffer.getvalue()
