"""Who may use the server, how often, and how much may be sent to it."""

from __future__ import annotations

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of the address that only this machine reaches."""
