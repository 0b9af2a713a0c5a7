"""Checkpoints of MVFA's reference code: {Class}.pth with the adapters of both heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.methods.common.augment import augment
from medclipad.methods.common.reference import ReferenceFormat, State, check_state
from medclipad.methods.mvfa.evidence import extremes
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.prompts import CLASS_NAMES
from medclipad.methods.mvfa.training import augmented_volumes, encode_class
from medclipad.volume.progress import Progress

CLASSES_WITHOUT_MASKS = ("Chest", "Histopathology", "Retina_OCT2017")  # of BMAD: the reference has no maps there


class MVFAReference(ReferenceFormat):
    """MVFA-AD's checkpoints: the state dicts of the seg and det adapters."""

    parts = ("det_adapters", "seg_adapters")
    encoder = "ViT-L-14-336/openai"
    quick_gelu = False
    file_hint = "MVFA's {Class}.pth"

    def options(self, path: Path, class_name: str | None) -> dict[str, Any]:
        """Return the class that the prompts name: the given one, or the class of BMAD after which the file is named.

        Raises
        ------
        DetectorError
            If no class is given and the file's name is no class of BMAD.
        """
        given = class_name or (path.stem if path.stem in CLASS_NAMES else None)
        if given is None:
            raise DetectorError(
                f"{path} does not say what its pictures show: name it with --class-name, such as Brain."
            )
        return {"class_name": CLASS_NAMES.get(given, given)}

    def state(self, model: AnomalyModel) -> State:
        """Return the adapters.

        Raises
        ------
        DetectorError
            If the model has learned vectors, or is of the paper's variant.
        """
        network = _network(model)
        if network.options.variant != "reference" or not network.encoder.has_text:
            what = "learned vectors in place of prompts" if not network.encoder.has_text else "the paper's projectors"
            raise DetectorError(
                f"An MVFA detector with {what} has no place in the reference's checkpoint: export one of variant "
                "reference on a CLIP encoder."
            )
        return {name: module.state_dict() for name, module in network.adaptation.modules.items()}

    def load_state(self, model: AnomalyModel, state: State) -> None:
        """Load the adapters; see `ReferenceFormat.load_state`."""
        network = _network(model)
        for part in check_state(model, state, self.state(model), "mvfa"):
            network.adaptation.modules[part].load_state_dict(state[part])

    def load(
        self, model: AnomalyModel, state: State, shots: Shots | None, seed: int, progress: Progress, image_class: str
    ) -> None:
        """Load the adapters, encode the prompts, and fill the memory from the shots; see `ReferenceFormat.load`."""
        network = _network(model)
        network.has_masks.fill_(image_class not in CLASSES_WITHOUT_MASKS)
        self.load_state(network, state)
        encode_class(network, progress)
        if shots is None:
            return
        images = augment(torch.as_tensor(shots.normal))
        network.remember(images, seed, progress, volumes=augmented_volumes(shots, len(images)))
        if len(shots.abnormal):
            network.ranges = torch.stack(extremes(network.evidence(shots.abnormal, network.scored)), dim=1)
        else:
            network.ranges = torch.full_like(network.ranges, torch.nan)  # until `calibrate`

    def require_calibrated(self, shots: int, abnormal_shots: int, held_out: bool) -> str | None:
        """Return why the maps have no scale: there is neither an abnormal slice nor a normal one to spare."""
        if abnormal_shots or held_out:
            return None
        return (
            f"All {shots} normal slices went into the memory and none is left to scale the maps by: ask for "
            "fewer shots, or give another normal volume."
        )

    def uncalibrated_note(self) -> str:
        """Return that the maps are zero-shot."""
        return ", the map is the zero-shot evidence alone"

    def left_out(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
        """Return the parts of a detector that the format cannot hold, in words."""
        found = ["the class name, plane, intensity preset and calibration"]
        if any(key.startswith("memory.") and len(value) for key, value in weights.items() if value.ndim):
            found.append("the memory of normal tokens")
        if options.get("variant", "reference") != "reference":
            found.append("the paper's variant (the reference code computes another map from the same weights)")
        if options.get("residual") is not None:
            found.append("the residual share")
        return found


def _network(model: AnomalyModel) -> MVFANetwork:
    """Return the model if it is MVFA's; raise DetectorError otherwise."""
    if not isinstance(model, MVFANetwork):
        raise DetectorError("This is no MVFA model.")
    return model
