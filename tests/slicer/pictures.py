"""Pictures of the module for the docs: `python -m tests.slicer.pictures [FOLDER]`, by default into docs/images.

The panel is used as a reader would, with clicks, against a real server with the sample study; what is grabbed is what
the harness's window shows. It is not the Slicer application: frames, fonts and view bars differ there.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "server")]

CASE = "bright-mass"
SIZE = (1500, 960)  # of the window, pixels
LAPTOP = (1366, 768)
NARROW = 300  # pixels, the least width that Slicer gives a panel


class Reader:
    """A reader who uses the panel and takes pictures."""

    def __init__(self, url: str, folder: Path) -> None:
        import harness
        import slicer

        self.folder, self.url = folder, url
        self.app = harness.start()
        _, self.widget = harness.load(ROOT / "MedCLIPAD" / "MedCLIPAD.py")
        self.ui = self.widget.ui
        self.window = slicer.util.mainWindow()
        self.window.resize(*SIZE)
        self.window.show()

    def grab(self, name: str, widget: Any = None) -> None:
        """Write the window, or a widget, to slicer-NAME.png."""
        self.app.processEvents()
        path = self.folder / f"slicer-{name}.png"
        if not (widget or self.window).grab().save(str(path)):
            raise OSError(f"cannot write {path}")
        print(f"{path.name}: {path.stat().st_size // 1024} KB")

    def grab_section(self, name: str, section: Any) -> None:
        """Write a section of the panel in full, however long it is."""
        section.collapsed = False
        self.app.processEvents()
        section.window().panel().ensureWidgetVisible(section)
        self.app.processEvents()
        self.grab(name, section)

    def narrow(self, on: bool) -> None:
        """Give the panel the least width that Slicer gives one, or any again."""
        panel = self.widget.parent
        panel.setMinimumWidth(NARROW if on else 0)
        panel.setMaximumWidth(NARROW if on else 16777215)  # Qt's largest

    def only(self, *sections: Any) -> None:
        """Collapse all sections of the panel but these."""
        for button in self.widget.parent.findChildren("ctkCollapsibleButton"):
            button.collapsed = button not in sections
        self.app.processEvents()
        self.window.panel().verticalScrollBar().value = 0

    def until(self, condition: Any, what: str, seconds: float = 300) -> None:
        from harness import user

        user.wait_until(lambda: condition() or self._complaint(what), seconds, what)

    def _complaint(self, what: str) -> bool:
        message = self.ui.messageLabel
        if message.text and "color" in message.styleSheet:
            raise RuntimeError(f"{what}: {message.text}")
        return False

    @property
    def states(self) -> _States:
        """Pictures of the panel's states, to look at before a release; the docs show the others."""
        return _States(self)

    def layout(self, number: int) -> None:
        import slicer

        manager = slicer.app.layoutManager()
        manager.setLayout(number)
        self.app.processEvents()
        manager.resetSliceViews()
        if self.widget.results.result is not None:
            self.widget.results.next_peak()


