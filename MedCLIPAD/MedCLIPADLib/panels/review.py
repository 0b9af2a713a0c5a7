"""Correct and label: segmentation, marks, what was labelled, and the next volume."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from MedCLIPADLib import navigation, segmentation
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.labelling import history
from MedCLIPADLib.marks import marks, summary
from MedCLIPADLib.panels.base import Panel, fill_combo, fill_table
from MedCLIPADLib.pending import Item
from MedCLIPADLib.results import SEGMENTATION


class ReviewPanel(Panel):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        self.on_click(ui.makeSegmentationButton, self.make_segmentation)
        self.on_click(ui.emptySegmentationButton, self.empty_segmentation)
        self.on_click(ui.editButton, self.edit)
        self.on_click(ui.submitButton, self.submit)
        self.on_click(ui.markNormalButton, lambda: self.mark("normal"))
        self.on_click(ui.markAbnormalButton, lambda: self.mark("abnormal"))
        self.on_click(ui.unmarkButton, lambda: self.mark(None))
        ui.rangeButton.connect("toggled(bool)", lambda on: self.guarded(lambda: self._range(on)))
        self.on_click(ui.nextVolumeButton, self.next_volume)

    # --- segmentation ---
    def make_segmentation(self) -> None:
        self.ui.makeSegmentationButton.enabled = False
        try:
            self.module.analysis.segment(self.need_result(), self._segmented, self._not_segmented)
        except ModuleError:
            self.ui.makeSegmentationButton.enabled = True
            raise

    def _segmented(self, node: Any) -> None:
        self.say(_("{name}: correct it with Edit, then press Submit label.").format(name=node.GetName()))
        self.module.update()

    def _not_segmented(self, sentence: str) -> None:
        self.fail(sentence)
        self.module.update()

    def empty_segmentation(self) -> None:
        segmentation.empty_segmentation(self.need_result())
        self.edit()

    def edit(self) -> None:
        """Open the Segment Editor on the segmentation, with the volume behind it."""
        result = self.need_result()
        node = result.reference(SEGMENTATION)
        if node is None:
            raise ModuleError(_("There is no segmentation of this volume yet: press Make segmentation or Empty first."))
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        if result.volume is not None:
            editor.setSourceVolumeNode(result.volume)

    def submit(self) -> None:
        self.module.labelling.submit(self.need_result(), self._sent, self._not_sent)
        self.say(_("Sending the label ..."))
        self.module.update()

    # --- marks ---
    def mark(self, kind: str | None) -> None:
        """Mark the current slice, or the range from where it was started."""
        result = self.need_result()
        current = navigation.current_slice(result)
        if current is None:
            raise ModuleError(_("The views are outside the volume: go to a slice of it first."))
        first = self.parameters.rangeStart if self.ui.rangeButton.checked else current
        self.module.labelling.mark(result, first, current, kind, self._sent, self._not_sent)
        self.ui.rangeButton.checked = False
        self.module.update()

    def _range(self, on: bool) -> None:
        if not on:
            self.ui.rangeButton.text = _("Range (S)")
            return
        current = navigation.current_slice(self.result) if self.result is not None else None
        if current is None:
            self.ui.rangeButton.checked = False
            raise ModuleError(_("There is no current slice: press Detect, and go to a slice of the volume."))
        self.parameters.rangeStart = current
        self.ui.rangeButton.text = _("Range from {number} (S)").format(number=current)

    def _sent(self, item: Item) -> None:
        if item.kind == "label":
            self.say(_("The server has the {item}.").format(item=item.what))
        self.module.update()

    def _not_sent(self, sentence: str) -> None:
        self.fail(sentence)
        self.module.update()

    # --- next volume ---
    def next_volume(self) -> None:
        strategy = self.ui.strategyComboBox.currentText
        self.module.sampling.next(strategy, self.parameters.method, self._loaded, self._not_loaded, self._progress)
        self.ui.nextVolumeButton.enabled = False

    def _progress(self, phase: str, done: int, total: int) -> None:
        words = _("{phase} {percent} %").format(phase=phase, percent=100 * done // total) if total else phase
        self.ui.nextLabel.text = words

    def _not_loaded(self, sentence: str) -> None:
        self.ui.nextLabel.text = ""
        self.ui.nextVolumeButton.enabled = True
        self.fail(sentence)

    def _loaded(self, node: Any, sample: dict) -> None:
        self.ui.nextVolumeButton.enabled = True
        if node is None:
            self.ui.nextLabel.text = _("All volumes of the server are labelled.")
            return
        chosen = _("{strategy} chose it.").format(strategy=sample.get("strategy", ""))
        reason = sample.get("reason") or chosen
        self.ui.nextLabel.text = f"{node.GetName()}: {reason}"
        self.parameters.inputVolume = node
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        self.module.detect.start(node)

    # --- showing ---
    def update(self) -> None:
        ui, result = self.ui, self.result
        has_map, has_label = result is not None, result is not None and result.reference(SEGMENTATION) is not None
        ui.makeSegmentationButton.enabled = ui.emptySegmentationButton.enabled = has_map
        ui.editButton.enabled = has_label
        ui.submitButton.enabled = has_label
        for button in (ui.markNormalButton, ui.markAbnormalButton, ui.unmarkButton, ui.rangeButton):
            button.enabled = has_map
        known = marks(result.volume, result.about["image"]) if has_map and result.volume is not None else None
        ui.marksLabel.text = _("Marks: {marks}.").format(marks=summary(known)) if known else ""
        rows = [
            (entry["time"], entry["volume"], entry["what"], _("sent") if entry["sent"] else _("not yet"))
            for entry in reversed(history(self.parameters.parameterNode))
        ]
        if rows != getattr(self, "_rows", None):
            self._rows = rows
            fill_table(ui.historyTable, [_("Time"), _("Volume"), _("What"), _("Sent")], rows)
        fill_combo(
            ui.strategyComboBox, [(name, name) for name in self.session.strategies], ui.strategyComboBox.currentText
        )
        ui.nextVolumeButton.enabled = self.session.connected and not self.session.jobs.active("Next volume")
