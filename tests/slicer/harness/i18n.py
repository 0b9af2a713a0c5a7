"""`slicer.i18n`: asks Qt's translators, in the context that is named after the caller's file."""

from __future__ import annotations

import inspect
from pathlib import Path

from PySide6.QtCore import QCoreApplication


def translate(context: str, text: str) -> str:
    return QCoreApplication.translate(context, text)


def tr(text: str) -> str:
    return translate(getContext(inspect.currentframe().f_back.f_code.co_filename), text)


def getContext(sourceFile: str) -> str:
    """Return the name of a file without its suffix, after the name of its package if it has one."""
    file = Path(sourceFile)
    return f"{file.parent.name}.{file.stem}" if file.with_name("__init__.py").is_file() else file.stem
