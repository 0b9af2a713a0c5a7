"""medclipad versions list | select | delete: the detector versions of a models folder, or of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medclipad.errors import MedCLIPADError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Detector versions of a server: list, select, delete."
)

Models = Annotated[Path | None, typer.Option("--models", metavar="DIR", help="Models folder of a server.")]
Url = Annotated[str | None, typer.Option("--url", help="Address of a running server.")]
Token = Annotated[str | None, typer.Option("--token", envvar="MEDCLIPAD_TOKEN", help="Its token.")]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="mediclip or mvfa.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the version.")]


@app.command("list")
def list_versions(models: Models = None, url: Url = None, token: Token = None) -> None:
    """List all versions, newest first; the ones that serve have an asterisk."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "method", "version", "created", "encoder", "plane", "shots", "threshold", "AUROC", box=None)
    for method, known in _home(models, url, token).entries().items():
        for version in known["versions"]:
            held_out = (version["metrics"] or {}).get("held_out") or {}
            auroc = held_out.get("slice_auroc")
            table.add_row(
                "*" if version["name"] == known["current"] else "",
                method,
                version["name"],
                version["created"][:16].replace("T", " "),
                version["encoder"],
                version["plane"],
                f"{version['shots']}+{version['abnormal_shots']}",
                f"{version['threshold']:.3f}",
                "" if auroc is None else f"{auroc:.3f}",
            )
    if not table.row_count:
        raise MedCLIPADError("There is no version: train one first.")
    Console().print(table)


@app.command("select")
def select_version(method: Method, name: Name, models: Models = None, url: Url = None, token: Token = None) -> None:
    """Let a version serve from the next request on."""
    _home(models, url, token).select(method, name)
    print(f"{method}: {name} serves now.")


@app.command("delete")
def delete_version(method: Method, name: Name, models: Models = None, url: Url = None, token: Token = None) -> None:
    """Delete a version that does not serve."""
    _home(models, url, token).delete(method, name)
    print(f"{method}: {name} is deleted.")


class _Folder:
    def __init__(self, folder: Path) -> None:
        from medclipad.server.launch import app_folder
        from medclipad.server.training.versions import VersionStore, starter_folder

        if not folder.is_dir():
            raise MedCLIPADError(f"{folder} is not a folder: name the models folder of a server.")
        self._store = VersionStore(folder, starter_folder(app_folder()))

    def entries(self) -> dict[str, Any]:
        from medclipad.methods import METHODS

        return {method: self._store.entries(method) for method in METHODS}

    def select(self, method: str, name: str) -> None:
        self._store.select(method, name)

    def delete(self, method: str, name: str) -> None:
        self._store.delete(method, name)


class _Server:
    def __init__(self, url: str, token: str | None) -> None:
        from medclipad.client import Client

        self._client = Client(url, token)

    def entries(self) -> dict[str, Any]:
        return self._client.versions()

    def select(self, method: str, name: str) -> None:
        self._client.select_version(method, name)

    def delete(self, method: str, name: str) -> None:
        self._client.delete_version(method, name)


def _home(models: Path | None, url: str | None, token: str | None) -> _Folder | _Server:
    if (models is None) == (url is None):
        raise MedCLIPADError("Say where the versions are: either --models DIR or --url URL.")
    return _Folder(models) if url is None else _Server(url, token)
