"""What both clients do with a real server: the library's, and the Slicer module's."""

from __future__ import annotations

import gzip
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from bindings import TOKEN, Binding
from live_server import SHAPE, SMALL, Server, head

from medclipad.volume import Volume, read_volume, write_volume
from medclipad.volume.fingerprint import content_sha256


def never() -> bool:
    return False


def ignore(_: dict) -> None:
    pass


def wait_for(client: Any, reached: Callable[[dict], bool], seconds: float = 300) -> dict:
    """Return the progress of the training as soon as it is as a test wants it."""
    deadline = time.monotonic() + seconds
    while True:
        progress = client.train_progress()
        if reached(progress):
            return progress
        assert time.monotonic() < deadline, progress
        time.sleep(0.1)


@pytest.fixture
def refused(binding: Binding) -> Callable[..., Any]:
    """`refused(call, ...)`: the ServerError that a call raises, which is one sentence."""

    def check(call: Callable[..., Any], *arguments: Any) -> Any:
        with pytest.raises(binding.server_error) as caught:
            call(*arguments)
        sentence = str(caught.value)
        assert sentence[0].isprintable() and sentence.endswith(".") and "\n" not in sentence, sentence
        return caught.value

    return check


@pytest.fixture
def volume_file(tmp_path: Path) -> Path:
    """A volume that the server does not have yet."""
    volume, _ = head(uuid.uuid4().int % 2**32)
    write_volume(volume, tmp_path / "volume.nii.gz")
    return tmp_path / "volume.nii.gz"


# --- server ---
def test_info(client: Any) -> None:
    info = client.info()
    assert "mediclip" in info["models"] and "properties" in info["trainers"]["mediclip"]["schema"]


@pytest.mark.parametrize("token", ["", "correct-horse-batterz", "ключ"])
def test_a_wrong_token(binding: Binding, server: Server, refused: Callable, token: str) -> None:
    error = refused(binding.connect(server.url, token).info)
    assert (error.cause, error.status) == ("token", 401) and "requires an access token" in str(error)


def test_space_around_address_and_token_is_ignored(binding: Binding, server: Server) -> None:
    assert binding.connect(f" {server.url}/ ", f"{TOKEN}\n").info()["models"]


def test_a_copy_is_a_client_of_the_same_server(client: Any) -> None:
    copy = client.copy()
    assert copy is not client and copy.info()["models"] == client.info()["models"]


# --- images ---
def test_upload_find_and_download(client: Any, binding: Binding, server: Server, volume_file: Path) -> None:
    sha256, name = content_sha256(read_volume(volume_file)), f"case {uuid.uuid4().hex[:8]} ö&+"
    assert client.find_image(sha256) is None and not client.has_image(name)
    sent: list[tuple[int, int]] = []
    try:
        assert client.upload_image(volume_file, name, lambda done, total: sent.append((done, total))) == name
        size = volume_file.stat().st_size
        assert sent == sorted(sent) and sent[-1] == (size, size)
        assert client.find_image(sha256) == name and client.has_image(name)
        received: list[tuple[int, int]] = []
        folder = volume_file.parent / "received"
        folder.mkdir()
        path = binding.download(client, name, folder, lambda done, total: received.append((done, total)))
        assert path.read_bytes() == volume_file.read_bytes() and path.name.endswith(".nii.gz")
        assert received == sorted(received) and received[-1] == (size, size)
    finally:
        server.client.delete_image(name)
    assert not client.has_image(name)


def test_an_id_is_given_once(client: Any, refused: Callable, volume_file: Path) -> None:
    error = refused(client.upload_image, volume_file, "normal_1")
    assert (error.cause, error.status) == ("answer", 409)


def test_a_damaged_file_is_refused(client: Any, refused: Callable, tmp_path: Path) -> None:
    (tmp_path / "damaged.nii.gz").write_bytes(b"this is not a volume")
    error = refused(client.upload_image, tmp_path / "damaged.nii.gz", "damaged_upload")
    assert 400 <= error.status < 500 and not client.has_image("damaged_upload")


