"""The command line's `models` commands: list, show, push, pull, import, export, export-onnx, bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medclipad.cli.options import (
    IMAGES,
    IMAGES_HELP,
    Component,
    ManyValues,
    Series,
    Untilt,
    epilog,
    with_fit_options,
)
from medclipad.errors import MedCLIPADError

models_app = typer.Typer(
    no_args_is_help=True,
    help="Look at saved detectors, give and take them; import and export checkpoints of the methods' original code.",
    rich_markup_mode=None,
)


@models_app.command("list", epilog=epilog("medclipad models list models/"))
def models_list(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds detector folders.")],
) -> None:
    """List the detectors in a folder."""
    from medclipad.cli.terminal import print_detectors
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
    print_detectors([(path.relative_to(folder), info) for path, info in found])


@models_app.command("show", epilog=epilog("medclipad models show models/mine"))
def models_show(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")]) -> None:
    """Print the detector.json of a detector."""
    from medclipad.detection.storage import read_info

    print(read_info(folder).model_dump_json(indent=2))


@models_app.command("push", epilog=epilog("medclipad models push models/mine hf://owner/name"))
def models_push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")],
    target: Annotated[str, typer.Argument(metavar="DIR|hf://OWNER/NAME", help="New folder, or repository of the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody read a repository that is new.")] = False,
) -> None:
    """Give a detector away, with numbers in place of the names of its volumes."""
    from medclipad.detection.exchange import push

    print(f"{folder}: written to {push(folder, target, private=not public)}, without the names of volumes.")


@models_app.command("pull", epilog=epilog("medclipad models pull hf://owner/name --out models/theirs"))
def models_pull(
    source: Annotated[str, typer.Argument(metavar="DIR|hf://OWNER/NAME", help="Folder, or repository of the hub.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the detector.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
) -> None:
    """Take a detector from a folder or the Hugging Face hub; a damaged one is refused."""
    from medclipad.detection.exchange import pull

    info = pull(source, out, revision)
    print(f"{out}: {info.method} on {info.encoder}. {info.calibration.promise()}")


@models_app.command(
    "import", cls=ManyValues, epilog=epilog("medclipad models import Brain.pth --out models/brain --normal healthy/")
)
@with_fit_options("method", "encoder", "class_name")
def models_import(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Checkpoints that a reference code saved.")],
    out: Annotated[
        Path,
        typer.Option(help="New folder for the detector; for several files, a folder that gets one subfolder each."),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME/TAG|NAME/FILE", help="What the weights were trained on; default: the reference code's."
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(help="What the pictures show, where prompts name it; default: the file's name, as in Brain.pth."),
    ] = None,
    normal: Annotated[
        list[str],
        typer.Option(metavar=IMAGES, help=f"Normal volumes, for the memory and the limits. {IMAGES_HELP}"),
    ] = [],  # noqa: B006
    abnormal: Annotated[
        list[str],
        typer.Option(metavar="IMAGE:MASK...", help=f"Volumes with lesions, for the scale of the maps. {IMAGES_HELP}"),
    ] = [],  # noqa: B006
    component: Component = None,
    series: Series = None,
    untilt: Untilt = False,
    options: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Turn a checkpoint into a detector, after checking every key, shape, type and value."""
    from medclipad.cli.notes import read_with_notes, require_new
    from medclipad.cli.terminal import progress_bar
    from medclipad.detection.cases import Reading
    from medclipad.detection.reference_checkpoints import activation_note, import_checkpoint

    folders = [out / file.stem for file in files] if len(files) > 1 else [out]
    if len(set(folders)) < len(folders):
        raise MedCLIPADError("Several files have the same name and would overwrite each other: import them one by one.")
    for folder in folders:
        require_new(folder, "folder for the detector")
    reading = Reading(component, series, "resample" if untilt else "refuse")
    cases: dict[str, Any] = {
        "normal": read_with_notes(normal, reading),
        "abnormal": read_with_notes(abnormal, reading, need_mask=True),
    }
    for file, folder in zip(files, folders, strict=True):
        with progress_bar(file.stem) as progress:
            detector = import_checkpoint(
                file, encoder=encoder, class_name=class_name, **cases, progress=progress, **options
            )
        detector.save(folder)
        if note := activation_note(detector.info.method, detector.info.encoder):
            print(f"medclipad: {note}", file=sys.stderr)
        print(f"{folder}: {detector.info.method} on {detector.info.encoder}. {detector.info.description}")


@models_app.command("export", epilog=epilog("medclipad models export models/brain --out Brain.pth"))
def models_export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file, such as Brain.pth.")],
) -> None:
    """Write a detector's weights as the reference code saves them."""
    from medclipad.detection.reference_checkpoints import export_checkpoint

    left_out = export_checkpoint(folder, out)
    print(f"{out}: written. Left out, as the format has no place for them: {'; '.join(left_out)}.")


@models_app.command("export-onnx", epilog=epilog("medclipad models export-onnx models/mine mine.onnx"))
def models_export_onnx(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")],
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="New file, such as mine.onnx; of several planes, one file each.")
    ],
) -> None:
    """Write encoder and trained head as ONNX, and compare what onnxruntime computes with torch."""
    from medclipad.export.onnx import TOLERANCE, export_onnx

    for file in export_onnx(folder, out):
        print(f"{file}: written; onnxruntime computes the same as torch to {TOLERANCE:g}.")


@models_app.command("bundle", epilog=epilog("medclipad models bundle models/mine bundles/mine"))
def models_bundle(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Detector folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUTDIR", help="New folder for the bundle.")],
) -> None:
    """Write a detector as a MONAI bundle, with numbers in place of the names of its volumes."""
    from medclipad.export.monai_bundle import write_bundle

    print(
        f"{write_bundle(folder, out)}: written. In it: python -m monai.bundle run --config_file configs/inference.json"
    )
