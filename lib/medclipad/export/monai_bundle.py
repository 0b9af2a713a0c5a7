"""A detector as a MONAI bundle: a folder that `python -m monai.bundle run` detects anomalies with."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medclipad.detection.detector import load_detector
from medclipad.detection.exchange import push
from medclipad.detection.model_card import CARD, LICENCE
from medclipad.detection.storage import read_info
from medclipad.errors import DetectorError
from medclipad.files import atomic_folder
from medclipad.volume import Volume

if TYPE_CHECKING:
    from medclipad.detection.storage import DetectorInfo

VERSION = "1.0.0"  # of a bundle's content: a detector never changes
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
DETECTOR = "models/detector"
_FORMATS = {"ct": ("CT", "hounsfield"), "mr": ("MR", "magnitude")}

INFERENCE: dict[str, Any] = {
    "imports": ["$import glob", "$import torch"],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/eval'",
    "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii*'))",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "network_def": {
        "_target_": "medclipad.export.monai_bundle.DetectorNetwork",
        "folder": f"$@bundle_root + '/{DETECTOR}'",
        "precision": "auto",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ],
    },
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': file} for file in @datalist]",
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_postfix": "anomaly",
                "separate_folder": False,
                "resample": False,
            }
        ],
    },
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
    },
    "run": ["$@evaluator.run()"],
}
"""Content of configs/inference.json."""


class DetectorNetwork(nn.Module):
    """A detector as the network of a MONAI workflow: volumes in, anomaly maps out.

    Parameters
    ----------
    folder
        Folder of the detector.
    precision
        As in `load_detector`.

    Raises
    ------
    DetectorError
        If the folder is not a detector, is damaged, or was made with other encoder weights.
    """

    def __init__(self, folder: str | os.PathLike, precision: str = "auto") -> None:
        super().__init__()
        self.detector = load_detector(folder, precision)
        self.models = nn.ModuleDict(self.detector.models)  # so that `to` moves them

    def forward(self, images: Tensor) -> Tensor:
        """Return the anomaly maps of volumes; see `AnomalyResult.anomaly_map`.

        Parameters
        ----------
        images
            MONAI's MetaTensor (B, 1, I, J, K), whose affines map voxels to RAS+ mm, as `LoadImage` makes it.

        Returns
        -------
        Tensor
            float32 (B, 1, I, J, K), with the same affines.

        Raises
        ------
        DetectorError
            If the images have several channels, or no affine.
        VolumeError
            As in `AnomalyDetector.detect`.
        """
        if images.ndim != 5 or images.shape[1] != 1:
            raise DetectorError(
                f"Images of shape {tuple(images.shape)} are not volumes of one channel, (B, 1, I, J, K): choose one."
            )
        known = getattr(images, "affine", None)
        if known is None:
            raise DetectorError("The images have no affine: load them with MONAI's LoadImage, which keeps it.")
        affines = np.broadcast_to(np.asarray(known.cpu()), (len(images), 4, 4))  # one of a batch, or of each
        maps = torch.empty_like(images, dtype=torch.float32)
        for index, (array, affine) in enumerate(zip(images.numpy(force=True)[:, 0], affines, strict=True)):
            found = self.detector.detect(Volume(array, affine))
            maps[index, 0] = torch.from_numpy(found.anomaly_map.array).to(maps.device)
        return maps


def write_bundle(folder: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Write a detector as a MONAI bundle, without the names of the volumes that it learned from.

    Parameters
    ----------
    folder
        Folder of the detector.
    target
        New folder.

    Returns
    -------
    pathlib.Path
        The new folder: configs/inference.json and metadata.json, models/detector, docs/README.md, LICENSE.

    Raises
    ------
    DetectorError
        If MONAI is missing, the folder is no detector or is damaged, or the target exists or cannot be written.
    """
    target, info = Path(target), read_info(folder)
    if target.exists():
        raise DetectorError(f"{target} exists already: choose another folder, or remove it first.")
    files = {"inference.json": INFERENCE, "metadata.json": _metadata(info)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(target) as bundle:
            push(Path(folder), str(bundle / DETECTOR))
            for name in ("configs", "docs"):
                (bundle / name).mkdir()
            for name, content in files.items():
                (bundle / "configs" / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            shutil.copy(bundle / DETECTOR / CARD, bundle / "docs" / "README.md")
            (bundle / "LICENSE").write_text(f"{LICENCE}\n", encoding="utf-8")
    except OSError as error:
        raise DetectorError(
            f"The bundle could not be written to {target} ({error.strerror}): free space, or choose another folder."
        ) from error
    return target


def _metadata(info: DetectorInfo) -> dict[str, Any]:
    """Return the content of configs/metadata.json."""
    try:
        versions = {name: version(name) for name in ("monai", "torch", "numpy", "medclipad", "pytorch-ignite")}
    except PackageNotFoundError as error:
        raise DetectorError(f'{error.name} is not installed: pip install "medclipad[bundle]".') from error
    modality, form = _FORMATS.get(info.intensity.partition(":")[0], ("n/a", "magnitude"))
    volume = {"type": "image", "num_channels": 1, "spatial_shape": ["*", "*", "*"], "dtype": "float32"}
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"learned on {info.created:%Y-%m-%d}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {name: versions[name] for name in ("medclipad", "pytorch-ignite")},
        "name": info.name,
        "task": "Anomaly detection, slice by slice, in volumes",
        "description": info.description or f"{info.method} on {info.encoder}. {info.calibration.promise()}",
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "intended_use": "Research software: not for diagnosis.",
        "network_data_format": {
            "inputs": {
                "image": {
                    **volume,
                    "format": form,
                    "modality": modality,
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **volume,
                    "format": "magnitude",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {"0": "rarity in normal scans"},
                }
            },
        },
    }
