"""The command `medclipad benchmark`: the papers' own experiments, leakage of their test sets included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from medclipad.evaluation.protocols.comparison import Comparison
    from medclipad.methods.common.benchmark import BenchmarkSuite


class Variant(StrEnum):
    """What the method computes."""

    reference = "reference"
    paper = "paper"


class Select(StrEnum):
    """Which weights count."""

    best_test = "best-test"
    last = "last"


def benchmark(
    protocol: Annotated[str, typer.Option(metavar="METHOD", help="Method whose paper's benchmark is run.")],
    data: Annotated[Path, typer.Option(help="Folder of the benchmark's images, laid out as its authors have it.")],
    class_: Annotated[
        list[str], typer.Option("--class", help="Class or data set of the benchmark. Repeat for more.", metavar="NAME")
    ],
    shots: Annotated[
        int | None, typer.Option(min=1, help="Images of each kind to learn from; default the paper's.")
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Train on the other classes, on none of this one.")
    ] = False,
    variant: Annotated[
        Variant, typer.Option(help="reference: what the code computes; paper: what the paper says where it differs.")
    ] = Variant.reference,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the encoder; default the reference code's ViT-L.")
    ] = None,
    select: Annotated[
        Select, typer.Option(help="best-test: the epoch with the best test AUROC, as the reference; last: the last.")
    ] = Select.best_test,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Test these weights of the reference code without training.")
    ] = None,
    fewshot_seed: Annotated[
        Path | None, typer.Option(help="Folder that names the few-shot images; default DATA/fewshot_seed.")
    ] = None,
    iterate: Annotated[int, typer.Option(min=0, help="Which draw of the seed file: n-0, n-1, ...")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of weights, order and synthetic anomalies.")] = 111,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default the reference code's.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Default the reference code's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, max=1, help="Default the reference code's.")] = None,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="For trials: only so many of each kind of each test set.")
    ] = None,
    ablate: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Compare the method with parts left out or changed: levels, prompts, adapters, synthesis, losses or "
            "shots, as far as it has them.",
        ),
    ] = None,
    across: Annotated[
        bool,
        typer.Option(
            "--across", help="Train on each --class and test on all; with --zero-shot, leave each out in turn."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, and to go on from; default benchmark-METHOD-...")
    ] = None,
) -> None:
    """Repeat the papers' experiments and print their figures beside ours; run again to go on after an interruption."""
    from medclipad.cli.benchmark_runs import Runs
    from medclipad.cli.notes import require_writable
    from medclipad.detection.reference_checkpoints import read_checkpoint
    from medclipad.encoders import encoder_family
    from medclipad.methods import get_method
    from medclipad.methods.common.benchmark_settings import Settings

    suite = get_method(protocol).benchmark()
    if suite is None:
        raise MedCLIPADError(f"The method {protocol} brings no benchmark: choose another one with --protocol.")
    names = list(dict.fromkeys(class_))
    _check_options(suite, zero_shot, shots, variant, checkpoint, data, names)
    if ablate is not None or across:
        _check_comparison(suite, zero_shot, checkpoint, ablate, across, names)
    reference = suite.reference(zero_shot)
    encoder = encoder or str(reference["encoder"])
    k = 0 if zero_shot else shots or suite.default_shots
    kind = f"{k}-shot" if k else "zero-shot"
    kind += "" if variant is Variant.reference else f"-{variant.value}"
    out = out or Path(f"benchmark-{suite.name}-{'-'.join(names)}-{kind}")
    require_writable(next(part for part in (out.absolute(), *out.absolute().parents) if part.exists()),
                     "folder with --out")  # fmt: skip
    own_size = encoder_family(encoder).default_image_size is not None
    settings = Settings(
        class_name="",
        shots=k,
        encoder=encoder,
        image_size=image_size or (None if own_size else reference["image_size"]),
        epochs=epochs or reference["epochs"],
        learning_rate=learning_rate or reference["learning_rate"],
        seed=seed,
        iterate=iterate,
        max_images=max_images,
        select=select.value,
        variant=variant.value,
    )
    runs = Runs(suite, data, fewshot_seed, out, names, settings)
    if ablate is not None:
        ablations = runs.ablations(ablate)
        if shots and any(arm.shots for ablation in ablations.values() for arm in ablation.arms):
            raise MedCLIPADError(f"--ablate {ablate} sets the number of shots: leave --shots out.")
        for name, ablation in ablations.items():
            if ablation.left_out:
                print(f"Left out on {name}: {ablation.left_out}.")
        _show_comparison(out, runs.ablate(ablate, ablations))
    elif across:
        _show_comparison(out, runs.across())
    else:
        _show_records(out, suite, runs.whole(None if checkpoint is None else read_checkpoint(checkpoint).parts))


