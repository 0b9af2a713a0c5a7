"""MVFA's ablations: its levels, adapters, losses and shots (Huang et al. 2024, tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medclipad.encoders import N_STAGES
from medclipad.encoders.registry import encoder_family
from medclipad.methods.common.benchmark_settings import Ablation, Arm, Settings, compare_shots
from medclipad.methods.mvfa import bmad
from medclipad.methods.mvfa.training import Losses


@dataclass(frozen=True)
class Parts:
    """What an ablation can change in MVFA: the keys of `Settings.ablated`.

    Attributes
    ----------
    levels
        Levels whose features are learned and compared, 0 to 3. The encoder's tokens pass the others unchanged.
    projection
        Linear projectors in place of the adapters.
    dropped_losses
        Fields of `Losses` that are not trained on.
    """

    levels: Sequence[int] = range(N_STAGES)
    projection: bool = False
    dropped_losses: Sequence[str] = ()


_ADAPTERS = Ablation((Arm("projection", {"projection": True}), Arm("adapters")))
_LOSSES = Ablation(
    (*(Arm(f"without {name}", {"dropped_losses": [name]}) for name in Losses._fields), Arm("all losses"))
)


def ablations(settings: Settings, seeds: Path) -> dict[str, Ablation]:
    """Return the ablations of an experiment by name.

    Parameters
    ----------
    settings
        Settings of the experiment.
    seeds
        Folder of the seed files, which decide what numbers of shots are possible.

    Raises
    ------
    VolumeError
        If BMAD has no such class.
    """
    bmad.check_class(settings.class_name)
    found = {"levels": _levels(settings), "adapters": _ADAPTERS}
    name, zero_shot = settings.class_name, settings.shots == 0
    if zero_shot or name in bmad.MASKED:  # otherwise there is but one loss
        found["losses"] = _LOSSES
    if not zero_shot:
        found["shots"] = compare_shots(lambda k: bmad.seed_file(seeds, name, k).is_file(), "there is no seed file")
    return found


def _levels(settings: Settings) -> Ablation:
    """Return each level alone, and all."""
    alone = [Arm(f"level {level + 1}", {"levels": [level]}) for level in range(N_STAGES)]
    left_out = ""
    if settings.variant == "paper" and encoder_family(settings.encoder).has_text:
        left_out = f"{alone.pop().name} alone, which has nothing to learn in the paper's variant"
    return Ablation((*alone, Arm("all levels")), left_out)
