"""Accuracy of the maps of volumes, part by part: `python -m benchmarks.volumes [--brats DIR] [--json FILE]`.

Sample studies are made anew for each seed: fit on their six normal volumes, detect on their five abnormal ones. Seeds
1, 3 and 5 are for choosing (`--tuning`), 0, 2 and 4 for looking at once. DIR holds glioma cases (BRATS 2013), one
folder each with Flair_subtrMeanDivStd.nii.gz and OTMultiClass.nii.gz (labels above 0 are tumour): fit on all but one,
detect on that one, for each of them; with `--shots` also on so many normal and as many outlined slices of the others.

Each row switches on one part more; the baseline is the raw intensity, taken as a map. Intervals are over cases (95 %).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

import medclipad as mc
from benchmarks.machine import machine
from medclipad.cli.terminal import print_table, progress_bar
from medclipad.detection.detector import AnomalyDetector
from medclipad.evaluation.cases import CaseEvaluation, evaluate_cases
from medclipad.evaluation.metrics import MeanMetrics
from medclipad.evaluation.summary import as_dict, summarise
from medclipad.export.result_files import write_json
from medclipad.methods import get_method
from sample_data.make_study import make_study

TUNING, TEST = (1, 3, 5), (0, 2, 4)
IMAGE, TRUTH = "Flair_subtrMeanDivStd.nii.gz", "OTMultiClass.nii.gz"
SMALL_LESIONS = "small-lesions"

Pair = tuple[mc.Volume, mc.Volume]
Task = tuple[str, dict[str, Any], list[Pair]]
"""A name, what a detector is fit on, and the cases it is tried on."""


def _as_it_is(detector: AnomalyDetector) -> None:
    pass


def _map_alone(detector: AnomalyDetector) -> None:
    detector.evidence = None


def _places_alone(detector: AnomalyDetector) -> None:
    if detector.evidence is not None:
        detector.evidence = replace(detector.evidence, weights=(1.0, 0.0, 0.0, 0.0))


PARTS: dict[str, tuple[dict[str, Any], list[tuple[str, Callable[[AnomalyDetector], None]]]]] = {
    "axial, 224 pixels": ({"planes": "axial", "image_size": 224}, [("", _map_alone)]),
    "axial": ({"planes": "axial"}, [("", _map_alone)]),
    "all planes": (
        {"planes": "all", "align": "off"},
        [("", _map_alone), (", usual at its place", _places_alone), (", unusual brightness", _as_it_is)],
    ),
    "by default": ({"planes": "all"}, [("", _as_it_is)]),  # all of it, and aligned where that can be
    # Everywhere what a second, finer pass would see where the first is suspicious: the most that it could bring.
    "all planes, 480 pixels": ({"planes": "all", "image_size": 480}, [("", _as_it_is)]),
}
"""Options of a fit, and what is switched off in the detector for each row."""


def main(
    brats: Annotated[Path | None, typer.Option(help="Folder of glioma cases.")] = None,
    tuning: Annotated[bool, typer.Option(help="The seeds for choosing, instead of those for looking at once.")] = False,
    studies: Annotated[bool, typer.Option(help="Whether to measure the sample studies.")] = True,
    shots: Annotated[int, typer.Option(help="Marked slices of each kind, on the glioma cases; 0: none.")] = 16,
    method: Annotated[str, typer.Option(help="Method of the detectors.")] = "mediclip",
    only_default: Annotated[bool, typer.Option(help="Leave out the rows that have a part switched off.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Measure the accuracy of the maps of volumes."""
    rows: dict[tuple[str, str], list[CaseEvaluation]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = [*_studies(Path(folder), TUNING if tuning else TEST)] if studies else []
        tasks += [*_patients(brats, shots)] if brats else []
        needs_abnormal = "abnormal" in get_method(method).needs
        for data, given, cases in tasks:
            if needs_abnormal and "abnormal" not in given:
                continue
            shown = {"by default": PARTS["by default"]} if only_default or "shots" in given else PARTS
            for part, (options, variants) in shown.items():
                with progress_bar(f"{data}, {part}:") as progress:
                    start = time.perf_counter()
                    detector = mc.fit(method=method, progress=progress, **given, **options)
                    spent, whole = time.perf_counter() - start, detector.evidence
                    for name, switch in variants:
                        detector.evidence = whole
                        switch(detector)
                        row = (data, part + name)
                        rows.setdefault(row, []).extend(evaluate_cases(detector, cases, progress))
                        seconds.setdefault(row, []).append(spent)
    print_table(
        ("data", "map", "cases", *MeanMetrics.model_fields, "AP of small lesions", "fit, s"),
        [_row(row, evaluations, seconds[row]) for row, evaluations in rows.items()],
    )
    if json:
        found = [
            {"data": data, "map": name, "fit_seconds": seconds[data, name], **as_dict(cases, summarise(cases), {})}
            for (data, name), cases in rows.items()
        ]
        write_json(json, {"machine": machine(), "method": method, "rows": found})


def _row(row: tuple[str, str], cases: list[CaseEvaluation], seconds: list[float]) -> tuple[str, ...]:
    means = summarise(cases).means
    figures = []
    for name in MeanMetrics.model_fields:
        ours, theirs = means[name].detector, means[name].baseline
        interval = "" if ours.low is None else f" ({ours.low:.2f}–{ours.high:.2f})"
        figures.append(f"{ours.value:.3f}{interval}; baseline {theirs.value:.3f}")
    small = [case.metrics.average_precision or 0.0 for case in cases if SMALL_LESIONS in case.name]
    return (*row, str(len(cases)), *figures, f"{mean(small):.3f}" if small else "", f"{mean(seconds):.0f}")


def _studies(folder: Path, seeds: tuple[int, ...]) -> Iterator[Task]:
    """Yield the sample study of each seed."""
    for seed in seeds:
        with progress_bar() as progress:
            study = make_study(folder / str(seed), seed, progress)
        normal = [mc.read_volume(case.image) for case in study if case.truth is None]
        cases = [(mc.read_volume(case.image), mc.read_volume(case.truth)) for case in study if case.truth is not None]
        yield "sample studies, normal only", {"normal": normal}, cases


def _patients(folder: Path, shots: int) -> Iterator[Task]:
    """Yield each glioma case with the others to learn from: their normal slices, then some marked slices."""
    cases = []
    for path in sorted(path for path in folder.iterdir() if (path / IMAGE).is_file()):
        volume, truth = (mc.read_volume(path / name) for name in (IMAGE, TRUTH))
        cases.append((replace(volume, name=path.name), replace(truth, name=path.name)))
    for left_out, case in enumerate(cases):
        others = cases[:left_out] + cases[left_out + 1 :]
        yield "BRATS, normal only", {"normal": others}, [case]
        if shots:
            yield f"BRATS, {shots} + {shots} slices", {"abnormal": others, "shots": shots}, [case]


if __name__ == "__main__":
    typer.run(main)
