"""Make the starter detector that the server ships: `python -m sample_data.make_starter OUT`.

It is trained on the simulated normal volumes of the sample study, so that Detect works on a fresh install before
anything has been trained. Its detector.json says what it is good for.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from medclipad.cli.terminal import progress_bar
from medclipad.detection.fit import fit
from medclipad.errors import MedCLIPADError
from medclipad.volume import read_volume
from sample_data.cases import CASES
from sample_data.make_study import make_study

STUDY = Path(__file__).parent / "study"
CALIBRATION_SEEDS = (11, 12, 13, 14)  # other people: 24 scans that are not learned from
NORMAL = [case.id for case in CASES if case.kind == "normal"]
MEMORY_SIZE = 1000  # tokens of each plane: the folder stays below 2 MB
DESCRIPTION = (
    "Starter for trying things out: learned from six simulated normal T1 brains made of the ICBM 152 template (skull "
    "removed), its limits from 24 others, never from a patient. It shows where a skull-stripped T1 brain differs from "
    "those; it is not for diagnosis, and other images need a detector of their own."
)


def make_starter(out: Path) -> None:
    """Train the starter detector and save it in a folder, in place of the one that is there."""
    with progress_bar() as progress:
        study = make_study(STUDY, progress=progress)
        normal = [read_volume(case.image) for case in study if case.truth is None]
        others = [
            replace(read_volume(case.image), name=f"{case.id} of seed {seed}")
            for seed in CALIBRATION_SEEDS
            for case in make_study(STUDY / f"seed-{seed}", seed, progress, cases=NORMAL)
        ]
        detector = fit(
            method="mediclip", normal=normal, calibrate_on=others, memory_size=MEMORY_SIZE, name="starter",
            description=DESCRIPTION, progress=progress,
        )  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    detector.save(out)


def main() -> None:
    """Make the starter detector from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_data.make_starter", description="Make the starter detector that the server ships."
    )
    parser.add_argument("out", type=Path, help="folder for the detector")
    try:
        make_starter(parser.parse_args().out)
    except MedCLIPADError as error:
        sys.exit(f"make_starter: {error}")


if __name__ == "__main__":
    main()
