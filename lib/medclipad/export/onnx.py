"""Encoder and trained head as ONNX, for programs that run neither Python nor torch."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medclipad.detection.detector import load_detector
from medclipad.encoders.weight_errors import reason
from medclipad.errors import DetectorError, MedCLIPADError
from medclipad.files import atomic_file

if TYPE_CHECKING:
    from medclipad.detection.storage import DetectorInfo
    from medclipad.methods.base import AnomalyModel

TOLERANCE = 1e-4
"""Largest difference allowed between a map or score of onnxruntime and that of torch."""
HEIGHTS = (0.0, 0.5, 1.0)  # of the slices that are compared
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class SliceModel(nn.Module):
    """What an ONNX file computes: the map of one slice, and its score.

    Parameters
    ----------
    model
        Trained model of a plane. Its flags become plain values: a graph has no branches that depend on them.
    """

    def __init__(self, model: AnomalyModel) -> None:
        super().__init__()
        self.model = model.eval()
        for name, flag in list(model.named_buffers(recurse=False)):
            if flag.dtype == torch.bool and not flag.ndim:
                delattr(model, name)
                setattr(model, name, bool(flag))

    def forward(self, images: Tensor, heights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return map (1, S, S) and score (1,) of a slice (1, S, S) with its height (1,); see `AnomalyModel`."""
        maps, scores = self.model.anomaly_at(images, heights)
        return maps, self.model.scores_of(maps) if scores is None else scores


def export_onnx(folder: str | os.PathLike, file: str | os.PathLike) -> list[Path]:
    """Write encoder and trained head of a detector as ONNX, each plane that it learned in a file of its own.

    Inputs are `images`, float32 (1, S, S), a slice as `FramedVolume.images` gives it, and for methods that compare
    slices of about the same height in the body `heights`, float32 (1,) in [0, 1]. Outputs are `map`, float32 (1, S, S)
    in [0, 1], and `score`, float32 (1,). The encoder computes in float32.

    Parameters
    ----------
    folder
        Folder of the detector.
    file
        File to write. Of several planes, each file has the plane's name before its suffix.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    DetectorError
        If a needed package is missing, the folder is no detector, a file exists or cannot be written, the model cannot
        be exported, or onnxruntime computes other values than torch. No file is written then.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise DetectorError(
            f'{", ".join(missing)} is not installed: pip install "medclipad[onnx]" brings what is needed.'
        )
    detector, file = load_detector(folder, precision="float32"), Path(file)
    files = {plane: file.with_name(f"{file.stem}.{plane}{file.suffix}") for plane in detector.models}
    if len(files) == 1:
        files = dict.fromkeys(files, file)
    for target in files.values():
        if target.exists():
            raise DetectorError(f"{target} exists already: choose another file, or remove it first.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # all files appear, or none
            for plane, target in files.items():
                temp_path = stack.enter_context(atomic_file(target))
                _write(SliceModel(detector.models[plane].cpu()), temp_path, _metadata(detector.info, plane))
    except MedCLIPADError:
        raise
    except Exception as error:  # a dozen classes of torch, onnxscript and protobuf, and the disk's
        raise DetectorError(f"The detector could not be written as {file} ({reason(error)}).") from error
    return list(files.values())


def _write(model: SliceModel, path: Path, metadata: dict[str, str]) -> None:
    """Export a model, and compare what onnxruntime makes of it with torch."""
    from onnxruntime import InferenceSession

    examples = _examples(model.model)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it reports each operator that it does not fold
    with warnings.catch_warnings(action="ignore"):  # on its own use of torch
        program = torch.onnx.export(
            model,
            examples[0],
            input_names=["images", "heights"][: len(examples[0])],
            output_names=["map", "score"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only where it also writes the file
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)
    session = InferenceSession(path)
    for example in examples:
        with torch.inference_mode():
            expected = model(*example)
        inputs = [one.name for one in session.get_inputs()]
        found = session.run(None, {name: value.numpy() for name, value in zip(inputs, example, strict=True)})
        apart = max(np.abs(a.numpy() - b).max() for a, b in zip(expected, found, strict=True))
        if not apart <= TOLERANCE:  # nan too
            raise DetectorError(
                f"onnxruntime computes values {apart:.2g} away from torch's, more than {TOLERANCE:g}: nothing was "
                "written."
            )


def _examples(model: AnomalyModel) -> list[tuple[Tensor, ...]]:
    """Return slices of noise, the last of them half black, with their heights where the model uses them."""
    size, noise = model.encoder.image_size, torch.Generator().manual_seed(0)
    images = [torch.rand(1, size, size, generator=noise) for _ in HEIGHTS]
    images[-1][:, : size // 2] = 0
    if not model.uses_heights:
        return [(image,) for image in images]
    return [(image, torch.tensor([height])) for image, height in zip(images, HEIGHTS, strict=True)]


def _metadata(info: DetectorInfo, plane: str) -> dict[str, str]:
    """Return what a program must know to make the inputs."""
    return {
        "detector": info.name,
        "plane": plane,
        "intensity": info.intensity,
        "image_size": str(info.image_size),
        "medclipad": version("medclipad"),
    }
