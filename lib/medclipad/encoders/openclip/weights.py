"""Weights of a CLIP model from a file, converted tensor by tensor to the precision that they compute in."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medclipad.encoders.openclip.torch_archive import StoredTensor, read_archive
from medclipad.encoders.weight_errors import not_weights

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # OpenAI's archives hold these too
_POSITIONS = "visual.positional_embedding"
_TRUNK_POSITIONS = "visual.trunk.pos_embed"


def load_part(
    model: nn.Module, path: Path, prefixes: tuple[str, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Load one part of a model of open_clip, such as its image tower, from a file of the whole model.

    The names and shapes of all tensors are compared with the model's, also of those that are not loaded. The positional
    embedding is resized to the model's grid (bicubic, antialiased) in float32 before it is converted. What a ViT of
    timm computes for itself, such as rotary positions, stays float32.

    Parameters
    ----------
    model
        Model on the meta device.
    path
        State dict (torch.save or safetensors), or OpenAI's TorchScript archive.
    prefixes
        Starts of the names of the tensors to load.
    dtype
        Type to convert them to.
    device
        Where to put them.

    Raises
    ------
    DetectorError
        If the file does not hold the weights of this model.
    """
    own = model.state_dict()
    try:
        with _opened(path) as content:
            stored = _named(content, own)
            if different := sorted(own.keys() ^ stored.keys()):
                fault = "lacks" if different[0] in own else "has an unknown"
                raise ValueError(f"it {fault} {different[0][:80]}")
            for key, value in stored.items():
                if tuple(value.shape) != own[key].shape and key not in (_POSITIONS, _TRUNK_POSITIONS):
                    raise ValueError(f"{key} is {list(value.shape)} and not {list(own[key].shape)}")
            # Allocated first: the memory of what is read and converted is then used again for the next tensor.
            read = {
                key: torch.empty(value.shape, dtype=dtype if value.is_floating_point() else value.dtype, device=device)
                for key, value in own.items()
                if key.startswith(prefixes)
            }
            for key, value in read.items():
                value.copy_(_read_tensor(model, key, stored[key]))
    except Exception as error:  # a damaged or hostile file can raise nearly anything from inside torch
        raise not_weights(path, error) from error
    model.load_state_dict(read, strict=False, assign=True)
    _compute_buffers(model, prefixes, device)


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Tensor | StoredTensor]]:
    """Yield the tensors of a file by name; those of a zip archive are not read yet."""
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
    """Return the state dict in the content of a file, without what training code puts around it."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor | StoredTensor) for value in content.values()):
        raise ValueError("it is not a state dict")
    return {
        key.removeprefix("module."): value
        for key, value in content.items()
        if key.removeprefix("module.") not in _NOT_WEIGHTS
    }


def _named(stored: Mapping[str, Tensor | StoredTensor], own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the tensors of a file under the names of the model: older files have the text tower's at the top."""
    from open_clip.model import convert_to_custom_text_state_dict

    if "text.positional_embedding" in own and "positional_embedding" in stored:
        return convert_to_custom_text_state_dict(dict(stored))
    return dict(stored)


def _read_tensor(model: Any, key: str, value: Tensor | StoredTensor) -> Tensor:
    """Return a tensor of the file, float32; the positional embedding on the model's grid."""
    tensor = (value.read() if isinstance(value, StoredTensor) else value).float()
    if not tensor.isfinite().all():
        raise ValueError(f"some values of {key} are not finite")
    if key in (_POSITIONS, _TRUNK_POSITIONS):
        tensor = _resized(model, key, tensor)
        if tensor.shape != model.state_dict()[key].shape:
            raise ValueError(f"{key} is {list(tensor.shape)}")
    return tensor


def _resized(model: Any, key: str, positions: Tensor) -> Tensor:
    """Return a positional embedding on the model's grid, as open_clip or timm resizes it."""
    if key == _POSITIONS:
        from open_clip.factory import resize_pos_embed

        resized = {key: positions}
        resize_pos_embed(resized, model)
        return resized[key]
    from timm.layers.pos_embed import resample_abs_pos_embed

    trunk = model.visual.trunk
    n_prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    return resample_abs_pos_embed(positions, list(trunk.patch_embed.grid_size), num_prefix_tokens=n_prefix)


def _compute_buffers(model: nn.Module, prefixes: tuple[str, ...], device: torch.device) -> None:
    """Compute what a ViT of timm does not keep in files: rotary positions, and biases that are always zero."""
    for name, module in model.named_modules():
        compute: Any = getattr(module, "init_non_persistent_buffers", None)
        if compute is not None and f"{name}.".startswith(prefixes):
            for key, value in module.named_buffers(recurse=False):
                setattr(module, key, torch.empty_like(value, device=device))
            compute()
