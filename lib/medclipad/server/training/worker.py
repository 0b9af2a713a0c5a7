"""What a training process does: read cases, train, compare with the version in use, store the new one, put it to use.

    python -P -m medclipad.server.training.worker < job.json

The job names files, so the process needs neither MONAI Label nor the datastore, and starts in half the time. The job
comes through standard input: a command line would show the names of images to every user of the machine. The process
reports its progress as lines of JSON on its output and in the progress file, which also holds the reason of a failure.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.detection.config import FitConfig
from medclipad.errors import MedCLIPADError, TrainingError
from medclipad.files import write_text
from medclipad.server.params import TrainParams, to_json
from medclipad.server.training.versions import VersionStore

if TYPE_CHECKING:
    from medclipad.detection.cases import Case
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.evaluation.comparison import HeldOutEvaluation
    from medclipad.evaluation.held_out import HeldOut

_REPORT_INTERVAL = 0.25  # seconds
_MAX_POINTS = 200  # of the loss curve


class ProgressFile:
    """`<models>/training.json`: progress of the last training, written by its process and read by the server.

    Parameters
    ----------
    models
        Folder of the detectors.
    method
        Name of the method.
    run
        Id of the training.
    """

    def __init__(self, models: Path, method: str, run: str) -> None:
        self._path = models / "training.json"
        self._start = {"run": run, "method": method, "started": time.time()}
        self._last = ("", 0.0)
        self._began = self._phase_began = time.monotonic()  # not the time of day, which may be set back
        self._epochs: dict[str, Any] = {"epoch": None, "epochs": None, "loss": None}
        self._history: list[list[float]] = []
        self._stride = 1

    def report(self, phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        """Write the progress of a training, as its callback: each phase's first and last call, others at intervals."""
        last_phase, last_time = self._last
        if phase != last_phase:
            self._phase_began = time.monotonic()
        if "loss" in info:
            self._add_loss(done, total, info)
        if phase != last_phase or done >= total or time.monotonic() - last_time > _REPORT_INTERVAL:
            self.write(phase, done, total, info)

    def write(self, phase: str, done: int, total: int, info: dict[str, Any], **more: Any) -> None:
        """Write a report.

        Parameters
        ----------
        phase, done, total, info
            As a progress callback has them.
        more
            Further fields of the report, such as the outcome.
        """
        self._last = (phase, time.monotonic())
        event = {
            "phase": phase,
            "done": done,
            "total": total,
            "info": to_json(info or {}),
            **self._epochs,
            **to_json(more),
        }
        print(json.dumps(event), flush=True)
        report = {
            **self._start,
            **event,
            "seconds": round(time.monotonic() - self._began, 1),
            "remaining": self._remaining(done, total),
            "history": self._history,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a full disk: the printed line remains, and the detector may still fit
            write_text(self._path, json.dumps(report))

    def fail(self, reason: str) -> None:
        """Write that the training failed, and why."""
        self.write("failed", 0, 0, {}, error=reason)

    @staticmethod
    def read(models: Path) -> dict[str, Any]:
        """Return the last report; {} if there was no training."""
        try:
            return json.loads((models / "training.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _add_loss(self, step: int, total: int, info: dict[str, Any]) -> None:
        self._epochs = to_json({"epoch": info.get("epoch"), "epochs": info.get("epochs"), "loss": info["loss"]})
        if step % self._stride == 0 or step == total:
            self._history.append([step, self._epochs["loss"]])
        if len(self._history) > _MAX_POINTS:
            self._stride *= 2
            self._history = [point for point in self._history if point[0] % self._stride == 0]

    def _remaining(self, done: int, total: int) -> float | None:
        """Return the seconds left of this phase; None while they cannot be estimated."""
        spent = time.monotonic() - self._phase_began
        return round(spent * (total - done) / done, 1) if done and spent > 1 else None


def learn(job: dict[str, Any], progress: ProgressFile) -> dict[str, Any]:
    """Carry out a training.

    Parameters
    ----------
    job
        "method", "name" of the new version, "config" (`FitConfig`), "params" (`TrainParams`), "models" and "starter"
        (folders), "previous" (name of the version in use, or None), and "cases", see `Sources.cases`.
    progress
        Receives the reports.

    Returns
    -------
    dict
        "version", the name of the new version, and "outcome", its comparison with the previous one.

    Raises
    ------
    MedCLIPADError
        If the cases cannot train a detector, or it cannot be stored.
    """
    from medclipad.detection.fit import fit
    from medclipad.evaluation.held_out import hold_out

    config, params = FitConfig.model_validate(job["config"]), TrainParams.model_validate(job["params"])
    versions = VersionStore(Path(job["models"]), Path(job["starter"]) if job["starter"] else None)
    cases, notes = _read(job["cases"], config.plane, progress)
    old = _previous(versions, job["method"], job["previous"], notes)
    kept, held = hold_out(cases, params.held_out, config.plane, _learned_volumes(old))
    detector = fit(cases=kept, config=config, name=job["name"], progress=progress.report)
    outcome = _outcome(detector, old, held, job, params.select, progress)
    if outcome["new"]:
        detector.info.metrics = {**detector.info.metrics, "held_out": {**outcome["held_out"], **outcome["new"]}}
    progress.write("save", 0, 1, {})
    versions.publish(detector, job["method"], job["name"])
    if outcome["selected"]:
        versions.select(job["method"], job["name"])
    return {"version": job["name"], "outcome": {**outcome, "notes": notes}}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Carry out a training and report its progress, its result or its failure; see `learn`.

    Raises
    ------
    SystemExit
        With code 1 for an error that a user can correct: a traceback would add nothing to its message.
    """
    progress = ProgressFile(Path(job["models"]), job["method"], job["run"])
    try:
        progress.write("load", 0, 0, {})
        done = learn(job, progress)
    except MedCLIPADError as error:
        progress.fail(str(error))
        raise SystemExit(1) from None
    except BaseException as error:
        progress.fail(f"The training failed unexpectedly ({type(error).__name__}: {error}).")
        raise
    progress.write("done", 1, 1, {"version": done["version"]}, outcome=done["outcome"])
    return done


def _read(entries: Sequence[dict[str, Any]], plane: str, progress: ProgressFile) -> tuple[list[Case], list[str]]:
    """Return the cases, and a sentence about each part of them that cannot be used."""
    from medclipad.detection.cases import Case
    from medclipad.volume import Slicing, read_volume

    cases, notes = [], []
    for number, entry in enumerate(entries):
        progress.report("load", number, len(entries), {"volume": entry["name"]})
        volume = replace(read_volume(entry["volume"]), name=entry["name"])  # the file's own name may not be unique
        mask = read_volume(entry["label"]) if entry["label"] else None
        normal, abnormal = entry["normal"], entry["abnormal"]
        if entry["plane"] and Slicing(volume, plane).plane != entry["plane"]:
            notes.append(
                f"The marked {entry['plane']} slices of {entry['name']} are not used: the training uses {plane} ones."
            )
            if mask is None and normal is not None:
                continue  # nothing but the marks is known about this image
            abnormal = []
        case = Case(volume, mask, normal, abnormal)
        is_normal, is_abnormal = case.known(Slicing(volume, plane))
        if entry["must_show"] and not is_abnormal.any():
            raise TrainingError(
                f'The mask of "{entry["name"]}" marks no voxel: paint the lesion, or give the image as a normal one.'
            )
        if entry["only_normal"] and is_abnormal.any():  # the training must not learn from its lesions
            case = Case(volume, None, np.flatnonzero(is_normal).tolist())
        cases.append(case)
    progress.report("load", len(entries), len(entries), {})
    return cases, notes


def _previous(versions: VersionStore, method: str, name: str | None, notes: list[str]) -> AnomalyDetector | None:
    """Return the detector in use; None if there is none or, with a note, if it cannot be loaded."""
    from medclipad.detection.detector import load_detector

    if name is None:
        return None
    try:
        return load_detector(versions.path(method, name))
    except MedCLIPADError as error:  # a damaged old version must not stop a new one
        notes.append(f"The new version could not be compared with {name}: {error}")
        return None


def _learned_volumes(detector: AnomalyDetector | None) -> set[str]:
    return {entry["volume"] for entry in detector.info.training_slices} if detector else set()


def _outcome(
    new: AnomalyDetector,
    old: AnomalyDetector | None,
    held: list[HeldOut],
    job: dict[str, Any],
    select: str,
    progress: ProgressFile,
) -> dict[str, Any]:
    """Return the figures of both versions, whether the new one is to be used, and the reason in words."""
    from medclipad.evaluation.comparison import compare, evaluate_held_out

    measured = evaluate_held_out(new, held, new.info.plane, job["name"], progress.report) if held else None
    before = evaluate_held_out(old, held, new.info.plane, job["previous"], progress.report) if held and old else None
    comparison = compare(before, measured) if before is not None and measured is not None else None
    worse = comparison is not None and comparison.worse
    selected = select == "always" or (select == "better" and not worse)
    names = [part.case.volume.name for part in held]
    return {
        "version": job["name"],
        "previous": job["previous"],
        "selected": selected,
        "held_out": {
            "slices": len(measured.scores) if measured else 0,
            "abnormal": int(measured.truth.sum()) if measured else 0,
            "images": names,
            "unit": comparison.unit if comparison else None,
            "units": comparison.units if comparison else 0,
        },
        "old": before.metrics.model_dump() if before else None,
        "new": measured.metrics.model_dump() if measured else None,
        "verdict": _verdict(job, measured, before, worse, selected, bool(_learned_volumes(old) & {*names})),
    }


def _verdict(
    job: dict[str, Any],
    new: HeldOutEvaluation | None,
    old: HeldOutEvaluation | None,
    worse: bool,
    selected: bool,
    seen: bool,
) -> str:
    """Return the outcome in one sentence; `seen` says whether the old version learned from held-out images."""
    in_use = f"{job['name']} is now in use"
    if not selected:
        in_use = f"{job['previous']} stays in use" if job["previous"] else "no version is in use"
    if new is None or new.metrics.slice_auroc is None:
        return f"Too few slices are labelled to hold some out and evaluate {job['name']} on them; {in_use}."
    patients = len(set(new.volumes.tolist()))
    patients = "1 patient" if patients == 1 else f"{patients} patients"
    result = f"On {len(new.scores)} held-out slices of {patients}, the new version has {_in_words(new)}"
    if old is None or old.metrics.slice_auroc is None:
        return f"{result}; {in_use}."
    relation = "which is measurably worse than" if worse else "compared with"
    unfair = " (which learned from some of these images)" if seen else ""
    return f"{result}, {relation} {_in_words(old)} of {job['previous']}{unfair}; {in_use}."


def _in_words(measured: HeldOutEvaluation) -> str:
    metrics = measured.metrics
    slices = f"slice AUROC {metrics.slice_auroc:.2f}"
    if metrics.average_precision is None:
        return slices
    return f"{slices} and voxel average precision {metrics.average_precision:.2f}"


if __name__ == "__main__":
    from medclipad.server.process_lifetime import end_with_server

    end_with_server()
    run(json.load(sys.stdin))
