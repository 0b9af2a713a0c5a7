"""Download weights into the caches that open_clip and the hub's own library use, the whole file or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from medclipad.errors import DetectorError
from medclipad.files import atomic_file, sha256_of_file

if TYPE_CHECKING:
    from medclipad.volume.progress import Progress

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer
HUB_FILES = (  # names of the weights file in open_clip's repositories, in its order
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def fetch(config: dict, progress: Progress | None = None) -> Path:
    """Return the local file of weights, downloaded if it is not in the cache.

    Parameters
    ----------
    config
        Where they are, as in open_clip's registry: {"url": ...}, {"hf_hub": "owner/model/[file]"}, or both, of which
        the Hugging Face hub comes first.
    progress
        Called as `progress("download", MiB done, MiB in all, {})`. With None, a bar is drawn on standard error.

    Raises
    ------
    DetectorError
        If the file does not have the SHA-256 that its address states.
    OSError
        Or one of the hub's errors, if the file cannot be downloaded.
    """
    if config.get("hf_hub"):
        return _from_hub(config["hf_hub"], progress)
    return _from_url(config["url"], progress)


def expected_sha256(url: str) -> str:
    """Return the SHA-256, or its first digits, that OpenAI and open_clip state in an address; "" without one."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return Path(url).stem.rpartition("-")[2]
    return ""


def _from_url(url: str, progress: Progress | None) -> Path:
    """Download a file into open_clip's cache."""
    import requests

    folder = Path.home() / ".cache" / "clip"
    target = folder / url.rpartition("/")[2]
    expected = expected_sha256(url)
    if target.is_file():
        if sha256_of_file(target).startswith(expected):
            return target
        raise DetectorError(f"{target} is not the file of its name (its SHA-256 differs): remove it to fetch it again.")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temp_path, requests.get(url, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        total, digest = int(response.headers.get("Content-Length", 0)), hashlib.sha256()
        with (
            temp_path.open("wb") as file,
            _bar(progress)(total=total, unit="B", unit_scale=True, desc=target.name) as bar,
        ):
            # requests raises ChunkedEncodingError, an OSError, if the connection ends early.
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if not digest.hexdigest().startswith(expected):
            raise DetectorError(f"{target.name} arrived with another SHA-256 than its address states: try again later.")
    return target


def _from_hub(name: str, progress: Progress | None) -> Path:
    """Download a file of "owner/model/[file]" into the hub's cache."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, file = name.rpartition("/")
    files = (file,) if file else HUB_FILES
    for candidate in files:
        if isinstance(known := try_to_load_from_cache(repository, candidate), str):
            return Path(known)
    _require_network(constants.ENDPOINT)
    *others, last = files
    for candidate in others:
        try:
            return Path(hf_hub_download(repository, candidate, tqdm_class=_bar(progress)))
        except LocalEntryNotFoundError:  # there is no network
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, last, tqdm_class=_bar(progress)))


def _require_network(address: str) -> None:
    """Raise the error of a connection that fails at once: the hub's own library tries five times, for 20 s."""
    import requests

    requests.head(address, timeout=TIMEOUT)


def _bar(progress: Progress | None) -> type[tqdm]:
    """Return tqdm, or a subclass that calls `progress` instead of drawing."""
    if progress is None:
        return tqdm

    class ReportingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # the hub's own bars have one
            super().__init__(*args, **{**kwargs, "file": _NullStream(), "disable": False, "mininterval": 0})

        def update(self, n: float | None = 1) -> bool | None:
            was_drawn = super().update(n)
            progress("download", int(self.n) >> 20, max(int(self.total or self.n) >> 20, 1), {})
            return was_drawn

    return ReportingBar


class _NullStream:
    def write(self, text: str) -> None:
        """Draw nothing."""

    def flush(self) -> None:
        """Draw nothing."""
