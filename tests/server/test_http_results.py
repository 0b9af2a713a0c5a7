"""Results are computed once, however often they are requested, and images are uploaded once."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from live_server import Server, head, regions_of

from medclipad.client import Client, ServerError
from medclipad.volume import Volume, read_volume, write_volume
from medclipad.volume.fingerprint import content_sha256

pytestmark = pytest.mark.usefixtures("trained")


def test_the_second_answer_is_the_first_and_comes_at_once(client: Client, tmp_path: Path) -> None:
    ask = {"result": "map", "plane": "sagittal"}
    first, scores = client.infer("mediclip", "lesion_2", ask, folder=tmp_path / "a")
    second, again = client.infer("mediclip", "lesion_2", ask, folder=tmp_path / "b")
    assert (scores.pop("cached"), again.pop("cached")) == (False, True)
    assert again["seconds"] < min(1, scores["seconds"]), "no voxel is read for it"
    for changing in ("seconds", "request_id"):
        del scores[changing], again[changing]
    assert scores == again and first.read_bytes() == second.read_bytes()
    labelmap, of_cached = client.infer("mediclip", "lesion_2", {"plane": "sagittal"}, folder=tmp_path / "c")
    assert of_cached["cached"]
    assert np.array_equal(read_volume(labelmap).array, regions_of(read_volume(first).array, scores))
    assert not client.infer("mediclip", "lesion_2", {"plane": "coronal"})[1]["cached"]
    assert client.infer("mediclip", "lesion_2", {"plane": "sagittal", "detector": "starter"})[1]["cached"] is False


def test_another_file_under_the_same_id_is_analysed_anew_and_a_removed_ones_map_goes(
    client: Client, server: Server, tmp_path: Path
) -> None:
    volume, _ = head(21)
    write_volume(volume, tmp_path / "changing.nii.gz")
    client.upload_image(tmp_path / "changing.nii.gz")
    first = client.infer("mediclip", "changing", {"result": "map"}, folder=tmp_path)[0].read_bytes()
    kept = client.download_label("changing", "anomaly_map", tmp_path / "kept.nii.gz")
    assert kept.read_bytes() == first, "the map is there under its tag, for clients that know nothing of us"
    assert "anomaly_map" not in client.info()["datastore"]["label_tags"], "but it is no label"
    other, _ = head(22, lesion=True)
    write_volume(other, server.studies / "changing.nii.gz")
    path, scores = client.infer("mediclip", "changing", {"result": "map"}, folder=tmp_path)
    assert scores["cached"] is False and path.read_bytes() != first
    requests.delete(f"{server.url}/datastore/image?id=changing", timeout=30)
    write_volume(other, server.studies / "changing.nii.gz")
    os.utime(server.studies / "changing.nii.gz", ns=(1, 1))
    with pytest.raises(ServerError, match="no label"):
        client.download_label("changing", "anomaly_map", tmp_path / "gone.nii.gz")
    (server.studies / "changing.nii.gz").unlink()


def test_two_who_ask_the_same_wait_for_one_and_cancel_alone(client: Client, server: Server, tmp_path: Path) -> None:
    small, _ = head(23)
    large = Volume(np.tile(small.array, (1, 1, 10)), small.affine)
    write_volume(large, tmp_path / "shared.nii.gz")
    client.upload_image(tmp_path / "shared.nii.gz")
    outcomes: dict[str, object] = {}

    def ask(name: str) -> None:
        try:
            outcomes[name] = Client(server.url).infer("mediclip", "shared", {"request_id": name})[1]
        except ServerError as error:
            outcomes[name] = error

    threads = {name: threading.Thread(target=ask, args=(name,)) for name in ("one", "two")}
    for thread in threads.values():
        thread.start()
    both = None
    deadline = time.monotonic() + 60
    while both is None and time.monotonic() < deadline:
        try:
            states = [client.progress(name) for name in threads]
        except ServerError:
            continue
        if all(state["phase"] == "detect" and state["done"] > 0 for state in states):
            both = states
    assert both and all(state["state"] == "running" for state in both), "one would be queued if both were computed"
    client.cancel("one")
    threads["one"].join(30)
    assert client.progress("two")["state"] == "running", "it does not wait for the other"
    assert isinstance(outcomes["one"], ServerError) and outcomes["one"].status == 409
    assert client.progress("one")["state"] == "cancelled"
    threads["two"].join(240)
    assert isinstance(outcomes["two"], dict) and client.progress("two")["state"] == "done"
    requests.delete(f"{server.url}/datastore/image?id=shared", timeout=30)


def test_an_image_is_found_by_its_content_whatever_its_format(client: Client, server: Server, tmp_path: Path) -> None:
    volume = read_volume(server.studies / "normal_2.nrrd")
    assert client.find_image(content_sha256(volume)) == "normal_2"
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[-1.5, 0, 0, 10], [0, 2, 0, -0.00001], [0, 0, 3, 7.25], [0, 0, 0, 1]])
    whole = Volume(array, affine)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_volume(whole, tmp_path / f"same{suffix}")
        assert content_sha256(read_volume(tmp_path / f"same{suffix}")) == content_sha256(whole), suffix
    client.upload_image(tmp_path / "same.mha", "by_content")
    assert client.find_image(content_sha256(read_volume(tmp_path / "same.nrrd"))) == "by_content"
    assert client.find_image("0" * 64) is None
    assert requests.get(f"{server.url}/datastore/hash/xyz", timeout=30).status_code == 422
    requests.delete(f"{server.url}/datastore/image?id=by_content", timeout=30)
    assert client.find_image(content_sha256(whole)) is None


def test_the_recipe_of_the_hash_is_fixed() -> None:
    """Slicer computes it with numpy alone: this is what it does."""
    import hashlib

    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    affine = np.array([[1.0, 0, 0, -0.00001], [0, 1, 0, 2.5], [0, 0, -3, 1 / 3], [0, 0, 0, 1]])
    text = "2x3x4 <i2\n1.0000 0.0000 0.0000 0.0000 0.0000 1.0000 0.0000 2.5000 0.0000 0.0000 -3.0000 0.3333\n"
    expected = hashlib.sha256(text.encode() + array.transpose(2, 1, 0).astype("<i2").tobytes()).hexdigest()
    assert content_sha256(Volume(array, affine)) == expected


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"plane": "axial", "normal": [99]}, "axial slice 99 does not exist"),
        ({"plane": "axial", "abnormal": [-1]}, "axial slice -1 does not exist"),
        ({"plane": "axial", "normal": [3], "abnormal": [3]}, "slice 3"),
        ({"plane": "oblique", "normal": [3]}, "plane"),
        ({"normal": [3]}, "plane"),
        ({"plane": "axial", "normal": ["x"]}, "normal"),
        ({"plane": "axial", "notes": "x"}, "notes"),
        ([], ""),
    ],
)
def test_marks_that_cannot_be(server: Server, client: Client, body: Any, says: str) -> None:
    answer = requests.put(f"{server.url}/marks?image=normal_1", json=body, timeout=30)
    assert answer.status_code == 422 and says.lower() in answer.json()["detail"].lower(), answer.text
    assert client.marks("normal_1") == {"plane": None, "normal": [], "abnormal": []}


def test_marks_are_kept_and_learned_from(server: Server, client: Client) -> None:
    given = client.set_marks("normal_1", "axial", normal=[8, 6, 7, 6], abnormal=[12, 13])
    assert client.marks("normal_1") == given == {"plane": "axial", "normal": [6, 7, 8], "abnormal": [12, 13]}
    info = requests.put(
        f"{server.url}/datastore/image/info?image=normal_1", data={"info": json.dumps({"marks": 1})}, timeout=30
    )
    assert info.status_code == 400, "not past the check"
    with pytest.raises(ServerError, match="was not found in the studies") as caught:
        client.marks("nobody")
    assert caught.value.status == 404
    try:
        body = {"epochs": 1, "abnormal": ["normal_1"], "held_out": 0, "select": "never", "name": "marks"}
        client.train("mediclip", body)
        outcome = client.wait_trained(seconds=120)["outcome"]
        detector = json.loads((server.studies / "models" / "mediclip" / "marks" / "detector.json").read_text())
        assert detector["training_slices"] == [{"volume": "normal_1", "normal": [6, 7, 8], "abnormal": [12, 13]}]
        assert outcome["new"] is None and "Not compared" in outcome["verdict"]
        client.delete_version("mediclip", "marks")
    finally:
        client.json("PUT", "/marks", params={"image": "normal_1"}, json={})
    assert client.marks("normal_1") == {"plane": None, "normal": [], "abnormal": []}


def test_the_cache_is_bounded_survives_and_forgets(tmp_path: Path) -> None:
    from medclipad.server.inference.result_cache import CacheKey, ResultCache

    volume = Volume(np.random.default_rng(0).random((8, 8, 8)).astype(np.float32), np.eye(4), metadata={"format": "x"})
    one = CacheKey("patient", "s1", "d", "axial")
    ResultCache(tmp_path).put(one, volume, {"scores": {"volume_score": 0.5}})
    found = ResultCache(tmp_path).get(one)
    assert found is not None
    assert np.array_equal(found.anomaly_map.array, volume.array) and found.record["scores"] == {"volume_score": 0.5}
    assert np.array_equal(found.anomaly_map.affine, volume.affine)
    assert "patient" not in str([*tmp_path.rglob("*")]), "no id in the names of files"
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    cache = ResultCache(tmp_path, limit=int(2.5 * size))
    for number in range(5):
        cache.put(CacheKey(f"image {number}", "s", "d", "axial"), volume, {"scores": {}})
        time.sleep(0.01)
    assert cache.get(one) is None and cache.get(CacheKey("image 4", "s", "d", "axial"))
    assert len([*tmp_path.glob("*/*/map.nii.gz")]) == 2
    assert cache.get(CacheKey("image 4", "changed", "d", "axial")) is None
    cache.put(CacheKey("image 4", "changed", "d", "axial"), volume, {"scores": {}})
    assert cache.get(CacheKey("image 4", "s", "d", "axial")) is None, "the earlier state's result goes"
    cache.prune(["image 3"])
    assert len([*tmp_path.glob("*/*/map.nii.gz")]) == 1
    cache.remove_image("image 3")
    assert not [*tmp_path.glob("*/*")]


def test_a_damaged_entry_is_no_answer(tmp_path: Path) -> None:
    from medclipad.server.inference.result_cache import CacheKey, ResultCache

    cache, one = ResultCache(tmp_path), CacheKey("a", "s", "d", "axial")
    cache.put(one, Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)), {"scores": {}})
    next(tmp_path.rglob("map.nii.gz")).write_bytes(b"half")
    assert cache.get(one) is None and not [*tmp_path.glob("*/*")]
