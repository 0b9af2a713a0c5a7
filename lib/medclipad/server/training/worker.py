"""What a training process does: read cases, train, compare with the version in use, store, and put it to use.

    python -P -m medclipad.server.training.worker < job.json

The job names files, so that the process needs neither MONAI Label nor the data store, and starts in half the time. It
comes through standard input: a command line would show the names of images to every user of the machine. How it goes is
told in two ways: a line of JSON on the output, and the progress file, which also holds the reason of a failure.
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

_PERIOD = 0.25  # seconds between two reports
_POINTS = 200  # of the curve of losses


class ProgressFile:
    """`<models>/training.json`: how the last training goes or went. Written whole by the child, read by the server."""

    def __init__(self, models: Path, method: str, run: str) -> None:
        self._path = models / "training.json"
        self._start = {"run": run, "method": method, "started": time.time()}
        self._last = ("", 0.0)
        self._began = self._phase_began = time.monotonic()  # no clock: that may be set back
        self._epochs: dict[str, Any] = {"epoch": None, "epochs": None, "loss": None}
        self._history: list[list[float]] = []
        self._stride = 1

    def report(self, phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        """The progress callback of a training; most calls are not written, first and last of a phase always."""
        last_phase, last_time = self._last
        if phase != last_phase:
            self._phase_began = time.monotonic()
        if "loss" in info:
            self._note_loss(done, total, info)
        if phase != last_phase or done >= total or time.monotonic() - last_time > _PERIOD:
            self.write(phase, done, total, info)

    def write(self, phase: str, done: int, total: int, info: dict[str, Any], **more: Any) -> None:
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
        with contextlib.suppress(OSError):  # a full disk: the line above tells it, and the training may yet fit
            write_text(self._path, json.dumps(report))

    def fail(self, reason: str) -> None:
        self.write("failed", 0, 0, {}, error=reason)

    @staticmethod
    def read(models: Path) -> dict[str, Any]:
        """The last report, or {} if there has never been a training."""
        try:
            return json.loads((models / "training.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _note_loss(self, step: int, total: int, info: dict[str, Any]) -> None:
        self._epochs = to_json({"epoch": info.get("epoch"), "epochs": info.get("epochs"), "loss": info["loss"]})
        if step % self._stride == 0 or step == total:
            self._history.append([step, self._epochs["loss"]])
        if len(self._history) > _POINTS:
            self._stride *= 2
            self._history = [point for point in self._history if point[0] % self._stride == 0]

    def _remaining(self, done: int, total: int) -> float | None:
        """Seconds left of this phase, once it can be told."""
        spent = time.monotonic() - self._phase_began
        return round(spent * (total - done) / done, 1) if done and spent > 1 else None


def learn(job: dict[str, Any], progress: ProgressFile) -> dict[str, Any]:
    """Carry out a training; returns {"version", "outcome"}. Raises MedCLIPADError.

    job: method, name, params (TrainParams), models (folder), previous (name of the version that serves, or None), cases
    [{name, volume, label, normal, abnormal, plane, only_normal, must_show}], see `train.Sources`.
    """
    from medclipad.detection.fit import fit
    from medclipad.evaluation.held_out import hold_out

    config, params = FitConfig.model_validate(job["config"]), TrainParams.model_validate(job["params"])
    versions = VersionStore(Path(job["models"]), Path(job["starter"]) if job["starter"] else None)
    cases, notes = _read(job["cases"], config.plane, progress)
    old = _previous(versions, job["method"], job["previous"], notes)
    learned = {used["volume"] for used in old.info.training_slices} if old else set()
    kept, held = hold_out(cases, params.held_out, config.plane, learned)
    detector = fit(cases=kept, config=config, name=job["name"], progress=progress.report)
    outcome = _outcome(detector, old, held, job, params.select, learned, progress)
    if outcome["new"]:
        detector.info.metrics = {**detector.info.metrics, "held_out": {**outcome["held_out"], **outcome["new"]}}
    progress.write("save", 0, 1, {})
    versions.publish(detector, job["method"], job["name"])
    if outcome["selected"]:
        versions.select(job["method"], job["name"])
    return {"version": job["name"], "outcome": {**outcome, "notes": notes}}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """`learn`, with its progress and its failure told. SystemExit 1 for what a user can mend: a trace says no more."""
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


def _read(described: Sequence[dict[str, Any]], plane: str, progress: ProgressFile) -> tuple[list[Case], list[str]]:
    """The cases, and sentences on what of them could not be used."""
    from medclipad.detection.cases import Case
    from medclipad.volume import Slicing, read_volume

    cases, notes = [], []
    for number, one in enumerate(described):
        progress.report("load", number, len(described), {"volume": one["name"]})
        volume = replace(read_volume(one["volume"]), name=one["name"])  # not its file's: that is the same for many
        mask = read_volume(one["label"]) if one["label"] else None
        normal, abnormal = one["normal"], one["abnormal"]
        if one["plane"] and Slicing(volume, plane).plane != one["plane"]:
            notes.append(f"The marked {one['plane']} slices of {one['name']} do not count: {plane} ones are learned.")
            if mask is None and normal is not None:
                continue  # marks were all that is known of it
            abnormal = []
        case = Case(volume, mask, normal, abnormal)
        is_normal, is_abnormal = case.known(Slicing(volume, plane))
        if one["must_show"] and not is_abnormal.any():
            raise TrainingError(
                f'The mask of "{one["name"]}" marks no voxel: paint the lesion, or give the image as a normal one.'
            )
        if one["only_normal"] and is_abnormal.any():  # its lesions are not to be learned
            case = Case(volume, None, np.flatnonzero(is_normal).tolist())
        cases.append(case)
    progress.report("load", len(described), len(described), {})
    return cases, notes


def _previous(versions: VersionStore, method: str, name: str | None, notes: list[str]) -> AnomalyDetector | None:
    from medclipad.detection.detector import load_detector

    if name is None:
        return None
    try:
        return load_detector(versions.path(method, name))
    except MedCLIPADError as error:  # a damaged old version must not stop a new one
        notes.append(f"{name} could not be compared with: {error}")
        return None


def _outcome(
    new: AnomalyDetector,
    old: AnomalyDetector | None,
    held: list[HeldOut],
    job: dict[str, Any],
    select: str,
    learned: set[str],
    progress: ProgressFile,
) -> dict[str, Any]:
    """What API.md calls the outcome: both versions' figures, whether the new one is to serve, and why in words."""
    from medclipad.evaluation.comparison import evaluate_held_out, measurably_worse

    measured = evaluate_held_out(new, held, new.info.plane, job["name"], progress.report) if held else None
    before = evaluate_held_out(old, held, new.info.plane, job["previous"], progress.report) if held and old else None
    worse = measured is not None and before is not None and measurably_worse(before, measured)
    selected = select == "always" or (select == "better" and not worse)
    names = [one.case.volume.name for one in held]
    return {
        "version": job["name"],
        "previous": job["previous"],
        "selected": selected,
        "held_out": {
            "slices": len(measured.scores) if measured else 0,
            "abnormal": int(measured.truth.sum()) if measured else 0,
            "images": names,
        },
        "old": before.metrics.model_dump() if before else None,
        "new": measured.metrics.model_dump() if measured else None,
        "verdict": _verdict(job, measured, before, worse, selected, any(name in learned for name in names)),
    }


def _verdict(
    job: dict[str, Any],
    new: HeldOutEvaluation | None,
    old: HeldOutEvaluation | None,
    worse: bool,
    selected: bool,
    seen: bool,
) -> str:
    serves = "it serves now" if selected else f"{job['previous'] or 'no version'} goes on serving"
    if new is None or new.metrics.slice_auroc is None:
        return f"Too few slices are labelled to keep some out and measure {job['name']} on them; {serves}."
    said = f"On {len(new.scores)} held-out slices the new version has {_in_words(new)}"
    if old is None or old.metrics.slice_auroc is None:
        return f"{said}; {serves}."
    how = "which is measurably worse than" if worse else "against"
    unfair = " (which learned from some of these images)" if seen else ""
    return f"{said}, {how} {_in_words(old)} of {job['previous']}{unfair}; {serves}."


def _in_words(measured: HeldOutEvaluation) -> str:
    figures = measured.metrics
    ranked = f"slice AUROC {figures.slice_auroc:.2f}"
    if figures.average_precision is None:
        return ranked
    return f"{ranked} and voxel average precision {figures.average_precision:.2f}"


if __name__ == "__main__":
    from medclipad.server.process_lifetime import end_with_server

    end_with_server()
    run(json.load(sys.stdin))
