"""The command `medclipad serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    studies: Annotated[str, typer.Option(help="Folder with the volumes, or address of a DICOMweb server.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="MEDCLIPAD_TOKEN", help="Access token that clients must send.")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the trained detectors; default: models in the studies folder; required for DICOMweb."
        ),
    ] = None,
) -> None:
    """Start the MONAI Label server."""
    from medclipad.server.launch import serve as start

    start(studies=studies, port=port, host=host, token=token, models=models)
