"""Labels, marks, training and the next volume, against the real server. No widgets."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import SMALL, Calls, add_volume, grid, head, run
from test_logic_detect import detect


class Labeller:
    """Labelling with a parameter node, whose jobs are run to their end."""

    def __init__(self, session: Any, scene: Any) -> None:
        from MedCLIPADLib.labelling import Labelling

        self.node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "parameters")
        self.labelling = Labelling(session, lambda: self.node)
        self.session, self.done, self.failed = session, Calls(), Calls()

    def wait(self, count: int = 1) -> None:
        run(self.session.jobs, lambda: len(self.done) + len(self.failed) >= count, 30)

    @property
    def history(self) -> list[dict]:
        from MedCLIPADLib.labelling import history

        return history(self.node)


@pytest.fixture
def labeller(session: Any, scene: Any) -> Labeller:
    return Labeller(session, scene)


_SEEDS = count(100)


@pytest.fixture
def analysed(session: Any, scene: Any) -> Any:
    """A map of a volume that the server has not seen before."""
    return detect(session, add_volume("to label", head(grid((3, 0, 5)), seed=next(_SEEDS))[0], grid((3, 0, 5))))


def server_label(study: Any, image: str, folder: Path) -> np.ndarray:
    from medclipad.volume import read_volume

    return read_volume(study.client.download_label(image, "final", folder / "label.nrrd")).array.T


def test_a_sent_label_arrives_voxel_for_voxel(analysed: Any, labeller: Labeller, study: Any, tmp_path: Path) -> None:
    from MedCLIPADLib.segmentation import crop_regions, make_segmentation

    make_segmentation(analysed, *crop_regions(analysed.array, analysed.threshold))
    labeller.labelling.send_label(analysed, labeller.done, labeller.failed)
    labeller.wait()
    assert not labeller.failed, labeller.failed
    assert np.array_equal(
        server_label(study, analysed.about["image"], tmp_path) > 0, analysed.array >= analysed.threshold
    )
    assert labeller.history[-1]["sent"] and not labeller.session.pending.items()


def test_marks_arrive_and_come_back_with_the_next_analysis(analysed: Any, labeller: Labeller, scene: Any) -> None:
    from MedCLIPADLib.marks import MARKS, marks, summary

    image = analysed.about["image"]
    for step, (first, last, kind) in enumerate([(2, 5, "normal"), (12, 12, "abnormal"), (4, 4, None)]):
        labeller.labelling.mark(analysed, first, last, kind, labeller.done, labeller.failed)
        labeller.wait(step + 1)
    assert not labeller.failed
    expected = {"plane": "axial", "normal": [2, 3, 5], "abnormal": [12]}
    assert labeller.session.client().marks(image) == expected
    assert summary(expected) == "axial slices 2-3, 5 normal; 12 abnormal"
    assert summary({"plane": "axial", "normal": [], "abnormal": [7]}) == "axial slice 7 abnormal"
    analysed.volume.RemoveAttribute(MARKS)
    again = detect(labeller.session, analysed.volume)
    assert marks(again.volume, image) == expected, "another reader's marks, or ours of an earlier session"


def test_after_many_quick_marks_the_server_has_the_newest(analysed: Any, labeller: Labeller) -> None:
    for number in range(12):
        kind = "normal" if number % 2 else "abnormal"
        labeller.labelling.mark(analysed, number, number, kind, labeller.done, labeller.failed)
    labeller.wait(12)
    assert not labeller.failed
    found = labeller.session.client().marks(analysed.about["image"])
    assert found["normal"][-6:] == [1, 3, 5, 7, 9, 11] and found["abnormal"] == [0, 2, 4, 6, 8, 10]


def test_marks_in_another_plane_or_outside_are_refused(analysed: Any, labeller: Labeller) -> None:
    from MedCLIPADLib.errors import ModuleError
    from MedCLIPADLib.marks import mark

    known = {"plane": "coronal", "normal": [1], "abnormal": []}
    with pytest.raises(ModuleError, match="coronal"):
        mark(known, "axial", 1, 1, "normal", 20)
    with pytest.raises(ModuleError, match="Slice 20 does not exist"):
        mark({**known, "normal": []}, "axial", 18, 20, "normal", 20)


def test_nothing_is_lost_when_the_server_cannot_be_reached(
    analysed: Any, labeller: Labeller, study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MedCLIPADLib.client import Client
    from MedCLIPADLib.pending import Pending
    from MedCLIPADLib.segmentation import crop_regions, make_segmentation

    session = labeller.session
    monkeypatch.setattr(session, "client", lambda: Client("http://127.0.0.1:9"))
    make_segmentation(analysed, *crop_regions(analysed.array, 0.9 * analysed.threshold))
    labeller.labelling.send_label(analysed, labeller.done, labeller.failed)
    labeller.labelling.mark(analysed, 1, 1, "normal", labeller.done, labeller.failed)
    labeller.wait(2)
    assert not labeller.done and all("kept on this computer" in sentence for (sentence,) in labeller.failed)
    assert [entry["sent"] for entry in labeller.history] == [False, False]
    kept = Pending(session.pending.folder)  # as after a restart of Slicer
    assert sorted(item.kind for item in kept.items()) == ["label", "marks"]

    monkeypatch.undo()
    session.disconnect()
    labeller.labelling.mark(analysed, 2, 2, "abnormal", labeller.done, labeller.failed)
    labeller.wait(3)
    assert "Not connected" in labeller.failed[-1][0]
    assert len(kept.items()) == 2, "newer marks replace older ones"

    sent, failed, connected = Calls(), Calls(), Calls()
    session.connect(study.url, "", connected, failed)
    run(session.jobs, lambda: connected or failed, 20)
    labeller.labelling.send_pending(sent, failed)
    run(session.jobs, lambda: sent or failed, 30)
    assert sent == [(2,)] and not failed and not kept.items()
    image = analysed.about["image"]
    assert np.array_equal(server_label(study, image, tmp_path) > 0, analysed.array >= 0.9 * analysed.threshold)
    assert session.client().marks(image) == {"plane": "axial", "normal": [1], "abnormal": [2]}
    assert all(entry["sent"] for entry in labeller.history)


def waiting(labeller: Labeller, server: str, image: str, sha256: str) -> tuple[Any, Calls, Calls]:
    """Keep a label for a volume of a server, press Send now, and return (item, sent, failed)."""
    from MedCLIPADLib.pending import Item

    mask = np.ones((20, 32, 36), np.uint8)
    item = labeller.session.pending.add(Item("label", server, image, sha256, "gone"), mask, np.eye(4))
    sent, failed = Calls(), Calls()
    labeller.labelling.send_pending(sent, failed)
    run(labeller.session.jobs, lambda: sent or failed, 30)
    return item, sent, failed


def test_a_label_whose_volume_the_server_no_longer_has_is_kept(labeller: Labeller) -> None:
    pending = labeller.session.pending
    item, sent, failed = waiting(labeller, labeller.session.url, "gone", "0" * 64)
    assert not sent and "no longer has the volume gone" in failed[0][0] and pending.items() == [item]


def test_a_waiting_label_does_not_go_to_another_volume_of_the_same_id(labeller: Labeller, study: Any) -> None:
    """At another address or, after a restart with other studies, at the same; nor to another server's same volume."""
    session = labeller.session
    before = study.client.json("GET", "/datastore/", params={"output": "all"})
    for server, sha256, words in (
        (session.url, "0" * 64, "no longer has the volume"),
        ("http://elsewhere:1", "0" * 64, "belongs to the server http://elsewhere:1"),
        ("http://elsewhere:1", content_of(session, "normal_1"), "belongs to the server http://elsewhere:1"),
    ):
        item, sent, failed = waiting(labeller, server, "normal_1", sha256)
        assert not sent and session.pending.items() == [item] and words in failed[0][0]
        session.pending.remove(item)
    assert study.client.json("GET", "/datastore/", params={"output": "all"}) == before


