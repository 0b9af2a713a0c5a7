"""Options of MVFA."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from medclipad.methods.registry import ADVANCED, SCORE_SHARE, CountOrAll, MethodOptions, Variant

PAPER_BATCH = 16  # slices in a training step, as the paper says


class MVFAOptions(MethodOptions):
    """Options of MVFA.

    Where an option is None, the encoder decides; see the README of this folder.
    """

    class_name: str = Field(
        default="Brain",
        min_length=1,
        max_length=100,
        title="Class name",
        description="what the prompts call the picture, where the encoder has a text tower",
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Epochs",
        description="passes over the augmented slices; default: 50, or 7 on an encoder without a text tower",
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
        description="slices in a training step; the reference code has 1, the paper 16",
        json_schema_extra=ADVANCED,
    )
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        le=1,
        title="Learning rate",
        description="of both Adam optimisers; the reference code uses 1e-4 for zero-shot",
        json_schema_extra=ADVANCED,
    )
    max_samples: int | None = Field(
        default=None,
        ge=0,
        title="Largest number of training samples",
        description="training ends after so many slices, whatever the epochs; 0: no limit, as in the reference code; "
        "default: 600, or 2400 on an encoder without a text tower, shared by the planes",
        json_schema_extra=ADVANCED,
    )
    memory_tokens: CountOrAll = Field(
        default=2000,
        title="Memory size",
        description="normal tokens remembered per level, drawn at random; the reference code remembers all",
        json_schema_extra=ADVANCED,
    )
    residual: float | None = Field(
        default=None,
        ge=0,
        lt=0.5,
        title="Residual share",
        description="weight of each adapter's output in the input of the next stage; default: 0.1, or 0 on an "
        "encoder without a text tower",
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

    @model_validator(mode="before")
    @classmethod
    def _batch_of_the_paper(cls, given: Any) -> Any:
        """Give the paper's variant its own default batch."""
        paper = isinstance(given, dict) and given.get("variant") == "paper"
        return {"batch": PAPER_BATCH, **given} if paper else given
