"""Declaration of MVFA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.registry import Method, register_method
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.encoders import ImageEncoder
    from medclipad.methods.base import Shots
    from medclipad.methods.mvfa.benchmark import MVFABenchmark
    from medclipad.methods.mvfa.network import MVFANetwork
    from medclipad.methods.mvfa.reference import MVFAReference


@register_method
class MVFA(Method):
    """MVFA: adapters and a memory that learn from normal and abnormal slices."""

    name = "mvfa"
    summary = "MVFA (CVPR 2024): learns from normal and abnormal slices, with masks or without"
    learns_from = frozenset({"normal", "abnormal", "masks"})
    needs = frozenset({"normal", "abnormal"})
    default_image_size = 240
    Options = MVFAOptions

    @classmethod
    def build(cls, encoder: ImageEncoder, options: MVFAOptions) -> MVFANetwork:
        """Return an untrained model on a frozen encoder."""
        from medclipad.methods.mvfa.network import MVFANetwork

        return MVFANetwork(encoder, options)

    @classmethod
    def fit(cls, model: MVFANetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Train the adapters on the shots, then fill the memory; see `Method.fit`."""
        from medclipad.methods.mvfa.training import fit

        return fit(model, shots, seed, progress)

    @classmethod
    def reference(cls) -> MVFAReference:
        """Return the format of the reference code's checkpoints, {Class}.pth."""
        from medclipad.methods.mvfa.reference import MVFAReference

        return MVFAReference()

    @classmethod
    def benchmark(cls) -> MVFABenchmark:
        """Return the paper's benchmark on BMAD."""
        from medclipad.methods.mvfa.benchmark import MVFABenchmark

        return MVFABenchmark()
