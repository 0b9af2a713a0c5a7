"""Correct and label: segmentation, marks, history, and the next volume."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib import dicomfiles, navigation, segmentation
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.labelling import history
from MedCLIPADLib.marks import marks, summary
from MedCLIPADLib.panels.base import Panel, fill_combo, fill_table, say_why
from MedCLIPADLib.pending import Item
from MedCLIPADLib.results import SEGMENTATION
from MedCLIPADLib.schema import readable


class ReviewPanel(Panel):
    """The section Correct and label."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        self._history_rows: list[tuple] | None = None
        self.on_click(ui.makeSegmentationButton, self.make_segmentation)
        self.on_click(ui.emptySegmentationButton, self.empty_segmentation)
        self.on_click(ui.editButton, self.edit)
        self.on_click(ui.exportDicomButton, self.export_dicom)
        self.on_click(ui.sendLabelButton, self.send_label)
        self.on_click(ui.markNormalButton, lambda: self.mark("normal"))
        self.on_click(ui.markAbnormalButton, lambda: self.mark("abnormal"))
        self.on_click(ui.unmarkButton, lambda: self.mark(None))
        self.on_click(ui.undoMarkButton, self.undo_mark)
        ui.rangeButton.connect("toggled(bool)", lambda on: self.guarded(lambda: self._range(on)))
        self.on_click(ui.nextVolumeButton, self.next_volume)

    # --- segmentation ---
    def make_segmentation(self) -> None:
        """Make a segmentation of the regions in the table of Results."""
        result, limit = self.require_result(), self.module.results.limit
        self.module.analysis.segment(result, limit, self._segmented, self.fail_and_update)
        self.update()

    def _segmented(self, node: Any) -> None:
        words = _("{name} is ready: correct it in the Segment Editor, then press Send segmentation as label.")
        self.say(words.format(name=node.GetName()))
        self.module.update()

    def empty_segmentation(self) -> None:
        """Open a segmentation without voxels in the Segment Editor."""
        segmentation.empty_segmentation(self.require_result())
        self.edit()

    def edit(self) -> None:
        """Open the segmentation in the Segment Editor, with its volume as source volume."""
        result = self.require_result()
        node = result.reference(SEGMENTATION)
        if node is None:
            raise ModuleError(
                _("There is no segmentation of this volume yet: press Make segmentation or New empty segmentation.")
            )
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        if result.volume is not None:
            editor.setSourceVolumeNode(result.volume)

    def export_dicom(self) -> None:
        """Write the segmentation as DICOM into a folder that the reader chooses."""
        result = self.require_result()
        title = _("Choose the folder of the DICOM segmentation")
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title) or ""
        if folder:
            dicomfiles.write_segmentation(result, folder)
            self.say(_("Saved in {folder}, and added to Slicer's DICOM database.").format(folder=folder))

    def send_label(self) -> None:
        """Send the segmentation to the server as the volume's label."""
        self.module.labelling.send_label(self.require_result(), self._sent, self.fail_and_update)
        self.say(_("Sending the label..."))
        self.module.update()

    # --- marks ---
    def mark(self, kind: str | None) -> None:
        """Mark the current slice, or the range up to it.

        Parameters
        ----------
        kind : str or None
            "normal" or "abnormal"; None removes the marks.
        """
        result = self.require_result()
        current = navigation.current_slice(result)
        if current is None:
            raise ModuleError(_("The views are outside the volume: go to one of its slices first."))
        first = self.parameters.rangeStart if self.ui.rangeButton.checked else current
        self.module.labelling.mark(result, first, current, kind, self._sent, self.fail_and_update)
        self.ui.rangeButton.checked = False
        self.module.update()

    def undo_mark(self) -> None:
        """Take back the last change of the volume's marks."""
        self.module.labelling.undo(self.require_result(), self._sent, self.fail_and_update)
        self.module.update()

    def _range(self, on: bool) -> None:
        """Start a range at the current slice, or end it."""
        if not on:
            self.ui.rangeButton.text = _("Range (M)")
            return
        current = navigation.current_slice(self.result) if self.result is not None else None
        if current is None:
            self.ui.rangeButton.checked = False
            raise ModuleError(_("There is no current slice: press Detect, then go to a slice of the volume."))
        self.parameters.rangeStart = current
        self.ui.rangeButton.text = _("Range from {number} (M)").format(number=current)

    def _sent(self, item: Item) -> None:
        if item.kind == "label":
            self.say(_("Label saved on the server."))
        self.module.update()

    # --- next volume ---
    def next_volume(self) -> None:
        """Load and analyse the volume to label next."""
        strategy = self.ui.strategyComboBox.currentData or ""
        self.module.sampling.next(
            strategy, self.parameters.method, self._loaded, self._not_loaded, self._progress, lambda: self._ended("")
        )
        self.update()

    def _progress(self, phase: str, done: int, total: int) -> None:
        words = _("{phase} {percent} %").format(phase=phase, percent=100 * done // total) if total else phase
        self.ui.nextLabel.text = words

    def _not_loaded(self, sentence: str) -> None:
        self._ended("")
        self.fail(sentence)

    def _ended(self, text: str) -> None:
        self.ui.nextLabel.text = text
        self.update()

    def _loaded(self, node: Any, sample: dict) -> None:
        if node is None:
            self._ended(_("All volumes on the server are labelled."))
            return
        strategy = readable(sample.get("strategy", ""))
        reason = sample.get("reason") or _("chosen by the strategy {strategy}.").format(strategy=strategy)
        self.ui.nextLabel.text = f"{node.GetName()}: {reason}"
        self.parameters.inputVolume = node
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        self.module.detect.start(node)

    def forget(self) -> None:
        """Forget why the volume was chosen, and the range: the scene was closed."""
        self.ui.nextLabel.text = ""
        self.ui.rangeButton.checked = False

    # --- display ---
    def update(self) -> None:
        """Show marks and history, and enable what can be pressed."""
        ui, result = self.ui, self.result
        has_map = result is not None
        has_label = has_map and result.reference(SEGMENTATION) is not None
        no_map = "" if has_map else _("There is no map yet: choose a volume and press Detect.")
        making = _("The segmentation is being made.") if self.session.jobs.active("Segmentation") else ""
        say_why(ui.makeSegmentationButton, no_map or making)
        no_label = "" if has_label else _("There is no segmentation yet: press Make segmentation first.")
        for button in (ui.editButton, ui.sendLabelButton):
            say_why(button, no_map or no_label)
        too_old = _("Install Slicer 5.12, or the extension QuantitativeReporting, first.")
        say_why(ui.exportDicomButton, no_map or no_label or ("" if dicomfiles.segmentation_plugin() else too_old))
        for button in (
            ui.emptySegmentationButton,
            ui.markNormalButton,
            ui.markAbnormalButton,
            ui.unmarkButton,
            ui.rangeButton,
        ):
            say_why(button, no_map)
        undo = "" if result is not None and self.module.labelling.can_undo(result) else _("There is no mark to undo.")
        say_why(ui.undoMarkButton, no_map or undo)
        known = (
            marks(result.volume, result.about["image"]) if result is not None and result.volume is not None else None
        )
        ui.marksLabel.text = _("Marks: {marks}.").format(marks=summary(known)) if known else ""
        rows = [
            (entry["time"], entry["volume"], entry["what"], _("sent") if entry["sent"] else _("not yet"))
            for entry in reversed(history(self.parameters.parameterNode))
        ]
        if rows != self._history_rows:
            self._history_rows = rows
            fill_table(ui.historyTable, [_("Time"), _("Volume"), _("Labelled"), _("Sent")], rows)
        strategies = [(readable(name), name) for name in self.session.strategies]
        fill_combo(ui.strategyComboBox, strategies, ui.strategyComboBox.currentData)
        loading = _("The next volume is being loaded.") if self.session.jobs.active("Next volume") else ""
        for widget in (ui.strategyComboBox, ui.nextVolumeButton):
            say_why(widget, loading if self.session.connected else _("Connect to a server first."))
