"""Keyboard shortcuts of the module and of the plot views."""

from __future__ import annotations

from typing import Any, Callable

import qt
import slicer


class Keys:
    """Keyboard shortcuts.

    In the main window, while the module is shown: N, A, U and S mark slices, [ and ] go to suspicious slices. In a plot
    view, always: the arrow keys go from slice to slice and from peak to peak.

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
            "U": lambda: review.mark(None),
            "S": module.ui.rangeButton.toggle,
            "[": results.previous_peak,
            "]": results.next_peak,
        }
        self._shortcuts = [self._shortcut(window, key, action) for key, action in actions.items()] if window else []
        self._plot_shortcuts: list[Any] = []
        self.enable(False)

    def _shortcut(self, parent: Any, key: Any, action: Callable[[], None], in_parent_only: bool = False) -> Any:
        """Return a new shortcut of a widget."""
        shortcut = qt.QShortcut(parent)
        shortcut.setKey(qt.QKeySequence(key))
        if in_parent_only:
            shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        shortcut.connect("activated()", lambda: self._module.results.guarded(action))
        return shortcut

    def enable(self, on: bool) -> None:
        """Enable or disable the shortcuts of the main window."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(on)

    def add_to_plot(self, widget: Any) -> None:
        """Add the arrow keys to a plot view.

        They conflict with nothing there, and so always work.
        """
        results = self._module.results
        for key, action in (
            (qt.Qt.Key_Left, lambda: results.step(-1)),
            (qt.Qt.Key_Right, lambda: results.step(1)),
            (qt.Qt.Key_Up, results.next_peak),
            (qt.Qt.Key_Down, results.previous_peak),
        ):
            self._plot_shortcuts.append(self._shortcut(widget, key, action, in_parent_only=True))

    def remove(self) -> None:
        """Remove all shortcuts, as a reload requires.

        Qt activates neither of two shortcuts with the same key.
        """
        for shortcut in [*self._shortcuts, *self._plot_shortcuts]:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts, self._plot_shortcuts = [], []
