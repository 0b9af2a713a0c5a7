"""The detector: an encoder, a trained method and a calibration, behind fit, detect, save and load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from medclipad.detection.result import AnomalyResult
from medclipad.detection.slice_frames import FramedVolume, batches, detection_memory, smooth
from medclipad.detection.storage import DetectorInfo, read_info, read_weights, save_folder
from medclipad.encoders import load_encoder
from medclipad.errors import DetectorError
from medclipad.methods import get_method
from medclipad.methods.base import AnomalyModel, as_rgb
from medclipad.volume import Volume
from medclipad.volume.memory_budget import require_memory
from medclipad.volume.progress import Progress, no_progress

BATCH = 16  # slices analysed together: more is not faster on a processor, and progress is told per batch


class AnomalyDetector:
    """Detect anomalies in volumes, slice by slice. Made by `fit` or `load_detector`.

    Attributes
    ----------
    model
        The trained model of the method, with its frozen encoder.
    info
        All that is known of the detector: the contents of detector.json.

    Examples
    --------
    >>> import medclipad as mc
    >>> detector = mc.load_detector("models/mine")  # doctest: +SKIP
    >>> result = detector.detect(mc.read_volume("case.nii.gz"))  # doctest: +SKIP
    >>> result.volume_score  # doctest: +SKIP
    0.61
    """

    def __init__(self, model: AnomalyModel, info: DetectorInfo) -> None:
        self.model = model
        self.info = info

    def detect(
        self,
        volume: Volume,
        plane: str | None = None,
        progress: Progress = no_progress,
        slices: Sequence[int] | None = None,
    ) -> AnomalyResult:
        """Return the anomaly map and the scores of a volume.

        Parameters
        ----------
        volume
            The volume to analyse.
        plane
            Plane of the slices; by default the one that the detector learned from.
        progress
            Called as progress("detect", done, slices, {}) after each batch.
        slices
            Numbers of the slices to analyse, by default all; the others are skipped like those without body.

        Raises
        ------
        VolumeError
            If the volume does not suit the detector's intensity preset or, before any work, if its map does not fit
            into memory.
        """
        require_detection_memory(volume, plane or self.info.plane, self.info.smoothing)
        framed = FramedVolume(volume, plane or self.info.plane, self.info.intensity, self.info.image_size)
        return self.detect_framed(framed if slices is None else framed.only(slices), progress)

    def detect_framed(self, framed: FramedVolume, progress: Progress = no_progress) -> AnomalyResult:
        """Return the anomaly map and the scores of a volume that is framed for this detector; see `detect`."""
        anomaly_map = np.zeros(framed.volume.shape, dtype=np.float32)
        image_scores = np.full(len(framed.slicing), np.nan)
        own_scores = False
        done = 0
        progress("detect", done, len(framed.analysed), {})
        for numbers in batches(framed.analysed, BATCH):
            maps, batch_scores = self._analyse(framed.images(numbers))
            framed.put(maps, numbers, into=anomaly_map)
            if batch_scores is not None:
                image_scores[numbers], own_scores = batch_scores, True
            done += len(numbers)
            progress("detect", done, len(framed.analysed), {})
        if self.info.smoothing:
            smooth(anomaly_map, framed, self.info.smoothing)
        if not own_scores:
            map_slices = framed.slicing.slices(anomaly_map)
            for numbers in batches(framed.analysed, BATCH):
                image_scores[numbers] = self.model.scores_of(torch.from_numpy(map_slices[numbers])).numpy()
        return AnomalyResult(
            anomaly_map=framed.volume.with_array(anomaly_map),
            slice_scores=image_scores,
            foreground=framed.foreground,
            threshold=self.info.calibration.threshold,
            slicing=framed.slicing,
            detector=self.info.name,
            window=framed.window,
        )

    def memory_for(self, volume: Volume, plane: str | None = None) -> int:
        """Return the bytes that `detect` needs beside volume and encoder; it raises VolumeError without them."""
        return detection_memory(volume, plane or self.info.plane, self.info.smoothing, BATCH)

    def save(self, path: str | os.PathLike) -> None:
        """Write the detector to a new folder, atomically. Raises DetectorError if it exists or cannot be written."""
        self.info = save_folder(path, self.info, self.model.head_state())

    def features(self, volume: Volume, plane: str | None = None, progress: Progress = no_progress) -> np.ndarray:
        """Return the frozen encoder's features of each slice, float32 (n_slices, width), nan where skipped.

        They are the means of a slice's patch tokens after each of the last three stages, each L2-normalised, side by
        side, and do not depend on the method nor on what it learned. `plane` and `progress` are as in `detect`.
        """
        framed = FramedVolume(volume, plane or self.info.plane, self.info.intensity, self.info.image_size)
        encoder = self.model.encoder
        mean, std = (torch.tensor(value, device=encoder.device)[:, None, None] for value in (encoder.mean, encoder.std))
        features = np.full((len(framed.slicing), sum(encoder.widths[1:])), np.nan, dtype=np.float32)
        for done, numbers in enumerate(batches(framed.analysed, BATCH), start=1):
            rgb = as_rgb(framed.images(numbers), encoder.device)
            with torch.inference_mode():
                taps = encoder.taps((rgb - mean) / std, first=1)
            pooled = [normalize(tokens[:, encoder.n_prefix :].float().mean(dim=1), dim=-1) for tokens in taps]
            features[numbers] = torch.cat(pooled, dim=1).cpu().numpy()
            progress("features", min(done * BATCH, len(framed.analysed)), len(framed.analysed), {})
        return features

    def _analyse(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return maps float32 (B, S, S) in [0, 1], and scores (B,) or None where they follow from the finished map."""
        maps, scores = self.model.anomaly(torch.from_numpy(images))
        return maps.float().cpu().numpy(), None if scores is None else scores.double().cpu().numpy()


def require_detection_memory(volume: Volume, plane: str, smoothing: float) -> None:
    """Raise VolumeError unless the memory is free that a detection takes; see `AnomalyDetector.memory_for`."""
    needed = detection_memory(volume, plane, smoothing, BATCH)
    require_memory(needed, volume.name or "the volume", "its anomaly map")


def load_detector(path: str | os.PathLike, precision: str = "auto") -> AnomalyDetector:
    """Return the detector that is saved in a folder.

    Parameters
    ----------
    path
        Folder with detector.json and weights.safetensors.
    precision
        Of the frozen encoder: "auto", "float32" or "bfloat16", as in `load_encoder`.

    Raises
    ------
    DetectorError
        If the folder is not a detector, is damaged, or was made with other encoder weights.
    """
    if not Path(path).is_dir():
        raise DetectorError(f"There is no detector folder {path}: check the path, or make one with fit.")
    info = read_info(path)
    encoder = load_encoder(info.encoder, info.image_size, precision=precision)
    if encoder.sha256 != info.encoder_sha256:
        raise DetectorError(
            f"{path} was trained on other weights of {info.encoder} than those found here (SHA-256 "
            f"{info.encoder_sha256[:12]}… against {encoder.sha256[:12]}…): install the same weights, or train it again."
        )
    try:
        model = get_method(info.method).build(encoder, info.config.method_options())
        model.load_head_state(read_weights(path, info.weights_sha256))
    except (KeyError, ValueError) as error:
        reason = error.args[0]
        raise DetectorError(
            f"The weights or options in {path} do not fit the method {info.method} ({reason}): restore a copy, or "
            "train it again, as one of an earlier version must be."
        ) from error
    return AnomalyDetector(model, info)
