"""Accuracy on four glioma cases (BRATS 2013, FLAIR): fit on three, detect on the fourth, for each of the four.

    python -m benchmarks.brats DIR [--method mediclip|mvfa|both] [--variant reference|paper] [--json FILE]

DIR holds one folder for each case with Flair_subtrMeanDivStd.nii.gz and OTMultiClass.nii.gz (labels above 0 are
tumour). MediCLIP learns from the lesion-free slices of the three cases; MVFA also from their slices with lesion. Each
metric is shown beside that of a trivial baseline: the raw intensity, taken as an anomaly map.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import medclipad as mc
from benchmarks.machine import machine
from medclipad.cli.terminal import print_metrics, progress_bar
from medclipad.encoders import default_encoder, encoder_usage
from medclipad.evaluation.cases import evaluate_cases
from medclipad.export.result_files import write_json

IMAGE, TRUTH = "Flair_subtrMeanDivStd.nii.gz", "OTMultiClass.nii.gz"


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the cases.")],
    method: Annotated[Literal["mediclip", "mvfa", "both"], typer.Option(help="Method to measure.")] = "both",
    encoder: Annotated[str, typer.Option(help=f"Encoder: {encoder_usage()}.")] = default_encoder(),
    shots: Annotated[int, typer.Option(help="Normal slices to learn from, and abnormal ones; 0 for all.")] = 32,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the training; default the method's own.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the encoder's input in pixels.")] = None,
    planes: Annotated[str, typer.Option(help="Planes of the slices.")] = "axial",
    variant: Annotated[str, typer.Option(help="Variant of the method: reference or paper.")] = "reference",
    seeds: Annotated[int, typer.Option(help="Number of seeds; each repeats everything.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
) -> None:
    """Measure the leave-one-patient-out accuracy on BRATS cases."""
    cases = []
    for folder in sorted(path for path in data.iterdir() if (path / IMAGE).is_file()):
        volume, truth = (mc.read_volume(folder / name) for name in (IMAGE, TRUTH))
        cases.append((replace(volume, name=folder.name), replace(truth, name=folder.name)))
    runs = []
    for method_name in ("mediclip", "mvfa") if method == "both" else (method,):
        options: dict[str, Any] = {"method": method_name, "encoder": encoder, "planes": planes, "variant": variant}
        options |= {"image_size": image_size, "shots": shots or "all"}
        options |= {} if epochs is None else {"epochs": epochs}
        for seed in range(seeds):
            evaluations = []
            for left_out, case in enumerate(cases):
                others = cases[:left_out] + cases[left_out + 1 :]
                given = {"normal": others} if method_name == "mediclip" else {"abnormal": others}
                with progress_bar(f"{method_name}, seed {seed}, without {case[0].name}:") as progress:
                    detector = mc.fit(seed=seed, progress=progress, **given, **options)
                    evaluations += evaluate_cases(detector, [case], progress)
            print(f"\n{method_name}, {encoder}, {shots or 'all'} shots, {planes}, {variant}, seed {seed}")
            print_metrics(evaluations)
            runs.append({"method": method_name, "variant": variant, "seed": seed, "cases": evaluations})
    if json:
        write_json(json, {"machine": machine(), "shots": shots, "encoder": encoder, "planes": planes, "runs": runs})


if __name__ == "__main__":
    typer.run(main)
