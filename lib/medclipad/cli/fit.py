"""The command `medclipad fit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medclipad.cli.options import IMAGES, IMAGES_HELP, Component, Series, Untilt, with_fit_options


@with_fit_options()
def fit(
    out: Annotated[Path, typer.Option(help="New folder for the detector.")],
    normal: Annotated[
        list[str],
        typer.Option(
            metavar=IMAGES,
            help=f"Normal volumes; if one has a mask, only its lesion-free slices are used. {IMAGES_HELP}",
        ),
    ] = [],  # noqa: B006
    abnormal: Annotated[
        list[str], typer.Option(metavar="IMAGE:MASK...", help=f"Volumes with lesions and their masks. {IMAGES_HELP}")
    ] = [],  # noqa: B006
    calibrate_on: Annotated[
        list[str],
        typer.Option(
            metavar=IMAGES,
            help="Normal volumes that are not learned from, for limits and p-values; default: the normal ones, each "
            f"left out in turn. {IMAGES_HELP}",
        ),
    ] = [],  # noqa: B006
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

    require_new(out, "folder for the detector")
    config, reading = FitConfig.of(**options), Reading(component, series, "resample" if untilt else "refuse")
    if note := activation_note(config.method, config.encoder):
        print(f"medclipad: {note}", file=sys.stderr)
    healthy = read_with_notes(normal, reading)
    diseased = read_with_notes(abnormal, reading, need_mask=True)
    kept_out = read_with_notes(calibrate_on, reading)
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
