"""Inference over HTTP, with our client, with bare requests, and with MONAI Label's own client."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from live_server import OBLIQUE, SHAPE, Server, head, regions_of
from nibabel import Nifti1Image

from medclipad.client import Client, ServerError
from medclipad.volume import Slicing, read_volume, write_volume

pytestmark = pytest.mark.usefixtures("trained")


def test_map_is_float_on_exactly_the_images_grid(client: Client, server: Server, tmp_path: Path) -> None:
    path, scores = client.infer("mediclip", "lesion_2", {"result": "map"}, folder=tmp_path)
    image, given = Nifti1Image.load(server.studies / "lesion_2.nii.gz"), Nifti1Image.load(path)
    assert path == tmp_path / "lesion_2.nii.gz"
    assert given.get_data_dtype() == np.float32 and given.shape == image.shape == SHAPE
    assert given.affine is not None and image.affine is not None
    assert np.array_equal(given.affine, image.affine)
    array = np.asarray(given.dataobj)
    assert array.min() >= 0 and array.max() <= 1 and array.std() > 0
    assert scores["detector"] == "first" and scores["method"] == "mediclip" and scores["plane"] == "axial"
    volume = read_volume(server.studies / "lesion_2.nii.gz")
    assert len(scores["slice_scores"]) == len(Slicing(volume, "axial"))
    assert scores["threshold"] == 0.5 and 0 <= scores["volume_score"] <= 1


def test_scores_of_skipped_slices_are_null(client: Client, tmp_path: Path) -> None:
    volume, _ = head(5)
    volume.array[:, :, :4] = 0
    client.upload_image(write(volume, tmp_path / "open_below.nii.gz"))
    path, scores = client.infer("mediclip", "open_below", {"result": "map"})
    assert None in scores["slice_scores"] and any(scores["slice_scores"])
    assert not np.asarray(Nifti1Image.load(path).dataobj)[:, :, :4].any()


@pytest.mark.parametrize("image", ["normal_1", "normal_2", "lesion_1"])
def test_labelmap_has_the_images_grid_in_every_format(client: Client, server: Server, image: str) -> None:
    path, scores = client.infer("mediclip", image)
    labelmap = read_volume(path)
    assert labelmap.array.dtype == np.uint8 and set(np.unique(labelmap.array)) <= {0, 1}
    assert labelmap.shape == SHAPE
    np.testing.assert_allclose(labelmap.affine, OBLIQUE, atol=1e-5)
    assert scores["label_names"] == {"anomaly": 1}


def test_false_regions_per_scan_chooses_the_regions(client: Client) -> None:
    """A lower limit shows more; the verdict, the regions and the labelmap go with it."""
    _, usual = client.infer("mediclip", "lesion_1")
    rate = max(usual["region_limits"], key=float)
    labelmap, more = client.infer("mediclip", "lesion_1", {"false_regions_per_scan": rate})
    anomaly, again = client.infer("mediclip", "lesion_1", {"false_regions_per_scan": float(rate), "result": "map"})
    assert more["region_limit"] == usual["region_limits"][rate] <= usual["region_limit"]
    assert np.array_equal(read_volume(labelmap).array, regions_of(read_volume(anomaly).array, more))
    assert again["regions"] == more["regions"]
    volumes = [sum(region["volume_ml"] for region in scores["regions"]) for scores in (usual, more)]
    assert 0 < volumes[0] <= volumes[1], "regions may join where the outline falls"
    assert usual["normal_scans"] == 2 and "at most 1 false alarm in 3 can be promised" in usual["promise"]
    assert usual["verdict"].endswith("not for diagnosis.")


def test_labelmap_is_the_regions_of_the_map(client: Client) -> None:
    labelmap, scores = client.infer("mediclip", "lesion_1", {"plane": "coronal"})
    anomaly, _ = client.infer("mediclip", "lesion_1", {"plane": "coronal", "result": "map"})
    assert scores["plane"] == "coronal"
    assert np.array_equal(read_volume(labelmap).array, regions_of(read_volume(anomaly).array, scores))


def test_stock_client_gets_a_labelmap(server: Server, tmp_path: Path) -> None:
    from monailabel.client import MONAILabelClient

    stock = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    model = stock.info()["models"]["mediclip"]
    assert model["type"] == "segmentation" and model["labels"] == {"anomaly": 1} and model["dimension"] == 3
    form = {key: value[0] if isinstance(value, list) else value for key, value in model["config"].items()}
    # the stock Slicer plugin adds this to every inference:
    form |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
    file, params = stock.infer("mediclip", "lesion_1", form)
    assert file is not None and params is not None
    labelmap = read_volume(file)
    assert file.endswith(".nrrd") and labelmap.array.dtype == np.uint8 and labelmap.shape == SHAPE
    np.testing.assert_allclose(labelmap.affine, OBLIQUE, atol=1e-5)
    assert params["label_names"] == {"anomaly": 1} and len(params["slice_scores"]) == SHAPE[2]
    # a map keeps its type and format whatever the request says
    file, _ = stock.infer("mediclip", "lesion_1", {**form, "result": "map"})
    assert file is not None
    assert file.endswith(".nii.gz") and Nifti1Image.load(file).get_data_dtype() == np.float32


def test_output_json_and_image(server: Server) -> None:
    address = f"{server.url}/infer/mediclip?image=normal_1&output="
    scores = requests.post(address + "json", timeout=60)
    assert scores.json()["detector"] == "first"
    image = requests.post(address + "image", timeout=60)
    assert image.content[:2] == b"\x1f\x8b" and 'filename="normal_1.nii.gz"' in image.headers["content-disposition"]


def test_a_sent_file_is_analysed_and_not_kept(server: Server, client: Client, tmp_path: Path) -> None:
    volume, _ = head(6)
    before = client.images()
    with open(write(volume, tmp_path / "mine.nii.gz"), "rb") as stream:
        answer = requests.post(f"{server.url}/infer/mediclip?output=json", files={"file": stream}, timeout=60)
    assert answer.status_code == 200 and len(answer.json()["slice_scores"]) == SHAPE[2]
    assert client.images() == before


def test_source_images_survive(client: Client, server: Server) -> None:
    before = (server.studies / "normal_1.nii.gz").read_bytes()
    client.infer("mediclip", "normal_1")
    assert (server.studies / "normal_1.nii.gz").read_bytes() == before


@pytest.mark.parametrize(
    ("address", "params", "status", "says"),
    [
        ("mediclip?image=nobody", {}, 404, "nobody"),
        ("mediclip?image=/etc/passwd", {}, 404, "was not found in the studies"),
        ("mediclip?image=../studies/normal_1", {}, 404, "was not found in the studies"),
        ("mediclip", {}, 400, "image"),
        ("unknown?image=normal_1", {}, 404, "Model 'unknown' was not found"),
        ("mvfa?image=normal_1", {}, 409, "trained"),
        ("mediclip?image=damaged", {}, 422, "damaged"),
        ("mediclip?image=normal_1", {"image": "/etc/passwd"}, 400, "'image'"),
        ("mediclip?image=normal_1", {"model": "mvfa"}, 400, "'model'"),
        ("mediclip?image=normal_1", {"detector": "../../x"}, 404, "mediclip detector '../../x' was not found"),
        ("mediclip?image=normal_1", {"plane": "oblique"}, 422, "plane"),
        ("mediclip?image=normal_1", {"result": "probability"}, 422, "result"),
        ("mediclip?image=normal_1", {"result_extension": "/../x.nii"}, 422, "result_extension"),
        ("mediclip?image=normal_1", {"request_id": "a/b"}, 422, "request_id"),
        ("mediclip?image=normal_1", {"false_regions_per_scan": -1}, 422, "false_regions_per_scan"),
        ("mediclip?image=normal_1", {"false_regions_per_scan": 0.01}, 422, "give at least 100 normal scans to fit"),
    ],
)
def test_what_cannot_be_done_is_said(server: Server, address: str, params: dict, status: int, says: str) -> None:
    answer = requests.post(f"{server.url}/infer/{address}", data={"params": json.dumps(params)}, timeout=60)
    detail = answer.json()["detail"]
    assert answer.status_code == status and says in detail, answer.text
    assert "\n" not in detail and "Traceback" not in detail


@pytest.mark.parametrize("text", ["{", "[1]", "null", '{"plane": NaN}', "[" * 10000])
def test_params_that_are_no_json_object(server: Server, text: str) -> None:
    answer = requests.post(f"{server.url}/infer/mediclip?image=normal_1", data={"params": text}, timeout=60)
    assert answer.status_code == 400 and answer.json()["detail"] == "params must be a JSON object."


def test_info_answers_while_a_volume_is_analysed_and_cancel_works(
    client: Client, server: Server, tmp_path: Path
) -> None:
    small, _ = head(7)
    large = type(small)(np.tile(small.array, (1, 1, 25)), small.affine)  # 600 slices: seconds of work
    client.upload_image(write(large, tmp_path / "large.nii.gz"))
    outcome: list[ServerError] = []

    def infer() -> None:
        with pytest.raises(ServerError) as caught:
            Client(server.url).infer("mediclip", "large", {"request_id": "large"})
        outcome.append(caught.value)

    worker = threading.Thread(target=infer)
    worker.start()
    states, latencies = [], []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        started = time.perf_counter()
        client.info()
        latencies.append(time.perf_counter() - started)
        try:
            states.append(client.progress("large"))
        except ServerError as error:
            assert error.status == 404  # it has not started yet
        if states and states[-1]["phase"] == "detect" and states[-1]["done"] > 0 and len(latencies) > 5:
            break
    assert states[-1]["state"] == "running" and 0 < states[-1]["fraction"] < 1 and len(latencies) > 5
    assert np.median(latencies) < 0.5, latencies
    cancelled = time.monotonic()
    client.cancel("large")
    worker.join(60)
    assert outcome[0].status == 409 and "cancelled" in str(outcome[0])
    assert time.monotonic() - cancelled < 5
    assert client.progress("large")["state"] == "cancelled"
    client.infer("mediclip", "normal_1")  # the next one is computed


def test_progress_of_nobodys_request(client: Client) -> None:
    with pytest.raises(ServerError, match="Request 'nobodys' was not found") as caught:
        client.progress("nobodys")
    assert caught.value.status == 404


def write(volume, path: Path) -> Path:
    write_volume(volume, path)
    return path
