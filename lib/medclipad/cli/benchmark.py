"""medclipad benchmark: the papers' own experiments, leakage of their test sets included, for comparison."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from medclipad.evaluation.protocols.protocol import Protocol
    from medclipad.methods.base import Progress


class ProtocolName(StrEnum):
    """The benchmarks."""

    mvfa = "mvfa"
    mediclip = "mediclip"


class Variant(StrEnum):
    """What the method computes."""

    reference = "reference"
    paper = "paper"


class Select(StrEnum):
    """Which weights count."""

    best_test = "best-test"
    last = "last"


def benchmark(
    protocol: Annotated[
        ProtocolName, typer.Option(help="mvfa (BMAD's layout) or mediclip (samples/train.json, test.json).")
    ],
    data: Annotated[Path, typer.Option(help="Folder of Brain_AD and its like, or of MediCLIP's data sets.")],
    class_: Annotated[
        list[str], typer.Option("--class", help="BMAD class or MediCLIP data set. Repeat for more.", metavar="NAME")
    ],
    shots: Annotated[
        int | None, typer.Option(min=1, help="Normal (MVFA: and abnormal) pictures to learn from; default 4, 16.")
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="MVFA trained on the five other classes, none of this one.")
    ] = False,
    variant: Annotated[
        Variant, typer.Option(help="reference: what the code computes; paper: what the paper says where it differs.")
    ] = Variant.reference,
    encoder: Annotated[
        str | None, typer.Option(help='"embedded", or NAME/TAG or NAME/FILE; default the reference\'s ViT-L.')
    ] = None,
    select: Annotated[
        Select, typer.Option(help="best-test: the epoch with the best test AUROC, as the reference; last: the last.")
    ] = Select.best_test,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Test these weights of the reference (.pth) without training.")
    ] = None,
    fewshot_seed: Annotated[
        Path | None, typer.Option(help="MVFA's fewshot_seed folder; default DATA/fewshot_seed.")
    ] = None,
    iterate: Annotated[int, typer.Option(min=0, help="Which draw of the seed file: n-0, n-1, ...")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of weights, order and synthetic anomalies.")] = 111,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default 50 (MVFA), 200 (MediCLIP).")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Default 240 (MVFA), 224 (MediCLIP).")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, max=1, help="Default 1e-3; 1e-4 zero-shot.")] = None,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="For trials: only so many of each kind of each test set.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, and to go on from; default benchmark-PROTOCOL-...")
    ] = None,
) -> None:
    """Repeat the papers' experiments and print their figures beside ours; run again to go on after an interruption."""
    from medclipad.cli.terminal import benchmark_table, progress_bar
    from medclipad.detection.reference_checkpoints import read_checkpoint
    from medclipad.evaluation.protocols import mediclip, mvfa
    from medclipad.evaluation.protocols.protocol import Settings
    from medclipad.evaluation.protocols.run import STATE, test_checkpoint, train_and_test
    from medclipad.evaluation.protocols.tables import write_results, write_run

    is_mvfa = protocol is ProtocolName.mvfa
    _check_options(is_mvfa, zero_shot, shots, variant, checkpoint, data, class_)
    reference = (mvfa.ZERO_REFERENCE if zero_shot else mvfa.REFERENCE) if is_mvfa else mediclip.REFERENCE
    shots = 0 if zero_shot else shots or (4 if is_mvfa else 16)
    encoder = encoder or reference["encoder"]
    names = list(dict.fromkeys(class_))
    kind = "zero-shot" if zero_shot else f"{shots}-shot"
    kind += "" if variant is Variant.reference else f"-{variant.value}"
    out = out or Path(f"benchmark-{protocol.value}-{'-'.join(names)}-{kind}")
    _check_writable(out)

    def make(name: str, progress: Progress) -> Protocol:
        settings = Settings(
            class_name=name,
            shots=shots,
            encoder=encoder,
            image_size=image_size or (None if encoder == "embedded" else reference["image_size"]),
            epochs=epochs or reference["epochs"],
            learning_rate=learning_rate or reference["learning_rate"],
            seed=seed,
            iterate=iterate,
            max_images=max_images,
            select=select.value,
            variant=variant.value,
        )
        if not is_mvfa:
            return mediclip.MediCLIPProtocol(data, settings, progress)
        if zero_shot:
            return mvfa.ZeroShot(data, settings, progress)
        return mvfa.FewShot(data, fewshot_seed or data / "fewshot_seed", settings, progress)

    state = None if checkpoint is None else read_checkpoint(checkpoint).parts
    records = []
    for name in names:
        folder = out / name if len(names) > 1 else out
        with progress_bar(name) as progress:
            experiment = make(name, progress)
            if state is None and (folder / STATE).exists():
                print(f"{name}: going on with the run in {folder}.", file=sys.stderr)
            if state is None:
                outcome = train_and_test(experiment, folder, progress)
            else:
                outcome = test_checkpoint(experiment, state, progress)
        records.append(write_run(folder, experiment, outcome))
    write_results(out, records)
    for line in dict.fromkeys(line for one in records for line in one["leakage"]):
        print(f"Leakage: {line}")
    for line in dict.fromkeys(line for one in records for line in one["deviations"]):
        print(f"Differs from the reference: {line}.")
    benchmark_table(records)
    print(f"{out / 'results.csv'}, results.json; scores.csv and examples.png of each class beside its state.")


def _check_options(
    is_mvfa: bool,
    zero_shot: bool,
    shots: int | None,
    variant: Variant,
    checkpoint: Path | None,
    data: Path,
    classes: list[str],
) -> None:
    """Refuse what does not go together before anything is loaded."""
    if not data.is_dir():
        raise MedCLIPADError(f"{data} is not a folder: --data must hold the benchmark's pictures.")
    if zero_shot and not is_mvfa:
        raise MedCLIPADError("MediCLIP has no zero-shot protocol: leave --zero-shot out, or use --protocol mvfa.")
    if zero_shot and shots is not None:
        raise MedCLIPADError("Zero-shot takes no shots: give --shots or --zero-shot, not both.")
    if checkpoint is not None and is_mvfa and variant is Variant.paper:
        raise MedCLIPADError(
            "MVFA's checkpoints belong to the reference's adapters, not the paper's: leave --variant paper out."
        )
    if checkpoint is not None and len(set(classes)) > 1:
        raise MedCLIPADError("A checkpoint belongs to one class: give one --class with it.")


def _check_writable(out: Path) -> None:
    home = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        raise MedCLIPADError(f"Nothing can be written to {home}: choose another folder with --out.")
