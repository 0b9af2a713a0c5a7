"""Studies over HTTP: what is listed, what can be written, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import requests
from live_server import SHAPE, Server, head
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medclipad.client import Client, ServerError
from medclipad.volume import Volume, read_volume, write_volume


def test_volumes_in_all_formats_are_listed_and_nothing_else(client: Client) -> None:
    assert {"normal_1", "normal_2", "lesion_1", "lesion_2", "damaged"} <= set(client.images())
    assert "notes" not in client.images()
    status = client.info()["datastore"]
    assert status["total"] == len(client.images()) and status["completed"] >= 2


def test_files_that_come_and_go_are_noticed(client: Client, server: Server) -> None:
    shutil.copy(server.studies / "normal_1.nii.gz", server.studies / "late.nii.gz")
    assert "late" in client.images()
    (server.studies / "late.nii.gz").unlink()
    assert "late" not in client.images()


def test_pictures_are_images_too(client: Client, trained: list[dict], tmp_path: Path) -> None:
    """PNG, JPEG and TIFF are listed, analysed, and sent as NIfTI on the grid of the results; a mask may be one."""
    volume, mask = head(13, lesion=True)
    grey, lesion = (part.array[:, :, 12].T.astype(np.uint8) for part in (volume, mask))
    Image.fromarray(grey).save(tmp_path / "Picture.PNG")
    Image.fromarray(255 * lesion).save(tmp_path / "mask.png")
    image = client.upload_image(tmp_path / "Picture.PNG")
    assert image == "Picture" and image in client.images()
    back = read_volume(client.download_image(image, tmp_path / "back.nii.gz"))
    assert back.shape == (*SHAPE[:2], 1) and np.array_equal(back.array[:, :, 0].T, grey)
    path, scores = client.infer("mediclip", image, {"result": "map"}, folder=tmp_path)
    assert len(scores["slice_scores"]) == 1 and np.allclose(read_volume(path).affine, back.affine)
    assert client.save_label(image, tmp_path / "mask.png", tag="draft") == image
    drawn = read_volume(client.download_label(image, "draft", tmp_path / "label.png"))
    assert np.array_equal(drawn.array[:, :, 0].T > 0, lesion > 0)
    client.json("DELETE", "/datastore/image", params={"id": image})
    assert image not in client.images()


def test_names_as_other_systems_leave_them(client: Client, server: Server) -> None:
    """Capitals in the suffix, a picture beside the volume of its name, macOS's ._ files, names that are no UTF-8."""
    volume = (server.studies / "normal_1.nii.gz").read_bytes()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "PNG")
    left = {"BIG.NII.GZ": volume, "._BIG.NII.GZ": b"fork", "both.png": picture.getvalue(), "both.nii.gz": volume}
    paths = [server.studies / name for name in left]
    for path, content in zip(paths, left.values(), strict=True):
        path.write_bytes(content)
    latin = os.fsencode(server.studies) + b"/M\xfcller.nii.gz"
    with open(latin, "wb") as stream:
        stream.write(volume)
    try:
        listed = client.images()
        assert {"BIG", "both"} <= set(listed) and not [name for name in listed if name.startswith((".", "M"))]
        assert read_volume(client.download_image("BIG", server.studies.parent / "b.nii.gz")).shape == SHAPE
        known = client.json("GET", "/datastore/", params={"output": "all"})["objects"]
        assert known["both"]["image"]["ext"] == ".nii.gz", "the volume, not its screenshot"
    finally:
        os.unlink(latin)
        for path in paths:
            path.unlink()


def test_upload_download_and_the_name_with_dots(client: Client, tmp_path: Path) -> None:
    volume, _ = head(8)
    path = tmp_path / "my.scan.v1.nii.gz"
    write_volume(volume, path)
    assert client.upload_image(path) == "my.scan.v1"
    back = client.download_image("my.scan.v1", tmp_path / "back.nii.gz")
    assert back.read_bytes() == path.read_bytes()
    with pytest.raises(ServerError, match="already exists") as caught:
        client.upload_image(path)
    assert caught.value.status == 409


def test_stock_client_uploads_labels_and_asks_for_the_next(server: Server, client: Client, tmp_path: Path) -> None:
    from monailabel.client import MONAILabelClient

    stock = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    volume, mask = head(9, lesion=True)
    write_volume(volume, tmp_path / "image.nrrd")
    write_volume(mask, tmp_path / "label.nrrd")
    assert stock.upload_image(str(tmp_path / "image.nrrd"), "from stock")["image"] == "from stock"
    assert stock.save_label("from stock", str(tmp_path / "label.nrrd"), "draft", {"note": 1})["label"] == "from stock"
    assert np.array_equal(read_volume(stock.download_label("from stock", "draft")).array, mask.array)
    assert stock.datastore()["objects"]["from stock"]["labels"]["draft"]["info"]["note"] == 1
    assert stock.next_sample("random", {})["id"] in client.images()


