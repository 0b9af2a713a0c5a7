"""Checkpoints of the methods' reference codes: read, turned into detectors, written back."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclipad.compat import ensure_torchvision
from medclipad.detection.calibration import Calibration
from medclipad.detection.cases import AS_IS, CaseSources, Reading, read_cases
from medclipad.detection.config import FitConfig
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.detection.fit import fit, installed_versions
from medclipad.detection.storage import DetectorInfo, read_weights
from medclipad.encoders import encoder_family, load_encoder
from medclipad.errors import DetectorError, TrainingError
from medclipad.files import atomic_file
from medclipad.methods import get_method, method_names
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.methods.common.reference import ReferenceFormat
from medclipad.volume import parse_preset
from medclipad.volume.progress import Progress, no_progress
from medclipad.volume.read_errors import reason

MAX_ENTRIES = 1000  # in an archive; the reference projects' have about 20
MAX_INDEX = 1 << 20  # bytes of an archive's pickle; the reference projects' have a few thousand


@dataclass(frozen=True)
class Checkpoint:
    """What a reference code saved.

    Attributes
    ----------
    path
        The file.
    method
        Name of the method that it belongs to.
    parts
        State dicts by name, checked to be finite tensors.
    """

    path: Path
    method: str
    parts: dict[str, dict[str, Tensor]]

    @property
    def format(self) -> ReferenceFormat:
        """How the method's reference code saves its weights."""
        return reference_formats()[self.method]


def reference_formats() -> dict[str, ReferenceFormat]:
    """Return how reference codes save their weights, by method; methods that bring none are left out."""
    formats = ((name, get_method(name).reference()) for name in method_names())
    return {name: found for name, found in formats if found is not None}


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint of a reference code without running anything in it.

    Raises
    ------
    DetectorError
        If it is missing, damaged, no such checkpoint, or holds values that are not finite.
    """
    path = Path(path)
    archive = _checked_archive(path)
    try:
        content = torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise nearly anything from inside torch
        reason = "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise DetectorError(
            f"{path} could not be read as tensors ({reason}): nothing in it was run; fetch it again from its authors."
        ) from error
    names = tuple(sorted(content)) if _has_names(content) else ()
    by_parts = {known.parts: method for method, known in reference_formats().items()}
    if names not in by_parts:
        wanted = ", or ".join(" and ".join(parts) for parts in by_parts)
        methods = " or ".join(sorted(by_parts.values()))
        raise DetectorError(f"{path} is no checkpoint of {methods} ({wanted}): choose a file of their code.")
    for name, part in content.items():
        if not _has_names(part) or not all(isinstance(value, Tensor) for value in part.values()):
            raise DetectorError(f"{name} in {path} is no state dict: choose a file that the method's own code saved.")
        for key, value in part.items():
            if not _is_plain(value):
                raise DetectorError(f"{key[:80]} in {path} is no floating-point array: fetch the file again.")
            if not value.isfinite().all():
                raise DetectorError(
                    f"{key[:80]} in {path} holds values that are not finite: the training failed or the file is "
                    "damaged, choose another."
                )
    return Checkpoint(path, by_parts[names], content)


def import_checkpoint(
    path: str | os.PathLike,
    *,
    encoder: str | None = None,
    class_name: str | None = None,
    normal: CaseSources = (),
    abnormal: CaseSources = (),
    reading: Reading = AS_IS,
    name: str | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> AnomalyDetector:
    """Return a detector with the weights of a reference code's checkpoint.

    Such a file holds the trained weights alone. What the reference code computes at test time comes from `normal`
    volumes here: a memory of normal tokens, and the calibration. Without any, a method with a memory gives its
    zero-shot evidence, and map values are the method's own instead of rarities.

    Parameters
    ----------
    path
        The checkpoint.
    encoder
        The encoder that the weights were trained on; by default the reference code's.
    class_name
        What the pictures show, for methods whose prompts name it; by default what the file is called after.
    normal, abnormal, reading, name, progress
        As in `fit`; abnormal volumes scale the maps of methods that need it.
    **options
        As in `fit`.

    Raises
    ------
    DetectorError
        If the file is no such checkpoint, or does not fit the encoder.
    TrainingError, VolumeError
        As in `fit`.
    """
    checkpoint = read_checkpoint(path)
    known, stem = checkpoint.format, checkpoint.path.stem
    encoder = encoder or known.encoder
    config = FitConfig.of(
        method=checkpoint.method, encoder=encoder, **options, **known.options(checkpoint.path, class_name)
    )
    if config.planes == "auto":
        config = config.model_copy(update={"planes": "axial"})  # of which the pictures of the papers' data sets are
    if not encoder_family(encoder).has_text:
        raise DetectorError(
            f"{checkpoint.path} needs the CLIP encoder that it was trained on, not {encoder}: name that one, such as "
            f"{known.encoder}."
        )

    def load(model: AnomalyModel, shots: Shots | None, seed: int, progress: Progress) -> dict[str, float]:
        try:
            known.load(model, checkpoint.parts, shots, seed, progress, class_name or stem)
        except DetectorError as error:
            raise DetectorError(f"{checkpoint.path} does not fit: {error}") from error
        return {}

    sentences = [f"Weights of {checkpoint.path.name}, trained with the reference code of {checkpoint.method}."]
    if note := activation_note(checkpoint.method, encoder):
        sentences.append(note)
    name = name or stem
    healthy, diseased = read_cases(normal, reading), read_cases(abnormal, reading, need_mask=True)
    if healthy or diseased:
        detector = fit(
            normal=healthy, abnormal=diseased, config=config, name=name, description=" ".join(sentences),
            progress=progress, learn=load,
        )  # fmt: skip
        info = detector.info
        unusable = known.require_calibrated(info.normal_slices, info.abnormal_slices, bool(info.spare_slices))
        if unusable:
            raise TrainingError(unusable)
        return detector
    sentences.append(
        f"Not calibrated: no normal slices were given{known.uncalibrated_note()}, and map values are the method's own."
    )
    return _uncalibrated(config, load, name, " ".join(sentences), progress)


def _uncalibrated(config: FitConfig, load: Any, name: str, description: str, progress: Progress) -> AnomalyDetector:
    """Return a detector with the checkpoint's weights alone."""
    method = get_method(config.method)
    encoder = load_encoder(
        config.encoder, config.image_size or method.default_image_size, progress=progress, precision=config.precision
    )
    with torch.random.fork_rng():
        model = method.build(encoder, config.method_options())
    load(model, None, config.seed, progress)
    resolved = {"image_size": encoder.image_size, "intensity": str(parse_preset(config.intensity))}
    info = DetectorInfo(
        name=name,
        description=description,
        config=config.model_copy(update=resolved),
        encoder_sha256=encoder.sha256,
        normal_slices=0,
        abnormal_slices=0,
        spare_slices=0,
        training_slices=[],
        calibration=Calibration(),
        metrics={},
        versions=installed_versions(),
    )
    return AnomalyDetector({config.plane: model}, info)


