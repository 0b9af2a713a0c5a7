"""Keys: while the module is shown, and in the plot."""

from __future__ import annotations

from typing import Any, Callable

import qt
import slicer


class Keys:
    """N, A, U, S mark; [ and ] go to suspicious slices; arrows in a plot view go from slice to slice."""

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
        self._shortcuts = [self._made(window, key, action) for key, action in actions.items()] if window else []
        self._of_plots: list[Any] = []
        self.enable(False)

    def _made(self, parent: Any, key: Any, action: Callable[[], None], only_there: bool = False) -> Any:
        shortcut = qt.QShortcut(parent)
        shortcut.setKey(qt.QKeySequence(key))
        if only_there:
            shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        shortcut.connect("activated()", lambda: self._module.results.guarded(action))
        return shortcut

    def enable(self, on: bool) -> None:
        """Of the keys that work in the whole window: only while the module is shown."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(on)

    def on_plot(self, widget: Any) -> None:
        """Arrow keys in a plot view; they disturb nobody there, so they always work."""
        results = self._module.results
        for key, action in (
            (qt.Qt.Key_Left, lambda: results.step(-1)),
            (qt.Qt.Key_Right, lambda: results.step(1)),
            (qt.Qt.Key_Up, results.next_peak),
            (qt.Qt.Key_Down, results.previous_peak),
        ):
            self._of_plots.append(self._made(widget, key, action, only_there=True))

    def remove(self) -> None:
        """When the module is reloaded: of two shortcuts with one key Qt activates neither."""
        for shortcut in [*self._shortcuts, *self._of_plots]:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts, self._of_plots = [], []
