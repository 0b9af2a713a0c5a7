"""Errors that a user is meant to read: each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import re


class MedCLIPADError(Exception):
    """Base of all errors with a message for the user; the command line prints it, the server answers 4xx with it.

    It is one line, whatever the names of files that it tells of hold.
    """

    def __str__(self) -> str:
        return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "?", super().__str__())


class VolumeError(MedCLIPADError):
    """A volume cannot be read, placed in space or written."""


class DetectorError(MedCLIPADError):
    """A detector cannot be loaded, saved, or used as asked."""


class TrainingError(MedCLIPADError):
    """The given shots or options cannot train a detector."""


class Cancelled(MedCLIPADError):
    """The caller asked a running detection or training to stop."""