def content_of(session: Any, image: str) -> str:
    """Return the content hash of an image of the server."""
    import tempfile

    from MedCLIPADLib.files import content_hash, read_volume

    with tempfile.TemporaryDirectory() as folder:
        return content_hash(*read_volume(session.client().download_image(image, Path(folder))))


def test_a_mark_made_on_another_servers_map_waits_for_that_server(
    analysed: Any, labeller: Labeller, study: Any
) -> None:
    import json

    from MedCLIPADLib.volumes import RESULT

    about = {**analysed.about, "server": "http://elsewhere:1"}
    analysed.node.SetAttribute(RESULT, json.dumps(about))
    labeller.labelling.mark(analysed, 3, 3, "normal", labeller.done, labeller.failed)
    labeller.wait()
    assert not labeller.done and "kept on this computer" in labeller.failed[0][0]
    assert labeller.session.client().marks(about["image"])["normal"] == []


def test_the_servers_marks_do_not_overwrite_the_readers(analysed: Any, labeller: Labeller) -> None:
    """Marks that wait to be sent, and those that were removed meanwhile, are newer than the server's."""
    from MedCLIPADLib.marks import marks

    session, image = labeller.session, analysed.about["image"]
    session.client().set_marks(image, "axial", normal=[1, 2], abnormal=[3, 9])
    session.pending.send = lambda item, client: (_ for _ in ()).throw(unreachable())  # the network is gone
    labeller.labelling.mark(analysed, 3, 3, "normal", labeller.done, labeller.failed)
    labeller.wait()
    again = detect(session, analysed.volume)
    assert marks(again.volume, image) == {"plane": "axial", "normal": [3], "abnormal": []}
    for item in session.pending.items():
        session.pending.remove(item)
    session.client().set_marks(image, "axial", normal=[1, 2], abnormal=[3, 9])
    merged = marks(detect(session, analysed.volume).volume, image)
    assert merged == {"plane": "axial", "normal": [1, 2, 3], "abnormal": [9]}, "both; the reader's where both mark"