class _States:
    """Takes pictures of the states of the panel alone."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def grab(self, name: str, window: bool = False) -> None:
        """Write the panel, in full length, or the window."""
        reader = self._reader
        for _turn in range(3):  # words that wrap need more than one to find their height
            reader.app.processEvents()
        folder = reader.folder / "slicer-states"
        folder.mkdir(exist_ok=True)
        widget = reader.window if window else reader.widget.parent
        path = folder / f"{name}.png"
        if not widget.grab().save(str(path)):
            raise OSError(f"cannot write {path}")
        print(f"states/{path.name}: {path.stat().st_size // 1024} KB")


def take_states_before_connecting(reader: Reader) -> None:
    """First start; one error of each kind of place; narrow, small, dark; long texts."""
    import qt
    from harness import user

    ui, states, window = reader.ui, reader.states, reader.window
    states.grab("first-start")
    user.click(ui.guideButton)
    states.grab("sample-loaded", window=True)
    for name, url in (("no-server", "http://127.0.0.1:9"), ("no-address", "nonsense")):
        user.write(ui.urlLineEdit, url)
        user.click(ui.connectButton)
        user.wait_until(lambda: ui.connectButton.enabled, 30)
        states.grab(f"error-{name}")
    user.click(ui.testButton)
    user.wait_until(lambda: ui.testButton.enabled, 30)
    states.grab("error-test-connection")
    plain = reader.app.palette()
    dark = qt.QPalette(plain)
    for role, colour in (
        (qt.QPalette.Window, "#353535"),
        (qt.QPalette.Base, "#2a2a2a"),
        (qt.QPalette.Button, "#404040"),
        (qt.QPalette.WindowText, "#f0f0f0"),
        (qt.QPalette.Text, "#f0f0f0"),
        (qt.QPalette.ButtonText, "#f0f0f0"),
        (qt.QPalette.PlaceholderText, "#9a9a9a"),
    ):
        dark.setColor(role, qt.QColor(colour))
    for role in (qt.QPalette.WindowText, qt.QPalette.Text, qt.QPalette.ButtonText):
        dark.setColor(qt.QPalette.Disabled, role, qt.QColor("#7f7f7f"))
    window.setPalette(dark)
    user.click(ui.testButton)
    user.wait_until(lambda: ui.testButton.enabled, 30)
    states.grab("dark")
    window.setPalette(plain)
    user.click(ui.testButton)  # the error gets the colour of a light panel again
    user.wait_until(lambda: ui.testButton.enabled, 30)
    long = (
        "Verbindungszeitüberschreitung: Der Server http://radiologie-server.klinikum.example:8000 antwortet nicht "
        "innerhalb von 10 Sekunden; bitte Netzwerkverbindung und Firewalleinstellungen überprüfen."
    )
    reader.widget.say(long, bad=True)
    window.resize(*LAPTOP)
    states.grab("long-text-1366x768", window=True)
    reader.narrow(True)
    states.grab("narrow-300px")
    reader.narrow(False)
    window.resize(*SIZE)
    reader.widget.say("")


def take(reader: Reader) -> None:
    """Take all pictures, in the order of a reader's work."""
    import slicer
    from harness import user

    ui, layouts = reader.ui, slicer.vtkMRMLLayoutNode
    take_states_before_connecting(reader)
    user.write(ui.urlLineEdit, reader.url)
    user.click(ui.connectButton)
    reader.until(lambda: reader.widget.logic.session.connected, "connect")
    reader.grab_section("connection", ui.connectionCollapsibleButton)

    reader.only(ui.detectCollapsibleButton, ui.resultsCollapsibleButton)
    volume = slicer.util.loadVolume(ROOT / "sample_data" / "study" / "images" / f"{CASE}.nii.gz")
    user.choose(ui.inputSelector, volume.GetName())
    user.click(ui.detectButton)
    reader.until(lambda: 0 < ui.detectProgressBar.value < 100 and "Analysing" in ui.detectLabel.text, "progress")
    reader.grab_section("progress", ui.detectCollapsibleButton)
    reader.until(lambda: reader.widget.results.result is not None, "detect")
    reader.until(lambda: ui.regionsTable.rowCount > 0, "regions")
    user.click(ui.showPlotButton)
    reader.grab("plot")

    user.click(ui.show3DCheckBox, (8, ui.show3DCheckBox.height // 2))
    reader.until(lambda: not reader.widget.logic.session.jobs.active(), "3D")
    reader.layout(layouts.SlicerLayoutFourUpView)
    slicer.app.layoutManager().threeDWidget(0).threeDView().resetFocalPoint()
    reader.grab("overview")
    reader.grab_section("results", ui.resultsCollapsibleButton)
    reader.only(ui.resultsCollapsibleButton, ui.reviewCollapsibleButton)
    reader.narrow(True)
    reader.states.grab("results-300px")
    reader.narrow(False)

    reader.only(ui.reviewCollapsibleButton)
    user.click(ui.makeSegmentationButton)
    reader.until(lambda: ui.sendLabelButton.enabled, "segmentation")
    user.click(ui.markAbnormalButton)
    user.click(ui.sendLabelButton)
    reader.until(lambda: ui.historyTable.rowCount >= 2 and not reader.widget.logic.session.jobs.active(), "submit")
    reader.grab("review")

    take_states_after_loading(reader)
    reader.only(ui.trainingCollapsibleButton)
    form = reader.widget.training.form
    for name, value in (("shots", 8), ("epochs", 4), ("memory_share", 0.9)):  # as little as draws a curve
        form.widget(name).value = value
    user.click(ui.trainButton)
    reader.until(lambda: ui.trainProgressBar.value > 0, "training")
    reader.states.grab("training")
    reader.until(lambda: ui.verdictLabel.text, "training", 600)
    user.click(ui.lossButton)
    reader.grab("training")
    reader.only(ui.helpCollapsibleButton)
    reader.grab_section("help", ui.helpCollapsibleButton)


def take_states_after_loading(reader: Reader) -> None:
    """The scene, with two volumes, saved and loaded again."""
    import slicer

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "scene.mrb")
        slicer.util.saveScene(path)
        slicer.mrmlScene.Clear(0)
        reader.states.grab("scene-closed")
        slicer.util.loadScene(path)
    reader.until(lambda: reader.widget.results.result is not None, "load")
    reader.only(reader.ui.detectCollapsibleButton, reader.ui.resultsCollapsibleButton)
    reader.states.grab("after-load", window=True)


def main(folder: Path) -> None:
    """Start a server on a copy of the sample study, and take the pictures."""
    from live_server import Server

    study = ROOT / "sample_data" / "study" / "images"
    if not study.exists():
        raise SystemExit("There is no sample study yet: run  python -m sample_data.make_study")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        server = Server(Path(shutil.copytree(study, Path(temporary) / "studies")))
        try:
            take(Reader(server.url, folder))
        finally:
            server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
