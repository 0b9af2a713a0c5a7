"""Vision transformers of timm without text towers, such as DINOv2, DINOv3 and the image towers of SigLIP and EVA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.encoders.registry import EncoderFamily, register_encoder
from medclipad.encoders.timm.architectures import PREFIX, check_image_size

if TYPE_CHECKING:
    import torch

    from medclipad.encoders.base import ImageEncoder
    from medclipad.volume.progress import Progress

DEFAULT_SIZE = 224  # pixels: a multiple of the usual patches, of 8, 14, 16 and 32


class TimmFamily(EncoderFamily):
    """ViTs by timm's own names of model and weights after "timm:", or by a model's name, "/" and a file."""

    name = "timm"
    summary = "ViT of timm without text tower (DINOv2, DINOv3, SigLIP, EVA): weights are downloaded on first use."
    usage = f'"{PREFIX}" and a timm ViT'
    examples = (f"{PREFIX}vit_small_patch14_dinov2.lvd142m", f"{PREFIX}vit_small_patch16_dinov3.lvd1689m")
    default_image_size = DEFAULT_SIZE

    def accepts(self, name: str) -> bool:
        """Return whether `name` starts with "timm:"; whether timm has the model is known when it is loaded."""
        return name.startswith(PREFIX)

    def check_image_size(self, name: str, image_size: int) -> None:
        """Raise DetectorError unless timm has the model and the image size is a multiple of its patch."""
        check_image_size(name, image_size)

    def load(
        self, name: str, image_size: int | None, dtype: torch.dtype, device: torch.device, progress: Progress | None
    ) -> ImageEncoder:
        """Load an encoder; see `EncoderFamily.load`."""
        from medclipad.encoders.timm.network import TimmEncoder

        return TimmEncoder(name, image_size or DEFAULT_SIZE, progress, dtype, device)


register_encoder(TimmFamily())
