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
        if message.text and "#c62828" in message.styleSheet:
            raise RuntimeError(f"{what}: {message.text}")
        return False

    def layout(self, number: int) -> None:
        import slicer

        manager = slicer.app.layoutManager()
        manager.setLayout(number)
        self.app.processEvents()
        manager.resetSliceViews()
        if self.widget.results.result is not None:
            self.widget.results.next_peak()


def take(reader: Reader) -> None:
    """Take all pictures, in the order of a reader's work."""
    import slicer
    from harness import user

    ui, layouts = reader.ui, slicer.vtkMRMLLayoutNode
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
    reader.grab("plot")

    user.click(ui.show3DCheckBox, (8, ui.show3DCheckBox.height // 2))
    reader.layout(layouts.SlicerLayoutFourUpView)
    slicer.app.layoutManager().threeDWidget(0).threeDView().resetFocalPoint()
    reader.grab("overview")
    reader.grab_section("results", ui.resultsCollapsibleButton)

    reader.only(ui.reviewCollapsibleButton)
    user.click(ui.makeSegmentationButton)
    reader.until(lambda: ui.sendLabelButton.enabled, "segmentation")
    user.click(ui.markAbnormalButton)
    user.click(ui.sendLabelButton)
    reader.until(lambda: ui.historyTable.rowCount >= 2 and not reader.widget.logic.session.jobs.active(), "submit")
    reader.grab("review")

    reader.only(ui.trainingCollapsibleButton)
    form = reader.widget.training.form
    for name, value in (("shots", 8), ("epochs", 4)):  # as little as draws a curve
        form.widget(name).value = value
    user.click(ui.trainButton)
    reader.until(lambda: ui.verdictLabel.text, "training", 600)
    user.click(ui.lossButton)
    reader.grab("training")
    reader.only(ui.helpCollapsibleButton)
    reader.grab_section("help", ui.helpCollapsibleButton)


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
