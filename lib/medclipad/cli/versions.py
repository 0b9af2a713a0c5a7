"""medclipad versions list | select | delete: the detector versions of a models folder, or of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medclipad.cli.options import epilog
from medclipad.errors import MedCLIPADError
from medclipad.methods import default_method

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Detector versions of a server: list, select, delete."
)

Models = Annotated[Path | None, typer.Option("--models", metavar="DIR", help="Models folder of a server.")]
Url = Annotated[str | None, typer.Option("--url", help="Address of a running server.")]
Token = Annotated[str | None, typer.Option("--token", envvar="MEDCLIPAD_TOKEN", help="Its access token.")]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="Name of the method.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the version.")]


@app.command("list", epilog=epilog("medclipad versions list --models studies/models"))
def list_versions(models: Models = None, url: Url = None, token: Token = None) -> None:
    """List all versions, newest first; those in use have an asterisk."""
    from medclipad.cli.terminal import print_table

    rows = []
    for method, known in _home(models, url, token).entries().items():
        for version in known["versions"]:
            held_out = (version["metrics"] or {}).get("held_out") or {}
            auroc = held_out.get("slice_auroc")
            row = (
                "*" if version["name"] == known["current"] else "",
                method,
                version["name"],
                version["created"][:16].replace("T", " "),
                version["encoder"],
                version["planes"],
                f"{version['shots']}+{version['abnormal_shots']}",
                str(version["normal_scans"]),
                "" if auroc is None else f"{auroc:.3f}",
            )
            rows.append(row)
    if not rows:
        raise MedCLIPADError("There is no version: train one first.")
    headings = ("", "method", "version", "created", "encoder", "plane", "slices", "normal scans", "AUROC")
    print_table(headings, rows)


@app.command("select", epilog=epilog(f"medclipad versions select {default_method()} first --models studies/models"))
def select_version(method: Method, name: Name, models: Models = None, url: Url = None, token: Token = None) -> None:
    """Use a version from the next request on."""
    _home(models, url, token).select(method, name)
    print(f"{method}: {name} is in use now.")


@app.command("delete", epilog=epilog(f"medclipad versions delete {default_method()} first --models studies/models"))
def delete_version(method: Method, name: Name, models: Models = None, url: Url = None, token: Token = None) -> None:
    """Delete a version that is not in use."""
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
        from medclipad.methods import method_names

        return {method: self._store.entries(method) for method in method_names()}

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
    if url is not None and models is None:
        return _Server(url, token)
    if models is not None and url is None:
        return _Folder(models)
    raise MedCLIPADError("Say where the versions are: either --models DIR or --url URL.")
