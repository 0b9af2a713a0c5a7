"""Progress callback of everything that takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int, dict[str, Any]], None]
"""Called as progress(phase, done, total, info); an exception raised in it stops the work.

`phase` names the step, `done` of `total` units of it are finished, `info` holds further values to show, such as a loss.
"""


def no_progress(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
    """No-op progress callback."""
