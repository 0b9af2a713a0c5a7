"""Ranking without a detector: how well it puts abnormal scans first, with 10 to 50 % of them in the cohort.

    python -m benchmarks.unlabelled STUDIES [--scans 20] [--resolution 2] [--json FILE]

STUDIES is a folder for sample studies, which are made there: simulated brains of the ICBM template, different people,
on six grids. Abnormal scans are drawn from the five kinds of the study in turn. Each scan is held against a memory of
the others, as `medclipad cohort --no-detector` does. The trivial baseline ranks by the brightest voxels: the mean over
the 5 % of slices with the highest maximum of the body's intensity.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.machine import machine
from benchmarks.pages import markdown_table
from medclipad.cli.terminal import progress_bar
from medclipad.cohort.listing import Scan
from medclipad.cohort.ranking import fit_folds
from medclipad.detection.cases import AS_IS
from medclipad.detection.detector import load_detector
from medclipad.detection.result import volume_score
from medclipad.evaluation.metrics import baseline_map
from medclipad.export.result_files import write_json
from sample_data.make_study import StudyCase, make_study

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main(
    studies: Annotated[Path, typer.Argument(help="Folder for the sample studies.")],
    scans: Annotated[int, typer.Option(min=10, help="Scans in each cohort.")] = 20,
    resolution: Annotated[float, typer.Option(help="Finest spacing in mm; larger is quicker.")] = 2.0,
    json: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
) -> None:
    """Rank cohorts of sample scans without a detector, and print the figures as a table."""
    seeds = range(-(-scans // 6))  # a study has six normal scans
    cases = [case for seed in seeds for case in _study(studies, seed, resolution)]
    rows = []
    with progress_bar() as progress:
        for done, share in enumerate(SHARES):
            progress("cohorts", done, len(SHARES), {})
            rows.append(measure(_cohort(cases, scans, round(share * scans))))
    headings = ["abnormal", "AUROC", "AUROC, brightness", "average precision", "average precision, brightness"]
    cells = [
        [f"{row['abnormal']:.0f} of {scans}", *(f"{row[key]:.3f}" for key in ("auroc", "auroc_b", "ap", "ap_b"))]
        for row in rows
    ]
    print(markdown_table(headings, cells))
    if json:
        write_json(json, {"machine": machine(), "resolution": resolution, "scans": scans, "rows": rows})


def measure(cohort: list[tuple[Scan, bool]]) -> dict[str, float]:
    """Return AUROC and average precision of the ranking and of the baseline."""
    abnormal = {scan.name: sick for scan, sick in cohort}
    with tempfile.TemporaryDirectory() as folder:
        listed, folders = fit_folds([scan for scan, _ in cohort], Path(folder), AS_IS)
        detectors = [load_detector(path) for path in folders]
    scores, brightness, truth = [], [], []
    for scan in listed:
        volume = scan.read(AS_IS)
        result = detectors[scan.fold].detect(volume)
        trivial = result.slicing.slices(baseline_map(volume, result.foreground)).max(axis=(1, 2))
        scores.append(result.volume_score)
        brightness.append(volume_score(np.where(np.isnan(result.slice_scores), np.nan, trivial)))
        truth.append(abnormal[scan.name])
    return {
        "abnormal": sum(truth),
        "auroc": float(roc_auc_score(truth, scores)),
        "auroc_b": float(roc_auc_score(truth, brightness)),
        "ap": float(average_precision_score(truth, scores)),
        "ap_b": float(average_precision_score(truth, brightness)),
    }


def _study(studies: Path, seed: int, resolution: float) -> list[tuple[Scan, StudyCase]]:
    made = make_study(studies / f"seed-{seed}", seed, resolution=resolution)
    return [(Scan(f"{case.id}-{seed}", str(case.image)), case) for case in made]


def _cohort(cases: list[tuple[Scan, StudyCase]], scans: int, abnormal: int) -> list[tuple[Scan, bool]]:
    """Return the first scans of each kind: so many abnormal ones, the others normal."""
    sick = [(scan, True) for scan, case in cases if case.truth is not None]
    healthy = [(scan, False) for scan, case in cases if case.truth is None]
    return sick[:abnormal] + healthy[: scans - abnormal]


if __name__ == "__main__":
    typer.run(main)
