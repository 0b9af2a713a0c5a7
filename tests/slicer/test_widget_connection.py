"""The first minute: the guide, grey buttons that say why, addresses, and each error once."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hands import AFFINE, results
from served import MODULE, add_volume, head


def wait(condition: Any, seconds: float = 30, what: str = "") -> None:
    from harness import user

    user.wait_until(condition, seconds, what)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- the guide ---


def test_four_clicks_to_the_first_map(medclipad: Any, study: Any) -> None:
    """From a fresh start: the sample, a server, Detect. The server here is one that is running already."""
    from harness import user
    from MedCLIPADLib.localserver import find_executable

    ui = medclipad.ui
    assert "Step 1 of 3" in ui.guideLabel.text
    user.click(ui.guideButton)  # 1
    assert ui.inputSelector.currentNode().GetName() == "MedCLIPADSample"
    assert "Step 2 of 3" in ui.guideLabel.text
    assert ui.guideButton.text == "Start a server here" and find_executable()
    user.write(ui.urlLineEdit, study.url)
    user.click(ui.connectButton)  # 2
    wait(lambda: medclipad.logic.session.connected)
    assert "Step 3 of 3" in ui.guideLabel.text
    user.click(ui.guideButton)  # 3
    wait(lambda: results() and not medclipad.detect.running, 90)
    assert not ui.guideLabel.visible and not ui.guideButton.visible


def test_every_grey_control_says_why(medclipad: Any) -> None:
    """Also after it was enabled and disabled again; an enabled one has its own tool tip."""
    import ctk
    import qt

    ui = medclipad.ui
    kinds = (qt.QPushButton, qt.QComboBox, qt.QCheckBox, qt.QSlider, ctk.ctkSliderWidget)
    own = {}

    def check() -> list[str]:
        grey = []
        for name, widget in vars(ui).items():
            if not isinstance(widget, kinds) or name.startswith("qt_"):
                continue
            if not widget.testAttribute(
                qt.Qt.WidgetAttribute.WA_ForceDisabled
            ):  # enabled itself, whatever its group is
                own.setdefault(name, widget.toolTip)
                assert widget.toolTip == own[name] or name in ("falseRegionsComboBox",), name
            else:
                grey.append(name)
                assert widget.toolTip.endswith(".") and widget.toolTip != own.get(name), name
                words = (
                    "first",
                    "no map",
                    "no mark",
                    "Nothing",
                    "No ",
                    "is being",
                    "running",
                    "in use",
                    "not available",
                    "yet",
                )
                assert any(word in widget.toolTip for word in words), (name, widget.toolTip)
        return grey

    before = check()
    assert {"detectButton", "cancelButton", "trainButton", "nextPeakButton", "sendLabelButton"} <= set(before)
    assert ui.detectButton.toolTip.startswith("Load a volume")
    from examples import example

    result = example()
    medclipad.results.show_new(result)
    medclipad.parameters.inputVolume = result.volume
    assert len(check()) < len(before)
    assert ui.detectButton.toolTip == "Connect to a server first."
    import slicer

    slicer.mrmlScene.Clear(0)
    assert sorted(check()) == sorted(before)


def test_component_and_time_point_are_there_only_when_the_volume_has_them(medclipad: Any) -> None:
    import numpy as np

    ui = medclipad.ui
    medclipad.parameters.inputVolume = add_volume("Patient", head(AFFINE)[0], AFFINE)
    assert ui.componentSpinBox.isHidden() and ui.detectFormLabel1.isHidden()
    assert ui.timePointSpinBox.isHidden() and ui.detectFormLabel2.isHidden()
    colours = add_volume("RGB", np.zeros((4, 5, 6, 3), np.uint8), AFFINE)
    medclipad.parameters.inputVolume = colours
    assert (
        not ui.componentSpinBox.isHidden() and not ui.detectFormLabel1.isHidden() and ui.componentSpinBox.maximum == 2
    )


# --- addresses and errors ---


def test_addresses_are_remembered_newest_first(load_module: Any, study: Any) -> None:
    from harness import user

    port = free_port()
    widget = load_module(MODULE)[1]
    other = study.url.replace("127.0.0.1", "localhost")
    for url, connected in ((study.url, True), (other, True), (f"http://127.0.0.1:{port}", False), (study.url, True)):
        user.write(widget.ui.urlLineEdit, url)
        user.click(widget.ui.connectButton)
        wait(lambda: widget.ui.connectButton.enabled)
        assert widget.logic.session.connected == connected
        if connected:
            user.click(widget.ui.connectButton)
    again = load_module(MODULE)[1].ui
    assert [again.urlComboBox.itemText(row) for row in range(2)] == [study.url, other]
    assert again.urlComboBox.findText(f"http://127.0.0.1:{port}") < 0, "nothing was there"
    user.choose(again.urlComboBox, other)
    assert again.urlLineEdit.text == other


@pytest.mark.parametrize("button", ["connectButton", "testButton"])
def test_an_error_is_shown_once_and_goes_with_the_next_step(medclipad: Any, study: Any, button: str) -> None:
    import qt
    from harness import user

    ui = medclipad.ui
    user.write(ui.urlLineEdit, f"http://127.0.0.1:{free_port()}")
    user.click(getattr(ui, button))
    wait(lambda: getattr(ui, button).enabled)
    labels = [w for w in vars(ui).values() if isinstance(w, qt.QLabel) and "No server is running" in w.text]
    assert len(labels) == 1 and not labels[0].isHidden()
    assert labels[0].styleSheet.startswith("color:"), "as an error"
    user.write(ui.urlLineEdit, study.url)
    user.click(ui.connectButton)
    wait(lambda: medclipad.logic.session.connected)
    assert ui.messageLabel.text == "" and ui.connectionLabel.text.startswith("Connected")
    assert "color" not in ui.connectionLabel.styleSheet


def test_closing_the_scene_leaves_the_connection_and_no_old_message(panel: Any) -> None:
    import slicer

    panel.say("An old error.", bad=True)
    panel.ui.detectLabel.text = "Done in 3.0 s."
    slicer.mrmlScene.Clear(0)
    assert panel.ui.messageLabel.text == "" and panel.ui.detectLabel.text == ""
    assert panel.logic.session.connected and panel.ui.connectButton.enabled


def test_the_scene_is_closed_while_the_panel_connects(medclipad: Any, study: Any) -> None:
    import slicer
    from harness import user

    user.write(medclipad.ui.urlLineEdit, study.url)
    user.click(medclipad.ui.connectButton)
    slicer.mrmlScene.Clear(0)
    wait(lambda: medclipad.logic.session.connected, 30)
    assert medclipad.ui.connectButton.enabled and medclipad.ui.connectionLabel.text.startswith("Connected")


def test_the_readers_own_cancel_is_no_error(panel: Any) -> None:
    from harness import user
    from MedCLIPADLib.tones import ERROR

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
    assert not any(colour in ui.messageLabel.styleSheet for colour in ERROR)
    assert ui.trainLabel.text == "" and ui.trainButton.enabled


def test_leaving_the_server_ends_what_followed_its_training(panel: Any) -> None:
    from harness import user

    panel.training._progress({"fraction": 0.5, "phase": "train", "seconds": 3})
    assert not panel.ui.trainButton.enabled
    user.click(panel.ui.connectButton)
    assert panel.ui.trainLabel.text == "" and not panel.ui.stopTrainingButton.enabled
    user.click(panel.ui.connectButton)
    wait(lambda: panel.logic.session.connected)
    assert panel.ui.trainButton.enabled


# --- colours ---


def contrast(first: Any, second: Any) -> float:
    """Return the contrast of two colours by WCAG 2."""

    def luminance(colour: Any) -> float:
        parts = [colour.redF(), colour.greenF(), colour.blueF()]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#efefef", "#353535", "#1e1e1e"])
def test_errors_and_cautions_can_be_read_on_light_and_dark(medclipad: Any, background: str) -> None:
    import qt
    from examples import example

    ui = medclipad.ui
    medclipad.say("An error before the theme was changed.", bad=True)
    palette = qt.QPalette(medclipad.parent.palette)
    palette.setColor(qt.QPalette.Window, qt.QColor(background))
    medclipad.parent.setPalette(palette)
    medclipad.say("An error.", bad=True)
    medclipad.results.show_new(example(warnings=["Unusual acquisition."]))
    for label in (ui.messageLabel, ui.warningsLabel):
        colour = qt.QColor(label.styleSheet.partition("color:")[2].partition(";")[0].strip())
        assert contrast(colour, qt.QColor(background)) >= 4.5, label.name
    medclipad.parent.setPalette(qt.QPalette())
