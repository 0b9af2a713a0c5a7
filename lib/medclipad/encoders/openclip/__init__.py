"""ViTs of open_clip with their text towers: CLIP, the papers' encoder, and SigLIP, EVA-02, PE and CoCa."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.encoders.openclip.architectures import check_image_size, is_known
from medclipad.encoders.registry import EncoderFamily, register_encoder

if TYPE_CHECKING:
    import torch

    from medclipad.encoders.base import ImageEncoder
    from medclipad.volume.progress import Progress


class OpenClipFamily(EncoderFamily):
    """An open_clip architecture and a pretrained tag or the path of a checkpoint, joined by "/"."""

    name = "open_clip"
    summary = (
        "ViT of open_clip with its text tower (CLIP, the papers' encoder; SigLIP, EVA-02, PE, CoCa): weights are "
        "downloaded on first use."
    )
    usage = 'a CLIP ViT of open_clip, such as "ViT-L-14-336/openai"'
    examples = ("ViT-L-14-336/openai", "ViT-L-14-quickgelu/openai", "ViT-B-16-SigLIP2/webli")
    has_text = True

    def accepts(self, name: str) -> bool:
        """Return whether the part before the first "/" is an architecture of open_clip, with a ViT or not."""
        return is_known(name)

    def check_image_size(self, name: str, image_size: int) -> None:
        """Raise DetectorError for a model without plain ViT, and for an image size under one patch."""
        check_image_size(name, image_size)

    def load(
        self, name: str, image_size: int | None, dtype: torch.dtype, device: torch.device, progress: Progress | None
    ) -> ImageEncoder:
        """Load an encoder; see `EncoderFamily.load`."""
        from medclipad.encoders.openclip.network import ClipEncoder

        return ClipEncoder(name, image_size, progress, dtype, device)


register_encoder(OpenClipFamily())
