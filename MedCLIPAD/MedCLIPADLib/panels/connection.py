"""Connection: address, token, server on this computer, and unsent labels and marks."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import qt
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib import addresses
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.installer import Installer
from MedCLIPADLib.localserver import LocalServer, find_executable
from MedCLIPADLib.panels.base import Panel, chosen_path, say_why
from MedCLIPADLib.pending import Item
from MedCLIPADLib.tones import ERROR, style


class ConnectionPanel(Panel):
    """The section Connection.

    Attributes
    ----------
    local : LocalServer
        The server on this computer.
    installer : Installer
        Its installation.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        ui = self.ui
        ui.urlLineEdit = ui.urlComboBox.lineEdit()
        log = ui.serverLogTextEdit.appendPlainText
        self.local = LocalServer(self._local_ready, log, self._local_stopped)
        self.installer = Installer(module.settings.folder / "server", log, self._installed)
        self._busy = ""  # what the buttons wait for
        for button, action in (
            (ui.connectButton, self.toggle),
            (ui.testButton, self.test),
            (ui.sendUnsentButton, self.send),
            (ui.startServerButton, self.start_local),
            (ui.stopServerButton, self.local.stop),
            (ui.installServerButton, self.install),
            (ui.cancelInstallButton, self.installer.cancel),
            (ui.removeServerButton, self.remove_installed),
            (ui.browseExecutableButton, self.browse_executable),
            (ui.browseStudiesButton, self.browse_studies),
            (ui.browseCaFileButton, self.browse_ca_file),
        ):
            self.on_click(button, action)
        self._restore()

    # --- settings ---
    def _restore(self) -> None:
        settings, ui = self.module.settings, self.ui
        self._fill_addresses()
        ui.tokenLineEdit.text = settings.get("token", "")
        ui.rememberTokenCheckBox.checked = bool(settings.get("token", ""))
        ui.caFileLineEdit.text = settings.get("caFile", "")
        ui.studiesLineEdit.text = settings.get("studies", "")
        ui.executableLineEdit.text = find_executable(settings.get("executable", ""), self.installer.folder) or ""

    def _fill_addresses(self) -> None:
        combo = self.ui.urlComboBox
        combo.clear()
        combo.addItems(addresses.history(self.module.settings))

    def _remember(self) -> None:
        settings, ui = self.module.settings, self.ui
        settings.put("url", ui.urlLineEdit.text)
        settings.put("token", ui.tokenLineEdit.text if ui.rememberTokenCheckBox.checked else "")
        settings.put("caFile", ui.caFileLineEdit.text)

    # --- connection ---
    def toggle(self) -> None:
        """Connect, or disconnect."""
        if self.session.connected:
            self.session.disconnect()
            self._idle(_("Not connected."))
        else:
            self.connect()

    def connect(self) -> None:
        """Connect to the server at the address."""
        self._remember()
        ui = self.ui
        self.session.connect(
            ui.urlLineEdit.text, ui.tokenLineEdit.text, self._connected, self._refused, ui.caFileLineEdit.text
        )
        self._wait(_("Connecting..."))

    def _connected(self) -> None:
        about = self.session.info["medclipad"]
        addresses.remember(self.module.settings, self.session.url)
        self._fill_addresses()
        sentence = _("Connected to {url} (MedCLIPAD {version}).")
        self.say("")
        self._idle(sentence.format(url=self.session.url, version=about.get("version", "")))
        self.module.training.follow()
        if any(item.server == self.session.url for item in self.session.pending.items()):
            self.say(_("Some labels or marks have not been sent yet: press Send now, under Connection."))

    def test(self) -> None:
        """Find out what runs at the address; the answer is shown below the button."""
        self._wait(_("Contacting the server..."))
        ui = self.ui
        self.session.test(
            ui.urlLineEdit.text, ui.tokenLineEdit.text, self._idle, self._test_failed, ui.caFileLineEdit.text
        )

    def _test_failed(self, sentence: str) -> None:
        self._idle(sentence, bad=True)

    def _refused(self, sentence: str) -> None:
        self._idle(_("Not connected."))
        self.fail(sentence)

    def _wait(self, text: str) -> None:
        """Show what the connection waits for, and disable its buttons meanwhile."""
        self._busy = text
        self._show_state(text)
        self.module.update()

    def _idle(self, text: str, bad: bool = False) -> None:
        self._busy = ""
        self._show_state(text, bad)
        self.module.update()

    def _show_state(self, text: str, bad: bool = False) -> None:
        label = self.ui.connectionLabel
        label.text = text
        label.setStyleSheet(style(label, ERROR) if bad else "")

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
        found = find_executable(executable, self.installer.folder)
        if not found or (executable and found != executable and not os.path.isfile(executable)):
            raise ModuleError(_("The medclipad program was not found: press Install, or choose the program."))
        if not os.path.isdir(studies):
            raise ModuleError(_("Choose a studies folder first."))
        self.ui.executableLineEdit.text, self.ui.studiesLineEdit.text = found, studies
        settings = self.module.settings
        settings.put("executable", found)
        settings.put("studies", studies)
        self.ui.serverLogTextEdit.clear()
        self.local.start(found, studies, int(settings.get("localPort", "0")))
        self._wait(_("Starting the server on this computer..."))

    def start_here(self) -> None:
        """Start a server on this computer, with the studies folder of the last time or one beside Slicer's settings."""
        if not self.ui.studiesLineEdit.text.strip():
            studies = self.module.settings.folder / "studies"
            studies.mkdir(parents=True, exist_ok=True)
            self.ui.studiesLineEdit.text = str(studies)
        self.ui.localServerGroupBox.collapsed = False
        self.start_local()

    def _local_ready(self, url: str) -> None:
        self.ui.urlLineEdit.text = url
        self.module.settings.put("localPort", str(urlsplit(url).port or 0))
        self.guarded(self.connect)

    def _local_stopped(self, sentence: str) -> None:
        if sentence:
            self.fail(sentence)
        else:
            self.say(_("The local server has stopped."))
        if self.session.connected and self.session.url == self.ui.urlLineEdit.text:
            self.session.disconnect()
        self._idle(_("Not connected."))

    def install(self) -> None:
        """Install the server, if the reader agrees."""
        question = _(
            "Install the MedCLIPAD server into the folder {folder}? This downloads about 3 GB from the Python package "
            "index and takes several minutes. Slicer's own Python is not changed."
        ).format(folder=self.installer.folder)
        if slicer.util.confirmYesNoDisplay(question, parent=slicer.util.mainWindow()):
            self.ui.serverLogTextEdit.clear()
            self.ui.localServerGroupBox.collapsed = False
            self.installer.start()
            self._show_state(_("Installing the server..."))
            self.module.update()

    def _installed(self, sentence: str) -> None:
        self._idle(_("Not connected."))
        if sentence:
            self.fail(sentence)
        elif self.installer.installed:
            self.ui.executableLineEdit.text = find_executable("", self.installer.folder) or ""
            self.guarded(self.start_here)
        else:
            self.say(_("The installation was cancelled."))

    def remove_installed(self) -> None:
        """Remove the installed server, if the reader agrees."""
        question = _("Remove the MedCLIPAD server from the folder {folder}?").format(folder=self.installer.folder)
        if slicer.util.confirmYesNoDisplay(question, parent=slicer.util.mainWindow()):
            self.local.stop_now()
            self.installer.remove()
            self.ui.executableLineEdit.text = find_executable() or ""
            self.say(_("The server was removed. Studies, labels and detectors are still there."))
            self.module.update()

    # --- files and folders ---
    def browse_executable(self) -> None:
        """Let the reader choose the medclipad program."""
        chosen = self._choose_file(_("Choose the medclipad program"))
        if chosen:
            self.ui.executableLineEdit.text = chosen
            self.module.settings.put("executable", chosen)

    def browse_ca_file(self) -> None:
        """Let the reader choose the file with the CA certificate."""
        chosen = self._choose_file(_("Choose the CA certificate"))
        if chosen:
            self.ui.caFileLineEdit.text = chosen

    def _choose_file(self, title: str) -> str:
        return chosen_path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title))

    def browse_studies(self) -> None:
        """Let the reader choose the studies folder."""
        self.ui.studiesLineEdit.text = self._choose_studies() or self.ui.studiesLineEdit.text

    def _choose_studies(self) -> str:
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Choose the studies folder")) or ""

    # --- display ---
    def forget(self) -> None:
        """Forget the state of a connection that was left."""
        self._busy = ""

    def update(self) -> None:
        """Show the state of the connection and the unsent items."""
        ui, connected = self.ui, self.session.connected
        ui.connectButton.text = _("Disconnect") if connected else _("Connect")
        for button in (ui.connectButton, ui.testButton):
            say_why(button, self._busy)
        self._update_local()
        unsent = self.session.pending.items()
        items = ", ".join(self._in_words(item) for item in unsent)
        ui.unsentLabel.text = _("Not sent yet: {items}").format(items=items) if unsent else ""
        ui.unsentLabel.visible = ui.sendUnsentButton.visible = bool(unsent)
        say_why(ui.sendUnsentButton, "" if connected else _("Connect to the server first."))

    def _update_local(self) -> None:
        ui, installing = self.ui, self.installer.running
        here = installing and _("The server is being installed.")
        running = self.local.running and _("The server is running: press Stop first.")
        say_why(ui.startServerButton, here or running or "")
        say_why(ui.stopServerButton, "" if self.local.running else _("No server was started here."))
        say_why(ui.installServerButton, here or running or (self.installer.installed and _("It is installed.")) or "")
        say_why(ui.cancelInstallButton, "" if installing else _("Nothing is being installed."))
        removable = self.installer.installed and not installing
        say_why(ui.removeServerButton, "" if removable else _("No server was installed here."))

    def _in_words(self, item: Item) -> str:
        """Return an unsent item in words, with its server if that is another one."""
        words = _("{item} (for {server})")
        return item.title if item.server == self.session.url else words.format(item=item.title, server=item.server)
