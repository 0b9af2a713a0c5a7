"""Connection: address, token, local server, and unsent labels and marks."""

from __future__ import annotations

import os
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.localserver import LocalServer, find_executable
from MedCLIPADLib.panels.base import Panel

DEFAULT_URL = "http://127.0.0.1:8000"


class ConnectionPanel(Panel):
    """The section Connection.

    Attributes
    ----------
    local : LocalServer
        The server on this computer.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.local = LocalServer(self._local_ready, self.ui.serverLogTextEdit.appendPlainText, self._local_stopped)
        self.on_click(self.ui.connectButton, self.toggle)
        self.on_click(self.ui.testButton, self.test)
        self.on_click(self.ui.sendUnsentButton, self.send)
        self.on_click(self.ui.startServerButton, self.start_local)
        self.on_click(self.ui.stopServerButton, self.local.stop)
        self.on_click(self.ui.browseExecutableButton, self.browse_executable)
        self.on_click(self.ui.browseStudiesButton, self.browse_studies)
        self._restore()

    # --- settings ---
    def _restore(self) -> None:
        settings = self.module.settings
        self.ui.urlLineEdit.text = settings.get("url", DEFAULT_URL)
        self.ui.tokenLineEdit.text = settings.get("token", "")
        self.ui.rememberTokenCheckBox.checked = bool(settings.get("token", ""))
        self.ui.studiesLineEdit.text = settings.get("studies", "")
        self.ui.executableLineEdit.text = find_executable(settings.get("executable", "")) or ""

    def _remember(self) -> None:
        settings = self.module.settings
        settings.put("url", self.ui.urlLineEdit.text)
        settings.put("token", self.ui.tokenLineEdit.text if self.ui.rememberTokenCheckBox.checked else "")

    # --- connection ---
    def toggle(self) -> None:
        """Connect, or disconnect."""
        if self.session.connected:
            self.session.disconnect()
            self.ui.connectionLabel.text = _("Not connected.")
            self.module.update()
        else:
            self.connect()

    def connect(self) -> None:
        """Connect to the server at the address."""
        self._remember()
        self._busy(_("Connecting..."))
        self.session.connect(self.ui.urlLineEdit.text, self.ui.tokenLineEdit.text, self._connected, self._refused)

    def _connected(self) -> None:
        about = self.session.info["medclipad"]
        sentence = _("Connected to {url} (MedCLIPAD {version}).")
        self._idle(sentence.format(url=self.session.url, version=about.get("version", "")))
        self.module.say("")
        self.module.update()
        self.module.training.follow()
        if self.session.pending.items():
            self.say(_("Some labels or marks have not been sent yet: press Send now, under Connection."))

    def test(self) -> None:
        """Find out what runs at the address."""
        self._busy(_("Contacting the server..."))
        self.session.test(self.ui.urlLineEdit.text, self.ui.tokenLineEdit.text, self._idle, self._refused)

    def _refused(self, sentence: str) -> None:
        self._idle(sentence)
        self.fail(sentence)
        self.module.update()

    def _busy(self, text: str) -> None:
        self.ui.connectionLabel.text = text
        self.ui.connectButton.enabled = self.ui.testButton.enabled = False

    def _idle(self, text: str) -> None:
        self.ui.connectionLabel.text = text
        self.ui.connectButton.enabled = self.ui.testButton.enabled = True

    def send(self) -> None:
        """Send the unsent labels and marks."""
        self.module.labelling.send_pending(self._sent, self.fail_and_update)

    def _sent(self, count: int) -> None:
        self.say(_("Labels and marks sent: {count}.").format(count=count))
        self.module.update()

    # --- a server on this computer ---
    def start_local(self) -> None:
        """Start a server on this computer."""
        executable, studies = self.ui.executableLineEdit.text.strip(), self.ui.studiesLineEdit.text.strip()
        found = find_executable(executable)
        if not found or (executable and found != executable and not os.path.isfile(executable)):
            raise ModuleError(_("The medclipad program was not found: install MedCLIPAD, or choose the program."))
        if not os.path.isdir(studies):
            raise ModuleError(_("Choose a studies folder first."))
        self.ui.executableLineEdit.text = found
        self.module.settings.put("executable", found)
        self.module.settings.put("studies", studies)
        self.ui.serverLogTextEdit.clear()
        self.local.start(found, studies)
        self.ui.connectionLabel.text = _("Starting the server on this computer...")
        self.update()

    def _local_ready(self, url: str) -> None:
        self.ui.urlLineEdit.text = url
        self.guarded(self.connect)

    def _local_stopped(self, sentence: str) -> None:
        if sentence:
            self.fail(sentence)
        else:
            self.say(_("The local server has stopped."))
        if self.session.connected and self.session.url == self.ui.urlLineEdit.text:
            self.session.disconnect()
        self._idle(sentence or _("Not connected."))
        self.module.update()

    def browse_executable(self) -> None:
        """Let the reader choose the medclipad program."""
        chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Choose the medclipad program"))
        chosen = chosen[0] if isinstance(chosen, tuple) else chosen
        if chosen:
            self.ui.executableLineEdit.text = chosen
            self.module.settings.put("executable", chosen)

    def browse_studies(self) -> None:
        """Let the reader choose the studies folder."""
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Choose the studies folder"))
        if chosen:
            self.ui.studiesLineEdit.text = chosen

    def update(self) -> None:
        """Show the state of the connection and the unsent items."""
        self.ui.connectButton.text = _("Disconnect") if self.session.connected else _("Connect")
        self.ui.startServerButton.enabled = not self.local.running
        self.ui.stopServerButton.enabled = self.local.running
        unsent = self.session.pending.items()
        items = ", ".join(item.title for item in unsent)
        self.ui.unsentLabel.text = _("Not sent yet: {items}").format(items=items) if unsent else ""
        self.ui.unsentLabel.visible = self.ui.sendUnsentButton.visible = bool(unsent)
        self.ui.sendUnsentButton.enabled = self.session.connected
