"""Several volumes, and all time points of sequences, one after the other."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib import volumes
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.panels.base import Panel, say_why
from MedCLIPADLib.results import Result


class BatchPanel(Panel):
    """The group Several volumes of the section Detect.

    The maps are added to the scene; none is shown before the reader chooses it under Results.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._ids: list[str] = []  # of the volumes in the list
        self._names: list[str] = []
        self._waiting: list[tuple[str, int | None]] = []  # (id of a volume's node, its time point)
        self._count = self._done = 0
        self._problem = ""
        self.on_click(self.ui.batchButton, self.start)

    @property
    def running(self) -> bool:
        """Whether a batch is running."""
        return self._count > 0

    def start(self) -> None:
        """Analyse the ticked volumes; ModuleError if there is none."""
        ticked = [node_id for row, node_id in enumerate(self._ids) if self._is_ticked(row)]
        if not ticked:
            raise ModuleError(_("Tick at least one volume in the list."))
        self._waiting = [entry for node_id in ticked for entry in self._entries(node_id)]
        self._count, self._done, self._problem = len(self._waiting), 0, ""
        self._next()

    def _is_ticked(self, row: int) -> bool:
        return self.ui.batchList.item(row).checkState() == qt.Qt.Checked

    def _entries(self, node_id: str) -> list[tuple[str, int | None]]:
        """Return what to analyse of a volume: itself, or all its time points."""
        count = volumes.time_points(slicer.mrmlScene.GetNodeByID(node_id))
        return [(node_id, None)] if count == 1 else [(node_id, point) for point in range(count)]

    def go_on(self, problem: str = "") -> None:
        """Go on after an analysis; `problem` says why it failed, if it did."""
        if not self.running:
            return
        self._problem = self._problem or problem
        self._done += not problem
        self._next()

    def clear(self) -> None:
        """Leave out what has not been analysed yet."""
        self._waiting, self._count = [], 0

    def forget(self) -> None:
        """Forget the batch, whose scene was closed."""
        self.clear()

    def _next(self) -> None:
        """Start the next analysis; say at the end how many succeeded."""
        while self._waiting:
            node_id, time_point = self._waiting.pop(0)
            node = slicer.mrmlScene.GetNodeByID(node_id)
            try:
                self.module.detect.start(node, time_point, self._finished)
                return
            except ModuleError as error:  # this volume cannot be analysed: the others can
                self._problem = self._problem or str(error)
        words = _("{done} of {count} analysed; choose a map under Results.").format(done=self._done, count=self._count)
        self.clear()
        if self._problem:
            self.fail(f"{words} {self._problem}")
        else:
            self.say(words)
        self.update()

    def _finished(self, result: Result) -> None:
        if self.parameters.result is None and not self._waiting:
            self.module.results.show_new(result)  # the last one, so that there is something to see

    def update(self) -> None:
        """List the volumes of the scene."""
        nodes = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if not node.GetAttribute(volumes.RESULT) and not node.IsA("vtkMRMLLabelMapVolumeNode")
        ]
        ids, names = [node.GetID() for node in nodes], [_in_words(node) for node in nodes]
        if (ids, names) != (self._ids, self._names):
            ticked = {node_id for row, node_id in enumerate(self._ids) if self._is_ticked(row)}
            self._ids, self._names = ids, names
            self.ui.batchList.clear()
            for node_id, name in zip(ids, names):
                item = qt.QListWidgetItem(name)
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
                item.setCheckState(qt.Qt.Checked if node_id in ticked else qt.Qt.Unchecked)
                self.ui.batchList.addItem(item)
        connect = "" if self.session.connected else _("Connect to a server first.")
        running = _("An analysis is running: wait for it, or press Cancel.") if self.module.detect.running else ""
        none = "" if nodes else _("Load a volume first.")
        say_why(self.ui.batchButton, connect or running or none)


def _in_words(node: Any) -> str:
    """Return the name of a volume, with the number of its time points."""
    count = volumes.time_points(node)
    words = _("{name} ({count} time points)")
    return node.GetName() if count == 1 else words.format(name=node.GetName(), count=count)
