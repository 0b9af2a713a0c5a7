"""Train a detector on a few slices."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from medclipad.detection.alignment import Reference, align_volumes
from medclipad.detection.calibrate import Looking, learn_acquisition, learn_calibration
from medclipad.detection.calibration import Basis, Calibration
from medclipad.detection.cases import AS_IS, Case, CaseSources, Reading, read_cases
from medclipad.detection.config import FitConfig, fit_signature
from medclipad.detection.detector import AnomalyDetector, require_detection_memory
from medclipad.detection.slice_frames import FramedVolume
from medclipad.detection.slice_selection import NormalSlices, TrainingSlices, select_shots
from medclipad.detection.storage import DetectorInfo
from medclipad.encoders import encoder_family, load_encoder
from medclipad.errors import TrainingError
from medclipad.methods import get_method
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.volume import parse_preset
from medclipad.volume.progress import Progress, no_progress
from medclipad.volume.shelf import Shelf

FOLDS = 3  # models trained to calibrate on, each without a third of the volumes, where a model cannot leave them out

Learn = Callable[[AnomalyModel, Shots, int, Progress], dict[str, float]]
"""Takes the place of a method's training, called as learn(model, shots, seed, progress)."""


def fit(
    *,
    normal: CaseSources = (),
    abnormal: CaseSources = (),
    cases: Sequence[Case] = (),
    calibrate_on: CaseSources = (),
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
        Volumes without lesion: `Volume` objects, paths, folders, globs, CSV files with the columns `image` and `mask`,
        or scans of a cohort. Files and scans take the memory of one, however many they are. Of one with a mask, the
        slices without lesion are used. A pair stands in a list, `[(image, mask)]`: alone it looks like two volumes.
    abnormal
        Volumes with their lesion masks; their slices without lesion join the normal ones.
    cases
        Volumes of which single slices are known to be normal or abnormal, with a mask or without.
    calibrate_on
        Normal volumes that are not learned from. Limits and p-values then come from these alone; by default from the
        normal volumes, each left out in turn of what is remembered.
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
        The fields of `FitConfig` (method, encoder, shots, planes, align, intensity, image_size, smoothing, precision,
        seed) and the method's own options; `medclipad fit --help` describes them all.

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
    family = encoder_family(config.encoder)
    image_size = config.image_size or family.volume_image_size or family.default_image_size
    parse_preset(config.intensity)  # a mistake shows before the volumes are read
    shelf = Shelf()  # for what is read from files: the main memory holds one volume at a time
    healthy = [Case(*pair) for pair in read_cases(normal, reading, shelf=shelf)]
    diseased = [Case(*pair) for pair in read_cases(abnormal, reading, need_mask=True, shelf=shelf)]
    kept_out = [Case(*pair) for pair in read_cases(calibrate_on, reading, shelf=shelf)]
    encoder = load_encoder(
        config.encoder, image_size or method.default_image_size, progress=progress, precision=config.precision
    )
    known = (*healthy, *diseased, *cases)
    config = config.for_volumes([case.volume for case in known], any(case.normal is None for case in known))
    config = config.model_copy(update={"image_size": encoder.image_size})
    framed = [_framed(case, config) for case in known]
    framed, reference = align_volumes(framed, known, config, progress)
    config = config.model_copy(update={"align": "on" if reference else "off"})
    learned = {
        plane: select_shots(healthy, diseased, cases, framed, config, progress, plane) for plane in config.each_plane
    }
    slices = learned[config.plane]
    to_calibrate_on, basis = _to_calibrate_on(slices, kept_out, config, reference)
    for scan in to_calibrate_on:  # checked before training, so that it does not fail after it
        require_detection_memory(scan.framed.volume, config.each_plane, config.smoothing)

    def train(without: Collection[int], progress: Progress) -> tuple[dict[str, AnomalyModel], dict[str, float]]:
        """Return the trained model of each plane, without the normal slices of some volumes, and its figures."""
        models, metrics = {}, {}
        for number, (plane, part) in enumerate(learned.items()):
            with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():  # whatever the caller's
                torch.manual_seed(config.seed)
                models[plane] = method.build(encoder, config.method_options())
                told = _of_plane(progress, number, len(learned))
                shots = replace(part.shots.without(without), planes=len(learned))
                figures = (learn or method.fit)(models[plane], shots, config.seed, told)
            models[plane].calibrate_at(part.spare_images, part.spare_heights)
            metrics |= figures if len(learned) == 1 else {f"{plane}_{key}": value for key, value in figures.items()}
        return models, metrics

    models, metrics = train((), progress)
    info = DetectorInfo(
        name=name or f"{config.method}-{config.encoder.partition('/')[0]}",
        description=description,
        config=config,
        encoder_sha256=encoder.sha256,
        normal_slices=len(slices.shots.normal),
        abnormal_slices=len(slices.shots.abnormal),
        spare_slices=sum(len(scan.spare) for scan in slices.normal),
        training_slices=slices.record,
        calibration=Calibration(),
        metrics=metrics,
        versions=installed_versions(),
    )
    detector = AnomalyDetector(models, info, reference=reference)
    stand_ins: dict[int, AnomalyDetector] = {}
    if basis == "left out" and learn is None and not all(model.can_leave_out for model in models.values()):
        numbers = sorted({number for part in learned.values() for number in part.shots.numbers})
        if len(numbers) == 1:  # the only volume that was learned from cannot be left out: the others are as new
            to_calibrate_on = [scan for scan in to_calibrate_on if scan.number not in numbers]
        for fold in [numbers[start::FOLDS] for start in range(min(FOLDS, len(numbers)))] if len(numbers) > 1 else []:
            stand_in = AnomalyDetector(train(fold, progress)[0], info)
            stand_ins |= dict.fromkeys(fold, stand_in)
    looking = Looking(detector, basis, stand_ins)
    info.calibration, detector.evidence = learn_calibration(looking, to_calibrate_on, slices.outlined, progress)
    info.acquisition = learn_acquisition(detector, [*slices.normal, *(to_calibrate_on if kept_out else ())])
    return detector


# What help(fit) and an interactive session show of `**options`.
fit.__signature__ = fit_signature(inspect.signature(fit))  # type: ignore[attr-defined]


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a detector computes."""
    return {package: version(package) for package in ("medclipad", "torch", "open_clip_torch", "numpy")}


def _to_calibrate_on(
    slices: TrainingSlices, kept_out: Sequence[Case], config: FitConfig, reference: Reference | None
) -> tuple[list[NormalSlices], Basis]:
    """Return the normal slices that limits are learned from, and how they are seen."""
    if kept_out:
        return [_whole(case, config, reference) for case in kept_out], "kept out"
    if len(slices.normal) > 1:
        return slices.normal, "left out"
    if slices.held_out:
        return [replace(scan, slices=scan.spare) for scan in slices.normal], "other slices"
    return slices.normal, "training slices"


def _framed(case: Case, config: FitConfig) -> FramedVolume:
    """Return a volume along the plane whose slices are scored."""
    return FramedVolume(case.volume, config.plane, config.intensity, config.image_size or 0)


def _whole(case: Case, config: FitConfig, reference: Reference | None) -> NormalSlices:
    """Return a volume that is not learned from; raise TrainingError if it is not normal as a whole, or unlike them."""
    framed = _framed(case, config)
    if case.lesions(framed.slicing).any():
        raise TrainingError(f'"{case.volume.name}" has a lesion: only normal volumes can be calibrated on.')
    if not len(framed.analysed):
        raise TrainingError(f'"{case.volume.name}" shows no body: check the file and the intensity preset.')
    if reference:
        framed = reference.align(framed)
    numbers = framed.analysed.tolist()
    return NormalSlices(number=-1, framed=framed, slices=numbers, spare=numbers, whole=True)


def _of_plane(progress: Progress, number: int, planes: int) -> Progress:
    """Return a progress callback that counts the training of all planes as one."""

    def told(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        progress(phase, number * total + done, planes * total, info)

    return told
