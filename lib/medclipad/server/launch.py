"""Start the server of `medclipad serve`, safe by default.

It listens on this machine only unless a token is set. MONAI Label takes its settings from the environment, here and in
the training processes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from medclipad.errors import MedCLIPADError
from medclipad.server.locations import is_remote, models_folder
from medclipad.server.security import LOOPBACK

TOKEN_LENGTH = 16  # characters: too many to guess at the rate that the server allows
_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def serve(
    studies: str | Path,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: str | None = None,
    models: str | Path | None = None,
) -> None:
    """Run the server until Ctrl+C or SIGTERM.

    Parameters
    ----------
    studies
        Folder with volumes, or address of a DICOMweb archive.
    port
        Port to listen on; 0 takes a free one.
    host
        Address to listen on.
    token
        Access token that clients must send; by default the environment variable MEDCLIPAD_TOKEN. Required unless
        `host` is a loopback address.
    models
        Folder of the trained detectors; by default `models` in the studies folder.

    Raises
    ------
    MedCLIPADError
        If the server cannot start with these settings.
    """
    token = token or os.environ.get("MEDCLIPAD_TOKEN") or None
    _check_token(host, token)
    environment = _environment(studies, token, models)
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    os.environ.update({**environment, "MONAI_LABEL_SERVER_PORT": str(port)})
    _limit_logging()
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"Starting MedCLIPAD for {studies} ...", flush=True)
    _run(listener, f"MedCLIPAD is ready at {address}  (Ctrl+C stops it)")


def _run(listener: socket.socket, greeting: str) -> None:
    import uvicorn  # only in the server extra, whose presence `_environment` has checked

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(greeting, flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            from medclipad.server.services import current_services  # imports MONAI Label, which reads the environment

            current_services().jobs.cancel_all()  # so that their requests are answered before the server stops
            await super().shutdown(sockets)

    config = uvicorn.Config(
        "medclipad.server.app:app",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,  # seconds until requests that are still running are dropped
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has shut down
        Server(config).run(sockets=[listener])


def _check_token(host: str, token: str | None) -> None:
    if token is None and host not in LOOPBACK:
        raise MedCLIPADError(
            f"On {host}, other computers can reach the server: set a token with --token, or use --host 127.0.0.1."
        )
    if token is not None and (len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
        raise MedCLIPADError(f"A token must have at least {TOKEN_LENGTH} printable ASCII characters.")


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, so that a port in use is reported before anything is loaded."""
    if not 0 <= port <= 65535:
        raise MedCLIPADError(f"{port} is not a valid port: choose one from 1 to 65535, or 0 for any free port.")
    try:
        family, socket_type, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket_type, protocol)
        if os.name != "nt":  # on Windows it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise MedCLIPADError(
            f"Cannot listen on {host}, port {port} ({error.strerror}): choose another port with --port."
        ) from error
    return listener


def _environment(studies: str | Path, token: str | None, models: str | Path | None) -> dict[str, str]:
    """Return MONAI Label's settings as environment variables."""
    if importlib.util.find_spec("monailabel") is None:
        raise MedCLIPADError("MONAI Label is not installed: install the server as described in README, under Install.")
    models_folder(studies, models)  # fails if one must be chosen
    if is_remote(studies) and "@" in urlsplit(str(studies)).netloc:
        raise MedCLIPADError(
            "Give no password in the address: set MEDCLIPAD_PACS_USER and MEDCLIPAD_PACS_PASSWORD instead."
        )
    if not is_remote(studies) and not Path(studies).is_dir():
        raise MedCLIPADError(f"Studies folder {studies} was not found: create it, or check the path.")
    settings = {
        "MONAI_LABEL_APP_DIR": str(app_folder()),
        "MONAI_LABEL_STUDIES": str(studies) if is_remote(studies) else str(Path(studies).resolve()),
        "MONAI_LABEL_APP_CONF": json.dumps({"models": str(Path(models).resolve())} if models else {}),
        "MONAI_LABEL_SESSIONS": "false",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # MONAI Label starts no training without it
    }
    return {**settings, "MEDCLIPAD_TOKEN": token} if token else settings


def app_folder() -> Path:
    """Return the folder of the MONAI Label app, found without importing it; raise MedCLIPADError if it is missing."""
    app = importlib.util.find_spec("monailabel_app")
    if app is None or app.origin is None:
        raise MedCLIPADError("The folder monailabel_app is missing: install medclipad with pip, as README says.")
    return Path(app.origin).parent


class _PrivateFormatter(logging.Formatter):
    """Log where an error was raised and its class, but not its message, which may name a patient's file."""

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802  logging's name
        frames = "".join(traceback.format_tb(ei[2]))
        name = ei[0].__name__ if ei[0] else "None"
        return f"Traceback (most recent call last):\n{frames}{name}"


def _limit_logging() -> None:
    """Log warnings and errors only, and none of libraries whose messages name patients and files."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrivateFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("monailabel", "pydicom", "nibabel", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import SimpleITK  # slow to import: not before the address is known to be free

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
