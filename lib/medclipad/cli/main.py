"""The command line of medclipad: its commands, one module each, and what they have in common."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from medclipad.cli.benchmark import benchmark
from medclipad.cli.cohort import cohort
from medclipad.cli.detect import detect
from medclipad.cli.encoders import encoders
from medclipad.cli.evaluate import evaluate
from medclipad.cli.fit import fit
from medclipad.cli.methods import methods
from medclipad.cli.models import models_app
from medclipad.cli.options import ManyValues, epilog
from medclipad.cli.series import series
from medclipad.cli.serve import serve
from medclipad.cli.versions import app as versions_app
from medclipad.errors import MedCLIPADError
from medclipad.methods import default_method

# Everything heavy is imported inside the commands: --help must not wait for torch.

_log = logging.getLogger("medclipad")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Detect anomalies in MRI and CT volumes, from a few normal slices.",
    epilog=epilog(
        "medclipad fit --normal normals/*.nii.gz --out models/mine",
        "medclipad detect models/mine case.nrrd --out results",
    ),
)
app.command(
    cls=ManyValues,
    epilog=epilog(
        "medclipad fit --normal normals/*.nii.gz other.nii.gz:mask.nii.gz --out models/mine",
        f"medclipad fit --method {default_method()} --normal normals/ --abnormal cases.csv --out models/mine",
    ),
)(fit)
app.command(epilog=epilog("medclipad detect models/mine case.nrrd dicom_folder/ --out results --png"))(detect)
app.command(
    epilog=epilog(
        "medclipad cohort models/mine scans/ --out results",
        "medclipad cohort --no-detector scans/ --out results",
        'medclipad cohort models/mine "http://archive/dicom-web?Modality=MR" --out results --layout flat',
    )
)(cohort)
app.command(
    cls=ManyValues, epilog=epilog("medclipad evaluate models/mine --case cases.csv --json figures.json --plot froc.png")
)(evaluate)
app.command(epilog=epilog("medclipad methods"))(methods)
app.command(epilog=epilog("medclipad encoders"))(encoders)
app.command("series", epilog=epilog("medclipad series dicom_folder/"))(series)
app.command(
    epilog=epilog(f"medclipad benchmark --protocol {default_method()} --data data/ --class brainmri --shots 16")
)(benchmark)
app.command(epilog=epilog("medclipad serve --studies studies/", "medclipad serve --studies http://archive/dicom-web "
                          "--models models/"))(serve)  # fmt: skip
app.add_typer(models_app, name="models")
app.add_typer(versions_app, name="versions")


def main() -> None:
    """Run the command line; a known error ends it with one sentence and exit code 1."""
    try:
        app()
    except MedCLIPADError as error:
        print(f"medclipad: {error}", file=sys.stderr)
        _log.debug("The command failed.", exc_info=error)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medclipad {installed_version('medclipad')}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Print more on standard error; -vv: tracebacks too."
        ),
    ] = 0,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", metavar="FILE", help="Also write everything to this file.")
    ] = None,
) -> None:
    """Set up what all commands share: the version and the log."""
    if context.invoked_subcommand == "serve":  # it logs by rules of its own, which keep patients' names out
        return
    _log.setLevel(logging.DEBUG)
    _log.propagate = False
    for handler in list(_log.handlers):
        _log.removeHandler(handler)
    on_screen = logging.StreamHandler()
    on_screen.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))
    on_screen.setFormatter(logging.Formatter("medclipad: %(message)s"))
    _log.addHandler(on_screen)
    if log_file is not None:
        try:
            to_file = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise MedCLIPADError(f"{log_file} cannot be written ({error.strerror}): choose another file.") from error
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _log.addHandler(to_file)
    _log.info("medclipad %s: %s", installed_version("medclipad"), " ".join(sys.argv[1:]))
