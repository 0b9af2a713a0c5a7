"""Every call of MONAI Label's own client, against this server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from live_server import SMALL, Server, fill, head
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from medclipad.volume import Volume, read_volume, write_volume
from sample_data.dicom import write_series


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(fill(tmp_path_factory.mktemp("stock") / "studies"), MEDCLIPAD_SCORING="off")
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


@pytest.fixture
def stock(own: Server, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(own.url, tmpdir=str(tmp_path), client_id="reader")


def test_an_image_is_sent_once_for_some_inferences(own: Server, stock: MONAILabelClient, tmp_path: Path) -> None:
    volume, _ = head(21, True)
    write_volume(volume, tmp_path / "case.nii.gz")
    session = stock.create_session(str(tmp_path / "case.nii.gz"))["session_id"]
    assert stock.get_session(session)["name"] == session
    for _ in range(2):
        file, params = stock.infer("mediclip", "", {}, session_id=session)
        assert file is not None and params is not None and read_volume(file).array.shape == volume.array.shape
        assert params["detector"] == "starter" and not params["cached"]
    assert "case" not in stock.datastore()["objects"], "it is not added to the studies"
    stock.remove_session(session)
    for call in (lambda: stock.get_session(session), lambda: stock.infer("mediclip", "", {}, session_id=session)):
        with pytest.raises(MONAILabelClientException, match="404"):
            call()


def test_a_session_ends_some_time_after_its_last_use(own: Server, tmp_path: Path) -> None:
    write_volume(head(21)[0], tmp_path / "case.nii.gz")
    with open(tmp_path / "case.nii.gz", "rb") as stream:
        answer = requests.put(f"{own.url}/session/?expiry=2", files={"files": ("case.nii.gz", stream)}, timeout=60)
    address = f"{own.url}/session/{answer.json()['session_id']}"
    for _ in range(3):
        time.sleep(1)
        assert requests.get(address, timeout=30).status_code == 200
    time.sleep(2.2)
    assert requests.get(address, timeout=30).status_code == 404


def test_a_training_without_a_model_and_its_status(own: Server, stock: MONAILabelClient) -> None:
    options = {**SMALL, "normal": ["normal_1"], "held_out": 0}
    started = stock.train_start(None, {"mediclip": {**options, "name": "unnamed"}, "mvfa": {"shots": 1}})
    assert started["details"] and stock.train_status()["details"][-1]
    assert stock.train_status(True)
    deadline = time.monotonic() + 120
    while stock.train_status(True) and time.monotonic() < deadline:
        time.sleep(0.5)
    status = stock.train_status()
    assert status["status"] == "DONE" and status["details"] and status["start_ts"].endswith("+00:00")
    assert "unnamed" in stock.info()["train_stats"]["mediclip"]["versions"]
    assert stock.train_stop() == {}


def test_a_slide_is_refused_in_a_sentence(stock: MONAILabelClient) -> None:
    with pytest.raises(MONAILabelClientException, match=r"501.*no model for slides of pathology"):
        stock.wsi_infer("mediclip", "normal_1")


def test_the_rest_of_its_calls(own: Server, stock: MONAILabelClient, tmp_path: Path) -> None:
    volume, mask = head(22, True)
    write_volume(volume, tmp_path / "sent.nii.gz")
    write_volume(mask, tmp_path / "label.nii.gz")
    assert not stock.auth_enabled() and stock.info()["name"] == "MedCLIPAD"
    assert stock.upload_image(str(tmp_path / "sent.nii.gz"), "sent")["image"] == "sent"
    assert stock.save_label("sent", str(tmp_path / "label.nii.gz"), "final", {"label_info": [{"name": "tumour"}]})
    assert "final" in stock.datastore()["objects"]["sent"]["labels"]
    assert stock.next_sample("random", {})["id"] in stock.datastore()["objects"]
    assert Path(stock.download_label("sent", "final")).exists()
    assert json.loads(requests.get(f"{own.url}/datastore/label/info?label=sent&tag=final", timeout=30).text)[
        "label_info"
    ]


def test_an_image_comes_in_the_format_that_its_name_says(own: Server, stock: MONAILabelClient, tmp_path: Path) -> None:
    """MONAI Label's plugin saves an image under the name of the next sample, and loads it by its suffix."""
    volume = head(23)[0]
    upright = Volume(volume.array.astype("uint16"), np.diag([3.0, 3.0, 5.0, 1.0]))
    write_series(upright, own.studies / "series", "head", seed=0)
    array = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    sitk.WriteImage(array, str(own.studies / "pair.mhd"))
    names = {}
    for _ in range(2 * len(stock.datastore()["objects"])):
        sample = stock.next_sample("random", {})
        names[sample["id"]] = sample["name"]
    for image, name in {"normal_2": "normal_2.nrrd", "series": "series.nii.gz", "pair": "pair.nii.gz"}.items():
        assert names[image] == name
    for image in ("normal_2", "series", "pair"):
        answer = requests.get(f"{own.url}/datastore/image?image={image}", timeout=60)
        (tmp_path / names[image]).write_bytes(answer.content)
        assert read_volume(tmp_path / names[image]).shape == volume.shape
        assert names[image] in answer.headers["Content-Disposition"]