def _show_records(out: Path, suite: BenchmarkSuite, records: list[dict[str, Any]]) -> None:
    """Write and print the figures of runs beside the published ones."""
    from medclipad.cli.terminal import print_benchmark
    from medclipad.evaluation.protocols.tables import write_results

    write_results(out, records)
    _print_notes(records)
    print_benchmark(suite, records)
    print(f"{out / 'results.csv'}, results.json; scores.csv and examples.png of each class beside its state.")


def _show_comparison(out: Path, comparison: Comparison) -> None:
    """Write and print the figures of runs that are compared with one another."""
    from medclipad.cli.terminal import print_comparison
    from medclipad.evaluation.protocols.comparison import write_comparison

    write_comparison(out, comparison)
    _print_notes(comparison.records)
    print_comparison(comparison)
    files = f"{out / comparison.name}.csv, {comparison.name}.json"
    print(f"{files}; scores.csv and examples.png of each run beside its state.")


def _print_notes(records: Sequence[Mapping[str, Any]]) -> None:
    """Print each leakage and each difference from the reference once, with whether all runs have it."""
    for line in dict.fromkeys(line for record in records for line in record["leakage"]):
        print(f"Leakage: {line}")
    for line, count in Counter(line for record in records for line in record["deviations"]).items():
        print(f"Differs from the reference{'' if count == len(records) else ' in some runs'}: {line}.")


def _check_options(
    suite: BenchmarkSuite,
    zero_shot: bool,
    shots: int | None,
    variant: Variant,
    checkpoint: Path | None,
    data: Path,
    classes: list[str],
) -> None:
    """Refuse what does not go together before anything is loaded."""
    if not data.is_dir():
        raise MedCLIPADError(f"{data} is not a folder: --data must hold {suite.layout}.")
    if zero_shot and not suite.has_zero_shot:
        raise MedCLIPADError(f"{suite.name} has no zero-shot protocol: leave --zero-shot out.")
    if zero_shot and shots is not None:
        raise MedCLIPADError("Zero-shot takes no shots: give --shots or --zero-shot, not both.")
    if checkpoint is not None and variant.value not in suite.checkpoint_variants:
        raise MedCLIPADError(
            f"Checkpoints of {suite.name} belong to the reference's adapters, not the paper's: leave --variant "
            f"{variant.value} out."
        )
    if checkpoint is not None and len(classes) > 1:
        raise MedCLIPADError("A checkpoint belongs to one class: give one --class with it.")


def _check_comparison(
    suite: BenchmarkSuite,
    zero_shot: bool,
    checkpoint: Path | None,
    ablate: str | None,
    across: bool,
    classes: list[str],
) -> None:
    """Refuse what does not go together with --ablate or --across before anything is loaded."""
    if ablate is not None and across:
        raise MedCLIPADError("--ablate and --across are two tables: give one of them at a time.")
    if checkpoint is not None:
        raise MedCLIPADError("A checkpoint is tested as it is: leave --ablate and --across out, or --checkpoint.")
    if across and len(classes) < 2:
        raise MedCLIPADError("--across compares classes: give two or more with --class.")
    if across and not (zero_shot or suite.has_transfer):
        remedy = "add --zero-shot, which leaves each class out in turn" if suite.has_zero_shot else "leave --across out"
        raise MedCLIPADError(f"{suite.name} learns from shots of the class that it is tested on: {remedy}.")
