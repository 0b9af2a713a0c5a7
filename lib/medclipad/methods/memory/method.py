"""Declaration of the memory method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from medclipad.methods.registry import ADVANCED, Method, MethodOptions, register_method
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.encoders import ImageEncoder
    from medclipad.methods.base import Shots
    from medclipad.methods.memory.network import MemoryNetwork


class MemoryOptions(MethodOptions):
    """Options of the memory method."""

    memory_size: int = Field(
        default=24_000,
        ge=1,
        le=100_000,
        title="Memory size",
        description="normal tokens that the memory holds at most",
        json_schema_extra=ADVANCED,
    )
    score_share: float = Field(
        default=0.02,
        ge=0,
        le=1,
        title="Score share",
        description="the share of a slice's map whose highest values have its score as their mean; 0: the maximum",
        json_schema_extra=ADVANCED,
    )


@register_method
class Memory(Method):
    """Memory: a map of distances to what normal slices show, without training."""

    name = "memory"
    summary = "Memory: remembers patches of normal slices, and trains nothing"
    learns_from = frozenset({"normal"})
    needs = frozenset({"normal"})
    default_image_size = 224
    default_shots = 96  # as MediCLIP, whose memory this is: it gains from more, and they cost seconds
    Options = MemoryOptions

    @classmethod
    def build(cls, encoder: ImageEncoder, options: MemoryOptions) -> MemoryNetwork:
        """Return an empty memory on a frozen encoder."""
        from medclipad.methods.memory.network import MemoryNetwork

        return MemoryNetwork(encoder, options)

    @classmethod
    def fit(cls, model: MemoryNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Remember the normal slices; see `Method.fit`."""
        return model.learn(shots, seed, progress)