def activation_note(method: str, encoder: str) -> str | None:
    """Return a sentence if an encoder computes with another activation than the method's reference code, else None.

    OpenAI trained CLIP with QuickGELU; some reference codes run these weights with GELU, and the maps differ. Weights
    of others than OpenAI go with the activation that their architecture names.
    """
    known = get_method(method).reference()
    architecture, _, weights = encoder.partition("/")
    if known is None or not weights or ":" in architecture:
        return None
    ensure_torchvision()
    import open_clip

    config = open_clip.get_model_config(architecture)
    theirs = weights != "openai" and open_clip.pretrained.get_pretrained_cfg(architecture, weights)
    quick, wanted_quick = bool((config or {}).get("quick_gelu")), known.quick_gelu
    if config is None or theirs or quick == wanted_quick:
        return None
    used, wanted = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
    other = f"{architecture}-quickgelu" if wanted_quick else architecture.removesuffix("-quickgelu")
    has_other = other != architecture and open_clip.get_model_config(other)
    remedy = f": name {other} to compute as it did" if has_other else ""
    return f"{architecture} computes with {used}, but the code of {method} ran OpenAI's weights with {wanted}{remedy}."


def export_checkpoint(folder: str | os.PathLike, file: str | os.PathLike) -> list[str]:
    """Write the weights of a detector folder to a new file, as the method's reference code saves them.

    Parameters
    ----------
    folder
        Folder of the detector.
    file
        File to write; it must not exist.

    Returns
    -------
    list of str
        What of the detector the format has no place for and is left out, in words.

    Raises
    ------
    DetectorError
        If the method has no reference code, its format has no place for the weights, the folder is no detector, or the
        file exists or cannot be written.
    """
    file = Path(file)
    if file.exists():
        raise DetectorError(f"{file} exists already: choose another file, or remove it first.")
    detector = load_detector(folder)
    info, known = detector.info, get_method(detector.info.method).reference()
    if known is None:
        raise DetectorError(f"The method {info.method} has no reference code: its detectors cannot be exported.")
    parts = {
        name: OrderedDict((key, value.detach().cpu().clone()) for key, value in part.items())
        for name, part in known.state(detector.model).items()
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temp_path:
            torch.save(parts, temp_path)
    except (OSError, RuntimeError) as error:  # torch.save tells a full disk by RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DetectorError(f"{file} cannot be written ({reason}): free space, or choose another folder.") from error
    return known.left_out(info.config.options, read_weights(folder, info.weights_sha256))


def _has_names(part: object) -> bool:
    return isinstance(part, dict) and all(isinstance(key, str) for key in part)


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor is what it seems: a single stored number can be expanded to a terabyte."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _checked_archive(path: Path) -> io.BytesIO:
    """Return the archive that torch.save wrote, made anew of what zipfile reads in it.

    torch compares no checksums, and takes whatever lay in memory for the values of an entry that a damaged table of
    contents calls a folder. Raises DetectorError unless the file is such an archive, whole, and no larger inside than
    outside.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise DetectorError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except Exception as error:  # zipfile's own kind, and a dozen others on a forged table of contents
        raise DetectorError(
            f"{path} is no file that torch.save wrote, or a part of one: fetch it again from the method's authors, or "
            "save it again with PyTorch 1.6 or later."
        ) from error
    if sum(entry.file_size for entry in entries) > size or len(entries) > MAX_ENTRIES:
        raise DetectorError(f"{path} unpacks to more than its {size} bytes, as no checkpoint does: do not use it.")
    if any(entry.file_size > MAX_INDEX for entry in entries if entry.filename.endswith(".pkl")):
        raise DetectorError(f"{path} lists more than a checkpoint has: do not use it.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise DetectorError(f"{path} is damaged (two entries have one name): fetch it again from its authors.")
    anew = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(anew, "w") as copy:
            for entry in entries:
                copy.writestr(entry.filename, archive.read(entry))
    except Exception as error:  # as above, and zlib's
        raise DetectorError(f"{path} is damaged ({reason(error)}): fetch it again from its authors.") from error
    anew.seek(0)
    return anew
