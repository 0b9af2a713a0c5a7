"""A studies folder is listed when something else than the server changes it, and only then."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from live_server import fill

from medclipad.server.stores.folder import StudyDatastore
from medclipad.server.stores.study_files import Found, StudyFiles


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return fill(tmp_path / "studies")


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """What each listing of the folder found."""
    made: list[Found] = []
    listed = StudyFiles.list

    def count(self: StudyFiles, known: dict) -> Found:
        made.append(listed(self, known))
        return made[-1]

    monkeypatch.setattr(StudyFiles, "list", count)
    return made


def test_what_the_server_writes_itself_needs_no_listing(studies: Path, listings: list[Found]) -> None:
    """At thousands of images each listing costs more than the request."""
    store = StudyDatastore(studies)
    store.list_images()
    before, label = len(listings), studies / "labels" / "final" / "lesion_1.nii.gz"
    store.add_image("added", str(studies / "normal_1.nii.gz"), {})
    store.save_label("added", str(label), "final", {})
    store.save_label("added", str(label), "draft", {})
    store.update_image_info("added", {"normal": True})
    assert {"final", "draft"} == set(store.get_labels_by_image_id("added")) and "added" in store.list_images()
    assert len(listings) == before
    again = StudyDatastore(studies)
    assert again.json() == store.json() and again.get_image_info("added")["normal"] is True


def test_what_others_write_and_remove_is_listed(studies: Path) -> None:
    store = StudyDatastore(studies)
    shutil.copy(studies / "normal_1.nii.gz", studies / "late.nii.gz")
    shutil.copy(studies / "labels" / "final" / "lesion_1.nii.gz", studies / "labels" / "final" / "late.nii.gz")
    assert store.get_labels_by_image_id("late") == {"final": "late"}
    (studies / "labels" / "final" / "late.nii.gz").unlink()
    assert store.get_labels_by_image_id("late") == {}
    (studies / "late.nii.gz").rename(studies / "later.nii.gz")
    assert "later" in store.list_images() and "late" not in store.list_images()
    shutil.rmtree(studies / "labels")
    assert store.get_labeled_images() == []


def test_a_folder_that_is_filled_slowly_becomes_a_series(studies: Path) -> None:
    """As by a copy over the network: nothing but the sub-folder itself changes in the end."""
    store = StudyDatastore(studies)
    (studies / "slow").mkdir()
    assert "slow" not in store.list_images()
    (studies / "slow" / "0.dcm").write_bytes(bytes(128) + b"DICM")
    os.utime(studies / "slow", ns=(1, 1))  # the clock of the system may be coarse
    assert "slow" in store.list_images()


def test_a_datastore_file_that_was_put_back_is_read(studies: Path) -> None:
    store = StudyDatastore(studies)
    store.update_image_info("normal_1", {"note": "first"})
    shutil.copy(studies / "datastore_v2.json", studies / ".backup")
    store.update_image_info("normal_1", {"note": "second"})
    (studies / ".backup").rename(studies / "datastore_v2.json")
    assert store.get_image_info("normal_1")["note"] == "first"
