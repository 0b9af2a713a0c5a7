"""The addresses of servers that the reader connected to, newest first, in Slicer's settings."""

from __future__ import annotations

import json

from MedCLIPADLib.settings import Settings

DEFAULT = "http://127.0.0.1:8000"
_KEPT = 8  # addresses
_SETTING = "addresses"


def history(settings: Settings) -> list[str]:
    """Return the addresses, newest first; the default one if there are none."""
    try:
        stored = json.loads(settings.get(_SETTING, "[]"))
    except ValueError:
        stored = []
    found = [address for address in stored if isinstance(address, str) and address] if isinstance(stored, list) else []
    return found or [settings.get("url", DEFAULT)]


def remember(settings: Settings, address: str) -> None:
    """Put an address first."""
    older = [known for known in history(settings) if known != address]
    settings.put(_SETTING, json.dumps([address, *older][:_KEPT]))
