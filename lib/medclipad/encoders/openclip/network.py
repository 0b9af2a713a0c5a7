"""Models of open_clip with a plain ViT as image tower, tapped after each quarter of its blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclipad.encoders.base import N_STAGES, ImageEncoder
from medclipad.encoders.download import fetch
from medclipad.encoders.openclip.architectures import build, check_image_size, model_config, normalisation
from medclipad.encoders.openclip.image_towers import OpenClipViT, image_tower
from medclipad.encoders.openclip.text import ClipText
from medclipad.encoders.openclip.weights import load_part
from medclipad.encoders.weight_errors import not_downloaded
from medclipad.errors import DetectorError, MedCLIPADError
from medclipad.files import sha256_of_file

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress


class ClipEncoder(ImageEncoder):
    """Image tower of an open_clip model: CLIP, SigLIP, EVA-02, PE, CoCa and whatever else has a plain ViT.

    The weights of a pretrained tag are downloaded on first use. The text tower is loaded when it is first used.

    Parameters
    ----------
    name
        An open_clip architecture and a pretrained tag or the path of a checkpoint, joined by "/".
    image_size
        Side of the square input in pixels, of one patch or more; what is left beyond whole patches is not seen. A size
        other than the architecture's resizes the positional embedding (bicubic, antialiased).
    progress
        Called as `progress("download", MiB done, MiB in all, {})`. With None, a bar is drawn on standard error.
    dtype
        Type of weights and tokens.
    device
        Where the encoder computes.

    Raises
    ------
    DetectorError
        If the architecture is unknown or cannot be tapped, or the weights cannot be downloaded, read or fitted.

    Notes
    -----
    As in open_clip, "ViT-L-14-336/openai" computes with GELU and "ViT-L-14-336-quickgelu/openai" with QuickGELU. MVFA's
    reference code used the former, MediCLIP's the latter.
    """

    def __init__(
        self,
        name: str,
        image_size: int | None = None,
        progress: Progress | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        architecture, _, pretrained = name.partition("/")
        config = model_config(name)
        weights = _weights_file(architecture, pretrained, progress)
        if image_size is not None:
            check_image_size(name, image_size)
        model = build(config, image_size)
        load_part(model, weights, ("visual.",), dtype, torch.device(device))
        self._tower = image_tower(model.visual).to(dtype)  # what a ViT of timm computed for itself, too
        self.name = name
        self.quick_gelu = bool(config.get("quick_gelu")) and isinstance(self._tower, OpenClipViT)
        self.sha256 = sha256_of_file(weights)
        self.image_size = self._tower.image_size
        self.widths, self.grids = (self._tower.width,) * N_STAGES, (self._tower.grid,) * N_STAGES
        self.n_prefix = self._tower.n_prefix
        self.embed_dim = config["embed_dim"]
        self.mean, self.std = normalisation(architecture, pretrained)
        self.text = ClipText(architecture, config, weights, dtype, torch.device(device))
        self.freeze()

    def stem(self, images: Tensor) -> Tensor:
        """Return the prefix and the patch tokens, with their positions added."""
        return self._tower.stem(images.to(self.dtype))

    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the tokens after a quarter of the blocks."""
        return self._tower.stage(state, level)

    def tokens(self, state: Tensor) -> Tensor:
        """Return the state itself: it is the tokens."""
        return state

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the tokens as the new state."""
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens of the last stage in the space shared with the text tower.

        Parameters
        ----------
        tokens
            (..., width).

        Returns
        -------
        Tensor
            (..., embed_dim): what the model's own head makes of an image that consists of this token alone.

        Notes
        -----
        Where the class token or a mean is pooled, it is the norm and the projection, so that the class token becomes
        the image's feature. An attentional pooler (CoCa, SigLIP's MAP head, PE) mixes the values of all tokens; a token
        alone keeps its own value, and passes the rest of the head, as in MaskCLIP (Zhou et al. 2022).
        """
        return self._tower.project(tokens)


def _weights_file(architecture: str, pretrained: str, progress: Progress | None) -> Path:
    """Return the weights file of a pretrained tag, downloaded on first use, or of a path."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if not pretrained:
        raise DetectorError(
            f'Encoder "{architecture}" lacks its weights: add a tag or a file, as in "{architecture}/openai".'
        )
    config = get_pretrained_cfg(architecture, pretrained)
    if not config:
        if Path(pretrained).is_file():
            return Path(pretrained)
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise DetectorError(
            f'"{pretrained}" is neither a file nor a pretrained tag of {architecture} (its tags: {tags}).'
        )
    try:
        return fetch(config, progress)
    except MedCLIPADError:  # the file is not what it should be, or the user cancelled
        raise
    except Exception as error:  # a dozen classes of requests and the hub mean the same to the user
        raise not_downloaded(pretrained, architecture, error) from error
