"""The command line: medclipad fit | detect | evaluate | benchmark | serve | models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medclipad.cli.benchmark import benchmark
from medclipad.cli.cases import Precision, read_case, require_new, tell, tell_memory
from medclipad.cli.dicom import DicomResult
from medclipad.cli.dicom import series as series_command
from medclipad.cli.models import models_app
from medclipad.cli.versions import app as versions_app
from medclipad.errors import MedCLIPADError

# Everything heavy is imported inside the commands: --help must not wait for torch.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Anomaly maps of MRI and CT volumes, from a few normal slices.",
)
app.add_typer(models_app, name="models")
app.add_typer(versions_app, name="versions")
app.command()(benchmark)
app.command("series")(series_command)

Pairs = list[str]


def main() -> None:
    """Run the command line; a known error ends it with one sentence and exit code 1."""
    try:
        app()
    except MedCLIPADError as error:
        print(f"medclipad: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="New folder for the detector.")],
    method: Annotated[
        str, typer.Option(help="mediclip (needs normal volumes) or mvfa (needs abnormal ones too).")
    ] = "mediclip",
    encoder: Annotated[
        str, typer.Option(help='"embedded", or NAME/TAG or NAME/FILE of an open_clip ViT.')
    ] = "embedded",
    normal: Annotated[
        Pairs,
        typer.Option(
            metavar="IMAGE[:MASK]", help="Normal volume; with a mask, its lesion-free slices. Repeat for more."
        ),
    ] = [],  # noqa: B006
    abnormal: Annotated[
        Pairs, typer.Option(metavar="IMAGE:MASK", help="Volume with lesions and their mask. Repeat for more.")
    ] = [],  # noqa: B006
    shots: Annotated[
        int, typer.Option(min=0, help="Normal slices, and abnormal slices, to learn from; 0 for all.")
    ] = 32,
    plane: Annotated[str, typer.Option(help="axial, coronal, sagittal or acquisition.")] = "axial",
    intensity: Annotated[
        str, typer.Option(help="auto, mr, raw, ct:brain, ct:lung, ct:abdomen, ct:bone or ct:LEVEL,WIDTH.")
    ] = "auto",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the shots; default the method's own.")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the encoder's input in pixels; default the method's own.")
    ] = None,
    smoothing: Annotated[float, typer.Option(min=0, help="Smoothing of the maps in mm; 0 for none.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Same seed, same detector.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the detector; default that of the folder.")] = None,
    precision: Precision = "auto",
) -> None:
    """Train a detector on a few slices and save it."""
    from medclipad.cli.terminal import progress_bar
    from medclipad.detection.detector import fit as fit_detector
    from medclipad.detection.reference_checkpoints import activation_note

    require_new(out, "folder for the detector")
    if note := activation_note(method, encoder):
        print(f"medclipad: {note}", file=sys.stderr)
    options = {} if epochs is None else {"epochs": epochs}
    with progress_bar() as progress:
        detector = fit_detector(
            method=method,
            encoder=encoder,
            normal=[read_case(text) for text in normal],
            abnormal=[read_case(text, mask_required=True) for text in abnormal],
            shots=shots or None,
            plane=plane,
            intensity=intensity,
            image_size=image_size,
            smoothing=smoothing,
            seed=seed,
            name=name or out.name,
            progress=progress,
            precision=precision,
            **options,
        )
    detector.save(out)
    info = detector.info
    print(f"{out}: {info.method} on {info.encoder}, {info.shots} normal and {info.abnormal_shots} abnormal shots.")


@app.command()
def detect(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="NIfTI, NRRD, MHA, DICOM folders or zips, PNG, JPEG, TIFF.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    plane: Annotated[str | None, typer.Option(help="Plane to analyse; default the detector's.")] = None,
    png: Annotated[bool, typer.Option(help="Also draw the most anomalous slices: IMAGE_anomaly.png.")] = False,
    segmentation: Annotated[
        bool, typer.Option(help="Also write the mask at the threshold: IMAGE_segmentation.nii.gz.")
    ] = False,
    component: Annotated[
        int | None, typer.Option(min=0, help="Time point, echo or channel to take where an image has several.")
    ] = None,
    series: Annotated[str | None, typer.Option(metavar="UID", help="DICOM series to take out of several.")] = None,
    untilt: Annotated[bool, typer.Option(help="Resample a DICOM series with gantry tilt to upright slices.")] = False,
    dicom: Annotated[
        list[DicomResult],
        typer.Option(help="Of a DICOM series, also write IMAGE_segmentation.dcm, _map.dcm ... Repeat for more."),
    ] = [],  # noqa: B006
    deidentify: Annotated[
        bool, typer.Option(help="Take patient, study, dates and UIDs of the source out of the DICOM results.")
    ] = False,
    precision: Precision = "auto",
) -> None:
    """Write IMAGE_anomaly.nii.gz, IMAGE_scores.csv and IMAGE.json for each volume."""
    from medclipad.cli.terminal import progress_bar
    from medclipad.detection.detector import load_detector
    from medclipad.export.result_files import write_result
    from medclipad.volume import case_name, read_volume

    names = [case_name(image) for image in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MedCLIPADError(
            f'Several images are called "{twice[0]}" and would overwrite each other: detect them one by one.'
        )
    loaded = load_detector(detector, precision)
    failed = 0
    for image in images:
        try:
            volume = read_volume(image, component=component, series=series, tilt="resample" if untilt else "refuse")
            if dicom:
                from medclipad.export.dicom import require_images

                require_images(volume)
            tell(volume)
            tell_memory(volume, loaded.memory_for(volume, plane))
            with progress_bar(volume.name) as progress:
                result = loaded.detect(volume, plane=plane, progress=progress)
            files = write_result(out, volume, result, png=png, segmentation=segmentation)
            if dicom:
                from medclipad.export.dicom import write_dicom

                write_dicom(out, image, volume, result, list(dict.fromkeys(dicom)), deidentify)
            print(f"{volume.name}: volume score {result.volume_score:.3f}, {files[0]}")
        except MedCLIPADError as error:  # one bad file of a cohort must not cost the others
            failed += 1
            print(f"medclipad: {error}", file=sys.stderr)
    if failed:
        raise MedCLIPADError(f"{failed} of {len(images)} volumes failed; see above.")


@app.command()
def evaluate(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    case: Annotated[
        Pairs, typer.Option(metavar="IMAGE:MASK", help="Volume and its true lesion mask. Repeat for more.")
    ],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all figures to this file.")] = None,
    precision: Precision = "auto",
) -> None:
    """Measure a detector: slice and voxel AUROC, average precision, best Dice, beside the trivial baseline."""
    from medclipad.cli.terminal import metrics_table, progress_bar
    from medclipad.detection.detector import load_detector
    from medclipad.evaluation import evaluate_cases

    cases = [read_case(text, mask_required=True) for text in case]
    loaded = load_detector(detector, precision)
    with progress_bar() as progress:
        figures = evaluate_cases(loaded, cases, progress)
    metrics_table(figures)
    if json:
        from medclipad.export.result_files import write_json

        write_json(json, figures)


@app.command()
def serve(
    studies: Annotated[str, typer.Option(help="Folder with the volumes, or address of a DICOMweb server.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="MEDCLIPAD_TOKEN", help="Clients must send it as bearer token.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the trained detectors.")] = None,
) -> None:
    """Start the MONAI Label server."""
    from medclipad.server.launch import serve as start

    start(studies=studies, port=port, host=host, token=token, models=models)