def test_an_organ_is_not_taken_for_a_lesion(own: Server, stock: MONAILabelClient, tmp_path: Path) -> None:
    """By the names that a client sends, or those in the file that 3D Slicer writes."""
    volume, mask = head(24, True)
    write_volume(volume, tmp_path / "organ.nii.gz")
    stock.upload_image(str(tmp_path / "organ.nii.gz"), "organ")
    two = mask.with_array((mask.array + (volume.array > 0)).astype("uint8"))  # 1 is the head, 2 the lesion
    write_volume(two, tmp_path / "label.nii.gz")
    both = [{"name": "Brain", "idx": 1}, {"name": "tumour", "idx": 2}]
    with pytest.raises(MONAILabelClientException, match=r"422.*Brain.* is no lesion but anatomy"):
        stock.save_label("organ", str(tmp_path / "label.nii.gz"), "final", {"label_info": both})
    with pytest.raises(MONAILabelClientException, match=r"422.*label_info: give a list of objects"):
        stock.save_label("organ", str(tmp_path / "label.nii.gz"), "final", {"label_info": "brain"})
    write_volume(two, tmp_path / "plain.nrrd")
    image = sitk.ReadImage(str(tmp_path / "plain.nrrd"))
    image.SetMetaData("Segment0_Name", "whole brain")
    image.SetMetaData("Segment0_LabelValue", "1")
    sitk.WriteImage(image, str(tmp_path / "label.seg.nrrd"))
    with pytest.raises(MONAILabelClientException, match=r"422.*whole brain.* is no lesion"):
        stock.save_label("organ", str(tmp_path / "label.seg.nrrd"), "final", {})
    renamed = [{"name": "infarct of the whole brain", "idx": 1}]
    assert stock.save_label("organ", str(tmp_path / "label.seg.nrrd"), "final", {"label_info": renamed})


def test_what_ohif_asks_for(own: Server) -> None:
    """Its extension reads the answer as text, and the voxels as uncompressed 16-bit numbers."""
    params = {"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}
    form = {"params": (None, json.dumps(params))}
    answer = requests.post(f"{own.url}/infer/mediclip?image=lesion_1&output=all", files=form, timeout=120)
    boundary = answer.headers["Content-Type"].partition("boundary=")[2]
    texts, file = [part for part in answer.content.decode(errors="replace").split(f"--{boundary}")[1:-1]]
    scores = json.loads(texts[texts.index("{") : texts.rindex("}") + 1])
    header, _, _ = file.partition("\r\n\r\n")[2].partition("\n\n")
    assert "type: unsigned short" in header and "encoding: raw" in header
    region = scores["regions"][0]
    assert scores["centroids"] == {"anomaly": [1, *region["ijk"]]}
    running = requests.get(f"{own.url}/train/?check_if_running=true", timeout=30)
    assert running.status_code == 404 and running.json() == {"detail": "No training is running."}
    label = {"label": ("label.bin", bytes(100)), "params": (None, "{}")}
    refused = requests.put(f"{own.url}/datastore/label?image=lesion_1", files=label, timeout=30)
    assert refused.status_code == 415 and "must end in one of" in refused.json()["detail"]
