"""Declaration of MadCLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.methods.madclip.options import MadCLIPOptions
from medclipad.methods.registry import Method, register_method
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.encoders import ImageEncoder
    from medclipad.methods.base import Shots
    from medclipad.methods.madclip.network import MadCLIPNetwork
    from medclipad.methods.madclip.reference import MadCLIPReference


@register_method
class MadCLIP(Method):
    """MadCLIP: adapters for normal and for abnormal tissue, and prompts, that learn from both kinds of slices."""

    name = "madclip"
    summary = "MadCLIP (MICCAI 2025): learns from normal and abnormal slices, with masks or without; no memory"
    learns_from = frozenset({"normal", "abnormal", "masks"})
    needs = frozenset({"normal", "abnormal"})
    default_image_size = 240
    Options = MadCLIPOptions

    @classmethod
    def build(cls, encoder: ImageEncoder, options: MadCLIPOptions) -> MadCLIPNetwork:
        """Return an untrained model on a frozen encoder."""
        from medclipad.methods.madclip.network import MadCLIPNetwork

        return MadCLIPNetwork(encoder, options)

    @classmethod
    def fit(cls, model: MadCLIPNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Train adapters and prompts on the shots; see `Method.fit`."""
        from medclipad.methods.madclip.training import fit

        return fit(model, shots, seed, progress)

    @classmethod
    def reference(cls) -> MadCLIPReference:
        """Return the format of the reference code's checkpoints, {Class}.pth."""
        from medclipad.methods.madclip.reference import MadCLIPReference

        return MadCLIPReference()
