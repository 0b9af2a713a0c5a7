"""Checkpoints of the reference projects, MVFA's {Class}.pth and MediCLIP's: read, made a detector, written back."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from medclipad.compat import ensure_torchvision
from medclipad.detection.calibration import Calibration
from medclipad.detection.detector import MAX_SMOOTHING, AnomalyDetector, fit, installed_versions, load_detector
from medclipad.detection.slice_selection import Case
from medclipad.detection.storage import DetectorInfo, read_weights
from medclipad.encoders import load_encoder
from medclipad.errors import DetectorError, TrainingError
from medclipad.files import atomic_file
from medclipad.methods import method_class
from medclipad.methods.base import AnomalyMethod, Progress, Shots, silent
from medclipad.methods.mvfa.prompts import CLASS_NAMES
from medclipad.volume import PLANES, Volume, parse_preset
from medclipad.volume.read_errors import reason

PARTS = {
    ("det_adapters", "seg_adapters"): "mvfa",
    ("adapter_state_dict", "prompt_state_dict"): "mediclip",
}
"""Names of a checkpoint's state dicts -> method."""

REFERENCE_ENCODERS = {"mvfa": "ViT-L-14-336/openai", "mediclip": "ViT-L-14-quickgelu/openai"}
CLASSES_WITHOUT_MASKS = ("Chest", "Histopathology", "Retina_OCT2017")  # of BMAD: the reference maps nothing there
UNCALIBRATED = 0.5
MAX_ENTRIES = 1000  # in an archive; the reference projects' have about 20
MAX_INDEX = 1 << 20  # bytes of an archive's pickle; the reference projects' have a few thousand


@dataclass(frozen=True)
class Checkpoint:
    """What a reference project saved: state dicts by name, checked to be finite tensors, and the method they are of."""

    path: Path
    method: str
    parts: dict[str, dict[str, Tensor]]


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a reference project's file without running anything in it.

    Raises DetectorError if it is missing, damaged, no such checkpoint, or holds values that are not finite.
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
    if names not in PARTS:
        wanted = ", or ".join(" and ".join(one) for one in PARTS)
        raise DetectorError(f"{path} is no checkpoint of MVFA or MediCLIP ({wanted}): choose a file of their code.")
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
    return Checkpoint(path, PARTS[names], content)


