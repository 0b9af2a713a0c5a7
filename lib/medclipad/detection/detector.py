"""The detector: an encoder, a trained method and a calibration, behind fit, detect, save and load."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from medclipad.detection.calibration import Calibration, calibrate
from medclipad.detection.result import AnomalyResult
from medclipad.detection.slice_frames import FramedVolume, batches, detection_memory, smooth
from medclipad.detection.slice_selection import Case, Pair, TrainingSlices, select_shots
from medclipad.detection.storage import DetectorInfo, read_info, read_weights, save_folder
from medclipad.encoders import load_encoder
from medclipad.errors import DetectorError, TrainingError
from medclipad.methods import method_class
from medclipad.methods.base import AnomalyMethod, Progress, Shots, as_rgb, silent
from medclipad.volume import Volume
from medclipad.volume.memory_budget import require_memory

BATCH = 16  # slices analysed together: more is not faster on a processor, and progress is told per batch
CALIBRATION_VOLUMES, CALIBRATION_SLICES = 3, 20  # volumes at most, and slices of each at least, if there are so many
MAX_SMOOTHING = 100.0  # mm
SMOOTHING_REACH = 3  # standard deviations after which `framing.smooth` cuts its Gaussian off


class AnomalyDetector:
    """Finds in volumes what its normal slices did not show. Made by `fit` or `load_detector`."""

    def __init__(self, method: AnomalyMethod, info: DetectorInfo) -> None:
        self._method = method
        self.info = info

    def detect(
        self,
        volume: Volume,
        plane: str | None = None,
        progress: Progress = silent,
        slices: Sequence[int] | None = None,
    ) -> AnomalyResult:
        """Anomaly map and scores of a volume, slice by slice.

        `plane` defaults to the one that the detector learned from. `progress("detect", done, slices, {})` is called
        after each batch. `slices` are the numbers of those to look at, by default all; the others are skipped like
        those without body. Raises VolumeError if the volume does not suit the detector's intensity preset, and before
        any work if its map does not fit into memory.
        """
        _require_memory(volume, plane or self.info.plane, self.info.smoothing)
        framed = FramedVolume(volume, plane or self.info.plane, self.info.intensity, self.info.image_size)
        return self._detect(framed if slices is None else framed.only(slices), progress)

    def _detect(self, framed: FramedVolume, progress: Progress = silent) -> AnomalyResult:
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
                image_scores[numbers] = self._method.scores_of(torch.from_numpy(map_slices[numbers])).numpy()
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
        """Bytes that `detect` takes at its peak beside volume and encoder; it refuses where they are not free."""
        return detection_memory(volume, plane or self.info.plane, self.info.smoothing, BATCH)

    def save(self, path: str | os.PathLike) -> None:
        """Write the detector to a new folder, atomically. Raises DetectorError if it exists or cannot be written."""
        self.info = save_folder(path, self.info, self._method.head_state())

    def features(self, volume: Volume, plane: str | None = None, progress: Progress = silent) -> np.ndarray:
        """What the frozen encoder sees in each slice: float32 (n_slices, width), nan where skipped.

        The means of a slice's patch tokens after each of the last three stages, each L2-normalised, side by side. They
        do not depend on the method nor on what it learned. `progress` as in `detect`.
        """
        framed = FramedVolume(volume, plane or self.info.plane, self.info.intensity, self.info.image_size)
        encoder = self._method.encoder
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

    def reference_state(self) -> dict[str, dict[str, torch.Tensor]]:
        """The trained weights as the method's reference code saves them; see `AnomalyMethod.reference_state`."""
        return self._method.reference_state()

    def _analyse(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Maps float32 (B, S, S) in [0, 1] and scores (B,), or None where scores follow from the finished map."""
        maps, scores = self._method.anomaly(torch.from_numpy(images))
        return maps.float().cpu().numpy(), None if scores is None else scores.double().cpu().numpy()


def fit(
    method: str = "mediclip",
    encoder: str = "embedded",
    normal: Sequence[Volume | Pair] = (),
    abnormal: Sequence[tuple[Volume, Volume]] = (),
    cases: Sequence[Case] = (),
    shots: int | None = 32,
    plane: str = "axial",
    intensity: str = "auto",
    seed: int = 0,
    image_size: int | None = None,
    smoothing: float = 4.0,
    name: str | None = None,
    description: str = "",
    progress: Progress = silent,
    precision: str = "auto",
    learn: Callable[[AnomalyMethod, Shots, int, Progress], dict] | None = None,
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
    cases: volumes of which single slices are known to be normal or abnormal, with a mask or without, see `Case`.
    shots: normal slices, and abnormal slices, to learn from; None for all.
    plane, intensity: as in `medclipad.volume`; "auto" is resolved on the first volume.
    image_size: side of the encoder's input in pixels; default the method's own on CLIP, 224 on the embedded encoder.
    smoothing: standard deviation in mm of the Gaussian that smooths the maps in all three directions, inside the body;
        neighbouring slices vouch for each other. 0 leaves the maps as the method gives them.
    options: of the method, see `MediCLIPOptions` and `MVFAOptions`.
    progress: called as progress(phase, done, total, info); an exception raised in it stops the training.
    precision: of the frozen encoder, see `load_encoder`; "float32" as in the reference codes, "auto" as fast as can be.
    learn: takes the place of the method's training, called as learn(method, shots, seed, progress); `import_checkpoint`
        puts in weights that were trained elsewhere.

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
    tower = load_encoder(encoder, image_size, progress=progress, precision=precision)
    intensity = _resolved_intensity(intensity, [*normal, *abnormal, *cases])
    slices = select_shots(normal, abnormal, shots, plane, intensity, tower.image_size, seed, progress, cases)
    for framed, _ in _to_calibrate_on(slices):  # better said before the training than after it
        _require_memory(framed.volume, plane, smoothing)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(tower, checked)
        metrics = (learn or kind.fit)(model, slices.shots, seed, progress)
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
        versions=installed_versions(),
    )
    detector = AnomalyDetector(model, info)
    info.calibration = _calibration(detector, slices, progress)
    return detector


def _require_memory(volume: Volume, plane: str, smoothing: float) -> None:
    """VolumeError unless what `AnomalyDetector.memory_for` says is free."""
    needed = detection_memory(volume, plane, smoothing, BATCH)
    require_memory(needed, volume.name or "the volume", "its anomaly map")


def _to_calibrate_on(slices: TrainingSlices) -> list[tuple[FramedVolume, Sequence[int]]]:
    """The volumes with the most normal slices to spare, and these."""
    return sorted(slices.spare, key=lambda kept: -len(kept[1]))[:CALIBRATION_VOLUMES]


def _calibration(detector: AnomalyDetector, slices: TrainingSlices, progress: Progress) -> Calibration:
    """What the detector says of normal slices, seen as new ones will be, of the volumes with the most to spare.

    Looked at are the slices that the smoothed maps of those depend on, and where slices are much closer together than
    maps are smoothed, only every so many: their neighbours say the same.
    """
    richest, scores, maxima = _to_calibrate_on(slices), [], []
    for done, (framed, numbers) in enumerate(richest, start=1):
        slicing = framed.slicing
        width = detector.info.smoothing / framed.volume.spacing[slicing.axis]  # in slices
        step = max(1, min(int(width), len(numbers) // CALIBRATION_SLICES))
        chosen = [k for k in numbers if (k - numbers[0]) % step == 0]
        reach = range(-int(SMOOTHING_REACH * width) // step * step, int(SMOOTHING_REACH * width) + 1, step)
        _require_memory(framed.volume, detector.info.plane, detector.info.smoothing)
        result = detector._detect(framed.only([k + away for k in chosen for away in reach]))
        scores.append(result.slice_scores[chosen])
        maxima.append(slicing.slices(result.anomaly_map.array)[chosen].max(axis=(1, 2)))
        progress("calibrate", done, len(richest), {"volume": framed.volume.name})
    return calibrate(np.concatenate(scores), np.concatenate(maxima), slices.held_out)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide what a detector computes."""
    return {package: version(package) for package in ("medclipad", "torch", "open_clip_torch", "numpy")}


def load_detector(path: str | os.PathLike, precision: str = "auto") -> AnomalyDetector:
    """The detector saved in a folder; `precision` of its frozen encoder as in `load_encoder`.

    Raises DetectorError if the folder is not a detector, is damaged, or was made with other encoder weights.
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
    kind = method_class(info.method)
    try:
        options = {key: value for key, value in info.options.items() if key not in kind.retired_options}
        method = kind(encoder, kind.Options(**options))
        method.load_head_state(read_weights(path, info.weights_sha256))
    except (KeyError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        reason = _fault(error) if isinstance(error, ValidationError) else error.args[0]
        raise DetectorError(
            f"The weights or options in {path} do not fit the method {info.method} ({reason}): restore a copy, or "
            "train it again, as one of an earlier version must be."
        ) from error
    return AnomalyDetector(method, info)


def _fault(error: ValidationError) -> str:
    """The first fault that pydantic found, in one line."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _resolved_intensity(intensity: str, cases: Sequence[Volume | Pair | Case]) -> str:
    """The preset as text; "auto" becomes what suits the first volume."""
    from medclipad.volume import parse_preset, resolve_preset

    preset = parse_preset(intensity)
    if cases:
        first = cases[0]
        volume = first[0] if isinstance(first, tuple) else first.volume if isinstance(first, Case) else first
        preset = resolve_preset(preset, volume)
    return str(preset)
