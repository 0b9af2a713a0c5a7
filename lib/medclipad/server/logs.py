"""The server's log: warnings and errors, without names of patients and files, and bounded in size and pace."""

from __future__ import annotations

import logging
import logging.handlers
import time
import traceback
import warnings
from pathlib import Path
from types import TracebackType

from medclipad.errors import MedCLIPADError

LOG_BYTES = 10 * 1024**2  # of a log file; then it is renamed, and a new one begins
LOG_FILES = 5  # older ones that are kept
REPEATS = 10  # messages from one line of code in a minute; further ones are counted instead
_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
# Their messages quote headers and file names: what a patient is called must not get into a log.
_QUOTING = ("monailabel", "pydicom", "nibabel", "dicomweb_client", "highdicom", "py")  # "py.warnings"


class PrivateFormatter(logging.Formatter):
    """Log where an error was raised and its class, but not its message, which may name a patient's file."""

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802  logging's name
        """Return the frames of a traceback and the class of the exception."""
        frames = "".join(traceback.format_tb(ei[2]))
        name = ei[0].__name__ if ei[0] else "None"
        return f"Traceback (most recent call last):\n{frames}{name}"


class _QuotingFilter(logging.Filter):
    """Drop what libraries log that quote headers and file names."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] not in _QUOTING


class RepeatFilter(logging.Filter):
    """Drop messages that one line of code repeats: what a client can cause must not fill the disk.

    Parameters
    ----------
    repeats
        Messages from one line of code in a minute.
    """

    def __init__(self, repeats: int = REPEATS) -> None:
        super().__init__()
        self._repeats = repeats
        self._lines: dict[tuple[str, int], tuple[float, int]] = {}  # (start of its minute, messages in it)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record; the first one of a minute says how many were dropped in the last."""
        line, now = (record.pathname, record.lineno), time.monotonic()
        start, count = self._lines.get(line, (now, 0))
        if now - start > 60:
            dropped = count - self._repeats
            if dropped > 0:
                record.msg, record.args = f"{record.getMessage()} ({dropped} like it were left out)", ()
            start, count = now, 0
        self._lines[line] = (start, count + 1)
        return count < self._repeats


def set_up_logging(file: Path | None = None) -> None:
    """Log warnings and errors only, to standard error or to a file that never grows beyond LOG_BYTES.

    Parameters
    ----------
    file
        Log file; None for standard error.

    Raises
    ------
    MedCLIPADError
        If the file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        try:
            handler = logging.handlers.RotatingFileHandler(
                file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
            )
        except OSError as error:
            raise MedCLIPADError(f"{file} cannot be written ({error.strerror}): choose another file.") from error
    handler.setFormatter(PrivateFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    quiet_libraries()


def quiet_libraries() -> None:
    """Keep libraries that quote headers and file names out of every log, also where another program set it up."""
    for name in (*_QUOTING, "uvicorn.access"):
        logging.getLogger(name).disabled = True  # not its level: pydicom sets its own when it is imported
    for handler in logging.getLogger().handlers:  # what loggers below them say
        handler.addFilter(_QuotingFilter())
    warnings.simplefilter("ignore")


def silence_native_readers() -> None:
    """Keep ITK from printing file names on standard error. SimpleITK is slow to import."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