def test_a_new_label_replaces_the_old_one_in_another_format(client: Client, server: Server, tmp_path: Path) -> None:
    _, mask = head(1, lesion=True)
    for suffix in (".nrrd", ".nii.gz"):
        write_volume(mask, tmp_path / f"mask{suffix}")
        client.save_label("normal_1", tmp_path / f"mask{suffix}", tag="draft")
    assert [path.name for path in (server.studies / "labels" / "draft").glob("normal_1*")] == ["normal_1.nii.gz"]
    back = client.download_label("normal_1", "draft", tmp_path / "back.nii.gz")
    assert np.array_equal(read_volume(back).array, mask.array)
    answer = requests.delete(f"{server.url}/datastore/label?id=normal_1&tag=draft", timeout=30)
    assert answer.status_code == 200
    with pytest.raises(ServerError, match="no label") as caught:
        client.download_label("normal_1", "draft", tmp_path / "gone.nii.gz")
    assert caught.value.status == 404


def test_random_offers_every_unlabelled_image_before_one_twice(client: Client) -> None:
    unlabelled = [image for image in client.images() if image not in ("lesion_1", "lesion_2")]
    client.next_sample()  # evens out what other tests asked for
    offered = {client.next_sample()["id"] for _ in range(3 * len(unlabelled))}
    assert offered <= set(unlabelled) and len(offered) > 1
    with pytest.raises(ServerError, match="Strategy 'best' was not found"):
        client.next_sample("best")


EVIL = ["../evil", "..", "a/b", "/tmp/evil", "a\\b", ".hidden", "nul\x00", "x" * 129, "line\nbreak", " space"]


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if ".lock" not in path.name}


@pytest.mark.parametrize("image", EVIL)
def test_no_image_is_written_under_an_evil_name(server: Server, image: str) -> None:
    root = server.studies.parent
    before = files(root)
    with open(server.studies / "normal_1.nii.gz", "rb") as stream:
        upload = {"file": ("x.nii.gz", stream)}
        answer = requests.put(f"{server.url}/datastore/image", params={"image": image}, files=upload, timeout=30)
    assert answer.status_code == 400 and "image id" in answer.json()["detail"], answer.text
    assert files(root) == before


@pytest.mark.parametrize("tag", ["../../x", "/tmp/x", "a/b", "..", "ö", "t" * 65])
def test_no_label_is_written_under_an_evil_tag(server: Server, tag: str) -> None:
    root = server.studies.parent
    before = files(root)
    with open(server.studies / "normal_1.nii.gz", "rb") as stream:
        query, upload = {"image": "normal_1", "tag": tag}, {"label": ("x.nii.gz", stream)}
        answer = requests.put(f"{server.url}/datastore/label", params=query, files=upload, timeout=30)
    assert answer.status_code == 400 and "tag" in answer.json()["detail"], answer.text
    assert files(root) == before


@pytest.mark.parametrize("name", ["../../outside.nii.gz", "/tmp/outside.nii.gz"])
def test_the_name_of_a_sent_file_leads_nowhere(server: Server, client: Client, name: str) -> None:
    with open(server.studies / "normal_1.nii.gz", "rb") as stream:
        answer = requests.put(f"{server.url}/datastore/image", files={"file": (name, stream)}, timeout=30)
    assert answer.status_code == 200 and answer.json() == {"image": "outside"}
    assert requests.delete(f"{server.url}/datastore/image?id=outside", timeout=30).status_code == 200
    assert "outside" not in client.images()


@pytest.mark.parametrize(
    ("name", "content", "status", "says"),
    [
        ("broken.nii.gz", b"\x1f\x8b nonsense", 422, "broken"),
        ("empty.nii.gz", b"", 422, "empty"),
        ("text.nrrd", b"NRRD0004\ntype: float\n", 422, ""),
        ("header.nhdr", b"NRRD0004\ndata file: /etc/passwd\n", 415, ".nii.gz"),
        ("picture.png", b"\x89PNG", 422, "picture.png"),
        ("picture.gif", b"GIF89a", 415, ".nii.gz"),
        ("", b"x", 400, "image id"),
    ],
)
def test_what_is_no_volume_is_not_taken(
    server: Server, client: Client, name: str, content: bytes, status: int, says: str
) -> None:
    before = client.images()
    answer = requests.put(f"{server.url}/datastore/image", files={"file": (name, content)}, timeout=30)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text
    assert client.images() == before


def test_a_label_must_lie_on_its_images_grid(client: Client, tmp_path: Path) -> None:
    _, mask = head(1, lesion=True)
    write_volume(Volume(mask.array[:-1], mask.affine), tmp_path / "cropped.nii.gz")
    moved = mask.affine.copy()
    moved[0, 3] += 20
    write_volume(Volume(mask.array, moved), tmp_path / "moved.nii.gz")
    for path in tmp_path.iterdir():
        with pytest.raises(ServerError, match=r"sizes|apart") as caught:
            client.save_label("normal_1", path, tag="draft")
        assert caught.value.status == 422


