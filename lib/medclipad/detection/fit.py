"""Train a detector on a few slices."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from medclipad.detection.calibration import Calibration, calibrate
from medclipad.detection.cases import AS_IS, Case, CaseSources, Reading, read_cases
from medclipad.detection.config import FitConfig, fit_signature
from medclipad.detection.detector import AnomalyDetector, require_detection_memory
from medclipad.detection.slice_frames import FramedVolume
from medclipad.detection.slice_selection import TrainingSlices, select_shots
from medclipad.detection.storage import DetectorInfo
from medclipad.encoders import encoder_family, load_encoder
from medclipad.errors import TrainingError
from medclipad.methods import get_method
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.volume import Volume, parse_preset, resolve_preset
from medclipad.volume.progress import Progress, no_progress

CALIBRATION_VOLUMES, CALIBRATION_SLICES = 3, 20  # volumes at most, and slices of each at least, if there are so many
SMOOTHING_REACH = 3  # standard deviations after which `slice_frames.smooth` cuts its Gaussian off

Learn = Callable[[AnomalyModel, Shots, int, Progress], dict[str, float]]
"""Takes the place of a method's training, called as learn(model, shots, seed, progress)."""


def fit(
    *,
    normal: CaseSources = (),
    abnormal: CaseSources = (),
    cases: Sequence[Case] = (),
    config: FitConfig | None = None,
    reading: Reading = AS_IS,
    name: str | None = None,
    description: str = "",
    progress: Progress = no_progress,
    learn: Learn | None = None,
    **options: Any,
) -> AnomalyDetector:
    """Train a detector on a few slices.

    Parameters
    ----------
    normal
        Volumes without lesion: `Volume` objects, paths, folders, globs, or CSV files with the columns `image` and
        `mask`. Of one with a mask, the slices without lesion are used. A pair stands in a list, `[(image, mask)]`:
        alone it looks like two volumes.
    abnormal
        Volumes with their lesion masks; their slices without lesion join the normal ones.
    cases
        Volumes of which single slices are known to be normal or abnormal, with a mask or without.
    config
        The options as one object; then none may be given by name.
    reading
        How files are read where they leave a choice.
    name, description
        Of the detector; the name defaults to the method and encoder.
    progress
        Called as progress(phase, done, total, info); an exception raised in it stops the training.
    learn
        Takes the place of the method's training; `import_checkpoint` puts in weights that were trained elsewhere.
    **options
        The fields of `FitConfig` (method, encoder, shots, plane, intensity, image_size, smoothing, precision, seed)
        and the method's own options; `medclipad fit --help` describes them all.

    Returns
    -------
    AnomalyDetector
        The trained detector; the same seed on the same machine gives the same one.

    Raises
    ------
    TrainingError
        If an option is not possible, or the slices do not suffice.
    VolumeError
        If a volume or mask cannot be read, or does not fit.
    DetectorError
        If the encoder or method is unknown, or its weights cannot be loaded.

    Examples
    --------
    >>> import medclipad as mc
    >>> detector = mc.fit(method="mediclip", normal=["normals/*.nii.gz"], shots=64)  # doctest: +SKIP
    """
    if config is not None and options:
        raise TrainingError(f"Give the options as config or one by one, not both: {', '.join(options)}.")
    config = FitConfig.of(**options) if config is None else config
    method = get_method(config.method)
    image_size = config.image_size
    if image_size is None and encoder_family(config.encoder).default_image_size is None:
        image_size = method.default_image_size
    parse_preset(config.intensity)  # a mistake shows before the volumes are read
    healthy = [Case(*pair) for pair in read_cases(normal, reading)]
    diseased = [Case(*pair) for pair in read_cases(abnormal, reading, need_mask=True)]
    encoder = load_encoder(config.encoder, image_size, progress=progress, precision=config.precision)
    intensity = _resolved_intensity(config.intensity, [case.volume for case in (*healthy, *diseased, *cases)])
    config = config.model_copy(update={"image_size": encoder.image_size, "intensity": intensity})
    slices = select_shots(healthy, diseased, cases, config, progress)
    for framed, _ in _to_calibrate_on(slices):  # checked before training, so that it does not fail after it
        require_detection_memory(framed.volume, config.plane, config.smoothing)

    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode
        torch.manual_seed(config.seed)
        model = method.build(encoder, config.method_options())
        metrics = (learn or method.fit)(model, slices.shots, config.seed, progress)
    progress("calibrate", 0, min(len(slices.spare), CALIBRATION_VOLUMES), {})
    model.calibrate(slices.spare_images)
    info = DetectorInfo(
        name=name or f"{config.method}-{config.encoder.partition('/')[0]}",
        description=description,
        config=config,
        encoder_sha256=encoder.sha256,
        normal_slices=len(slices.shots.normal),
        abnormal_slices=len(slices.shots.abnormal),
        training_slices=slices.record,
        calibration=Calibration(threshold=1, normal_scores=[], held_out=slices.held_out),
        metrics=metrics,
        versions=installed_versions(),
    )
    detector = AnomalyDetector(model, info)
    info.calibration = _calibration(detector, slices, progress)
    return detector


# What help(fit) and an interactive session show of `**options`.
fit.__signature__ = fit_signature(inspect.signature(fit))  # type: ignore[attr-defined]


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a detector computes."""
    return {package: version(package) for package in ("medclipad", "torch", "open_clip_torch", "numpy")}


def _to_calibrate_on(slices: TrainingSlices) -> list[tuple[FramedVolume, list[int]]]:
    """Return the volumes with the most normal slices to spare, and these."""
    return sorted(slices.spare, key=lambda spare: -len(spare[1]))[:CALIBRATION_VOLUMES]


def _calibration(detector: AnomalyDetector, slices: TrainingSlices, progress: Progress) -> Calibration:
    """Return what the detector says of normal slices, seen as new ones will be.

    Only the slices that the smoothed maps of those depend on are analysed; where slices are much closer together than
    maps are smoothed, only every n-th: its neighbours say the same.
    """
    richest, scores, maxima = _to_calibrate_on(slices), [], []
    for done, (framed, numbers) in enumerate(richest, start=1):
        slicing = framed.slicing
        width = detector.info.smoothing / framed.volume.spacing[slicing.axis]  # in slices
        step = max(1, min(int(width), len(numbers) // CALIBRATION_SLICES))
        chosen = [k for k in numbers if (k - numbers[0]) % step == 0]
        reach = range(-int(SMOOTHING_REACH * width) // step * step, int(SMOOTHING_REACH * width) + 1, step)
        require_detection_memory(framed.volume, detector.info.plane, detector.info.smoothing)
        result = detector.detect_framed(framed.only([k + offset for k in chosen for offset in reach]))
        scores.append(result.slice_scores[chosen])
        maxima.append(slicing.slices(result.anomaly_map.array)[chosen].max(axis=(1, 2)))
        progress("calibrate", done, len(richest), {"volume": framed.volume.name})
    return calibrate(np.concatenate(scores), np.concatenate(maxima), slices.held_out)


def _resolved_intensity(intensity: str, volumes: Sequence[Volume]) -> str:
    """Return the preset as text; "auto" becomes what suits the first volume."""
    preset = parse_preset(intensity)
    return str(resolve_preset(preset, volumes[0]) if volumes else preset)
