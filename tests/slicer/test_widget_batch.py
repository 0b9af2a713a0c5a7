"""Several volumes, and all time points of a sequence, one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from hands import AFFINE, results
from served import add_volume, head


def wait(condition: Any, seconds: float = 30, what: str = "") -> None:
    from harness import user

    user.wait_until(condition, seconds, what)


@pytest.mark.parametrize("sequence", [False, True])
def test_a_batch_analyses_all_that_is_ticked(panel: Any, sequence: bool) -> None:
    """Several volumes, or all frames of a sequence; one that cannot be analysed stops no other."""
    import numpy as np
    import slicer
    from harness import user

    ui, scene = panel.ui, slicer.mrmlScene
    if sequence:
        frames = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
        for index in range(3):
            frame = add_volume(f"frame {index}", head(AFFINE, seed=900 + index)[0], AFFINE)
            frames.SetDataNodeAtValue(frame, str(index))
            scene.RemoveNode(frame)
        browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        panel.update()
    else:
        for index in range(2):
            add_volume(f"volume {index}", head(AFFINE, seed=910 + index)[0], AFFINE)
        sheared = AFFINE.copy()
        sheared[0, 1] += 2
        add_volume("sheared", np.zeros((4, 5, 6), np.int16), sheared)
        panel.update()
    ui.batchGroupBox.collapsed = False
    rows = range(ui.batchList.count)
    assert len(rows) == (1 if sequence else 3)
    user.click(ui.batchButton)
    assert ui.messageLabel.text == "Tick at least one volume in the list."
    for row in rows:
        ui.batchList.item(row).setCheckState(qt_checked())
    user.click(ui.batchButton)
    expected = 3 if sequence else 2
    wait(lambda: not panel.batch.running and len(results()) == expected, 200, ui.messageLabel.text)
    assert ui.messageLabel.text.startswith(f"{expected} of 3 analysed")
    assert sequence or "sheared" in ui.messageLabel.text
    points = sorted(result.about["time_point"] or 0 for result in results())
    assert points == ([0, 1, 2] if sequence else [0, 0])


def qt_checked() -> Any:
    import qt

    return qt.Qt.CheckState.Checked


def test_the_batch_lists_volumes_and_sequences_and_says_what_failed(medclipad: Any) -> None:
    import qt
    import slicer

    ui, scene = medclipad.ui, slicer.mrmlScene
    frames = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
    for index in range(3):
        frame = add_volume(f"frame {index}", head(AFFINE, seed=900 + index)[0], AFFINE)
        frames.SetDataNodeAtValue(frame, str(index))
        scene.RemoveNode(frame)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    add_volume("v", head(AFFINE)[0], AFFINE)
    medclipad.update()
    assert ui.batchList.count == 2
    assert "3 time points" in ui.batchList.item(0).text()
    for row in range(2):
        ui.batchList.item(row).setCheckState(qt.Qt.CheckState.Checked)
    medclipad.batch.start()  # without a server each of them fails, and none stops the others
    assert ui.messageLabel.text.startswith("0 of 4 analysed"), ui.messageLabel.text
    medclipad.update()
    assert ui.batchList.item(0).checkState() == qt.Qt.CheckState.Checked and not medclipad.batch.running
