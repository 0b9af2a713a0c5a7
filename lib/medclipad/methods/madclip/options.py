"""Options of MadCLIP."""

from __future__ import annotations

from pydantic import Field

from medclipad.methods.registry import ADVANCED, SCORE_SHARE, MethodOptions


class MadCLIPOptions(MethodOptions):
    """Options of MadCLIP.

    Where an option is None, the encoder decides; see the README of this folder.
    """

    class_name: str = Field(
        default="Brain",
        min_length=1,
        max_length=100,
        title="Class name",
        description="what the prompts call the picture, where the encoder has a text tower",
    )
    epochs: int = Field(
        default=60,
        ge=1,
        le=10_000,
        title="Epochs",
        description="passes over the augmented slices, unless the largest number of training samples ends them",
    )
    batch: int = Field(
        default=16,
        ge=1,
        le=256,
        title="Batch size",
        description="slices in a training step",
        json_schema_extra=ADVANCED,
    )
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        le=1,
        title="Learning rate",
        description="of Adam",
        json_schema_extra=ADVANCED,
    )
    max_samples: int | None = Field(
        default=None,
        ge=0,
        title="Largest number of training samples",
        description="training ends after so many slices, whatever the epochs; 0: no limit, as published; "
        "default: 640, or 768 on an encoder without a text tower",
        json_schema_extra=ADVANCED,
    )
    score_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Score share",
        description=SCORE_SHARE,
        json_schema_extra=ADVANCED,
    )
