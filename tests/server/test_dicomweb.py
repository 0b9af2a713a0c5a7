"""The server on studies of a real archive: Orthanc with its DICOMweb plugin, started here."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from live_server import SMALL, Server, head, regions_of
from orthanc_server import MISSING, Orthanc
from scipy.spatial.transform import Rotation

from medclipad.client import ServerError
from medclipad.cohort.listing import list_scans
from medclipad.detection.cases import AS_IS
from medclipad.detection.fit import fit
from medclipad.errors import MedCLIPADError
from medclipad.server.launch import ServerSettings, serve
from medclipad.volume import Volume, read_volume, write_volume
from sample_data.dicom import LPS, write_series

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
PASSWORD = "an archive's password"


def series(folder: Path, seed: int, lesion: bool) -> tuple[Volume, Volume]:
    """A head as an oblique DICOM series in `folder`; (volume, mask) as read from there."""
    volume, mask = head(seed, lesion)
    affine = np.eye(4)
    affine[:3, :3] = LPS @ Rotation.from_euler("xyz", (12, -7, 5), degrees=True).as_matrix() @ np.diag((3, 3, 5))
    affine[:3, 3] = (60, 60, -50)
    folder.parent.mkdir(parents=True, exist_ok=True)
    placed = Volume(volume.array.clip(0).astype(np.uint16), affine, name=f"head{seed}")
    write_series(placed, folder, f"head {seed}", seed=0)
    read = read_volume(folder)
    return read, read.with_array(mask.array)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two normal heads, two with a lesion, by series UID, and where they lie."""
    folder = tmp_path_factory.mktemp("heads")
    made = [series(folder / "x" / str(seed), seed, seed > 2) for seed in (1, 2, 3, 4)]
    return {volume.metadata["dicom"]["SeriesInstanceUID"]: (volume, mask) for volume, mask in made} | {"": folder / "x"}