def test_of_a_link_only_the_link_is_removed(client: Client, server: Server) -> None:
    """Studies may be links to files elsewhere, which the server must not remove."""
    archive = server.studies.parent / "archive"
    write_series(archive, head(14)[0].array)
    (archive / "scan.nii.gz").write_bytes((server.studies / "normal_1.nii.gz").read_bytes())
    before = {path.name: path.read_bytes() for path in archive.iterdir()}
    (server.studies / "linked.nii.gz").symlink_to(archive / "scan.nii.gz")
    (server.studies / "linked_series").symlink_to(archive, target_is_directory=True)
    (server.studies / "labels" / "draft").mkdir(exist_ok=True)
    (server.studies / "labels" / "draft" / "linked.nii.gz").symlink_to(archive / "scan.nii.gz")
    for image in ("linked", "linked_series"):
        assert image in client.images()
        client.json("DELETE", "/datastore/image", params={"id": image})
        assert image not in client.images()
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before
    assert not [path for path in server.studies.rglob("linked*")], "not even dangling links are left"


def test_a_new_image_never_gets_an_earlier_ones_labels(client: Client, server: Server, tmp_path: Path) -> None:
    """An image was removed from the folder by hand, its label was not: the label is another patient's."""
    volume, mask = head(15, lesion=True)
    write_volume(volume, tmp_path / "case.nii.gz")
    write_volume(mask, tmp_path / "mask.nrrd")
    client.upload_image(tmp_path / "case.nii.gz")
    client.save_label("case", tmp_path / "mask.nrrd")
    (server.studies / "case.nii.gz").unlink()
    assert "case" not in client.images()
    with pytest.raises(ServerError, match=r"earlier image 'case'.*remove final/case.nrrd") as caught:
        client.upload_image(tmp_path / "case.nii.gz")
    assert caught.value.status == 409 and "case" not in client.images()
    (server.studies / "labels" / "final" / "case.nrrd").unlink()
    assert client.upload_image(tmp_path / "case.nii.gz") == "case"
    assert not client.json("GET", "/datastore/", params={"output": "all"})["objects"]["case"]["labels"]
    client.json("DELETE", "/datastore/image", params={"id": "case"})


def test_an_image_that_was_refused_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full between the image and the list of images."""
    from medclipad.server.stores.folder import StudyDatastore

    write_volume(head(1)[0], tmp_path / "x.nii.gz")
    store = StudyDatastore(tmp_path / "studies")

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_update_datastore_file", full)
        with pytest.raises(OSError, match="No space"):
            store.add_image("x", str(tmp_path / "x.nii.gz"), {})
    assert store.list_images() == [] and not (tmp_path / "studies" / "x.nii.gz").exists()
    assert store.add_image("x", str(tmp_path / "x.nii.gz"), {}) == "x" and store.list_images() == ["x"]


@pytest.mark.parametrize("query", ["image?image=nobody", "image/info?image=nobody", "label?label=normal_1&tag=nothing"])
def test_unknown_names_are_404(server: Server, query: str) -> None:
    answer = requests.get(f"{server.url}/datastore/{query}", timeout=30)
    assert answer.status_code == 404 and answer.json()["detail"].endswith(".")
    assert requests.head(f"{server.url}/datastore/image?image=nobody", timeout=30).status_code == 404


@pytest.mark.parametrize("info", ["[]", "{", '{"a": NaN}', "7"])
def test_image_info_must_be_a_json_object(server: Server, info: str) -> None:
    address = f"{server.url}/datastore/image/info?image=normal_2"
    answer = requests.put(address, data={"info": info}, timeout=30)
    assert answer.status_code == 400 and answer.json()["detail"] == "info must be a JSON object."


def test_a_dicom_series_in_a_folder_is_an_image(trained: list[dict], client: Client, server: Server) -> None:
    write_series(server.studies / "series", head(10)[0].array)
    assert "series" in client.images()
    path = client.download_image("series", server.studies.parent / "series.nii.gz")
    image = read_volume(path)
    assert sorted(image.shape) == sorted(SHAPE)
    labelmap = read_volume(client.infer("mediclip", "series")[0])
    assert labelmap.shape == image.shape
    np.testing.assert_allclose(labelmap.affine, image.affine, atol=1e-5)


def write_series(folder: Path, array: np.ndarray) -> None:
    """An axial MR series with 3 x 3 x 5 mm voxels."""
    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = series, study, frame
        slice_.PatientName, slice_.PatientID, slice_.Modality = "Nobody", "0", "MR"
        slice_.SeriesNumber, slice_.InstanceNumber = 1, k + 1
        slice_.ImageType = ["DERIVED", "PRIMARY", "M"]
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [-70, -60, 5.0 * k], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness, slice_.SpacingBetweenSlices = [3, 3], 5, 5
        slice_.Columns, slice_.Rows = array.shape[:2]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = np.ascontiguousarray(array[:, :, k].T.clip(0).astype("<u2")).tobytes()
        slice_.save_as(folder / f"{array.shape[2] - k:03d}.dcm", enforce_file_format=True)
