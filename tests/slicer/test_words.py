"""The panel's words: plain, and the field's; none of the old ones anywhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hands import AFFINE, detect, results
from served import add_volume, head

STANDING = {  # text or tool tip of the panel's own widgets
    "showMapCheckBox": "Show in 2D",
    "show3DCheckBox": "Show in 3D",
    "emptySegmentationButton": "New empty segmentation",
    "editButton": "Open in Segment Editor",
    "sendLabelButton": "Send segmentation as label",
    "markNormalButton": "Mark the current slice as normal",
    "markAbnormalButton": "Mark the current slice as abnormal",
    "stopTrainingButton": "The previous detector stays in use",
}
OLD = (
    "Nothing listens", "cached", "nothing to look at", "Call the current", "serving", "served", "held out", "held-out",
    "shots", "Intensity", "all are offered", "Learned from", "submit",
)  # fmt: skip


def texts(panel: Any) -> dict[str, str]:
    """Return text and tool tip of each widget of the panel, the training form's too."""
    import qt

    found = {}
    for widget in panel.parent.findChildren(qt.QWidget):
        said = [str(getattr(widget, name)) for name in ("text", "toolTip", "title", "html") if hasattr(widget, name)]
        if isinstance(widget, qt.QComboBox):
            said += [widget.itemText(row) for row in range(widget.count)]
        found[f"{widget.name} {id(widget)}"] = " | ".join(said)
    return found


@pytest.mark.parametrize("name", STANDING)
def test_standing_words(medclipad: Any, name: str) -> None:
    widget = getattr(medclipad.ui, name)
    own = widget.property("MedCLIPADToolTip") or widget.toolTip  # that of a grey one says why it is
    assert STANDING[name] in f"{widget.text} {own}"


def test_words_from_detect_to_the_label(panel: Any) -> None:
    from harness import user

    ui = panel.ui
    volume = add_volume("Words", head(AFFINE, seed=960)[0], AFFINE)
    user.choose(ui.inputSelector, "Words")
    assert ui.intensityLabel.text == "Modality unknown: all detectors offered."
    assert re.match(r"Trained on axial (\w+ )?slices", ui.versionLabel.text), ui.versionLabel.text
    assert ui.versionComboBox.currentText == "first (in use)"
    user.choose(ui.versionComboBox, "starter")
    assert ui.versionLabel.text.startswith("Trained on MR slices in three planes, encoder "), ui.versionLabel.text
    user.choose(ui.versionComboBox, "first (in use)")
    detect(panel, volume)
    detect(panel, volume)
    assert ui.detectLabel.text == "Done (stored result)." and len(results()) == 2
    ui.reviewCollapsibleButton.collapsed = False
    user.click(ui.makeSegmentationButton)
    user.wait_until(lambda: ui.sendLabelButton.enabled, 30)
    user.click(ui.sendLabelButton)
    user.wait_until(lambda: ui.messageLabel.text == "Label saved on the server.", 30, ui.messageLabel.text)
    strategies = [ui.strategyComboBox.itemText(row) for row in range(ui.strategyComboBox.count)]
    assert strategies and all(re.fullmatch(r"[A-Z][a-z]+( [a-z]+)*", name) for name in strategies), strategies
    said = texts(panel)
    assert any("Training slices" in text for text in said.values())
    assert any("Test share" in text for text in said.values())
    old = {name: word for name, text in said.items() for word in OLD if re.search(rf"\b{word}\b", text)}
    assert old == {}


def test_a_volume_without_tissue_has_words_instead_of_a_score(medclipad: Any) -> None:
    from examples import example

    medclipad.results.show_new(example(volume_score=None))
    assert medclipad.ui.resultLabel.text.startswith("No slice contains enough tissue to score")
