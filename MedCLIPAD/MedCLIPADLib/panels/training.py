"""Train: parameters, progress, old against new, and the version in use."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.form import Form
from MedCLIPADLib.panels.base import Panel, fill_combo, fill_table, say_why, version_entries
from MedCLIPADLib.plots import existing_loss_chart, loss_chart, show_chart
from MedCLIPADLib.training import comparison, stage


class TrainingPanel(Panel):
    """The section Train.

    Attributes
    ----------
    form : Form
        The training parameters, as the server's schema describes them.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.form = Form(self.ui.trainFormWidget)
        self._outcome: dict = {}
        self._outcome_has_loss = False
        self._running = False
        ui = self.ui
        self.on_click(ui.trainButton, self.train)
        self.on_click(ui.stopTrainingButton, self.stop)
        self.on_click(ui.lossButton, self.show_loss)
        self.on_click(ui.useNewButton, lambda: self.select(self._outcome.get("version")))
        self.on_click(ui.keepOldButton, lambda: self.select(self._outcome.get("previous")))
        self.on_click(ui.useVersionButton, lambda: self.select(ui.versionInUseComboBox.currentData))
        self.on_click(ui.deleteVersionButton, self.delete)
        ui.trainMethodComboBox.connect("currentIndexChanged(int)", lambda _index: self.module.update())

    @property
    def method(self) -> str:
        """The method to train."""
        return self.ui.trainMethodComboBox.currentText

    # --- training ---
    def train(self) -> None:
        """Start a training; ModuleError if a parameter is wrong."""
        params = self.form.values()
        self._outcome = {}
        self._running = True
        self.ui.trainLabel.text = _("Starting...")
        self.module.trainer.start(self.method, params, self._progress, self.show_outcome, self._failed, self._stopped)
        self.module.update()

    def follow(self) -> None:
        """Follow the training that is already running on the server, if there is one."""
        self.module.trainer.follow(self._progress, self._followed, lambda _sentence: self._over(""), self._stopped)

    def stop(self) -> None:
        """Stop the training."""
        self.module.trainer.stop(self.fail)
        self.ui.trainLabel.text = _("Stopping...")

    def _progress(self, report: dict) -> None:
        if not self._running:
            self._running = True
            self.module.update()
        self.ui.trainProgressBar.value = round(100 * (report.get("fraction") or 0))
        words = _("{stage}, {seconds} s")
        self.ui.trainLabel.text = words.format(stage=stage(report), seconds=round(report.get("seconds") or 0))
        self._draw_loss(report)

    @staticmethod
    def _draw_loss(report: dict) -> None:
        if report.get("history"):
            loss_chart(report["history"])

    def _followed(self, report: dict) -> None:
        if report:
            self.show_outcome(report)

    def show_outcome(self, report: dict) -> None:
        """Show the outcome of a training: the old detector against the new one."""
        self._outcome = report.get("outcome") or {}
        self._outcome_has_loss = bool(report.get("history"))
        self._draw_loss(report)  # a short training ends before its progress is asked for
        self._over("")
        name = self._outcome.get("version", "")
        ready = _("The new version {name} is ready.").format(name=name)
        self.ui.verdictLabel.text = self._outcome.get("verdict") or ready
        self._fill_outcome(comparison(self._outcome))
        self.say(_("Training finished: {verdict}").format(verdict=self.ui.verdictLabel.text))
        self.ui.versionInUseComboBox.clear()
        self._refresh()

    def _fill_outcome(self, rows: list[tuple]) -> None:
        fill_table(self.ui.outcomeTable, ["", _("Old"), _("New")], rows)

    def _failed(self, sentence: str) -> None:
        self._over(sentence)
        self._fail_and_refresh(sentence)

    def _stopped(self) -> None:
        self._over("")
        if self.session.connected:
            self.say(_("The training was stopped; the previous detector stays in use."))

    def forget(self) -> None:
        """Forget the training, which belongs to the server that was left."""
        self._outcome, self._running = {}, False
        self.ui.trainLabel.text, self.ui.trainProgressBar.value = "", 0

    def _over(self, text: str) -> None:
        self._running = False
        self.ui.trainLabel.text = text
        self.ui.trainProgressBar.value = 0
        self.module.update()

    def _refresh(self) -> None:
        if self.session.connected:
            self.session.refresh(self.module.update, self.fail)

    def show_loss(self) -> None:
        """Show the loss curve; ModuleError if there is none."""
        chart = existing_loss_chart()
        if chart is None:
            raise ModuleError(self._no_loss())
        show_chart(chart)
        self.module.watch.plots()

    @staticmethod
    def _no_loss() -> str:
        return _("There is no loss curve yet: train first.")

    # --- versions ---
    def select(self, version: str | None) -> None:
        """Put a version in use; ModuleError if there is none."""
        if not version:
            raise ModuleError(_("There is no version to use: train one first."))
        self.session.select(self.method, version, lambda: self._selected(version), self._fail_and_refresh)

    def _selected(self, version: str) -> None:
        self.say(_("{name} is now in use.").format(name=version))
        self.parameters.version = version
        self.ui.versionInUseComboBox.clear()  # so that `update` selects the version in use
        self.module.update()

    def delete(self) -> None:
        """Delete the selected version from the server."""
        version = self.ui.versionInUseComboBox.currentData
        if not version:
            raise ModuleError(_("There is no version to delete."))
        self.session.delete(self.method, version, lambda: self._deleted(version), self._fail_and_refresh)

    def _deleted(self, version: str) -> None:
        self.say(_("{name} was deleted.").format(name=version))
        self.module.update()

    def _fail_and_refresh(self, sentence: str) -> None:
        """Show an error, and update the versions, as one may have been deleted."""
        self.fail(sentence)
        self._refresh()

    # --- display ---
    def update(self) -> None:
        """Show parameters and versions of the method, and enable what can be pressed."""
        ui, trainers = self.ui, self.module.trainer.methods
        detecting = self.parameters.method  # what the reader works with, until another one is chosen here
        fill_combo(ui.trainMethodComboBox, [(name, name) for name in trainers], self.method or detecting)
        self.form.show(trainers.get(self.method, {}))
        versions = self.session.versions_of(self.method)
        current = self.session.current(self.method)
        in_use = ui.versionInUseComboBox
        fill_combo(in_use, version_entries(versions, current), in_use.currentData or current)
        connect = "" if self.session.connected else _("Connect to a server first.")
        none = connect or ("" if trainers else _("The server offers no training."))
        running = _("A training is running: wait for it, or press Cancel.") if self._running else ""
        say_why(ui.trainButton, none or running)
        say_why(ui.stopTrainingButton, "" if self._running else _("No training is running."))
        chart = existing_loss_chart()
        without = _("This training had no loss: the method remembers normal slices.")
        has_none = self._no_loss() if chart is None else ""
        say_why(ui.lossButton, without if self._outcome and not self._outcome_has_loss else has_none)
        for button in (ui.useVersionButton, ui.deleteVersionButton):
            say_why(button, connect or ("" if versions else _("There is no version yet: train one first.")))
        for button, key in ((ui.useNewButton, "version"), (ui.keepOldButton, "previous")):
            name = self._outcome.get(key)
            in_use = _("It is in use already.") if name == current else ""
            say_why(button, in_use if name else _("Train first: then the old detector is compared with the new one."))
        if not self._outcome:
            self._fill_outcome([])
            ui.verdictLabel.text = ""
