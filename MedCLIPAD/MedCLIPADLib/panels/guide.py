"""The guide at the top: the next step to the first map, with a button that does it."""

from __future__ import annotations

from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.localserver import find_executable
from MedCLIPADLib.panels.base import Panel


class GuidePanel(Panel):
    """One sentence and one button; both are hidden once there is a map."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._step: Callable[[], Any] | None = None
        self.on_click(self.ui.guideButton, self.next)

    def next(self) -> None:
        """Do the step that the button names."""
        if self._step is not None:
            self._step()

    def update(self) -> None:
        """Show the next step."""
        sentence, title, self._step = self._next_step()
        ui = self.ui
        ui.guideLabel.text, ui.guideButton.text = sentence, title
        ui.guideLabel.visible, ui.guideButton.visible = bool(sentence), bool(title)

    def _next_step(self) -> tuple[str, str, Callable[[], Any] | None]:
        """Return the sentence, the title of the button, and what it does."""
        module = self.module
        connection = module.connection
        if self.result is not None:
            return "", "", None
        if self.parameters.inputVolume is None:
            return _("Step 1 of 3: load a volume, or try the sample."), _("Load the sample"), module.help.load
        if connection.installer.running:
            return _("Step 2 of 3: the server is being installed; see its log under Connection."), "", None
        if connection.local.running and not self.session.connected:
            return _("Step 2 of 3: the server is starting; see its log under Connection."), "", None
        if not self.session.connected:
            if find_executable(self.ui.executableLineEdit.text, connection.installer.folder):
                words = _("Step 2 of 3: connect to a server under Connection, or start one on this computer.")
                return words, _("Start a server here"), connection.start_here
            words = _("Step 2 of 3: connect to a server under Connection, or install one on this computer.")
            return words, _("Install a server here"), connection.install
        if module.detect.running:
            return "", "", None
        return _("Step 3 of 3: analyse the volume."), _("Detect"), module.detect.detect