def test_a_callback_stops_an_upload_and_a_download(client: Any, binding: Binding, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    noise = np.random.default_rng(0).normal(size=(100, 100, 30)).astype(np.float32)
    write_volume(Volume(noise, np.eye(4)), tmp_path / "large.nrrd")
    with pytest.raises(Stop):
        client.upload_image(tmp_path / "large.nrrd", "stopped", stop)
    assert not client.has_image("stopped")
    folder = tmp_path / "received"
    folder.mkdir()
    with pytest.raises(Stop):
        binding.download(client, "normal_1", folder, stop)
    assert client.has_image("normal_1"), "the client is still usable"


def test_unknown_images(client: Any, binding: Binding, refused: Callable, tmp_path: Path) -> None:
    assert refused(binding.download, client, "nobody", tmp_path, None).status == 404
    assert refused(client.marks, "nobody").status == 404
    assert refused(binding.infer, client, "mediclip", "nobody", ignore, never).status == 404
    assert not list(tmp_path.iterdir()), "half a file is left"


# --- inference ---
def test_infer_with_progress(client: Any, binding: Binding, server: Server, tmp_path: Path) -> None:
    volume, _ = head(uuid.uuid4().int % 2**32)
    tall = Volume(volume.array.repeat(8, axis=2), volume.affine)
    write_volume(tall, tmp_path / "tall.nii.gz")
    name = server.client.upload_image(tmp_path / "tall.nii.gz", f"tall_{uuid.uuid4().hex[:8]}")
    reports: list[dict] = []
    scores, content = binding.infer(client, "mediclip", name, reports.append, never)
    server.client.delete_image(name)
    anomaly_map = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert anomaly_map.shape == (*SHAPE[:2], 8 * SHAPE[2]) and anomaly_map.get_data_dtype() == np.float32
    assert scores["detector"] == client.versions()["mediclip"]["current"] and scores["slice_scores"]
    assert reports and {report["state"] for report in reports} <= {"queued", "running", "done"}
    assert all(0 <= report["done"] <= report["total"] for report in reports if report["total"])


def test_infer_is_cancelled(client: Any, binding: Binding, server: Server, tmp_path: Path) -> None:
    volume, _ = head(uuid.uuid4().int % 2**32)
    tall = Volume(volume.array.repeat(80, axis=2), volume.affine)
    write_volume(tall, tmp_path / "endless.nii.gz")
    name = server.client.upload_image(tmp_path / "endless.nii.gz", f"endless_{uuid.uuid4().hex[:8]}")
    reports: list[dict] = []
    started = time.monotonic()
    with pytest.raises(binding.cancelled):
        binding.infer(client, "mediclip", name, reports.append, lambda: bool(reports))
    assert time.monotonic() - started < 60
    server.client.delete_image(name)
    scores, _ = binding.infer(client, "mediclip", "lesion_1", ignore, never)
    assert scores["slice_scores"], "the server goes on after a cancelled request"


def test_requests_for_an_unknown_inference(client: Any, refused: Callable) -> None:
    assert refused(client.progress, "nobody's request").status == 404
    assert refused(client.cancel, "nobody's request").status == 404


def test_an_unknown_model(client: Any, binding: Binding, refused: Callable) -> None:
    assert refused(binding.infer, client, "nobody", "normal_1", ignore, never).status in (400, 404)


# --- labels and marks ---
def test_save_label(client: Any, server: Server, tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:14, 12:16, 8:10] = 1
    write_volume(read_volume(server.studies / "lesion_1.mha").with_array(mask), tmp_path / "label.nrrd")
    assert client.save_label("lesion_1", tmp_path / "label.nrrd") == "lesion_1"
    saved = read_volume(server.client.download_label("lesion_1", "final", tmp_path / "saved.nrrd"))
    assert np.array_equal(saved.array != 0, mask != 0)


def test_a_label_on_another_grid_is_refused(client: Any, refused: Callable, tmp_path: Path) -> None:
    write_volume(Volume(np.ones((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "label.nrrd")
    assert 400 <= refused(client.save_label, "lesion_1", tmp_path / "label.nrrd").status < 500


def test_marks(client: Any, refused: Callable) -> None:
    client.set_marks("normal_1", "axial", normal=[3, 4], abnormal=[7])
    assert client.marks("normal_1") == {"plane": "axial", "normal": [3, 4], "abnormal": [7]}
    assert 400 <= refused(client.set_marks, "normal_1", "axial", [10_000]).status < 500
    client.set_marks("normal_1")
    assert client.marks("normal_1") == {"plane": None, "normal": [], "abnormal": []}


# --- training and versions ---
def test_train_select_and_delete(client: Any, server: Server, refused: Callable) -> None:
    server.client.select_version("mediclip", "first")
    name = f"second_{uuid.uuid4().hex[:8]}"
    client.train("mediclip", {**SMALL, "normal": ["normal_1"], "name": name})
    progress = wait_for(client, lambda progress: progress["status"] not in ("SUBMITTED", "RUNNING"))
    assert progress["status"] == "DONE" and progress["outcome"]["version"] == name
    assert next(version["name"] for version in client.versions()["mediclip"]["versions"]) == name
    assert client.select_version("mediclip", name)["current"] == name
    assert refused(client.delete_version, "mediclip", name).status == 409
    assert client.select_version("mediclip", "first")["current"] == "first"
    kept = client.delete_version("mediclip", name)
    assert name not in [version["name"] for version in kept["versions"]]
    assert refused(client.select_version, "mediclip", name).status == 404
    assert refused(client.delete_version, "mediclip", "nobody").status in (400, 404)


def test_stop_a_training(client: Any, refused: Callable) -> None:
    client.train("mediclip", {"normal": ["normal_1"], "epochs": 10_000, "memory_share": 0.5, "name": "endless"})
    try:
        error = refused(client.train, "mediclip", {**SMALL, "normal": ["normal_1"]})
        assert (error.cause, error.status) == ("busy", 429)
        wait_for(client, lambda progress: progress["status"] == "RUNNING")
    finally:
        client.stop_training()
    assert wait_for(client, lambda progress: progress["status"] != "RUNNING")["status"] == "STOPPED"
    assert client.versions()["mediclip"]["current"] != "endless"


def test_a_training_that_cannot_start(client: Any, refused: Callable) -> None:
    assert 400 <= refused(client.train, "mediclip", {"normal": ["nobody"]}).status < 500
    assert 400 <= refused(client.train, "mediclip", {"epochs": "many"}).status < 500
    assert 400 <= refused(client.train, "nobody", {}).status < 500


# --- active learning ---
def test_next_sample(client: Any, refused: Callable) -> None:
    sample = client.next_sample("random")
    assert sample["id"] in ("normal_1", "normal_2", "lesion_1", "lesion_2", "damaged") and client.has_image(
        sample["id"]
    )
    assert 400 <= refused(client.next_sample, "nobody").status < 500
