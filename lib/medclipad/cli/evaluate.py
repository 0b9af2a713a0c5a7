"""The command `medclipad evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclipad.cli.options import IMAGES_HELP, Component, Precision, Series, Untilt


def evaluate(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    case: Annotated[
        list[str],
        typer.Option(metavar="IMAGE:MASK...", help=f"Volumes and their true lesion masks. {IMAGES_HELP}"),
    ],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all figures to this file.")] = None,
    component: Component = None,
    series: Series = None,
    untilt: Untilt = False,
    precision: Precision = "auto",
) -> None:
    """Measure a detector: slice and voxel AUROC, average precision, best Dice, beside the trivial baseline."""
    from medclipad.cli.notes import read_with_notes
    from medclipad.cli.terminal import print_metrics, progress_bar
    from medclipad.detection.cases import Reading
    from medclipad.detection.detector import load_detector
    from medclipad.evaluation import evaluate_cases

    reading = Reading(component, series, "resample" if untilt else "refuse")
    cases = [(volume, mask) for volume, mask in read_with_notes(case, reading, need_mask=True) if mask is not None]
    loaded = load_detector(detector, precision)
    with progress_bar() as progress:
        figures = evaluate_cases(loaded, cases, progress)
    print_metrics(figures)
    if json:
        from medclipad.export.result_files import write_json

        write_json(json, figures)
