"""What is said when the weights of an encoder cannot be downloaded or read, whatever its family."""

from __future__ import annotations

from pathlib import Path

from medclipad.errors import DetectorError


def not_downloaded(weights: str, model: str, error: Exception) -> DetectorError:
    """Return the error for weights of a model that could not be downloaded."""
    return DetectorError(
        f'The weights "{weights}" of {model} could not be downloaded ({reason(error)}): connect to the network, or '
        f'download the file elsewhere and name it as "{model}/FILE".'
    )


def not_weights(path: Path, error: Exception) -> DetectorError:
    """Return the error for a file that could not be read as the weights of an encoder."""
    return DetectorError(
        f"The checkpoint {path.name} does not hold weights of this encoder ({reason(error)}): choose the file "
        "that belongs to it, or fetch it again."
    )


def reason(error: Exception) -> str:
    """Return class and first line of another library's error, which may have no message."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])[:200]