@pytest.fixture(scope="module")
def orthanc(heads, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    running = Orthanc(tmp_path_factory.mktemp("orthanc") / "o", PASSWORD)
    for folder in sorted(heads.pop("").iterdir()):
        running.add(folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def archive(orthanc: Orthanc, heads, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("archive") / "models"
    normal, _ = next(iter(heads.values()))
    detector = fit(method="mediclip", normal=[normal], shots=8, epochs=2, image_size=64, name="small")
    detector.save(models / "mediclip" / "small")
    running = Server(
        orthanc.url, "--models", str(models), MEDCLIPAD_PACS_USER="reader", MEDCLIPAD_PACS_PASSWORD=PASSWORD
    )
    running.models = models
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log
    for secret in (PASSWORD, "SIMULATED", "SIM-head"):
        assert secret not in running.log


@pytest.fixture(scope="module")
def sick(orthanc, heads) -> str:
    """UID of a head with a lesion."""
    return list(heads)[2]


def infer(server: Server, image: str, output: str, **params: object) -> requests.Response:
    return server.client.request(
        "POST", "/infer/mediclip", params={"image": image, "output": output}, data={"params": json.dumps(params)},
        timeout=120,
    )  # fmt: skip


def status(call: Callable[[], object]) -> tuple[int | None, str]:
    with pytest.raises(ServerError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return caught.value.status, text


# --- images ------------------------------------------------------------------------------------------------------


def test_images_are_the_series_by_uid(archive, heads):
    assert archive.client.images() == sorted(heads)
    known = archive.client.json("GET", "/datastore/", params={"output": "all"})["objects"]
    assert {one["image"]["info"]["SeriesDescription"] for one in known.values()} == {f"head {n}" for n in (1, 2, 3, 4)}
    assert "SIM" not in json.dumps(known)  # no patient's name or number
    assert archive.client.info()["datastore"]["total"] == 4


def test_an_image_comes_as_its_own_grid(archive, heads, sick, tmp_path):
    read = read_volume(archive.client.download_image(sick, tmp_path / "image.nii.gz"))
    assert np.array_equal(read.array, heads[sick][0].array)
    np.testing.assert_allclose(read.affine, heads[sick][0].affine, atol=1e-5)


@pytest.mark.parametrize("name", ["1.2.3.4.5", "../../etc", "*", "1.2.3/../..", "", "x" * 500])
def test_unknown_images_are_404(archive, name):
    client = archive.client
    for call in (
        lambda: client.request("GET", "/datastore/image", params={"image": name}),
        lambda: client.json("GET", "/datastore/image/info", params={"image": name}),
        lambda: infer(archive, name, "dicom_seg") if name else client.request("GET", "/marks", params={"image": ""}),
    ):
        code, text = status(call)
        assert code in (400, 404, 422)
        assert "Traceback" not in text


def test_images_are_added_and_removed_in_the_archive_only(archive, heads, sick, tmp_path):
    write_volume(heads[sick][0], tmp_path / "new.nii.gz")
    code, text = status(lambda: archive.client.upload_image(tmp_path / "new.nii.gz"))
    assert (code, "send new DICOM images to the archive itself" in text) == (405, True)
    code, text = status(lambda: archive.client.json("DELETE", "/datastore/image", params={"id": sick}))
    assert (code, "remove images there" in text) == (405, True)


# --- inference ---------------------------------------------------------------------------------------------------


def test_inference_by_series_uid(archive, heads, sick, tmp_path):
    path, scores = archive.client.infer("mediclip", sick, {"result": "map", "detector": "small"}, tmp_path)
    found = read_volume(path)
    assert found.shape == heads[sick][0].shape
    assert len(scores["slice_scores"]) == found.shape[2]


def test_results_as_dicom(archive, orthanc, heads, sick, tmp_path):
    """Each is handed out, stored only when that is asked for, and never listed as an image."""
    volume, _ = heads[sick]
    path, scores = archive.client.infer("mediclip", sick, {"result": "map", "detector": "small"}, tmp_path)
    for output, modality in (("dicom_seg", "SEG"), ("dicom_map", "OT"), ("dicom_report", "SR")):
        for store in (False, True):
            answer = infer(archive, sick, output, store=store, detector="small")
            assert answer.headers["Content-Type"] == "application/dicom"
            made = pydicom.dcmread(io.BytesIO(answer.content))
            stored = [pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID for file in orthanc.files(modality)]
            assert (made.SOPInstanceUID in stored) is store
            assert made.Modality == modality
            assert str(made.PatientName) == "SIMULATED^SAMPLE STUDY"
            if output != "dicom_report":
                (tmp_path / "made.dcm").write_bytes(answer.content)
                read = read_volume(tmp_path / "made.dcm")
                np.testing.assert_allclose(read.affine, volume.affine, atol=1e-6)
                anomaly_map = read_volume(path).array
                expected = regions_of(anomaly_map, scores) if output == "dicom_seg" else anomaly_map
                assert np.array_equal(read.array, expected)
    assert archive.client.images() == sorted(heads)
    assert archive.client.info()["datastore"]["completed"] == 0  # what a detector found is no label


def test_what_can_not_be_stored_is_said(archive, sick, heads, tmp_path):
    code, text = status(lambda: infer(archive, sick, "all", store=True))
    assert (code, "params.store needs a DICOM output: dicom_seg" in text) == (400, True)
    code, _ = status(lambda: infer(archive, sick, "dicom_pdf"))
    assert code == 422


# --- labels, info ------------------------------------------------------------------------------------------------


def test_a_label_becomes_a_segmentation_on_the_full_grid(archive, orthanc, heads, sick, tmp_path):
    _, mask = heads[sick]
    write_volume(mask, tmp_path / "mask.nii.gz")
    before = len(orthanc.series("SEG"))
    assert archive.client.save_label(sick, tmp_path / "mask.nii.gz") == sick
    assert archive.client.info()["datastore"]["completed"] == 1
    assert len(orthanc.series("SEG")) == before + 1
    shutil.rmtree(archive.models / "dicomweb")  # so that it really comes back from the archive
    read = read_volume(archive.client.download_label(sick, "final", tmp_path / "back.nii.gz"))
    assert np.array_equal(read.array, mask.array)
    assert read.array.any()
    np.testing.assert_allclose(read.affine, mask.affine, atol=1e-5)
    newest = mask.with_array(np.roll(mask.array, 1, axis=0))
    write_volume(newest, tmp_path / "mask.nii.gz")
    archive.client.save_label(sick, tmp_path / "mask.nii.gz")
    read = read_volume(archive.client.download_label(sick, "final", tmp_path / "back.nii.gz"))
    assert np.array_equal(read.array, newest.array)  # the newest counts
    archive.client.json("DELETE", "/datastore/label", params={"id": sick, "tag": "final"})
    assert archive.client.info()["datastore"]["completed"] == 0
    code, _ = status(lambda: archive.client.download_label(sick, "final", tmp_path / "back.nii.gz"))
    assert code == 404
    assert len(orthanc.series("SEG")) == before + 2  # none is taken from the archive


def test_a_label_of_another_grid_and_a_wrong_tag_are_refused(archive, heads, sick, tmp_path):
    write_volume(Volume(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    assert status(lambda: archive.client.save_label(sick, tmp_path / "mask.nii.gz"))[0] == 422
    write_volume(heads[sick][1], tmp_path / "mask.nii.gz")
    assert status(lambda: archive.client.save_label(sick, tmp_path / "mask.nii.gz", "../x"))[0] == 400


def test_what_the_archive_has_no_place_for_is_kept_beside_the_models(archive, sick):
    archive.client.set_image_info(sick, {"quality": "good"})
    archive.client.json("PUT", "/marks", params={"image": sick}, json={"plane": "axial", "normal": [3], "abnormal": []})
    assert archive.client.json("GET", "/marks", params={"image": sick})["normal"] == [3]
    (notes,) = archive.models.glob("dicomweb/*/notes.json")
    assert json.loads(notes.read_text())["images"][sick]["quality"] == "good"


# --- when the archive fails --------------------------------------------------------------------------------------


def test_an_archive_that_dies_in_the_middle_of_an_answer(archive, orthanc, heads, tmp_path):
    """And one that is away; afterwards everything goes on, and nothing half-fetched lies about."""
    unseen = next(iter(heads))
    archive.client.images()
    orthanc.process.send_signal(signal.SIGSTOP)  # it takes the request, and never answers
    answers: list[tuple[int | None, str]] = []
    asking = threading.Thread(
        target=lambda: answers.append(status(lambda: archive.client.download_image(unseen, tmp_path / "i.nii.gz")))
    )
    asking.start()
    time.sleep(0.5)
    orthanc.stop(signal.SIGKILL)
    asking.join(60)
    (answer,) = answers
    assert answer == (503, "The archive with the studies does not answer: start it, or try again later.")
    time.sleep(3.1)  # until the list counts as old
    assert status(archive.client.images) == answer
    assert not [path for path in archive.models.glob("dicomweb/*/.incoming-*")]
    assert not [path for path in archive.models.glob(f"dicomweb/*/series/{unseen}")]
    orthanc.start()
    read = read_volume(archive.client.download_image(unseen, tmp_path / "i.nii.gz"))
    assert np.array_equal(read.array, heads[unseen][0].array)


@pytest.mark.long  # imports MONAI Label here
def test_a_wrong_password_an_address_of_something_else_and_a_lost_image(orthanc, heads, sick, tmp_path):
    from medclipad.server.errors import RequestError
    from medclipad.server.stores.dicomweb import DicomWebDatastore
    from medclipad.server.stores.pacs import Pacs

    def refused(pacs: Pacs) -> tuple[int, str]:
        with pytest.raises(RequestError) as caught:
            DicomWebDatastore(pacs, "u", tmp_path).list_images()
        return caught.value.status, str(caught.value)

    assert refused(Pacs(orthanc.url, "reader", "guessed"))[0] == 502
    assert "refuses this server: check MEDCLIPAD_PACS_USER" in refused(Pacs(orthanc.url))[1]
    assert refused(Pacs(orthanc.url.replace("dicom-web", "app"), "reader", PASSWORD))[0] == 502
    searching = Pacs(orthanc.url, "reader", PASSWORD, search={"SeriesInstanceUID": sick})
    assert DicomWebDatastore(searching, "u", tmp_path).list_images() == [sick]

    class Losing(Pacs):
        """Sends one image less than it has, as an answer that is cut off between two images."""

        def __init__(self) -> None:
            super().__init__(orthanc.url, "reader", PASSWORD)
            whole = self._client.iter_series
            setattr(self._client, "iter_series", lambda *a, **k: list(whole(*a, **k))[:-1])  # noqa: B010  pyright

    with pytest.raises(RequestError, match="sent 23 of the 24 images of a series") as caught:
        DicomWebDatastore(Losing(), "u", tmp_path).get_image_uri(sick)
    assert caught.value.status == 502
    assert not list(tmp_path.rglob("*.dcm"))


class Cutting(threading.Thread):
    """A way to an archive that breaks off after a number of bytes of the answer."""

    def __init__(self, port: int, after: int) -> None:
        super().__init__(daemon=True)
        self._to, self._after = ("127.0.0.1", port), after
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            near, _ = self._door.accept()
            with near, socket.create_connection(self._to) as far:
                request = b""
                while not request.endswith(b"\r\n\r\n"):  # a GET: a header and no body
                    request += near.recv(65536)
                far.sendall(request)
                left = self._after
                while left > 0 and (block := far.recv(min(left, 65536))):
                    near.sendall(block)
                    left -= len(block)
                near.shutdown(socket.SHUT_RDWR)


@pytest.mark.long
def test_an_answer_that_breaks_off(orthanc, sick, tmp_path):
    from medclipad.server.errors import RequestError
    from medclipad.server.stores.pacs import Pacs

    (series,) = Pacs(orthanc.url, "reader", PASSWORD, search={"SeriesInstanceUID": sick}).images()
    for after in (60, 3000, 60_000):
        cut = Cutting(orthanc.port, after)
        with pytest.raises(RequestError) as caught:
            Pacs(f"http://127.0.0.1:{cut.port}/dicom-web", "reader", PASSWORD).fetch(series, tmp_path)
        assert caught.value.status in (502, 503)
        assert str(caught.value).startswith("The archive")


def test_how_it_must_be_started(tmp_path):
    with pytest.raises(MedCLIPADError, match="need a folder for the detectors: set one with --models"):
        serve(ServerSettings("http://127.0.0.1:1/dicom-web"))
    with pytest.raises(MedCLIPADError, match="Give no password in the address"):
        serve(ServerSettings("http://me:secret@127.0.0.1:1/dicom-web", models=tmp_path))


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_training_from_the_labels_of_the_archive(archive, heads, tmp_path):
    """Labels go to the archive, the training process reads them from there, and its detector serves."""
    for uid in list(heads)[2:]:
        write_volume(heads[uid][1], tmp_path / "mask.nii.gz")
        archive.client.save_label(uid, tmp_path / "mask.nii.gz")
    for uid in list(heads)[:2]:
        archive.client.set_image_info(uid, {"normal": True})
    shutil.rmtree(next((archive.models / "dicomweb").glob("*/labels")))
    archive.client.train("mediclip", {**SMALL, "name": "from-archive", "select": "always"})
    done = archive.client.wait_trained(seconds=600)
    assert done["status"] == "DONE"
    assert archive.client.info()["models"]["mediclip"]["current"] == "from-archive"
    _, scores = archive.client.infer("mediclip", list(heads)[3], {}, tmp_path)
    assert scores["detector"] == "from-archive"
    following = archive.client.next_sample("random")
    assert following["id"] in list(heads)[:2]


@pytest.mark.long
def test_restarted_servers_know_what_the_first_one_knew(archive, orthanc, heads, sick, tmp_path):
    archive.client.set_image_info(sick, {"quality": "kept"})
    again = Server(
        orthanc.url, "--models", str(archive.models), MEDCLIPAD_PACS_USER="reader", MEDCLIPAD_PACS_PASSWORD=PASSWORD
    )
    try:
        found = again.client.json("GET", "/datastore/image/info", params={"image": sick})
        assert found["quality"] == "kept"
        assert os.path.isdir(archive.models / "dicomweb")
    finally:
        again.stop()


def test_a_cohort_is_a_query_of_the_archive(orthanc, heads, monkeypatch):
    monkeypatch.setenv("MEDCLIPAD_PACS_USER", "reader")
    monkeypatch.setenv("MEDCLIPAD_PACS_PASSWORD", PASSWORD)
    scans = {scan.name: scan for scan in list_scans(f"{orthanc.url}?Modality=MR")}
    assert set(heads) <= set(scans), "other tests may have stored more"
    for uid, (volume, _) in heads.items():
        read = scans[uid].read(AS_IS)
        assert read.name == uid and np.array_equal(read.array, volume.array)
    with pytest.raises(MedCLIPADError, match="holds no volume"):
        list_scans(f"{orthanc.url}?Modality=US")
