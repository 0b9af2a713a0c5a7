"""A protocol from start to end: epochs, evaluations on the test set, the best weights, and a state to go on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from medclipad.errors import TrainingError
from medclipad.files import atomic_file, remove_leftovers
from medclipad.methods.common.benchmark import BenchmarkProtocol, Figures, Scores, example_indices
from medclipad.volume.progress import Progress, no_progress

STATE = "state.pt"


@dataclass
class History:
    """What a training has been through; `evaluations` are the figures of the test set, with epoch and step."""

    epoch: int = 0  # epochs done
    losses: list[float] = field(default_factory=list)  # mean of each epoch
    evaluations: list[dict] = field(default_factory=list)
    best: int | None = None  # index in `evaluations`
    best_weights: dict | None = None


@dataclass(frozen=True)
class Outcome:
    """Figures by how the weights were chosen ("best-test", "last" or "checkpoint"), and the scores of the chosen."""

    figures: dict[str, dict]
    chosen: str
    scores: Scores
    examples: list[int]
    history: History


class _Bar:
    """Steps and test pictures on one progress bar."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self.progress, self.total, self.done, self.info = progress, total, done, {}
        progress("train and test", done, total, {})

    def step(self, loss: float) -> None:
        self.info = {"loss": loss}
        self.tick(1)

    def tick(self, done: int) -> None:
        self.done += done
        self.progress("train and test", self.done, self.total, self.info)


def train_and_test(protocol: BenchmarkProtocol, folder: Path, progress: Progress = no_progress) -> Outcome:
    """Run a protocol, or go on with it where an interrupted run in `folder` stopped.

    After each epoch the state (weights, optimisers, random generator, history) is saved atomically, so that an
    interrupted run gives the same figures as an uninterrupted one. With select "last" the test set is
    evaluated once, at the end. Raises TrainingError if the folder's state belongs to another run or is damaged.
    """
    file, epochs = folder / STATE, protocol.settings.epochs
    history = _resume(protocol, file)
    choosing = protocol.settings.select == "best-test"
    evaluations = protocol.evaluations() if choosing else set()
    per_epoch = protocol.steps + len(evaluations) * len(protocol.tests)
    bar = _Bar(progress, epochs * per_epoch, history.epoch * per_epoch)
    for epoch in range(history.epoch, epochs):
        batches, losses = protocol.batches(), []
        for position in range(protocol.steps + 1):
            if position in evaluations:
                _evaluate(protocol, history, epoch, position, bar)
            if position < protocol.steps:
                losses.append(protocol.step(batches[position]))
                bar.step(losses[-1])
        history.losses.append(float(np.mean(losses)))
        history.epoch = epoch + 1
        _save(protocol, history, file)

    figures = {}
    if choosing:
        figures["best-test"] = history.evaluations[history.best]
        if protocol.steps in evaluations:
            figures["last"] = history.evaluations[-1]
        else:  # zero-shot: no look follows the last step
            last = protocol.test().figures
            figures["last"] = {"epoch": epochs, "step": protocol.steps, **last._asdict()}
        protocol.load_weights(history.best_weights)
    scores, examples = _final_test(protocol, progress)
    if not choosing:
        figures["last"] = {"epoch": epochs, "step": protocol.steps, **scores.figures._asdict()}
    return Outcome(figures, protocol.settings.select, scores, examples, history)


def test_checkpoint(protocol: BenchmarkProtocol, state: dict, progress: Progress = no_progress) -> Outcome:
    """Test weights as the reference saves them, without training; raises DetectorError if they do not fit."""
    protocol.load_checkpoint(state)
    scores, examples = _final_test(protocol, progress)
    figures = {"checkpoint": scores.figures._asdict()}
    return Outcome(figures, "checkpoint", scores, examples, History())


def write_atomically(content: dict, file: Path) -> None:
    """torch.save, complete or not at all, even if the machine stops; raises TrainingError if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent)  # of a killed run
        with atomic_file(file) as temp_path:
            torch.save(content, temp_path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError of a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(f"{file} cannot be written ({reason}): free space, or give another --out.") from error


def _evaluate(protocol: BenchmarkProtocol, history: History, epoch: int, position: int, bar: _Bar) -> None:
    found = protocol.test(tick=bar.tick).figures
    history.evaluations.append({"epoch": epoch + 1, "step": position, **found._asdict()})
    if history.best is not None:
        before = history.evaluations[history.best]
        best = Figures(before["image_auroc"], before["pixel_auroc"]).merit
        if not (found.merit > best or (protocol.keeps_latest and found.merit == best)):
            return
    history.best, history.best_weights = len(history.evaluations) - 1, protocol.weights()


def _final_test(protocol: BenchmarkProtocol, progress: Progress) -> tuple[Scores, list[int]]:
    examples = example_indices(protocol.tests.labels)
    total = len(protocol.tests)
    bar, done = progress, 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        bar("final test", done, total, {})

    return protocol.test(examples, tick), examples


def _settings(protocol: BenchmarkProtocol) -> dict:
    """What must be equal for a run to go on: everything that changes its numbers."""
    encoder = protocol.model.encoder
    return {
        "protocol": protocol.name,
        **asdict(protocol.settings),
        "encoder": encoder.name.partition("/")[0],
        "encoder_sha256": encoder.sha256,
        "pictures": protocol.pictures,
    }


def _save(protocol: BenchmarkProtocol, history: History, file: Path) -> None:
    story = {key: value for key, value in vars(history).items() if key != "best_weights"}
    content = {
        "settings": json.dumps(_settings(protocol)),
        "history": json.dumps(story),
        "best_weights": history.best_weights,
        "weights": protocol.weights(),
        "optimisers": {name: one.state_dict() for name, one in protocol.optimisers.items()},
        "draws": protocol.draws,
    }
    write_atomically(content, file)


def _resume(protocol: BenchmarkProtocol, file: Path) -> History:
    if not file.exists():
        return History()
    damaged = TrainingError(
        f"{file} is not a benchmark's state, or damaged: remove it to begin anew, or give another --out."
    )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        theirs, ours = json.loads(content["settings"]), _settings(protocol)
        history = History(**json.loads(content["history"]), best_weights=content["best_weights"])
    except Exception as error:  # a damaged file can raise nearly anything from inside torch
        raise damaged from error
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise TrainingError(
                f"{file.parent} holds a run with other settings ({key.replace('_', ' ')} {theirs.get(key)}, now "
                f"{value}): give another --out, or remove {file.name} to begin anew."
            )
    try:
        protocol.load_weights(content["weights"])
        for name, optimiser in protocol.optimisers.items():
            optimiser.load_state_dict(content["optimisers"][name])
        protocol.draws = content["draws"]
    except Exception as error:  # as above: the settings are ours, what follows is not
        raise damaged from error
    return history
