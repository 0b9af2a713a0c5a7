"""Keyboard shortcuts of the module and of the plot views."""

from __future__ import annotations

from typing import Any, Callable

import qt
import slicer


class Keys:
    """Keyboard shortcuts.

    While the module is shown, and only then. In the main window: N, A, X and M mark slices, comma and full stop go to
    suspicious slices. In a plot view: the arrow keys go from slice to slice and from peak to peak. Slicer's own views
    use none of them in these places.

    Parameters
    ----------
    module : MedCLIPADWidget
        The module's widget, with its panels.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        review, results = module.review, module.results
        window = slicer.util.mainWindow()
        actions = {
            "N": lambda: review.mark("normal"),
            "A": lambda: review.mark("abnormal"),
            "X": lambda: review.mark(None),
            "M": module.ui.rangeButton.toggle,
            ",": results.previous_peak,
            ".": results.next_peak,
        }
        self._shortcuts = [self._shortcut(window, key, action) for key, action in actions.items()] if window else []
        self._plot_shortcuts: list[Any] = []
        self._on = False
        self.enable(False)

    def _shortcut(self, parent: Any, key: Any, action: Callable[[], None], in_parent_only: bool = False) -> Any:
        """Return a new shortcut of a widget."""
        shortcut = qt.QShortcut(parent)
        shortcut.setKey(qt.QKeySequence(key))
        if in_parent_only:
            shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        shortcut.connect("activated()", lambda: self._module.results.guarded(action))
        return shortcut

    @property
    def shortcuts(self) -> list[Any]:
        """All shortcuts."""
        return [*self._shortcuts, *self._plot_shortcuts]

    def enable(self, on: bool) -> None:
        """Enable or disable all shortcuts."""
        self._on = on
        for shortcut in self.shortcuts:
            shortcut.setEnabled(on)

    def add_to_plot(self, widget: Any) -> None:
        """Add the arrow keys to a plot view, which has no use for them itself."""
        results = self._module.results
        for key, action in (
            (qt.Qt.Key_Left, lambda: results.step(-1)),
            (qt.Qt.Key_Right, lambda: results.step(1)),
            (qt.Qt.Key_Up, results.next_peak),
            (qt.Qt.Key_Down, results.previous_peak),
        ):
            shortcut = self._shortcut(widget, key, action, in_parent_only=True)
            shortcut.setEnabled(self._on)
            self._plot_shortcuts.append(shortcut)

    def remove(self) -> None:
        """Remove all shortcuts, as a reload requires.

        Qt activates neither of two shortcuts with the same key.
        """
        for shortcut in self.shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts, self._plot_shortcuts = [], []
