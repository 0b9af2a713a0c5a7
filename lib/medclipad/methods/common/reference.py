"""Checkpoints of a method's reference code: what they hold, and how to load and write them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, Shots, describe
from medclipad.volume.progress import Progress

State = dict[str, dict[str, Tensor]]
"""State dicts by name, as the reference code saves them."""


class ReferenceFormat(ABC):
    """How a method's reference code saves its weights.

    Attributes
    ----------
    parts
        Names of the state dicts in a checkpoint, sorted: a file is recognised by them.
    encoder
        Name of the encoder that the reference code trains on.
    quick_gelu
        Whether the reference code runs OpenAI's weights with QuickGELU, as OpenAI trained them.
    file_hint
        What such files are called, for help texts.
    """

    parts: ClassVar[tuple[str, ...]]
    encoder: ClassVar[str]
    quick_gelu: ClassVar[bool]
    file_hint: ClassVar[str]

    @abstractmethod
    def options(self, path: Path, class_name: str | None) -> dict[str, Any]:
        """Return the method's options that a checkpoint implies.

        Parameters
        ----------
        path
            The checkpoint.
        class_name
            What the pictures show, as the user says; None to take it from the file's name.

        Raises
        ------
        DetectorError
            If the method needs a class and none is known, or has no use for the given one.
        """

    @abstractmethod
    def state(self, model: AnomalyModel) -> State:
        """Return the trained tensors of a model as a checkpoint holds them.

        They share memory with the model.

        Raises
        ------
        DetectorError
            If the format cannot hold what the model learned.
        """

    @abstractmethod
    def load_state(self, model: AnomalyModel, state: State) -> None:
        """Load a checkpoint's tensors into a model.

        Raises
        ------
        DetectorError
            If a key, shape or type differs.
        """

    @abstractmethod
    def load(
        self, model: AnomalyModel, state: State, shots: Shots | None, seed: int, progress: Progress, image_class: str
    ) -> None:
        """Load a checkpoint's tensors into a model, and learn from shots what the checkpoint does not hold.

        Parameters
        ----------
        model
            Untrained model.
        state
            The checkpoint.
        shots
            Slices to learn from; None to work with the checkpoint alone.
        seed
            Seed of everything that is drawn.
        progress
            Called after each step.
        image_class
            What the pictures show: the class name that the user gave, else the file's name without suffix.

        Raises
        ------
        DetectorError
            If a key, shape or type differs.
        """

    def require_calibrated(self, shots: int, abnormal_shots: int, held_out: bool) -> str | None:
        """Return why a detector made from these slices cannot be used; None if it can.

        Parameters
        ----------
        shots, abnormal_shots
            Numbers of normal and of abnormal slices that the model learned from.
        held_out
            Whether other normal slices are left to calibrate on.
        """
        return None

    def uncalibrated_note(self) -> str:
        """Return what an uncalibrated detector of this method lacks, to follow "no normal slices were given"."""
        return ""

    def left_out(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
        """Return the parts of a detector that the format cannot hold, in words.

        Parameters
        ----------
        options
            The method's options of the detector.
        weights
            Its tensors, by name.
        """
        return ["the plane, intensity preset and calibration"]


def check_state(model: AnomalyModel, state: object, own: State, method: str) -> State:
    """Check that a checkpoint has the keys, shapes and types of a model.

    Parameters
    ----------
    model
        The model.
    state
        The checkpoint, as it was read.
    own
        What `ReferenceFormat.state` returns for the model.
    method
        Name of the method, for messages.

    Returns
    -------
    State
        `own`.

    Raises
    ------
    DetectorError
        If anything differs.
    """
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise DetectorError(f"A checkpoint of {method} holds {' and '.join(own)} alone: choose such a file.")
    for part, expected in own.items():
        given = state[part]
        if not isinstance(given, Mapping) or not all(isinstance(value, Tensor) for value in given.values()):
            raise DetectorError(f"{part} of the checkpoint is no state dict: choose a file of the reference code.")
        if different := sorted(map(str, expected.keys() ^ given.keys())):
            fault = "lacks" if different[0] in expected else "has an unknown"
            raise DetectorError(
                f"{part} of the checkpoint {fault} {different[0][:80]}: choose the file that belongs to {method} "
                f"and to encoder {model.encoder.name}."
            )
        for key, value in expected.items():
            if given[key].shape != value.shape or given[key].dtype != value.dtype:
                raise DetectorError(
                    f"{key} in {part} of the checkpoint is {describe(given[key])}, but encoder {model.encoder.name} "
                    f"needs {describe(value)}: name the encoder that it was trained on."
                )
    return own
