"""Give detectors to others and take theirs: a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from medclipad.detection.model_card import CARD
from medclipad.detection.storage import INFO, WEIGHTS, DetectorInfo, read_info, read_weights, save_folder
from medclipad.encoders.weight_errors import reason
from medclipad.errors import DetectorError

HUB = "hf://"
"""Start of the address of a repository on the hub, as in "hf://owner/name"."""
FILES = (INFO, WEIGHTS, CARD)


def push(folder: str | Path, target: str, private: bool = True) -> str:
    """Write a detector to a new folder, or to a repository of the hub, without the names of the volumes.

    Parameters
    ----------
    folder
        Folder of the detector.
    target
        New folder, or "hf://owner/name"; the hub's own library finds the token (`hf auth login`, or HF_TOKEN).
    private
        Whether a repository that does not exist yet becomes private.

    Returns
    -------
    str
        Where it is now.

    Raises
    ------
    DetectorError
        If the folder is no detector or is damaged, the target exists, or the hub refuses it.
    """
    info = read_info(folder)
    weights, info = read_weights(folder, info.weights_sha256), without_names(info)
    if not target.startswith(HUB):
        save_folder(target, info, weights)
        return target
    from huggingface_hub import HfApi

    repository, api = _repository(target), HfApi()
    with tempfile.TemporaryDirectory(prefix="medclipad-") as temporary:
        ready = Path(temporary) / "detector"
        save_folder(ready, info, weights)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository, folder_path=ready, commit_message=f"{info.name}, {info.created:%Y-%m-%d}"
            )
        except Exception as error:  # a dozen classes of the hub's library and of its HTTP client
            raise DetectorError(
                f"The detector could not be written to {target} ({reason(error)}): check the name, the network and "
                "your token (`hf auth login`)."
            ) from error
    return str(done.commit_url)


def pull(source: str, folder: str | Path, revision: str | None = None) -> DetectorInfo:
    """Take a detector from a folder, or from a repository of the hub, into a new folder.

    Parameters
    ----------
    source
        Folder, or "hf://owner/name".
    folder
        New folder.
    revision
        Branch, tag or commit of the repository; default its main branch.

    Returns
    -------
    DetectorInfo
        What the detector is.

    Raises
    ------
    DetectorError
        If there is no detector, it is damaged, or `folder` exists. Nothing is left then.
    """
    found = _downloaded(source, revision) if source.startswith(HUB) else source
    info = read_info(found)
    return save_folder(folder, info, read_weights(found, info.weights_sha256))


def without_names(info: DetectorInfo) -> DetectorInfo:
    """Return what is known of a detector with numbers in place of the volumes' names, which may be patients'."""
    names = [part["volume"] for part in info.training_slices] + [scan.name for scan in info.calibration.scans]
    numbered = {name: f"volume {number}" for number, name in enumerate(dict.fromkeys(names), start=1)}
    scans = [scan.model_copy(update={"name": numbered[scan.name]}) for scan in info.calibration.scans]
    return info.model_copy(update={
        "training_slices": [{**part, "volume": numbered[part["volume"]]} for part in info.training_slices],
        "calibration": info.calibration.model_copy(update={"scans": scans}),
    })  # fmt: skip


def _downloaded(source: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(_repository(source), revision=revision, allow_patterns=list(FILES))
    except Exception as error:  # a dozen classes of the hub's library and of its HTTP client
        raise DetectorError(
            f"The detector could not be fetched from {source} ({reason(error)}): check the name, the network and, if "
            "it is private, your token (`hf auth login`)."
        ) from error


def _repository(address: str) -> str:
    name = address.removeprefix(HUB)
    if name.count("/") != 1 or not all(name.split("/")):
        raise DetectorError(f"{address} is no address of a repository: write it as {HUB}owner/name.")
    return name
