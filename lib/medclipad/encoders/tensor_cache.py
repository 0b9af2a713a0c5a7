"""Keep tensors on disk under a hash of everything that they depend on, so that they are computed once."""

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
    """Return the cache folder.

    It is the folder named by the environment variable MEDCLIPAD_CACHE, or without it the system's folder for the user's
    caches. None if the variable is "off".
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen == "off":
        return None
    return Path(chosen) if chosen else user_cache_path("medclipad", appauthor=False)


def cached(group: str, key: Mapping[str, object], compute: Callable[[], Tensor]) -> Tensor:
    """Return a tensor from the cache, computed if it is not there.

    A damaged file is computed again. A folder that cannot be written to only costs that time again, and is logged.

    Parameters
    ----------
    group
        What kind of tensor it is: the name of a folder in the cache.
    key
        Everything that the result depends on, in values of JSON's types.
    compute
        Called without arguments for the tensor.
    """
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / group / f"{sha256_of_text(json.dumps(key, sort_keys=True))}.safetensors"
    try:
        return load_file(path)["tensor"]
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("%s is damaged (%s) and computed again.", path, error)
    tensor = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temp_path:
            save_file({"tensor": tensor.contiguous()}, temp_path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        _log.warning("%s cannot be kept: %s.", path, error)
    return tensor
