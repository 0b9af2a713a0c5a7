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
from medclipad.server.training.measurement import choose_held_out, outcome
from medclipad.server.training.versions import VersionStore

if TYPE_CHECKING:
    from medclipad.detection.cases import Case, Reading
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.volume import Volume

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

    config, params = FitConfig.model_validate(job["config"]), TrainParams.model_validate(job["params"])
    versions = VersionStore(Path(job["models"]), Path(job["starter"]) if job["starter"] else None)
    learned_from = [case for case in job["cases"] if not case["only_measure"]]
    volumes = _volumes(learned_from, params.reading(), progress)
    config = config.for_volumes(volumes, any(entry["normal"] is None for entry in learned_from))
    cases, notes = _known(learned_from, volumes, config.plane)
    measured = [case for case in job["cases"] if case["only_measure"]] if params.held_out else []
    others = _readable(measured, config.plane, params.reading(), progress, notes)
    old = _previous(versions, job["method"], job["previous"], notes)
    learned = _learned_volumes(old)
    kept, held = choose_held_out(cases, others, params.held_out, config.plane, learned)
    detector = fit(cases=kept, config=config, name=job["name"], progress=progress.report)
    found = outcome(detector, old, held, job, params.select, learned, progress.report)
    if found["new"]:
        detector.info.metrics = {**detector.info.metrics, "held_out": {**found["held_out"], **found["new"]}}
    progress.write("save", 0, 1, {})
    versions.publish(detector, job["method"], job["name"])
    if found["selected"]:
        versions.select(job["method"], job["name"])
    return {"version": job["name"], "outcome": {**found, "notes": notes}}


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


def _volumes(entries: Sequence[dict[str, Any]], reading: Reading, progress: ProgressFile) -> list[Volume]:
    """Return the volumes of the cases, by the names of their images."""
    volumes = []
    for number, entry in enumerate(entries):
        progress.report("load", number, len(entries), {"volume": entry["name"]})
        volumes.append(replace(reading.read(entry["volume"]), name=entry["name"]))  # the file's may not be unique
    progress.report("load", len(entries), len(entries), {})
    return volumes


def _known(entries: Sequence[dict[str, Any]], volumes: Sequence[Volume], plane: str) -> tuple[list[Case], list[str]]:
    """Return the cases, and a sentence about each part of them that cannot be used."""
    from medclipad.detection.cases import Case
    from medclipad.volume import Slicing, read_untrusted

    cases, notes = [], []
    for entry, volume in zip(entries, volumes, strict=True):
        mask = read_untrusted(entry["label"]) if entry["label"] else None
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
    return cases, notes


def _readable(
    entries: Sequence[dict[str, Any]], plane: str, reading: Reading, progress: ProgressFile, notes: list[str]
) -> list[Case]:
    """Return the cases that can be read; images that the request does not name must not make it fail."""
    cases = []
    for entry in entries:
        try:
            cases += _known([entry], _volumes([entry], reading, progress), plane)[0]
        except MedCLIPADError as error:
            notes.append(f"Not measured on {entry['name']}: {error}")
    return cases


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


if __name__ == "__main__":
    from medclipad.server.process_lifetime import end_with_server

    end_with_server()
    run(json.load(sys.stdin))
