"""The command `medclipad cohort`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medclipad.cli.options import Component, ForceModality, Precision, Untilt
from medclipad.errors import MedCLIPADError


def cohort(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[DETECTOR] INPUT",
            help="Detector folder; and a folder, BIDS dataset, CSV or TSV file with a column image (and mask, group, "
            'name), or address of a DICOMweb archive such as "http://archive/dicom-web?StudyDate=20260101-".',
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; with those of an earlier run, it goes on.")],
    no_detector: Annotated[
        bool, typer.Option("--no-detector", help="Rank scans that are mostly normal by their distance from each other.")
    ] = False,
    layout: Annotated[
        Literal["bids", "flat"], typer.Option(help="BIDS derivatives, or files called after the scans.")
    ] = "bids",
    suffix: Annotated[
        str | None, typer.Option(help="Images of a BIDS dataset to take, such as T1w; needed if it has several kinds.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Processes that analyse; default: one for each GPU, or else machine."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, whose machines see all files under the same paths.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Analyse those again that failed in an earlier run.")] = False,
    plane: Annotated[str | None, typer.Option(help="Plane to analyse; default: the detector's.")] = None,
    false_regions_per_scan: Annotated[
        float | None,
        typer.Option(min=0.001, max=100, help="Regions that a normal scan may have above the limit, as in detect."),
    ] = None,
    component: Component = None,
    untilt: Untilt = False,
    force_modality: ForceModality = False,
    precision: Precision = "auto",
) -> None:
    """Analyse thousands of volumes on Ray: maps, one table, one page.

    A scan that cannot be read is a row that says why. Whatever ends a run, the next one keeps what was finished.
    """
    from medclipad.cohort.listing import list_scans
    from medclipad.cohort.outputs import Layout, write_dataset
    from medclipad.detection.cases import Reading
    from medclipad.detection.storage import read_info

    try:
        from medclipad.cohort.ranking import NOTE, fit_folds
        from medclipad.cohort.report import write_page
        from medclipad.cohort.run import Cluster, run_cohort
        from medclipad.cohort.table import write_table
        from medclipad.cohort.worker import WorkerSettings
    except ImportError as error:
        raise MedCLIPADError(f'{error.name} is missing: run pip install "medclipad[cohort]".') from error
    from medclipad.cli.terminal import progress_bar

    if len(paths) != 2 - no_detector:
        wanted = "INPUT alone with --no-detector" if no_detector else "DETECTOR and INPUT, or --no-detector and INPUT"
        raise MedCLIPADError(f"Give {wanted}.")
    out = out.expanduser().resolve()
    reading = Reading(component, None, "resample" if untilt else "refuse")
    detectors = [Path(path).expanduser().resolve() for path in paths[:-1]]
    if false_regions_per_scan is not None:
        for path in detectors:  # a rate that is not supported shows at once
            read_info(path).calibration.region_limit(false_regions_per_scan)
    scans = list_scans(paths[-1], out, suffix)
    with progress_bar() as progress:
        if no_detector:
            scans, detectors = fit_folds(scans, out, reading, progress)
        infos = [read_info(path) for path in detectors]
        settings = WorkerSettings(
            detectors=tuple(detectors),
            out=out,
            layout=Layout(layout),
            reading=reading,
            plane=plane,
            force_modality=force_modality,
            rate=false_regions_per_scan,
            precision=precision,
        )
        if settings.layout is Layout.BIDS:
            write_dataset(out, scans, "of the other scans" if no_detector else infos[0].name)
        outcome = run_cohort(scans, settings, Cluster(address, workers), retry_failed, progress)
    table = write_table(out, outcome.rows)
    note = NOTE if no_detector else infos[0].calibration.promise()
    page = write_page(scans, outcome.rows, settings, [] if no_detector else infos, note)
    failed = sum(row.status == "failed" for row in outcome.rows)
    kept = f", {outcome.kept} of them in earlier runs" if outcome.kept else ""
    print(f"{len(scans) - failed} of {len(scans)} scans analysed{kept}, {failed} failed: {page} {table}")
