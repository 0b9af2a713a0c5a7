"""Options of MediCLIP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medclipad.methods.registry import ADVANCED, SCORE_SHARE, MethodOptions, Variant


class MediCLIPOptions(MethodOptions):
    """Options of MediCLIP.

    Where an option is None, the encoder decides; see the README of this folder.
    """

    epochs: int = Field(
        default=200,
        ge=1,
        le=10_000,
        title="Epochs",
        description="passes over the normal slices, each time with a new synthetic anomaly; without effect at "
        "memory share 1",
    )
    variant: Variant = Field(
        default="reference",
        title="Variant",
        description="reference: compute as the authors' code does; paper: as the paper says, where the two differ",
        json_schema_extra=ADVANCED,
    )
    batch: int = Field(
        default=8,
        ge=1,
        le=256,
        title="Batch size",
        description="slices in a training step; fewer if there are fewer normal slices",
        json_schema_extra=ADVANCED,
    )
    schedule: Literal["published", "short"] | None = Field(
        default=None,
        title="Schedule",
        description="how synthetic anomalies are used; published: each is learned from once, at a constant learning "
        "rate; short: each is encoded once and learned from in four steps, while the learning rate falls along a "
        "cosine; default: short, or published on an encoder without a text tower",
        json_schema_extra=ADVANCED,
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        title="Largest number of steps",
        description="stop after this many steps, whatever the epochs; default: 120 if short, 400 (16 slices for 200 "
        "epochs) if as published, or 60 on an encoder without a text tower",
        json_schema_extra=ADVANCED,
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        title="Learning rate",
        description="initial learning rate of Adam; default: 0.002 if short, 0.001 if as published",
        json_schema_extra=ADVANCED,
    )
    memory_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Memory share",
        description="weight of the memory of normal tokens in the map; default: 0, as published, or 1 on an encoder "
        "without a text tower: the memory alone, and nothing is trained",
        json_schema_extra=ADVANCED,
    )
    memory_size: int = Field(
        default=24_000,
        ge=1,
        le=100_000,
        title="Memory size",
        description="normal tokens that the memory holds at most",
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
