"""Detect: what to analyse, with which detector, and how far it is."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib import volumes
from MedCLIPADLib.detection import Request
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.jobs import Job
from MedCLIPADLib.panels.base import Panel, fill_combo, version_entries
from MedCLIPADLib.presets import ANY, AUTO, family, preset_of, suits
from MedCLIPADLib.results import Result


class DetectPanel(Panel):
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._job: Job | None = None
        self._phase = ""
        self.on_click(self.ui.detectButton, self.detect)
        self.on_click(self.ui.cancelButton, self.cancel)
        for combo, name in (
            (self.ui.methodComboBox, "method"),
            (self.ui.versionComboBox, "version"),
            (self.ui.intensityComboBox, "intensity"),
        ):
            combo.connect("currentIndexChanged(int)", self._chooser(combo, name))

    def _chooser(self, combo: Any, name: str) -> Any:
        def chosen(index: int) -> None:
            if index >= 0 and getattr(self.parameters, name) != combo.itemData(index):
                setattr(self.parameters, name, combo.itemData(index))

        return chosen

    # --- the analysis ---
    def detect(self) -> None:
        self.start(self.parameters.inputVolume)

    def start(self, node: Any) -> None:
        """Analyse a volume with what is chosen in the panel."""
        chosen = self.parameters
        if self.session.connected and not chosen.method:
            raise ModuleError(_("The server has no detector yet: train one first."))
        if self.session.connected and not chosen.version:
            raise ModuleError(self.ui.versionLabel.text)  # none suits, and why
        request = Request(chosen.method, chosen.version, chosen.plane)
        self._phase = _("Starting")
        self._job = self.module.analysis.detect(
            node,
            request,
            self._done,
            self._failed,
            self._progress,
            self._cancelled,
            component=chosen.component,
            time_point=chosen.timePoint,
        )
        self.say("")
        self.module.update()

    def cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._phase = _("Cancelling")
            self.tick()

    def _progress(self, phase: str, done: int, total: int) -> None:
        self._phase = phase
        self.ui.detectProgressBar.maximum = 100 if total else 0  # 0 and 0: busy, and nobody knows for how long
        self.ui.detectProgressBar.value = 100 * done // total if total else 0
        self.tick()

    def tick(self) -> None:
        if self._job is not None:
            words = _("{phase}, {seconds} s")
            self.ui.detectLabel.text = words.format(phase=self._phase, seconds=round(self._job.seconds))

    def _over(self, text: str, shown: int = 0) -> None:
        self._job = None
        self.ui.detectProgressBar.maximum = 100
        self.ui.detectProgressBar.value = shown
        self.ui.detectLabel.text = text

    def _done(self, result: Result) -> None:
        self.session.jobs.post(lambda: self._show(result))  # a turn of the event loop later, to block it only briefly

    def _show(self, result: Result) -> None:
        if result.node.GetScene() is None:
            return  # the scene was closed in the meantime
        seconds = self._job.seconds if self._job else 0.0
        cached = result.about.get("cached")
        words = _("Done in {seconds} s, from the server's memory.") if cached else _("Done in {seconds} s.")
        self._over(words.format(seconds=f"{seconds:.1f}"), 100)
        self.module.results.show_new(result)
        self.module.update()

    def _failed(self, sentence: str) -> None:
        self._over("")
        self.fail(sentence)
        self.module.update()
        if self.session.connected:  # a version may be gone: offer what is there now
            self.session.refresh(self.module.update, lambda _sentence: None)

    def _cancelled(self) -> None:
        self._over(_("Cancelled."))
        self.module.update()

    # --- what can be chosen ---
    def update(self) -> None:
        self._update_volume()
        parameters, session = self.parameters, self.session
        if session.connected:
            method = fill_combo(self.ui.methodComboBox, [(name, name) for name in session.methods], parameters.method)
            self._set("method", method)
            self._update_intensity(session.of_method(method))
            self._update_versions(method)
        busy = self._job is not None
        self.ui.detectButton.enabled = session.connected and parameters.inputVolume is not None and not busy
        self.ui.detectButton.toolTip = (
            _("Analyse the volume: the anomaly map appears over it in all slice views.")
            if session.connected
            else _("Connect to a server first.")
        )
        self.ui.cancelButton.enabled = busy

    def _set(self, name: str, value: Any) -> None:
        if getattr(self.parameters, name) != value:
            setattr(self.parameters, name, value)

    def _update_volume(self) -> None:
        node = self.parameters.inputVolume
        in_sequence = volumes.time_points(node)
        for spin, count in (
            (self.ui.componentSpinBox, volumes.components(node)),
            (self.ui.timePointSpinBox, in_sequence),
        ):
            spin.maximum = max(0, count - 1)
            spin.enabled = count > 1

    def _update_intensity(self, versions: list[dict]) -> None:
        presets = sorted({version.get("intensity") or "" for version in versions} - {""})
        entries = [(_("auto (by modality)"), AUTO), (_("any"), ANY), *((preset, preset) for preset in presets)]
        self._set("intensity", fill_combo(self.ui.intensityComboBox, entries, self.parameters.intensity))
        if self.parameters.intensity != AUTO:
            self.ui.intensityLabel.text = ""
            return
        modality = volumes.modality(self.parameters.inputVolume)
        preset = preset_of(modality)
        self.ui.intensityLabel.text = (
            _("auto: the volume is {modality}, so {preset}.").format(modality=modality, preset=preset)
            if preset
            else _("auto: the volume's modality is not known, so any.")
        )

    def _update_versions(self, method: str) -> None:
        wanted = self.parameters.intensity
        if wanted == AUTO:
            wanted = preset_of(volumes.modality(self.parameters.inputVolume)) or ANY
        current = self.session.current(method)
        offered = [
            version for version in self.session.of_method(method) if suits(version.get("intensity") or "", wanted)
        ]
        entries = version_entries(offered, current)
        entries.sort(key=lambda entry: entry[1] != current)  # the one that serves first, then newest first
        self._set("version", fill_combo(self.ui.versionComboBox, entries, self.parameters.version))
        version = self.session.version(method, self.parameters.version) if offered else {}
        if not offered:
            words = _("No detector was trained for {intensity}: train one, or choose any.")
            self.ui.versionLabel.text = words.format(intensity=family(wanted))
            return
        about = [
            _("trained on {plane} slices").format(plane=version.get("plane")),
            _("intensity {preset}").format(preset=version.get("intensity")),
        ]
        if version.get("encoder"):
            about.append(_("encoder {name}").format(name=version["encoder"]))
        if version.get("created"):
            about.append(str(version["created"])[:16].replace("T", " "))
        self.ui.versionLabel.text = ", ".join(about) + "."