def import_checkpoint(
    path: str | os.PathLike,
    encoder: str | None = None,
    class_name: str | None = None,
    normal: Sequence[Case] = (),
    abnormal: Sequence[tuple[Volume, Volume]] = (),
    shots: int | None = 32,
    plane: str = "axial",
    intensity: str = "auto",
    seed: int = 0,
    image_size: int | None = None,
    smoothing: float = 4.0,
    name: str | None = None,
    progress: Progress = silent,
    precision: str = "auto",
    **options,
) -> AnomalyDetector:
    """A detector with the weights of a reference project's checkpoint.

    Such a file holds the trained weights alone. What the reference computes at test time comes from `normal` volumes
    here: MVFA's memory, and the calibration. Without any, MVFA gives its zero-shot evidence, and the threshold is .5 by
    convention.

    Parameters
    ----------
    encoder: the one that the weights were trained on; default the reference's, "ViT-L-14-336/openai" for MVFA and
        "ViT-L-14-quickgelu/openai" for MediCLIP.
    class_name: of MVFA: what the prompts call the picture, or a class of BMAD; default what the file is called after.
    abnormal: MVFA scales its maps by what these show; without them normal slices fill the lower half of the scale.
    The others are those of `fit`.

    Raises DetectorError if the file is not such a checkpoint or does not fit the encoder, and what `fit` raises.
    """
    checkpoint = read_checkpoint(path)
    encoder = encoder or REFERENCE_ENCODERS[checkpoint.method]
    kind, with_masks = method_class(checkpoint.method), True
    if checkpoint.method == "mvfa":
        given = class_name or (checkpoint.path.stem if checkpoint.path.stem in CLASS_NAMES else None)
        if given is None:
            raise DetectorError(
                f"{checkpoint.path} does not say what its pictures show: name it with --class-name, such as Brain."
            )
        options["class_name"], with_masks = CLASS_NAMES.get(given, given), given not in CLASSES_WITHOUT_MASKS
    elif class_name:
        raise DetectorError("MediCLIP's prompts name no class: leave the class name out.")
    if plane not in PLANES:
        raise DetectorError(f'There is no plane "{plane}": choose one of {", ".join(PLANES)}.')
    if not 0 <= smoothing <= MAX_SMOOTHING:
        raise DetectorError(f"A smoothing of {smoothing} mm is not possible: give 0 to {MAX_SMOOTHING:g} mm.")
    try:
        checked = kind.Options(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DetectorError(f"Option {fault['loc'][0]} is not possible: {fault['msg']}.") from error
    image_size = image_size or kind.default_encoder_size
    tower = load_encoder(encoder, image_size, progress=progress, precision=precision)
    if not tower.text:
        raise DetectorError(
            f"{checkpoint.path} needs the CLIP encoder that it was trained on, not {encoder}: name that one, such as "
            f"{REFERENCE_ENCODERS[checkpoint.method]}."
        )

    def load(model: AnomalyMethod, shots: Shots | None, seed: int, progress: Progress) -> dict:
        if checkpoint.method == "mvfa":
            model.has_masks.fill_(with_masks)
        try:
            model.adopt(checkpoint.parts, shots, seed, progress)
        except DetectorError as error:
            raise DetectorError(f"{checkpoint.path} does not fit: {error}") from error
        return {}

    sentences = [f"Weights of {checkpoint.path.name}, trained with the reference code of {checkpoint.method}."]
    if note := activation_note(checkpoint.method, encoder):
        sentences.append(note)
    common = {"name": name or checkpoint.path.stem, "plane": plane, "smoothing": smoothing, "seed": seed}
    if normal or abnormal:
        detector = fit(
            method=checkpoint.method, encoder=encoder, normal=normal, abnormal=abnormal, shots=shots,
            intensity=intensity, image_size=image_size, description=" ".join(sentences), progress=progress, learn=load,
            precision=precision, **common, **options,
        )  # fmt: skip
        info = detector.info
        if checkpoint.method == "mvfa" and not info.abnormal_shots and not info.calibration.held_out:
            raise TrainingError(
                f"All {info.shots} normal slices went into the memory and none is left to scale the maps by: ask for "
                "fewer shots, or give another normal volume."
            )
        return detector

    with torch.random.fork_rng():
        model = kind(tower, checked)
    load(model, None, seed, progress)
    zero_shot = ", the map is the zero-shot evidence alone" if checkpoint.method == "mvfa" else ""
    sentences.append(f"Not calibrated: no normal slices were given{zero_shot}, and the threshold is {UNCALIBRATED}.")
    info = DetectorInfo(
        description=" ".join(sentences),
        method=checkpoint.method,
        options=checked.model_dump(),
        encoder=encoder,
        encoder_sha256=tower.sha256,
        image_size=tower.image_size,
        intensity=str(parse_preset(intensity)),
        shots=0,
        abnormal_shots=0,
        training_slices=[],
        calibration=Calibration(threshold=UNCALIBRATED, normal_scores=[], held_out=False),
        metrics={},
        versions=installed_versions(),
        **common,
    )
    return AnomalyDetector(model, info)


def activation_note(method: str, encoder: str) -> str | None:
    """A sentence if an encoder, by its name, computes with another activation than the method's reference code.

    OpenAI trained CLIP with QuickGELU. MediCLIP's code ran these weights so, MVFA's with GELU; the maps differ. None
    too of tags of others than OpenAI, which go with the activation that their architecture names.
    """
    architecture, _, weights = encoder.partition("/")
    if method not in REFERENCE_ENCODERS or not weights or ":" in architecture:
        return None
    ensure_torchvision()
    import open_clip

    config = open_clip.get_model_config(architecture)
    theirs = weights != "openai" and open_clip.pretrained.get_pretrained_cfg(architecture, weights)
    quick, wanted_quick = bool((config or {}).get("quick_gelu")), "quickgelu" in REFERENCE_ENCODERS[method]
    if config is None or theirs or quick == wanted_quick:
        return None
    used, wanted = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
    other = f"{architecture}-quickgelu" if wanted_quick else architecture.removesuffix("-quickgelu")
    known = other != architecture and open_clip.get_model_config(other)
    remedy = f": name {other} to compute as it did" if known else ""
    return f"{architecture} computes with {used}, but the code of {method} ran OpenAI's weights with {wanted}{remedy}."


def export_checkpoint(folder: str | os.PathLike, file: str | os.PathLike) -> list[str]:
    """Write the weights of a detector folder to a new file, in the format of the method's reference code.

    Returns what that format has no place for and is left out. Raises DetectorError if it has no place for the weights
    either, the folder is no detector, or the file exists or cannot be written.
    """
    file = Path(file)
    if file.exists():
        raise DetectorError(f"{file} exists already: choose another file, or remove it first.")
    detector = load_detector(folder)
    parts = {
        name: OrderedDict((key, value.detach().cpu().clone()) for key, value in part.items())
        for name, part in detector.reference_state().items()
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temp_path:
            torch.save(parts, temp_path)
    except (OSError, RuntimeError) as error:  # torch.save tells a full disk by RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DetectorError(f"{file} cannot be written ({reason}): free space, or choose another folder.") from error
    return _left_out(detector.info, read_weights(folder))


def _left_out(info: DetectorInfo, weights: dict[str, Tensor]) -> list[str]:
    """What a detector has beyond the weights that the reference's format holds."""
    found = ["the class name, plane, intensity preset and calibration"]
    if info.method == "mediclip":
        found[0] = found[0].replace("class name, ", "")
    if any(key.startswith("memory.") and len(value) for key, value in weights.items() if value.ndim):
        found.append("the memory of normal tokens")
    if info.options.get("variant", "reference") != "reference":
        found.append("the paper's variant (the reference code computes another map from the same weights)")
    if info.options.get("residual") is not None:
        found.append("the residual share")
    return found


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
    """The archive that torch.save wrote, made anew of what zipfile reads in it: torch compares no checksums, and gives
    whatever lay in memory for the values of an entry that a damaged table of contents calls a folder.

    Raises DetectorError unless the file is such an archive, whole, and no larger inside than outside.
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
        raise DetectorError(f"{path} lists more than a checkpoint of MVFA or MediCLIP has: do not use it.")
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
