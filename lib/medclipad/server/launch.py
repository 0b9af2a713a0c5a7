"""Start the server of `medclipad serve`, safe by default.

It listens on this machine only unless a token is set. MONAI Label takes its settings from the environment, here and in
the training processes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from medclipad.errors import MedCLIPADError
from medclipad.server.locations import is_remote, models_folder
from medclipad.server.logs import set_up_logging, silence_native_readers
from medclipad.server.process_lifetime import hold_folder
from medclipad.server.security import LOOPBACK
from medclipad.server.security.access import TOKEN, TOKEN_FILE, Tokens
from medclipad.server.security.audit import AUDIT_FILE, open_audit_log


@dataclass(frozen=True)
class ServerSettings:
    """How to run a server.

    Attributes
    ----------
    studies
        Folder with volumes, or address of a DICOMweb archive.
    port
        Port to listen on; 0 takes a free one.
    host
        Address to listen on; any but this machine's own needs a token.
    token, token_file
        Access token that clients must send, and file with tokens of named users, see `security.access`.
    models
        Folder of the trained detectors; by default `models` in the studies folder.
    certfile, keyfile
        Certificate chain and private key (PEM) for HTTPS; None for HTTP.
    proxy
        Addresses of reverse proxies, separated by commas, whose X-Forwarded-For header is believed; "" for none.
    log_file
        File of the log, which is rotated; None for standard error.
    audit_log
        File that records who did what; None for none.
    """

    studies: str | Path
    port: int = 8000
    host: str = "127.0.0.1"
    token: str | None = None
    token_file: Path | None = None
    models: str | Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    proxy: str = ""
    log_file: Path | None = None
    audit_log: Path | None = None


def serve(settings: ServerSettings) -> None:
    """Run the server until Ctrl+C or SIGTERM.

    Parameters
    ----------
    settings
        How to run it.

    Raises
    ------
    MedCLIPADError
        If the server cannot start with these settings.
    """
    _check_access(settings)
    environment = _environment(settings)
    _check_certificate(settings)
    if not is_remote(settings.studies):
        hold_folder(Path(settings.studies).resolve())
    listener = _listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    set_up_logging(settings.log_file)
    open_audit_log(str(settings.audit_log) if settings.audit_log else None)
    os.environ.update({**environment, "MONAI_LABEL_SERVER_PORT": str(port)})
    scheme = "https" if settings.certfile else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"Starting MedCLIPAD for {settings.studies} ...", flush=True)
    silence_native_readers()
    _run(listener, settings, f"MedCLIPAD is ready at {scheme}://{host}:{port}  (Ctrl+C stops it)")


def _run(listener: socket.socket, settings: ServerSettings, greeting: str) -> None:
    import uvicorn  # only in the server extra, whose presence `_environment` has checked

    from medclipad.server.security.connections import BACKLOG, LimitedProtocol, raise_file_limit

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(greeting, flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            from medclipad.server.services import current_services  # imports MONAI Label, which reads the environment

            current_services().jobs.cancel_all()  # so that their requests are answered before the server stops
            await super().shutdown(sockets)

    raise_file_limit()
    config = uvicorn.Config(
        "medclipad.server.app:app",
        http=LimitedProtocol,
        ws="none",
        loop="medclipad.server.security.connections:ServerLoop",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.proxy),
        forwarded_allow_ips=settings.proxy,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
        timeout_graceful_shutdown=3,  # seconds until requests that are still running are dropped
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has shut down
        Server(config).run(sockets=[listener])


def _check_access(settings: ServerSettings) -> None:
    if Tokens.of(settings.token, settings.token_file):
        return
    if settings.host not in LOOPBACK:
        raise MedCLIPADError(
            f"On {settings.host}, other computers can reach the server: set a token with --token-file, "
            "or use --host 127.0.0.1."
        )
    if settings.proxy:
        raise MedCLIPADError("Through a proxy, other computers can reach the server: set a token with --token-file.")


def _check_certificate(settings: ServerSettings) -> None:
    """Raise MedCLIPADError if the certificate cannot be used, before anything is loaded."""
    if (settings.certfile is None) != (settings.keyfile is None):
        raise MedCLIPADError("HTTPS needs both a certificate and its key: set --certfile and --keyfile.")
    if settings.certfile and settings.keyfile:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certfile, settings.keyfile)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise MedCLIPADError(
                f"The certificate {settings.certfile} and its key cannot be used ({reason}): "
                "give PEM files that belong together."
            ) from error


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


def _environment(settings: ServerSettings) -> dict[str, str]:
    """Return MONAI Label's settings, and the tokens, as environment variables."""
    studies, models = settings.studies, settings.models
    if importlib.util.find_spec("monailabel") is None:
        raise MedCLIPADError("MONAI Label is not installed: install the server as described in README, under Install.")
    models_folder(studies, models)  # fails if one must be chosen
    if is_remote(studies) and "@" in urlsplit(str(studies)).netloc:
        raise MedCLIPADError(
            "Give no password in the address: set MEDCLIPAD_PACS_USER and MEDCLIPAD_PACS_PASSWORD instead."
        )
    if not is_remote(studies) and not Path(studies).is_dir():
        raise MedCLIPADError(f"Studies folder {studies} was not found: create it, or check the path.")
    variables = {
        "MONAI_LABEL_APP_DIR": str(app_folder()),
        "MONAI_LABEL_STUDIES": str(studies) if is_remote(studies) else str(Path(studies).resolve()),
        "MONAI_LABEL_APP_CONF": json.dumps({"models": str(Path(models).resolve())} if models else {}),
        "MONAI_LABEL_SESSIONS": "false",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # MONAI Label starts no training without it
    }
    given = {TOKEN: settings.token, TOKEN_FILE: settings.token_file, AUDIT_FILE: settings.audit_log}
    return {**variables, **{name: str(value) for name, value in given.items() if value}}


def app_folder() -> Path:
    """Return the folder of the MONAI Label app, found without importing it; raise MedCLIPADError if it is missing."""
    app = importlib.util.find_spec("monailabel_app")
    if app is None or app.origin is None:
        raise MedCLIPADError("The folder monailabel_app is missing: install medclipad with pip, as README says.")
    return Path(app.origin).parent
