"""Exceptions with a message for the user: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import re


class MedCLIPADError(Exception):
    """Base of all errors with a message for the user.

    The command line prints the message; the server answers 4xx with it. Control characters, as a file name may contain
    them, are replaced by question marks, so the message is always one line.
    """

    def __str__(self) -> str:
        return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "?", super().__str__())


class VolumeError(MedCLIPADError):
    """A volume cannot be read, placed in space or written."""


class VolumeSizeError(VolumeError):
    """A volume holds more voxels than may be read, or than fit into memory."""


class DetectorError(MedCLIPADError):
    """A detector cannot be loaded, saved or used as requested."""


class TrainingError(MedCLIPADError):
    """A detector cannot be trained from the given images or options."""


class Cancelled(MedCLIPADError):
    """The caller stopped a running detection or training."""
