"""MediCLIP's ablations: prompts and adapters, synthesis, losses and shots (Zhang et al. 2024, tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from medclipad.encoders.registry import encoder_family
from medclipad.methods.common.benchmark_settings import Ablation, Arm, Settings, compare_shots
from medclipad.methods.mediclip.synthesis import MIXTURES
from medclipad.methods.mediclip.training import LOSSES
from medclipad.methods.registry import Variant

_TASKS = tuple(MIXTURES["paper"])  # the reference code's unchanged images are no anomaly: they stay


@dataclass(frozen=True)
class Parts:
    """What an ablation can change in MediCLIP: the keys of `Settings.ablated`.

    Attributes
    ----------
    learnable_tokens
        Whether prompts have learnable tokens before their word.
    adapters
        Whether adapters are learned; otherwise CLIP's own projection takes their place.
    tasks
        Kinds of synthetic anomalies.
    dropped_losses
        Those of `LOSSES` that are not trained on.
    """

    learnable_tokens: bool = True
    adapters: bool = True
    tasks: Sequence[str] = _TASKS
    dropped_losses: Sequence[str] = ()

    def mixture(self, variant: Variant) -> dict[str, float]:
        """Return the probability of each synthesis task: those left out leave theirs to the other anomalies."""
        whole = MIXTURES[variant]
        share = sum(whole[task] for task in _TASKS) / len(self.tasks)
        return {
            task: share if task in _TASKS else p
            for task, p in whole.items()
            if task not in _TASKS or task in self.tasks
        }


_PROMPTS = Ablation(
    (
        Arm("neither", {"learnable_tokens": False, "adapters": False}),
        Arm("learnable tokens", {"adapters": False}),
        Arm("adapters", {"learnable_tokens": False}),
        Arm("learnable tokens and adapters"),
    )
)
_SYNTHESIS = Ablation(
    (
        *(Arm(" + ".join(tasks), {"tasks": list(tasks)}) for n in (1, 2) for tasks in combinations(_TASKS, n)),
        Arm("all tasks"),
    )
)
_LOSSES = Ablation((*(Arm(f"without {name}", {"dropped_losses": [name]}) for name in LOSSES), Arm("all losses")))


def ablations(settings: Settings, available: int) -> dict[str, Ablation]:
    """Return the ablations of an experiment by name.

    Parameters
    ----------
    settings
        Settings of the experiment.
    available
        Number of normal training pictures, which decides what numbers of shots are possible.
    """
    found = {
        "synthesis": _SYNTHESIS,
        "losses": _LOSSES,
        "shots": compare_shots(
            lambda k: k <= available, f"{settings.class_name} has {available} normal training pictures"
        ),
    }
    return {"prompts": _PROMPTS, **found} if encoder_family(settings.encoder).has_text else found
