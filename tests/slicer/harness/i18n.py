"""`slicer.i18n` as Slicer has it: Qt's translators are asked, in the context that the caller's file names."""

from __future__ import annotations

import inspect
from pathlib import Path

from PySide6.QtCore import QCoreApplication


def translate(context: str, text: str) -> str:
    return QCoreApplication.translate(context, text)


def tr(text: str) -> str:
    return translate(getContext(inspect.currentframe().f_back.f_code.co_filename), text)


def getContext(sourceFile: str) -> str:
    """The file without its suffix, after its package if it is in one."""
    file = Path(sourceFile)
    return f"{file.parent.name}.{file.stem}" if file.with_name("__init__.py").is_file() else file.stem
