"""The command line: medclipad fit | detect | evaluate | serve | models."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from medclipad.errors import MedCLIPADError

# Everything heavy is imported inside the commands: --help must not wait for torch.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Anomaly maps of MRI and CT volumes, from a few normal slices.",
)
models_app = typer.Typer(no_args_is_help=True, help="Look at saved detectors.", rich_markup_mode=None)
app.add_typer(models_app, name="models")

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
) -> None:
    """Train a detector on a few slices and save it."""
    from medclipad.detector import fit as fit_detector
    from medclipad.terminal import progress_bar

    if out.exists():
        raise MedCLIPADError(f"{out} exists already: choose another folder for the detector.")
    home = next(folder for folder in out.absolute().parents if folder.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):  # better known now than after the training
        raise MedCLIPADError(f"Nothing can be written to {home}: choose another folder for the detector.")
    options = {} if epochs is None else {"epochs": epochs}
    with progress_bar() as progress:
        detector = fit_detector(
            method=method,
            encoder=encoder,
            normal=[_case(text) for text in normal],
            abnormal=[_case(text, mask_required=True) for text in abnormal],
            shots=shots or None,
            plane=plane,
            intensity=intensity,
            image_size=image_size,
            smoothing=smoothing,
            seed=seed,
            name=name or out.name,
            progress=progress,
            **options,
        )
    detector.save(out)
    info = detector.info
    print(f"{out}: {info.method} on {info.encoder}, {info.shots} normal and {info.abnormal_shots} abnormal shots.")


@app.command()
def detect(
    detector: Annotated[Path, typer.Argument(help="Detector folder.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Volumes: NIfTI, NRRD, MHA or a DICOM folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    plane: Annotated[str | None, typer.Option(help="Plane to analyse; default the detector's.")] = None,
    png: Annotated[bool, typer.Option(help="Also draw the most anomalous slices: IMAGE_anomaly.png.")] = False,
    segmentation: Annotated[
        bool, typer.Option(help="Also write the mask at the threshold: IMAGE_segmentation.nii.gz.")
    ] = False,
) -> None:
    """Write IMAGE_anomaly.nii.gz, IMAGE_scores.csv and IMAGE.json for each volume."""
    from medclipad.detector import load_detector
    from medclipad.terminal import progress_bar
    from medclipad.volume import case_name, read_volume
    from medclipad.writers import write_result

    names = [case_name(image) for image in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MedCLIPADError(
            f'Several images are called "{twice[0]}" and would overwrite each other: detect them one by one.'
        )
    loaded = load_detector(detector)
    failed = 0
    for image in images:
        try:
            volume = read_volume(image)
            _tell(volume)
            with progress_bar(volume.name) as progress:
                result = loaded.detect(volume, plane=plane, progress=progress)
            files = write_result(out, volume, result, png=png, segmentation=segmentation)
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
) -> None:
    """Measure a detector: slice and voxel AUROC, average precision, best Dice, beside the trivial baseline."""
    from medclipad.detector import load_detector
    from medclipad.evaluation import evaluate_cases
    from medclipad.terminal import metrics_table, progress_bar

    cases = [_case(text, mask_required=True) for text in case]
    loaded = load_detector(detector)
    with progress_bar() as progress:
        figures = evaluate_cases(loaded, cases, progress)
    metrics_table(figures)
    if json:
        from medclipad.writers import write_json

        write_json(json, figures)


@app.command()
def serve(
    studies: Annotated[str, typer.Option(help="Folder with the volumes.")],
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
    from medclipad.serve import serve as start

    start(studies=studies, port=port, host=host, token=token, models=models)


@models_app.command("list")
def models_list(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds detector folders.")],
) -> None:
    """List the detectors in a folder."""
    from medclipad.storage import INFO, read_info
    from medclipad.terminal import models_table

    if not folder.is_dir():
        raise MedCLIPADError(f"{folder} is not a folder.")
    found = []
    for file in sorted(folder.rglob(INFO)):
        try:
            found.append((file.parent, read_info(file.parent)))
        except MedCLIPADError as error:  # a damaged detector must not hide the others
            print(f"medclipad: {error}", file=sys.stderr)
    if not found:
        raise MedCLIPADError(f"There is no detector in {folder}: make one with `medclipad fit`.")
    models_table([(path.relative_to(folder), info) for path, info in found])


@models_app.command("show")
def models_show(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")]) -> None:
    """Print the detector.json of a detector."""
    from medclipad.storage import read_info

    print(read_info(folder).model_dump_json(indent=2))


def _case(text: str, mask_required: bool = False):
    """A volume, or (volume, mask), from "IMAGE" or "IMAGE:MASK"."""
    from medclipad.volume import read_volume

    image, _, mask = text.rpartition(":") if _has_mask(text) else (text, "", "")
    if not mask and mask_required:
        raise MedCLIPADError(f'"{text}" lacks its mask: write IMAGE:MASK.')
    volume = read_volume(image)
    _tell(volume)
    return (volume, read_volume(mask)) if mask else volume


def _tell(volume) -> None:
    """Say how a file was understood, where that is not obvious."""
    for note in volume.notes:
        print(f"{volume.name}: {note}", file=sys.stderr)


def _has_mask(text: str) -> bool:
    """Whether the last colon parts an image from a mask: not that of C:\\ and not one in a file's name."""
    return ":" in text[2:] and not Path(text).exists()
