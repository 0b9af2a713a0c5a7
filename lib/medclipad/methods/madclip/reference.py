"""Checkpoints of MadCLIP's reference code: {Class}.pth with the adapters of both branches and the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.methods.common.reference import ReferenceFormat, State, check_state
from medclipad.methods.madclip.network import MadCLIPNetwork
from medclipad.methods.madclip.prompts import LABELS, PLACES
from medclipad.volume.progress import Progress

CLASS_NAMES = {
    "Brain": "Brain",
    "Liver": "Liver",
    "Retina_RESC": "retinal OCT",
    "Retina_OCT2017": "retinal OCT",
    "Chest": "Chest X-ray film",
    "Histopathology": "histopathological image",
}
"""Class of the BMAD benchmark -> what the reference code calls it in prompts."""
CLASSES_WITHOUT_MASKS = ("Chest", "Histopathology", "Retina_OCT2017")  # of BMAD: the reference has no maps there
LAYERS = {"shared": "fc1", "det": "fc2", "seg": "fc3"}  # our name of a layer -> the reference's
TOWER = "text_encoder."  # of keys that repeat CLIP's own text tower, which is frozen


class MadCLIPReference(ReferenceFormat):
    """MadCLIP's checkpoints: the state dicts of both adapter sets and of both sets of prompts."""

    parts = ("abnormal_det_adapters", "normal_det_adapters", "prompt_maker_abnormal", "prompt_maker_normal")
    encoder = "ViT-L-14-336/openai"
    quick_gelu = False
    file_hint = "MadCLIP's {Class}.pth"

    def options(self, path: Path, class_name: str | None) -> dict[str, Any]:
        """Return the class that the prompts name: the given one, or the class of BMAD after which the file is named.

        Raises
        ------
        DetectorError
            If no class is given and the file's name is no class of BMAD.
        """
        stem = path.name.partition(".")[0]  # one published file is called Retina_RESC.tar.pth
        given = class_name or (stem if stem in CLASS_NAMES else None)
        if given is None:
            raise DetectorError(
                f"{path} does not say what its pictures show: name it with --class-name, such as Brain."
            )
        return {"class_name": CLASS_NAMES.get(given, given)}

    def state(self, model: AnomalyModel) -> State:
        """Return adapters and contexts.

        Raises
        ------
        DetectorError
            If the model has learned vectors.
        """
        network = _network(model)
        if network.prompts is None:
            raise DetectorError(
                f"A MadCLIP detector on encoder {network.encoder.name} has learned vectors in place of prompts, which "
                "the reference's checkpoint cannot hold: export one on a CLIP encoder."
            )
        found: State = {part: {} for part in self.parts}
        branches = dict(zip(LABELS, (network.normal_adapters, network.abnormal_adapters), strict=True))
        for label, adapters in branches.items():
            for level, adapter in enumerate(adapters):
                for ours, theirs in LAYERS.items():
                    weight = adapter.get_submodule(ours).get_parameter("weight").detach()
                    found[f"{label}_det_adapters"][f"{level}.{theirs}.0.weight"] = weight
            for place in PLACES:
                context = network.prompts.contexts[f"{label}_{place}"].detach()
                found[f"prompt_maker_{label}"][f"prompt_learner.ctx.{label}_{place}"] = context
        return found

    @torch.no_grad()
    def load_state(self, model: AnomalyModel, state: State) -> None:
        """Load adapters and contexts, and freeze the features of the prompts; see `ReferenceFormat.load_state`."""
        own_part = {
            part: {key: value for key, value in values.items() if not key.startswith(TOWER)}
            for part, values in state.items()
        }
        for part, own in check_state(model, own_part, self.state(model), "madclip").items():
            for key, value in own.items():
                value.copy_(own_part[part][key])
        _network(model).freeze_text_features()

    def load(
        self, model: AnomalyModel, state: State, shots: Shots | None, seed: int, progress: Progress, image_class: str
    ) -> None:
        """Load adapters and contexts; shots teach nothing more. See `ReferenceFormat.load`."""
        self.load_state(model, state)
        _network(model).has_masks.fill_(image_class.partition(".")[0] not in CLASSES_WITHOUT_MASKS)

    def left_out(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
        """Return the parts of a detector that the format cannot hold, in words."""
        return [
            "the class name, plane, intensity preset and calibration",
            "CLIP's own text tower, which the reference code's files repeat (load with strict=False there)",
        ]


def _network(model: AnomalyModel) -> MadCLIPNetwork:
    """Return the model if it is MadCLIP's; raise DetectorError otherwise."""
    if not isinstance(model, MadCLIPNetwork):
        raise DetectorError("This is no MadCLIP model.")
    return model
