"""The command `medclipad evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclipad.cli.options import Component, ForceModality, Precision, Series, Untilt
from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from medclipad.evaluation import Summary


def evaluate(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    case: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGE:MASK...",
            help="Volumes and their true lesion masks, or CSV files with columns image and mask (empty for a normal "
            "volume) and, if known, patient, scanner, sequence and site.",
        ),
    ] = [],  # noqa: B006
    normal: Annotated[
        list[str],
        typer.Option(metavar="IMAGE...", help="Normal volumes: files, folders, globs or CSV files with column image."),
    ] = [],  # noqa: B006
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all figures to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw the FROC curve with its interval.")
    ] = None,
    component: Component = None,
    series: Series = None,
    untilt: Untilt = False,
    force_modality: ForceModality = False,
    precision: Precision = "auto",
) -> None:
    """Measure a detector: lesions found against false regions per scan (FROC), scans told apart, and mean metrics.

    Metrics of the map are beside those of the trivial baseline, the raw intensity. Intervals are over patients.
    """
    from medclipad.cli.notes import print_notes
    from medclipad.cli.terminal import print_metrics, progress_bar
    from medclipad.detection.cases import Reading
    from medclipad.detection.detector import load_detector
    from medclipad.evaluation import evaluate_cases, list_evaluation_cases, summarise, summarise_groups
    from medclipad.evaluation.cases import known_volumes

    if not case and not normal:
        raise typer.BadParameter("give volumes with masks as --case, normal volumes as --normal, or both.")
    _require_files(json, plot)
    cases = list_evaluation_cases(case, normal)
    loaded = load_detector(detector, precision)
    reading = Reading(component, series, "resample" if untilt else "refuse")
    with progress_bar() as progress:
        figures = evaluate_cases(loaded, cases, progress, reading, print_notes, force_modality)
    summary, groups = summarise(figures), summarise_groups(figures)
    print_metrics(figures)
    _print_summary(summary, groups)
    learned = known_volumes(figures, loaded.info)
    if learned:
        print(
            f"The detector learned from volumes with the names of {len(learned)} of these ({', '.join(learned[:3])}"
            f"{', …' if len(learned) > 3 else ''}): if they are the same, the figures are too good."
        )
    if json:
        from medclipad.evaluation.summary import as_dict
        from medclipad.export.result_files import write_json

        write_json(json, {**as_dict(figures, summary, groups), "learned_from": learned})
    if plot:
        from medclipad.evaluation.froc_drawing import save_froc

        save_froc(plot, summary, loaded.info.name)


def _print_summary(summary: Summary, groups: Mapping[str, Mapping[str, Summary]]) -> None:
    """Print the figures over all cases, then those of each subgroup, and what they rest on."""
    from medclipad.cli.terminal import print_table
    from medclipad.evaluation.summary_tables import counts, interval_note, summary_tables

    print(f"\n{counts(summary)}")
    for table in summary_tables(summary, groups):
        print()
        print_table(table.headings, table.rows, "\n".join(table.notes))
    print(f"\n{interval_note(summary)}")


def _require_files(json: Path | None, plot: Path | None) -> None:
    """Raise MedCLIPADError if a result could not be written: checked before the work, not after it."""
    from medclipad.cli.notes import require_writable

    if plot is not None and plot.suffix.lower() != ".png":
        raise MedCLIPADError(f"The plot is a PNG: call it {plot.with_suffix('.png')} instead of {plot}.")
    for file in filter(None, (json, plot)):
        if file.is_dir():
            raise MedCLIPADError(f"{file} is a folder: give the name of a file.")
        require_writable(next(folder for folder in file.absolute().parents if folder.exists()), "file")
