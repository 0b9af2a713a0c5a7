"""Accuracy on four glioma cases (BRATS 2013, FLAIR): fit on three, detect on the fourth, all four ways round.

    python -m benchmarks.brats DIR [--method mediclip|mvfa|both] [--variant reference|paper] [--json FILE]

DIR holds one folder a case with Flair_subtrMeanDivStd.nii.gz and OTMultiClass.nii.gz (labels above 0 are tumour).
MediCLIP learns from the lesion-free slices of the three; MVFA from their slices with lesion as well. Beside each figure
stands the trivial baseline: the raw intensity, taken as an anomaly map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import medclipad as mc
from benchmarks.machine import machine
from medclipad.cli.terminal import metrics_table, progress_bar
from medclipad.evaluation import evaluate_cases
from medclipad.export.result_files import write_json

IMAGE, TRUTH = "Flair_subtrMeanDivStd.nii.gz", "OTMultiClass.nii.gz"


def main(
    data: Path,
    method: Literal["mediclip", "mvfa", "both"] = "both",
    encoder: str = "embedded",
    shots: Annotated[int, typer.Option(help="0 for all")] = 32,
    epochs: int | None = None,
    image_size: int | None = None,
    plane: str = "axial",
    variant: Annotated[str, typer.Option(help="of the methods: reference or paper")] = "reference",
    seeds: Annotated[int, typer.Option(help="Repeat with seeds 0 to N - 1.")] = 1,
    json: Path | None = None,
) -> None:
    """Leave-one-patient-out accuracy on the BRATS cases."""
    cases = []
    for folder in sorted(path for path in data.iterdir() if (path / IMAGE).is_file()):
        cases.append((mc.read_volume(folder / IMAGE), mc.read_volume(folder / TRUTH)))
        cases[-1] = tuple(_renamed(volume, folder.name) for volume in cases[-1])
    runs = []
    for one in ("mediclip", "mvfa") if method == "both" else (method,):
        for seed in range(seeds):
            figures = []
            for left_out, case in enumerate(cases):
                others = cases[:left_out] + cases[left_out + 1 :]
                with progress_bar(f"{one}, seed {seed}, without {case[0].name}:") as progress:
                    detector = mc.fit(
                        method=one,
                        encoder=encoder,
                        **({"normal": others} if one == "mediclip" else {"abnormal": others}),
                        shots=shots or None,
                        plane=plane,
                        seed=seed,
                        image_size=image_size,
                        progress=progress,
                        variant=variant,
                        **({} if epochs is None else {"epochs": epochs}),
                    )
                    figures += evaluate_cases(detector, [case], progress)
            print(f"\n{one}, {encoder}, {shots or 'all'} shots, {plane}, {variant}, seed {seed}")
            metrics_table(figures)
            runs.append({"method": one, "variant": variant, "seed": seed, "cases": figures})
    if json:
        write_json(json, {"machine": machine(), "shots": shots, "encoder": encoder, "plane": plane, "runs": runs})


def _renamed(volume: mc.Volume, name: str) -> mc.Volume:
    return mc.Volume(volume.array, volume.affine, name, volume.modality, volume.metadata)


if __name__ == "__main__":
    typer.run(main)
