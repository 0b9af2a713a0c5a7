"""Message boxes and file dialogs: recorded for the test and answered from a queue, without waiting."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from PySide6.QtWidgets import QFileDialog, QMessageBox

_DIALOGS = ("getOpenFileName", "getSaveFileName", "getExistingDirectory", "getOpenFileNames")
_BOXES = ("information", "question", "warning", "critical")


def install(app: Any) -> None:
    """`app.messages` gets each text, `app.answers` gives each answer (first in, first out).

    Without an answer a box is answered by its first affirmative button; a file dialog without an answer is an error.
    """

    def answer(text: str, default: Any) -> Any:
        app.messages.append(text)
        return app.answers.pop(0) if app.answers else default

    def box(text: str, parent: Any = None, **options: Any) -> Any:
        buttons = options.get("standardButtons", QMessageBox.StandardButton.Ok)
        affirmative = (QMessageBox.StandardButton.Ok, QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.Retry)
        return answer(text, next(button for button in affirmative if buttons & button))

    slicer.util.messageBox = box
    qt.QMessageBox.exec = lambda self: answer(self.text, QMessageBox.StandardButton.Ok)
    for name in _BOXES:
        default = QMessageBox.StandardButton.Yes if name == "question" else QMessageBox.StandardButton.Ok
        static = staticmethod(lambda parent, title, text, *more, _default=default: answer(text, _default))
        setattr(qt.QMessageBox, name, static)
    for name in _DIALOGS:

        def dialog(parent: Any = None, caption: str = "", *more: Any, _name: str = name) -> Any:
            if not app.answers:
                raise AssertionError(f"QFileDialog.{_name}({caption!r}) was opened, and the test has no answer for it")
            return answer(caption, None)

        setattr(QFileDialog, name, staticmethod(dialog))
