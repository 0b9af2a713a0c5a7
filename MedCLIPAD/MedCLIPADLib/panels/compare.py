"""Compare: two maps of the same volume, alternating or side by side."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from MedCLIPADLib import overlay
from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.panels.base import Panel
from MedCLIPADLib.results import Result

PERIOD = 500  # ms that each of two alternating maps is shown


class ComparePanel(Panel):
    """The group Compare of the section Results."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._second_shown = False
        self._before: overlay.Snapshot | None = None  # the views before the comparison
        self._timer = qt.QTimer()
        self._timer.setInterval(PERIOD)
        self._timer.connect("timeout()", self.flip)
        self.ui.flickerButton.connect(
            "toggled(bool)", lambda on: self._switch(self.ui.flickerButton, self._flicker, on)
        )
        self.ui.linkButton.connect("toggled(bool)", lambda on: self._switch(self.ui.linkButton, self._link, on))

    @property
    def active(self) -> bool:
        """Whether the views show a comparison, not the selected map alone."""
        return self.ui.flickerButton.checked or self.ui.linkButton.checked

    def pair(self) -> tuple[Result, Result]:
        """Return the two maps; ModuleError if they cannot be compared."""
        first, second = self.require_result(), Result.of(self.parameters.compare)
        if second is None or second.node is first.node:
            raise ModuleError(_("Choose another map to compare with."))
        if first.volume is None or second.volume is not first.volume:
            raise ModuleError(_("The two maps show different volumes: choose another map of the same volume."))
        return first, second

    def _switch(self, button: Any, action: Any, on: bool) -> None:
        """Switch a comparison on or off; release the button if that fails."""
        try:
            action(on)
        except ModuleError as error:
            button.checked = False
            self.fail(str(error))

    def _share_threshold(self, first: Result, second: Result) -> None:
        """Give both maps the same threshold; their colours mean the same anyway."""
        for result in (first, second):
            result.set_threshold(self.parameters.threshold)

    def _flicker(self, on: bool) -> None:
        if not on:
            self._timer.stop()
            if self._before is not None:
                self._before.restore_layers()
                self._before = None
            self.module.results.show_text()
            self.module.update()
            return
        pair = self.pair()
        self.ui.linkButton.checked = False
        self._share_threshold(*pair)
        self._before = overlay.Snapshot()
        self._second_shown = False
        self._timer.start()

    def flip(self) -> None:
        """Show the other of the two maps."""
        try:
            pair = self.pair()
        except ModuleError:
            self.stop()
            return
        self._second_shown = not self._second_shown
        shown = pair[self._second_shown]
        overlay.show(shown, self.parameters.opacity)
        self.ui.resultLabel.text = _("Showing {title}.").format(title=shown.title)

    def _link(self, on: bool) -> None:
        if not on:
            if self._before is not None:
                self._before.restore()
                self._before = None
            self.module.update()
            return
        first, second = self.pair()
        self.ui.flickerButton.checked = False
        self._before = overlay.Snapshot()
        self._share_threshold(first, second)
        overlay.side_by_side(first, second, self.parameters.opacity)

    def stop(self) -> None:
        """End the comparison and show the selected map alone."""
        self.ui.flickerButton.checked = False
        self.ui.linkButton.checked = False

    def update(self) -> None:
        """Show both maps with the current threshold and opacity."""
        if not self.active:
            return
        try:
            first, second = self.pair()
        except ModuleError:
            self.stop()
            return
        if abs(second.threshold - self.parameters.threshold) > 1e-9 or first.threshold != second.threshold:
            self._share_threshold(first, second)
        if self.ui.linkButton.checked:
            for result in (first, second):
                overlay.set_opacity(result, self.parameters.opacity)
