"""Make the sample study: `python -m sample_data.make_study OUT`.

OUT/study.json describes the cases, OUT/images holds the volumes side by side (a MONAI Label server sees only the top
level of its studies folder), OUT/truth the lesion masks. README.md beside this file says what is simulated, and how.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medclipad.errors import MedCLIPADError
from medclipad.files import write_text
from medclipad.volume import write_volume
from medclipad.volume.progress import Progress, no_progress
from sample_data.cases import CASES, Case
from sample_data.dicom import write_series
from sample_data.simulate import simulate
from sample_data.template import load_template

WORKERS = 2
MODULES = ("cases", "dicom", "fields", "lesions", "make_study", "person", "shapes", "simulate", "template")


@dataclass(frozen=True)
class StudyCase:
    """Case of a study on disk.

    Attributes
    ----------
    id : str
        Name of the case.
    kind : str
        "normal", or the simulated abnormality.
    description : str
        What it shows.
    image : pathlib.Path
        Volume: a file, or the folder of a DICOM series.
    truth : pathlib.Path or None
        Mask of the lesion; None for normal cases.
    """

    id: str
    kind: str
    description: str
    image: Path
    truth: Path | None


def make_study(
    out: str | Path,
    seed: int = 0,
    progress: Progress = no_progress,
    *,
    cases: Iterable[str] | None = None,
    resolution: float = 0.0,
) -> list[StudyCase]:
    """Make the sample study, unless it is there already, complete, from the same seed and code.

    The voxels of a case depend on its id, the seed and the resolution alone. Each file appears whole, and study.json
    last: without it a study is unfinished. Other files in the folder stay.

    Parameters
    ----------
    out
        Folder for the study.
    seed
        Another seed makes other people.
    progress
        Called as `progress("sample study", done, total, {"case": id})`.
    cases
        Ids of the cases to make; default all.
    resolution
        Finest spacing in mm; larger values make small volumes for quick tests.

    Returns
    -------
    list of StudyCase
        The cases on disk.

    Raises
    ------
    MedCLIPADError
        If there is no case of an id.
    """
    out = Path(out).expanduser()
    chosen_ids = {case.id for case in CASES} if cases is None else set(cases)
    chosen = [case for case in CASES if case.id in chosen_ids]
    unknown = chosen_ids - {case.id for case in CASES}
    if unknown or not chosen:
        known = ", ".join(case.id for case in CASES)
        raise MedCLIPADError(f"there is no sample case {', '.join(sorted(unknown)) or 'to make'}; choose from {known}")
    chosen = [replace(case, grid=case.grid.coarser(resolution)) for case in chosen]
    index = out / "study.json"
    study = _describe(chosen, seed, resolution)
    if (
        index.exists()
        and json.loads(index.read_text("utf-8")) == study
        and all(map(_is_complete, _on_disk(study, out)))
    ):
        return _on_disk(study, out)
    index.unlink(missing_ok=True)
    for folder in ("images", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    progress("sample study", 0, len(chosen), {"case": "template"})
    load_template()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {pool.submit(write_case, case, seed, out): case for case in chosen}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                progress("sample study", done, len(chosen), {"case": jobs[job].id})
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_text(index, json.dumps(study, indent=2, ensure_ascii=False) + "\n")
    return _on_disk(study, out)


def read_study(out: str | Path) -> list[StudyCase]:
    """Return the cases of a finished study; MedCLIPADError if the folder holds none."""
    index = Path(out) / "study.json"
    if not index.exists():
        raise MedCLIPADError(
            f"{out} holds no finished sample study; make it with `python -m sample_data.make_study {out}`"
        )
    return _on_disk(json.loads(index.read_text("utf-8")), Path(out))


def write_case(case: Case, seed: int, out: Path) -> None:
    """Simulate a case and write its volume and mask into the folder of a study."""
    volume, truth = simulate(case, seed)
    path = out / "images" / (case.id + case.suffix)
    if case.suffix:
        write_volume(volume, path)
    else:
        write_series(volume, path, case.description, seed)
    if truth is not None:
        write_volume(truth, out / "truth" / f"{case.id}.nii.gz")


def _describe(cases: list[Case], seed: int, resolution: float) -> dict[str, Any]:
    """Return the content of study.json, by which a finished study of the same seed and code is recognised."""
    code = hashlib.sha256()
    for module in MODULES:
        code.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return {
        "name": "MedCLIPAD sample study",
        "simulated": True,
        "source": "ICBM 152 2009a nonlinear symmetric T1 template, as the nilearn package carries it",
        "seed": seed,
        "resolution": resolution,
        "code": code.hexdigest()[:16],
        "versions": {name: version(name) for name in ("medclipad", "nilearn", "numpy", "scipy")},
        "cases": [
            {
                "id": case.id,
                "kind": case.kind,
                "description": case.description,
                "file": f"images/{case.id}{case.suffix}",
                "truth": None if case.kind == "normal" else f"truth/{case.id}.nii.gz",
                "format": {".nii.gz": "NIfTI", ".nrrd": "NRRD", "": "DICOM series"}[case.suffix],
                "grid": case.grid.describe(),
                "dtype": case.dtype,
            }
            for case in cases
        ],
    }


def _on_disk(study: dict[str, Any], out: Path) -> list[StudyCase]:
    return [
        StudyCase(
            id=case["id"],
            kind=case["kind"],
            description=case["description"],
            image=out / case["file"],
            truth=out / case["truth"] if case["truth"] else None,
        )
        for case in study["cases"]
    ]


def _is_complete(case: StudyCase) -> bool:
    return case.image.exists() and (case.truth is None or case.truth.exists())


def main() -> None:
    """Make the study from the command line."""
    from rich.progress import Progress as Bar

    parser = argparse.ArgumentParser(prog="python -m sample_data.make_study", description="Make the sample study.")
    parser.add_argument("out", type=Path, help="folder for the study")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other people (default 0)")
    arguments = parser.parse_args()
    with Bar() as bar:
        task = bar.add_task("sample study", total=None)
        made = make_study(
            arguments.out,
            arguments.seed,
            lambda phase, done, total, info: bar.update(task, completed=done, total=total),
        )
    print(f"{len(made)} simulated cases in {arguments.out}")


if __name__ == "__main__":
    main()
