"""Tensors kept on disk under the hash of all that they depend on: computed once, then read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medclipad.files import atomic_file, sha256_of_text

FOLDER_VARIABLE = "MEDCLIPAD_CACHE"
_log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """The folder named by MEDCLIPAD_CACHE, else the user's cache folder of the system; None if it is "off"."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen == "off":
        return None
    return Path(chosen) if chosen else user_cache_path("medclipad", appauthor=False)


def cached(kind: str, key: Mapping[str, object], compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of `compute`, from disk if it was computed before for this `kind` and `key`.

    `key` (values of JSON's types) must hold everything that the result depends on. A file that is damaged is computed
    anew; a folder that cannot be written costs the time again, and is told to the log.
    """
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / kind / f"{sha256_of_text(json.dumps(key, sort_keys=True))}.safetensors"
    try:
        return load_file(path)["tensor"]
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("%s is damaged (%s) and computed anew.", path, error)
    tensor = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temp_path:
            save_file({"tensor": tensor.contiguous()}, temp_path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        _log.warning("%s cannot be kept: %s", path, error)
    return tensor
