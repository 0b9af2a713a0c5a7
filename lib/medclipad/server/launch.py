"""`medclipad serve`: MONAI Label's server with our routes, safe by default.

It listens on this machine only unless a token is given. MONAI Label takes its settings from the environment, here and
in the training processes that it starts.
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
from urllib.parse import urlsplit

from medclipad.errors import MedCLIPADError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN_LENGTH = 16


def serve(
    studies: str | Path,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: str | None = None,
    models: str | Path | None = None,
) -> None:
    """Run the server until it is told to stop (Ctrl+C or SIGTERM).

    studies: a folder with volumes, or the address of a DICOMweb server. models: folder of the trained detectors, by
    default `models` in the studies folder. port: 0 takes a free one. token: what clients must send; taken from the
    environment variable MEDCLIPAD_TOKEN if not given, and required unless `host` is this machine's loopback address.

    Raises MedCLIPADError if it cannot start as asked.
    """
    token = token or os.environ.get("MEDCLIPAD_TOKEN") or None
    _check_token(host, token)
    environment = _environment(studies, token, models)
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    os.environ.update({**environment, "MONAI_LABEL_SERVER_PORT": str(port)})
    _log_quietly()
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"Starting MedCLIPAD for {studies} ...", flush=True)
    _run(listener, f"MedCLIPAD is ready at {address}  (Ctrl+C stops it)")


def _run(listener: socket.socket, greeting: str) -> None:
    import uvicorn  # part of the server extra, which `_environment` has looked for

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(greeting, flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            from medclipad.server.services import current_services

            current_services().jobs.cancel_all()  # their requests are answered before the server goes
            await super().shutdown(sockets)

    config = uvicorn.Config(
        "medclipad.server.app:app",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,  # seconds for requests that are under way, before they are dropped
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on after it has shut down
        Server(config).run(sockets=[listener])


def _check_token(host: str, token: str | None) -> None:
    if token is None and host not in LOOPBACK:
        raise MedCLIPADError(
            f"On {host} others can reach the server: choose a token with --token, or stay on --host 127.0.0.1."
        )
    if token is not None and (len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
        raise MedCLIPADError(f"A token must have at least {TOKEN_LENGTH} plain characters.")


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that a port that is taken is known before anything is loaded."""
    if not 0 <= port <= 65535:
        raise MedCLIPADError(f"{port} is not a port: choose one from 1 to 65535, or 0 for any that is free.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name != "nt":  # there it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise MedCLIPADError(
            f"Cannot listen on {host}, port {port} ({error.strerror}): choose another with --port."
        ) from error
    return listener


def _environment(studies: str | Path, token: str | None, models: str | Path | None) -> dict[str, str]:
    """MONAI Label's settings as environment variables."""
    if importlib.util.find_spec("monailabel") is None:
        raise MedCLIPADError("MONAI Label is not installed: install the server as README says, under Install.")
    remote = str(studies).startswith(("http://", "https://"))
    if remote and not models:
        raise MedCLIPADError("With studies on a DICOMweb server, name a folder for the detectors with --models.")
    if remote and "@" in urlsplit(str(studies)).netloc:
        raise MedCLIPADError("Give MEDCLIPAD_PACS_USER and MEDCLIPAD_PACS_PASSWORD, no password in the address.")
    if not remote and not Path(studies).is_dir():
        raise MedCLIPADError(f"There is no studies folder {studies}: create it, or check the path.")
    settings = {
        "MONAI_LABEL_APP_DIR": str(app_folder()),
        "MONAI_LABEL_STUDIES": str(studies) if remote else str(Path(studies).resolve()),
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


class _Discreet(logging.Formatter):
    """Where an error was raised and its type, but not its message: that may hold the name of a patient's file."""

    def formatException(self, ei: tuple) -> str:  # noqa: N802  logging's name
        frames = "".join(traceback.format_tb(ei[2]))
        return f"Traceback (most recent call last):\n{frames}{ei[0].__name__}"


def _log_quietly() -> None:
    """Warnings and errors only, and of MONAI Label, ITK and pydicom none: theirs hold names of patients and files."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("monailabel", "pydicom", "nibabel", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