def unreachable() -> Exception:
    from MedCLIPADLib.errors import ServerError

    return ServerError("unreachable", "unreachable")


def test_training_progress_outcome_and_roll_back(session: Any, study: Any) -> None:
    from MedCLIPADLib.plots import loss_chart
    from MedCLIPADLib.training import Training, comparison, stage

    training = Training(session)
    assert "mediclip" in training.methods and training.methods["mediclip"]["properties"]["shots"]
    reports, done, failed = Calls(), Calls(), Calls()
    params = {**SMALL, "normal": ["normal_1", "normal_2"], "name": "second", "select": "always"}
    training.start("mediclip", params, reports, done, failed)
    run(session.jobs, lambda: done or failed, 180)
    assert not failed, failed
    outcome = done[0][0]["outcome"]
    assert outcome["version"] == "second" and outcome["previous"] == "first" and outcome["selected"]
    assert [row[0] for row in comparison(outcome)] == [
        "Slice AUROC",
        "Voxel AUROC",
        "Average precision",
        "Dice at the threshold",
    ]
    assert all(stage(report) for (report,) in reports)
    assert stage({"phase": "load", "remaining": 0.2}) == "Load"
    assert stage({"phase": "train", "remaining": 7.6}) == "Train, 8 s left"
    history = done[0][0]["history"]
    chart = loss_chart(history)
    assert chart.GetNthPlotSeriesNode(0).GetTableNode().GetNumberOfRows() == len(history) > 0
    assert loss_chart(history[:1]) is chart, "one curve in a scene"

    refreshed = Calls()
    session.refresh(refreshed, failed)
    run(session.jobs, lambda: refreshed or failed, 30)
    assert session.current("mediclip") == "second"
    session.select("mediclip", "first", refreshed, failed)
    run(session.jobs, lambda: len(refreshed) == 2 or failed, 30)
    assert session.current("mediclip") == "first" == study.client.info()["models"]["mediclip"]["current"]
    session.delete("mediclip", "second", refreshed, failed)
    run(session.jobs, lambda: len(refreshed) == 3 or failed, 30)
    assert not failed and not session.version("mediclip", "second")


def test_a_training_that_cannot_start_says_why(session: Any) -> None:
    from MedCLIPADLib.training import Training

    done, failed = Calls(), Calls()
    Training(session).start("mediclip", {"normal": ["nobody"]}, Calls(), done, failed)
    run(session.jobs, lambda: done or failed, 30)
    assert not done and "nobody" in failed[0][0]


def test_a_training_can_be_stopped(session: Any, study: Any) -> None:
    from MedCLIPADLib.training import Training

    training, reports, done, failed = Training(session), Calls(), Calls(), Calls()
    training.start(
        "mediclip",
        {"shots": 16, "epochs": 500, "memory_share": 0.5, "normal": ["normal_1", "normal_2"]},
        reports,
        done,
        failed,
    )
    run(session.jobs, lambda: any(report["status"] == "RUNNING" for (report,) in reports) or failed, 90)
    training.stop(failed)
    run(session.jobs, lambda: failed, 60)
    assert not done and failed == [("The training was stopped; the previous detector stays in use.",)]
    assert study.client.info()["models"]["mediclip"]["current"] == "first"


def test_a_deleted_version_is_refused_with_the_servers_sentence(session: Any, scene: Any) -> None:
    from MedCLIPADLib.analysis import Analysis
    from MedCLIPADLib.detection import Request

    done, failed = Calls(), Calls()
    volume = add_volume("case", head(grid(), seed=11)[0], grid())
    Analysis(session).detect(volume, Request("mediclip", "deleted"), done, failed)
    run(session.jobs, lambda: done or failed, 30)
    assert not done and "deleted" in failed[0][0]


def test_the_next_volume_comes_with_its_voxels_and_is_not_uploaded_again(session: Any, scene: Any, study: Any) -> None:
    from MedCLIPADLib.sampling import Sampling
    from MedCLIPADLib.volumes import CONTENT, IMAGE, SERVER, ijk_to_ras, voxels

    done, failed, progress = Calls(), Calls(), Calls()
    assert set(session.strategies) >= {"random", "most_anomalous"}
    Sampling(session).next("most_anomalous", "mediclip", done, failed, progress)
    run(session.jobs, lambda: done or failed, 90)
    assert not failed, failed
    node, sample = done[0]
    assert sample["id"] != "case_1", "it has a label"
    from medclipad.volume import read_volume

    path = next(study.studies.glob(f"{sample['id']}.*"))
    original = read_volume(path)
    assert np.array_equal(voxels(node), original.array.T)
    assert np.allclose(ijk_to_ras(node), original.affine, atol=1e-4)
    assert (node.GetAttribute(SERVER), node.GetAttribute(IMAGE)) == (session.url, sample["id"])
    assert len(node.GetAttribute(CONTENT)) == 64
    result = detect(session, node)
    assert result.about["image"] == sample["id"] and "Uploading" not in result.phases
