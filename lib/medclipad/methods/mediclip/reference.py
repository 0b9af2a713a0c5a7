"""Checkpoints of MediCLIP's reference code: the adapters and the learned contexts of the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.methods.common.reference import ReferenceFormat, State, check_state
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.prompts import LearnablePrompts
from medclipad.volume.progress import Progress


class MediCLIPReference(ReferenceFormat):
    """MediCLIP's checkpoints: the state dicts of adapters and prompts."""

    parts = ("adapter_state_dict", "prompt_state_dict")
    encoder = "ViT-L-14-quickgelu/openai"
    quick_gelu = True
    file_hint = "MediCLIP's checkpoint"

    def options(self, path: Path, class_name: str | None) -> dict[str, Any]:
        """Return no options; raise DetectorError if a class is given."""
        if class_name:
            raise DetectorError("MediCLIP's prompts name no class: leave the class name out.")
        return {}

    def state(self, model: AnomalyModel) -> State:
        """Return adapters and contexts.

        Raises
        ------
        DetectorError
            If the model has learned vectors.
        """
        network, prompts = _network(model), _network(model).prompts
        if not isinstance(prompts, LearnablePrompts):
            raise DetectorError(
                f"A MediCLIP detector on encoder {network.encoder.name} has learned vectors in place of prompts, which "
                "the reference's checkpoint cannot hold: export one on a CLIP encoder."
            )
        adapters = {}
        for key, value in network.adapters.state_dict().items():
            level, part = key.split(".")
            # The reference's adapters are 1×1 convolutions.
            adapters[f"{level}_adapter.0.{part}"] = value[:, :, None, None] if part == "weight" else value
        contexts = {
            "ctx.abnormal_end": prompts.abnormal_context.detach(),
            "ctx.normal_end": prompts.normal_context.detach(),
        }
        return {"adapter_state_dict": adapters, "prompt_state_dict": contexts}

    @torch.no_grad()
    def load_state(self, model: AnomalyModel, state: State) -> None:
        """Load adapters and contexts, and freeze the features of the prompts; see `ReferenceFormat.load_state`."""
        for part, own in check_state(model, state, self.state(model), "mediclip").items():
            for key, value in own.items():
                value.copy_(state[part][key])
        _network(model).freeze_text_features()

    def load(
        self, model: AnomalyModel, state: State, shots: Shots | None, seed: int, progress: Progress, image_class: str
    ) -> None:
        """Load adapters and contexts, and fill the memory, if there is one; see `ReferenceFormat.load`."""
        self.load_state(model, state)
        if shots is not None:
            _network(model).remember(shots, seed)

    def left_out(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
        """Return the parts of a detector that the format cannot hold, in words."""
        found = super().left_out(options, weights)
        if any(key.startswith("memory.") and len(value) for key, value in weights.items() if value.ndim):
            found.append("the memory of normal tokens")
        if options.get("variant", "reference") != "reference":
            found.append("the paper's variant (the reference code computes another map from the same weights)")
        return found


def _network(model: AnomalyModel) -> MediCLIPNetwork:
    """Return the model if it is MediCLIP's; raise DetectorError otherwise."""
    if not isinstance(model, MediCLIPNetwork):
        raise DetectorError("This is no MediCLIP model.")
    return model
