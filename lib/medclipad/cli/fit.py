"""The command `medclipad fit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medclipad.cli.options import IMAGES, IMAGES_HELP, Component, Series, Untilt, with_fit_options
from medclipad.errors import MedCLIPADError


@with_fit_options()
def fit(
    out: Annotated[Path, typer.Option(help="New folder for the detector.")],
    normal: Annotated[
        list[str],
        typer.Option(
            metavar=IMAGES,
            help=f"Normal volumes; of one with a mask, its lesion-free slices. {IMAGES_HELP} Or the cohort.parquet of "
            "an earlier run.",
        ),
    ] = [],  # noqa: B006
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Scans to take from a cohort.parquet, such as \"group == 'control'\".",
        ),
    ] = None,
    abnormal: Annotated[
        list[str], typer.Option(metavar="IMAGE:MASK...", help="Volumes with lesions, and their masks.")
    ] = [],  # noqa: B006
    calibrate_on: Annotated[
        list[str],
        typer.Option(
            metavar=IMAGES,
            help="Normal volumes that are not learned from, for limits and p-values; default: the normal ones, each "
            "left out in turn.",
        ),
    ] = [],  # noqa: B006
    calibrate_where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="As --where, for --calibrate-on."),
    ] = None,
    component: Component = None,
    series: Series = None,
    untilt: Untilt = False,
    name: Annotated[str | None, typer.Option(help="Name of the detector; default: that of the folder.")] = None,
    options: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Train a detector on a few slices and save it."""
    from medclipad.cli.notes import read_with_notes, require_new
    from medclipad.cli.terminal import progress_bar
    from medclipad.detection.cases import Reading
    from medclipad.detection.config import FitConfig
    from medclipad.detection.fit import fit as fit_detector
    from medclipad.detection.reference_checkpoints import activation_note
    from medclipad.volume.shelf import Shelf

    require_new(out, "folder for the detector")
    config, reading = FitConfig.of(**options), Reading(component, series, "resample" if untilt else "refuse")
    if note := activation_note(config.method, config.encoder):
        print(f"medclipad: {note}", file=sys.stderr)
    normal_scans = _selected(normal, where, "--normal", "--where")
    other_scans = _selected(calibrate_on, calibrate_where, "--calibrate-on", "--calibrate-where")
    shelf = Shelf()
    healthy = read_with_notes(normal_scans, reading, shelf=shelf)
    diseased = read_with_notes(abnormal, reading, need_mask=True, shelf=shelf)
    kept_out = read_with_notes(other_scans, reading, shelf=shelf)
    with progress_bar() as progress:
        detector = fit_detector(
            normal=healthy, abnormal=diseased, calibrate_on=kept_out, config=config, name=name or out.name,
            progress=progress,
        )  # fmt: skip
    detector.save(out)
    info = detector.info
    print(
        f"{out}: {info.method} on {info.encoder}, {info.normal_slices} normal and {info.abnormal_slices} abnormal "
        f"slices. {info.calibration.promise()}"
    )


def _selected(sources: list[str], where: str | None, option: str, where_option: str) -> list[Any]:
    """Return sources with each cohort.parquet replaced by the scans that meet a condition, and say what was chosen."""
    tables = [source for source in sources if source.lower().endswith(".parquet")]
    if tables and where is None:
        raise MedCLIPADError(f"{tables[0]} lists a whole cohort: say with {where_option} which of its scans to take.")
    if where is None:
        return list(sources)
    if not tables:
        raise MedCLIPADError(f"{where_option} chooses from a cohort.parquet: give one to {option}.")
    try:
        from medclipad.cohort.selection import select_scans
    except ImportError as error:
        raise MedCLIPADError(f'{error.name} is missing: run pip install "medclipad[cohort]".') from error
    scans: list[Any] = []
    for source in sources:
        if source not in tables:
            scans.append(source)
            continue
        selection = select_scans(source, where)
        print(f"{source}: {selection.note}", file=sys.stderr)
        scans += selection.scans
    return scans
