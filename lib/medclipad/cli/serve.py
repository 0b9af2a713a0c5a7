"""The command `medclipad serve`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from medclipad.errors import MedCLIPADError

ENVIRONMENT = "environment"
"""Table of a configuration file with environment variables, such as those of the archive."""


def read_config(context: click.Context, file: Path | None) -> Path | None:
    """Take the values of a TOML file for those of options that neither the command line nor the environment gives.

    Parameters
    ----------
    context
        Context of the command, whose options are the keys of the file; hyphens and underscores are the same.
    file
        The file; None for none.

    Raises
    ------
    MedCLIPADError
        If the file cannot be read, or a key is not an option.
    """
    if file is None:
        return None
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise MedCLIPADError(f"The configuration {file} cannot be read: {reason}.") from error
    variables = values.pop(ENVIRONMENT, {})
    options = {name.replace("-", "_"): value for name, value in values.items()}
    known = {parameter.name for parameter in context.command.params} - {"config", "help"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise MedCLIPADError(
            f"{file}: {unknown[0]!r} is not an option of serve: use {', '.join(sorted(map(str, known)))}."
        )
    wrong = [name for name, value in options.items() if not isinstance(value, (str, int))]
    if wrong or not isinstance(variables, dict):
        raise MedCLIPADError(f"{file}: {wrong[0] if wrong else ENVIRONMENT} has a value of the wrong kind.")
    for name, value in variables.items():
        os.environ.setdefault(name, str(value))
    context.default_map = {**(context.default_map or {}), **options}
    return file


def serve(
    studies: Annotated[
        str, typer.Option(envvar="MEDCLIPAD_STUDIES", help="Folder with the volumes, or address of a DICOMweb server.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="MEDCLIPAD_PORT", help="Port; 0 picks a free one.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(envvar="MEDCLIPAD_HOST", help="Address to listen on; any but this machine's own needs a token."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MEDCLIPAD_TOKEN",
            help="Access token that clients must send; on a command line every user of the machine sees it.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDCLIPAD_TOKEN_FILE",
            help="File with a token, or with lines of name, role (read, label, train, admin) and token.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDCLIPAD_MODELS",
            help="Folder of the trained detectors; default: models in the studies folder; required for DICOMweb.",
        ),
    ] = None,
    certfile: Annotated[
        Path | None, typer.Option(envvar="MEDCLIPAD_CERTFILE", help="Certificate chain (PEM): serve HTTPS.")
    ] = None,
    keyfile: Annotated[
        Path | None, typer.Option(envvar="MEDCLIPAD_KEYFILE", help="Private key (PEM) of the certificate.")
    ] = None,
    proxy: Annotated[
        str,
        typer.Option(
            envvar="MEDCLIPAD_PROXY",
            help="Addresses of reverse proxies whose X-Forwarded-For is believed, with commas.",
        ),
    ] = "",
    log_file: Annotated[
        Path | None, typer.Option(envvar="MEDCLIPAD_LOG_FILE", help="Log to this file, which is rotated at 10 MiB.")
    ] = None,
    audit_log: Annotated[
        Path | None, typer.Option(envvar="MEDCLIPAD_AUDIT_LOG", help="Record in this file who did what, and when.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=read_config,
            is_eager=True,
            envvar="MEDCLIPAD_CONFIG",
            help="TOML file with values for these options.",
        ),
    ] = None,
) -> None:
    """Start the MONAI Label server.

    An option wins over its environment variable, which wins over the file of --config.
    """
    from medclipad.server.launch import ServerSettings
    from medclipad.server.launch import serve as start

    start(
        ServerSettings(
            studies=studies,
            port=port,
            host=host,
            token=token,
            token_file=token_file,
            models=models,
            certfile=certfile,
            keyfile=keyfile,
            proxy=proxy,
            log_file=log_file,
            audit_log=audit_log,
        )
    )
