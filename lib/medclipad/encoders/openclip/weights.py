"""Weights of a CLIP model from a file, converted one tensor at a time to the precision in which they will compute."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from medclipad.encoders.openclip.torch_archive import StoredTensor, read_archive
from medclipad.errors import DetectorError

# What OpenAI's archives carry beside the weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_POSITIONS = "visual.positional_embedding"


def load_part(
    model: nn.Module, path: Path, prefixes: tuple[str, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Put the tensors whose names start with one of `prefixes` into a CLIP model of open_clip on the meta device.

    `path` is a state dict (torch.save, safetensors) or OpenAI's TorchScript archive. The positional embedding is
    resized (bicubic, antialiased) to the model's grid in float32, before all is converted to `dtype`. The names and
    shapes of all tensors are compared, also of those that are not read. Raises DetectorError if the file does not hold
    the weights of this model.
    """
    own = model.state_dict()
    try:
        with _opened(path) as stored:
            if different := sorted(own.keys() ^ stored.keys()):
                fault = "lacks" if different[0] in own else "has an unknown"
                raise ValueError(f"it {fault} {different[0][:80]}")
            for key, value in stored.items():
                if tuple(value.shape) != own[key].shape and key != _POSITIONS:
                    raise ValueError(f"{key} is {list(value.shape)} and not {list(own[key].shape)}")
            # Made first, so that the memory of what is read and converted is used again and does not lie in between.
            read = {
                key: torch.empty(value.shape, dtype=dtype, device=device)
                for key, value in own.items()
                if key.startswith(prefixes)
            }
            for key, value in read.items():
                value.copy_(_checked(model, key, stored[key]))
    except Exception as error:  # a damaged or hostile file can raise nearly anything from inside torch
        raise DetectorError(
            f"The checkpoint {path.name} does not hold weights of this encoder ({reason(error)}): choose the file "
            "that belongs to it, or fetch it again."
        ) from error
    model.load_state_dict(read, strict=False, assign=True)


def reason(error: Exception) -> str:
    """Kind and first line of an error from another library, which may have no words at all."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])[:200]


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Tensor | StoredTensor]]:
    """The tensors of a file by name; those of a zip archive are not read yet."""
    from open_clip.factory import load_state_dict

    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        yield _state(load_state_dict(str(path), weights_only=True))
        return
    with zipfile.ZipFile(path) as archive:
        try:
            state = _state(read_archive(archive))
        except pickle.UnpicklingError:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):  # TorchScript: torch would run it
                raise
            state = _state(load_state_dict(str(path), weights_only=True))
        yield state


def _state(content: object) -> dict[str, Tensor | StoredTensor]:
    """The state dict in what a file holds, without what training code puts around it."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor | StoredTensor) for value in content.values()):
        raise ValueError("it is no state dict")
    return {
        key.removeprefix("module."): value
        for key, value in content.items()
        if key.removeprefix("module.") not in _NOT_WEIGHTS
    }


def _checked(model: nn.Module, key: str, value: Tensor | StoredTensor) -> Tensor:
    """A tensor of the file, float32, the positional embedding on the model's grid."""
    from open_clip.factory import resize_pos_embed

    tensor = (value.read() if isinstance(value, StoredTensor) else value).float()
    if not tensor.isfinite().all():
        raise ValueError(f"some values of {key} are not finite")
    if key == _POSITIONS:
        resized = {key: tensor}
        resize_pos_embed(resized, model)
        tensor = resized[key]
        if tensor.shape != model.visual.positional_embedding.shape:
            raise ValueError(f"{key} is {list(tensor.shape)}")
    return tensor
