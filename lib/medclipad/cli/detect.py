"""The command `medclipad detect`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclipad.cli.options import Component, ForceModality, Precision, Series, Untilt
from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from medclipad.detection.cases import Reading, Source
    from medclipad.detection.detector import AnomalyDetector


class DicomResult(StrEnum):
    """What `medclipad.export.dicom` writes."""

    SEGMENTATION = "segmentation"
    MAP = "map"
    REPORT = "report"
    KEY_SLICES = "key-slices"


def detect(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="NIfTI, NRRD, MHA, DICOM folders or zips, PNG, JPEG, TIFF; folders of them, globs, CSV files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    plane: Annotated[str | None, typer.Option(help="Plane to analyse; default: the detector's.")] = None,
    png: Annotated[bool, typer.Option(help="Also draw the most anomalous slices: IMAGE_anomaly.png.")] = False,
    segmentation: Annotated[
        bool, typer.Option(help="Also write the mask of the regions: IMAGE_segmentation.nii.gz.")
    ] = False,
    false_regions_per_scan: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100,
            help="Regions that a normal scan may have above the limit, on average; default: 1, or what the detector's "
            "normal scans support.",
        ),
    ] = None,
    component: Component = None,
    series: Series = None,
    untilt: Untilt = False,
    force_modality: ForceModality = False,
    dicom: Annotated[
        list[DicomResult],
        typer.Option(help="Of a DICOM series, also write IMAGE_segmentation.dcm, _map.dcm ... Repeat for more."),
    ] = [],  # noqa: B006
    deidentify: Annotated[
        bool, typer.Option(help="Leave patient, study, dates and UIDs of the source out of the DICOM results.")
    ] = False,
    precision: Precision = "auto",
) -> None:
    """Write IMAGE_anomaly.nii.gz, IMAGE_scores.csv and IMAGE.json for each volume."""
    from medclipad.detection.cases import Reading, list_cases, name_of
    from medclipad.detection.detector import load_detector

    sources = [source for source, _ in list_cases(images)]
    names = [name_of(source) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MedCLIPADError(
            f'Several images are called "{twice[0]}" and would overwrite each other: detect them one by one.'
        )
    loaded = load_detector(detector, precision)
    reading = Reading(component, series, "resample" if untilt else "refuse")
    if false_regions_per_scan is not None:
        loaded.info.calibration.region_limit(false_regions_per_scan)  # a rate that is not supported shows at once
    results = _Results(
        out, plane, png, segmentation, false_regions_per_scan, list(dict.fromkeys(dicom)), deidentify, force_modality
    )
    failed = 0
    for source in sources:
        try:
            results.write(loaded, source, reading)
        except MedCLIPADError as error:  # one bad file of a cohort must not cost the others
            failed += 1
            print(f"medclipad: {error}", file=sys.stderr)
    if failed:
        raise MedCLIPADError(f"{failed} of {len(sources)} volumes failed; see above.")


class _Results:
    """What is written of each volume."""

    def __init__(
        self,
        out: Path,
        plane: str | None,
        png: bool,
        segmentation: bool,
        rate: float | None,
        dicom: list[DicomResult],
        deidentify: bool,
        force_modality: bool,
    ) -> None:
        self._out, self._plane, self._png, self._segmentation = out, plane, png, segmentation
        self._rate, self._dicom, self._deidentify = rate, dicom, deidentify
        self._force_modality = force_modality

    def write(self, detector: AnomalyDetector, source: Source, reading: Reading) -> None:
        """Read a volume, detect, write; raise MedCLIPADError if one of these fails."""
        from medclipad.cli.notes import print_memory_note, print_notes
        from medclipad.cli.terminal import progress_bar
        from medclipad.export.result_files import write_result

        volume = reading.read(source)
        if self._dicom:
            from medclipad.export.dicom import require_images

            require_images(volume)
        print_notes(volume)
        print_memory_note(volume, detector.memory_for(volume, self._plane))
        with progress_bar(volume.name) as progress:
            result = detector.detect(volume, self._plane, progress, force_modality=self._force_modality)
        files = write_result(
            self._out, volume, result, png=self._png, segmentation=self._segmentation, false_per_scan=self._rate
        )
        if self._dicom:
            from medclipad.export.dicom import write_dicom

            write_dicom(self._out, source, volume, result, self._dicom, self._deidentify)  # type: ignore[arg-type]
        print(f"{volume.name}: {result.verdict(self._rate)} {files[0]}")
