"""Architectures of open_clip: which of them can be tapped and have a text tower, and the image sizes that they take."""

from __future__ import annotations

from typing import Any

from medclipad.compat import ensure_torchvision
from medclipad.encoders.registry import encoder_usage
from medclipad.errors import DetectorError

_HUB = "hf-hub:"  # open_clip's names for models whose configuration is on the network too, such as BiomedCLIP


def is_known(name: str) -> bool:
    """Return whether an encoder's name is one of open_clip: its architecture stands before the first "/"."""
    return name.startswith(_HUB) or _config(name) is not None


def model_config(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of an encoder's architecture.

    Raises
    ------
    DetectorError
        If open_clip has no such architecture, its image tower is no plain ViT, or its text tower needs another library.
    """
    if name.startswith(_HUB):
        raise DetectorError(
            f'Encoder "{name[:80]}" is not known, since its configuration is on the network alone: choose a model that '
            "open_clip itself has, which BiomedCLIP is not, by its tag or a file of its weights."
        )
    architecture, config = name.partition("/")[0], _config(name)
    if config is None:
        raise DetectorError(f'Encoder "{architecture}" is not known: use {encoder_usage()}.')
    if config["text_cfg"].get("hf_model_name"):
        raise DetectorError(
            f"The text tower of {architecture} is a model of the library transformers, which MedCLIPAD does not have: "
            "choose a model of open_clip with a text tower of its own, such as a ViT-*, EVA02-* or coca_ViT-*."
        )
    if _patch_size(config) is None:
        raise DetectorError(
            f"The image tower of {architecture} is no plain ViT: choose a ViT-*, EVA02-*, PE-Core-* or coca_ViT-* of "
            "open_clip."
        )
    return config


def check_image_size(name: str, image_size: int) -> None:
    """Raise DetectorError for an architecture that cannot be used, and for an image size under one of its patches."""
    patch = _patch_size(model_config(name))
    if patch is not None and image_size < patch:
        architecture = name.partition("/")[0]
        raise DetectorError(
            f"An image size of {image_size} pixels is under one patch of {architecture}: give {patch} or more."
        )


def build(config: dict[str, Any], image_size: int | None) -> Any:
    """Return the model of a configuration on the meta device: names and shapes of its tensors, without their values.

    Parameters
    ----------
    config
        What `model_config` returned.
    image_size
        Side of the square input in pixels; None for the architecture's own.

    Raises
    ------
    DetectorError
        If its blocks are not CLIP's.
    """
    import open_clip
    import torch
    from open_clip.transformer import CustomResidualAttentionBlock

    parts = {**config, "vision_cfg": {**config["vision_cfg"], "timm_model_pretrained": False}}  # no download
    has_trunk = bool(parts["vision_cfg"].get("timm_model_name"))
    if image_size is not None and not has_trunk:
        parts["vision_cfg"]["image_size"] = image_size
    model_cls = open_clip.CLIP
    if parts.pop("custom_text", False):
        model_cls = open_clip.CoCa if "multimodal_cfg" in parts else open_clip.CustomTextCLIP
    with torch.device("meta"):
        model: Any = model_cls(**parts)  # open_clip's modules have no types
        if image_size is not None and has_trunk:
            model.visual.set_input_size((image_size, image_size))
    if any(isinstance(module, CustomResidualAttentionBlock) for module in model.modules()):
        raise DetectorError("This model of open_clip has blocks with further norms or scales: choose one without them.")
    return model


def normalisation(architecture: str, pretrained: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and deviation (R, G, B) of the images that weights were trained with.

    Parameters
    ----------
    architecture
        Name in open_clip.
    pretrained
        Tag of the weights, or a file: it is taken to be of the same kind as the architecture's first tag. They are
        OpenAI's if there is none.
    """
    ensure_torchvision()
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture)
    config = get_pretrained_cfg(architecture, pretrained) or get_pretrained_cfg(architecture, tags[0] if tags else "")
    return config.get("mean", OPENAI_DATASET_MEAN), config.get("std", OPENAI_DATASET_STD)


def _config(name: str) -> dict[str, Any] | None:
    """Return open_clip's own configuration of an encoder's architecture, or None if it has none."""
    ensure_torchvision()
    import open_clip

    architecture = name.partition("/")[0]
    if ":" in architecture:  # open_clip would look for it on the network, or in a folder
        return None
    return open_clip.get_model_config(architecture)


def _patch_size(config: dict[str, Any]) -> int | None:
    """Return the side of the patches of a configuration's image tower in pixels, or None if it is no plain ViT."""
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        # Here, so that this family is registered before timm's: the order in help texts.
        from medclipad.encoders.timm.architectures import patch_size

        return patch_size(vision["timm_model_name"])
    if isinstance(vision.get("layers"), list) or isinstance(vision.get("attentional_pool"), str):
        return None  # a ResNet, or a pooling that open_clip calls untested
    return vision.get("patch_size", 16)
