"""Images that leave a choice, or are hostile: several time points, another modality, headers that end ITK."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from live_server import OBLIQUE, SHAPE, Server, head

from medclipad.client import Client, ServerError
from medclipad.volume import Volume, write_volume
from tests.volume.test_untrusted import hostile


def test_a_time_point_is_chosen_by_the_request(client: Client, server: Server, tmp_path: Path) -> None:
    """The starter analyses it; what the refusal names is a parameter of the same request."""
    points = [head(seed, lesion=seed == 42)[0].array for seed in (41, 42)]
    nib.save(nib.Nifti1Image(np.stack(points, axis=-1), OBLIQUE), tmp_path / "perfusion.nii.gz")
    client.upload_image(tmp_path / "perfusion.nii.gz")
    with pytest.raises(ServerError, match=r"choose one with component=0 to 1") as caught:
        client.infer("mediclip", "perfusion", {"detector": "starter"})
    assert caught.value.status == 422
    maps = []
    for component in ("0", 1):
        path, scores = client.infer(
            "mediclip", "perfusion", {"detector": "starter", "component": component, "result": "map"}
        )
        assert not scores["cached"]
        maps.append(np.asarray(nib.Nifti1Image.load(path).dataobj))
    assert maps[0].shape == SHAPE and not np.array_equal(*maps)
    _, scores = client.infer("mediclip", "perfusion", {"detector": "starter", "component": "1"})
    assert scores["cached"]
    write_volume(Volume((points[1] > 180).astype(np.uint8), OBLIQUE), tmp_path / "label.nii.gz")
    client.save_label("perfusion", tmp_path / "label.nii.gz")
    client.delete_image("perfusion")


def test_another_modality_is_refused_unless_the_request_insists(client: Client, tmp_path: Path) -> None:
    hounsfield = np.where(head(43)[0].array > 50, 40, -1000) + np.random.default_rng(0).normal(0, 10, SHAPE)
    write_volume(Volume(hounsfield.astype(np.int16), OBLIQUE), tmp_path / "head_ct.nii.gz")
    client.upload_image(tmp_path / "head_ct.nii.gz")
    with pytest.raises(ServerError, match=r"head_ct: it is CT by its values .* force_modality over HTTP") as caught:
        client.infer("mediclip", "head_ct", {"detector": "starter"})
    assert caught.value.status == 422
    _, scores = client.infer("mediclip", "head_ct", {"detector": "starter", "force_modality": True})
    assert scores["slice_scores"]
    client.delete_image("head_ct")


@pytest.mark.parametrize(("value", "why"), [(-1, "negative values"), (0.5, "fractions"), (np.nan, "NaN")])
def test_a_label_that_is_no_label_map_is_refused_when_it_is_sent(
    client: Client, tmp_path: Path, value: float, why: str
) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[20:24, 20:24, 10] = value
    write_volume(Volume(array, OBLIQUE), tmp_path / "label.nii.gz")
    with pytest.raises(ServerError, match=f"holds {why}") as caught:
        client.save_label("normal_1", tmp_path / "label.nii.gz", tag="final")
    assert caught.value.status == 422


@pytest.mark.parametrize("name", ["dimensions -1", "dimensions 100", "MetaImage Name", "NRRD a: xxxxxxxxx"])
def test_a_header_that_ends_itk_does_not_end_the_server(
    server: Server, client: Client, tmp_path: Path, name: str
) -> None:
    """As an image, as a label, in an inference, and lying in the studies, where the scorer finds it too."""
    path = hostile(tmp_path, name)
    content = path.read_bytes()
    answers = [
        requests.put(f"{server.url}/datastore/image", files={"file": (path.name, content)}, timeout=60),
        requests.put(
            f"{server.url}/datastore/label?image=normal_1&tag=final", files={"label": (path.name, content)}, timeout=60
        ),
        requests.post(f"{server.url}/infer/mediclip", files={"file": (path.name, content)}, timeout=60),
    ]
    lying = server.studies / f"hostile{path.suffix}"
    lying.write_bytes(content)
    answers.append(requests.post(f"{server.url}/infer/mediclip?image=hostile", timeout=60))
    lying.unlink()
    for answer in answers:
        assert answer.status_code == 422 and "is damaged or not what its name says" in answer.json()["detail"]
    assert server.process.poll() is None and "normal_1" in client.images()
