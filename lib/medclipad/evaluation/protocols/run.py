"""Run a benchmark protocol: epochs, evaluations on the test set, the best weights, and a state to resume from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medclipad.errors import TrainingError
from medclipad.files import atomic_file, remove_leftovers
from medclipad.methods.common.benchmark import BenchmarkProtocol, Figures, Scores
from medclipad.volume.progress import Progress, no_progress

STATE = "state.pt"
"""Name of the file from which an interrupted run is resumed."""


@dataclass
class History:
    """Course of a training.

    Attributes
    ----------
    epoch
        Epochs that are done.
    losses
        Mean loss of each epoch.
    evaluations
        Figures of each evaluation on the test set, with its epoch and step.
    best
        Index of the best evaluation; None before the first.
    best_weights
        Weights at the best evaluation, by name.
    """

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of a benchmark run.

    Attributes
    ----------
    figures
        AUROCs, with epoch and step, by how the weights were chosen: "best-test", "last" or "checkpoint".
    chosen
        Key of the figures that count.
    scores
        Scores of the test pictures with the chosen weights.
    examples
        Indices of the test pictures to draw.
    history
        Course of the training.
    """

    figures: dict[str, dict[str, Any]]
    chosen: str
    scores: Scores
    examples: list[int]
    history: History


class _Bar:
    """Training steps and test pictures on one progress bar."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self.progress, self.total, self.done = progress, total, done
        self.info: dict[str, float] = {}
        progress("train and test", done, total, {})

    def step(self, loss: float) -> None:
        """Count a training step."""
        self.info = {"loss": loss}
        self.tick(1)

    def tick(self, done: int) -> None:
        """Count test pictures."""
        self.done += done
        self.progress("train and test", self.done, self.total, self.info)


def train_and_test(protocol: BenchmarkProtocol, folder: Path, progress: Progress = no_progress) -> Outcome:
    """Run a protocol, or resume it where an interrupted run stopped.

    After each epoch the state (weights, optimisers, random generator, history) is saved atomically, so that an
    interrupted run gives the same figures as an uninterrupted one. Where the last weights are to count, the test set is
    evaluated once, at the end.

    Parameters
    ----------
    protocol
        The experiment.
    folder
        Folder of the state.
    progress
        Called after each step; an exception raised in it stops the run.

    Returns
    -------
    Outcome
        Figures, scores and history.

    Raises
    ------
    TrainingError
        If the folder's state belongs to another run or is damaged, or cannot be written, or the training diverges.
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

    figures: dict[str, dict[str, Any]] = {}
    if choosing and history.best is not None:  # evaluated at least once an epoch
        figures["best-test"] = history.evaluations[history.best]
        if protocol.steps in evaluations:
            figures["last"] = history.evaluations[-1]
        else:  # zero-shot: no evaluation follows the last step
            last = protocol.test().figures
            figures["last"] = {"epoch": epochs, "step": protocol.steps, **last._asdict()}
        protocol.load_weights(history.best_weights)
    scores, examples = _final_test(protocol, progress)
    if not choosing:
        figures["last"] = {"epoch": epochs, "step": protocol.steps, **scores.figures._asdict()}
    return Outcome(figures, protocol.settings.select, scores, examples, history)


def test_checkpoint(protocol: BenchmarkProtocol, state: Mapping[str, Any], progress: Progress = no_progress) -> Outcome:
    """Test weights without training.

    Parameters
    ----------
    protocol
        The experiment.
    state
        Weights as the reference code saves them.
    progress
        Called after each part of the test set.

    Returns
    -------
    Outcome
        Figures and scores; the history is empty.

    Raises
    ------
    DetectorError
        If the weights do not fit the model.
    """
    protocol.load_checkpoint(state)
    scores, examples = _final_test(protocol, progress)
    figures = {"checkpoint": scores.figures._asdict()}
    return Outcome(figures, "checkpoint", scores, examples, History())


