"""MVFA's prompts: states of an object in templates, after WinCLIP (Huang et al. 2024; Jeong et al. 2023, table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor

from medclipad.encoders import ImageEncoder, TextTower
from medclipad.encoders.tensor_cache import cached
from medclipad.methods.common.states import ABNORMAL_STATES, NORMAL_STATES

TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
CLASS_NAMES = {
    "Brain": "Brain",
    "Liver": "Liver",
    "Retina_RESC": "retinal OCT",
    "Retina_OCT2017": "retinal OCT",
    "Chest": "Chest X-ray film",
    "Histopathology": "histopathological image",
}
"""Class of the BMAD benchmark -> what the reference code calls it in prompts."""

_BATCH = 64  # prompts encoded at once


def prompts(class_name: str) -> tuple[list[str], list[str]]:
    """Return the normal and the abnormal prompts of a class: every state in every template.

    Parameters
    ----------
    class_name
        What the prompts call the picture, such as "Brain".

    Examples
    --------
    >>> normal, abnormal = prompts("Brain")
    >>> len(normal), len(abnormal), normal[0]
    (245, 175, 'a bad photo of a Brain.')
    """

    def filled(states: Sequence[str]) -> list[str]:
        return [template.format(state.format(class_name)) for state in states for template in TEMPLATES]

    return filled(NORMAL_STATES), filled(ABNORMAL_STATES)


@torch.no_grad()
def encode_prompts(text: TextTower, texts: Sequence[str]) -> Tensor:
    """Return text features of prompts.

    Parameters
    ----------
    text
        Text tower, run with the mask that it was trained with.
    texts
        n prompts.

    Returns
    -------
    Tensor
        (n, embed_dim), not normalised.

    Notes
    -----
    CLIP's causal tower cannot see what follows the end token, so the padding is cut off: the result is the same, five
    times faster.
    """
    tokens = text.tokenize(list(texts))
    order = text.ends(tokens).argsort()  # by length
    encoded = []
    for part in tokens[order].split(_BATCH):
        end = text.ends(part)
        if not text.needs_padding:
            part = part[:, : int(end.max()) + 1]
        encoded.append(text.encode(text.token_embedding(part), end, causal=True))
    return torch.cat(encoded)[order.argsort().to(encoded[0].device)]


@torch.no_grad()
def text_features(text: TextTower, class_name: str) -> Tensor:
    """Return the text features of a class.

    Parameters
    ----------
    text
        Text tower.
    class_name
        What the prompts call the picture.

    Returns
    -------
    Tensor
        (embed_dim, 2), L2-normalised; column 0 normal, column 1 abnormal. Each is the mean of the normalised features
        of its prompts.
    """
    means = [F.normalize(encode_prompts(text, texts), dim=-1).mean(dim=0) for texts in prompts(class_name)]
    return F.normalize(torch.stack(means, dim=1), dim=0)


def cached_text_features(encoder: ImageEncoder, class_name: str) -> Tensor:
    """Return the text features of a class as `text_features` does, on the CPU, from the cache if they are there.

    Raises
    ------
    DetectorError
        If the encoder has no text tower.
    """
    text = encoder.require_text()
    key = {
        "medclipad": version("medclipad"),
        "weights": encoder.sha256,
        "architecture": encoder.name.partition("/")[0],
        "precision": str(encoder.dtype),
        "prompts": prompts(class_name),
    }
    return cached("text", key, lambda: text_features(text, class_name).cpu())
