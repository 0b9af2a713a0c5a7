"""Connection, correction, marks, training and the next volume, driven by clicks in the panel."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import AFFINE, detect
from served import MODULE, SMALL, add_volume, head


def wait(condition: Any, seconds: float = 30, what: str = "") -> None:
    from harness import user

    user.wait_until(condition, seconds, what)


# --- connection ---


def test_nothing_is_sent_before_connect(load_module: Any) -> None:
    """A port that notices connections: neither the start with its remembered address nor a choice makes one."""
    from harness import user
    from MedCLIPADLib.settings import Settings

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        Settings().put("url", url)
        medclipad = load_module(MODULE)[1]
        assert medclipad.ui.urlLineEdit.text == url
        add_volume("Patient", head(AFFINE)[0], AFFINE)
        user.choose(medclipad.ui.inputSelector, "Patient")
        assert not medclipad.ui.detectButton.enabled
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.settimeout(30)
        user.click(medclipad.ui.testButton)
        connection, _ = listener.accept()
        connection.close()
        wait(lambda: medclipad.ui.testButton.enabled)


def test_one_message_per_cause(medclipad: Any, study: Any) -> None:
    from harness import user

    ui = medclipad.ui
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    for url, words in (
        (study.url, "MedCLIPAD"),
        (f"http://127.0.0.1:{free}", "No server is running at"),
        ("http://no-such-host.invalid", "was not found"),
        ("nonsense", "should look like"),
    ):
        user.write(ui.urlLineEdit, url)
        user.click(ui.testButton)
        wait(lambda: ui.testButton.enabled and "Contacting" not in ui.connectionLabel.text)
        assert words in ui.connectionLabel.text
        assert not medclipad.logic.session.connected
    user.click(ui.connectButton)
    wait(lambda: ui.connectButton.enabled)
    assert "should look like" in ui.messageLabel.text and ui.connectButton.text == "Connect"


def test_settings_are_remembered_and_the_token_only_if_asked(panel: Any, study: Any) -> None:
    from harness import user
    from MedCLIPADLib.settings import Settings

    ui, settings = panel.ui, Settings()
    assert settings.get("url", "") == study.url and settings.get("token", "") == ""
    assert ui.connectButton.text == "Disconnect" and study.url in ui.connectionLabel.text
    user.click(ui.connectButton)
    assert not panel.logic.session.connected and not ui.detectButton.enabled
    user.write(ui.tokenLineEdit, "secret")
    user.click(ui.connectButton)
    wait(lambda: panel.logic.session.connected)
    assert settings.get("token", "") == ""
    user.click(ui.connectButton)
    user.click(ui.rememberTokenCheckBox, (8, ui.rememberTokenCheckBox.height // 2))
    user.click(ui.connectButton)
    wait(lambda: panel.logic.session.connected)
    assert settings.get("token", "") == "secret"
    settings.put("token", "")


def test_a_server_that_hangs_does_not_hang_the_interface(medclipad: Any) -> None:
    import slicer
    from harness import user

    with socket.socket() as silent:  # accepts the connection, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        user.write(medclipad.ui.urlLineEdit, f"http://127.0.0.1:{silent.getsockname()[1]}")
        user.click(medclipad.ui.testButton)
        longest, end = 0.0, time.monotonic() + 3
        while time.monotonic() < end:
            start = time.perf_counter()
            slicer.app.processEvents()
            longest = max(longest, time.perf_counter() - start)
            time.sleep(0.005)
        assert longest < 1.5 and not medclipad.ui.testButton.enabled
    wait(lambda: medclipad.ui.testButton.enabled, 30)


@pytest.mark.long
def test_a_local_server_is_started_used_and_stopped(medclipad: Any, tmp_path: Path) -> None:
    from harness import user

    ui = medclipad.ui
    ui.localServerGroupBox.collapsed = False
    assert ui.executableLineEdit.text.endswith("medclipad"), "found in the checkout"
    user.click(ui.startServerButton)
    assert "Choose a studies folder" in ui.messageLabel.text
    user.write(ui.studiesLineEdit, str(tmp_path))
    user.click(ui.startServerButton)
    wait(lambda: medclipad.logic.session.connected, 300, "local server")
    assert "ready at" in ui.serverLogTextEdit.toPlainText()
    assert ui.urlLineEdit.text == medclipad.logic.session.url
    assert not ui.startServerButton.enabled
    user.click(ui.stopServerButton)
    wait(lambda: ui.startServerButton.enabled, 30)
    assert not medclipad.logic.session.connected and "has stopped" in ui.messageLabel.text


@pytest.mark.parametrize(
    ("program", "words"),
    [("#!/bin/sh\necho no MONAI Label here\nexit 3\n", "no MONAI Label here"), ("", "could not be started")],
)
def test_a_local_server_that_fails_says_why(medclipad: Any, tmp_path: Path, program: str, words: str) -> None:
    from harness import user

    ui = medclipad.ui
    ui.localServerGroupBox.collapsed = False
    script = tmp_path / "medclipad"
    script.write_text(program)
    script.chmod(0o755 if program else 0o644)
    user.write(ui.executableLineEdit, str(script))
    user.write(ui.studiesLineEdit, str(tmp_path))
    user.click(ui.startServerButton)
    wait(lambda: words in ui.messageLabel.text, 20, ui.messageLabel.text)
    assert ui.startServerButton.enabled


def test_automatic_offers_only_detectors_for_the_modality(panel: Any, scene: Any) -> None:
    import slicer
    from harness import user

    ui = panel.ui
    volume = add_volume("Series", head(AFFINE)[0], AFFINE)
    user.choose(ui.inputSelector, "Series")
    assert ui.intensityLabel.text == "Modality unknown: all detectors offered."
    assert ui.versionComboBox.findText("first (in use)") >= 0
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    for modality, count, words in (("CT", 0, "only suitable"), ("MR", 1, "only suitable"), ("US", 1, "all")):
        hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)
        panel.update()
        assert ui.intensityLabel.text == f"Modality {modality}: {words} detectors offered."
        assert (ui.versionComboBox.count > 0) == bool(count)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    panel.update()
    user.click(ui.detectButton)
    assert ui.messageLabel.text == "No detector was trained on CT: train one, or choose Any under Modality."
    user.choose(ui.intensityComboBox, "Any")
    assert ui.versionComboBox.count > 0 and ui.intensityLabel.text == ""
    assert ui.versionLabel.text.startswith("Trained on axial MR slices, encoder ")


# --- correct and label ---


def test_make_edit_and_send_a_label(detected: Any, study: Any, tmp_path: Path) -> None:
    import slicer
    from harness import user

    ui, result = detected.ui, detected.results.result
    ui.reviewCollapsibleButton.collapsed = False
    assert not ui.sendLabelButton.enabled
    user.click(ui.makeSegmentationButton)
    wait(lambda: ui.sendLabelButton.enabled)
    user.click(ui.editButton)
    assert slicer.util.mainWindow().moduleSelector().history[-1] == "SegmentEditor"
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    node = editor.segmentationNode()
    assert editor.sourceVolumeNode() is result.volume
    segment = node.GetSegmentation().GetNthSegmentID(0)
    edited = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, result.node).copy()
    edited[: edited.shape[0] // 2] = 0  # the reader erases the lower half
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, segment, result.node)
    slicer.util.selectModule("MedCLIPAD")
    user.click(ui.sendLabelButton)
    wait(lambda: ui.messageLabel.text == "Label saved on the server.", 30, ui.messageLabel.text)
    from medclipad.volume import read_volume

    label = read_volume(study.client.download_label(result.about["image"], "final", tmp_path / "l.nrrd")).array.T
    assert np.array_equal(label > 0, edited > 0)
    assert (ui.historyTable.item(0, 2).text(), ui.historyTable.item(0, 3).text()) == ("label", "sent")


def test_keys_mark_slices_and_a_range(detected: Any) -> None:
    import slicer
    from harness import user
    from MedCLIPADLib import navigation

    ui, result = detected.ui, detected.results.result
    ui.reviewCollapsibleButton.collapsed = False
    window, image = slicer.util.mainWindow(), result.about["image"]
    at_server = lambda: detected.logic.session.client().marks(image)  # noqa: E731
    navigation.jump_to_slice(result, 12)
    user.press(window, "A")
    navigation.jump_to_slice(result, 3)
    user.press(window, "M")
    assert ui.rangeButton.checked and "3" in ui.rangeButton.text
    navigation.jump_to_slice(result, 6)
    user.press(window, "N")
    assert not ui.rangeButton.checked
    navigation.jump_to_slice(result, 5)
    user.press(window, "X")
    expected = {"plane": "axial", "normal": [3, 4, 6], "abnormal": [12]}
    assert ui.marksLabel.text == "Marks: axial slices 3-4, 6 normal; 12 abnormal."
    wait(lambda: at_server() == expected, 20)
    wait(lambda: ui.historyTable.item(0, 3).text() == "sent", 20)
    assert ui.historyTable.rowCount == 1, "one entry for the marks of a volume"


def test_unsent_marks_can_be_sent_later(detected: Any, study: Any) -> None:
    from harness import user
    from MedCLIPADLib import navigation

    ui, result = detected.ui, detected.results.result
    ui.reviewCollapsibleButton.collapsed = False
    user.click(ui.connectButton)  # disconnect
    navigation.jump_to_slice(result, 2)
    user.click(ui.markNormalButton)
    wait(lambda: "kept on this computer" in ui.messageLabel.text, 20)
    assert "marks of Patient" in ui.unsentLabel.text and not ui.sendUnsentButton.enabled
    assert ui.historyTable.item(0, 3).text() == "not yet"
    user.click(ui.connectButton)
    wait(lambda: "not been sent yet" in ui.messageLabel.text, 30)
    user.click(ui.sendUnsentButton)
    wait(lambda: ui.messageLabel.text == "Labels and marks sent: 1.", 30, ui.messageLabel.text)
    assert not ui.unsentLabel.visible and ui.historyTable.item(0, 3).text() == "sent"
    assert detected.logic.session.client().marks(result.about["image"])["normal"] == [2]


# --- train ---


def test_train_compare_and_roll_back(panel: Any, study: Any) -> None:
    import slicer
    from harness import user

    ui = panel.ui
    ui.trainingCollapsibleButton.collapsed = False
    assert ui.trainMethodComboBox.currentText == ui.methodComboBox.currentText == "mediclip"
    name = f"new-{int(time.time())}"
    form = panel.training.form
    for option in ("shots", "epochs", "memory_share"):
        form.widget(option).value = SMALL[option]
    user.write(form.widget("normal"), "normal_1, normal_2")
    user.write(form.widget("name"), name)
    user.choose(form.widget("select"), "never")
    assert form.widget("shots").toolTip
    user.click(ui.trainButton)
    assert not ui.trainButton.enabled and ui.stopTrainingButton.enabled
    wait(lambda: ui.messageLabel.text.startswith("Training finished") or "failed" in ui.messageLabel.text, 240)
    assert ui.messageLabel.text.startswith("Training finished"), ui.messageLabel.text
    assert [ui.outcomeTable.item(row, 0).text() for row in range(4)] == [
        "Slice AUROC", "Voxel AUROC", "Average precision", "Dice at the threshold"
    ]  # fmt: skip
    assert ui.outcomeTable.item(0, 0).toolTip() == "Slice AUROC", "a narrow panel clips the cell"
    assert ui.verdictLabel.text
    user.click(ui.lossButton)
    import vtk

    chart = slicer.app.layoutManager().plotWidget(0).mrmlPlotViewNode().GetPlotChartNode()
    assert chart.GetTitle() == "Training" and isinstance(chart, vtk.vtkObject)
    current = lambda: study.client.info()["models"]["mediclip"]["current"]  # noqa: E731
    wait(lambda: ui.useNewButton.enabled, 30)
    user.click(ui.useNewButton)
    wait(lambda: current() == name and ui.keepOldButton.enabled, 30)
    user.click(ui.keepOldButton)
    wait(lambda: current() == "first", 30)
    wait(lambda: not ui.keepOldButton.enabled, 30)
    user.choose(ui.versionInUseComboBox, name)
    user.click(ui.deleteVersionButton)
    wait(lambda: ui.messageLabel.text == f"{name} was deleted.", 30, ui.messageLabel.text)
    assert ui.versionInUseComboBox.findText(name) < 0


def test_a_training_without_a_loss_says_why_there_is_no_curve(panel: Any) -> None:
    from harness import user

    ui = panel.ui
    ui.trainingCollapsibleButton.collapsed = False
    user.choose(ui.trainMethodComboBox, "memory")
    form = panel.training.form
    form.widget("shots").value = 4
    user.choose(form.widget("planes"), "axial")
    user.write(form.widget("normal"), "normal_1")
    user.click(ui.trainButton)
    wait(lambda: ui.messageLabel.text.startswith("Training finished"), 240)
    assert not ui.lossButton.enabled and "remembers normal slices" in ui.lossButton.toolTip


def test_a_running_training_is_cancelled(panel: Any) -> None:
    from harness import user

    ui = panel.ui
    ui.trainingCollapsibleButton.collapsed = False
    user.choose(ui.trainMethodComboBox, "mediclip")
    form = panel.training.form
    form.widget("shots").value, form.widget("epochs").value, form.widget("memory_share").value = 16, 900, 0.5
    user.write(form.widget("normal"), "normal_1, normal_2")
    user.click(ui.trainButton)
    wait(lambda: "loss" in ui.trainLabel.text or "epoch" in ui.trainLabel.text, 120, "training's progress")
    user.click(ui.stopTrainingButton)
    wait(lambda: "was stopped" in ui.messageLabel.text, 60, ui.messageLabel.text)
    assert ui.trainButton.enabled and not ui.stopTrainingButton.enabled


# --- next volume, errors, help ---


def test_the_next_volume_comes_with_its_map(panel: Any) -> None:
    from harness import user

    ui = panel.ui
    ui.reviewCollapsibleButton.collapsed = False
    user.choose(ui.strategyComboBox, "Random")
    user.click(ui.nextVolumeButton)
    wait(lambda: panel.results.result is not None or ui.messageLabel.text, 90, "next volume")
    assert not ui.messageLabel.text
    result = panel.results.result
    assert panel.parameters.inputVolume is result.volume and ui.inputSelector.currentNode() is result.volume
    assert result.about["image"] in ui.nextLabel.text


def test_a_version_deleted_meanwhile_leaves_the_panel_usable(panel: Any) -> None:
    from harness import user

    add_volume("Patient", head(AFFINE, seed=71)[0], AFFINE)
    user.choose(panel.ui.inputSelector, "Patient")
    panel.parameters.parameterNode.SetParameter("version", "deleted")
    panel.detect.update = lambda: None  # the list in the panel is older than what the server has
    panel.parameters.version = "deleted"
    user.click(panel.ui.detectButton)
    wait(lambda: "deleted" in panel.ui.messageLabel.text, 30)
    del panel.detect.update
    panel.update()
    assert panel.ui.detectButton.enabled and panel.parameters.version == "first"
    assert detect(panel, panel.parameters.inputVolume) is not None


def test_every_control_has_a_tooltip(medclipad: Any) -> None:
    import ctk
    import qt
    import slicer

    kinds = (
        qt.QPushButton, qt.QLineEdit, qt.QComboBox, qt.QSpinBox, qt.QCheckBox, qt.QSlider, qt.QTableWidget,
        qt.QTextBrowser, ctk.ctkSliderWidget, slicer.qMRMLNodeComboBox,
    )  # fmt: skip
    controls = [
        w for w in vars(medclipad.ui).values() if isinstance(w, kinds) and w.name and not w.name.startswith("qt_")
    ]
    assert len(controls) > 50
    assert [w.name for w in controls if not w.toolTip] == []


def test_the_sample_is_registered_and_loads(medclipad: Any) -> None:
    import hashlib

    import slicer
    from harness import user
    from MedCLIPADLib import sampledata

    ui = medclipad.ui
    ui.helpCollapsibleButton.collapsed = False
    user.click(ui.loadSampleButton)
    assert ui.inputSelector.currentNode().GetName() == "MedCLIPADSample"
    source = slicer.modules.sampleDataSources["MedCLIPAD"][-1]
    assert source.sampleName == "MedCLIPADSample"
    assert source.customDownloader(source).GetName().startswith("MedCLIPADSample")
    assert hashlib.sha256(sampledata.local_file().read_bytes()).hexdigest() == sampledata.checksum()
    assert ui.helpBrowser.toPlainText().count("\n") > 4


def test_the_self_test_passes(medclipad: Any, problems: Any) -> None:
    import slicer

    slicer.selfTests["MedCLIPAD"](msec=1)