def example_indices(labels: np.ndarray, normal: int = 3, abnormal: int = 5) -> list[int]:
    """Choose test pictures to draw, evenly spread over the normal and over the abnormal ones.

    Parameters
    ----------
    labels
        (n,); 0 normal, 1 abnormal.
    normal, abnormal
        How many of each kind, at most.

    Returns
    -------
    list of int
        Indices, those of normal pictures first.

    Examples
    --------
    >>> example_indices(np.array([0, 0, 0, 1, 1, 1]), normal=2, abnormal=1)
    [0, 2, 3]
    """
    chosen = []
    for label, count in enumerate((normal, abnormal)):
        indices = np.flatnonzero(labels == label)
        spread = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
        chosen += indices[np.unique(spread)].tolist()
    return chosen


def write_atomically(content: Mapping[str, Any], file: Path) -> None:
    """Save with `torch.save`, completely or not at all, even if the machine stops.

    Raises
    ------
    TrainingError
        If the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent)  # of a killed run
        with atomic_file(file) as temp_path:
            torch.save(dict(content), temp_path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(f"{file} cannot be written ({reason}): free space, or give another --out.") from error


def _evaluate(protocol: BenchmarkProtocol, history: History, epoch: int, position: int, bar: _Bar) -> None:
    """Evaluate on the test set, and keep the weights if they are the best so far."""
    figures = protocol.test(tick=bar.tick).figures
    history.evaluations.append({"epoch": epoch + 1, "step": position, **figures._asdict()})
    if history.best is not None:
        before = history.evaluations[history.best]
        best = Figures(before["image_auroc"], before["pixel_auroc"]).merit
        if not (figures.merit > best or (protocol.keeps_latest and figures.merit == best)):
            return
    history.best, history.best_weights = len(history.evaluations) - 1, protocol.weights()


def _final_test(protocol: BenchmarkProtocol, progress: Progress) -> tuple[Scores, list[int]]:
    """Evaluate with the chosen weights; return the scores and the indices of the pictures to draw."""
    examples = example_indices(protocol.tests.labels.numpy())
    return test_with_progress(protocol, "final test", progress, examples), examples


def test_with_progress(protocol: BenchmarkProtocol, phase: str, progress: Progress, keep: Sequence[int] = ()) -> Scores:
    """Return what `BenchmarkProtocol.test` returns, and report its progress as a phase of this name."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(phase, done, len(protocol.tests), {})

    return protocol.test(keep, tick)


def _settings(protocol: BenchmarkProtocol) -> dict[str, Any]:
    """Return what must be equal for a run to be resumed: everything that changes its numbers."""
    encoder = protocol.model.encoder
    return {
        "protocol": protocol.name,
        **asdict(protocol.settings),
        "encoder": encoder.name.partition("/")[0],
        "encoder_sha256": encoder.sha256,
        "pictures": protocol.pictures_sha256,
    }


def _save(protocol: BenchmarkProtocol, history: History, file: Path) -> None:
    """Save the state of a run."""
    course = {key: value for key, value in vars(history).items() if key != "best_weights"}
    content = {
        "settings": json.dumps(_settings(protocol)),
        "history": json.dumps(course),
        "best_weights": history.best_weights,
        "weights": protocol.weights(),
        "optimisers": {name: optimiser.state_dict() for name, optimiser in protocol.optimisers.items()},
        "draws": protocol.random_state,
    }
    write_atomically(content, file)


def _resume(protocol: BenchmarkProtocol, file: Path) -> History:
    """Load the state of an interrupted run, if there is one; raise TrainingError if it is another run's or damaged."""
    if not file.exists():
        return History()
    damaged = TrainingError(
        f"{file} is not a benchmark's state, or damaged: remove it to begin anew, or give another --out."
    )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        saved, own = json.loads(content["settings"]), _settings(protocol)
        history = History(**json.loads(content["history"]), best_weights=content["best_weights"])
    except Exception as error:  # a damaged file can raise nearly anything from inside torch
        raise damaged from error
    for key, value in own.items():
        if saved.get(key) != value:
            raise TrainingError(
                f"{file.parent} holds a run with other settings ({key.replace('_', ' ')} {saved.get(key)}, now "
                f"{value}): give another --out, or remove {file.name} to begin anew."
            )
    try:
        protocol.load_weights(content["weights"])
        for name, optimiser in protocol.optimisers.items():
            optimiser.load_state_dict(content["optimisers"][name])
        protocol.random_state = content["draws"]
    except Exception as error:  # as above: equal settings do not prove that the rest is intact
        raise damaged from error
    return history
