"""Declaration of MediCLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.registry import Method, register_method
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.encoders import ImageEncoder
    from medclipad.methods.base import Shots
    from medclipad.methods.mediclip.benchmark import MediCLIPBenchmark
    from medclipad.methods.mediclip.network import MediCLIPNetwork
    from medclipad.methods.mediclip.reference import MediCLIPReference


@register_method
class MediCLIP(Method):
    """MediCLIP: adapters and prompts that learn from normal slices with synthetic anomalies."""

    name = "mediclip"
    summary = "MediCLIP (MICCAI 2024): learns from normal slices; abnormal ones with masks improve it"
    learns_from = frozenset({"normal", "abnormal", "masks"})
    needs = frozenset({"normal"})
    default_image_size = 224
    default_shots = 96  # its memory gains from more, and its training does not take longer
    Options = MediCLIPOptions
    is_default = True

    @classmethod
    def build(cls, encoder: ImageEncoder, options: MediCLIPOptions) -> MediCLIPNetwork:
        """Return an untrained model on a frozen encoder."""
        from medclipad.methods.mediclip.network import MediCLIPNetwork

        return MediCLIPNetwork(encoder, options)

    @classmethod
    def fit(cls, model: MediCLIPNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Train adapters and prompts on synthetic anomalies, then fill the memory; see `Method.fit`."""
        from medclipad.methods.mediclip.training import fit

        return fit(model, shots, seed, progress)

    @classmethod
    def reference(cls) -> MediCLIPReference:
        """Return the format of the reference code's checkpoints."""
        from medclipad.methods.mediclip.reference import MediCLIPReference

        return MediCLIPReference()

    @classmethod
    def benchmark(cls) -> MediCLIPBenchmark:
        """Return the paper's benchmark: k normal pictures of a data set, and its test set."""
        from medclipad.methods.mediclip.benchmark import MediCLIPBenchmark

        return MediCLIPBenchmark()
