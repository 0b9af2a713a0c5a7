"""Colours of errors and cautions that can be read on a light and on a dark background."""

from __future__ import annotations

from typing import Any

import qt

ERROR = ("#b3261e", "#ff9d94")  # on a light, on a dark background
CAUTION = ("#8a5000", "#ffb951")


def style(widget: Any, tone: tuple[str, str]) -> str:
    """Return a style sheet with the colour of a tone for a widget's background."""
    # Not the widget's own palette: with a style sheet, a widget keeps the one of before a change of theme.
    background = widget.parentWidget().palette.color(qt.QPalette.Window)
    return f"color: {tone[background.lightness() < 128]};"
