"""The command line's `models` commands: list | show | import | export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medclipad.cli.cases import Precision, read_case, require_new
from medclipad.errors import MedCLIPADError

models_app = typer.Typer(
    no_args_is_help=True,
    help="Look at saved detectors; import and export the reference projects' checkpoints.",
    rich_markup_mode=None,
)


@models_app.command("list")
def models_list(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds detector folders.")],
) -> None:
    """List the detectors in a folder."""
    from medclipad.cli.terminal import models_table
    from medclipad.detection.storage import INFO, read_info

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
    from medclipad.detection.storage import read_info

    print(read_info(folder).model_dump_json(indent=2))


@models_app.command("import")
def models_import(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="MVFA's {Class}.pth or MediCLIP's checkpoint.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the detector; for several files, one in it for each.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME/TAG|NAME/FILE",
            help="What the weights were trained on; default ViT-L-14-336/openai (MVFA) or ViT-L-14-quickgelu/openai.",
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option(help="What MVFA's prompts call the picture; default by the name, as in Brain.pth.")
    ] = None,
    normal: Annotated[
        list[str],
        typer.Option(metavar="IMAGE[:MASK]", help="Normal volume, for MVFA's memory and the threshold; repeat."),
    ] = [],  # noqa: B006
    abnormal: Annotated[
        list[str], typer.Option(metavar="IMAGE:MASK", help="Volume with lesions, for the scale of MVFA's maps.")
    ] = [],  # noqa: B006
    shots: Annotated[int, typer.Option(min=0, help="Normal, and abnormal, slices to take from them; 0 for all.")] = 32,
    plane: Annotated[str, typer.Option(help="axial, coronal, sagittal or acquisition.")] = "axial",
    intensity: Annotated[
        str, typer.Option(help="auto, mr, raw, ct:brain, ct:lung, ct:abdomen, ct:bone or ct:LEVEL,WIDTH.")
    ] = "auto",
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the encoder's input in pixels; default the reference's.")
    ] = None,
    smoothing: Annotated[float, typer.Option(min=0, help="Smoothing of the maps in mm; 0 for none.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Decides which slices and tokens are taken.")] = 0,
    precision: Precision = "auto",
) -> None:
    """Make a detector of a checkpoint of the reference projects, checking every key, shape, type and value."""
    from medclipad.cli.terminal import progress_bar
    from medclipad.detection.reference_checkpoints import activation_note, import_checkpoint

    folders = [out / file.stem for file in files] if len(files) > 1 else [out]
    if len(set(folders)) < len(folders):
        raise MedCLIPADError("Several files have the same name and would overwrite each other: import them one by one.")
    for folder in folders:
        require_new(folder, "folder for the detector")
    cases = {
        "normal": [read_case(text) for text in normal],
        "abnormal": [read_case(text, mask_required=True) for text in abnormal],
    }
    for file, folder in zip(files, folders, strict=True):
        with progress_bar(file.stem) as progress:
            detector = import_checkpoint(
                file, encoder, class_name, **cases, shots=shots or None, plane=plane, intensity=intensity,
                image_size=image_size, smoothing=smoothing, seed=seed, progress=progress, precision=precision,
            )  # fmt: skip
        detector.save(folder)
        if note := activation_note(detector.info.method, detector.info.encoder):
            print(f"medclipad: {note}", file=sys.stderr)
        print(f"{folder}: {detector.info.method} on {detector.info.encoder}. {detector.info.description}")


@models_app.command("export")
def models_export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file, such as Brain.pth.")],
) -> None:
    """Write a detector's weights as the reference project saves them."""
    from medclipad.detection.reference_checkpoints import export_checkpoint

    left_out = export_checkpoint(folder, out)
    print(f"{out}: written. Left out, as the format has no place for them: {'; '.join(left_out)}.")
