"""ViT of timm, tapped after each quarter of its blocks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medclipad.encoders.base import N_STAGES, ImageEncoder
from medclipad.encoders.download import fetch
from medclipad.encoders.timm.architectures import PREFIX, build, split_name
from medclipad.encoders.timm.tapped import TappedViT
from medclipad.encoders.weight_errors import not_downloaded, not_weights
from medclipad.errors import DetectorError, MedCLIPADError
from medclipad.files import sha256_of_file

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress

HUB_FILE = "model.safetensors"  # in each of timm's repositories


class TimmEncoder(ImageEncoder):
    """Plain ViT of timm. Its tokens are the blocks' outputs, without the norm after the last one; no text tower.

    Parameters
    ----------
    name
        "timm:" and timm's name of a model with the tag of its weights, such as "timm:vit_small_patch14_dinov2.lvd142m",
        or "timm:", the name of a model, "/" and the path of a file with its weights.
    image_size
        Side of the square input in pixels, a multiple of the patch. Learned positions are resized by timm (bicubic,
        antialiased).
    progress
        Called as `progress("download", MiB done, MiB in all, {})`. With None, a bar is drawn on standard error.
    dtype
        Type of weights and tokens. Rotary positions stay float32.
    device
        Where the encoder computes.

    Raises
    ------
    DetectorError
        If timm has no such ViT, or the weights cannot be downloaded, read or fitted.
    """

    embed_dim = 128

    def __init__(
        self,
        name: str,
        image_size: int,
        progress: Progress | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        vit = build(name, image_size)
        weights = _weights_file(name, progress)
        _load(vit, weights)
        self._vit = TappedViT(vit.to(device)).to(dtype)
        self.name = name
        self.sha256 = sha256_of_file(weights)
        self.image_size = image_size
        self.widths, self.grids = (self._vit.width,) * N_STAGES, (self._vit.grid,) * N_STAGES
        self.n_prefix = self._vit.n_prefix
        self.mean, self.std = vit.pretrained_cfg["mean"], vit.pretrained_cfg["std"]
        self.freeze()

    def stem(self, images: Tensor) -> Tensor:
        """Return the prefix and the patch tokens, with their learned positions added."""
        return self._vit.stem(images.to(self.dtype))

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the tokens after a quarter of the blocks."""
        return self._vit.stage(state, level)

    def tokens(self, state: Tensor) -> Tensor:
        """Return the state itself: it is the tokens."""
        return state

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the tokens as the new state."""
        return tokens


def _load(vit: Any, weights: Path) -> None:
    """Load a file of weights; DetectorError if any is missing, has another shape or is not finite."""
    from timm.models import load_pretrained

    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.fill_(torch.nan)  # what the file lacks stays so: timm would leave it random
    config = {**vit.pretrained_cfg, "file": str(weights), "state_dict": None, "custom_load": False}  # True: from .npz
    adapt = getattr(sys.modules[type(vit).__module__], "checkpoint_filter_fn", None)
    try:
        load_pretrained(vit, config, num_classes=0, filter_fn=adapt, strict=False)
        missing = [key for key, value in vit.named_parameters() if not value.isfinite().all()]
        if missing:
            raise ValueError(f"it lacks {missing[0]}, or not all of its values are finite")
    except Exception as error:  # a damaged or hostile file can raise nearly anything from inside torch
        raise not_weights(weights, error) from error


def _weights_file(name: str, progress: Progress | None) -> Path:
    """Return the weights file that a name gives, or that timm's tag stands for, downloaded on first use."""
    import timm

    model, tag, file = split_name(name)
    if file:
        if not Path(file).is_file():
            raise DetectorError(f"There is no weights file {file}: check the path in {name}.")
        return Path(file)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag not in tags:
        known = ", ".join(tags) or "none"
        raise DetectorError(
            f'{PREFIX}{model} lacks its weights, or they are not known ("{tag}"; timm has: {known}): add one of these, '
            f'as in "{PREFIX}{model}.{tags[0] if tags else "TAG"}", or a file, as in "{PREFIX}{model}/FILE".'
        )
    config = timm.get_pretrained_cfg(f"{model}.{tag}")
    repository = config and config.hf_hub_id
    try:
        if not repository:
            raise OSError("it is not on the Hugging Face hub")
        return fetch({"hf_hub": f"{repository}/{HUB_FILE}"}, progress)
    except MedCLIPADError:
        raise
    except Exception as error:  # a dozen classes of requests and the hub mean the same to the user
        raise not_downloaded(tag, f"{PREFIX}{model}", error) from error
