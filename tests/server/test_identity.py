"""What is kept belongs to a content and an identity: results, labels, marks, detectors; and to one server at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK
from live_server import SMALL, Server, fill, head

from medclipad.client import Client, ServerError
from medclipad.server.stores.file_state import file_state
from medclipad.volume import write_volume


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(fill(tmp_path_factory.mktemp("own") / "studies"), MEDCLIPAD_SCORING="off")
    yield running
    running.stop()
    assert "Traceback" not in running.log, running.log


def score(client: Client, image: str) -> tuple[bool, float]:
    _, params = client.infer("mediclip", image)
    return params["cached"], params["volume_score"]


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_voxels_in_a_file_of_their_own_count(own: Server, suffix: str) -> None:
    """The header is unchanged; the file that it names is replaced, even with its old date and size."""
    image = SimpleITK.GetImageFromArray(head(5)[0].array.T.astype(np.int16))
    SimpleITK.WriteImage(image, str(own.studies / f"pair{suffix}"))
    raw = own.studies / "pair.raw"
    first = score(own.client, "pair")
    assert score(own.client, "pair") == (True, first[1])
    stat = raw.stat()
    voxels = np.fromfile(raw, np.int16)
    voxels.reshape(image.GetSize()[::-1])[10:16, 12:24, 12:24] = 500
    raw.write_bytes(voxels.tobytes())
    os.utime(raw, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cached, value = score(own.client, "pair")
    assert not cached and value != first[1]
    for file in own.studies.glob("pair.*"):
        file.unlink()


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("ElementDataFile = b.raw\n", ["b.raw"]),
        ("ElementDataFile = LIST\nb.raw\nc.raw\n", ["b.raw", "c.raw"]),
        ("ElementDataFile = s%03d.raw 1 2 1\n", ["s001.raw", "s002.raw"]),
    ],
)
def test_every_way_to_name_voxels_is_seen(tmp_path: Path, header: str, named: list[str]) -> None:
    path = tmp_path / "a.mhd"
    path.write_text(f"ObjectType = Image\n{header}")
    for name in named:
        (tmp_path / name).write_bytes(b"1")
    states = [file_state(path)]
    for name in named:
        (tmp_path / name).write_bytes(b"22")
        states.append(file_state(path))
    assert len({*states}) == len(named) + 1


def test_another_image_under_a_name_inherits_nothing_and_nothing_is_lost(own: Server, tmp_path: Path) -> None:
    client, path = own.client, own.studies / "patient.nii.gz"
    label = tmp_path / "label.nii.gz"
    write_volume(head(6, True)[1], label)
    write_volume(head(6, True)[0], path)
    client.save_label("patient", label)
    client.set_marks("patient", "axial", normal=[3], abnormal=[12])
    client.set_image_info("patient", {"normal": True, "note": "seen"})

    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)  # the same image, from a backup
    assert client.marks("patient")["abnormal"] == [12] and "final" in entry(client)["labels"]

    write_volume(head(7)[0], path)  # another patient's, in place
    found = entry(client)
    assert not found["labels"] and not {"marks", "normal", "note"} & set(found["image"]["info"])
    assert client.marks("patient") == {"plane": None, "normal": [], "abnormal": []}
    with pytest.raises(ServerError, match="has no label"):
        client.download_label("patient", "final", tmp_path / "back.nii.gz")
    (earlier,) = found["image"]["info"]["replaced"]
    assert earlier["marks"]["abnormal"] == [12] and earlier["labels"] == ["final"] and earlier["note"] == "seen"
    (kept,) = (own.studies / "labels" / "final").glob(".replaced-*/patient.nii.gz")
    assert kept.read_bytes() == label.read_bytes()
    client.json("DELETE", "/datastore/image", params={"id": "patient"})


def entry(client: Client) -> dict:
    time.sleep(1.1)  # files that have labels are looked at once a second
    return client.json("GET", "/datastore/", params={"output": "all"})["objects"]["patient"]


def test_a_version_that_was_made_again_under_its_name_is_another_one(own: Server, tmp_path: Path) -> None:
    """Deleted by the command line while the server has it in memory."""
    client, home = own.client, own.studies / "models" / "mediclip"
    client.train("mediclip", {**SMALL, "normal": ["normal_1"], "name": "twice", "select": "always"})
    client.wait_trained(seconds=120)
    _, first = client.infer("mediclip", "lesion_1")
    client.train("mediclip", {**SMALL, "normal": ["lesion_2"], "seed": 5, "name": "other"})
    client.wait_trained(seconds=120)
    shutil.rmtree(home / "twice")
    shutil.move(home / "other", home / "twice")
    _, second = client.infer("mediclip", "lesion_1")
    assert not second["cached"] and second["slice_scores"] != first["slice_scores"]

    (home / "twice" / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(ServerError, match="damaged"):
        client.infer("mediclip", "lesion_2")
    shutil.rmtree(home / "twice")
    with pytest.raises(ServerError, match="'twice', is missing or damaged: restore it, or select another") as caught:
        client.infer("mediclip", "lesion_1")
    assert caught.value.status == 409, "the starter's maps must not be taken for those of the selected version"
    (home / "current").write_bytes(b"")
    with pytest.raises(ServerError, match="missing or damaged"):
        client.infer("mediclip", "lesion_1")
    assert client.info()["name"] == "MedCLIPAD" and client.select_version("mediclip", "starter")["current"] == "starter"


@pytest.mark.parametrize("file", ["/etc/passwd", "/no/such/file", "../../x", "/proc/self/environ", "./x", "..\\x"])
def test_no_request_finds_out_which_files_exist(own: Server, file: str) -> None:
    answer = requests.post(
        f"{own.url}/train/mediclip", json={"encoder": f"ViT-B-32/{file}", "normal": ["normal_1"]}, timeout=60
    )
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "encoder: over HTTP, weights are read from the folder encoders in the server's models folder only."
    )


def test_a_second_server_on_the_same_studies_is_refused(own: Server) -> None:
    second = Server(own.studies, wait=False)
    second.process.wait(60)
    assert second.process.returncode == 1 and "Another server is running on" in second.log
    assert "Traceback" not in second.log and own.client.info()["name"] == "MedCLIPAD"


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [True, False])
def test_a_damaged_datastore_file_stops_nothing_and_loses_nothing(tmp_path: Path, copied: bool) -> None:
    studies = fill(tmp_path / "studies")
    if copied:
        first = Server(studies, MEDCLIPAD_SCORING="off")
        first.client.set_marks("normal_1", "axial", normal=[9])
        first.stop()
        again = Server(studies, MEDCLIPAD_SCORING="off")  # keeps a copy of what is good
        again.stop()
    damaged = b'{"name": "new-dataset", "objects": {"normal_1": '
    (studies / "datastore_v2.json").write_bytes(damaged)
    server = Server(studies, MEDCLIPAD_SCORING="off")
    try:
        assert len(server.client.images()) == 5
        assert server.client.info()["datastore"]["label_tags"] == {"final": 2}
        assert server.client.marks("normal_1")["normal"] == ([9] if copied else [])
        (aside,) = studies.glob("datastore_v2.json.damaged-*")
        assert aside.read_bytes() == damaged and "was damaged" in server.log
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_what_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    """A folder without permission, at the start and later, a pipe and a dead link."""
    studies = fill(tmp_path / "studies")
    (studies / "private").mkdir(mode=0)
    os.mkfifo(studies / "pipe.nii.gz")
    (studies / "gone.nii.gz").symlink_to("/nowhere")
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    server = Server(studies, prefix=prefix, MEDCLIPAD_SCORING="off")
    try:
        assert len(server.client.images()) == 5
        assert server.client.info()["datastore"]["unreadable"] == 1
        (studies / "later").mkdir(mode=0)
        assert len(server.client.images()) == 5
        assert server.client.info()["datastore"]["unreadable"] == 2
        assert server.client.infer("mediclip", "normal_1")[1]["volume_score"] > 0
    finally:
        server.stop()
        for name in ("private", "later"):
            (studies / name).chmod(0o755)
    assert "Traceback" not in server.log, server.log


def test_a_cut_file_of_weights_does_not_end_the_process(tmp_path: Path) -> None:
    """Mapped files would: the process is killed when it touches what is no longer there."""
    from medclipad.server.training.versions import starter_folder

    starter = starter_folder(Path(__file__).parents[2] / "monailabel_app")
    shutil.copytree(starter, tmp_path / "d")
    code = (
        "import os, sys; from medclipad.detection.storage import read_info, read_weights;"
        "w = read_weights(sys.argv[1], read_info(sys.argv[1]).weights_sha256);"
        "os.truncate(sys.argv[1] + '/weights.safetensors', 10); print(sum(float(t.double().sum()) for t in w.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done
    assert json.loads((starter / "detector.json").read_text())["weights_sha256"]
