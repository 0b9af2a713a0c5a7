"""The detector: an encoder, a trained method and a calibration, behind fit, detect, save and load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from medclipad.calibration import Calibration, calibrate
from medclipad.encoders import load_encoder
from medclipad.errors import DetectorError, TrainingError
from medclipad.framing import FramedVolume, batches, smooth
from medclipad.methods import method_class
from medclipad.methods.base import AnomalyMethod, Progress, silent
from medclipad.result import AnomalyResult
from medclipad.shots import Case, TrainingSlices, select_shots
from medclipad.storage import DetectorInfo, read_info, read_weights, save_folder
from medclipad.volume import Volume

BATCH = 16  # slices analysed together: more is not faster on a processor, and progress is told per batch
CALIBRATION_VOLUMES = 3
MAX_SMOOTHING = 100.0  # mm


class AnomalyDetector:
    """Finds in volumes what its normal slices did not show. Made by `fit` or `load_detector`."""

    def __init__(self, method: AnomalyMethod, info: DetectorInfo) -> None:
        self._method = method
        self.info = info

    def detect(self, volume: Volume, plane: str | None = None, progress: Progress = silent) -> AnomalyResult:
        """Anomaly map and scores of a volume, slice by slice.

        `plane` defaults to the one that the detector learned from. `progress("detect", done, slices, {})` is called
        after each batch. Raises VolumeError if the volume does not suit the detector's intensity preset.
        """
        framed = FramedVolume(volume, plane or self.info.plane, self.info.intensity, self.info.image_size)
        anomaly_map = np.zeros(volume.shape, dtype=np.float32)
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
            image_scores[framed.analysed] = framed.slicing.slices(anomaly_map)[framed.analysed].max(axis=(1, 2))
        return AnomalyResult(
            anomaly_map=volume.with_array(anomaly_map),
            slice_scores=image_scores,
            foreground=framed.foreground,
            threshold=self.info.calibration.threshold,
            slicing=framed.slicing,
            detector=self.info.name,
            window=framed.window,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the detector to a new folder, atomically. Raises DetectorError if it exists or cannot be written."""
        save_folder(path, self.info, self._method.head_state())

    def _analyse(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Maps float32 (B, S, S) in [0, 1] and scores (B,), or None where a score is the maximum of its map."""
        maps, scores = self._method.anomaly(torch.from_numpy(images))
        return maps.float().cpu().numpy(), None if scores is None else scores.double().cpu().numpy()


def fit(
    method: str = "mediclip",
    encoder: str = "embedded",
    normal: Sequence[Case] = (),
    abnormal: Sequence[tuple[Volume, Volume]] = (),
    shots: int | None = 32,
    plane: str = "axial",
    intensity: str = "auto",
    seed: int = 0,
    image_size: int | None = None,
    smoothing: float = 4.0,
    name: str | None = None,
    description: str = "",
    progress: Progress = silent,
    **options,
) -> AnomalyDetector:
    """Train a detector on a few slices.

    Parameters
    ----------
    method: "mediclip" (learns from normal slices; abnormal ones, if given, join its synthetic anomalies) or "mvfa"
        (needs both).
    encoder: "embedded", or an open_clip architecture and weights such as "ViT-L-14-336/openai".
    normal: volumes without lesion, or pairs (volume, mask) of which the slices without lesion are used.
    abnormal: pairs (volume, mask); their slices without lesion join the normal ones.
    shots: normal slices, and abnormal slices, to learn from; None for all.
    plane, intensity: as in `medclipad.volume`; "auto" is resolved on the first volume.
    image_size: side of the encoder's input in pixels; default the method's own on CLIP, 224 on the embedded encoder.
    smoothing: standard deviation in mm of the Gaussian that smooths the maps in all three directions, inside the body;
        neighbouring slices vouch for each other. 0 leaves the maps as the method gives them.
    options: of the method, see `MediCLIPOptions` and `MVFAOptions`.
    progress: called as progress(phase, done, total, info); an exception raised in it stops the training.

    Reproducible for a given seed on a given machine. Raises TrainingError, VolumeError or DetectorError.
    """
    if not 0 <= smoothing <= MAX_SMOOTHING:
        raise TrainingError(f"A smoothing of {smoothing} mm is not possible: give 0 to {MAX_SMOOTHING:g} mm.")
    if not 0 <= seed < 2**63:
        raise TrainingError(f"The seed {seed} is not possible: give a whole number from 0 to 2^63 - 1.")
    if shots is not None and shots < 1:
        raise TrainingError(f"{shots} shots are none to learn from: ask for at least one.")
    kind = method_class(method)
    try:
        checked = kind.Options(**options)
    except ValidationError as error:
        raise TrainingError(f"Option {_fault(error)} (method {method}).") from error
    if image_size is None and encoder != "embedded":
        image_size = kind.default_encoder_size
    tower = load_encoder(encoder, image_size)
    intensity = _resolved_intensity(intensity, [*normal, *abnormal])
    slices = select_shots(normal, abnormal, shots, plane, intensity, tower.image_size, seed, progress)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(tower, checked)
        metrics = model.fit(slices.shots, seed, progress)
    progress("calibrate", 0, min(len(slices.spare), CALIBRATION_VOLUMES), {})
    model.calibrate(slices.spare_images)
    info = DetectorInfo(
        name=name or f"{method}-{encoder.partition('/')[0]}",
        description=description,
        method=method,
        options=checked.model_dump(),
        encoder=encoder,
        encoder_sha256=tower.sha256,
        image_size=tower.image_size,
        plane=plane,
        intensity=intensity,
        smoothing=smoothing,
        shots=len(slices.shots.normal),
        abnormal_shots=len(slices.shots.abnormal),
        seed=seed,
        training_slices=slices.record,
        calibration=Calibration(threshold=1, normal_scores=[], held_out=slices.held_out),
        metrics=metrics,
        versions={package: version(package) for package in ("medclipad", "torch", "open_clip_torch", "numpy")},
    )
    detector = AnomalyDetector(model, info)
    info.calibration = _calibration(detector, slices, progress)
    return detector


def _calibration(detector: AnomalyDetector, slices: TrainingSlices, progress: Progress) -> Calibration:
    """What the detector says of normal slices, seen as new ones will be, of the volumes with the most to spare."""
    richest = sorted(slices.spare, key=lambda kept: -len(kept[1]))[:CALIBRATION_VOLUMES]
    scores, maxima = [], []
    for done, (volume, numbers) in enumerate(richest, start=1):
        result = detector.detect(volume)
        scores.append(result.slice_scores[numbers])
        maxima.append(result.slicing.slices(result.anomaly_map.array)[numbers].max(axis=(1, 2)))
        progress("calibrate", done, len(richest), {"volume": volume.name})
    return calibrate(np.concatenate(scores), np.concatenate(maxima), slices.held_out)


def load_detector(path: str | os.PathLike) -> AnomalyDetector:
    """The detector saved in a folder.

    Raises DetectorError if the folder is not a detector, is damaged, or was made with other encoder weights.
    """
    if not Path(path).is_dir():
        raise DetectorError(f"There is no detector folder {path}: check the path, or make one with fit.")
    info = read_info(path)
    encoder = load_encoder(info.encoder, info.image_size)
    if encoder.sha256 != info.encoder_sha256:
        raise DetectorError(
            f"{path} was trained on other weights of {info.encoder} than those found here (SHA-256 "
            f"{info.encoder_sha256[:12]}… against {encoder.sha256[:12]}…): install the same weights, or train it again."
        )
    kind = method_class(info.method)
    try:
        method = kind(encoder, kind.Options(**info.options))
        method.load_head_state(read_weights(path))
    except (KeyError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        reason = _fault(error) if isinstance(error, ValidationError) else error.args[0]
        raise DetectorError(
            f"The weights or options in {path} do not fit the method {info.method} ({reason}): save the detector "
            "again, or restore a copy."
        ) from error
    return AnomalyDetector(method, info)


def _fault(error: ValidationError) -> str:
    """The first fault that pydantic found, in one line."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _resolved_intensity(intensity: str, cases: Sequence[Case]) -> str:
    """The preset as text; "auto" becomes what suits the first volume."""
    from medclipad.volume import parse_preset, resolve_preset

    preset = parse_preset(intensity)
    if cases:
        first = cases[0][0] if isinstance(cases[0], tuple) else cases[0]
        preset = resolve_preset(preset, first)
    return str(preset)
