"""Detect: the volume to analyse, the detector, and the progress."""

from __future__ import annotations

from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib import volumes
from MedCLIPADLib.detection import Request
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.panels.base import Panel, fill_combo, say_why, version_entries
from MedCLIPADLib.presets import ANY, AUTO, preset_label, preset_of, suits
from MedCLIPADLib.results import Result


class DetectPanel(Panel):
    """The section Detect."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._job: Job | None = None
        self._phase = ""
        self._instead: Callable[[Result], Any] | None = None  # what to do with the result instead of showing it
        self.on_click(self.ui.detectButton, self.detect)
        self.on_click(self.ui.cancelButton, self.cancel)
        for combo, name in (
            (self.ui.methodComboBox, "method"),
            (self.ui.versionComboBox, "version"),
            (self.ui.intensityComboBox, "intensity"),
        ):
            combo.connect("currentIndexChanged(int)", self._chooser(combo, name))

    def _chooser(self, combo: Any, name: str) -> Any:
        """Return a slot that writes the selected value of a combo box to a parameter."""

        def chosen(index: int) -> None:
            if index >= 0 and getattr(self.parameters, name) != combo.itemData(index):
                setattr(self.parameters, name, combo.itemData(index))

        return chosen

    # --- the analysis ---
    @property
    def running(self) -> bool:
        """Whether an analysis is running, or its result is about to be shown."""
        return self._job is not None

    def detect(self) -> None:
        """Analyse the selected volume."""
        self.start(self.parameters.inputVolume)

    def from_menu(self, node: Any) -> None:
        """Select a volume and analyse it, as its context menu in the Data tree asks for."""
        self.say("")
        if self.running:
            self.fail(_("An analysis is running: wait for it, or press Cancel."))
            return
        self.parameters.inputVolume = node
        self.guarded(self.detect)

    def start(self, node: Any, time_point: int | None = None, done: Callable[[Result], Any] | None = None) -> None:
        """Analyse a volume with the selected detector.

        Parameters
        ----------
        node : vtkMRMLScalarVolumeNode
            The volume.
        time_point : int or None
            Which item, if it is part of a sequence; by default the selected one.
        done : callable, optional
            Called with the result, which is then not shown in the views.

        Raises
        ------
        ModuleError
            If that is not possible.
        """
        chosen = self.parameters
        if self.session.connected and not chosen.method:
            raise ModuleError(_("The server has no detector yet: train one first."))
        if self.session.connected and not chosen.version:
            raise ModuleError(self.ui.versionLabel.text)  # says why no detector suits
        point = chosen.timePoint if time_point is None else time_point
        request = Request(chosen.method, chosen.version, chosen.plane, chosen.component, point)
        self._instead = done
        self._phase = _("Starting")
        self._job = self.module.analysis.detect(
            node, request, self._done, self._failed, self._progress, self._cancelled
        )
        self.say("")
        self.module.update()

    def cancel(self) -> None:
        """Cancel the running analysis, and those of a batch."""
        self.module.batch.clear()
        if self._job is not None:
            self._job.cancel()
            self._phase = _("Cancelling")
            self.tick()

    def _progress(self, phase: str, done: int, total: int) -> None:
        self._phase = phase
        self.ui.detectProgressBar.maximum = 100 if total else 0  # 0: the bar moves without a percentage
        self.ui.detectProgressBar.value = 100 * done // total if total else 0
        self.tick()

    def tick(self) -> None:
        """Show the phase and the elapsed time."""
        if self._job is not None:
            words = _("{phase}, {seconds} s")
            self.ui.detectLabel.text = words.format(phase=self._phase, seconds=round(self._job.seconds))

    def _over(self, text: str, percent: int = 0) -> None:
        self._job = None
        self.ui.detectProgressBar.maximum = 100
        self.ui.detectProgressBar.value = percent
        self.ui.detectLabel.text = text

    def _done(self, result: Result) -> None:
        self.session.jobs.post(lambda: self._show(result))  # in a later turn of the event loop, so that each is short

    def _show(self, result: Result) -> None:
        if result.node.GetScene() is None:
            return  # the scene was closed in the meantime
        seconds = self._job.seconds if self._job else 0.0
        cached = result.about.get("cached")
        words = _("Done (stored result).") if cached else _("Done in {seconds} s.")
        self._over(words.format(seconds=f"{seconds:.1f}"), 100)
        if self._instead is not None:
            self._instead(result)
        else:
            self.module.results.show_new(result)
        self.module.update()
        self.module.batch.go_on()

    def _failed(self, sentence: str) -> None:
        self._over("")
        self.fail(sentence)
        self.module.update()
        self.module.batch.go_on(sentence)
        if self.session.connected:  # the version may have been deleted: update the list
            self.session.refresh(self.module.update, lambda _sentence: None)

    def _cancelled(self) -> None:
        self._over(_("Cancelled."))
        self.module.update()

    def forget(self) -> None:
        """Forget the analysis, whose scene was closed."""
        self._over("")

    # --- the choices ---
    def update(self) -> None:
        """Show what can be selected, and enable what can be pressed."""
        self._update_volume()
        parameters, session = self.parameters, self.session
        if session.connected:
            method = fill_combo(self.ui.methodComboBox, [(name, name) for name in session.methods], parameters.method)
            self._set("method", method)
            self._update_modality(session.versions_of(method))
            self._update_versions(method)
        say_why(self.ui.detectButton, self._why_not())
        say_why(self.ui.cancelButton, "" if self.running else _("Nothing is running."))
        for widget in (self.ui.methodComboBox, self.ui.intensityComboBox, self.ui.versionComboBox):
            say_why(widget, "" if session.connected else _("Connect to a server first."))

    def _why_not(self) -> str:
        """Return why Detect cannot be pressed, or ""."""
        if self.running:
            return _("An analysis is running: wait for it, or press Cancel.")
        if self.parameters.inputVolume is None:
            return _("Load a volume and choose it under Volume first.")
        return "" if self.session.connected else _("Connect to a server first.")

    def _set(self, name: str, value: Any) -> None:
        if getattr(self.parameters, name) != value:
            setattr(self.parameters, name, value)

    def _update_volume(self) -> None:
        node = self.parameters.inputVolume
        ui = self.ui
        for label, spin, count in (
            (ui.detectFormLabel1, ui.componentSpinBox, volumes.components(node)),
            (ui.detectFormLabel2, ui.timePointSpinBox, volumes.time_points(node)),
        ):
            spin.maximum = max(0, count - 1)
            label.visible = spin.visible = count > 1

    def _update_modality(self, versions: list[dict]) -> None:
        presets = sorted({version.get("intensity") or "" for version in versions})
        entries = [(_("Automatic"), AUTO), (_("Any"), ANY)]
        entries += [(preset_label(preset), preset) for preset in presets if preset_label(preset)]
        self._set("intensity", fill_combo(self.ui.intensityComboBox, entries, self.parameters.intensity))
        if self.parameters.intensity != AUTO:
            self.ui.intensityLabel.text = ""
            return
        modality = volumes.modality(self.parameters.inputVolume)
        if not modality:
            words = _("Modality unknown: all detectors offered.")
        elif preset_of(modality):
            words = _("Modality {modality}: only suitable detectors offered.")
        else:
            words = _("Modality {modality}: all detectors offered.")
        self.ui.intensityLabel.text = words.format(modality=modality)

    def _update_versions(self, method: str) -> None:
        required = self.parameters.intensity
        if required == AUTO:
            required = preset_of(volumes.modality(self.parameters.inputVolume)) or ANY
        current = self.session.current(method)
        offered = [
            version for version in self.session.versions_of(method) if suits(version.get("intensity") or "", required)
        ]
        entries = version_entries(offered, current)
        entries.sort(key=lambda entry: entry[1] != current)  # the one in use first, then newest first
        self._set("version", fill_combo(self.ui.versionComboBox, entries, self.parameters.version))
        if not offered and required == ANY:
            self.ui.versionLabel.text = _("The server has no detector yet: train one first.")
        elif not offered:
            words = _("No detector was trained on {modality}: train one, or choose Any under Modality.")
            self.ui.versionLabel.text = words.format(modality=preset_label(required))
        else:
            version = self.session.version(method, self.parameters.version)
            self.ui.versionLabel.text = ", ".join(_description(version)) + "."


def _description(version: dict) -> list[str]:
    """Return how a version was trained, as parts of a sentence."""
    modality, plane = preset_label(version.get("intensity") or ""), version.get("plane")
    if version.get("planes") == "all":
        known, unknown = _("Trained on {modality} slices in three planes"), _("Trained on slices in three planes")
        words = known if modality else unknown
    else:
        words = _("Trained on {plane} {modality} slices") if modality else _("Trained on {plane} slices")
    parts = [words.format(plane=plane, modality=modality)]
    if version.get("encoder"):
        parts.append(_("encoder {name}").format(name=version["encoder"]))
    if version.get("created"):
        parts.append(str(version["created"])[:16].replace("T", " "))
    return parts
